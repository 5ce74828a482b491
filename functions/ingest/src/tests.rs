use std::io::Write;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use proptest::prelude::*;
use serde_json::{Value, json};
use shared::api::Response;
use shared::clock::ManualClock;
use shared::model::ShardId;
use shared::ports::Ports;
use shared::project::Project;
use shared::stream::{MAX_RECORD_BYTES, Record};
use testing::stream::read_all;

use super::*;

mod faulty;

const PROJECT: &str = "
version: 1
database: nyc
streams:
  flights:
    description: departures
    schema:
      - {name: carrier, type: string}
      - {name: n, type: int, required: true}
  keyed:
    schema: [{name: carrier, type: string}, {name: n, type: int}]
    partition_key: carrier
    shards: 8
  with_rejects:
    keep_rejects: true
    schema: [{name: carrier, type: string}, {name: n, type: int}]
locations:
  weather: {}
";

struct Lake {
    ingest: Ingest,
    ports: Ports,
    clock: Arc<ManualClock>,
}

impl Lake {
    fn new() -> Self {
        let clock = Arc::new(ManualClock::at(1_700_000_000_000));
        Self::with(adapters_embedded::in_memory(clock.clone()).unwrap(), clock)
    }

    fn with(ports: Ports, clock: Arc<ManualClock>) -> Self {
        let project = Arc::new(Project::parse(PROJECT, "lakehouse.yaml").unwrap());
        Self { ingest: Ingest::new(project, ports.clone()).unwrap(), ports, clock }
    }

    async fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Response {
        let headers: serde_json::Map<_, _> = headers.iter().map(|(k, v)| (k.to_string(), json!(v))).collect();
        let event = json!({
            "version": "2.0", "routeKey": "$default", "rawPath": path, "rawQueryString": "", "headers": headers,
            "requestContext": {
                "http": {"method": method, "path": path, "protocol": "HTTP/1.1", "sourceIp": "", "userAgent": ""},
                "requestId": "r-1", "accountId": "1", "apiId": "a", "stage": "$default", "time": "", "timeEpoch": 0,
            },
            "body": STANDARD.encode(body), "isBase64Encoded": true,
        });
        testing::request(event, |event| self.ingest.handle(event)).await
    }

    async fn post(&self, stream: &str, headers: &[(&str, &str)], body: impl AsRef<[u8]>) -> (u16, Value) {
        let response = self.send("POST", &format!("/streams/{stream}/records"), headers, body.as_ref()).await;
        (response.status, serde_json::from_slice(&response.body).unwrap())
    }

    async fn refused(&self, headers: &[(&str, &str)], body: impl AsRef<[u8]>) -> (u16, String) {
        let (status, body) = self.post("flights", headers, body).await;
        (status, body["error"]["message"].as_str().unwrap_or_else(|| panic!("no error in {body}")).to_owned())
    }

    async fn stored(&self, stream: &str) -> Vec<(ShardId, Record)> {
        let all = read_all(&*self.ports.stream, stream, 10_000).await;
        all.into_iter().flat_map(|(shard, records)| records.into_iter().map(move |r| (shard.clone(), r))).collect()
    }

    async fn stored_data(&self, stream: &str) -> Vec<String> {
        let records = self.stored(stream).await.into_iter();
        records.map(|(_, record)| String::from_utf8(record.data.to_vec()).unwrap()).collect()
    }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn statuses(answer: &Value) -> Vec<&str> {
    answer["records"].as_array().unwrap().iter().map(|r| r["status"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn records_of_every_shape_are_stored() {
    let lines = r#"{"carrier":"UA","n":1}
{"carrier":"AA","n":2}"#;
    let array = r#" [ {"carrier":"UA","n":1} , {"carrier":"AA","n":2} ] "#;
    let csv = "carrier,n\r\nUA,1\r\nAA,2\r\n";
    let cases: [(&str, Vec<u8>, Option<&str>); 8] = [
        ("application/x-ndjson", lines.into(), None),
        ("application/json", array.into(), None),
        ("application/json; charset=utf-8", lines.into(), None),
        ("text/csv", csv.into(), None),
        ("", lines.into(), None),
        ("", array.into(), None),
        ("text/plain", csv.into(), None),
        ("application/x-ndjson", gzip(lines.as_bytes()), Some("gzip")),
    ];
    for (content_type, body, encoding) in cases {
        let lake = Lake::new();
        let mut headers = vec![("content-type", content_type)];
        headers.extend(encoding.map(|encoding| ("content-encoding", encoding)));
        let (status, answer) = lake.post("flights", &headers, body).await;
        assert_eq!(status, 200, "{content_type}: {answer}");
        assert_eq!((&answer["received"], &answer["stored"]), (&json!(2), &json!(2)));
        assert_eq!(lake.stored_data("flights").await, lines.lines().collect::<Vec<_>>(), "{content_type}");
    }
}

#[tokio::test]
async fn a_bad_record_among_good_ones_is_rejected_alone() {
    let lake = Lake::new();
    let too_large = format!(r#"{{"n":4,"carrier":"{}"}}"#, "x".repeat(MAX_RECORD_BYTES));
    let mut body =
        b"{\"n\":1}\n{\"n\":\"one\"}\n\n{\"n\":3000000000}\n{\"carrier\":\"\xff\",\"n\":1}\n[1]\n{\"n\":\n{}\n"
            .to_vec();
    body.extend_from_slice(too_large.as_bytes());
    let (status, answer) = lake.post("flights", &[("content-type", "application/x-ndjson")], body).await;
    assert_eq!(status, 207, "{answer}");
    let codes: Vec<_> =
        answer["records"].as_array().unwrap().iter().map(|r| r["code"].as_str().unwrap_or("")).collect();
    let expected = [
        "",
        "wrong_type",
        "overflow",
        "invalid_utf8",
        "not_an_object",
        "invalid_json",
        "missing_required",
        "too_large",
    ];
    assert_eq!(codes, expected);
    assert_eq!((&answer["stored"], &answer["rejected"], &answer["throttled"]), (&json!(1), &json!(7), &json!(0)));
    assert_eq!(answer["records"][0]["shard"], "shardId-000000000000");
    assert_eq!(answer["records"][2]["index"], 2);
    assert!(answer["records"][2]["message"].as_str().unwrap().contains("3000000000"), "{answer}");
    assert_eq!(lake.stored_data("flights").await, [r#"{"n":1}"#]);
}

#[tokio::test]
async fn ragged_csv_rows_are_rejected_alone() {
    let lake = Lake::new();
    let (status, answer) = lake.post("flights", &[("content-type", "text/csv")], "n,carrier\n1,UA\n2\n3,AA,x\n").await;
    assert_eq!((status, statuses(&answer)), (207, vec!["stored", "rejected", "rejected"]));
    assert_eq!(answer["records"][1]["code"], "ragged_row");
}

#[tokio::test]
async fn what_is_refused_is_kept_once_where_the_stream_asks_for_it() {
    let lake = Lake::new();
    let body = "carrier,n\nUA,1\nAA,x\n\"a;\nb\"\n";
    let headers = [("content-type", "text/csv"), ("idempotency-key", "k")];
    for _ in 0..2 {
        assert_eq!(lake.post("with_rejects", &headers, body).await.0, 207);
    }
    assert_eq!(lake.post("flights", &[("content-type", "text/csv")], body).await.0, 207);
    let objects = lake.ports.storage.list(&lake.ports.keys.root().join("errors/").unwrap()).await.unwrap();
    let [object] = &objects[..] else { panic!("{objects:?}") };
    let text = lake.ports.storage.get(&object.url).await.unwrap();
    let lines: Vec<_> = text.split(|b| *b == b'\n').filter_map(format::records::Rejected::parse).collect();
    let data: Vec<_> = lines.iter().map(|line| String::from_utf8(line.data().unwrap()).unwrap()).collect();
    assert_eq!(data, [r#"{"carrier":"AA","n":"x"}"#, "\"a;\nb\""]);
    assert_eq!((lines[0].error_code.as_str(), lines[1].error_code.as_str()), ("wrong_type", "ragged_row"));
    assert!(lines[0].shard.is_none() && lines[0].arrival_timestamp == 1_700_000_000_000);
}

#[tokio::test]
async fn lately_refused_records_are_told_with_their_reasons() {
    let lake = Lake::new();
    lake.post("flights", &[], "{\"n\":1}\n{\"n\":\"one\"}\n{}\n").await;
    lake.post("flights", &[], "{\"n\":[]}\n").await;
    let status: Value = serde_json::from_slice(&lake.send("GET", "/status/ingest", &[], b"").await.body).unwrap();
    let flights = status["refused"].as_array().unwrap().iter().find(|refused| refused["stream"] == "flights").unwrap();
    assert_eq!((&flights["records"], flights["newest"].as_array().unwrap().len()), (&json!(3), 3), "{status}");
    assert_eq!(status["problems"].as_array().unwrap().len(), 1);
    lake.clock.advance(25 * 3_600_000);
    let status: Value = serde_json::from_slice(&lake.send("GET", "/status/ingest", &[], b"").await.body).unwrap();
    assert_eq!(status["problems"], json!([]));
}

#[tokio::test]
async fn records_that_are_all_bad_are_a_bad_request() {
    let (status, answer) = Lake::new().post("flights", &[], "{}\n{}").await;
    assert_eq!((status, statuses(&answer)), (400, vec!["rejected", "rejected"]));
}

#[tokio::test]
async fn a_body_that_can_not_be_read_is_refused_with_the_place() {
    let lake = Lake::new();
    let whole = gzip(&b"{\"n\":1}\n".repeat(2_000));
    let gz = [("content-encoding", "gzip")];
    for (headers, body, expected) in [
        (&[][..], &b""[..], "found an empty one"),
        (&[], b" \n \n", "found none in 4 bytes"),
        (&gz, &whole[..whole.len() - 9], "cut short"),
        (&gz, b"{\"n\":1}", "expected a whole gzip body"),
        (&gz, &gzip(b""), "found an empty one once decompressed"),
        (&[("content-encoding", "br")], b"x", "`br`"),
        (&[("content-type", "image/png")], b"x", "`image/png`"),
        (&[], b"[{\"n\":1},\n{\"n\":", "line 2 column"),
        (&[], b"[{\"n\":1}] x", "line 1 column 11"),
        (&[], b"[]", "expected at least one record"),
        (&[], b"a,b\n1,2\n", "`carrier`, `n`"),
        (&[("idempotency-key", "")], b"{\"n\":1}", "idempotency key"),
    ] {
        let (status, message) = lake.refused(headers, body).await;
        assert!(status == 400 && message.contains(expected), "expected `{expected}`, found {status} {message}");
    }
    assert_eq!(lake.ports.stream.list().await.unwrap(), Vec::<String>::new(), "nothing was stored");
}

#[tokio::test]
async fn a_request_past_the_limits_is_refused_whole() {
    let lake = Lake::new();
    let gz = [("content-encoding", "gzip")];
    let bomb = gzip(&vec![b' '; MAX_DECODED_BYTES + 1]);
    let rows = format!("n\n{}", "1\n".repeat(MAX_RECORDS + 1));
    let array = format!("[{}1]", "1,".repeat(MAX_RECORDS));
    for (headers, body, expected) in [
        (&[][..], vec![b'x'; MAX_BODY_BYTES + 1], "6291457"),
        (&gz, bomb, "once decompressed"),
        (&[], "{}\n".repeat(MAX_RECORDS + 1).into_bytes(), "10000 records"),
        (&[], rows.into_bytes(), "10000 records"),
        (&[], array.into_bytes(), "10000 records"),
    ] {
        let (status, message) = lake.refused(headers, body).await;
        assert!(status == 413 && message.contains(expected), "expected `{expected}`, found {status} {message}");
    }
    let most = b"{\"n\":1}\n".repeat(MAX_RECORDS);
    let (status, answer) = lake.post("flights", &[], most).await;
    assert_eq!((status, &answer["stored"]), (200, &json!(MAX_RECORDS)));
}

#[tokio::test]
async fn an_unknown_name_is_not_found_and_the_known_ones_are_named() {
    let lake = Lake::new();
    let (status, answer) = lake.post("trains", &[], "{}").await;
    let message = answer["error"]["message"].as_str().unwrap();
    assert!(status == 404 && message.contains("`flights`, `keyed`"), "{answer}");
    let response = lake.send("PUT", "/files/climate/x.csv", &[], b"x").await;
    assert!(response.status == 404 && String::from_utf8_lossy(&response.body).contains("`weather`"));
    let response = lake.send("DELETE", "/streams", &[], b"").await;
    assert!(response.status == 404 && String::from_utf8_lossy(&response.body).contains("`DELETE /streams`"));
}

#[tokio::test]
async fn the_declared_column_chooses_the_shard() {
    let lake = Lake::new();
    let carriers = ["UA", "AA", "B6", "DL", "EV"];
    let body: String = (0..100).map(|n| format!("{{\"carrier\":\"{}\",\"n\":{n}}}\n", carriers[n % 5])).collect();
    assert_eq!(lake.post("keyed", &[], body).await.0, 200);
    for (shard, record) in lake.stored("keyed").await {
        let json: Value = serde_json::from_slice(&record.data).unwrap();
        assert_eq!(record.partition_key, json["carrier"]);
        let again = lake.post("keyed", &[], &record.data).await.1;
        assert_eq!(again["records"][0]["shard"], shard.0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn records_keep_their_order_within_a_shard() {
    let lake = Lake::new();
    let lines: Vec<_> = (0..MAX_RECORDS).map(|n| format!("{{\"n\":{n}}}")).collect();
    assert_eq!(lake.post("flights", &[], lines.join("\n")).await.0, 200);
    assert_eq!(lake.stored_data("flights").await, lines);
}

#[tokio::test]
async fn records_without_a_key_spread_over_the_shards() {
    let lake = Lake::new();
    assert_eq!(lake.post("keyed", &[], b"{\"n\":1}\n".repeat(800)).await.0, 200);
    let shards = read_all(&*lake.ports.stream, "keyed", 10_000).await;
    assert!(shards.values().all(|records| (60..140).contains(&records.len())));
}

#[tokio::test]
async fn streams_are_listed_with_their_schemas() {
    let response = Lake::new().send("GET", "/streams", &[], b"").await;
    let answer: Value = serde_json::from_slice(&response.body).unwrap();
    assert_eq!(answer["streams"][0]["name"], "flights");
    assert_eq!(answer["streams"][0]["table"], "nyc.flights");
    assert_eq!(answer["streams"][0]["schema"][1], json!({"name": "n", "type": "int", "required": true}));
    assert_eq!(answer["streams"][1]["shards"], 8);
}

#[tokio::test]
async fn a_file_is_stored_as_it_came_below_its_location() {
    let lake = Lake::new();
    let response = lake.send("PUT", "/files/weather/year=2013/größe 100%.csv", &[], b"a,b\xff\n").await;
    let answer: Value = serde_json::from_slice(&response.body).unwrap();
    assert_eq!((response.status, &answer["size"]), (201, &json!(5)), "{answer}");
    let url = answer["url"].as_str().unwrap().parse().unwrap();
    assert_eq!(lake.ports.storage.get(&url).await.unwrap(), &b"a,b\xff\n"[..]);
    assert_eq!(lake.ports.storage.list(&lake.ports.keys.raw("weather")).await.unwrap()[0].url, url);
    assert!(answer["etag"].is_string());

    let absent = [("x-tarn-if-absent", "true")];
    let path = "/files/weather/year=2013/größe 100%.csv";
    assert_eq!(lake.send("PUT", path, &absent, b"new").await.status, 409);
    assert_eq!(lake.ports.storage.get(&url).await.unwrap(), &b"a,b\xff\n"[..]);
    assert_eq!(lake.send("PUT", path, &[], b"new").await.status, 201);
    assert_eq!(lake.ports.storage.get(&url).await.unwrap(), "new");
    assert_eq!(lake.send("PUT", path, &[("x-tarn-if-absent", "yes")], b"").await.status, 400);
}

#[tokio::test]
async fn a_path_that_climbs_or_is_no_name_is_refused() {
    let lake = Lake::new();
    for path in ["../x", "a/../../x", "a//b", "a/./b", "a/b/", "a\\..\\b", "a\nb", &"x".repeat(256), &"x/".repeat(600)]
    {
        let response = lake.send("PUT", &format!("/files/weather/{path}"), &[], b"x").await;
        assert_eq!(response.status, 400, "{path}: {:?}", response.body);
    }
    assert_eq!(lake.ports.storage.list(lake.ports.keys.root()).await.unwrap(), []);
}

#[tokio::test]
async fn an_event_that_is_no_request_is_an_error() {
    let lake = Lake::new();
    let error = testing::invoke(json!({"detail-type": "Scheduled Event"}), |event| lake.ingest.handle(event))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), shared::ErrorKind::Invalid);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(30))]

    #[test]
    fn what_is_answered_as_stored_is_in_the_stream_and_nothing_else(
        records in prop::collection::vec(prop_oneof![
            (any::<i32>(), "[a-z]{0,3}").prop_map(|(n, carrier)| json!({"n": n, "carrier": carrier}).to_string()),
            Just("{}".to_owned()), Just("{\"n\":".to_owned()), Just("7".to_owned()),
        ], 1..60),
        array in any::<bool>(),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let lake = Lake::new();
            let whole = array && !records.iter().any(|r| r == "{\"n\":");
            let body = if whole { format!("[{}]", records.join(",")) } else { records.join("\n") };
            let (_, answer) = lake.post("keyed", &[("content-type", if whole { "application/json" } else { "application/x-ndjson" })], body).await;
            assert_eq!(statuses(&answer).len(), records.len());
            let mut expected: Vec<_> = answer["records"].as_array().unwrap().iter().zip(&records)
                .filter(|(entry, _)| entry["status"] == "stored")
                .map(|(entry, record)| (entry["sequence"].as_str().unwrap().to_owned(), entry["shard"].as_str().unwrap().to_owned(), Bytes::from(record.clone())))
                .collect();
            let found = lake.ports.stream.list().await.unwrap();
            let mut stored: Vec<_> = if found.is_empty() { vec![] } else {
                lake.stored("keyed").await.into_iter().map(|(shard, r)| (r.sequence.to_string(), shard.0, r.data)).collect()
            };
            expected.sort();
            stored.sort();
            assert_eq!(stored, expected);
        });
    }
}
