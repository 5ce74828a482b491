//! The function `crawl`: keeps the catalog in step with the files in the crawled locations.
//!
//! | trigger | does | answers |
//! |---|---|---|
//! | `POST /crawl` `{}` or `{"location": …}` | crawls every location, or one | `{"crawls": [report, …]}` |
//! | `GET /crawls` | | the last report of each location, in the same form |
//! | `GET /status/crawl` | | what is wrong, what was crawled, what is due |
//! | S3 event | crawls only the named objects, in the locations that ask for it | `{"crawls": […]}` |
//! | SQS event | the same for the S3 events that its messages hold, each location once | `{"batchItemFailures": [{"itemIdentifier"}], "crawls": […]}` |
//! | schedule with `detail.name` | crawls that location | `{"crawls": […]}` |
//! | schedule without | crawls the locations whose own schedule is due | `{"ran": [{"name", "answer"}], "left": […]}` |
//!
//! [`Crawl`] decides purely, then acts: [`select`] says which files are new, [`group`] and [`partitions`] what tables they make,
//! [`plan`] what that changes in the catalog; [`read`] and [`apply`] do the I/O, [`run`] joins them. A report ([`report`]) says
//! what happened. What is wrong with a file is in the report; a crawl fails only when storage, state or catalog do.
//!
//! A folder whose files don't agree in format or schema becomes no table. The report names the odd ones; a table that was healthy
//! before they came stays as it is, and remembers them ([`refused`]): queries then refuse rather than answer without them. Moving
//! them away, or excluding them in the lakehouse file, resolves it.

pub mod apply;
pub mod event;
pub mod group;
pub mod marks;
pub mod partitions;
pub mod plan;
pub mod read;
pub mod refused;
pub mod report;
pub mod run;
pub mod select;
mod status;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jobs::failures;
use jobs::schedule::{self, Kind, Occurrence, Progress};
use serde::Deserialize;
use serde_json::{Value, json};
use shared::api::{Event, Message, Reply, Request, Response};
use shared::ports::Ports;
use shared::project::Project;
use shared::{Error, Result, deadline};

use crate::event::CrawlRequests;
use crate::report::Report;
use crate::run::Scope;

/// Crawls locations.
#[derive(Debug, Clone)]
pub struct Crawl {
    pub(crate) project: Arc<Project>,
    pub(crate) ports: Ports,
}

/// The body of `POST /crawl`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    /// A location of the lakehouse file (default: all).
    location: Option<String>,
}

impl Crawl {
    /// # Errors
    /// None today; the signature is that of every function.
    pub fn new(project: Arc<Project>, ports: Ports) -> Result<Self> {
        Ok(Self { project, ports })
    }

    /// Answers one event.
    ///
    /// # Errors
    /// Of an HTTP request: none but a wrong event; errors become its response. Otherwise what stopped the crawl, so that the
    /// event is sent again.
    pub async fn handle(&self, event: Event) -> Result<Reply> {
        match event {
            Event::Http(request) => Ok(self.respond(&request).await.unwrap_or_else(|e| Response::error(&e)).into()),
            Event::Objects(records) => self.objects(&records).await.map(Reply::from),
            Event::Queue(messages) => self.messages(&messages).await.map(Reply::from),
            Event::Schedule(event) => match schedule::named(&event.detail)? {
                Some(name) => match self.scheduled(name).await? {
                    Progress::Done(answer) => Ok(answer.into()),
                    Progress::Unfinished(_) => Err(out_of_time(name)),
                },
                None => {
                    let run = |occurrence: Occurrence| async move { self.scheduled(&occurrence.name).await };
                    schedule::tick(&self.ports, &self.project, Kind::Crawl, run).await.map(Reply::from)
                }
            },
            other => {
                Err(other.unserved("crawl", "`POST /crawl`, `GET /crawls`, an S3 event, an SQS event or a schedule"))
            }
        }
    }

    async fn respond(&self, request: &Request) -> Result<Response> {
        match (request.method.as_str(), request.segments().as_slice()) {
            ("POST", ["crawl"]) => {
                let body = if request.body.is_empty() { Body::default() } else { request.json()? };
                Response::json(200, &json!({ "crawls": self.crawl_asked(body).await? }))
            }
            ("GET", ["crawls"]) => {
                Response::json(200, &json!({ "crawls": report::last(self.ports.state.as_ref()).await? }))
            }
            ("GET", ["status", "crawl"]) => self.status().await?.response(),
            (method, _) => Err(Error::not_found(format!(
                "expected `POST /crawl`, `GET /crawls` or `GET /status/crawl`, found `{method} {}`",
                request.path
            ))),
        }
    }

    /// Crawls what an event names. What is wrong with some of it is told after the rest had its turn.
    async fn objects(&self, records: &[Value]) -> Result<Value> {
        let (scopes, mut failed) = event::scopes(records, &self.project, &self.ports.keys)?;
        let (reports, errors) = self.crawl_each(scopes).await;
        failed.extend(errors.into_values());
        let rest: Vec<String> = failed.iter().skip(1).map(ToString::to_string).collect();
        match failed.into_iter().next() {
            None => Ok(json!({ "crawls": reports })),
            Some(first) if rest.is_empty() => Err(first),
            Some(first) => Err(Error::new(first.kind(), format!("{first}; {}", rest.join("; ")))),
        }
    }

    /// Crawls what the messages of a queue name, each location once for all of them. The answer names the messages that are to
    /// come again: those that can't be read, and those of a location whose crawl failed or did not reach its end.
    async fn messages(&self, messages: &[Message]) -> Result<Value> {
        let CrawlRequests { scopes, by_location, refused } =
            event::crawl_requests(messages, &self.project, &self.ports.keys);
        let mut failed: BTreeSet<usize> = BTreeSet::new();
        for (at, error) in refused {
            tracing::error!(message_id = messages.get(at).map(Message::id), %error, "a message could not be read");
            failed.insert(at);
        }
        let (reports, errors) = self.crawl_each(scopes).await;
        for (location, error) in errors {
            tracing::error!(location, kind = %error.kind(), %error, "a location was not crawled");
            failed.extend(by_location.get(&location).into_iter().flatten());
        }
        let failed = failed.into_iter().filter_map(|at| messages.get(at));
        let failures: Vec<Value> = failed.map(|message| json!({"itemIdentifier": message.id()})).collect();
        Ok(json!({"batchItemFailures": failures, "crawls": reports}))
    }

    /// Crawls every location, and gives the reports of those that came to their end and the errors of the others.
    async fn crawl_each(&self, scopes: BTreeMap<String, Scope>) -> (Vec<Report>, BTreeMap<String, Error>) {
        let (mut reports, mut failed) = (Vec::new(), BTreeMap::new());
        for (location, scope) in scopes {
            if !reports.is_empty() && deadline::is_near(self.ports.clock.as_ref()) {
                failed.insert(location.clone(), out_of_time(&location));
                continue;
            }
            match self.crawl(&location, scope).await {
                Ok(report) if report.unfinished => {
                    failed.insert(location.clone(), out_of_time(&location));
                }
                Ok(report) => reports.push(report),
                Err(error) => {
                    failed.insert(location, error);
                }
            }
        }
        (reports, failed)
    }

    async fn scheduled(&self, location: &str) -> Result<Progress<Value>> {
        let report = self.crawl(location, Scope::Everything).await?;
        let answer = json!({ "crawls": [report] });
        Ok(if report.unfinished { Progress::Unfinished(answer) } else { Progress::Done(answer) })
    }

    async fn crawl_asked(&self, body: Body) -> Result<Vec<Report>> {
        let names = match body.location {
            Some(name) => vec![name],
            None => self.project.file().locations.keys().cloned().collect(),
        };
        let mut reports = Vec::with_capacity(names.len());
        for name in names {
            if !reports.is_empty() && deadline::is_near(self.ports.clock.as_ref()) {
                return Err(Error::retry(format!(
                    "time was up before the location `{name}`: {} locations before it are crawled, crawl the rest by name",
                    reports.len()
                )));
            }
            reports.push(self.crawl(&name, Scope::Everything).await?);
        }
        Ok(reports)
    }

    async fn crawl(&self, location: &str, scope: Scope) -> Result<Report> {
        let outcome = run::crawl(&self.project, &self.ports, location, scope).await;
        failures::note(&self.ports, "crawl", location, &outcome).await;
        outcome.map_err(|error| error.context(format!("crawling the location `{location}`")))
    }
}

fn out_of_time(location: &str) -> Error {
    Error::retry(format!(
        "time was up before the end of crawling the location `{location}`: another crawl reads the rest"
    ))
}
