//! Whether the SQL of a lakehouse file can be planned, over no tables and over those that there are.

use shared::project::Project;
use transform::check::{Findings, check};

use crate::lake::Lake;

const FILE: &str = "
version: 1
database: nyc
streams:
  orders: {schema: [{name: id, type: bigint}, {name: at, type: timestamp}, {name: tags, type: 'map<string,string>'}]}
locations: {customers: {}}
workflows:
  daily:
    parameters: {since: '', n: '3'}
    jobs:
      # Names come before what they are made of.
      a_total: {sql: 'SELECT day, n FROM by_day WHERE n > ${n}', into: total, partition_by: [day]}
      by_day:
        sql: SELECT *, CAST(at AS DATE) AS day, 1 AS n FROM orders WHERE at >= ${since}
        into: by_day
        write: merge
        key: [id]
        quality:
          - {name: r, check: {row: 'n > ${n} AND id > 0'}}
          - {name: c, check: {completeness: {column: day, at_least: 1}}}
          - {name: u, check: {unique: [id, day]}}
      known: {sql: 'SELECT c.name, c.nosuch FROM customers c JOIN orders o USING (id)', into: named}
      behind: {sql: 'SELECT anything FROM named', into: behind}
      runs: {sql: 'SELECT job, status, i FROM tarn.runs, generate_series(1, 2) AS g(i), information_schema.tables', into: runs}
    maintenance:
      kept: {table: by_day, compact: {sort: [day desc, id]}}
insights:
  next: {kind: forecast, sql: 'SELECT day, n FROM by_day', date: day, value: n}
";

async fn checked(lake: &Lake, text: &str, with_tables: bool) -> Findings {
    let project = Project::parse(text, "f").unwrap();
    check(&project, &lake.engine, with_tables.then_some(&lake.tables)).await.unwrap()
}

/// The problems of the file with some texts replaced: the path, and the first line of the message.
async fn problems(lake: &Lake, edits: &[(&str, &str)]) -> Vec<(String, String)> {
    let mut text = FILE.to_owned();
    for (from, to) in edits {
        assert!(text.contains(from), "{from}");
        text = text.replacen(from, to, 1);
    }
    let problems = checked(lake, &text, false).await.problems.into_iter();
    problems.map(|(path, message)| (path.to_string(), message.lines().next().unwrap().to_owned())).collect()
}

#[tokio::test]
async fn what_can_be_planned_has_no_problem_and_what_is_not_known_is_told() {
    let lake = Lake::new().await;
    let Findings { problems, unchecked } = checked(&lake, FILE, false).await;
    assert_eq!(problems, []);
    let told: Vec<_> = unchecked.iter().map(|part| format!("{} {}", part.path, part.why)).collect();
    assert_eq!(
        told,
        [
            "workflows.daily.jobs.known.sql reads `nyc.customers`: its columns are known once the files of location `customers` are crawled",
            "workflows.daily.jobs.behind.sql reads `nyc.named`: `workflows.daily.jobs.known.sql`, which makes it, could not be planned",
        ]
    );
}

#[tokio::test]
async fn every_mistake_is_found_at_its_place() {
    let lake = Lake::new().await;
    let found = problems(
        &lake,
        &[
            ("SELECT day, n FROM by_day WHERE n > ${n}", "SELECT * FROM by_day WHERE dayy > ${n}"),
            ("partition_by: [day]", "partition_by: [month]"),
            ("key: [id]", "key: [ident]"),
            ("n > ${n} AND id > 0", "total > ${n}"),
            ("{column: day, at_least", "{column: dy, at_least"),
            ("unique: [id, day]", "unique: [id, d]"),
            ("sort: [day desc, id]", "sort: [id, days desc]"),
            ("date: day, value: n", "date: n, value: day"),
        ],
    )
    .await;
    let job = |rest: &str| format!("workflows.daily.jobs.{rest}");
    let paths: Vec<&str> = found.iter().map(|(path, _)| path.as_str()).collect();
    assert_eq!(
        paths,
        [
            job("by_day.key[0]").as_str(),
            &job("by_day.quality[0].check.row"),
            &job("by_day.quality[1].check.completeness.column"),
            &job("by_day.quality[2].check.unique[1]"),
            &job("a_total.sql"),
            "workflows.daily.maintenance.kept.compact.sort[1]",
            "insights.next.date",
            "insights.next.value",
        ],
        "{found:#?}"
    );
    for (at, part) in [
        (0, "found `ident`"),
        (1, "total"),
        (2, "did you mean `day`?"),
        (4, "possible column by_day.day"),
        (5, "`days`"),
    ] {
        assert!(found[at].1.contains(part), "{part}: {found:#?}");
    }
}

#[tokio::test]
async fn types_are_checked_too_and_values_of_parameters_are_not() {
    let lake = Lake::new().await;
    let found = problems(&lake, &[("WHERE n > ${n}", "WHERE tags > n AND n > ${n}")]).await;
    assert_eq!((found.len(), found[0].0.as_str()), (1, "workflows.daily.jobs.a_total.sql"), "{found:#?}");
    assert_eq!(problems(&lake, &[("since: ''", "since: no date")]).await, []);
}

#[tokio::test]
async fn tables_that_are_there_count_and_what_they_have_stays() {
    let lake = Lake::new().await;
    lake.add("orders", "SELECT 1 AS id, 'x' AS more").await;
    lake.csv_table("customers", &[("id", "bigint"), ("name", "string")]).await;
    let text = FILE.replace("SELECT anything FROM named", "SELECT more FROM orders");
    let alone = checked(&Lake::new().await, &text, false).await;
    assert_eq!(alone.problems.len(), 1, "by itself the file has no such column: {alone:?}");
    let Findings { problems, unchecked } = checked(&lake, &text, true).await;
    let paths: Vec<_> = problems.iter().map(|(path, _)| path.to_string()).collect();
    assert_eq!(paths, ["workflows.daily.jobs.known.sql"], "{problems:#?} {unchecked:#?}");
}

#[tokio::test]
async fn a_table_that_can_not_take_the_rows_and_jobs_in_a_circle_are_told() {
    let lake = Lake::new().await;
    lake.add("total", "SELECT 'text' AS n").await;
    let found = checked(&lake, FILE, true).await.problems;
    assert!(
        found.iter().any(|(path, message)| path.to_string().ends_with("a_total.sql") && message.contains("`n`")),
        "{found:?}"
    );
    let circle = "
version: 1
database: nyc
workflows:
  a: {jobs: {x: {sql: SELECT v FROM t, into: u}}}
  b: {jobs: {y: {sql: SELECT v FROM u, into: t}}}
  c: {jobs: {own: {sql: 'SELECT v FROM mine UNION SELECT 1 AS v', into: mine, write: append}}}
";
    let Findings { problems, unchecked } = checked(&lake, circle, false).await;
    assert_eq!((problems.len(), unchecked.len()), (0, 3), "{problems:?} {unchecked:?}");
}
