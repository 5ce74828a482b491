//! The life of a stream and its table over days of virtual time, with one seed for all that happens: producers, two of `ingest` and of
//! `batcher`, two that maintain the table, a reader; kills, lost replies, slow and busy stores, clocks that jump.
//!
//! After each life: every record of the stream is a row or a reject, once; every acknowledged record is in the stream; every
//! snapshot that is left can be read, the current one by another reader too; no file is left in the table's folder that nothing
//! names. `TARN_SEEDS=500` runs so many seeds, `TARN_SEED=7` one; a seed that fails gives the same log each time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use batcher::Batcher;
use bytes::Bytes;
use datafusion::prelude::SessionContext;
use iceberg::TableIdent;
use iceberg::io::FileIO;
use ingest::Ingest;
use serde_json::{Value, json};
use shared::ErrorKind;
use shared::clock::Clock;
use shared::model::TableName;
use shared::ports::Ports;
use shared::project::Project;
use shared::stream::{NewRecord, PutOutcome, StreamSpec};
use table::{Expire, Orphans, Read, Table, Tables};
use table_datafusion::{ChangeTable, ReadTable, Rewrite};
use testing::simulation::{Between, Rates, World};
use testing::stream::read_all;

/// Seeds of a run that is not asked for more.
const SEEDS: u64 = 30;
/// Of so many seeds each is run twice, to see that it gives the same.
const REPLAYED: u64 = 3;
/// Lines of its log that a seed shows which fails.
const SHOWN: usize = 200;
/// What has to happen in the lives of a whole run.
const EVENTS: [&str; 10] = [
    "KilledBefore",
    "KilledAfter",
    "Busy",
    "Lost",
    "flushed",
    "compacted",
    "expired",
    "orphans removed",
    "read",
    "repeated",
];
const SECOND: u64 = 1_000;
const HOUR: u64 = 3_600 * SECOND;
/// How long things go wrong.
const TROUBLED_MS: u64 = 3 * 24 * HOUR;
/// Requests of each producer.
const REQUESTS: u64 = 12;

const LAKEHOUSE: &str = "
version: 1
database: sim
streams:
  events:
    shards: 2
    partition_by: [day(at)]
    retention: 30d
    buffer: {size: 1MiB, interval: 15m}
    schema:
      - {name: id, type: bigint, required: true}
      - {name: producer, type: string}
      - {name: at, type: timestamp}
";

/// What the producers know.
#[derive(Debug, Default)]
struct Ledger {
    /// Of each producer, the requests that were answered.
    done: BTreeMap<&'static str, u64>,
    /// Of each producer that repeats a request until it is answered, the ids in it.
    open: BTreeMap<&'static str, Vec<i64>>,
    /// The next id of a record. Who repeats a request without a key gives its records new ones.
    next: i64,
    sent: BTreeSet<i64>,
    acknowledged: BTreeSet<i64>,
}

impl Ledger {
    fn ids(&mut self, count: u64) -> Vec<i64> {
        let ids: Vec<i64> = (self.next..).take(count as usize).collect();
        self.next += count as i64;
        self.sent.extend(&ids);
        ids
    }

    /// The ids of the request of `name` that is not answered yet, or of a new one.
    fn open(&mut self, name: &'static str, count: u64) -> Vec<i64> {
        if !self.open.contains_key(name) {
            let ids = self.ids(count);
            self.open.insert(name, ids);
        }
        self.open[name].clone()
    }
}

struct Life {
    world: Arc<World>,
    sound: Ports,
    project: Arc<Project>,
    ledger: Arc<Mutex<Ledger>>,
}

#[test]
fn nothing_is_lost_or_doubled_whatever_happens() {
    let number = |name| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let (first, count) = match number("TARN_SEED") {
        Some(seed) => (seed, 1),
        None => (1, number("TARN_SEEDS").unwrap_or(SEEDS)),
    };
    let mut counts = BTreeMap::new();
    for seed in first..first + count {
        let log = run(seed, &mut counts);
        if seed < first + REPLAYED {
            let again = run(seed, &mut BTreeMap::new());
            let differs = log.iter().zip(&again).position(|(one, other)| one != other);
            let at = differs.unwrap_or(log.len().min(again.len()));
            let around = |log: &[String]| log[at.saturating_sub(5)..log.len().min(at + 3)].join("\n");
            assert!(log == again, "seed {seed}: expected\n{}\nagain, found\n{}", around(&log), around(&again));
        }
    }
    for what in EVENTS {
        assert!(count < SEEDS || counts.contains_key(what), "expected some `{what}`, found {counts:?}");
    }
}

/// One life, in a runtime of its own; gives its log.
fn run(seed: u64, counts: &mut BTreeMap<String, u64>) -> Vec<String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let life = Life::new(seed).await;
        let world = Arc::clone(&life.world);
        let outcome = std::panic::AssertUnwindSafe(life.live());
        let outcome = futures::FutureExt::catch_unwind(outcome).await;
        if let Err(panic) = outcome {
            let log = world.log();
            eprintln!("seed {seed} failed; the end of its log:\n{}", log[log.len().saturating_sub(SHOWN)..].join("\n"));
            std::panic::resume_unwind(panic);
        }
        for (what, count) in world.counts() {
            *counts.entry(what).or_default() += count;
        }
        world.log()
    })
}

impl Life {
    async fn new(seed: u64) -> Self {
        let world = World::new(seed, Rates { busy: 30, lost: 20, killed: 12, slow: 20 });
        let random = Arc::new(world.random("sound"));
        let sound = world.sound(&adapters_embedded::in_memory_with(world.clone(), random).unwrap());
        let spec = StreamSpec { name: "events".into(), shards: 2, retention_hours: 30 * 24 };
        sound.stream.create(&spec).await.unwrap();
        let project = Arc::new(Project::parse(LAKEHOUSE, "simulation").unwrap());
        Self { world, sound, project, ledger: Arc::default() }
    }

    async fn live(self) {
        let world = &self.world;
        let producers = async {
            tokio::join!(self.request("ingest-1", false), self.request("ingest-2", true), self.put("raw"));
        };
        let calm = async {
            world.sleep(TROUBLED_MS).await;
            world.calm();
        };
        tokio::join!(
            producers,
            calm,
            self.jumps(),
            self.batch("batcher-1"),
            self.batch("batcher-2"),
            self.maintain("maintenance-1"),
            self.maintain("maintenance-2"),
            self.read("reader"),
        );
        self.check().await;
    }

    /// A producer that sends requests to an `ingest` of its own. With a key it repeats each, also after it was killed, until all of
    /// its records are stored; without one it sends the records of a request that failed under new ids.
    async fn request(&self, name: &'static str, with_key: bool) {
        let (world, project, ledger) = (self.world.clone(), self.project.clone(), self.ledger.clone());
        let main = move |ports: Ports| {
            let (world, project, ledger) = (world.clone(), project.clone(), ledger.clone());
            async move {
                let random = Arc::clone(&ports.random);
                let ingest = Ingest::new(project, ports).unwrap();
                while ledger.lock().unwrap().done.get(name).copied().unwrap_or(0) < REQUESTS {
                    let repeats = ledger.lock().unwrap().open.contains_key(name);
                    let wait = if repeats {
                        random.between(SECOND, 120 * SECOND)
                    } else {
                        random.between(60 * SECOND, 12 * HOUR)
                    };
                    world.sleep(wait).await;
                    let ids = match with_key {
                        true => ledger.lock().unwrap().open(name, random.between(1, 6)),
                        false => ledger.lock().unwrap().ids(random.between(1, 6)),
                    };
                    let body: String = ids.iter().map(|id| line(*id, name)).collect();
                    let key = with_key.then(|| format!("{name}-{}", ids[0]));
                    let response = testing::request(event(&body, key.as_deref()), |event| ingest.handle(event)).await;
                    let answer: Value = serde_json::from_slice(&response.body).unwrap();
                    assert!([200, 207, 429, 500, 503, 504].contains(&response.status), "{} {answer}", response.status);
                    if repeats {
                        world.count("repeated");
                    }
                    let statuses = answer["records"].as_array().cloned().unwrap_or_default();
                    let mut ledger = ledger.lock().unwrap();
                    let stored = ids.iter().zip(&statuses).filter(|(_, status)| status["status"] == "stored");
                    ledger.acknowledged.extend(stored.map(|(id, _)| *id));
                    if !with_key || response.status == 200 {
                        ledger.open.remove(name);
                        *ledger.done.entry(name).or_default() += u64::from(response.status < 400);
                    }
                }
            }
        };
        self.world.run(name, &self.sound, main).await;
    }

    /// A producer that puts records into the stream itself, bad ones among them.
    async fn put(&self, name: &'static str) {
        let (world, ledger) = (self.world.clone(), self.ledger.clone());
        let main = move |ports: Ports| {
            let (world, ledger) = (world.clone(), ledger.clone());
            async move {
                while ledger.lock().unwrap().done.get(name).copied().unwrap_or(0) < REQUESTS {
                    world.sleep(ports.random.between(60 * SECOND, 12 * HOUR)).await;
                    let ids = ledger.lock().unwrap().ids(ports.random.between(1, 6));
                    let text = |id: &i64| match id % 4 {
                        0 => json!({"id": format!("bad {id}")}).to_string(),
                        _ => line(*id, name),
                    };
                    let record = |id| NewRecord { partition_key: format!("{id}"), data: text(id).into() };
                    let put = ports.stream.put("events", ids.iter().map(record).collect()).await;
                    let outcomes = put.unwrap();
                    let mut ledger = ledger.lock().unwrap();
                    let stored = |outcome: &PutOutcome| matches!(outcome, PutOutcome::Stored { .. });
                    let stored = ids.iter().zip(&outcomes).filter(|(_, outcome)| stored(outcome));
                    ledger.acknowledged.extend(stored.map(|(id, _)| *id));
                    *ledger.done.entry(name).or_default() += 1;
                }
            }
        };
        self.world.run(name, &self.sound, main).await;
    }

    /// A batcher that a scheduler ticks, or calls with a flush.
    async fn batch(&self, name: &'static str) {
        let (world, project) = (self.world.clone(), self.project.clone());
        let main = move |ports: Ports| {
            let (world, project) = (world.clone(), project.clone());
            async move {
                let random = Arc::clone(&ports.random);
                let batcher = Batcher::new(project, ports).unwrap();
                while !world.is_calm() {
                    // Both at the same time, as schedulers do.
                    let passed_ms = world.now_ms().unsigned_abs() % HOUR;
                    world.sleep(HOUR - passed_ms + random.between(0, 20)).await;
                    let flushed = testing::invoke(tick(random.between(0, 3) > 0), |event| batcher.handle(event)).await;
                    tell(&world, name, "flushed", flushed.map(drop));
                }
            }
        };
        self.world.run(name, &self.sound, main).await;
    }

    /// Compaction, expiry, removal of orphans, in any order.
    async fn maintain(&self, name: &'static str) {
        let world = self.world.clone();
        let main = move |ports: Ports| {
            let world = world.clone();
            async move {
                let tables = Tables::new(ports.clone());
                while !world.is_calm() {
                    world.sleep(ports.random.between(HOUR, 10 * HOUR)).await;
                    let table = match tables.load(&target()).await {
                        Ok(table) => table,
                        Err(error) if error.kind() == ErrorKind::NotFound => continue,
                        Err(error) => {
                            tell(&world, name, "loaded", Err(error));
                            continue;
                        }
                    };
                    let now_ms = world.now_ms();
                    let (what, done) = match ports.random.between(0, 2) {
                        0 => {
                            let rewrite = Rewrite { min_input_files: Some(2), ..Rewrite::default() };
                            ("compacted", table.rewrite(&rewrite).await.map(drop))
                        }
                        1 => {
                            let older_than_ms = Some(now_ms - 12 * HOUR as i64);
                            let expire = Expire { older_than_ms, retain_last: Some(2), ..Expire::default() };
                            ("expired", table.expire(&expire).await.map(drop))
                        }
                        _ => {
                            let older_than_ms = Some(now_ms - 24 * HOUR as i64);
                            let orphans = Orphans { older_than_ms, dry_run: false };
                            ("orphans removed", table.remove_orphans(&orphans).await.map(drop))
                        }
                    };
                    tell(&world, name, what, done);
                }
            }
        };
        self.world.run(name, &self.sound, main).await;
    }

    /// Whoever reads finds all that was there before, and nothing twice.
    async fn read(&self, name: &'static str) {
        let (world, sound) = (self.world.clone(), self.sound.clone());
        let random = world.random(name);
        let mut seen = BTreeSet::new();
        while !world.is_calm() {
            world.sleep(random.between(HOUR, 8 * HOUR)).await;
            let table = match Tables::new(sound.clone()).load(&target()).await {
                Err(error) if error.kind() == ErrorKind::NotFound && seen.is_empty() => continue,
                loaded => loaded.unwrap(),
            };
            world.count("read");
            let found = ids(&table, Read::Current).await;
            let unique: BTreeSet<i64> = found.iter().copied().collect();
            assert_eq!(unique.len(), found.len(), "expected each row once, found {found:?}");
            assert!(unique.is_superset(&seen), "expected to see again {seen:?}, found {unique:?}");
            seen = unique;
        }
    }

    async fn jumps(&self) {
        let random = self.world.random("jumps");
        while !self.world.is_calm() {
            self.world.sleep(random.between(2 * HOUR, 20 * HOUR)).await;
            let forward = random.between(0, 2) > 0;
            let ms = random.between(1, if forward { HOUR } else { 5 * SECOND }) as i64;
            self.world.jump(if forward { ms } else { -ms });
        }
    }

    async fn check(&self) {
        let batcher = Batcher::new(self.project.clone(), self.sound.clone()).unwrap();
        testing::invoke(tick(true), |event| batcher.handle(event)).await.unwrap();
        let (mut in_stream, mut bad) = (BTreeSet::new(), BTreeSet::new());
        for (_, records) in read_all(&*self.sound.stream, "events", 10_000).await {
            for record in records {
                let value: Value = serde_json::from_slice(&record.data).unwrap();
                let is_new = match &value["id"] {
                    Value::String(text) => bad.insert(text.strip_prefix("bad ").unwrap().parse::<i64>().unwrap()),
                    id => in_stream.insert(id.as_i64().unwrap()),
                };
                assert!(is_new, "expected each record once in the stream, found {value} twice");
            }
        }
        {
            let ledger = self.ledger.lock().unwrap();
            let all: BTreeSet<i64> = in_stream.union(&bad).copied().collect();
            let missing: Vec<_> = ledger.acknowledged.difference(&all).collect();
            assert!(missing.is_empty(), "acknowledged, but not in the stream: {missing:?}");
            assert!(all.is_subset(&ledger.sent));
        }

        let table = Tables::new(self.sound.clone()).load(&target()).await.unwrap();
        let rows = ids(&table, Read::Current).await;
        let unique: BTreeSet<i64> = rows.iter().copied().collect();
        assert_eq!(
            (rows.len(), &unique),
            (in_stream.len(), &in_stream),
            "expected each record of the stream as one row"
        );
        assert_eq!(self.rejects().await, bad.len(), "expected each bad record of the stream as one reject");
        for snapshot in table.history() {
            let then = ids(&table, Read::Snapshot(snapshot.id)).await;
            let unique: BTreeSet<i64> = then.iter().copied().collect();
            assert!(unique.len() == then.len() && unique.is_subset(&in_stream), "snapshot {}: {then:?}", snapshot.id);
        }
        assert_eq!(rows_for_another_reader(&table, &self.sound).await, rows.len());

        // Late enough for whatever was left behind.
        self.world.jump(10 * 24 * HOUR as i64);
        table.remove_orphans(&Orphans { older_than_ms: None, dry_run: false }).await.unwrap();
        let named: BTreeSet<String> = table::reachable::everything(&table).await.unwrap().into_keys().collect();
        let stored = self.sound.storage.list(&self.sound.keys.root().join("tables/").unwrap()).await.unwrap();
        let folder = format!("{}/", table.metadata().location().trim_end_matches('/'));
        let unnamed = stored.iter().map(|object| object.url.to_string()).filter(|url| !named.contains(url));
        let (own, other): (Vec<String>, Vec<String>) = unnamed.partition(|url| url.starts_with(&folder));
        assert!(own.is_empty(), "expected no file that nothing names, found {own:?}");
        // Whoever is killed while it makes a table leaves the table's first metadata, in a folder that is nobody's.
        let first = |url: &String| url.contains("/metadata/00000-") && url.ends_with(".metadata.json");
        assert!(other.iter().all(first), "expected nothing but first metadata elsewhere, found {other:?}");
        assert_eq!(ids(&table, Read::Current).await.len(), rows.len());
    }

    /// The bad records in the error objects.
    async fn rejects(&self) -> usize {
        let mut places = BTreeSet::new();
        let mut lines = 0;
        for object in self.sound.storage.list(&self.sound.keys.errors("events")).await.unwrap() {
            let text = self.sound.storage.get(&object.url).await.unwrap();
            for line in text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
                let line: Value = serde_json::from_slice(line).unwrap();
                places.insert((line["shard"].to_string(), line["sequence"].to_string()));
                lines += 1;
            }
        }
        assert_eq!(places.len(), lines, "expected each reject once");
        lines
    }
}

/// Notes and counts what a process came to. It may meet what goes wrong here, and others before it, nothing else.
fn tell(world: &World, name: &str, what: &str, done: shared::Result<()>) {
    match done {
        Ok(()) => {
            world.count(what);
            world.note(format_args!("{name}: {what}"));
        }
        Err(error) => {
            let passing = matches!(error.kind(), ErrorKind::Retry | ErrorKind::Conflict | ErrorKind::OutcomeUnknown);
            assert!(passing, "{name}: expected `{what}` or a passing fault, found {}: {error}", error.kind());
            world.note(format_args!("{name}: {error}"));
        }
    }
}

fn target() -> TableName {
    TableName::new("sim", "events").unwrap()
}

/// A record of five hours after the one before.
fn line(id: i64, producer: &str) -> String {
    let at = chrono::DateTime::from_timestamp_millis(id * 5 * HOUR as i64).unwrap().to_rfc3339();
    format!("{}\n", json!({"id": id, "producer": producer, "at": at}))
}

fn event(body: &str, key: Option<&str>) -> Value {
    let path = "/streams/events/records";
    let mut headers = json!({"content-type": "application/x-ndjson"});
    if let Some(key) = key {
        headers["idempotency-key"] = key.into();
    }
    json!({
        "version": "2.0", "routeKey": "$default", "rawPath": path, "rawQueryString": "",
        "headers": headers,
        "requestContext": {
            "http": {"method": "POST", "path": path, "protocol": "HTTP/1.1", "sourceIp": "", "userAgent": ""},
            "requestId": "r", "accountId": "1", "apiId": "a", "stage": "$default", "time": "", "timeEpoch": 0,
        },
        "body": STANDARD.encode(body), "isBase64Encoded": true,
    })
}

fn tick(flush: bool) -> Value {
    json!({
        "source": "tarn.scheduler", "detail-type": "Scheduled Event",
        "detail": {"function": "batcher", "name": "events", "flush": flush},
    })
}

/// The ids of a table's rows.
async fn ids(table: &Table, read: Read) -> Vec<i64> {
    let session = SessionContext::new();
    let root = table.ports().keys.root();
    session.register_object_store(root, table.ports().storage.resolve(root).unwrap().0);
    let rows = session.read_table(table.provider(read).await.unwrap()).unwrap().collect().await.unwrap();
    rows.iter()
        .flat_map(|batch| batch.column_by_name("id").unwrap().as_primitive::<Int64Type>().values().to_vec())
        .collect()
}

/// How many rows the reader of the `iceberg` crate finds in a copy of the table's files.
async fn rows_for_another_reader(table: &Table, sound: &Ports) -> usize {
    let files = FileIO::new_with_memory();
    for object in sound.storage.list(&sound.keys.root().join("tables/").unwrap()).await.unwrap() {
        let bytes: Bytes = sound.storage.get(&object.url).await.unwrap();
        files.new_output(object.url.as_str()).unwrap().write(bytes).await.unwrap();
    }
    let other = iceberg::table::Table::builder()
        .identifier(TableIdent::from_strs(["sim", "events"]).unwrap())
        .metadata(table.metadata().clone())
        .file_io(files)
        .runtime(iceberg::Runtime::current())
        .build()
        .unwrap();
    let rows = other.scan().build().unwrap().to_arrow().await.unwrap();
    futures::TryStreamExt::try_fold(rows, 0, |count, batch| async move { Ok(count + batch.num_rows()) }).await.unwrap()
}
