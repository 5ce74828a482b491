//! The function `crawl`: keeps the catalog in step with the files in the crawled locations.
//!
//! | trigger | does | answers |
//! |---|---|---|
//! | `POST /crawl` `{}` or `{"location": …}` | crawls every location, or one | `{"crawls": [report, …]}` |
//! | `GET /crawls` | | the last report of each location, in the same form |
//! | S3 event | crawls only the named objects, in the locations that ask for it | `{"crawls": […]}` |
//! | schedule with `detail.name` | crawls that location | `{"crawls": […]}` |
//! | schedule without | crawls the locations whose own schedule is due | `{"ran": [{"name", "answer"}], "left": […]}` |
//!
//! A crawl decides purely, then acts: [`select`] says which files are new, [`group`] and [`partitions`] what tables they make,
//! [`plan`] what that changes in the catalog; [`read`] and [`apply`] do the I/O, [`run`] joins them. A report ([`report`]) says
//! what happened. What is wrong with a file is in the report; a crawl fails only when storage, state or catalog do.
//!
//! A folder whose files don't agree in format or schema becomes no table: readers read every file of a table's folder, so the odd
//! ones could not be left out. The report names them; a table that was healthy before they came stays as it is. Moving them away,
//! or excluding them in the lakehouse file, resolves it.

pub mod apply;
pub mod event;
pub mod group;
pub mod marks;
pub mod partitions;
pub mod plan;
pub mod read;
pub mod report;
pub mod run;
pub mod select;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Value, json};
use shared::api::{Event, Request, Response};
use shared::config::Ports;
use shared::project::Project;
use shared::schedule::{self, Kind, Progress, Turn};
use shared::{Error, Result, deadline};

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
struct Asked {
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
    pub async fn handle(&self, payload: Value) -> Result<Value> {
        match Event::parse(payload)? {
            Event::Http(request) => self.respond(&request).await.unwrap_or_else(|e| Response::error(&e)).into_value(),
            Event::Objects(records) => self.objects(&records).await,
            Event::Schedule(event) => match schedule::named(&event.detail)? {
                Some(name) => match self.scheduled(name).await? {
                    Progress::Done(answer) => Ok(answer),
                    Progress::Unfinished(_) => Err(out_of_time(name)),
                },
                None => {
                    let run = |turn: Turn| async move { self.scheduled(&turn.name).await };
                    schedule::tick(&self.ports, &self.project, Kind::Crawl, run).await
                }
            },
            other => Err(other.unserved("crawl", "`POST /crawl`, `GET /crawls`, an S3 event or a schedule")),
        }
    }

    async fn respond(&self, request: &Request) -> Result<Response> {
        match (request.method.as_str(), request.segments().as_slice()) {
            ("POST", ["crawl"]) => {
                let asked = if request.body.is_empty() { Asked::default() } else { request.json()? };
                Response::json(200, &json!({ "crawls": self.crawl_asked(asked).await? }))
            }
            ("GET", ["crawls"]) => {
                Response::json(200, &json!({ "crawls": report::last(self.ports.state.as_ref()).await? }))
            }
            (method, _) => Err(Error::not_found(format!(
                "expected `POST /crawl` or `GET /crawls`, found `{method} {}`",
                request.path
            ))),
        }
    }

    /// Crawls what an event names. What is wrong with some of it is told after the rest had its turn.
    async fn objects(&self, records: &[Value]) -> Result<Value> {
        let (scopes, mut failed) = event::scopes(records, &self.project, &self.ports.keys)?;
        let mut reports = Vec::new();
        for (location, scope) in scopes {
            if !reports.is_empty() && deadline::is_near(self.ports.clock.as_ref()) {
                failed.push(out_of_time(&location));
                continue;
            }
            match self.crawl(&location, scope).await {
                Ok(report) if report.unfinished => failed.push(out_of_time(&location)),
                Ok(report) => reports.push(report),
                Err(error) => failed.push(error),
            }
        }
        let rest: Vec<String> = failed.iter().skip(1).map(ToString::to_string).collect();
        match failed.into_iter().next() {
            None => Ok(json!({ "crawls": reports })),
            Some(first) if rest.is_empty() => Err(first),
            Some(first) => Err(Error::new(first.kind(), format!("{first}; {}", rest.join("; ")))),
        }
    }

    async fn scheduled(&self, location: &str) -> Result<Progress<Value>> {
        let report = self.crawl(location, Scope::Everything).await?;
        let answer = json!({ "crawls": [report] });
        Ok(if report.unfinished { Progress::Unfinished(answer) } else { Progress::Done(answer) })
    }

    async fn crawl_asked(&self, asked: Asked) -> Result<Vec<Report>> {
        let names = match asked.location {
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
        run::crawl(&self.project, &self.ports, location, scope)
            .await
            .map_err(|error| error.context(format!("crawling the location `{location}`")))
    }
}

fn out_of_time(location: &str) -> Error {
    Error::retry(format!(
        "time was up before the end of crawling the location `{location}`: another crawl reads the rest"
    ))
}
