//! State documents of runs: the record of each run, and the queue of those that nobody waits for. One run of a workflow goes on at
//! a time, which has its lease ([`jobs::lease`]).
//!
//! ```text
//! runs/{workflow}/{run}     a run's record; only the holder of the lease writes it
//! queue/{run}               a run that nobody waits for and that is not over
//! ```

use std::sync::Arc;

use chrono::{DateTime, Utc};
use jobs::lease::Leases;
use shared::clock::Clock;
use shared::ports::Ports;
use shared::random::Random;
use shared::state::{Expect, State, Version, get_json, put_json};
use shared::{Error, Result};

use crate::record::{Run, Status};

/// Finished runs of a workflow that keep their record here; `tarn.runs` has them all.
const KEPT_RUNS: usize = 100;

/// Where the queue's documents lie.
const QUEUE: &str = "queue/";

/// A run's record and the version that the next write must find.
#[derive(Debug)]
pub struct StoredRun {
    pub run: Run,
    version: Version,
}

/// The documents of runs.
#[derive(Debug, Clone)]
pub struct Ledger {
    state: Arc<dyn State>,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
    /// Of workflows.
    pub leases: Leases,
}

impl Ledger {
    pub fn new(ports: &Ports) -> Self {
        Self {
            state: ports.state.clone(),
            clock: ports.clock.clone(),
            random: ports.random.clone(),
            leases: Leases::of_workflows(ports),
        }
    }

    /// The time now.
    pub fn now(&self) -> DateTime<Utc> {
        DateTime::from_timestamp_millis(self.clock.now_ms()).unwrap_or_default()
    }

    /// An id for a new run: in order of time, random behind that.
    pub fn new_id(&self, workflow: &str) -> String {
        format!("{workflow}-{}", self.random.uuid_at(self.clock.now_ms()).simple())
    }

    /// The record of a run.
    ///
    /// # Errors
    /// `NotFound` when there is none of that id.
    pub async fn get(&self, run: &str) -> Result<StoredRun> {
        let unknown = || Error::not_found(format!("no run `{run}`: older runs are in the table `tarn.runs`"));
        let key = run_key(workflow_of(run), run);
        let (run, version) = get_json(self.state.as_ref(), &key).await?.ok_or_else(unknown)?;
        Ok(StoredRun { run, version })
    }

    /// The newest runs of a workflow, newest first.
    ///
    /// # Errors
    /// What the state answers.
    pub async fn list(&self, workflow: &str, limit: usize) -> Result<Vec<Run>> {
        let mut runs = Vec::new();
        for key in self.state.list(&run_key(workflow, "")).await?.iter().rev().take(limit) {
            // A run may have been dropped since the list was made.
            if let Some((run, _)) = get_json(self.state.as_ref(), key).await? {
                runs.push(run);
            }
        }
        Ok(runs)
    }

    /// Files a new run.
    ///
    /// # Errors
    /// `Conflict` when there is one of that id.
    pub async fn file(&self, run: Run) -> Result<StoredRun> {
        let version = put_json(self.state.as_ref(), &run_key(&run.workflow, &run.run), &run, Expect::Absent).await?;
        Ok(StoredRun { run, version })
    }

    /// Writes the record as it is now.
    ///
    /// # Errors
    /// `Conflict` when somebody else wrote it: the lease was lost.
    pub async fn save(&self, stored: &mut StoredRun) -> Result<()> {
        let key = run_key(&stored.run.workflow, &stored.run.run);
        let expect = Expect::Version(stored.version.clone());
        stored.version = put_json(self.state.as_ref(), &key, &stored.run, expect).await?;
        Ok(())
    }

    /// Drops the records of the oldest runs of a workflow.
    ///
    /// # Errors
    /// What the state answers.
    pub async fn prune(&self, workflow: &str) -> Result<()> {
        let keys = self.state.list(&run_key(workflow, "")).await?;
        for key in keys.iter().rev().skip(KEPT_RUNS) {
            self.state.delete(key, Expect::Anything).await?;
        }
        Ok(())
    }

    /// Notes that a stored run waits for a tick.
    ///
    /// # Errors
    /// What the state answers.
    pub async fn enqueue(&self, run: &str) -> Result<()> {
        self.state.put(&queue_key(run), "{}".into(), Expect::Anything).await.map(|_| ())
    }

    /// Takes a run off the queue.
    ///
    /// # Errors
    /// What the state answers.
    pub async fn dequeue(&self, run: &str) -> Result<()> {
        self.state.delete(&queue_key(run), Expect::Anything).await
    }

    /// The runs that wait, those of one workflow in the order they came.
    ///
    /// # Errors
    /// What the state answers.
    pub async fn queued(&self, workflow: Option<&str>) -> Result<Vec<String>> {
        let prefix = queue_key(&workflow.map(|name| format!("{name}-")).unwrap_or_default());
        let keys = self.state.list(&prefix).await?;
        Ok(keys.iter().filter_map(|key| key.strip_prefix(QUEUE)).map(str::to_owned).collect())
    }

    /// Asks a run to stop; its runner sees it at its next renewal.
    ///
    /// # Errors
    /// `Conflict` when the run does not go on.
    pub async fn cancel(&self, run: &Run) -> Result<()> {
        if run.status == Status::Running && self.leases.cancel(&run.workflow, &run.run).await? {
            return Ok(());
        }
        Err(Error::conflict(format!("expected a run that goes on, but `{}` is {}", run.run, run.status.as_str())))
    }
}

/// The workflow in a run's id.
pub fn workflow_of(run: &str) -> &str {
    run.split_once('-').map_or(run, |(workflow, _)| workflow)
}

fn queue_key(run: &str) -> String {
    format!("{QUEUE}{run}")
}

fn run_key(workflow: &str, run: &str) -> String {
    format!("runs/{workflow}/{run}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared::clock::ManualClock;

    fn ledger() -> (Ledger, Arc<ManualClock>) {
        let clock = Arc::new(ManualClock::at(1_700_000_000_000));
        (Ledger::new(&adapters_embedded::in_memory(clock.clone()).unwrap()), clock)
    }

    #[tokio::test]
    async fn ids_sort_by_time() {
        let (ledger, clock) = ledger();
        let first = ledger.new_id("w");
        clock.advance(1);
        assert!(first < ledger.new_id("w"), "{first}");
    }
}
