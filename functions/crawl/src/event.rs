//! Object events: which objects of which location they name.

use std::collections::BTreeMap;

use percent_encoding::percent_decode_str;
use shared::model::Keys;
use shared::project::Project;
use shared::{Error, Result};
use url::Url;

use aws_lambda_events::s3::S3Event;

use crate::run::Scope;
use crate::select::relative_path;

/// The objects that an event names, by the locations that crawl on object events. An object in no location is passed over: other
/// parts of the warehouse send events too.
///
/// # Errors
/// `Invalid` for an event without a key, or whose key is no UTF-8.
pub fn scopes(event: &S3Event, project: &Project, keys: &Keys) -> Result<BTreeMap<String, Scope>> {
    let mut scopes: BTreeMap<String, Scope> = BTreeMap::new();
    for record in &event.records {
        let key = record.s3.object.key.as_deref();
        let key = key.ok_or_else(|| Error::invalid("expected an object's key in the S3 event, found none"))?;
        let url = object_url(keys, key)?;
        let removed = record.event_name.as_deref().is_some_and(|name| name.contains("ObjectRemoved"));
        for (name, location) in &project.file().locations {
            if location.on_object && relative_path(&project.location_url(name, keys)?, &url).is_some() {
                scopes
                    .entry(name.clone())
                    .or_insert_with(|| Scope::Objects(BTreeMap::new()))
                    .add(url.clone(), !removed);
            }
        }
    }
    Ok(scopes)
}

/// The URL of the object that S3 names `key`: percent-encoded, a space as `+`, relative to the warehouse.
fn object_url(keys: &Keys, key: &str) -> Result<Url> {
    let spaced = key.replace('+', " ");
    let decoded = percent_decode_str(&spaced).decode_utf8().map_err(|e| {
        Error::invalid(format!("expected an object's key in percent-encoded UTF-8, found `{key}`")).with_source(e)
    })?;
    let mut url = keys.root().clone();
    if let Ok(mut segments) = url.path_segments_mut() {
        segments.pop_if_empty().extend(decoded.split('/'));
    }
    Ok(url)
}
