//! Checked records into the stream, in order, by batches within the stream's limits.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::future::join_all;
use shared::ports::Ports;
use shared::project::StreamDeclaration;
use shared::stream::{MAX_PUT_BYTES, MAX_PUT_RECORDS, NewRecord, PutOutcome, StreamSpec};
use shared::{Error, ErrorKind, Result};

use crate::Intake;
use crate::answer::Outcome;
use crate::check::Verdict;

/// Batches that are put at once: a stream that commits what meets has fewer commits to make.
const PUTS_AT_ONCE: usize = 8;
/// How long after the deadline a batch that has begun is waited for: it ends before a repeat of the request may take over.
const GRACE_MS: i64 = 4_000;
const THROTTLED: &str = "throttled";
const OUTCOME_UNKNOWN: &str = "outcome_unknown";
/// Nothing more can be stored until somebody makes room.
const NO_ROOM: &str = "no_room";

/// Puts what passed the check and was not stored before, and says what became of each record. After a fault the batches that
/// were not begun are left for the next try.
pub(crate) async fn put(
    ports: &Ports,
    intake: &Intake,
    verdicts: Vec<Verdict>,
    mut known: BTreeMap<usize, Outcome>,
    deadline_ms: i64,
) -> Vec<Outcome> {
    let mut outcomes = Vec::with_capacity(verdicts.len());
    let mut waiting = Vec::new();
    for (index, verdict) in verdicts.into_iter().enumerate() {
        outcomes.push(match (verdict, known.remove(&index)) {
            (Verdict::Rejected { code, message, .. }, _) => Outcome::Rejected { code: code.into(), message },
            (Verdict::Good(_), Some(stored)) => stored,
            (Verdict::Good(record), None) => {
                waiting.push((index, record));
                not_tried()
            }
        });
    }
    let mut batches = batches(waiting).into_iter().peekable();
    while batches.peek().is_some() && ports.clock.now_ms() < deadline_ms {
        let wave = batches.by_ref().take(PUTS_AT_ONCE).map(|batch| put_batch(ports, intake, batch, deadline_ms));
        let answers: Vec<_> = join_all(wave).await.into_iter().flatten().collect();
        let broken = answers.iter().any(|(_, outcome)| !is_answered(outcome));
        for (index, outcome) in answers {
            outcomes[index] = outcome;
        }
        if broken {
            break;
        }
    }
    outcomes
}

/// Consecutive records, as many at once as a put takes.
fn batches(records: Vec<(usize, NewRecord)>) -> Vec<Vec<(usize, NewRecord)>> {
    let mut batches: Vec<Vec<_>> = Vec::new();
    let mut bytes = 0;
    for (index, record) in records {
        let size = record.data.len() + record.partition_key.len();
        match batches.last_mut() {
            Some(batch) if batch.len() < MAX_PUT_RECORDS && bytes + size <= MAX_PUT_BYTES => {
                batch.push((index, record));
                bytes += size;
            }
            _ => {
                batches.push(vec![(index, record)]);
                bytes = size;
            }
        }
    }
    batches
}

/// Puts one batch and says what became of each record.
async fn put_batch(
    ports: &Ports,
    intake: &Intake,
    batch: Vec<(usize, NewRecord)>,
    deadline_ms: i64,
) -> Vec<(usize, Outcome)> {
    let (indices, records): (Vec<_>, Vec<_>) = batch.into_iter().unzip();
    let left_ms = u64::try_from(deadline_ms + GRACE_MS - ports.clock.now_ms()).unwrap_or_default();
    let late = |_| {
        let message = format!("expected the stream to answer within {left_ms} ms, found that it had not");
        Err(Error::new(ErrorKind::OutcomeUnknown, message))
    };
    let put = tokio::time::timeout(Duration::from_millis(left_ms), put_made(ports, intake, records));
    match put.await.unwrap_or_else(late) {
        Ok(answers) => indices.into_iter().zip(answers.into_iter().map(outcome)).collect(),
        Err(error) => {
            tracing::warn!(stream = intake.stream, records = indices.len(), %error, "a put failed");
            indices.into_iter().map(|index| (index, failed(&error))).collect()
        }
    }
}

async fn put_made(ports: &Ports, intake: &Intake, records: Vec<NewRecord>) -> Result<Vec<PutOutcome>> {
    make_stream(ports, intake).await?;
    ports.stream.put(&intake.stream, records).await
}

/// Makes the stream if it is declared but not there yet; looks only once.
async fn make_stream(ports: &Ports, intake: &Intake) -> Result<()> {
    let make = async || match ports.stream.shards(&intake.stream).await {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            ports.stream.create(&spec(&intake.stream, &intake.declaration)?).await
        }
        other => other.map(|_| ()),
    };
    intake.made.get_or_try_init(make).await?;
    Ok(())
}

/// Whether the stream took the record or throttled it; anything else is a fault that more putting would meet too.
fn is_answered(outcome: &Outcome) -> bool {
    match outcome {
        Outcome::Stored { .. } | Outcome::Rejected { .. } => true,
        Outcome::Throttled { code, .. } => code == THROTTLED,
        Outcome::Unknown { .. } => false,
    }
}

fn spec(name: &str, declaration: &StreamDeclaration) -> Result<StreamSpec> {
    let hours = declaration.retention.0.div_ceil(3_600);
    let retention_hours = u32::try_from(hours)
        .map_err(|e| Error::invalid(format!("stream `{name}`: expected a retention up to 365d")).with_source(e))?;
    Ok(StreamSpec { name: name.to_owned(), shards: declaration.shards, retention_hours })
}

fn outcome(answer: PutOutcome) -> Outcome {
    match answer {
        PutOutcome::Stored { shard, sequence } => Outcome::Stored { shard, sequence },
        PutOutcome::Throttled { message } => Outcome::Throttled { code: THROTTLED.into(), message },
        PutOutcome::Failed { message } => Outcome::Throttled { code: "failed".into(), message },
        PutOutcome::Unknown { message } => Outcome::Unknown { code: OUTCOME_UNKNOWN.into(), message },
    }
}

fn failed(error: &Error) -> Outcome {
    let message = error.to_string();
    match error.kind() {
        ErrorKind::OutcomeUnknown => Outcome::Unknown { code: OUTCOME_UNKNOWN.into(), message },
        ErrorKind::Limit => Outcome::Throttled { code: NO_ROOM.into(), message },
        _ => Outcome::Throttled { code: "failed".into(), message },
    }
}

fn not_tried() -> Outcome {
    let message = "expected the records before it to be stored first, found that they were not".into();
    Outcome::Throttled { code: "not_tried".into(), message }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn batches_keep_the_limits_and_every_record_in_order(sizes in prop::collection::vec(0..1_048_000_usize, 0..60), small in 0..1_200_usize) {
            let record = |size| NewRecord { partition_key: "k".into(), data: vec![0; size].into() };
            let sizes: Vec<_> = sizes.into_iter().chain(std::iter::repeat_n(10, small)).collect();
            let cut = batches(sizes.iter().map(|size| record(*size)).enumerate().collect());
            for batch in &cut {
                prop_assert!(batch.len() <= MAX_PUT_RECORDS);
                prop_assert!(batch.iter().map(|(_, r)| r.data.len() + 1).sum::<usize>() <= MAX_PUT_BYTES);
            }
            let order: Vec<_> = cut.iter().flatten().map(|(index, _)| *index).collect();
            prop_assert_eq!(order, (0..sizes.len()).collect::<Vec<_>>());
        }
    }
}
