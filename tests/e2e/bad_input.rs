//! Every kind of bad input gets a clear answer, and harms nothing beside it.

use std::process::Command;

use serde_json::Value;

use crate::flow::{SHOP, orders, walk};
use crate::lake::{Lake, gzip};

const RECORDS: &str = "/streams/orders/records";

fn message(body: &Value) -> &str {
    body["error"]["message"].as_str().unwrap_or_else(|| panic!("expected an error, found {body:#}"))
}

#[tokio::test]
async fn what_does_not_exist_is_named_beside_what_does() {
    let lake = Lake::up(SHOP);
    lake.post(RECORDS, "application/x-ndjson", orders(0, 3)).await;
    lake.flush("orders").await;

    let (status, body) = lake.post("/streams/order/records", "application/x-ndjson", orders(0, 1)).await;
    assert_eq!(status, 404);
    assert!(message(&body).contains("`order`") && message(&body).contains("`orders`"), "{body:#}");

    let (status, body) = lake.query("SELECT * FROM ordes").await;
    assert_eq!(status, 404, "{body:#}");
    assert!(message(&body).contains("ordes"), "{body:#}");

    let (status, body) = lake.query("SELECT id,\n       amout\nFROM orders").await;
    assert_eq!(status, 400, "{body:#}");
    assert!(message(&body).contains("amout"), "{body:#}");
    assert!(body.to_string().contains("line"), "the place in the text: {body:#}");

    let (status, body) = lake.query("SELEC 1").await;
    assert_eq!(status, 400, "{body:#}");

    for (path, name) in [("/workflows/nightly/runs", "nightly"), ("/insights/sales", "sales")] {
        let (status, body) = lake.post(path, "application/json", "{}").await;
        assert_eq!(status, 404, "{body:#}");
        assert!(message(&body).contains(name), "{body:#}");
    }
    let (status, _) = lake.get("/nothing/here").await;
    assert_eq!(status, 404);
}

#[tokio::test]
async fn bodies_that_are_cut_short_or_no_text_are_refused_whole() {
    let lake = Lake::up(SHOP);
    let whole = gzip(orders(0, 100).as_bytes());
    let headers = [("content-type", "application/x-ndjson"), ("content-encoding", "gzip")];
    let (status, body) = lake.post_with(RECORDS, &headers, whole[..whole.len() / 2].to_vec()).await;
    assert_eq!(status, 400, "{body:#}");
    assert!(message(&body).contains("gzip"), "{body:#}");

    let (status, body) = lake.post(RECORDS, "application/x-ndjson", "").await;
    assert_eq!(status, 400, "{body:#}");

    lake.post(RECORDS, "application/x-ndjson", orders(500, 1)).await;
    lake.flush("orders").await;
    assert_eq!(lake.number("SELECT count(*) FROM orders").await, Some(1), "nothing of a refused body was stored");
}

#[tokio::test]
async fn a_bad_record_never_spoils_its_neighbours() {
    let lake = Lake::up(SHOP);
    let mut body = orders(0, 2).into_bytes();
    body.extend(b"{\"id\": \"three\", \"placed_at\": \"2024-01-01\"}\n");
    body.extend(b"{\"id\": 4, \"placed_at\": \"2024-01-01\", \"quantity\": 40000}\n");
    body.extend(b"{\"id\": 5}\n");
    body.extend(b"[1, 2]\n");
    body.extend(b"{\"id\": 6, \"placed_at\": \"2024-01-01\", \n");
    body.extend(b"{\"id\": 7, \"placed_at\": \"2024-01-01\", \"customer\": \"\xff\"}\n");
    body.extend(orders(8, 2).into_bytes());
    let (status, answer) = lake.post(RECORDS, "application/x-ndjson", body).await;
    assert_eq!(status, 207, "{answer:#}");
    let text = answer.to_string();
    for reason in ["wrong_type", "overflow", "missing_required", "not_an_object", "invalid_json", "invalid_utf8"] {
        assert!(text.contains(reason), "expected `{reason}` in {answer:#}");
    }
    lake.flush("orders").await;
    assert_eq!(lake.number("SELECT count(*) FROM orders").await, Some(4));
}

#[tokio::test]
async fn too_much_at_once_is_refused_as_too_large() {
    let lake = Lake::up(SHOP);
    let (status, body) = lake.post(RECORDS, "application/x-ndjson", vec![b' '; 80 << 20]).await;
    assert_eq!(status, 413, "{body:#}");
    let bomb = gzip(&vec![b'\n'; 200 << 20]);
    let headers = [("content-type", "application/x-ndjson"), ("content-encoding", "gzip")];
    let (status, body) = lake.post_with(RECORDS, &headers, bomb).await;
    assert_eq!(status, 413, "{body:#}");
}

#[tokio::test]
async fn bad_files_are_reported_and_the_good_ones_beside_them_are_tables() {
    let lake = Lake::up(SHOP);
    let folder = lake.data().join("objects/raw/customers");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("good.csv"), "id,name\n1,Ada\n2,Grace\n").unwrap();
    std::fs::write(folder.join("empty.csv"), "").unwrap();
    std::fs::write(folder.join("cut.csv.gz"), &gzip(b"id,name\n3,Edsger\n")[..12]).unwrap();
    std::fs::write(folder.join("cut.parquet"), b"PAR1 and no more").unwrap();
    let (status, report) = lake.post("/crawl", "application/json", r#"{"location": "customers"}"#).await;
    assert_eq!(status, 200, "{report:#}");
    let text = report.to_string();
    for file in ["empty.csv", "cut.csv.gz", "cut.parquet"] {
        assert!(text.contains(file), "expected `{file}` in {report:#}");
    }
    for file in ["empty.csv", "cut.csv.gz", "cut.parquet"] {
        std::fs::remove_file(folder.join(file)).unwrap();
    }
    lake.until("SELECT count(*) FROM customers", 2).await;
}

#[tokio::test]
async fn ragged_rows_are_reported_and_a_query_reads_them() {
    let mut lake = Lake::new(SHOP);
    let folder = lake.data().join("objects/raw/customers");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("ragged.csv"), "id,name\n1,Ada\n2\n3,Edsger,extra\n4,Barbara\n").unwrap();
    // Its ragged rows lie behind those that the crawl looks at.
    let many: String = (0..100_000).map(|id| format!("{},n\n", 1_000 + id)).collect();
    let large = format!("id,name\n{many}5\n6,\"Grace, H\",x,\"y\nz\",\n7,Tony\n");
    std::fs::write(folder.join("large.csv"), large).unwrap();
    let crawl = lake.run("crawl", &["--output", "json"]);
    let report = String::from_utf8_lossy(&crawl.stdout).into_owned();
    assert!(report.contains("`ragged.csv`: 2 of 5 rows"), "the report says so: {crawl:?}");
    lake.start();
    let rows = lake.sql("SELECT id, name FROM customers WHERE id < 1000 ORDER BY id").await;
    let expected = serde_json::json!([
        [1, "Ada"],
        [2, null],
        [3, "Edsger"],
        [4, "Barbara"],
        [5, null],
        [6, "Grace, H"],
        [7, "Tony"]
    ]);
    assert_eq!(Value::from_iter(rows), expected);
    assert_eq!(lake.number("SELECT count(*) FROM customers").await, Some(100_007));
}

#[tokio::test]
async fn a_file_that_vanishes_is_an_error_that_names_it_not_a_wrong_answer() {
    let lake = Lake::up(SHOP);
    lake.post(RECORDS, "application/x-ndjson", orders(0, 30)).await;
    lake.flush("orders").await;
    let files = walk(&lake.data().join("objects/tables/shop/orders/data"));
    std::fs::remove_file(&files[0]).unwrap();
    let (status, body) = lake.query("SELECT sum(amount) FROM orders").await;
    assert!(status == 404 || status == 500, "{status} {body:#}");
    assert!(message(&body).contains(files[0].file_name().unwrap().to_str().unwrap()), "{body:#}");
}

#[tokio::test]
async fn a_parquet_file_that_was_cut_short_is_named() {
    let lake = Lake::up(SHOP);
    lake.post(RECORDS, "application/x-ndjson", orders(0, 3)).await;
    lake.flush("orders").await;
    let file = walk(&lake.data().join("objects/tables/shop/orders/data")).remove(0);
    let bytes = std::fs::read(&file).unwrap();
    std::fs::write(&file, &bytes[..bytes.len() / 2]).unwrap();
    let (status, body) = lake.query("SELECT sum(amount) FROM orders").await;
    assert!(status >= 400, "{body:#}");
    assert!(message(&body).contains(file.file_name().unwrap().to_str().unwrap()), "{body:#}");
}

#[tokio::test]
async fn sql_can_not_read_the_machines_own_files() {
    let lake = Lake::up(SHOP);
    for sql in [
        "SELECT * FROM '/etc/passwd'",
        "SELECT * FROM \"/etc/passwd\"",
        "CREATE EXTERNAL TABLE p (l VARCHAR) STORED AS CSV LOCATION '/etc/passwd'",
        "COPY (SELECT 1) TO '/tmp/tarn-copied.csv'",
        "SET datafusion.runtime.temp_directory = '/etc'",
    ] {
        let (status, body) = lake.query(sql).await;
        assert!((400..500).contains(&status), "{sql}: {status} {body:#}");
        assert!(!body.to_string().contains("root:"), "{sql}");
    }
    assert!(!std::path::Path::new("/tmp/tarn-copied.csv").exists());
    let (status, _) = lake.put("/files/customers/..%2F..%2F..%2Fescaped.csv", "id\n1\n").await;
    assert!((400..500).contains(&status), "{status}");
    assert!(
        !walk(&lake.data())
            .iter()
            .any(|f| f.ends_with("escaped.csv") && !f.starts_with(lake.data().join("objects/raw")))
    );
}

#[tokio::test]
async fn a_second_process_on_a_data_directory_is_refused_with_the_pid_of_the_first() {
    let lake = Lake::up(SHOP);
    let second = lake.run("up", &["--port", "0"]);
    assert_eq!(second.status.code(), Some(4), "{second:?}");
    let text = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(text.contains(&lake.pid().to_string()), "{text}");
}

#[tokio::test]
async fn a_lakehouse_file_with_mistakes_is_refused_with_their_places() {
    let lake = Lake::new(
        "version: 1\ndatabase: shop\nstreams:\n  orders:\n    schema:\n      - {name: id, type: money}\n    buffers: {}\n",
    );
    let refused = lake.run("validate", &[]);
    assert_eq!(refused.status.code(), Some(2), "{refused:?}");
    let text = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(text.contains('6') && text.contains("money"), "{text}");
}

/// A file system of a few MiB that is taken away again.
pub(crate) struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    pub(crate) fn path(&self) -> &std::path::Path {
        self.0.path()
    }

    /// # Errors
    /// Why there is none: most users may not mount.
    pub(crate) fn mount(size: &str) -> Result<Self, String> {
        let dir = tempfile::tempdir().unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"]).arg(dir.path());
        match mount.output() {
            Ok(output) if output.status.success() => Ok(Self(dir)),
            Ok(output) => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
            Err(error) => Err(format!("`mount`: {error}")),
        }
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

/// Sends a hundred rounds' worth of orders; what became of them: accepted, refused.
async fn send_orders(lake: &Lake, rounds: std::ops::Range<i64>) -> (i64, i64) {
    let (mut accepted, mut refused) = (0, 0);
    for round in rounds {
        match lake.post(RECORDS, "application/x-ndjson", orders(round * 100, 100)).await {
            (200, _) => accepted += 100,
            (status, body) => {
                assert!(status >= 400, "{body:#}");
                refused += 1;
            }
        }
    }
    (accepted, refused)
}

/// What was accepted is there once, and so is what was refused but stored all the same.
async fn assert_stored(lake: &Lake, accepted: i64) {
    lake.flush("orders").await;
    let stored = lake.number("SELECT count(DISTINCT id) FROM orders").await.unwrap();
    let rows = lake.number("SELECT count(*) FROM orders").await.unwrap();
    assert!(stored >= accepted && stored == rows, "accepted {accepted}, stored {stored} in {rows} rows");
}

#[tokio::test]
async fn a_full_disk_refuses_new_records_and_loses_no_accepted_one() {
    let disk = match SmallDisk::mount("24m") {
        Ok(disk) => disk,
        Err(why) => {
            // The test after this one fills files, not the disk, and needs no mount.
            eprintln!("not run on a full disk, only with files that may not grow: {why}");
            return;
        }
    };
    let mut lake = Lake::at(disk.0.path(), SHOP);
    lake.start();
    let (before, _) = send_orders(&lake, 0..10).await;
    // Leaves next to nothing, so that what follows can't be stored.
    let padding = disk.0.path().join("padding");
    let _ = Command::new("dd").args(["if=/dev/zero", "bs=64k"]).arg(format!("of={}", padding.display())).output();
    let (after, refused) = send_orders(&lake, 10..40).await;
    assert!(before >= 1000 && refused > 0, "accepted {before} and {after}, refused {refused}");
    lake.kill();
    std::fs::remove_file(&padding).unwrap();
    lake.start();
    assert_stored(&lake, before + after).await;
}

#[tokio::test]
async fn files_that_may_not_grow_refuse_new_records_and_lose_no_accepted_one() {
    let mut lake = Lake::new(SHOP);
    lake.start_with_files_up_to(512 << 10);
    let (accepted, refused) = send_orders(&lake, 0..80).await;
    assert!(accepted >= 100 && refused > 0, "accepted {accepted}, refused {refused}\n{}", lake.log());
    let (status, body) =
        lake.put("/files/customers/large.csv", "id,name\n".to_owned() + &"1,Ada\n".repeat(200_000)).await;
    assert!(status >= 400, "{body:#}");
    assert!(message(&body).contains("large.csv"), "{body:#}");
    assert!(!walk(&lake.data()).iter().any(|f| f.to_string_lossy().contains("large.csv")), "no part of it is left");
    lake.kill();
    lake.start();
    assert_stored(&lake, accepted).await;
    let (status, _) = lake.post(RECORDS, "application/x-ndjson", orders(100_000, 100)).await;
    assert_eq!(status, 200, "it takes records again");
}
