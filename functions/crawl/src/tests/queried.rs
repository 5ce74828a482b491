//! What a crawl registers can be queried: the values in the files come back.

use arrow::util::pretty::pretty_format_batches;
use engine::{Engine, QueryOptions};
use shared::Principal;
use shared::config::Settings;

use super::*;

/// Crawls, then asks: cells joined by commas, rows by semicolons.
pub(super) async fn ask(lake: &Lake, sql: &str) -> String {
    let report = lake.crawl().await;
    assert_eq!(skipped(&report), [""; 0], "{report}");
    answer(lake, sql).await.unwrap_or_else(|e| panic!("{sql}: {e}"))
}

/// Asks without a crawl.
pub(super) async fn answer(lake: &Lake, sql: &str) -> shared::Result<String> {
    let spill = tempfile::tempdir().unwrap();
    let settings = Settings { memory: 64 << 20, ..Settings::embedded(spill.path()).unwrap() };
    let engine = Engine::open(&settings, &lake.ports).unwrap();
    let options = QueryOptions { database: "nyc".into(), ..QueryOptions::new(Principal::Owner) };
    let (batches, _) = engine.query(sql, &options).await?.collect().await?;
    let table = pretty_format_batches(&batches).unwrap().to_string();
    let cells = |line: &str| line.trim_matches('|').split('|').map(str::trim).collect::<Vec<_>>().join(",");
    Ok(table.lines().skip(3).filter(|line| line.starts_with('|')).map(cells).collect::<Vec<_>>().join(";"))
}

#[tokio::test]
async fn typed_csv_with_na_and_zones() {
    let lake = Lake::new();
    let text = "id;day;at;seen;gust;ok\n1;2013-01-02;2013-01-02 03:04:05;2013-01-02T03:04:05-05:00;NA;true\n2;NA;NA;NA;1.5;NA\n";
    lake.put("t/a.csv", text).await;
    lake.put("t/b.csv.gz", gzip(text.replace("1;2013", "3;2013").as_bytes())).await;
    let sql = "SELECT count(*), count(day), count(gust), sum(id), max(seen) = timestamp '2013-01-02T08:04:05Z' FROM t";
    assert_eq!(ask(&lake, sql).await, "4,2,2,8,true");
}

#[tokio::test]
async fn quotes_line_breaks_and_byte_order_marks() {
    let lake = Lake::new();
    lake.put("t/a.csv", "\u{feff}id,text\r\n1,\"a, \"\"b\"\"\r\nc\"\r\n2,d\r\n").await;
    lake.put("s/a.csv", "id,name\n1,'Doe, John'\n2,'Roe, Jane'\n").await;
    assert_eq!(ask(&lake, "SELECT sum(id), max(length(text)) FROM t").await, "3,9");
    assert_eq!(ask(&lake, "SELECT name FROM s ORDER BY id").await, "Doe, John;Roe, Jane");
}

#[tokio::test]
async fn ragged_rows_and_files_that_grew_columns() {
    let lake = Lake::new();
    lake.put("t/a.csv", "a,b\n1,2\n3\n4,5,6\n").await;
    lake.put("t/b.csv", "a,b,c\n7,8,9\n").await;
    assert_eq!(ask(&lake, "SELECT sum(a), sum(b), sum(c), count(*) FROM t").await, "15,15,15,4");
    // Rows past those that the crawl looks at.
    let many = "1,2\n".repeat(100_000);
    lake.put("u/a.csv", format!("a,b\n{many}7,8,9\n7\n")).await;
    assert_eq!(ask(&lake, "SELECT sum(a), sum(b), count(*) FROM u").await, "100014,200008,100002");
}

#[tokio::test]
async fn json_in_every_layout_with_nested_values() {
    let lake = Lake::new();
    lake.put("l/a.json", "{\"Id\":1,\"tz\":{\"name\":\"x\"},\"n\":[1,2]}\n{\"Id\":2}\n").await;
    lake.put("a/a.json", "[{\"id\":1},{\"id\":2}]").await;
    lake.put("s/a.json", "{\n \"id\": 1\n}\n{\n \"id\": 2\n}\n").await;
    assert_eq!(ask(&lake, "SELECT sum(id), max(tz['name']), max(n[2]) FROM l").await, "3,x,2");
    assert_eq!(ask(&lake, "SELECT (SELECT sum(id) FROM a), (SELECT sum(id) FROM s)").await, "3,3");
}

#[tokio::test]
async fn partitions_and_single_files() {
    let lake = Lake::new();
    lake.put("p/day=2013-01-01/a.csv", "id,x\n1,2\n").await;
    lake.put("p/day=2013-01-02/a.csv", "id,x\n3,4\n").await;
    lake.put("planes.csv", "id,x\n5,6\n").await;
    assert_eq!(ask(&lake, "SELECT id FROM p WHERE day = date '2013-01-02'").await, "3");
    assert_eq!(ask(&lake, "SELECT id, x FROM planes").await, "5,6");
}
