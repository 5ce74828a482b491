//! What became of each record, as JSON and as an HTTP status.

use serde::{Deserialize, Serialize};
use shared::Result;
use shared::api::Response;
use shared::model::{SequenceNumber, ShardId};

/// What became of one record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "status", rename_all = "snake_case")]
pub(crate) enum Outcome {
    /// Durable at this place.
    Stored { shard: ShardId, sequence: SequenceNumber },
    /// It will never be stored as it is.
    Rejected { code: String, message: String },
    /// It was not stored: send it again later.
    Throttled { code: String, message: String },
    /// It may be stored: look, or send it again under the same idempotency key.
    Unknown { code: String, message: String },
}

/// The answer to a request of records.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Answer {
    pub(crate) stream: String,
    pub(crate) received: usize,
    pub(crate) stored: usize,
    pub(crate) rejected: usize,
    /// Neither stored nor rejected: to be sent again.
    pub(crate) throttled: usize,
    pub(crate) records: Vec<Entry>,
}

/// A record's place in the request, from 0, and its outcome.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Entry {
    pub(crate) index: usize,
    #[serde(flatten)]
    pub(crate) outcome: Outcome,
}

impl Answer {
    pub(crate) fn new(stream: &str, outcomes: Vec<Outcome>) -> Self {
        let count = |of: fn(&Outcome) -> bool| outcomes.iter().filter(|outcome| of(outcome)).count();
        let stored = count(|outcome| matches!(outcome, Outcome::Stored { .. }));
        let rejected = count(|outcome| matches!(outcome, Outcome::Rejected { .. }));
        Self {
            stream: stream.to_owned(),
            received: outcomes.len(),
            stored,
            rejected,
            throttled: outcomes.len() - stored - rejected,
            records: outcomes.into_iter().enumerate().map(|(index, outcome)| Entry { index, outcome }).collect(),
        }
    }

    /// 200 when all are stored, 400 when all are rejected, 429 when the stream took none that it could have taken, else 207.
    pub(crate) fn status(&self) -> u16 {
        match (self.stored, self.rejected, self.throttled) {
            (_, 0, 0) => 200,
            (0, _, 0) => 400,
            (0, _, _) => 429,
            _ => 207,
        }
    }

    /// The answer over HTTP; with `retry-after` when records are to be sent again.
    pub(crate) fn response(&self) -> Result<Response> {
        let response = Response::json(self.status(), self)?;
        Ok(if self.throttled > 0 { response.with_header("retry-after", "1") } else { response })
    }
}
