//! What fails now: the last error of each piece of work, and since when it fails, kept until the work succeeds. Not what decides
//! anything: it is for whoever asks what is wrong.
//!
//! ```text
//! failures/{function}/{name}    e.g. `failures/batcher/orders`
//! ```

use std::fmt;

use serde::{Deserialize, Serialize};
use shared::api::status::Problem;
use shared::ports::Ports;
use shared::state::{self, Expect, change_json, get_json};
use shared::{Error, Result};

use crate::Failure;

/// Characters of a message that are kept.
const MOST_CHARACTERS: usize = 1_000;

/// Work that failed the last time it was tried.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Failing {
    /// The first failure after the last success, milliseconds since the epoch.
    pub since_ms: i64,
    pub last_ms: i64,
    /// Tries that failed one after the other.
    pub times: u64,
    /// The last error.
    #[serde(flatten)]
    pub error: Failure,
}

impl Failing {
    /// The problem of `name`, of whose kind `subject` is: `doing` says what fails, e.g. `writing it to its table`.
    pub fn problem(&self, subject: &str, name: &str, doing: impl fmt::Display) -> Problem {
        let times = if self.times == 1 { String::new() } else { format!(" {} times", self.times) };
        Problem::error(subject, name, format!("{doing} failed{times}: {}", self.error.message)).since(self.since_ms)
    }
}

/// Keeps what became of the work `name` of `function`. That this fails is logged and nothing else: the work's own result counts.
pub async fn note<T>(ports: &Ports, function: &str, name: &str, outcome: &Result<T>) {
    let kept = match outcome {
        Ok(_) => forget(ports, function, name).await,
        Err(error) => keep(ports, function, name, error).await,
    };
    if let Err(error) = kept {
        tracing::warn!(function, name, %error, "what became of the work could not be kept for the status");
    }
}

async fn keep(ports: &Ports, function: &str, name: &str, error: &Error) -> Result<()> {
    let now_ms = ports.clock.now_ms();
    let mut failure = Failure::from(error);
    if let Some((end, _)) = failure.message.char_indices().nth(MOST_CHARACTERS) {
        failure.message.truncate(end);
        failure.message.push('…');
    }
    let count = |failing: &mut Option<Failing>| {
        let (since_ms, times) = failing.as_ref().map_or((now_ms, 0), |before| (before.since_ms, before.times));
        *failing = Some(Failing { since_ms, last_ms: now_ms, times: times + 1, error: failure.clone() });
        true
    };
    change_json(ports.state.as_ref(), &*ports.random, &key(function, name), count).await.map(drop)
}

async fn forget(ports: &Ports, function: &str, name: &str) -> Result<()> {
    let key = key(function, name);
    match ports.state.get(&key).await? {
        None => Ok(()),
        Some(_) => ports.state.delete(&key, Expect::Anything).await,
    }
}

/// What is kept of the work, if it fails.
///
/// # Errors
/// What the state answers.
pub async fn load(ports: &Ports, function: &str, name: &str) -> Result<Option<Failing>> {
    Ok(get_json::<Option<Failing>>(ports.state.as_ref(), &key(function, name)).await?.and_then(|(failing, _)| failing))
}

/// Keeps it under another name of the work.
///
/// # Errors
/// What the state answers.
pub async fn rename(ports: &Ports, function: &str, from: &str, to: &str) -> Result<()> {
    state::rename(ports.state.as_ref(), &key(function, from), &key(function, to)).await
}

fn key(function: &str, name: &str) -> String {
    format!("failures/{function}/{name}")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use shared::clock::ManualClock;

    use super::*;

    #[tokio::test]
    async fn work_fails_since_its_first_failure_and_until_it_succeeds() {
        let clock = Arc::new(ManualClock::at(1_000));
        let ports = adapters_embedded::in_memory(clock.clone()).unwrap();
        let failed = |why: &str| Err::<(), _>(Error::retry(why));
        note(&ports, "batcher", "orders", &failed("first")).await;
        clock.advance(500);
        note(&ports, "batcher", "orders", &failed(&"é".repeat(5_000))).await;
        note(&ports, "batcher", "others", &Ok(())).await;
        let failing = load(&ports, "batcher", "orders").await.unwrap().unwrap();
        assert_eq!((failing.since_ms, failing.last_ms, failing.times), (1_000, 1_500, 2));
        assert_eq!(failing.error.message.chars().count(), MOST_CHARACTERS + 1);
        let problem = failing.problem("stream", "orders", "writing it");
        assert!(problem.message.starts_with("writing it failed 2 times: é") && problem.since_ms == Some(1_000));
        note(&ports, "batcher", "orders", &Ok(())).await;
        assert_eq!(load(&ports, "batcher", "orders").await.unwrap(), None);
    }
}
