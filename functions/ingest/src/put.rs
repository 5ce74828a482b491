//! Checked records into the stream, in order, by batches within the stream's limits.

use std::collections::BTreeMap;

use shared::config::Ports;
use shared::project::StreamDeclaration;
use shared::stream::{MAX_PUT_BYTES, MAX_PUT_RECORDS, NewRecord, PutOutcome, StreamSpec};
use shared::{Error, ErrorKind, Result};

use crate::Door;
use crate::answer::Outcome;
use crate::check::Verdict;

/// Puts what passed the check and was not stored before, and says what became of each record. The first batch that fails as a
/// whole ends the putting: those after it keep their order for the next try.
pub(crate) async fn put(
    ports: &Ports,
    door: &Door,
    verdicts: Vec<Verdict>,
    mut known: BTreeMap<usize, Outcome>,
    deadline_ms: i64,
) -> Vec<Outcome> {
    let mut outcomes = Vec::with_capacity(verdicts.len());
    let mut waiting = Vec::new();
    for (index, verdict) in verdicts.into_iter().enumerate() {
        outcomes.push(match (verdict, known.remove(&index)) {
            (Verdict::Rejected { code, message }, _) => Outcome::Rejected { code: code.into(), message },
            (Verdict::Good(_), Some(stored)) => stored,
            (Verdict::Good(record), None) => {
                waiting.push((index, record));
                not_tried()
            }
        });
    }
    for batch in batches(waiting) {
        if ports.clock.now_ms() >= deadline_ms {
            break;
        }
        let (indices, records): (Vec<_>, Vec<_>) = batch.into_iter().unzip();
        match put_batch(ports, door, records).await {
            Ok(answers) => {
                for (index, answer) in indices.into_iter().zip(answers) {
                    outcomes[index] = outcome(answer);
                }
            }
            Err(error) => {
                tracing::warn!(stream = door.stream, records = indices.len(), %error, "a put failed");
                for index in indices {
                    outcomes[index] = failed(&error);
                }
                break;
            }
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

/// Puts one batch; a stream that is declared but not there yet is made.
async fn put_batch(ports: &Ports, door: &Door, records: Vec<NewRecord>) -> Result<Vec<PutOutcome>> {
    match ports.stream.put(&door.stream, records.clone()).await {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            ports.stream.create(&spec(&door.stream, &door.declaration)?).await?;
            ports.stream.put(&door.stream, records).await
        }
        other => other,
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
        PutOutcome::Throttled { message } => Outcome::Throttled { code: "throttled".into(), message },
        PutOutcome::Failed { message } => Outcome::Throttled { code: "failed".into(), message },
    }
}

fn failed(error: &Error) -> Outcome {
    let message = error.to_string();
    match error.kind() {
        ErrorKind::OutcomeUnknown => Outcome::Unknown { code: "outcome_unknown".into(), message },
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
