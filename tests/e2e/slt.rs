//! Runs the SQL logic tests in `tests/slt`: each file on its own over the same small tables of every kind.
//!
//! | table | kind |
//! |---|---|
//! | `db.flights` | Iceberg, partitioned by `day(dep)`, two commits |
//! | `db.carriers` | CSV with a header, one file plain, one gzipped, `NA` for null |
//! | `db.delays` | CSV in hive folders `year=…/origin=…` |
//! | `db.events` | JSON lines, gzipped, nested |
//! | `db.planes` | one JSON array |
//! | `db.weather` | Parquet, two files, the second without the column `gust` |
//!
//! A statement that writes gives the number of rows that it added, updated and deleted (`statement count`).

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::record_batch::RecordBatch;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use engine::{Engine, Outcome, QueryOptions};
use parquet::arrow::ArrowWriter;
use shared::catalog::{Partition, StorageDescriptor, TableInput, ensure_database};
use shared::config::Settings;
use shared::model::{Column, TableName};
use shared::ports::Ports;
use shared::{Error, Principal};
use sqllogictest::{AsyncDB, DBOutput, DefaultColumnType, Runner};
use table::Tables;
use table_datafusion::{Change, ChangeTable};

const CSV: &str = "org.apache.hadoop.hive.serde2.lazy.LazySimpleSerDe";
const JSON: &str = "org.openx.data.jsonserde.JsonSerDe";
const PARQUET: &str = "org.apache.hadoop.hive.ql.io.parquet.serde.ParquetHiveSerDe";

#[tokio::test(flavor = "multi_thread")]
async fn sql_behaves_as_pinned_in_the_slt_files() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("slt");
    let mut files: Vec<PathBuf> = std::fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "slt"))
        .collect();
    files.sort();
    assert!(files.len() >= 10, "expected the files of `{}`, found {files:?}", folder.display());
    let lake = Arc::new(Lake::new().await);
    let mut failures = Vec::new();
    for file in files {
        let mut runner = Runner::new(|| {
            let session = Session(Arc::clone(&lake));
            async move { Ok(session) }
        });
        runner.with_column_validator(sqllogictest::strict_column_validator);
        if let Err(error) = runner.run_file_async(&file).await {
            failures.push(error.display(false).to_string());
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}

pub(crate) struct Lake {
    ports: Ports,
    engine: Engine,
    _folder: tempfile::TempDir,
}

/// A connection of the runner.
struct Session(Arc<Lake>);

#[async_trait::async_trait]
impl AsyncDB for Session {
    type Error = Error;
    type ColumnType = DefaultColumnType;

    async fn run(&mut self, sql: &str) -> Result<DBOutput<DefaultColumnType>, Error> {
        let (batches, outcome) = self.0.execute(sql).await?;
        if let Some(outcome) = outcome {
            return Ok(DBOutput::StatementComplete(outcome.rows_added + outcome.rows_updated + outcome.rows_deleted));
        }
        let Some(first) = batches.first() else { return Ok(DBOutput::Rows { types: Vec::new(), rows: Vec::new() }) };
        let types = first.schema().fields().iter().map(|f| column_type(f.data_type())).collect();
        let rows = batches.iter().flat_map(rows).collect();
        Ok(DBOutput::Rows { types, rows })
    }

    async fn shutdown(&mut self) {}

    fn engine_name(&self) -> &str {
        "tarn"
    }
}

fn column_type(ty: &arrow::datatypes::DataType) -> DefaultColumnType {
    match ty {
        ty if ty.is_integer() => DefaultColumnType::Integer,
        ty if ty.is_floating() || ty.is_decimal() => DefaultColumnType::FloatingPoint,
        _ => DefaultColumnType::Text,
    }
}

fn rows(batch: &RecordBatch) -> Vec<Vec<String>> {
    let options = FormatOptions::default().with_null("NULL");
    let columns: Vec<_> =
        batch.columns().iter().map(|c| ArrayFormatter::try_new(c.as_ref(), &options).unwrap()).collect();
    let cell = |text: String| if text.is_empty() { "(empty)".to_owned() } else { text.replace('\n', " / ") };
    (0..batch.num_rows()).map(|i| columns.iter().map(|c| cell(c.value(i).to_string())).collect()).collect()
}

impl Lake {
    pub(crate) async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let settings = Settings::embedded(folder.path()).unwrap();
        let ports = adapters_embedded::open(&settings).unwrap();
        ensure_database(ports.catalog.as_ref(), "db").await.unwrap();
        let lake = Self { engine: Engine::open(&settings, &ports).unwrap(), ports, _folder: folder };
        lake.flights().await;
        lake.csv().await;
        lake.json().await;
        lake.parquet().await;
        lake
    }

    async fn query(&self, sql: &str) -> Result<Vec<RecordBatch>, Error> {
        Ok(self.execute(sql).await?.0)
    }

    pub(crate) async fn execute(&self, sql: &str) -> Result<(Vec<RecordBatch>, Option<Outcome>), Error> {
        let options = QueryOptions { database: "db".into(), ..QueryOptions::new(Principal::Owner) };
        let answer = self.engine.execute(sql, &options).await?;
        let (outcome, schema) = (answer.outcome.clone(), answer.schema.clone());
        let mut batches = answer.collect().await?.0;
        if batches.is_empty() {
            batches.push(RecordBatch::new_empty(schema));
        }
        Ok((batches, outcome))
    }

    async fn flights(&self) {
        let tables = Tables::new(self.ports.clone());
        let columns = columns("id:bigint carrier:string origin:string dep:timestamp delay:double");
        let name = TableName::new("db", "flights").unwrap();
        let mut table = tables.create(&name, &columns, &["day(dep)".parse().unwrap()]).await.unwrap();
        let options = QueryOptions { database: "db".into(), ..QueryOptions::new(Principal::Owner) };
        for values in [
            "(1, 'UA', 'EWR', '2013-01-01T05:17:00', 2.0), (2, 'AA', 'JFK', '2013-01-01T05:42:00', NULL), \
             (3, 'B6', 'JFK', '2013-01-02T09:00:00', -1.5)",
            "(4, 'UA', 'LGA', '2013-01-03T10:30:00', 120.25), (5, 'DL', NULL, '2013-02-08T23:59:00', 853.0)",
        ] {
            let sql = format!(
                "SELECT id, carrier, origin, CAST(dep AS timestamp) AS dep, CAST(delay AS double) AS delay \
                 FROM (VALUES {values}) AS v(id, carrier, origin, dep, delay)"
            );
            let rows = self.engine.query(&sql, &options).await.unwrap().rows;
            table.commit(Change::Append, rows, None).await.unwrap();
            table = tables.load(&name).await.unwrap();
        }
    }

    async fn csv(&self) {
        let parameters = [("skip.header.line.count", "1"), ("tarn.null", "NA")];
        self.table("carriers", "carrier:string name:string founded:int", "", CSV, &parameters).await;
        self.put("carriers/a.csv", "carrier,name,founded\nUA,\"United, Inc\",1926\nAA,American,NA\n").await;
        self.put("carriers/b.csv.gz", gzip("carrier,name,founded\nB6,JetBlue,1998\nDL,NA,1925\n")).await;

        self.table("delays", "day:int minutes:double", "year:int origin:string", CSV, &[]).await;
        for (year, origin, text) in
            [("2012", "JFK", "1,5.5\n2,\n"), ("2013", "JFK", "1,10\n"), ("2013", "LGA", "1,0.25\n3,7\n")]
        {
            let folder = format!("delays/year={year}/origin={origin}/");
            self.put(&format!("{folder}part-0.csv"), text).await;
            let storage = StorageDescriptor { location: self.url(&folder), ..StorageDescriptor::default() };
            let values = vec![year.to_owned(), origin.to_owned()];
            let partition = Partition { values, storage, parameters: Default::default() };
            let name = TableName::new("db", "delays").unwrap();
            self.ports.catalog.create_partitions(&name, &[partition]).await.unwrap();
        }
    }

    async fn json(&self) {
        let nested = "id:bigint kind:string at:timestamp payload:struct<x:int,tags:array<string>>";
        self.table("events", nested, "", JSON, &[("classification", "json")]).await;
        let lines = [
            r#"{"id": 1, "kind": "a", "at": "2013-01-01T00:00:00", "payload": {"x": 1, "tags": ["p", "q"]}}"#,
            r#"{"id": 2, "kind": "b", "at": null}"#,
            r#"{"id": 9007199254740993, "kind": "", "payload": {"x": null, "tags": []}}"#,
        ];
        self.put("events/1.json.gz", gzip(&lines.join("\n"))).await;
        self.table("planes", "tailnum:string seats:int", "", JSON, &[("tarn.json", "array")]).await;
        self.put("planes/all.json", r#"[{"tailnum": "N1", "seats": 55}, {"tailnum": "N2"}, {"seats": 200}]"#).await;
    }

    async fn parquet(&self) {
        self.table("weather", "hour:timestamp temp:double gust:double", "", PARQUET, &[]).await;
        let first = "SELECT date_add('hour', n, CAST('2013-01-01T00:00:00' AS timestamp)) AS hour, \
                     CAST(n AS double) AS temp, CAST(n * 2 AS double) AS gust FROM generate_series(0, 23) AS t(n)";
        let second = "SELECT CAST('2013-01-02T00:00:00' AS timestamp) AS hour, CAST(99 AS double) AS temp";
        for (file, sql) in [("1", first), ("2", second)] {
            let batches = self.query(sql).await.unwrap();
            let mut bytes = Vec::new();
            let mut writer = ArrowWriter::try_new(&mut bytes, batches[0].schema(), None).unwrap();
            batches.iter().for_each(|batch| writer.write(batch).unwrap());
            writer.close().unwrap();
            self.put(&format!("weather/{file}.parquet"), bytes).await;
        }
    }

    fn url(&self, path: &str) -> String {
        let (location, rest) = path.split_once('/').unwrap();
        self.ports.keys.raw(location).join(rest).unwrap().to_string()
    }

    async fn put(&self, path: &str, content: impl Into<Vec<u8>>) {
        self.ports.storage.put(&self.url(path).parse().unwrap(), content.into()).await.unwrap();
    }

    async fn table(&self, name: &str, fields: &str, keys: &str, serde: &str, parameters: &[(&str, &str)]) {
        let storage = StorageDescriptor {
            columns: columns(fields),
            location: self.ports.keys.raw(name).to_string(),
            serde_library: Some(serde.into()),
            serde_parameters: [("field.delim".to_owned(), ",".to_owned())].into(),
            ..StorageDescriptor::default()
        };
        let input = TableInput {
            name: TableName::new("db", name).unwrap(),
            description: None,
            table_type: "EXTERNAL_TABLE".into(),
            parameters: parameters.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
            storage,
            partition_keys: columns(keys),
        };
        self.ports.catalog.create_table(&input).await.unwrap();
    }
}

/// Columns written `name:type`, apart by spaces.
fn columns(text: &str) -> Vec<Column> {
    let column = |part: &str| {
        let (name, ty) = part.split_once(':').unwrap();
        Column::new(name, ty.parse().unwrap())
    };
    text.split_whitespace().map(column).collect()
}

fn gzip(text: &str) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(text.as_bytes()).unwrap();
    encoder.finish().unwrap()
}
