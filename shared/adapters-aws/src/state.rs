//! Documents as objects below one folder of a store with conditional writes: S3, or any other store of [`Storage`].
//!
//! A document's version is its object's entity tag. S3 makes that tag from the content alone, so every object ends in a line
//! with a number that no other write has: the same document written twice has two versions, and a write whose answer was lost
//! can be told from another's. A document that is removed under a condition leaves an empty object, since S3 can write under a
//! condition everywhere but not remove; an empty object is no document.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt, PutMode, UpdateVersion};
use url::Url;

use shared::random::Random;
use shared::state::{Document, Expect, State, Version};
use shared::storage::{Storage, refused, until_answered};
use shared::{Error, ErrorKind, Result};

/// Bytes of the last line: a line feed and a number in hexadecimal digits.
const MARK_BYTES: usize = 33;

/// [`State`] as objects below a folder.
#[derive(Debug, Clone)]
pub struct ObjectState {
    storage: Storage,
    root: Url,
    random: Arc<dyn Random>,
}

/// An object that is there.
struct Found {
    /// `None` for what a removal left.
    bytes: Option<Bytes>,
    mark: Bytes,
    version: Version,
}

impl ObjectState {
    /// Documents below `root`, a folder of `storage` with a final slash.
    pub fn new(storage: Storage, root: Url, random: Arc<dyn Random>) -> Self {
        Self { storage, root, random }
    }

    fn url(&self, key: &str) -> Result<Url> {
        if key.is_empty() || key.split('/').any(|part| matches!(part, "" | "." | "..")) {
            return Err(Error::invalid(format!("expected a state key of names between slashes, found `{key}`")));
        }
        let mut url = self.root.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(key.split('/'));
        }
        Ok(url)
    }

    fn object(&self, key: &str) -> Result<(Arc<dyn ObjectStore>, Path)> {
        self.storage.resolve(&self.url(key)?)
    }

    async fn find(&self, key: &str) -> Result<Option<Found>> {
        let (store, path) = self.object(key)?;
        let url = self.url(key)?;
        let failed = |error| refused(error, "s3:GetObject", "reading", &url).context(format!("state document `{key}`"));
        let answer = match store.get(&path).await {
            Err(object_store::Error::NotFound { .. }) => return Ok(None),
            answer => answer.map_err(failed)?,
        };
        let version = version(key, answer.meta.e_tag.clone())?;
        let bytes = answer.bytes().await.map_err(failed)?;
        let Some(end) = bytes.len().checked_sub(MARK_BYTES) else {
            return match bytes.is_empty() {
                true => Ok(Some(Found { bytes: None, mark: Bytes::new(), version })),
                false => Err(Error::bug(format!(
                    "expected state document `{key}` to end in a line of {MARK_BYTES} bytes, found {} bytes in all",
                    bytes.len()
                ))),
            };
        };
        Ok(Some(Found { bytes: Some(bytes.slice(..end)), mark: bytes.slice(end..), version }))
    }

    /// Writes `body` under `mode`, again when the answer was lost. A second try after one that took effect is refused.
    ///
    /// # Errors
    /// `OutcomeUnknown` when no try was answered.
    async fn write(&self, key: &str, body: &[Bytes], mode: PutMode) -> Result<Version> {
        let (store, path) = self.object(key)?;
        let put = || store.put_opts(&path, body.iter().cloned().collect(), mode.clone().into());
        let put = until_answered(put).await.0;
        let url = self.url(key)?;
        let put = put.map_err(|error| match refused(error, "s3:PutObject", "writing", &url) {
            error if error.kind() == ErrorKind::Retry => {
                let message = format!("state document `{key}` may have been written or not");
                Error::new(ErrorKind::OutcomeUnknown, message).with_source(error)
            }
            error => error.context(format!("state document `{key}`")),
        });
        version(key, put?.e_tag)
    }

    /// What a refused write means: `Ok` when it is our own write whose first answer was lost.
    async fn refused(&self, key: &str, mark: &Bytes, expect: &Expect, error: Error) -> Result<Version> {
        let found = self.find(key).await?;
        match found {
            Some(found) if !mark.is_empty() && found.mark == mark => Ok(found.version),
            found => Err(unmet(key, expect, found.as_ref()).with_source(error)),
        }
    }
}

#[async_trait]
impl State for ObjectState {
    async fn get(&self, key: &str) -> Result<Option<Document>> {
        let found = self.find(key).await?;
        Ok(found.and_then(|found| Some(Document { bytes: found.bytes?, version: found.version })))
    }

    async fn put(&self, key: &str, bytes: Bytes, expect: Expect) -> Result<Version> {
        let mark = Bytes::from(format!("\n{}", self.random.uuid().simple()));
        let body = [bytes, mark.clone()];
        let mode = match &expect {
            Expect::Anything => PutMode::Overwrite,
            Expect::Absent => PutMode::Create,
            Expect::Version(version) => under(version),
        };
        match self.write(key, &body, mode).await {
            Err(error) if is_refused(&error) => {}
            other => return other,
        }
        // Absent, but for what a removal left: that is replaced.
        if expect == Expect::Absent
            && let Some(Found { bytes: None, version, .. }) = self.find(key).await?
        {
            match self.write(key, &body, under(&version)).await {
                Err(error) if is_refused(&error) => return self.refused(key, &mark, &expect, error).await,
                other => return other,
            }
        }
        self.refused(key, &mark, &expect, Error::conflict("the store refused the write")).await
    }

    async fn delete(&self, key: &str, expect: Expect) -> Result<()> {
        match &expect {
            Expect::Anything => self.storage.delete(&self.url(key)?).await,
            Expect::Absent => match self.find(key).await? {
                found @ Some(Found { bytes: Some(_), .. }) => Err(unmet(key, &expect, found.as_ref())),
                _ => Ok(()),
            },
            Expect::Version(version) => {
                // A removal whose answer was lost leaves what it wanted to leave, so a second one is refused: look first.
                let found = self.find(key).await?;
                if found.as_ref().is_none_or(|f| f.bytes.is_none() || f.version != *version) {
                    return Err(unmet(key, &expect, found.as_ref()));
                }
                match self.write(key, &[], under(version)).await {
                    Err(error) if is_refused(&error) => match self.find(key).await? {
                        Some(Found { bytes: None, .. }) => Ok(()),
                        found => Err(unmet(key, &expect, found.as_ref()).with_source(error)),
                    },
                    other => other.map(drop),
                }
            }
        }
    }

    async fn list_first(&self, prefix: &str, most: usize) -> Result<Vec<String>> {
        let folder = prefix.rsplit_once('/').map_or("", |(folder, _)| folder);
        let folder = if folder.is_empty() { self.root.clone() } else { self.url(folder)? };
        let (_, root) = self.storage.resolve(&self.root)?;
        let key = |path: &Path| {
            let parts = path.prefix_match(&root)?.map(|part| part.as_ref().to_owned());
            Some(parts.collect::<Vec<_>>().join("/"))
        };
        // A removal leaves an empty object.
        let wanted =
            |meta: &ObjectMeta| meta.size > 0 && key(&meta.location).is_some_and(|key| key.starts_with(prefix));
        let metas = self.storage.list_first(&folder, most, wanted).await?;
        let mut keys: Vec<_> = metas.iter().filter_map(|meta| key(&meta.location)).collect();
        keys.sort_unstable();
        keys.truncate(most);
        Ok(keys)
    }
}

fn version(key: &str, tag: Option<String>) -> Result<Version> {
    let tag = tag.ok_or_else(|| Error::bug(format!("expected an entity tag of state document `{key}`, found none")))?;
    Ok(Version(tag))
}

fn under(version: &Version) -> PutMode {
    PutMode::Update(UpdateVersion { e_tag: Some(version.0.clone()), version: None })
}

/// Whether the store refused a write because of what is there. A version of an object that is gone is not found.
fn is_refused(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Conflict | ErrorKind::NotFound)
}

fn unmet(key: &str, expect: &Expect, found: Option<&Found>) -> Error {
    let expected = match expect {
        Expect::Version(version) => format!("version `{}`", version.0),
        Expect::Absent | Expect::Anything => "no document".into(),
    };
    let found = match found {
        Some(Found { bytes: Some(_), version, .. }) => format!("version `{}`", version.0),
        _ => "none".into(),
    };
    Error::conflict(format!("state document `{key}`: expected {expected}, found {found}"))
}
