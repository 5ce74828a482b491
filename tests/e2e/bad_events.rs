//! Events that are wrong, whole or in part, as the programs meet them under Lambda.

use std::path::Path;

use serde_json::{Value, json};

use crate::lambda::{Function, kinesis, messages, objects, read, request, tick};

const SHOP: &str = "
version: 1
database: shop
streams:
  orders:
    schema: [{name: id, type: bigint, required: true}]
    buffer: {size: 1MiB, interval: 1s}
locations:
  customers: {table: customers}
";

fn shop() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("lakehouse.yaml"), SHOP).unwrap();
    dir
}

#[tokio::test]
async fn an_event_of_another_source_or_shape_is_refused_with_what_was_found() {
    let dir = shop();
    let created = objects(&[("ObjectCreated:Put", "local", "x")]);
    let arrived = kinesis("orders", &[("1", "")]);
    for (name, event, found) in [
        ("ingest", tick(json!({})), "found a schedule"),
        ("ingest", arrived.clone(), "found a Kinesis event"),
        ("batcher", created.clone(), "found an S3 event"),
        ("crawl", arrived.clone(), "found a Kinesis event"),
        ("transform", arrived, "found a Kinesis event"),
        ("query", tick(json!({})), "found a schedule"),
        ("insight", created, "found an S3 event"),
    ] {
        let mut function = Function::start(name, dir.path()).await;
        let wrong_shapes = [
            (Value::Null, "found null"),
            (json!({"Records": []}), "`Records`"),
            (json!({"Records": [{"eventSource": "aws:sns", "body": "x"}]}), "`aws:sns`"),
            (
                json!({"detail-type": "Object Created", "source": "aws.s3", "detail": {}}),
                "`Object Created` from `aws.s3`",
            ),
            (json!({"detail-type": 7, "source": "aws.events", "detail": {}}), "an EventBridge event"),
        ];
        let queued = (name != "crawl").then(|| (messages(&["x"]), "found an SQS event"));
        for (event, found) in [(event, found)].into_iter().chain(wrong_shapes).chain(queued) {
            let error = function.invoke(event).await.unwrap_err();
            assert_eq!(error["errorType"], "Invalid", "{name}: {error:#}");
            assert!(error["errorMessage"].as_str().unwrap().contains(found), "{name} {found}: {error:#}");
        }
        let mut broken = request("POST", "/query", "no base64!");
        broken["isBase64Encoded"] = json!(true);
        let (status, answer) = read(function.invoke(broken).await.unwrap());
        assert_eq!((status, &answer["error"]["kind"]), (400, &json!("Invalid")), "{name}: {answer:#}");
    }
}

#[tokio::test]
async fn one_bad_record_of_a_kinesis_event_holds_up_no_other() {
    let dir = shop();
    let mut ingest = Function::start("ingest", dir.path()).await;
    let (status, answer) = ingest.http("POST", "/streams/orders/records", r#"[{"id": 1}, {"id": 2}]"#).await;
    assert_eq!(status, 200, "{answer:#}");
    let mut batcher = Function::start("batcher", dir.path()).await;
    let mut event =
        kinesis("orders", &[("1", "eyJpZCI6MX0="), ("2", "%%%"), ("x", "eyJpZCI6Mn0="), ("4", "eyJpZCI6Mn0=")]);
    let stranger = kinesis("trains", &[("3", "")])["Records"][0].clone();
    event["Records"].as_array_mut().unwrap().push(stranger);
    let answer = batcher.invoke(event).await.unwrap();
    let failed: Vec<_> = answer["batchItemFailures"].as_array().unwrap().iter().map(|f| &f["itemIdentifier"]).collect();
    assert_eq!(failed, ["2", "", "3"], "{answer:#}");
    assert_eq!(answer["flushed"][0]["stored"], 2, "{answer:#}");
    assert_eq!(batcher.logged("a record could not be counted").len(), 3, "{}", batcher.log());
    let error = batcher.invoke(kinesis("trains", &[("3", "")])).await.unwrap_err();
    assert_eq!(error["errorType"], "NotFound", "{error:#}");
}

/// How S3 writes a key in an event.
fn encoded(key: &str) -> String {
    let mut text = String::new();
    for byte in key.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'.' | b'-' | b'_' => text.push(char::from(byte)),
            b' ' => text.push('+'),
            _ => text.push_str(&format!("%{byte:02X}")),
        }
    }
    text
}

/// Writes a file of one row below the warehouse, and gives its key in the bucket of this machine.
fn customer(warehouse: &Path, name: &str) -> String {
    let file = warehouse.join("raw/customers").join(name);
    std::fs::create_dir_all(file.parent().unwrap()).unwrap();
    std::fs::write(&file, "id,name\n1,Ada\n").unwrap();
    encoded(file.to_str().unwrap().trim_start_matches('/'))
}

#[tokio::test]
async fn keys_of_object_events_are_decoded_and_what_is_not_ours_is_told() {
    let dir = shop();
    let warehouse = dir.path().join("data/objects");
    let mut crawl = Function::start("crawl", dir.path()).await;
    let names =
        ["plain.csv", "a b.csv", "a+b.csv", "day=1/b.csv", "caf\u{e9} \u{fc}\u{4e2d}.csv", "50% off.csv", "100%25.csv"];
    for name in names {
        let mut event = objects(&[("ObjectCreated:Put", "local", &customer(&warehouse, name))]);
        event["Records"][0]["s3"]["object"]["versionId"] = json!("096fKKXTRTtl3on89fVO.nfljtsv6qko");
        let report = crawl.invoke(event).await.unwrap()["crawls"][0].clone();
        assert_eq!(
            (&report["files"]["listed"], &report["files"]["read"]),
            (&json!(1), &json!(1)),
            "{name}: {report:#}"
        );
    }
    // What a crawl of everything finds is what the events told.
    let (_, all) = crawl.http("POST", "/crawl", "{}").await;
    let files = &all["crawls"][0]["files"];
    assert_eq!(
        (&files["listed"], &files["read"], &files["gone"]),
        (&json!(names.len()), &json!(0), &json!(0)),
        "{files:#}"
    );

    let key = customer(&warehouse, "plain.csv");
    std::fs::remove_file(warehouse.join("raw/customers/plain.csv")).unwrap();
    let report = crawl.invoke(objects(&[("ObjectRemoved:DeleteMarkerCreated", "local", &key)])).await.unwrap();
    assert_eq!(report["crawls"][0]["files"]["gone"], 1, "{report:#}");

    let test = json!({"Service": "Amazon S3", "Event": "s3:TestEvent", "Time": "2024-01-01T00:00:00.000Z", "Bucket": "local",
        "RequestId": "r", "HostId": "h"});
    assert_eq!(crawl.invoke(test).await.unwrap(), json!({"crawls": []}));
    let outside =
        encoded(warehouse.join("tables/shop/orders/data/x.parquet").to_str().unwrap().trim_start_matches('/'));
    let event = objects(&[("ObjectCreated:Put", "local", &outside)]);
    assert_eq!(crawl.invoke(event).await.unwrap(), json!({"crawls": []}));

    let key = customer(&warehouse, "late.csv");
    let mixed = objects(&[("ObjectCreated:Put", "elsewhere", &key), ("ObjectCreated:Put", "local", &key)]);
    let error = crawl.invoke(mixed).await.unwrap_err();
    let message = error["errorMessage"].as_str().unwrap();
    assert!(message.contains("`local`") && message.contains("`elsewhere`"), "{error:#}");
    let (_, last) = crawl.http("GET", "/crawls", "").await;
    assert_eq!(last["crawls"][0]["files"]["read"], 1, "the one of our bucket was crawled: {last:#}");
}

#[tokio::test]
async fn object_events_of_a_queue_are_one_crawl_and_only_the_bad_messages_come_again() {
    let dir = shop();
    let warehouse = dir.path().join("data/objects");
    let mut crawl = Function::start("crawl", dir.path()).await;
    let body =
        |bucket: &str, name: &str| objects(&[("ObjectCreated:Put", bucket, &customer(&warehouse, name))]).to_string();
    let test = json!({"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": "local"}).to_string();
    let bodies = [body("local", "a b.csv"), test, "no JSON".into(), body("elsewhere", "b.csv"), body("local", "c.csv")];
    let answer = crawl.invoke(messages(&bodies.each_ref().map(String::as_str))).await.unwrap();
    assert_eq!(
        answer["batchItemFailures"],
        json!([{"itemIdentifier": "message-2"}, {"itemIdentifier": "message-3"}]),
        "{answer:#}"
    );
    assert_eq!(answer["crawls"].as_array().unwrap().len(), 1, "{answer:#}");
    assert_eq!(answer["crawls"][0]["files"]["read"], 2, "{answer:#}");
    let refused = crawl.logged("a message could not be read");
    assert_eq!(refused.len(), 2, "{}", crawl.log());
    assert_eq!(
        (&refused[0]["message_id"], &refused[0]["trigger"]),
        (&json!("message-2"), &json!("sqs")),
        "{}",
        refused[0]
    );
}

#[tokio::test]
async fn a_key_begins_at_the_bucket_also_when_the_warehouse_has_a_prefix() {
    let dir = shop();
    let warehouse = dir.path().join("bucket/some prefix");
    std::fs::create_dir_all(&warehouse).unwrap();
    let url = format!("file://{}/", warehouse.display()).replace(' ', "%20");
    let mut crawl = Function::start_with("crawl", dir.path(), &[("TARN_WAREHOUSE", &url)]).await;
    let key = customer(&warehouse, "a.csv");
    let report = crawl.invoke(objects(&[("ObjectCreated:Put", "local", &key)])).await.unwrap();
    assert_eq!(report["crawls"][0]["files"]["read"], 1, "{report:#}");
    let unprefixed = crawl.invoke(objects(&[("ObjectCreated:Put", "local", "raw/customers/a.csv")])).await.unwrap();
    assert_eq!(unprefixed, json!({"crawls": []}), "a key without the prefix lies outside the warehouse");
}
