//! Forecasts, anomalies and narratives over the rows of any query with a date column.
//!
//! A question (declared in the lakehouse file or sent with a request) is run as SQL; its rows become a regular [`series`];
//! the series is answered by [`forecast`](mod@forecast), [`anomalies`](mod@anomalies) or [`narrative`](mod@narrative): pure
//! functions that give the same answer every time. A result goes into an Iceberg table when the question names one.
//!
//! [`Insight`] answers. A series that a method can't work on is `Invalid`, and the error says what it needs.

pub mod anomalies;
pub mod answer;
mod decompose;
mod event;
pub mod forecast;
pub mod narrative;
pub mod question;
mod robust;
mod season;
pub mod series;
#[cfg(test)]
mod shapes;
mod store;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use engine::{Engine, QueryOptions};
use jobs::schedule::{self, Kind, Occurrence, Progress};
use serde_json::Value;
use shared::api::{Event, Reply, Request, Response};
use shared::ports::Ports;
use shared::project::Project;
use shared::telemetry::metrics::{self, Metric};
use shared::{Error, Principal, Result};
use table::Tables;

use answer::Answer;
use event::InsightRequest;
use question::Question;
use series::{Rows, Series};

/// The function: answers questions over the tables of one lakehouse.
#[derive(Debug, Clone)]
pub struct Insight {
    project: Arc<Project>,
    ports: Ports,
    engine: Engine,
    tables: Tables,
}

impl Insight {
    /// # Errors
    /// None so far; the signature is that of every function.
    pub fn new(project: Arc<Project>, ports: Ports, engine: Engine) -> Result<Self> {
        let tables = Tables::new(ports.clone());
        Ok(Self { project, ports, engine, tables })
    }

    /// Serves one event: an HTTP request (errors become responses) or a schedule (errors are errors; the answer is what the
    /// request would have been answered). A schedule that names no insight answers those that are due by their own.
    ///
    /// # Errors
    /// `Invalid` for an event of another kind; for a schedule, whatever kept the insight from being answered.
    pub async fn handle(&self, event: Event) -> Result<Reply> {
        match event {
            Event::Http(request) => Ok(self.respond(&request).await.unwrap_or_else(|e| Response::error(&e)).into()),
            Event::Schedule(event) => match schedule::named(&event.detail)? {
                Some(name) => self.scheduled(name, event.id.unwrap_or_default()).await.map(Reply::from),
                None => {
                    let run = |occurrence: Occurrence| async move {
                        Ok(Progress::Done(self.scheduled(&occurrence.name, occurrence.id()).await?))
                    };
                    schedule::tick(&self.ports, &self.project, Kind::Insight, run).await.map(Reply::from)
                }
            },
            other => Err(other.unserved("insight", "an HTTP request or a schedule")),
        }
    }

    /// Answers a declared insight; its result is stored once for each `id`.
    async fn scheduled(&self, name: &str, id: String) -> Result<Value> {
        let answer = self.ask(event::declared(name, id, &self.project)?).await?;
        serde_json::to_value(answer).map_err(|e| Error::bug("answer has no JSON form").with_source(e))
    }

    async fn respond(&self, request: &Request) -> Result<Response> {
        if (request.method.as_str(), request.segments().as_slice()) == ("GET", &["status", "insight"]) {
            return schedule::status(&self.ports, &self.project, Kind::Insight).await?.response();
        }
        let answer = self.ask(event::from_http(request, &self.project)?).await?;
        Response::json(200, &answer)
    }

    async fn ask(&self, asked: InsightRequest) -> Result<Answer> {
        let InsightRequest { question, id, principal } = asked;
        let doing = format!("answering the insight `{}`", question.name);
        let run = async {
            let series = self.series(&question, principal).await?;
            let (mut answer, series) = compute(question.clone(), series).await?;
            if let Some(into) = &question.into {
                let made = self.ports.clock.now_ms();
                answer.stored = Some(store::store(&self.tables, into, &answer, &series, &id, made).await?);
            }
            Ok(answer)
        };
        let answer: Answer = run.await.map_err(|e: Error| e.context(doing))?;
        tracing::info!(
            insight = answer.insight,
            rows = answer.series.rows,
            periods = answer.series.periods,
            "answered"
        );
        metrics::emit(&[], &[Metric::count("InsightsComputed", 1)]);
        Ok(answer)
    }

    /// Runs the question's SELECT.
    async fn series(&self, question: &Question, principal: Principal) -> Result<Series> {
        let options = QueryOptions {
            database: self.project.database().into(),
            databases: Some(self.project.databases().clone()),
            caller: "insight".into(),
            ..QueryOptions::new(principal)
        };
        let answer = self.engine.query(&question.sql, &options).await?;
        let mut rows = Rows::new(question, &answer.schema)?;
        let (batches, _) = answer.collect().await?;
        for batch in &batches {
            rows.push(batch)?;
        }
        Series::new(rows, question, self.ports.clock.now_ms())
    }
}

/// Models take seconds of processor time, so they run apart from the event loop.
async fn compute(question: Question, series: Series) -> Result<(Answer, Series)> {
    let work = move || answer::answer(&series, &question).map(|answer| (answer, series));
    tokio::task::spawn_blocking(work).await.map_err(|e| Error::bug("the model broke off").with_source(e))?
}
