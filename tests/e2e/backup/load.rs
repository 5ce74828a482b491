//! A lakehouse that is backed up while it works, restored and compared row by row.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use super::{Backups, SHOP, by_id, content, note, run_daily, send, upload};
use crate::flow::walk;
use crate::lake::Lake;

/// Works on a lakehouse until told to stop; how far it was accepted is told in [`Load`].
#[derive(Default)]
struct Load {
    stop: AtomicBool,
    orders: AtomicI64,
    refused: AtomicI64,
    files: AtomicI64,
    ledger: AtomicI64,
}

impl Load {
    fn goes_on(&self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }

    fn accepted(&self) -> [i64; 4] {
        [&self.orders, &self.refused, &self.files, &self.ledger].map(|count| count.load(Ordering::SeqCst))
    }

    async fn send_orders(&self, lake: &Lake) {
        const BATCH: i64 = 25;
        while self.goes_on() {
            let first = self.orders.load(Ordering::SeqCst);
            send(lake, first..first + BATCH).await;
            self.orders.fetch_add(BATCH, Ordering::SeqCst);
        }
    }

    /// Records that are refused at the door, and kept.
    async fn send_misfits(&self, lake: &Lake) {
        while self.goes_on() {
            let number = self.refused.load(Ordering::SeqCst);
            let record = format!("{{\"id\": \"no number {number}\"}}");
            lake.post("/streams/orders/records", "application/x-ndjson", record).await;
            self.refused.fetch_add(1, Ordering::SeqCst);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn upload_files(&self, lake: &Lake) {
        while self.goes_on() {
            upload(lake, self.files.load(Ordering::SeqCst)).await;
            self.files.fetch_add(1, Ordering::SeqCst);
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Changes of a table that remove its files as soon as they can.
    async fn keep_ledger(&self, lake: &Lake) {
        while self.goes_on() {
            let next = self.ledger.load(Ordering::SeqCst);
            lake.sql(&format!("INSERT INTO ledger VALUES ({next}, '{}')", note(next))).await;
            self.ledger.fetch_add(1, Ordering::SeqCst);
            if next % 5 == 4 {
                lake.sql("OPTIMIZE ledger REWRITE DATA USING BIN_PACK").await;
                lake.sql("VACUUM ledger").await;
            }
        }
    }

    async fn run_workflows(&self, lake: &Lake) {
        while self.goes_on() {
            run_daily(lake).await;
        }
    }
}

/// Everything that was accepted before a backup began is in it once, and what came later is in it up to some moment.
async fn assert_whole(lake: &Lake, before: [i64; 4], after: [i64; 4]) {
    lake.flush("orders").await;
    let within = |what: &str, count: i64, place: usize| {
        assert!((before[place]..=after[place] + 25).contains(&count), "{what}: {count} of {before:?} to {after:?}");
    };
    let orders = by_id(lake, "SELECT id, note FROM orders").await;
    let count = i64::try_from(orders.len()).unwrap();
    within("orders", count, 0);
    let expected: BTreeMap<_, _> = (0..count).map(|id| (id, note(id))).collect();
    assert_eq!(orders, expected, "one sender's orders, all up to a moment");

    let ledger = by_id(lake, "SELECT id, note FROM ledger").await;
    let count = i64::try_from(ledger.len()).unwrap();
    within("ledger", count, 3);
    assert_eq!(ledger, (0..count).map(|id| (id, note(id))).collect::<BTreeMap<_, _>>());

    let (status, answer) = lake.post("/crawl", "application/json", "{}").await;
    assert_eq!(status, 200, "{answer:#}");
    let customers = by_id(lake, "SELECT id, name FROM customers").await;
    let count = i64::try_from(customers.len()).unwrap();
    within("files", count, 2);
    assert_eq!(customers, (0..count).map(|id| (id, format!("c{id}"))).collect::<BTreeMap<_, _>>());

    let (_, errors) = lake.get("/streams/orders/errors?limit=1000").await;
    let refused: BTreeSet<_> = errors["errors"].as_array().unwrap().iter().map(|e| e["data"].to_string()).collect();
    within("refused", i64::try_from(refused.len()).unwrap(), 1);

    // Derived tables go on from where they were: nothing is missing, nothing twice.
    run_daily(lake).await;
    let merged = by_id(lake, "SELECT id, note FROM mart.orders").await;
    assert_eq!(merged, orders.into_iter().filter(|(id, _)| id % 10 != 9).collect::<BTreeMap<_, _>>());
    assert_eq!(by_id(lake, "SELECT id, name FROM mart.seen").await, customers);
    let (_, aside) = lake.get("/workflows/daily/quarantine?limit=100").await;
    let aside: Vec<_> = aside["quarantine"].as_array().unwrap().iter().map(|a| a["row"]["id"].to_string()).collect();
    assert_eq!(aside.iter().collect::<BTreeSet<_>>().len(), aside.len(), "none is set aside twice");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lakehouse_under_load_is_restored_as_it_was_at_one_moment() {
    let lake = Arc::new(Lake::up(SHOP));
    lake.sql("CREATE TABLE ledger (id BIGINT, note VARCHAR)").await;
    lake.sql("ALTER TABLE ledger SET TBLPROPERTIES ('history.expire.max-snapshot-age-ms'='1')").await;
    upload(&lake, 0).await;
    lake.until("SELECT count(*) FROM customers", 1).await;
    let load = Arc::new(Load { files: 1.into(), ..Load::default() });
    send(&lake, 0..25).await;
    load.orders.store(25, Ordering::SeqCst);
    lake.flush("orders").await;
    let spawn = |work: fn(Arc<Load>, Arc<Lake>) -> futures::future::BoxFuture<'static, ()>| {
        tokio::spawn(work(load.clone(), lake.clone()))
    };
    let workers = [
        spawn(|load, lake| Box::pin(async move { load.send_orders(&lake).await })),
        spawn(|load, lake| Box::pin(async move { load.send_misfits(&lake).await })),
        spawn(|load, lake| Box::pin(async move { load.upload_files(&lake).await })),
        spawn(|load, lake| Box::pin(async move { load.keep_ledger(&lake).await })),
        spawn(|load, lake| Box::pin(async move { load.run_workflows(&lake).await })),
    ];
    let backups = Arc::new(Backups::new());
    let mut taken = Vec::new();
    for _ in 0..4 {
        tokio::time::sleep(Duration::from_millis(1500)).await;
        let before = load.accepted();
        let (of, from) = (backups.clone(), lake.clone());
        let report = tokio::task::spawn_blocking(move || of.take(&from, &[])).await.unwrap();
        taken.push((report["name"].as_str().unwrap().to_owned(), before, load.accepted()));
    }
    load.stop.store(true, Ordering::Relaxed);
    for worker in workers {
        worker.await.unwrap();
    }
    assert!(walk(&lake.data().join("pinned")).len() <= 1, "nothing but the lock is left");
    for (name, before, after) in taken {
        let restored = backups.up(&["--at", &name]);
        assert_whole(&restored, before, after).await;
    }
    // The last one is of a lakehouse at rest: the same to the last row.
    lake.flush("orders").await;
    run_daily(&lake).await;
    lake.sql("CREATE TABLE notes AS SELECT 1 AS id, 'a' AS text").await;
    backups.take(&lake, &["--keep", "2"]);
    assert_eq!(backups.names().len(), 2);
    assert!(backups.verify().status.success());
    let restored = backups.up(&[]);
    assert_eq!(content(&restored).await, content(&lake).await);
}
