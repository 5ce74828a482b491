//! The function `batcher`: streams into Iceberg tables.
//!
//! A Kinesis event says that a shard has new records; they are counted ([`pending`](mod@pending)). When the size or the age
//! that the stream declares is reached, at an event or at a schedule's tick, the stream is read from the positions that its
//! table holds and written ([`flush`](mod@flush)). Because the table's positions decide what is written, an event that comes twice
//! changes nothing.
//!
//! [`Batcher`] does so, and a [`Report`] says what was written. A record that does not fit goes to an error object; an error leaves the
//! stream as it was, to be tried again.

mod decode;
mod errors;
mod event;
mod flush;
mod pending;
mod plan;
mod rename;
mod round;
mod status;

use std::collections::BTreeMap;
use std::sync::Arc;

use format::records::RecordSchema;
use serde_json::{Value, json};
use shared::api::{Event, Reply, Request, Response};
use shared::model::ShardId;
use shared::ports::Ports;
use shared::project::Project;
use shared::telemetry::metrics::{self, Metric};
use shared::{Error, Result, deadline};
use table::Tables;
use tracing::Instrument;

use self::event::{Refused, Tick, arrivals};
use self::flush::Flush;
use self::pending::Arrival;

pub use self::flush::Report;

/// Writes the streams of a lakehouse to their tables.
#[derive(Debug, Clone)]
pub struct Batcher {
    project: Arc<Project>,
    ports: Ports,
    tables: Tables,
    schemas: BTreeMap<String, Arc<RecordSchema>>,
}

impl Batcher {
    /// # Errors
    /// `Invalid` when a stream's schema can't be filled from JSON.
    pub fn new(project: Arc<Project>, ports: Ports) -> Result<Self> {
        let mut schemas = BTreeMap::new();
        for (name, declaration) in &project.file().streams {
            let schema = RecordSchema::new(&declaration.schema).map_err(|e| e.context(format!("stream `{name}`")))?;
            schemas.insert(name.clone(), Arc::new(schema));
        }
        Ok(Self { project, tables: Tables::new(ports.clone()), ports, schemas })
    }

    /// Takes a Kinesis event, a schedule's tick, or one of the HTTP requests `POST /streams/{name}/flush` and `GET /status/batcher`.
    ///
    /// A Kinesis event is answered with `{"batchItemFailures": [{"itemIdentifier": …}], "flushed": [Report]}`: of each shard that
    /// could not be taken the first record, from which Lambda sends it again, and each record that can't be read. A tick (`detail`: `{"name": stream, "flush": bool}`,
    /// both may be missing) is answered with `{"flushed": [Report]}`. So is a request, whose errors are in its answer.
    ///
    /// # Errors
    /// `Invalid` for another event and one of which no record can be read; `NotFound` for a stream that the lakehouse file lacks; a
    /// tick's failure, after all streams had their turn.
    pub async fn handle(&self, event: Event) -> Result<Reply> {
        match event {
            Event::Kinesis(records) => self.take(&records).await.map(Reply::from),
            Event::Schedule(event) => self.tick(Tick::parse(event.detail)?).await.map(Reply::from),
            Event::Http(request) => Ok(self.respond(&request).await.unwrap_or_else(|e| Response::error(&e)).into()),
            other => Err(other.unserved("batcher", "a Kinesis event, a schedule or `POST /streams/{name}/flush`")),
        }
    }

    async fn respond(&self, request: &Request) -> Result<Response> {
        match (request.method.as_str(), request.segments().as_slice()) {
            ("POST", ["streams", name, "flush"]) => {
                let report = self.flush(name).await.map_err(|e| e.context(format!("flushing stream `{name}`")))?;
                Response::json(200, &json!({"flushed": [report]}))
            }
            ("POST", ["plan"]) => {
                let text = std::str::from_utf8(&request.body).map_err(|e| {
                    Error::invalid("expected a lakehouse file in UTF-8, found other bytes").with_source(e)
                })?;
                let next = Project::parse(text, "the new lakehouse file")?;
                Response::json(200, &json!({"changes": self.plan(&next).await?}))
            }
            ("GET", ["streams", name, "errors"]) => {
                Response::json(200, &json!({"stream": name, "errors": self.show_errors(name, request).await?}))
            }
            ("POST", ["streams", name, "errors", "replay"]) => {
                let wanted = if request.body.is_empty() { errors::Wanted::default() } else { request.json()? };
                let replayed = self.replay_errors(name, wanted).await;
                Response::json(
                    200,
                    &replayed.map_err(|e| e.context(format!("replaying the errors of stream `{name}`")))?,
                )
            }
            ("POST", ["streams", name, "errors", "discard"]) => {
                let unwanted = if request.body.is_empty() { errors::Unwanted::default() } else { request.json()? };
                let discarded = self.discard_errors(name, unwanted).await;
                Response::json(
                    200,
                    &discarded.map_err(|e| e.context(format!("discarding the errors of stream `{name}`")))?,
                )
            }
            ("GET", ["status", "batcher"]) => self.status().await?.response(),
            (method, _) => Err(Error::not_found(format!(
                "expected `POST /streams/{{name}}/flush`, `GET /streams/{{name}}/errors`, \
                 `POST /streams/{{name}}/errors/replay`, `POST /streams/{{name}}/errors/discard`, `POST /plan` or `GET /status/batcher`, found `{method} {}`",
                request.path
            ))),
        }
    }

    async fn take(&self, records: &[Value]) -> Result<Value> {
        let (mut failures, mut flushed) = (Vec::new(), Vec::new());
        let declared = |name: &str| self.ports.stream.declared(name).map(str::to_owned);
        let (arrivals, refused) = arrivals(records, &self.project, &declared);
        let nothing_read = arrivals.is_empty();
        for Refused { sequence, error } in refused {
            if nothing_read {
                return Err(error);
            }
            tracing::error!(sequence, %error, "a record could not be counted");
            failures.push(json!({"itemIdentifier": sequence}));
        }
        for (stream, shards) in arrivals {
            let names: Vec<&str> = shards.keys().map(|shard| shard.0.as_str()).collect();
            let span = tracing::info_span!("stream", stream, shard = names.join(","));
            match self.take_shards(&stream, &shards).instrument(span).await {
                Ok(report) => flushed.extend(report),
                Err(error) => {
                    tracing::error!(stream, %error, "the stream could not be taken");
                    let first = shards.values().filter_map(|arrivals| arrivals.first());
                    failures.extend(first.map(|a| json!({"itemIdentifier": a.sequence})));
                }
            }
        }
        Ok(json!({"batchItemFailures": failures, "flushed": flushed}))
    }

    async fn take_shards(&self, stream: &str, shards: &BTreeMap<ShardId, Vec<Arrival>>) -> Result<Option<Report>> {
        let count = |pending: &mut pending::Pending| {
            let before = pending.clone();
            shards.iter().for_each(|(shard, arrivals)| pending.count(shard, arrivals));
            *pending != before
        };
        let pending = pending::update(&self.ports, stream, count).await?;
        self.flush_if_due(stream, &pending).await
    }

    async fn tick(&self, tick: Tick) -> Result<Value> {
        let streams: Vec<&str> = match &tick.name {
            Some(name) => {
                self.project.stream(name)?;
                vec![name]
            }
            None => self.schemas.keys().map(String::as_str).collect(),
        };
        let (mut flushed, mut failure) = (Vec::new(), None);
        for (at, stream) in streams.into_iter().enumerate() {
            if at > 0 && deadline::is_near(self.ports.clock.as_ref()) {
                tracing::warn!(stream, "time is up: the next tick looks at the rest");
                break;
            }
            let span = tracing::info_span!("stream", stream);
            match self.tick_stream(stream, tick.flush).instrument(span).await {
                Ok(report) => flushed.extend(report),
                Err(error) => {
                    tracing::error!(stream, %error, "the stream could not be written");
                    failure.get_or_insert(error.context(format!("flushing stream `{stream}`")));
                }
            }
        }
        match failure {
            Some(error) => Err(error),
            None => Ok(json!({"flushed": flushed})),
        }
    }

    async fn tick_stream(&self, stream: &str, flush: bool) -> Result<Option<Report>> {
        if flush {
            return self.flush(stream).await.map(Some);
        }
        let pending = pending::load(self.ports.state.as_ref(), stream).await?;
        self.flush_if_due(stream, &pending).await
    }

    async fn flush_if_due(&self, stream: &str, pending: &pending::Pending) -> Result<Option<Report>> {
        let buffer = &self.project.stream(stream)?.buffer;
        let now_ms = self.ports.clock.now_ms();
        let lag_ms = pending.oldest_ms().map_or(0, |oldest_ms| now_ms - oldest_ms);
        let flushed = match pending.due(buffer, now_ms) {
            Some(due) => {
                tracing::debug!(stream, ?due, "the stream is due");
                self.flush(stream).await.map(Some)
            }
            None => Ok(None),
        };
        let all_written = matches!(&flushed, Ok(Some(report)) if !report.unfinished);
        let lag_ms = if all_written { 0 } else { lag_ms };
        metrics::emit(&[("stream", stream)], &[Metric::milliseconds("LagMilliseconds", lag_ms)]);
        flushed
    }

    /// Writes everything that has arrived in `stream`.
    ///
    /// # Errors
    /// `NotFound` for an unknown stream; `Retry`, `OutcomeUnknown` and the errors of the ports: nothing is lost or doubled then.
    pub async fn flush(&self, stream: &str) -> Result<Report> {
        let schema = self.schemas.get(stream).ok_or_else(|| Error::not_found(format!("no stream `{stream}`")))?;
        let flush = Flush {
            ports: &self.ports,
            tables: &self.tables,
            name: stream,
            declaration: self.project.stream(stream)?,
            table: self.project.stream_table(stream)?,
            schema: schema.clone(),
        };
        let outcome = flush.run().await;
        jobs::failures::note(&self.ports, "batcher", stream, &outcome).await;
        outcome
    }
}

#[cfg(test)]
mod tests;
