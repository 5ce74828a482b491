//! Backups: taken while the lakehouse works, broken off, two at once, on a full disk, damaged; restored into an empty place and
//! compared row by row. And directories of other formats.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use shared::config::Settings;
use shared::model::TableName;
use tempfile::TempDir;

use crate::bad_input::SmallDisk;
use crate::clients::rows_of;
use crate::flow::walk;
use crate::lake::{Lake, as_i64};

/// A stream, files, tables that are made of both: merged, and appended file by file; maintenance that removes files all the time.
const SHOP: &str = r#"
version: 1
database: shop
streams:
  orders:
    schema:
      - {name: id, type: bigint, required: true}
      - {name: note, type: string}
    buffer: {interval: 1s}
    keep_rejects: true
    shards: 2
locations:
  customers: {table: customers}
workflows:
  daily:
    jobs:
      merged:
        sql: SELECT id, note, id % 7 AS day FROM orders
        into: mart.orders
        mode: incremental
        incremental: orders
        write: merge
        key: [id]
        quality: [{name: no nines, check: {row: "id % 10 <> 9"}, action: quarantine}]
      seen:
        sql: SELECT id, name FROM customers
        into: mart.seen
        mode: incremental
        incremental: customers
        write: append
"#;

struct Backups(TempDir);

impl Backups {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("backups")
    }

    fn text(&self) -> String {
        self.path().display().to_string()
    }

    /// Backs the lakehouse up; what the command says.
    fn take(&self, lake: &Lake, more: &[&str]) -> Value {
        let output = self.try_take(lake, more);
        assert!(output.status.success(), "{}\n{}", err(&output), lake.log());
        serde_json::from_slice(&output.stdout).unwrap()
    }

    fn try_take(&self, lake: &Lake, more: &[&str]) -> Output {
        lake.run("backup", &[&[self.text().as_str(), "--output", "json"], more].concat())
    }

    fn command(&self, lake: &Lake) -> Command {
        let mut command = lake.tarn("backup");
        command.arg(self.path()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        command
    }

    /// Names of the backups.
    fn names(&self) -> Vec<String> {
        let listed = Lake::new(SHOP).run("backup", &[&self.text(), "--list", "--output", "json"]);
        assert!(listed.status.success(), "{}", err(&listed));
        let listed: Value = serde_json::from_slice(&listed.stdout).unwrap();
        let name = |backup: &Value| backup["name"].as_str().unwrap().to_owned();
        listed["backups"].as_array().unwrap().iter().map(name).collect()
    }

    fn verify(&self) -> Output {
        Lake::new(SHOP).run("backup", &[&self.text(), "--verify", "--output", "json"])
    }

    /// A lakehouse in a place of its own, restored.
    fn restored(&self, more: &[&str]) -> Lake {
        let lake = Lake::new(SHOP);
        let output = lake.run("restore", &[&[self.text().as_str()], more].concat());
        assert!(output.status.success(), "{}", err(&output));
        lake
    }

    /// The same with `tarn up` on it.
    fn up(&self, more: &[&str]) -> Lake {
        let mut lake = self.restored(more);
        lake.start();
        lake
    }
}

fn err(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The text of an order, told by its id.
fn note(id: i64) -> String {
    format!("order {id} {}", id.wrapping_mul(2_654_435_761) % 1_000_003)
}

fn orders(ids: std::ops::Range<i64>) -> String {
    ids.map(|id| json!({"id": id, "note": note(id)}).to_string() + "\n").collect()
}

async fn send(lake: &Lake, ids: std::ops::Range<i64>) {
    let (status, answer) = lake.post("/streams/orders/records", "application/x-ndjson", orders(ids)).await;
    assert_eq!(status, 200, "{answer:#}");
}

async fn upload(lake: &Lake, id: i64) {
    let (status, answer) = lake.put(&format!("/files/customers/{id}.csv"), format!("id,name\n{id},c{id}\n")).await;
    assert_eq!(status, 201, "{answer:#}");
}

async fn run_daily(lake: &Lake) {
    let (status, run) = lake.post("/workflows/daily/runs", "application/json", "{}").await;
    assert_eq!((status, run["status"].as_str()), (200, Some("succeeded")), "{run:#}\n{}", lake.log());
}

/// The rows of a table of `id` and a text, by id; none twice.
async fn by_id(lake: &Lake, sql: &str) -> BTreeMap<i64, String> {
    let rows = lake.sql(sql).await;
    let found: BTreeMap<_, _> =
        rows.iter().map(|row| (as_i64(&row[0]), row[1].as_str().unwrap_or_default().to_owned())).collect();
    assert_eq!(found.len(), rows.len(), "none is there twice: {sql}");
    found
}

async fn filled() -> Lake {
    let lake = Lake::up(SHOP);
    send(&lake, 0..200).await;
    lake.flush("orders").await;
    for id in 0..5 {
        upload(&lake, id).await;
    }
    lake.until("SELECT count(*) FROM customers", 5).await;
    run_daily(&lake).await;
    lake.sql("CREATE TABLE notes AS SELECT 1 AS id, 'a' AS text").await;
    lake
}

/// What a lakehouse answers.
async fn content(lake: &Lake) -> BTreeMap<String, Vec<String>> {
    let mut all = BTreeMap::new();
    for table in ["orders", "customers", "mart.orders", "mart.seen", "notes"] {
        all.insert(table.to_owned(), lake.rows(table).await);
    }
    for path in ["/streams/orders/errors", "/workflows/daily/quarantine"] {
        let (status, answer) = lake.get(path).await;
        assert_eq!(status, 200, "{answer:#}");
        let mut lines: Vec<_> = answer["errors"].as_array().or(answer["quarantine"].as_array()).unwrap().clone();
        lines.iter_mut().for_each(|line| drop(line.as_object_mut().unwrap().remove("object")));
        let mut lines: Vec<_> = lines.iter().map(Value::to_string).collect();
        lines.sort();
        all.insert(path.to_owned(), lines);
    }
    all
}

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

#[tokio::test(flavor = "multi_thread")]
async fn a_restored_lakehouse_goes_on_and_reads_no_file_twice() {
    let mut lake = filled().await;
    send(&lake, 200..210).await;
    let before = content(&lake).await;
    let backups = Backups::new();
    backups.take(&lake, &[]);
    lake.stop();
    std::fs::remove_dir_all(lake.data()).unwrap();

    let mut restored = backups.up(&[]);
    let own = restored.data().join("lakehouse.yaml");
    assert_eq!(std::fs::read_to_string(own).unwrap(), SHOP, "the lakehouse file in force came along");
    for (table, rows) in content(&restored).await {
        // What was in the stream may be in its table by now.
        assert!(rows == before[&table] || table == "orders", "{table}");
    }
    restored.until("SELECT count(*) FROM orders", 210).await;
    upload(&restored, 5).await;
    restored.until("SELECT count(*) FROM customers", 6).await;
    run_daily(&restored).await;
    assert_eq!(restored.number("SELECT count(*) FROM mart.seen").await, Some(6), "five files were read before");
    assert_eq!(restored.number("SELECT count(*) FROM mart.orders").await, Some(189));
    let (_, crawls) = restored.get("/crawls").await;
    assert!(!crawls.to_string().contains("\"changed\":5"), "{crawls:#}");

    // And so does one that was copied with the times of its files.
    restored.stop();
    let copy = Lake::new(SHOP);
    assert!(Command::new("cp").arg("-a").args([restored.data(), copy.data()]).status().unwrap().success());
    let mut copy = copy;
    copy.start();
    upload(&copy, 6).await;
    copy.until("SELECT count(*) FROM customers", 7).await;
    run_daily(&copy).await;
    assert_eq!(copy.number("SELECT count(*) FROM mart.seen").await, Some(7));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_backup_adds_only_what_is_new_and_the_oldest_go() {
    let lake = filled().await;
    let blob: Vec<u8> = (0..3_000_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    std::fs::write(lake.data().join("objects/raw/large.bin"), &blob).unwrap();
    let backups = Backups::new();
    let first = backups.take(&lake, &[]);
    assert!(first["newBytes"].as_u64().unwrap() > 3_000_000, "{first}");
    let second = backups.take(&lake, &[]);
    assert!(second["newBytes"].as_u64().unwrap() < 1_000_000, "{second}");
    lake.sql("DROP TABLE notes").await;
    std::fs::remove_file(lake.data().join("objects/raw/large.bin")).unwrap();
    assert_eq!(backups.names().len(), 2);
    let size = || walk(&backups.path()).iter().map(|file| file.metadata().unwrap().len()).sum::<u64>();
    assert!(size() > 3_000_000);
    let third = backups.take(&lake, &["--keep", "1"]);
    assert_eq!(third["removed"], json!([first["name"], second["name"]]));
    assert_eq!(backups.names(), [third["name"].as_str().unwrap()]);
    assert!(size() < 3_000_000, "what only the earlier ones had is gone: {}", size());
    let restored = backups.up(&[]);
    assert_eq!(restored.rows("orders").await, lake.rows("orders").await);
    assert_eq!(restored.query("SELECT * FROM notes").await.0, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_that_is_killed_leaves_the_earlier_ones_and_is_run_again() {
    let lake = filled().await;
    let backups = Backups::new();
    backups.take(&lake, &[]);
    let mut next = 200;
    for after_ms in [1, 5, 10, 20, 40, 60, 80, 120] {
        send(&lake, next..next + 10).await;
        lake.sql(&format!("INSERT INTO notes VALUES ({next}, 'b')")).await;
        next += 10;
        let finished = backups.names();
        let mut child = backups.command(&lake).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(after_ms));
        child.kill().unwrap();
        let ended = child.wait().unwrap();
        let names = backups.names();
        assert!(names == finished || names.len() == finished.len() + 1, "{names:?}");
        assert!(ended.success() <= (names.len() > finished.len()), "one that says it is done is there");
        assert!(backups.verify().status.success(), "after {after_ms} ms");
    }
    backups.take(&lake, &["--keep", "1"]);
    assert!(backups.verify().status.success());
    assert!(walk(&backups.path().join("drafts")).is_empty(), "what was half written is gone");
    lake.flush("orders").await;
    let restored = backups.up(&[]);
    restored.flush("orders").await;
    assert_eq!(restored.rows("orders").await, lake.rows("orders").await);
    assert_eq!(restored.rows("notes").await, lake.rows("notes").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_backup_holds_is_let_go_by_the_next_start() {
    let mut lake = filled().await;
    lake.stop();
    let backups = Backups::new();
    let pinned = lake.data().join("pinned");
    let mut child = backups.command(&lake).spawn().unwrap();
    let began = Instant::now();
    while walk(&pinned).len() < 2 && began.elapsed() < Duration::from_secs(20) {
        std::thread::sleep(Duration::from_micros(200));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    lake.start();
    assert!(walk(&pinned).len() <= 1, "{:?}", walk(&pinned));
    assert_eq!(lake.number("SELECT count(*) FROM orders").await, Some(200));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_that_is_killed_is_no_data_directory_and_is_run_again() {
    let lake = filled().await;
    for n in 0..300 {
        std::fs::write(lake.data().join(format!("objects/raw/{n}.txt")), n.to_string()).unwrap();
    }
    let backups = Backups::new();
    backups.take(&lake, &[]);
    let target = Lake::new(SHOP);
    let mut refused = 0;
    for after_ms in [1, 5, 10, 15, 20, 30, 45, 60, 90] {
        let mut restore = target.tarn("restore");
        let mut child = restore
            .arg(backups.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(after_ms));
        child.kill().unwrap();
        let ended = child.wait().unwrap();
        if target.data().join(".restoring").exists() {
            assert!(!ended.success());
            for command in [&["sql", "SELECT 1"][..], &["status"], &["up"]] {
                let output = target.run(command[0], &command[1..]);
                assert_eq!(output.status.code(), Some(4), "{command:?}: {}", err(&output));
                assert!(err(&output).contains("tarn restore"), "{}", err(&output));
            }
            refused += 1;
        } else if target.data().join("catalog.db").exists() {
            // It had come to its end.
            std::fs::remove_dir_all(target.data()).unwrap();
        }
    }
    assert!(refused > 0, "some were killed half-way");
    let _ = std::fs::remove_dir_all(target.data());
    let mut child = target.tarn("restore").arg(backups.path()).stdout(Stdio::null()).spawn().unwrap();
    while !target.data().join(".restoring").exists() && child.try_wait().unwrap().is_none() {
        std::thread::sleep(Duration::from_micros(100));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let again = target.run("restore", &[&backups.text()]);
    assert!(again.status.success(), "{}", err(&again));
    let mut target = target;
    target.start();
    assert_eq!(content(&target).await, content(&lake).await);
}

/// Stops a process (without ending it) as soon as `is_at_work`; `None` when it was done before.
fn stopped(mut child: Child, is_at_work: impl Fn() -> bool) -> Option<Child> {
    while !is_at_work() {
        if child.try_wait().unwrap().is_some() {
            return None;
        }
        std::thread::sleep(Duration::from_micros(100));
    }
    signal(&child, "STOP");
    std::thread::sleep(Duration::from_millis(20));
    if child.try_wait().unwrap().is_some() { None } else { Some(child) }
}

fn signal(child: &Child, name: &str) {
    let sent = Command::new("kill").args([&format!("-{name}"), &child.id().to_string()]).status().unwrap();
    assert!(sent.success() || name == "STOP");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_at_once_the_second_is_refused_by_name() {
    let mut lake = filled().await;
    lake.stop();
    for n in 0..500 {
        std::fs::write(lake.data().join(format!("objects/raw/{n}.txt")), n.to_string()).unwrap();
    }
    let (backups, others) = (Backups::new(), Backups::new());
    let lock = backups.path().join("lock");
    let holds = |child: &Child| {
        let pid = child.id().to_string();
        let lock = lock.clone();
        move || std::fs::read_to_string(&lock).is_ok_and(|text| text.trim() == pid)
    };
    let child = backups.command(&lake).spawn().unwrap();
    let is_at_work = holds(&child);
    let pinned = lake.data().join("pinned");
    let mut child = stopped(child, || is_at_work() && walk(&pinned).len() > 3).expect("it is stopped in its work");
    let pid = child.id().to_string();
    for second in [backups.try_take(&lake, &[]), others.try_take(&lake, &[]), backups.verify()] {
        assert_eq!(second.status.code(), Some(4), "{}", err(&second));
        assert!(err(&second).contains(&pid), "{}", err(&second));
    }
    let restore = Lake::new(SHOP).run("restore", &[&backups.text()]);
    assert_eq!(restore.status.code(), Some(4), "{}", err(&restore));
    signal(&child, "CONT");
    assert!(child.wait().unwrap().success());
    assert_eq!(backups.names().len(), 1);

    let target = Lake::new(SHOP);
    let restore = target.tarn("restore").arg(backups.path()).stdout(Stdio::null()).spawn().unwrap();
    let draft = target.data().join(".restoring");
    let mut restore = stopped(restore, || draft.exists()).expect("it is stopped in its work");
    let second = target.run("restore", &[&backups.text()]);
    assert_eq!(second.status.code(), Some(4), "{}", err(&second));
    assert!(err(&second).contains(&restore.id().to_string()), "{}", err(&second));
    let elsewhere = Lake::new(SHOP).run("restore", &[&backups.text()]);
    assert!(elsewhere.status.success(), "two may read: {}", err(&elsewhere));
    signal(&restore, "CONT");
    assert!(restore.wait().unwrap().success());
    let mut target = target;
    target.start();
    assert_eq!(target.number("SELECT count(*) FROM orders").await, Some(200));
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_full_disk_the_earlier_backups_stay_and_the_error_says_so() {
    let disk = match SmallDisk::mount("12m") {
        Ok(disk) => disk,
        Err(why) => {
            eprintln!("not run on a full disk: {why}");
            return;
        }
    };
    let lake = filled().await;
    let target = disk.path().join("backups").display().to_string();
    let first = lake.run("backup", &[&target]);
    assert!(first.status.success(), "{}", err(&first));
    let blob: Vec<u8> = (0..16_000_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 23) as u8).collect();
    std::fs::write(lake.data().join("objects/raw/large.bin"), &blob).unwrap();
    for _ in 0..2 {
        let full = lake.run("backup", &[&target]);
        assert_eq!(full.status.code(), Some(1), "{}", err(&full));
        assert!(
            err(&full).contains("the earlier ones are whole") && err(&full).contains("No space left"),
            "{}",
            err(&full)
        );
    }
    let verified = lake.run("backup", &[&target, "--verify"]);
    assert!(verified.status.success(), "{}", err(&verified));
    let padding = disk.path().join("padding");
    std::fs::write(&padding, &blob[..4_000_000]).expect("what was of no use is gone from the disk");

    // A restore to a full disk, then to one with room.
    let place = disk.path().join("lake");
    std::fs::write(disk.path().join("more"), &blob[..3_000_000]).unwrap();
    let _ = std::fs::write(disk.path().join("most"), &blob[..8_000_000]);
    let full = restore_with(&target, &place);
    assert_eq!(full.status.code(), Some(1), "{}", err(&full));
    std::fs::remove_file(&padding).unwrap();
    std::fs::remove_file(disk.path().join("more")).unwrap();
    std::fs::remove_file(disk.path().join("most")).unwrap();
    let again = restore_with(&target, &place);
    assert!(again.status.success(), "{}", err(&again));
    std::fs::remove_file(lake.data().join("objects/raw/large.bin")).unwrap();
    let output = Command::new(crate::lake::program("tarn"))
        .args(["sql", "--output", "json", "SELECT count(*) AS n FROM orders", "--data"])
        .arg(&place)
        .output()
        .unwrap();
    assert!(String::from_utf8_lossy(&output.stdout).contains("200"), "{output:?}");
}

fn restore_with(from: &str, data: &Path) -> Output {
    Command::new(crate::lake::program("tarn")).args(["restore", from, "--data"]).arg(data).output().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_backup_is_told_and_not_restored() {
    let lake = filled().await;
    let backups = Backups::new();
    backups.take(&lake, &[]);
    let mut contents = walk(&backups.path().join("contents"));
    contents.sort_by_key(|path| path.metadata().unwrap().len());
    let content = contents.last().unwrap();
    let sound = std::fs::read(content).unwrap();
    let name = content.file_name().unwrap().to_str().unwrap();
    let mut flipped = sound.clone();
    flipped[sound.len() / 2] ^= 1;
    for damage in [&flipped[..], &sound[..sound.len() - 1], b""] {
        std::fs::write(content, damage).unwrap();
        let verified = backups.verify();
        assert_eq!(verified.status.code(), Some(1), "{}", err(&verified));
        assert!(err(&verified).contains(name), "{}", err(&verified));
        let target = Lake::new(SHOP);
        let refused = target.run("restore", &[&backups.text()]);
        assert_eq!(refused.status.code(), Some(1), "{}", err(&refused));
        assert!(err(&refused).contains(name), "{}", err(&refused));
        assert_eq!(target.run("sql", &["SELECT 1"]).status.code(), Some(4), "it is no data directory");
    }
    std::fs::remove_file(content).unwrap();
    assert_eq!(backups.verify().status.code(), Some(1));
    // The next one has what is missing again, for all.
    backups.take(&lake, &[]);
    assert!(backups.verify().status.success());

    let list = backups.path().join("backups").join(format!("{}.ndjson", backups.names()[0]));
    let text = std::fs::read_to_string(&list).unwrap();
    std::fs::write(&list, &text[..text.len() / 2]).unwrap();
    let refused = Lake::new(SHOP).run("restore", &[&backups.text(), "--at", &backups.names_with_damage()[0]]);
    assert_eq!(refused.status.code(), Some(1), "{}", err(&refused));
    let pruned = backups.try_take(&lake, &["--keep", "3"]);
    assert_eq!(pruned.status.code(), Some(1), "what one has is not known, so nothing may go: {}", err(&pruned));
}

impl Backups {
    fn names_with_damage(&self) -> Vec<String> {
        let listed = Lake::new(SHOP).run("backup", &[&self.text(), "--list", "--output", "json"]);
        assert_eq!(listed.status.code(), Some(1), "{}", err(&listed));
        let listed: Value = serde_json::from_slice(&listed.stdout).unwrap();
        let damaged = listed["backups"].as_array().unwrap().iter().filter(|backup| backup["damage"].is_string());
        damaged.map(|backup| backup["name"].as_str().unwrap().to_owned()).collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_not_be_backed_up_or_restored_is_refused_by_name() {
    let lake = filled().await;
    let backups = Backups::new();
    let refused = |output: Output, code: i32, text: &str| {
        assert_eq!(output.status.code(), Some(code), "{}", err(&output));
        assert!(err(&output).contains(text), "{text}: {}", err(&output));
    };
    refused(Lake::new(SHOP).run("restore", &[&backups.text()]), 3, "tarn-backups.json");
    refused(Lake::new(SHOP).run("backup", &[&backups.text()]), 3, "no data directory");
    let inside = lake.data().join("backups").display().to_string();
    refused(lake.run("backup", &[&inside]), 2, "apart from the data directory");
    refused(lake.run("backup", &[&backups.text(), "--url", "http://127.0.0.1:1"]), 2, "deployed");
    std::fs::create_dir_all(backups.path()).unwrap();
    std::fs::write(backups.path().join("letters.txt"), "x").unwrap();
    refused(backups.try_take(&lake, &[]), 4, "letters.txt");
    std::fs::remove_file(backups.path().join("letters.txt")).unwrap();

    let report = backups.take(&lake, &[]);
    refused(Lake::new(SHOP).run("restore", &[&backups.text(), "--at", "2001"]), 3, report["name"].as_str().unwrap());
    refused(lake.run("restore", &[&backups.text()]), 4, "empty directory");
    let other = filled().await;
    refused(backups.try_take(&other, &[]), 4, "of the lakehouse at");
    assert_eq!(backups.names(), [report["name"].as_str().unwrap()]);
}

/// The rows of a table as another engine reads it, by its metadata file.
fn read_by(reader: &str, metadata: &str) -> Vec<crate::clients::Row> {
    let python = crate::clients::root().join(".venv/bin/python");
    let script = crate::clients::root().join("tests/clients/read_iceberg.py");
    rows_of(&Command::new(python).arg(script).args([reader, metadata]).output().unwrap(), "id")
}

async fn metadata_of(lake: &Lake, table: &str) -> String {
    let ports = adapters_embedded::open(&Settings::embedded(&lake.data()).unwrap()).unwrap();
    let table = ports.catalog.get_table(&TableName::new("shop", table).unwrap()).await.unwrap();
    table.input.parameters["metadata_location"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lakehouse_that_is_relocated_is_read_by_other_engines_in_its_new_place() {
    let mut lake = filled().await;
    for (table, version) in [("v2", 2), ("v3", 3)] {
        let properties = format!("'format-version'='{version}', 'write.delete.mode'='merge-on-read'");
        lake.sql(&format!(
            "CREATE TABLE {table} (id BIGINT, day DATE) PARTITIONED BY (day) TBLPROPERTIES ({properties})"
        ))
        .await;
        for first in [0, 10] {
            let rows =
                (first..first + 10).map(|id| format!("({id}, DATE '2026-01-0{}')", id % 3 + 1)).collect::<Vec<_>>();
            lake.sql(&format!("INSERT INTO {table} VALUES {}", rows.join(", "))).await;
        }
        lake.sql(&format!("DELETE FROM {table} WHERE id % 4 = 1")).await;
    }
    let tables = ["v2", "v3", "orders", "notes"];
    let mut before = Vec::new();
    for table in tables {
        before.push(lake.rows(table).await);
    }
    lake.stop();
    let backups = Backups::new();
    backups.take(&lake, &[]);
    let old = std::fs::read_to_string(lake.data().join("objects.url")).unwrap();
    std::fs::remove_dir_all(lake.data()).unwrap();

    let mut restored = backups.restored(&["--relocate"]);
    assert_ne!(std::fs::read_to_string(restored.data().join("objects.url")).unwrap(), old);
    for table in tables {
        let metadata = metadata_of(&restored, table).await;
        let ours = rows_of(&restored.run("sql", &["--output", "json", &format!("SELECT * FROM {table}")]), "id");
        assert!(!ours.is_empty() && !metadata.contains(old.trim()), "{metadata}");
        for reader in ["duckdb", "pyiceberg"] {
            let place = url::Url::parse(&metadata).unwrap().to_file_path().unwrap();
            assert_eq!(read_by(reader, place.to_str().unwrap()), ours, "{reader} reads {table}");
        }
    }
    restored.start();
    for (table, before) in tables.iter().zip(before) {
        assert_eq!(restored.rows(table).await, before, "{table}");
    }
    // It goes on there: files are known, old ones are removed, new ones have URLs of the new place.
    run_daily(&restored).await;
    assert_eq!(restored.number("SELECT count(*) FROM mart.seen").await, Some(5), "no file is read twice");
    restored.sql("DELETE FROM v2 WHERE id = 0").await;
    restored.sql("OPTIMIZE v3 REWRITE DATA USING BIN_PACK").await;
    restored.sql("ALTER TABLE v2 SET TBLPROPERTIES ('history.expire.max-snapshot-age-ms'='1')").await;
    restored.sql("VACUUM v2").await;
    restored.sql("DROP TABLE notes").await;
    restored.stop();
    for table in ["v2", "v3"] {
        let metadata = metadata_of(&restored, table).await;
        let ours = rows_of(&restored.run("sql", &["--output", "json", &format!("SELECT * FROM {table}")]), "id");
        let place = url::Url::parse(&metadata).unwrap().to_file_path().unwrap();
        assert_eq!(read_by("duckdb", place.to_str().unwrap()), ours, "{table}");
    }
}

/// A directory as a release wrote it, unpacked.
fn released(format: u32) -> Lake {
    let lake = Lake::new(RELEASED);
    let packed = crate::clients::root().join(format!("tests/e2e/fixtures/format-{format}.tar.gz"));
    let unpacked = Command::new("tar").arg("-xzf").arg(packed).arg("-C").arg(lake.data().parent().unwrap()).status();
    assert!(unpacked.unwrap().success());
    lake
}

/// The lakehouse file of the fixtures.
const RELEASED: &str = include_str!("fixtures/lakehouse.yaml");

fn format_of(lake: &Lake) -> Value {
    serde_json::from_str(&std::fs::read_to_string(lake.data().join("format.json")).unwrap()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn directories_of_all_released_formats_are_upgraded_and_read() {
    for format in 1..=adapters_embedded::format::CURRENT {
        let mut lake = released(format);
        assert_eq!(lake.data().join("format.json").exists(), format > 1);
        lake.start();
        assert_eq!(format_of(&lake)["format"], adapters_embedded::format::CURRENT, "it is upgraded");
        // Three orders in the table, two in the stream; a file that was crawled, and one that was not.
        lake.flush("orders").await;
        assert_eq!(lake.number("SELECT count(*) FROM orders").await, Some(5));
        lake.until("SELECT count(*) FROM customers", 3).await;
        assert_eq!(lake.rows("notes").await, ["[Number(1), String(\"kept\")]"]);
        assert_eq!(lake.number("SELECT count(*) FROM mart.seen").await, Some(2));
        let (_, errors) = lake.get("/streams/orders/errors").await;
        assert_eq!(errors["errors"].as_array().unwrap().len(), 1, "{errors:#}");
        run_daily(&lake).await;
        assert_eq!(lake.number("SELECT count(*) FROM mart.seen").await, Some(3), "a file is read once");
        let backups = Backups::new();
        backups.take(&lake, &[]);
        let restored = Lake::new(RELEASED);
        let output = restored.run("restore", &[&backups.text()]);
        assert!(output.status.success(), "{}", err(&output));
        assert_eq!(restored.run("sql", &["SELECT * FROM orders"]).status.code(), Some(0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_of_a_newer_format_is_refused_by_name_by_every_command() {
    let mut lake = filled().await;
    lake.stop();
    let newer = adapters_embedded::format::CURRENT + 1;
    let text = json!({"format": newer, "version": "99.1.0"}).to_string();
    std::fs::write(lake.data().join("format.json"), &text).unwrap();
    let before = walk(&lake.data()).len();
    let backups = Backups::new();
    let orders = lake.data().with_file_name("orders.ndjson");
    std::fs::write(&orders, "{\"id\": 1}\n").unwrap();
    let target = backups.text();
    for command in [
        &["sql", "SELECT 1"][..],
        &["status"],
        &["up"],
        &["put", "orders", orders.to_str().unwrap()],
        &["backup", &target],
    ] {
        let output = lake.run(command[0], &command[1..]);
        let told = err(&output);
        assert_eq!(output.status.code(), Some(2), "{command:?}: {told}");
        assert!(told.contains("99.1.0") && told.contains(&format!("format {newer}")), "{command:?}: {told}");
    }
    assert_eq!(std::fs::read_to_string(lake.data().join("format.json")).unwrap(), text);
    assert_eq!(walk(&lake.data()).len(), before, "nothing was written");
}
