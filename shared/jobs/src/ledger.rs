//! The records of runs: what is known of each while it is waited for, goes on, and for a while after.
//!
//! ```text
//! {folder}/{group}/{run}    a run's record; only the holder of the group's lease writes it once the run goes on
//! ```
//!
//! One run of a group goes on at a time, which has the group's lease ([`crate::lease`]): of a workflow's runs, say.

use std::marker::PhantomData;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde::de::DeserializeOwned;
use shared::clock::Clock;
use shared::ports::Ports;
use shared::random::Random;
use shared::state::{Expect, State, Version, get_json, put_json};
use shared::{Error, Result};

/// Finished runs of a group that keep their record.
const KEPT: usize = 100;

/// What is known of a run.
pub trait Record: Serialize + DeserializeOwned + Send + Sync {
    /// Where the state has records of this kind, e.g. `runs`.
    const FOLDER: &'static str;

    /// As [`Ledger::new_id`] made it.
    fn id(&self) -> &str;

    /// What one run of goes on at a time.
    fn group(&self) -> &str;

    /// The error of a run that has no record, or none any more.
    fn unknown(run: &str) -> Error {
        Error::not_found(format!("no run `{run}`"))
    }
}

/// A record and the version that the next write must find.
#[derive(Debug)]
pub struct Stored<R> {
    pub record: R,
    version: Version,
}

/// The records of one kind. Cheap to clone.
#[derive(Debug)]
pub struct Ledger<R> {
    state: Arc<dyn State>,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
    records: PhantomData<fn() -> R>,
}

impl<R> Clone for Ledger<R> {
    fn clone(&self) -> Self {
        let (state, clock, random) = (self.state.clone(), self.clock.clone(), self.random.clone());
        Self { state, clock, random, records: PhantomData }
    }
}

impl<R: Record> Ledger<R> {
    pub fn new(ports: &Ports) -> Self {
        let Ports { state, clock, random, .. } = ports.clone();
        Self { state, clock, random, records: PhantomData }
    }

    /// The time now.
    pub fn now(&self) -> DateTime<Utc> {
        DateTime::from_timestamp_millis(self.clock.now_ms()).unwrap_or_default()
    }

    /// An id for a new run: its group, then in order of time, random behind that.
    pub fn new_id(&self, group: &str) -> String {
        format!("{group}-{}", self.random.uuid_at(self.clock.now_ms()).simple())
    }

    /// The record of a run.
    ///
    /// # Errors
    /// [`Record::unknown`] when there is none of that id.
    pub async fn get(&self, run: &str) -> Result<Stored<R>> {
        let key = key::<R>(group_of(run), run);
        let (record, version) = get_json(self.state.as_ref(), &key).await?.ok_or_else(|| R::unknown(run))?;
        Ok(Stored { record, version })
    }

    /// The newest runs of a group, newest first.
    ///
    /// # Errors
    /// What the state answers.
    pub async fn list(&self, group: &str, limit: usize) -> Result<Vec<R>> {
        let mut records = Vec::new();
        for key in self.state.list(&key::<R>(group, "")).await?.iter().rev().take(limit) {
            // A run may have been dropped since the list was made.
            if let Some((record, _)) = get_json(self.state.as_ref(), key).await? {
                records.push(record);
            }
        }
        Ok(records)
    }

    /// Files a new run.
    ///
    /// # Errors
    /// `Conflict` when there is one of that id.
    pub async fn file(&self, record: R) -> Result<Stored<R>> {
        let key = key::<R>(record.group(), record.id());
        let version = put_json(self.state.as_ref(), &key, &record, Expect::Absent).await?;
        Ok(Stored { record, version })
    }

    /// Writes the record as it is now.
    ///
    /// # Errors
    /// `Conflict` when somebody else wrote it: the lease was lost.
    pub async fn save(&self, stored: &mut Stored<R>) -> Result<()> {
        let key = key::<R>(stored.record.group(), stored.record.id());
        let expect = Expect::Version(stored.version.clone());
        stored.version = put_json(self.state.as_ref(), &key, &stored.record, expect).await?;
        Ok(())
    }

    /// Drops the records of the oldest runs of a group.
    ///
    /// # Errors
    /// What the state answers.
    pub async fn prune(&self, group: &str) -> Result<()> {
        let keys = self.state.list(&key::<R>(group, "")).await?;
        for key in keys.iter().rev().skip(KEPT) {
            self.state.delete(key, Expect::Anything).await?;
        }
        Ok(())
    }
}

/// The group in a run's id: names of groups have no hyphen.
pub fn group_of(run: &str) -> &str {
    run.split_once('-').map_or(run, |(group, _)| group)
}

fn key<R: Record>(group: &str, run: &str) -> String {
    format!("{}/{group}/{run}", R::FOLDER)
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;
    use shared::ErrorKind;
    use shared::clock::ManualClock;

    use super::*;

    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    struct Run {
        id: String,
        done: bool,
    }

    impl Record for Run {
        const FOLDER: &'static str = "tests";

        fn id(&self) -> &str {
            &self.id
        }

        fn group(&self) -> &str {
            group_of(&self.id)
        }
    }

    fn ledger() -> (Ledger<Run>, Arc<ManualClock>) {
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

    #[tokio::test]
    async fn a_record_is_written_by_whoever_saw_it_last() {
        let (ledger, _) = ledger();
        let run = Run { id: ledger.new_id("w"), done: false };
        let mut first = ledger.file(run.clone()).await.unwrap();
        let mut second = ledger.get(&run.id).await.unwrap();
        assert_eq!(ledger.file(run.clone()).await.unwrap_err().kind(), ErrorKind::Conflict);
        first.record.done = true;
        ledger.save(&mut first).await.unwrap();
        assert_eq!(ledger.save(&mut second).await.unwrap_err().kind(), ErrorKind::Conflict);
        assert_eq!(ledger.list("w", 10).await.unwrap(), [Run { done: true, ..run }]);
        assert_eq!(ledger.get("w-1").await.unwrap_err().kind(), ErrorKind::NotFound);
    }

    #[tokio::test]
    async fn the_newest_records_of_a_group_stay() {
        let (ledger, clock) = ledger();
        let mut ids = Vec::new();
        for _ in 0..KEPT + 2 {
            clock.advance(1);
            ids.push(ledger.new_id("w"));
            ledger.file(Run { id: ids[ids.len() - 1].clone(), done: true }).await.unwrap();
        }
        ledger.file(Run { id: ledger.new_id("other"), done: true }).await.unwrap();
        ledger.prune("w").await.unwrap();
        let left: Vec<_> = ledger.list("w", usize::MAX).await.unwrap().into_iter().map(|run| run.id).collect();
        assert_eq!(left, ids.into_iter().skip(2).rev().collect::<Vec<_>>());
        assert_eq!(ledger.list("other", 10).await.unwrap().len(), 1);
    }
}
