//! A backup of a deployment, and its restore after everything was lost: catalog, state and data; while records come in, too.

use std::path::Path;
use std::process::Output;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::Value;

use super::{Emulator, Stack, python};
use crate::flow::{SHOP, orders};
use crate::lake::Lake;

const STACK: &str = "tarn-backup";

/// `deploy.py` on the emulator.
async fn deploy_py(emulator: &Emulator, arguments: &[&str]) -> Output {
    let mut command = python("localstack/emulator/deploy.py");
    command.args(arguments).args(["--stack", STACK, "--region", "us-east-1", "--endpoint", &emulator.endpoint]);
    tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
}

async fn backup(emulator: &Emulator, folder: &Path) -> Value {
    let output = deploy_py(emulator, &["backup", "--to", folder.to_str().unwrap()]).await;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

async fn restore(emulator: &Emulator, taken: &Value) -> Value {
    let output = deploy_py(emulator, &["restore", "--from", taken["backup"].as_str().unwrap()]).await;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Everything that somebody with the keys can lose: the entries of tables, objects, state. The functions go on meanwhile.
async fn lose_everything(emulator: &Emulator, stack: &Stack) {
    let script = "
import sys, boto3
endpoint, bucket = sys.argv[1:]
client = lambda service: boto3.client(service, endpoint_url=endpoint, region_name='us-east-1', aws_access_key_id='test', aws_secret_access_key='test')
glue, s3 = client('glue'), client('s3')
for database in ('shop', 'mart', 'tarn'):
    for table in glue.get_tables(DatabaseName=database)['TableList']:
        glue.delete_table(DatabaseName=database, Name=table['Name'])
for page in s3.get_paginator('list_objects_v2').paginate(Bucket=bucket):
    for item in page.get('Contents', []):
        s3.delete_object(Bucket=bucket, Key=item['Key'])
";
    let mut command = python("localstack/emulator/deploy.py");
    let program = command.get_program().to_owned();
    command = std::process::Command::new(program);
    command.args(["-c", script, &emulator.endpoint, stack.bucket()]);
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

const TABLES: [&str; 4] = ["orders", "customers", "mart.orders", "mart.revenue"];

async fn content(lake: &Lake) -> Vec<Vec<String>> {
    let mut content = Vec::new();
    for table in TABLES {
        content.push(lake.rows(table).await);
    }
    content
}

async fn run_daily(lake: &Lake) {
    let (status, run) = lake.post("/workflows/daily/runs", "application/json", "{}").await;
    assert_eq!((status, run["status"].as_str()), (200, Some("succeeded")), "{run:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deployment_that_lost_everything_is_restored_and_goes_on() {
    let emulator = Emulator::alone();
    let stack = emulator.deploy(STACK, SHOP, &[]).await;
    let lake = Arc::new(Lake::deployed(SHOP, stack.api()));
    for (place, customers) in [("a", "id,name\n1,Ada\n2,Grace\n"), ("b", "id,name\n3,Edsger\n")] {
        assert_eq!(lake.put(&format!("/files/customers/{place}.csv"), customers).await.0, 201);
    }
    lake.until("SELECT count(*) FROM customers", 3).await;
    assert_eq!(lake.post("/streams/orders/records", "application/x-ndjson", orders(0, 60)).await.0, 200);
    lake.flush("orders").await;
    run_daily(&lake).await;
    let before = content(&lake).await;
    let folder = tempfile::tempdir().unwrap();
    let taken = backup(emulator, folder.path()).await;
    assert!(taken["tables"].as_u64().unwrap() >= 5 && taken["documents"].as_u64().unwrap() > 0, "{taken:#}");

    // What comes later is in the stream, and is read again.
    assert_eq!(lake.post("/streams/orders/records", "application/x-ndjson", orders(60, 30)).await.0, 200);
    lake.flush("orders").await;
    lake.sql("DELETE FROM mart.orders").await;
    lose_everything(emulator, &stack).await;
    let done = restore(emulator, &taken).await;
    let restored: Vec<_> = done["tables"].as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
    assert!(done["objects"].as_u64().unwrap() > 10, "{done:#}");
    // The crawler may have made its table again from files that were not lost yet.
    for table in ["shop.orders", "mart.orders", "mart.revenue"] {
        assert!(restored.contains(&table), "{table}: {restored:?} of {taken:#}");
    }
    let after = content(&lake).await;
    for ((table, before), after) in TABLES.iter().zip(&before).zip(&after) {
        // The batcher may have read on by now.
        let kept = before.iter().filter(|row| after.contains(row)).count();
        assert!(kept == before.len() && (after.len() == before.len() || *table == "orders"), "{table}: {after:?}");
    }
    lake.flush("orders").await;
    assert_eq!(lake.number("SELECT count(*) FROM orders").await, Some(90));
    assert_eq!(lake.number("SELECT count(DISTINCT id) FROM orders").await, Some(90));
    run_daily(&lake).await;
    assert_eq!(lake.number("SELECT count(*) FROM mart.orders").await, Some(90));

    // Again, while records come in: none is lost, none is there twice.
    let stop = Arc::new(AtomicBool::new(false));
    let sending = tokio::spawn({
        let (lake, stop) = (lake.clone(), stop.clone());
        async move {
            let mut sent = 90;
            while !stop.load(Ordering::Relaxed) {
                let (status, answer) =
                    lake.post("/streams/orders/records", "application/x-ndjson", orders(sent, 20)).await;
                assert_eq!(status, 200, "{answer:#}");
                sent += 20;
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            }
            sent
        }
    });
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    let taken = backup(emulator, folder.path()).await;
    stop.store(true, Ordering::Relaxed);
    let sent = sending.await.unwrap();
    lose_everything(emulator, &stack).await;
    restore(emulator, &taken).await;
    lake.flush("orders").await;
    assert_eq!(lake.number("SELECT count(*) FROM orders").await, Some(sent));
    assert_eq!(lake.number("SELECT count(DISTINCT id) FROM orders").await, Some(sent));
    run_daily(&lake).await;
    assert_eq!(lake.number("SELECT count(*) FROM mart.orders").await, Some(sent));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_backup_of_the_deployment_is_refused_before_anything_changes() {
    let emulator = Emulator::ministack();
    emulator.deploy(STACK, SHOP, &[]).await;
    let folder = tempfile::tempdir().unwrap();
    let damaged = folder.path().join("damaged.zip");
    std::fs::write(&damaged, "no zip").unwrap();
    let refused = deploy_py(emulator, &["restore", "--from", damaged.to_str().unwrap()]).await;
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(refused.status.code() == Some(1) && told.contains("damaged.zip"), "{told}");
}
