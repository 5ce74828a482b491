//! What is known of a run: the answer of the HTTP routes, and the state document while it lasts.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use jobs::{Failure, Record, Status};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use shared::project::QualityAction;
use shared::telemetry::metrics::{self, Metric};
use shared::{Error, ErrorKind};

/// A run of a workflow.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// `{workflow}-{32 hexadecimal digits}`; later runs of a workflow sort behind earlier ones.
    pub run: String,
    pub workflow: String,
    pub status: Status,
    /// 1, and one more with each resume.
    pub attempt: u32,
    /// Every parameter's value, the built-in ones too.
    pub parameters: BTreeMap<String, String>,
    pub started: DateTime<Utc>,
    pub ended: Option<DateTime<Utc>>,
    pub jobs: BTreeMap<String, JobRecord>,
    /// Whether the jobs of this attempt are in the table `tarn.runs`, or need not be: those of a run that kept nothing but that table
    /// by default are not.
    pub recorded: bool,
    /// The event or due time of a schedule that it was begun for; none when a caller asked for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
    /// The trace of the event that asked for it, or for its resume: 32 hexadecimal digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace: Option<String>,
    /// Whether it was stopped because its function's time was up: a resume does the rest.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub interrupted: bool,
    /// The jobs that were asked for; empty: all of the workflow.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub only: BTreeSet<String>,
}

/// A job of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JobRecord {
    pub status: Status,
    /// The table that takes the rows.
    pub into: String,
    /// The attempt of the run that this is about: a resume keeps what succeeded before.
    pub attempt: u32,
    pub tries: u32,
    pub started: Option<DateTime<Utc>>,
    pub ended: Option<DateTime<Utc>>,
    #[serde(flatten)]
    pub outcome: Outcome,
    pub error: Option<Failure>,
}

impl JobRecord {
    /// A job that waits for its turn.
    pub fn pending(into: impl Into<String>, attempt: u32) -> Self {
        Self {
            status: Status::Pending,
            into: into.into(),
            attempt,
            tries: 0,
            started: None,
            ended: None,
            outcome: Outcome::default(),
            error: None,
        }
    }
}

/// What a job did.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    pub read: Option<ReadMode>,
    /// Rows that the SQL gave.
    pub rows_selected: u64,
    pub rows_written: u64,
    /// Rows that were replaced or removed.
    pub rows_deleted: u64,
    pub rows_quarantined: u64,
    pub bytes_scanned: u64,
    pub bytes_written: u64,
    /// The snapshot that holds the rows, as text because JSON readers round such large numbers; none when nothing was committed.
    pub snapshot_id: Option<String>,
    pub quality: Vec<RuleReport>,
    /// URL of the rows that quality rules set aside.
    pub quarantine: Option<String>,
    /// What the reader of the record should know.
    pub note: Option<String>,
    /// What the maintenance of a table did, for maintenance jobs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub maintenance: Option<MaintenanceReport>,
}

/// What the maintenance of a table did, or would do; what was not asked for is none.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MaintenanceReport {
    pub dry_run: bool,
    pub compacted: Option<Compacted>,
    pub expired: Option<Expired>,
    pub orphans: Option<Orphans>,
}

/// Files that were put together.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Compacted {
    /// Groups of files, each of which became fewer or better files.
    pub groups: u64,
    /// Groups left as they are because others changed their files meanwhile.
    pub conflicts: u64,
    pub files_removed: u64,
    pub bytes_removed: u64,
    pub files_added: u64,
    pub bytes_added: u64,
    pub delete_files_removed: u64,
    /// Snapshots that were made, as text because JSON readers round such large numbers.
    pub snapshots: Vec<String>,
}

/// Snapshots that went, and the files that only they named.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Expired {
    pub snapshots: u64,
    /// Tags and branches that were past their age.
    pub references: Vec<String>,
    pub files: u64,
    pub bytes: u64,
    /// Files that could not be removed: orphans now.
    pub left_behind: u64,
}

/// Files that nothing named.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Orphans {
    pub files: u64,
    pub bytes: u64,
    /// Files that nothing names, but too young to tell from those of a writer at work.
    pub young: u64,
    pub left_behind: u64,
    /// Some of them.
    pub examples: Vec<String>,
}

/// What a job read of its incremental table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReadMode {
    /// Every table whole: a full job, or the first run of an incremental one.
    Full,
    /// What was new.
    Incremental,
    /// Everything, because what was read before has been changed since.
    FullAfterRewrite,
    /// Nothing was new.
    NothingNew,
}

impl ReadMode {
    /// The name in answers and tables.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Incremental => "incremental",
            Self::FullAfterRewrite => "full_after_rewrite",
            Self::NothingNew => "nothing_new",
        }
    }
}

/// How a quality rule fared.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RuleReport {
    pub name: String,
    pub action: QualityAction,
    pub passed: bool,
    /// Rows that keep the rule.
    pub rows_passed: u64,
    /// Rows that break it.
    pub rows_failed: u64,
    /// What was expected and what was found, when the rule does not hold.
    pub message: Option<String>,
    /// Some of the rows that break the rule.
    pub examples: Vec<Value>,
}

impl Record for Run {
    const FOLDER: &'static str = "runs";

    fn id(&self) -> &str {
        &self.run
    }

    fn group(&self) -> &str {
        &self.workflow
    }

    fn unknown(run: &str) -> Error {
        Error::not_found(format!("no run `{run}`: older runs are in the table `tarn.runs`"))
    }
}

impl Run {
    /// How far each job is.
    pub fn statuses(&self) -> BTreeMap<String, Status> {
        self.jobs.iter().map(|(name, job)| (name.clone(), job.status)).collect()
    }

    /// Ends the run at `now`: succeeded if every job did.
    pub fn end(&mut self, now: DateTime<Utc>) {
        let any = |status| self.jobs.values().any(|job| job.status == status);
        self.status = match () {
            () if any(Status::Cancelled) => Status::Cancelled,
            () if self.jobs.values().all(|job| job.status == Status::Succeeded) => Status::Succeeded,
            () => Status::Failed,
        };
        self.ended = Some(now);
    }

    /// Ends a run whose runner is gone: what it was doing failed, what waited is skipped.
    pub fn abandon(&mut self, now: DateTime<Utc>) {
        for job in self.jobs.values_mut() {
            match job.status {
                Status::Running => {
                    job.status = Status::Failed;
                    job.error =
                        Some(Failure::new(ErrorKind::Retry, "the process that ran this job stopped before its end"));
                    job.ended = Some(now);
                }
                Status::Pending => job.status = Status::Skipped,
                _ => {}
            }
        }
        self.end(now);
    }

    /// Ends a run that did not begin.
    pub fn refuse(&mut self, status: Status, why: &Failure, now: DateTime<Utc>) {
        for job in self.jobs.values_mut().filter(|job| !job.status.is_over()) {
            job.status = status;
            job.error = Some(why.clone());
        }
        self.end(now);
    }

    /// Notes of what is not over that its function's time was up before.
    pub fn interrupt(&mut self, now: DateTime<Utc>) {
        for job in self.jobs.values_mut().filter(|job| !job.status.is_over()) {
            let begun = job.status == Status::Running;
            job.status = if begun { Status::Failed } else { Status::Skipped };
            job.ended = begun.then_some(now);
            job.error =
                Some(Failure::new(ErrorKind::Retry, "the function's time was up: a resume of the run does this job"));
        }
        self.interrupted = true;
    }

    /// Tells the metrics what this attempt did.
    pub fn count(&self) {
        let outcomes = || self.jobs.values().filter(|job| job.attempt == self.attempt).map(|job| &job.outcome);
        metrics::emit(
            &[("workflow", &self.workflow)],
            &[
                Metric::count("RowsWritten", outcomes().map(|o| o.rows_written).sum()),
                Metric::count("RowsQuarantined", outcomes().map(|o| o.rows_quarantined).sum()),
                Metric::count("RunsSucceeded", u64::from(self.status == Status::Succeeded)),
                Metric::count("RunsFailed", u64::from(self.status == Status::Failed)),
            ],
        );
    }

    /// Whether this attempt did any job.
    pub fn got_on(&self) -> bool {
        self.jobs.values().any(|job| job.status == Status::Succeeded && job.attempt == self.attempt)
    }

    /// Begins the next attempt: `jobs` (name and table) run again unless they succeeded. Jobs that the workflow no longer has
    /// are dropped.
    pub fn resume(&mut self, jobs: impl Iterator<Item = (String, String)>) {
        self.attempt += 1;
        self.status = Status::Running;
        self.ended = None;
        self.recorded = false;
        self.interrupted = false;
        let mut before = std::mem::take(&mut self.jobs);
        for (name, into) in jobs {
            let kept = before.remove(&name).filter(|job| job.status == Status::Succeeded && job.into == into);
            self.jobs.insert(name, kept.unwrap_or_else(|| JobRecord::pending(into, self.attempt)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(jobs: &[(&str, Status)]) -> Run {
        let record = |status: &Status| JobRecord { status: *status, ..JobRecord::pending("nyc.t", 1) };
        Run {
            run: "w-1".into(),
            workflow: "w".into(),
            status: Status::Running,
            attempt: 1,
            parameters: BTreeMap::new(),
            started: DateTime::UNIX_EPOCH,
            ended: None,
            jobs: jobs.iter().map(|(name, status)| ((*name).to_owned(), record(status))).collect(),
            recorded: false,
            cause: None,
            trace: None,
            interrupted: false,
            only: BTreeSet::new(),
        }
    }

    #[test]
    fn a_run_succeeds_only_with_all_of_its_jobs() {
        for (jobs, expected) in [
            (vec![("a", Status::Succeeded), ("b", Status::Succeeded)], Status::Succeeded),
            (vec![("a", Status::Succeeded), ("b", Status::Failed)], Status::Failed),
            (vec![("a", Status::Succeeded), ("b", Status::Skipped)], Status::Failed),
            (vec![("a", Status::Cancelled), ("b", Status::Failed)], Status::Cancelled),
        ] {
            let mut run = run(&jobs);
            run.end(DateTime::UNIX_EPOCH);
            assert_eq!(run.status, expected, "{jobs:?}");
        }
    }

    #[test]
    fn an_abandoned_run_says_what_was_under_way() {
        let mut run = run(&[("a", Status::Succeeded), ("b", Status::Running), ("c", Status::Pending)]);
        run.abandon(DateTime::UNIX_EPOCH);
        let status: Vec<_> = run.jobs.values().map(|job| job.status).collect();
        assert_eq!(status, [Status::Succeeded, Status::Failed, Status::Skipped]);
        assert_eq!(run.jobs["b"].error.as_ref().unwrap().kind, "Retry");
        assert_eq!(run.status, Status::Failed);
    }

    #[test]
    fn a_resume_keeps_what_succeeded_into_the_same_table() {
        let mut run = run(&[
            ("a", Status::Succeeded),
            ("b", Status::Failed),
            ("moved", Status::Succeeded),
            ("gone", Status::Failed),
        ]);
        let jobs = [("a", "nyc.t"), ("b", "nyc.t"), ("moved", "nyc.u"), ("new", "nyc.t")];
        run.resume(jobs.iter().map(|(name, into)| ((*name).to_owned(), (*into).to_owned())));
        let jobs: Vec<_> = run.jobs.iter().map(|(name, job)| (name.as_str(), job.status, job.attempt)).collect();
        let pending = Status::Pending;
        assert_eq!(jobs, [("a", Status::Succeeded, 1), ("b", pending, 2), ("moved", pending, 2), ("new", pending, 2)]);
    }

    #[test]
    fn a_record_survives_its_json() {
        let mut run = run(&[("a", Status::Failed)]);
        let job = run.jobs.get_mut("a").unwrap();
        job.outcome = Outcome {
            read: Some(ReadMode::Incremental),
            rows_selected: 3,
            snapshot_id: Some(i64::MAX.to_string()),
            ..Outcome::default()
        };
        job.error = Some(Failure::from(&Error::limit("too much")));
        let text = serde_json::to_string(&run).unwrap();
        assert_eq!(serde_json::from_str::<Run>(&text).unwrap(), run);
    }
}
