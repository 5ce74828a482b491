//! Runs that nobody waits for: stored and queued by a request, done by whoever ticks next, and taken up again by later ticks when
//! a function's time was up or its process died, until they are over.

use std::collections::BTreeMap;

use futures::future::join_all;
use serde_json::{Value, json};
use shared::{Error, ErrorKind, Result, deadline};

use crate::record::{Failure, Run, Status};
use crate::{Transform, ledger};

/// Runs of a workflow that wait at most.
const MOST_QUEUED: usize = 50;
/// Attempts after which a run whose runner died each time is given up.
const MOST_ATTEMPTS: u32 = 5;

impl Transform {
    /// Files a run for a later tick.
    ///
    /// # Errors
    /// As the begin of a run; `Limit` when too many runs of the workflow wait.
    pub(crate) async fn enqueue(&self, workflow: &str, parameters: &BTreeMap<String, String>) -> Result<Run> {
        let (_, mut run) = self.draft(workflow, parameters, None)?;
        run.status = Status::Pending;
        let waiting = self.ledger.queued(Some(workflow)).await?.len();
        if waiting >= MOST_QUEUED {
            return Err(Error::limit(format!(
                "expected at most {MOST_QUEUED} runs of workflow `{workflow}` to wait, found {waiting}"
            )));
        }
        let stored = self.ledger.file(run).await?;
        self.ledger.enqueue(&stored.run.run).await?;
        Ok(stored.run)
    }

    /// Does what waits: the runs of one workflow in the order they came, different workflows side by side. The answer names the
    /// runs that were worked on, and how they stand.
    ///
    /// # Errors
    /// The first failure, after all had their turn. A run whose jobs fail is no error.
    pub(crate) async fn serve_queue(&self) -> Result<Value> {
        let mut waiting: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        let queued = self.ledger.queued(None).await?;
        for run in &queued {
            waiting.entry(ledger::workflow_of(run)).or_default().push(run);
        }
        let served = join_all(waiting.into_values().map(|runs| self.serve_in_turn(runs))).await;
        let (mut ran, mut failed) = (Vec::new(), None);
        for (runs, error) in served {
            ran.extend(runs.iter().map(|run| json!({"run": run.run, "status": run.status})));
            failed = failed.or(error);
        }
        failed.map_or(Ok(Value::Array(ran)), Err)
    }

    async fn serve_in_turn(&self, queued: Vec<&str>) -> (Vec<Run>, Option<Error>) {
        let mut ran = Vec::new();
        for id in queued {
            if !ran.is_empty() && deadline::is_near(self.context.ports.clock.as_ref()) {
                break;
            }
            match self.serve(id).await {
                Ok(None) => {}
                // The rest of it comes before the next run.
                Ok(Some(run)) if run.interrupted => {
                    ran.push(run);
                    break;
                }
                Ok(Some(run)) => ran.push(run),
                Err(error) => {
                    tracing::error!(run = id, %error, "a queued run was not worked on");
                    return (ran, Some(error));
                }
            }
        }
        (ran, None)
    }

    /// Works on one run; `None` when it has to wait for another one, or needs no more work.
    async fn serve(&self, id: &str) -> Result<Option<Run>> {
        let workflow = ledger::workflow_of(id);
        let lease = match self.take(workflow, id).await {
            Err(error) if error.kind() == ErrorKind::Conflict => return Ok(None),
            other => other?,
        };
        let mut stored = match self.ledger.get(id).await {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                self.ledger.leases.release(lease).await?;
                self.ledger.dequeue(id).await?;
                return Ok(None);
            }
            other => other?,
        };
        let died = stored.run.status == Status::Running && stored.run.attempt >= MOST_ATTEMPTS;
        if died {
            self.close(id).await?;
        }
        if died || stored.run.status.is_over() && !stored.run.interrupted {
            self.ledger.leases.release(lease).await?;
            self.ledger.dequeue(id).await?;
            return Ok(None);
        }
        let run = stored.run.clone();
        let declared = self.context.project.workflow(workflow);
        let run_plan = match declared.and_then(|declared| self.run_plan(workflow, declared, &run.parameters)) {
            Ok(run_plan) => run_plan,
            Err(error) => {
                stored.run.refuse(Status::Failed, &Failure::from(&error), self.ledger.now());
                self.ledger.save(&mut stored).await?;
                self.record(&mut stored).await?;
                self.ledger.leases.release(lease).await?;
                self.ledger.dequeue(id).await?;
                return Ok(Some(stored.run));
            }
        };
        if stored.run.status == Status::Pending {
            stored.run.status = Status::Running;
            stored.run.started = self.ledger.now();
        } else {
            self.close(id).await?;
            stored = self.ledger.get(id).await?;
            stored.run.resume(run_plan.tasks.iter().map(|(name, task)| (name.clone(), task.into.to_string())));
        }
        self.ledger.save(&mut stored).await?;
        let run = self.see_through(run_plan, stored, lease).await?;
        if !(run.interrupted && run.got_on()) {
            self.ledger.dequeue(id).await?;
        }
        Ok(Some(run))
    }

    /// Asks a run to stop: at once when it still waits, at its next heartbeat when it goes on.
    ///
    /// # Errors
    /// `NotFound`; `Conflict` when it is over.
    pub(crate) async fn cancel(&self, id: &str) -> Result<()> {
        let mut stored = self.ledger.get(id).await?;
        if stored.run.status != Status::Pending {
            return self.ledger.cancel(&stored.run).await;
        }
        let asked = Failure::new(ErrorKind::Invalid, "cancelled before it began");
        stored.run.refuse(Status::Cancelled, &asked, self.ledger.now());
        // Whoever begins it at this moment writes the record too: one of both finds it changed.
        self.ledger.save(&mut stored).await?;
        self.ledger.dequeue(id).await?;
        self.record(&mut stored).await
    }
}
