//! A catalog of declared databases under the conformance suite.

use std::collections::BTreeSet;
use std::sync::Arc;

use adapters_embedded::catalog::EmbeddedCatalog;
use shared::ErrorKind;
use shared::catalog::declared::Declared;
use shared::catalog::{Catalog, ensure_database};
use shared::clock::SystemClock;
use shared::model::TableName;

fn seen(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[tokio::test]
async fn within_its_databases_it_is_the_catalog_itself() {
    let inner = Arc::new(EmbeddedCatalog::in_memory(Arc::new(SystemClock)).unwrap());
    let names = ["conformance", "conformance_a", "Not Lowercase"];
    super::catalog::conforms(Arc::new(Declared::new(inner, seen(&names)))).await;
}

#[tokio::test]
async fn databases_that_are_not_declared_or_not_made_are_not_there() {
    let inner = Arc::new(EmbeddedCatalog::in_memory(Arc::new(SystemClock)).unwrap());
    for name in ["ours", "theirs"] {
        ensure_database(inner.as_ref(), name).await.unwrap();
    }
    let declared = Declared::new(inner, seen(&["ours", "not_made_yet"]));
    let listed: Vec<_> = declared.list_databases().await.unwrap().into_iter().map(|d| d.name).collect();
    assert_eq!(listed, ["ours"]);
    let error = declared.list_tables("theirs").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.to_string().contains("expected one of `not_made_yet`, `ours`"), "{error}");
    let table = TableName::new("theirs", "t").unwrap();
    assert_eq!(declared.get_table(&table).await.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(declared.list_partitions(&table, &[]).await.unwrap_err().kind(), ErrorKind::NotFound);
}
