//! How many records the door refused lately, and why: for whoever asks what is wrong (`GET /status/ingest`).
//!
//! State keeps of each stream a count for each of the last hours and the newest reasons (`refusals/{stream}`). A process gathers
//! what it refuses and adds it every few seconds at most; what it has gathered when it ends is not counted.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use shared::Result;
use shared::api::status::{PartStatus, Problem, counted};
use shared::ports::Ports;
use shared::state::{change_json, get_json};

use crate::Ingest;
use crate::answer::{Answer, Outcome};

const HOUR_MS: i64 = 3_600_000;
/// Hours that are told of.
const HOURS: i64 = 24;
/// Reasons that are kept of a stream.
const REASONS: usize = 5;
/// Characters of a reason that are kept.
const REASON_CHARACTERS: usize = 300;
/// How often a process adds what it gathered of a stream, milliseconds.
const EVERY_MS: i64 = 5_000;

/// What was refused.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Refusals {
    /// Records by the hour, counted from the epoch.
    hours: BTreeMap<i64, u64>,
    /// The newest first.
    newest: Vec<Refusal>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Refusal {
    /// Milliseconds since the epoch.
    at_ms: i64,
    code: String,
    message: String,
}

/// What this process refused and has not told yet, by stream.
#[derive(Debug, Default)]
pub(crate) struct Gathered(Mutex<BTreeMap<String, Pending>>);

#[derive(Debug, Default)]
struct Pending {
    refusals: Refusals,
    /// When some were last added to the state, milliseconds since the epoch.
    told_ms: i64,
}

impl Refusals {
    /// Those in an answer; none when nothing was refused.
    fn of(answer: &Answer, now_ms: i64) -> Option<Self> {
        let refusal = |outcome: &Outcome| match outcome {
            Outcome::Rejected { code, message } => {
                let message = message.chars().take(REASON_CHARACTERS).collect();
                Some(Refusal { at_ms: now_ms, code: code.clone(), message })
            }
            _ => None,
        };
        let refused = answer.records.iter().rev().filter_map(|entry| refusal(&entry.outcome));
        let newest: Vec<Refusal> = refused.take(REASONS).collect();
        let hours = BTreeMap::from([(now_ms / HOUR_MS, answer.rejected as u64)]);
        (!newest.is_empty()).then_some(Self { hours, newest })
    }

    fn add(&mut self, more: &Self, now_ms: i64) {
        for (hour, count) in &more.hours {
            *self.hours.entry(*hour).or_default() += count;
        }
        self.hours.retain(|hour, _| *hour > now_ms / HOUR_MS - HOURS);
        self.newest.splice(0..0, more.newest.iter().cloned());
        self.newest.truncate(REASONS);
    }

    fn count(&self, now_ms: i64) -> u64 {
        self.hours.iter().filter(|(hour, _)| **hour > now_ms / HOUR_MS - HOURS).map(|(_, count)| count).sum()
    }

    fn problem(&self, stream: &str, now_ms: i64) -> Option<Problem> {
        let (count, newest) = (self.count(now_ms), self.newest.first()?);
        let message =
            format!("{} refused in the last {HOURS} hours; the newest: {}", counted(count, "record"), newest.message);
        (count > 0).then(|| Problem::warning("stream", stream, message).since(newest.at_ms))
    }
}

impl Gathered {
    fn take(&self, stream: &str, refusals: Option<&Refusals>, now_ms: i64, wait_ms: i64) -> Option<Refusals> {
        let mut gathered = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let pending = gathered.entry(stream.to_owned()).or_default();
        if let Some(refusals) = refusals {
            pending.refusals.add(refusals, now_ms);
        }
        if pending.refusals.newest.is_empty() || now_ms - pending.told_ms < wait_ms {
            return None;
        }
        pending.told_ms = now_ms;
        Some(std::mem::take(&mut pending.refusals))
    }
}

impl Ingest {
    /// Counts what an answer refuses. The answer is given whatever comes of it.
    pub(crate) async fn count_refused(&self, answer: &Answer) {
        let now_ms = self.ports.clock.now_ms();
        let Some(refusals) = Refusals::of(answer, now_ms) else { return };
        let Some(due) = self.refused.take(&answer.stream, Some(&refusals), now_ms, EVERY_MS) else { return };
        if let Err(error) = add(&self.ports, &answer.stream, &due).await {
            tracing::warn!(stream = answer.stream, %error, "refused records could not be counted for the status");
        }
    }

    /// What was refused lately.
    ///
    /// # Errors
    /// What the state answers.
    pub(crate) async fn status(&self) -> Result<PartStatus> {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Refused<'a> {
            stream: &'a str,
            /// In the last [`HOURS`] hours.
            records: u64,
            newest: Vec<Refusal>,
        }
        let (mut part, mut all) = (PartStatus::default(), Vec::new());
        let now_ms = self.ports.clock.now_ms();
        for stream in self.project.file().streams.keys() {
            if let Some(due) = self.refused.take(stream, None, now_ms, 0) {
                add(&self.ports, stream, &due).await?;
            }
            let kept = get_json::<Refusals>(self.ports.state.as_ref(), &key(stream)).await?;
            let refusals = kept.map(|(refusals, _)| refusals).unwrap_or_default();
            part.problems.extend(refusals.problem(stream, now_ms));
            all.push(Refused { stream, records: refusals.count(now_ms), newest: refusals.newest });
        }
        part.list("refused", &all)?;
        Ok(part)
    }
}

async fn add(ports: &Ports, stream: &str, refusals: &Refusals) -> Result<()> {
    let now_ms = ports.clock.now_ms();
    let add = |kept: &mut Refusals| {
        kept.add(refusals, now_ms);
        true
    };
    change_json(ports.state.as_ref(), &*ports.random, &key(stream), add).await.map(drop)
}

pub(crate) fn key(stream: &str) -> String {
    format!("refusals/{stream}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(at_ms: i64, count: u64) -> Refusals {
        let refusal = Refusal { at_ms, code: "type".into(), message: format!("at {at_ms}") };
        Refusals { hours: BTreeMap::from([(at_ms / HOUR_MS, count)]), newest: vec![refusal] }
    }

    #[test]
    fn hours_that_are_long_past_are_forgotten() {
        let mut kept = refused(HOUR_MS, 7);
        kept.add(&refused(2 * HOUR_MS, 2), 2 * HOUR_MS);
        assert_eq!(kept.count(24 * HOUR_MS), 9);
        assert_eq!(kept.count(25 * HOUR_MS), 2);
        let problem = kept.problem("s", 25 * HOUR_MS).unwrap();
        assert!(problem.message.starts_with("2 records refused in the last 24 hours; the newest: at 72"));
        assert_eq!(kept.problem("s", 26 * HOUR_MS), None);
        kept.add(&refused(30 * HOUR_MS, 1), 30 * HOUR_MS);
        assert_eq!(kept.hours.len(), 1);
    }

    #[test]
    fn a_process_tells_at_once_and_then_every_few_seconds() {
        let gathered = Gathered::default();
        let take = |at_ms| gathered.take("s", Some(&refused(at_ms, 1)), at_ms, EVERY_MS);
        let count = |refusals: Option<Refusals>| refusals.map(|refusals| refusals.hours.into_values().sum::<u64>());
        assert_eq!(count(take(10_000)), Some(1));
        assert_eq!(count(take(12_000)), None);
        assert_eq!(count(take(14_999)), None);
        assert_eq!(count(take(15_000)), Some(3));
        assert_eq!(gathered.take("s", None, 99_000, 0), None, "nothing is left to tell");
    }
}
