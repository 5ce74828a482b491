//! Object events, alone or in the messages of a queue: which objects of which location they name.

use std::collections::{BTreeMap, BTreeSet};

use percent_encoding::percent_decode_str;
use serde_json::Value;
use shared::api::Message;
use shared::model::Keys;
use shared::project::Project;
use shared::{Error, Result};
use url::Url;

use crate::run::Scope;
use crate::select::relative_path;

/// What the messages of a queue ask for. Messages are told by their place among them.
#[derive(Debug, Default)]
pub struct CrawlRequests {
    pub scopes: BTreeMap<String, Scope>,
    /// The messages that name objects of a location.
    pub by_location: BTreeMap<String, BTreeSet<usize>>,
    /// Messages that hold no S3 event, or one of something else than our objects.
    pub refused: Vec<(usize, Error)>,
}

/// The objects that the S3 events in `messages` name, by the locations that crawl on object events.
pub fn crawl_requests(messages: &[Message], project: &Project, keys: &Keys) -> CrawlRequests {
    let mut crawl_requests = CrawlRequests::default();
    for (at, message) in messages.iter().enumerate() {
        match message.objects().and_then(|records| scopes(&records, project, keys)) {
            Ok((found, errors)) => {
                for (location, scope) in found {
                    crawl_requests.by_location.entry(location.clone()).or_default().insert(at);
                    crawl_requests.scopes.entry(location).or_insert_with(Scope::nothing).join(scope);
                }
                crawl_requests.refused.extend(errors.into_iter().map(|error| (at, error)));
            }
            Err(error) => crawl_requests.refused.push((at, error)),
        }
    }
    crawl_requests
}

/// The objects that an event names, by the locations that crawl on object events, and what is wrong with its other records. An
/// object in no location is passed over: other parts of the bucket send events too.
///
/// # Errors
/// `NotFound` for a location of the lakehouse file that has no place.
pub fn scopes(records: &[Value], project: &Project, keys: &Keys) -> Result<(BTreeMap<String, Scope>, Vec<Error>)> {
    let (mut scopes, mut refused) = (BTreeMap::<String, Scope>::new(), Vec::new());
    for record in records {
        let (url, removed) = match object(record, keys) {
            Ok(object) => object,
            Err(error) => {
                refused.push(error);
                continue;
            }
        };
        for (name, location) in &project.file().locations {
            if location.on_object && relative_path(&project.location_url(name, keys)?, &url).is_some() {
                scopes.entry(name.clone()).or_insert_with(Scope::nothing).add(url.clone(), !removed);
            }
        }
    }
    Ok((scopes, refused))
}

/// The object that a record names, and whether it was removed.
///
/// # Errors
/// `Invalid` for a record of something else than an object in the warehouse's bucket.
fn object(record: &Value, keys: &Keys) -> Result<(Url, bool)> {
    let text = |pointer: &str| {
        record.pointer(pointer).and_then(Value::as_str).ok_or_else(|| {
            Error::invalid(format!("expected an S3 event's record with a text at `{pointer}`, found none"))
        })
    };
    let source = text("/eventSource")?;
    if source != "aws:s3" {
        return Err(Error::invalid(format!("expected a record of `aws:s3`, found one of `{source}`")));
    }
    let (bucket, key) = (text("/s3/bucket/name")?, text("/s3/object/key")?);
    if bucket != keys.bucket() {
        return Err(Error::invalid(format!(
            "expected an object of the bucket `{}`, where the warehouse is, found `{key}` of the bucket `{bucket}`",
            keys.bucket()
        )));
    }
    Ok((keys.in_bucket(&decoded(key)?)?, text("/eventName")?.contains("ObjectRemoved")))
}

/// The key as it is, of how S3 writes it in events: percent-encoded, a space as `+`.
fn decoded(key: &str) -> Result<String> {
    let spaced = key.replace('+', " ");
    let decoded = percent_decode_str(&spaced).decode_utf8().map_err(|e| {
        Error::invalid(format!("expected an object's key in percent-encoded UTF-8, found `{key}`")).with_source(e)
    })?;
    Ok(decoded.into_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn record(bucket: &str, key: &str) -> Value {
        let s3 = json!({"bucket": {"name": bucket}, "object": {"key": key, "versionId": "096fKKXTRTtl3on89fVO.nfljtsv6qko"}});
        json!({"eventSource": "aws:s3", "eventName": "ObjectCreated:Put", "s3": s3})
    }

    fn told(records: &[Value]) -> (Vec<String>, Vec<String>) {
        let text = "version: 1\ndatabase: d\nlocations:\n  w: {}\n  quiet: {on_object: false}\n";
        let project = Project::parse(text, "test").unwrap();
        let keys = Keys::new(Url::parse("s3://lake/some/prefix/").unwrap()).unwrap();
        let (mut scopes, refused) = scopes(records, &project, &keys).unwrap();
        let urls = match scopes.remove("w") {
            Some(Scope::Objects(objects)) => objects.into_keys().map(String::from).collect(),
            _ => Vec::new(),
        };
        assert!(scopes.is_empty(), "{scopes:?}");
        (urls, refused.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn a_key_is_decoded_and_begins_at_the_bucket() {
        for (key, path) in [
            ("some/prefix/raw/w/a+b.csv", "a%20b.csv"),
            ("some/prefix/raw/w/a%2Bb.csv", "a+b.csv"),
            ("some/prefix/raw/w/day%3D1/caf%C3%A9.csv", "day=1/caf%C3%A9.csv"),
            ("some/prefix/raw/w/50%25+off%2520.csv", "50%25%20off%2520.csv"),
        ] {
            let url = format!("s3://lake/some/prefix/raw/w/{path}");
            assert_eq!(told(&[record("lake", key)]), (vec![url], vec![]), "{key}");
        }
    }

    #[test]
    fn what_lies_in_no_location_is_passed_over() {
        for key in ["raw/w/a.csv", "some/prefix/tables/w/a.csv", "some/prefix/raw/quiet/a.csv", "some/prefix/raw/w"] {
            assert_eq!(told(&[record("lake", key)]), (vec![], vec![]), "{key}");
        }
    }

    #[test]
    fn a_record_that_names_no_object_of_ours_holds_up_no_other() {
        let good = || record("lake", "some/prefix/raw/w/a.csv");
        for (bad, found) in [
            (
                record("other", "some/prefix/raw/w/b.csv"),
                "`lake`, where the warehouse is, found `some/prefix/raw/w/b.csv` of the bucket `other`",
            ),
            (record("lake", "some/prefix/raw/w/%FF.csv"), "`some/prefix/raw/w/%FF.csv`"),
            (record("lake", "some/prefix/raw/w/../../x"), "`..`"),
            (json!({"eventSource": "aws:kinesis"}), "`aws:kinesis`"),
            (json!({"eventSource": "aws:s3", "s3": {"bucket": {"name": "lake"}}}), "/s3/object/key"),
            (json!({}), "/eventSource"),
        ] {
            let (urls, refused) = told(&[good(), bad, good()]);
            assert_eq!((urls.len(), refused.len()), (1, 1), "{refused:?}");
            assert!(refused[0].contains(found), "{}", refused[0]);
        }
    }
}
