//! The demo's lakehouse, its real flights and files, and `kill -9` at every stage: the tables end as if nothing had happened.

use std::collections::VecDeque;

use serde_json::Value;
use tarn::demo::data::{BAD, DIMENSIONS, LAKEHOUSE, RawFile, WEATHER, gzipped, month};

use crate::flow::walk;
use crate::lake::Lake;

/// The first days of January, sent in two halves with a run of the workflow behind each.
pub(crate) const DAYS: usize = 12;
const RECORDS: &str = "/streams/flights/records";
pub(crate) const TABLES: [&str; 7] = [
    "nyc.flights",
    "nyc.weather",
    "nyc.planes",
    "nyc.airports",
    "nyc.airlines",
    "curated.flights",
    "curated.daily_delays",
];

/// Numbers that look random and are the same in each run (xorshift).
struct Random(u64);

impl Random {
    fn within(&mut self, range: std::ops::Range<u64>) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        range.start + self.0 % (range.end - range.start)
    }
}

/// A client that sends until it has an answer, to a runtime that is killed and started anew.
struct Journey {
    lake: Lake,
    random: Option<Random>,
    kills: u32,
    /// Kills that left a request without an answer.
    struck: u32,
    killer: Option<tokio::task::JoinHandle<()>>,
}

/// What `ingest` said of the records.
#[derive(Debug, Default, PartialEq, Eq)]
struct Taken {
    stored: u64,
    rejected: u64,
}

impl Journey {
    fn new(seed: Option<u64>) -> Self {
        Self { lake: Lake::up(LAKEHOUSE), random: seed.map(Random), kills: 0, struck: 0, killer: None }
    }

    /// Has the runtime killed at some moment within `milliseconds`, unless it is to be killed already.
    fn endanger(&mut self, milliseconds: std::ops::Range<u64>) {
        if let (Some(random), None) = (&mut self.random, &self.killer) {
            self.killer = Some(self.lake.kill_in(random.within(milliseconds)));
        }
    }

    /// A request; `None` when it got no answer: then the runtime was killed and is up again.
    async fn send(&mut self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Option<(u16, Value)> {
        match self.lake.try_send(method, path, headers, body.to_vec()).await {
            Ok(answer) => Some(answer),
            Err(error) => {
                let killer = self.killer.take();
                killer.unwrap_or_else(|| panic!("nobody killed it: {error:?}\n{}", self.lake.log())).await.unwrap();
                self.lake.kill();
                (self.kills, self.struck) = (self.kills + 1, self.struck + 1);
                self.lake.start();
                None
            }
        }
    }

    /// Waits for the killer, so that what follows is left in peace.
    async fn survive(&mut self) {
        if let Some(killer) = self.killer.take() {
            killer.await.unwrap();
            self.lake.kill();
            self.kills += 1;
            self.lake.start();
        }
    }

    async fn upload(&mut self, files: impl Iterator<Item = &'static RawFile>) {
        for file in files {
            let path = format!("/files/{}/{}", file.location, file.path);
            self.endanger(1..120);
            while self.send("PUT", &path, &[], file.bytes).await.is_none() {}
        }
        self.survive().await;
    }

    /// Sends a day after the other. One that got no answer, or is still held by the process that died, comes again behind the
    /// others; those that are left when none is new are given back, or sent in peace until all are taken.
    async fn stream(&mut self, mut days: VecDeque<Day>, wait: bool, taken: &mut Taken) -> VecDeque<Day> {
        let mut new = days.len();
        while let Some(day) = days.pop_front() {
            if new == 0 && !wait {
                days.push_back(day);
                break;
            }
            match new.checked_sub(1) {
                Some(fewer) => {
                    self.endanger(1..150);
                    new = fewer;
                }
                None => tokio::time::sleep(std::time::Duration::from_millis(100)).await,
            }
            let headers = [
                ("content-type", "application/x-ndjson"),
                ("content-encoding", "gzip"),
                ("idempotency-key", day.name.as_str()),
            ];
            match self.send("POST", RECORDS, &headers, &day.body).await {
                Some((200 | 207, answer)) if answer["throttled"] == 0 => {
                    taken.stored += answer["stored"].as_u64().unwrap();
                    taken.rejected += answer["rejected"].as_u64().unwrap();
                    // Has the batcher commit, so that a kill meets it at that.
                    self.send("POST", "/streams/flights/flush", &[("content-type", "application/json")], b"{}").await;
                }
                Some((503, _)) | None => days.push_back(day),
                Some((status, answer)) => panic!("{status} {answer:#}\n{}", self.lake.log()),
            }
            if new == 0 {
                self.survive().await;
            }
        }
        self.lake.flush("flights").await;
        days
    }

    /// Runs the workflow, killed twice in the middle, until a run succeeds.
    async fn curate(&mut self) {
        for round in 0.. {
            if round < 2 {
                self.endanger(20..400);
            }
            match self.send("POST", "/workflows/curate/runs", &[("content-type", "application/json")], b"{}").await {
                Some((200, run)) => {
                    assert_eq!(run["status"], "succeeded", "{run:#}\n{}", self.lake.log());
                    break;
                }
                Some((status, answer)) => panic!("{status} {answer:#}\n{}", self.lake.log()),
                None => {}
            }
        }
        self.survive().await;
    }

    /// The whole way; what `ingest` took.
    async fn travel(&mut self) -> Taken {
        self.upload(DIMENSIONS.iter().chain(&WEATHER[..1])).await;
        for (location, rows) in [("planes", 3_322), ("airports", 1_458), ("airlines", 16), ("weather", 2_226)] {
            self.lake.until(&format!("SELECT count(*) FROM nyc.{location}"), rows).await;
        }
        let mut taken = Taken::default();
        let mut first = days();
        let second = first.split_off(DAYS / 2);
        let mut left = self.stream(first, false, &mut taken).await;
        self.curate().await;
        left.extend(second);
        self.stream(left, true, &mut taken).await;
        self.curate().await;
        taken
    }
}

/// A day's flights with a bad record among them, gzipped; its name is the idempotency key.
pub(crate) struct Day {
    pub(crate) name: String,
    pub(crate) body: Vec<u8>,
}

pub(crate) fn days() -> VecDeque<Day> {
    let body = |(number, mut lines): (usize, Vec<Vec<u8>>)| {
        lines.insert(lines.len() / 2, BAD[number % BAD.len()].into());
        gzipped(&lines).unwrap().to_vec()
    };
    month(1)
        .unwrap()
        .into_iter()
        .take(DAYS)
        .enumerate()
        .map(|(number, batch)| Day { name: batch.day, body: body((number, batch.lines)) })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn flights_and_files_survive_kill_9_at_every_stage_as_if_nothing_had_happened() {
    let sound = tokio::spawn(async {
        let mut journey = Journey::new(None);
        let taken = journey.travel().await;
        (journey, taken)
    });
    let mut killed = Journey::new(Some(0x5eed_2013));
    let taken = killed.travel().await;
    let (sound, expected) = sound.await.unwrap();

    let (kills, struck) = (killed.kills, killed.struck);
    assert!(kills >= 5 && struck >= 3, "it was killed {kills} times, {struck} times while it worked on a request");
    assert_eq!(taken, expected);
    assert_eq!(taken.rejected, DAYS as u64);
    for journey in [&sound, &killed] {
        let set_aside: usize = walk(&journey.lake.data().join("objects/errors"))
            .iter()
            .map(|file| std::fs::read_to_string(file).unwrap().lines().count())
            .sum();
        let rows = journey.lake.number("SELECT count(*) FROM nyc.flights").await.unwrap();
        assert_eq!(taken.stored, u64::try_from(rows).unwrap() + set_aside as u64, "accepted = rows + error objects");
    }
    for table in TABLES {
        let (ours, theirs) = (killed.lake.rows(table).await, sound.lake.rows(table).await);
        assert!(!theirs.is_empty(), "{table} has rows");
        let doubled = ours.windows(2).filter(|two| two[0] == two[1]).count();
        assert_eq!(doubled, theirs.windows(2).filter(|two| two[0] == two[1]).count(), "rows doubled in {table}");
        let differing = ours.iter().zip(&theirs).find(|(ours, theirs)| ours != theirs);
        assert_eq!((ours.len(), differing), (theirs.len(), None), "{table}");
    }
}
