//! Leases: one worker of a thing at a time, as long as it says now and then that it lives.
//!
//! A document of the state, `leases/{name}` for workflows, says which run goes on, who has it, and until when that one counts as alive. A holder renews its
//! lease while it works. One that ran out means that its holder is gone: whoever comes next first closes the run that was left,
//! then begins its own. Each holder has a mark of its own, so that one whose reply was lost knows its own writing again.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use shared::clock::Clock;
use shared::ports::Ports;
use shared::random::Random;
use shared::state::{Expect, State, Version, get_json, put_json};
use shared::{Error, ErrorKind, Result};
use tokio::time::Interval;

/// How long a lease lasts without being renewed.
const LEASE_MS: i64 = 60_000;

/// Tries to cancel a run between two renewals of its lease.
const CANCEL_TRIES: u32 = 10;

/// What the state holds of a lease.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct LeaseDocument {
    run: String,
    /// Milliseconds since the epoch.
    until_ms: i64,
    /// Somebody asked the run to stop.
    cancel: bool,
    /// The mark of whoever holds it; empty where an earlier version wrote it.
    #[serde(default)]
    holder: String,
}

/// The right to work on something, until it is lost or released.
#[derive(Debug)]
pub struct Lease {
    name: String,
    run: String,
    holder: String,
    version: Version,
}

impl Lease {
    /// The run that the lease is for.
    pub fn run(&self) -> &str {
        &self.run
    }
}

/// What a try for the lease came to.
#[derive(Debug)]
pub enum Claim {
    Granted(Lease),
    /// The lease is granted, but the run that had it was left unfinished: close it, then [`Leases::pass_on`].
    TakenOver(Lease),
}

/// What the renewal of a lease says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Renewal {
    Renewed,
    /// Somebody asked the run to stop.
    Cancel,
    /// The lease ran out and somebody else has it.
    Lost,
}

/// Renewals of a lease, for as long as its run goes on.
#[derive(Debug)]
pub struct Heartbeat {
    leases: Leases,
    interval: Interval,
}

impl Heartbeat {
    /// One renewal in each `period`, the first at once.
    pub fn new(leases: &Leases, period: Duration) -> Self {
        Self { leases: leases.clone(), interval: tokio::time::interval(period) }
    }

    /// Waits until the next renewal is due. Cancel safe.
    pub async fn due(&mut self) {
        self.interval.tick().await;
    }

    /// Renews the lease. An error is logged and counts as renewed: a lease outlasts several missed renewals.
    pub async fn beat(&self, lease: &mut Lease) -> Renewal {
        self.leases.renew(lease).await.unwrap_or_else(|error| {
            tracing::warn!(%error, run = lease.run, "the lease of a run was not renewed");
            Renewal::Renewed
        })
    }
}

/// The leases of things of one kind. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Leases {
    state: Arc<dyn State>,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
    /// What messages call such a thing, e.g. `workflow`.
    kind: &'static str,
    /// What the keys of their documents begin with.
    prefix: &'static str,
}

impl Leases {
    /// Those of workflows.
    pub fn of_workflows(ports: &Ports) -> Self {
        let Ports { state, clock, random, .. } = ports.clone();
        Self { state, clock, random, kind: "workflow", prefix: "leases/" }
    }

    /// The run that has the lease of `name` now; none when its time is up.
    ///
    /// # Errors
    /// What the state answers.
    pub async fn runs(&self, name: &str) -> Result<Option<String>> {
        let document = self.document(name).await?.map(|(document, _)| document);
        Ok(document.filter(|document| document.until_ms > self.clock.now_ms()).map(|document| document.run))
    }

    /// Takes the lease of `name` for `run`.
    ///
    /// # Errors
    /// `Conflict`, naming the run that goes on.
    pub async fn claim(&self, name: &str, run: &str) -> Result<Claim> {
        let holder = self.random.uuid().simple().to_string();
        let Some((document, version)) = self.document(name).await? else {
            return Ok(Claim::Granted(self.write(name, run, holder, Expect::Absent).await?));
        };
        if document.until_ms > self.clock.now_ms() {
            let (kind, run) = (self.kind, &document.run);
            return Err(Error::conflict(format!(
                "{kind} `{name}` runs already: expected the end of run `{run}` before another one"
            )));
        }
        // The lease stays with the run that was left until that one is closed: a crash in between leaves it findable.
        let lease = self.write(name, &document.run, holder, Expect::Version(version)).await?;
        Ok(if document.run == run { Claim::Granted(lease) } else { Claim::TakenOver(lease) })
    }

    /// Gives a lease to another run.
    ///
    /// # Errors
    /// `Conflict` when the lease was lost.
    pub async fn pass_on(&self, lease: Lease, run: &str) -> Result<Lease> {
        self.write(&lease.name, run, lease.holder, Expect::Version(lease.version)).await
    }

    /// Keeps the lease for another while.
    ///
    /// # Errors
    /// What the state answers.
    pub async fn renew(&self, lease: &mut Lease) -> Result<Renewal> {
        let expect = Expect::Version(lease.version.clone());
        match self.write(&lease.name, &lease.run, lease.holder.clone(), expect).await {
            Ok(renewed) => {
                *lease = renewed;
                Ok(Renewal::Renewed)
            }
            Err(error) if error.kind() == ErrorKind::Conflict => match self.document(&lease.name).await? {
                Some((document, _)) if document.holder != lease.holder => Ok(Renewal::Lost),
                Some((document, _)) if document.cancel => Ok(Renewal::Cancel),
                // A renewal of ours whose reply was lost: from then on.
                Some((_, version)) => {
                    let expect = Expect::Version(version);
                    *lease = self.write(&lease.name, &lease.run, lease.holder.clone(), expect).await?;
                    Ok(Renewal::Renewed)
                }
                None => Ok(Renewal::Lost),
            },
            Err(error) => Err(error),
        }
    }

    /// Lets go of the lease.
    ///
    /// # Errors
    /// What the state answers.
    pub async fn release(&self, lease: Lease) -> Result<()> {
        match self.document(&lease.name).await? {
            Some((document, version)) if document.holder == lease.holder => {
                self.state.delete(&self.key(&lease.name), Expect::Version(version)).await
            }
            _ => Ok(()),
        }
    }

    /// Asks a run to stop; its worker sees it at its next renewal. `false` when the run does not hold the lease.
    ///
    /// # Errors
    /// `Retry` when the lease kept changing meanwhile.
    pub async fn cancel(&self, name: &str, run: &str) -> Result<bool> {
        // The worker's renewals change the document too, but only every few seconds.
        for _ in 0..CANCEL_TRIES {
            let Some((document, version)) = self.document(name).await? else { return Ok(false) };
            if document.run != run {
                return Ok(false);
            }
            let document = LeaseDocument { cancel: true, ..document };
            match put_json(self.state.as_ref(), &self.key(name), &document, Expect::Version(version)).await {
                Err(error) if error.kind() == ErrorKind::Conflict => {}
                other => return other.map(|_| true),
            }
        }
        Err(Error::retry(format!("the lease of run `{run}` changed {CANCEL_TRIES} times while it was to be cancelled")))
    }

    /// Ends every lease of this kind: only for a host that knows that no worker is alive, such as one that has just started alone.
    ///
    /// # Errors
    /// What the state answers.
    pub async fn expire_all(&self) -> Result<()> {
        for key in self.state.list(self.prefix).await? {
            let found: Option<(LeaseDocument, Version)> = get_json(self.state.as_ref(), &key).await?;
            let Some((document, _)) = found else { continue };
            // Whoever renews it nevertheless finds another holder and stops.
            let expired = LeaseDocument { until_ms: 0, holder: String::new(), ..document };
            put_json(self.state.as_ref(), &key, &expired, Expect::Anything).await?;
        }
        Ok(())
    }

    /// Ends a lease at once, but leaves its document, so that the next worker closes the run.
    ///
    /// # Errors
    /// What the state answers.
    pub async fn expire(&self, lease: Lease) -> Result<()> {
        match self.document(&lease.name).await? {
            Some((document, version)) if document.holder == lease.holder => {
                let document = LeaseDocument { until_ms: 0, ..document };
                put_json(self.state.as_ref(), &self.key(&lease.name), &document, Expect::Version(version)).await?;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn key(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    async fn document(&self, name: &str) -> Result<Option<(LeaseDocument, Version)>> {
        get_json(self.state.as_ref(), &self.key(name)).await
    }

    async fn write(&self, name: &str, run: &str, holder: String, expect: Expect) -> Result<Lease> {
        let until_ms = self.clock.now_ms() + LEASE_MS;
        let document = LeaseDocument { run: run.into(), until_ms, cancel: false, holder };
        let version = match put_json(self.state.as_ref(), &self.key(name), &document, expect).await {
            Ok(version) => version,
            Err(error) if error.kind() == ErrorKind::Conflict => {
                let message = format!("another run of {} `{name}` began just now", self.kind);
                return Err(Error::conflict(message).with_source(error));
            }
            Err(error) if error.kind() == ErrorKind::OutcomeUnknown => match self.document(name).await? {
                Some((found, version)) if found == document => version,
                _ => return Err(error),
            },
            Err(error) => return Err(error),
        };
        Ok(Lease { name: name.into(), run: run.into(), holder: document.holder, version })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

    use async_trait::async_trait;
    use bytes::Bytes;
    use shared::clock::ManualClock;
    use shared::state::Document;

    use super::*;

    fn leases() -> (Leases, Arc<ManualClock>) {
        let clock = Arc::new(ManualClock::at(1_700_000_000_000));
        (Leases::of_workflows(&adapters_embedded::in_memory(clock.clone()).unwrap()), clock)
    }

    fn granted(claim: Claim) -> Lease {
        match claim {
            Claim::Granted(lease) => lease,
            Claim::TakenOver(_) => panic!("the lease was left"),
        }
    }

    #[tokio::test]
    async fn one_run_goes_on_at_a_time() {
        let (leases, clock) = leases();
        let mut first = granted(leases.claim("w", "w-1").await.unwrap());
        clock.advance(LEASE_MS - 1);
        let error = leases.claim("w", "w-2").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict);
        assert!(error.to_string().contains("`w-1`"), "{error}");
        granted(leases.claim("v", "v-1").await.unwrap());
        assert_eq!(leases.renew(&mut first).await.unwrap(), Renewal::Renewed);
        clock.advance(LEASE_MS - 1);
        assert!(leases.claim("w", "w-2").await.is_err());
        leases.release(first).await.unwrap();
        granted(leases.claim("w", "w-2").await.unwrap());
    }

    #[tokio::test]
    async fn a_lease_that_ran_out_is_taken_over_and_the_first_holder_notices() {
        let (leases, clock) = leases();
        let mut first = granted(leases.claim("w", "w-1").await.unwrap());
        clock.advance(LEASE_MS);
        let Claim::TakenOver(left) = leases.claim("w", "w-2").await.unwrap() else { panic!("nothing was left") };
        assert!(leases.claim("w", "w-3").await.is_err());
        assert_eq!(leases.renew(&mut first).await.unwrap(), Renewal::Lost, "also while the run is the same");
        let mut second = leases.pass_on(left, "w-2").await.unwrap();
        assert_eq!(leases.renew(&mut first).await.unwrap(), Renewal::Lost);
        leases.release(first).await.unwrap();
        assert_eq!(leases.renew(&mut second).await.unwrap(), Renewal::Renewed);
    }

    #[tokio::test]
    async fn a_run_is_asked_to_stop_while_it_has_the_lease() {
        let (leases, _) = leases();
        let mut lease = granted(leases.claim("w", "w-1").await.unwrap());
        assert!(!leases.cancel("w", "w-2").await.unwrap());
        assert!(leases.cancel("w", "w-1").await.unwrap());
        assert_eq!(leases.renew(&mut lease).await.unwrap(), Renewal::Cancel);
        leases.release(lease).await.unwrap();
        assert!(!leases.cancel("w", "w-1").await.unwrap());
    }

    /// A state whose next write takes effect without an answer, and which then does not tell so often.
    #[derive(Debug)]
    struct Forgetful(Arc<dyn State>, AtomicBool, AtomicU32);

    #[async_trait]
    impl State for Forgetful {
        async fn get(&self, key: &str) -> Result<Option<Document>> {
            match self.2.load(Ordering::SeqCst) {
                0 => self.0.get(key).await,
                left => {
                    self.2.store(left - 1, Ordering::SeqCst);
                    Err(Error::retry("busy"))
                }
            }
        }

        async fn put(&self, key: &str, bytes: Bytes, expect: Expect) -> Result<Version> {
            let version = self.0.put(key, bytes, expect).await?;
            match self.1.swap(false, Ordering::SeqCst) {
                true => Err(Error::new(ErrorKind::OutcomeUnknown, "the reply was lost")),
                false => Ok(version),
            }
        }

        async fn delete(&self, key: &str, expect: Expect) -> Result<()> {
            self.0.delete(key, expect).await
        }

        async fn list_first(&self, prefix: &str, most: usize) -> Result<Vec<String>> {
            self.0.list_first(prefix, most).await
        }
    }

    #[tokio::test]
    async fn a_write_whose_reply_was_lost_is_known_again() {
        let clock = Arc::new(ManualClock::at(1_700_000_000_000));
        let mut ports = adapters_embedded::in_memory(clock.clone()).unwrap();
        let state = Arc::new(Forgetful(ports.state.clone(), AtomicBool::new(true), AtomicU32::new(0)));
        ports.state = state.clone();
        let leases = Leases::of_workflows(&ports);
        let mut lease = granted(leases.claim("w", "w-1").await.unwrap());
        state.1.store(true, Ordering::SeqCst);
        clock.advance(LEASE_MS / 2);
        assert_eq!(leases.renew(&mut lease).await.unwrap(), Renewal::Renewed);
        clock.advance(LEASE_MS - 1);
        assert!(leases.claim("w", "w-2").await.is_err(), "it was renewed");
        state.1.store(true, Ordering::SeqCst);
        state.2.store(1, Ordering::SeqCst);
        assert!(leases.renew(&mut lease).await.is_err(), "neither the answer nor a look tells");
        clock.advance(LEASE_MS - 1);
        assert_eq!(leases.renew(&mut lease).await.unwrap(), Renewal::Renewed);
        clock.advance(LEASE_MS - 1);
        assert!(leases.claim("w", "w-2").await.is_err(), "from the last renewal on");
    }
}
