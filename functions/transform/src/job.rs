//! One try of a job: parameters → bookmark → query → quality rules → commit.
//!
//! Rows stream from the query into the commit. The token of the commit names the run, so a try that follows one whose outcome
//! is unknown finds what was written and does nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::Schema;
use shared::config::Ports;
use shared::engine::{Answer, Engine, QueryOptions};
use shared::model::types::columns_of;
use shared::model::{Column, TableName};
use shared::project::{Job, Mode, Project, Write};
use shared::table::{Change, Committed, SnapshotInfo, Table, Tables, Token};
use shared::{Error, ErrorKind, Result};
use tokio::sync::oneshot;

use crate::bookmark::{self, Mark, Reader, Reading};
use crate::parameters;
use crate::quality::quarantine::Quarantine;
use crate::quality::{self, Verdict};
use crate::record::{Outcome, ReadMode};

/// What jobs work with.
#[derive(Debug)]
pub struct Workshop {
    pub project: Arc<Project>,
    pub ports: Ports,
    pub engine: Engine,
    pub tables: Tables,
}

/// A job of a run.
#[derive(Debug, Clone)]
pub struct Task {
    pub run: String,
    pub attempt: u32,
    pub workflow: String,
    pub name: String,
    pub job: Job,
    pub into: TableName,
    /// The SQL with its parameters filled in.
    pub sql: String,
}

impl Task {
    /// # Errors
    /// `Invalid` for a parameter without a value or a target that is no table name.
    pub fn new(
        project: &Project,
        workflow: &str,
        name: &str,
        job: &Job,
        values: &BTreeMap<String, String>,
    ) -> Result<Self> {
        let doing = || format!("job `{name}` of workflow `{workflow}`");
        Ok(Self {
            run: values.get(parameters::RUN_ID).cloned().unwrap_or_default(),
            attempt: 1,
            workflow: workflow.into(),
            name: name.into(),
            into: project.table_name(&job.into).map_err(|e| e.context(doing()))?,
            sql: parameters::substitute(&job.sql, values).map_err(|e| e.context(doing()))?,
            job: with_conditions(job, values).map_err(|e| e.context(doing()))?,
        })
    }

    /// The key of the job's token.
    fn token_key(&self) -> String {
        format!("job.{}.{}", self.workflow, self.name)
    }

    fn reader(&self) -> Reader<'_> {
        Reader { workflow: &self.workflow, job: &self.name, write: self.job.write }
    }

    fn change(&self) -> Change {
        match self.job.write {
            Write::Overwrite => Change::Overwrite,
            Write::Append => Change::Append,
            Write::Merge => Change::Merge { key: self.job.key.clone() },
        }
    }
}

/// The job with the parameters in its rules' conditions filled in.
fn with_conditions(job: &Job, values: &BTreeMap<String, String>) -> Result<Job> {
    let mut job = job.clone();
    for rule in &mut job.quality {
        if let shared::project::RuleCheck::Row(condition) = &mut rule.check {
            *condition = parameters::substitute(condition, values)?;
        }
    }
    Ok(job)
}

impl Workshop {
    /// Does the job, unless an earlier try of this run already did. `outcome` is filled as far as the try gets.
    ///
    /// # Errors
    /// Whatever stopped the job; nothing was written then, but after `OutcomeUnknown`.
    pub async fn try_once(&self, task: &Task, r#try: u32, outcome: &mut Outcome) -> Result<()> {
        let target = self.target(task).await?;
        if let Some(done) = target.as_ref().and_then(|table| commit_of(table, task)) {
            adopt(task, &done, outcome);
            return Ok(());
        }
        let token = target.as_ref().and_then(|table| table.token(&task.token_key()));
        let mark = token.as_deref().map(Mark::parse).transpose()?;
        let reading = self.reading(task, mark.as_ref()).await?;
        outcome.read = Some(reading.mode);
        outcome.note.clone_from(&reading.note);
        if reading.mode == ReadMode::NothingNew && target.is_some() {
            return Ok(());
        }
        let mark = Mark { run: task.run.clone(), attempt: task.attempt, r#try, bookmark: reading.bookmark.clone() };
        let token = Token { key: task.token_key(), expected: token, value: mark.to_value()? };
        self.write(task, reading, token, outcome).await?;
        self.settle(task, &mark).await;
        Ok(())
    }

    /// What an earlier try of this run wrote, if it wrote.
    ///
    /// # Errors
    /// What the catalog or the store answers.
    pub async fn find_commit(&self, task: &Task, outcome: &mut Outcome) -> Result<bool> {
        let done = self.target(task).await?.as_ref().and_then(|table| commit_of(table, task));
        done.iter().for_each(|done| adopt(task, done, outcome));
        Ok(done.is_some())
    }

    async fn target(&self, task: &Task) -> Result<Option<Table>> {
        match self.tables.load(&task.into).await {
            Ok(table) => Ok(Some(table)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn reading(&self, task: &Task, mark: Option<&Mark>) -> Result<Reading> {
        if task.job.mode == Mode::Full {
            return Ok(Reading::full());
        }
        let table = task.job.incremental.as_deref().ok_or_else(|| {
            Error::invalid(format!(
                "job `{}`: expected a table in `incremental`, as its mode is incremental",
                task.name
            ))
        })?;
        let table = self.project.table_name(table)?;
        bookmark::next(&self.ports, &self.tables, task.reader(), &table, mark).await
    }

    /// Streams the query into the target table.
    async fn write(&self, task: &Task, reading: Reading, token: Token, outcome: &mut Outcome) -> Result<()> {
        let answer = self.query(task, &reading).await?;
        let schema = quality::without_flags(&answer.schema);
        let table = self.tables.ensure(&task.into, &columns(&schema)?, &task.job.partition_by).await?;
        if reading.mode == ReadMode::NothingNew {
            return Ok(());
        }

        let progress = answer.progress();
        let url = self.ports.keys.quarantine(&task.workflow, &task.name, &task.run);
        if quality::may_quarantine(&task.job.quality) {
            // An earlier try of this run may have left one, about rows that this try may not see.
            self.ports.storage.delete(&url).await?;
        }
        let quarantine = Quarantine::new(self.ports.storage.clone(), url.clone(), &task.run);
        let (rows, verdict) = quality::watch(answer.rows, &task.job.quality, quarantine)?;
        let committed = table.commit(task.change(), rows, Some(token)).await;
        let stats = progress.stats();
        (outcome.rows_selected, outcome.bytes_scanned) = (stats.rows, stats.bytes_scanned);
        let failure = judge(verdict, url.as_str(), outcome);
        match (committed, failure) {
            (_, Some(failure)) => Err(failure),
            (Ok(committed), None) => {
                count(&committed, outcome);
                Ok(())
            }
            (Err(error), None) => self.after_failed_commit(task, error, outcome).await,
        }
    }

    async fn query(&self, task: &Task, reading: &Reading) -> Result<Answer> {
        let options = QueryOptions {
            database: self.project.database().into(),
            databases: Some(self.project.databases().clone()),
            inputs: reading.inputs.clone(),
            ..QueryOptions::default()
        };
        let flagged = quality::with_flags(&task.sql, &task.job.quality);
        match self.engine.query(&flagged, &options).await {
            Err(error) if flagged != task.sql && error.kind() == ErrorKind::Invalid => {
                Err(self.blame(task, &options, error).await)
            }
            other => other,
        }
    }

    /// Whose error it is that the query with the rules' conditions can't be planned: that of the job's own SQL, with its place
    /// in that text, or that of a rule, with its name.
    async fn blame(&self, task: &Task, options: &QueryOptions, error: Error) -> Error {
        if let Err(own) = self.engine.query(&task.sql, options).await {
            return own;
        }
        for rule in &task.job.quality {
            let flagged = quality::with_flags(&task.sql, std::slice::from_ref(rule));
            if let Err(error) = self.engine.query(&flagged, options).await {
                return error.context(format!("quality rule `{}`", rule.name));
            }
        }
        error.context("checking the conditions of the quality rules")
    }

    /// A commit may have happened although its answer is an error: the table knows.
    async fn after_failed_commit(&self, task: &Task, error: Error, outcome: &mut Outcome) -> Result<()> {
        let may_have_happened = matches!(
            error.kind(),
            ErrorKind::Conflict | ErrorKind::OutcomeUnknown | ErrorKind::Retry | ErrorKind::Limit
        );
        if may_have_happened && self.find_commit(task, outcome).await? { Ok(()) } else { Err(error) }
    }

    /// Brings the bookmark's document up to date; when that fails the next run does it.
    async fn settle(&self, task: &Task, mark: &Mark) {
        if let Err(error) = bookmark::settle(self.ports.state.as_ref(), task.reader(), mark.bookmark.as_ref()).await {
            tracing::warn!(workflow = task.workflow, job = task.name, %error, "bookmark document is behind its table");
        }
    }
}

/// The snapshot that this run's job wrote.
fn commit_of(table: &Table, task: &Task) -> Option<SnapshotInfo> {
    let key = task.token_key();
    table.history().into_iter().find(|snapshot| {
        let mark = snapshot.summary.get(&key).and_then(|value| Mark::parse(value).ok());
        mark.is_some_and(|mark| mark.run == task.run)
    })
}

/// Takes over what the summary of a snapshot says of the write.
fn adopt(task: &Task, done: &SnapshotInfo, outcome: &mut Outcome) {
    let count = |key: &str| done.summary.get(key).and_then(|value| value.parse().ok()).unwrap_or(0);
    outcome.snapshot_id = Some(done.id.to_string());
    outcome.rows_written = count("added-records");
    outcome.rows_deleted = count("deleted-records");
    outcome.bytes_written = count("added-files-size");
    outcome.note =
        Some(format!("an earlier try of run `{}` wrote this snapshot: the counts are those of its summary", task.run));
}

fn count(committed: &Committed, outcome: &mut Outcome) {
    outcome.snapshot_id = Some(committed.snapshot_id.to_string());
    outcome.rows_written = committed.rows_added;
    outcome.rows_deleted = committed.rows_deleted;
    outcome.bytes_written = committed.bytes_added;
}

/// Puts what the rules say into the outcome; gives the reason when they let nothing through.
fn judge(mut verdict: oneshot::Receiver<Verdict>, url: &str, outcome: &mut Outcome) -> Option<Error> {
    // Without a verdict the rows did not end: the commit has the error.
    let verdict = verdict.try_recv().ok()?;
    outcome.quality = verdict.reports;
    if verdict.failure.is_none() && verdict.quarantined > 0 {
        outcome.rows_quarantined = verdict.quarantined;
        outcome.quarantine = Some(url.to_owned());
    }
    verdict.failure
}

/// The target's columns. All may be null: what a query says of its columns today need not hold tomorrow.
fn columns(schema: &Schema) -> Result<Vec<Column>> {
    let columns = columns_of(schema)?;
    Ok(columns.into_iter().map(|column| Column { required: false, ..column }).collect())
}
