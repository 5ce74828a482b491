//! The scheduler: runs crawls, workflows and insights when their schedule is due. The next due time of each is kept in state, so
//! a schedule that came due while nothing ran runs once at the next start.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::json;
use shared::config::Ports;
use shared::project::{Project, Schedule};
use shared::state::{Expect, get_json, put_json};
use shared::{ErrorKind, Result};

use super::events;
use super::functions::{Function, Functions};
use super::stop::Stop;

/// How often a schedule is compared with the clock.
const LOOK: Duration = Duration::from_millis(500);
/// Calls of one due time at most: the first one and two retries, as EventBridge makes them for Lambda.
const ATTEMPTS: u32 = 3;

/// Something that runs on a schedule.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) function: Function,
    /// Name of the location, workflow or insight.
    pub(super) name: String,
    schedule: Schedule,
}

/// What state holds about an entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Due {
    /// The schedule that `next_ms` was reckoned by; another one starts afresh.
    schedule: String,
    /// Milliseconds since the epoch.
    pub(super) next_ms: i64,
}

/// What to do with an entry now.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Decision {
    run: bool,
    /// What to store; `None` when it is stored already.
    store: Option<Due>,
}

/// Compares what is stored with the time. However many due times have passed, the entry runs once.
fn decide(schedule: &Schedule, stored: Option<&Due>, now_ms: i64) -> Result<Decision> {
    let text = schedule.to_string();
    let run = match stored {
        Some(due) if due.schedule == text && due.next_ms > now_ms => return Ok(Decision { run: false, store: None }),
        Some(due) => due.schedule == text,
        None => false,
    };
    let next_ms = schedule.next_after(now_ms)?;
    Ok(Decision { run, store: Some(Due { schedule: text, next_ms }) })
}

/// All schedules of a lakehouse file.
pub(super) fn entries(project: &Project) -> Vec<Entry> {
    let file = project.file();
    let entry = |function, name: &String, schedule: &Option<Schedule>| {
        schedule.clone().map(|schedule| Entry { function, name: name.clone(), schedule })
    };
    let crawls = file.locations.iter().filter_map(|(name, l)| entry(Function::Crawl, name, &l.schedule));
    let runs = file.workflows.iter().filter_map(|(name, w)| entry(Function::Transform, name, &w.schedule));
    let insights = file.insights.iter().filter_map(|(name, i)| entry(Function::Insight, name, &i.schedule));
    crawls.chain(runs).chain(insights).collect()
}

impl Entry {
    fn key(&self) -> String {
        format!("scheduler/{}/{}", self.function.as_str(), self.name)
    }

    /// When the entry is due next, as stored.
    pub(super) async fn due(&self, ports: &Ports) -> Result<Option<Due>> {
        Ok(get_json(ports.state.as_ref(), &self.key()).await?.map(|(due, _)| due))
    }

    /// Runs the entry whenever it is due, until told to stop.
    pub(super) async fn run(self, ports: Ports, functions: Arc<Functions>, mut stop: Stop) {
        loop {
            if let Err(error) = self.look(&ports, &functions, &mut stop).await {
                tracing::error!(function = self.function.as_str(), name = self.name, %error, "a schedule failed");
            }
            if !stop.sleep(LOOK).await {
                return;
            }
        }
    }

    /// Runs the entry if it is due. The next due time is stored after the run: a process that dies in between runs it again.
    async fn look(&self, ports: &Ports, functions: &Arc<Functions>, stop: &mut Stop) -> Result<()> {
        let decision = decide(&self.schedule, self.due(ports).await?.as_ref(), ports.clock.now_ms())?;
        let ran = if decision.run { self.call(ports, functions, stop).await } else { Ok(()) };
        if let Some(due) = decision.store {
            put_json(ports.state.as_ref(), &self.key(), &due, Expect::Anything).await?;
        }
        ran
    }

    async fn call(&self, ports: &Ports, functions: &Arc<Functions>, stop: &mut Stop) -> Result<()> {
        let detail = json!({"function": self.function.as_str(), "name": self.name});
        let now_ms = ports.clock.now_ms();
        let event = events::schedule(&detail, &format!("{}-{now_ms}", self.name), now_ms);
        for attempt in 1.. {
            match functions.call(self.function, event.clone()).await {
                Ok(_) => break,
                Err(error) if attempt < ATTEMPTS && error.kind() == ErrorKind::Retry && !stop.is_set() => {
                    tracing::warn!(name = self.name, %error, attempt, "a scheduled call will be made again");
                    stop.sleep(Duration::from_secs(u64::from(attempt) * 2)).await;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use shared::clock::{Clock, ManualClock};

    use super::*;

    const MINUTE: i64 = 60_000;

    fn every_five_minutes() -> Schedule {
        "rate(5m)".parse().unwrap()
    }

    #[test]
    fn a_new_schedule_waits_for_its_first_due_time() {
        let first = decide(&every_five_minutes(), None, 1).unwrap();
        assert_eq!((first.run, first.store.unwrap().next_ms), (false, 5 * MINUTE));
    }

    #[test]
    fn a_schedule_runs_once_for_each_due_time() {
        let clock = ManualClock::at(1);
        let mut stored = decide(&every_five_minutes(), None, clock.now_ms()).unwrap().store;
        let mut runs = 0;
        for _ in 0..20 {
            clock.advance(MINUTE);
            let decision = decide(&every_five_minutes(), stored.as_ref(), clock.now_ms()).unwrap();
            runs += u32::from(decision.run);
            stored = decision.store.or(stored);
        }
        assert_eq!(runs, 4);
    }

    #[test]
    fn due_times_missed_while_nothing_ran_are_made_up_for_by_one_run() {
        let stored = Due { schedule: "rate(5m)".into(), next_ms: 5 * MINUTE };
        let late = decide(&every_five_minutes(), Some(&stored), 61 * MINUTE).unwrap();
        assert_eq!((late.run, late.store.as_ref().map(|d| d.next_ms)), (true, Some(65 * MINUTE)));
        assert!(!decide(&every_five_minutes(), late.store.as_ref(), 61 * MINUTE + 1).unwrap().run);
    }

    #[test]
    fn a_changed_schedule_starts_afresh() {
        let stored = Due { schedule: "rate(1m)".into(), next_ms: 0 };
        let decision = decide(&every_five_minutes(), Some(&stored), MINUTE).unwrap();
        assert_eq!((decision.run, decision.store.map(|d| d.next_ms)), (false, Some(5 * MINUTE)));
    }
}
