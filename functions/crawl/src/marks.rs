//! What a location's last crawls saw: the state document `crawl/{location}`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use shared::format::Flaw;
use shared::state::{Expect, State, get_json, put_json};
use shared::{Error, ErrorKind, Result};

use crate::select::Object;
use crate::{TRIES, wait};

/// One mark for each object that was seen.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Marks {
    /// By path relative to the location.
    pub objects: BTreeMap<String, Mark>,
}

/// How an object was when it was seen, and what became of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// [`Object::mark`].
    #[serde(rename = "m")]
    pub mark: String,
    /// Name of the table it belongs to.
    #[serde(rename = "t", default, skip_serializing_if = "Option::is_none")]
    pub table: Option<String>,
    /// Why it belongs to none.
    #[serde(rename = "f", default, skip_serializing_if = "Option::is_none")]
    pub flaw: Option<Flaw>,
}

/// What a crawl found, to be added to whatever the marks are by then.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Delta {
    pub seen: BTreeMap<String, Mark>,
    pub gone: Vec<String>,
}

impl Marks {
    /// Whether the object is not marked as it is now.
    pub fn is_new(&self, object: &Object) -> bool {
        self.objects.get(&object.path).is_none_or(|mark| mark.mark != object.mark)
    }

    /// The paths of a table's objects.
    pub fn of_table<'a>(&'a self, table: &'a str) -> impl Iterator<Item = &'a str> {
        let belongs = move |mark: &Mark| mark.table.as_deref() == Some(table);
        self.objects.iter().filter(move |(_, mark)| belongs(mark)).map(|(path, _)| path.as_str())
    }

    fn apply(&mut self, delta: &Delta) {
        for path in &delta.gone {
            self.objects.remove(path);
        }
        self.objects.extend(delta.seen.iter().map(|(path, mark)| (path.clone(), mark.clone())));
    }
}

fn key(location: &str) -> String {
    format!("crawl/{location}")
}

/// The location's marks; empty before its first crawl.
///
/// # Errors
/// As [`get_json`].
pub async fn load(state: &dyn State, location: &str) -> Result<Marks> {
    Ok(get_json(state, &key(location)).await?.map(|(marks, _)| marks).unwrap_or_default())
}

/// Adds `delta` to the marks, also when others write them at the same time; writes nothing when it changes nothing.
///
/// # Errors
/// `Conflict` when others never stop writing; otherwise what the state answers.
pub async fn add(state: &dyn State, location: &str, delta: &Delta) -> Result<()> {
    let key = key(location);
    for tries in 0..TRIES {
        let (before, expect) = match get_json::<Marks>(state, &key).await? {
            Some((marks, version)) => (marks, Expect::Version(version)),
            None => (Marks::default(), Expect::Absent),
        };
        let mut after = before.clone();
        after.apply(delta);
        if after == before {
            return Ok(());
        }
        match put_json(state, &key, &after, expect).await {
            Ok(_) => return Ok(()),
            Err(error) if error.kind() == ErrorKind::Conflict => {
                wait(tries).await;
            }
            Err(error) => return Err(error),
        }
    }
    Err(Error::conflict(format!("other crawls of `{location}` kept writing its marks for {TRIES} tries")))
}

#[cfg(test)]
mod tests {
    use async_trait::async_trait;
    use bytes::Bytes;
    use futures::FutureExt;
    use shared::state::{Document, Version};

    use super::*;

    /// Documents that others always write first. Never waits itself.
    #[derive(Debug)]
    struct Contested;

    #[async_trait]
    impl State for Contested {
        async fn get(&self, _: &str) -> Result<Option<Document>> {
            Ok(None)
        }
        async fn put(&self, _: &str, _: Bytes, _: Expect) -> Result<Version> {
            Err(Error::conflict("others came first"))
        }
        async fn delete(&self, _: &str, _: Expect) -> Result<()> {
            Ok(())
        }
        async fn list(&self, _: &str) -> Result<Vec<String>> {
            Ok(Vec::new())
        }
    }

    #[tokio::test]
    async fn crawls_that_meet_wait_before_they_try_again() {
        let mark = Mark { mark: "1".into(), table: None, flaw: None };
        let delta = Delta { seen: BTreeMap::from([("a.csv".into(), mark)]), gone: Vec::new() };
        assert!(add(&Contested, "raw", &delta).now_or_never().is_none(), "it gave up without a wait");
    }
}
