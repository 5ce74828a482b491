//! Records that could not be stored, shown, counted and stored after all.

use table::Purge;

use super::*;

const NARROW: &str = "
version: 1
database: nyc
streams:
  flights:
    shards: 2
    schema: [{name: id, type: bigint, required: true}, {name: delay, type: int}]
";

fn batcher(ports: Ports, lakehouse: &str) -> Batcher {
    Batcher::new(Arc::new(Project::parse(lakehouse, "test").unwrap()), ports).unwrap()
}

/// What a user makes of [`NARROW`] to mend it.
fn wide() -> String {
    NARROW.replace("type: int}", "type: bigint}")
}

/// Puts records with these ids. The `delay` of every third is too much for [`NARROW`]; every seventh is no JSON.
async fn put(lake: &Lake, ids: std::ops::Range<i64>) {
    let text = |id: i64| match id {
        id if id % 7 == 0 => format!("no json {id}"),
        id if id % 3 == 0 => format!(r#"{{"id":{id},"delay":3000000000}}"#),
        id => format!(r#"{{"id":{id},"delay":1}}"#),
    };
    lake.put(&ids.map(text).collect::<Vec<_>>()).await;
}

async fn ask(batcher: &Batcher, method: &str, path: &str, body: &Value) -> Value {
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    let query = query.split('&').filter_map(|pair| pair.split_once('='));
    let request = Request {
        body: if body.is_null() { Default::default() } else { body.to_string().into() },
        query: query.map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
        ..Request::new(method, path, "r")
    };
    let response = batcher.handle(Event::Http(request)).await.unwrap().response().unwrap().whole().await.unwrap();
    serde_json::from_slice(&response.body).unwrap()
}

async fn replay(batcher: &Batcher, body: Value) -> Value {
    ask(batcher, "POST", "/streams/flights/errors/replay", &body).await
}

/// The ids in the table, and how many records wait.
async fn found(lake: &Lake) -> (Vec<i64>, u64) {
    let status = ask(&batcher(lake.ports.clone(), NARROW), "GET", "/status/batcher", &Value::Null).await;
    let provider = lake.table().await.provider(Read::Current).await.unwrap();
    let session = SessionContext::new();
    let root = lake.ports.keys.root();
    session.register_object_store(root, lake.ports.storage.resolve(root).unwrap().0);
    let batches = session.read_table(provider).unwrap().collect().await.unwrap();
    let ids = |batch: &arrow::record_batch::RecordBatch| {
        batch.column_by_name("id").unwrap().as_primitive::<Int64Type>().values().to_vec()
    };
    let mut ids: Vec<i64> = batches.iter().flat_map(ids).collect();
    ids.sort_unstable();
    (ids, status["streams"][0]["errors"]["records"].as_u64().unwrap())
}

fn all_but_no_json(ids: std::ops::Range<i64>) -> Vec<i64> {
    ids.filter(|id| id % 7 != 0).collect()
}

#[tokio::test]
async fn what_could_not_be_stored_is_told_shown_and_stored_once_the_schema_is_mended() {
    let lake = Lake::new().await;
    put(&lake, 1..15).await;
    let narrow = batcher(lake.ports.clone(), NARROW);
    let report = narrow.flush("flights").await.unwrap();
    assert_eq!((report.stored, report.rejected), (8, 6));
    let status = ask(&narrow, "GET", "/status/batcher", &Value::Null).await;
    let message = status["problems"][0]["message"].as_str().unwrap();
    assert!(message.starts_with("6 records not stored, in "), "{status}");
    let shown = ask(&narrow, "GET", "/streams/flights/errors?code=overflow&limit=3", &Value::Null).await;
    assert_eq!(shown["errors"].as_array().unwrap().len(), 3, "{shown}");
    assert!(shown["errors"][0]["data"].as_str().unwrap().contains("3000000000"), "{shown}");
    let still = replay(&narrow, json!({})).await;
    assert_eq!((&still["replayed"], &still["failing"]), (&json!(0), &json!(6)));

    let wide = batcher(lake.ports.clone(), &wide());
    let dry = replay(&wide, json!({"dryRun": true})).await;
    assert_eq!((&dry["replayed"], &dry["failing"]), (&json!(4), &json!(2)), "{dry}");
    assert_eq!(found(&lake).await.1, 6, "nothing has changed");
    let none = replay(&wide, json!({"until": "1970-01-01T00:00:01Z"})).await;
    assert_eq!(none["replayed"], 0, "all arrived later");
    let done = replay(&wide, json!({})).await;
    assert_eq!((&done["replayed"], &done["failing"]), (&json!(4), &json!(2)), "{done}");
    assert_eq!(found(&lake).await, (all_but_no_json(1..15), 2));
    let again = replay(&wide, json!({})).await;
    assert_eq!((&again["replayed"], &again["failing"]), (&json!(0), &json!(2)), "{again}");
    let left = ask(&wide, "GET", "/streams/flights/errors", &Value::Null).await;
    assert_eq!(left["errors"][0]["attempts"], 2, "what stays has been tried once more");
}

#[tokio::test]
async fn an_interval_that_is_not_in_the_table_yet_is_left_to_its_flush() {
    let lake = Lake::new().await;
    put(&lake, 1..7).await;
    let plan = Plan::from(Operation::Put, 3, Fault::Refused);
    let storage = lake.ports.storage.wrapped(|store| Faulty::wrap(store, &plan));
    batcher(Ports { storage, ..lake.ports.clone() }, NARROW).flush("flights").await.unwrap_err();
    let wide = batcher(lake.ports.clone(), &wide());
    assert_eq!(replay(&wide, json!({})).await["replayed"], 0);
    wide.flush("flights").await.unwrap();
    replay(&wide, json!({})).await;
    assert_eq!(found(&lake).await.0, all_but_no_json(1..7));
}

#[tokio::test]
async fn an_error_object_that_comes_back_is_not_replayed_again() {
    let lake = Lake::new().await;
    put(&lake, 1..4).await;
    batcher(lake.ports.clone(), NARROW).flush("flights").await.unwrap();
    let objects = lake.ports.storage.list(&lake.ports.keys.errors("flights")).await.unwrap();
    let text = lake.ports.storage.get(&objects[0].url).await.unwrap();
    let wide = batcher(lake.ports.clone(), &wide());
    assert_eq!(replay(&wide, json!({})).await["replayed"], 1);
    // A batcher that was slow with the same interval.
    lake.ports.storage.put(&objects[0].url, text).await.unwrap();
    assert_eq!(replay(&wide, json!({})).await["replayed"], 0);
    assert_eq!(found(&lake).await, (vec![1, 2, 3], 0));
}

async fn discard(batcher: &Batcher, body: Value) -> Value {
    ask(batcher, "POST", "/streams/flights/errors/discard", &body).await
}

#[tokio::test]
async fn records_that_are_given_up_are_gone_and_all_others_stay() {
    let lake = Lake::new().await;
    put(&lake, 1..15).await;
    let narrow = batcher(lake.ports.clone(), NARROW);
    narrow.flush("flights").await.unwrap();
    let dry = discard(&narrow, json!({"code": "overflow", "dryRun": true})).await;
    assert_eq!((&dry["discarded"], found(&lake).await.1), (&json!(4), 6), "{dry}");
    let none = discard(&narrow, json!({"until": "1970-01-01T00:00:01Z"})).await;
    assert_eq!(none["discarded"], 0, "all arrived later: {none}");
    let early = discard(&narrow, json!({"asOfMs": 0})).await;
    assert_eq!(early["discarded"], 0, "all were refused later: {early}");
    let done = discard(&narrow, json!({"code": "overflow"})).await;
    assert_eq!((&done["discarded"], found(&lake).await.1), (&json!(4), 2), "{done}");
    // What fits by now and was given up does not come back; no JSON never fits.
    let wide = batcher(lake.ports.clone(), &wide());
    let replayed = replay(&wide, json!({})).await;
    assert_eq!((&replayed["replayed"], &replayed["failing"]), (&json!(0), &json!(2)), "{replayed}");
    assert_eq!(discard(&wide, json!({})).await["discarded"], 2);
    let status = ask(&wide, "GET", "/status/batcher", &Value::Null).await;
    assert_eq!(status["problems"], json!([]), "{status}");
    assert_eq!(found(&lake).await.1, 0);
    let unknown = discard(&wide, json!({"codes": "overflow"})).await;
    assert!(unknown["error"]["message"].as_str().unwrap().contains("codes"), "{unknown}");
}

#[tokio::test]
async fn what_comes_while_records_are_given_up_stays() {
    let lake = Lake::new().await;
    put(&lake, 1..4).await;
    let narrow = batcher(lake.ports.clone(), NARROW);
    narrow.flush("flights").await.unwrap();
    let asked = discard(&narrow, json!({"dryRun": true})).await;
    // The storage's clock goes on.
    tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    lake.clock.advance(60_000);
    put(&lake, 4..7).await;
    narrow.flush("flights").await.unwrap();
    assert_eq!(found(&lake).await.1, 2);
    // An interval that is not committed is written again, so its errors are not there to be given up.
    put(&lake, 7..10).await;
    let plan = Plan::from(Operation::Put, 3, Fault::Refused);
    let storage = lake.ports.storage.wrapped(|store| Faulty::wrap(store, &plan));
    batcher(Ports { storage, ..lake.ports.clone() }, NARROW).flush("flights").await.unwrap_err();
    let done = discard(&narrow, json!({"asOfMs": asked["asOfMs"]})).await;
    assert_eq!((&asked["discarded"], &done["discarded"]), (&json!(1), &json!(1)), "{done}");
    assert_eq!(discard(&narrow, json!({})).await["discarded"], 1);
    narrow.flush("flights").await.unwrap();
    assert_eq!(found(&lake).await.1, 2, "of the last interval");
}

/// A batcher is killed between the errors of an interval and its commit; then the lakehouse file is edited.
#[tokio::test]
async fn an_interval_that_was_begun_by_one_schema_is_written_once_after_an_edit() {
    for (steps, widen_first) in (0..60).flat_map(|steps| [(steps, false), (steps, true)]) {
        let lake = Lake::new().await;
        let (narrow, wide) = (batcher(lake.ports.clone(), NARROW), batcher(lake.ports.clone(), &wide()));
        let (first, then) = if widen_first { (&wide, &narrow) } else { (&narrow, &wide) };
        put(&lake, 1..10).await;
        drop(killed_after(steps, first.flush("flights")).await);
        drop(killed_after(steps / 2, then.flush("flights")).await);
        then.flush("flights").await.unwrap();
        let (ids, waiting) = found(&lake).await;
        assert_eq!(ids.len() as u64 + waiting, 9, "{steps} {widen_first}: {ids:?}");
        replay(&wide, json!({})).await;
        assert_eq!(found(&lake).await, (all_but_no_json(1..10), 1), "{steps} {widen_first}");
    }
}

/// The stream has got a column of another type before its table was ever written: the plan's schema fits it no more.
#[tokio::test]
async fn an_interval_whose_schema_fits_no_more_is_written_by_the_one_of_now() {
    let lake = Lake::new().await;
    put(&lake, 1..7).await;
    let plan = Plan::from(Operation::Put, 2, Fault::Refused);
    let storage = lake.ports.storage.wrapped(|store| Faulty::wrap(store, &plan));
    batcher(Ports { storage, ..lake.ports.clone() }, NARROW).flush("flights").await.unwrap_err();
    Tables::new(lake.ports.clone()).drop(&TableName::new("nyc", "flights").unwrap(), Purge::All).await.unwrap();
    let text = NARROW.replace("name: delay, type: int", "name: late, type: string");
    let other = batcher(lake.ports.clone(), &text);
    other.flush("flights").await.unwrap();
    let (ids, waiting) = found(&lake).await;
    assert_eq!((ids, waiting), ((1..7).collect::<Vec<_>>(), 0), "`delay` is passed over");
}

/// Something that happens while records are replayed.
#[derive(Debug, Clone)]
enum Act {
    Put(u8),
    Flush,
    Killed(usize),
    Faulty(u64),
    Both(usize, usize),
    /// A flush by either schema that is killed.
    Begun(usize, bool),
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        2 => (1u8..12).prop_map(Act::Put),
        2 => Just(Act::Flush),
        3 => (0usize..60).prop_map(Act::Killed),
        2 => any::<u64>().prop_map(Act::Faulty),
        2 => (0usize..200, 0usize..200).prop_map(|(a, b)| Act::Both(a, b)),
        2 => (0usize..120, any::<bool>()).prop_map(|(steps, wide)| Act::Begun(steps, wide)),
    ]
}

async fn live(acts: Vec<Act>) {
    let lake = Lake::new().await;
    let (narrow, wide_file) = (batcher(lake.ports.clone(), NARROW), wide());
    let wide = |ports: &Ports| batcher(ports.clone(), &wide_file);
    let mut next = 1;
    for act in acts {
        match act {
            Act::Put(count) => {
                put(&lake, next..next + i64::from(count)).await;
                next += i64::from(count);
            }
            // A table that was widened stays so, whatever the file says.
            Act::Flush => drop(narrow.flush("flights").await.unwrap()),
            Act::Begun(steps, by_wide) => {
                let wide = wide(&lake.ports);
                drop(killed_after(steps, if by_wide { &wide } else { &narrow }.flush("flights")).await);
            }
            Act::Killed(steps) => {
                let wide = wide(&lake.ports);
                drop(killed_after(steps, wide.replay_errors("flights", Default::default())).await);
            }
            Act::Faulty(seed) => {
                let plan = Plan::random(seed, 100);
                let storage = lake.ports.storage.wrapped(|store| Faulty::wrap(store, &plan));
                let faulty = wide(&Ports { storage, ..lake.ports.clone() });
                drop(faulty.replay_errors("flights", Default::default()).await);
            }
            Act::Both(a, b) => {
                let (one, other) = (wide(&lake.ports), wide(&lake.ports));
                let one = killed_after(a, one.replay_errors("flights", Default::default()));
                let other = killed_after(b, other.replay_errors("flights", Default::default()));
                drop(futures::join!(one, other));
            }
        }
    }
    let last = wide(&lake.ports);
    last.flush("flights").await.unwrap();
    // The first finishes what another left, the second does the rest.
    last.replay_errors("flights", Default::default()).await.unwrap();
    last.replay_errors("flights", Default::default()).await.unwrap();
    let (ids, waiting) = found(&lake).await;
    assert_eq!(ids, all_but_no_json(1..next));
    assert_eq!(waiting, (1..next).filter(|id| id % 7 == 0).count() as u64);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn every_record_is_in_the_table_or_waits_once_whatever_happens_to_replays(acts in proptest::collection::vec(act(), 1..12)) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        runtime.block_on(live(acts));
    }
}

/// Discards of `overflow` beside flushes and replays: what is neither in the table nor waiting was given up, and counted.
async fn given_up(acts: Vec<(u8, usize, usize)>) {
    let lake = Lake::new().await;
    let narrow = batcher(lake.ports.clone(), NARROW);
    let wide_file = wide();
    let wide = || batcher(lake.ports.clone(), &wide_file);
    let mut next = 1;
    let unwanted = || serde_json::from_value(json!({"code": "overflow"})).unwrap();
    for (count, a, b) in acts {
        put(&lake, next..next + i64::from(count)).await;
        next += i64::from(count);
        narrow.flush("flights").await.unwrap();
        let (one, other, third) = (wide(), wide(), wide());
        let discard = killed_after(a, one.discard_errors("flights", unwanted()));
        let replay = killed_after(b, other.replay_errors("flights", Default::default()));
        let both = killed_after(b / 2, third.discard_errors("flights", unwanted()));
        drop(futures::join!(discard, replay, both));
    }
    let last = wide();
    last.replay_errors("flights", Default::default()).await.unwrap();
    last.replay_errors("flights", Default::default()).await.unwrap();
    let (ids, waiting) = found(&lake).await;
    assert_eq!(waiting, (1..next).filter(|id| id % 7 == 0).count() as u64, "no JSON is never given up");
    let mut once = ids.clone();
    once.dedup();
    assert_eq!(ids, once, "each once");
    let sound: Vec<i64> = (1..next).filter(|id| id % 7 != 0 && id % 3 != 0).collect();
    assert!(sound.iter().all(|id| ids.binary_search(id).is_ok()), "{ids:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn discards_take_what_they_name_and_nothing_else(acts in proptest::collection::vec((1u8..12, 0usize..90, 0usize..120), 1..6)) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        runtime.block_on(given_up(acts));
    }
}
