//! `POST /streams/{name}/records`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use sha2::{Digest, Sha256};
use shared::api::{Request, Response};
use shared::telemetry::metrics::{self, Metric};
use shared::{Error, Result};
use tokio::sync::SemaphorePermit;
use tokio::time::timeout;

use crate::answer::{Answer, Entry, Outcome};
use crate::check::{Spread, Verdict, check};
use crate::idempotency::{self, Admission, Key};
use crate::put::put;
use crate::split::split;
use crate::{Ingest, Intake, body, kept};

const MEBIBYTE: usize = 1 << 20;

/// How long a request may go on putting, milliseconds; what is left then is to be sent again.
const WORK_MS: i64 = 10_000;
/// How often a process looks for old idempotency keys, and how long at most.
const FORGET_EVERY_MS: i64 = 3_600_000;
const FORGET_TIME: Duration = Duration::from_secs(1);

impl Ingest {
    /// Checks and puts the body's records; the answer says of each what became of it.
    pub(crate) async fn records(&self, stream: &str, request: &Request) -> Result<Response> {
        let intake = self.intake(stream)?;
        let key = Key::of(request, stream)?;
        let Some(_permit) = self.admit(body::bound(request)?) else { return busy() };
        let verdicts = verdicts(intake.clone(), request.clone(), spread(request, key.as_ref())).await?;
        let bytes: Vec<usize> = verdicts.iter().map(Verdict::bytes).collect();
        match key {
            Some(key) => self.put_once(&intake, verdicts, &bytes, &key).await,
            None => {
                let now_ms = self.ports.clock.now_ms();
                kept::keep(&self.ports, &intake, &verdicts, now_ms, &request.request_id).await?;
                let deadline_ms = now_ms + WORK_MS;
                let answer =
                    Answer::new(stream, put(&self.ports, &intake, verdicts, BTreeMap::new(), deadline_ms).await);
                self.tell(&answer, &bytes).await;
                answer.response()
            }
        }
    }

    /// Puts what no earlier request with this key has put.
    async fn put_once(&self, intake: &Intake, verdicts: Vec<Verdict>, bytes: &[usize], key: &Key) -> Result<Response> {
        let (state, now_ms) = (&*self.ports.state, self.ports.clock.now_ms());
        let claim = match key.claim(state, now_ms).await? {
            Admission::Answered(answer) => return Ok(answer.response()?.with_header("idempotent-replay", "true")),
            Admission::Work(claim) => claim,
        };
        let first_ms = claim.first_ms();
        kept::keep(&self.ports, intake, &verdicts, first_ms, &key.identity).await?;
        if claim.is_taken_over() && !verdicts.iter().any(Verdict::is_rejected) {
            kept::forget(&self.ports, intake, first_ms, &key.identity).await?;
        }
        let stored = claim.stored(&self.ports, &intake.stream, &verdicts).await?;
        let answer = Answer::new(&intake.stream, put(&self.ports, intake, verdicts, stored, now_ms + WORK_MS).await);
        if let Err(error) = claim.answered(state, &answer).await {
            // What is stored is told all the same. A repeat finds it in the stream, as after the death of the process.
            tracing::warn!(stream = intake.stream, %error, "an answer could not be kept under its key");
        }
        self.tell(&answer, bytes).await;
        self.forget_old_keys(now_ms).await;
        answer.response()
    }

    /// Tells the log, the metrics and the status; `bytes` are those of each record.
    async fn tell(&self, answer: &Answer, bytes: &[usize]) {
        let Answer { stream, received, stored, rejected, throttled, .. } = answer;
        tracing::info!(stream, received, stored, rejected, throttled, "records");
        let stored_at = |entry: &&Entry| matches!(entry.outcome, Outcome::Stored { .. });
        let accepted: usize = answer.records.iter().filter(stored_at).filter_map(|entry| bytes.get(entry.index)).sum();
        metrics::emit(
            &[("stream", stream)],
            &[
                Metric::count("RecordsAccepted", *stored as u64),
                Metric::count("RecordsRejected", *rejected as u64),
                Metric::bytes("BytesAccepted", accepted as u64),
            ],
        );
        self.count_refused(answer).await;
    }

    /// Once in an hour, and at the next request when there is more to forget. The request is answered whatever comes of it.
    async fn forget_old_keys(&self, now_ms: i64) {
        let last_ms = self.forgot_ms.load(Ordering::Relaxed);
        if now_ms - last_ms < FORGET_EVERY_MS {
            return;
        }
        self.forgot_ms.store(now_ms, Ordering::Relaxed);
        match timeout(FORGET_TIME, idempotency::forget(&*self.ports.state, now_ms)).await {
            Ok(Ok(false)) => {}
            Ok(Ok(true)) => self.forgot_ms.store(last_ms, Ordering::Relaxed),
            Ok(Err(error)) => tracing::warn!(%error, "old idempotency keys could not be forgotten"),
            Err(_) => tracing::warn!("forgetting old idempotency keys took too long"),
        }
    }

    /// Room for a body of `bytes`, or nothing when too much is in work.
    fn admit(&self, bytes: usize) -> Option<SemaphorePermit<'_>> {
        let mebibytes = u32::try_from(bytes.div_ceil(MEBIBYTE)).ok()?;
        self.in_work.try_acquire_many(mebibytes).ok()
    }
}

/// Decodes, cuts and checks a body, away from the threads that serve requests.
async fn verdicts(intake: Arc<Intake>, request: Request, spread: Spread) -> Result<Vec<Verdict>> {
    let work = move || {
        let decoded = body::decode(&request)?;
        let records = split(&decoded, body::shape(&request, &decoded)?, &intake.schema)?;
        Ok(check(records, &intake, spread))
    };
    tokio::task::spawn_blocking(work).await.map_err(|e| Error::bug("a check stopped before its end").with_source(e))?
}

/// Spread keys come from the idempotency key or else from the request's id.
fn spread(request: &Request, key: Option<&Key>) -> Spread {
    let digest = match key {
        Some(key) => Sha256::digest(key.identity.as_bytes()),
        None => Sha256::digest(request.request_id.as_bytes()),
    };
    Spread(digest.iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte)))
}

fn busy() -> Result<Response> {
    let error = Error::retry("expected less work at once, found too many requests: send this one again later");
    let mut response = Response::error(&error);
    response.status = 429;
    Ok(response)
}
