//! A request's body: decompressed within bounds, and what its bytes are.

use std::io::Read;

use bytes::Bytes;
use flate2::read::MultiGzDecoder;
use shared::api::Request;
use shared::{Error, Result};

use crate::{MAX_BODY_BYTES, MAX_DECODED_BYTES};

/// No byte of gzip holds more than this many bytes of text.
const GZIP_RATIO: usize = 1_032;

/// How records follow each other in a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    /// One JSON object a line.
    Lines,
    /// One array of objects, or one object.
    Json,
    /// Rows below a header line.
    Csv { delimiter: u8 },
}

/// Bytes that decoding the body may take at most.
///
/// # Errors
/// `Limit` for a body that is too large as it came, `Invalid` for an empty one.
pub(crate) fn bound(request: &Request) -> Result<usize> {
    let bytes = request.body.len();
    if bytes == 0 {
        return Err(Error::invalid("expected a body of records, found an empty one"));
    }
    if bytes > MAX_BODY_BYTES {
        return Err(Error::limit(format!("expected a body of at most {MAX_BODY_BYTES} bytes, found {bytes}")));
    }
    Ok(if is_gzip(request)? { bytes.saturating_mul(GZIP_RATIO).min(MAX_DECODED_BYTES) } else { bytes })
}

/// The body as its producer wrote it.
///
/// # Errors
/// `Limit` when it grows past its bound, `Invalid` when it is cut short or broken, with the place.
pub(crate) fn decode(request: &Request) -> Result<Bytes> {
    if !is_gzip(request)? {
        return Ok(request.body.clone());
    }
    let mut decoded = Vec::with_capacity((request.body.len() * 4).min(MAX_DECODED_BYTES));
    let limit = MAX_DECODED_BYTES as u64 + 1;
    let read = MultiGzDecoder::new(&request.body[..]).take(limit).read_to_end(&mut decoded);
    if let Err(error) = read {
        return Err(broken_gzip(&error, request.body.len(), decoded.len()).with_source(error));
    }
    if decoded.len() > MAX_DECODED_BYTES {
        return Err(Error::limit(format!(
            "expected a body of at most {MAX_DECODED_BYTES} bytes once decompressed, found more"
        )));
    }
    if decoded.is_empty() {
        return Err(Error::invalid("expected a body of records, found an empty one once decompressed"));
    }
    Ok(decoded.into())
}

fn broken_gzip(error: &std::io::Error, compressed: usize, decoded: usize) -> Error {
    let found = match error.kind() {
        std::io::ErrorKind::UnexpectedEof => format!("it cut short after {compressed} bytes"),
        _ => "other bytes".into(),
    };
    Error::invalid(format!("expected a whole gzip body, found {found} ({decoded} bytes could be decompressed)"))
}

fn is_gzip(request: &Request) -> Result<bool> {
    match request.header("content-encoding").map(str::trim) {
        None | Some("" | "identity") => Ok(false),
        Some(encoding) if encoding.eq_ignore_ascii_case("gzip") || encoding.eq_ignore_ascii_case("x-gzip") => Ok(true),
        Some(other) => Err(Error::invalid(format!("expected content-encoding `gzip` or none, found `{other}`"))),
    }
}

/// The body's shape: what the content type says, or else what the first byte says.
///
/// # Errors
/// `Invalid` for a content type that holds no records.
pub(crate) fn shape(request: &Request, body: &[u8]) -> Result<Shape> {
    let content_type = request.header("content-type").unwrap_or_default();
    let media_type = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    match media_type.as_str() {
        "application/x-ndjson"
        | "application/ndjson"
        | "application/jsonl"
        | "application/x-jsonlines"
        | "application/jsonlines" => Ok(Shape::Lines),
        "application/json" => Ok(Shape::Json),
        "text/csv" | "application/csv" => Ok(Shape::Csv { delimiter: b',' }),
        "text/tab-separated-values" => Ok(Shape::Csv { delimiter: b'\t' }),
        // What clients send when they were told nothing.
        "" | "text/plain" | "application/octet-stream" | "application/x-www-form-urlencoded" => Ok(sniff(body)),
        _ => Err(Error::invalid(format!(
            "expected content-type `application/x-ndjson`, `application/json` or `text/csv`, found `{content_type}`"
        ))),
    }
}

fn sniff(body: &[u8]) -> Shape {
    match without_mark(body).iter().find(|byte| !byte.is_ascii_whitespace()) {
        Some(b'[') => Shape::Json,
        Some(b'{') | None => Shape::Lines,
        Some(_) => Shape::Csv { delimiter: b',' },
    }
}

/// The bytes after a UTF-8 byte order mark.
pub(crate) fn without_mark(body: &[u8]) -> &[u8] {
    body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body)
}
