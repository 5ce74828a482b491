//! The engine over file tables in memory.

use std::collections::BTreeMap;
use std::io::Write as _;

use arrow::array::{ArrayRef, Int64Array, StringArray};
use arrow::util::pretty::pretty_format_batches;
use parquet::arrow::ArrowWriter;

use super::*;
use shared::ErrorKind;
use shared::catalog::{KeyFilter, Partition, StorageDescriptor, TableInput, Wanted, ensure_database};
use shared::clock::SystemClock;
use shared::model::Column;
use testing::catalog_faults::FaultyCatalog;

mod bounded;
mod functions;

/// An engine with little memory over ports in memory.
struct Lake {
    ports: Ports,
    engine: Engine,
    _spill: tempfile::TempDir,
}

impl Lake {
    async fn new() -> Self {
        Self::with_memory(64 << 20).await
    }

    async fn with_memory(memory: u64) -> Self {
        let spill = tempfile::tempdir().unwrap();
        let ports = adapters_embedded::in_memory(Arc::new(SystemClock)).unwrap();
        let settings = Settings { memory, ..Settings::embedded(spill.path()).unwrap() };
        ensure_database(ports.catalog.as_ref(), "db").await.unwrap();
        Self { engine: Engine::open(&settings, &ports).unwrap(), ports, _spill: spill }
    }

    async fn put(&self, path: &str, bytes: impl Into<bytes::Bytes>) -> Url {
        let url = self.ports.keys.raw(path.split('/').next().unwrap()).join(path.split_once('/').unwrap().1).unwrap();
        self.ports.storage.put(&url, bytes).await.unwrap();
        url
    }

    /// Registers `db.{name}` over `raw/{name}/`; columns are written `name:type`, partition columns after a bar.
    async fn table(&self, name: &str, columns: &str, serde: &str, parameters: &[(&str, &str)]) {
        let (columns, keys) = columns.split_once('|').unwrap_or((columns, ""));
        let parse = |text: &str| -> Vec<Column> {
            let column = |c: &str| {
                let (name, ty) = c.split_once(':').unwrap();
                Column::new(name, ty.parse().unwrap())
            };
            text.split_whitespace().map(column).collect()
        };
        let map = |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect();
        let input = TableInput {
            name: TableName::new("db", name).unwrap(),
            description: None,
            table_type: "EXTERNAL_TABLE".into(),
            parameters: map(parameters),
            storage: StorageDescriptor {
                columns: parse(columns),
                location: self.ports.keys.raw(name).to_string(),
                serde_library: Some(serde.into()),
                serde_parameters: map(&[("field.delim", ",")]),
                ..StorageDescriptor::default()
            },
            partition_keys: parse(keys),
        };
        self.ports.catalog.create_table(&input).await.unwrap();
    }

    async fn partition(&self, table: &str, folder: &str, values: &[&str]) {
        let location = self.ports.keys.raw(table).join(folder).unwrap().to_string();
        let partition = Partition {
            values: values.iter().map(|v| (*v).into()).collect(),
            storage: StorageDescriptor { location, ..StorageDescriptor::default() },
            parameters: BTreeMap::new(),
        };
        self.ports.catalog.create_partitions(&TableName::new("db", table).unwrap(), &[partition]).await.unwrap();
    }

    async fn run(&self, sql: &str) -> Result<(String, Stats)> {
        self.run_with(sql, QueryOptions::new(Principal::Owner)).await
    }

    async fn run_with(&self, sql: &str, options: QueryOptions) -> Result<(String, Stats)> {
        let options = QueryOptions { database: "db".into(), ..options };
        let (batches, stats) = self.engine.query(sql, &options).await?.collect().await?;
        Ok((pretty_format_batches(&batches).unwrap().to_string(), stats))
    }

    /// Values of the answer, cells joined by commas, rows by semicolons.
    async fn cells(&self, sql: &str) -> String {
        let (table, _) = self.run(sql).await.unwrap_or_else(|e| panic!("{sql}: {e}"));
        let cells = |line: &str| line.trim_matches('|').split('|').map(str::trim).collect::<Vec<_>>().join(",");
        table.lines().skip(3).filter(|l| l.starts_with('|')).map(cells).collect::<Vec<_>>().join(";")
    }

    async fn refused(&self, sql: &str) -> Error {
        match self.run(sql).await {
            Ok((table, _)) => panic!("{sql} answered:\n{table}"),
            Err(error) => error,
        }
    }
}

const LAZY: &str = "org.apache.hadoop.hive.serde2.lazy.LazySimpleSerDe";
const JSON: &str = "org.openx.data.jsonserde.JsonSerDe";
const PARQUET: &str = "org.apache.hadoop.hive.ql.io.parquet.serde.ParquetHiveSerDe";

fn gzip(text: &str) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(text.as_bytes()).unwrap();
    encoder.finish().unwrap()
}

fn parquet(columns: Vec<(&str, ArrayRef)>) -> Vec<u8> {
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let mut bytes = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut bytes, batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    bytes
}

async fn partitioned_csv() -> Lake {
    let lake = Lake::new().await;
    lake.table("t", "a:bigint b:string | year:int region:string", LAZY, &[("skip.header.line.count", "1")]).await;
    for (year, region) in [("2012", "eu"), ("2013", "eu"), ("2013", "us")] {
        let folder = format!("year={year}/region={region}/");
        lake.put(&format!("t/{folder}x.csv"), format!("a,b\n1,{region}\n2,\n")).await;
        lake.put(&format!("t/{folder}_SUCCESS"), "done").await;
        lake.partition("t", &folder, &[year, region]).await;
    }
    lake
}

#[tokio::test]
async fn partitions_that_a_filter_rules_out_are_not_even_listed() {
    let lake = partitioned_csv().await;
    lake.partition("t", "year=1/region=gone/", &["1", "gone"]).await;
    assert_eq!(
        lake.cells("SELECT a, b, year, region FROM t WHERE year = 2013 ORDER BY region, a").await,
        "1,eu,2013,eu;2,,2013,eu;1,us,2013,us;2,,2013,us"
    );
    let (table, stats) = lake.run("SELECT count(*) FROM db.t WHERE year > 2012 AND region = 'us'").await.unwrap();
    assert!(table.contains("| 2 "), "{table}");
    assert_eq!((stats.files_scanned, stats.bytes_scanned, stats.rows), (1, 12, 1));
    let plan = lake.cells("EXPLAIN SELECT * FROM t WHERE year = 2013").await;
    assert!(plan.contains("db.t: files=2, partitions=2 (chosen by the catalog)"), "{plan}");
}

#[tokio::test]
async fn the_catalog_is_asked_only_for_the_partitions_that_a_filter_leaves() {
    let mut lake = partitioned_csv().await;
    let catalog = FaultyCatalog::new(lake.ports.catalog.clone());
    lake.ports.catalog = catalog.clone();
    lake.engine = Engine::open(&Settings::embedded(lake._spill.path()).unwrap(), &lake.ports).unwrap();
    for (filter, same, asked, given) in [
        ("year = 2013", "year + 0 = 2013", vec!["year OneOf"], 2),
        ("region = 'eu' AND a = 1", "region || '' = 'eu' AND a = 1", vec!["region OneOf"], 2),
        (
            "year = 2013 AND 'us' = region",
            "year + 0 = 2013 AND region LIKE '%us'",
            vec!["year OneOf", "region OneOf"],
            1,
        ),
        ("year IN (2011, 2012)", "year + 0 = 2012", vec!["year OneOf"], 1),
        ("year IN (2010, 2011, 2012, 2014, 2015)", "year + 0 = 2012", vec!["year OneOf"], 1),
        ("year > 2012", "year + 0 > 2012", vec!["year Within"], 2),
        ("region < 'f' OR region IS NULL", "region LIKE 'e%'", vec![], 3),
        ("year = 1999", "year + 0 = 1999", vec!["year OneOf"], 0),
    ] {
        let select = |filter: &str| format!("SELECT a, b, year, region FROM t WHERE {filter} ORDER BY year, region, a");
        let rows = lake.cells(&select(filter)).await;
        let listings = catalog.listings();
        let shown = |filter: &KeyFilter| match filter.wanted {
            Wanted::OneOf(_) => format!("{} OneOf", filter.column),
            Wanted::Within(..) => format!("{} Within", filter.column),
        };
        let listings: Vec<(Vec<String>, usize)> =
            listings.iter().map(|(filters, given)| (filters.iter().map(shown).collect(), *given)).collect();
        assert_eq!(listings, [(asked.into_iter().map(str::to_owned).collect(), given)], "{filter}");
        assert_eq!(rows, lake.cells(&select(same)).await, "{filter}");
        assert_eq!(catalog.listings(), [(Vec::new(), 3)], "{same}");
    }
}

#[tokio::test]
async fn json_lines_and_arrays_are_read_compressed_or_not() {
    let lake = Lake::new().await;
    lake.table("l", "a:bigint s:struct<x:int,y:array<string>>", JSON, &[("classification", "json")]).await;
    lake.put("l/1.json.gz", gzip("{\"a\":1,\"s\":{\"x\":5,\"y\":[\"p\",\"q\"]}}\n{\"a\":2}\n")).await;
    lake.put("l/2.json", "{\"a\":3,\"other\":true}\n").await;
    assert_eq!(lake.cells("SELECT a, s['x'], s['y'][2] FROM l ORDER BY a").await, "1,5,q;2,,;3,,");

    lake.table("r", "a:bigint b:string", JSON, &[("classification", "json"), ("tarn.json", "array")]).await;
    lake.put("r/1.json", "[{\"a\":1,\"b\":\"x\"},\n {\"a\":2}]").await;
    lake.put("r/2.json.gz", gzip("[{\"a\":3}]")).await;
    assert_eq!(lake.cells("SELECT a, b FROM r ORDER BY a").await, "1,x;2,;3,");
}

#[tokio::test]
async fn parquet_columns_are_found_by_name_in_any_case_and_absent_ones_are_null() {
    let lake = Lake::new().await;
    lake.table("p", "vendor_id:bigint name:string more:double", PARQUET, &[]).await;
    let ids: ArrayRef = Arc::new(Int64Array::from(vec![1, 2, 3]));
    let names: ArrayRef = Arc::new(StringArray::from(vec!["x", "y", "z"]));
    lake.put("p/1.parquet", parquet(vec![("name", names), ("Vendor_ID", ids.clone())])).await;
    assert_eq!(lake.cells("SELECT vendor_id, name, more FROM p WHERE vendor_id >= 2 ORDER BY 1").await, "2,y,;3,z,");
    lake.put("p/2.parquet", parquet(vec![("Vendor_ID", ids)])).await;
    assert_eq!(lake.cells("SELECT count(*), count(name), count(more) FROM p").await, "6,3,0");
}

#[tokio::test]
async fn a_parquet_file_that_was_replaced_is_read_anew() {
    let lake = Lake::new().await;
    lake.table("p", "a:bigint", PARQUET, &[]).await;
    let of = |values: Vec<i64>| parquet(vec![("a", Arc::new(Int64Array::from(values)) as ArrayRef)]);
    lake.put("p/1.parquet", of(vec![1, 2])).await;
    assert_eq!(lake.cells("SELECT sum(a), max(a) FROM p").await, "3,2");
    lake.put("p/1.parquet", of(vec![5, 6])).await;
    assert_eq!(lake.cells("SELECT sum(a), max(a) FROM p").await, "11,6");
}

#[tokio::test]
async fn a_truncated_parquet_file_is_named() {
    let lake = Lake::new().await;
    lake.table("p", "a:bigint", PARQUET, &[]).await;
    let whole = parquet(vec![("a", Arc::new(Int64Array::from(vec![1; 100])) as ArrayRef)]);
    lake.put("p/good.parquet", whole.clone()).await;
    lake.put("p/short.parquet", whole[..whole.len() - 7].to_vec()).await;
    let error = lake.refused("SELECT sum(a) FROM p").await;
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    assert!(error.to_string().contains("raw/p/short.parquet"), "{error}");
}

#[tokio::test]
async fn a_short_row_is_filled_up_and_a_long_one_cut_unless_the_table_says_that_they_are_errors() {
    let lake = Lake::new().await;
    lake.table("c", "a:bigint b:string", LAZY, &[("tarn.ragged", "error")]).await;
    lake.put("c/rows.csv", "1,x\n2\n3,z\n").await;
    let error = lake.refused("SELECT * FROM c").await;
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    assert!(error.to_string().contains("raw/c/rows.csv") && error.to_string().contains("line 2"), "{error}");

    let parameters = [("skip.header.line.count", "1"), ("tarn.null", "NA")];
    for (table, parameters) in [("d", &parameters[..1]), ("e", &parameters)] {
        lake.table(table, "a:bigint b:string", LAZY, parameters).await;
        lake.put(&format!("{table}/rows.csv"), "a,b,c\n1,x\n2\n3,\"z\n,\",3,4\n5,y,").await;
        lake.put(&format!("{table}/rows.csv.gz"), gzip("a\n6,x,7\n")).await;
        assert_eq!(lake.cells(&format!("SELECT a, length(b) FROM {table} ORDER BY a")).await, "1,1;2,;3,3;5,1;6,1");
        assert_eq!(lake.cells(&format!("SELECT count(*) FROM {table}")).await, "5");
    }
    lake.table("f", "a:string", LAZY, &[]).await;
    lake.put("f/rows.csv", "x,1\n,2\n").await;
    assert_eq!(lake.cells("SELECT count(*), count(a) FROM f").await, "2,1");
}

#[tokio::test]
async fn a_large_file_of_ragged_rows_is_read_in_parts_and_each_row_once() {
    let lake = Lake::new().await;
    lake.table("c", "a:bigint b:string", LAZY, &[("skip.header.line.count", "1"), ("tarn.null", "NA")]).await;
    let long = format!("1,{},x\n", "a long text".repeat(6));
    let rows: String = (0..400_000).map(|n| ["NA,text,more\n", &long, "2\n"][n % 3]).collect();
    let text = format!("a,b\n{rows}");
    assert!(text.len() > 10 << 20, "less is not cut");
    lake.put("c/rows.csv", text).await;
    assert_eq!(lake.cells("SELECT count(*), sum(a), count(b) FROM c").await, "400000,399999,266667");
    let plan = lake.cells("EXPLAIN SELECT a FROM c").await;
    let cores = std::thread::available_parallelism().unwrap().get();
    assert!(cores == 1 || plan.contains("rows.csv:0.."), "the file is cut: {plan}");
}

#[tokio::test]
async fn texts_that_stand_for_null_are_null() {
    let lake = Lake::new().await;
    let parameters = [("skip.header.line.count", "1"), ("tarn.null", "NA,-"), ("compressionType", "gzip")];
    lake.table("n", "a:bigint b:string c:double | d:date", LAZY, &parameters).await;
    lake.put("n/d=1/x.csv", "a,b,c\n1,NA,-\nNA,x,2.5\n").await;
    lake.put("n/d=1/y.csv.gz", gzip("a,b,c\n7,,NA\n")).await;
    lake.partition("n", "d=1/", &["2013-01-02"]).await;
    assert_eq!(
        lake.cells("SELECT d, c, b, a FROM n ORDER BY a").await,
        "2013-01-02,,,1;2013-01-02,,,7;2013-01-02,2.5,x,"
    );
    assert_eq!(lake.cells("SELECT count(*), count(b) FROM n").await, "3,1");
}

#[tokio::test]
async fn json_columns_are_found_under_the_names_that_the_serde_maps() {
    let lake = Lake::new().await;
    lake.table("j", "dep_time:bigint b:string", JSON, &[("tarn.json", "stream")]).await;
    let name = TableName::new("db", "j").unwrap();
    let table = lake.ports.catalog.get_table(&name).await.unwrap();
    let mut input = table.input.clone();
    input.storage.serde_parameters.insert("mapping.dep_time".into(), "Dep Time".into());
    lake.ports.catalog.update_table(&input, &table.version).await.unwrap();
    lake.put("j/1.json", "{\"Dep Time\": 5,\n \"b\": \"x\"}\n{\"Dep Time\": 6}").await;
    assert_eq!(lake.cells("SELECT b, dep_time FROM j WHERE dep_time > 4 ORDER BY dep_time").await, "x,5;,6");
}

#[tokio::test]
async fn a_value_that_overflows_its_column_names_the_file() {
    let lake = Lake::new().await;
    lake.table("c", "a:tinyint", LAZY, &[]).await;
    lake.put("c/rows.csv", "1\n300\n").await;
    let error = lake.refused("SELECT * FROM c").await;
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    assert!(error.to_string().contains("raw/c/rows.csv") && error.to_string().contains("300"), "{error}");
}

#[tokio::test]
async fn a_file_that_vanished_between_listing_and_reading_is_named() {
    let lake = Lake::new().await;
    lake.table("c", "a:bigint", LAZY, &[]).await;
    let url = lake.put("c/rows.csv", "1\n").await;
    let inputs = BTreeMap::from([(TableName::new("db", "c").unwrap(), Input::Files(vec![url.clone()]))]);
    let options = QueryOptions { database: "db".into(), inputs, ..QueryOptions::new(Principal::Owner) };
    lake.ports.storage.delete(&url).await.unwrap();
    let error = async { lake.engine.query("SELECT * FROM c", &options).await?.collect().await }.await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    assert!(error.to_string().contains("raw/c/rows.csv"), "{error}");
}

#[tokio::test]
async fn a_truncated_gzip_is_an_error_that_names_the_file() {
    let lake = Lake::new().await;
    lake.table("c", "a:bigint", LAZY, &[]).await;
    let whole = gzip(&"12345\n".repeat(1000));
    lake.put("c/rows.csv.gz", whole[..whole.len() / 2].to_vec()).await;
    let error = lake.refused("SELECT sum(a) FROM c").await;
    assert!(error.to_string().contains("raw/c/rows.csv.gz"), "{error}");
}

#[tokio::test]
async fn only_the_files_given_are_read() {
    let lake = partitioned_csv().await;
    let file = lake.ports.keys.raw("t").join("year=2013/region=us/x.csv").unwrap();
    let inputs = BTreeMap::from([(TableName::new("db", "t").unwrap(), Input::Files(vec![file]))]);
    let options = QueryOptions { inputs, ..QueryOptions::new(Principal::Owner) };
    let (table, _) = lake.run_with("SELECT region, count(*) FROM t GROUP BY region", options).await.unwrap();
    assert!(table.contains("us") && !table.contains("eu"), "{table}");
}

#[tokio::test]
async fn names_that_do_not_exist_point_into_the_text_and_suggest() {
    let lake = partitioned_csv().await;
    for (sql, place, near) in [
        ("SELECT *\nFROM tt", "line 2, column 6", "did you mean `t`"),
        ("SELECT * FROM bd.t", "line 1, column 15", "expected one of `db`"),
        ("SELECT * FROM information_schema.tabels", "line 1, column 15", "did you mean `tables`"),
        ("DESCRIBE tt", "", "did you mean `t`"),
    ] {
        let error = lake.refused(sql).await;
        assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
        assert!(error.to_string().contains(place) && error.to_string().contains(near), "{error}");
    }
    let error = lake.refused("SELECT a,\n  yaer FROM t").await;
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    assert!(error.to_string().starts_with("line 2, column 3: "), "{error}");
    assert!(error.to_string().contains("year"), "{error}");
}

#[tokio::test]
async fn values_that_fail_at_run_time_are_invalid() {
    let lake = partitioned_csv().await;
    for sql in [
        "SELECT 1 / (a - a) FROM t",
        "SELECT CAST(b AS bigint) FROM t WHERE b <> ''",
        "SELECT arrow_cast(a + 300, 'Int8') FROM t",
    ] {
        assert_eq!(lake.refused(sql).await.kind(), ErrorKind::Invalid, "{sql}");
    }
}

#[tokio::test]
async fn nothing_of_the_machine_can_be_read() {
    let lake = Lake::new().await;
    for sql in [
        "SELECT * FROM '/etc/passwd'",
        "SELECT * FROM \"/etc/passwd\"",
        "SELECT * FROM 'file:///etc/passwd'",
        "SELECT * FROM read_csv('/etc/passwd')",
        "SELECT * FROM parquet_metadata('/etc/passwd')",
        "CREATE EXTERNAL TABLE x STORED AS CSV LOCATION '/etc/passwd'",
        "COPY (SELECT 1) TO '/tmp/tarn-out.csv'",
        "SHOW ALL",
        "SHOW datafusion.runtime.temp_directory",
    ] {
        let error = lake.refused(sql).await;
        let kinds = [ErrorKind::NotFound, ErrorKind::Denied, ErrorKind::Invalid];
        assert!(kinds.contains(&error.kind()) && !error.to_string().contains("root:"), "{sql}: {error}");
    }
    lake.table("evil", "line:string", LAZY, &[]).await;
    let name = TableName::new("db", "evil").unwrap();
    let table = lake.ports.catalog.get_table(&name).await.unwrap();
    let mut input = table.input.clone();
    input.storage.location = "file:///etc/".into();
    lake.ports.catalog.update_table(&input, &table.version).await.unwrap();
    assert_eq!(lake.refused("SELECT * FROM evil").await.kind(), ErrorKind::Denied);
}

#[tokio::test]
async fn a_sort_larger_than_memory_spills_and_an_impossible_one_is_a_limit() {
    let sql = "SELECT max(r) FROM (SELECT row_number() OVER (ORDER BY s, k) AS r FROM \
               (SELECT v % 1000003 AS k, rpad('x', 100, 'x') AS s FROM generate_series(1, 400000) AS g(v)))";
    let lake = Lake::with_memory(24 << 20).await;
    let (table, stats) = lake.run(sql).await.unwrap();
    assert!(table.contains("400000"), "{table}");
    assert!(stats.spilled_bytes > 0, "{stats:?}");

    let tiny = Lake::with_memory(64 << 10).await;
    let error = tiny.run(sql).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Limit, "{error}");
}

#[tokio::test]
async fn a_scan_past_its_limit_is_refused_before_it_runs_or_stopped() {
    let lake = partitioned_csv().await;
    let options = || QueryOptions { max_bytes_scanned: Some(20), ..QueryOptions::new(Principal::Owner) };
    let error = lake.run_with("SELECT count(*) FROM t", options()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Limit);
    assert!(error.to_string().contains("refused") && error.to_string().contains("estimated 36"), "{error}");
    lake.run_with("SELECT count(*) FROM t WHERE year = 2012", options()).await.unwrap();
    let error = lake.run_with("SELECT * FROM t LIMIT 100", options()).await.unwrap_err();
    assert!(error.kind() == ErrorKind::Limit && error.to_string().contains("stopped"), "{error}");
}

#[tokio::test]
async fn concurrent_queries_are_counted_apart() {
    let lake = partitioned_csv().await;
    let (one, all) =
        tokio::join!(lake.run("SELECT count(*) FROM t WHERE year = 2012"), lake.run("SELECT count(*) FROM t"));
    assert_eq!((one.unwrap().1.bytes_scanned, all.unwrap().1.bytes_scanned), (12, 36));
}

#[tokio::test]
async fn a_query_that_takes_too_long_is_stopped() {
    let lake = Lake::new().await;
    let options = QueryOptions { timeout: Some(Duration::from_millis(200)), ..QueryOptions::new(Principal::Owner) };
    let sql = "SELECT count(*) FROM generate_series(1, 10000000000) a";
    let error = lake.run_with(sql, options).await.unwrap_err();
    assert!(error.kind() == ErrorKind::Limit && error.to_string().contains("0.2 s"), "{error}");
}

#[tokio::test]
async fn the_catalog_answers_show_describe_and_information_schema() {
    let lake = partitioned_csv().await;
    assert_eq!(lake.cells("SHOW DATABASES").await, "db");
    assert_eq!(lake.cells("SHOW SCHEMAS LIKE 'x%'").await, "");
    assert_eq!(lake.cells("SHOW TABLES").await, "t");
    assert_eq!(lake.cells("SHOW TABLES IN db LIKE 't%'").await, "t");
    assert_eq!(lake.cells("SHOW PARTITIONS t").await.split(';').count(), 3);
    assert!(lake.cells("DESCRIBE db.t").await.starts_with("a,bigint,true,false,,;b,string"));
    assert_eq!(lake.cells("SHOW COLUMNS FROM t").await, lake.cells("DESCRIBE t").await);
    assert_eq!(
        lake.cells("SELECT column_name, data_type FROM information_schema.columns WHERE table_name = 't' ORDER BY ordinal_position").await,
        "a,bigint;b,varchar;year,integer;region,varchar"
    );
    assert_eq!(lake.cells("SELECT table_schema, table_name FROM information_schema.tables").await, "db,t");
    assert_eq!(lake.refused("SHOW TABLES IN nowhere").await.kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn databases_that_the_lakehouse_does_not_declare_are_not_there() {
    let lake = partitioned_csv().await;
    ensure_database(lake.ports.catalog.as_ref(), "theirs").await.unwrap();
    let ours = || QueryOptions {
        databases: Some(["db".to_owned(), "not_yet".to_owned()].into()),
        ..QueryOptions::new(Principal::Owner)
    };
    let ask = async |sql: &str| lake.run_with(sql, ours()).await;
    for sql in ["SHOW DATABASES", "SELECT schema_name FROM information_schema.schemata"] {
        let (text, _) = ask(sql).await.unwrap();
        assert!(text.contains("| db ") && !text.contains("theirs"), "{sql}\n{text}");
    }
    let (_, stats) = ask("SELECT table_name FROM information_schema.tables").await.unwrap();
    assert_eq!(stats.rows, 1);
    for sql in ["SELECT * FROM theirs.t", "SHOW TABLES IN theirs", "DESCRIBE theirs.t", "SELECT * FROM db.nothing"] {
        let error = ask(sql).await.unwrap_err();
        assert!(error.kind() == ErrorKind::NotFound && !error.to_string().contains("did you mean `theirs`"), "{error}");
    }
}

#[tokio::test]
async fn explain_analyze_runs_the_query() {
    let lake = partitioned_csv().await;
    let (plan, _) = lake.run("EXPLAIN ANALYZE SELECT count(*) FROM t WHERE year = 2012").await.unwrap();
    assert!(plan.contains("output_rows") && plan.contains("partitions=1 (chosen by the catalog)"), "{plan}");
}

#[tokio::test]
async fn json_text_is_taken_apart_by_operators_and_functions() {
    let lake = Lake::new().await;
    assert_eq!(lake.cells("SELECT json_get_int('{\"a\": {\"b\": 7}}', 'a', 'b'), '{\"x\": \"y\"}'->>'x'").await, "7,y");
}

#[tokio::test]
async fn quoted_and_upper_case_table_names_find_the_table() {
    let lake = partitioned_csv().await;
    for sql in
        ["SELECT count(*) FROM T", "SELECT count(*) FROM \"T\"", "SELECT count(*) FROM \"AwsDataCatalog\".\"DB\".\"t\""]
    {
        assert_eq!(lake.cells(sql).await, "6", "{sql}");
    }
}

#[tokio::test]
async fn a_description_has_the_columns_and_tables_of_the_answer() {
    let lake = Lake::new().await;
    lake.put("flights/a.json", "{\"id\":1,\"name\":\"x\"}\n").await;
    lake.table("flights", "id:bigint name:string", JSON, &[]).await;
    let options = QueryOptions { database: "db".into(), ..QueryOptions::new(Principal::Owner) };
    let described = async |sql: &str| lake.engine.describe(sql, &options).await;
    for (sql, statement, reads) in [
        (
            "SELECT f.id, g.name || 'y', count(*) OVER () FROM flights f JOIN flights g ON f.id = g.id",
            "SELECT",
            "db.flights",
        ),
        ("SELECT CAST(1 AS decimal(5, 2)) AS d, 'x', NULL", "SELECT", ""),
        ("EXPLAIN SELECT id FROM flights", "EXPLAIN", "db.flights"),
        ("SHOW TABLES", "SHOW", ""),
        ("DESCRIBE flights", "DESCRIBE", ""),
    ] {
        let description = described(sql).await.unwrap();
        let answer = lake.engine.query(sql, &options).await.unwrap();
        assert_eq!((description.statement, &description.schema), (statement, &answer.schema), "{sql}");
        let names: Vec<_> = description.reads.iter().map(ToString::to_string).collect();
        assert_eq!((names.join(" ").as_str(), description.writes), (reads, None), "{sql}");
    }
    assert_eq!(described("SELECT nope FROM flights").await.unwrap_err().kind(), ErrorKind::Invalid);
    assert_eq!(described("SELECT 1 FROM nope").await.unwrap_err().kind(), ErrorKind::NotFound);
}

/// Counts the plans that it passes on.
#[derive(Debug, Default)]
struct Counting(std::sync::atomic::AtomicUsize);

impl Executor for Counting {
    fn start(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        context: Arc<datafusion::execution::TaskContext>,
    ) -> Result<SendableRecordBatchStream> {
        self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        LocalExecutor.start(plan, context)
    }
}

#[tokio::test]
async fn plans_run_where_the_executor_says() {
    let lake = Lake::new().await;
    let counting = Arc::new(Counting::default());
    let engine = lake.engine.clone().with_executor(counting.clone());
    let options = QueryOptions { database: "db".into(), ..QueryOptions::new(Principal::Owner) };
    for sql in ["SELECT 1", "CREATE TABLE t AS SELECT 1 AS id", "UPDATE t SET id = 2", "DESCRIBE t"] {
        engine.execute(sql, &options).await.unwrap().collect().await.unwrap();
    }
    assert_eq!(counting.0.load(std::sync::atomic::Ordering::Relaxed), 3);
}

#[tokio::test]
async fn answers_that_nobody_reads_keep_no_slot_beyond_their_time() {
    let lake = Lake::new().await;
    let soon = QueryOptions { timeout: Some(Duration::from_millis(300)), ..QueryOptions::new(Principal::Owner) };
    let many = "SELECT value, rpad('x', 50, 'x') FROM generate_series(1, 10000000)";
    let mut unread = Vec::new();
    for _ in 0..64 {
        match lake.engine.query(many, &soon).await {
            Ok(answer) => unread.push(answer),
            Err(error) => assert_eq!(error.kind(), ErrorKind::Limit, "{error}"),
        }
    }
    let patient = QueryOptions { timeout: Some(Duration::from_secs(60)), ..QueryOptions::new(Principal::Owner) };
    lake.engine.query("SELECT 1", &patient).await.unwrap().collect().await.unwrap();
    for answer in unread {
        let error = answer.collect().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Limit, "a part is not taken for the whole: {error}");
    }
}
