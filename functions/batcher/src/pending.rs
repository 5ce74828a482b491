//! How much a stream has that its table lacks: counted from events, so that a decision to write costs no read.
//!
//! The counts only decide *when* to write. *What* to write is decided by the positions in the table, so wrong or lost counts
//! can neither lose nor double a record.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use shared::Result;
use shared::model::{Positions, SequenceNumber, ShardId};
use shared::ports::Ports;
use shared::project::Buffering;
use shared::state::{State, change_json, get_json};
use shared::stream::Backlog;

/// Chunks that a shard keeps at most; older ones are merged.
const MAX_CHUNKS: usize = 64;

/// A record that an event told of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Arrival {
    pub(crate) sequence: SequenceNumber,
    /// Of the record's data.
    pub(crate) bytes: u64,
    /// Milliseconds since the epoch.
    pub(crate) at_ms: i64,
}

/// The state document `batcher/{stream}`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Pending {
    /// The last record counted of each shard; a replayed event is counted once.
    counted: Positions,
    /// Counts by shard, oldest first.
    shards: BTreeMap<ShardId, Vec<Chunk>>,
}

/// Records that were counted together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Chunk {
    /// The last record before them and the last of them.
    after: SequenceNumber,
    to: SequenceNumber,
    records: u64,
    bytes: u64,
    /// When the first of them arrived, milliseconds since the epoch.
    oldest_ms: i64,
}

/// Why a stream is written now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Due {
    Size,
    Age,
}

impl Pending {
    /// Counts the arrivals (in sequence order) that were not counted before.
    pub(crate) fn count(&mut self, shard: &ShardId, arrivals: &[Arrival]) {
        let before = self.counted.of(shard);
        let new: Vec<_> = arrivals.iter().filter(|a| a.sequence > before).collect();
        let Some(last) = new.last() else { return };
        let chunks = self.shards.entry(shard.clone()).or_default();
        chunks.push(Chunk {
            after: before,
            to: last.sequence.clone(),
            records: new.len() as u64,
            bytes: new.iter().map(|a| a.bytes).sum(),
            oldest_ms: new.iter().map(|a| a.at_ms).min().unwrap_or_default(),
        });
        if chunks.len() > MAX_CHUNKS {
            let first = chunks.remove(0);
            chunks[0].absorb(first);
        }
        self.counted.advance(shard, last.sequence.clone());
    }

    /// Whether the stream is to be written at `now_ms`.
    pub(crate) fn due(&self, buffer: &Buffering, now_ms: i64) -> Option<Due> {
        let oldest = self.oldest_ms()?;
        let interval = i64::try_from(buffer.interval.0).unwrap_or(i64::MAX).saturating_mul(1000);
        if self.chunks().map(|c| c.bytes).sum::<u64>() >= buffer.size.0 {
            Some(Due::Size)
        } else if now_ms.saturating_sub(oldest) >= interval {
            Some(Due::Age)
        } else {
            None
        }
    }

    /// When the oldest record that the table lacks arrived, milliseconds since the epoch.
    pub(crate) fn oldest_ms(&self) -> Option<i64> {
        self.chunks().map(|c| c.oldest_ms).min()
    }

    /// What the table, which has what is before `committed`, does not have yet: only what events told of.
    pub(crate) fn backlog(&self, committed: &Positions) -> Backlog {
        let of = |(shard, chunks): (&ShardId, &Vec<Chunk>)| {
            let at = committed.of(shard);
            chunks.iter().filter(move |chunk| chunk.to > at).cloned().collect::<Vec<_>>()
        };
        let waiting: Vec<Chunk> = self.shards.iter().flat_map(of).collect();
        Backlog {
            records: waiting.iter().map(|chunk| chunk.records).sum(),
            bytes: waiting.iter().map(|chunk| chunk.bytes).sum(),
            oldest_ms: waiting.iter().map(|chunk| chunk.oldest_ms).min(),
        }
    }

    /// Forgets what the table has; says whether there was anything to forget.
    pub(crate) fn settle(&mut self, committed: &Positions) -> bool {
        let before = self.chunks().count();
        for (shard, chunks) in &mut self.shards {
            let at = committed.of(shard);
            chunks.retain(|chunk| chunk.to > at);
        }
        self.shards.retain(|_, chunks| !chunks.is_empty());
        self.chunks().count() != before
    }

    /// The last record counted of each shard.
    pub(crate) fn counted(&self) -> &Positions {
        &self.counted
    }

    /// How many records after `from` up to `to` were counted, at least: a count that reaches out of the interval is left out.
    pub(crate) fn counted_between(&self, from: &Positions, to: &Positions) -> BTreeMap<ShardId, u64> {
        let count = |(shard, chunks): (&ShardId, &Vec<Chunk>)| {
            let inside = chunks.iter().filter(|c| c.after >= from.of(shard) && c.to <= to.of(shard));
            (shard.clone(), inside.map(|c| c.records).sum())
        };
        self.shards.iter().map(count).collect()
    }

    fn chunks(&self) -> impl Iterator<Item = &Chunk> {
        self.shards.values().flatten()
    }
}

impl Chunk {
    fn absorb(&mut self, earlier: Self) {
        self.after = earlier.after;
        self.records += earlier.records;
        self.bytes += earlier.bytes;
        self.oldest_ms = self.oldest_ms.min(earlier.oldest_ms);
    }
}

/// Reads the document; without one nothing is pending.
pub(crate) async fn load(state: &dyn State, stream: &str) -> Result<Pending> {
    Ok(get_json(state, &key(stream)).await?.map(|(pending, _)| pending).unwrap_or_default())
}

/// Changes the document, also when others change it at the same time, and gives the new one; `change` says whether it changed
/// anything.
///
/// # Errors
/// As [`change_json`].
pub(crate) async fn update(ports: &Ports, stream: &str, change: impl FnMut(&mut Pending) -> bool) -> Result<Pending> {
    change_json(ports.state.as_ref(), &*ports.random, &key(stream), change).await
}

pub(crate) fn key(stream: &str) -> String {
    format!("batcher/{stream}")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use shared::project::{ByteSize, Seconds};

    use super::*;

    fn shard() -> ShardId {
        ShardId("shardId-000000000000".into())
    }

    fn arrivals(range: std::ops::RangeInclusive<u64>) -> Vec<Arrival> {
        range.map(|n| Arrival { sequence: n.into(), bytes: 10, at_ms: n as i64 * 1000 }).collect()
    }

    fn buffer(size: u64, interval: u64) -> Buffering {
        Buffering { size: ByteSize(size), interval: Seconds(interval) }
    }

    #[test]
    fn size_or_age_makes_a_stream_due_whichever_comes_first() {
        let mut pending = Pending::default();
        assert_eq!(pending.due(&buffer(1, 0), 1_000_000), None);
        pending.count(&shard(), &arrivals(1..=5));
        assert_eq!(pending.due(&buffer(50, 900), 5_000), Some(Due::Size));
        assert_eq!(pending.due(&buffer(51, 900), 5_000), None);
        assert_eq!(pending.due(&buffer(51, 60), 60_999), None);
        assert_eq!(pending.due(&buffer(51, 60), 61_000), Some(Due::Age));
    }

    #[test]
    fn what_the_table_has_is_forgotten() {
        let mut pending = Pending::default();
        pending.count(&shard(), &arrivals(1..=5));
        pending.count(&shard(), &arrivals(6..=8));
        let mut committed = Positions::default();
        committed.advance(&shard(), 5.into());
        assert!(pending.settle(&committed));
        assert_eq!(pending.counted_between(&committed, pending.counted())[&shard()], 3);
        assert!(!pending.settle(&committed));
        committed.advance(&shard(), 8.into());
        assert!(pending.settle(&committed));
        assert_eq!(pending.due(&buffer(0, 0), i64::MAX), None);
    }

    proptest! {
        #[test]
        fn each_record_is_counted_once_however_events_overlap_and_repeat(
            events in proptest::collection::vec((1u64..300, 0u64..50), 1..150)
        ) {
            let mut pending = Pending::default();
            let mut told = 0;
            for (from, more) in events {
                // An event source delivers in order: no event begins after a gap.
                let from = from.min(told + 1);
                pending.count(&shard(), &arrivals(from..=from + more));
                told = told.max(from + more);
            }
            prop_assert_eq!(pending.counted_between(&Positions::default(), pending.counted())[&shard()], told);
            prop_assert_eq!(pending.chunks().map(|c| c.bytes).sum::<u64>(), told * 10);
            prop_assert_eq!(pending.chunks().map(|c| c.oldest_ms).min(), Some(1000));
        }
    }
}
