//! What a request asks for.

use std::time::Duration;

use serde::Deserialize;
use shared::api::Request;
use shared::{Error, Principal, Result};

/// How the rows of an answer are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    Json,
    Csv,
    /// A JSON object a line.
    Ndjson,
    /// The Arrow IPC stream format.
    Arrow,
    Parquet,
    /// Arrow with what else is known of the answer, before and behind its rows: [`crate::frames`].
    Frames,
}

impl Format {
    const ALL: [Self; 6] = [Self::Json, Self::Csv, Self::Ndjson, Self::Arrow, Self::Parquet, Self::Frames];

    pub fn content_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Csv => "text/csv; charset=utf-8",
            Self::Ndjson => "application/x-ndjson",
            Self::Arrow => "application/vnd.apache.arrow.stream",
            Self::Parquet => "application/vnd.apache.parquet",
            Self::Frames => "application/vnd.tarn.frames",
        }
    }

    /// The format's name, and the end of a stored answer's name.
    pub fn extension(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Csv => "csv",
            Self::Ndjson => "ndjson",
            Self::Arrow => "arrow",
            Self::Parquet => "parquet",
            Self::Frames => "frames",
        }
    }

    /// Whether an answer is text, in UTF-8.
    pub fn is_text(self) -> bool {
        matches!(self, Self::Json | Self::Csv | Self::Ndjson)
    }

    fn named(name: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|format| format.extension() == name).ok_or_else(|| {
            let names: Vec<_> = Self::ALL.iter().map(|format| format!("`{}`", format.extension())).collect();
            Error::invalid(format!("expected the format {}, found `{name}`", names.join(", ")))
        })
    }

    /// The first format that an `Accept` header names; JSON when it names none of ours.
    fn accepted(header: Option<&str>) -> Self {
        let media_type = |text: &str| text.split(';').next().unwrap_or_default().trim().to_owned();
        let types = header.unwrap_or_default().split(',').map(media_type);
        let known = |ty: String| Self::ALL.into_iter().find(|format| media_type(format.content_type()) == ty);
        types.filter_map(known).next().unwrap_or(Self::Json)
    }
}

/// Longest that a query may take: Lambda ends a function after 15 minutes.
const MAX_TIMEOUT: Duration = Duration::from_secs(840);

/// A query and what it may take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueryRequest {
    pub sql: String,
    pub database: Option<String>,
    pub format: Format,
    /// Whether the rows are given on as they are found.
    pub stream: bool,
    /// Whether an answer that is too large for one response may be given on so, too.
    pub may_stream: bool,
    /// Rows of the answer at most.
    pub limit: Option<u64>,
    pub max_bytes_scanned: Option<u64>,
    pub timeout: Duration,
    /// The header `idempotency-key`.
    pub idempotency_key: Option<String>,
    /// The header `x-tarn-client`: whom the query takes turns for.
    pub caller: String,
    pub principal: Principal,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Body {
    sql: String,
    database: Option<String>,
    format: Option<Format>,
    limit: Option<u64>,
    max_bytes_scanned: Option<u64>,
    timeout_seconds: Option<f64>,
    stream: Option<bool>,
}

impl QueryRequest {
    /// # Errors
    /// `Invalid` for a body that is neither the documented JSON nor SQL under a text type.
    pub fn from_request(request: &Request) -> Result<Self> {
        let body = match request.header("content-type").and_then(|t| t.split(';').next()).map(str::trim) {
            Some("text/plain" | "application/sql") => plain(request)?,
            _ => request.json::<Body>()?,
        };
        let timeout = match body.timeout_seconds {
            None => MAX_TIMEOUT,
            Some(seconds) => match Duration::try_from_secs_f64(seconds) {
                Ok(timeout) if !timeout.is_zero() && timeout <= MAX_TIMEOUT => timeout,
                _ => {
                    let most = MAX_TIMEOUT.as_secs();
                    let text = format!("expected `timeoutSeconds` above 0 and at most {most}, found `{seconds}`");
                    return Err(Error::invalid(text));
                }
            },
        };
        let format = body.format.unwrap_or_else(|| Format::accepted(request.header("accept")));
        Ok(Self {
            sql: body.sql,
            database: body.database.map(|d| d.to_ascii_lowercase()),
            format,
            stream: body.stream.unwrap_or(format == Format::Frames) && request.streams,
            may_stream: request.streams && body.stream != Some(false),
            limit: body.limit,
            max_bytes_scanned: body.max_bytes_scanned,
            timeout,
            idempotency_key: request.header("idempotency-key").map(str::to_owned),
            caller: request.header("x-tarn-client").unwrap_or_default().to_owned(),
            principal: request.principal.clone(),
        })
    }
}

/// SQL as the body, everything else in the query string.
fn plain(request: &Request) -> Result<Body> {
    let sql = std::str::from_utf8(&request.body)
        .map_err(|e| Error::invalid("expected SQL in UTF-8").with_source(e))?
        .to_owned();
    let parameter = |name: &str| request.query.get(name).map(String::as_str);
    Ok(Body {
        sql,
        database: parameter("database").map(str::to_owned),
        format: parameter("format").map(Format::named).transpose()?,
        limit: value(request, "limit", "a number")?,
        max_bytes_scanned: value(request, "maxBytesScanned", "a number")?,
        timeout_seconds: value(request, "timeoutSeconds", "a number")?,
        stream: value(request, "stream", "`true` or `false`")?,
    })
}

fn value<T: std::str::FromStr>(request: &Request, name: &str, what: &str) -> Result<Option<T>> {
    let parse = |text: &String| {
        text.parse().map_err(|_| Error::invalid(format!("expected {what} in `{name}`, found `{text}`")))
    };
    request.query.get(name).map(parse).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn request(headers: &[(&str, &str)], query: &[(&str, &str)], body: &str) -> Request {
        let map = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
            pairs.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect()
        };
        Request {
            query: map(query),
            headers: map(headers),
            body: body.to_owned().into(),
            ..Request::new("POST", "/query", "")
        }
    }

    #[test]
    fn the_accept_header_chooses_where_the_body_is_silent() {
        let asked =
            |accept: &str, body: &str| QueryRequest::from_request(&request(&[("accept", accept)], &[], body)).unwrap();
        assert_eq!(asked("text/csv;q=0.9, */*", r#"{"sql":"SELECT 1"}"#).format, Format::Csv);
        assert_eq!(asked("*/*", r#"{"sql":"SELECT 1"}"#).format, Format::Json);
        assert_eq!(asked("text/csv", r#"{"sql":"SELECT 1","format":"arrow"}"#).format, Format::Arrow);
        assert_eq!(asked("application/vnd.apache.parquet", r#"{"sql":"SELECT 1"}"#).format, Format::Parquet);
    }

    #[test]
    fn plain_sql_takes_the_rest_from_the_query_string() {
        let request = request(&[("content-type", "text/plain; charset=utf-8")], &[("limit", "5")], "SELECT 1");
        let asked = QueryRequest::from_request(&request).unwrap();
        assert_eq!((asked.sql.as_str(), asked.limit), ("SELECT 1", Some(5)));
    }

    #[test]
    fn unknown_fields_and_impossible_values_are_refused() {
        for body in [
            r#"{"sql":"SELECT 1","formt":"csv"}"#,
            r#"{"sql":"SELECT 1","format":"xml"}"#,
            r#"{"sql":"SELECT 1","timeoutSeconds":-1}"#,
            r#"{"sql":"SELECT 1","timeoutSeconds":841}"#,
            r#"{"sql":"SELECT 1","limit":-1}"#,
            r#"{}"#,
            "SELECT 1",
        ] {
            assert!(QueryRequest::from_request(&request(&[], &[], body)).is_err(), "{body}");
        }
    }
}
