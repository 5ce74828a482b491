//! What a caller asks for: HTTP routes as commands.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use shared::api::Request;
use shared::aside::Period;
use shared::{Error, ErrorKind, Result};

use crate::quarantined::Wanted;
use crate::quarantined::line::Filter;

/// Runs that a list holds at most, unless the caller asks for fewer.
const MOST_RUNS: usize = 100;

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Command {
    /// Begin a run and wait for its end, or have it done later.
    Start { workflow: String, asked: RunRequest, wait: bool },
    /// Say what a run would do.
    Preview { workflow: String, asked: RunRequest },
    /// The newest runs of a workflow, at most `limit`.
    List { workflow: String, limit: usize },
    /// Rows in quarantine, at most `limit`: of one job, or of all of a workflow.
    Quarantine { workflow: String, job: Option<String>, filter: Filter, limit: usize },
    /// Write rows in quarantine that keep the rules by now.
    ReplayQuarantine { workflow: String, wanted: Wanted },
    /// Remove rows in quarantine for good.
    DiscardQuarantine { workflow: String, unwanted: Wanted },
    /// Say what of a lakehouse file can't be planned.
    Check,
    /// Remove what is kept of a subject.
    Erase,
    /// What is wrong, and the figures behind it.
    Status,
    /// One run.
    Get { run: String },
    /// Do what a failed run left undone.
    Resume { run: String },
    /// Ask a run to stop.
    Cancel { run: String },
}

/// Which run is asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RunRequest {
    pub parameters: BTreeMap<String, String>,
    /// The jobs that are to be done, without those that they need; empty: all.
    pub jobs: BTreeSet<String>,
}

/// The body of a request that starts a run.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct StartBody {
    #[serde(default)]
    parameters: BTreeMap<String, Value>,
    #[serde(default)]
    jobs: BTreeSet<String>,
    #[serde(default, rename = "dryRun")]
    dry_run: bool,
}

impl Command {
    /// # Errors
    /// `NotFound` for a route that this function does not have; `Invalid` for a body or a limit of another shape.
    pub(crate) fn of_request(request: &Request) -> Result<Self> {
        match (request.method.as_str(), request.segments().as_slice()) {
            ("POST", ["workflows", workflow, "runs"]) => Self::start(workflow, request),
            ("GET", ["workflows", workflow, "runs"]) => {
                Ok(Self::List { workflow: (*workflow).into(), limit: request.limit(MOST_RUNS, MOST_RUNS)? })
            }
            ("GET", ["workflows", workflow, "quarantine"]) => Ok(Self::Quarantine {
                workflow: (*workflow).into(),
                job: request.query.get("job").cloned(),
                filter: filter(request)?,
                limit: request.limit(MOST_RUNS, MOST_RUNS)?,
            }),
            ("POST", ["workflows", workflow, "quarantine", "replay"]) => {
                Ok(Self::ReplayQuarantine { workflow: (*workflow).into(), wanted: body(request)? })
            }
            ("POST", ["workflows", workflow, "quarantine", "discard"]) => {
                Ok(Self::DiscardQuarantine { workflow: (*workflow).into(), unwanted: body(request)? })
            }
            ("POST", ["check"]) => Ok(Self::Check),
            ("POST", ["erasures"]) => Ok(Self::Erase),
            ("GET", ["status", "transform"]) => Ok(Self::Status),
            ("GET", ["runs", run]) => Ok(Self::Get { run: (*run).into() }),
            ("POST", ["runs", run, "resume"]) => Ok(Self::Resume { run: (*run).into() }),
            ("POST", ["runs", run, "cancel"]) => Ok(Self::Cancel { run: (*run).into() }),
            (method, _) => Err(Error::new(
                ErrorKind::NotFound,
                format!(
                    "expected POST or GET /workflows/{{name}}/runs, GET /workflows/{{name}}/quarantine, \
                     POST /workflows/{{name}}/quarantine/replay or /discard, GET /runs/{{id}}, POST /runs/{{id}}/resume, \
                     POST /runs/{{id}}/cancel, POST /check, POST /erasures or GET /status/transform, found {method} `{}`",
                    request.path
                ),
            )),
        }
    }
}

impl Command {
    /// A run that is begun or looked at: an empty body asks for all jobs with the declared parameters.
    fn start(workflow: &str, request: &Request) -> Result<Self> {
        let workflow = workflow.to_owned();
        let body: StartBody = body(request)?;
        let asked = RunRequest { parameters: parameters(body.parameters)?, jobs: body.jobs };
        match body.dry_run {
            true => Ok(Self::Preview { workflow, asked }),
            false => Ok(Self::Start { workflow, asked, wait: wait(request)? }),
        }
    }
}

/// Which rows of the quarantine are asked for.
fn filter(request: &Request) -> Result<Filter> {
    let given = |name: &str| request.query.get(name).map(String::as_str);
    let period = Period::parse(given("since"), given("until"))?;
    Ok(Filter { period, rule: request.query.get("rule").cloned() })
}

/// A body that may be empty.
fn body<T: Default + DeserializeOwned>(request: &Request) -> Result<T> {
    let is_empty = request.body.iter().all(u8::is_ascii_whitespace);
    if is_empty { Ok(T::default()) } else { request.json() }
}

/// Numbers and booleans are taken as their text.
fn parameters(given: BTreeMap<String, Value>) -> Result<BTreeMap<String, String>> {
    let text = |(name, value): (String, Value)| match value {
        Value::String(text) => Ok((name, text)),
        Value::Number(_) | Value::Bool(_) => Ok((name, value.to_string())),
        other => {
            Err(Error::invalid(format!("parameter `{name}`: expected text, a number or a boolean, found `{other}`")))
        }
    };
    given.into_iter().map(text).collect()
}

fn wait(request: &Request) -> Result<bool> {
    match request.query.get("wait").map(String::as_str) {
        None | Some("true") => Ok(true),
        Some("false") => Ok(false),
        Some(other) => Err(Error::invalid(format!("expected `wait` to be `true` or `false`, found `{other}`"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(method: &str, path: &str, body: &str) -> Request {
        Request { body: body.to_owned().into(), ..Request::new(method, path, "r") }
    }

    #[test]
    fn a_start_takes_text_numbers_and_booleans() {
        let body = r#"{"parameters": {"start": "2013-01-01", "n": 3, "all": true}}"#;
        let command = Command::of_request(&request("POST", "/workflows/daily/runs", body)).unwrap();
        let Command::Start { workflow, asked: RunRequest { parameters, jobs }, wait: true } = command else {
            panic!("{command:?}")
        };
        assert_eq!((workflow.as_str(), jobs.len()), ("daily", 0));
        assert_eq!(
            (parameters["start"].as_str(), parameters["n"].as_str(), parameters["all"].as_str()),
            ("2013-01-01", "3", "true")
        );
    }

    #[test]
    fn an_empty_body_starts_with_what_is_declared() {
        for body in ["", " \n", "{}"] {
            let command = Command::of_request(&request("POST", "/workflows/daily/runs", body)).unwrap();
            let asked = RunRequest::default();
            assert_eq!(command, Command::Start { workflow: "daily".into(), asked, wait: true });
        }
    }

    #[test]
    fn a_body_of_another_shape_is_invalid() {
        for body in ["[", r#"{"parameter": {}}"#, r#"{"parameters": {"a": [1]}}"#, r#"{"parameters": {"a": null}}"#] {
            let error = Command::of_request(&request("POST", "/workflows/daily/runs", body)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid, "{body}: {error}");
        }
    }

    #[test]
    fn a_start_need_not_wait() {
        let mut start = request("POST", "/workflows/daily/runs", "");
        start.query.insert("wait".into(), "false".into());
        assert!(matches!(Command::of_request(&start).unwrap(), Command::Start { wait: false, .. }));
        start.query.insert("wait".into(), "no".into());
        assert_eq!(Command::of_request(&start).unwrap_err().kind(), ErrorKind::Invalid);
    }

    #[test]
    fn some_jobs_may_be_asked_for_or_only_looked_at() {
        let look = request("POST", "/workflows/daily/runs", r#"{"jobs": ["clean"], "dryRun": true}"#);
        let asked = RunRequest { jobs: ["clean".to_owned()].into(), ..RunRequest::default() };
        assert_eq!(Command::of_request(&look).unwrap(), Command::Preview { workflow: "daily".into(), asked });
    }

    #[test]
    fn a_list_is_limited() {
        let mut list = request("GET", "/workflows/daily/runs", "");
        assert_eq!(Command::of_request(&list).unwrap(), Command::List { workflow: "daily".into(), limit: 100 });
        list.query.insert("limit".into(), "5".into());
        assert_eq!(Command::of_request(&list).unwrap(), Command::List { workflow: "daily".into(), limit: 5 });
        list.query.insert("limit".into(), "0".into());
        assert_eq!(Command::of_request(&list).unwrap_err().kind(), ErrorKind::Invalid);
    }

    #[test]
    fn an_unknown_route_is_not_found() {
        let error = Command::of_request(&request("DELETE", "/runs/daily-1", "")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
    }
}
