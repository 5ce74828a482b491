//! `kill -9` at any moment: what was accepted is there once, nothing is there twice.

use std::collections::{BTreeMap, BTreeSet};

use crate::flow::{SHOP, orders, walk};
use crate::lake::{Lake, as_i64};

/// Sends batches until the process is gone. Gives the ids that were accepted and those whose fate the client can't know.
async fn send_until_killed(lake: &Lake, next: &mut i64) -> (BTreeSet<i64>, BTreeSet<i64>) {
    const BATCH: i64 = 40;
    let mut accepted = BTreeSet::new();
    loop {
        let ids = *next..*next + BATCH;
        *next += BATCH;
        match lake.try_post("/streams/orders/records", "application/x-ndjson", orders(ids.start, BATCH).into()).await {
            Ok((200, _)) => accepted.extend(ids),
            Ok((status, body)) => panic!("expected 200, found {status}: {body:#}"),
            Err(_) => return (accepted, ids.collect()),
        }
    }
}

#[tokio::test]
async fn no_accepted_record_is_lost_and_none_is_doubled_by_kill_9() {
    let mut lake = Lake::new(SHOP);
    let (mut accepted, mut unknown, mut next) = (BTreeSet::new(), BTreeSet::new(), 0);
    // From within the first request to after several commits: the buffer is written every second.
    for alive_ms in [120, 400, 900, 1300, 1700, 2600] {
        lake.start();
        let killer = lake.kill_in(alive_ms);
        let (yes, maybe) = send_until_killed(&lake, &mut next).await;
        killer.await.unwrap();
        lake.kill();
        accepted.extend(yes);
        unknown.extend(maybe);
    }
    assert!(accepted.len() > 200, "the client got something in: {}", accepted.len());

    lake.start();
    lake.flush("orders").await;
    let rows = lake.sql("SELECT id, count(*) FROM orders GROUP BY id").await;
    let stored: BTreeMap<i64, i64> = rows.iter().map(|r| (as_i64(&r[0]), as_i64(&r[1]))).collect();
    let lost: Vec<_> = accepted.iter().filter(|id| !stored.contains_key(id)).collect();
    let doubled: Vec<_> = stored.iter().filter(|(_, count)| **count != 1).collect();
    let invented: Vec<_> = stored.keys().filter(|id| !accepted.contains(id) && !unknown.contains(id)).collect();
    assert!(
        lost.is_empty() && doubled.is_empty() && invented.is_empty(),
        "lost {lost:?}, doubled {doubled:?}, invented {invented:?}"
    );
    assert_eq!(walk(&lake.data().join("objects/errors")).len(), 0);
}

#[tokio::test]
async fn a_workflow_that_is_killed_can_run_again_without_doubling() {
    let mut lake = Lake::new(SHOP);
    for (round, alive_ms) in [30, 120, 250, 400, 600].into_iter().enumerate() {
        lake.start();
        let first = i64::try_from(round).unwrap() * 30;
        let (status, put) = lake.post("/streams/orders/records", "application/x-ndjson", orders(first, 30)).await;
        assert_eq!(status, 200, "{put:#}");
        let (status, put) =
            lake.put(&format!("/files/customers/{round}.csv"), format!("id,name\n{},n\n", round + 1)).await;
        assert_eq!(status, 201, "{put:#}");
        lake.flush("orders").await;
        let killer = lake.kill_in(alive_ms);
        while lake.try_post("/workflows/daily/runs", "application/json", b"{}".into()).await.is_ok() {}
        killer.await.unwrap();
        lake.kill();
    }
    lake.start();
    lake.until("SELECT count(*) FROM customers", 5).await;
    let (status, run) = lake.post("/workflows/daily/runs", "application/json", "{}").await;
    assert_eq!((status, run["status"].as_str()), (200, Some("succeeded")), "{run:#}\n{}", lake.log());
    let totals = lake.sql("SELECT count(*), count(DISTINCT id), sum(amount) FROM mart.orders").await;
    assert_eq!((as_i64(&totals[0][0]), as_i64(&totals[0][1])), (150, 150), "{totals:?}");
    assert_eq!(lake.number("SELECT CAST(sum(orders) AS BIGINT) FROM mart.revenue").await, Some(150));
}
