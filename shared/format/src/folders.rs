//! Folders as partitions of a table: `year=2013` is a key and its value (percent-encoded), as Hive writes them; any other name is
//! a value.

use percent_encoding::percent_decode_str;
use url::Url;

use shared::model::Column;
use shared::model::name::to_identifier;

/// A `k=v` folder's key and value.
pub fn key_value(segment: &str) -> Option<(String, String)> {
    let (key, value) = segment.split_once('=')?;
    // What is no escaped UTF-8 was not written by Hive, and stands for itself.
    let value = percent_decode_str(value).decode_utf8().map_or_else(|_| value.to_owned(), Into::into);
    (!key.is_empty()).then(|| (to_identifier(key), value))
}

/// The value that a folder stands for.
pub fn value(segment: &str) -> String {
    key_value(segment).map_or_else(|| segment.to_owned(), |(_, value)| value)
}

/// The names of the folders in a path.
pub fn segments(folder: &str) -> Vec<&str> {
    folder.split('/').filter(|segment| !segment.is_empty()).collect()
}

/// The URL of `path` below the folder `base`; a final slash stays.
pub fn below_folder(base: &Url, path: &str) -> Url {
    let mut url = base.clone();
    if !path.is_empty()
        && let Ok(mut segments) = url.path_segments_mut()
    {
        segments.pop_if_empty().extend(path.split('/'));
    }
    url
}

/// The values of one folder, by its path in the table, under the table's keys.
///
/// # Errors
/// What does not fit, in words.
pub fn values_under(keys: &[Column], folder: &str) -> Result<Vec<String>, String> {
    let found = segments(folder);
    let fits = found.len() == keys.len()
        && found.iter().zip(keys).all(|(segment, key)| key_value(segment).is_none_or(|(name, _)| name == key.name));
    if !fits {
        let expected: Vec<_> = keys.iter().map(|key| key.name.as_str()).collect();
        return Err(format!("expected a folder for the partition keys `{}`, found `{folder}`", expected.join("/")));
    }
    Ok(found.into_iter().map(value).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared::model::ColumnType;

    #[test]
    fn a_new_folder_must_fit_the_tables_keys() {
        let keys = [Column::new("year", ColumnType::Int)];
        assert_eq!(values_under(&keys, "year=2015").unwrap(), ["2015"]);
        assert!(values_under(&keys, "month=1").is_err());
        assert!(values_under(&keys, "").is_err());
    }
}
