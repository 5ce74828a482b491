//! Shards that give little at a time and refuse by plan, as those of Kinesis do.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use shared::model::Positions;
use shared::stream::{ReadBatch, Shard, Stream};

use super::*;
use crate::round::{Round, read_again, read_new};

/// A lake's stream: a record an answer, each after a second.
#[derive(Debug)]
pub(super) struct Narrow {
    inner: Arc<dyn Stream>,
    clock: Arc<ManualClock>,
    /// How many answers a shard gives before it refuses; as many as it is asked for when it is not here.
    answers: Mutex<BTreeMap<ShardId, usize>>,
    /// Whether the second shard came of the first.
    split: bool,
    /// Whether records come as fast as they are read.
    flows: AtomicBool,
    /// The shards in the order of their answers.
    read: Mutex<Vec<ShardId>>,
}

impl Narrow {
    pub(super) fn over(lake: &Lake) -> Arc<Self> {
        Arc::new(Self::new(lake, false))
    }

    fn new(lake: &Lake, split: bool) -> Self {
        let (inner, clock) = (lake.ports.stream.clone(), lake.clock.clone());
        Self { inner, clock, answers: Mutex::default(), split, flows: AtomicBool::default(), read: Mutex::default() }
    }

    pub(super) fn refuse_after(&self, answers: [usize; 2]) {
        *self.answers.lock().unwrap() = (0..2).map(shard).zip(answers).collect();
    }

    fn refuse_no_more(&self) {
        self.answers.lock().unwrap().clear();
    }

    async fn read_new(&self) -> Result<Round> {
        read_new(self, "flights", &Positions::default(), 1 << 20, self.clock.as_ref()).await
    }
}

#[async_trait::async_trait]
impl Stream for Narrow {
    async fn create(&self, spec: &StreamSpec) -> Result<()> {
        self.inner.create(spec).await
    }

    async fn list(&self) -> Result<Vec<String>> {
        self.inner.list().await
    }

    async fn shards(&self, stream: &str) -> Result<Vec<Shard>> {
        let mut shards = self.inner.shards(stream).await?;
        if self.split {
            shards[0].open = false;
            shards[1].parents = vec![shard(0)];
        }
        Ok(shards)
    }

    async fn put(&self, stream: &str, records: Vec<NewRecord>) -> Result<Vec<PutOutcome>> {
        self.inner.put(stream, records).await
    }

    async fn read(&self, stream: &str, shard: &ShardId, from: ReadFrom, _: usize) -> Result<ReadBatch> {
        self.clock.advance(1_000);
        if let Some(answers) = self.answers.lock().unwrap().get_mut(shard) {
            *answers = answers.checked_sub(1).ok_or_else(|| Error::retry("too many reads"))?;
        }
        if self.flows.load(Ordering::SeqCst) {
            let more =
                ["a", "b", "c", "d"].map(|key| NewRecord { partition_key: key.into(), data: "{\"id\":1}".into() });
            self.inner.put(stream, more.to_vec()).await?;
        }
        self.read.lock().unwrap().push(shard.clone());
        self.inner.read(stream, shard, from, 1).await
    }
}

fn shard(number: usize) -> ShardId {
    ShardId(format!("shardId-{number:012}"))
}

/// How many records the round has of each of the two shards.
fn counts(round: &Round) -> [usize; 2] {
    let of =
        |number| round.shards.iter().filter(|(id, _)| *id == shard(number)).map(|(_, records)| records.len()).sum();
    [of(0), of(1)]
}

/// A lake with 29 records, and how many each shard has.
async fn full_house() -> (Lake, [usize; 2]) {
    let lake = Lake::new().await;
    lake.put_ids(1..30).await;
    let all = counts(&Narrow::new(&lake, false).read_new().await.unwrap());
    assert!(all[0] > 5 && all[1] > 5 && all[0] + all[1] == 29, "{all:?}");
    (lake, all)
}

#[tokio::test]
async fn shards_take_turns() {
    let (lake, all) = full_house().await;
    let narrow = Narrow::new(&lake, false);
    let round = narrow.read_new().await.unwrap();
    assert_eq!((counts(&round), round.left_ms), (all, None));
    let turns: Vec<_> = (0..10).map(|turn| shard(turn % 2)).collect();
    assert_eq!(narrow.read.lock().unwrap()[..10], turns);
}

#[tokio::test]
async fn a_shard_that_refuses_is_left_to_the_next_round() {
    let (lake, all) = full_house().await;
    let narrow = Narrow::new(&lake, false);
    narrow.refuse_after([2, usize::MAX]);
    let round = narrow.read_new().await.unwrap();
    assert_eq!(counts(&round), [2, all[1]]);
    assert_eq!(round.left_ms, Some(1_000_000), "what is left may be as old as the last record that was read");
    for (id, records) in &round.shards {
        assert_eq!(round.to.of(id), records.last().unwrap().sequence);
    }
    narrow.refuse_after([0, usize::MAX]);
    let round = narrow.read_new().await.unwrap();
    assert_eq!((counts(&round), round.left_ms), ([0, all[1]], Some(i64::MIN)));
    assert_eq!(round.to.of(&shard(0)), SequenceNumber::zero());
    narrow.refuse_after([0, 0]);
    assert_eq!(narrow.read_new().await.unwrap_err().kind(), ErrorKind::Retry, "nothing was read");
}

#[tokio::test]
async fn a_child_waits_for_the_rest_of_its_parent() {
    let (lake, all) = full_house().await;
    let narrow = Narrow::new(&lake, true);
    narrow.refuse_after([all[0], usize::MAX]);
    let round = narrow.read_new().await.unwrap();
    assert_eq!(counts(&round), [all[0], 0], "the parent did not say that this was all");
    assert_eq!(round.left_ms, Some(i64::MIN));
    narrow.refuse_no_more();
    let round = narrow.read_new().await.unwrap();
    assert_eq!((counts(&round), round.left_ms), (all, None));
}

#[tokio::test]
async fn an_interval_is_read_again_whole_or_not_at_all() {
    let (lake, all) = full_house().await;
    for split in [false, true] {
        let narrow = Narrow::new(&lake, split);
        let from = Positions::default();
        let mut to = from.clone();
        let whole = narrow.read_new().await.unwrap();
        for (id, records) in &whole.shards {
            to.advance(id, records[4].sequence.clone());
        }
        narrow.read.lock().unwrap().clear();
        let again = read_again(&narrow, "flights", &from, &to).await.unwrap();
        assert_eq!((counts(&again), &again.to), ([5, 5], &to), "of {all:?}");
        assert_eq!(narrow.read.lock().unwrap().len(), 10, "no answer more than needed");
        for answers in [[4, 5], [5, 4], [0, 0]] {
            narrow.refuse_after(answers);
            let error = read_again(&narrow, "flights", &from, &to).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Retry);
        }
    }
}

#[tokio::test]
async fn a_flush_ends_though_records_go_on_coming() {
    let lake = Lake::new().await;
    lake.put_ids(1..5).await;
    let narrow = Narrow::over(&lake);
    narrow.flows.store(true, Ordering::SeqCst);
    let batcher = lake.batcher_reading(&narrow);
    let report = deadline::until(lake.ports.clock.now_ms() + 300_000, batcher.flush("flights")).await.unwrap();
    assert!(report.records > 4 && report.commits == 1 && !report.unfinished, "{report:?}");
    assert!(report.elapsed_ms < 30_000, "{report:?}");
    narrow.flows.store(false, Ordering::SeqCst);
    let rest = batcher.flush("flights").await.unwrap();
    assert!(rest.records > 0, "{rest:?}");
}

#[tokio::test]
async fn what_was_read_before_the_shards_refused_is_written() {
    let lake = Lake::new().await;
    let put = lake.put_ids(1..30).await;
    let narrow = Narrow::over(&lake);
    let batcher = lake.batcher_reading(&narrow);
    for written in [4, 8] {
        narrow.refuse_after([2, 2]);
        assert_eq!(batcher.flush("flights").await.unwrap_err().kind(), ErrorKind::Retry, "there is more");
        let Contents { stored, rejected } = lake.contents().await;
        assert_eq!(stored.len() + rejected.len(), written);
    }
    narrow.refuse_no_more();
    batcher.flush("flights").await.unwrap();
    assert_eq!(lake.contents().await, put.sorted());
}

#[tokio::test]
async fn a_planned_interval_is_not_cut_short_where_shards_refuse() {
    let lake = Lake::new().await;
    let mut put = lake.put_ids(1..5).await;
    lake.batcher().flush("flights").await.unwrap();
    let before = lake.contents().await;
    put.extend(lake.put_ids(5..35).await);
    let event = lake.event().await;
    lake.faulty(&Plan::from(Operation::Put, 1, Fault::Refused)).flush("flights").await.unwrap_err();
    let narrow = Narrow::over(&lake);
    narrow.refuse_after([2, 2]);
    assert_eq!(lake.batcher_reading(&narrow).flush("flights").await.unwrap_err().kind(), ErrorKind::Retry);
    lake.clock.advance(60_000);
    let answer = call(&lake.batcher_reading(&narrow), event).await.unwrap();
    assert_eq!(answer["batchItemFailures"].as_array().unwrap().len(), 2, "{answer}");
    assert_eq!(lake.contents().await, before);
    lake.batcher().flush("flights").await.unwrap();
    assert_eq!(lake.contents().await, put.sorted());
}
