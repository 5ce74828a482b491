//! Rows leave the quarantine: into the job's table, or for good. Each once, by [`table::replay`].
//!
//! A run sets its rows aside before it commits, so what it set aside counts once its commit is there. A run whose commit is not there
//! leaves its rows where they are: it, or the next one, reads them again.

use std::collections::BTreeSet;

use async_trait::async_trait;
use bytes::Bytes;
use datafusion::error::DataFusionError;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::TryStreamExt;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use shared::aside::Period;
use shared::error::Context;
use shared::model::TableName;
use shared::project::{Job, Write};
use shared::storage::ObjectInfo;
use shared::telemetry::metrics::{self, Metric};
use shared::{Error, ErrorKind, Principal, Result, deadline};
use table::replay::{Replays, Sorted, Target};
use table::{Committed, RowStream, Table, Token};
use table_datafusion::{Change, ChangeTable};
use url::Url;

use super::judge::{Judge, Judged};
use super::line::Filter;
use super::of_job;
use crate::job::{run_of_token, snapshot_of_run, token_key};
use crate::{Status, Transform};

/// Objects and their bytes that are judged together, unless one is larger.
const MOST_OBJECTS: usize = 200;
const MOST_BYTES: u64 = 32 << 20;
/// Tries against others that write to the table at the same time.
const TRIES: u32 = 5;

/// The body of a replay or a discard.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(crate) struct Wanted {
    job: Option<String>,
    since: Option<String>,
    until: Option<String>,
    rule: Option<String>,
    /// Say what would happen, and change nothing.
    dry_run: bool,
    /// Of a replay that merges: also where the table has a newer row of the key.
    overwrite: bool,
    /// Of a discard: leave objects that were written later, milliseconds since the epoch by the storage's clock.
    as_of_ms: Option<i64>,
}

/// The answer of a replay.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Replay {
    workflow: String,
    job: String,
    table: String,
    dry_run: bool,
    /// Rows that are in the table and left the quarantine, or would.
    replayed: u64,
    /// Rows that left with them, since a newer one of the same key was among them.
    superseded: u64,
    /// Rows that were asked for and stay.
    failing: u64,
    /// Why: the first of them.
    reason: Option<String>,
    /// Whether time was up before all were looked at: the same request does the rest.
    unfinished: bool,
}

/// The answer of a discard.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Discarded {
    workflow: String,
    dry_run: bool,
    /// Rows that are gone for good, or would be.
    discarded: u64,
    /// When the newest object that was looked at was written, milliseconds since the epoch; none without any.
    as_of_ms: Option<i64>,
    unfinished: bool,
}

/// What is known of a run's commit to the job's table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    Committed,
    /// It goes on, or may go on.
    Open,
    /// It ended without a commit.
    Failed,
    Unknown,
}

impl Wanted {
    fn filter(&self) -> Result<Filter> {
        let period = Period::parse(self.since.as_deref(), self.until.as_deref())?;
        Ok(Filter { period, rule: self.rule.clone() })
    }
}

impl Transform {
    /// Writes the rows that keep the rules by now.
    ///
    /// # Errors
    /// `NotFound` for an unknown workflow or job; `Invalid` for a job that makes its table anew with each run, or a rule that can't be
    /// checked; `Retry` when others replay or write at the same time; what table and storage answer.
    pub(crate) async fn replay_quarantine(&self, workflow: &str, wanted: &Wanted) -> Result<Replay> {
        let jobs = &self.context.project.workflow(workflow)?.jobs;
        let names = || jobs.keys().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
        let name = wanted.job.as_deref();
        let name =
            name.ok_or_else(|| Error::invalid(format!("expected `job` to be one of {}, found none", names())))?;
        let job = jobs.get(name);
        let job = job.ok_or_else(|| Error::not_found(format!("no job `{name}`: expected one of {}", names())))?;
        if job.write == Write::Overwrite {
            return Err(Error::invalid(format!(
                "job `{name}` makes its table anew with each run (`write: overwrite`), so that a row written now would be gone after the next: \
                 mend the row in its source, or the rule, and run the job (`tarn run {workflow} --job {name}`)"
            )));
        }
        let target = self.job_table(workflow, name, wanted.filter()?, wanted.overwrite)?;
        let mut replay = Replay {
            workflow: workflow.into(),
            job: name.into(),
            table: target.into.to_string(),
            dry_run: wanted.dry_run,
            ..Replay::default()
        };
        let replays = of_job(&self.context.ports, workflow, name);
        if !wanted.dry_run {
            replay.replayed += in_turn(|| replays.finish(&target)).await?.replayed;
        }
        let waiting = self.settled(&target, replays.waiting().await?, &mut replay).await?;
        if waiting.is_empty() {
            return Ok(replay);
        }
        for objects in portions(&waiting) {
            if deadline::is_near(self.context.ports.clock.as_ref()) {
                replay.unfinished = true;
                break;
            }
            self.replay_portion(&replays, &target, objects, &mut replay).await?;
        }
        if !wanted.dry_run {
            metrics::emit(&[("workflow", workflow)], &[Metric::count("RowsReplayed", replay.replayed)]);
            tracing::info!(workflow, job = name, replayed = replay.replayed, failing = replay.failing, "rows replayed");
        }
        Ok(replay)
    }

    async fn replay_portion(
        &self,
        replays: &Replays,
        target: &JobTable<'_>,
        objects: &[ObjectInfo],
        replay: &mut Replay,
    ) -> Result<()> {
        let mut texts = Vec::with_capacity(objects.len());
        for object in objects {
            texts.push(self.text(object).await?.unwrap_or_default());
        }
        let judged = target.judge(&target.table().await?, &texts).await?;
        replay.failing += judged.failing;
        replay.reason = replay.reason.take().or_else(|| judged.reason.clone());
        replay.superseded += judged.superseded;
        if replay.dry_run {
            replay.replayed += judged.rows();
            return Ok(());
        }
        let mut ready: Vec<ObjectInfo> = judged.leaving.iter().filter_map(|at| objects.get(*at).cloned()).collect();
        while !ready.is_empty() {
            replay.replayed += in_turn(|| replays.replay(&ready, target)).await?.replayed;
            let left: BTreeSet<Url> = replays.waiting().await?.into_iter().map(|object| object.url).collect();
            ready.retain(|object| left.contains(&object.url));
        }
        Ok(())
    }

    /// Removes rows for good.
    ///
    /// # Errors
    /// `NotFound` for an unknown workflow or job; `Retry` when others replay or discard at the same time; what the storage answers.
    pub(crate) async fn discard_quarantine(&self, workflow: &str, unwanted: &Wanted) -> Result<Discarded> {
        let filter = unwanted.filter()?;
        let jobs = match &unwanted.job {
            Some(job) => vec![self.known_job(workflow, job).await?],
            None => self.jobs_with_quarantine(workflow).await?,
        };
        let mut done = Discarded { workflow: workflow.into(), dry_run: unwanted.dry_run, ..Discarded::default() };
        for job in jobs {
            self.discard_of_job(workflow, &job, &filter, unwanted.as_of_ms, &mut done).await?;
        }
        if !unwanted.dry_run {
            metrics::emit(&[("workflow", workflow)], &[Metric::count("RowsDiscarded", done.discarded)]);
            tracing::info!(workflow, discarded = done.discarded, "rows discarded");
        }
        Ok(done)
    }

    async fn discard_of_job(
        &self,
        workflow: &str,
        job: &str,
        filter: &Filter,
        as_of_ms: Option<i64>,
        done: &mut Discarded,
    ) -> Result<()> {
        let wanted =
            serde_json::to_value(filter).map_err(|e| Error::bug("a filter has no JSON form").with_source(e))?;
        let replays = of_job(&self.context.ports, workflow, job);
        let target = Discarding { transform: self, workflow, job };
        if !done.dry_run {
            in_turn(|| replays.finish(&target)).await?;
        }
        for object in replays.waiting().await? {
            if as_of_ms.is_some_and(|as_of_ms| object.modified_ms > as_of_ms) {
                continue;
            }
            if deadline::is_near(self.context.ports.clock.as_ref()) {
                done.unfinished = true;
                break;
            }
            done.as_of_ms = done.as_of_ms.max(Some(object.modified_ms));
            let Some(text) = self.text(&object).await? else { continue };
            let taken = text.split(|byte| *byte == b'\n').filter(|line| filter.takes_line(line)).count() as u64;
            if taken == 0 || self.is_open(replays.name_of(&object.url)).await? {
                continue;
            }
            if done.dry_run {
                done.discarded += taken;
                continue;
            }
            let mut is_there = true;
            while is_there {
                let ready = std::slice::from_ref(&object);
                done.discarded += in_turn(|| replays.discard(ready, &wanted, &target)).await?.discarded;
                is_there = replays.waiting().await?.iter().any(|waiting| waiting.url == object.url);
            }
        }
        Ok(())
    }

    /// Whether the object is that of a run that goes on: it may be written again.
    async fn is_open(&self, object: &str) -> Result<bool> {
        let Some(run) = run_of_object(object) else { return Ok(false) };
        match self.ledger.get(run).await {
            Ok(stored) => Ok(!stored.record.status.is_over()),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Those objects whose run has committed. The others are counted as failing.
    async fn settled(
        &self,
        target: &JobTable<'_>,
        objects: Vec<ObjectInfo>,
        replay: &mut Replay,
    ) -> Result<Vec<ObjectInfo>> {
        if objects.is_empty() {
            return Ok(objects);
        }
        let replays = of_job(&self.context.ports, target.workflow, target.name);
        let table = target.table().await?;
        let mut settled = Vec::new();
        for object in objects {
            let standing = match run_of_object(replays.name_of(&object.url)) {
                Some(run) => (run.to_owned(), self.standing(target, &table, run).await?),
                // What stayed behind in a replay is of runs that have committed.
                None => (String::new(), Standing::Committed),
            };
            let (run, why) = match standing {
                (_, Standing::Committed) => {
                    settled.push(object);
                    continue;
                }
                (run, Standing::Open) => (run, "goes on"),
                (run, Standing::Failed) => (run, "did not commit its rows: the next one reads them again"),
                (run, Standing::Unknown) => {
                    (run, "is not known any more: it can't be told whether it committed its rows")
                }
            };
            let text = self.text(&object).await?.unwrap_or_default();
            let lines = text.split(|byte| *byte == b'\n').filter(|line| target.filter.takes_line(line)).count() as u64;
            if lines > 0 {
                replay.failing += lines;
                replay.reason.get_or_insert_with(|| format!("run `{run}` {why}"));
            }
        }
        Ok(settled)
    }

    async fn standing(&self, target: &JobTable<'_>, table: &Table, run: &str) -> Result<Standing> {
        let key = token_key(target.workflow, target.name);
        let is_newest = table.token(&key).as_deref().and_then(run_of_token).is_some_and(|newest| newest == run);
        if is_newest || snapshot_of_run(table, &key, run).is_some() {
            return Ok(Standing::Committed);
        }
        match self.ledger.get(run).await {
            Ok(stored) => {
                let status = stored.record.jobs.get(target.name).map(|job| job.status);
                Ok(match status {
                    Some(Status::Succeeded) => Standing::Committed,
                    _ if !stored.record.status.is_over() => Standing::Open,
                    _ => Standing::Failed,
                })
            }
            Err(error) if error.kind() == ErrorKind::NotFound => self.archived(target, run).await,
            Err(error) => Err(error),
        }
    }

    /// What the table `tarn.runs` says of a run that has no record any more.
    async fn archived(&self, target: &JobTable<'_>, run: &str) -> Result<Standing> {
        let quoted = |text: &str| format!("'{}'", text.replace('\'', "''"));
        let sql = format!(
            "SELECT 1 FROM tarn.runs WHERE run = {} AND job = {} AND status = 'succeeded' LIMIT 1",
            quoted(run),
            quoted(target.name)
        );
        let options =
            engine::QueryOptions { caller: "transform".into(), ..engine::QueryOptions::new(Principal::Owner) };
        let answer = match self.context.engine.query(&sql, &options).await {
            Ok(answer) => answer,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Standing::Unknown),
            Err(error) => return Err(error),
        };
        let rows = answer.rows.try_fold(0, |rows, batch| async move { Ok(rows + batch.num_rows()) }).await?;
        Ok(if rows > 0 { Standing::Committed } else { Standing::Unknown })
    }

    fn job_table<'a>(
        &'a self,
        workflow: &'a str,
        name: &'a str,
        filter: Filter,
        overwrite: bool,
    ) -> Result<JobTable<'a>> {
        let declared = self.context.project.workflow(workflow)?;
        let job = declared.jobs.get(name).ok_or_else(|| Error::not_found(format!("no job `{name}`")))?;
        let into = self.context.project.table_name(&job.into)?;
        Ok(JobTable { transform: self, workflow, name, job, into, filter, overwrite })
    }
}

/// Again, when others came first: a plan stands until it is carried out.
async fn in_turn<T, F: Future<Output = Result<T>>>(mut act: impl FnMut() -> F) -> Result<T> {
    let mut tries = 1;
    loop {
        match act().await {
            Err(error) if error.kind() == ErrorKind::Retry && tries < TRIES => tries += 1,
            other => return other,
        }
    }
}

/// The run whose object it is; none of one that a replay left.
fn run_of_object(name: &str) -> Option<&str> {
    name.strip_suffix(".ndjson").filter(|run| !run.contains('/'))
}

/// Objects in portions that are judged together.
fn portions(objects: &[ObjectInfo]) -> Vec<&[ObjectInfo]> {
    let (mut portions, mut begin, mut bytes) = (Vec::new(), 0, 0);
    for (at, object) in objects.iter().enumerate() {
        if at > begin && (bytes + object.size > MOST_BYTES || at - begin == MOST_OBJECTS) {
            portions.push(&objects[begin..at]);
            (begin, bytes) = (at, 0);
        }
        bytes += object.size;
    }
    portions.push(&objects[begin..]);
    portions
}

/// A job's table as the place of its rows.
pub(super) struct JobTable<'a> {
    pub(super) transform: &'a Transform,
    pub(super) workflow: &'a str,
    pub(super) name: &'a str,
    pub(super) job: &'a Job,
    pub(super) into: TableName,
    pub(super) filter: Filter,
    pub(super) overwrite: bool,
}

impl JobTable<'_> {
    async fn judge(&self, table: &Table, texts: &[Bytes]) -> Result<Judged> {
        Judge::new(self, table)?.judge(texts).await
    }
}

#[async_trait]
impl Target for JobTable<'_> {
    async fn table(&self) -> Result<Table> {
        let table = self.transform.context.tables.load(&self.into).await;
        table.context(|| format!("the table of job `{}`", self.name))
    }

    async fn sort(&self, table: &Table, objects: &[Bytes]) -> Result<Sorted> {
        let judged = self.judge(table, objects).await?;
        let replayed = judged.rows();
        let Judged { schema, batches, left, left_lines, .. } = judged;
        Ok(Sorted { rows: RowStream::of_batches(schema, batches), replayed, left, left_lines })
    }

    async fn commit(&self, table: &Table, rows: RowStream, token: Token) -> Result<Committed> {
        let change = match self.job.write {
            Write::Merge => Change::MergeInto { key: self.job.key.clone(), snapshot: table.current_snapshot() },
            Write::Append => Change::Append,
            Write::Overwrite => return Err(Error::bug("rows are not replayed into a table that is made anew")),
        };
        let schema = rows.schema();
        let rows = RecordBatchStreamAdapter::new(schema, rows.map_err(DataFusionError::from));
        table.commit(change, Box::pin(rows), Some(token)).await
    }

    fn is_discarded(&self, wanted: &Value, line: &[u8]) -> Result<bool> {
        is_discarded(wanted, line)
    }
}

fn is_discarded(wanted: &Value, line: &[u8]) -> Result<bool> {
    let filter = Filter::deserialize(wanted)
        .map_err(|e| Error::bug(format!("expected a discard's filter, found `{wanted}`")).with_source(e))?;
    Ok(filter.takes_line(line))
}

/// Rows of a job that may be declared no more; a replay that somebody left unfinished needs that it is.
struct Discarding<'a> {
    transform: &'a Transform,
    workflow: &'a str,
    job: &'a str,
}

impl Discarding<'_> {
    fn table_of_job(&self) -> Result<JobTable<'_>> {
        let target = self.transform.job_table(self.workflow, self.job, Filter::default(), false);
        target.map_err(|error| error.context("a replay of its rows was left unfinished"))
    }
}

#[async_trait]
impl Target for Discarding<'_> {
    async fn table(&self) -> Result<Table> {
        self.table_of_job()?.table().await
    }

    /// All lines stay: nobody asked here to replay any.
    async fn sort(&self, table: &Table, objects: &[Bytes]) -> Result<Sorted> {
        let mut left = Vec::new();
        let lines = objects.iter().flat_map(|text| text.split(|byte| *byte == b'\n')).filter(|line| !line.is_empty());
        let mut left_lines = 0;
        for line in lines {
            left.extend_from_slice(line);
            left.push(b'\n');
            left_lines += 1;
        }
        let rows = RowStream::of_batches(table.arrow_schema().clone(), Vec::new());
        Ok(Sorted { rows, replayed: 0, left, left_lines })
    }

    async fn commit(&self, table: &Table, rows: RowStream, token: Token) -> Result<Committed> {
        self.table_of_job()?.commit(table, rows, token).await
    }

    fn is_discarded(&self, wanted: &Value, line: &[u8]) -> Result<bool> {
        is_discarded(wanted, line)
    }
}
