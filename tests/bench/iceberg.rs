//! Iceberg tables: commits of many writers, changes of rows, scans and planning.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use arrow::array::{Int64Array, RecordBatch};
use datafusion::datasource::file_format::parquet::ParquetFormat;
use datafusion::datasource::listing::ListingOptions;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::prelude::{SessionConfig, SessionContext};
use futures::TryStreamExt;
use futures::future::try_join_all;
use serde_json::{Value, json};
use shared::catalog::ensure_database;
use shared::config::{Ports, Settings};
use shared::engine::{Engine, QueryOptions};
use shared::model::types::{arrow_schema, columns_of};
use shared::model::{Column, ColumnType, TableName};
use shared::project::PartitionField;
use shared::table::{Change, Table, Tables};
use shared::{Error, Result};

use crate::open;

/// Memory of the engine, bytes.
const MEMORY: u64 = 4 << 30;

/// The table of the workloads that have one.
const TABLE: &str = "t";

fn named(table: &str) -> Result<TableName> {
    TableName::new("bench", table)
}

fn options() -> QueryOptions {
    QueryOptions { database: "bench".into(), ..QueryOptions::default() }
}

fn engine(data: &Path) -> Result<(Ports, Engine)> {
    let (settings, ports) = open(data)?;
    let engine = Engine::open(&Settings { memory: MEMORY, ..settings }, &ports)?;
    Ok((ports, engine))
}

async fn make(ports: &Ports, table: &str, columns: &[Column], partition_by: &[PartitionField]) -> Result<Table> {
    ensure_database(ports.catalog.as_ref(), "bench").await?;
    Tables::new(ports.clone()).ensure(&named(table)?, columns, partition_by).await
}

/// `writers` append one row each, `commits` times, all at once.
pub(crate) async fn commits(data: &Path, writers: usize, commits: usize) -> Result<Value> {
    let (_, ports) = open(data)?;
    let columns = [Column::new("id", ColumnType::BigInt)];
    make(&ports, TABLE, &columns, &[]).await?;
    let schema = Arc::new(arrow_schema(&columns));
    let write = |writer: usize| {
        // A writer of its own, as in another process: what it knows of the table is what it read.
        let (tables, schema) = (Tables::new(ports.clone()), schema.clone());
        async move {
            for commit in 0..commits {
                let id = i64::try_from(writer * commits + commit).unwrap_or_default();
                let batch = RecordBatch::try_new(schema.clone(), vec![Arc::new(Int64Array::from(vec![id]))])?;
                let rows = RecordBatchStreamAdapter::new(schema.clone(), futures::stream::iter([Ok(batch)]));
                tables.load(&named(TABLE)?).await?.commit(Change::Append, Box::pin(rows), None).await?;
            }
            Ok::<_, Error>(())
        }
    };
    let started = Instant::now();
    try_join_all(
        (0..writers)
            .map(|writer| tokio::spawn(write(writer)))
            .map(|task| async move { task.await.map_err(|e| Error::bug("a writer broke off").with_source(e))? }),
    )
    .await?;
    Ok(json!({"seconds": started.elapsed().as_secs_f64(), "commits": writers * commits}))
}

/// Appends a Parquet file to a table, and tells the table's metadata.
pub(crate) async fn load(data: &Path, file: &Path, table: &str) -> Result<Value> {
    let (_, ports) = open(data)?;
    let session = SessionContext::new();
    let path = file.display().to_string();
    let frame = session.read_parquet(path, Default::default()).await?;
    let columns: Vec<_> = columns_of(&Arc::new(frame.schema().as_arrow().clone()))?;
    let columns: Vec<_> = columns.into_iter().map(|column| Column { required: false, ..column }).collect();
    let table = make(&ports, table, &columns, &[]).await?;
    let started = Instant::now();
    let committed = table.commit(Change::Append, frame.execute_stream().await?, None).await?;
    let metadata = table.reload().await?.metadata_location().to_owned();
    Ok(json!({"seconds": started.elapsed().as_secs_f64(), "rows": committed.rows_added, "metadata": metadata}))
}

/// Runs statements that write, one a line, each once.
pub(crate) async fn statements(data: &Path, file: &Path) -> Result<Value> {
    let (_, engine) = engine(data)?;
    let text = std::fs::read_to_string(file)?;
    let started = Instant::now();
    for sql in text.lines().filter(|line| !line.trim().is_empty()) {
        engine.execute(sql, &options()).await?.collect().await?;
    }
    Ok(json!({"seconds": started.elapsed().as_secs_f64()}))
}

/// The best of `runs` after a warm-up, of a query over the table.
pub(crate) async fn query(data: &Path, sql: &str, runs: usize) -> Result<Value> {
    let (_, engine) = engine(data)?;
    let options = QueryOptions { views: true, ..options() };
    let mut best = f64::INFINITY;
    for run in 0..=runs {
        let started = Instant::now();
        // Batches go as they come: neither side keeps the rows.
        let rows: usize = {
            let answer = engine.query(sql, &options).await?;
            answer.rows.try_fold(0, |rows, batch| async move { Ok(rows + batch.num_rows()) }).await?
        };
        if run > 0 {
            best = best.min(started.elapsed().as_secs_f64());
        }
        if rows == 0 {
            return Err(Error::bug("expected rows, found none"));
        }
    }
    Ok(json!({"seconds": best}))
}

/// The same query over the table's bare data files, with DataFusion alone and the engine's settings.
pub(crate) async fn bare(files: &Path, sql: &str, runs: usize) -> Result<Value> {
    let config = SessionConfig::new().with_collect_statistics(true).with_parquet_bloom_filter_pruning(true);
    let session = SessionContext::new_with_config(config);
    let listing = ListingOptions::new(Arc::new(ParquetFormat::default())).with_file_extension(".parquet");
    let listing = listing.with_collect_stat(true);
    session.register_listing_table("t", files.display().to_string(), listing, None, None).await?;
    let mut best = f64::INFINITY;
    for run in 0..=runs {
        let started = Instant::now();
        let rows = session.sql(sql).await?.execute_stream().await?;
        rows.try_fold(0, |rows, batch| async move { Ok(rows + batch.num_rows()) }).await?;
        if run > 0 {
            best = best.min(started.elapsed().as_secs_f64());
        }
    }
    Ok(json!({"seconds": best}))
}

/// Makes a table of `files` data files, one row and one partition each.
pub(crate) async fn many_files(data: &Path, files: usize) -> Result<Value> {
    const FILES_A_COMMIT: usize = 10_000;
    let (_, ports) = open(data)?;
    let columns = [Column::new("part", ColumnType::BigInt), Column::new("id", ColumnType::BigInt)];
    let table = make(&ports, TABLE, &columns, &["part".parse()?]).await?;
    let schema = Arc::new(arrow_schema(&columns));
    let ids: Vec<_> = (0..i64::try_from(files).unwrap_or_default()).collect();
    for ids in ids.chunks(FILES_A_COMMIT) {
        let column = || Arc::new(Int64Array::from(ids.to_vec()));
        let batch = RecordBatch::try_new(schema.clone(), vec![column(), column()])?;
        let rows = RecordBatchStreamAdapter::new(schema.clone(), futures::stream::iter([Ok(batch)]));
        table.reload().await?.commit(Change::Append, Box::pin(rows), None).await?;
    }
    let metadata = table.reload().await?.metadata_location().to_owned();
    Ok(json!({"seconds": 0.0, "metadata": metadata}))
}
