//! An upgrade and the way back while clients send: no record is lost, none is stored twice.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::Emulator;
use crate::flow::{SHOP, orders};
use crate::lake::Lake;

const STACK: &str = "tarn-upgrade";
const BATCH: i64 = 40;

/// Sends batch after batch, each until it is stored, until told to stop; how many records were stored.
async fn send(lake: Arc<Lake>, stop: Arc<AtomicBool>) -> i64 {
    let mut sent = 0;
    while !stop.load(Ordering::Relaxed) {
        let key = format!("batch-{sent}");
        let headers = [("content-type", "application/x-ndjson"), ("idempotency-key", key.as_str())];
        let body = orders(sent, BATCH).into_bytes();
        loop {
            match lake.try_send("POST", "/streams/orders/records", &headers, body.clone()).await {
                Ok((200, answer)) => {
                    assert_eq!(answer["stored"], BATCH, "{answer:#}");
                    break;
                }
                Ok((status, answer)) => assert!(status == 429 || status >= 500, "{status} {answer:#}"),
                Err(error) => panic!("the API was not there: {error:?}"),
            }
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
        sent += BATCH;
    }
    sent
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_and_the_way_back_under_load_lose_no_record_and_double_none() {
    let emulator = Emulator::ministack();
    let first = emulator.deploy(STACK, SHOP, &[]).await;
    let lake = Arc::new(Lake::deployed(SHOP, first.api()));
    let stop = Arc::new(AtomicBool::new(false));
    let client = tokio::spawn(send(lake.clone(), stop.clone()));

    let second = emulator.deploy(STACK, SHOP, &["LogFilter=debug"]).await;
    assert_ne!(first.release(), second.release(), "a changed setting is another release");
    let back = emulator.deploy(STACK, SHOP, &["LogFilter=info"]).await;
    assert_eq!(back.release(), first.release());
    stop.store(true, Ordering::Relaxed);
    let sent = client.await.unwrap();

    assert!(sent > BATCH, "records were sent meanwhile: {sent}");
    lake.flush("orders").await;
    lake.until("SELECT count(*) FROM orders", sent).await;
    assert_eq!(lake.number("SELECT count(DISTINCT id) FROM orders").await, Some(sent));
}
