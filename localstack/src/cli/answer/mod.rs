//! An answer of `POST /query` as it comes: asked for in frames, read batch by batch, never held whole.

pub(super) mod progress;
pub(super) mod screen;
pub(super) mod table;
pub(super) mod write;

use arrow::array::RecordBatch;
use arrow::buffer::Buffer;
use arrow::datatypes::SchemaRef;
use arrow::ipc::reader::StreamDecoder;
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt, stream};
use query::frames::{Frames, Kind};
use serde::Deserialize;
use serde_json::{Value, json};
use shared::api::Body;
use shared::{Error, Result};

use super::caller::{Caller, failure, request};

/// A statement and what may come of it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Question<'a> {
    pub(super) sql: &'a str,
    pub(super) database: Option<&'a str>,
    /// Under one key the statement changes a table once.
    pub(super) key: Option<&'a str>,
    /// Rows at most; none: all.
    pub(super) limit: Option<u64>,
}

/// How far a query is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
pub(super) struct Figures {
    pub(super) rows: u64,
    pub(super) bytes_scanned: u64,
    pub(super) elapsed_ms: u64,
    /// About how many bytes it will have scanned in the end.
    #[serde(default)]
    pub(super) expected_bytes: Option<u64>,
}

/// What stands behind the rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub(super) struct Summary {
    /// Whether the limit cut rows off.
    pub(super) truncated: bool,
    pub(super) stats: Figures,
}

/// What comes next of an answer.
#[derive(Debug)]
pub(super) enum Part {
    Progress(Figures),
    Columns(SchemaRef),
    Rows(RecordBatch),
    End(Summary),
}

/// An answer under way. Dropping it stops the query.
pub(super) struct Answer {
    body: BoxStream<'static, Result<Bytes>>,
    frames: Frames,
    decoder: StreamDecoder,
    /// What is left of the last frame of Arrow.
    arrow: Buffer,
    /// Rows that came with the columns.
    batch: Option<RecordBatch>,
    has_columns: bool,
    is_whole: bool,
}

impl Answer {
    /// Asks, and waits until the answer begins.
    ///
    /// # Errors
    /// What the query function answers, under its own kind; `Retry` when nobody answers.
    pub(super) async fn ask(caller: &Caller, question: Question<'_>) -> Result<Self> {
        let mut body = json!({"sql": question.sql, "format": "frames"});
        if let Some(database) = question.database {
            body["database"] = json!(database);
        }
        if let Some(limit) = question.limit {
            body["limit"] = json!(limit);
        }
        let mut request = request("POST", "/query", Some(&body));
        request.headers.extend(question.key.map(|key| ("idempotency-key".to_owned(), key.to_owned())));
        let body = match caller.open(request).await?.body {
            Body::Parts(parts) => parts,
            Body::Whole(bytes) => stream::once(async { Ok(bytes) }).boxed(),
        };
        Ok(Self::of(body))
    }

    fn of(body: BoxStream<'static, Result<Bytes>>) -> Self {
        Self {
            body,
            frames: Frames::default(),
            decoder: StreamDecoder::new(),
            arrow: Buffer::from(Vec::<u8>::new()),
            batch: None,
            has_columns: false,
            is_whole: false,
        }
    }

    /// The next part; none behind the end.
    ///
    /// # Errors
    /// What the query fails with on its way; `Retry` for an answer that breaks off before its end.
    pub(super) async fn next(&mut self) -> Result<Option<Part>> {
        while !self.is_whole {
            if let Some(part) = self.decoded()? {
                return Ok(Some(part));
            }
            let Some((kind, payload)) = self.frames.next()? else {
                match self.body.try_next().await? {
                    Some(bytes) => self.frames.feed(&bytes),
                    None => return Err(Error::retry("the answer broke off before its end")),
                }
                continue;
            };
            match kind {
                Kind::Arrow => self.arrow = Buffer::from(payload),
                Kind::Progress => return Ok(Some(Part::Progress(told(&payload)?))),
                Kind::Error => return Err(failure(&told(&payload)?)),
                Kind::End => {
                    self.decoder.finish()?;
                    self.is_whole = true;
                    return Ok(Some(Part::End(told(&payload)?)));
                }
            }
        }
        Ok(None)
    }

    /// What the last frame of Arrow gives. The decoder tells the columns only when it is given what follows them.
    fn decoded(&mut self) -> Result<Option<Part>> {
        if let Some(batch) = self.batch.take() {
            return Ok(Some(Part::Rows(batch)));
        }
        while !self.arrow.is_empty() {
            self.batch = self.decoder.decode(&mut self.arrow)?;
            if let Some(schema) = self.decoder.schema().filter(|_| !self.has_columns) {
                self.has_columns = true;
                return Ok(Some(Part::Columns(schema)));
            }
            if let Some(batch) = self.batch.take() {
                return Ok(Some(Part::Rows(batch)));
            }
        }
        Ok(None)
    }
}

fn told<T: serde::de::DeserializeOwned>(payload: &[u8]) -> Result<T> {
    serde_json::from_slice(payload)
        .map_err(|e| Error::bug("expected what is known of the answer in JSON").with_source(e))
}

/// The rows of a small answer, each as JSON has its values.
///
/// # Errors
/// As [`Answer::ask`] and [`Answer::next`].
pub(super) async fn rows(caller: &Caller, question: Question<'_>) -> Result<Vec<Vec<Value>>> {
    let (mut answer, mut rows) = (Answer::ask(caller, question).await?, Vec::new());
    while let Some(part) = answer.next().await? {
        if let Part::Rows(batch) = part {
            let of_batch = query::encode::json_rows(&batch)?;
            rows.extend(of_batch.into_iter().map(|row| row.as_array().cloned().unwrap_or_default()));
        }
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int64Array, StringArray};
    use query::encoder::Encoder;
    use query::event::Format;
    use shared::ErrorKind;

    use super::*;

    fn batch() -> RecordBatch {
        let n: ArrayRef = Arc::new(Int64Array::from(vec![Some(1), None]));
        let t: ArrayRef = Arc::new(StringArray::from(vec!["a", ""]));
        RecordBatch::try_from_iter([("n", n), ("t", t)]).unwrap()
    }

    fn encoded(end: impl FnOnce(Encoder, &mut Vec<u8>)) -> Vec<u8> {
        let mut out = Vec::new();
        let mut encoder = Encoder::begin(Format::Frames, "q", &batch().schema(), &mut out).unwrap();
        encoder.rows(&batch(), &mut out).unwrap();
        end(encoder, &mut out);
        out
    }

    fn whole() -> Vec<u8> {
        let tail = json!({"truncated": true, "stats": {"rows": 2, "bytes_scanned": 3, "elapsed_ms": 4}});
        encoded(|encoder, out| encoder.end(&tail, out).unwrap())
    }

    /// The parts of an answer whose bytes come so many at a time.
    async fn read(bytes: &[u8], size: usize) -> Result<Vec<Part>> {
        let parts: Vec<Result<Bytes>> = bytes.chunks(size).map(|part| Ok(Bytes::copy_from_slice(part))).collect();
        let mut answer = Answer::of(stream::iter(parts).boxed());
        let mut read = Vec::new();
        while let Some(part) = answer.next().await? {
            read.push(part);
        }
        Ok(read)
    }

    #[tokio::test]
    async fn an_answer_is_read_however_its_bytes_come() {
        for size in [1, 7, 64, 1 << 20] {
            let parts = read(&whole(), size).await.unwrap();
            let [Part::Columns(columns), Part::Rows(rows), Part::End(end)] = parts.as_slice() else {
                panic!("{parts:?}")
            };
            assert_eq!((columns, rows), (&batch().schema(), &batch()));
            assert!(end.truncated && end.stats.rows == 2 && end.stats.expected_bytes.is_none());
        }
    }

    #[tokio::test]
    async fn an_answer_without_rows_has_columns() {
        let mut out = Vec::new();
        let encoder = Encoder::begin(Format::Frames, "q", &batch().schema(), &mut out).unwrap();
        let tail = json!({"truncated": false, "stats": {"rows": 0, "bytes_scanned": 0, "elapsed_ms": 0}});
        encoder.end(&tail, &mut out).unwrap();
        let parts = read(&out, 16).await.unwrap();
        assert!(matches!(parts.as_slice(), [Part::Columns(_), Part::End(_)]), "{parts:?}");
    }

    #[tokio::test]
    async fn an_answer_that_breaks_off_anywhere_is_an_error() {
        let whole = whole();
        for length in 0..whole.len() {
            let error = read(&whole[..length], 16).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Retry, "{length}: {error}");
        }
    }

    #[tokio::test]
    async fn a_failure_on_the_way_is_the_error_that_the_query_gave() {
        let bytes = encoded(|encoder, out| encoder.fail(Error::limit("too `much`"), out).unwrap());
        let error = read(&bytes, 16).await.unwrap_err();
        assert_eq!((error.kind(), error.message()), (ErrorKind::Limit, "too `much`"));
    }

    #[tokio::test]
    async fn another_document_is_no_answer() {
        assert_eq!(read(b"{\"queryId\":1}", 16).await.unwrap_err().kind(), ErrorKind::Bug);
    }
}
