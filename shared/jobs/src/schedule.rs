//! Schedules of the lakehouse file: what is due, run by whoever looks, once for each due time.
//!
//! State holds of each entry when it is due next and until when somebody else has it (`scheduler/{function}/{name}`). Whoever
//! finds an entry due claims it by compare-and-swap, runs it, and stores the next due time after the run: two that look at the
//! same time run it once, and an entry whose runner died is due again when the claim has run out. However many due times have
//! passed, an entry runs once.

use std::fmt::Write as _;
use std::future::Future;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use shared::api::status::{PartStatus, Problem};
use shared::ports::Ports;
use shared::project::{Project, Schedule};
use shared::state::{Expect, State, Version, get_json, put_json};
use shared::{Error, ErrorKind, Result, deadline};

use crate::failures;

/// How long a claim lasts unless the runner's deadline says less: Lambda's longest time-out and a minute.
pub const CLAIM_MS: i64 = 16 * 60_000;
/// A runner is dead this long after its deadline.
const AFTER_DEADLINE_MS: i64 = 5_000;
/// Runs of one due time at most: the first one and two more after passing faults, as EventBridge makes them for Lambda.
const ATTEMPTS: u32 = 3;
/// Before the second run of a due time; before the third it is twice as long.
const WAIT_MS: i64 = 2_000;
/// What is due for longer is late: ticks come each minute, and one may be busy with others.
const LATE_MS: i64 = 5 * 60_000;

/// What runs on a schedule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A location.
    Crawl,
    /// A workflow.
    Transform,
    Insight,
}

impl Kind {
    /// The name of the function that does it.
    pub fn function(self) -> &'static str {
        match self {
            Self::Crawl => "crawl",
            Self::Transform => "transform",
            Self::Insight => "insight",
        }
    }

    /// What the lakehouse file calls it.
    fn subject(self) -> &'static str {
        match self {
            Self::Crawl => "location",
            Self::Transform => "workflow",
            Self::Insight => "insight",
        }
    }
}

/// A schedule of the lakehouse file.
#[derive(Debug, Clone)]
pub struct Entry {
    pub kind: Kind,
    /// Name of the location, workflow or insight.
    pub name: String,
    schedule: Schedule,
}

/// What state holds about an entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Due {
    /// The schedule that `next_ms` was reckoned by; another one starts afresh.
    schedule: String,
    /// Milliseconds since the epoch.
    pub next_ms: i64,
    /// Until then nobody else begins: somebody runs it, or it waits after a failure. Milliseconds since the epoch.
    #[serde(default)]
    held_until_ms: i64,
    /// Runs of this due time that failed.
    #[serde(default)]
    failures: u32,
}

/// One due time of an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Occurrence {
    pub name: String,
    /// Milliseconds since the epoch.
    pub due_ms: i64,
}

impl Occurrence {
    /// The same for each run of this due time, and different from every other.
    pub fn id(&self) -> String {
        format!("{}-{}", self.name, self.due_ms)
    }
}

/// How far a run got.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress<T> {
    Done(T),
    /// Some of it is done, the rest is due at once.
    Unfinished(T),
}

/// What to do with an entry now.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Decision {
    /// It is not due, or somebody has it.
    Wait,
    /// It is new, or its schedule is another one: this is stored.
    Begin(Due),
    /// It is due: `claim` is stored first, then it runs, then `next` is stored.
    Run { claim: Due, next: Due },
}

/// Compares what is stored with the time.
fn decide(schedule: &Schedule, stored: Option<&Due>, now_ms: i64, claim_until_ms: i64) -> Result<Decision> {
    let text = schedule.to_string();
    let stored = stored.filter(|due| due.schedule == text);
    if stored.is_some_and(|due| due.next_ms > now_ms || due.held_until_ms > now_ms) {
        return Ok(Decision::Wait);
    }
    let next = Due { next_ms: schedule.next_after(now_ms)?, schedule: text, held_until_ms: 0, failures: 0 };
    Ok(match stored {
        Some(due) => Decision::Run { claim: Due { held_until_ms: claim_until_ms, ..due.clone() }, next },
        None => Decision::Begin(next),
    })
}

/// What is stored after a run, which began at the due time in `claim`.
fn after<T>(claim: Due, next: Due, outcome: &Result<Progress<T>>, now_ms: i64) -> Due {
    let passing = |error: &Error| matches!(error.kind(), ErrorKind::Retry | ErrorKind::OutcomeUnknown);
    match outcome {
        Ok(Progress::Unfinished(_)) => Due { held_until_ms: 0, ..claim },
        Err(error) if passing(error) && claim.failures + 1 < ATTEMPTS => {
            let failures = claim.failures + 1;
            Due { held_until_ms: now_ms + WAIT_MS * i64::from(failures), failures, ..claim }
        }
        Ok(Progress::Done(_)) | Err(_) => next,
    }
}

/// All schedules of a lakehouse file.
pub fn entries(project: &Project) -> Vec<Entry> {
    let file = project.file();
    let entry = |kind, name: &String, schedule: &Option<Schedule>| {
        schedule.clone().map(|schedule| Entry { kind, name: name.clone(), schedule })
    };
    let crawls = file.locations.iter().filter_map(|(name, l)| entry(Kind::Crawl, name, &l.schedule));
    let runs = file.workflows.iter().filter_map(|(name, w)| entry(Kind::Transform, name, &w.schedule));
    let insights = file.insights.iter().filter_map(|(name, i)| entry(Kind::Insight, name, &i.schedule));
    crawls.chain(runs).chain(insights).collect()
}

/// The entry that a tick's `detail.name` names; none: everything that is due.
///
/// # Errors
/// `Invalid` when the name is no text.
pub fn named(detail: &Value) -> Result<Option<&str>> {
    match detail.get("name") {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(name)) => Ok(Some(name)),
        Some(other) => {
            Err(Error::invalid(format!("expected a name as text in the tick's `detail.name`, found `{other}`")))
        }
    }
}

/// Runs what is due of one kind, one after the other: what has to wait is left to whoever looks next. The answer is
/// `{"ran": [{"name", "answer"}], "left": [name]}`, where `left` had no time any more.
///
/// # Errors
/// When some failed, after all had their turn: the kind of the first failure, and each with its name.
pub async fn tick<R, F>(ports: &Ports, project: &Project, kind: Kind, run: R) -> Result<Value>
where
    R: Fn(Occurrence) -> F,
    F: Future<Output = Result<Progress<Value>>>,
{
    let (mut ran, mut left, mut failed) = (Vec::new(), Vec::new(), Vec::new());
    for entry in entries(project).into_iter().filter(|entry| entry.kind == kind) {
        if deadline::is_near(ports.clock.as_ref()) && !(ran.is_empty() && failed.is_empty()) {
            left.push(entry.name);
            continue;
        }
        match entry.run_if_due(ports, &run).await {
            Ok(None) => {}
            Ok(Some(answer)) => ran.push(json!({"name": entry.name, "answer": answer})),
            Err(error) => {
                tracing::error!(function = kind.function(), name = entry.name, %error, "a due run failed");
                failed.push((entry.name, error));
            }
        }
    }
    match failed.first() {
        None => Ok(json!({"ran": ran, "left": left})),
        Some((_, first)) => Err(Error::new(first.kind(), told(&ran, &failed))),
    }
}

/// What failed, and why; what ran.
fn told(ran: &[Value], failed: &[(String, Error)]) -> String {
    let mut text = format!("{} of {} due runs failed", failed.len(), ran.len() + failed.len());
    for (name, error) in failed {
        // Writing to a String can't fail.
        let _ = write!(text, "; `{name}`: {error}");
    }
    for name in ran.iter().filter_map(|one| one["name"].as_str()) {
        let _ = write!(text, "; `{name}` ran");
    }
    text
}

/// Gives up every claim: only for a host that knows that nobody runs anything, when it starts.
///
/// # Errors
/// What the state answers.
pub async fn release_all(ports: &Ports, project: &Project) -> Result<()> {
    for entry in entries(project) {
        if let Some(due) = entry.due(ports).await? {
            put_json(ports.state.as_ref(), &entry.key(), &Due { held_until_ms: 0, ..due }, Expect::Anything).await?;
        }
    }
    Ok(())
}

/// When an entry is due next.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Upcoming<'a> {
    function: &'static str,
    name: &'a str,
    /// `None` before anybody looked at it.
    next_ms: Option<i64>,
}

/// What is due of one kind, as the list `schedules`, and what of it is late or fails.
///
/// # Errors
/// What the state answers.
pub async fn status(ports: &Ports, project: &Project, kind: Kind) -> Result<PartStatus> {
    let (mut part, mut upcoming) = (PartStatus::default(), Vec::new());
    let entries: Vec<Entry> = entries(project).into_iter().filter(|entry| entry.kind == kind).collect();
    for entry in &entries {
        let due = entry.due(ports).await?;
        part.problems.extend(due.as_ref().and_then(|due| entry.lateness(due, ports.clock.now_ms())));
        // What becomes of a crawl is kept by the crawl, whoever asks for it.
        if kind != Kind::Crawl {
            let failing = failures::load(ports, kind.function(), &entry.name).await?;
            part.problems.extend(failing.map(|failing| failing.problem(kind.subject(), &entry.name, "its due run")));
        }
        upcoming.push(Upcoming { function: kind.function(), name: &entry.name, next_ms: due.map(|due| due.next_ms) });
    }
    part.list("schedules", &upcoming)?;
    Ok(part)
}

impl Entry {
    fn key(&self) -> String {
        format!("scheduler/{}/{}", self.kind.function(), self.name)
    }

    /// When the entry is due next, as stored.
    ///
    /// # Errors
    /// What the state answers.
    pub async fn due(&self, ports: &Ports) -> Result<Option<Due>> {
        Ok(get_json(ports.state.as_ref(), &self.key()).await?.map(|(due, _)| due))
    }

    fn lateness(&self, due: &Due, now_ms: i64) -> Option<Problem> {
        let is_late = now_ms - due.next_ms >= LATE_MS && due.held_until_ms <= now_ms;
        let message = format!("due by `{}`, and nobody has run it", self.schedule);
        is_late.then(|| {
            Problem::error(self.kind.subject(), &self.name, message)
                .since(due.next_ms)
                .advise(format!("see whether ticks of `{}` come, and what its log says", self.kind.function()))
        })
    }

    /// Runs the entry if it is due and nobody else has it; its answer if it ran.
    ///
    /// # Errors
    /// What the run fails with, and what the state answers.
    pub async fn run_if_due<T, R, F>(&self, ports: &Ports, run: R) -> Result<Option<T>>
    where
        R: FnOnce(Occurrence) -> F,
        F: Future<Output = Result<Progress<T>>>,
    {
        let (state, now_ms) = (ports.state.as_ref(), ports.clock.now_ms());
        let stored = get_json::<Due>(state, &self.key()).await?;
        let expect = stored.as_ref().map_or(Expect::Absent, |(_, version)| Expect::Version(version.clone()));
        let until_ms = deadline::current().map_or(i64::MAX, |at_ms| at_ms + AFTER_DEADLINE_MS).min(now_ms + CLAIM_MS);
        let (claim, next) = match decide(&self.schedule, stored.as_ref().map(|(due, _)| due), now_ms, until_ms)? {
            Decision::Wait => return Ok(None),
            Decision::Begin(first) => {
                self.swap(state, &first, expect).await?;
                return Ok(None);
            }
            Decision::Run { claim, next } => (claim, next),
        };
        let Some(version) = self.swap(state, &claim, expect).await? else { return Ok(None) };
        let outcome = run(Occurrence { name: self.name.clone(), due_ms: claim.next_ms }).await;
        if self.kind != Kind::Crawl {
            failures::note(ports, self.kind.function(), &self.name, &outcome).await;
        }
        let due = after(claim, next, &outcome, ports.clock.now_ms());
        let kept = self.swap(state, &due, Expect::Version(version)).await;
        let (Progress::Done(answer) | Progress::Unfinished(answer)) = outcome?;
        if kept?.is_none() {
            let function = self.kind.function();
            tracing::warn!(
                function,
                name = self.name,
                "a run outlasted its claim, so that somebody else may have run it too"
            );
        }
        Ok(Some(answer))
    }

    /// Writes what is due; `None` when somebody else wrote first.
    async fn swap(&self, state: &dyn State, due: &Due, expect: Expect) -> Result<Option<Version>> {
        match put_json(state, &self.key(), due, expect).await {
            Ok(version) => Ok(Some(version)),
            Err(error) if error.kind() == ErrorKind::Conflict => Ok(None),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests;
