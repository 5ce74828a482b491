//! The function as a whole, over ports in memory.

mod bad_input;
mod incremental;
mod queried;
mod queue;
mod tables;
mod values;

use std::io::Write;
use std::sync::Arc;

use bytes::Bytes;
use format::FileFormat;
use serde_json::{Value, json};
use shared::ErrorKind;
use shared::catalog::{Partition, Table};
use shared::clock::ManualClock;
use shared::model::TableName;
use shared::ports::Ports;
use shared::project::Project;
use testing::catalog_faults::FaultyCatalog;
use url::Url;

use crate::Crawl;

/// A lakehouse with the one location `raw`, and the function that crawls it.
struct Lake {
    crawl: Crawl,
    ports: Ports,
    clock: Arc<ManualClock>,
    catalog: Arc<FaultyCatalog>,
}

impl Lake {
    fn new() -> Self {
        Self::with("{}")
    }

    /// `location` is the declaration of `raw` in YAML's flow style.
    fn with(location: &str) -> Self {
        Self::of(&format!("version: 1\ndatabase: nyc\nlocations:\n  raw: {location}\n"))
    }

    /// `text` is a lakehouse file.
    fn of(text: &str) -> Self {
        let project = Arc::new(Project::parse(text, "lakehouse.yaml").unwrap());
        let clock = Arc::new(ManualClock::at(1_000));
        let mut ports = adapters_embedded::in_memory(clock.clone()).unwrap();
        let catalog = FaultyCatalog::new(ports.catalog.clone());
        ports.catalog = catalog.clone();
        let crawl = Crawl::new(project, ports.clone()).unwrap();
        Self { crawl, ports, clock, catalog }
    }

    fn url(&self, path: &str) -> Url {
        format::folders::below_folder(&self.ports.keys.raw("raw"), path)
    }

    async fn put(&self, path: &str, bytes: impl Into<Bytes>) {
        self.ports.storage.put(&self.url(path), bytes).await.unwrap();
    }

    async fn delete(&self, path: &str) {
        self.ports.storage.delete(&self.url(path)).await.unwrap();
    }

    /// What Lambda would give back for the event.
    async fn call(&self, event: Value) -> shared::Result<Value> {
        testing::invoke(event, |event| self.crawl.handle(event)).await
    }

    /// Crawls everything and gives the report.
    async fn crawl(&self) -> Value {
        let answer = self.call(request("POST", "/crawl", r#"{"location":"raw"}"#)).await.unwrap();
        assert_eq!(answer["statusCode"], 200, "{answer}");
        let body: Value = serde_json::from_str(answer["body"].as_str().unwrap()).unwrap();
        body["crawls"][0].clone()
    }

    async fn event(&self, name: &str, path: &str) -> Value {
        let event = object_event(name, "local", &format!("raw/raw/{path}"));
        self.call(event).await.unwrap()["crawls"][0].clone()
    }

    async fn table(&self, name: &str) -> Table {
        self.ports.catalog.get_table(&TableName::new("nyc", name).unwrap()).await.unwrap()
    }

    async fn has_table(&self, name: &str) -> bool {
        match self.ports.catalog.get_table(&TableName::new("nyc", name).unwrap()).await {
            Ok(_) => true,
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::NotFound);
                false
            }
        }
    }

    /// `name:type` of each column, then of each partition key after a `|`.
    async fn columns(&self, table: &str) -> String {
        let input = self.table(table).await.input;
        let list = |columns: &[shared::model::Column]| {
            columns.iter().map(|c| format!("{}:{}", c.name, c.ty)).collect::<Vec<_>>().join(" ")
        };
        if input.partition_keys.is_empty() {
            return list(&input.storage.columns);
        }
        format!("{} | {}", list(&input.storage.columns), list(&input.partition_keys))
    }

    async fn partitions(&self, table: &str) -> Vec<Partition> {
        self.ports.catalog.list_partitions(&TableName::new("nyc", table).unwrap(), &[]).await.unwrap()
    }

    async fn format(&self, table: &str) -> FileFormat {
        FileFormat::from_table(&self.table(table).await.input).unwrap()
    }

    fn writes(&self) -> usize {
        self.catalog.writes()
    }
}

fn request(method: &str, path: &str, body: &str) -> Value {
    json!({
        "version": "2.0", "routeKey": "$default", "rawPath": path, "rawQueryString": "", "headers": {},
        "requestContext": {"http": {"method": method, "path": path, "protocol": "HTTP/1.1", "sourceIp": "", "userAgent": ""},
            "requestId": "r", "stage": "$default", "timeEpoch": 0},
        "body": body, "isBase64Encoded": false,
    })
}

fn object_event(name: &str, bucket: &str, key: &str) -> Value {
    let record = json!({
        "eventVersion": "2.1", "eventSource": "aws:s3", "eventName": name, "awsRegion": "us-east-1",
        "eventTime": "2013-01-01T00:00:00.000Z", "userIdentity": {"principalId": "p"},
        "requestParameters": {"sourceIPAddress": "127.0.0.1"}, "responseElements": {},
        "s3": {"s3SchemaVersion": "1.0", "bucket": {"name": bucket}, "object": {"key": key}},
    });
    json!({"Records": [record]})
}

/// `skipped` of a report as `file reason`.
fn skipped(report: &Value) -> Vec<String> {
    let skipped = report["skipped"].as_array().unwrap();
    skipped.iter().map(|s| format!("{} {}", s["file"].as_str().unwrap(), s["reason"].as_str().unwrap())).collect()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}
