//! Overload, faults and repeats: a stream that refuses by plan.

use std::sync::atomic::{AtomicUsize, Ordering};

use shared::model::ShardId;
use shared::state::{Document, Expect, State, Version};
use shared::stream::{NewRecord, PutOutcome, ReadBatch, ReadFrom, Shard, Stream, StreamSpec};

use super::*;

/// What the stream does with its puts, counted from 0.
#[derive(Debug, Clone, Copy)]
enum Fault {
    /// Takes only the first records of each put.
    Throttle { takes: usize },
    /// Stores the put, but its caller gets an error.
    LostReply { at: usize },
    /// As that, and takes so many milliseconds to store it.
    LateReply { at: usize, ms: i64 },
    /// Fails the put whole.
    Fail { at: usize },
    /// Stores the put and never answers: the caller is killed.
    Hang { at: usize },
}

#[derive(Debug)]
struct Faulty {
    inner: Arc<dyn Stream>,
    clock: Arc<ManualClock>,
    fault: std::sync::Mutex<Option<Fault>>,
    puts: AtomicUsize,
}

#[async_trait::async_trait]
impl Stream for Faulty {
    async fn create(&self, spec: &StreamSpec) -> Result<()> {
        self.inner.create(spec).await
    }

    async fn list(&self) -> Result<Vec<String>> {
        self.inner.list().await
    }

    async fn shards(&self, stream: &str) -> Result<Vec<Shard>> {
        self.inner.shards(stream).await
    }

    async fn put(&self, stream: &str, mut records: Vec<NewRecord>) -> Result<Vec<PutOutcome>> {
        let (at, fault) = (self.puts.fetch_add(1, Ordering::SeqCst), *self.fault.lock().unwrap());
        match fault {
            Some(Fault::Throttle { takes }) => {
                let all = records.len();
                records.truncate(takes);
                let mut outcomes = if takes > 0 { self.inner.put(stream, records).await? } else { Vec::new() };
                outcomes.resize(all, PutOutcome::Throttled { message: "over the rate".into() });
                Ok(outcomes)
            }
            Some(Fault::Fail { at: fails }) if fails == at => Err(Error::limit("the disk is full")),
            Some(Fault::LostReply { at: fails }) if fails == at => {
                self.inner.put(stream, records).await?;
                Err(Error::new(shared::ErrorKind::OutcomeUnknown, "the reply was lost"))
            }
            Some(Fault::LateReply { at: fails, ms }) if fails == at => {
                self.clock.advance(ms);
                self.inner.put(stream, records).await?;
                Err(Error::new(shared::ErrorKind::OutcomeUnknown, "the reply was lost"))
            }
            Some(Fault::Hang { at: hangs }) if hangs == at => {
                self.inner.put(stream, records).await?;
                std::future::pending().await
            }
            _ => self.inner.put(stream, records).await,
        }
    }

    async fn read(&self, stream: &str, shard: &ShardId, from: ReadFrom, max_records: usize) -> Result<ReadBatch> {
        self.inner.read(stream, shard, from, max_records).await
    }
}

/// A lake whose streams exist and then fail as told.
async fn lake(fault: Fault) -> (Arc<Lake>, Arc<Faulty>) {
    let clock = Arc::new(ManualClock::at(1_700_000_000_000));
    let ports = adapters_embedded::in_memory(clock.clone()).unwrap();
    for (name, shards) in [("flights", 1), ("keyed", 8)] {
        ports.stream.create(&StreamSpec { name: name.into(), shards, retention_hours: 24 }).await.unwrap();
    }
    let (inner, fault) = (ports.stream.clone(), Some(fault).into());
    let faulty = Arc::new(Faulty { inner, clock: clock.clone(), fault, puts: AtomicUsize::new(0) });
    (Arc::new(Lake::with(Ports { stream: faulty.clone(), ..ports }, clock)), faulty)
}

fn body(records: usize) -> String {
    (0..records).map(|n| format!("{{\"n\":{n},\"carrier\":\"c{}\"}}\n", n % 3)).collect()
}

const KEY: &[(&str, &str)] = &[("idempotency-key", "k")];

#[tokio::test]
async fn a_stream_over_its_rate_says_so_of_each_record() {
    let (lake, _) = lake(Fault::Throttle { takes: 2 }).await;
    let (status, answer) = lake.post("flights", &[], body(3)).await;
    assert_eq!((status, statuses(&answer)), (207, vec!["stored", "stored", "throttled"]));

    let (lake, _) = super::faulty::lake(Fault::Throttle { takes: 0 }).await;
    let response = lake.send("POST", "/streams/flights/records", &[], body(2).as_bytes()).await;
    assert_eq!((response.status, response.headers["retry-after"].as_str()), (429, "1"));
    let answer: Value = serde_json::from_slice(&response.body).unwrap();
    assert_eq!(statuses(&answer), ["throttled", "throttled"]);
}

#[tokio::test]
async fn a_put_that_fails_ends_the_putting_and_the_rest_is_to_be_sent_again() {
    let (lake, _) = lake(Fault::Fail { at: 1 }).await;
    let (status, answer) = lake.post("flights", &[], body(5_000)).await;
    assert_eq!((status, &answer["stored"], &answer["throttled"]), (207, &json!(3_500), &json!(1_500)));
    assert_eq!(answer["records"][500]["code"], "no_room");
    assert!(answer["records"][500]["message"].as_str().unwrap().contains("the disk is full"));
    assert_eq!(answer["records"][1_000]["status"], "stored");
    assert_eq!(answer["records"][4_000]["code"], "not_tried");
    assert_eq!(lake.stored("flights").await.len(), 3_500);
}

#[tokio::test]
async fn too_much_work_at_once_is_told_to_come_again() {
    let (lake, _) = lake(Fault::Fail { at: 9 }).await;
    let all = lake.ingest.in_work.acquire_many(MEBIBYTES_IN_WORK as u32).await.unwrap();
    let response = lake.send("POST", "/streams/flights/records", &[], body(1).as_bytes()).await;
    assert_eq!((response.status, response.headers["retry-after"].as_str()), (429, "1"));
    drop(all);
    assert_eq!(lake.post("flights", &[], body(1)).await.0, 200);
}

#[tokio::test]
async fn a_repeat_gets_the_first_answer_and_stores_nothing() {
    let lake = Lake::new();
    let first = lake.post("flights", KEY, body(3)).await;
    lake.clock.advance(23 * 3_600_000);
    let response = lake.send("POST", "/streams/flights/records", KEY, body(3).as_bytes()).await;
    assert_eq!(response.headers["idempotent-replay"], "true");
    assert_eq!((response.status, serde_json::from_slice::<Value>(&response.body).unwrap()), first);
    assert_eq!(lake.stored("flights").await.len(), 3);

    assert_eq!(lake.post("flights", KEY, body(4)).await.0, 409, "another body under the same key");
    assert_eq!(lake.post("keyed", KEY, body(3)).await.0, 200, "the same key of another stream");
    lake.clock.advance(3_600_000);
    assert_eq!(lake.post("flights", KEY, body(3)).await.0, 200);
    assert!(lake.ports.state.list("ingest/").await.unwrap().len() >= 2);
}

/// Puts one record under a new key.
async fn post_once(lake: &Lake, key: &str) {
    let (status, answer) = lake.post("flights", &[("idempotency-key", key)], body(1)).await;
    assert_eq!((status, &answer["stored"]), (200, &json!(1)), "{answer}");
}

#[tokio::test]
async fn old_keys_are_forgotten_a_few_at_each_request() {
    let lake = Lake::new();
    let remembered = async || lake.ports.state.list("ingest/").await.unwrap().len();
    for key in 0..70 {
        lake.ports.state.put(&format!("ingest/000001/flights/{key}"), "{}".into(), Expect::Anything).await.unwrap();
    }
    for (key, left) in [("a", 39), ("b", 8), ("c", 3), ("d", 4)] {
        post_once(&lake, key).await;
        assert_eq!(remembered().await, left, "after `{key}`");
    }
    lake.clock.advance(4 * 86_400_000);
    post_once(&lake, "e").await;
    assert_eq!(remembered().await, 5, "these are left to the bucket's rule");
    lake.clock.advance(86_400_000);
    post_once(&lake, "f").await;
    assert_eq!(remembered().await, 2, "nobody else has removed them");
}

/// Documents that can be read and written, but not listed.
#[derive(Debug)]
struct Unlisted {
    inner: Arc<dyn State>,
    answers: bool,
}

#[async_trait::async_trait]
impl State for Unlisted {
    async fn get(&self, key: &str) -> Result<Option<Document>> {
        self.inner.get(key).await
    }

    async fn put(&self, key: &str, bytes: Bytes, expect: Expect) -> Result<Version> {
        self.inner.put(key, bytes, expect).await
    }

    async fn delete(&self, key: &str, expect: Expect) -> Result<()> {
        self.inner.delete(key, expect).await
    }

    async fn list_first(&self, _: &str, _: usize) -> Result<Vec<String>> {
        match self.answers {
            true => Err(Error::denied("listing is not allowed")),
            false => std::future::pending().await,
        }
    }
}

#[tokio::test]
async fn a_request_is_answered_though_old_keys_can_not_be_forgotten() {
    for answers in [true, false] {
        let Lake { ports, clock, .. } = Lake::new();
        let state = Arc::new(Unlisted { inner: ports.state.clone(), answers });
        let lake = Lake::with(Ports { state, ..ports }, clock);
        post_once(&lake, "a").await;
        post_once(&lake, "b").await;
    }
}

/// A state that has room for so many documents.
#[derive(Debug)]
struct Full {
    inner: Arc<dyn State>,
    room: AtomicUsize,
}

#[async_trait::async_trait]
impl State for Full {
    async fn get(&self, key: &str) -> Result<Option<Document>> {
        self.inner.get(key).await
    }

    async fn put(&self, key: &str, bytes: Bytes, expect: Expect) -> Result<Version> {
        let left = self.room.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |room| room.checked_sub(1));
        left.map_err(|_| Error::limit("the disk is full"))?;
        self.inner.put(key, bytes, expect).await
    }

    async fn delete(&self, key: &str, expect: Expect) -> Result<()> {
        self.inner.delete(key, expect).await
    }

    async fn list_first(&self, prefix: &str, most: usize) -> Result<Vec<String>> {
        self.inner.list_first(prefix, most).await
    }
}

#[tokio::test]
async fn an_answer_that_can_not_be_kept_is_told_and_its_repeat_stores_nothing_twice() {
    let Lake { ports, clock, .. } = Lake::new();
    let state = Arc::new(Full { inner: ports.state.clone(), room: AtomicUsize::new(1) });
    let lake = Lake::with(Ports { state: state.clone(), ..ports }, clock);
    let (status, answer) = lake.post("flights", KEY, body(3)).await;
    assert_eq!((status, &answer["stored"]), (200, &json!(3)), "{answer}");
    state.room.store(100, Ordering::SeqCst);
    lake.clock.advance(15_000);
    let (status, answer) = lake.post("flights", KEY, body(3)).await;
    assert_eq!((status, &answer["stored"]), (200, &json!(3)), "{answer}");
    assert_eq!(lake.stored("flights").await.len(), 3);
}

#[tokio::test]
async fn a_repeat_puts_what_the_first_request_could_not() {
    for stream in ["flights", "keyed"] {
        let (lake, faulty) = lake(Fault::LostReply { at: 1 }).await;
        let (status, answer) = lake.post(stream, KEY, body(1_300)).await;
        assert_eq!((status, &answer["stored"]), (207, &json!(800)));
        assert_eq!(answer["records"][700]["status"], "unknown");
        faulty.fault.lock().unwrap().take();
        let (status, answer) = lake.post(stream, KEY, body(1_300)).await;
        assert_eq!((status, &answer["stored"]), (200, &json!(1_300)));
        assert_eq!(lake.stored(stream).await.len(), 1_300, "none doubled");
    }
}

#[tokio::test]
async fn a_request_that_died_is_finished_by_its_repeat() {
    for stream in ["flights", "keyed"] {
        let (lake, faulty) = lake(Fault::Hang { at: 1 }).await;
        let died = tokio::spawn({
            let lake = lake.clone();
            async move { lake.post(stream, KEY, body(5_000)).await }
        });
        while faulty.puts.load(Ordering::SeqCst) < 8 {
            tokio::task::yield_now().await;
        }
        while lake.stored(stream).await.len() < 4_000 {
            tokio::task::yield_now().await;
        }
        died.abort();
        faulty.fault.lock().unwrap().take();
        let (status, answer) = lake.post(stream, KEY, body(5_000)).await;
        assert_eq!(status, 503, "the first may still be at work: {answer}");
        lake.clock.advance(15_000);
        let (status, answer) = lake.post(stream, KEY, body(5_000)).await;
        assert_eq!((status, &answer["stored"]), (200, &json!(5_000)));
        assert_eq!(lake.stored(stream).await.len(), 5_000, "none lost, none doubled");
    }
}

#[tokio::test]
async fn of_many_repeats_at_once_one_does_the_work() {
    let lake = Arc::new(Lake::new());
    let racers = (0..8).map(|_| {
        let lake = lake.clone();
        tokio::spawn(async move { lake.post("flights", KEY, body(100)).await.0 })
    });
    for racer in racers.collect::<Vec<_>>() {
        let status = racer.await.unwrap();
        assert!([200, 503].contains(&status), "{status}");
    }
    assert_eq!(lake.stored("flights").await.len(), 100);
}

#[tokio::test]
async fn what_was_stored_late_and_not_told_is_stored_once() {
    for ms in [1_000, 6_000, 14_000] {
        let (lake, _) = lake(Fault::LateReply { at: 0, ms }).await;
        let (status, answer) = lake.post("flights", KEY, body(3)).await;
        assert_eq!((status, statuses(&answer)), (429, vec!["unknown"; 3]), "after {ms} ms");
        lake.clock.advance(120_000);
        let (status, answer) = lake.post("flights", KEY, body(3)).await;
        assert_eq!((status, statuses(&answer)), (200, vec!["stored"; 3]), "after {ms} ms");
        assert_eq!(lake.stored("flights").await.len(), 3, "after {ms} ms");
    }
}

#[tokio::test]
async fn what_a_repeat_stored_before_it_died_is_stored_once() {
    let (lake, faulty) = lake(Fault::Throttle { takes: 0 }).await;
    assert_eq!(lake.post("flights", KEY, body(3)).await.0, 429);
    *faulty.fault.lock().unwrap() = Some(Fault::Hang { at: 1 });
    let died = tokio::spawn({
        let lake = lake.clone();
        async move { lake.post("flights", KEY, body(3)).await }
    });
    while lake.stored("flights").await.len() < 3 {
        tokio::task::yield_now().await;
    }
    died.abort();
    faulty.fault.lock().unwrap().take();
    lake.clock.advance(60_000);
    let (status, answer) = lake.post("flights", KEY, body(3)).await;
    assert_eq!((status, &answer["stored"]), (200, &json!(3)));
    assert_eq!(lake.stored("flights").await.len(), 3, "none doubled");
}
