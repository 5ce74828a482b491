//! Where every call needs a signature and a grant: the real functions, each under its own role, do their work, and a grant that
//! is missing is named in the error. What else each role may do is checked in `tests/deploy`.

use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use adapters_aws::Aws;
use adapters_aws::glue::GlueCatalog;
use adapters_aws::kinesis::KinesisStream;
use aws_config::sts::AssumeRoleProvider;
use aws_config::{BehaviorVersion, Region};
use aws_credential_types::Credentials;
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4::SigningParams;
use serde_json::{Value, json};
use shared::catalog::Catalog;
use shared::model::TableName;
use shared::random::SystemRandom;
use shared::stream::{NewRecord, Stream};
use shared::{Error, ErrorKind};
use url::Url;

use super::{Emulator, Stack};
use crate::flow::{SHOP, orders};
use crate::lake::{as_i64, program};

const REGION: &str = "us-east-1";

/// A deployed lakehouse whose API takes signed requests only.
struct Signed {
    client: reqwest::Client,
    stack: Stack,
    endpoint: String,
}

impl Signed {
    /// Signs a request for `service` as the account's root, and sends it.
    async fn send(&self, service: &str, method: &str, url: &str, body: &str) -> (u16, String) {
        let identity = Credentials::new("test", "test", None, None, "tests").into();
        let parameters = SigningParams::builder()
            .identity(&identity)
            .region(REGION)
            .name(service)
            .time(SystemTime::now())
            .settings(SigningSettings::default())
            .build()
            .unwrap()
            .into();
        let host = Url::parse(url).unwrap();
        let host = format!("{}:{}", host.host_str().unwrap(), host.port().unwrap());
        let kind = if service == "iam" { "application/x-www-form-urlencoded" } else { "application/json" };
        let headers = [("host", host.as_str()), ("content-type", kind)];
        let request =
            SignableRequest::new(method, url, headers.into_iter(), SignableBody::Bytes(body.as_bytes())).unwrap();
        let (instructions, _) = sign(request, &parameters).unwrap().into_parts();
        let mut request = self.client.request(method.parse().unwrap(), url).body(body.to_owned());
        for (name, value) in headers.into_iter().chain(instructions.headers()) {
            request = request.header(name, value);
        }
        let answer = request.send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    }

    async fn call(&self, method: &str, path: &str, body: &str) -> (u16, Value) {
        let url = format!("{}{path}", self.stack.api().trim_end_matches('/'));
        let (status, text) = self.send("execute-api", method, &url, body).await;
        (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
    }

    async fn query(&self, sql: &str) -> (u16, Value) {
        self.call("POST", "/query", &json!({ "sql": sql }).to_string()).await
    }

    async fn until(&self, sql: &str, expected: i64) {
        let begun = Instant::now();
        loop {
            let (status, answer) = self.query(sql).await;
            let found = (status == 200).then(|| as_i64(&answer["rows"][0][0]));
            if found == Some(expected) {
                return;
            }
            assert!(begun.elapsed() < Duration::from_secs(40), "expected {expected} from `{sql}`, found {answer:#}");
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
    }

    /// The role of a function.
    async fn role(&self, function: &str) -> String {
        let name = self.stack.0["functions"][function].as_str().unwrap();
        let url = format!("{}/2015-03-31/functions/{name}/configuration", self.endpoint);
        let (status, text) = self.send("lambda", "GET", &url, "").await;
        assert_eq!(status, 200, "{text}");
        serde_json::from_str::<Value>(&text).unwrap()["Role"].as_str().unwrap().to_owned()
    }

    /// A connection under the role of a function.
    async fn aws(&self, function: &str, root: &Aws) -> Aws {
        let role = AssumeRoleProvider::builder(self.role(function).await).session_name("test").configure(root.config());
        let loader = aws_config::defaults(BehaviorVersion::latest())
            .endpoint_url(&self.endpoint)
            .region(Region::new(REGION))
            .credentials_provider(role.build().await);
        Aws::load_with(loader).await.unwrap()
    }
}

#[track_caller]
fn names<T: std::fmt::Debug>(result: Result<T, Error>, action: &str, resource: &str) {
    let error = result.unwrap_err();
    let text = error.to_string();
    assert_eq!(error.kind(), ErrorKind::Denied, "{text}");
    assert!(text.contains(&format!("`{action}` on {resource} is not allowed")), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_functions_work_each_under_its_own_role_and_a_missing_grant_is_named() {
    let emulator = Emulator::with_roles();
    let stack = emulator.deploy("tarn-roles", SHOP, &["TickState=DISABLED"]).await;
    let lake = Signed { client: reqwest::Client::new(), stack, endpoint: emulator.endpoint.clone() };
    let unsigned = lake.client.get(format!("{}/streams", lake.stack.api().trim_end_matches('/'))).send().await.unwrap();
    assert_eq!(unsigned.status().as_u16(), 403, "signatures are enforced");

    let records: Vec<Value> = orders(0, 60).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let (status, put) = lake.call("POST", "/streams/orders/records", &Value::from(records).to_string()).await;
    assert_eq!((status, &put["stored"]), (200, &60.into()), "{put:#}");
    let (status, put) = lake.call("PUT", "/files/customers/customers.csv", "id,name\n1,Ada\n2,Grace\n3,Edsger\n").await;
    assert_eq!(status, 201, "{put:#}");
    lake.until("SELECT count(*) FROM customers", 3).await;
    let (status, flushed) = lake.call("POST", "/streams/orders/flush", "{}").await;
    assert_eq!(status, 200, "{flushed:#}");
    lake.until("SELECT count(*) FROM orders", 60).await;
    let (status, run) = lake.call("POST", "/workflows/daily/runs", "{}").await;
    assert_eq!((status, run["status"].as_str()), (200, Some("succeeded")), "{run:#}");
    lake.until("SELECT count(*) FROM mart.orders WHERE customer = 'Ada'", 20).await;
    let (status, forecast) = lake.call("POST", "/insights/orders_a_day", "{}").await;
    assert_eq!(status, 200, "{forecast:#}");

    the_program_signs(lake.stack.api());
    an_erasure_reaches_tables_and_raw_files(&lake).await;
    statements_write_tables(&lake).await;
    errors_name_the_grant(&lake, &emulator.aws().await).await;
    a_function_names_the_grant(&lake).await;
}

/// The commands of `tarn` reach a deployed lakehouse with the credentials of the environment.
fn the_program_signs(api: &str) {
    let tarn = |arguments: &[&str]| {
        let mut command = Command::new(program("tarn"));
        command.args(["--url", api, "--output", "csv"]).args(arguments);
        command.env("AWS_ACCESS_KEY_ID", "test").env("AWS_SECRET_ACCESS_KEY", "test").env("AWS_REGION", REGION);
        let done = command.output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (done.status.code(), text(done.stdout), text(done.stderr))
    };
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("more customers.csv");
    std::fs::write(&file, "id,name\n4,Barbara\n").unwrap();
    let records = folder.path().join("orders.ndjson");
    std::fs::write(&records, orders(60, 5)).unwrap();
    let ask = "SELECT count(*) AS n FROM orders";
    let (code, _, errors) = tarn(&["sql", ask]);
    assert!(code == Some(1) && errors.contains("403: Forbidden"), "without a signature: {code:?} {errors}");
    for (arguments, expected) in [
        (vec!["sql", ask], "n\n60"),
        (vec!["put", "orders", records.to_str().unwrap()], "orders,5,0"),
        (vec!["put", "--file", "customers", file.to_str().unwrap()], "more"),
        (vec!["crawl", "customers"], "customers"),
        (vec!["run", "daily"], "succeeded"),
        (vec!["insight", "orders_a_day"], "mean"),
    ] {
        let (code, answer, errors) = tarn(&[&["--sign"], &arguments[..]].concat());
        let answer = answer.replace("\r\n", "\n");
        assert!(code == Some(0) && answer.contains(expected), "{arguments:?}: {code:?} {answer} {errors}");
    }
    // More than a response carries: it is stored, and sent for by a signed address.
    let large = "SELECT value AS n, rpad('x', 1000, 'x') AS text FROM generate_series(1, 20000)";
    let (code, answer, errors) = tarn(&["--sign", "sql", large]);
    assert!(code == Some(0) && answer.lines().count() == 20_001, "{code:?} {} lines {errors}", answer.lines().count());
    assert!(answer.lines().last().is_some_and(|line| line.starts_with("20000,x")), "{errors}");
    let (code, answer, _) = tarn(&["status"]);
    assert!(code == Some(1) && answer.matches("403: Forbidden").count() == 5, "{code:?} {answer}");
    let (code, answer, errors) = tarn(&["status", "--sign"]);
    assert!(code == Some(0) && !answer.contains("function"), "{code:?} {answer} {errors}");
    let (code, answer, errors) = tarn(&["errors", "list", "--sign"]);
    assert!(code == Some(0), "{code:?} {answer} {errors}");
}

/// What the role of the query function must let it do.
async fn statements_write_tables(lake: &Signed) {
    for (sql, rows) in [
        ("CREATE TABLE mart.notes (id int, note string)", 0),
        ("INSERT INTO mart.notes VALUES (1, 'a'), (2, 'b')", 2),
        ("UPDATE mart.notes SET note = 'c' WHERE id = 2", 1),
        ("DELETE FROM mart.notes WHERE id = 1", 1),
        ("DROP TABLE mart.notes", 0),
    ] {
        let (status, answer) = lake.query(sql).await;
        let committed = &answer["committed"];
        let changed: i64 =
            ["rowsAdded", "rowsUpdated", "rowsDeleted"].iter().map(|name| committed[name].as_i64().unwrap_or(0)).sum();
        assert_eq!((status, changed), (200, rows), "{sql}: {answer:#}");
    }
    let (status, answer) = lake.query("CREATE TABLE elsewhere.notes (id int)").await;
    assert_eq!(status, 404, "{answer:#}");

    let (status, answer) = lake.query("DROP DATABASE mart").await;
    assert_eq!(status, 409, "it holds tables: {answer:#}");
    let listed = "SELECT table_name FROM information_schema.tables WHERE table_schema = 'mart'";
    let (status, tables) = lake.query(listed).await;
    assert_eq!(status, 200, "{tables:#}");
    for table in tables["rows"].as_array().unwrap() {
        let (status, answer) = lake.query(&format!("DROP TABLE mart.{}", table[0].as_str().unwrap())).await;
        assert_eq!(status, 200, "{answer:#}");
    }
    for (sql, expected) in [("DROP DATABASE mart", 200), ("DROP DATABASE mart", 404), ("DROP DATABASE elsewhere", 403)]
    {
        let (status, answer) = lake.query(sql).await;
        assert_eq!(status, expected, "{sql}: {answer:#}");
    }
}

/// Our adapters under roles that may do other things.
async fn an_erasure_reaches_tables_and_raw_files(lake: &Signed) {
    for (condition, tables) in [("id = 2", &["customers"][..]), ("id IN (7, 8)", &["orders", "mart.orders"][..])] {
        let body = serde_json::json!({"where": condition, "tables": tables}).to_string();
        let mut complete = false;
        for _ in 0..4 {
            let (status, report) = lake.call("POST", "/erasures", &body).await;
            assert_eq!(status, 200, "{report:#}");
            complete = report["complete"] == true;
            if complete {
                break;
            }
            assert_eq!(lake.call("POST", "/workflows/daily/runs", "{}").await.0, 200);
        }
        assert!(complete, "{condition}");
    }
    lake.until("SELECT count(*) FROM customers WHERE id = 2", 0).await;
    lake.until("SELECT count(*) FROM customers WHERE id = 3", 1).await;
    lake.until("SELECT count(*) FROM orders WHERE id IN (7, 8)", 0).await;
}

async fn errors_name_the_grant(lake: &Signed, root: &Aws) {
    let (ingest, crawl) = (lake.aws("ingest", root).await, lake.aws("crawl", root).await);
    let table = TableName::new("shop", "orders").unwrap();
    names(GlueCatalog::new(&ingest).get_table(&table).await, "glue:GetTable", "table `shop.orders`");

    let bucket = Url::parse(&format!("s3://{}/", lake.stack.0["bucket"].as_str().unwrap())).unwrap();
    let storage = |aws: &Aws| adapters_aws::storage::open(aws, std::slice::from_ref(&bucket)).unwrap();
    let at = |key: &str| bucket.join(key).unwrap();
    let resource = |key: &str| format!("`{}`", at(key));
    let found = storage(root).list(&at("tables/")).await.unwrap();
    let key = &found[0].url.path()[1..];
    names(storage(&ingest).get(&at(key)).await, "s3:GetObject", &resource(key));
    names(storage(&crawl).put(&at("tables/x"), "x").await, "s3:PutObject", &resource("tables/x"));
    names(storage(&ingest).list(&at("tables/")).await, "s3:ListBucket", &resource("tables/"));
    let raw = "raw/customers/customers.csv";
    names(storage(&lake.aws("query", root).await).delete(&at(raw)).await, "s3:DeleteObject", &resource(raw));
    assert!(storage(root).exists(&at(raw)).await.unwrap());

    let clock = std::sync::Arc::new(shared::clock::SystemClock);
    let stream = KinesisStream::new(&lake.aws("insight", root).await, "tarn-roles-", clock, Arc::new(SystemRandom));
    let record = NewRecord { partition_key: "k".into(), data: "{}".into() };
    names(stream.put("orders", vec![record]).await, "kinesis:PutRecords", "stream `orders`");
}

/// A program whose role has lost a grant tells its caller which.
async fn a_function_names_the_grant(lake: &Signed) {
    let role = lake.role("query").await;
    let role = role.rsplit('/').next().unwrap();
    let form = format!("Action=DeleteRolePolicy&Version=2010-05-08&RoleName={role}&PolicyName=tables-shop");
    let (status, text) = lake.send("iam", "POST", &format!("{}/", lake.endpoint), &form).await;
    assert_eq!(status, 200, "{text}");
    let (status, answer) = lake.query("SELECT count(*) FROM orders").await;
    let text = answer.to_string();
    assert!(status == 403 && text.contains("glue:GetTable") && text.contains("shop.orders"), "{status}: {text}");
}
