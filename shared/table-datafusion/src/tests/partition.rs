use super::*;
use shared::ErrorKind;

/// For each partition of the table, the last folder of its files and the rows in them.
async fn partitions(table: &Table) -> Vec<(String, u64)> {
    let table = table.reload().await.unwrap();
    let snapshot = table.metadata().current_snapshot().unwrap();
    let files = snapshot::live_files(table.io(), table.metadata(), snapshot).await.unwrap();
    let mut found: Vec<_> = files
        .iter()
        .map(|file| {
            let folder = file.data().file_path().rsplit('/').nth(1).unwrap().to_owned();
            (folder, file.data().record_count())
        })
        .collect();
    found.sort();
    found
}

fn named(folders: &[(&str, u64)]) -> Vec<(String, u64)> {
    folders.iter().map(|(folder, rows)| ((*folder).to_owned(), *rows)).collect()
}

#[tokio::test]
async fn every_transform_splits_rows_and_all_are_read_back() {
    let data = rows(&[(1, Some("United"), -1), (2, Some("Unite"), 0), (3, None, 31), (4, Some("Delta"), 400)]);
    let cases: [(&str, &[(&str, u64)]); 6] = [
        ("year(at)", &[("at_year=1969", 1), ("at_year=1970", 2), ("at_year=1971", 1)]),
        (
            "month(at)",
            &[("at_month=1969-12", 1), ("at_month=1970-01", 1), ("at_month=1970-02", 1), ("at_month=1971-02", 1)],
        ),
        (
            "day(at)",
            &[("at_day=1969-12-31", 1), ("at_day=1970-01-01", 1), ("at_day=1970-02-01", 1), ("at_day=1971-02-05", 1)],
        ),
        (
            "hour(at)",
            &[
                ("at_hour=1969-12-31-01", 1),
                ("at_hour=1970-01-01-01", 1),
                ("at_hour=1970-02-01-01", 1),
                ("at_hour=1971-02-05-01", 1),
            ],
        ),
        ("carrier", &[("carrier=Delta", 1), ("carrier=Unite", 1), ("carrier=United", 1), ("carrier=null", 1)]),
        ("truncate(3, carrier)", &[("carrier_trunc=Del", 1), ("carrier_trunc=Uni", 2), ("carrier_trunc=null", 1)]),
    ];
    for (field, folders) in cases {
        let table = table(&ports(), &[field]).await;
        append(&table, data.clone()).await;
        assert_eq!(partitions(&table).await, named(folders), "{field}");
        assert_eq!(ids(&table, Read::Current).await, ["1", "2", "3", "4"], "{field}");
        let late = "SELECT id FROM t WHERE at >= TIMESTAMP '1970-01-15T00:00:00' ORDER BY id";
        assert_eq!(sql(&table, Read::Current, late).await, ["3", "4"], "{field}");
        let early = "SELECT id FROM t WHERE at < TIMESTAMP '1970-01-01T00:00:00'";
        assert_eq!(sql(&table, Read::Current, early).await, ["1"], "{field}");
        assert_eq!(sql(&table, Read::Current, "SELECT id FROM t WHERE carrier IS NULL").await, ["3"], "{field}");
    }
}

#[tokio::test]
async fn a_hash_bucket_that_can_not_hold_the_value_is_not_read() {
    let table = table(&ports(), &["bucket(8, carrier)"]).await;
    // Values around the one that is asked for, so that bounds alone can't tell.
    let mixed: Vec<(i64, String)> = (0..200).map(|i| (i, format!("c{:03}", i * 37 % 200))).collect();
    let mixed: Vec<(i64, Option<&str>, i64)> = mixed.iter().map(|(i, c)| (*i, Some(c.as_str()), 0)).collect();
    append(&table, rows(&mixed)).await;
    assert_eq!(partitions(&table).await.len(), 8);
    let plan = sql(&table, Read::Current, "EXPLAIN SELECT id FROM t WHERE carrier = 'c037'").await.join("\n");
    assert!(plan.contains("files=1 of 8"), "{plan}");
    assert_eq!(sql(&table, Read::Current, "SELECT id FROM t WHERE carrier = 'c037'").await, ["1"]);
    assert_eq!(sql(&table, Read::Current, "SELECT count(*) FROM t WHERE carrier <> 'c037'").await, ["199"]);
}

#[tokio::test]
async fn any_number_of_partitions_makes_one_file_each() {
    let table = table(&ports(), &["id"]).await;
    let many: Vec<_> = (0..500).map(|i| (i % 100, Some("x"), i)).collect();
    append(&table, rows(&many)).await;
    let found = partitions(&table).await;
    assert_eq!(found.len(), 100);
    assert!(found.iter().all(|(_, rows)| *rows == 5));
    assert_eq!(sql(&table, Read::Current, "SELECT count(*), sum(id) FROM t").await, ["500 24750"]);
}

#[tokio::test]
async fn a_partition_field_that_can_not_be_is_refused_by_name() {
    for field in ["day(carrier)", "nothing", "day(nothing)", "truncate(4, at)"] {
        let tables = Tables::new(ports());
        let error = tables.ensure(&name(), &columns(), &[field.parse().unwrap()]).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
        assert!(error.to_string().contains(&format!("`{field}`")), "{error}");
    }
}
