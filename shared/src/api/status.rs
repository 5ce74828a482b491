//! What a function says of its part of the lakehouse: what is wrong first, then the figures behind it.
//!
//! A function answers `GET /status/{function}` with [`PartStatus`]; [`joined`] puts the parts of several together.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::Response;
use crate::{Error, Result};

/// The functions that have a status.
pub const PARTS: [&str; 5] = ["ingest", "batcher", "crawl", "transform", "insight"];

/// Something that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Problem {
    pub severity: Severity,
    /// What it is about: `stream`, `location`, `workflow`, `insight`, `table`, `disk`, `file`, `function`.
    pub subject: String,
    /// Its name in the lakehouse file or the catalog.
    pub name: String,
    /// What is wrong, and why.
    pub message: String,
    /// Milliseconds since the epoch.
    #[serde(default)]
    pub since_ms: Option<i64>,
    /// What to do about it.
    #[serde(default)]
    pub advice: Option<String>,
}

/// How grave a [`Problem`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Work is not done: data is late, missing or about to be lost.
    Error,
    /// Work is done, and something should be looked at.
    Warning,
}

impl Severity {
    /// The name in answers.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
        }
    }
}

impl Problem {
    pub fn error(subject: &str, name: &str, message: impl Into<String>) -> Self {
        Self::new(Severity::Error, subject, name, message.into())
    }

    pub fn warning(subject: &str, name: &str, message: impl Into<String>) -> Self {
        Self::new(Severity::Warning, subject, name, message.into())
    }

    fn new(severity: Severity, subject: &str, name: &str, message: String) -> Self {
        Self { severity, subject: subject.into(), name: name.into(), message, since_ms: None, advice: None }
    }

    /// The same since a time, milliseconds since the epoch.
    #[must_use]
    pub fn since(self, since_ms: i64) -> Self {
        Self { since_ms: Some(since_ms), ..self }
    }

    /// The same with what to do about it.
    #[must_use]
    pub fn advise(self, advice: impl Into<String>) -> Self {
        Self { advice: Some(advice.into()), ..self }
    }
}

/// What one function says.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct PartStatus {
    pub problems: Vec<Problem>,
    /// Lists by name, e.g. `streams`.
    #[serde(flatten)]
    pub figures: Map<String, Value>,
}

impl PartStatus {
    /// Adds the list `name`.
    ///
    /// # Errors
    /// `Bug` when it has no JSON form.
    pub fn list<T: Serialize>(&mut self, name: &str, items: &[T]) -> Result<()> {
        let list = serde_json::to_value(items).map_err(|e| Error::bug("a status has no JSON form").with_source(e))?;
        self.figures.insert(name.into(), list);
        Ok(())
    }

    /// The answer over HTTP.
    ///
    /// # Errors
    /// As [`Response::json`].
    pub fn response(&self) -> Result<Response> {
        Response::json(200, self)
    }
}

/// A time in words, as exact as it matters: `850ms`, `45s`, `12m`, `3h 10m`, `2d 4h`.
pub fn lasting(ms: i64) -> String {
    let seconds = ms / 1_000;
    let (minutes, hours, days) = (seconds / 60, seconds / 3_600, seconds / 86_400);
    match () {
        () if seconds < 1 => format!("{ms}ms"),
        () if minutes < 2 => format!("{seconds}s"),
        () if hours < 2 => format!("{minutes}m"),
        () if days < 2 => format!("{hours}h {}m", minutes % 60),
        () => format!("{days}d {}h", hours % 24),
    }
}

/// `1 record`, `2 records`.
pub fn counted(count: u64, one: &str) -> String {
    if count == 1 { format!("1 {one}") } else { format!("{count} {one}s") }
}

/// The parts together: the problems of all, the gravest and then the oldest first; lists of one name one after the other.
pub fn joined(parts: impl IntoIterator<Item = PartStatus>) -> PartStatus {
    let mut whole = PartStatus::default();
    for part in parts {
        whole.problems.extend(part.problems);
        for (name, value) in part.figures {
            match (whole.figures.get_mut(&name), value) {
                (Some(Value::Array(list)), Value::Array(more)) => list.extend(more),
                (_, value) => drop(whole.figures.insert(name, value)),
            }
        }
    }
    whole.problems.sort_by_key(|problem| (problem.severity, problem.since_ms.unwrap_or(i64::MAX)));
    whole
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_gravest_and_then_the_oldest_problem_comes_first() {
        let mut first = PartStatus {
            problems: vec![
                Problem::warning("location", "w", "w").since(1),
                Problem::error("stream", "b", "b").since(9),
            ],
            ..PartStatus::default()
        };
        first.list("schedules", &["a"]).unwrap();
        let mut second = PartStatus {
            problems: vec![Problem::error("stream", "c", "c"), Problem::error("stream", "a", "a").since(5)],
            ..PartStatus::default()
        };
        second.list("schedules", &["b"]).unwrap();
        let whole = joined([first, second]);
        assert_eq!(whole.problems.iter().map(|p| p.name.as_str()).collect::<Vec<_>>(), ["a", "b", "c", "w"]);
        assert_eq!(whole.figures["schedules"], json!(["a", "b"]));
    }

    #[test]
    fn a_time_is_told_as_exactly_as_it_matters() {
        let told: Vec<_> = [0, 999, 45_000, 119_000, 120_000, 7_100_000, 11_460_000, 187_200_000].map(lasting).into();
        assert_eq!(told, ["0ms", "999ms", "45s", "119s", "2m", "118m", "3h 11m", "2d 4h"]);
    }

    #[test]
    fn a_part_comes_back_as_it_was_sent() {
        let mut part = PartStatus {
            problems: vec![Problem::error("disk", "d", "full").since(3).advise("make room")],
            ..PartStatus::default()
        };
        part.list("streams", &[json!({"name": "a"})]).unwrap();
        let response = part.response().unwrap();
        assert_eq!(serde_json::from_slice::<PartStatus>(&response.body).unwrap(), part);
    }
}
