//! A hundred writers at once, each like a process of its own.

use std::time::{Duration, Instant};

use datafusion::logical_expr::lit;
use datafusion::prelude::col;

use super::rows::TestChange;
use super::*;
use shared::catalog::AdvisoryLocks;

const WRITERS: i64 = 100;
/// The time that a writer gets by default, after which it gives up, and a little more to read and write its rows.
const BOUND: Duration = Duration::from_secs(70);

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_hundred_writers_at_once_lose_and_double_no_row() {
    let ports = ports();
    let table = table(&ports, &[]).await;
    append(&table, rows(&[(-1, Some("0"), 0)])).await;
    let started = Instant::now();
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..WRITERS {
        let ports = Ports { locks: AdvisoryLocks::default(), ..ports.clone() };
        writers.spawn(async move {
            // Nothing is shared but catalog and store: no cache, no queue.
            let table = Tables::new(ports).load(&name()).await.unwrap();
            let own = rows(&[(writer, Some("own"), writer)]);
            match writer % 4 {
                0 => {
                    let shared = rows(&[(writer, Some("own"), writer), (-1, Some("merged"), 0)]);
                    let key = vec!["id".to_owned()];
                    table.commit(Change::Merge { key }, stream(shared), None).await.unwrap()
                }
                1 => {
                    let merge = TestChange::merge(own).filtered(col("id").eq(lit(writer)));
                    table.change_rows(&merge, None).await.unwrap()
                }
                _ => append(&table, own).await,
            }
        });
    }
    let done = writers.join_all().await;
    let took = started.elapsed();
    assert!(took < BOUND, "{took:?}");
    let mut expected: Vec<_> = (0..WRITERS).map(|id| format!("{id} own")).collect();
    expected.insert(0, "-1 merged".into());
    assert_eq!(sql(&table, Read::Current, "SELECT id, carrier FROM t ORDER BY id").await, expected);
    assert_eq!(table.reload().await.unwrap().history().len(), 101);
    let most = done.iter().map(|done| done.attempts).max().unwrap();
    assert!(most < 100, "a writer needed {most} tries");
}
