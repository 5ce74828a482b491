//! `POST /plan`: what a new lakehouse file would change here, and what would happen. Changes nothing.

use std::collections::BTreeSet;
use std::sync::Arc;

use shared::api::status::counted;
use shared::model::{Column, TableName};
use shared::project::changes::{Change, Effect, Rename, between, renames};
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
        let renames = renames(&self.project, next);
        let mut renamed = BTreeSet::new();
        for (name, declaration) in &next.file().streams {
            let rename = renames.iter().find(|rename| rename.to == *name);
            let was = match rename {
                Some(rename) => self.renaming(rename, next).await?.map(|change| (&rename.from, change)),
                None => None,
            };
            let was = was.map(|(from, change)| {
                changes.push(change);
                renamed.insert(from);
                from.as_str()
            });
            let before = was.unwrap_or(name);
            changes.extend(self.resharding(before, declaration, name).await?);
            let table = next.stream_table(name)?;
            changes.extend(self.relocation(before, name, &table).await?);
            match self.tables.load(&table).await {
                Ok(found) => {
                    let before = self.project.file().streams.get(before).map(|before| before.schema.as_slice());
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
        let gone = self.project.file().streams.keys().filter(|name| !next.file().streams.contains_key(*name));
        for name in gone.filter(|name| !renamed.contains(name)) {
            changes.push(self.removal(name, &self.project.stream_table(name)?).await?);
        }
        changes.sort_by_key(|change| change.effect);
        Ok(changes)
    }

    /// A stream that goes on under another name; none when there is no stream that could.
    async fn renaming(&self, Rename { from, to }: &Rename, next: &Project) -> Result<Option<Change>> {
        let change = |effect, then: String| Ok(Some(Change::new(effect, "stream", to, format!("was `{from}`"), then)));
        if !self.has_stream(from).await? {
            return Ok(None);
        }
        if !self.ports.stream.can_rename() {
            let pending =
                if self.project.file().streams.contains_key(from) { self.pending_records(from).await? } else { 0 };
            let waiting = self.replays(from).waiting().await?.len();
            if pending == 0 && waiting == 0 {
                let table = next.stream_table(to)?;
                let then = format!(
                    "a stream of Kinesis keeps its name: a new one is made, and `{table}` goes on; `{from}` goes, with what it still takes"
                );
                return change(Effect::Applied, then);
            }
            let (records, objects) = (counted(pending, "record"), counted(waiting as u64, "object"));
            let then = format!(
                "a stream of Kinesis keeps its name: a new one is made, which would not have the {records} of `{from}` that no table has yet, nor those below \
                 `errors/` ({objects}). Stop who sends to it, flush it and replay its errors; or leave `was` out, and allow that they stay behind"
            );
            return change(Effect::Impossible, then);
        }
        let (held, waiting) = (self.held(to).await?, self.replays(to).waiting().await?.len());
        if held > 0 || waiting > 0 {
            let (records, objects) = (counted(held, "record"), counted(waiting as u64, "object"));
            let then = format!(
                "an earlier stream `{to}` still holds {records}, and {objects} below `errors/`: choose another name, or wait until its retention is over"
            );
            return change(Effect::Impossible, then);
        }
        let then = format!(
            "what `{from}` holds, where its table stands and its records below `errors/` go on as `{to}`; nobody can send to `{from}` any more"
        );
        change(Effect::Applied, then)
    }

    async fn has_stream(&self, name: &str) -> Result<bool> {
        match self.ports.stream.shards(name).await {
            Ok(_) => Ok(true),
            // On AWS the functions that run may look only at streams of the file in force.
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Denied) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Records that a stream holds, whether or not its table has them; none of one that is not there.
    async fn held(&self, name: &str) -> Result<u64> {
        if !self.has_stream(name).await? {
            return Ok(0);
        }
        let mut records = 0;
        for shard in self.ports.stream.shards(name).await? {
            records += self.ports.stream.backlog(name, &shard.id, None).await?.map_or(0, |backlog| backlog.records);
        }
        Ok(records)
    }

    /// The change of the stream `before` to another number of shards, under the name that it gets.
    async fn resharding(&self, before: &str, next: &StreamDeclaration, name: &str) -> Result<Option<Change>> {
        if self.ports.stream.can_reshard() {
            let before = self.project.file().streams.get(before).filter(|before| before.shards != next.shards);
            let then = "by the deployment: every stream gets the most that any asks for";
            return Ok(before.map(|before| {
                let what = format!("{} → {} shards", before.shards, next.shards);
                Change::new(Effect::Applied, "stream", name, what, then)
            }));
        }
        // Also of a stream that the file did not have for a while.
        let shards = match self.ports.stream.shards(before).await {
            Ok(shards) => shards.len(),
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let what = format!("{shards} → {} shards", next.shards);
        let then = "a stream on one machine keeps the shards that it was made with";
        let is_other = usize::try_from(next.shards) != Ok(shards);
        Ok(is_other.then(|| Change::new(Effect::Impossible, "stream", name, what, then)))
    }

    /// The change of the stream `before` to another table, under the name that it gets.
    async fn relocation(&self, before: &str, name: &str, to: &TableName) -> Result<Option<Change>> {
        if !self.project.file().streams.contains_key(before) {
            return Ok(None);
        }
        let from = self.project.stream_table(before)?;
        if from == *to {
            return Ok(None);
        }
        let what = format!("table `{from}` → `{to}`");
        let mut then = format!(
            "all that the stream still holds, also what is in `{from}`, is written to `{to}` with its next records or flush; `{from}` keeps its rows"
        );
        let waiting = self.replays(before).waiting().await?.len();
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
