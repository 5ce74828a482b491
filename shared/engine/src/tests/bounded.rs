//! Statements that are deep, unfold to much, make much or take long: answered or refused in time, and the process goes on.

use std::time::Instant;

use super::*;

async fn answered(lake: &Lake, sql: &str) -> Result<Vec<RecordBatch>> {
    let options = QueryOptions {
        database: "db".into(),
        timeout: Some(Duration::from_secs(120)),
        ..QueryOptions::new(Principal::Owner)
    };
    Ok(lake.engine.execute(sql, &options).await?.collect().await?.0)
}

async fn refusal(lake: &Lake, sql: &str) -> Error {
    let began = Instant::now();
    let shown: String = sql.chars().take(80).collect();
    let error = answered(lake, sql).await.map(|_| ()).expect_err(&shown);
    assert_eq!(error.kind(), ErrorKind::Limit, "{shown}: {error}");
    assert!(began.elapsed() < Duration::from_secs(60), "{shown}: {:?}", began.elapsed());
    error
}

/// `of` as often as said, with `between`.
fn chain(of: &str, between: &str, times: usize) -> String {
    vec![of; times].join(between)
}

#[tokio::test(flavor = "multi_thread")]
async fn long_chains_are_answered_in_every_kind_of_statement() {
    let lake = Lake::new().await;
    answered(&lake, "CREATE TABLE t (x bigint)").await.unwrap();
    let ors = format!("SELECT x FROM t WHERE {}", chain("x = 3", " OR ", 2_000));
    for statement in [
        format!("SELECT {} AS x", chain("1", " + ", 2_000)),
        format!("SELECT x FROM t WHERE {}", chain("x <> 3", " AND ", 1_500)),
        chain("SELECT 1 AS x", " UNION ALL ", 300),
        format!("EXPLAIN {ors}"),
        format!("INSERT INTO t {ors}"),
    ] {
        let shown: String = statement.chars().take(80).collect();
        answered(&lake, &statement).await.unwrap_or_else(|error| panic!("{shown}: {error}"));
    }
    let condition = chain("t.x = s.x", " AND ", 1_500);
    let merge =
        format!("MERGE INTO t USING (SELECT 1 AS x) s ON {condition} WHEN NOT MATCHED THEN INSERT VALUES (s.x)");
    answered(&lake, &merge).await.unwrap();
    answered(&lake, &format!("DELETE FROM t WHERE {}", chain("x = 7", " OR ", 2_000))).await.unwrap();
    answered(&lake, &format!("UPDATE t SET x = {} WHERE x = 9", chain("1", " + ", 500))).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_common_table_expressions_are_answered() {
    let lake = Lake::new().await;
    let steps: String = (1..1_000).map(|n| format!(", c{n} AS (SELECT x + 1 AS x FROM c{})", n - 1)).collect();
    let sql = format!("WITH c0 AS (SELECT 0 AS x){steps} SELECT x FROM c999");
    let rows = answered(&lake, &sql).await.unwrap();
    assert_eq!(rows[0].column(0).as_any().downcast_ref::<Int64Array>().unwrap().value(0), 999);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_long_or_unfolds_to_too_much_is_refused_by_counting() {
    let lake = Lake::new().await;
    answered(&lake, "CREATE TABLE t (x bigint)").await.unwrap();
    let long = chain("1", " + ", 30_000);
    let doubled: String = (1..=17).map(|n| format!(", c{n} AS (SELECT * FROM c{0}, c{0})", n - 1)).collect();
    let doubled = format!("WITH c0 AS (SELECT 1 AS x){doubled} SELECT count(*) FROM c17");
    let columns = (0..12).map(|n| format!("c{n}")).collect::<Vec<_>>().join(", ");
    let cube =
        format!("SELECT count(*) FROM (VALUES ({})) AS v({columns}) GROUP BY CUBE ({columns})", chain("1", ", ", 12));
    for sql in [format!("SELECT {long}"), doubled, cube] {
        refusal(&lake, &sql).await;
        refusal(&lake, &format!("EXPLAIN {sql}")).await;
        refusal(&lake, &format!("INSERT INTO t {sql}")).await;
    }
    refusal(&lake, &format!("DELETE FROM t WHERE x = {long}")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn functions_make_no_more_than_a_share_of_the_memory() {
    let lake = Lake::new().await;
    for call in [
        "rpad('x', 2000000000, 'x')",
        "lpad('x', 2000000000, 'y')",
        "rpad('x', 2000000000, ' ')",
        "replace(rpad('x', 1000000, 'x'), 'x', rpad('y', 1000, 'y'))",
        "regexp_replace(rpad('x', 1000000, 'x'), 'x', rpad('y', 1000, 'y'))",
        "array_repeat('x', 2000000000)",
        "range(1, 2000000000)",
        "generate_series(1, 2000000000)",
        "generate_series(DATE '0001-01-01', DATE '9999-01-01', INTERVAL '1' SECOND)",
        "array_resize([1], 2000000000, 7)",
    ] {
        let error = refusal(&lake, &format!("SELECT {call}")).await;
        assert!(error.to_string().contains("bytes"), "{call}: {error}");
    }
    refusal(&lake, "SELECT rpad('x', 1000000, 'x') AS x FROM generate_series(1, 10000)").await;
    let large =
        "SELECT count(*) FROM (SELECT rpad('x', 100000, 'x') AS x, value FROM generate_series(1, 10000)) GROUP BY x";
    answered(&lake, large).await.unwrap();
    refusal(&lake, "SELECT rpad('x', value, 'x') FROM generate_series(100000, 110000)").await;
    for (call, length) in
        [("length(rpad('x', 1000000, 'x'))", 1_000_000), ("length(replace(rpad('x', 9000, 'x'), 'y', 'zzz'))", 9_000)]
    {
        let rows = answered(&lake, &format!("SELECT CAST({call} AS bigint)")).await.unwrap();
        let found = rows[0].column(0).as_any().downcast_ref::<Int64Array>().unwrap().value(0);
        assert_eq!(found, length, "{call}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cube_stays_within_the_memory_of_the_engine() {
    let lake = Lake::new().await;
    let columns = (0..8).map(|n| format!("value % {} AS c{n}", n + 2)).collect::<Vec<_>>().join(", ");
    let names = (0..8).map(|n| format!("c{n}")).collect::<Vec<_>>().join(", ");
    let sql = format!(
        "SELECT count(*) FROM (SELECT count(*) FROM (SELECT {columns} FROM generate_series(1, 3000)) GROUP BY CUBE ({names}))"
    );
    let rows = answered(&lake, &sql).await.unwrap();
    assert!(rows[0].column(0).as_any().downcast_ref::<Int64Array>().unwrap().value(0) > 3_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn joins_that_give_nothing_for_long_end_with_their_time() {
    let lake = Lake::new().await;
    let options = QueryOptions { timeout: Some(Duration::from_secs(1)), ..QueryOptions::new(Principal::Owner) };
    for sql in [
        "SELECT count(*) FROM generate_series(1, 300000) a JOIN generate_series(1, 300000) b ON a.value + b.value < 0",
        "SELECT count(*) FROM generate_series(1, 300000) a, generate_series(1, 300000) b",
        "SELECT sum(a.value) FROM generate_series(1, 300000) a JOIN generate_series(1, 300000) b ON a.value % 1 = b.value % 1 AND a.value < -b.value",
    ] {
        let began = Instant::now();
        let started = lake.engine.query(sql, &options).await;
        let error = match started {
            Ok(answer) => answer.collect().await.map(|_| ()).unwrap_err(),
            Err(error) => error,
        };
        assert_eq!(error.kind(), ErrorKind::Limit, "{sql}: {error}");
        assert!(began.elapsed() < Duration::from_secs(5), "{sql}: {:?}", began.elapsed());
    }
}
