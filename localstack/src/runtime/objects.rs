//! Object events: looks at the folders of the declared locations, tells the crawler what was created, replaced or removed since
//! it last succeeded. An upload through the gateway makes it look at once; a file copied into the folder is found on the next
//! look. What was told is kept in state, so nothing is missed over a restart.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jobs::failures;
use shared::Result;
use shared::api::Event;
use shared::ports::Ports;
use shared::project::Project;
use shared::state::{Expect, get_json, put_json};
use shared::storage::ObjectInfo;
use tokio::sync::Notify;

use super::events::{self, ObjectChange};
use super::functions::{Function, Functions};
use super::shutdown::Shutdown;

/// How often folders are listed, besides after each upload.
const INTERVAL: Duration = Duration::from_secs(5);
/// How long a burst of uploads is gathered into one event.
const GATHER: Duration = Duration::from_millis(150);
/// Objects in one event at most.
const MAX_OBJECTS: usize = 1000;
/// Looks that are skipped after a failed crawl of a location: doubles up to this.
const MAX_SKIPS: u32 = 12;

/// What is known of a location's objects: URL → a mark that changes with the content.
type Marks = BTreeMap<String, String>;

/// Watches the folders of all locations that are crawled when an object lands.
#[derive(Debug)]
pub(super) struct Watcher {
    project: Arc<Project>,
    ports: Ports,
    functions: Arc<Functions>,
    uploaded: Notify,
}

impl Watcher {
    pub(super) fn new(project: Arc<Project>, ports: Ports, functions: Arc<Functions>) -> Self {
        Self { project, ports, functions, uploaded: Notify::new() }
    }

    /// An object was uploaded.
    pub(super) fn wake(&self) {
        self.uploaded.notify_one();
    }

    /// Watches until told to stop.
    pub(super) async fn run(self: Arc<Self>, mut stop: Shutdown) {
        let mut skips = BTreeMap::<String, (u32, u32)>::new();
        // Locations without a failure that is kept, by this process or an earlier one.
        let mut sound = BTreeSet::<String>::new();
        while !stop.is_set() {
            for (name, location) in &self.project.file().locations {
                if !location.on_object || stop.is_set() {
                    continue;
                }
                let (left, last) = skips.get(name).copied().unwrap_or_default();
                if left > 0 {
                    skips.insert(name.clone(), (left - 1, last));
                    continue;
                }
                let looked = self.look(name).await;
                if looked.is_err() || !sound.contains(name) {
                    failures::note(&self.ports, "objects", name, &looked).await;
                    sound.remove(name);
                }
                match looked {
                    Ok(()) => {
                        sound.insert(name.clone());
                        skips.remove(name);
                    }
                    Err(error) => {
                        let next = (last * 2).clamp(1, MAX_SKIPS);
                        tracing::warn!(location = name, %error, "the crawl after an object event failed");
                        skips.insert(name.clone(), (next, next));
                    }
                }
            }
            tokio::select! {
                () = tokio::time::sleep(INTERVAL) => {}
                () = self.uploaded.notified() => { stop.sleep(GATHER).await; }
                () = stop.wait() => {}
            }
        }
    }

    /// Tells the crawler what changed in one location; remembers what it took.
    async fn look(&self, location: &str) -> Result<()> {
        let key = marks_key(location);
        let url = self.project.location_url(location, &self.ports.keys)?;
        let mut marks: Marks =
            get_json(self.ports.state.as_ref(), &key).await?.map(|(marks, _)| marks).unwrap_or_default();
        let changes = changes(&marks, &self.ports.storage.list(&url).await?);
        for chunk in changes.chunks(MAX_OBJECTS) {
            let event = events::objects(&self.ports.keys, chunk, self.ports.clock.now_ms());
            self.functions.call(Function::Crawl, Event::parse(event)?).await?;
            for (change, object) in chunk {
                match change {
                    ObjectChange::Created => marks.insert(object.url.to_string(), mark(object)),
                    ObjectChange::Removed => marks.remove(object.url.as_str()),
                };
            }
            put_json(self.ports.state.as_ref(), &key, &marks, Expect::Anything).await?;
        }
        Ok(())
    }
}

/// The state document that holds what the crawler was told of a location.
fn marks_key(location: &str) -> String {
    format!("objects/{location}")
}

/// What a listing shows that the marks don't, in order of URL; created ones first.
fn changes(marks: &Marks, listed: &[ObjectInfo]) -> Vec<(ObjectChange, ObjectInfo)> {
    let created = listed
        .iter()
        .filter(|object| marks.get(object.url.as_str()) != Some(&mark(object)))
        .map(|object| (ObjectChange::Created, object.clone()));
    let removed = marks
        .keys()
        .filter(|url| listed.binary_search_by(|object| object.url.as_str().cmp(url)).is_err())
        .filter_map(|url| {
            let url = url.parse().ok()?;
            Some((ObjectChange::Removed, ObjectInfo { url, size: 0, etag: None, modified_ms: 0 }))
        });
    created.chain(removed).collect()
}

/// Changes when the object's content does, as far as the store tells.
fn mark(object: &ObjectInfo) -> String {
    mark_of(object.size, object.modified_ms, object.etag.as_deref())
}

/// As [`mark`]. After the last `:` it is the entity tag.
pub(crate) fn mark_of(size: u64, modified_ms: i64, etag: Option<&str>) -> String {
    format!("{size}:{modified_ms}:{}", etag.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(name: &str, etag: &str) -> ObjectInfo {
        let url = format!("memory:///raw/w/{name}").parse().unwrap();
        ObjectInfo { url, size: 1, etag: Some(etag.into()), modified_ms: 5 }
    }

    fn told(marks: &Marks, listed: &[ObjectInfo]) -> Vec<(ObjectChange, String)> {
        changes(marks, listed)
            .into_iter()
            .map(|(change, object)| (change, object.url.path().trim_start_matches("/raw/w/").to_owned()))
            .collect()
    }

    #[test]
    fn only_what_changed_since_the_last_look_is_told() {
        let before = [object("a", "1"), object("b", "1"), object("c", "1")];
        let marks: Marks = before.iter().map(|o| (o.url.to_string(), mark(o))).collect();
        assert!(told(&marks, &before).is_empty());
        let after = [object("a", "1"), object("b", "2"), object("d", "1")];
        assert_eq!(
            told(&marks, &after),
            [
                (ObjectChange::Created, "b".into()),
                (ObjectChange::Created, "d".into()),
                (ObjectChange::Removed, "c".into()),
            ]
        );
    }
}
