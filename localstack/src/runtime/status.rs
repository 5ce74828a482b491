//! What `/health`, `/status` and `/metrics` say.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use jobs::failures;
use serde::Serialize;
use serde_json::{Value, json};
use shared::api::status::{PARTS, PartStatus, Problem, Severity, joined};
use shared::api::{Event, Request, Response};
use shared::ports::Ports;
use shared::project::Project;
use shared::telemetry::metrics;
use shared::{Error, Result};

use super::functions::{Functions, owner_of};

/// With less disk space left nothing much can be written.
const NO_SPACE: u64 = 1 << 30;
/// With less than both it will soon be so.
const LITTLE_SPACE: u64 = 20 << 30;
const LITTLE_SHARE: f64 = 0.05;

/// Where the figures come from.
#[derive(Debug, Clone)]
pub(super) struct Source {
    pub(super) project: Arc<Project>,
    pub(super) ports: Ports,
    /// When the runtime was ready, milliseconds since the epoch.
    pub(super) ready_ms: i64,
    pub(super) data: PathBuf,
    /// What is wrong with an edited lakehouse file.
    pub(super) file_problem: Arc<Mutex<Option<Problem>>>,
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

/// The place of the data directory.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "camelCase")]
struct Disk {
    free_bytes: u64,
    total_bytes: u64,
}

impl Source {
    pub(super) fn health(&self) -> Health {
        Health {
            ready: true,
            pid: std::process::id(),
            uptime_ms: self.ports.clock.now_ms() - self.ready_ms,
            version: env!("CARGO_PKG_VERSION"),
            data: self.data.display().to_string(),
        }
    }

    /// What all functions say, and what only the runtime knows.
    pub(super) async fn status(&self, functions: &Arc<Functions>) -> PartStatus {
        let parts = PARTS.map(|function| async move {
            self.ask(functions, function).await.unwrap_or_else(|error| PartStatus {
                problems: vec![Problem::error("function", function, format!("can't tell how it is: {error}"))],
                ..PartStatus::default()
            })
        });
        let mut whole = joined(futures::future::join_all(parts).await.into_iter().chain([self.own().await]));
        let figures = &mut whole.figures;
        figures.insert("pid".into(), json!(std::process::id()));
        figures.insert("uptimeMs".into(), json!(self.ports.clock.now_ms() - self.ready_ms));
        figures.insert("data".into(), json!(self.data.display().to_string()));
        figures.insert("warehouse".into(), json!(self.ports.keys.root().as_str()));
        whole
    }

    /// `GET /metrics`: what was counted since the start, and what the status says now, for Prometheus.
    pub(super) async fn metrics(&self, functions: &Arc<Functions>) -> Response {
        let status = self.status(functions).await;
        let mut gauges = Vec::new();
        for severity in [Severity::Error, Severity::Warning] {
            let count = status.problems.iter().filter(|problem| problem.severity == severity).count();
            gauges.push(metrics::Gauge::new("problems", &[("severity", severity.as_str())], count as f64));
        }
        for stream in status.figures.get("streams").and_then(Value::as_array).into_iter().flatten() {
            let labels = [("stream", stream["name"].as_str().unwrap_or_default())];
            let figures = [
                ("stream_pending_records", &stream["pendingRecords"]),
                ("stream_pending_bytes", &stream["pendingBytes"]),
                ("stream_lag_milliseconds", &stream["lagMs"]),
                ("stream_error_records", &stream["errors"]["records"]),
            ];
            let figures = figures.into_iter().filter_map(|(name, value)| Some((name, value.as_f64()?)));
            gauges.extend(figures.map(|(name, value)| metrics::Gauge::new(name, &labels, value)));
        }
        if let Some(free) = status.figures.get("disk").and_then(|disk| disk["freeBytes"].as_f64()) {
            gauges.push(metrics::Gauge::new("disk_free_bytes", &[], free));
        }
        Response::new(200, metrics::CONTENT_TYPE, metrics::text(&gauges))
    }

    /// What a function says under its own route.
    async fn ask(&self, functions: &Arc<Functions>, part: &str) -> Result<PartStatus> {
        let function =
            owner_of(&["status", part]).ok_or_else(|| Error::bug(format!("nobody has the status `{part}`")))?;
        let request = Request::new("GET", &format!("/status/{part}"), "status");
        let response = functions.call(function, Event::Http(request)).await?.response()?.whole().await?;
        serde_json::from_slice(&response.body).map_err(|e| {
            let found = String::from_utf8_lossy(&response.body).into_owned();
            Error::bug(format!("expected a status, found `{found}`")).with_source(e)
        })
    }

    pub(super) fn has_file_problem(&self) -> bool {
        self.file_problem.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// The problem keeps the time since when it is one.
    pub(super) fn set_file_problem(&self, problem: Option<Problem>) {
        let mut known = self.file_problem.lock().unwrap_or_else(PoisonError::into_inner);
        let since_ms = known.as_ref().and_then(|known| known.since_ms);
        *known = problem.map(|problem| Problem { since_ms: since_ms.or(problem.since_ms), ..problem });
    }

    /// The disk, the lakehouse file, and the triggers that this process plays.
    async fn own(&self) -> PartStatus {
        let mut part = PartStatus::default();
        part.problems.extend(self.file_problem.lock().unwrap_or_else(PoisonError::into_inner).clone());
        match self.disk() {
            Ok(disk) => {
                part.problems.extend(disk.problem(&self.data.display().to_string()));
                part.figures.insert("disk".into(), serde_json::to_value(disk).unwrap_or(Value::Null));
            }
            Err(error) => {
                let message = format!("can't tell how much space is left: {error}");
                part.problems.push(Problem::warning("disk", &self.data.display().to_string(), message));
            }
        }
        for (subject, function, names, doing) in [
            ("stream", "delivery", self.project.file().streams.keys().collect::<Vec<_>>(), "giving it to the batcher"),
            ("location", "objects", self.project.file().locations.keys().collect(), "looking for new files in it"),
        ] {
            for name in names {
                match failures::load(&self.ports, function, name).await {
                    Ok(failing) => part.problems.extend(failing.map(|failing| failing.problem(subject, name, doing))),
                    Err(error) => part.problems.push(Problem::error(subject, name, format!("{error}"))),
                }
            }
        }
        part
    }

    fn disk(&self) -> Result<Disk> {
        let found = rustix::fs::statvfs(&self.data).map_err(std::io::Error::from)?;
        Ok(Disk { free_bytes: found.f_bavail * found.f_frsize, total_bytes: found.f_blocks * found.f_frsize })
    }
}

impl Disk {
    fn problem(self, data: &str) -> Option<Problem> {
        let share = self.free_bytes as f64 / self.total_bytes.max(1) as f64;
        let left = format!("{:.1} GiB of {:.1} are free", gibibytes(self.free_bytes), gibibytes(self.total_bytes));
        let problem = match self.free_bytes {
            free if free < NO_SPACE => Problem::error("disk", data, left),
            free if free < LITTLE_SPACE && share < LITTLE_SHARE => Problem::warning("disk", data, left),
            _ => return None,
        };
        Some(problem.advise("make room, or move the data directory to a larger disk while nothing runs on it"))
    }
}

fn gibibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 30)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_is_a_problem_when_little_is_left() {
        let severity = |free_bytes: u64, total_bytes: u64| {
            Disk { free_bytes: free_bytes << 30, total_bytes: total_bytes << 30 }.problem("d").map(|p| p.severity)
        };
        assert_eq!(severity(0, 10), Some(Severity::Error));
        assert_eq!(severity(2, 100), Some(Severity::Warning));
        assert_eq!(severity(2, 10), None, "a small disk that is not full");
        assert_eq!(severity(30, 1_000), None, "a large disk");
    }
}
