//! Rows of a subject leave a table for good.

use super::rows::with_properties;
use super::*;
use crate::erase::{self, Missing, Purged};
use shared::erasure::Subject;

fn subject(condition: &str) -> Subject {
    Subject::parse(condition).unwrap()
}

async fn erased(table: &Table, subject: &Subject) -> Purged {
    let table = table.reload().await.unwrap();
    let mut purged = erase::delete(&table, subject, &Rewrite::default()).await.unwrap();
    let found = erase::traces(&table, subject).await.unwrap();
    erase::purge(&table.reload().await.unwrap(), &found, &mut purged).await.unwrap();
    purged
}

#[tokio::test]
async fn nothing_of_a_subject_is_left_in_any_file_of_any_version() {
    for mode in ["copy-on-write", "merge-on-read"] {
        let ports = ports();
        let table = table(&ports, &["day(at)"]).await;
        let properties = ["delete", "update", "merge"].map(|kind| format!("write.{kind}.mode"));
        let properties: Vec<_> = properties.iter().map(|key| (key.as_str(), mode)).collect();
        let table = with_properties(&table, &properties).await;
        append(&table, rows(&[(1, Some("a"), 0), (2, Some("b"), 0), (42, Some("secret-x"), 0)])).await;
        append(&table, rows(&[(3, Some("c"), 1), (42, Some("secret-y"), 2)])).await;
        let tagged = Alter::CreateTag { name: "old".into(), snapshot: None, keep: Keep::default(), replace: false };
        let table = table.alter(&[tagged]).await.unwrap();
        append(&table, rows(&[(4, None, 3)])).await;
        let of_42 = subject("id = 42");
        let before = erase::traces(&table, &of_42).await.unwrap();
        assert_eq!((before.rows, before.kept_rows, before.files.len()), (2, 2, 2), "{mode}");
        assert_eq!((before.snapshots.len(), before.references.clone()), (3, vec!["old".to_owned()]));

        let purged = erased(&table, &of_42).await;
        assert_eq!((purged.rows, purged.references, purged.left_behind), (2, vec!["old".to_owned()], 0), "{mode}");
        assert!(erase::traces(&table, &of_42).await.unwrap().is_empty(), "{mode}");
        assert_eq!(ids(&table, Read::Current).await, ["1", "2", "3", "4"]);
        // Nor the least and greatest values of files that are gone.
        let folder = table.io().url(table.metadata().location()).unwrap();
        for object in ports.storage.list(&folder).await.unwrap() {
            let bytes = ports.storage.get(&object.url).await.unwrap();
            let holds =
                ["secret-x", "secret-y"].iter().any(|text| bytes.windows(8).any(|part| part == text.as_bytes()));
            assert!(!holds, "{mode}: {}", object.url);
        }
    }
}

#[tokio::test]
async fn a_table_without_the_subject_keeps_its_history() {
    let table = table(&ports(), &[]).await;
    append(&table, rows(&[(1, Some("a"), 0)])).await;
    append(&table, rows(&[(2, Some("b"), 0)])).await;
    let found = erase::traces(&table, &subject("id = 42")).await.unwrap();
    assert!(found.is_empty() && found.snapshots.is_empty());
    assert_eq!(erased(&table, &subject("id = 42")).await, Purged::default());
    assert_eq!(table.reload().await.unwrap().history().len(), 2);
    assert_eq!(erased(&table, &subject("carrier IN ('b', 'c') AND id = 2")).await.rows, 1);
    assert_eq!(ids(&table, Read::Current).await, ["1"]);
}

#[tokio::test]
async fn rows_that_were_deleted_before_are_found_in_older_files() {
    let table = table(&ports(), &[]).await;
    append(&table, rows(&[(1, Some("a"), 0), (42, Some("x"), 0)])).await;
    table.commit(Change::Overwrite, stream(rows(&[(1, Some("a"), 0)])), None).await.unwrap();
    let of_42 = subject("id = 42");
    let found = erase::traces(&table, &of_42).await.unwrap();
    // The snapshot that removed the file still lists it.
    assert_eq!((found.rows, found.kept_rows, found.snapshots.len()), (0, 1, 2));
    let purged = erased(&table, &of_42).await;
    assert_eq!((purged.rows, purged.snapshots_expired), (0, 2));
    assert!(erase::traces(&table, &of_42).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_column_that_is_not_there_is_told_from_one_that_was() {
    let table = table(&ports(), &[]).await;
    assert_eq!(erase::missing(&table, &subject("id = 42 AND carrier = 'x'")), None);
    assert_eq!(erase::missing(&table, &subject("x = 42")), Some(Missing::Never("x".into())));
    let table = table.alter(&[Alter::DropColumn("carrier".into())]).await.unwrap();
    assert_eq!(erase::missing(&table, &subject("carrier = 'x'")), Some(Missing::Dropped("carrier".into())));
}
