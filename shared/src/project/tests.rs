use super::*;

const GOOD: &str = "
version: 1
database: nyc
streams:
  flights:
    schema:
      - {name: id, type: bigint, required: true}
      - {name: at, type: timestamp}
    partition_by: [day(at)]
    partition_key: id
locations:
  planes: {description: The planes}
workflows:
  curate:
    parameters: {start: 2013-01-01}
    jobs:
      daily:
        sql: SELECT day, count(*) AS n FROM clean WHERE day >= ${start} GROUP BY day
        into: daily
        write: merge
        key: [day]
      clean:
        sql: SELECT f.id, CAST(at AS DATE) AS day FROM flights f JOIN planes p ON p.id = f.id JOIN ref.dates ON true
        into: clean
        mode: incremental
        incremental: flights
        write: append
        quality:
          - {name: known, check: {row: id > 0}, action: quarantine}
          - {name: all, check: {completeness: {column: day, at_least: 1}}}
insights:
  departures: {kind: forecast, sql: 'SELECT day, n FROM daily', date: day, value: n}
";

fn problems(text: &str) -> Vec<String> {
    let error = Project::parse(text, "f").unwrap_err();
    error.to_string().lines().map(str::to_owned).collect()
}

/// The problems of the good file with `from` replaced by `to`.
fn changed(from: &str, to: &str) -> Vec<String> {
    assert!(GOOD.contains(from), "{from}");
    problems(&GOOD.replacen(from, to, 1))
}

#[test]
fn a_good_file_is_taken_and_says_what_feeds_what() {
    let project = Project::parse(GOOD, "f").unwrap();
    assert_eq!(project.job_order("curate").unwrap(), ["clean", "daily"]);
    assert_eq!(
        project.explain().unwrap(),
        "lakehouse `nyc`

streams
  flights → nyc.flights: 2 columns, written at 64MiB or after 1m, parted by day(at)

locations
  planes → nyc.planes: raw/planes/, crawled when a file lands

workflow curate, on demand, 2 at once
  1. clean: nyc.flights (new rows), nyc.planes, ref.dates → nyc.clean (append, 2 rules)
  2. daily: nyc.clean → nyc.daily (merge by day)

workflow maintenance, by default, at cron(0 3 * * *)
  nyc.flights (compacted, old snapshots expired, orphans removed)
  tarn.runs (compacted, old snapshots expired, orphans removed)

insights
  departures: nyc.daily → forecast of n for 14 periods, on demand

read, but written by nothing here (must be in the catalog): ref.dates
"
    );
    let lineage = serde_json::to_value(Lineage::of(&project).unwrap()).unwrap();
    assert!(lineage["edges"].as_array().unwrap().contains(&serde_json::json!(["table:nyc.clean", "job:curate.daily"])));
}

#[test]
fn all_problems_of_the_shape_are_reported_at_once_with_their_places() {
    let text = "version: one
databse: nyc
streams:
  flights:
    schema:
      - {name: id, type: bignt}
      - {nam: at, type: timestamp}
    buffer: {size: 5 parsecs, interval: 1m}
    shards: [1]
workflows:
  w:
    jobs:
      j: {sql: SELECT 1, into: t, write: upsert, quality: [{name: r, check: {rows: x}}]}
";
    let found = problems(text);
    let expected = [
        "f:1:1: expected the field `database`, found none",
        "f:1:10: version: expected a whole number of 0 or more, found `one`",
        "f:2:1: databse: unknown field `databse`; did you mean `database`?",
        "f:6:26: streams.flights.schema[0].type: expected a column type",
        "f:7:9: streams.flights.schema[1]: expected the field `name`, found none",
        "f:7:10: streams.flights.schema[1].nam: unknown field `nam`; did you mean `name`?",
        "f:8:20: streams.flights.buffer.size: expected a size such as `64MiB`, found `5 parsecs`",
        "f:9:13: streams.flights.shards: expected a whole number of 0 or more, found a list",
        "f:13:42: workflows.w.jobs.j.write: expected one of `overwrite`, `append`, `merge`, found `upsert`",
        "f:13:78: workflows.w.jobs.j.quality[0].check.rows: expected one of `row`, `completeness`, `unique`, `row_count`, found `rows`; did you mean `row`?",
    ];
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for (found, expected) in found.iter().zip(expected) {
        assert!(found.starts_with(expected), "{found}\n{expected}");
    }
}

#[test]
fn all_broken_rules_are_reported_at_once() {
    let text =
        GOOD.replace("partition_key: id", "partition_key: idd\n    shards: 65").replace("key: [day]", "key: [dya]");
    let found = problems(&text);
    assert_eq!(
        found,
        [
            "f:10:20: streams.flights.partition_key: expected a column (`id`, `at`), found `idd`; did you mean `id`?",
            "f:11:13: streams.flights.shards: expected 1 to 64, found `65`",
            "f:22:15: workflows.curate.jobs.daily.key[0]: expected a column (`day`, `n`), found `dya`; did you mean `day`?",
        ]
    );
}

#[test]
fn each_rule_refuses_what_breaks_it() {
    for (from, to, expected) in [
        ("version: 1", "version: 2", "version: expected 1, found `2`"),
        ("database: nyc", "database: NYC", "expected a database name"),
        ("  flights:\n", "  Flights:\n", "expected a stream name"),
        ("{name: at, type: timestamp}", "{name: id, type: timestamp}", "expected each column once, found `id` again"),
        ("type: timestamp}", "type: string}", "expected a column that `day(at)` can part, found one of type string"),
        ("partition_key: id", "buffer: {size: 129MiB}", "expected 1MiB to 128MiB, found `129MiB`"),
        ("partition_key: id", "buffer: {interval: 901s}", "expected 0s to 15m, found `901s`"),
        ("partition_key: id", "retention: 1h", "expected 1d to 365d, found `1h`"),
        ("partition_key: id", "was: orders", "`was` expects `table`, as a table is not renamed with its stream"),
        ("partition_key: id", "table: t\n    was: flights", "`flights`, which is declared"),
        ("partition_key: id", "table: t\n    was: Orders", "expected a stream name"),
        (
            "streams:\n",
            "streams:\n  a: {was: old, table: t, schema: [{name: id, type: int}]}\n  b: {was: old, table: u, schema: [{name: id, type: int}]}\n",
            "streams.b.was: expected each former name once, found `old`, which stream `a` has too",
        ),
        ("partition_key: id", "table: clean", "found `nyc.clean`, which `streams.flights.table` writes"),
        ("{description: The planes}", "{sample: 250}", "expected 1 to 249, found `250`"),
        ("{description: The planes}", "{exclude: ['a[']}", "expected a glob pattern"),
        (
            "planes: {description: The planes}",
            "planes: {}\n  more: {path: raw/planes/2013}",
            "overlaps `raw/planes/2013/`",
        ),
        ("key: [day]", "retries: 11", "`write: merge` expects the columns"),
        ("key: [day]", "key: [day]\n        retries: 11", "expected 0 to 10, found `11`"),
        ("key: [day]", "key: [day]\n        after: [claen]", "found `claen`; did you mean `clean`?"),
        ("write: append", "write: append\n        key: [id]", "`key` is for `write: merge` only"),
        ("        incremental: flights\n", "", "`mode: incremental` expects the table"),
        (
            "        mode: incremental\n",
            "        on_source_delete: fail\n",
            "`on_source_delete` is for `mode: incremental` only",
        ),
        ("incremental: flights", "incremental: daily", "expected a table that the SQL reads"),
        ("        mode: incremental\n", "", "`incremental` is for `mode: incremental` only"),
        ("into: daily", "into: a.b.c", "expected `table` or `database.table`"),
        ("SELECT day, count(*)", "SELEC day, count(*)", "expected a SELECT"),
        ("${start}", "${strat}", "found `${strat}`; did you mean `start`?"),
        ("row: id > 0", "row: id >", "expected an SQL condition"),
        ("at_least: 1}", "at_least: 1.5}", "expected 0 to 1, found `1.5`"),
        ("at_least: 1}}", "at_least: 1}}, action: quarantine", "`quarantine` is for `row` rules only"),
        ("value: n", "value: m", "expected a column (`day`, `n`), found `m`"),
        ("value: n", "value: n, horizon: 0", "expected 1 to 1000, found `0`"),
        ("value: n", "value: n, interval: 1", "expected 0.5 to 0.99, found `1`"),
        ("value: n", "value: n, schedule: cron(61 * * * *)", "expected `cron(minute hour day month weekday)`"),
    ] {
        let found = changed(from, to);
        assert!(found.iter().any(|problem| problem.contains(expected)), "{to}: {found:#?}");
    }
}

#[test]
fn jobs_that_wait_for_each_other_are_refused_with_the_circle() {
    let found = changed("JOIN ref.dates ON true", "JOIN daily ON true");
    assert_eq!(found.len(), 1, "{found:#?}");
    assert!(
        found[0].ends_with("workflows.curate.jobs: jobs wait for each other in a circle: `clean` → `daily` → `clean`"),
        "{found:#?}"
    );
    let declared = GOOD
        .replace("JOIN ref.dates ON true", "JOIN daily ON true")
        .replace("mode: incremental", "after: [daily]\n        mode: incremental");
    assert_eq!(Project::parse(&declared, "f").unwrap().job_order("curate").unwrap(), ["daily", "clean"]);
}

const KEPT: &str = "
version: 1
database: nyc
workflows:
  nightly:
    jobs:
      fill: {sql: SELECT 1 AS id, into: flights, write: append}
    maintenance:
      keep:
        table: flights
        compact: {sort: [day, id desc], file_size: 256MiB, min_files: 3}
        expire: {older_than: 7d, keep: 10}
        orphans: {older_than: 3d}
        retries: 2
      look: {table: mart.planes, orphans: {}, dry_run: true, after: [keep]}
";

#[test]
fn tables_are_kept_after_the_jobs_that_write_them() {
    let project = Project::parse(KEPT, "f").unwrap();
    assert_eq!(project.job_order("nightly").unwrap(), ["fill", "keep", "look"]);
    assert!(project.databases().contains("mart"), "{:?}", project.databases());
    let compact = project.workflow("nightly").unwrap().maintenance["keep"].compact.clone().unwrap();
    let sort: Vec<_> = compact.sort_columns().unwrap().into_iter().map(|by| (by.column, by.descending)).collect();
    assert_eq!(sort, [("day".to_owned(), false), ("id".to_owned(), true)]);
    let text = project.explain().unwrap();
    assert!(text.contains("2. keep: nyc.flights (compacted, old snapshots expired, orphans removed)"), "{text}");
    assert!(text.contains("3. look: mart.planes (orphans removed, as a dry run)"), "{text}");
    // Where the user says so the table is kept first.
    let first = KEPT.replace("write: append}", "write: append, after: [keep]}");
    assert_eq!(Project::parse(&first, "f").unwrap().job_order("nightly").unwrap(), ["keep", "fill", "look"]);
}

#[test]
fn each_rule_of_maintenance_refuses_what_breaks_it() {
    for (from, to, expected) in [
        ("table: flights", "table: a.b.c", "expected `table` or `database.table`"),
        ("sort: [day, id desc]", "sort: [day up]", "found `day up`"),
        ("sort: [day, id desc]", "sort: [day], z_order: [id]", "expected `sort` or `z_order`, found both"),
        ("file_size: 256MiB", "file_size: 1KiB", "expected 1MiB to 4GiB, found `1KiB`"),
        ("min_files: 3", "min_files: 1", "expected 2 to 1000, found `1`"),
        ("keep: 10", "keep: 0", "found `0`"),
        ("older_than: 3d", "older_than: 1h", "expected 1d to 3650d, found `1h`"),
        ("retries: 2", "retries: 11", "expected 0 to 10, found `11`"),
        ("after: [keep]", "after: [kepe]", "found `kepe`; did you mean `keep`?"),
        ("orphans: {}, ", "", "expected something to do"),
        ("      keep:\n", "      fill:\n", "expected a name that no other job has, found `fill`"),
        ("dry_run: true", "dryrun: true", "did you mean `dry_run`?"),
    ] {
        assert!(KEPT.contains(from), "{from}");
        let error = Project::parse(&KEPT.replace(from, to), "f").unwrap_err().to_string();
        assert!(error.contains(expected), "{to}: {error}");
    }
}

#[test]
fn the_checked_in_json_schema_is_that_of_the_types() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/lakehouse.schema.json");
    let current = format!("{:#}\n", json_schema());
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, &current).unwrap();
    }
    let stored = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(stored == current, "`docs/lakehouse.schema.json` is stale: run the test with UPDATE_GOLDEN=1");
}

#[test]
fn its_databases_are_its_own_and_those_that_it_names() {
    let file = GOOD
        .replace("into: daily\n", "into: mart.daily\n")
        .replace("planes: {description: The planes}", "planes: {database: lookup}")
        .replace("partition_key: id\n", "partition_key: id\n    table: events.flights\n")
        .replace("sql: 'SELECT day, n FROM daily'", "into: told.departures, sql: 'SELECT day, n FROM mart.daily'");
    let project = Project::parse(&file, "f").unwrap();
    let found: Vec<_> = project.databases().iter().map(String::as_str).collect();
    assert_eq!(found, ["events", "lookup", "mart", "nyc", "ref", "tarn", "told"]);
}

/// The tables that the good file keeps by default, with `more` below it.
fn kept(more: &str) -> Vec<String> {
    let project = Project::parse(&format!("{GOOD}{more}"), "f").unwrap_or_else(|e| panic!("{more}: {e}"));
    let workflow = project.workflow(DEFAULT_WORKFLOW).ok().filter(|_| project.keeps_by_default(DEFAULT_WORKFLOW));
    workflow.into_iter().flat_map(|workflow| workflow.maintenance.keys().cloned()).collect()
}

#[test]
fn tables_of_streams_and_of_runs_are_kept_unless_the_file_says_otherwise() {
    assert_eq!(kept(""), ["nyc.flights", "tarn.runs"]);
    assert_eq!(kept("maintenance: on\n"), kept(""));
    for off in ["off", "false", "{compact: off, expire: off, orphans: off}"] {
        assert!(kept(&format!("maintenance: {off}\n")).is_empty(), "{off}");
    }
    let project = Project::parse(
        &format!("{GOOD}maintenance: {{schedule: rate(1h), expire: {{older_than: 2d, keep: 3}}, orphans: off}}\n"),
        "f",
    )
    .unwrap();
    let workflow = project.workflow("maintenance").unwrap();
    assert_eq!(workflow.schedule.as_ref().unwrap().to_string(), "rate(1h)");
    let flights = &workflow.maintenance["nyc.flights"];
    assert_eq!(flights.compact, Some(Compaction::default()));
    assert_eq!(flights.expire, Some(Expiry { older_than: Some(Seconds(2 * 86_400)), keep: Some(3) }));
    assert_eq!(flights.orphans, None);
    // A stream leaves by itself, and a table that a workflow keeps is its own.
    let without = GOOD.replace("    partition_key: id\n", "    partition_key: id\n    maintenance: off\n");
    let project = Project::parse(&without, "f").unwrap();
    assert!(project.workflow("maintenance").unwrap().maintenance.keys().eq(["tarn.runs"]));
    let named = "  nightly: {maintenance: {keep: {table: flights, compact: {}}}}\ninsights:";
    let project = Project::parse(&GOOD.replace("insights:", named), "f").unwrap();
    assert!(project.workflow("maintenance").unwrap().maintenance.keys().eq(["tarn.runs"]));
    // Nothing writes anything: there is nothing to keep.
    let project = Project::parse("version: 1\ndatabase: nyc\n", "f").unwrap();
    assert!(project.file().workflows.is_empty());
}

#[test]
fn what_maintenance_by_default_can_not_be_is_refused_by_name() {
    let refused = |more: &str| problems(&format!("{GOOD}{more}")).join("\n");
    for (more, expected) in [
        ("maintenance: never\n", "maintenance: expected one of `on`, `off`, `true`, `false`, found `never`"),
        ("maintenance: {schedul: rate(1h)}\n", "unknown field `schedul`"),
        ("maintenance: {schedule: daily}\n", "expected `rate(5m)`"),
        ("maintenance: {compact: {sort: [id]}}\n", "`sort` is for a workflow's `maintenance`"),
        ("maintenance: {expire: {keep: 0}}\n", "maintenance.expire.keep: expected 1 to"),
        ("maintenance: {orphans: {older_than: 1h}}\n", "maintenance.orphans.older_than: expected 1d to"),
        ("maintenance: [off]\n", "expected a map of fields, found a list"),
    ] {
        let found = refused(more);
        assert!(found.contains(expected), "{more}: {found}");
    }
    let named = GOOD.replace("  curate:", "  maintenance:");
    assert!(
        problems(&named).join("\n").contains("`maintenance: off` at the top of the file"),
        "{:?}",
        problems(&named)
    );
    // Without it the name is anybody's.
    let project = Project::parse(&format!("{named}maintenance: off\n"), "f").unwrap();
    assert!(project.workflow("maintenance").unwrap().jobs.contains_key("clean"));
    assert!(!project.keeps_by_default("maintenance"));
}
