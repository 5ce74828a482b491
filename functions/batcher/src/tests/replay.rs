//! Records that could not be stored, shown, counted and stored after all.

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

/// Something that happens while records are replayed.
#[derive(Debug, Clone)]
enum Act {
    Put(u8),
    Flush,
    Killed(usize),
    Faulty(u64),
    Both(usize, usize),
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        2 => (1u8..12).prop_map(Act::Put),
        2 => Just(Act::Flush),
        3 => (0usize..60).prop_map(Act::Killed),
        2 => any::<u64>().prop_map(Act::Faulty),
        2 => (0usize..200, 0usize..200).prop_map(|(a, b)| Act::Both(a, b)),
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
