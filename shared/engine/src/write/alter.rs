//! ALTER TABLE: changes that touch no row.

use super::{Outcome, Write, define};
use crate::sources;
use crate::statement::{Alteration, Named};
use shared::{ErrorKind, Result};
use table::{Alter, Table};

impl Write<'_> {
    pub(super) async fn alter(&self, named: &Named, alterations: Vec<Alteration>) -> Result<Outcome> {
        self.without_key("ALTER TABLE", "no snapshot is made that could hold it")?;
        let (table, changes) = self.alterations(named, &alterations).await?;
        let optional = alterations.iter().any(|a| matches!(a, Alteration::DropRefIfExists(_)));
        match table.alter(&changes).await {
            Ok(now) => {
                let outcome = Outcome::new("ALTER TABLE", now.name());
                let moved = now.current_snapshot().filter(|_| now.current_snapshot() != table.current_snapshot());
                Ok(Outcome { snapshot_id: moved, ..outcome })
            }
            Err(error) if error.kind() == ErrorKind::NotFound && optional && changes.len() == 1 => {
                Ok(Outcome::new("ALTER TABLE", table.name()).noted("there was no such branch or tag"))
            }
            Err(error) => Err(error),
        }
    }

    /// The table, and what is to change of it.
    pub(super) async fn alterations(&self, named: &Named, asked: &[Alteration]) -> Result<(Table, Vec<Alter>)> {
        let table = self.iceberg(named).await?;
        let state = self.run.session(self.engine);
        let mut changes = Vec::with_capacity(asked.len());
        for alteration in asked {
            changes.push(match alteration {
                Alteration::To(Alter::SetProperties(properties)) => {
                    Alter::SetProperties(define::properties(properties)?)
                }
                Alteration::To(Alter::RemoveProperties(names)) => Alter::RemoveProperties(define::named(names)),
                Alteration::To(change) => change.clone(),
                Alteration::RollbackToTime(time) => Alter::RollbackToTime(sources::instant(&state, time).await?),
                Alteration::DropRefIfExists(name) => Alter::DropRef(name.clone()),
            });
        }
        Ok((table, changes))
    }
}
