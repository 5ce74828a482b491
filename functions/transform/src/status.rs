//! `GET /status/transform`: how the last runs went, what quality rules set aside, what is due, which tables need upkeep.

use std::collections::BTreeSet;

use jobs::Status;
use jobs::schedule::{self, Kind};
use serde::Serialize;
use shared::api::status::{PartStatus, Problem, joined, lasting};
use shared::aside::SetAside;
use shared::model::TableName;
use shared::{ErrorKind, Result};

use crate::quarantined::line::Line;
use crate::{Run, Transform};

/// Runs of a workflow that are looked at and listed.
const RUNS: usize = 20;
/// A run that waits in the queue for longer is late.
const WAITS_MS: i64 = 10 * 60_000;
/// A table needs to be compacted when it has this many files, smaller than this on average.
const MANY_FILES: u64 = 100;
const SMALL_BYTES: u64 = 8 << 20;
/// A table needs its snapshots expired when it has more.
const MANY_SNAPSHOTS: usize = 1_000;

/// What a table is made of.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct TableStatus {
    name: String,
    snapshots: usize,
    files: u64,
    bytes: u64,
    delete_files: u64,
    /// When the last snapshot was made, milliseconds since the epoch.
    committed_ms: Option<i64>,
}

/// Rows that quality rules of a workflow set aside.
#[derive(Debug, Serialize)]
struct Quarantined<'a> {
    workflow: &'a str,
    #[serde(flatten)]
    aside: SetAside,
}

impl Transform {
    /// How all workflows and the tables of the lakehouse file are.
    ///
    /// # Errors
    /// What the ports answer.
    pub(crate) async fn status(&self) -> Result<PartStatus> {
        let context = &self.context;
        let (mut part, mut quarantined, mut listed) = (PartStatus::default(), Vec::new(), Vec::new());
        for workflow in context.project.file().workflows.keys() {
            let runs = self.ledger.list(workflow, RUNS).await?;
            part.problems.extend(problems(workflow, &runs, self.ledger.now().timestamp_millis()));
            let objects = self.all_quarantined(workflow).await?;
            let aside = SetAside::read(&context.ports.storage, objects, 1, broken_rules).await?;
            part.problems.extend(aside.told("row", "in quarantine").map(|told| {
                let since_ms = aside.oldest_ms.unwrap_or_default();
                Problem::warning("workflow", workflow, told).since(since_ms)
            }));
            if aside.objects > 0 {
                quarantined.push(Quarantined { workflow, aside });
            }
            listed.extend(runs);
        }
        part.list("quarantine", &quarantined)?;
        part.list("runs", &listed)?;
        let mut tables = Vec::new();
        for name in self.tables_of_the_file()? {
            let Some(table) = self.table_status(&name).await? else { continue };
            part.problems.extend(table.problem());
            tables.push(table);
        }
        part.list("tables", &tables)?;
        Ok(joined([part, schedule::status(&context.ports, &context.project, Kind::Transform).await?]))
    }

    /// The tables of streams and jobs.
    fn tables_of_the_file(&self) -> Result<BTreeSet<TableName>> {
        let project = &self.context.project;
        let streams = project.file().streams.keys().map(|name| project.stream_table(name));
        let jobs = project.file().workflows.values().flat_map(|workflow| workflow.jobs.values());
        let jobs = jobs.map(|job| project.table_name(&job.into));
        streams.chain(jobs).collect()
    }

    /// `None` for a table that nothing made yet, or that is no Iceberg table.
    async fn table_status(&self, name: &TableName) -> Result<Option<TableStatus>> {
        let table = match self.context.tables.load(name).await {
            Ok(table) => table,
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Invalid) => return Ok(None),
            Err(error) => return Err(error),
        };
        let newest = table.newest();
        let total = |what: &str| {
            let text = newest.as_ref().and_then(|snapshot| snapshot.summary.get(what));
            text.and_then(|text| text.parse().ok()).unwrap_or_default()
        };
        Ok(Some(TableStatus {
            name: name.to_string(),
            snapshots: table.metadata().snapshots().count(),
            files: total("total-data-files"),
            bytes: total("total-files-size"),
            delete_files: total("total-delete-files"),
            committed_ms: newest.as_ref().map(|snapshot| snapshot.committed_ms),
        }))
    }
}

impl TableStatus {
    fn problem(&self) -> Option<Problem> {
        let mean = self.bytes / self.files.max(1);
        let small = self.files >= MANY_FILES && mean < SMALL_BYTES;
        let (what, cure) = match () {
            () if small => (format!("{} files of {} KiB on average", self.files, mean >> 10), "compact: {}"),
            () if self.delete_files >= MANY_FILES => {
                (format!("{} files of deleted rows are read with each query", self.delete_files), "compact: {}")
            }
            () if self.snapshots > MANY_SNAPSHOTS => {
                (format!("{} snapshots are kept", self.snapshots), "expire: {older_than: 7d}")
            }
            () => return None,
        };
        let advice = format!("a `maintenance` entry of a workflow with `table: {}` and `{cure}` mends it", self.name);
        Some(Problem::warning("table", &self.name, format!("needs upkeep: {what}")).advise(advice))
    }
}

/// What is wrong with the runs of a workflow, given newest first.
fn problems(workflow: &str, runs: &[Run], now_ms: i64) -> Vec<Problem> {
    let mut problems = Vec::new();
    let waiting = runs.iter().filter(|run| run.status == Status::Pending);
    let longest = waiting.map(|run| now_ms - run.started.timestamp_millis()).max();
    if let Some(waits_ms) = longest.filter(|waits_ms| *waits_ms >= WAITS_MS) {
        let message = format!("a run has waited in the queue for {}", lasting(waits_ms));
        problems.push(Problem::error("workflow", workflow, message).since(now_ms - waits_ms));
    }
    let over: Vec<&Run> = runs.iter().filter(|run| run.status.is_over()).collect();
    let failed: Vec<&&Run> = over.iter().take_while(|run| run.status == Status::Failed).collect();
    if let (Some(last), Some(first)) = (failed.first(), failed.last()) {
        let times = if failed.len() > 1 { format!(" {} times", failed.len()) } else { String::new() };
        let problem = Problem::error("workflow", workflow, format!("failed{times}: {}", cause(last)));
        let advice = format!("`tarn run {workflow} --resume {}` does what is left, once it is mended", last.run);
        problems.push(problem.since(first.started.timestamp_millis()).advise(advice));
    }
    let Some(last) = over.first() else { return problems };
    for (name, job) in &last.jobs {
        for rule in job.outcome.quality.iter().filter(|rule| !rule.passed) {
            let why = rule.message.as_deref().unwrap_or("it does not hold");
            let message = format!("job `{name}`, rule `{}`: {why}", rule.name);
            problems.push(Problem::warning("workflow", workflow, message).since(last.started.timestamp_millis()));
        }
    }
    problems
}

/// Why a run failed: its first job that did so by itself.
fn cause(run: &Run) -> String {
    let failed = run.jobs.iter().filter(|(_, job)| job.status == Status::Failed);
    let mut causes = failed.map(|(name, job)| {
        let why = job.error.as_ref().map_or("no error was kept", |error| error.message.as_str());
        format!("job `{name}`: {why}")
    });
    causes.next().unwrap_or_else(|| format!("run `{}`", run.run))
}

fn broken_rules(line: &str) -> Option<String> {
    let line = Line::parse(line.as_bytes())?;
    Some(line.reason.unwrap_or_else(|| format!("they break `{}`", line.rules.join("`, `"))))
}
