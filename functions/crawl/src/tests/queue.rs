//! Object events that come through a queue.

use shared::deadline;
use shared::state::{Expect, put_json};

use super::*;

/// The event of messages with these bodies; their ids are `m0`, `m1`, …
fn event(bodies: &[Value]) -> Value {
    let message = |(at, body): (usize, &Value)| {
        json!({
            "messageId": format!("m{at}"), "receiptHandle": "AQEB", "body": body, "attributes": {"ApproximateReceiveCount": "1"},
            "messageAttributes": {}, "md5OfBody": "d41d8cd98f00b204e9800998ecf8427e", "eventSource": "aws:sqs",
            "eventSourceARN": "arn:aws:sqs:us-east-1:123456789012:objects", "awsRegion": "us-east-1",
        })
    };
    json!({"Records": bodies.iter().enumerate().map(message).collect::<Vec<_>>()})
}

/// The body of a message about an object below `raw/`.
fn created(path: &str) -> Value {
    object_event("ObjectCreated:Put", "local", &format!("raw/{path}")).to_string().into()
}

fn failed(answer: &Value) -> Vec<&str> {
    let failures = answer["batchItemFailures"].as_array().unwrap();
    failures.iter().map(|failure| failure["itemIdentifier"].as_str().unwrap()).collect()
}

fn listed(answer: &Value) -> Vec<(&str, u64)> {
    let reports = answer["crawls"].as_array().unwrap();
    let listed = |report: &Value| report["files"]["listed"].as_u64().unwrap();
    reports.iter().map(|report| (report["location"].as_str().unwrap(), listed(report))).collect()
}

#[tokio::test]
async fn all_messages_of_a_location_are_one_crawl() {
    let lake = Lake::with("{table: t}");
    let names: Vec<String> = (0..40).map(|n| format!("day={n}/a b.csv")).collect();
    for name in &names {
        lake.put(name, "id,n\n1,2\n").await;
    }
    let bodies: Vec<Value> = names.iter().map(|name| created(&format!("raw/{}", name.replace(' ', "+")))).collect();
    let answer = lake.call(event(&bodies)).await.unwrap();
    assert_eq!((failed(&answer), listed(&answer)), (vec![], vec![("raw", 40)]));
    assert_eq!(answer["crawls"][0]["tables"][0]["partitionsAdded"], 40, "{answer:#}");
    lake.delete(&names[0]).await;
    let removed = object_event("ObjectRemoved:Delete", "local", "raw/raw/day=0/a+b.csv").to_string();
    let answer = lake.call(event(&[removed.into(), bodies[0].clone()])).await.unwrap();
    assert_eq!((failed(&answer), &answer["crawls"][0]["files"]["gone"]), (vec![], &json!(1)), "{answer:#}");
}

#[tokio::test]
async fn a_message_that_can_not_be_read_comes_again_and_holds_up_no_other() {
    let lake = Lake::with("{table: t}");
    lake.put("a.csv", "id,n\n1,2\n").await;
    lake.put("b.csv", "id,n\n1,2\n").await;
    let test = json!({"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": "local"}).to_string();
    let elsewhere = object_event("ObjectCreated:Put", "elsewhere", "raw/raw/a.csv").to_string();
    let kinesis = json!({"Records": [{"eventSource": "aws:kinesis"}]}).to_string();
    let bodies = [
        created("raw/a.csv"),
        "no JSON".into(),
        test.into(),
        json!({"Records": []}),
        kinesis.into(),
        elsewhere.into(),
        created("none/a.csv"),
        created("raw/b.csv"),
    ];
    let answer = lake.call(event(&bodies)).await.unwrap();
    assert_eq!((failed(&answer), listed(&answer)), (vec!["m1", "m3", "m4", "m5"], vec![("raw", 2)]));
    let nameless = json!({"Records": [{"eventSource": "aws:sqs", "body": "no JSON"}]});
    assert_eq!(failed(&lake.call(nameless).await.unwrap()), [""], "the whole event comes again");
}

#[tokio::test]
async fn a_location_whose_crawl_fails_fails_only_its_own_messages() {
    let lake = Lake::of("version: 1\ndatabase: nyc\nlocations:\n  raw: {}\n  broken: {}\n  cut: {}\n");
    put_json(lake.ports.state.as_ref(), "crawl/broken", &json!({"objects": 5}), Expect::Anything).await.unwrap();
    let mut bodies = vec![created("broken/a.csv"), created("raw/t/a.csv"), created("broken/b.csv")];
    lake.put("t/a.csv", "id,n\n1,2\n").await;
    let answer = lake.call(event(&bodies)).await.unwrap();
    assert_eq!((failed(&answer), listed(&answer)), (vec!["m0", "m2"], vec![("raw", 1)]));
    assert!(lake.has_table("t").await);
    // Time is up after the first location.
    bodies.push(created("cut/a.csv"));
    let answer = deadline::until(0, lake.call(event(&bodies[1..]))).await.unwrap();
    assert_eq!((failed(&answer), listed(&answer)), (vec!["m0", "m1"], vec![("cut", 0)]));
}
