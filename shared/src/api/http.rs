//! HTTP requests and answers, whatever carries them.

use std::collections::BTreeMap;

use bytes::{Bytes, BytesMut};
use futures::TryStreamExt;
use futures::stream::BoxStream;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::{Error, ErrorKind, Principal, Result};

/// A request that a function answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Upper case.
    pub method: String,
    /// Decoded, without the query string, e.g. `/streams/flights/records`.
    pub path: String,
    pub query: BTreeMap<String, String>,
    /// Names in lower case.
    pub headers: BTreeMap<String, String>,
    /// As it came: still compressed when `content-encoding` says so.
    pub body: Bytes,
    pub request_id: String,
    pub principal: Principal,
    /// Whether what carries the answer gives its bytes on as they come, however many: API Gateway and Lambda don't.
    pub streams: bool,
}

impl Request {
    /// A request of the owner without a query string, headers and body.
    pub fn new(method: &str, path: &str, request_id: impl Into<String>) -> Self {
        Self {
            method: method.into(),
            path: path.into(),
            query: BTreeMap::new(),
            headers: BTreeMap::new(),
            body: Bytes::new(),
            request_id: request_id.into(),
            principal: Principal::Owner,
            streams: false,
        }
    }

    /// The path's parts, without empty ones.
    pub fn segments(&self) -> Vec<&str> {
        self.path.split('/').filter(|s| !s.is_empty()).collect()
    }

    /// A header by its lower-case name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    /// How many items the query's `limit` asks for, at most `most`; `default` when it says nothing.
    ///
    /// # Errors
    /// `Invalid` when it is no number from 1 to `most`.
    pub fn limit(&self, default: usize, most: usize) -> Result<usize> {
        let Some(text) = self.query.get("limit") else { return Ok(default) };
        let limit = text.parse().ok().filter(|limit| (1..=most).contains(limit));
        limit.ok_or_else(|| Error::invalid(format!("expected a `limit` from 1 to {most}, found `{text}`")))
    }

    /// The body as text.
    ///
    /// # Errors
    /// `Invalid` for bytes that are not UTF-8.
    pub fn text(&self) -> Result<&str> {
        std::str::from_utf8(&self.body)
            .map_err(|e| Error::invalid("expected a body in UTF-8, found other bytes").with_source(e))
    }

    /// The body as JSON.
    ///
    /// # Errors
    /// `Invalid`, with the place in the body.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T> {
        serde_json::from_slice(&self.body)
            .map_err(|e| Error::invalid(format!("expected a JSON body of the documented shape: {e}")))
    }
}

/// An answer, whole unless its body says otherwise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response<B = Bytes> {
    pub status: u16,
    /// Names in lower case.
    pub headers: BTreeMap<String, String>,
    pub body: B,
}

/// The bytes of an answer.
pub enum Body {
    Whole(Bytes),
    /// As they are made. After an error come no more: the answer is broken off.
    Parts(BoxStream<'static, Result<Bytes>>),
}

impl std::fmt::Debug for Body {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Whole(bytes) => f.debug_tuple("Whole").field(&bytes.len()).finish(),
            Self::Parts(_) => f.debug_tuple("Parts").finish_non_exhaustive(),
        }
    }
}

impl From<Response> for Response<Body> {
    fn from(whole: Response) -> Self {
        Self { status: whole.status, headers: whole.headers, body: Body::Whole(whole.body) }
    }
}

impl Response<Body> {
    /// The answer with all its bytes.
    ///
    /// # Errors
    /// What broke it off.
    pub async fn whole(self) -> Result<Response> {
        let body = match self.body {
            Body::Whole(bytes) => bytes,
            Body::Parts(parts) => {
                let all = parts.try_fold(BytesMut::new(), |mut all, part| async move {
                    all.extend_from_slice(&part);
                    Ok(all)
                });
                all.await?.freeze()
            }
        };
        Ok(Response { status: self.status, headers: self.headers, body })
    }
}

impl<B> Response<B> {
    /// Adds a header; `name` in lower case.
    #[must_use]
    pub fn with_header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.insert(name.into(), value.into());
        self
    }
}

impl Response {
    /// A body of `content_type`.
    pub fn new(status: u16, content_type: &str, body: impl Into<Bytes>) -> Self {
        let headers = BTreeMap::from([("content-type".to_owned(), content_type.to_owned())]);
        Self { status, headers, body: body.into() }
    }

    /// A JSON body.
    ///
    /// # Errors
    /// `Bug` when `value` has no JSON form.
    pub fn json(status: u16, value: &impl Serialize) -> Result<Self> {
        let body = serde_json::to_vec(value).map_err(|e| Error::bug("answer has no JSON form").with_source(e))?;
        Ok(Self::new(status, "application/json", body))
    }

    /// `{"error": {"kind": …, "message": …}}` under the status of the error's kind.
    pub fn error(error: &Error) -> Self {
        let body = json!({"error": {"kind": error.kind().as_str(), "message": error.to_string()}});
        let mut response = Self::new(status_of(error.kind()), "application/json", body.to_string());
        if matches!(error.kind(), ErrorKind::Retry | ErrorKind::OutcomeUnknown) {
            response.headers.insert("retry-after".into(), "1".into());
        }
        response
    }
}

/// The HTTP status of each kind.
pub fn status_of(kind: ErrorKind) -> u16 {
    match kind {
        ErrorKind::Invalid => 400,
        ErrorKind::Denied => 403,
        ErrorKind::NotFound => 404,
        ErrorKind::Conflict => 409,
        ErrorKind::Limit => 413,
        ErrorKind::Retry => 503,
        ErrorKind::OutcomeUnknown => 504,
        ErrorKind::Bug => 500,
    }
}
