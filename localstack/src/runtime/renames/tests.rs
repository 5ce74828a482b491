//! Renames that are stopped at any call, and finished later: nothing is lost, nothing is there twice.

use std::sync::atomic::{AtomicU64, Ordering};

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use async_trait::async_trait;
use bytes::Bytes;
use engine::{Engine, QueryOptions};
use shared::Principal;
use shared::clock::SystemClock;
use shared::config::Settings;
use shared::state::{Document, State, Version};
use shared::stream::{NewRecord, StreamSpec};
use testing::faults::{Fault, Faulty, Operation, Plan};

use super::*;

const ORDERS: &str = "
version: 1
database: shop
streams:
  orders: {keep_rejects: true, schema: [{name: id, type: bigint, required: true}]}
";

fn purchases() -> String {
    ORDERS.replace("orders: {", "purchases: {was: orders, table: orders, ")
}

fn project(text: &str) -> Project {
    Project::parse(text, "test").unwrap()
}

/// A state that is gone from the nth change on, which may have happened or not.
#[derive(Debug)]
struct Mortal {
    inner: Arc<dyn State>,
    changes: AtomicU64,
    last: u64,
    happens: bool,
}

impl Mortal {
    async fn change<T>(&self, change: impl Future<Output = Result<T>> + Send) -> Result<T> {
        let gone = || Error::retry("the state is gone");
        match self.changes.fetch_add(1, Ordering::SeqCst) + 1 {
            n if n < self.last => change.await,
            n if n == self.last && self.happens => change.await.and(Err(gone())),
            _ => Err(gone()),
        }
    }
}

#[async_trait]
impl State for Mortal {
    async fn get(&self, key: &str) -> Result<Option<Document>> {
        self.inner.get(key).await
    }

    async fn put(&self, key: &str, bytes: Bytes, expect: Expect) -> Result<Version> {
        self.change(self.inner.put(key, bytes, expect)).await
    }

    async fn delete(&self, key: &str, expect: Expect) -> Result<()> {
        self.change(self.inner.delete(key, expect)).await
    }

    async fn list_first(&self, prefix: &str, most: usize) -> Result<Vec<String>> {
        self.inner.list_first(prefix, most).await
    }
}

struct Shop {
    ports: Ports,
    good: Vec<i64>,
    bad: usize,
    next: i64,
}

impl Shop {
    /// With a table that has been written to under both names, records that are not written yet, and some that can't be stored.
    async fn new() -> Self {
        let ports = adapters_embedded::in_memory(Arc::new(SystemClock)).unwrap();
        ports.stream.create(&StreamSpec { name: "orders".into(), shards: 2, retention_hours: 24 }).await.unwrap();
        let mut shop = Self { ports, good: Vec::new(), bad: 0, next: 0 };
        shop.put("orders").await;
        shop.flush("orders", ORDERS).await;
        shop.put("orders").await;
        carry_out(&shop.ports, &project(ORDERS), &project(&purchases()), &purchases()).await.unwrap();
        shop.put("purchases").await;
        shop.flush("purchases", &purchases()).await;
        shop.put("purchases").await;
        carry_out(&shop.ports, &project(&purchases()), &project(ORDERS), ORDERS).await.unwrap();
        shop.put("orders").await;
        shop.flush("orders", ORDERS).await;
        shop.put("orders").await;
        let delivered = r#"{"shardId-000000000000":"1"}"#;
        shop.ports.state.put("trigger/orders", delivered.into(), Expect::Anything).await.unwrap();
        shop
    }

    async fn put(&mut self, stream: &str) {
        let mut records = Vec::new();
        for id in self.next..self.next + 8 {
            let data = if id % 5 == 0 { format!("no json {id}") } else { format!("{{\"id\":{id}}}") };
            if id % 5 == 0 {
                self.bad += 1
            } else {
                self.good.push(id)
            }
            records.push(NewRecord { partition_key: id.to_string(), data: data.into() });
        }
        self.next += 8;
        self.ports.stream.put(stream, records).await.unwrap();
    }

    async fn flush(&self, stream: &str, text: &str) {
        Batcher::new(Arc::new(project(text)), self.ports.clone()).unwrap().flush(stream).await.unwrap();
    }

    async fn rows(&self) -> Vec<i64> {
        let spill = tempfile::tempdir().unwrap();
        let engine = Engine::open(&Settings::embedded(spill.path()).unwrap(), &self.ports).unwrap();
        let options = QueryOptions { database: "shop".into(), ..QueryOptions::new(Principal::Owner) };
        let answer = engine.query("SELECT id FROM orders ORDER BY id", &options).await.unwrap();
        let (batches, _) = answer.collect().await.unwrap();
        batches.iter().flat_map(|batch| batch.column(0).as_primitive::<Int64Type>().values().to_vec()).collect()
    }

    /// Finishes what has begun, if anything has; then everything is there once, under the new name.
    async fn check(&self) {
        finish(&self.ports).await.unwrap();
        carry_out(&self.ports, &project(ORDERS), &project(&purchases()), &purchases()).await.unwrap();
        self.flush("purchases", &purchases()).await;
        assert_eq!(self.rows().await, self.good);
        let keys = self.ports.state.list("").await.unwrap();
        assert!(!keys.iter().any(|key| key.ends_with("orders") || key == BEGUN), "{keys:?}");
        assert!(keys.contains(&"trigger/purchases".to_owned()), "{keys:?}");
        assert_eq!(self.ports.storage.list(&self.ports.keys.errors("orders")).await.unwrap(), []);
        let mut lines = 0;
        for object in self.ports.storage.list(&self.ports.keys.errors("purchases")).await.unwrap() {
            let text = self.ports.storage.get(&object.url).await.unwrap();
            lines += text.iter().filter(|byte| **byte == b'\n').count();
        }
        assert_eq!(lines, self.bad);
        let in_force = self.ports.state.get(IN_FORCE).await.unwrap().unwrap();
        assert_eq!(in_force.bytes, purchases());
    }
}

#[tokio::test]
async fn a_rename_that_ends_at_any_change_of_the_state_is_finished() {
    for happens in [false, true] {
        for last in 1.. {
            let shop = Shop::new().await;
            let inner = shop.ports.state.clone();
            let state = Arc::new(Mortal { inner, changes: AtomicU64::new(0), last, happens });
            let ports = Ports { state, ..shop.ports.clone() };
            let done = carry_out(&ports, &project(ORDERS), &project(&purchases()), &purchases()).await;
            shop.check().await;
            if done.is_ok() {
                assert!(last > 8, "{last}");
                break;
            }
        }
    }
}

#[tokio::test]
async fn a_rename_that_ends_at_any_call_of_the_storage_is_finished() {
    for operation in [Operation::Put, Operation::Delete] {
        for nth in 1.. {
            let shop = Shop::new().await;
            let plan = Plan::from(operation, nth, Fault::Refused);
            let storage = shop.ports.storage.wrapped(|store| Faulty::wrap(store, &plan));
            let ports = Ports { storage, ..shop.ports.clone() };
            let done = carry_out(&ports, &project(ORDERS), &project(&purchases()), &purchases()).await;
            shop.check().await;
            if done.is_ok() {
                assert!(nth > 1, "{operation:?}");
                break;
            }
        }
    }
}

#[tokio::test]
async fn a_stream_that_holds_records_does_not_give_way() {
    let shop = Shop::new().await;
    shop.ports.stream.create(&StreamSpec { name: "purchases".into(), shards: 1, retention_hours: 24 }).await.unwrap();
    let record = NewRecord { partition_key: "k".into(), data: "{}".into() };
    shop.ports.stream.put("purchases", vec![record]).await.unwrap();
    let before = Batcher::new(Arc::new(project(ORDERS)), shop.ports.clone()).unwrap();
    let plan = before.plan(&project(&purchases())).await.unwrap();
    assert!(plan[0].what == "was `orders`" && plan[0].then.contains("still holds 1 record"), "{plan:?}");
    let done = carry_out(&shop.ports, &project(ORDERS), &project(&purchases()), &purchases()).await;
    assert_eq!(done.unwrap_err().kind(), ErrorKind::Conflict);
}
