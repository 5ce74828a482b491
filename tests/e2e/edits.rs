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

const RENAMED: (&str, &str) = ("  orders:\n", "  purchases:\n    was: orders\n    table: orders\n");

/// Sends records to a stream; gives whether they were taken.
async fn send(lake: &Lake, stream: &str, ids: std::ops::Range<i64>) -> bool {
    let body: String = ids.map(|id| format!("{{\"id\":{id}}}\n")).collect();
    let headers = [("content-type", "application/x-ndjson")];
    let sent = lake.try_send("POST", &format!("/streams/{stream}/records"), &headers, body.into_bytes()).await;
    matches!(sent, Ok((200, _)))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_gets_another_name_keeps_what_it_holds() {
    let mut lake = filled().await;
    lake.start();
    assert!(send(&lake, "orders", 2..5).await);
    lake.post("/streams/orders/records", "application/x-ndjson", "{\"id\":\"no number\"}\n").await;
    let keyed = [("content-type", "application/x-ndjson"), ("idempotency-key", "k")];
    assert_eq!(lake.post_with("/streams/orders/records", &keyed, b"{\"id\":5}\n".to_vec()).await.0, 200);
    edit(&lake, RENAMED.0, RENAMED.1);
    let mut taken = false;
    for _ in 0..100 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        taken = send(&lake, "purchases", 6..8).await;
        if taken {
            break;
        }
    }
    assert!(taken, "{}", lake.log());
    assert!(!send(&lake, "orders", 100..101).await, "nobody sends to the old name");
    assert_eq!(lake.post_with("/streams/purchases/records", &keyed, b"{\"id\":5}\n".to_vec()).await.0, 200);
    lake.flush("purchases").await;
    let counted = "SELECT count(*), count(DISTINCT id) FROM orders";
    assert_eq!(lake.sql(counted).await, [[json!(7), json!(7)]]);
    lake.stop();
    assert_eq!(plan(&lake), (Some(0), vec![]), "`was` may stay");
    // The edit is undone, and made again with a name in between.
    edit(&lake, RENAMED.1, RENAMED.0);
    assert_eq!(plan(&lake), (Some(0), vec![["applied".into(), "orders".into(), "was `purchases`".into()]]));
    lake.start();
    assert!(send(&lake, "orders", 8..10).await);
    lake.stop();
    edit(&lake, RENAMED.0, RENAMED.1);
    lake.start();
    assert!(send(&lake, "purchases", 10..12).await);
    lake.stop();
    edit(&lake, "purchases:\n    was: orders", "sales:\n    was: purchases");
    lake.start();
    lake.flush("sales").await;
    assert_eq!(lake.sql(counted).await, [[json!(11), json!(11)]]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rename_that_is_killed_loses_and_doubles_nothing_though_the_edit_is_undone() {
    let mut lake = filled().await;
    let mut next = 2;
    for round in 0..8_u64 {
        let (name, other) = if round % 2 == 0 { ("orders", RENAMED) } else { ("purchases", (RENAMED.1, RENAMED.0)) };
        // Whoever was killed may have been anywhere: the file says what counts.
        lake.start();
        assert!(send(&lake, name, next..next + 3).await, "{}", lake.log());
        next += 3;
        lake.stop();
        edit(&lake, other.0, other.1);
        let mut up = lake.tarn("up");
        up.args(["--port", "0"]).stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
        let mut killed = up.spawn().unwrap();
        tokio::time::sleep(Duration::from_millis(20 + 25 * round)).await;
        killed.kill().unwrap();
        killed.wait().unwrap();
    }
    lake.start();
    lake.flush("orders").await;
    let rows = lake.sql("SELECT count(*), count(DISTINCT id), CAST(max(id) AS BIGINT) FROM orders").await;
    assert_eq!(rows, [[json!(next - 1), json!(next - 1), json!(next - 1)]]);
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_are_taken_are_refused_by_name() {
    let lake = Lake::new(SHOP);
    for (from, to, why) in [
        (RENAMED.0, "  orders:\n    was: clicks\n    table: t\n", "`clicks`, which is declared"),
        (RENAMED.0, "  orders:\n    was: old\n", "`was` expects `table`"),
        (
            "  clicks:\n",
            "  a: {was: old, table: t, schema: [{name: id, type: bigint}]}\n  b: {was: old, table: u, schema: [{name: id, type: bigint}]}\n  clicks:\n",
            "stream `a` has too",
        ),
    ] {
        let before = std::fs::read_to_string(lake.lakehouse()).unwrap();
        edit(&lake, from, to);
        let output = lake.run("validate", &[]);
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(2) && told.contains(why), "{why}: {told}");
        std::fs::write(lake.lakehouse(), before).unwrap();
    }
}

const JOBS: &str = "workflows:
  daily:
    jobs:
      noted: {sql: 'SELECT id, note FROM orders', into: noted}
      counted: {sql: 'SELECT count(note) AS n FROM noted', into: counted}
";

#[tokio::test(flavor = "multi_thread")]
async fn sql_that_can_not_be_planned_is_told_and_held_up_only_where_it_is_new() {
    let mut lake = filled().await;
    let text = std::fs::read_to_string(lake.lakehouse()).unwrap();
    std::fs::write(lake.lakehouse(), format!("{text}{JOBS}")).unwrap();
    assert_eq!(lake.run("validate", &[]).status.code(), Some(0));
    lake.start();
    lake.stop();
    edit(&lake, "id, note FROM orders", "id, note, nosuch FROM orders");
    let validated = lake.run("validate", &[]);
    let told = String::from_utf8_lossy(&validated.stderr).into_owned();
    assert_eq!(validated.status.code(), Some(2), "{told}");
    assert!(told.contains("workflows.daily.jobs.noted.sql: line 1, column 18") && told.contains("nosuch"), "{told}");
    let (code, changes) = plan(&lake);
    assert_eq!((code, changes[0][0].as_str(), changes[0][1].as_str()), (Some(1), "needs_allow", "daily.noted"));
    let refused = lake.run("up", &["--port", "0"]);
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(refused.status.code() == Some(2) && told.contains("it would fail") && told.contains("--allow"), "{told}");
    lake.start_allowing();
    lake.stop();
    // What was wrong before holds nothing up, and is told nevertheless.
    edit(&lake, "interval: 900s", "interval: 800s");
    let (code, changes) = plan(&lake);
    assert_eq!(code, Some(1), "{changes:?}");
    assert!(changes.iter().all(|change| change[0] == "applied"), "{changes:?}");
    lake.start();
    // A column that a statement adds is none of the file's, and there.
    lake.sql("ALTER TABLE orders ADD COLUMN nosuch STRING").await;
    lake.stop();
    assert_eq!(plan(&lake).0, Some(0));
    assert_eq!(lake.run("validate", &[]).status.code(), Some(2));
}
