//! Documents under compare-and-swap: the small mutable facts (run progress, crawl marks, what a stream has pending).

use std::fmt::Debug;

use async_trait::async_trait;
use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::random::Random;
use crate::{Error, ErrorKind, Result, pause};

/// An opaque mark of one version of a document; changes with every write.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Version(pub String);

/// A document and its version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    pub bytes: Bytes,
    pub version: Version,
}

/// What must hold for a write or a delete to happen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expect {
    /// The document does not exist.
    Absent,
    /// The document still has this version.
    Version(Version),
    /// Nothing: the last writer wins.
    Anything,
}

/// Documents by key. Keys are slash-separated paths such as `crawl/weather`.
#[async_trait]
pub trait State: Debug + Send + Sync {
    /// The document, or `None`.
    async fn get(&self, key: &str) -> Result<Option<Document>>;

    /// Writes the document and gives its new version. Durable when it returns.
    ///
    /// # Errors
    /// `Conflict` when `expect` does not hold; `OutcomeUnknown` when it may have been written.
    async fn put(&self, key: &str, bytes: Bytes, expect: Expect) -> Result<Version>;

    /// Removes the document; removing an absent one under [`Expect::Anything`] succeeds.
    ///
    /// # Errors
    /// `Conflict` when `expect` does not hold.
    async fn delete(&self, key: &str, expect: Expect) -> Result<()>;

    /// The keys that begin with `prefix`, in order.
    async fn list(&self, prefix: &str) -> Result<Vec<String>> {
        self.list_first(prefix, usize::MAX).await
    }

    /// The first `most` keys that begin with `prefix`, in order, without looking at many more.
    async fn list_first(&self, prefix: &str, most: usize) -> Result<Vec<String>>;
}

/// Reads a JSON document; `None` when it is absent.
///
/// # Errors
/// `Bug` when the document is not the JSON that `T` expects.
pub async fn get_json<T: DeserializeOwned>(state: &dyn State, key: &str) -> Result<Option<(T, Version)>> {
    let Some(document) = state.get(key).await? else { return Ok(None) };
    let value = serde_json::from_slice(&document.bytes)
        .map_err(|e| Error::bug(format!("state document `{key}` is not what this version writes")).with_source(e))?;
    Ok(Some((value, document.version)))
}

/// Writes a JSON document.
///
/// # Errors
/// As [`State::put`].
pub async fn put_json<T: Serialize + Sync>(state: &dyn State, key: &str, value: &T, expect: Expect) -> Result<Version> {
    let bytes = serde_json::to_vec(value)
        .map_err(|e| Error::bug(format!("state document `{key}` can't be written as JSON")).with_source(e))?;
    state.put(key, bytes.into(), expect).await
}

/// Gives a document another key. One that is not there, since it never was or an earlier call moved it, is left alone.
///
/// # Errors
/// What the state answers; the document may be under both keys then, and the same call does the rest.
pub async fn rename(state: &dyn State, from: &str, to: &str) -> Result<()> {
    let Some(document) = state.get(from).await? else { return Ok(()) };
    state.put(to, document.bytes, Expect::Anything).await?;
    state.delete(from, Expect::Anything).await
}

/// Changes a JSON document, a default one when it is absent, and gives what it is now. `change` says whether it changed
/// anything; it is called anew when others came first.
///
/// # Errors
/// `Retry` when others kept changing it; as [`get_json`] and [`put_json`] otherwise.
pub async fn change_json<T>(
    state: &dyn State,
    random: &dyn Random,
    key: &str,
    mut change: impl FnMut(&mut T) -> bool,
) -> Result<T>
where
    T: Default + Serialize + DeserializeOwned + Sync,
{
    for tries in 0..pause::TRIES {
        let (mut value, expect) = match get_json::<T>(state, key).await? {
            Some((value, version)) => (value, Expect::Version(version)),
            None => (T::default(), Expect::Absent),
        };
        if !change(&mut value) {
            return Ok(value);
        }
        match put_json(state, key, &value, expect).await {
            Ok(_) => return Ok(value),
            Err(error) if error.kind() == ErrorKind::Conflict => pause::give_way(random, tries).await,
            Err(error) => return Err(error),
        }
    }
    Err(Error::retry(format!("others kept changing the state document `{key}` for {} tries", pause::TRIES)))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use futures::FutureExt;

    use super::*;
    use crate::random::SystemRandom;

    /// A document that others write first, so many times. Never waits itself.
    #[derive(Debug)]
    struct Contested(AtomicU32);

    #[async_trait]
    impl State for Contested {
        async fn get(&self, _: &str) -> Result<Option<Document>> {
            Ok(None)
        }

        async fn put(&self, _: &str, _: Bytes, _: Expect) -> Result<Version> {
            let left = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
            if left.is_ok() { Err(Error::conflict("others came first")) } else { Ok(Version("1".into())) }
        }

        async fn delete(&self, _: &str, _: Expect) -> Result<()> {
            Ok(())
        }

        async fn list_first(&self, _: &str, _: usize) -> Result<Vec<String>> {
            Ok(Vec::new())
        }
    }

    fn add(count: &mut u32) -> bool {
        *count += 1;
        true
    }

    #[tokio::test]
    async fn who_comes_second_waits_and_tries_again() {
        assert_eq!(change_json(&Contested(0.into()), &SystemRandom, "a", add).now_or_never().unwrap().unwrap(), 1);
        assert!(
            change_json(&Contested(1.into()), &SystemRandom, "a", add).now_or_never().is_none(),
            "it went on without a wait"
        );
        assert_eq!(change_json(&Contested(3.into()), &SystemRandom, "a", add).await.unwrap(), 1);
    }
}
