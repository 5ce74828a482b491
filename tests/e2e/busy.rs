//! A server that nothing stops: heavy queries, slow senders and defects keep nobody else waiting.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::lake::Lake;

const LAKEHOUSE: &str = "version: 1\ndatabase: busy\n";
/// Computes for minutes without giving a row.
const HEAVY: &str =
    "SELECT count(*) FROM generate_series(1, 4000000) a JOIN generate_series(1, 400000) b ON a.value + b.value < 0";

fn timed(sql: &str, seconds: u64) -> String {
    json!({"sql": sql, "timeoutSeconds": seconds}).to_string()
}

/// The slowest of some calls of `GET /health`.
async fn slowest_health(lake: &Lake, calls: usize) -> Duration {
    let mut slowest = Duration::ZERO;
    for _ in 0..calls {
        let began = Instant::now();
        let (status, _) = lake.get("/health").await;
        assert_eq!(status, 200);
        slowest = slowest.max(began.elapsed());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    slowest
}

#[tokio::test(flavor = "multi_thread")]
async fn beside_heavy_queries_health_answers_and_light_ones_have_their_turn() {
    let lake = Lake::up(LAKEHOUSE);
    let heavy: Vec<_> = (0..3).map(|_| lake.post("/query", "application/json", timed(HEAVY, 8))).collect();
    let heavy = futures::future::join_all(heavy);
    let beside = async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let health = slowest_health(&lake, 50).await;
        let light = (0..64).map(|n| {
            let lake = &lake;
            async move {
                let began = Instant::now();
                assert_eq!(lake.number(&format!("SELECT {n}")).await, Some(n));
                began.elapsed()
            }
        });
        let slowest = futures::future::join_all(light).await.into_iter().max().unwrap_or_default();
        (health, slowest)
    };
    let began = Instant::now();
    let (heavy, (health, light)) = tokio::join!(async { (heavy.await, began.elapsed()) }, beside);
    for (status, answer) in &heavy.0 {
        assert_eq!((*status, answer["error"]["kind"].as_str()), (413, Some("Limit")), "{answer:#}");
    }
    assert!(heavy.1 < Duration::from_secs(12), "a time-out of 8 s took {:?}", heavy.1);
    // The programs under test are not optimised and share their processors with other tests.
    assert!(health < Duration::from_millis(1_000), "{health:?}");
    assert!(light < Duration::from_secs(8), "{light:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_is_obeyed_within_seconds_of_the_heaviest_query() {
    let mut lake = Lake::up(LAKEHOUSE);
    let (sent, body) = (lake.url("/query"), timed(HEAVY, 300));
    let heavy = tokio::spawn(async move {
        let client = reqwest::Client::new();
        client.post(sent).header("content-type", "application/json").body(body).send().await
    });
    tokio::time::sleep(Duration::from_secs(1)).await;
    let began = Instant::now();
    assert_eq!(lake.stop(), Some(0), "{}", lake.log());
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    assert!(heavy.await.unwrap().is_err(), "it is cut off");
    lake.start();
    assert_eq!(lake.number("SELECT 1").await, Some(1));
}

/// A request whose body does not come.
fn slow_body(address: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    let head =
        "POST /query HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{";
    stream.write_all(head.as_bytes()).unwrap();
    stream
}

#[tokio::test(flavor = "multi_thread")]
async fn senders_that_stall_hold_no_route_and_are_given_up() {
    let lake = Lake::up(LAKEHOUSE);
    let address = lake.url("").trim_start_matches("http://").to_owned();
    let mut stalled: Vec<_> = (0..300).map(|_| slow_body(&address)).collect();
    let unspoken: Vec<_> = (0..64).map(|_| TcpStream::connect(&address).unwrap()).collect();
    assert!(slowest_health(&lake, 5).await < Duration::from_secs(1));
    assert_eq!(lake.number("SELECT 1").await, Some(1));
    drop(unspoken);
    let mut one = stalled.pop().unwrap();
    one.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let answer = tokio::task::spawn_blocking(move || {
        let mut answer = [0; 12];
        one.read_exact(&mut answer).map(|()| answer)
    });
    assert_eq!(&answer.await.unwrap().unwrap(), b"HTTP/1.1 408");
}

/// Asks for an answer that has no end within its time, as it is found.
fn endless(address: &str) -> TcpStream {
    let sql = "SELECT value, 'row ' || value AS text FROM generate_series(1, 1000000000000)";
    let body = json!({"sql": sql, "format": "csv", "stream": true, "timeoutSeconds": 30}).to_string();
    let mut stream = TcpStream::connect(address).unwrap();
    let head = format!(
        "POST /query HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all((head + &body).as_bytes()).unwrap();
    stream
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_of_endless_answers_hold_no_route_whether_they_read_or_not() {
    let lake = Lake::up(LAKEHOUSE);
    let address = lake.url("").trim_start_matches("http://").to_owned();
    let stalled: Vec<_> = (0..4).map(|_| endless(&address)).collect();
    let reading: Vec<_> = (0..10)
        .map(|_| {
            let mut stream = endless(&address);
            std::thread::spawn(move || {
                let (mut part, mut bytes) = ([0; 1 << 16], 0);
                while let Ok(read @ 1..) = stream.read(&mut part) {
                    bytes += read;
                }
                bytes
            })
        })
        .collect();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let began = Instant::now();
    assert_eq!(lake.get("/status").await.0, 200);
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
    drop(stalled);
    drop(lake);
    // Some of them still wait for their turn.
    let bytes: usize = reading.into_iter().map(|reader| reader.join().unwrap()).sum();
    assert!(bytes > 1 << 20, "expected rows until the server ended, found {bytes} bytes");
}

#[tokio::test(flavor = "multi_thread")]
async fn statements_that_are_deep_or_make_much_end_no_process() {
    let lake = Lake::up(LAKEHOUSE);
    let ors = vec!["1 = 2"; 2_000].join(" OR ");
    let deep = vec!["1"; 200_000 / 4].join(" + ");
    for (sql, expected) in [
        (format!("SELECT count(*) FROM generate_series(1, 3) WHERE {ors}"), 200),
        (format!("SELECT {deep}"), 413),
        ("SELECT rpad('x', 2000000000, 'x')".into(), 413),
        (format!("SELECT {}1{}", "(".repeat(9_000), ")".repeat(9_000)), 400),
    ] {
        let (status, answer) = lake.query(&sql).await;
        assert_eq!(status, expected, "{}: {answer:#}", &sql[..60.min(sql.len())]);
    }
    assert_eq!(lake.number("SELECT 1").await, Some(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_operators_hold_unsaid_is_held_against_the_memory() {
    let mut lake = Lake::new(LAKEHOUSE);
    lake.start_with("TARN_MEMORY", "128MiB");
    let doubled = |columns: usize| {
        let of = |each: &str| vec![each; columns].join(", ");
        let names: Vec<_> = (0..columns).map(|n| format!("c{n}")).collect();
        let more: Vec<_> = names.iter().map(|name| format!("concat({name}, {name})")).collect();
        let names = names.join(", ");
        format!(
            "WITH RECURSIVE r(n, {names}) AS (SELECT 1, {} UNION ALL SELECT n + 1, {} FROM r WHERE n < 29) \
             SELECT count(*), max(c0) < 'y', max(c{}) < 'y' FROM r",
            of("'x'"),
            more.join(", "),
            columns - 1
        )
    };
    let wide = "WITH RECURSIVE r(s, n) AS (SELECT rpad('x', 1000000, 'x'), 1 UNION ALL \
                SELECT concat(s, 'a'), n + 1 FROM r WHERE n < 2000) SELECT count(DISTINCT s) FROM r";
    let growing = "SELECT max(cardinality(l)) FROM (SELECT array_agg(value) OVER (ORDER BY value) AS l FROM generate_series(1, 20000))";
    let lists = "SELECT array_agg(value) OVER (ORDER BY value) FROM generate_series(1, 20000)";
    let gathered = "SELECT count(*) OVER (), value FROM generate_series(1, 10000000)";
    for sql in [doubled(1), doubled(4), wide.into(), growing.into(), lists.into(), gathered.into()] {
        let (status, answer) = lake.query(&sql).await;
        assert_eq!((status, answer["error"]["kind"].as_str()), (413, Some("Limit")), "{answer:#}");
        let message = answer["error"]["message"].as_str().unwrap_or_default();
        assert!(!message.contains("expected it to take"), "{message}");
    }
    let status = std::fs::read_to_string(format!("/proc/{}/status", lake.pid())).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap().trim_end_matches("kB").trim();
    assert!(peak.parse::<u64>().unwrap() < 512 << 10, "{peak} kB");
    assert_eq!(lake.number("SELECT 1").await, Some(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_window_ends_with_the_time_of_its_statement() {
    let lake = Lake::up(LAKEHOUSE);
    let sql = "SELECT max(s) FROM (SELECT sum(value) OVER (ORDER BY value ROWS BETWEEN UNBOUNDED PRECEDING AND 1 FOLLOWING) AS s \
               FROM generate_series(1, 30000000))";
    let began = Instant::now();
    let (status, answer) = lake.post("/query", "application/json", timed(sql, 1)).await;
    let message = answer["error"]["message"].as_str().unwrap_or_default();
    assert!(status == 413 && message.contains("expected it to take at most 1 s"), "{answer:#}");
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_of_many_rows_spills() {
    let mut lake = Lake::new(LAKEHOUSE);
    lake.start_with("TARN_MEMORY", "32MiB");
    let sql = "SELECT a.value * 1000 + b.value AS n FROM generate_series(0, 999) a CROSS JOIN generate_series(0, 999) b \
               ORDER BY n LIMIT 1 OFFSET 700000";
    assert_eq!(lake.number(sql).await, Some(700_000));
}

#[test]
fn the_programs_that_are_deployed_contain_panics_as_the_tested_ones_do() {
    let manifest = include_str!("../../Cargo.toml");
    let profiles = manifest.split("\n[profile.").skip(1);
    for profile in profiles {
        for line in profile.lines().filter(|line| line.starts_with("panic")) {
            assert_eq!(line.trim(), "panic = \"unwind\"", "[profile.{}", profile.lines().next().unwrap_or_default());
        }
    }
    assert!(manifest.contains("panic = \"unwind\""), "cargo-lambda asks for `abort` where nothing is said");
}
