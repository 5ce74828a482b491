//! Objects that come by S3 itself, with whatever names, and a bucket that keeps versions; and errors that say what can't be
//! reached.

use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use adapters_aws::glue::GlueCatalog;
use axum::Router;
use axum::body::Body;
use axum::http::{Request, StatusCode};
use axum::response::IntoResponse;
use shared::ErrorKind;
use shared::catalog::Catalog;
use shared::model::TableName;
use url::Url;

use super::{Emulator, aws_at};
use crate::lake::Lake;

const LAKEHOUSE: &str = "
version: 1
database: odd
locations:
  cities: {table: cities}
  large: {table: large}
";
const NAMES: [&str; 8] =
    ["plain.csv", "a b.csv", "a+b.csv", "100%.csv", "a%20b.csv", "größe 東京.csv", "(x)!~'.csv", "a&b,c;d@e.csv"];

/// The bucket of a stack, as any client of S3 has it.
struct Bucket {
    client: reqwest::Client,
    s3: adapters_aws::Aws,
    name: String,
}

impl Bucket {
    async fn put(&self, key: &str, text: &str) {
        let put = self.s3.s3().put_object().bucket(&self.name).key(key).body(text.as_bytes().to_vec().into());
        put.send().await.unwrap();
    }

    async fn delete(&self, key: &str) {
        self.s3.s3().delete_object().bucket(&self.name).key(key).send().await.unwrap();
    }
}

fn city(id: usize, name: &str) -> String {
    format!("id,name\n{id},{name}\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_of_any_name_version_and_size_are_crawled_and_queried() {
    let emulator = Emulator::ministack();
    let stack = emulator.deploy("tarn-objects", LAKEHOUSE, &["TickState=DISABLED"]).await;
    let lake = Lake::deployed(LAKEHOUSE, stack.api());
    let name = stack.0["bucket"].as_str().unwrap().to_owned();
    let bucket = Bucket { client: reqwest::Client::new(), s3: emulator.aws().await, name };

    for (id, name) in NAMES.iter().enumerate() {
        bucket.put(&format!("raw/cities/{name}"), &city(id, "before")).await;
    }
    lake.until("SELECT count(DISTINCT id) FROM cities", NAMES.len() as i64).await;

    for (id, name) in NAMES.iter().enumerate().skip(1) {
        bucket.put(&format!("raw/cities/{name}"), &city(id, "after")).await;
    }
    lake.until("SELECT count(*) FROM cities WHERE name = 'after'", NAMES.len() as i64 - 1).await;
    assert_eq!(lake.number("SELECT count(*) FROM cities").await, Some(NAMES.len() as i64), "each in one version");

    for name in &NAMES[1..] {
        bucket.delete(&format!("raw/cities/{name}")).await;
    }
    lake.until("SELECT count(*) FROM cities", 1).await;
    assert_eq!(lake.sql("SELECT name FROM cities").await, [["before"]]);

    upload(&lake, &bucket).await;
}

/// A file larger than a request may be, by an address on S3.
async fn upload(lake: &Lake, bucket: &Bucket) {
    let rows = 400_000_i64;
    let text: String = std::iter::once("id,text\n".to_owned())
        .chain((0..rows).map(|id| format!("{id},a text that makes the file large, number {id}\n")))
        .collect();
    assert!(text.len() > 20_000_000, "{}", text.len());
    let (status, answer) = lake.post("/uploads/large/2024/01/a%20file.csv", "application/json", "").await;
    assert_eq!(status, 201, "{answer:#}");
    let put = bucket.client.put(answer["upload_url"].as_str().unwrap()).body(text).send().await.unwrap();
    assert!(put.status().is_success(), "{put:?}");
    lake.until("SELECT count(*) FROM large", rows).await;
    assert_eq!(lake.number("SELECT max(id) FROM large").await, Some(rows - 1));
    let listed = bucket.s3.s3().list_objects_v2().bucket(&bucket.name).prefix("raw/large/").send().await.unwrap();
    let url = Url::parse(answer["url"].as_str().unwrap()).unwrap();
    let key = listed.contents()[0].key().unwrap();
    assert_eq!((key, url.path()), ("raw/large/2024/01/a file.csv", "/raw/large/2024/01/a%20file.csv"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_reached_is_named_in_bounded_time() {
    let nobody = {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        format!("http://{}", listener.local_addr().unwrap())
    };
    let aws = aws_at(&nobody).await;
    let root = Url::parse("s3://nobody/").unwrap();
    let storage = adapters_aws::storage::open(&aws, std::slice::from_ref(&root)).unwrap();
    let begun = Instant::now();
    let (glue, object) = (GlueCatalog::new(&aws), root.join("x").unwrap());
    let table = TableName::new("a", "b").unwrap();
    let (catalog, object) = tokio::join!(glue.get_table(&table), storage.get(&object));
    assert!(begun.elapsed() < Duration::from_secs(45), "{:?}", begun.elapsed());
    let catalog = catalog.unwrap_err();
    assert_eq!(catalog.kind(), ErrorKind::Retry);
    let text = catalog.to_string();
    assert!(text.contains("`glue:GetTable` on table `a.b`") && text.contains("refused"), "{text}");
    let object = object.unwrap_err();
    assert_eq!(object.kind(), ErrorKind::Retry);
    let text = object.to_string();
    assert!(text.contains("`s3://nobody/x`") && text.contains(&nobody) && text.contains("refused"), "{text}");
}

/// S3 of a region where no bucket is: refuses each request as S3 does, by the key's name; says how many came.
async fn elsewhere() -> (String, Arc<AtomicUsize>) {
    let requests = Arc::new(AtomicUsize::new(0));
    let counted = requests.clone();
    let refuse = async move |request: Request<Body>| {
        counted.fetch_add(1, Ordering::SeqCst);
        let xml = |code, more| {
            format!("<?xml version=\"1.0\"?>\n<Error><Code>{code}</Code><Message>m</Message>{more}</Error>")
        };
        let region = [("x-amz-bucket-region", "eu-west-1")];
        match request.uri().path() {
            "/far/signed" => {
                let text = xml("AuthorizationHeaderMalformed", "<Region>eu-west-1</Region>");
                (StatusCode::BAD_REQUEST, text).into_response()
            }
            "/far/silent" => (StatusCode::MOVED_PERMANENTLY, xml("PermanentRedirect", "")).into_response(),
            _ => (StatusCode::MOVED_PERMANENTLY, region, xml("PermanentRedirect", "")).into_response(),
        }
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, Router::new().fallback(refuse)).await.unwrap() });
    (endpoint, requests)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_of_another_region_is_named_with_both_regions_and_not_asked_again() {
    let (endpoint, requests) = elsewhere().await;
    let root = Url::parse("s3://far/").unwrap();
    let storage = adapters_aws::storage::open(&aws_at(&endpoint).await, std::slice::from_ref(&root)).unwrap();
    let at = |key| root.join(key).unwrap();
    let refusals = [
        storage.get(&at("x")).await.map(drop).unwrap_err(),
        storage.head(&at("x")).await.map(drop).unwrap_err(),
        storage.put(&at("x"), "x").await.unwrap_err(),
        storage.put_if_absent(&at("x"), "x").await.unwrap_err(),
        storage.list(&root).await.map(drop).unwrap_err(),
        storage.get(&at("signed")).await.map(drop).unwrap_err(),
    ];
    for error in &refusals {
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
        let text = error.to_string();
        assert!(text.ends_with("expected bucket `far` in region `us-east-1`, found it in `eu-west-1`"), "{text}");
    }
    let silent =
        [storage.get(&at("silent")).await.map(drop).unwrap_err(), storage.exists(&at("silent")).await.unwrap_err()];
    for error in &silent {
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
        assert!(error.to_string().ends_with("`far` in region `us-east-1`, found it in another"), "{error}");
    }
    assert_eq!(requests.load(Ordering::SeqCst), refusals.len() + silent.len());
}

#[test]
fn without_a_region_the_error_names_the_settings_that_may_give_one() {
    let lake = Lake::new(LAKEHOUSE);
    let mut sql = lake.tarn("sql");
    for variable in ["AWS_REGION", "AWS_DEFAULT_REGION", "AWS_PROFILE"] {
        sql.env_remove(variable);
    }
    let begun = Instant::now();
    let nowhere = lake.data().join("no-such-file");
    let asked = sql
        .env("TARN_WAREHOUSE", "s3://some-bucket/")
        .env("AWS_CONFIG_FILE", &nowhere)
        .env("AWS_SHARED_CREDENTIALS_FILE", &nowhere)
        .args(["--output", "json", "SELECT 1"])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
    assert!(!asked.status.success(), "{asked:?}");
    let said = String::from_utf8_lossy(&asked.stderr) + String::from_utf8_lossy(&asked.stdout);
    for word in ["AWS_REGION", "AWS_DEFAULT_REGION", "`region`"] {
        assert!(said.contains(word), "{said}");
    }
}
