//! Runs that nobody waits for: stored and queued by a request, done by whoever ticks next, and taken up again by later ticks when
//! a function's time was up or its process died, until they are over.

use jobs::ledger::group_of;
use jobs::{Failure, Served, Status};
use serde_json::{Value, json};
use shared::{Error, ErrorKind, Result};

use crate::Transform;
use crate::event::RunRequest;
use crate::record::Run;

/// Runs of a workflow that wait at most.
const MOST_QUEUED: usize = 50;
/// Attempts after which a run whose runner died each time is given up.
const MOST_ATTEMPTS: u32 = 5;

impl Transform {
    /// Files a run for a later tick.
    ///
    /// # Errors
    /// As the begin of a run; `Limit` when too many runs of the workflow wait.
    pub(crate) async fn enqueue(&self, workflow: &str, asked: &RunRequest) -> Result<Run> {
        let (_, mut run) = self.draft(workflow, asked, None)?;
        run.status = Status::Pending;
        let waiting = self.queue.waiting(Some(workflow)).await?.len();
        if waiting >= MOST_QUEUED {
            return Err(Error::limit(format!(
                "expected at most {MOST_QUEUED} runs of workflow `{workflow}` to wait, found {waiting}"
            )));
        }
        let stored = self.ledger.file(run).await?;
        self.queue.add(&stored.record.run).await?;
        Ok(stored.record)
    }

    /// Does what waits: the runs of one workflow in the order they came, different workflows side by side. The answer names the
    /// runs that were worked on, and how they stand.
    ///
    /// # Errors
    /// The first failure, after all had their turn. A run whose jobs fail is no error.
    pub(crate) async fn serve_queue(&self) -> Result<Value> {
        let serve = async |id: String| {
            Ok(match self.serve(&id).await? {
                None => Served::Passed,
                Some(run) if run.interrupted => Served::Unfinished(run),
                Some(run) => Served::Done(run),
            })
        };
        let served = self.queue.serve(serve).await?;
        Ok(served.iter().map(|run| json!({"run": run.run, "status": run.status})).collect())
    }

    /// Works on one run; `None` when it has to wait for another one, or needs no more work.
    async fn serve(&self, id: &str) -> Result<Option<Run>> {
        let workflow = group_of(id);
        let lease = match self.take(workflow, id).await {
            Err(error) if error.kind() == ErrorKind::Conflict => return Ok(None),
            other => other?,
        };
        let mut stored = match self.ledger.get(id).await {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                self.leases.release(lease).await?;
                self.queue.remove(id).await?;
                return Ok(None);
            }
            other => other?,
        };
        let died = stored.record.status == Status::Running && stored.record.attempt >= MOST_ATTEMPTS;
        if died {
            self.close(id).await?;
        }
        if died || stored.record.status.is_over() && !stored.record.interrupted {
            self.leases.release(lease).await?;
            self.queue.remove(id).await?;
            return Ok(None);
        }
        let run = stored.record.clone();
        let declared = self.context.project.workflow(workflow);
        let plan = |declared| self.run_plan(workflow, declared, &run.parameters)?.only(&run.only);
        let run_plan = match declared.and_then(plan) {
            Ok(run_plan) => run_plan,
            Err(error) => {
                stored.record.refuse(Status::Failed, &Failure::from(&error), self.ledger.now());
                self.ledger.save(&mut stored).await?;
                self.record(&mut stored).await?;
                self.leases.release(lease).await?;
                self.queue.remove(id).await?;
                return Ok(Some(stored.record));
            }
        };
        if stored.record.status == Status::Pending {
            stored.record.status = Status::Running;
            stored.record.started = self.ledger.now();
        } else {
            self.close(id).await?;
            stored = self.ledger.get(id).await?;
            stored.record.resume(run_plan.tasks.iter().map(|(name, task)| (name.clone(), task.into.to_string())));
        }
        self.ledger.save(&mut stored).await?;
        let run = self.see_through(run_plan, stored, lease).await?;
        if !(run.interrupted && run.got_on()) {
            self.queue.remove(id).await?;
        }
        Ok(Some(run))
    }

    /// Asks a run to stop: at once when it still waits, at its next heartbeat when it goes on.
    ///
    /// # Errors
    /// `NotFound`; `Conflict` when it is over.
    pub(crate) async fn cancel(&self, id: &str) -> Result<()> {
        let mut stored = self.ledger.get(id).await?;
        if stored.record.status != Status::Pending {
            let run = &stored.record;
            if run.status == Status::Running && self.leases.cancel(&run.workflow, &run.run).await? {
                return Ok(());
            }
            let (run, status) = (&run.run, run.status.as_str());
            return Err(Error::conflict(format!("expected a run that goes on, but `{run}` is {status}")));
        }
        let asked = Failure::new(ErrorKind::Invalid, "cancelled before it began");
        stored.record.refuse(Status::Cancelled, &asked, self.ledger.now());
        // Whoever begins it at this moment writes the record too: one of both finds it changed.
        self.ledger.save(&mut stored).await?;
        self.queue.remove(id).await?;
        self.record(&mut stored).await
    }
}
