//! What `/health` and `/status` say.

use std::sync::Arc;

use jobs::schedule;
use serde::Serialize;
use serde_json::Value;
use shared::api::{Event, Request};
use shared::model::{Positions, ShardId};
use shared::ports::Ports;
use shared::project::Project;
use shared::stream::{MAX_READ_RECORDS, ReadFrom};
use shared::{ErrorKind, Result};
use table::Tables;

use super::functions::{Function, Functions};
use super::{objects, triggers};

/// Where the figures come from.
#[derive(Debug, Clone)]
pub(super) struct Source {
    pub(super) project: Arc<Project>,
    pub(super) ports: Ports,
    /// When the runtime was ready, milliseconds since the epoch.
    pub(super) ready_ms: i64,
    pub(super) data: String,
}

/// `GET /health`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Health {
    ready: bool,
    pid: u32,
    uptime_ms: i64,
    version: &'static str,
    data: String,
}

/// `GET /status`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Status {
    pid: u32,
    uptime_ms: i64,
    data: String,
    warehouse: String,
    streams: Vec<StreamStatus>,
    locations: Vec<LocationStatus>,
    schedules: Vec<ScheduleStatus>,
    /// The crawler's last report of each location.
    crawls: Value,
    /// The newest runs of each workflow.
    runs: Value,
}

/// A stream: what it holds that its table does not have yet.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct StreamStatus {
    name: String,
    table: String,
    /// Records that are not in the table yet, counted up to 10,000 a shard.
    pending_records: usize,
    /// Bytes of their data.
    pending_bytes: usize,
    /// Whether a shard has more than was counted.
    more: bool,
    /// Age of the oldest of them, milliseconds; 0 without any.
    lag_ms: i64,
    shards: Vec<ShardStatus>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ShardStatus {
    shard: ShardId,
    /// Sequence number of the last record given to the batcher.
    delivered: String,
    /// Sequence number of the last record in the table (or among its errors).
    committed: String,
}

/// A location that is crawled when an object lands.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct LocationStatus {
    name: String,
    /// Objects that the crawler was told of and has taken.
    objects: usize,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ScheduleStatus {
    function: &'static str,
    name: String,
    next_ms: Option<i64>,
}

impl Source {
    pub(super) fn health(&self) -> Health {
        Health {
            ready: true,
            pid: std::process::id(),
            uptime_ms: self.ports.clock.now_ms() - self.ready_ms,
            version: env!("CARGO_PKG_VERSION"),
            data: self.data.clone(),
        }
    }

    pub(super) async fn status(&self, functions: &Arc<Functions>) -> Result<Status> {
        let mut streams = Vec::new();
        for name in self.project.file().streams.keys() {
            streams.push(self.stream(name).await?);
        }
        let mut locations = Vec::new();
        for name in self.project.file().locations.keys() {
            locations.push(LocationStatus { name: name.clone(), objects: objects::told(&self.ports, name).await? });
        }
        let mut schedules = Vec::new();
        for entry in schedule::entries(&self.project) {
            let next_ms = entry.due(&self.ports).await?.map(|due| due.next_ms);
            schedules.push(ScheduleStatus { function: entry.kind.function(), name: entry.name, next_ms });
        }
        let mut runs = serde_json::Map::new();
        for name in self.project.file().workflows.keys() {
            runs.insert(
                name.clone(),
                self.ask(functions, Function::Transform, &format!("/workflows/{name}/runs")).await?,
            );
        }
        Ok(Status {
            pid: std::process::id(),
            uptime_ms: self.ports.clock.now_ms() - self.ready_ms,
            data: self.data.clone(),
            warehouse: self.ports.keys.root().to_string(),
            streams,
            locations,
            schedules,
            crawls: self.ask(functions, Function::Crawl, "/crawls").await?,
            runs: Value::Object(runs),
        })
    }

    /// What a function says under one of its own GET routes.
    async fn ask(&self, functions: &Arc<Functions>, function: Function, path: &str) -> Result<Value> {
        let request = Request::new("GET", path, "status");
        let response = functions.call(function, Event::Http(request)).await?.response()?.whole().await?;
        Ok(serde_json::from_slice(&response.body).unwrap_or(Value::Null))
    }

    async fn stream(&self, name: &str) -> Result<StreamStatus> {
        let table = self.project.stream_table(name)?;
        let committed = self.committed(name).await?;
        let mut status = StreamStatus {
            name: name.into(),
            table: table.to_string(),
            pending_records: 0,
            pending_bytes: 0,
            more: false,
            lag_ms: 0,
            shards: Vec::new(),
        };
        for shard in self.ports.stream.shards(name).await? {
            let at = committed.of(&shard.id);
            let from = if committed.0.contains_key(&shard.id) { ReadFrom::After(at.clone()) } else { ReadFrom::Oldest };
            let batch = self.ports.stream.read(name, &shard.id, from, MAX_READ_RECORDS).await?;
            status.pending_records += batch.records.len();
            status.pending_bytes += batch.records.iter().map(|r| r.data.len()).sum::<usize>();
            status.more |= batch.behind_ms > 0;
            if let Some(oldest) = batch.records.first() {
                status.lag_ms = status.lag_ms.max(self.ports.clock.now_ms() - oldest.arrival_ms);
            }
            let delivered = triggers::delivered(&self.ports, name, &shard.id).await?;
            status.shards.push(ShardStatus {
                shard: shard.id,
                delivered: delivered.to_string(),
                committed: at.to_string(),
            });
        }
        Ok(status)
    }

    /// The position that the stream's table holds; none before its first commit.
    async fn committed(&self, name: &str) -> Result<Positions> {
        let table = self.project.stream_table(name)?;
        let table = match Tables::new(self.ports.clone()).load(&table).await {
            Ok(table) => table,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Positions::default()),
            Err(error) => return Err(error),
        };
        let Some(token) = table.token(&format!("stream.{name}")) else { return Ok(Positions::default()) };
        serde_json::from_str(&token).map_err(|e| {
            shared::Error::bug(format!("table `{}`: expected stream positions as token", table.name())).with_source(e)
        })
    }
}
