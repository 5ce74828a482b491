//! What a run would do: `POST /workflows/{name}/runs` with `{"dryRun": true}`. Queries and quality rules are planned and
//! tables looked up; nothing is written and no bookmark moves. No row is read, but those that changed under a job which appends.

use std::collections::BTreeMap;

use engine::Input;
use format::listing::ListedFile;
use serde::Serialize;
use shared::model::TableName;
use shared::project::{Maintenance, Write};
use shared::{ErrorKind, Result};
use table::{Read, Table};

use crate::Transform;
use crate::event::RunRequest;
use crate::job::{Query, Task, Work};
use crate::listed;
use crate::maintenance;
use crate::record::{MaintenanceReport, Outcome, ReadMode};

/// A run that is not begun.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Preview {
    workflow: String,
    dry_run: bool,
    parameters: BTreeMap<String, String>,
    jobs: BTreeMap<String, JobPreview>,
}

/// What a job would read and write.
#[derive(Debug, Default, Serialize)]
struct JobPreview {
    into: String,
    /// Jobs of the run that it waits for.
    after: Vec<String>,
    /// Whether its table is there already.
    exists: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    write: Option<Write>,
    #[serde(skip_serializing_if = "Option::is_none")]
    read: Option<ReadMode>,
    reads: Vec<Source>,
    /// The columns that its query gives, with their types.
    columns: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    maintenance: Option<MaintenanceReport>,
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<String>,
    /// Why it would fail; for a job that reads what an earlier job of the run is yet to make, what is missing now.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

/// A table that is read, as far as it is.
#[derive(Debug, Serialize)]
struct Source {
    table: String,
    /// Whether only what is new is read.
    new: bool,
    /// Before any filter of the query; none where only reading would tell.
    #[serde(skip_serializing_if = "Option::is_none")]
    rows: Option<u64>,
    files: u64,
    bytes: u64,
}

impl Transform {
    /// # Errors
    /// As the begin of a run. What is wrong with a job is in its part.
    pub(crate) async fn preview(&self, workflow: &str, asked: &RunRequest) -> Result<Preview> {
        let (run_plan, run) = self.draft(workflow, asked, None)?;
        let mut jobs = BTreeMap::new();
        for (name, task) in &run_plan.tasks {
            let mut job = JobPreview {
                into: task.into.to_string(),
                after: run_plan.plan.needs(name).map(str::to_owned).collect(),
                ..JobPreview::default()
            };
            let looked = match &task.work {
                Work::Query(query) => self.look_at_query(task, query, &mut job).await,
                Work::Maintenance(maintenance) => self.look_at_maintenance(task, maintenance, &mut job).await,
            };
            match looked {
                Err(error) if matches!(error.kind(), ErrorKind::Invalid | ErrorKind::NotFound | ErrorKind::Denied) => {
                    job.error = Some(error.to_string());
                }
                other => other?,
            }
            jobs.insert(name.clone(), job);
        }
        Ok(Preview { workflow: workflow.into(), dry_run: true, parameters: run.parameters, jobs })
    }

    async fn look_at_query(&self, task: &Task, query: &Query, job: &mut JobPreview) -> Result<()> {
        job.write = Some(query.job.write);
        let target = self.context.target(task).await?;
        job.exists = target.is_some();
        let reading = self.context.preview(task, query, target.as_ref()).await?;
        (job.read, job.note) = (Some(reading.mode), reading.note.clone());
        let described = self.context.describe(query, &reading).await?;
        let fields = described.schema.fields().iter();
        job.columns = fields.map(|field| (field.name().clone(), field.data_type().to_string())).collect();
        for table in &described.reads {
            let nothing = reading.mode == ReadMode::NothingNew && self.is_incremental(query, table)?;
            job.reads.push(self.source(table, reading.inputs.get(table), nothing).await?);
        }
        Ok(())
    }

    fn is_incremental(&self, query: &Query, table: &TableName) -> Result<bool> {
        let of = query.job.incremental.as_deref().map(|of| self.context.project.table_name(of)).transpose()?;
        Ok(of.as_ref() == Some(table))
    }

    async fn look_at_maintenance(&self, task: &Task, asked: &Maintenance, job: &mut JobPreview) -> Result<()> {
        let dry = Maintenance { dry_run: true, ..asked.clone() };
        let mut outcome = Outcome::default();
        let done = maintenance::run(&self.context, task, &dry, &mut outcome).await;
        job.exists = outcome.maintenance.is_some();
        (job.maintenance, job.note) = (outcome.maintenance, outcome.note);
        done
    }

    /// How much of a table is read, as its metadata or a listing tells.
    async fn source(&self, name: &TableName, input: Option<&Input>, nothing: bool) -> Result<Source> {
        let new =
            nothing || matches!(input, Some(Input::Files(_) | Input::Rows(Read::Added { .. } | Read::Came { .. })));
        let source = |rows, files, bytes| Source { table: name.to_string(), new, rows, files, bytes };
        if nothing {
            return Ok(source(Some(0), 0, 0));
        }
        let entry = self.context.ports.catalog.get_table(name).await?;
        if entry.is_iceberg() {
            let table = self.context.tables.load(name).await?;
            let (rows, files, bytes) = match input {
                Some(Input::Rows(Read::Added { after, to })) => added(&table, *after, *to),
                // Only the net of what came and left is read: what that is only reading would tell.
                Some(Input::Rows(Read::Came { after, to })) => {
                    let (_, files, bytes) = added(&table, Some(*after), *to);
                    return Ok(source(None, files, bytes));
                }
                _ => whole(&table),
            };
            return Ok(source(Some(rows), files, bytes));
        }
        let is_read = |file: &ListedFile| match input {
            Some(Input::Files(urls)) => urls.contains(&file.url),
            _ => true,
        };
        let listed = listed::files(&self.context.ports, &entry).await?.into_iter().filter(is_read);
        let sizes: Vec<u64> = listed.map(|file| file.meta.size).collect();
        Ok(source(None, sizes.len() as u64, sizes.iter().sum()))
    }
}

/// Rows, files and bytes of a table, as the summary of its newest snapshot has them.
fn whole(table: &Table) -> (u64, u64, u64) {
    let summary = table.newest().map(|snapshot| snapshot.summary).unwrap_or_default();
    let total = |key: &str| summary.get(key).and_then(|value| value.parse().ok()).unwrap_or(0);
    (total("total-records"), total("total-data-files"), total("total-files-size"))
}

/// What the snapshots after one up to another added.
fn added(table: &Table, after: Option<i64>, to: i64) -> (u64, u64, u64) {
    let history = table.history();
    let newer =
        history.iter().skip_while(|snapshot| snapshot.id != to).take_while(|snapshot| Some(snapshot.id) != after);
    let mut sums = (0, 0, 0);
    for snapshot in newer.filter(|snapshot| snapshot.operation == "append") {
        let count = |key: &str| snapshot.summary.get(key).and_then(|value| value.parse::<u64>().ok()).unwrap_or(0);
        sums.0 += count("added-records");
        sums.1 += count("added-data-files");
        sums.2 += count("added-files-size");
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn what_is_not_known_is_not_told() {
        let source = Source { table: "db.t".into(), new: false, rows: None, files: 2, bytes: 10 };
        let expected: Value = json!({"table": "db.t", "new": false, "files": 2, "bytes": 10});
        assert_eq!(json!(source), expected);
    }
}
