//! Iceberg tables: commits of many writers, changes of rows, scans and planning.

use std::io::{Read, Write};
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Instant;

use arrow::array::{Int64Array, RecordBatch};
use datafusion::datasource::file_format::parquet::ParquetFormat;
use datafusion::datasource::listing::ListingOptions;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::prelude::{SessionConfig, SessionContext};
use engine::{Engine, QueryOptions};
use futures::TryStreamExt;
use futures::future::try_join_all;
use serde_json::{Value, json};
use shared::catalog::ensure_database;
use shared::config::Settings;
use shared::model::PartitionField;
use shared::model::types::{arrow_schema, columns_of};
use shared::model::{Column, ColumnType, TableName};
use shared::ports::Ports;
use shared::{Error, Principal, Result};
use table::{Table, Tables};
use table_datafusion::{Change, ChangeTable};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::open;

/// Memory of the engine, bytes.
const MEMORY: u64 = 4 << 30;

/// The table of the workloads that have one.
const TABLE: &str = "t";

fn named(table: &str) -> Result<TableName> {
    TableName::new("bench", table)
}

fn options() -> QueryOptions {
    QueryOptions { database: "bench".into(), ..QueryOptions::new(Principal::Owner) }
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

/// The connections of a lakehouse in a folder, or of one on AWS by the URL of its bucket.
async fn connect(data: &str) -> Result<Ports> {
    if !data.starts_with("s3://") {
        return Ok(open(Path::new(data))?.1);
    }
    let value = |name: &str| match name {
        "TARN_PORTS" => Some("aws".to_owned()),
        "TARN_WAREHOUSE" => Some(data.to_owned()),
        "TARN_STREAM_PREFIX" => Some("bench-".to_owned()),
        name => std::env::var(name).ok(),
    };
    wiring::connect(&Settings::from_lookup(&value)?).await
}

async fn make_counted(data: &str) -> Result<Ports> {
    let ports = connect(data).await?;
    make(&ports, TABLE, &[Column::new("id", ColumnType::BigInt)], &[]).await?;
    Ok(ports)
}

/// Appends the rows `from`, `from + 1`, … one at a time.
async fn append_each(tables: Tables, from: usize, commits: usize) -> Result<()> {
    let schema = Arc::new(arrow_schema(&[Column::new("id", ColumnType::BigInt)]));
    for id in from..from + commits {
        let id = i64::try_from(id).unwrap_or_default();
        let batch = RecordBatch::try_new(schema.clone(), vec![Arc::new(Int64Array::from(vec![id]))])?;
        let rows = RecordBatchStreamAdapter::new(schema.clone(), futures::stream::iter([Ok(batch)]));
        tables.load(&named(TABLE)?).await?.commit(Change::Append, Box::pin(rows), None).await?;
    }
    Ok(())
}

fn committed(ports: &Ports, started: Instant, commits: usize) -> impl Future<Output = Result<Value>> {
    let (ports, seconds) = (ports.clone(), started.elapsed().as_secs_f64());
    async move {
        let found = Tables::new(ports).load(&named(TABLE)?).await?.history().len();
        if found != commits {
            return Err(Error::bug(format!("expected {commits} snapshots, found {found}")));
        }
        Ok(json!({"seconds": seconds, "commits": commits}))
    }
}

/// `writers` tasks append one row each, `commits` times, all at once.
pub(crate) async fn commits(data: &str, writers: usize, commits: usize) -> Result<Value> {
    let ports = make_counted(data).await?;
    let tables = Tables::new(ports.clone());
    let started = Instant::now();
    let tasks = (0..writers).map(|writer| tokio::spawn(append_each(tables.clone(), writer * commits, commits)));
    let broke_off = |e| Error::bug("a writer broke off").with_source(e);
    try_join_all(tasks.map(|task| async move { task.await.map_err(broke_off)? })).await?;
    committed(&ports, started, writers * commits).await
}

/// As [`commits`], each writer in a process of its own.
pub(crate) async fn commits_apart(data: &str, writers: usize, commits: usize) -> Result<Value> {
    let ports = make_counted(data).await?;
    let program = std::env::current_exe()?;
    let mut processes = Vec::new();
    for writer in 0..writers {
        let mut command = tokio::process::Command::new(&program);
        command.args(["commit-when-told", data, &(writer * commits).to_string(), &commits.to_string()]);
        let process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true).spawn()?;
        processes.push(process);
    }
    let pipe = || Error::bug("expected a pipe to a writer, found none");
    for process in &mut processes {
        // It says that it is ready.
        process.stdout.as_mut().ok_or_else(pipe)?.read_u8().await?;
    }
    let started = Instant::now();
    for process in &mut processes {
        process.stdin.take().ok_or_else(pipe)?.write_u8(b'\n').await?;
    }
    for process in &mut processes {
        let status = process.wait().await?;
        if !status.success() {
            return Err(Error::bug(format!("a writer ended with {status}")));
        }
    }
    committed(&ports, started, writers * commits).await
}

/// One of the writers of [`commits_apart`]: says when it is ready, begins when it is told.
pub(crate) async fn commit_when_told(data: &str, from: usize, commits: usize) -> Result<Value> {
    let ports = connect(data).await?;
    // Connected, and everything that is loaded once is.
    let tables = Tables::new(ports);
    tables.load(&named(TABLE)?).await?;
    let mut output = std::io::stdout();
    output.write_all(b"\n")?;
    output.flush()?;
    std::io::stdin().read_exact(&mut [0])?;
    append_each(tables, from, commits).await?;
    Ok(json!({}))
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
