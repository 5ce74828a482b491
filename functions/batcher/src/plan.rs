//! `POST /plan`: what a new lakehouse file would change here, and what would happen. Changes nothing.

use std::collections::BTreeSet;
use std::sync::Arc;

use shared::api::status::counted;
use shared::model::{Column, TableName};
use shared::project::changes::{Change, Effect, between};
use shared::project::{Project, StreamDeclaration};
use shared::{ErrorKind, Result};
use table::{Evolution, Table};

use crate::Batcher;

impl Batcher {
    /// What differs between the file in force and `next`, the gravest first.
    ///
    /// # Errors
    /// What catalog, state and streams answer.
    pub async fn plan(&self, next: &Project) -> Result<Vec<Change>> {
        let mut changes = between(&self.project, next)?;
        if let Err(error) = Self::new(Arc::new(next.clone()), self.ports.clone()) {
            changes.push(Change::new(Effect::Impossible, "stream", "", "a schema", error.to_string()));
        }
        for (name, declaration) in &next.file().streams {
            changes.extend(self.resharding(name, declaration).await?);
            let table = next.stream_table(name)?;
            match self.tables.load(&table).await {
                Ok(found) => changes.extend(evolution(name, declaration, &found)),
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                // On AWS the functions that run may look only into the databases of the file in force.
                Err(error)
                    if error.kind() == ErrorKind::Denied && !self.project.databases().contains(&table.database) => {}
                Err(error) if error.kind() != ErrorKind::Invalid => return Err(error),
                Err(error) => {
                    let what = format!("its table `{table}`");
                    changes.push(Change::new(Effect::Impossible, "stream", name, what, error.to_string()));
                }
            }
        }
        for change in
            changes.iter_mut().filter(|change| change.subject == "stream" && change.what.starts_with("table `"))
        {
            let waiting = self.replays(&change.name).waiting().await?.len();
            if waiting > 0 {
                change.effect = Effect::NeedsAllow;
                change.then = format!(
                    "{}; {} below `errors/` may be of records that are read again: replay or remove them first",
                    change.then,
                    counted(waiting as u64, "object")
                );
            }
        }
        for name in self.project.file().streams.keys().filter(|name| !next.file().streams.contains_key(*name)) {
            changes.push(self.removal(name, &self.project.stream_table(name)?).await?);
        }
        changes.sort_by_key(|change| change.effect);
        Ok(changes)
    }

    async fn resharding(&self, name: &str, next: &StreamDeclaration) -> Result<Option<Change>> {
        if self.ports.stream.can_reshard() {
            let before = self.project.file().streams.get(name).filter(|before| before.shards != next.shards);
            let then = "by the deployment: every stream gets the most that any asks for";
            return Ok(before.map(|before| {
                let what = format!("{} → {} shards", before.shards, next.shards);
                Change::new(Effect::Applied, "stream", name, what, then)
            }));
        }
        // Also of a stream that the file did not have for a while.
        let shards = match self.ports.stream.shards(name).await {
            Ok(shards) => shards.len(),
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let what = format!("{shards} → {} shards", next.shards);
        let then = "a stream on one machine keeps the shards that it was made with";
        let is_other = usize::try_from(next.shards) != Ok(shards);
        Ok(is_other.then(|| Change::new(Effect::Impossible, "stream", name, what, then)))
    }

    async fn removal(&self, name: &str, table: &TableName) -> Result<Change> {
        let pending = match self.pending_records(name).await {
            Ok(pending) => pending,
            Err(error) if error.kind() == ErrorKind::NotFound => 0,
            Err(error) => return Err(error),
        };
        Ok(match pending {
            0 => Change::new(Effect::Applied, "stream", name, "removed", format!("`{table}` keeps its rows")),
            pending => {
                let then = format!(
                    "{} in the stream and not in `{table}` yet would stay behind: flush the stream first",
                    counted(pending, "record")
                );
                Change::new(Effect::NeedsAllow, "stream", name, "removed", then)
            }
        })
    }
}

/// How the table of a stream would follow its declaration.
fn evolution(stream: &str, declaration: &StreamDeclaration, table: &Table) -> Vec<Change> {
    let name = table.name();
    let change = |effect, what: String, then: String| Change::new(effect, "stream", stream, what, then);
    let mut changes = Vec::new();
    let columns: BTreeSet<&str> = declaration.schema.iter().map(|column| column.name.as_str()).collect();
    let gone = table.columns().into_iter().filter(|column| !columns.contains(column.name.as_str()));
    for Column { name: column, .. } in gone.filter(|column| column.required) {
        let then = format!(
            "`{name}` has it and needs a value in each row: ALTER TABLE {name} ALTER COLUMN {column} DROP NOT NULL first"
        );
        changes.push(change(Effect::Impossible, format!("no column `{column}`"), then));
    }
    match table.evolution(&declaration.schema, &declaration.partition_by) {
        Ok(Evolution { added, changed, partitioning }) => {
            for column in added {
                changes.push(change(
                    Effect::Applied,
                    format!("column `{column}`"),
                    format!("`{name}` gains it with the next commit"),
                ));
            }
            for what in changed {
                changes.push(change(Effect::Applied, what, format!("`{name}` follows with the next commit")));
            }
            if let Some(fields) = partitioning {
                let then = "of files that come; those that are there stay as they are".to_owned();
                changes.push(change(Effect::Applied, format!("partitioned by {fields}"), then));
            }
        }
        Err(error) => changes.push(change(Effect::Impossible, format!("columns of `{name}`"), error.to_string())),
    }
    changes
}
