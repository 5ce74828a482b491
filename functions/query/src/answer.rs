//! Writes the answer into the response, as it is found, or to storage when it is too large.
//!
//! JSON: `{"queryId", "columns": [{"name", "type"}], "rows": [[…]], "truncated", "stats": {…}}`; `truncated` says that the
//! request's `limit` cut rows off. A statement that wrote has `"committed": {…}` too. Frames ([`crate::frames`]) say the same;
//! other formats are the rows alone.
//!
//! Too large for Lambda's 6 MB: given on as it is found where the server can do so and the format is not JSON. Otherwise it is
//! stored, and the response is `{"queryId", "columns", "rows": [the first ones], "truncated": true, "result": {"url", "format",
//! "bytes", "download"}, "stats"}`, with the URL in the header `x-tarn-result-url` too. The stored object holds the whole answer
//! in the format that was asked for; `download` is a signed address of it, where storage signs addresses. There, the status is 303
//! and `location` that address, unless the format is JSON.

use std::collections::VecDeque;
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use bytes::Bytes;
use engine::{Answer, Outcome, Progress, Stats};
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt, stream};
use serde_json::{Value, json};
use shared::api::{Body, Response};
use shared::error::Context;
use shared::model::Keys;
use shared::storage::Storage;
use shared::telemetry::metrics::{self, Metric};
use shared::{Error, Result};
use tokio::io::{AsyncWrite, AsyncWriteExt};
use url::Url;

use crate::encode::{columns, json_rows};
use crate::encoder::Encoder;
use crate::event::Format;
use crate::frames::{self, Kind};

/// Bytes of a response's body as the event carries it; Lambda takes 6,291,556 with everything around it.
const MAX_CARRIED: usize = 6_000_000;

/// Bytes of rows that are written at once.
const PART_BYTES: usize = 1 << 20;

/// Rows shown of an answer that was stored, and how many bytes of them: they must fit beside all else.
const PREVIEW_ROWS: usize = 100;
const PREVIEW_BYTES: usize = 1 << 20;

/// How long the signed address of a stored answer holds.
const DOWNLOAD_EXPIRES: Duration = Duration::from_secs(3600);

/// How often frames say how far a query is.
const PROGRESS_EVERY: Duration = Duration::from_millis(250);

/// Delivers one answer.
pub struct Delivery<'a> {
    pub storage: &'a Storage,
    pub keys: &'a Keys,
    pub id: &'a str,
    pub format: Format,
    /// Whether what is too large for one response may be given on as it is found.
    pub may_stream: bool,
}

/// What an answer became.
enum Written {
    Whole(Vec<u8>, Stats),
    Stored(StoredAnswer),
    /// So far; the rest is given on as it is found.
    Begun(Vec<u8>, Box<Streamed>),
}

/// An answer in storage.
struct StoredAnswer {
    url: Url,
    bytes: usize,
    preview: Preview,
    stats: Stats,
}

/// The first rows of an answer.
#[derive(Default)]
struct Preview {
    rows: Vec<Value>,
    bytes: usize,
    is_full: bool,
}

impl Preview {
    fn add(&mut self, part: &RecordBatch) -> Result<()> {
        if self.is_full {
            return Ok(());
        }
        for row in json_rows(&part.slice(0, part.num_rows().min(PREVIEW_ROWS - self.rows.len())))? {
            self.bytes += row.to_string().len();
            self.is_full = self.bytes > PREVIEW_BYTES || self.rows.len() + 1 == PREVIEW_ROWS;
            if self.bytes > PREVIEW_BYTES {
                break;
            }
            self.rows.push(row);
        }
        Ok(())
    }
}

impl Delivery<'_> {
    /// Runs the query and gives at most `limit` of its rows.
    ///
    /// # Errors
    /// What the query gives while it runs, or storing a large answer.
    pub async fn deliver(&self, answer: Answer, limit: Option<u64>) -> Result<Response<Body>> {
        let schema = answer.schema.clone();
        let (response, stats) = match self.write(answer, limit).await? {
            Written::Begun(head, rest) => return Ok(self.given_on(head, *rest)),
            Written::Whole(body, stats) => (Response::new(200, self.format.content_type(), body), stats),
            Written::Stored(stored) => (self.stored(&schema, &stored).await?, stored.stats),
        };
        report(self.id, stats);
        let response = response
            .with_header("x-tarn-rows", stats.rows.to_string())
            .with_header("x-tarn-bytes-scanned", stats.bytes_scanned.to_string())
            .with_header("x-tarn-elapsed-ms", stats.elapsed_ms.to_string());
        Ok(response.into())
    }

    /// Gives at most `limit` of the rows on as the query finds them, once there are some; frames before there are any.
    ///
    /// # Errors
    /// What the query gives before its first rows; what it gives behind them is in the body.
    pub async fn stream(&self, answer: Answer, limit: Option<u64>) -> Result<Response<Body>> {
        let mut head = Vec::new();
        let encoder = Encoder::begin(self.format, self.id, &answer.schema, &mut head)?;
        let mut rows = LimitedRows::new(answer, limit);
        if self.format != Format::Frames {
            rows.fill().await?;
        }
        Ok(self.given_on(head, self.streamed(rows, encoder)))
    }

    /// Whether an answer that is too large for one response is given on as it is found.
    fn goes_on_large(&self) -> bool {
        self.may_stream && self.format != Format::Json
    }

    fn streamed(&self, rows: LimitedRows, encoder: Encoder) -> Streamed {
        let report =
            Report { id: self.id.to_owned(), rows: rows.given, is_whole: false, progress: rows.progress.clone() };
        Streamed { rows, encoder, format: self.format, report }
    }

    fn given_on(&self, head: Vec<u8>, rest: Streamed) -> Response<Body> {
        let parts = stream::try_unfold(Some(rest), Streamed::part);
        let parts = stream::once(async { Ok(Bytes::from(head)) }).chain(parts).boxed();
        let whole = Response::new(200, self.format.content_type(), Bytes::new());
        Response { body: Body::Parts(parts), ..Response::from(whole) }
    }

    async fn stored(&self, schema: &SchemaRef, stored: &StoredAnswer) -> Result<Response> {
        let address = self.storage.address(&stored.url);
        let download = self.storage.presigned_get(&stored.url, DOWNLOAD_EXPIRES).await?;
        let mut result = json!({"url": address.as_str(), "format": self.format.extension(), "bytes": stored.bytes});
        if let Some(download) = &download {
            result["download"] = json!(download);
        }
        let body = json!({
            "queryId": self.id,
            "columns": columns(schema),
            "rows": stored.preview.rows,
            "truncated": true,
            "result": result,
            "stats": stored.stats,
        });
        let response = match download.filter(|_| self.format != Format::Json) {
            Some(download) => Response::json(303, &body)?.with_header("location", download),
            None => Response::json(200, &body)?,
        };
        Ok(response.with_header("x-tarn-result-url", address.as_str()))
    }

    async fn write(&self, answer: Answer, limit: Option<u64>) -> Result<Written> {
        let mut body = Vec::new();
        let mut encoder = Encoder::begin(self.format, self.id, &answer.schema, &mut body)?;
        let mut object = None;
        let mut preview = Preview::default();
        let mut rows = LimitedRows::new(answer, limit);
        while let Some(part) = rows.next().await? {
            preview.add(&part)?;
            encoder.rows(&part, &mut body)?;
            if object.is_none() && carried(self.format, &body) > MAX_CARRIED {
                if self.goes_on_large() {
                    return Ok(Written::Begun(body, Box::new(self.streamed(rows, encoder))));
                }
                object = Some(StoredObject::open(self)?);
            }
            if let Some(object) = &mut object {
                object.take(&mut body).await?;
            }
        }
        let (tail, stats) = rows.end();
        encoder.end(&tail, &mut body)?;
        if object.is_none() && !self.goes_on_large() && carried(self.format, &body) > MAX_CARRIED {
            object = Some(StoredObject::open(self)?);
        }
        Ok(match object {
            None => Written::Whole(body, stats),
            Some(object) => {
                let (url, bytes) = object.close(&mut body).await?;
                Written::Stored(StoredAnswer { url, bytes, preview, stats })
            }
        })
    }
}

/// Rows of an answer, in parts of about [`PART_BYTES`] and up to a limit.
struct LimitedRows {
    rows: BoxStream<'static, Result<RecordBatch>>,
    /// How many may still come; none: all.
    left: Option<u64>,
    /// Of the batch that came last.
    parts: VecDeque<RecordBatch>,
    given: u64,
    truncated: bool,
    committed: Option<Outcome>,
    progress: Progress,
}

impl LimitedRows {
    fn new(answer: Answer, limit: Option<u64>) -> Self {
        Self {
            progress: answer.progress(),
            rows: answer.rows.map_err(Error::from).boxed(),
            left: limit,
            parts: VecDeque::new(),
            given: 0,
            truncated: false,
            committed: answer.outcome,
        }
    }

    async fn next(&mut self) -> Result<Option<RecordBatch>> {
        self.fill().await?;
        let part = self.parts.pop_front();
        self.given += part.as_ref().map_or(0, RecordBatch::num_rows) as u64;
        Ok(part)
    }

    /// Waits for the next rows, unless some are there.
    async fn fill(&mut self) -> Result<()> {
        while self.parts.is_empty() && !self.truncated {
            let Some(batch) = self.rows.try_next().await? else { break };
            let kept = cut(&batch, &mut self.left);
            self.truncated = kept.num_rows() < batch.num_rows();
            self.parts = parts(&kept).collect();
        }
        Ok(())
    }

    /// What stands behind the rows, and the figures.
    fn end(self) -> (Value, Stats) {
        drop(self.rows);
        let stats = Stats { rows: self.given, ..self.progress.stats() };
        let mut tail = json!({"truncated": self.truncated, "stats": stats});
        if let Some(committed) = self.committed {
            tail["committed"] = json!(committed);
        }
        (tail, stats)
    }
}

/// An answer that is given on as it is found.
struct Streamed {
    rows: LimitedRows,
    encoder: Encoder,
    format: Format,
    report: Report,
}

/// Reports a query when it is dropped: it has ended, failed, or nobody waits for it any more.
struct Report {
    id: String,
    rows: u64,
    is_whole: bool,
    progress: Progress,
}

impl Drop for Report {
    fn drop(&mut self) {
        if !self.is_whole {
            tracing::info!(query = self.id, "the answer was broken off");
        }
        report(&self.id, Stats { rows: self.rows, ..self.progress.stats() });
    }
}

impl Streamed {
    /// The next bytes, and what comes behind them; nothing does behind the end.
    async fn part(this: Option<Self>) -> Result<Option<(Bytes, Option<Self>)>> {
        let Some(mut this) = this else { return Ok(None) };
        let mut bytes = Vec::new();
        let next = match this.format {
            Format::Frames => tokio::select! {
                biased;
                next = this.rows.next() => next,
                () = tokio::time::sleep(PROGRESS_EVERY) => {
                    this.progress(&mut bytes);
                    return Ok(Some((bytes.into(), Some(this))));
                }
            },
            _ => this.rows.next().await,
        };
        let encoded = match next {
            Ok(Some(part)) => this.encoder.rows(&part, &mut bytes).map(|()| true),
            Ok(None) => Ok(false),
            Err(error) => Err(error),
        };
        this.report.rows = this.rows.given;
        match encoded {
            Ok(true) => return Ok(Some((bytes.into(), Some(this)))),
            Ok(false) => {
                this.report.is_whole = true;
                this.encoder.end(&this.rows.end().0, &mut bytes)?;
            }
            Err(error) => {
                // The message may quote a row: that is for who asked.
                tracing::info!(query = this.report.id, kind = %error.kind(), "query failed on the way");
                tracing::debug!(query = this.report.id, %error, "the failure");
                // A row may be written in part.
                bytes.clear();
                this.encoder.fail(error, &mut bytes)?;
            }
        }
        Ok(Some((bytes.into(), None)))
    }

    /// How far the query is.
    fn progress(&self, out: &mut Vec<u8>) {
        let mut told = json!(self.rows.progress.stats());
        told["expected_bytes"] = json!(self.rows.progress.expected_bytes());
        frames::write(Kind::Progress, told.to_string().as_bytes(), out);
    }
}

fn report(id: &str, stats: Stats) {
    tracing::info!(
        query = id,
        rows = stats.rows,
        bytes = stats.bytes_scanned,
        spilled = stats.spilled_bytes,
        elapsed_ms = stats.elapsed_ms,
        "query ended"
    );
    metrics::emit(
        &[],
        &[
            Metric::bytes("BytesScanned", stats.bytes_scanned),
            Metric::count("RowsReturned", stats.rows),
            Metric::milliseconds("QueryMilliseconds", i64::try_from(stats.elapsed_ms).unwrap_or(i64::MAX)),
        ],
    );
}

/// The batch in parts of about [`PART_BYTES`]: a value's text takes many times its bytes while it is made.
fn parts(batch: &RecordBatch) -> impl Iterator<Item = RecordBatch> {
    let bytes: usize = batch.columns().iter().filter_map(|c| c.to_data().get_slice_memory_size().ok()).sum();
    let total = batch.num_rows();
    let rows = (total.saturating_mul(PART_BYTES) / bytes.max(1)).clamp(1, total.max(1));
    (0..total).step_by(rows).map(move |from| batch.slice(from, rows.min(total - from)))
}

/// The rows that `left` allows; takes them off.
fn cut(batch: &RecordBatch, left: &mut Option<u64>) -> RecordBatch {
    let Some(left) = left else { return batch.clone() };
    let rows = batch.num_rows().min(usize::try_from(*left).unwrap_or(usize::MAX));
    *left -= rows as u64;
    batch.slice(0, rows)
}

/// Bytes of `body` inside the event: text escaped as a JSON string, other bytes in base64.
fn carried(format: Format, body: &[u8]) -> usize {
    match format.is_text() {
        false => body.len().div_ceil(3) * 4,
        true => body.len() + body.iter().filter(|b| matches!(b, b'"' | b'\\' | b'\n' | b'\r' | b'\t')).count(),
    }
}

/// An object that an answer is written to.
struct StoredObject {
    url: Url,
    writer: Box<dyn AsyncWrite + Send + Unpin>,
    bytes: usize,
}

impl StoredObject {
    fn open(delivery: &Delivery<'_>) -> Result<Self> {
        let url = delivery.keys.result(delivery.id, delivery.format.extension());
        let writer = Box::new(delivery.storage.writer(&url)?);
        Ok(Self { url, writer, bytes: 0 })
    }

    /// Writes and empties `body`.
    async fn take(&mut self, body: &mut Vec<u8>) -> Result<()> {
        self.bytes += body.len();
        self.writer.write_all(body).await.context(|| format!("writing `{}`", self.url))?;
        body.clear();
        Ok(())
    }

    async fn close(mut self, body: &mut Vec<u8>) -> Result<(Url, usize)> {
        self.take(body).await?;
        self.writer.shutdown().await.context(|| format!("writing `{}`", self.url))?;
        Ok((self.url, self.bytes))
    }
}
