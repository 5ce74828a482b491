//! Tables that an engine nobody here wrote made and changed: read here as their writer reads them, changed here, and read by
//! others again. pysail deletes by value and by position in format v2, with deletion vectors in format v3.

use std::process::Command;
use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use serde_json::Value;
use shared::catalog::Database;
use shared::config::Settings;
use shared::model::TableName;
use table::Tables;
use table_datafusion::{Change, ChangeTable};

use crate::clients::{Row, difference, root, rows_of, sorted};
use crate::lake::Lake;

const LAKEHOUSE: &str = "version: 1\ndatabase: lab\n";

/// A table as its writer has it.
struct Foreign {
    table: String,
    metadata: String,
    rows: Vec<Row>,
}

/// Tables that pysail writes into the folder.
fn written_by_pysail(folder: &std::path::Path) -> Vec<Foreign> {
    let python = root().join(".venv/bin/python");
    assert!(python.exists(), "`make setup` makes the Python environment `.venv`");
    let output = Command::new(python).arg(root().join("tests/clients/sail_iceberg.py")).arg(folder).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let table = |line: &str| {
        let mut told: Value = serde_json::from_str(line).unwrap();
        let text = |key: &str| told[key].as_str().unwrap().to_owned();
        let (table, metadata) = (text("table"), text("metadata"));
        Foreign { table, metadata, rows: serde_json::from_value(told["rows"].take()).unwrap() }
    };
    text.lines().map(table).collect()
}

fn ours(lake: &Lake, table: &str) -> Vec<Row> {
    rows_of(&lake.run("sql", &["--output", "json", &format!("SELECT * FROM lab.{table}")]), "id")
}

fn duckdb(metadata: &str) -> Vec<Row> {
    let python = root().join(".venv/bin/python");
    let script = root().join("tests/clients/read_iceberg.py");
    rows_of(&Command::new(python).arg(script).arg("duckdb").arg(metadata).output().unwrap(), "id")
}

#[tokio::test]
async fn tables_of_pysail_with_every_kind_of_delete_read_the_same_here_and_are_changed_here() {
    let lake = Lake::new(LAKEHOUSE);
    let settings = Settings::embedded(&lake.data()).unwrap();
    let ports = adapters_embedded::open(&settings).unwrap();
    let folder = settings.warehouse.to_file_path().unwrap().join("foreign");
    let database = Database { name: "lab".into(), description: None, location: None, parameters: [].into() };
    ports.catalog.create_database(&database).await.unwrap();
    let tables = Tables::new(ports);
    let written = written_by_pysail(&folder);
    assert_eq!(written.len(), 4);
    for Foreign { table, metadata, rows } in written {
        let name = TableName::new("lab", &table).unwrap();
        let entered = tables.register(&name, &metadata).await.unwrap();
        let theirs = sorted(rows, "id");
        assert!(theirs.len() > 1, "{table}");
        if let Some(difference) = difference(&ours(&lake, &table), &theirs) {
            panic!("{table}, written by pysail: {difference}");
        }
        if table == "kinds" || table == "vectors" {
            continue;
        }
        // An upsert: one row takes the place of another, one is new.
        let batch = RecordBatch::try_from_iter([
            ("id", Arc::new(Int64Array::from(vec![5, 7000])) as ArrayRef),
            ("carrier", Arc::new(StringArray::from(vec!["here", "too"]))),
        ]);
        let batch = batch.unwrap();
        let stream = RecordBatchStreamAdapter::new(batch.schema(), futures::stream::iter([Ok(batch)]));
        let key = vec!["id".to_owned()];
        entered.commit(Change::Merge { key }, Box::pin(stream), None).await.unwrap();
        let now = ours(&lake, &table);
        assert_eq!(now.len(), theirs.len() + 1, "{table}");
        let changed = tables.load(&name).await.unwrap();
        if let Some(difference) = difference(&now, &duckdb(changed.metadata_location())) {
            panic!("{table}, changed here, in DuckDB: {difference}");
        }
    }
}
