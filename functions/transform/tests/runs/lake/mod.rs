//! A lakehouse in memory with the function `transform`, driven by the events that callers send.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arrow::json::WriterBuilder;
use arrow::json::writer::JsonArray;
use engine::{Engine, QueryOptions};
use serde_json::{Value, json};
use shared::Principal;
use shared::catalog::{StorageDescriptor, TableInput, ensure_database};
use shared::clock::ManualClock;
use shared::config::Settings;
use shared::model::types::columns_of;
use shared::model::{Column, TableName};
use shared::ports::Ports;
use shared::project::Project;
use table::{Table, Tables};
use table_datafusion::{Change, ChangeTable};
use transform::Transform;
use transform::run::Timings;

/// 2023-11-14T22:13:20Z.
pub const NOW_MS: i64 = 1_700_000_000_000;

pub struct Lake {
    pub ports: Ports,
    pub clock: Arc<ManualClock>,
    pub engine: Engine,
    pub tables: Tables,
    _spill: tempfile::TempDir,
}

/// An answer: its status and its JSON body.
pub type Answer = (u16, Value);

impl Lake {
    pub async fn new() -> Self {
        let clock = Arc::new(ManualClock::at(NOW_MS));
        let ports = adapters_embedded::in_memory(clock.clone()).unwrap();
        let spill = tempfile::tempdir().unwrap();
        let engine = Engine::open(&Settings::embedded(spill.path()).unwrap(), &ports).unwrap();
        ensure_database(ports.catalog.as_ref(), "nyc").await.unwrap();
        Self { tables: Tables::new(ports.clone()), ports, clock, engine, _spill: spill }
    }

    /// The function over this lake, with `workflows` as they stand under that key in the lakehouse file.
    pub fn transform(&self, workflows: &str) -> Transform {
        self.transform_over(self.ports.clone(), workflows)
    }

    /// The function over other ports to this lake.
    pub fn transform_over(&self, ports: Ports, workflows: &str) -> Transform {
        let text = format!("version: 1\ndatabase: nyc\nworkflows:\n{workflows}");
        let project = Arc::new(Project::parse(&text, "lakehouse.yaml").unwrap());
        let millis = Duration::from_millis;
        let timings = Timings { first_wait: millis(1), longest_wait: millis(2), heartbeat: millis(20) };
        Transform::new(project, ports, self.engine.clone()).unwrap().with_timings(timings)
    }

    /// Adds the rows of a query to an Iceberg table.
    pub async fn add(&self, table: &str, sql: &str) {
        self.write(table, sql, Change::Append).await;
    }

    pub async fn write(&self, table: &str, sql: &str, change: Change) {
        let answer = self.engine.query(sql, &self.options()).await.unwrap();
        let columns = columns_of(&answer.schema).unwrap().into_iter().map(|c| Column { required: false, ..c });
        let columns: Vec<_> = columns.collect();
        let table = self.tables.ensure(&name(table), &columns, &[]).await.unwrap();
        table.commit(change, answer.rows, None).await.unwrap();
    }

    pub async fn table(&self, table: &str) -> Table {
        self.tables.load(&name(table)).await.unwrap()
    }

    /// The answer of a query as JSON rows.
    pub async fn rows(&self, sql: &str) -> Value {
        let answer = self.engine.query(sql, &self.options()).await.unwrap_or_else(|e| panic!("{sql}: {e}"));
        let (batches, _) = answer.collect().await.unwrap_or_else(|e| panic!("{sql}: {e}"));
        let mut writer = WriterBuilder::new().with_explicit_nulls(true).build::<_, JsonArray>(Vec::new());
        batches.iter().for_each(|batch| writer.write(batch).unwrap());
        writer.finish().unwrap();
        let bytes = writer.into_inner();
        if bytes.is_empty() { json!([]) } else { serde_json::from_slice(&bytes).unwrap() }
    }

    /// A CSV table over `raw/{table}/`, columns as `name:type`.
    pub async fn csv_table(&self, table: &str, columns: &[(&str, &str)]) {
        let columns = columns.iter().map(|(n, ty)| Column::new(*n, ty.parse().unwrap())).collect();
        let input = TableInput {
            name: name(table),
            description: None,
            table_type: "EXTERNAL_TABLE".into(),
            parameters: BTreeMap::from([("classification".into(), "csv".into())]),
            storage: StorageDescriptor {
                columns,
                location: self.ports.keys.raw(table).to_string(),
                serde_library: Some("org.apache.hadoop.hive.serde2.lazy.LazySimpleSerDe".into()),
                serde_parameters: BTreeMap::from([("field.delim".into(), ",".into())]),
                ..StorageDescriptor::default()
            },
            partition_keys: Vec::new(),
        };
        self.ports.catalog.create_table(&input).await.unwrap();
    }

    /// Puts a file into `raw/{table}/`.
    pub async fn put(&self, table: &str, file: &str, text: &str) {
        let url = self.ports.keys.raw(table).join(file).unwrap();
        self.ports.storage.put(&url, text.to_owned()).await.unwrap();
    }

    /// Carries out a statement that writes.
    pub async fn change(&self, sql: &str) {
        let answer = self.engine.execute(sql, &self.options()).await.unwrap_or_else(|e| panic!("{sql}: {e}"));
        answer.collect().await.unwrap_or_else(|e| panic!("{sql}: {e}"));
    }

    fn options(&self) -> QueryOptions {
        QueryOptions { database: "nyc".into(), ..QueryOptions::new(Principal::Owner) }
    }
}

pub fn name(table: &str) -> TableName {
    TableName::parse(table, "nyc").unwrap()
}

/// What Lambda would give back for the event.
pub async fn call(transform: &Transform, event: Value) -> shared::Result<Value> {
    testing::invoke(event, |event| transform.handle(event)).await
}

/// Sends an HTTP request as API Gateway does.
pub async fn send(transform: &Transform, method: &str, path: &str, body: &Value) -> Answer {
    send_to(transform, method, path, "", body).await
}

/// The same with a query string, `name=value`.
pub async fn send_to(transform: &Transform, method: &str, path: &str, query: &str, body: &Value) -> Answer {
    let event = json!({
        "version": "2.0",
        "routeKey": "$default",
        "rawPath": path,
        "rawQueryString": query,
        "queryStringParameters": query.split_once('=').map(|(name, value)| json!({name: value})),
        "headers": {"content-type": "application/json"},
        "requestContext": {
            "requestId": "r", "routeKey": "$default", "stage": "$default", "timeEpoch": NOW_MS,
            "http": {"method": method, "path": path, "protocol": "HTTP/1.1", "sourceIp": "127.0.0.1", "userAgent": "test"},
        },
        "body": body.to_string(),
        "isBase64Encoded": false,
    });
    let response = testing::request(event, |event| transform.handle(event)).await;
    (response.status, serde_json::from_slice(&response.body).unwrap())
}

/// Starts a run and waits for its end.
pub async fn start(transform: &Transform, workflow: &str) -> Value {
    let (status, run) = send(transform, "POST", &format!("/workflows/{workflow}/runs"), &json!({})).await;
    assert_eq!(status, 200, "{run}");
    run
}

/// The same, for a run that must succeed.
pub async fn succeed(transform: &Transform, workflow: &str) -> Value {
    let run = start(transform, workflow).await;
    assert_eq!(run["status"], "succeeded", "{run:#}");
    run
}

pub async fn resume(transform: &Transform, run: &Value) -> Answer {
    send(transform, "POST", &format!("/runs/{}/resume", run["run"].as_str().unwrap()), &json!({})).await
}
