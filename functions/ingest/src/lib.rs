//! The intake of the lakehouse: records into streams, files into the raw zone, over HTTP.
//!
//! ```text
//! POST /streams/{name}/records      NDJSON, a JSON array or CSV with a header line; content-encoding gzip
//! PUT  /files/{location}/{path…}    the bytes as they come
//! POST /uploads/{location}/{path…}  an address on S3 for a file that is larger than a request may be
//! GET  /streams                     what is declared
//! GET  /status/ingest               what was refused lately
//! ```
//!
//! [`Ingest`] answers them. A request of records is taken in [`records`] (its key, its metrics). Its body goes through [`body`] (decompress, bounded), [`split`] (cut into records, without copying), [`check`]
//! (against the stream's schema) and [`put`] (into the stream); [`answer`] says of each record what became of it. A record that is
//! wrong is told so there; an error is of the request as a whole.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicI64;

use format::records::RecordSchema;
use shared::api::{Event, Reply, Request, Response};
use shared::error::Context;
use shared::ports::Ports;
use shared::project::{Project, StreamDeclaration};
use shared::{Error, Result};
use tokio::sync::{OnceCell, Semaphore};

mod answer;
mod body;
mod check;
mod files;
mod idempotency;
mod kept;
mod put;
mod records;
mod refusals;
mod rename;
mod split;
mod streams;

pub use self::split::as_sent;

/// Bytes of one request's body at most, as it comes (API Gateway's limit for Lambda).
pub const MAX_BODY_BYTES: usize = 6 << 20;
/// Bytes of one request's body at most, decompressed.
pub const MAX_DECODED_BYTES: usize = 64 << 20;
/// Records of one request at most.
pub const MAX_RECORDS: usize = 10_000;

/// Mebibytes of decoded bodies that may be in work at once; requests past it are told to come again.
const MEBIBYTES_IN_WORK: usize = 512;

/// The function.
#[derive(Debug)]
pub struct Ingest {
    project: Arc<Project>,
    ports: Ports,
    intakes: BTreeMap<String, Arc<Intake>>,
    in_work: Semaphore,
    /// When old idempotency keys were last removed, milliseconds since the epoch.
    forgot_ms: AtomicI64,
    refused: refusals::Gathered,
}

/// What a stream's records are checked against.
#[derive(Debug)]
struct Intake {
    stream: String,
    declaration: StreamDeclaration,
    schema: RecordSchema,
    /// Set once the stream is known to exist.
    made: OnceCell<()>,
}

impl Ingest {
    /// The function for one lakehouse.
    ///
    /// # Errors
    /// `Invalid` when a stream's schema can't be checked.
    pub fn new(project: Arc<Project>, ports: Ports) -> Result<Self> {
        let intakes = project.file().streams.iter().map(|(name, declaration)| {
            let schema = RecordSchema::new(&declaration.schema).context(|| format!("stream `{name}`"))?;
            Ok((
                name.clone(),
                Arc::new(Intake {
                    stream: name.clone(),
                    declaration: declaration.clone(),
                    schema,
                    made: OnceCell::new(),
                }),
            ))
        });
        let intakes = intakes.collect::<Result<_>>()?;
        Ok(Self {
            project,
            ports,
            intakes,
            in_work: Semaphore::new(MEBIBYTES_IN_WORK),
            forgot_ms: AtomicI64::new(0),
            refused: refusals::Gathered::default(),
        })
    }

    /// Answers a request. What is wrong with it is in the answer.
    ///
    /// # Errors
    /// `Invalid` for an event that is no HTTP request.
    pub async fn handle(&self, event: Event) -> Result<Reply> {
        let request = match event {
            Event::Http(request) => request,
            other => return Err(other.unserved("ingest", "an HTTP request")),
        };
        let response = self.answer(&request).await.unwrap_or_else(|error| {
            // What was found may be a record's content: that is for its sender.
            tracing::info!(method = request.method, path = request.path, kind = %error.kind(), "request refused");
            tracing::debug!(%error, "the refusal");
            Response::error(&error)
        });
        Ok(response.into())
    }

    async fn answer(&self, request: &Request) -> Result<Response> {
        match (request.method.as_str(), request.segments().as_slice()) {
            ("POST", ["streams", name, "records"]) => self.records(name, request).await,
            ("PUT", ["files", location, _, ..]) => self.file(location, request).await,
            ("POST", ["uploads", location, _, ..]) => self.upload(location, request).await,
            ("GET", ["streams"]) => self.streams(),
            ("GET", ["status", "ingest"]) => self.status().await?.response(),
            (method, _) => Err(Error::not_found(format!(
                "expected `POST /streams/{{name}}/records`, `PUT /files/{{location}}/{{path}}`, \
                 `POST /uploads/{{location}}/{{path}}`, `GET /streams` or `GET /status/ingest`, found `{method} {}`",
                request.path
            ))),
        }
    }

    fn intake(&self, stream: &str) -> Result<Arc<Intake>> {
        self.project.stream(stream)?;
        self.intakes.get(stream).cloned().ok_or_else(|| Error::bug(format!("stream `{stream}` has no schema")))
    }
}

#[cfg(test)]
mod tests;
