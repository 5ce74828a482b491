//! State documents of runs: the record of each run, and the lease that lets one run of a workflow go on at a time.
//!
//! ```text
//! runs/{workflow}/{run}     a run's record; only the holder of the lease writes it
//! leases/{workflow}         which run goes on, and until when its runner counts as alive
//! queue/{run}               a run that nobody waits for and that is not over
//! ```
//!
//! A runner renews its lease while it works. A lease that ran out means that the runner is gone: whoever comes next first
//! closes the run that was left, then begins its own.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use shared::clock::Clock;
use shared::ports::Ports;
use shared::state::{Expect, State, Version, get_json, put_json};
use shared::{Error, ErrorKind, Result};
use uuid::{NoContext, Timestamp, Uuid};

use crate::record::{Run, Status};

/// How long a lease lasts without being renewed.
const LEASE_MS: i64 = 60_000;
/// Finished runs of a workflow that keep their record here; `tarn.runs` has them all.
const KEPT_RUNS: usize = 100;

/// Where the queue's documents lie.
const QUEUE: &str = "queue/";

/// Tries to cancel a run between two renewals of its lease.
const CANCEL_TRIES: u32 = 10;

/// Which run of a workflow goes on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Lease {
    run: String,
    /// Milliseconds since the epoch.
    until_ms: i64,
    /// Somebody asked the run to stop.
    cancel: bool,
}

/// The right to run a workflow, until it is lost or released.
#[derive(Debug)]
pub struct Held {
    workflow: String,
    run: String,
    version: Version,
}

impl Held {
    /// The run that the lease is for.
    pub fn run(&self) -> &str {
        &self.run
    }
}

/// What a try for the lease came to.
#[derive(Debug)]
pub enum Claim {
    Held(Held),
    /// The lease is held, but the run that had it was left unfinished: close it, then [`Ledger::pass_on`].
    Left(Held),
}

/// What the renewal of a lease says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pulse {
    GoOn,
    /// Somebody asked the run to stop.
    Cancel,
    /// The lease ran out and somebody else has it.
    Lost,
}

/// A run's record and the version that the next write must find.
#[derive(Debug)]
pub struct Filed {
    pub run: Run,
    version: Version,
}

/// The documents of runs.
#[derive(Debug, Clone)]
pub struct Ledger {
    state: Arc<dyn State>,
    clock: Arc<dyn Clock>,
}

impl Ledger {
    pub fn new(ports: &Ports) -> Self {
        Self { state: ports.state.clone(), clock: ports.clock.clone() }
    }

    /// The time now.
    pub fn now(&self) -> DateTime<Utc> {
        DateTime::from_timestamp_millis(self.clock.now_ms()).unwrap_or_default()
    }

    /// An id for a new run: in order of time, random behind that.
    pub fn new_id(&self, workflow: &str) -> String {
        let now_ms = u64::try_from(self.clock.now_ms()).unwrap_or_default();
        let nanos = u32::try_from(now_ms % 1000).unwrap_or_default() * 1_000_000;
        let id = Uuid::new_v7(Timestamp::from_unix(NoContext, now_ms / 1000, nanos));
        format!("{workflow}-{}", id.simple())
    }

    /// The record of a run.
    ///
    /// # Errors
    /// `NotFound` when there is none of that id.
    pub async fn get(&self, run: &str) -> Result<Filed> {
        let unknown = || Error::not_found(format!("no run `{run}`: older runs are in the table `tarn.runs`"));
        let key = run_key(workflow_of(run), run);
        let (run, version) = get_json(self.state.as_ref(), &key).await?.ok_or_else(unknown)?;
        Ok(Filed { run, version })
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
    pub async fn file(&self, run: Run) -> Result<Filed> {
        let version = put_json(self.state.as_ref(), &run_key(&run.workflow, &run.run), &run, Expect::Absent).await?;
        Ok(Filed { run, version })
    }

    /// Writes the record as it is now.
    ///
    /// # Errors
    /// `Conflict` when somebody else wrote it: the lease was lost.
    pub async fn save(&self, filed: &mut Filed) -> Result<()> {
        let key = run_key(&filed.run.workflow, &filed.run.run);
        let expect = Expect::Version(filed.version.clone());
        filed.version = put_json(self.state.as_ref(), &key, &filed.run, expect).await?;
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

    /// Notes that a filed run waits for a tick.
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

    /// Takes the lease of `workflow` for `run`.
    ///
    /// # Errors
    /// `Conflict`, naming the run that goes on.
    pub async fn claim(&self, workflow: &str, run: &str) -> Result<Claim> {
        let Some((lease, version)) = self.lease(workflow).await? else {
            return Ok(Claim::Held(self.write(workflow, run, Expect::Absent).await?));
        };
        if lease.until_ms > self.clock.now_ms() {
            return Err(busy(workflow, &lease.run));
        }
        // The lease stays with the run that was left until that one is closed: a crash in between leaves it findable.
        let held = self.write(workflow, &lease.run, Expect::Version(version)).await?;
        Ok(if lease.run == run { Claim::Held(held) } else { Claim::Left(held) })
    }

    /// Gives a held lease to another run.
    ///
    /// # Errors
    /// `Conflict` when the lease was lost.
    pub async fn pass_on(&self, held: Held, run: &str) -> Result<Held> {
        self.write(&held.workflow, run, Expect::Version(held.version)).await
    }

    /// Keeps the lease for another while.
    ///
    /// # Errors
    /// What the state answers.
    pub async fn renew(&self, held: &mut Held) -> Result<Pulse> {
        match self.write(&held.workflow, &held.run, Expect::Version(held.version.clone())).await {
            Ok(renewed) => {
                *held = renewed;
                Ok(Pulse::GoOn)
            }
            Err(error) if error.kind() == ErrorKind::Conflict => match self.lease(&held.workflow).await? {
                Some((lease, _)) if lease.run == held.run && lease.cancel => Ok(Pulse::Cancel),
                _ => Ok(Pulse::Lost),
            },
            Err(error) => Err(error),
        }
    }

    /// Lets go of the lease.
    ///
    /// # Errors
    /// What the state answers.
    pub async fn release(&self, held: Held) -> Result<()> {
        match self.lease(&held.workflow).await? {
            Some((lease, version)) if lease.run == held.run => {
                self.state.delete(&lease_key(&held.workflow), Expect::Version(version)).await
            }
            _ => Ok(()),
        }
    }

    /// Asks the run to stop; its runner sees it at its next renewal.
    ///
    /// # Errors
    /// `Conflict` when the run does not go on.
    pub async fn cancel(&self, run: &Run) -> Result<()> {
        let over =
            || Error::conflict(format!("expected a run that goes on, but `{}` is {}", run.run, run.status.as_str()));
        // The runner's renewals change the document too, but only every few seconds.
        for _ in 0..CANCEL_TRIES {
            let (lease, version) = self.lease(&run.workflow).await?.ok_or_else(over)?;
            if lease.run != run.run || run.status != Status::Running {
                return Err(over());
            }
            let lease = Lease { cancel: true, ..lease };
            match put_json(self.state.as_ref(), &lease_key(&run.workflow), &lease, Expect::Version(version)).await {
                Err(error) if error.kind() == ErrorKind::Conflict => {}
                other => return other.map(|_| ()),
            }
        }
        Err(Error::retry(format!(
            "the lease of run `{}` changed {CANCEL_TRIES} times while it was to be cancelled",
            run.run
        )))
    }

    /// Ends every lease: only for a host that knows that no runner is alive, such as one that has just started alone.
    ///
    /// # Errors
    /// What the state answers.
    pub async fn expire_all(&self) -> Result<()> {
        for key in self.state.list("leases/").await? {
            let found: Option<(Lease, Version)> = get_json(self.state.as_ref(), &key).await?;
            let Some((lease, _)) = found else { continue };
            // Whoever renews it nevertheless finds another version and stops.
            put_json(self.state.as_ref(), &key, &Lease { until_ms: 0, ..lease }, Expect::Anything).await?;
        }
        Ok(())
    }

    /// Ends a held lease at once, but leaves its document, so that the next runner closes the run.
    ///
    /// # Errors
    /// What the state answers.
    pub async fn expire(&self, held: Held) -> Result<()> {
        match self.lease(&held.workflow).await? {
            Some((lease, version)) if lease.run == held.run => {
                let lease = Lease { until_ms: 0, ..lease };
                put_json(self.state.as_ref(), &lease_key(&held.workflow), &lease, Expect::Version(version)).await?;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    async fn lease(&self, workflow: &str) -> Result<Option<(Lease, Version)>> {
        get_json(self.state.as_ref(), &lease_key(workflow)).await
    }

    async fn write(&self, workflow: &str, run: &str, expect: Expect) -> Result<Held> {
        let lease = Lease { run: run.into(), until_ms: self.clock.now_ms() + LEASE_MS, cancel: false };
        let version = put_json(self.state.as_ref(), &lease_key(workflow), &lease, expect).await.map_err(|error| {
            match error.kind() {
                ErrorKind::Conflict => {
                    Error::conflict(format!("another run of workflow `{workflow}` began just now")).with_source(error)
                }
                _ => error,
            }
        })?;
        Ok(Held { workflow: workflow.into(), run: run.into(), version })
    }
}

fn busy(workflow: &str, run: &str) -> Error {
    Error::conflict(format!("workflow `{workflow}` runs already: expected the end of run `{run}` before another one"))
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

fn lease_key(workflow: &str) -> String {
    format!("leases/{workflow}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared::clock::ManualClock;

    fn ledger() -> (Ledger, Arc<ManualClock>) {
        let clock = Arc::new(ManualClock::at(1_700_000_000_000));
        (Ledger::new(&adapters_embedded::in_memory(clock.clone()).unwrap()), clock)
    }

    fn held(claim: Claim) -> Held {
        match claim {
            Claim::Held(held) => held,
            Claim::Left(_) => panic!("the lease was left"),
        }
    }

    #[tokio::test]
    async fn one_run_of_a_workflow_goes_on_at_a_time() {
        let (ledger, clock) = ledger();
        let mut first = held(ledger.claim("w", "w-1").await.unwrap());
        clock.advance(LEASE_MS - 1);
        let error = ledger.claim("w", "w-2").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict);
        assert!(error.to_string().contains("`w-1`"), "{error}");
        held(ledger.claim("v", "v-1").await.unwrap());
        assert_eq!(ledger.renew(&mut first).await.unwrap(), Pulse::GoOn);
        clock.advance(LEASE_MS - 1);
        assert!(ledger.claim("w", "w-2").await.is_err());
        ledger.release(first).await.unwrap();
        held(ledger.claim("w", "w-2").await.unwrap());
    }

    #[tokio::test]
    async fn a_lease_that_ran_out_is_taken_over_and_the_first_runner_notices() {
        let (ledger, clock) = ledger();
        let mut first = held(ledger.claim("w", "w-1").await.unwrap());
        clock.advance(LEASE_MS);
        let Claim::Left(left) = ledger.claim("w", "w-2").await.unwrap() else { panic!("nothing was left") };
        assert!(ledger.claim("w", "w-3").await.is_err());
        let mut second = ledger.pass_on(left, "w-2").await.unwrap();
        assert_eq!(ledger.renew(&mut first).await.unwrap(), Pulse::Lost);
        ledger.release(first).await.unwrap();
        assert_eq!(ledger.renew(&mut second).await.unwrap(), Pulse::GoOn);
    }

    #[tokio::test]
    async fn ids_sort_by_time() {
        let (ledger, clock) = ledger();
        let first = ledger.new_id("w");
        clock.advance(1);
        assert!(first < ledger.new_id("w"), "{first}");
    }
}
