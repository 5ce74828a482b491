//! The side of Tarn in the benchmarks: runs one workload through the libraries and prints its figures as one JSON line.
//! `run.py` beside it makes the data, runs the peers on the same data in the same run, and writes the table.

mod iceberg;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use engine::{Engine, QueryOptions};
use format::FileFormat;
use format::records::RecordSchema;
use futures::StreamExt;
use serde_json::{Value, json};
use shared::catalog::{TableInput, ensure_database};
use shared::config::Settings;
use shared::model::types::columns_of;
use shared::model::{Column, TableName};
use shared::ports::Ports;
use shared::project::Project;
use shared::{Error, Principal, Result};
use table::Tables;
use table_datafusion::{Change, ChangeTable};
use url::Url;

#[tokio::main]
async fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let figures = match arguments.as_slice() {
        ["json-to-table", data, file, columns] => json_to_table(Path::new(data), Path::new(file), columns).await?,
        ["crawl", data] => crawl_twice(Path::new(data)).await?,
        ["tpch", data, tables, queries, runs] => {
            tpch(Path::new(data), Path::new(tables), Path::new(queries), number(runs)?).await?
        }
        ["commits", data, writers, commits] => iceberg::commits(data, number(writers)?, number(commits)?).await?,
        ["commits-apart", data, writers, commits] => {
            iceberg::commits_apart(data, number(writers)?, number(commits)?).await?
        }
        ["commit-when-told", data, from, commits] => {
            iceberg::commit_when_told(data, number(from)?, number(commits)?).await?
        }
        ["load", data, file] => iceberg::load(Path::new(data), Path::new(file), "t").await?,
        ["load", data, file, table] => iceberg::load(Path::new(data), Path::new(file), table).await?,
        ["statements", data, file] => iceberg::statements(Path::new(data), Path::new(file)).await?,
        ["query", data, sql, runs] => iceberg::query(Path::new(data), sql, number(runs)?).await?,
        ["bare", files, sql, runs] => iceberg::bare(Path::new(files), sql, number(runs)?).await?,
        ["many-files", data, files] => iceberg::many_files(Path::new(data), number(files)?).await?,
        _ => {
            return Err(Error::invalid(
                "expected `json-to-table <data> <file.ndjson> <columns.json>`, `crawl <data>`, `tpch <data> <tables> <queries> <runs>`, \
                 `commits <data> <writers> <commits>`, `commits-apart <data> <writers> <commits>`, `load <data> <file.parquet> [table]`, `statements <data> <file.sql>`, \
                 `query <data> <sql> <runs>`, `bare <files> <sql> <runs>` or `many-files <data> <files>`",
            ));
        }
    };
    say(&figures);
    Ok(())
}

fn number(text: &str) -> Result<usize> {
    text.parse().map_err(|_| Error::invalid(format!("expected a number, found `{text}`")))
}

/// Prints the figures for `run.py`.
#[allow(clippy::print_stdout, reason = "this program's answer is its standard output")]
fn say(figures: &Value) {
    println!("{figures}");
}

fn open(data: &Path) -> Result<(Settings, Ports)> {
    let settings = Settings::embedded(data)?;
    let ports = adapters_embedded::open(&settings)?;
    Ok((settings, ports))
}

/// Decodes an NDJSON file and commits it to a new Iceberg table as one snapshot: what the batcher does with a stream's bytes.
async fn json_to_table(data: &Path, file: &Path, columns: &str) -> Result<Value> {
    const RECORDS_A_BATCH: usize = 20_000;
    let (_, ports) = open(data)?;
    let columns: Vec<Column> =
        serde_json::from_str(columns).map_err(|e| Error::invalid("expected a JSON array of columns").with_source(e))?;
    let name = TableName::new("bench", "events")?;
    let started = Instant::now();
    let text = std::fs::read(file)?;
    let bytes = text.len();
    ensure_database(ports.catalog.as_ref(), &name.database).await?;
    let table = Tables::new(ports).ensure(&name, &columns, &[]).await?;
    let schema = RecordSchema::new(&columns)?;
    let arrow = schema.arrow().clone();
    let batches = futures::stream::unfold((text, 0_usize), move |(text, from)| {
        let schema = schema.clone();
        async move {
            let rest = text.get(from..).filter(|rest| !rest.is_empty())?;
            let end =
                rest.iter().enumerate().filter(|(_, b)| **b == b'\n').map(|(i, _)| i + 1).nth(RECORDS_A_BATCH - 1);
            let chunk = &rest[..end.unwrap_or(rest.len())];
            let lines = chunk.split(|b| *b == b'\n').filter(|line| !line.is_empty());
            let batch = schema.decode(lines).map(|decoded| decoded.batch);
            let from = from + chunk.len();
            Some((batch.map_err(|e| datafusion::error::DataFusionError::External(Box::new(e))), (text, from)))
        }
    });
    let rows = Box::pin(RecordBatchStreamAdapter::new(arrow, batches.boxed()));
    let committed = table.commit(Change::Append, rows, None).await?;
    Ok(json!({"seconds": started.elapsed().as_secs_f64(), "bytes": bytes, "rows": committed.rows_added}))
}

/// Crawls the one location `files` of an embedded lakehouse, then crawls it again.
async fn crawl_twice(data: &Path) -> Result<Value> {
    let (_, ports) = open(data)?;
    let text = "version: 1\ndatabase: bench\nlocations:\n  files: {table: files}\n";
    let project = Arc::new(Project::parse(text, "bench")?);
    let crawl = crawl::Crawl::new(project, ports)?;
    let request = json!({
        "version": "2.0", "routeKey": "$default", "rawPath": "/crawl", "rawQueryString": "",
        "headers": {"content-type": "application/json"}, "isBase64Encoded": false, "body": "{}",
        "requestContext": {"http": {"method": "POST", "path": "/crawl", "protocol": "HTTP/1.1"}, "requestId": "bench"}
    });
    let started = Instant::now();
    let first = testing::invoke(request.clone(), |event| crawl.handle(event)).await?;
    let seconds = started.elapsed().as_secs_f64();
    let again = Instant::now();
    testing::invoke(request, |event| crawl.handle(event)).await?;
    Ok(
        json!({"seconds": seconds, "again_seconds": again.elapsed().as_secs_f64(), "status": first["statusCode"], "report": first["body"]}),
    )
}

/// Runs every `<n>.sql` of `queries` over the Parquet files `<table>.parquet` of `tables`, each `runs` times after a warm-up.
async fn tpch(data: &Path, tables: &Path, queries: &Path, runs: usize) -> Result<Value> {
    let settings = Settings::embedded(data)?;
    let settings = Settings { warehouse: directory(tables)?, memory: 8 << 30, ..settings };
    let ports = adapters_embedded::open(&settings)?;
    register(&ports, tables).await?;
    let engine = Engine::open(&settings, &ports)?;
    let options = QueryOptions { database: "tpch".into(), ..QueryOptions::new(Principal::Owner) };
    let mut seconds = serde_json::Map::new();
    for number in 1..=22 {
        let sql = std::fs::read_to_string(queries.join(format!("{number}.sql")))?;
        let mut best = f64::INFINITY;
        for run in 0..=runs {
            let started = Instant::now();
            engine.query(&sql, &options).await?.collect().await.map_err(|e| e.context(format!("query {number}")))?;
            if run > 0 {
                best = best.min(started.elapsed().as_secs_f64());
            }
        }
        seconds.insert(number.to_string(), json!(best));
    }
    Ok(json!({ "seconds": seconds }))
}

/// Registers every folder of `tables` as a Parquet table of the database `tpch`.
async fn register(ports: &Ports, tables: &Path) -> Result<()> {
    ensure_database(ports.catalog.as_ref(), "tpch").await?;
    for entry in std::fs::read_dir(tables)? {
        let folder: PathBuf = entry?.path();
        let Some(name) = folder.file_name().and_then(|n| n.to_str()).filter(|_| folder.is_dir()) else { continue };
        let file = std::fs::File::open(folder.join("part-0.parquet"))?;
        let builder = datafusion::parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder::try_new(file)
            .map_err(|e| Error::invalid("expected a Parquet file").with_source(e))?;
        let columns = columns_of(builder.schema())?;
        let names: Vec<&str> = columns.iter().map(|c| c.name.as_str()).collect();
        let declaration = FileFormat::parquet().declaration(&names);
        let mut storage = declaration.storage(directory(&folder)?.as_str());
        storage.columns = columns;
        let input = TableInput {
            name: TableName::new("tpch", name)?,
            description: None,
            table_type: "EXTERNAL_TABLE".into(),
            parameters: declaration.parameters.clone(),
            storage,
            partition_keys: Vec::new(),
        };
        if let Err(error) = ports.catalog.create_table(&input).await
            && error.kind() != shared::ErrorKind::Conflict
        {
            return Err(error);
        }
    }
    Ok(())
}

fn directory(path: &Path) -> Result<Url> {
    let path = std::path::absolute(path)?;
    Url::from_directory_path(&path)
        .map_err(|()| Error::invalid(format!("expected a directory, found `{}`", path.display())))
}
