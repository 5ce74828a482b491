//! A round's records to Arrow batches, on all processors.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::record_batch::RecordBatch;
use format::records::{Decoded, RecordSchema, Rejected};
use shared::model::ShardId;
use shared::stream::Record;
use shared::{Error, Result};

use crate::round::Round;

/// Bytes that are worth a task of their own.
const MIN_TASK_BYTES: usize = 1 << 20;

/// What became of a round's records.
#[derive(Debug, Default)]
pub(crate) struct Rows {
    pub(crate) batches: Vec<RecordBatch>,
    pub(crate) records: u64,
    pub(crate) stored: u64,
    pub(crate) rejected: u64,
    /// How often records had a field that no column is for, by its name.
    pub(crate) ignored: BTreeMap<String, u64>,
    /// The error object of each shard that had bad records.
    pub(crate) failed: BTreeMap<ShardId, Vec<u8>>,
}

/// Decodes all records; order within a shard is kept.
///
/// # Errors
/// `Limit` for a round of more than 2 GiB.
pub(crate) async fn decode(stream: &str, schema: &Arc<RecordSchema>, round: Round) -> Result<Rows> {
    let records: Vec<(ShardId, Record)> = round
        .shards
        .into_iter()
        .flat_map(|(shard, records)| records.into_iter().map(move |record| (shard.clone(), record)))
        .collect();
    let bytes: usize = records.iter().map(|(_, r)| r.data.len()).sum();
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let tasks = processors.min(bytes / MIN_TASK_BYTES + 1);
    let share = records.len().div_ceil(tasks).max(1);
    let records = Arc::new(records);
    let mut running = Vec::new();
    for begin in (0..records.len()).step_by(share) {
        let (records, schema) = (records.clone(), schema.clone());
        let end = (begin + share).min(records.len());
        let task = move || schema.decode(records[begin..end].iter().map(|(_, r)| r.data.as_ref()));
        running.push((begin, tokio::task::spawn_blocking(task)));
    }
    let mut rows = Rows { records: records.len() as u64, ..Rows::default() };
    for (begin, task) in running {
        let decoded = task.await.map_err(|e| Error::bug("decoding records stopped").with_source(e))??;
        rows.add(stream, &records[begin..], decoded)?;
    }
    Ok(rows)
}

impl Rows {
    /// Adds what was decoded of the first of `records`.
    fn add(&mut self, stream: &str, records: &[(ShardId, Record)], decoded: Decoded) -> Result<()> {
        self.stored += decoded.batch.num_rows() as u64;
        self.rejected += decoded.errors.len() as u64;
        for (at, error) in &decoded.errors {
            let (shard, record) = &records[*at];
            let object = self.failed.entry(shard.clone()).or_default();
            let place = (shard.clone(), record.sequence.clone());
            let why = (error.code.as_str(), error.message.as_str());
            Rejected::new(stream, Some(place), record.arrival_ms, why, &record.data).write(object)?;
        }
        for (name, count) in decoded.ignored {
            *self.ignored.entry(name).or_default() += count;
        }
        if decoded.batch.num_rows() > 0 {
            self.batches.push(decoded.batch);
        }
        Ok(())
    }
}
