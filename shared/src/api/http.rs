//! HTTP requests and answers, apart from the wire type that carries them.

use std::collections::BTreeMap;

use aws_lambda_events::apigw::{ApiGatewayV2httpRequest, ApiGatewayV2httpResponse};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::{Error, ErrorKind, Result};

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
}

impl Request {
    /// The path's parts, without empty ones.
    pub fn segments(&self) -> Vec<&str> {
        self.path.split('/').filter(|s| !s.is_empty()).collect()
    }

    /// A header by its lower-case name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
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

impl TryFrom<ApiGatewayV2httpRequest> for Request {
    type Error = Error;

    fn try_from(event: ApiGatewayV2httpRequest) -> Result<Self> {
        let body = match event.body {
            Some(text) if event.is_base64_encoded => STANDARD
                .decode(text)
                .map_err(|e| Error::invalid("expected a base64 body as the event says").with_source(e))?
                .into(),
            Some(text) => text.into(),
            None => Bytes::new(),
        };
        let headers = event
            .headers
            .iter()
            .map(|(name, value)| (name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
            .collect();
        let query = event.query_string_parameters.iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
        Ok(Self {
            method: event.request_context.http.method.to_string(),
            path: event.raw_path.unwrap_or_else(|| "/".into()),
            query,
            headers,
            body,
            request_id: event.request_context.request_id.unwrap_or_default(),
        })
    }
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    pub status: u16,
    pub headers: BTreeMap<String, String>,
    pub body: Bytes,
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

    /// Adds a header; `name` in lower case.
    #[must_use]
    pub fn with_header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.insert(name.into(), value.into());
        self
    }

    /// The event that Lambda gives back to API Gateway: text as it is, other bytes in base64.
    ///
    /// # Errors
    /// `Bug` when a header is none.
    pub fn into_value(self) -> Result<Value> {
        let (body, is_base64_encoded) = match String::from_utf8(self.body.into()) {
            Ok(text) => (text, false),
            Err(binary) => (STANDARD.encode(binary.as_bytes()), true),
        };
        Ok(json!({
            "statusCode": self.status,
            "headers": self.headers,
            "body": body,
            "isBase64Encoded": is_base64_encoded,
            "cookies": [],
        }))
    }

    /// Reads what [`Response::into_value`] wrote.
    ///
    /// # Errors
    /// `Bug` when a function answered something else.
    pub fn from_value(value: Value) -> Result<Self> {
        let wire: ApiGatewayV2httpResponse = serde_json::from_value(value)
            .map_err(|e| Error::bug("expected an HTTP answer from the function").with_source(e))?;
        let headers = wire
            .headers
            .iter()
            .map(|(name, value)| (name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
            .collect();
        let body: Bytes = match wire.body {
            Some(aws_lambda_events::encodings::Body::Text(text)) if wire.is_base64_encoded => STANDARD
                .decode(text)
                .map_err(|e| Error::bug("expected a base64 body from the function").with_source(e))?
                .into(),
            Some(aws_lambda_events::encodings::Body::Text(text)) => text.into(),
            Some(aws_lambda_events::encodings::Body::Binary(bytes)) => bytes.into(),
            _ => Bytes::new(),
        };
        Ok(Self { status: u16::try_from(wire.status_code).unwrap_or(500), headers, body })
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
