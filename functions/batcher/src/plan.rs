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
            changes.extend(self.relocation(name, &table).await?);
            match self.tables.load(&table).await {
                Ok(found) => {
                    let before = self.project.file().streams.get(name).map(|before| before.schema.as_slice());
                    changes.extend(evolution(name, before.unwrap_or_default(), declaration, &found));
                }
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

    /// The change of a stream to another table.
    async fn relocation(&self, name: &str, to: &TableName) -> Result<Option<Change>> {
        if !self.project.file().streams.contains_key(name) {
            return Ok(None);
        }
        let from = self.project.stream_table(name)?;
        if from == *to {
            return Ok(None);
        }
        let what = format!("table `{from}` → `{to}`");
        let mut then = format!(
            "all that the stream still holds, also what is in `{from}`, is written to `{to}` with its next records or flush; `{from}` keeps its rows"
        );
        let waiting = self.replays(name).waiting().await?.len();
        if waiting == 0 {
            return Ok(Some(Change::new(Effect::Applied, "stream", name, what, then)));
        }
        let objects = counted(waiting as u64, "object");
        then.push_str(&format!("; {objects} below `errors/` may be of records that are read again: replay them first"));
        Ok(Some(Change::new(Effect::NeedsAllow, "stream", name, what, then)))
    }

    async fn removal(&self, name: &str, table: &TableName) -> Result<Change> {
        let pending = match self.pending_records(name).await {
            Ok(pending) => pending,
            Err(error) if error.kind() == ErrorKind::NotFound => 0,
            Err(error) => return Err(error),
        };
        let mut behind = Vec::new();
        if pending > 0 {
            let records = counted(pending, "record");
            behind.push(format!(
                "{records} in the stream and not in `{table}` yet would stay behind: flush the stream first"
            ));
        }
        let waiting = self.replays(name).waiting().await?.len();
        if waiting > 0 {
            let objects = counted(waiting as u64, "object");
            behind.push(format!("records that were not stored ({objects} below `errors/`) can't be replayed then"));
        }
        Ok(match behind.is_empty() {
            true => Change::new(Effect::Applied, "stream", name, "removed", format!("`{table}` keeps its rows")),
            false => Change::new(Effect::NeedsAllow, "stream", name, "removed", behind.join("; ")),
        })
    }
}

/// How the table of a stream would follow its declaration.
fn evolution(stream: &str, before: &[Column], declaration: &StreamDeclaration, table: &Table) -> Vec<Change> {
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
    let required: Vec<String> =
        table.columns().into_iter().filter(|column| column.required).map(|column| column.name).collect();
    for old in before {
        let Some(new) = declaration.schema.iter().find(|column| column.name == old.name) else {
            if !required.contains(&old.name) {
                let then = format!("`{name}` keeps it, null in rows that come; such fields of records are passed over");
                changes.push(change(Effect::Applied, format!("no column `{}`", old.name), then));
            }
            continue;
        };
        if new.ty != old.ty {
            let then = "records are checked against it from now on, those in the stream too".to_owned();
            changes.push(change(Effect::Applied, format!("column `{}`: {} → {}", new.name, old.ty, new.ty), then));
        }
        if new.required != old.required {
            let what = if new.required { "is required" } else { "may be missing" };
            let then = format!("of records that come and those in the stream; `{name}` keeps its rows");
            changes.push(change(Effect::Applied, format!("column `{}` {what}", new.name), then));
        }
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
                changes.push(change(Effect::Applied, format!("`{name}`: {what}"), "with the next commit".to_owned()));
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
