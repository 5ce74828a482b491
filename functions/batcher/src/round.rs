//! One round of reading: the records of all shards after the committed positions, up to a size, parents before children.

use std::collections::BTreeSet;

use shared::Result;
use shared::model::{Positions, SequenceNumber, ShardId};
use shared::stream::{MAX_READ_RECORDS, ReadFrom, Record, Shard, Stream};

/// The records of an interval.
#[derive(Debug, Default)]
pub(crate) struct Round {
    /// By shard, in order.
    pub(crate) shards: Vec<(ShardId, Vec<Record>)>,
    /// The end of the interval.
    pub(crate) to: Positions,
    /// Whether a shard has more.
    pub(crate) more: bool,
}

impl Round {
    pub(crate) fn is_empty(&self) -> bool {
        self.shards.iter().all(|(_, records)| records.is_empty())
    }

    /// When the first record arrived, milliseconds since the epoch.
    pub(crate) fn oldest_ms(&self) -> Option<i64> {
        self.shards.iter().filter_map(|(_, records)| records.first()).map(|r| r.arrival_ms).min()
    }
}

/// Where the records of one shard end.
struct Bounds<'a> {
    after: SequenceNumber,
    /// The last record wanted; none: as many as fit.
    until: Option<&'a SequenceNumber>,
    /// Bytes of data wanted at most; one record is always taken.
    bytes: usize,
}

/// Reads what is new after `from`, `max_bytes` of data at most.
///
/// # Errors
/// As [`Stream::read`].
pub(crate) async fn read_new(stream: &dyn Stream, name: &str, from: &Positions, max_bytes: usize) -> Result<Round> {
    let mut round = Round { to: from.clone(), ..Round::default() };
    let mut left = max_bytes;
    let mut unfinished = BTreeSet::new();
    for shard in stream.shards(name).await? {
        let parent_first = shard.parents.iter().any(|parent| unfinished.contains(parent));
        if left == 0 || parent_first {
            round.more = true;
            unfinished.insert(shard.id);
            continue;
        }
        let bounds = Bounds { after: from.of(&shard.id), until: None, bytes: left };
        let (records, caught_up) = read_shard(stream, name, &shard, bounds).await?;
        left = left.saturating_sub(records.iter().map(|r| r.data.len()).sum());
        if let Some(last) = records.last() {
            round.to.advance(&shard.id, last.sequence.clone());
        }
        if shard.open || !caught_up {
            unfinished.insert(shard.id.clone());
        }
        round.more |= !caught_up;
        round.shards.push((shard.id, records));
    }
    Ok(round)
}

/// Reads exactly the interval from `from` to `to` again.
///
/// # Errors
/// As [`Stream::read`].
pub(crate) async fn read_again(stream: &dyn Stream, name: &str, from: &Positions, to: &Positions) -> Result<Round> {
    let mut round = Round { to: to.clone(), more: true, ..Round::default() };
    for shard in stream.shards(name).await? {
        let (after, until) = (from.of(&shard.id), to.of(&shard.id));
        if after >= until {
            continue;
        }
        let bounds = Bounds { after, until: Some(&until), bytes: usize::MAX };
        let (records, _) = read_shard(stream, name, &shard, bounds).await?;
        round.shards.push((shard.id, records));
    }
    Ok(round)
}

/// The records within the bounds, and whether there is nothing after them.
async fn read_shard(stream: &dyn Stream, name: &str, shard: &Shard, bounds: Bounds<'_>) -> Result<(Vec<Record>, bool)> {
    let mut records: Vec<Record> = Vec::new();
    let mut bytes = 0usize;
    let mut at = if bounds.after == SequenceNumber::zero() { ReadFrom::Oldest } else { ReadFrom::After(bounds.after) };
    loop {
        let batch = stream.read(name, &shard.id, at, MAX_READ_RECORDS).await?;
        if batch.records.is_empty() && batch.behind_ms == 0 {
            return Ok((records, true));
        }
        for record in batch.records {
            let beyond = bounds.until.is_some_and(|until| record.sequence > *until);
            let too_much = !records.is_empty() && bytes.saturating_add(record.data.len()) > bounds.bytes;
            if beyond || too_much {
                return Ok((records, false));
            }
            bytes = bytes.saturating_add(record.data.len());
            records.push(record);
        }
        at = batch.next;
    }
}
