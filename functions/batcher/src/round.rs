//! One round of reading: the records of all shards after the committed positions, up to a size, parents before children.
//!
//! The shards take turns, an answer each: a shard of Kinesis that has given a large answer gives none for seconds, while the
//! others are read.

use shared::clock::Clock;
use shared::model::{Positions, SequenceNumber, ShardId};
use shared::stream::{MAX_READ_BYTES, MAX_READ_RECORDS, ReadFrom, Record, Shard, Stream};
use shared::{ErrorKind, Result, deadline};

/// Bytes of record data in one round at most, so that memory stays bounded whatever has piled up.
const MAX_ROUND_BYTES: usize = 128 << 20;
/// Bytes that a round may have so that each shard can give a whole answer, whatever the stream's buffer size.
const MAX_ANSWERS_BYTES: usize = 64 << 20;

/// How far the stream's clock may be ahead of this one.
const CLOCK_SKEW_MS: i64 = 5_000;

/// The records of an interval.
#[derive(Debug, Default)]
pub(crate) struct Round {
    /// By shard, in order.
    pub(crate) shards: Vec<(ShardId, Vec<Record>)>,
    /// The end of the interval.
    pub(crate) to: Positions,
    /// A time before which no record has arrived that is left in the stream, milliseconds since the epoch; none when nothing is
    /// left.
    pub(crate) left_ms: Option<i64>,
}

impl Round {
    /// What `readings` hold after `from`.
    fn until_here(readings: Vec<Reading>, from: &Positions) -> Self {
        let mut to = from.clone();
        for Reading { shard, records, .. } in &readings {
            if let Some(last) = records.last() {
                to.advance(&shard.id, last.sequence.clone());
            }
        }
        let left = readings.iter().filter(|reading| reading.state != State::CaughtUp);
        let left_ms = left.map(|reading| reading.records.last().map_or(i64::MIN, |last| last.arrival_ms)).min();
        let shards = readings.into_iter().map(|reading| (reading.shard.id, reading.records)).collect();
        Self { shards, to, left_ms }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.shards.iter().all(|(_, records)| records.is_empty())
    }
}

/// A shard that is being read.
#[derive(Debug)]
struct Reading {
    shard: Shard,
    records: Vec<Record>,
    at: ReadFrom,
    /// The last record wanted; none: as many as fit.
    until: Option<SequenceNumber>,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Going,
    /// Nothing comes after what was read.
    CaughtUp,
    /// The rest is not for this round.
    Left,
}

/// Bytes for the data of records; the first one always fits.
#[derive(Debug)]
struct Budget {
    taken: usize,
    bytes: usize,
}

impl Budget {
    fn new(bytes: usize) -> Self {
        Self { taken: 0, bytes }
    }

    /// Makes room for a record, or is full from now on.
    fn take(&mut self, bytes: usize) -> bool {
        let fits = self.is_untouched() || bytes <= self.bytes.saturating_sub(self.taken);
        self.taken = if fits { self.taken.saturating_add(bytes.max(1)) } else { self.bytes };
        fits
    }

    fn is_full(&self) -> bool {
        self.taken >= self.bytes
    }

    fn is_untouched(&self) -> bool {
        self.taken == 0
    }
}

impl Reading {
    fn new(after: SequenceNumber, until: Option<SequenceNumber>, shard: Shard) -> Self {
        let at = if after == SequenceNumber::zero() { ReadFrom::Oldest } else { ReadFrom::After(after) };
        Self { shard, records: Vec::new(), at, until, state: State::Going }
    }

    /// Takes the next answer, as much of it as is wanted.
    ///
    /// # Errors
    /// As [`Stream::read`]; nothing has changed then.
    async fn read_on(&mut self, stream: &dyn Stream, name: &str, budget: &mut Budget) -> Result<()> {
        let batch = stream.read(name, &self.shard.id, self.at.clone(), MAX_READ_RECORDS).await?;
        if batch.records.is_empty() && batch.behind_ms == 0 {
            self.state = State::CaughtUp;
        }
        for record in batch.records {
            let beyond = self.until.as_ref().is_some_and(|until| record.sequence > *until);
            if beyond || !budget.take(record.data.len()) {
                self.state = State::Left;
                return Ok(());
            }
            self.records.push(record);
        }
        self.at = batch.next;
        let last = self.records.last().map(|record| &record.sequence);
        if last.is_some() && last == self.until.as_ref() {
            self.state = State::Left;
        }
        Ok(())
    }

    fn goes_on(&self) -> bool {
        self.state == State::Going
    }

    /// Leaves the rest when it arrived after `at_ms`, milliseconds since the epoch.
    fn leave_after(&mut self, at_ms: i64) {
        if self.goes_on() && self.records.last().is_some_and(|last| last.arrival_ms > at_ms) {
            self.state = State::Left;
        }
    }

    /// Whether records may follow that children have to wait for.
    fn is_unfinished(&self) -> bool {
        self.shard.open || self.state != State::CaughtUp
    }
}

/// Reads what is new after `from`: `max_bytes` of data at most, or what one answer of each shard may hold if that is more: what
/// is left of an answer has to be read again, which Kinesis allows seconds later.
///
/// Left to the next round are a shard that can't be read now, what goes on arriving meanwhile, and everything once half of the
/// time is used up: whoever has to read the interval again must come to its end, too.
///
/// # Errors
/// As [`Stream::read`]; `Retry` when nothing else could be read.
pub(crate) async fn read_new(
    stream: &dyn Stream,
    name: &str,
    from: &Positions,
    max_bytes: usize,
    clock: &dyn Clock,
) -> Result<Round> {
    let (begun_ms, stop_ms) = (clock.now_ms(), half_time_ms(clock));
    let shards = stream.shards(name).await?;
    let answers_bytes = MAX_READ_BYTES.saturating_mul(shards.len()).min(MAX_ANSWERS_BYTES);
    let mut budget = Budget::new(max_bytes.clamp(answers_bytes, MAX_ROUND_BYTES));
    let begin = |shard: Shard| Reading::new(from.of(&shard.id), None, shard);
    let mut readings: Vec<_> = shards.into_iter().map(begin).collect();
    let (mut turn, mut failure) = (0, None);
    while let Some(next) = in_turn(&readings, turn) {
        if budget.is_full() || (!budget.is_untouched() && clock.now_ms() >= stop_ms) {
            break;
        }
        let reading = &mut readings[next];
        match reading.read_on(stream, name, &mut budget).await {
            Err(error) if error.kind() == ErrorKind::Retry => {
                tracing::warn!(stream = name, shard = %reading.shard.id, %error, "a shard is left to the next round");
                reading.state = State::Left;
                failure.get_or_insert(error);
            }
            read => read?,
        }
        reading.leave_after(begun_ms.saturating_add(CLOCK_SKEW_MS));
        turn = next + 1;
    }
    match failure {
        Some(error) if budget.is_untouched() => Err(error),
        _ => Ok(Round::until_here(readings, from)),
    }
}

/// Reads exactly the interval from `from` to `to` again.
///
/// # Errors
/// As [`Stream::read`].
pub(crate) async fn read_again(stream: &dyn Stream, name: &str, from: &Positions, to: &Positions) -> Result<Round> {
    let begin = |shard: Shard| Reading::new(from.of(&shard.id), Some(to.of(&shard.id)), shard);
    let shards = stream.shards(name).await?.into_iter().filter(|shard| from.of(&shard.id) < to.of(&shard.id));
    let mut readings: Vec<_> = shards.map(begin).collect();
    let mut budget = Budget::new(usize::MAX);
    while readings.iter().any(Reading::goes_on) {
        for reading in readings.iter_mut().filter(|reading| reading.goes_on()) {
            reading.read_on(stream, name, &mut budget).await?;
        }
    }
    let oldest_ms = readings.iter().filter_map(|reading| reading.records.first()).map(|r| r.arrival_ms).min();
    let shards = readings.into_iter().map(|reading| (reading.shard.id, reading.records)).collect();
    Ok(Round { shards, to: to.clone(), left_ms: Some(oldest_ms.unwrap_or(i64::MIN)) })
}

/// When half of the time until the deadline has passed, milliseconds since the epoch.
fn half_time_ms(clock: &dyn Clock) -> i64 {
    let half = deadline::working_time(clock).and_then(|time| i64::try_from(time.as_millis() / 2).ok());
    clock.now_ms().saturating_add(half.unwrap_or(i64::MAX))
}

/// The next shard that goes on, from `turn` round to the one before; children wait until their parents are read.
fn in_turn(readings: &[Reading], turn: usize) -> Option<usize> {
    let waits = |reading: &Reading| {
        let is_parent = |other: &&Reading| reading.shard.parents.contains(&other.shard.id);
        readings.iter().filter(is_parent).any(Reading::is_unfinished)
    };
    let mut turns = (turn..readings.len()).chain(0..turn.min(readings.len()));
    turns.find(|&index| readings[index].goes_on() && !waits(&readings[index]))
}
