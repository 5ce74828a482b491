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
                let note = moved.and_then(|_| positions(&table, &now, &changes));
                Ok(Outcome { snapshot_id: moved, note, ..outcome })
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
                Alteration::RollbackToTime { time, replay } => {
                    Alter::RollbackToTime { before_ms: sources::instant(&state, time).await?, replay: *replay }
                }
                Alteration::DropRefIfExists(name) => Alter::DropRef(name.clone()),
            });
        }
        Ok((table, changes))
    }
}

/// What a rollback means for those that write to the table by what they have read.
fn positions(before: &Table, now: &Table, changes: &[Alter]) -> Option<String> {
    let is_rollback = |change: &Alter| matches!(change, Alter::RollbackTo { .. } | Alter::RollbackToTime { .. });
    if !changes.iter().any(is_rollback) {
        return None;
    }
    let (had, has) = (before.tokens(), now.tokens());
    let (mut stays, mut again) = (Vec::new(), Vec::new());
    for (key, value) in &had {
        let Some(writer) = writer(key) else { continue };
        if has.get(key) == Some(value) { stays.push(writer) } else { again.push(writer) }
    }
    let told =
        |writers: Vec<String>, what: &str| (!writers.is_empty()).then(|| format!("{} {what}", writers.join(", ")));
    let parts = [
        told(stays, "will not write the rows again that left: `replay => true` makes them"),
        told(again, "will read again what they read after that snapshot, as far as it is still kept"),
    ];
    let note = parts.into_iter().flatten().collect::<Vec<_>>().join("; ");
    (!note.is_empty()).then_some(note)
}

/// Who writes under a token, for a person.
fn writer(key: &str) -> Option<String> {
    let (kind, name) = key.split_once('.')?;
    match (kind, name.split_once('.')) {
        ("stream", _) => Some(format!("the stream `{name}`")),
        ("job", Some((workflow, job))) => Some(format!("the job `{job}` of the workflow `{workflow}`")),
        _ => None,
    }
}
