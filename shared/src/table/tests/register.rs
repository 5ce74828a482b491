use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;

use super::*;
use crate::ErrorKind;

fn other() -> TableName {
    TableName::new("nyc", "taken_over").unwrap()
}

#[tokio::test]
async fn a_table_is_entered_by_its_metadata_packed_or_not_and_can_be_changed() {
    for packed in [false, true] {
        let ports = ports();
        let first = table(&ports, &[]).await;
        append(&first, rows(&[(1, Some("UA"), 0), (2, None, 0)])).await;
        let first = first.reload().await.unwrap();
        let mut location = first.metadata_location().to_owned();
        if packed {
            let text = ports.storage.get(&location.parse().unwrap()).await.unwrap();
            let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
            gzip.write_all(&text).unwrap();
            location = location.replace(".metadata.json", ".gz.metadata.json");
            ports.storage.put(&location.parse().unwrap(), gzip.finish().unwrap()).await.unwrap();
        }
        ports.catalog.delete_table(&name()).await.unwrap();
        let taken = Tables::new(ports.clone()).register(&other(), &location).await.unwrap();
        assert_eq!(taken.columns(), first.columns());
        append(&taken, rows(&[(3, None, 0)])).await;
        assert_eq!(ids(&taken, Read::Current).await, ["1", "2", "3"], "packed: {packed}");
        let again = Tables::new(ports).register(&other(), &location).await.unwrap_err();
        assert_eq!(again.kind(), ErrorKind::Conflict, "{again}");
    }
}

#[tokio::test]
async fn what_is_no_metadata_is_refused_with_its_place() {
    let ports = ports();
    let root = ports.keys.root().clone();
    let tables = Tables::new(ports.clone());
    let file = root.join("x/metadata/v1.metadata.json").unwrap();
    table(&ports, &[]).await;
    for (place, content, kind) in [
        (file.as_str(), None, ErrorKind::Invalid),
        (file.as_str(), Some("{}"), ErrorKind::Invalid),
        (file.as_str(), Some(r#"{"format-version": 2}"#), ErrorKind::Invalid),
        ("no place", None, ErrorKind::Invalid),
        ("/etc/passwd", None, ErrorKind::Denied),
    ] {
        if let Some(content) = content {
            ports.storage.put(&file, content).await.unwrap();
        }
        let error = tables.register(&other(), place).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{place}: {error}");
        assert!(error.to_string().contains(place), "{error}");
        assert_eq!(tables.load(&other()).await.unwrap_err().kind(), ErrorKind::NotFound);
    }
}
