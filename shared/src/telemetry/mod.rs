//! One subscriber for every program: events go to standard error, as JSON lines or as text. Metrics: [`metrics`]; the trace of
//! the work at hand: [`trace`].

pub mod file;
mod json;
pub mod metrics;
pub mod trace;

use std::sync::Mutex;

use tracing::Subscriber;
use tracing_subscriber::fmt::format::JsonFields;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, fmt};

use self::file::LogFile;

use crate::config::Lookup;
use crate::{Error, Result};

/// What the Lambda runtime says of an error is in our own line about it.
const RUNTIME: &str = "lambda_runtime=off";

/// Starts logging as `TARN_LOG` (a filter, default `info`) and `TARN_LOG_FORMAT` (`json` or `text`, default `json`) say.
/// Only the first call in a process has an effect.
///
/// # Errors
/// `Invalid`, with the variable's name, its value and what was expected.
pub fn init(lookup: Lookup<'_>) -> Result<()> {
    init_with_file(lookup, None)
}

/// As [`init`], with the same lines in `file` too, always as JSON.
///
/// # Errors
/// As [`init`].
pub fn init_with_file(lookup: Lookup<'_>, file: Option<LogFile>) -> Result<()> {
    let filter = filter(lookup)?;
    let as_json = wants_json(lookup)?;
    // A log that can't be written (a full disk) must not stop the work: the subscriber's own complaint would panic.
    let file = file.map(|file| lines().with_writer(Mutex::new(file)));
    let started = if as_json {
        let stderr = lines().with_writer(std::io::stderr);
        tracing_subscriber::registry().with(filter).with(file).with(stderr).try_init()
    } else {
        let ansi = std::io::IsTerminal::is_terminal(&std::io::stderr());
        let stderr = fmt::layer().with_writer(std::io::stderr).log_internal_errors(false);
        let stderr = stderr.with_ansi(ansi).with_target(false);
        tracing_subscriber::registry().with(filter).with(file).with(stderr).try_init()
    };
    if started.is_err() {
        tracing::debug!("logging was already started");
    }
    Ok(())
}

/// Writes an event as a line of JSON.
fn lines<S: Subscriber + for<'a> LookupSpan<'a>>() -> fmt::Layer<S, JsonFields, json::Lines> {
    fmt::layer().json().event_format(json::Lines).log_internal_errors(false)
}

fn filter(lookup: Lookup<'_>) -> Result<EnvFilter> {
    let value = lookup("TARN_LOG").filter(|value| !value.is_empty()).unwrap_or_else(|| "info".into());
    EnvFilter::try_new(format!("{RUNTIME},{value}")).map_err(|e| {
        let expected = "a filter such as `info` or `warn,engine=debug`";
        Error::invalid(format!("environment variable TARN_LOG: expected {expected}, found `{value}`")).with_source(e)
    })
}

fn wants_json(lookup: Lookup<'_>) -> Result<bool> {
    match lookup("TARN_LOG_FORMAT").as_deref() {
        None | Some("" | "json") => Ok(true),
        Some("text") => Ok(false),
        Some(other) => Err(Error::invalid(format!(
            "environment variable TARN_LOG_FORMAT: expected `json` or `text`, found `{other}`"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn started_with(name: &str, value: &str) -> Result<()> {
        init(&|variable| (variable == name).then(|| value.to_owned()))
    }

    #[test]
    fn a_bad_value_names_its_variable_and_itself() {
        for (name, value) in [("TARN_LOG", "shared=loudly"), ("TARN_LOG_FORMAT", "xml")] {
            let text = started_with(name, value).unwrap_err().to_string();
            assert!(text.contains(name) && text.contains(&format!("`{value}`")), "{text}");
        }
    }

    #[test]
    fn a_second_start_changes_nothing() {
        started_with("TARN_LOG", "off").unwrap();
        started_with("TARN_LOG", "debug").unwrap();
        assert!(!tracing::enabled!(tracing::Level::ERROR), "the first filter holds");
    }
}
