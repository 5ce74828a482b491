//! The function `query`: SQL over all tables of the catalog, by HTTP: statements that read, and those that write Iceberg tables.
//!
//! `POST /query` takes `{"sql": …, "database"?: …, "format"?: "json" | "csv" | "ndjson" | "arrow" | "parquet" | "frames", "limit"?: rows,
//! "maxBytesScanned"?: bytes, "timeoutSeconds"?: seconds, "stream"?: bool}`, or the SQL itself as `text/plain` or `application/sql` with the rest
//! in the query string. The `Accept` header chooses a format where the request names none. Under one `idempotency-key` a statement
//! changes a table once, however often it is sent.
//!
//! With `"stream": true` the rows come as they are found, however many, where the server gives them on so: `tarn up` does, API Gateway
//! does not. What goes wrong on the way is the member `error` at the end of a JSON answer, a frame of its own ([`frames`]), and breaks
//! off any other.
//!
//! Every other answer has the headers `x-tarn-query-id`, `x-tarn-rows`, `x-tarn-bytes-scanned` and `x-tarn-elapsed-ms`. An answer
//! that is too large for one response is given on as it is found where the server can, or stored below the warehouse's `results/`
//! ([`answer`]). How values are written: [`encode`]; rows: [`encoder`]. [`Query`] answers; errors are the engine's.

pub mod answer;
pub mod encode;
pub mod encoder;
pub mod event;
pub mod frames;

use std::sync::Arc;

use engine::{Engine, QueryOptions};
use shared::api::{Body, Event, Reply, Request, Response};
use shared::ports::Ports;
use shared::project::Project;
use shared::{Error, Result};

use crate::answer::Delivery;
use crate::event::{Format, QueryRequest};

/// Answers queries.
#[derive(Debug, Clone)]
pub struct Query {
    project: Arc<Project>,
    ports: Ports,
    engine: Engine,
}

impl Query {
    /// # Errors
    /// None today; the signature is that of every function.
    pub fn new(project: Arc<Project>, ports: Ports, engine: Engine) -> Result<Self> {
        Ok(Self { project, ports, engine })
    }

    /// Answers a request. Errors of the query become its response.
    ///
    /// # Errors
    /// `Invalid` for an event that is no HTTP request.
    pub async fn handle(&self, event: Event) -> Result<Reply> {
        let request = match event {
            Event::Http(request) => request,
            other => return Err(other.unserved("query", "`POST /query`")),
        };
        let id = self.ports.random.uuid_at(self.ports.clock.now_ms()).to_string();
        let response = self.respond(&request, &id).await.unwrap_or_else(|error| {
            // The message may quote a row: that is for who asked.
            tracing::info!(query = %id, kind = %error.kind(), "query failed");
            tracing::debug!(query = %id, %error, "the failure");
            Response::error(&error).into()
        });
        Ok(response.with_header("x-tarn-query-id", id).into())
    }

    async fn respond(&self, request: &Request, id: &str) -> Result<Response<Body>> {
        match (request.method.as_str(), request.segments().as_slice()) {
            ("POST", ["query"]) => self.query(QueryRequest::from_request(request)?, id).await,
            (method, ["query"]) => Err(Error::invalid(format!("expected `POST /query`, found `{method} /query`"))),
            _ => Err(Error::not_found(format!("expected `POST /query`, found `{} {}`", request.method, request.path))),
        }
    }

    async fn query(&self, asked: QueryRequest, id: &str) -> Result<Response<Body>> {
        let options = QueryOptions {
            databases: Some(self.project.databases().clone()),
            database: asked.database.unwrap_or_else(|| self.project.database().to_owned()),
            max_bytes_scanned: asked.max_bytes_scanned,
            timeout: Some(asked.timeout),
            idempotency_key: asked.idempotency_key,
            caller: asked.caller,
            // Not every reader of Arrow knows them.
            views: !matches!(asked.format, Format::Arrow | Format::Parquet | Format::Frames),
            ..QueryOptions::new(asked.principal)
        };
        let answer = self.engine.execute(&asked.sql, &options).await?;
        let (storage, keys) = (&self.ports.storage, &self.ports.keys);
        let delivery = Delivery { storage, keys, id, format: asked.format, may_stream: asked.may_stream };
        match asked.stream {
            true => delivery.stream(answer, asked.limit).await,
            false => delivery.deliver(answer, asked.limit).await,
        }
    }
}

#[cfg(test)]
mod tests;
