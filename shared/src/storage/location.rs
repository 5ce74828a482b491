//! Locations: how the metadata of a table names objects.
//!
//! After the bucket a location is the object's key, byte for byte: writers put `%`, `#`, `?` and spaces into keys (a partition
//! `s=%C3%BC/`), and what looks percent-encoded there belongs to the key. [`Storage`] takes URLs, in which such characters are
//! percent-encoded, so the one becomes the other here and nowhere else.

use percent_encoding::percent_decode_str;
use url::Url;

use super::Storage;
use crate::{Error, Result};

impl Storage {
    /// The URL of the object or folder that a location names. A location that begins with the URL of a root goes on from there:
    /// the path of a root may itself be percent-encoded.
    ///
    /// # Errors
    /// As [`url_of`].
    pub fn locate(&self, location: &str) -> Result<Url> {
        let roots = self.roots.iter().map(|root| &root.url).filter(|root| root.path().contains('%'));
        let below = roots.filter_map(|root| Some((root, location.strip_prefix(root.as_str())?))).next();
        match below {
            Some((root, rest)) => extended(root.clone(), rest, location),
            None => url_of(location),
        }
    }
}

/// The URL of the object that a location names. Hadoop's names for S3 mean the same objects; a bare path is that of a local file.
///
/// # Errors
/// `Invalid` for what names no object, and for a key that no store here holds: one with a part that is `.` or `..`, or with
/// control characters.
pub fn url_of(location: &str) -> Result<Url> {
    let unlike = || Error::invalid(format!("expected the location of an object, found `{}`", location.escape_debug()));
    let (scheme, host, path) = parts(location).ok_or_else(unlike)?;
    let root = Url::parse(&format!("{scheme}://{host}/")).map_err(|e| unlike().with_source(e))?;
    extended(root, path, location)
}

/// The location of what `url` names.
pub fn location_of(url: &Url) -> String {
    match percent_decode_str(url.as_str()).decode_utf8() {
        Ok(location) => location.into_owned(),
        Err(_) => url.to_string(),
    }
}

/// Scheme, host and path of a location; the path without its first slash.
fn parts(location: &str) -> Option<(&str, &str, &str)> {
    if let Some((scheme, rest)) = location.split_once("://") {
        let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
        let scheme = if ["s3a", "s3n"].contains(&scheme) { "s3" } else { scheme };
        return Some((scheme, host, path));
    }
    // Hadoop writes local files as `file:/path`.
    let path = location.strip_prefix("file:").unwrap_or(location);
    Some(("file", "", path.strip_prefix('/')?))
}

fn extended(mut root: Url, path: &str, location: &str) -> Result<Url> {
    let refused = |part: &str| {
        Error::invalid(format!(
            "expected the location of an object without control characters and without parts that are `.` or `..`, found `{}` in `{}`",
            part.escape_debug(),
            location.escape_debug()
        ))
    };
    if let Some(part) =
        path.split('/').find(|part| [".", ".."].contains(part) || part.contains(|c: char| c.is_control()))
    {
        return Err(refused(part));
    }
    // On a disk several slashes are one; in a key they are not.
    let folds = root.scheme() == "file";
    let last = path.split('/').count() - 1;
    let kept = path.split('/').enumerate().filter(|(place, part)| !folds || !part.is_empty() || *place == last);
    if let Ok(mut segments) = root.path_segments_mut() {
        segments.pop_if_empty().extend(kept.map(|(_, part)| part));
    }
    Ok(root)
}

#[cfg(test)]
mod tests {
    use object_store::path::Path;
    use proptest::prelude::*;

    use std::sync::Arc;

    use super::*;
    use crate::storage::Root;
    use object_store::memory::InMemory;

    #[test]
    fn a_location_is_the_key_byte_for_byte() {
        for (location, key) in [
            ("s3://b/t/data/s=%C3%BC/f.parquet", "t/data/s=%C3%BC/f.parquet"),
            (
                "s3a://b/t/ts=2020-01-01T00%3A00%3A00/f#1?x=y z+&.parquet",
                "t/ts=2020-01-01T00%3A00%3A00/f#1?x=y z+&.parquet",
            ),
            ("s3://b/t/ü\\%/f", "t/ü\\%/f"),
            ("file:///t/a%20b\\c/f", "t/a%20b\\c/f"),
            ("/t//a%2Fb/f", "t/a%2Fb/f"),
            ("file:/t/f", "t/f"),
            ("memory:///t/%2e%2e/f", "t/%2e%2e/f"),
        ] {
            let url = url_of(location).unwrap();
            assert_eq!(Path::from_url_path(url.path()).unwrap().as_ref(), key, "{url}");
        }
    }

    #[test]
    fn what_no_store_holds_is_refused_with_its_text() {
        for location in ["no place", "s3://b/t/../f", "file:///a/./b", "s3://b/a\nb", "s3://b/a\tb", "://x/y"] {
            let error = url_of(location).unwrap_err();
            assert_eq!(error.kind(), crate::ErrorKind::Invalid, "{error}");
            assert!(error.to_string().contains(&location.escape_debug().to_string()), "{error}");
        }
    }

    #[test]
    fn a_location_below_a_root_that_is_percent_encoded_goes_on_from_the_root() {
        let root = Url::parse("file:///home/a%20b/objects/").unwrap();
        let storage = Storage::new(vec![Root::new(&root, Arc::new(InMemory::new()))]);
        for location in [
            "file:///home/a%20b/objects/t/s=%20/f",
            "file:///home/a b/objects/t/s=%20/f",
            "/home/a b/objects/t/s=%20/f",
        ] {
            assert_eq!(storage.locate(location).unwrap().as_str(), "file:///home/a%20b/objects/t/s=%2520/f");
        }
    }

    proptest! {
        #[test]
        fn a_url_and_its_location_name_the_same_object(key in "[a-zA-Z0-9%#?&=+ü東 :\\\\'\"-]{1,12}(/[a-zA-Z0-9%#?=+ü :-]{1,12}){0,3}") {
            let url = url_of(&format!("s3://bucket/{key}")).unwrap();
            let path = Path::from_url_path(url.path()).unwrap();
            prop_assert_eq!(path.as_ref(), &key);
            prop_assert_eq!(url_of(&location_of(&url)).unwrap(), url);
        }
    }
}
