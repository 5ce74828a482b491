use super::*;
use shared::ErrorKind;

/// Metadata files of the table whose name contains `part`.
async fn metadata_file(table: &Table, part: &str) -> url::Url {
    let all = table.ports().storage.list(&table.ports().keys.table(&name())).await.unwrap();
    all.into_iter().map(|o| o.url).find(|url| url.path().contains(part)).unwrap()
}

#[tokio::test]
async fn damaged_or_missing_metadata_is_named() {
    for part in ["metadata.json", "snap-", "-m0.avro"] {
        for missing in [true, false] {
            let ports = ports();
            let table = table(&ports, &[]).await;
            append(&table, rows(&[(1, None, 0)])).await;
            let table = table.reload().await.unwrap();
            let file = match part {
                "metadata.json" => table.metadata_location().parse().unwrap(),
                part => metadata_file(&table, part).await,
            };
            if missing {
                ports.storage.delete(&file).await.unwrap();
            } else {
                ports.storage.put(&file, "not what it was").await.unwrap();
            }
            // Another process, with nothing cached.
            let read = async {
                let table = Tables::new(ports.clone()).load(&name()).await?;
                let session = SessionContext::new();
                session.register_table("t", table.provider(Read::Current).await?)?;
                Ok::<_, Error>(session.sql("SELECT id FROM t").await?.create_physical_plan().await?)
            };
            let error = read.await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Bug, "{error}");
            assert!(error.to_string().contains(file.as_str()), "{error}");
        }
    }
}

#[tokio::test]
async fn a_missing_data_file_fails_the_query_and_is_named() {
    let table = table(&ports(), &[]).await;
    append(&table, rows(&[(1, None, 0)])).await;
    let file = metadata_file(&table, ".parquet").await;
    table.ports().storage.delete(&file).await.unwrap();
    let table = table.reload().await.unwrap();
    let frame = session(&table, Read::Current).await.sql("SELECT id FROM t").await.unwrap();
    let error = Error::from(frame.collect().await.unwrap_err());
    assert!(error.to_string().contains(file.path().trim_start_matches('/')), "{error}");
}
