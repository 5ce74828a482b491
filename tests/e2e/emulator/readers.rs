//! Clients that nobody here wrote, on a deployed lakehouse: pyiceberg through Glue, boto3, the AWS CLI; and what Athena asks of
//! the definitions in Glue.

use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, TimestampMicrosecondArray};
use parquet::arrow::ArrowWriter;
use serde_json::{Value, json};

use super::{Emulator, Stack};
use crate::clients::{Row, TYPES, difference, root, rows_of, sample, sorted, without_null_lists_of_structs};
use crate::lake::{Lake, gzip};

/// A stream that is also merged into a table, neither partitioned: pyiceberg writes to partitions only with an extension.
const NOTES: &str = "  notes:
    schema:
      - {name: id, type: bigint, required: true}
      - {name: text, type: string}
      - {name: at, type: timestamptz}
    buffer: {size: 1MiB, interval: 15m}
";
const MERGED_NOTES: &str = "      notes:
        sql: SELECT * FROM notes
        into: reading_mart.notes
        mode: incremental
        incremental: notes
        write: merge
        key: [id]
";

/// A location for each format and layout of folders.
const SHELF: &str = "
version: 1
database: shelf
streams:
  orders:
    schema:
      - {name: id, type: bigint, required: true}
      - {name: amount, type: \"decimal(10,2)\"}
    buffer: {size: 1MiB, interval: 15m}
locations:
  quoted: {}
  plain: {}
  tabbed: {}
  lines: {}
  listed: {}
  pretty: {}
  broken: {}
  columnar: {}
  zipped: {}
  dated: {}
  spaced: {}
  uploaded: {}
workflows:
  daily:
    jobs:
      totals: {sql: \"SELECT count(*) AS orders, sum(amount) AS amount FROM orders\", into: shelf_mart.totals}
insights:
  trend: {kind: narrative, sql: \"SELECT day, id FROM shelf.plain\", date: day, value: id}
";

/// A program of the clients' own, as root of the emulator's account.
fn client(program: impl AsRef<Path>, emulator: &Emulator) -> Command {
    let mut command = Command::new(root().join(program));
    command
        .env("AWS_ENDPOINT_URL", &emulator.endpoint)
        .env("AWS_DEFAULT_REGION", "us-east-1")
        .env("AWS_ACCESS_KEY_ID", "test")
        .env("AWS_SECRET_ACCESS_KEY", "test");
    command
}

/// A script of `tests/clients` in the Python environment `environment`.
fn script(emulator: &Emulator, environment: &str, script: &str, arguments: &[&str]) -> Output {
    let mut python = client(format!("{environment}/bin/python"), emulator);
    python.arg(root().join("tests/clients").join(script)).args(arguments).output().unwrap()
}

fn json_of(output: &Output) -> Value {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {output:?}"))
}

/// What pyiceberg finds in a table of Glue's.
fn pyiceberg(emulator: &Emulator, table: &str, key: &str) -> Vec<Row> {
    rows_of(&script(emulator, ".venv", "read_iceberg.py", &["glue", table]), key)
}

pub(super) fn write_with_pyiceberg(emulator: &Emulator, arguments: &[&str]) -> Value {
    json_of(&script(emulator, ".venv", "write_iceberg.py", arguments))
}

fn boto3(emulator: &Emulator, service: &str, operation: &str, arguments: &Value) -> Value {
    json_of(&script(emulator, ".venv-emulator", "boto_call.py", &[service, operation, &arguments.to_string()]))
}

fn aws_cli(arguments: &[&str]) -> String {
    let output = client(".venv-emulator/bin/aws", Emulator::ministack()).args(arguments).output().unwrap();
    assert!(output.status.success(), "aws {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Our own answer.
async fn ours(lake: &Lake, table: &str, key: &str) -> Vec<Row> {
    let (status, answer) = lake.query(&format!("SELECT * FROM {table}")).await;
    assert_eq!(status, 200, "{table}: {answer:#}");
    let names: Vec<String> =
        answer["columns"].as_array().unwrap().iter().map(|c| c["name"].as_str().unwrap().to_owned()).collect();
    let rows: Vec<Vec<Value>> = serde_json::from_value(answer["rows"].clone()).unwrap();
    sorted(rows.into_iter().map(|row| names.iter().cloned().zip(row).collect()).collect(), key)
}

/// Compares what pyiceberg finds in a table with our own answer; gives our answer.
pub(super) async fn compare(emulator: &Emulator, lake: &Lake, table: &str, key: &str) -> Vec<Row> {
    let ours = ours(lake, table, key).await;
    assert!(!ours.is_empty(), "{table} has rows");
    if let Some(difference) = difference(&without_null_lists_of_structs(&ours), &pyiceberg(emulator, table, key)) {
        panic!("{table}: {difference}");
    }
    ours
}

/// Puts records and has them written to the stream's table.
async fn put(lake: &Lake, stream: &str, records: impl IntoIterator<Item = Value>) {
    let body: String = records.into_iter().map(|record| format!("{record}\n")).collect();
    let (status, put) = lake.post(&format!("/streams/{stream}/records"), "application/x-ndjson", body).await;
    assert_eq!(status, 200, "{put:#}");
    lake.flush(stream).await;
}

async fn run(lake: &Lake) {
    let (_, run) = lake.post("/workflows/daily/runs", "application/json", "{}").await;
    assert_eq!(run["status"], "succeeded", "{run:#}");
}

fn note(id: i64, text: &str) -> Value {
    json!({"id": id, "text": text, "at": format!("2026-01-01T00:00:{:02}Z", id % 60)})
}

fn ids(rows: &[Row]) -> Vec<i64> {
    rows.iter().map(|row| row["id"].as_i64().unwrap()).collect()
}

/// The tables of some databases that break no rule of Athena's, with what they are.
fn fit_for_athena(emulator: &Emulator, databases: &[&str]) -> Value {
    let found = json_of(&script(emulator, ".venv-emulator", "athena_rules.py", databases));
    assert_eq!(found["problems"], json!([]), "{found:#}");
    found["tables"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn pyiceberg_reads_what_the_functions_wrote_and_they_build_on_what_it_writes() {
    let file = TYPES.replace("database: lab", "database: reading").replace("mart.", "reading_mart.");
    let file = file.replace("workflows:\n", &format!("{NOTES}workflows:\n")) + MERGED_NOTES;
    // Lakehouses of one account would share the table of runs, which lies in the warehouse of one of them.
    let emulator = Emulator::alone();
    let stack = emulator.deploy("tarn-readers", &file, &[]).await;
    let lake = Lake::deployed(&file, stack.api());
    put(&lake, "notes", [note(1, "one"), note(2, "two"), note(3, "three")]).await;
    for (round, ids) in [(0, 0..60), (1, 30..90)] {
        put(&lake, "samples", ids.map(|id| sample(round * 100 + id, id))).await;
        run(&lake).await;
        let rows = if round == 0 { [60, 60, 30] } else { [120, 90, 60] };
        let tables = ["reading.samples", "reading_mart.merged", "reading_mart.overwritten"];
        for (table, expected) in tables.into_iter().zip(rows) {
            assert_eq!(compare(emulator, &lake, table, "number").await.len(), expected, "{table}");
        }
    }

    assert_eq!(write_with_pyiceberg(emulator, &["append", "reading.notes", "id = 1", "id", "100"]), 1);
    assert_eq!(ids(&compare(emulator, &lake, "reading.notes", "id").await), [1, 2, 3, 100], "our query sees its row");
    assert_eq!(write_with_pyiceberg(emulator, &["tag", "reading.notes", "owner.team", "ops"])["owner.team"], "ops");
    put(&lake, "notes", [note(4, "four")]).await;
    run(&lake).await;
    assert_eq!(
        ids(&compare(emulator, &lake, "reading.notes", "id").await),
        [1, 2, 3, 4, 100],
        "the batcher kept its row"
    );
    let table = boto3(emulator, "glue", "get_table", &json!({"DatabaseName": "reading", "Name": "notes"}));
    let parameters = &table["Table"]["Parameters"];
    assert_eq!(parameters["owner.team"], "ops", "our commit keeps its parameters: {parameters:#}");
    assert_eq!(
        ids(&compare(emulator, &lake, "reading_mart.notes", "id").await),
        [1, 2, 3, 4, 100],
        "the job read its row"
    );

    assert_eq!(write_with_pyiceberg(emulator, &["append", "reading_mart.notes", "id = 3", "id", "200"]), 1);
    put(&lake, "notes", [note(2, "two again")]).await;
    run(&lake).await;
    let merged = compare(emulator, &lake, "reading_mart.notes", "id").await;
    assert_eq!(ids(&merged), [1, 2, 3, 4, 100, 200], "the merge kept its row");
    assert_eq!((&merged[1]["text"], &merged[5]["text"]), (&json!("two again"), &json!("three")));

    let tables = fit_for_athena(emulator, &["reading", "reading_mart"]);
    assert_eq!(tables.as_object().unwrap().len(), 5, "{tables:#}");
    assert!(tables.as_object().unwrap().values().all(|table| table["kind"] == "iceberg"), "{tables:#}");
}

fn parquet() -> Vec<u8> {
    let at = TimestampMicrosecondArray::from(vec![Some(1_357_034_400_000_000), None]).with_timezone("UTC");
    let columns: [(&str, ArrayRef); 2] = [("id", Arc::new(Int64Array::from(vec![1, 2]))), ("at", Arc::new(at))];
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let mut writer = ArrowWriter::try_new(Vec::new(), batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.into_inner().unwrap()
}

/// Files by their keys below `raw/`, as any program may put them into the bucket.
fn files() -> Vec<(&'static str, Vec<u8>)> {
    let text = |text: &str| text.as_bytes().to_vec();
    vec![
        (
            "quoted/a.csv",
            text("id,name,day,at,amount\n1,\"a, b\",2013-01-01,2013-01-01T10:00:00Z,1.5\n2,\"c\",2013-01-02,,\n"),
        ),
        ("tabbed/a.tsv", text("id\tname\n1\ta\n2\tb\n")),
        (
            "lines/a.ndjson",
            text(
                "{\"Order ID\":1,\"at\":\"2013-01-01T10:00:00Z\",\"spot\":{\"seen\":\"2013-01-01T10:00:00+02:00\",\"lat\":1.5}}\n\
                 {\"Order ID\":2,\"at\":\"2013-01-02T10:00:00Z\",\"tags\":[\"a\"]}\n",
            ),
        ),
        ("listed/a.json", text("[{\"id\":1},{\"id\":2}]")),
        ("pretty/a.json", text("{\n  \"id\": 1\n}\n{\n  \"id\": 2\n}\n")),
        ("broken/a.csv", text("id,text\n1,\"a\nb\"\n2,\"c\"\n")),
        ("columnar/a.parquet", parquet()),
        ("zipped/observed=2013-01/a.csv.gz", gzip(b"id,x\n1,2.5\n")),
        ("zipped/observed=2013-02/a.csv.gz", gzip(b"id,x\n2,\n")),
        ("dated/2013/01/01/a.ndjson", text("{\"id\":1}\n")),
        ("dated/2013/01/02/a.ndjson", text("{\"id\":2}\n")),
        ("spaced/city=New York/at=10%3A00/a.csv", text("id,x\n1,1\n")),
        ("spaced/city=Zürich/at=11%3A00/a.csv", text("id,x\n2,2\n")),
    ]
}

/// The event of an HTTP request, as API Gateway gives it to a function.
fn http(method: &str, path: &str, body: &Value) -> String {
    json!({
        "version": "2.0", "rawPath": path, "headers": {"content-type": "application/json"}, "body": body.to_string(),
        "requestContext": {"http": {"method": method, "path": path}},
    })
    .to_string()
}

async fn put_every_file(lake: &Lake, stack: &Stack) {
    let aws = Emulator::ministack().aws().await;
    for (key, bytes) in files() {
        let put = aws.s3().put_object().bucket(stack.bucket()).key(format!("raw/{key}"));
        put.body(bytes.into()).send().await.unwrap();
    }
    // One by boto3, one to an address that we signed.
    let plain = "id,name,day\n1,a,2013-01-01\n2,b,2013-01-02\n";
    boto3(
        Emulator::ministack(),
        "s3",
        "put_object",
        &json!({"Bucket": stack.bucket(), "Key": "raw/plain/a.csv", "Body": plain}),
    );
    let (status, answer) = lake.post("/uploads/uploaded/a.csv", "application/json", "").await;
    assert_eq!(status, 201, "{answer:#}");
    let signed = answer["upload_url"].as_str().unwrap();
    let put = reqwest::Client::new().put(signed).body("id,x\n1,1\n2,2\n").send().await.unwrap();
    assert!(put.status().is_success(), "{put:?}");
    let mut locations: Vec<_> = files().iter().map(|(key, _)| key.split('/').next().unwrap()).collect();
    locations.extend(["plain", "uploaded"]);
    locations.dedup();
    for location in locations {
        lake.until(&format!("SELECT count(*) FROM {location}"), 2).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn boto3_and_the_aws_cli_work_on_what_was_deployed_and_athena_finds_its_definitions() {
    let stack = Emulator::ministack().deploy("tarn-shelf", SHELF, &[]).await;
    let lake = Lake::deployed(SHELF, stack.api());
    put_every_file(&lake, &stack).await;
    a_record_put_into_kinesis_reaches_the_table(&stack).await;
    every_function_answers_an_invocation(&stack);
    the_cli_shows_what_was_deployed(&stack);

    let tables = fit_for_athena(Emulator::ministack(), &["shelf", "shelf_mart"]);
    for (name, kind, partitions) in [
        ("shelf.quoted", "OpenCSVSerde", 0),
        ("shelf.plain", "LazySimpleSerDe", 0),
        ("shelf.tabbed", "LazySimpleSerDe", 0),
        ("shelf.lines", "JsonSerDe", 0),
        ("shelf.listed", "unreadable", 0),
        ("shelf.pretty", "unreadable", 0),
        ("shelf.broken", "unreadable", 0),
        ("shelf.columnar", "ParquetHiveSerDe", 0),
        ("shelf.zipped", "LazySimpleSerDe", 2),
        ("shelf.dated", "JsonSerDe", 2),
        ("shelf.spaced", "LazySimpleSerDe", 2),
        ("shelf.orders", "iceberg", 0),
        ("shelf_mart.totals", "iceberg", 0),
    ] {
        assert_eq!(tables[name], json!({"kind": kind, "partitions": partitions}), "{name}");
    }
    types_survive_what_athena_can_not_say(&lake).await;
    others_databases_are_not_seen(&lake).await;
}

async fn a_record_put_into_kinesis_reaches_the_table(stack: &Stack) {
    let record = json!({"id": 1, "amount": "9.50"}).to_string();
    let put = json!({"StreamName": stack.stream("orders"), "Data": record, "PartitionKey": "1"});
    assert!(boto3(Emulator::ministack(), "kinesis", "put_record", &put)["SequenceNumber"].is_string());
    let flushed = invoke(stack, "batcher", &http("POST", "/streams/orders/flush", &json!({})));
    assert_eq!(flushed["statusCode"], 200, "{flushed:#}");
    let lake = Lake::deployed(SHELF, stack.api());
    assert_eq!(lake.sql("SELECT id, amount FROM orders").await, [[json!(1), json!("9.50")]]);
}

/// Invokes a function by boto3; its answer.
fn invoke(stack: &Stack, function: &str, event: &str) -> Value {
    let answer = boto3(
        Emulator::ministack(),
        "lambda",
        "invoke",
        &json!({"FunctionName": stack.function(function), "Payload": event}),
    );
    assert!(answer["FunctionError"].is_null(), "{function}: {answer:#}");
    serde_json::from_str(answer["Payload"].as_str().unwrap()).unwrap()
}

fn every_function_answers_an_invocation(stack: &Stack) {
    let sql = json!({"sql": "SELECT count(*) AS n FROM orders"});
    for (function, method, path, body, expected) in [
        ("ingest", "GET", "/streams", json!({}), "\"orders\""),
        ("crawl", "GET", "/crawls", json!({}), "shelf.quoted"),
        ("transform", "POST", "/workflows/daily/runs", json!({}), "\"succeeded\""),
        ("query", "POST", "/query", sql, "\"n\""),
        ("insight", "POST", "/insights/trend", json!({}), "sentences"),
    ] {
        let answer = invoke(stack, function, &http(method, path, &body));
        let said = answer["body"].as_str().unwrap();
        assert_eq!(answer["statusCode"], 200, "{function}: {answer:#}");
        assert!(said.contains(expected), "{function}: {said}");
    }
}

fn the_cli_shows_what_was_deployed(stack: &Stack) {
    let listed = aws_cli(&["s3", "ls", &format!("s3://{}/raw/", stack.bucket()), "--recursive"]);
    for (key, _) in files() {
        assert!(listed.contains(&format!("raw/{key}")), "{key}: {listed}");
    }
    let tables =
        aws_cli(&["glue", "get-tables", "--database-name", "shelf", "--query", "TableList[].Name", "--output", "text"]);
    let mut tables: Vec<_> = tables.split_whitespace().collect();
    tables.sort_unstable();
    let expected = "broken columnar dated lines listed orders plain pretty quoted spaced tabbed uploaded zipped";
    assert_eq!(tables.join(" "), expected);
    let stream = aws_cli(&["kinesis", "describe-stream-summary", "--stream-name", stack.stream("orders")]);
    let stream: Value = serde_json::from_str(&stream).unwrap();
    assert_eq!(stream["StreamDescriptionSummary"]["StreamStatus"], "ACTIVE", "{stream:#}");

    let folder = tempfile::tempdir().unwrap();
    let answer = folder.path().join("answer.json");
    let event = http("POST", "/query", &json!({"sql": "SELECT sum(amount) AS total FROM orders"}));
    // As docs/deploy.md has it: the alias, and for version 2 of the CLI `--cli-binary-format raw-in-base64-out`.
    let function = format!("{}:live", stack.function("query").trim_end_matches(":live"));
    aws_cli(&["lambda", "invoke", "--function-name", &function, "--payload", &event, answer.to_str().unwrap()]);
    let answer: Value = serde_json::from_slice(&std::fs::read(answer).unwrap()).unwrap();
    assert!(answer["body"].as_str().unwrap().contains("9.50"), "{answer:#}");
}

/// Athena gets text where its serde knows no better; our own types come back from Glue.
async fn types_survive_what_athena_can_not_say(lake: &Lake) {
    let types = async |table: &str| {
        let sql = format!(
            "SELECT data_type FROM information_schema.columns WHERE table_schema = 'shelf' AND table_name = '{table}' \
             ORDER BY ordinal_position"
        );
        let rows = lake.sql(&sql).await;
        rows.iter().map(|row| row[0].as_str().unwrap().to_owned()).collect::<Vec<_>>().join("; ")
    };
    let zoned = "timestamp(6) with time zone";
    assert_eq!(types("quoted").await, format!("bigint; varchar; date; {zoned}; double"));
    assert_eq!(types("columnar").await, format!("bigint; {zoned}"));
    assert!(types("lines").await.contains(&format!("row(seen {zoned}")), "{}", types("lines").await);
    let rows = lake.sql("SELECT id, at, amount FROM quoted WHERE day > DATE '2012-12-31' ORDER BY id").await;
    assert_eq!(rows, [[json!(1), json!("2013-01-01T10:00:00Z"), json!(1.5)], [json!(2), Value::Null, Value::Null]]);
    assert_eq!(lake.number("SELECT count(*) FROM spaced WHERE city = 'New York' AND at = '10:00'").await, Some(1));
}

async fn others_databases_are_not_seen(lake: &Lake) {
    aws_cli(&["glue", "create-database", "--database-input", r#"{"Name": "somebody_elses"}"#]);
    let listed = lake.sql("SHOW DATABASES").await;
    assert_eq!(listed.iter().map(|row| row[0].as_str().unwrap()).collect::<Vec<_>>(), ["shelf", "shelf_mart", "tarn"]);
    let schemas = lake.sql("SELECT DISTINCT table_schema FROM information_schema.tables ORDER BY 1").await;
    assert_eq!(schemas, [["shelf"], ["shelf_mart"], ["tarn"]]);
    let (status, answer) = lake.query("SELECT * FROM somebody_elses.table").await;
    assert_eq!(status, 404, "{answer:#}");
}
