//! Streams in Amazon Kinesis Data Streams.

use std::cmp::Ordering;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::config::http::HttpResponse;
use aws_sdk_kinesis::config::retry::RetryConfig;
use aws_sdk_kinesis::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_kinesis::operation::get_records::{GetRecordsError, GetRecordsOutput};
use aws_sdk_kinesis::primitives::{Blob, DateTime};
use aws_sdk_kinesis::types::{PutRecordsRequestEntry, PutRecordsResultEntry, ShardIteratorType, StreamStatus};
use bytes::Bytes;

use crate::client::{Aws, Call};
use shared::clock::Clock;
use shared::model::{SequenceNumber, ShardId};
use shared::random::Random;
use shared::stream::check::{check_batch, check_spec};
use shared::stream::{
    MAX_READ_BYTES, MAX_READ_RECORDS, NewRecord, PutOutcome, ReadBatch, ReadFrom, Record, Shard, Stream, StreamSpec,
};
use shared::{Error, ErrorKind, Result, deadline, pause};
use tokio::time::Instant;

/// Waits before records that a shard did not take, or a whole batch that was throttled, are put again, and before a read is made
/// again, which goes on with the last; each is drawn at random from half to all of these.
const WAITS: [Duration; 5] = [
    Duration::from_millis(100),
    Duration::from_millis(200),
    Duration::from_millis(400),
    Duration::from_millis(800),
    Duration::from_millis(1600),
];
/// How long a read that is throttled is made again, where no deadline comes first. All readers of a shard share 5 reads and 2 MB a
/// second, and after an answer of 10 MiB it refuses them for 5 seconds.
const PATIENCE: Duration = Duration::from_secs(15);
/// How long a new stream may take to become active, and how often it is looked at.
const MAKING: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(500);
/// Empty answers in a row before a reader that has not caught up is told to come again.
const EMPTY_ANSWERS: usize = 50;
/// Iterators that are kept. They end after 5 minutes by themselves.
const KEPT_ITERATORS: usize = 1_000;
/// Shards in one answer to `ListShards` at most, streams in one to `ListStreams`.
const SHARDS_PER_PAGE: i32 = 1_000;
const STREAMS_PER_PAGE: i32 = 100;
/// The retention of a stream that was just made, hours.
const FIRST_RETENTION: i32 = 24;

/// [`Stream`] in Kinesis. The stream that a lakehouse declares as `flights` is named `{prefix}flights` there.
#[derive(Debug, Clone)]
pub struct KinesisStream {
    client: Client,
    /// Makes each call once. Puts are made again here, record by record, and never when the first one may have been stored; reads
    /// for longer than the SDK would, and without using up the calls that it may make again.
    once: Client,
    prefix: String,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
    iterators: Arc<Mutex<HashMap<IteratorKey, String>>>,
}

/// Where a reader goes on: stream, shard, last sequence number or time.
type IteratorKey = (String, String, String);

impl KinesisStream {
    /// Streams whose names in Kinesis begin with `prefix`.
    pub fn new(aws: &Aws, prefix: &str, clock: Arc<dyn Clock>, random: Arc<dyn Random>) -> Self {
        let once = aws_sdk_kinesis::config::Builder::from(aws.config()).retry_config(RetryConfig::disabled()).build();
        Self {
            client: Client::new(aws.config()),
            once: Client::from_conf(once),
            prefix: prefix.to_owned(),
            clock,
            random,
            iterators: Arc::default(),
        }
    }

    fn name(&self, stream: &str) -> String {
        format!("{}{stream}", self.prefix)
    }

    /// Waits until a stream that is being made or changed can be used; the number of its open shards.
    async fn active(&self, stream: &str) -> Result<u32> {
        let (name, resource) = (self.name(stream), resource(stream));
        for _ in 0..MAKING.as_millis() / LOOK.as_millis() {
            let answer = self.client.describe_stream_summary().stream_name(&name).send().await;
            let answer = answer.map_err(|e| Call::repeatable("kinesis:DescribeStreamSummary", &resource).failed(e))?;
            let summary = answer.stream_description_summary();
            if let Some(summary) = summary.filter(|s| *s.stream_status() == StreamStatus::Active) {
                return Ok(u32::try_from(summary.open_shard_count()).unwrap_or_default());
            }
            tokio::time::sleep(LOOK).await;
        }
        Err(Error::retry(format!("{resource} did not become active within {} s", MAKING.as_secs())))
    }

    async fn retain(&self, stream: &str, hours: u32) -> Result<()> {
        let (name, resource) = (self.name(stream), resource(stream));
        let hours = i32::try_from(hours).unwrap_or(i32::MAX);
        let changed = match hours.cmp(&self.retention(stream).await?) {
            Ordering::Equal => return Ok(()),
            Ordering::Greater => {
                let change = self.client.increase_stream_retention_period().stream_name(&name);
                let changed = change.retention_period_hours(hours).send().await.map(drop);
                changed.map_err(|e| Call::repeatable("kinesis:IncreaseStreamRetentionPeriod", &resource).failed(e))
            }
            Ordering::Less => {
                let change = self.client.decrease_stream_retention_period().stream_name(&name);
                let changed = change.retention_period_hours(hours).send().await.map(drop);
                changed.map_err(|e| Call::repeatable("kinesis:DecreaseStreamRetentionPeriod", &resource).failed(e))
            }
        };
        match changed {
            // The attempt before, whose answer was lost, has changed it: Kinesis refuses one that changes nothing.
            Err(error) if matches!(error.kind(), ErrorKind::Invalid | ErrorKind::Conflict) => {
                if self.retention(stream).await? == hours { Ok(()) } else { Err(error) }
            }
            changed => changed,
        }
    }

    /// How long the stream keeps records, hours.
    async fn retention(&self, stream: &str) -> Result<i32> {
        let answer = self.client.describe_stream_summary().stream_name(self.name(stream)).send().await;
        let resource = resource(stream);
        let answer = answer.map_err(|e| Call::repeatable("kinesis:DescribeStreamSummary", &resource).failed(e))?;
        Ok(answer.stream_description_summary().map_or(FIRST_RETENTION, |s| s.retention_period_hours()))
    }

    /// One `PutRecords` call: an answer for each entry.
    async fn put_once(&self, stream: &str, entries: Vec<PutRecordsRequestEntry>) -> Result<Vec<PutRecordsResultEntry>> {
        let sent = entries.len();
        let answer = self.once.put_records().stream_name(self.name(stream)).set_records(Some(entries)).send().await;
        let answer = answer.map_err(|e| Call::once("kinesis:PutRecords", &resource(stream)).failed(e))?;
        if answer.records.len() != sent {
            return Err(Error::new(
                ErrorKind::OutcomeUnknown,
                format!("expected {sent} answers to `kinesis:PutRecords`, found {}", answer.records.len()),
            ));
        }
        Ok(answer.records)
    }

    /// The iterator for `from`: the one that the last read ended with, or a new one.
    async fn iterator(&self, stream: &str, shard: &ShardId, from: &ReadFrom) -> Result<String> {
        let kept = self.kept().remove(&place(stream, shard, from));
        match kept {
            Some(iterator) => Ok(iterator),
            None => self.new_iterator(stream, shard, from).await,
        }
    }

    async fn new_iterator(&self, stream: &str, shard: &ShardId, from: &ReadFrom) -> Result<String> {
        let ask = self.client.get_shard_iterator().stream_name(self.name(stream)).shard_id(&shard.0);
        let ask = match from {
            ReadFrom::Oldest => ask.shard_iterator_type(ShardIteratorType::TrimHorizon),
            ReadFrom::After(sequence) if *sequence == SequenceNumber::zero() => {
                ask.shard_iterator_type(ShardIteratorType::TrimHorizon)
            }
            ReadFrom::After(sequence) => ask
                .shard_iterator_type(ShardIteratorType::AfterSequenceNumber)
                .starting_sequence_number(sequence.as_str()),
            ReadFrom::Time(ms) => {
                ask.shard_iterator_type(ShardIteratorType::AtTimestamp).timestamp(DateTime::from_millis(*ms))
            }
        };
        let resource = format!("shard `{shard}` of {}", resource(stream));
        let answer = ask.send().await;
        let answer = answer.map_err(|e| Call::repeatable("kinesis:GetShardIterator", &resource).failed(e))?;
        answer.shard_iterator.ok_or_else(|| Error::bug(format!("expected an iterator of {resource}, found none")))
    }

    async fn get(&self, stream: &str, shard: &ShardId, from: &ReadFrom, limit: i32) -> Result<GetRecordsOutput> {
        let resource = format!("shard `{shard}` of {}", resource(stream));
        let call = Call::repeatable("kinesis:GetRecords", &resource);
        let mut iterator = self.iterator(stream, shard, from).await?;
        let mut answers = 0;
        let mut renewed = false;
        loop {
            match self.get_once(&iterator, limit, call).await {
                Ok(answer) => {
                    answers += 1;
                    let behind = answer.millis_behind_latest.unwrap_or_default() > 0;
                    // An empty answer far from the end: records lie further on.
                    match &answer.next_shard_iterator {
                        Some(next) if answer.records.is_empty() && behind && answers < EMPTY_ANSWERS => {
                            iterator.clone_from(next);
                        }
                        _ => return Ok(answer),
                    }
                }
                Err(error) if error.code() == Some("ExpiredIteratorException") && !renewed => {
                    renewed = true;
                    iterator = self.new_iterator(stream, shard, from).await?;
                }
                Err(error) => return Err(call.failed(error)),
            }
        }
    }

    /// One answer of `GetRecords`. A throttled read is slowed, not failed: it is made again while there is time.
    async fn get_once(
        &self,
        iterator: &str,
        limit: i32,
        call: Call<'_>,
    ) -> Result<GetRecordsOutput, SdkError<GetRecordsError, HttpResponse>> {
        let patience = deadline::working_time(self.clock.as_ref()).map_or(PATIENCE, |time| time.min(PATIENCE));
        let begun = Instant::now();
        let mut waits = WAITS.into_iter();
        let mut wait = Duration::ZERO;
        loop {
            wait = waits.next().unwrap_or(wait);
            let answer = self.once.get_records().shard_iterator(iterator).limit(limit).send().await;
            let rest = pause::most_of(&*self.random, wait);
            match answer {
                Err(error) if call.kind_of(&error) == ErrorKind::Retry && begun.elapsed() + rest < patience => {
                    tracing::debug!(%error, resource = call.resource, "a read is made again");
                    tokio::time::sleep(rest).await;
                }
                answer => return answer,
            }
        }
    }

    fn keep(&self, place: IteratorKey, iterator: Option<String>) {
        let Some(iterator) = iterator else { return };
        let mut kept = self.kept();
        if kept.len() >= KEPT_ITERATORS {
            kept.clear();
        }
        kept.insert(place, iterator);
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, HashMap<IteratorKey, String>> {
        self.iterators.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Stream for KinesisStream {
    async fn create(&self, spec: &StreamSpec) -> Result<()> {
        check_spec(spec)?;
        let shards = i32::try_from(spec.shards).unwrap_or(i32::MAX);
        let resource = resource(&spec.name);
        let made = self.client.create_stream().stream_name(self.name(&spec.name)).shard_count(shards).send().await;
        match made.map_err(|e| Call::repeatable("kinesis:CreateStream", &resource).failed(e)) {
            Err(error) if error.kind() != ErrorKind::Conflict => return Err(error),
            _ => {}
        }
        let found = self.active(&spec.name).await?;
        if found != spec.shards {
            return Err(Error::conflict(format!("{resource} exists with {found} shards, expected {}", spec.shards)));
        }
        self.retain(&spec.name, spec.retention_hours).await
    }

    fn declared<'a>(&self, resource: &'a str) -> Option<&'a str> {
        resource.strip_prefix(&self.prefix)
    }

    async fn list(&self) -> Result<Vec<String>> {
        let (mut names, mut next) = (Vec::new(), None);
        loop {
            let ask = self.client.list_streams().limit(STREAMS_PER_PAGE).set_next_token(next.take());
            let answer = ask.send().await;
            let answer = answer.map_err(|e| Call::repeatable("kinesis:ListStreams", "all streams").failed(e))?;
            names.extend(answer.stream_names.iter().filter_map(|name| self.declared(name)).map(str::to_owned));
            next = answer.next_token;
            if next.is_none() {
                names.sort_unstable();
                return Ok(names);
            }
        }
    }

    async fn shards(&self, stream: &str) -> Result<Vec<Shard>> {
        let (mut shards, mut next) = (Vec::new(), None);
        loop {
            let ask = self.client.list_shards().max_results(SHARDS_PER_PAGE);
            // The token stands for the stream's name, too.
            let ask = match next.take() {
                Some(token) => ask.next_token(token),
                None => ask.stream_name(self.name(stream)),
            };
            let answer = ask.send().await;
            let answer = answer.map_err(|e| Call::repeatable("kinesis:ListShards", &resource(stream)).failed(e))?;
            shards.extend(answer.shards.into_iter().flatten().map(|shard| Shard {
                parents: shard.parent_shard_id.into_iter().chain(shard.adjacent_parent_shard_id).map(ShardId).collect(),
                open: shard.sequence_number_range.is_none_or(|range| range.ending_sequence_number.is_none()),
                id: ShardId(shard.shard_id),
            }));
            next = answer.next_token;
            if next.is_none() {
                return Ok(parents_first(shards));
            }
        }
    }

    async fn put(&self, stream: &str, records: Vec<NewRecord>) -> Result<Vec<PutOutcome>> {
        check_batch(&records)?;
        let mut outcomes: Vec<Option<PutOutcome>> = vec![None; records.len()];
        let mut left: Vec<usize> = (0..records.len()).collect();
        for wait in WAITS.iter().map(Some).chain([None]) {
            let entries = left.iter().map(|&index| entry(&records[index])).collect::<Result<Vec<_>>>()?;
            match self.put_once(stream, entries).await {
                Ok(answers) => {
                    for (&index, answer) in left.iter().zip(answers) {
                        outcomes[index] = Some(outcome(answer)?);
                    }
                    left.retain(|&index| !matches!(outcomes[index], Some(PutOutcome::Stored { .. })));
                }
                // Nothing of this call was stored, and nothing of an earlier one is forgotten.
                Err(error) if error.kind() == ErrorKind::Retry => {
                    if wait.is_none() && outcomes.iter().all(Option::is_none) {
                        return Err(error);
                    }
                    let message = error.to_string();
                    for &index in &left {
                        outcomes[index] = Some(PutOutcome::Throttled { message: message.clone() });
                    }
                }
                Err(error) if outcomes.iter().all(Option::is_none) => return Err(error),
                // Some records are stored, of the others nobody knows: the caller learns of both.
                Err(error) => {
                    let message = error.to_string();
                    for &index in &left {
                        outcomes[index] = Some(PutOutcome::Unknown { message: message.clone() });
                    }
                    break;
                }
            }
            let Some(wait) = wait.filter(|_| !left.is_empty()) else { break };
            tokio::time::sleep(pause::most_of(&*self.random, *wait)).await;
        }
        Ok(outcomes.into_iter().flatten().collect())
    }

    async fn read(&self, stream: &str, shard: &ShardId, from: ReadFrom, max_records: usize) -> Result<ReadBatch> {
        // Kinesis refuses a time that has not come.
        if let ReadFrom::Time(ms) = from
            && ms > self.clock.now_ms()
        {
            return Ok(ReadBatch { records: Vec::new(), next: from, behind_ms: 0 });
        }
        let limit = i32::try_from(max_records.clamp(1, MAX_READ_RECORDS)).unwrap_or(i32::MAX);
        let answer = self.get(stream, shard, &from, limit).await?;
        let mut records = answer.records.into_iter().map(record).collect::<Result<Vec<_>>>()?;
        let mut behind_ms = answer.millis_behind_latest.unwrap_or_default();
        let mut iterator = answer.next_shard_iterator;
        // Kinesis cuts its answers there, emulators may not.
        let fits = within(&records, MAX_READ_BYTES);
        if fits < records.len() {
            records.truncate(fits);
            (behind_ms, iterator) = (behind_ms.max(1), None);
        }
        let next = records.last().map_or(from, |last| ReadFrom::After(last.sequence.clone()));
        self.keep(place(stream, shard, &next), iterator);
        Ok(ReadBatch { records, next, behind_ms })
    }
}

fn resource(stream: &str) -> String {
    format!("stream `{stream}`")
}

fn place(stream: &str, shard: &ShardId, from: &ReadFrom) -> IteratorKey {
    let at = match from {
        ReadFrom::Oldest => "oldest".into(),
        ReadFrom::After(sequence) => sequence.as_str().to_owned(),
        ReadFrom::Time(ms) => format!("time {ms}"),
    };
    (stream.to_owned(), shard.0.clone(), at)
}

fn entry(record: &NewRecord) -> Result<PutRecordsRequestEntry> {
    PutRecordsRequestEntry::builder()
        .partition_key(&record.partition_key)
        .data(Blob::new(record.data.to_vec()))
        .build()
        .map_err(|e| Error::bug("a record lacks what Kinesis needs").with_source(e))
}

fn outcome(answer: PutRecordsResultEntry) -> Result<PutOutcome> {
    let message = answer.error_message.unwrap_or_else(|| "no reason was given".into());
    match (answer.error_code.as_deref(), answer.shard_id, answer.sequence_number) {
        (None, Some(shard), Some(sequence)) => {
            Ok(PutOutcome::Stored { shard: ShardId(shard), sequence: sequence.parse()? })
        }
        (Some("ProvisionedThroughputExceededException"), ..) => Ok(PutOutcome::Throttled { message }),
        _ => Ok(PutOutcome::Failed { message }),
    }
}

fn record(record: aws_sdk_kinesis::types::Record) -> Result<Record> {
    let arrival = record.approximate_arrival_timestamp.map(|time| nearest_millisecond(&time));
    Ok(Record {
        sequence: record.sequence_number.parse()?,
        partition_key: record.partition_key.unwrap_or_default(),
        data: Bytes::from(record.data.into_inner()),
        arrival_ms: arrival.unwrap_or_default(),
    })
}

/// Kinesis tells milliseconds in decimal seconds, which binary numbers miss by a little.
fn nearest_millisecond(time: &DateTime) -> i64 {
    time.secs() * 1_000 + (i64::from(time.subsec_nanos()) + 500_000) / 1_000_000
}

/// How many of the first records have `limit` bytes together at most; one, if there is one.
fn within(records: &[Record], limit: usize) -> usize {
    let mut bytes = 0;
    let fits = records.iter().take_while(|record| {
        bytes += record.data.len() + record.partition_key.len();
        bytes <= limit
    });
    fits.count().max(1)
}

/// Shards in an order in which those that were split or merged come before what they became.
fn parents_first(shards: Vec<Shard>) -> Vec<Shard> {
    let mut left: BTreeMap<ShardId, Shard> = shards.into_iter().map(|shard| (shard.id.clone(), shard)).collect();
    let mut sorted = Vec::with_capacity(left.len());
    while !left.is_empty() {
        let ready: Vec<_> = left.values().filter(|s| s.parents.iter().all(|p| !left.contains_key(p))).collect();
        let ready: Vec<ShardId> = ready.into_iter().map(|shard| shard.id.clone()).collect();
        if ready.is_empty() {
            sorted.extend(std::mem::take(&mut left).into_values());
        }
        sorted.extend(ready.iter().filter_map(|id| left.remove(id)));
    }
    sorted
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shard(id: &str, parents: &[&str]) -> Shard {
        let parents = parents.iter().map(|&p| ShardId(p.to_owned())).collect();
        Shard { id: ShardId(id.to_owned()), parents, open: true }
    }

    #[test]
    fn parents_come_before_what_they_became() {
        let shards = vec![shard("1", &["3", "2"]), shard("2", &["9"]), shard("3", &[]), shard("4", &["1"])];
        let order: Vec<_> = parents_first(shards).into_iter().map(|shard| shard.id.0).collect();
        assert_eq!(order, ["2", "3", "1", "4"], "a parent that has expired is not waited for");
    }

    #[test]
    fn an_answer_says_what_became_of_its_record() {
        let answer = |code: Option<&str>| {
            let entry = PutRecordsResultEntry::builder().set_error_code(code.map(str::to_owned));
            outcome(entry.sequence_number("12").shard_id("s").error_message("why").build()).unwrap()
        };
        assert_eq!(answer(None), PutOutcome::Stored { shard: ShardId("s".into()), sequence: 12.into() });
        let throttled = answer(Some("ProvisionedThroughputExceededException"));
        assert_eq!(throttled, PutOutcome::Throttled { message: "why".into() });
        assert_eq!(answer(Some("InternalFailure")), PutOutcome::Failed { message: "why".into() });
    }

    #[test]
    fn a_time_is_the_millisecond_that_was_meant() {
        assert_eq!(nearest_millisecond(&DateTime::from_secs_f64(1_795_378_165.616)), 1_795_378_165_616);
        assert_eq!(nearest_millisecond(&DateTime::from_secs_and_nanos(7, 999_999_900)), 8_000);
    }
}
