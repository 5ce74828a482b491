//! Metrics in CloudWatch's embedded metric format: JSON lines on standard output, from which CloudWatch Logs makes metrics.
//!
//! Nothing is written unless `TARN_METRICS_NAMESPACE` says under which namespace. Names and units: `docs/telemetry.md`.
//! The format: <https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html>.

use std::io::Write;
use std::sync::OnceLock;

use serde_json::{Value, json};

use crate::clock::{Clock, SystemClock};
use crate::config::Lookup;
use crate::{Error, Result};

/// Metrics of one document at most.
const MAX_METRICS: usize = 100;

static NAMESPACE: OnceLock<String> = OnceLock::new();

/// What a value counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unit {
    Count,
    Bytes,
    Milliseconds,
}

impl Unit {
    /// CloudWatch's name.
    fn as_str(self) -> &'static str {
        match self {
            Self::Count => "Count",
            Self::Bytes => "Bytes",
            Self::Milliseconds => "Milliseconds",
        }
    }
}

/// A value of a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Metric {
    name: &'static str,
    unit: Unit,
    value: u64,
}

impl Metric {
    pub fn count(name: &'static str, value: u64) -> Self {
        Self { name, unit: Unit::Count, value }
    }

    pub fn bytes(name: &'static str, value: u64) -> Self {
        Self { name, unit: Unit::Bytes, value }
    }

    /// A negative time is 0: clocks of two machines may differ.
    pub fn milliseconds(name: &'static str, value: i64) -> Self {
        Self { name, unit: Unit::Milliseconds, value: u64::try_from(value).unwrap_or(0) }
    }
}

/// Lets [`emit`] write under the namespace that `TARN_METRICS_NAMESPACE` names. Only for a program whose standard output is a
/// log. Only the first call in a process has an effect.
///
/// # Errors
/// `Invalid`, with the variable's name, its value and what was expected.
pub fn init(lookup: Lookup<'_>) -> Result<()> {
    let Some(namespace) = lookup("TARN_METRICS_NAMESPACE").filter(|value| !value.is_empty()) else { return Ok(()) };
    let plain = namespace.chars().all(|c| c.is_ascii_alphanumeric() || "._-/#:".contains(c));
    if !plain || namespace.len() > 255 || namespace.starts_with(':') || namespace.starts_with("AWS/") {
        return Err(Error::invalid(format!(
            "environment variable TARN_METRICS_NAMESPACE: expected a CloudWatch namespace such as `Tarn`, found `{namespace}`"
        )));
    }
    if NAMESPACE.set(namespace).is_err() {
        tracing::debug!("metrics were already started");
    }
    Ok(())
}

/// Writes metrics under dimensions (name and value).
pub fn emit(dimensions: &[(&str, &str)], metrics: &[Metric]) {
    let Some(namespace) = NAMESPACE.get() else { return };
    for metrics in metrics.chunks(MAX_METRICS) {
        let line = format!("{}\n", document(namespace, SystemClock.now_ms(), dimensions, metrics));
        if let Err(error) = std::io::stdout().lock().write_all(line.as_bytes()) {
            tracing::warn!(%error, "metrics could not be written");
        }
    }
}

fn document(namespace: &str, now_ms: i64, dimensions: &[(&str, &str)], metrics: &[Metric]) -> Value {
    let names: Vec<&str> = dimensions.iter().map(|(name, _)| *name).collect();
    let defined: Vec<Value> = metrics.iter().map(|m| json!({"Name": m.name, "Unit": m.unit.as_str()})).collect();
    let mut document = json!({
        "_aws": {
            "Timestamp": now_ms,
            "CloudWatchMetrics": [{"Namespace": namespace, "Dimensions": [names], "Metrics": defined}],
        },
    });
    for (name, value) in dimensions {
        document[*name] = json!(value);
    }
    for metric in metrics {
        document[metric.name] = json!(metric.value);
    }
    document
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_is_what_cloudwatch_reads() {
        let metrics = [Metric::count("RecordsWritten", 3), Metric::milliseconds("LagMilliseconds", -1)];
        assert_eq!(
            document("Tarn", 1_700_000_000_000, &[("stream", "orders")], &metrics),
            json!({
                "_aws": {
                    "Timestamp": 1_700_000_000_000_i64,
                    "CloudWatchMetrics": [{
                        "Namespace": "Tarn",
                        "Dimensions": [["stream"]],
                        "Metrics": [
                            {"Name": "RecordsWritten", "Unit": "Count"},
                            {"Name": "LagMilliseconds", "Unit": "Milliseconds"},
                        ],
                    }],
                },
                "stream": "orders",
                "RecordsWritten": 3,
                "LagMilliseconds": 0,
            })
        );
        assert_eq!(
            document("Tarn", 0, &[], &[Metric::bytes("B", 1)])["_aws"]["CloudWatchMetrics"][0]["Dimensions"],
            json!([[]])
        );
    }

    #[test]
    fn a_namespace_that_cloudwatch_refuses_is_refused_with_its_variable() {
        for value in ["AWS/Lambda", ":x", "a b", "é"] {
            let error = init(&|name| (name == "TARN_METRICS_NAMESPACE").then(|| value.to_owned())).unwrap_err();
            assert!(
                error.to_string().contains("TARN_METRICS_NAMESPACE") && error.to_string().contains(value),
                "{error}"
            );
        }
    }
}
