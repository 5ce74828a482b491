//! What every [`State`] must do.

use std::sync::Arc;

use super::kind;
use shared::ErrorKind;
use shared::state::{Expect, State, Version};

/// Asserts the contract of [`State`] on an adapter without documents below `conformance/`.
pub async fn conforms(state: Arc<dyn State>) {
    documents_are_read_as_written(&*state).await;
    a_write_needs_what_it_expects(&*state).await;
    a_document_made_again_is_not_the_old_one(&*state).await;
    a_removal_needs_what_it_expects(&*state).await;
    keys_are_listed_by_prefix_in_order(&*state).await;
    one_of_many_racers_wins(state).await;
}

async fn documents_are_read_as_written(state: &dyn State) {
    assert_eq!(state.get("conformance/absent").await.unwrap(), None);
    for bytes in [&b""[..], b"x", &[0, 255, 10], &vec![7; 300_000]] {
        let version = state.put("conformance/bytes", bytes.to_vec().into(), Expect::Anything).await.unwrap();
        let document = state.get("conformance/bytes").await.unwrap().unwrap();
        assert_eq!((&document.bytes[..], document.version), (bytes, version));
    }
    assert_eq!(kind(state.put("", "x".into(), Expect::Anything).await), ErrorKind::Invalid);
}

async fn a_write_needs_what_it_expects(state: &dyn State) {
    let key = "conformance/write";
    let absent = Expect::Version(Version("1".into()));
    assert_eq!(kind(state.put(key, "a".into(), absent).await), ErrorKind::Conflict);
    let first = state.put(key, "a".into(), Expect::Absent).await.unwrap();
    assert_eq!(kind(state.put(key, "b".into(), Expect::Absent).await), ErrorKind::Conflict);
    let second = state.put(key, "a".into(), Expect::Version(first.clone())).await.unwrap();
    assert_ne!(first, second, "a version changes with every write, even of the same bytes");
    assert_eq!(kind(state.put(key, "c".into(), Expect::Version(first)).await), ErrorKind::Conflict);
    let document = state.get(key).await.unwrap().unwrap();
    assert_eq!((&document.bytes[..], document.version), (&b"a"[..], second), "a refused write changes nothing");
}

async fn a_document_made_again_is_not_the_old_one(state: &dyn State) {
    let key = "conformance/again";
    let old = state.put(key, "a".into(), Expect::Absent).await.unwrap();
    state.delete(key, Expect::Version(old.clone())).await.unwrap();
    state.put(key, "a".into(), Expect::Absent).await.unwrap();
    assert_eq!(kind(state.put(key, "b".into(), Expect::Version(old)).await), ErrorKind::Conflict);
}

async fn a_removal_needs_what_it_expects(state: &dyn State) {
    let key = "conformance/removal";
    state.delete(key, Expect::Anything).await.unwrap();
    let old = state.put(key, "a".into(), Expect::Absent).await.unwrap();
    let new = state.put(key, "b".into(), Expect::Anything).await.unwrap();
    assert_eq!(kind(state.delete(key, Expect::Version(old)).await), ErrorKind::Conflict);
    assert_eq!(kind(state.delete(key, Expect::Absent).await), ErrorKind::Conflict);
    state.delete(key, Expect::Version(new.clone())).await.unwrap();
    assert_eq!(state.get(key).await.unwrap(), None);
    assert_eq!(kind(state.delete(key, Expect::Version(new)).await), ErrorKind::Conflict);
}

async fn keys_are_listed_by_prefix_in_order(state: &dyn State) {
    let keys = ["conformance/list/a", "conformance/list/a/b", "conformance/list/ab", "conformance/list/é%_"];
    for key in keys.iter().rev() {
        state.put(key, "x".into(), Expect::Anything).await.unwrap();
    }
    let removed = state.put("conformance/list/0", "x".into(), Expect::Anything).await.unwrap();
    state.delete("conformance/list/0", Expect::Version(removed)).await.unwrap();
    state.put("conformance/lisu", "x".into(), Expect::Anything).await.unwrap();
    assert_eq!(state.list("conformance/list/").await.unwrap(), keys);
    assert_eq!(state.list("conformance/list/a/").await.unwrap(), keys[1..2]);
    assert_eq!(state.list("conformance/list/%").await.unwrap(), Vec::<String>::new());
    assert_eq!(state.list_first("conformance/list/", 2).await.unwrap(), keys[..2]);
    assert_eq!(state.list_first("conformance/list/ab", 2).await.unwrap(), keys[2..3]);
    assert_eq!(state.list_first("conformance/list/", 0).await.unwrap(), Vec::<String>::new());
    assert!(state.list("").await.unwrap().len() > keys.len());
}

async fn one_of_many_racers_wins(state: Arc<dyn State>) {
    let key = "conformance/race";
    let mut expected = Expect::Absent;
    for _ in 0..5 {
        let racers = (0..8).map(|racer| {
            let (state, expected) = (state.clone(), expected.clone());
            tokio::spawn(async move { state.put(key, format!("{racer}").into(), expected).await })
        });
        let mut winners = Vec::new();
        for (racer, result) in racers.collect::<Vec<_>>().into_iter().enumerate() {
            match result.await.unwrap() {
                Ok(version) => winners.push((racer, version)),
                Err(error) => assert_eq!(error.kind(), ErrorKind::Conflict, "{error}"),
            }
        }
        let [(racer, version)] = &winners[..] else { panic!("expected one winner, found {winners:?}") };
        let document = state.get(key).await.unwrap().unwrap();
        assert_eq!((document.bytes, &document.version), (racer.to_string().into(), version));
        expected = Expect::Version(version.clone());
    }
}
