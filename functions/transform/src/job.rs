//! One try of a job: parameters → bookmark → query → quality rules → commit; or the maintenance of a table ([`maintenance`]).
//!
//! Rows stream from the query into the commit. The token of the commit names the run, so a try that follows one whose outcome
//! is unknown finds what was written and does nothing.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::Schema;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use engine::{Answer, Description, Engine, Input, QueryOptions};
use futures::TryStreamExt;
use shared::model::types::columns_of;
use shared::model::{Column, TableName};
use shared::ports::Ports;
use shared::project::{Job, Maintenance, Mode, Project, Seconds, Write};
use shared::{Error, ErrorKind, Principal, Result};
use table::{Committed, SnapshotInfo, Table, Tables, Token};
use table_datafusion::{Change, ChangeTable};
use tokio::sync::oneshot;

use crate::bookmark::{self, Gone, Mark, Reader, Reading};
use crate::maintenance;
use crate::parameters;
use crate::quality::quarantine::Quarantine;
use crate::quality::{self, Verdict};
use crate::quarantined;
use crate::record::{Outcome, ReadMode};

/// Keys of rows that leave, at most: they are held in memory.
const MOST_KEYS: usize = 1_000_000;

/// What jobs work with.
#[derive(Debug, Clone)]
pub struct JobContext {
    pub project: Arc<Project>,
    pub ports: Ports,
    pub engine: Engine,
    pub tables: Tables,
    pub resources: Resources,
}

/// What a compaction may take.
#[derive(Debug, Clone, Default)]
pub struct Resources {
    /// Bytes of memory (default: what [`table_datafusion::Rewrite`] says).
    pub memory_bytes: Option<u64>,
    /// The folder to spill to (default: the system's for temporary files).
    pub spill: Option<PathBuf>,
}

/// A job of a run.
#[derive(Debug, Clone)]
pub struct Task {
    pub run: String,
    pub attempt: u32,
    pub workflow: String,
    pub name: String,
    /// The table that takes the rows, or that is kept.
    pub into: TableName,
    /// Tries after the first one fails.
    pub retries: u32,
    /// Of one try.
    pub timeout: Seconds,
    pub work: Work,
}

/// What a job does.
#[derive(Debug, Clone)]
pub enum Work {
    Query(Box<Query>),
    Maintenance(Maintenance),
}

/// A SELECT whose rows go into a table.
#[derive(Debug, Clone)]
pub struct Query {
    pub job: Job,
    /// The SQL with its parameters filled in.
    pub sql: String,
}

/// The key of the token under which a job writes to its table.
pub(crate) fn token_key(workflow: &str, job: &str) -> String {
    format!("job.{workflow}.{job}")
}

/// How errors name a job.
fn called(workflow: &str, name: &str) -> String {
    format!("job `{name}` of workflow `{workflow}`")
}

impl Task {
    /// A job that keeps a table.
    ///
    /// # Errors
    /// `Invalid` for a table that has no table's name.
    pub fn maintenance(
        project: &Project,
        workflow: &str,
        name: &str,
        maintenance: &Maintenance,
        values: &BTreeMap<String, String>,
    ) -> Result<Self> {
        let into = project.table_name(&maintenance.table).map_err(|e| e.context(called(workflow, name)))?;
        let work = Work::Maintenance(maintenance.clone());
        Ok(Self::first(workflow, name, values, into, maintenance.retries, maintenance.timeout, work))
    }

    /// A job of SQL.
    ///
    /// # Errors
    /// `Invalid` for a parameter without a value or a target that is no table name.
    pub fn new(
        project: &Project,
        workflow: &str,
        name: &str,
        job: &Job,
        values: &BTreeMap<String, String>,
    ) -> Result<Self> {
        let doing = |e: Error| e.context(called(workflow, name));
        let into = project.table_name(&job.into).map_err(doing)?;
        let work = Work::Query(Box::new(Query {
            sql: parameters::substitute(&job.sql, values).map_err(doing)?,
            job: with_conditions(job, values).map_err(doing)?,
        }));
        Ok(Self::first(workflow, name, values, into, job.retries, job.timeout, work))
    }

    fn first(
        workflow: &str,
        name: &str,
        values: &BTreeMap<String, String>,
        into: TableName,
        retries: u32,
        timeout: Seconds,
        work: Work,
    ) -> Self {
        let run = values.get(parameters::RUN_ID).cloned().unwrap_or_default();
        Self { run, attempt: 1, workflow: workflow.into(), name: name.into(), into, retries, timeout, work }
    }

    /// The key of the job's token.
    fn token_key(&self) -> String {
        token_key(&self.workflow, &self.name)
    }

    fn reader(&self, query: &Query) -> Reader<'_> {
        let Job { write, .. } = query.job;
        Reader { workflow: &self.workflow, job: &self.name, write, source_deletes: query.job.source_deletes() }
    }
}

impl Query {
    /// How the rows go in; rows with keys in `gone` leave.
    fn change(&self, gone: Vec<RecordBatch>) -> Change {
        let key = self.job.key.clone();
        match self.job.write {
            Write::Overwrite => Change::Overwrite,
            Write::Append => Change::Append,
            Write::Merge if gone.is_empty() => Change::Merge { key },
            Write::Merge => Change::MergeAndRemove { key, gone },
        }
    }
}

/// The job with the parameters in its rules' conditions filled in.
pub(crate) fn with_conditions(job: &Job, values: &BTreeMap<String, String>) -> Result<Job> {
    let mut job = job.clone();
    for rule in &mut job.quality {
        if let shared::project::RuleCheck::Row(condition) = &mut rule.check {
            *condition = parameters::substitute(condition, values)?;
        }
    }
    Ok(job)
}

impl JobContext {
    /// Does the job, unless an earlier try of this run already did. `outcome` is filled as far as the try gets.
    ///
    /// # Errors
    /// Whatever stopped the job; nothing was written then, but after `OutcomeUnknown`.
    pub async fn try_once(&self, task: &Task, r#try: u32, outcome: &mut Outcome) -> Result<()> {
        match &task.work {
            Work::Query(query) => self.try_query(task, query, r#try, outcome).await,
            Work::Maintenance(maintenance) => maintenance::run(self, task, maintenance, outcome).await,
        }
    }

    async fn try_query(&self, task: &Task, query: &Query, r#try: u32, outcome: &mut Outcome) -> Result<()> {
        let target = self.target(task).await?;
        if let Some(done) = target.as_ref().and_then(|table| commit_of(table, task)) {
            adopt(task, &done, outcome);
            return Ok(());
        }
        let token = target.as_ref().and_then(|table| table.token(&task.token_key()));
        let mark = token.as_deref().map(Mark::parse).transpose()?;
        let reading = self.reading(task, query, mark.as_ref()).await?;
        outcome.read = Some(reading.mode);
        outcome.note.clone_from(&reading.note);
        if reading.mode == ReadMode::NothingNew && target.is_some() {
            return Ok(());
        }
        let reading_mode = reading.mode;
        let mark = Mark { run: task.run.clone(), attempt: task.attempt, r#try, bookmark: reading.bookmark.clone() };
        let token = Token { key: task.token_key(), expected: token, value: mark.to_value()? };
        self.write(task, query, reading, token, outcome).await?;
        self.settle(task.reader(query), &mark).await;
        let is_whole = reading_mode == ReadMode::Full && query.job.write == Write::Overwrite;
        if is_whole || reading_mode == ReadMode::FullAfterRewrite {
            self.drop_earlier_quarantine(task).await;
        }
        Ok(())
    }

    /// Removes what earlier runs of the job set aside: every row of the table was made anew, and what is still broken is set aside anew. When
    /// that fails the next full run does it.
    async fn drop_earlier_quarantine(&self, task: &Task) {
        let (keys, storage) = (&self.ports.keys, &self.ports.storage);
        let own = keys.quarantine(&task.workflow, &task.name, &task.run);
        let dropped = async {
            for object in storage.list(&keys.quarantines_of_job(&task.workflow, &task.name)).await? {
                if object.url != own {
                    storage.delete(&object.url).await?;
                }
            }
            Ok::<_, Error>(())
        };
        if let Err(error) = dropped.await {
            tracing::warn!(job = task.name, %error, "rows that an earlier run set aside are still in quarantine");
        }
    }

    /// What an earlier try of this run wrote, if it wrote.
    ///
    /// # Errors
    /// What the catalog or the store answers.
    pub async fn find_commit(&self, task: &Task, outcome: &mut Outcome) -> Result<bool> {
        if matches!(task.work, Work::Maintenance(_)) {
            // What was done needs no finding: done again it is nothing to do.
            return Ok(false);
        }
        let done = self.target(task).await?.as_ref().and_then(|table| commit_of(table, task));
        done.iter().for_each(|done| adopt(task, done, outcome));
        Ok(done.is_some())
    }

    pub(crate) async fn target(&self, task: &Task) -> Result<Option<Table>> {
        match self.tables.load(&task.into).await {
            Ok(table) => Ok(Some(table)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn reading(&self, task: &Task, query: &Query, mark: Option<&Mark>) -> Result<Reading> {
        if query.job.mode == Mode::Full {
            return Ok(Reading::full());
        }
        let table = self.incremental(task, query)?;
        bookmark::next(&self.ports, &self.tables, task.reader(query), &table, mark).await
    }

    /// The table whose new rows an incremental job reads.
    fn incremental(&self, task: &Task, query: &Query) -> Result<TableName> {
        let table = query.job.incremental.as_deref().ok_or_else(|| {
            Error::invalid(format!(
                "job `{}`: expected a table in `incremental`, as its mode is incremental",
                task.name
            ))
        })?;
        self.project.table_name(table)
    }

    /// What the next try would read; nothing is taken note of.
    ///
    /// # Errors
    /// As a try.
    pub(crate) async fn preview(&self, task: &Task, query: &Query, target: Option<&Table>) -> Result<Reading> {
        if query.job.mode == Mode::Full {
            return Ok(Reading::full());
        }
        let mark = target.and_then(|table| table.token(&task.token_key()));
        let mark = mark.as_deref().map(Mark::parse).transpose()?;
        let table = self.incremental(task, query)?;
        let (reading, _) = bookmark::look(&self.ports, &self.tables, task.reader(query), &table, mark.as_ref()).await?;
        if let Some(gone) = reading.gone.as_ref().filter(|gone| !gone.propagate && query.job.write == Write::Append) {
            self.check_removed_only(gone).await?;
        }
        Ok(reading)
    }

    /// What the query reads and gives, of which the quality rules are known to fit it.
    ///
    /// # Errors
    /// As the query; `Invalid`, with its name, for a rule that does not fit.
    pub(crate) async fn describe(&self, query: &Query, reading: &Reading) -> Result<Description> {
        let options = self.options(reading.inputs.clone());
        let description = self.engine.describe(&query.sql, &options).await?;
        let flagged = quality::with_flags(&query.sql, &query.job.quality);
        let schema = match self.engine.columns(&flagged, &options).await {
            Err(error) if error.kind() == ErrorKind::Invalid => return Err(self.blame(query, &options, error).await),
            other => other?,
        };
        quality::check(&query.job.quality, &schema)?;
        Ok(description)
    }

    /// Streams the query into the target table.
    async fn write(
        &self,
        task: &Task,
        query: &Query,
        reading: Reading,
        token: Token,
        outcome: &mut Outcome,
    ) -> Result<()> {
        let job = &query.job;
        let gone = self.keys_of_gone(task, query, &reading).await?;
        let answer = self.query(query, &reading).await?;
        let schema = quality::without_flags(&answer.schema);
        let table = self.tables.ensure(&task.into, &columns(&schema)?, &job.partition_by).await?;
        if reading.mode == ReadMode::NothingNew {
            return Ok(());
        }

        let progress = answer.progress();
        let url = self.ports.keys.quarantine(&task.workflow, &task.name, &task.run);
        let is_again = task.attempt > 1;
        if quality::may_quarantine(&job.quality) || is_again {
            // An earlier try of this run may have left one, about rows that this try may not see.
            self.ports.storage.delete(&url).await?;
        }
        if is_again {
            // What it set aside may have been discarded since.
            let replays = quarantined::of_job(&self.ports, &task.workflow, &task.name);
            replays.reopen(&quarantined::object_of(&task.run)).await?;
        }
        let quarantine = Quarantine::new(self.ports.storage.clone(), url.clone(), &task.run);
        let (rows, verdict) = quality::watch(answer.rows, &job.quality, quarantine)?;
        let committed = table.commit(query.change(gone), rows, Some(token)).await;
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

    async fn query(&self, query: &Query, reading: &Reading) -> Result<Answer> {
        let options = self.options(reading.inputs.clone());
        let flagged = quality::with_flags(&query.sql, &query.job.quality);
        match self.engine.query(&flagged, &options).await {
            Err(error) if flagged != query.sql && error.kind() == ErrorKind::Invalid => {
                Err(self.blame(query, &options, error).await)
            }
            other => other,
        }
    }

    /// How queries of this function read: as the owner, these inputs in the place of whole tables.
    pub(crate) fn options(&self, inputs: BTreeMap<TableName, Input>) -> QueryOptions {
        QueryOptions {
            database: self.project.database().into(),
            databases: Some(self.project.databases().clone()),
            inputs,
            caller: "transform".into(),
            ..QueryOptions::new(Principal::Owner)
        }
    }

    /// The keys of what the job made of rows that are gone from its source, where those rows are to leave.
    ///
    /// # Errors
    /// `Invalid` where a snapshot of the source changed rows and the job can only add some; `Limit` when there are too many keys.
    async fn keys_of_gone(&self, task: &Task, query: &Query, reading: &Reading) -> Result<Vec<RecordBatch>> {
        match &reading.gone {
            Some(gone) if gone.propagate => self.keys(task, query, gone).await,
            Some(gone) if query.job.write == Write::Append => self.check_removed_only(gone).await.map(|()| Vec::new()),
            _ => Ok(Vec::new()),
        }
    }

    async fn keys(&self, task: &Task, query: &Query, gone: &Gone) -> Result<Vec<RecordBatch>> {
        let names: Vec<String> =
            query.job.key.iter().map(|name| format!("\"{}\"", name.replace('"', "\"\""))).collect();
        let sql = quality::select_from(&format!("DISTINCT {}", names.join(", ")), &query.sql);
        let mut rows = self.engine.query(&sql, &self.options(gone.rows())).await?.rows;
        let (mut keys, mut count) = (Vec::new(), 0);
        while let Some(batch) = rows.try_next().await? {
            count += batch.num_rows();
            if count > MOST_KEYS {
                return Err(Error::limit(format!(
                    "job `{}`: rows of more than {MOST_KEYS} keys are gone from `{}`: expected fewer, or `on_source_delete: ignore`, or a \
                     new target table",
                    task.name, gone.table
                )));
            }
            keys.push(batch);
        }
        Ok(keys)
    }

    /// Rows that a snapshot changed look like new ones, and would be added a second time.
    async fn check_removed_only(&self, gone: &Gone) -> Result<()> {
        let Gone { table, after, to, .. } = gone;
        let sql = format!(
            "SELECT _commit_snapshot_id FROM table_changes('{table}', {after}, {to}) \
             GROUP BY _commit_snapshot_id HAVING count(DISTINCT _change_type) > 1 LIMIT 1"
        );
        let mut rows = self.engine.query(&sql, &self.options(BTreeMap::new())).await?.rows;
        while let Some(batch) = rows.try_next().await? {
            if batch.num_rows() > 0 {
                let snapshot =
                    ArrayFormatter::try_new(batch.column(0).as_ref(), &FormatOptions::default())?.value(0).to_string();
                return Err(Error::invalid(format!(
                    "rows of `{table}` that were read before have been changed (snapshot {snapshot}): appending them again would double rows; \
                     expected a job that merges or overwrites, or a new target table"
                )));
            }
        }
        Ok(())
    }

    /// Whose error it is that the query with the rules' conditions can't be planned: that of the job's own SQL, with its place
    /// in that text, or that of a rule, with its name.
    async fn blame(&self, query: &Query, options: &QueryOptions, error: Error) -> Error {
        if let Err(own) = self.engine.query(&query.sql, options).await {
            return own;
        }
        for rule in &query.job.quality {
            let flagged = quality::with_flags(&query.sql, std::slice::from_ref(rule));
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
    async fn settle(&self, reader: Reader<'_>, mark: &Mark) {
        let (workflow, job) = (reader.workflow, reader.job);
        if let Err(error) = bookmark::settle(self.ports.state.as_ref(), reader, mark.bookmark.as_ref()).await {
            tracing::warn!(workflow, job, %error, "bookmark document is behind its table");
        }
    }
}

/// The snapshot that this run's job wrote.
fn commit_of(table: &Table, task: &Task) -> Option<SnapshotInfo> {
    snapshot_of_run(table, &task.token_key(), &task.run)
}

/// The snapshot that a run wrote under a job's token.
pub(crate) fn snapshot_of_run(table: &Table, token: &str, run: &str) -> Option<SnapshotInfo> {
    table.history().into_iter().find(|snapshot| {
        let newest = snapshot.summary.get(token).and_then(|value| run_of_token(value));
        newest.is_some_and(|newest| newest == run)
    })
}

/// The run that a job's token names.
pub(crate) fn run_of_token(value: &str) -> Option<String> {
    Mark::parse(value).ok().map(|mark| mark.run)
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
pub(crate) fn columns(schema: &Schema) -> Result<Vec<Column>> {
    let columns = columns_of(schema)?;
    Ok(columns.into_iter().map(|column| Column { required: false, ..column }).collect())
}
