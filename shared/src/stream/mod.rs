//! Streams of records: ordered within a shard, readable from any retained position. The shape of Kinesis Data Streams,
//! and its limits of a record, a put and a read.

use std::fmt::Debug;

use async_trait::async_trait;
use bytes::Bytes;

use crate::model::{SequenceNumber, ShardId};
use crate::{Error, Result};

pub mod check;

/// Records in one [`Stream::put`] call at most (Kinesis `PutRecords`).
pub const MAX_PUT_RECORDS: usize = 500;
/// Bytes in one [`Stream::put`] call at most, data and partition keys together.
pub const MAX_PUT_BYTES: usize = 5 * 1024 * 1024;
/// Bytes of one record's data at most.
pub const MAX_RECORD_BYTES: usize = 1024 * 1024;
/// Records in one [`Stream::read`] answer at most (Kinesis `GetRecords`).
pub const MAX_READ_RECORDS: usize = 10_000;
/// Bytes in one [`Stream::read`] answer at most.
pub const MAX_READ_BYTES: usize = 10 * 1024 * 1024;

/// A record to put. The partition key (1–256 characters) chooses the shard, by the MD5 hash ranges of Kinesis.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewRecord {
    pub partition_key: String,
    pub data: Bytes,
}

/// What became of one record of a put.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PutOutcome {
    /// Durable at this place.
    Stored { shard: ShardId, sequence: SequenceNumber },
    /// Over the shard's rate: put this record again later.
    Throttled { message: String },
    /// An internal fault: put this record again.
    Failed { message: String },
    /// The put ended without an answer: the record may be stored or not.
    Unknown { message: String },
}

/// A record that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    pub sequence: SequenceNumber,
    pub partition_key: String,
    pub data: Bytes,
    /// When the stream took it, milliseconds since the epoch.
    pub arrival_ms: i64,
}

/// A shard of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shard {
    pub id: ShardId,
    /// Set when a split or merge closed the shard: its parents' records come before its own.
    pub parents: Vec<ShardId>,
    /// Whether new records can still arrive.
    pub open: bool,
}

/// Where a read begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReadFrom {
    /// The oldest retained record.
    Oldest,
    /// The first record after this one.
    After(SequenceNumber),
    /// The first record that arrived at or after this time, milliseconds since the epoch.
    Time(i64),
}

/// The answer of a read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadBatch {
    /// In sequence order; empty when the reader has caught up.
    pub records: Vec<Record>,
    /// Where to go on reading.
    pub next: ReadFrom,
    /// How far the last record returned lies behind the shard's end, milliseconds; 0 when the reader has caught up.
    pub behind_ms: i64,
}

/// What a shard holds from some place on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Backlog {
    pub records: u64,
    /// Of their data.
    pub bytes: u64,
    /// When the first of them arrived, milliseconds since the epoch; none when there are none.
    pub oldest_ms: Option<i64>,
}

/// How a stream is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamSpec {
    pub name: String,
    /// 1 or more.
    pub shards: u32,
    /// How long records can be read, hours (Kinesis: 24 to 8,760).
    pub retention_hours: u32,
}

/// Streams by name.
#[async_trait]
pub trait Stream: Debug + Send + Sync {
    /// Makes the stream. One that exists with the same number of shards keeps its records and takes the spec's retention.
    ///
    /// # Errors
    /// `Conflict` when it exists with another number of shards; `Invalid` for a spec out of range.
    async fn create(&self, spec: &StreamSpec) -> Result<()>;

    /// The name by which the lakehouse file declares the stream that events call `resource`; `None` when it is not one of ours.
    fn declared<'a>(&self, resource: &'a str) -> Option<&'a str> {
        Some(resource)
    }

    /// Whether a stream can get another number of shards.
    fn can_reshard(&self) -> bool {
        true
    }

    /// Whether a stream can get another name.
    fn can_rename(&self) -> bool {
        false
    }

    /// Gives a stream another name, with all that it holds. One that has the new name already, after the same call, stays as it is; a
    /// stream of the new name that holds nothing gives way.
    ///
    /// # Errors
    /// `NotFound` when there is neither; `Conflict` when another stream of the new name holds records; `Invalid` where streams keep
    /// their names.
    async fn rename(&self, from: &str, to: &str) -> Result<()> {
        Err(Error::invalid(format!(
            "expected a stream that can be renamed to `{to}`, found `{from}`, which keeps its name"
        )))
    }

    /// The names of all streams, in order.
    async fn list(&self) -> Result<Vec<String>>;

    /// The shards, parents before children.
    ///
    /// # Errors
    /// `NotFound` when there is no such stream.
    async fn shards(&self, stream: &str) -> Result<Vec<Shard>>;

    /// Puts records and says of each, in order, what became of it. What is [`PutOutcome::Stored`] is durable when this returns.
    ///
    /// # Errors
    /// `NotFound` for an unknown stream, `Invalid` for an empty batch or a key of not 1–256 characters, `Limit` past the `MAX_…` limits; then nothing was stored.
    async fn put(&self, stream: &str, records: Vec<NewRecord>) -> Result<Vec<PutOutcome>>;

    /// Reads at most `max_records` (taken as 1 to [`MAX_READ_RECORDS`]) and [`MAX_READ_BYTES`] from one shard; at least one
    /// record when there is any.
    ///
    /// # Errors
    /// `NotFound` for an unknown stream or shard.
    async fn read(&self, stream: &str, shard: &ShardId, from: ReadFrom, max_records: usize) -> Result<ReadBatch>;

    /// How much a shard holds after a record, or in all; `None` where only reading it would tell (Kinesis).
    ///
    /// # Errors
    /// As [`Stream::read`].
    async fn backlog(
        &self,
        _stream: &str,
        _shard: &ShardId,
        _after: Option<&SequenceNumber>,
    ) -> Result<Option<Backlog>> {
        Ok(None)
    }
}
