//! `GET /status/transform`: how the last runs went, what quality rules set aside, what is due, which tables need upkeep.

use std::collections::{BTreeMap, BTreeSet};

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
const MANY_FILES: usize = 100;
const SMALL_BYTES: u64 = 8 << 20;
/// A table needs its snapshots expired when it has more.
const MANY_SNAPSHOTS: usize = 1_000;

/// Between two runs of the schedule that keeps it a table may get so many times more.
const KEPT: usize = 20;

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
        let keepers = self.keepers()?;
        for name in self.tables_of_the_file()? {
            let Some(table) = self.table_status(&name).await? else { continue };
            part.problems.extend(table.problem(keepers.get(&name)));
            tables.push(table);
        }
        part.list("tables", &tables)?;
        Ok(joined([part, schedule::status(&context.ports, &context.project, Kind::Transform).await?]))
    }

    /// What keeps each table by a schedule.
    fn keepers(&self) -> Result<BTreeMap<TableName, Keeper<'_>>> {
        let project = &self.context.project;
        let mut keepers: BTreeMap<TableName, Keeper<'_>> = BTreeMap::new();
        let scheduled = project.file().workflows.iter().filter(|(_, declared)| declared.schedule.is_some());
        for (workflow, declared) in scheduled {
            for kept in declared.maintenance.values().filter(|kept| !kept.dry_run) {
                let keeper = keepers.entry(project.table_name(&kept.table)?).or_default();
                keeper.compacts = keeper.compacts.or(kept.compact.is_some().then_some(workflow));
                keeper.expires = keeper.expires.or(kept.expire.is_some().then_some(workflow));
            }
        }
        Ok(keepers)
    }

    /// The tables of streams and jobs, and what is kept beside them.
    fn tables_of_the_file(&self) -> Result<BTreeSet<TableName>> {
        let project = &self.context.project;
        let streams = project.file().streams.keys().map(|name| project.stream_table(name));
        let jobs = project.file().workflows.values().flat_map(|workflow| workflow.jobs.values());
        let jobs = jobs.map(|job| project.table_name(&job.into));
        let kept = project.file().workflows.values().flat_map(|workflow| workflow.maintenance.values());
        let kept = kept.map(|maintenance| project.table_name(&maintenance.table));
        streams.chain(jobs).chain(kept).collect()
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

/// The workflows that keep a table by their schedules.
#[derive(Debug, Clone, Copy, Default)]
struct Keeper<'a> {
    compacts: Option<&'a str>,
    expires: Option<&'a str>,
}

impl TableStatus {
    fn problem(&self, keeper: Option<&Keeper<'_>>) -> Option<Problem> {
        let Keeper { compacts, expires } = keeper.copied().unwrap_or_default();
        let most = |most: usize, keeper: Option<&str>| if keeper.is_some() { most * KEPT } else { most };
        let many_files = most(MANY_FILES, compacts) as u64;
        let mean = self.bytes / self.files.max(1);
        let small = self.files >= many_files && mean < SMALL_BYTES;
        let (what, keeper, cure) = match () {
            () if small => (format!("{} files of {} KiB on average", self.files, mean >> 10), compacts, "compact: {}"),
            () if self.delete_files >= many_files => {
                let what = format!("{} files of deleted rows are read with each query", self.delete_files);
                (what, compacts, "compact: {}")
            }
            () if self.snapshots > most(MANY_SNAPSHOTS, expires) => {
                (format!("{} snapshots are kept", self.snapshots), expires, "expire: {older_than: 7d}")
            }
            () => return None,
        };
        let advice = match keeper {
            None => format!("a `maintenance` entry of a workflow with `table: {}` and `{cure}` mends it", self.name),
            Some(workflow) => {
                format!(
                    "`tarn run {workflow}` mends what it can; let it run more often, or let writers commit less often"
                )
            }
        };
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

#[cfg(test)]
mod tests {
    use super::*;

    fn table(files: u64, delete_files: u64, snapshots: usize) -> TableStatus {
        let name = "shop.orders".to_owned();
        TableStatus { name, snapshots, files, bytes: files << 20, delete_files, committed_ms: None }
    }

    #[test]
    fn a_table_that_a_schedule_keeps_may_get_more_until_its_next_run() {
        let kept = Keeper { compacts: Some("maintenance"), expires: Some("maintenance") };
        for (files, deletes, snapshots) in [(100, 0, 1), (1, 100, 1), (1, 0, 1_001)] {
            let problem = table(files, deletes, snapshots).problem(None).unwrap();
            assert!(problem.advice.unwrap().contains("`maintenance` entry"));
            assert!(table(files, deletes, snapshots).problem(Some(&kept)).is_none());
            let many = table(20 * files, 20 * deletes, 20 * snapshots).problem(Some(&kept)).unwrap();
            assert!(many.advice.unwrap().contains("`tarn run maintenance`"));
        }
        let compacts = Keeper { expires: None, ..kept };
        assert!(table(100, 0, 1_001).problem(Some(&compacts)).unwrap().message.contains("1001 snapshots"));
        assert!(table(99, 99, 1_000).problem(None).is_none());
    }
}
