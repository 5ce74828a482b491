//! What is remembered of objects, after their directory was copied, moved or restored.
//!
//! Crawls, object events and jobs remember by an object's entity tag whether they have seen it as it is. On one machine the tag is
//! made of the file's number in its file system, its time and its size. A copy has another number, so everything would look
//! replaced: crawled anew, and refused by a job that appends each file once. So the folder's own number is remembered too; when it is another one, the tags of files
//! whose time and size are what they were are exchanged for those that the files have here. A copy must keep the times of files for that (`cp -a`, `rsync -a`,
//! `tar`).

use std::collections::HashMap;
use std::os::unix::fs::MetadataExt;

use serde_json::Value;
use shared::error::Context;
use shared::ports::Ports;
use shared::state::Expect;
use shared::{Error, ErrorKind, Result};
use url::Url;

/// The state document that holds which folder the objects were in.
const PLACE: &str = "directory/place";
/// Documents that name objects beside their tags.
const NAMING: [&str; 2] = ["bookmarks/", "objects/"];
/// Documents that hold tags, or what is made of them.
const MARKED: [&str; 3] = ["bookmarks/", "objects/", "crawl/"];

/// Exchanges what is remembered of objects when they are in another folder than before. Only for the process that has the data
/// directory, before it works.
///
/// # Errors
/// What state and storage answer.
pub async fn follow(ports: &Ports) -> Result<()> {
    let Some(place) = place(ports)? else { return Ok(()) };
    let known = ports.state.get(PLACE).await?.map(|known| known.bytes);
    if known.as_deref() == Some(place.as_bytes()) {
        return Ok(());
    }
    let exchanged = exchanges(ports).await?;
    if !exchanged.is_empty() {
        tracing::info!(marks = exchanged.len(), "the objects are in another folder than before: they are known again");
        for document in documents(ports, &MARKED).await? {
            exchange_in(ports, &document, &exchanged).await?;
        }
    }
    ports.state.put(PLACE, place.into(), Expect::Anything).await?;
    Ok(())
}

/// Which folder the objects are in: its file system and its number there. `None` where they are not in a folder of this machine.
fn place(ports: &Ports) -> Result<Option<String>> {
    let url = ports.storage.address(ports.keys.root());
    let Some(folder) = (url.scheme() == "file").then(|| url.to_file_path().ok()).flatten() else { return Ok(None) };
    let metadata = std::fs::metadata(&folder).context(|| format!("looking up `{}`", folder.display()))?;
    Ok(Some(format!("{}:{}", metadata.dev(), metadata.ino())))
}

async fn documents(ports: &Ports, prefixes: &[&str]) -> Result<Vec<String>> {
    let mut keys = Vec::new();
    for prefix in prefixes {
        keys.extend(ports.state.list(prefix).await?);
    }
    Ok(keys)
}

/// What stands in documents now, and what is to stand there.
async fn exchanges(ports: &Ports) -> Result<HashMap<String, String>> {
    let mut known = Vec::new();
    for key in documents(ports, &NAMING).await? {
        if let Some(document) = ports.state.get(&key).await? {
            let value: Value = serde_json::from_slice(&document.bytes).unwrap_or_default();
            named(&value, ports.keys.root(), &mut known);
        }
    }
    known.sort();
    known.dedup();
    let mut exchanges = HashMap::new();
    for (url, before) in known {
        let now = match ports.storage.head(&url).await {
            Ok(now) => now,
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        let Some(tag) = now.etag.filter(|tag| *tag != before && is_moved(&before, tag)) else { continue };
        let (size, time) = (now.size, now.modified_ms);
        exchanges.insert(event_mark(&before, size, time), event_mark(&tag, size, time));
        let crawled = |tag: &str| format::listing::mark(Some(tag), size, time);
        exchanges.insert(crawled(&before), crawled(&tag));
        exchanges.insert(before, tag);
    }
    Ok(exchanges)
}

/// Finds objects by their URLs, each with the tag that stands beside it: alone, or at the end of a mark.
fn named(value: &Value, root: &Url, known: &mut Vec<(Url, String)>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                match (value.as_str(), Url::parse(name)) {
                    (Some(text), Ok(url)) if url.as_str().starts_with(root.as_str()) => {
                        let tag = text.rsplit(':').next().unwrap_or(text);
                        known.push((url, tag.to_owned()));
                    }
                    _ => named(value, root, known),
                }
            }
        }
        Value::Array(values) => values.iter().for_each(|value| named(value, root, known)),
        _ => {}
    }
}

/// Whether two tags differ in nothing but the file's number: `{number}-{time}-{size}`.
fn is_moved(before: &str, now: &str) -> bool {
    match (before.split_once('-'), now.split_once('-')) {
        (Some((_, before)), Some((_, now))) => before == now && before.contains('-'),
        _ => false,
    }
}

/// How object events remember an object.
fn event_mark(tag: &str, size: u64, modified_ms: i64) -> String {
    crate::runtime::object_mark(size, modified_ms, Some(tag))
}

async fn exchange_in(ports: &Ports, key: &str, exchanged: &HashMap<String, String>) -> Result<()> {
    let Some(document) = ports.state.get(key).await? else { return Ok(()) };
    let Ok(mut value) = serde_json::from_slice::<Value>(&document.bytes) else { return Ok(()) };
    if exchange(&mut value, exchanged) == 0 {
        return Ok(());
    }
    let bytes = serde_json::to_vec(&value).map_err(|e| Error::bug("a document has no JSON form").with_source(e))?;
    ports.state.put(key, bytes.into(), Expect::Version(document.version)).await?;
    Ok(())
}

/// Exchanges texts anywhere in a value; says how many.
fn exchange(value: &mut Value, exchanged: &HashMap<String, String>) -> usize {
    match value {
        Value::String(text) => match exchanged.get(text) {
            Some(now) => {
                text.clone_from(now);
                1
            }
            None => 0,
        },
        Value::Object(fields) => fields.values_mut().map(|value| exchange(value, exchanged)).sum(),
        Value::Array(values) => values.iter_mut().map(|value| exchange(value, exchanged)).sum(),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_a_file_of_the_same_time_and_size_is_the_same_elsewhere() {
        assert!(is_moved("1a-63f0-400", "2b-63f0-400"));
        assert!(!is_moved("1a-63f0-400", "2b-63f1-400"));
        assert!(!is_moved("1a-63f0-400", "2b-63f0-401"));
        assert!(!is_moved("\"9e107d9d372bb6826bd81d3542a419d6\"", "\"e4d909c290d0fb1ca068ffaddf22cbd0\""), "of S3");
        assert!(!is_moved("\"9e107d9d-1\"", "\"e4d909c2-1\""), "of S3, in parts");
    }

    #[test]
    fn tags_are_found_beside_urls_and_exchanged_wherever_they_stand() {
        let root = Url::parse("file:///lake/objects/").unwrap();
        let mut value = json!({
            "generation": 1,
            "files": {"file:///lake/objects/raw/a.csv": "1-2-3", "file:///elsewhere/b.csv": "4-5-6"},
            "announced": {"files": {"file:///lake/objects/raw/c.csv": null}},
            "marks": {"file:///lake/objects/raw/d.csv": "10:20:7-8-9"},
        });
        let mut known = Vec::new();
        named(&value, &root, &mut known);
        let found: Vec<_> = known.iter().map(|(url, tag)| (url.path(), tag.as_str())).collect();
        assert_eq!(found, [("/lake/objects/raw/a.csv", "1-2-3"), ("/lake/objects/raw/d.csv", "7-8-9")]);
        let exchanged = HashMap::from([("1-2-3".to_owned(), "9-2-3".to_owned())]);
        assert_eq!(exchange(&mut value, &exchanged), 1);
        assert_eq!(value["files"]["file:///lake/objects/raw/a.csv"], "9-2-3");
        assert_eq!(exchange(&mut value, &exchanged), 0);
    }
}
