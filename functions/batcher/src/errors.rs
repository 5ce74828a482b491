//! What could not be stored: shown (`GET /streams/{name}/errors`), stored after all (`POST /streams/{name}/errors/replay`), once
//! the schema fits it, or given up (`POST /streams/{name}/errors/discard`). A record that is replayed or discarded leaves the error
//! objects; the others stay.

use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use format::records::{RecordSchema, Rejected};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use shared::api::Request;
use shared::aside::Period;
use shared::erasure::{self, Erased};
use shared::model::{Positions, SequenceNumber, ShardId};
use shared::project::StreamDeclaration;
use shared::storage::ObjectInfo;
use shared::telemetry::metrics::{self, Metric};
use shared::{Error, ErrorKind, Result, deadline};
use table::replay::{Replays, Sorted, Target};
use table::{Committed, RowStream, Table, Token};
use url::Url;

use crate::Batcher;
use crate::flush::{kind_of, positions, token_key};

/// Lines that a request is shown, unless it asks for fewer.
const SHOWN: usize = 100;
const MOST_SHOWN: usize = 1_000;
/// Bytes of records that an answer shows at most, besides the first: Lambda answers 6 MB.
const MOST_SHOWN_BYTES: usize = 3 << 20;
/// Objects that are judged before those with good records are replayed.
const JUDGED_AT_ONCE: usize = 200;

/// Which records. What a discard is about is kept in its plan as this.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Filter {
    /// When they arrived.
    #[serde(flatten)]
    period: Period,
    /// An error code.
    code: Option<String>,
}

/// The body of a replay.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(crate) struct Wanted {
    since: Option<String>,
    until: Option<String>,
    code: Option<String>,
    /// Say what would happen, and change nothing.
    dry_run: bool,
}

/// The body of a discard.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(crate) struct Unwanted {
    since: Option<String>,
    until: Option<String>,
    code: Option<String>,
    dry_run: bool,
    /// Leave objects that were written later, milliseconds since the epoch by the storage's clock: what an earlier answer said
    /// (default: take those that are there when the request comes).
    as_of_ms: Option<i64>,
}

/// A record as it is shown.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Shown {
    /// URL of the object that it is in.
    object: String,
    arrived: DateTime<Utc>,
    #[serde(skip_serializing_if = "Option::is_none")]
    shard: Option<ShardId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sequence: Option<SequenceNumber>,
    code: String,
    message: String,
    attempts: u32,
    /// The record; bytes that are no UTF-8 are replaced.
    data: String,
}

/// The answer of a replay.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Replay {
    stream: String,
    table: String,
    dry_run: bool,
    /// Rows that are in the table, or would be.
    replayed: u64,
    /// Records that were asked for and still can't be stored.
    failing: u64,
    /// Why: the first of them.
    reason: Option<String>,
    /// Whether time was up before all were looked at: the same request does the rest.
    unfinished: bool,
}

/// The answer of a discard.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Discarded {
    stream: String,
    dry_run: bool,
    /// Records that are gone for good, or would be.
    discarded: u64,
    /// When the newest object that was looked at was written, milliseconds since the epoch; none without any.
    as_of_ms: Option<i64>,
    /// Whether time was up before all were looked at: the same request does the rest.
    unfinished: bool,
}

impl Filter {
    /// # Errors
    /// `Invalid` for a time that is none.
    fn new(since: Option<&str>, until: Option<&str>, code: Option<String>) -> Result<Self> {
        Ok(Self { period: Period::parse(since, until)?, code })
    }

    /// Of a query string.
    ///
    /// # Errors
    /// `Invalid` for a time that is none.
    fn of_query(request: &Request) -> Result<Self> {
        let given = |name: &str| request.query.get(name).map(String::as_str);
        Self::new(given("since"), given("until"), request.query.get("code").cloned())
    }

    fn takes(&self, rejected: &Rejected) -> bool {
        self.period.holds(rejected.arrival_timestamp)
            && self.code.as_ref().is_none_or(|code| *code == rejected.error_code)
    }

    /// As [`Filter::takes`]; a line that another program wrote is taken where all are.
    fn takes_line(&self, line: &[u8]) -> bool {
        match Rejected::parse(line) {
            Some(rejected) => self.takes(&rejected),
            None => !line.is_empty() && *self == Self::default(),
        }
    }
}

impl Batcher {
    pub(crate) fn replays(&self, stream: &str) -> Replays {
        Replays::new(&self.ports, self.ports.keys.errors(stream), format!("errors/{stream}"))
    }

    /// The records that wait in error objects, those of the newest objects first.
    ///
    /// # Errors
    /// `NotFound` for an unknown stream, `Invalid` for a filter that can't be read.
    pub(crate) async fn show_errors(&self, stream: &str, request: &Request) -> Result<Vec<Shown>> {
        self.project.stream(stream)?;
        let filter = Filter::of_query(request)?;
        let limit = request.limit(SHOWN, MOST_SHOWN)?;
        let (mut shown, mut bytes) = (Vec::new(), 0);
        for object in self.replays(stream).waiting().await?.iter().rev() {
            let Some(text) = self.text(object).await? else { continue };
            for rejected in text.split(|byte| *byte == b'\n').rev().filter_map(Rejected::parse) {
                if !filter.takes(&rejected) {
                    continue;
                }
                let data = rejected.data().unwrap_or_default();
                bytes += data.len();
                if shown.len() == limit || (bytes > MOST_SHOWN_BYTES && !shown.is_empty()) {
                    return Ok(newest_first(shown));
                }
                shown.push(Shown {
                    object: object.url.to_string(),
                    arrived: DateTime::from_timestamp_millis(rejected.arrival_timestamp).unwrap_or_default(),
                    data: String::from_utf8_lossy(&data).into_owned(),
                    shard: rejected.shard,
                    sequence: rejected.sequence,
                    code: rejected.error_code,
                    message: rejected.error_message,
                    attempts: rejected.attempts_made,
                });
            }
        }
        Ok(newest_first(shown))
    }

    /// Stores what can be stored by now.
    ///
    /// # Errors
    /// `NotFound` for an unknown stream; `Retry` when another replays it at the same time; what table and storage answer.
    pub(crate) async fn replay_errors(&self, stream: &str, wanted: Wanted) -> Result<Replay> {
        let Wanted { since, until, code, dry_run } = wanted;
        let target = self.stream_table(stream, Filter::new(since.as_deref(), until.as_deref(), code)?).await?;
        let table = target.table.to_string();
        let mut replay = Replay { stream: stream.into(), table, dry_run, ..Replay::default() };
        let replays = self.replays(stream);
        if !dry_run {
            replay.replayed += replays.finish(&target).await?.replayed;
        }
        let waiting = self.settled(stream).await?;
        for objects in waiting.chunks(JUDGED_AT_ONCE) {
            if deadline::is_near(self.ports.clock.as_ref()) {
                replay.unfinished = true;
                break;
            }
            let (mut ready, rows) = self.storable(objects, &target.lines, &mut replay).await?;
            if dry_run {
                replay.replayed += rows;
                continue;
            }
            while !ready.is_empty() {
                replay.replayed += replays.replay(&ready, &target).await?.replayed;
                let left: BTreeSet<Url> = replays.waiting().await?.into_iter().map(|object| object.url).collect();
                ready.retain(|object| left.contains(&object.url));
            }
        }
        if dry_run {
            return Ok(replay);
        }
        metrics::emit(&[("stream", stream)], &[Metric::count("RecordsReplayed", replay.replayed)]);
        tracing::info!(stream, replayed = replay.replayed, failing = replay.failing, "errors replayed");
        Ok(replay)
    }

    /// The stream's table as the place of records that `filter` takes.
    async fn stream_table(&self, stream: &str, filter: Filter) -> Result<StreamTable<'_>> {
        let declaration = self.project.stream(stream)?;
        let table = self.project.stream_table(stream)?;
        let schema = self.schemas.get(stream).ok_or_else(|| Error::not_found(format!("no stream `{stream}`")))?.clone();
        let erased = erasure::erased(self.ports.state.as_ref()).await?;
        let lines = Lines { stream: stream.into(), declaration: declaration.clone(), schema, filter, erased };
        Ok(StreamTable { batcher: self, declaration, table, lines, stores: true })
    }

    /// The objects that wait and are not written again.
    async fn settled(&self, stream: &str) -> Result<Vec<ObjectInfo>> {
        let (replays, committed) = (self.replays(stream), self.committed(stream).await?);
        let mut waiting = replays.waiting().await?;
        waiting.retain(|object| is_committed(replays.name_of(&object.url), &committed));
        Ok(waiting)
    }

    /// Removes records for good that could not be stored.
    ///
    /// # Errors
    /// `NotFound` for an unknown stream; `Retry` when others replay or discard at the same time; what storage answers.
    pub(crate) async fn discard_errors(&self, stream: &str, unwanted: Unwanted) -> Result<Discarded> {
        let Unwanted { since, until, code, dry_run, as_of_ms } = unwanted;
        let filter = Filter::new(since.as_deref(), until.as_deref(), code)?;
        let wanted =
            serde_json::to_value(&filter).map_err(|e| Error::bug("a filter has no JSON form").with_source(e))?;
        let target = StreamTable { stores: false, ..self.stream_table(stream, filter).await? };
        let replays = self.replays(stream);
        if !dry_run {
            replays.finish(&target).await?;
        }
        let mut waiting = self.settled(stream).await?;
        waiting.retain(|object| as_of_ms.is_none_or(|as_of_ms| object.modified_ms <= as_of_ms));
        let newest = waiting.iter().map(|object| object.modified_ms).max();
        let mut done = Discarded { stream: stream.into(), dry_run, as_of_ms: newest, ..Discarded::default() };
        for objects in waiting.chunks(JUDGED_AT_ONCE) {
            if deadline::is_near(self.ports.clock.as_ref()) {
                done.unfinished = true;
                break;
            }
            let (mut ready, lines) = self.discardable(objects, &target.lines.filter).await?;
            if dry_run {
                done.discarded += lines;
                continue;
            }
            while !ready.is_empty() {
                done.discarded += replays.discard(&ready, &wanted, &target).await?.discarded;
                let left: BTreeSet<Url> = replays.waiting().await?.into_iter().map(|object| object.url).collect();
                ready.retain(|object| left.contains(&object.url));
            }
        }
        if !dry_run {
            metrics::emit(&[("stream", stream)], &[Metric::count("RecordsDiscarded", done.discarded)]);
            tracing::info!(stream, discarded = done.discarded, "errors discarded");
        }
        Ok(done)
    }

    /// Those of `objects` with a record that `filter` takes, and how many there are.
    async fn discardable(&self, objects: &[ObjectInfo], filter: &Filter) -> Result<(Vec<ObjectInfo>, u64)> {
        let (mut ready, mut lines) = (Vec::new(), 0);
        for object in objects {
            let Some(text) = self.text(object).await? else { continue };
            let taken = text.split(|byte| *byte == b'\n').filter(|line| filter.takes_line(line)).count() as u64;
            lines += taken;
            if taken > 0 {
                ready.push(object.clone());
            }
        }
        Ok((ready, lines))
    }

    /// Those of `objects` with a record that is asked for and can be stored, and how many there are. Counts those that can't.
    async fn storable(
        &self,
        objects: &[ObjectInfo],
        lines: &Lines,
        replay: &mut Replay,
    ) -> Result<(Vec<ObjectInfo>, u64)> {
        let (mut ready, mut rows) = (Vec::new(), 0);
        for object in objects {
            let Some(text) = self.text(object).await? else { continue };
            let judged = lines.sort(std::slice::from_ref(&text))?;
            rows += judged.rows;
            replay.failing += judged.failing;
            replay.reason = replay.reason.take().or(judged.reason);
            if judged.rows > 0 {
                ready.push(object.clone());
            }
        }
        Ok((ready, rows))
    }

    /// `None` when the object went since it was listed.
    async fn text(&self, object: &ObjectInfo) -> Result<Option<Bytes>> {
        match self.ports.storage.get(&object.url).await {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The position that the stream's table holds; none before its first commit.
    pub(crate) async fn committed(&self, stream: &str) -> Result<Positions> {
        match self.tables.load(&self.project.stream_table(stream)?).await {
            Ok(table) => positions(table.token(&token_key(stream)).as_deref()),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Positions::default()),
            Err(error) => Err(error),
        }
    }
}

/// Whether the interval of an error object `{shard}/{from}.ndjson` is in the table. One that is not will be written again.
fn is_committed(name: &str, committed: &Positions) -> bool {
    let Some((shard, file)) = name.split_once('/') else { return true };
    let from = file.strip_suffix(".ndjson").and_then(|from| from.parse::<SequenceNumber>().ok());
    // What was refused at the door, or stayed behind in a replay, has no interval.
    from.is_none_or(|from| committed.of(&ShardId(shard.into())) > from)
}

fn newest_first(mut shown: Vec<Shown>) -> Vec<Shown> {
    shown.sort_by_key(|shown| std::cmp::Reverse(shown.arrived));
    shown
}

/// How lines are judged.
#[derive(Debug)]
struct Lines {
    stream: String,
    declaration: StreamDeclaration,
    schema: Arc<RecordSchema>,
    filter: Filter,
    /// Whose records leave without being stored.
    erased: Vec<Erased>,
}

/// What became of lines.
#[derive(Debug, Default)]
struct Judged {
    batches: Vec<arrow::record_batch::RecordBatch>,
    rows: u64,
    failing: u64,
    reason: Option<String>,
    left: Vec<u8>,
    left_lines: u64,
}

impl Lines {
    fn sort(&self, objects: &[Bytes]) -> Result<Judged> {
        let mut judged = Judged::default();
        for text in objects {
            let mut asked = Vec::new();
            for line in text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
                let rejected = Rejected::parse(line).and_then(|rejected| Some((rejected.data()?, rejected)));
                match rejected {
                    Some((data, rejected)) if self.is_erased(&rejected, &data) => {}
                    Some((data, rejected)) if self.filter.takes(&rejected) => asked.push((data, rejected)),
                    _ => judged.keep(line),
                }
            }
            let (data, asked): (Vec<Vec<u8>>, Vec<Rejected>) = asked.into_iter().unzip();
            let decoded = self.schema.decode(data.iter().map(Vec::as_slice))?;
            for (at, error) in decoded.errors {
                let rejected = &asked[at];
                judged.failing += 1;
                judged.reason.get_or_insert(error.message.clone());
                rejected.again(error.code.as_str(), &error.message).write(&mut judged.left)?;
                judged.left_lines += 1;
            }
            judged.rows += decoded.batch.num_rows() as u64;
            judged.batches.push(decoded.batch);
        }
        Ok(judged)
    }
}

impl Lines {
    fn is_erased(&self, rejected: &Rejected, data: &[u8]) -> bool {
        let kind = |column: &str| kind_of(&self.declaration, column);
        self.erased.iter().any(|erased| erased.is_record(&self.stream, rejected.arrival_timestamp, data, kind))
    }
}

impl Judged {
    /// Every line stays.
    fn all(objects: &[Bytes]) -> Self {
        let mut judged = Self::default();
        let lines = objects.iter().flat_map(|text| text.split(|byte| *byte == b'\n'));
        lines.filter(|line| !line.is_empty()).for_each(|line| judged.keep(line));
        judged
    }

    fn keep(&mut self, line: &[u8]) {
        self.left.extend_from_slice(line);
        self.left.push(b'\n');
        self.left_lines += 1;
    }
}

/// A stream's table as the place of its replayed records.
struct StreamTable<'a> {
    batcher: &'a Batcher,
    declaration: &'a StreamDeclaration,
    table: shared::model::TableName,
    lines: Lines,
    /// Whether records are stored; otherwise all stay in a replay that somebody left unfinished.
    stores: bool,
}

#[async_trait]
impl Target for StreamTable<'_> {
    async fn table(&self) -> Result<Table> {
        let Self { batcher, declaration, table, .. } = self;
        batcher.tables.ensure(table, &declaration.schema, &declaration.partition_by).await
    }

    async fn sort(&self, _: &Table, objects: &[Bytes]) -> Result<Sorted> {
        let sorted = if self.stores { self.lines.sort(objects)? } else { Judged::all(objects) };
        let Judged { batches, rows, left, left_lines, .. } = sorted;
        let rows_of = RowStream::of_batches(self.lines.schema.arrow().clone(), batches);
        Ok(Sorted { rows: rows_of, replayed: rows, left, left_lines })
    }

    async fn commit(&self, table: &Table, rows: RowStream, token: Token) -> Result<Committed> {
        table.append(rows, Some(token)).await
    }

    fn is_discarded(&self, wanted: &Value, line: &[u8]) -> Result<bool> {
        let filter = Filter::deserialize(wanted);
        let filter =
            filter.map_err(|e| Error::bug(format!("expected a discard's filter, found `{wanted}`")).with_source(e))?;
        Ok(filter.takes_line(line))
    }
}
