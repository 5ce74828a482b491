//! The header `idempotency-key`: a request that comes again within 24 hours has the first one's effect and answer.
//!
//! A state document says who works on a key until when, and what was answered. A repeat is answered from it; records that the
//! first answer told to send again are put now. When the first request ended without an answer (its process was killed), the
//! repeat looks in the stream for what it had stored, and puts the rest.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use bytes::Bytes;
use futures::{TryStreamExt, stream};
use serde::{Deserialize, Serialize};
use shared::api::Request;
use shared::digest::sha256_hex;
use shared::ports::Ports;
use shared::state::{Expect, State, Version, get_json, put_json};
use shared::stream::{MAX_READ_RECORDS, ReadFrom, Stream};
use shared::{Error, ErrorKind, Result};

use crate::answer::{Answer, Outcome};
use crate::check::Verdict;

const DAY_MS: i64 = 86_400_000;
/// How long a key is remembered.
const REMEMBERED_MS: i64 = DAY_MS;
/// Days before today of which documents are left alone: on S3 a rule of the bucket removes them after 3 days.
const KEPT_DAYS: i64 = 4;
/// Documents that one request removes at most, and how many at a time.
const FORGOTTEN_AT_ONCE: usize = 32;
const REMOVALS: usize = 8;
/// How long a request may work before a repeat takes over; longer than it goes on putting and waits for what it has put.
const WORK_MS: i64 = 15_000;
/// How far the stream's clock may lie behind this one.
const CLOCK_SKEW_MS: i64 = 5_000;
const MAX_KEY_CHARACTERS: usize = 256;

/// An idempotency key of a stream, and the body that it came with.
#[derive(Debug)]
pub(crate) struct Key {
    /// Stream and hash of the key: the same whenever it comes.
    pub(crate) identity: String,
    fingerprint: String,
}

/// What is known of a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Memory {
    /// Hash of the body.
    fingerprint: String,
    first_ms: i64,
    /// Until when somebody works on it; 0: nobody does.
    lease_ms: i64,
    /// From when to when earlier requests had the lease: what they stored came in one of these times.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    earlier: Vec<Span>,
    answer: Option<Answer>,
}

/// A time in which a request may have stored records; milliseconds since the epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Span {
    from_ms: i64,
    to_ms: i64,
}

/// The right to work on a key.
#[derive(Debug)]
pub(crate) struct Claim {
    document: String,
    version: Version,
    memory: Memory,
    /// Whether an earlier request began the work.
    taken_over: bool,
    /// Whether the last one ended without an answer: what it stored is in none.
    unanswered: bool,
}

/// What to do with a request that has a key.
#[derive(Debug)]
pub(crate) enum Admission {
    Work(Claim),
    /// It was answered before.
    Answered(Answer),
}

impl Key {
    /// The request's key, when it has one.
    ///
    /// # Errors
    /// `Invalid` for a key that is empty or too long.
    pub(crate) fn of(request: &Request, stream: &str) -> Result<Option<Self>> {
        let Some(text) = request.header("idempotency-key") else { return Ok(None) };
        let characters = text.chars().count();
        if !(1..=MAX_KEY_CHARACTERS).contains(&characters) {
            return Err(Error::invalid(format!(
                "expected an idempotency key of 1 to {MAX_KEY_CHARACTERS} characters, found {characters}"
            )));
        }
        Ok(Some(Self { identity: format!("{stream}/{}", hash(text.as_bytes())), fingerprint: hash(&request.body) }))
    }

    /// Takes the key for this request.
    ///
    /// # Errors
    /// `Conflict` when it came with another body; `Retry` while another request works on it.
    pub(crate) async fn claim(&self, state: &dyn State, now_ms: i64) -> Result<Admission> {
        for day in [now_ms / DAY_MS, now_ms / DAY_MS - 1] {
            let document = self.document(day);
            match get_json::<Memory>(state, &document).await? {
                Some((memory, version)) if now_ms - memory.first_ms < REMEMBERED_MS => {
                    return self.meet(state, document, memory, version, now_ms).await;
                }
                _ => {}
            }
        }
        let document = self.document(now_ms / DAY_MS);
        let fingerprint = self.fingerprint.clone();
        let memory =
            Memory { fingerprint, first_ms: now_ms, lease_ms: now_ms + WORK_MS, earlier: Vec::new(), answer: None };
        let version = put_json(state, &document, &memory, Expect::Absent).await.map_err(in_work)?;
        Ok(Admission::Work(Claim { document, version, memory, taken_over: false, unanswered: false }))
    }

    /// A key that is known.
    async fn meet(
        &self,
        state: &dyn State,
        document: String,
        mut memory: Memory,
        version: Version,
        now_ms: i64,
    ) -> Result<Admission> {
        if memory.fingerprint != self.fingerprint {
            return Err(Error::conflict("expected the body that this idempotency key came with first, found another"));
        }
        match memory.answer {
            Some(answer) if answer.throttled == 0 => return Ok(Admission::Answered(answer)),
            _ if now_ms < memory.lease_ms => return Err(busy()),
            _ => {}
        }
        let unanswered = memory.lease_ms > 0;
        memory.take_over(now_ms);
        let version = put_json(state, &document, &memory, Expect::Version(version)).await.map_err(in_work)?;
        Ok(Admission::Work(Claim { document, version, memory, taken_over: true, unanswered }))
    }

    fn document(&self, day: i64) -> String {
        format!("ingest/{day:06}/{}", self.identity)
    }
}

impl Memory {
    /// Gives the lease to a request that comes now.
    fn take_over(&mut self, now_ms: i64) {
        self.end_lease();
        self.lease_ms = now_ms + WORK_MS;
    }

    /// Nobody works on it any more. What was put may come as late as the lease allowed, whenever its request was answered.
    fn end_lease(&mut self) {
        if self.earlier.is_empty() {
            // It holds all that is not told apart. Earlier versions did not keep the end of a lease whose request was answered.
            let to_ms = self.lease_ms.max(self.first_ms + WORK_MS);
            self.earlier.push(Span { from_ms: self.first_ms, to_ms });
        } else if self.lease_ms > 0 {
            self.earlier.push(Span { from_ms: self.lease_ms - WORK_MS, to_ms: self.lease_ms });
        }
        self.lease_ms = 0;
    }
}

impl Claim {
    /// Whether an earlier request began the work.
    pub(crate) fn is_taken_over(&self) -> bool {
        self.taken_over
    }

    /// When the first request with the key came, milliseconds since the epoch.
    pub(crate) fn first_ms(&self) -> i64 {
        self.memory.first_ms
    }

    /// Which records earlier requests with this key have stored, by their place in the request.
    pub(crate) async fn stored(
        &self,
        ports: &Ports,
        stream: &str,
        verdicts: &[Verdict],
    ) -> Result<BTreeMap<usize, Outcome>> {
        if !self.taken_over {
            return Ok(BTreeMap::new());
        }
        let entries = self.memory.answer.iter().flat_map(|answer| &answer.records);
        let unknown = entries.clone().any(|entry| matches!(entry.outcome, Outcome::Unknown { .. }));
        let mut stored: BTreeMap<_, _> = entries
            .filter(|entry| matches!(entry.outcome, Outcome::Stored { .. }))
            .map(|entry| (entry.index, entry.outcome.clone()))
            .collect();
        if unknown || self.unanswered {
            find(&*ports.stream, stream, &self.memory.earlier, verdicts, &mut stored).await?;
        }
        Ok(stored)
    }

    /// Keeps the answer for repeats.
    ///
    /// # Errors
    /// `Retry` when a repeat took over because this request took too long: what it says counts.
    pub(crate) async fn answered(self, state: &dyn State, answer: &Answer) -> Result<()> {
        let mut memory = Memory { answer: Some(answer.clone()), ..self.memory };
        memory.end_lease();
        put_json(state, &self.document, &memory, Expect::Version(self.version)).await.map_err(in_work)?;
        Ok(())
    }
}

/// Where keys of a stream lie that are remembered, the older ones first.
pub(crate) fn folders(stream: &str, now_ms: i64) -> [String; 2] {
    [now_ms / DAY_MS - 1, now_ms / DAY_MS].map(|day| format!("ingest/{day:06}/{stream}/"))
}

/// Removes some of what is remembered of days long past; says whether there may be more.
pub(crate) async fn forget(state: &dyn State, now_ms: i64) -> Result<bool> {
    let kept = format!("ingest/{:06}/", now_ms / DAY_MS - KEPT_DAYS);
    let first = state.list_first("ingest/", FORGOTTEN_AT_ONCE).await?;
    let old: Vec<_> = first.into_iter().take_while(|document| *document < kept).collect();
    let more = old.len() == FORGOTTEN_AT_ONCE;
    let removals = stream::iter(old.into_iter().map(Ok));
    let remove = async |document: String| state.delete(&document, Expect::Anything).await;
    removals.try_for_each_concurrent(REMOVALS, remove).await?;
    Ok(more)
}

/// Finds records that were put in these times: same partition key, same bytes, each counted once.
async fn find(
    port: &dyn Stream,
    stream: &str,
    times: &[Span],
    verdicts: &[Verdict],
    stored: &mut BTreeMap<usize, Outcome>,
) -> Result<()> {
    let mut sought: HashMap<(String, Bytes), Vec<usize>> = HashMap::new();
    for (index, verdict) in verdicts.iter().enumerate().rev() {
        if let (Verdict::Good(record), false) = (verdict, stored.contains_key(&index)) {
            sought.entry((record.partition_key.clone(), record.data.clone())).or_default().push(index);
        }
    }
    let taken: BTreeSet<_> = stored.values().filter_map(place).collect();
    let shards = match port.shards(stream).await {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    for shard in shards {
        for span in apart(times) {
            let mut from = ReadFrom::Time(span.from_ms);
            while !sought.is_empty() {
                let batch = port.read(stream, &shard.id, from, MAX_READ_RECORDS).await?;
                let past = batch.records.last().is_some_and(|record| record.arrival_ms > span.to_ms);
                let at_end = batch.records.is_empty() || batch.behind_ms == 0;
                let records = batch.records.into_iter().take_while(|record| record.arrival_ms <= span.to_ms);
                for record in records {
                    let outcome = Outcome::Stored { shard: shard.id.clone(), sequence: record.sequence };
                    let counted = place(&outcome).is_some_and(|place| taken.contains(&place));
                    let wanted = (record.partition_key, record.data);
                    let Some(indexes) = sought.get_mut(&wanted).filter(|_| !counted) else { continue };
                    stored.extend(indexes.pop().map(|index| (index, outcome)));
                    if indexes.is_empty() {
                        sought.remove(&wanted);
                    }
                }
                if at_end || past {
                    break;
                }
                from = batch.next;
            }
        }
    }
    Ok(())
}

/// The times, as the stream's clock may show them, without overlaps and in order.
fn apart(times: &[Span]) -> Vec<Span> {
    let skewed = |span: &Span| Span { from_ms: span.from_ms - CLOCK_SKEW_MS, to_ms: span.to_ms + CLOCK_SKEW_MS };
    let mut spans: Vec<Span> = times.iter().map(skewed).collect();
    spans.sort_by_key(|span| span.from_ms);
    let mut merged: Vec<Span> = Vec::new();
    for span in spans {
        match merged.last_mut() {
            Some(last) if span.from_ms <= last.to_ms => last.to_ms = last.to_ms.max(span.to_ms),
            _ => merged.push(span),
        }
    }
    merged
}

fn place(outcome: &Outcome) -> Option<(String, String)> {
    match outcome {
        Outcome::Stored { shard, sequence } => Some((shard.0.clone(), sequence.as_str().to_owned())),
        _ => None,
    }
}

/// Somebody else was first to write the document.
fn in_work(error: Error) -> Error {
    if error.kind() == ErrorKind::Conflict { busy() } else { error }
}

fn busy() -> Error {
    Error::retry("another request with this idempotency key is in work: send this one again later")
}

fn hash(bytes: &[u8]) -> String {
    sha256_hex(bytes, 32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_times_of_earlier_requests_are_those_of_their_leases_answered_or_not() {
        let mut memory =
            Memory { fingerprint: String::new(), first_ms: 0, lease_ms: WORK_MS, earlier: Vec::new(), answer: None };
        memory.take_over(20_000);
        memory.take_over(80_000_000);
        let span = |from_ms, to_ms| Span { from_ms, to_ms };
        assert_eq!(memory.earlier, [span(0, WORK_MS), span(20_000, 20_000 + WORK_MS)]);
        assert_eq!(memory.lease_ms, 80_000_000 + WORK_MS);
        let skew = CLOCK_SKEW_MS;
        assert_eq!(apart(&memory.earlier), [span(-skew, 20_000 + WORK_MS + skew)], "they touch");
        let kept = memory.earlier.len();
        memory.end_lease();
        memory.end_lease();
        assert_eq!((memory.earlier.len(), memory.lease_ms), (kept + 1, 0), "an answer ends a lease once");
        assert_eq!(memory.earlier[kept], span(80_000_000, 80_000_000 + WORK_MS));
        let far = [span(500_000, 600_000), span(0, 1_000)];
        assert_eq!(apart(&far), [span(-skew, 1_000 + skew), span(500_000 - skew, 600_000 + skew)]);
    }
}
