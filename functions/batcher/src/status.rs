//! `GET /status/batcher`: how far each stream is, what could not be stored, and what is wrong with either.

use format::records::Rejected;
use serde::Serialize;
use shared::api::status::{PartStatus, Problem, counted, lasting};
use shared::aside::SetAside;
use shared::model::{SequenceNumber, ShardId};
use shared::stream::Backlog;
use shared::{ErrorKind, Result};

use crate::{Batcher, pending};

/// A stream is late when its oldest record waits this many times longer than the stream declares, and [`LATE_MS`] at least.
const LATE_TIMES: i64 = 3;
const LATE_MS: i64 = 120_000;
/// Reasons that are told of a stream.
const REASONS: usize = 3;

/// A stream, and what it holds that its table does not have yet.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct StreamStatus<'a> {
    name: &'a str,
    table: String,
    /// Records that are not in the table yet. Where the stream can't tell (Kinesis), those that events told of.
    pending_records: u64,
    /// Bytes of their data.
    pending_bytes: u64,
    /// Age of the oldest of them, milliseconds; 0 without any.
    lag_ms: i64,
    errors: SetAside,
    shards: Vec<ShardStatus>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ShardStatus {
    shard: ShardId,
    /// Sequence number of the last record in the table (or among its errors).
    committed: SequenceNumber,
}

impl Batcher {
    /// How all streams are.
    ///
    /// # Errors
    /// What the ports answer.
    pub(crate) async fn status(&self) -> Result<PartStatus> {
        let (mut part, mut streams) = (PartStatus::default(), Vec::new());
        for name in self.project.file().streams.keys() {
            let failing = jobs::failures::load(&self.ports, "batcher", name).await?;
            part.problems.extend(failing.map(|f| f.problem("stream", name, "writing it to its table")));
            let stream = self.stream_status(name).await?;
            part.problems.extend(self.lateness(&stream)?);
            part.problems.extend(stream.errors.told("record", "not stored").map(|told| {
                let since_ms = stream.errors.oldest_ms.unwrap_or_default();
                Problem::warning("stream", name, told).since(since_ms)
            }));
            streams.push(stream);
        }
        part.list("streams", &streams)?;
        Ok(part)
    }

    /// What the stream holds that its table does not have yet, and how far the table is by shard.
    async fn backlog(&self, name: &str) -> Result<(Backlog, Vec<ShardStatus>)> {
        let committed = self.committed(name).await?;
        let (mut backlog, mut shards, mut is_known) = (Backlog::default(), Vec::new(), true);
        let held = match self.ports.stream.shards(name).await {
            // Made with its first record.
            Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
            other => other?,
        };
        for shard in held {
            let at = committed.of(&shard.id);
            let after = committed.0.contains_key(&shard.id).then_some(&at);
            match self.ports.stream.backlog(name, &shard.id, after).await? {
                Some(held) => add(&mut backlog, held),
                None => is_known = false,
            }
            shards.push(ShardStatus { shard: shard.id, committed: at });
        }
        if !is_known {
            backlog = pending::load(self.ports.state.as_ref(), name).await?.backlog(&committed);
        }
        Ok((backlog, shards))
    }

    /// Records that are not in the stream's table yet.
    pub(crate) async fn pending_records(&self, name: &str) -> Result<u64> {
        Ok(self.backlog(name).await?.0.records)
    }

    async fn stream_status<'a>(&self, name: &'a str) -> Result<StreamStatus<'a>> {
        let (backlog, shards) = self.backlog(name).await?;
        let now_ms = self.ports.clock.now_ms();
        Ok(StreamStatus {
            name,
            table: self.project.stream_table(name)?.to_string(),
            pending_records: backlog.records,
            pending_bytes: backlog.bytes,
            lag_ms: backlog.oldest_ms.map_or(0, |oldest_ms| (now_ms - oldest_ms).max(0)),
            errors: SetAside::read(&self.ports.storage, self.replays(name).waiting().await?, REASONS, reason).await?,
            shards,
        })
    }

    fn lateness(&self, stream: &StreamStatus<'_>) -> Result<Option<Problem>> {
        let declared = self.project.stream(stream.name)?;
        let ms = |seconds: u64| i64::try_from(seconds).unwrap_or(i64::MAX).saturating_mul(1_000);
        let interval_ms = ms(declared.buffer.interval.0);
        if stream.lag_ms < interval_ms.saturating_mul(LATE_TIMES).max(interval_ms.saturating_add(LATE_MS)) {
            return Ok(None);
        }
        let held = match ms(declared.retention.0) - stream.lag_ms {
            left_ms if left_ms > 0 => format!("the stream holds them for {} more", lasting(left_ms)),
            _ => "the stream no longer holds the oldest".into(),
        };
        let problem = Problem::error(
            "stream",
            stream.name,
            format!(
                "{} pending, the oldest for {}, expected {} at most; {held}",
                counted(stream.pending_records, "record"),
                lasting(stream.lag_ms),
                lasting(interval_ms)
            ),
        );
        Ok(Some(problem.since(self.ports.clock.now_ms() - stream.lag_ms).advise(
            "see what the log says of the stream: the batcher is not called, fails, or takes less than comes in",
        )))
    }
}

fn reason(line: &str) -> Option<String> {
    Rejected::parse(line.as_bytes()).map(|rejected| rejected.error_message)
}

fn add(to: &mut Backlog, more: Backlog) {
    to.records += more.records;
    to.bytes += more.bytes;
    to.oldest_ms = [to.oldest_ms, more.oldest_ms].into_iter().flatten().min();
}
