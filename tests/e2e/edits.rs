//! The lakehouse file is edited over data that exists: planned, taken over, or refused with what was expected.

use std::time::Duration;

use serde_json::{Value, json};

use crate::lake::Lake;

const SHOP: &str = "
version: 1
database: shop
streams:
  orders:
    buffer: {interval: 900s}
    schema: [{name: id, type: bigint, required: true}, {name: at, type: timestamp}, {name: note, type: string}, {name: n, type: int}]
  clicks:
    buffer: {interval: 900s}
    schema: [{name: id, type: bigint}]
";

/// The plan of the file as it is now, and the exit code.
fn plan(lake: &Lake) -> (Option<i32>, Vec<[String; 3]>) {
    let output = lake.run("plan", &["--output", "json"]);
    let text = String::from_utf8(output.stdout).unwrap();
    let answer: Value = serde_json::from_str(&text)
        .unwrap_or_else(|e| panic!("{e}: {text}\n{}", String::from_utf8_lossy(&output.stderr)));
    let changes = answer["changes"].as_array().unwrap().iter();
    let field = |change: &Value, name: &str| change[name].as_str().unwrap().to_owned();
    (output.status.code(), changes.map(|c| [field(c, "effect"), field(c, "name"), field(c, "what")]).collect())
}

fn edit(lake: &Lake, from: &str, to: &str) {
    let text = std::fs::read_to_string(lake.lakehouse()).unwrap();
    assert!(text.contains(from), "{from}");
    std::fs::write(lake.lakehouse(), text.replace(from, to)).unwrap();
}

async fn filled() -> Lake {
    let mut lake = Lake::up(SHOP);
    let records = "{\"id\":1,\"at\":\"2026-01-01T00:00:00Z\",\"note\":\"a\",\"n\":1}\n";
    assert_eq!(lake.post("/streams/orders/records", "application/x-ndjson", records).await.0, 200);
    lake.flush("orders").await;
    assert_eq!(lake.post("/streams/clicks/records", "application/x-ndjson", "{\"id\":1}\n").await.0, 200);
    lake.stop();
    lake
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_table_can_follow_is_planned_and_taken_over_with_the_next_commit() {
    let mut lake = filled().await;
    assert_eq!(plan(&lake), (Some(0), vec![]));
    edit(
        &lake,
        "{name: n, type: int}]",
        "{name: n, type: bigint}, {name: more, type: string}]\n    partition_by: [day(at)]",
    );
    let (code, changes) = plan(&lake);
    let told: Vec<_> = changes.iter().map(|[effect, _, what]| format!("{effect} {what}")).collect();
    assert_eq!((code, told.len()), (Some(0), 4), "{told:?}");
    for what in [
        "applied column `more`",
        "applied column `n`: int → bigint",
        "applied `shop.orders`: column `n`: int → long",
        "applied partitioned by day(at)",
    ] {
        assert!(told.iter().any(|found| found == what), "{what}: {told:?}");
    }
    assert_eq!(plan(&lake).1.len(), 4, "a plan takes nothing over");
    lake.start();
    let record = "{\"id\":2,\"at\":\"2026-01-02T00:00:00Z\",\"n\":3000000000,\"more\":\"m\"}\n";
    assert_eq!(lake.post("/streams/orders/records", "application/x-ndjson", record).await.0, 200);
    lake.flush("orders").await;
    assert_eq!(lake.number("SELECT sum(n) FROM orders").await, Some(3_000_000_001));
    let partitioned = "SELECT count(*) FROM \"orders$files\" WHERE file_path LIKE '%at_day=%'";
    assert_eq!(lake.number(partitioned).await, Some(1));
    // What a statement makes of the table stands while the file says the same.
    lake.sql("ALTER TABLE orders DROP PARTITION FIELD day(at)").await;
    assert_eq!(lake.post("/streams/orders/records", "application/x-ndjson", "{\"id\":3}\n").await.0, 200);
    lake.flush("orders").await;
    assert_eq!(lake.number(partitioned).await, Some(1));
    lake.stop();
    assert_eq!(plan(&lake), (Some(0), vec![]));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_table_can_not_follow_is_refused_before_a_record_is_accepted() {
    let lake = filled().await;
    for (from, to, why) in [
        (
            "{name: note, type: string}",
            "{name: note, type: int}",
            "column `note`: expected a type that `string` can become",
        ),
        ("{name: id, type: bigint, required: true}, ", "", "needs a value in each row"),
        ("{name: n, type: int}]", "{name: n, type: int}, {name: u, type: uuid}]", "column `u`"),
        ("  clicks:\n", "  clicks:\n    shards: 2\n", "1 → 2 shards"),
    ] {
        let before = std::fs::read_to_string(lake.lakehouse()).unwrap();
        edit(&lake, from, to);
        let (code, changes) = plan(&lake);
        assert_eq!((code, changes[0][0].as_str()), (Some(2), "impossible"), "{changes:?}");
        for (command, arguments) in
            [("up", &["--port", "0"][..]), ("up", &["--port", "0", "--allow"]), ("sql", &["SELECT 1"])]
        {
            let output = lake.run(command, arguments);
            let told = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!(output.status.code(), Some(2), "{told}");
            assert!(told.contains(why), "{told}");
        }
        std::fs::write(lake.lakehouse(), before).unwrap();
    }
    assert_eq!(lake.run("sql", &["SELECT 1"]).status.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_with_records_that_are_not_written_goes_only_when_that_is_allowed() {
    let mut lake = filled().await;
    edit(&lake, "  clicks:\n    buffer: {interval: 900s}\n    schema: [{name: id, type: bigint}]\n", "");
    assert_eq!(plan(&lake), (Some(1), vec![["needs_allow".into(), "clicks".into(), "removed".into()]]));
    let refused = lake.run("up", &["--port", "0"]);
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(refused.status.code() == Some(2) && told.contains("1 record") && told.contains("--allow"), "{told}");
    lake.start_allowing();
    assert_eq!(lake.number("SELECT count(*) FROM orders").await, Some(1));
    lake.stop();
    assert_eq!(plan(&lake), (Some(0), vec![]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_lakehouse_takes_an_edit_over_or_says_why_not() {
    let mut lake = filled().await;
    lake.start();
    let text = std::fs::read_to_string(lake.lakehouse()).unwrap();
    let problems = async || {
        let (_, status) = lake.get("/status").await;
        let all = status["problems"].as_array().unwrap().clone();
        all.into_iter().filter(|problem| problem["subject"] == "file").collect::<Vec<_>>()
    };
    std::fs::write(lake.lakehouse(), text.replace("note, type: string", "note, type: int")).unwrap();
    let mut found = Vec::new();
    for _ in 0..100 {
        found = problems().await;
        if !found.is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(found[0]["message"].as_str().unwrap().contains("column `note`"), "{found:?}");
    assert_eq!(lake.number("SELECT count(*) FROM orders").await, Some(1), "the file before is in force");

    std::fs::write(lake.lakehouse(), format!("{text}  visits:\n    schema: [{{name: id, type: bigint}}]\n")).unwrap();
    let mut stored = false;
    for _ in 0..200 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let put = [("content-type", "application/x-ndjson")];
        let body = b"{\"id\":1}\n".to_vec();
        stored = matches!(lake.try_send("POST", "/streams/visits/records", &put, body).await, Ok((200, _)));
        if stored {
            break;
        }
    }
    assert!(stored, "{}", lake.log());
    lake.flush("clicks").await;
    assert_eq!(lake.sql("SELECT count(*) FROM clicks").await, [[json!(1)]], "what was buffered before the edit");
    assert_eq!(problems().await, Vec::<Value>::new());
}
