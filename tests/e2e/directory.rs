//! The data directory: copied, moved, named in odd ways, and wanted by commands while the runtime starts anew.

use std::io::Write;
use std::process::{Command, Stdio};

use serde_json::json;

use crate::lake::{Lake, program};

const LAKEHOUSE: &str = "
version: 1
database: shop
streams:
  orders: {schema: [{name: id, type: bigint, required: true}], buffer: {interval: 900s}}
locations:
  customers: {}
";

async fn fill(lake: &Lake) {
    let (status, answer) =
        lake.post("/streams/orders/records", "application/x-ndjson", "{\"id\": 1}\n{\"id\": 2}\n").await;
    assert_eq!(status, 200, "{answer:#}");
    lake.flush("orders").await;
    lake.sql("CREATE TABLE notes AS SELECT 1 AS id, 'a' AS text").await;
    let (status, answer) = lake.put("/files/customers/customers.csv", "id,name\n1,Ada\n2,Grace\n").await;
    assert_eq!(status, 201, "{answer:#}");
    let (status, answer) = lake.post("/crawl", "application/json", "{}").await;
    assert_eq!(status, 200, "{answer:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_that_was_copied_works_without_its_original_and_never_touches_it() {
    let mut first = Lake::up(LAKEHOUSE);
    fill(&first).await;
    first.stop();
    let mut copy = Lake::new(LAKEHOUSE);
    assert!(Command::new("cp").arg("-r").args([first.data(), copy.data()]).status().unwrap().success());
    let original = std::fs::read(first.data().join("objects.url")).unwrap();

    copy.start();
    assert_eq!(copy.number("SELECT count(*) FROM orders").await, Some(2));
    assert_eq!(copy.number("SELECT count(*) FROM customers").await, Some(2));
    copy.sql("INSERT INTO notes VALUES (2, 'b')").await;
    copy.sql("DELETE FROM orders WHERE id = 1").await;
    copy.sql("DROP TABLE notes").await;
    let (status, answer) = copy.put("/files/customers/more.csv", "id,name\n3,Edsger\n").await;
    assert_eq!(status, 201, "{answer:#}");
    copy.until("SELECT count(*) FROM customers", 3).await;
    let (status, answer) = copy.query("SELECT rpad('x', 1000, 'x') AS x, value FROM generate_series(1, 10000)").await;
    let stored = answer["result"]["url"].as_str().unwrap_or_else(|| panic!("{status} {answer:#}"));
    assert!(stored.contains(copy.data().to_str().unwrap()), "an address where it lies: {stored}");
    copy.stop();

    first.start();
    assert_eq!(first.number("SELECT count(*) FROM orders").await, Some(2));
    assert_eq!(first.number("SELECT count(*) FROM notes").await, Some(1));
    assert_eq!(first.number("SELECT count(*) FROM customers").await, Some(2));
    first.stop();
    assert_eq!(std::fs::read(copy.data().join("objects.url")).unwrap(), original);

    std::fs::remove_dir_all(first.data()).unwrap();
    copy.start();
    assert_eq!(copy.number("SELECT sum(id) FROM orders").await, Some(2));
}

#[test]
fn a_directory_may_be_named_by_a_path_that_climbs() {
    let lake = Lake::new(LAKEHOUSE);
    let inner = lake.data().parent().unwrap().join("inner");
    std::fs::create_dir(&inner).unwrap();
    let run = |sql: &str| {
        let mut tarn = Command::new(program("tarn"));
        tarn.args(["sql", "--data", "../b", "--project"]).arg(lake.lakehouse()).args(["--output", "csv", sql]);
        let output = tarn.current_dir(&inner).stdin(Stdio::null()).output().unwrap();
        assert!(output.status.success(), "{sql}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    run("CREATE TABLE t AS SELECT 7 AS x");
    assert_eq!(run("SELECT x FROM t").lines().last(), Some("7"));
}

#[test]
fn the_databases_that_the_lakehouse_file_declares_are_there() {
    let lake = Lake::new(LAKEHOUSE);
    let shown = lake.run("sql", &["--output", "json", "SHOW TABLES"]);
    assert!(shown.status.success(), "{}", String::from_utf8_lossy(&shown.stderr));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_comes_while_the_runtime_starts_anew_waits_for_it() {
    let mut lake = Lake::up(LAKEHOUSE);
    fill(&lake).await;
    for _ in 0..3 {
        lake.kill();
        let commands: Vec<_> = (0..3)
            .map(|_| {
                let mut tarn = lake.tarn("sql");
                tarn.args(["--output", "json", "SELECT count(*) AS n FROM orders"]).stdin(Stdio::null());
                tarn.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
            })
            .collect();
        lake.start();
        for command in commands {
            let output = command.wait_with_output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        }
        assert_eq!(lake.number("SELECT count(*) FROM orders").await, Some(2), "the runtime has the directory");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_runtime_waits_for_a_command_that_has_the_directory() {
    let mut lake = Lake::new(LAKEHOUSE);
    let mut script =
        lake.tarn("sql").stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut input = script.stdin.take().unwrap();
    while shared::lock::DataLock::holder(&lake.data()).unwrap().is_none() {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let finish = std::thread::spawn(move || {
        std::thread::sleep(std::time::Duration::from_secs(1));
        writeln!(input, "CREATE TABLE t AS SELECT 1 AS x;").unwrap();
    });
    lake.start();
    finish.join().unwrap();
    assert!(script.wait().unwrap().success());
    assert_eq!(lake.sql("SELECT x FROM t").await, [[json!(1)]]);
}
