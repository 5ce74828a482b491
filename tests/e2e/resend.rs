//! What is sent again has its effect once.

use std::process::Stdio;
use std::time::Duration;

use crate::flow::{SHOP, orders};
use crate::lake::Lake;

/// Rows and different ids of `orders`.
fn stored(lake: &Lake) -> (String, String) {
    let sql = "SELECT count(*) AS n, count(DISTINCT id) AS ids FROM orders";
    let asked = lake.run("sql", &["--output", "csv", sql]);
    let text = String::from_utf8(asked.stdout.clone()).unwrap();
    let (rows, ids) = text.lines().nth(1).and_then(|line| line.split_once(',')).unwrap_or_else(|| panic!("{asked:?}"));
    (rows.into(), ids.into())
}

#[tokio::test]
async fn a_file_is_stored_each_time_that_it_is_put_but_once_under_a_key() {
    for running in [true, false] {
        let mut lake = Lake::new(SHOP);
        let file = |name: &str, text: String| {
            let path = lake.data().with_file_name(name);
            std::fs::write(&path, text).unwrap();
            path.to_str().unwrap().to_owned()
        };
        let (one, other) = (file("one.ndjson", orders(0, 12)), file("other.ndjson", orders(0, 13)));
        if running {
            lake.start();
        }
        for (arguments, rows, code) in [
            (&["orders", &one][..], "12", 0),
            (&["orders", &one], "24", 0),
            (&["orders", &one, "--key", "évening"], "36", 0),
            (&["orders", &one, "--key", "évening"], "36", 0),
            (&["orders", &other, "--key", "évening"], "36", 4),
            (&["orders", &other, "--key", "morning"], "49", 0),
        ] {
            let put = lake.run("put", arguments);
            assert_eq!(put.status.code(), Some(code), "{arguments:?}: {put:?}");
            if running {
                lake.flush("orders").await;
            }
            assert_eq!(stored(&lake).0, rows, "{arguments:?}, running: {running}, {put:?}");
        }
        let again = lake.run("put", &["orders", &one, "--key", "évening"]);
        assert!(String::from_utf8_lossy(&again.stderr).contains("12 of them"), "{again:?}");
    }
}

#[tokio::test]
async fn a_statement_is_done_each_time_that_it_is_sent_but_once_under_a_key() {
    for running in [true, false] {
        let mut lake = Lake::new(SHOP);
        if running {
            lake.start();
        }
        let sql = |arguments: &[&str]| {
            let asked = lake.run("sql", &[&["--output", "csv"], arguments].concat());
            (asked.status.code(), String::from_utf8(asked.stdout).unwrap() + &String::from_utf8(asked.stderr).unwrap())
        };
        let done = |arguments: &[&str], expected: &str| {
            let (code, text) = sql(arguments);
            assert!(code == Some(0) && text.contains(expected), "{arguments:?}, running: {running}: {code:?} {text}");
        };
        done(&["CREATE DATABASE IF NOT EXISTS shop"], "CREATE DATABASE");
        done(&["CREATE TABLE notes (id int)"], "CREATE TABLE");
        let (one, other) = ("INSERT INTO notes VALUES (1)", "INSERT INTO notes VALUES (2)");
        done(&[one], "INSERT");
        done(&[one], "INSERT");
        done(&[one, "--key", "k"], "INSERT");
        done(&[one, "--key", "k"], "done before under this idempotency key");
        done(&["SELECT count(*) AS n FROM notes"], "3");
        let (code, text) = sql(&[other, "--key", "k"]);
        assert!(code != Some(0) && text.contains("found another"), "{code:?} {text}");
        done(&["SELECT count(*) * 10 + max(id) AS n FROM notes"], "31");
    }
}

#[tokio::test]
async fn a_put_outlives_the_runtime_that_it_talks_to() {
    let mut lake = Lake::up(SHOP);
    let file = lake.data().with_file_name("orders.ndjson");
    std::fs::write(&file, orders(0, 60_000)).unwrap();
    let mut put =
        lake.tarn("put").arg("orders").arg(&file).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // Until the first part of the file is in the stream.
    while lake.get("/status").await.1["streams"][0]["pendingRecords"].as_u64() == Some(0)
        && lake.number("SELECT count(*) FROM orders").await.unwrap_or_default() == 0
    {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(put.try_wait().unwrap(), None, "it is killed before the end");
    lake.kill();
    tokio::time::sleep(Duration::from_millis(300)).await;
    lake.start();
    let put = tokio::task::spawn_blocking(|| put.wait_with_output()).await.unwrap().unwrap();
    assert!(put.status.success(), "{put:?}\n{}", lake.log());
    assert!(String::from_utf8_lossy(&put.stdout).contains("60000"), "{put:?}");
    lake.flush("orders").await;
    assert_eq!(stored(&lake), ("60000".into(), "60000".into()));
}

#[tokio::test]
async fn a_put_without_a_runtime_that_was_killed_goes_on_under_its_key() {
    let lake = Lake::new(SHOP);
    let file = lake.data().with_file_name("orders.ndjson");
    std::fs::write(&file, orders(0, 40_000)).unwrap();
    let mut killed = 0;
    for alive_ms in [300, 700, 1200] {
        let mut put = lake.tarn("put").arg("orders").arg(&file).args(["--key", "k"]).spawn().unwrap();
        tokio::time::sleep(Duration::from_millis(alive_ms)).await;
        killed += u32::from(put.try_wait().unwrap().is_none());
        put.kill().unwrap();
        put.wait().unwrap();
    }
    assert!(killed > 0, "at least one was killed at its work");
    let put = lake.run("put", &["orders", file.to_str().unwrap(), "--key", "k"]);
    assert!(put.status.success(), "{put:?}");
    assert_eq!(stored(&lake), ("40000".into(), "40000".into()));
}
