//! Metrics: on Lambda in CloudWatch's embedded metric format (JSON lines on standard output, from which CloudWatch Logs makes
//! metrics), in a process that is asked for them as Prometheus' text format ([`keep`], [`text`]).
//!
//! Nothing is written unless `TARN_METRICS_NAMESPACE` says under which namespace. Names and units: `docs/telemetry.md`.
//! The format: <https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html>.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write;
use std::sync::{Mutex, OnceLock, PoisonError};

use serde_json::{Value, json};

use crate::clock::{Clock, SystemClock};
use crate::config::Lookup;
use crate::{Error, Result};

/// Metrics of one document at most.
const MAX_METRICS: usize = 100;

static NAMESPACE: OnceLock<String> = OnceLock::new();

/// What was emitted since [`keep`], by name and labels.
static KEPT: OnceLock<Mutex<BTreeMap<Series, Kept>>> = OnceLock::new();

/// The media type of [`text`].
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

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

/// A metric under its labels.
type Series = (String, Vec<(String, String)>);

/// What a process emitted under one name and labels.
#[derive(Debug, Clone, Copy)]
struct Kept {
    unit: Unit,
    sum: u64,
    times: u64,
}

/// How much there is of something now.
#[derive(Debug, Clone, PartialEq)]
pub struct Gauge {
    series: Series,
    value: f64,
}

impl Gauge {
    /// `name` without the prefix that all names have.
    pub fn new(name: &str, labels: &[(&str, &str)], value: f64) -> Self {
        Self { series: (format!("tarn_{name}"), owned(labels)), value }
    }
}

fn owned(labels: &[(&str, &str)]) -> Vec<(String, String)> {
    labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

/// Has this process add up what it emits from now on, for [`text`].
pub fn keep() {
    KEPT.get_or_init(Mutex::default);
}

fn add_up(dimensions: &[(&str, &str)], metrics: &[Metric]) {
    let Some(kept) = KEPT.get() else { return };
    let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
    for metric in metrics {
        let series = (prometheus_name(metric.name, metric.unit), owned(dimensions));
        let total = kept.entry(series).or_insert(Kept { unit: metric.unit, sum: 0, times: 0 });
        total.sum = total.sum.saturating_add(metric.value);
        total.times += 1;
    }
}

/// `RecordsAccepted` becomes `tarn_records_accepted_total`, `QueryMilliseconds` `tarn_query_milliseconds`.
fn prometheus_name(name: &str, unit: Unit) -> String {
    let mut text = "tarn".to_owned();
    for c in name.chars() {
        if c.is_ascii_uppercase() {
            text.push('_');
        }
        text.push(c.to_ascii_lowercase());
    }
    match unit {
        Unit::Count | Unit::Bytes => text + "_total",
        Unit::Milliseconds => text,
    }
}

/// What was kept, and what there is now, in Prometheus' text format
/// (<https://prometheus.io/docs/instrumenting/exposition_formats/>).
pub fn text(gauges: &[Gauge]) -> String {
    let kept = KEPT.get().map(|kept| kept.lock().unwrap_or_else(PoisonError::into_inner).clone()).unwrap_or_default();
    exposition(&kept, gauges)
}

fn exposition(kept: &BTreeMap<Series, Kept>, gauges: &[Gauge]) -> String {
    let mut lines: BTreeMap<&str, (&str, Vec<String>)> = BTreeMap::new();
    for ((name, labels), total) in kept {
        let labels = label_text(labels);
        let (kind, samples) = match total.unit {
            Unit::Count | Unit::Bytes => ("counter", vec![format!("{name}{labels} {}", total.sum)]),
            Unit::Milliseconds => (
                "summary",
                vec![format!("{name}_sum{labels} {}", total.sum), format!("{name}_count{labels} {}", total.times)],
            ),
        };
        lines.entry(name).or_insert((kind, Vec::new())).1.extend(samples);
    }
    for Gauge { series: (name, labels), value } in gauges {
        lines.entry(name).or_insert(("gauge", Vec::new())).1.push(format!("{name}{} {value}", label_text(labels)));
    }
    let mut text = String::new();
    for (name, (kind, samples)) in lines {
        // Writing to a String can't fail.
        let _ = writeln!(text, "# TYPE {name} {kind}\n{}", samples.join("\n"));
    }
    text
}

fn label_text(labels: &[(String, String)]) -> String {
    let escaped = |value: &str| value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    let labels: Vec<_> = labels.iter().map(|(name, value)| format!("{name}=\"{}\"", escaped(value))).collect();
    if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) }
}

/// Writes metrics under dimensions (name and value).
pub fn emit(dimensions: &[(&str, &str)], metrics: &[Metric]) {
    add_up(dimensions, metrics);
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
    fn prometheus_reads_counters_summaries_and_gauges() {
        let series = |name: &str, unit, stream: &str| (prometheus_name(name, unit), owned(&[("stream", stream)]));
        let kept = BTreeMap::from([
            (series("RecordsAccepted", Unit::Count, "a"), Kept { unit: Unit::Count, sum: 7, times: 2 }),
            (series("RecordsAccepted", Unit::Count, "b"), Kept { unit: Unit::Count, sum: 1, times: 1 }),
            (series("LagMilliseconds", Unit::Milliseconds, "a"), Kept { unit: Unit::Milliseconds, sum: 30, times: 3 }),
        ]);
        let gauges = [Gauge::new("disk_free_bytes", &[("data", "a\"b\\c")], 5.0), Gauge::new("problems", &[], 0.0)];
        let expected = "\
            # TYPE tarn_disk_free_bytes gauge\n\
            tarn_disk_free_bytes{data=\"a\\\"b\\\\c\"} 5\n\
            # TYPE tarn_lag_milliseconds summary\n\
            tarn_lag_milliseconds_sum{stream=\"a\"} 30\n\
            tarn_lag_milliseconds_count{stream=\"a\"} 3\n\
            # TYPE tarn_problems gauge\n\
            tarn_problems 0\n\
            # TYPE tarn_records_accepted_total counter\n\
            tarn_records_accepted_total{stream=\"a\"} 7\n\
            tarn_records_accepted_total{stream=\"b\"} 1\n";
        assert_eq!(exposition(&kept, &gauges), expected);
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
