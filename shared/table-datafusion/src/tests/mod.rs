//! Tests of tables as a whole: through the public calls, over storage and catalog in memory.

// Table metadata made by the `iceberg` crate bears the time of the machine.
#![allow(clippy::disallowed_methods)]

mod address;
mod alter;
mod changes;
mod columns;
mod commit;
mod crash;
mod damage;
mod erase;
mod evolve;
mod expire;
mod faults;
mod foreign;
mod formats;
mod lineage;
mod many;
mod merge;
mod model;
mod odd_paths;
mod orphans;
mod overwrite;
mod partition;
mod pruned;
mod register;
mod row_deletes;
pub(super) mod rows;
mod scan;
mod travel;
mod types;
mod version;

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::util::pretty::pretty_format_batches;
use std::collections::BTreeMap;

use datafusion::execution::SendableRecordBatchStream;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::prelude::SessionContext;

use super::*;
use shared::clock::ManualClock;
use shared::model::ColumnType;
use shared::model::{Column, PartitionField, TableName};
use shared::ports::Ports;
use table::{
    Alter, Dropped, Expire, Expired, FileKind, Keep, NewTable, Orphans, Position, Purge, SortField, Tables, live,
    manifests, reachable, refs, snapshot,
};

pub(super) fn ports() -> Ports {
    adapters_embedded::in_memory(Arc::new(ManualClock::at(1_700_000_000_000))).unwrap()
}

pub(super) fn name() -> TableName {
    TableName::new("nyc", "flights").unwrap()
}

/// `id bigint required, carrier string, at timestamp`.
pub(super) fn columns() -> Vec<Column> {
    let id = Column { required: true, ..Column::new("id", ColumnType::BigInt) };
    vec![id, Column::new("carrier", ColumnType::String), Column::new("at", ColumnType::Timestamp)]
}

pub(super) async fn table(ports: &Ports, partition_by: &[&str]) -> Table {
    let fields: Vec<PartitionField> = partition_by.iter().map(|f| f.parse().unwrap()).collect();
    Tables::new(ports.clone()).ensure(&name(), &columns(), &fields).await.unwrap()
}

pub(super) const DAY: i64 = 86_400_000_000;

/// Rows of [`columns`]: id, carrier, day.
pub(super) fn rows(rows: &[(i64, Option<&str>, i64)]) -> RecordBatch {
    let at: TimestampMicrosecondArray = rows.iter().map(|r| Some(r.2 * DAY + 3_600_000_000)).collect();
    RecordBatch::try_from_iter(vec![
        ("id", Arc::new(rows.iter().map(|r| Some(r.0)).collect::<Int64Array>()) as ArrayRef),
        ("carrier", Arc::new(rows.iter().map(|r| r.1).collect::<StringArray>())),
        ("at", Arc::new(at)),
    ])
    .unwrap()
}

pub(super) fn stream(batch: RecordBatch) -> SendableRecordBatchStream {
    let schema = batch.schema();
    Box::pin(RecordBatchStreamAdapter::new(schema, futures::stream::iter([Ok(batch)])))
}

pub(super) async fn append(table: &Table, batch: RecordBatch) -> Committed {
    table.commit(Change::Append, stream(batch), None).await.unwrap()
}

pub(super) fn token(expected: Option<&str>, value: &str) -> Token {
    Token { key: "stream.flights".into(), expected: expected.map(Into::into), value: value.into() }
}

pub(super) async fn session(table: &Table, read: Read) -> SessionContext {
    let session = SessionContext::new();
    let root = table.ports().keys.root();
    session.register_object_store(root, table.ports().storage.resolve(root).unwrap().0);
    session.register_table("t", table.provider(read).await.unwrap()).unwrap();
    session
}

/// The answer of a query over the table `t`, as text without the frame.
pub(super) async fn sql(table: &Table, read: Read, query: &str) -> Vec<String> {
    let table = table.reload().await.unwrap();
    let batches = session(&table, read).await.sql(query).await.unwrap().collect().await.unwrap();
    let text = pretty_format_batches(&batches).unwrap().to_string();
    text.lines()
        .filter(|line| line.starts_with('|'))
        .skip(1)
        .map(|line| line.trim_matches('|').split('|').map(str::trim).collect::<Vec<_>>().join(" "))
        .collect()
}

pub(super) async fn ids(table: &Table, read: Read) -> Vec<String> {
    sql(table, read, "SELECT id FROM t ORDER BY id").await
}
