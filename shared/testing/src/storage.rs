//! What every [`Storage`] must do.

use object_store::ObjectStoreExt;
use tokio::io::AsyncWriteExt;
use url::Url;

use super::kind;
use shared::ErrorKind;
use shared::storage::{ObjectInfo, Storage};

/// Asserts the contract of [`Storage`] below `root`, an empty folder with a final slash.
pub async fn conforms(storage: &Storage, root: &Url) {
    objects_are_read_as_written(storage, root).await;
    any_name_survives_the_way_through_its_url(storage, root).await;
    what_is_not_there_is_not_found(storage, root).await;
    a_folder_lists_what_lies_below_it(storage, root).await;
    an_object_is_made_once(storage, root).await;
    a_writer_shows_its_object_at_the_end(storage, root).await;
    what_lies_outside_is_denied(storage, root).await;
    one_of_many_racers_makes_the_object(storage, root).await;
}

/// The URL of an object whose parts are not yet encoded.
fn object(root: &Url, parts: &[&str]) -> Url {
    let mut url = root.clone();
    url.path_segments_mut().unwrap().pop_if_empty().extend(parts);
    url
}

async fn objects_are_read_as_written(storage: &Storage, root: &Url) {
    let url = object(root, &["bytes", "x.bin"]);
    for bytes in [vec![], vec![0, 255], vec![7; 3_000_000]] {
        storage.put(&url, bytes.clone()).await.unwrap();
        assert_eq!(storage.get(&url).await.unwrap(), bytes);
        let info = storage.head(&url).await.unwrap();
        assert_eq!((info.size, info.url), (bytes.len() as u64, url.clone()));
        assert!(info.modified_ms > 1_000_000_000_000);
    }
    assert_eq!(storage.get_range(&url, 1..3).await.unwrap(), [7_u8, 7][..]);
    assert!(storage.exists(&url).await.unwrap());
    storage.delete(&url).await.unwrap();
    assert!(!storage.exists(&url).await.unwrap());
    storage.delete(&url).await.unwrap();
}

async fn any_name_survives_the_way_through_its_url(storage: &Storage, root: &Url) {
    let names =
        ["a b.csv", "a+b.csv", "100%.csv", "a%20b.csv", "größe 東京.csv", "a?b#c.csv", "k=v&w.csv", "~'(x)!*.csv"];
    let mut urls: Vec<_> = names.iter().map(|name| object(root, &["names", "year=2013 é", name])).collect();
    for (url, name) in urls.iter().zip(names) {
        storage.put(url, name).await.unwrap();
    }
    for (url, name) in urls.iter().zip(names) {
        assert_eq!(storage.get(url).await.unwrap(), name, "{url}");
    }
    urls.sort_by(|a, b| a.as_str().cmp(b.as_str()));
    let listed: Vec<_> = storage.list(&object(root, &["names", ""])).await.unwrap();
    assert_eq!(listed.iter().map(|info| info.url.clone()).collect::<Vec<_>>(), urls);
}

async fn what_is_not_there_is_not_found(storage: &Storage, root: &Url) {
    let url = object(root, &["absent", "x"]);
    for error in [
        storage.get(&url).await.unwrap_err(),
        storage.get_range(&url, 0..1).await.unwrap_err(),
        storage.head(&url).await.unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert!(error.to_string().contains(&format!("`{url}`")), "{error}");
    }
    assert_eq!(storage.list(&object(root, &["absent", ""])).await.unwrap(), []);

    storage.put(&url, "x").await.unwrap();
    let listed = storage.list(&object(root, &["absent", ""])).await.unwrap();
    storage.delete(&url).await.unwrap();
    assert_eq!(kind(storage.get(&listed[0].url).await), ErrorKind::NotFound, "it vanished after it was listed");
    let bad = Url::parse(&format!("{root}a//b")).unwrap();
    assert_eq!(kind(storage.put(&bad, "x").await), ErrorKind::Invalid);
    let query = Url::parse(&format!("{root}a?b")).unwrap();
    assert_eq!(kind(storage.put(&query, "x").await), ErrorKind::Invalid);
}

async fn a_folder_lists_what_lies_below_it(storage: &Storage, root: &Url) {
    for parts in [["list", "b", "2"], ["list", "b", "10"], ["list", "a", "x"], ["list2", "b", "x"]] {
        storage.put(&object(root, &parts), "xyz").await.unwrap();
    }
    let paths = async |parts: &[&str]| {
        let listed = storage.list(&object(root, parts)).await.unwrap();
        let below = |info: ObjectInfo| info.url.as_str()[root.as_str().len()..].to_owned();
        listed.into_iter().map(below).collect::<Vec<_>>()
    };
    assert_eq!(paths(&["list", ""]).await, ["list/a/x", "list/b/10", "list/b/2"]);
    assert_eq!(paths(&["list"]).await, ["list/a/x", "list/b/10", "list/b/2"], "with or without the final slash");
    assert_eq!(paths(&["list", "b", ""]).await, ["list/b/10", "list/b/2"]);
    let listed = storage.list(&object(root, &["list", "a", ""])).await.unwrap();
    let looked_up = storage.head(&listed[0].url).await.unwrap();
    assert!(listed[0].modified_ms.abs_diff(looked_up.modified_ms) < 1_000, "a store may tell only seconds");
    let modified_ms = looked_up.modified_ms;
    assert_eq!(ObjectInfo { modified_ms, ..listed[0].clone() }, looked_up);
    assert_eq!(listed[0].size, 3);
}

async fn an_object_is_made_once(storage: &Storage, root: &Url) {
    let url = object(root, &["once", "x"]);
    storage.put_if_absent(&url, "first").await.unwrap();
    let error = storage.put_if_absent(&url, "second").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert!(error.to_string().contains(url.as_str()), "{error}");
    assert_eq!(storage.get(&url).await.unwrap(), "first");
    let before = storage.head(&url).await.unwrap();
    storage.put(&url, "replaced").await.unwrap();
    assert_eq!(storage.get(&url).await.unwrap(), "replaced");
    assert_ne!(storage.head(&url).await.unwrap().etag, before.etag);
}

async fn a_writer_shows_its_object_at_the_end(storage: &Storage, root: &Url) {
    let url = object(root, &["writer", "x"]);
    let mut writer = storage.writer(&url).unwrap();
    let part = vec![b'x'; 4 << 20];
    for _ in 0..5 {
        writer.write_all(&part).await.unwrap();
    }
    assert!(!storage.exists(&url).await.unwrap(), "readers see all or nothing");
    writer.shutdown().await.unwrap();
    assert_eq!(storage.head(&url).await.unwrap().size, 20 << 20);
    assert_eq!(storage.list(&object(root, &["writer", ""])).await.unwrap().len(), 1);
    storage.delete(&url).await.unwrap();
}

async fn what_lies_outside_is_denied(storage: &Storage, root: &Url) {
    let outside = ["file:///etc/passwd", "memory:///../x", "s3://another-bucket/x", "https://example.com/x"];
    let beside = format!("{}-beside/x", root.as_str().trim_end_matches('/'));
    for text in outside.into_iter().chain([beside.as_str()]) {
        let url = Url::parse(text).unwrap();
        if url.as_str().starts_with(root.as_str()) {
            continue;
        }
        assert_eq!(kind(storage.get(&url).await), ErrorKind::Denied, "{url}");
        assert_eq!(kind(storage.put(&url, "x").await), ErrorKind::Denied, "{url}");
        assert_eq!(kind(storage.list(&url).await), ErrorKind::Denied, "{url}");
    }
    for climbing in ["a%2F..%2F..%2Fx", "%2e%2e%2fx", "a/..%2f..%2fx"] {
        let url = Url::parse(&format!("{root}{climbing}")).unwrap();
        assert_eq!(kind(storage.get(&url).await), ErrorKind::Denied, "{url}");
    }
    let (store, path) = storage.resolve(&object(root, &["list", "a", "x"])).unwrap();
    assert!(store.head(&path).await.is_ok(), "the resolved path names the same object in the store");
}

async fn one_of_many_racers_makes_the_object(storage: &Storage, root: &Url) {
    let url = object(root, &["race", "x"]);
    let racers = (0..8).map(|racer| {
        let (storage, url) = (storage.clone(), url.clone());
        tokio::spawn(async move { storage.put_if_absent(&url, vec![racer; 100_000]).await })
    });
    let mut winners = Vec::new();
    for (racer, result) in (0_u8..).zip(racers.collect::<Vec<_>>()) {
        match result.await.unwrap() {
            Ok(()) => winners.push(racer),
            Err(error) => assert_eq!(error.kind(), ErrorKind::Conflict, "{error}"),
        }
    }
    let [winner] = winners[..] else { panic!("expected one winner, found {winners:?}") };
    assert_eq!(storage.get(&url).await.unwrap(), vec![winner; 100_000]);
}
