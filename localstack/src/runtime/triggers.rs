//! The stream trigger: reads each shard from a stored position and gives the batcher what it finds, at least once, as Lambda's
//! event source mapping does. Beside it the batcher's tick, which writes what has become old enough.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use shared::api::Event;
use shared::model::{Positions, SequenceNumber};
use shared::ports::Ports;
use shared::state::{Expect, get_json, put_json};
use shared::stream::{MAX_READ_RECORDS, ReadFrom, Record};
use shared::{Error, Result};
use tokio::sync::Notify;

use super::functions::Functions;
use super::{events, shutdown::Shutdown};

/// Bytes of records in one event at most: Lambda's payload limit.
const MAX_EVENT_BYTES: usize = 6 * 1024 * 1024;
/// How often an idle stream is looked at, besides after each put through the gateway.
const POLL: Duration = Duration::from_millis(1000);
/// How often the batcher is asked whether something has become old enough.
const TICK: Duration = Duration::from_secs(1);
/// Waits after a failed call; the last one repeats.
const BACKOFF: [Duration; 4] =
    [Duration::from_millis(200), Duration::from_secs(1), Duration::from_secs(5), Duration::from_secs(30)];

/// Wakes the trigger of a stream.
#[derive(Debug, Clone, Default)]
pub(super) struct Wakeups(Arc<BTreeMap<String, Notify>>);

impl Wakeups {
    pub(super) fn new<'a>(streams: impl Iterator<Item = &'a String>) -> Self {
        Self(Arc::new(streams.map(|name| (name.clone(), Notify::new())).collect()))
    }

    /// New records are in `stream`.
    pub(super) fn wake(&self, stream: &str) {
        if let Some(notify) = self.0.get(stream) {
            notify.notify_one();
        }
    }

    async fn woken(&self, stream: &str) {
        match self.0.get(stream) {
            Some(notify) => notify.notified().await,
            None => std::future::pending().await,
        }
    }
}

/// The trigger of one stream.
#[derive(Debug, Clone)]
pub(super) struct StreamTrigger {
    pub(super) stream: String,
    pub(super) ports: Ports,
    pub(super) functions: Arc<Functions>,
    pub(super) wakeups: Wakeups,
}

impl StreamTrigger {
    /// Delivers until told to stop.
    pub(super) async fn run(self, mut stop: Shutdown) {
        // Until the first success a failure may be kept that an earlier process met.
        let (mut failures, mut is_kept) = (0, true);
        while !stop.is_set() {
            let delivered = self.deliver().await;
            if is_kept || delivered.is_err() {
                jobs::failures::note(&self.ports, "delivery", &self.stream, &delivered).await;
                is_kept = delivered.is_err();
            }
            match delivered {
                Ok(0) => {
                    failures = 0;
                    tokio::select! {
                        () = tokio::time::sleep(POLL) => {}
                        () = self.wakeups.woken(&self.stream) => {}
                        () = stop.wait() => {}
                    }
                }
                Ok(_) => failures = 0,
                Err(error) => {
                    tracing::warn!(stream = self.stream, %error, failures, "the batcher will be called again");
                    stop.sleep(BACKOFF[failures.min(BACKOFF.len() - 1)]).await;
                    failures += 1;
                }
            }
        }
    }

    /// Ticks until told to stop.
    pub(super) async fn tick(self, mut stop: Shutdown) {
        let detail = json!({"function": "batcher", "name": self.stream});
        let mut number = 0_u64;
        while stop.sleep(TICK).await {
            number += 1;
            let event = events::schedule(&detail, &format!("{}-{number}", self.stream), self.ports.clock.now_ms());
            if let Err(error) = self.tick_once(event).await {
                tracing::warn!(stream = self.stream, %error, "a tick of the batcher failed");
            }
        }
    }

    async fn tick_once(&self, event: Value) -> Result<()> {
        self.functions.batch(&self.stream, Event::parse(event)?).await.map(drop)
    }

    /// Gives one event of each shard to the batcher; how many records they had.
    async fn deliver(&self) -> Result<usize> {
        let key = position_key(&self.stream);
        let mut positions: Positions =
            get_json(self.ports.state.as_ref(), &key).await?.map(|(positions, _)| positions).unwrap_or_default();
        let mut delivered = 0;
        for shard in self.ports.stream.shards(&self.stream).await? {
            let at = positions.of(&shard.id);
            let batch = self.ports.stream.read(&self.stream, &shard.id, after(at), MAX_READ_RECORDS).await?;
            let records = within_event(&batch.records);
            let Some(last) = records.last() else { continue };
            let event = Event::parse(events::kinesis(&self.stream, &shard.id, records))?;
            let answer = self.functions.batch(&self.stream, event).await?.json()?;
            let failed = first_failure(&answer)?;
            let done = records.iter().rev().find(|r| failed.as_ref().is_none_or(|f| r.sequence < *f));
            if let Some(done) = done {
                positions.advance(&shard.id, done.sequence.clone());
                put_json(self.ports.state.as_ref(), &key, &positions, Expect::Anything).await?;
            }
            if let Some(failed) = failed {
                return Err(Error::retry(format!(
                    "the batcher took shard `{}` up to before `{failed}` of `{}`",
                    shard.id, last.sequence
                )));
            }
            delivered += records.len();
        }
        Ok(delivered)
    }
}

/// The state document that holds how far a stream was delivered.
pub(super) fn position_key(stream: &str) -> String {
    format!("trigger/{stream}")
}

fn after(at: SequenceNumber) -> ReadFrom {
    if at == SequenceNumber::zero() { ReadFrom::Oldest } else { ReadFrom::After(at) }
}

/// The first records that fit in one event; at least one, if there is one.
fn within_event(records: &[Record]) -> &[Record] {
    let mut bytes = 0;
    let fits = records
        .iter()
        .take(MAX_READ_RECORDS)
        .take_while(|record| {
            bytes += record.data.len();
            bytes <= MAX_EVENT_BYTES
        })
        .count();
    &records[..fits.max(1).min(records.len())]
}

/// The lowest sequence number among the `batchItemFailures` of an answer.
///
/// # Errors
/// `Bug` when the answer names something that is no sequence number.
fn first_failure(answer: &Value) -> Result<Option<SequenceNumber>> {
    let Some(failures) = answer.get("batchItemFailures").and_then(Value::as_array) else { return Ok(None) };
    let mut lowest: Option<SequenceNumber> = None;
    for failure in failures {
        let sequence: SequenceNumber =
            failure.get("itemIdentifier").and_then(Value::as_str).and_then(|text| text.parse().ok()).ok_or_else(
                || Error::bug(format!("expected a sequence number as `itemIdentifier`, found `{failure}`")),
            )?;
        lowest = Some(lowest.map_or(sequence.clone(), |low| low.min(sequence)));
    }
    Ok(lowest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn records(count: u64, bytes: usize) -> Vec<Record> {
        (1..=count)
            .map(|n| Record {
                sequence: n.into(),
                partition_key: "k".into(),
                data: vec![b'x'; bytes].into(),
                arrival_ms: 0,
            })
            .collect()
    }

    #[test]
    fn an_event_holds_six_megabytes_and_ten_thousand_records_at_most() {
        assert_eq!(within_event(&records(10, 1 << 20)).len(), 6);
        assert_eq!(within_event(&records(10_001, 1)).len(), 10_000);
        assert_eq!(within_event(&records(1, 7 << 20)).len(), 1);
        assert!(within_event(&[]).is_empty());
    }

    #[test]
    fn delivery_goes_on_from_the_lowest_failure() {
        let answer = json!({"batchItemFailures": [{"itemIdentifier": "12"}, {"itemIdentifier": "9"}]});
        assert_eq!(first_failure(&answer).unwrap(), Some(9.into()));
        assert_eq!(first_failure(&json!({"batchItemFailures": []})).unwrap(), None);
        assert_eq!(first_failure(&json!({"rows": 1})).unwrap(), None);
        assert!(first_failure(&json!({"batchItemFailures": [{"itemIdentifier": "x"}]})).is_err());
    }
}
