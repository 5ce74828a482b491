//! Files whose paths hold characters that mean something in a URL: a location is the key byte for byte.

use object_store::path::Path;

use super::foreign::{add_file, data_files, parquet_rows};
use super::*;
use shared::ErrorKind;

const PATHS: [&str; 7] = [
    "s=%C3%BC/a.parquet",
    "s=ü/a.parquet",
    "ts=2020-01-01T00%3A00%3A00/a.parquet",
    "s=a%2Fb/50%25.parquet",
    "s=a b/what?#fragment.parquet",
    "s=x+y&z=1/[1]{2}\"<3>`|^.parquet",
    "s=back\\slash/%zz%.parquet",
];

async fn with_odd_paths(ports: &Ports) -> Table {
    let mut now = table(ports, &[]).await;
    for (path, id) in PATHS.iter().zip(0_i64..) {
        now = add_file(&now, path, parquet_rows(&[(id, Some("UA"), 0), (id + 100, Some("AA"), 1)], 10)).await;
    }
    now
}

#[tokio::test]
async fn files_are_found_whatever_their_paths_look_like() {
    let ports = ports();
    let table = with_odd_paths(&ports).await;
    let (store, _) = ports.storage.resolve(ports.keys.root()).unwrap();
    for path in PATHS {
        let key = Path::parse(format!("tables/nyc/flights/data/{path}")).unwrap();
        object_store::ObjectStoreExt::head(store.as_ref(), &key).await.unwrap();
    }
    assert_eq!(ids(&table, Read::Current).await.len(), 2 * PATHS.len());
    for (path, id) in PATHS.iter().zip(0_i64..) {
        let found = sql(&table, Read::Current, &format!("SELECT id FROM t WHERE id = {id}")).await;
        assert_eq!(found, [id.to_string()], "{path}");
    }
}

#[tokio::test]
async fn rows_of_such_files_are_deleted_merged_and_put_together_and_the_files_go_with_the_table() {
    let ports = ports();
    let table = with_odd_paths(&ports).await;
    let rows_left = |left: &[&str]| left.iter().map(|id| (*id).to_owned()).collect::<Vec<_>>();
    let carrier = datafusion::prelude::col("carrier").eq(datafusion::prelude::lit("AA"));
    let empty = stream(rows(&[]));
    table.commit(Change::OverwriteWhere(vec![carrier]), empty, None).await.unwrap();
    assert_eq!(ids(&table, Read::Current).await, rows_left(&["0", "1", "2", "3", "4", "5", "6"]));
    let merged = stream(rows(&[(3, Some("DL"), 0), (9, None, 0)]));
    table.commit(Change::Merge { key: vec!["id".into()] }, merged, None).await.unwrap();
    assert_eq!(ids(&table, Read::Current).await, rows_left(&["0", "1", "2", "3", "4", "5", "6", "9"]));
    table.rewrite(&Rewrite { min_input_files: Some(1), ..Rewrite::default() }).await.unwrap();
    assert_eq!(data_files(&table.reload().await.unwrap()).await.len(), 1);
    assert_eq!(ids(&table, Read::Current).await.len(), 8);
    let tables = Tables::new(ports.clone());
    let later = Tables::new(Ports { clock: Arc::new(ManualClock::at(4_000_000_000_000)), ..ports.clone() });
    let report = later.load(&name()).await.unwrap().remove_orphans(&Orphans::default()).await.unwrap();
    assert_eq!(report.orphans, 0, "{report:?}");
    tables.drop(&name(), Purge::Own).await.unwrap();
    assert!(ports.storage.list(ports.keys.root()).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_path_that_no_store_holds_is_refused_with_its_text() {
    let ports = ports();
    let table = table(&ports, &[]).await;
    for path in ["a/../b.parquet", "a\nb.parquet"] {
        let location = foreign::location(&table, path);
        let error = table.io().put(&location, bytes::Bytes::new()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
        assert!(error.to_string().contains(&location.escape_debug().to_string()), "{error}");
    }
}
