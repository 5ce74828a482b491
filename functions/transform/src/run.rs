//! A run of a workflow: starts jobs when they may start, up to `parallel` at once, tries them again, and keeps the record.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use jobs::lease::{Heartbeat, Lease, Leases, Renewal};
use jobs::{Failure, Ledger, Status, Stored};
use shared::{Error, ErrorKind, Result};
use tokio::task::{Id, JoinError, JoinSet};
use tracing::Instrument;

use crate::job::{JobContext, Task};
use crate::plan::Plan;
use crate::record::{Outcome, Run};

/// Waits of a run.
#[derive(Debug, Clone, Copy)]
pub struct Timings {
    /// Before the second try; each further wait is twice as long.
    pub first_wait: Duration,
    pub longest_wait: Duration,
    /// Between renewals of the lease.
    pub heartbeat: Duration,
}

impl Default for Timings {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self { first_wait: seconds(1), longest_wait: seconds(60), heartbeat: seconds(5) }
    }
}

/// What a run needs besides its record.
#[derive(Debug, Clone)]
pub struct RunPlan {
    pub plan: Plan,
    pub tasks: BTreeMap<String, Task>,
    /// Jobs at once.
    pub parallel: usize,
    pub timings: Timings,
    /// How long jobs may work before what is left has to wait for a resume; none: as long as they take.
    pub time: Option<Duration>,
}

impl RunPlan {
    /// The same for some jobs alone; for all when none is named.
    ///
    /// # Errors
    /// `NotFound`, with the names that there are, for an unknown job.
    pub fn only(self, jobs: &BTreeSet<String>) -> Result<Self> {
        if jobs.is_empty() {
            return Ok(self);
        }
        if let Some(unknown) = jobs.iter().find(|job| !self.tasks.contains_key(*job)) {
            let known: Vec<_> = self.tasks.keys().map(|job| format!("`{job}`")).collect();
            return Err(Error::not_found(format!("no job `{unknown}`: expected one of {}", known.join(", "))));
        }
        let Self { plan, mut tasks, .. } = self;
        tasks.retain(|job, _| jobs.contains(job));
        Ok(Self { plan: plan.only(jobs), tasks, ..self })
    }
}

/// Runs the pending jobs of `stored` until none is left; the record is saved at each step.
///
/// # Errors
/// `Conflict` when somebody else took the run over: the record is theirs then. Failures of jobs are in the record.
pub async fn carry_out(
    context: &Arc<JobContext>,
    ledger: &Ledger<Run>,
    leases: &Leases,
    run_plan: &RunPlan,
    stored: &mut Stored<Run>,
    lease: &mut Lease,
) -> Result<()> {
    let mut executor = Executor { context, ledger, run_plan, stored, jobs: JoinSet::new(), names: HashMap::new() };
    let mut heartbeat = Heartbeat::new(leases, run_plan.timings.heartbeat);
    let mut time_up = std::pin::pin!(async {
        match run_plan.time {
            Some(time) => tokio::time::sleep(time).await,
            None => std::future::pending().await,
        }
    });
    executor.advance().await?;
    while !executor.jobs.is_empty() {
        tokio::select! {
            Some(done) = executor.jobs.join_next_with_id() => {
                executor.take(done);
                executor.advance().await?;
            }
            () = &mut time_up => {
                executor.interrupt().await?;
                return Ok(());
            }
            () = heartbeat.due() => match heartbeat.beat(lease).await {
                Renewal::Renewed => {}
                Renewal::Cancel => executor.cancel().await?,
                Renewal::Lost => return Err(lost(&executor.stored.record.run)),
            },
        }
    }
    Ok(())
}

fn lost(run: &str) -> Error {
    Error::conflict(format!("run `{run}` was taken over by another process because its lease ran out"))
}

/// What a job's last try left.
struct Done {
    name: String,
    tries: u32,
    outcome: Outcome,
    result: Result<()>,
}

/// The jobs under way.
struct Executor<'a> {
    context: &'a Arc<JobContext>,
    ledger: &'a Ledger<Run>,
    run_plan: &'a RunPlan,
    stored: &'a mut Stored<Run>,
    jobs: JoinSet<Done>,
    names: HashMap<Id, String>,
}

impl Executor<'_> {
    /// Skips what can't start any more, starts what may, saves the record.
    async fn advance(&mut self) -> Result<()> {
        let now = self.ledger.now();
        for (name, by) in self.run_plan.plan.blocked(&self.stored.record.statuses()) {
            if let Some(job) = self.stored.record.jobs.get_mut(&name) {
                job.status = Status::Skipped;
                job.error =
                    Some(Failure::new(ErrorKind::Invalid, format!("needs the job `{by}`, which did not succeed")));
                job.ended = Some(now);
            }
        }
        let free = self.run_plan.parallel.saturating_sub(self.jobs.len());
        for name in self.run_plan.plan.ready(&self.stored.record.statuses()).into_iter().take(free) {
            self.start(&name);
        }
        self.ledger.save(self.stored).await
    }

    fn start(&mut self, name: &str) {
        let (Some(job), Some(task)) = (self.stored.record.jobs.get_mut(name), self.run_plan.tasks.get(name)) else {
            return;
        };
        job.status = Status::Running;
        job.started = Some(self.ledger.now());
        let task = Task { attempt: job.attempt, ..task.clone() };
        tracing::info!(run = task.run, job = name, "job begins");
        let handle = self.jobs.spawn(work(self.context.clone(), task, self.run_plan.timings).in_current_span());
        self.names.insert(handle.id(), name.to_owned());
    }

    /// Puts a finished job into the record.
    fn take(&mut self, done: Result<(Id, Done), JoinError>) {
        let done = match done {
            Ok((_, done)) => done,
            Err(error) => {
                let name = self.names.get(&error.id()).cloned().unwrap_or_default();
                let result = Err(Error::bug("the job's task broke off").with_source(error));
                Done { name, tries: 1, outcome: Outcome::default(), result }
            }
        };
        let Some(job) = self.stored.record.jobs.get_mut(&done.name) else { return };
        job.tries = done.tries;
        job.outcome = done.outcome;
        job.ended = Some(self.ledger.now());
        job.status = if done.result.is_ok() { Status::Succeeded } else { Status::Failed };
        job.error = done.result.as_ref().err().map(Failure::from);
        match done.result {
            Ok(()) => tracing::info!(job = done.name, rows = job.outcome.rows_written, "job succeeded"),
            Err(error) => {
                // What was found may be a row's content: the run's record has it.
                tracing::error!(job = done.name, kind = %error.kind(), "job failed");
                tracing::debug!(job = done.name, %error, "the failure");
            }
        }
    }

    /// Stops the jobs under way because time is up. A commit that was under way may still have happened: a resume finds it.
    async fn interrupt(&mut self) -> Result<()> {
        self.jobs.shutdown().await;
        self.stored.record.interrupt(self.ledger.now());
        tracing::warn!(run = self.stored.record.run, "the function's time was up before the end of the run");
        self.ledger.save(self.stored).await
    }

    /// Stops the jobs under way and lets no other begin. A commit that was under way may still have happened: a resume finds it.
    async fn cancel(&mut self) -> Result<()> {
        self.jobs.shutdown().await;
        let now = self.ledger.now();
        for job in self.stored.record.jobs.values_mut().filter(|job| !job.status.is_over()) {
            job.status = Status::Cancelled;
            job.ended = Some(now);
        }
        self.ledger.save(self.stored).await
    }
}

/// Tries a job until it succeeds, its tries are used up, or its error says that another try would end the same.
async fn work(context: Arc<JobContext>, task: Task, timings: Timings) -> Done {
    let limit = Duration::from_secs(task.timeout.0);
    let tries = task.retries + 1;
    let mut r#try = 1;
    loop {
        let mut outcome = Outcome::default();
        let tried = tokio::time::timeout(limit, context.try_once(&task, r#try, &mut outcome)).await;
        let mut result = tried.unwrap_or_else(|_| {
            Err(Error::limit(format!("the job took longer than its timeout of `{}`", task.timeout)))
        });
        if r#try == tries && result.as_ref().is_err_and(|error| error.kind() == ErrorKind::Limit) {
            // The time may have run out just behind the commit.
            result = match context.find_commit(&task, &mut outcome).await {
                Ok(true) => Ok(()),
                _ => result,
            };
        }
        let again = result.as_ref().is_err_and(|error| is_worth_another_try(error.kind()));
        if !again || r#try == tries {
            return Done { name: task.name, tries: r#try, outcome, result };
        }
        if let Err(error) = result {
            tracing::warn!(run = task.run, job = task.name, r#try, kind = %error.kind(), "job is tried again");
            tracing::debug!(job = task.name, %error, "the failure");
        }
        tokio::time::sleep(wait(timings, r#try, &(&task.run, &task.name))).await;
        r#try += 1;
    }
}

/// What is wrong with the request stays wrong.
fn is_worth_another_try(kind: ErrorKind) -> bool {
    !matches!(kind, ErrorKind::Invalid | ErrorKind::Denied | ErrorKind::Bug)
}

/// The wait after a failed try: twice as long each time, between half of it and all of it, so that jobs that failed together
/// don't come back together. `seed` holds the run's id, which is random, and so is what is drawn from it.
fn wait(timings: Timings, r#try: u32, seed: &impl Hash) -> Duration {
    let doubled = 1 << r#try.saturating_sub(1).min(16);
    let whole = timings.first_wait.saturating_mul(doubled).min(timings.longest_wait);
    let mut hasher = DefaultHasher::new();
    (seed, r#try).hash(&mut hasher);
    let share = (hasher.finish() % 1000) as f64 / 1000.0;
    whole.mul_f64(0.5 + share / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn jobs_that_failed_together_come_back_apart() {
        let waits: std::collections::BTreeSet<_> =
            (0..10).map(|job| wait(Timings::default(), 1, &("w-1", job))).collect();
        assert!(waits.len() > 5, "{waits:?}");
    }

    proptest! {
        #[test]
        fn waits_double_up_to_the_longest(r#try in 1u32..100, run in ".*") {
            let timings = Timings::default();
            let whole = timings.first_wait.as_secs_f64() * 2f64.powi(i32::try_from(r#try).unwrap() - 1);
            let whole = whole.min(timings.longest_wait.as_secs_f64());
            let wait = wait(timings, r#try, &run).as_secs_f64();
            prop_assert!((whole / 2.0..=whole).contains(&wait), "{wait} of {whole}");
        }
    }
}
