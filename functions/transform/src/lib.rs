//! The function `transform`: runs workflows of SQL jobs.
//!
//! [`Transform::handle`] takes a request or a schedule's event. A run is planned ([`plan`]), claimed ([`jobs::lease`]:
//! one run of a workflow at a time), carried out ([`run`]: parallel jobs, tries, timeouts; [`job`]: one try), and added to the
//! table `tarn.runs` ([`archive`]). What is wrong with a job is in its run's record; an error is of the request or of the ports.

pub mod archive;
pub mod bookmark;
pub mod check;
pub mod erase;
pub mod event;
pub mod job;
mod listed;
pub mod maintenance;
pub mod parameters;
pub mod plan;
mod positions;
mod preview;
pub mod quality;
mod quarantined;
mod queue;
pub mod record;
pub mod run;
mod status;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use engine::Engine;
use jobs::schedule::{self, Kind, Occurrence, Progress};
use serde_json::{Value, json};
use shared::api::{Event, Reply, Request, Response};
use shared::config::Settings;
use shared::model::TableName;
use shared::ports::Ports;
use shared::project::{Project, Workflow, job_needs};
use shared::telemetry::trace;
use shared::{Error, ErrorKind, Result, deadline};
use table::Tables;
use table_datafusion::with_memory;
use tracing::Instrument;

use event::{Command, RunRequest};
use job::{JobContext, Resources, Task, Work};
use jobs::lease::{Claim, Lease, Leases};
pub use jobs::{Failure, Status};
use jobs::{Ledger, Queue, Stored};
use plan::Plan;
pub use record::{JobRecord, Outcome, ReadMode, RuleReport, Run};
use run::{RunPlan, Timings};

/// The function. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Transform {
    context: Arc<JobContext>,
    ledger: Ledger<Run>,
    queue: Queue,
    leases: Leases,
    timings: Timings,
}

impl Transform {
    /// # Errors
    /// None today: the signature is that of all functions.
    pub fn new(project: Arc<Project>, ports: Ports, engine: Engine) -> Result<Self> {
        let (ledger, queue, leases) = (Ledger::new(&ports), Queue::of_workflows(&ports), Leases::of_workflows(&ports));
        let tables = with_memory(Tables::new(ports.clone()), engine.memory_pool());
        let context = JobContext { project, tables, ports, engine, resources: Resources::default() };
        Ok(Self { context: Arc::new(context), ledger, queue, leases, timings: Timings::default() })
    }

    /// The same, whose compactions take half of the memory that queries may hold, and spill where they do.
    #[must_use]
    pub fn within(self, settings: &Settings) -> Self {
        let resources = Resources { memory_bytes: Some(settings.memory / 2), spill: Some(settings.spill.clone()) };
        let context = Arc::unwrap_or_clone(self.context);
        Self { context: Arc::new(JobContext { resources, ..context }), ..self }
    }

    /// The same with other waits.
    #[must_use]
    pub fn with_timings(self, timings: Timings) -> Self {
        Self { timings, ..self }
    }

    /// Serves one event. HTTP requests are always answered, errors too; the answer of a schedule that names a workflow is the
    /// run's record, or `{"skipped": …}` while another run goes on. One that names none runs the workflows that are due by their
    /// own schedule ([`schedule::tick`]) and the runs that wait in the queue; one with `detail.queue` only these.
    ///
    /// # Errors
    /// `Invalid` for an event that is neither, and for a schedule whatever kept the run from being carried out, `Retry` when time
    /// was up before its end: the same event does the rest. A run whose jobs fail is no error.
    pub async fn handle(&self, event: Event) -> Result<Reply> {
        match event {
            Event::Http(request) => Ok(self.answer(&request).await.unwrap_or_else(|e| Response::error(&e)).into()),
            Event::Schedule(event) => match schedule::named(&event.detail)? {
                Some(workflow) => self.told(workflow, event.id.as_deref().unwrap_or_default()).await.map(Reply::from),
                None if event.detail["queue"] == true => Ok(json!({"queue": self.serve_queue().await?}).into()),
                None => self.tick().await.map(Reply::from),
            },
            other => Err(other.unserved("transform", "an HTTP request or a schedule's event")),
        }
    }

    /// Gives up the leases of runs whose process is gone, so that the next run need not wait for them to run out. Only for a
    /// host that knows that no other process runs workflows, when it starts.
    ///
    /// # Errors
    /// What the state answers.
    pub async fn expire_leases(&self) -> Result<()> {
        self.leases.expire_all().await
    }

    async fn answer(&self, request: &Request) -> Result<Response> {
        match Command::of_request(request)? {
            Command::Start { workflow, asked, wait: true } => {
                Response::json(200, &self.start(&workflow, &asked, None).await?)
            }
            Command::Preview { workflow, asked } => Response::json(200, &self.preview(&workflow, &asked).await?),
            Command::Start { workflow, asked, wait: false } => {
                let run = self.enqueue(&workflow, &asked).await?;
                Ok(Response::json(202, &run)?.with_header("location", format!("/runs/{}", run.run)))
            }
            Command::List { workflow, limit } => {
                self.context.project.workflow(&workflow)?;
                let runs = self.ledger.list(&workflow, limit).await?;
                Response::json(200, &json!({"workflow": workflow, "runs": runs}))
            }
            Command::Quarantine { workflow, job, filter, limit } => {
                Response::json(200, &self.quarantined(&workflow, job.as_deref(), &filter, limit).await?)
            }
            Command::ReplayQuarantine { workflow, wanted } => {
                let replayed = self.replay_quarantine(&workflow, &wanted).await;
                Response::json(200, &replayed.map_err(|e| e.context("replaying the quarantine"))?)
            }
            Command::DiscardQuarantine { workflow, unwanted } => {
                let discarded = self.discard_quarantine(&workflow, &unwanted).await;
                Response::json(200, &discarded.map_err(|e| e.context("discarding the quarantine"))?)
            }
            Command::Check => {
                let text = request.text()?;
                let next = Project::parse(text, "the new lakehouse file")?;
                Response::json(200, &self.check(text, &next).await?)
            }
            Command::Erase => self.erase(request).await,
            Command::Status => self.status().await?.response(),
            Command::Get { run } => Response::json(200, &self.ledger.get(&run).await?.record),
            Command::Resume { run } => Response::json(200, &self.resume(&run).await?),
            Command::Cancel { run } => {
                self.cancel(&run).await?;
                Response::json(202, &json!({"run": run, "cancel": true}))
            }
        }
    }

    /// Runs what is due, and what waits in the queue.
    async fn tick(&self) -> Result<Value> {
        let run = |occurrence: Occurrence| async move { self.scheduled(&occurrence.name, &occurrence.id()).await };
        let due = schedule::tick(&self.context.ports, &self.context.project, Kind::Transform, run);
        let (due, queue) = tokio::join!(due, self.serve_queue());
        let mut answer = due?;
        answer["queue"] = queue?;
        Ok(answer)
    }

    /// Runs a workflow for an event that names it.
    async fn told(&self, workflow: &str, id: &str) -> Result<Value> {
        match self.scheduled(workflow, id).await? {
            Progress::Done(answer) => Ok(answer),
            Progress::Unfinished(run) => Err(out_of_time(run["run"].as_str().unwrap_or_default())),
        }
    }

    /// Runs a workflow for a schedule. `cause` tells one due time from every other: the run that was begun for it goes on if time
    /// was up before its end, and is not begun again when it is over.
    async fn scheduled(&self, workflow: &str, cause: &str) -> Result<Progress<Value>> {
        let begun = self.ledger.list(workflow, 1).await?.pop();
        let ran = match begun.filter(|run| !cause.is_empty() && run.cause.as_deref() == Some(cause)) {
            Some(run) if run.interrupted => self.resume(&run.run).await,
            Some(run) if run.status.is_over() => Ok(run),
            _ => match self.what_is_due(workflow).await? {
                Some(asked) => self.start(workflow, &asked, Some(cause)).await,
                None => return Ok(Progress::Done(json!({"skipped": "no table needs anything"}))),
            },
        };
        let run = match ran {
            Err(error) if error.kind() == ErrorKind::Conflict => {
                return Ok(Progress::Done(json!({"skipped": error.to_string()})));
            }
            other => other?,
        };
        let value = serde_json::to_value(&run).map_err(|e| Error::bug("a run has no JSON form").with_source(e))?;
        match (run.interrupted, run.got_on()) {
            (false, _) => Ok(Progress::Done(value)),
            (true, true) => Ok(Progress::Unfinished(value)),
            (true, false) => Err(out_of_time(&run.run)),
        }
    }

    /// What a schedule asks for: all jobs; of the workflow that keeps tables by default those whose tables need something, none when no
    /// table does.
    async fn what_is_due(&self, workflow: &str) -> Result<Option<RunRequest>> {
        if !self.context.project.keeps_by_default(workflow) {
            return Ok(Some(RunRequest::default()));
        }
        let (run_plan, _) = self.draft(workflow, &RunRequest::default(), None)?;
        let mut jobs = BTreeSet::new();
        for (name, task) in run_plan.tasks {
            let Work::Maintenance(maintenance) = &task.work else { continue };
            let has_work = maintenance::has_work(&self.context, &task, maintenance).await.unwrap_or_else(|error| {
                // The job meets it too, and the run's record then tells it.
                tracing::warn!(workflow, job = name, kind = %error.kind(), "whether a table needs maintenance is unknown");
                true
            });
            if has_work {
                jobs.insert(name);
            }
        }
        Ok((!jobs.is_empty()).then(|| RunRequest { jobs, ..RunRequest::default() }))
    }

    /// Begins a run and waits for its end.
    async fn start(&self, workflow: &str, asked: &RunRequest, cause: Option<&str>) -> Result<Run> {
        let (run_plan, run) = self.draft(workflow, asked, cause)?;
        let lease = self.take(workflow, &run.run).await?;
        let stored = self.ledger.file(run).await?;
        self.see_through(run_plan, stored, lease).await
    }

    /// A run that is yet to be stored.
    fn draft(&self, workflow: &str, asked: &RunRequest, cause: Option<&str>) -> Result<(RunPlan, Run)> {
        let declared = self.context.project.workflow(workflow)?;
        let (id, now) = (self.ledger.new_id(workflow), self.ledger.now());
        let date = now.date_naive().to_string();
        let values = parameters::resolve(&declared.parameters, &asked.parameters, &id, &date)?;
        let run_plan = self.run_plan(workflow, declared, &values)?.only(&asked.jobs)?;
        let jobs =
            run_plan.tasks.iter().map(|(name, task)| (name.clone(), JobRecord::pending(task.into.to_string(), 1)));
        let run = Run {
            run: id,
            workflow: workflow.into(),
            status: Status::Running,
            attempt: 1,
            parameters: values,
            started: now,
            ended: None,
            jobs: jobs.collect(),
            recorded: false,
            cause: cause.filter(|cause| !cause.is_empty()).map(str::to_owned),
            trace: trace::current(),
            interrupted: false,
            only: asked.jobs.clone(),
        };
        Ok((run_plan, run))
    }

    /// Does what a run left undone, with the workflow as it is declared now and the run's own parameters.
    async fn resume(&self, id: &str) -> Result<Run> {
        let run = self.ledger.get(id).await?.record;
        let declared = self.context.project.workflow(&run.workflow)?;
        if run.status == Status::Succeeded {
            return Err(Error::invalid(format!("expected a run with something left to do, but `{id}` succeeded")));
        }
        let run_plan = self.run_plan(&run.workflow, declared, &run.parameters)?.only(&run.only)?;
        let lease = self.take(&run.workflow, id).await?;
        self.close(id).await?;
        let mut stored = self.ledger.get(id).await?;
        stored.record.resume(run_plan.tasks.iter().map(|(name, task)| (name.clone(), task.into.to_string())));
        stored.record.trace = trace::current().or(stored.record.trace);
        self.ledger.save(&mut stored).await?;
        self.see_through(run_plan, stored, lease).await
    }

    /// The plan and the jobs of a run.
    fn run_plan(&self, name: &str, workflow: &Workflow, values: &BTreeMap<String, String>) -> Result<RunPlan> {
        let project = &self.context.project;
        let mut tasks = BTreeMap::new();
        for (job, declared) in &workflow.jobs {
            tasks.insert(job.clone(), Task::new(project, name, job, declared, values)?);
        }
        for (job, maintenance) in &workflow.maintenance {
            tasks.insert(job.clone(), Task::maintenance(project, name, job, maintenance, values)?);
        }
        let parallel = usize::try_from(workflow.parallel).unwrap_or(1).max(1);
        let plan = Plan::new(job_needs(workflow, project.database()));
        Ok(RunPlan {
            plan,
            tasks,
            parallel,
            timings: self.timings,
            time: deadline::working_time(self.context.ports.clock.as_ref()),
        })
    }

    /// The lease of the workflow; a run that was left unfinished is closed first.
    async fn take(&self, workflow: &str, run: &str) -> Result<Lease> {
        match self.leases.claim(workflow, run).await? {
            Claim::Granted(lease) => Ok(lease),
            Claim::TakenOver(lease) => {
                self.close(lease.run()).await?;
                self.leases.pass_on(lease, run).await
            }
        }
    }

    /// Ends a run whose runner is gone and adds it to `tarn.runs`.
    async fn close(&self, id: &str) -> Result<()> {
        let mut stored = match self.ledger.get(id).await {
            Ok(stored) => stored,
            // The runner stopped before it wrote anything.
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        if !stored.record.status.is_over() {
            stored.record.abandon(self.ledger.now());
            self.ledger.save(&mut stored).await?;
        }
        self.record(&mut stored).await
    }

    /// Carries the run out in a task of its own, so that a caller who hangs up does not stop it.
    async fn see_through(&self, run_plan: RunPlan, stored: Stored<Run>, lease: Lease) -> Result<Run> {
        let this = self.clone();
        // What a run does belongs to the trace of whoever asked for it, whichever tick it is that does it.
        let span = tracing::info_span!("run", run = stored.record.run, trace_id = stored.record.trace);
        let task = tokio::spawn(async move { this.carry_out(run_plan, stored, lease).await }.instrument(span));
        task.await.map_err(|e| Error::bug("the task of a run broke off").with_source(e))?
    }

    async fn carry_out(&self, run_plan: RunPlan, mut stored: Stored<Run>, mut lease: Lease) -> Result<Run> {
        let id = stored.record.run.clone();
        tracing::info!(run = id, jobs = run_plan.tasks.len(), "run begins");
        run::carry_out(&self.context, &self.ledger, &self.leases, &run_plan, &mut stored, &mut lease).await?;
        stored.record.end(self.ledger.now());
        self.ledger.save(&mut stored).await?;
        tracing::info!(run = id, status = stored.record.status.as_str(), "run ended");
        stored.record.count();
        match self.record(&mut stored).await {
            Ok(()) => self.leases.release(lease).await?,
            Err(error) => {
                // The next run of the workflow adds it.
                tracing::error!(run = id, %error, "run is not in `tarn.runs` yet");
                self.leases.expire(lease).await?;
            }
        }
        self.ledger.prune(&stored.record.workflow).await?;
        Ok(stored.record)
    }

    async fn record(&self, stored: &mut Stored<Run>) -> Result<()> {
        if stored.record.recorded {
            return Ok(());
        }
        let runs = self.context.project.runs_table()?;
        let is_about = |table: &TableName| stored.record.jobs.values().all(|job| job.into == table.to_string());
        if !(self.context.project.keeps_by_default(&stored.record.workflow) && is_about(&runs)) {
            // A row about the maintenance of the table itself would be something to maintain again.
            archive::add(&self.context.tables, &runs, &stored.record).await?;
        }
        stored.record.recorded = true;
        self.ledger.save(stored).await
    }
}

fn out_of_time(run: &str) -> Error {
    Error::retry(format!("time was up before the end of run `{run}`: a resume does the rest"))
}
