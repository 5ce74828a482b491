//! What Tarn calls otherwise than Glue and Athena: types that a serde can't read, and places in S3.

use percent_encoding::percent_decode_str;
use url::Url;

use shared::catalog::hive::{OPEN_CSV, PARQUET_SERDE};
use shared::model::ColumnType;
use shared::{Error, Result};

const S3: &str = "s3://";

/// The type by which Athena reads a column of files that the serde `library` reads.
///
/// `OpenCSVSerde` takes dates and times as numbers since 1970 only and fails at an empty number, so all its columns are text
/// (Athena's user guide, "Open CSV SerDe for processing CSV"). Hive tables have no time with a zone ("Data types in Amazon
/// Athena"): in Parquet it is a `timestamp` in UTC, in text files its zone does not parse, so it is text. They have no
/// times of day either, and their types' text has no way to write a field's name with other signs than letters, digits and
/// underscores: such a struct is text to Athena, which reads it from JSON and refuses it in Parquet.
pub(super) fn glue_type(ty: &ColumnType, library: Option<&str>) -> ColumnType {
    match library {
        Some(OPEN_CSV) => ColumnType::String,
        Some(PARQUET_SERDE) => without_zones(ty, &ColumnType::Timestamp),
        _ => without_zones(ty, &ColumnType::String),
    }
}

fn without_zones(ty: &ColumnType, zoned: &ColumnType) -> ColumnType {
    let inner = |ty: &ColumnType| Box::new(without_zones(ty, zoned));
    match ty {
        ColumnType::TimestampTz | ColumnType::TimestampTzNs => zoned.clone(),
        ColumnType::TimestampNs => ColumnType::Timestamp,
        ColumnType::Time => ColumnType::String,
        ColumnType::Uuid => ColumnType::Binary,
        ColumnType::Array(item) => ColumnType::Array(inner(item)),
        ColumnType::Map(key, value) => ColumnType::Map(inner(key), inner(value)),
        ColumnType::Struct(fields) if !fields.iter().all(|(name, _)| is_plain(name)) || fields.is_empty() => {
            ColumnType::String
        }
        ColumnType::Struct(fields) => {
            ColumnType::Struct(fields.iter().map(|(name, ty)| (name.clone(), *inner(ty))).collect())
        }
        other => other.clone(),
    }
}

/// Whether a field's name can stand in a type's text without quotes, which Hive and Glue don't know there.
fn is_plain(name: &str) -> bool {
    !name.is_empty() && name.chars().all(|c| c.is_alphanumeric() || c == '_')
}

/// A place in S3 with its key as it is, which is how Glue's locations are read; in a URL the key is percent-encoded.
///
/// # Errors
/// `Invalid` for a key that is not UTF-8.
pub(super) fn key_of_url(url: &str) -> Result<String> {
    if !url.starts_with(S3) {
        return Ok(url.to_owned());
    }
    let key = percent_decode_str(url).decode_utf8();
    let key = key.map_err(|e| Error::invalid(format!("expected a key in UTF-8, found `{url}`")).with_source(e))?;
    Ok(key.into_owned())
}

/// The URL of a location of Glue's; what is no place in S3 stays.
pub(super) fn url_of_key(location: &str) -> String {
    let encoded = || {
        let (bucket, key) = location.strip_prefix(S3)?.split_once('/')?;
        let mut url = Url::parse(&format!("{S3}{bucket}/")).ok()?;
        url.path_segments_mut().ok()?.pop_if_empty().extend(key.split('/'));
        Some(url.to_string())
    };
    encoded().unwrap_or_else(|| location.to_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ty(text: &str) -> ColumnType {
        text.parse().unwrap()
    }

    #[test]
    fn a_time_with_a_zone_is_text_in_text_and_a_timestamp_in_parquet_also_inside_other_types() {
        let nested = ty("struct<at:timestamptz,all:array<map<string,timestamptz>>>");
        let text = ty("struct<at:string,all:array<map<string,string>>>");
        assert_eq!(glue_type(&nested, Some("org.openx.data.jsonserde.JsonSerDe")), text);
        assert_eq!(glue_type(&nested, None), text);
        let parquet = ty("struct<at:timestamp,all:array<map<string,timestamp>>>");
        assert_eq!(glue_type(&nested, Some(PARQUET_SERDE)), parquet);
    }

    #[test]
    fn a_struct_with_a_field_that_no_type_text_holds_is_text() {
        assert_eq!(glue_type(&ty("array<struct<`http-method`:string>>"), None), ty("array<string>"));
        assert_eq!(glue_type(&ty("struct<>"), Some(PARQUET_SERDE)), ColumnType::String);
        assert_eq!(glue_type(&ty("struct<a_1:int>"), None), ty("struct<a_1:int>"));
    }

    #[test]
    fn every_column_of_quoted_csv_is_text() {
        for name in ["bigint", "double", "boolean", "date", "timestamp", "timestamptz", "string"] {
            assert_eq!(glue_type(&ty(name), Some(OPEN_CSV)), ColumnType::String, "{name}");
        }
    }

    #[test]
    fn a_location_in_glue_has_the_key_as_it_is() {
        for (url, key) in [
            ("s3://b/raw/New%20York/", "s3://b/raw/New York/"),
            ("s3://b/raw/at=10%253A00/", "s3://b/raw/at=10%3A00/"),
            ("s3://b/raw/Z%C3%BCrich%3F/", "s3://b/raw/Zürich?/"),
            ("s3://b/", "s3://b/"),
            ("file:///a%20b/", "file:///a%20b/"),
            ("", ""),
        ] {
            assert_eq!(key_of_url(url).unwrap(), key);
            assert_eq!(url_of_key(key), url);
        }
    }

    proptest! {
        #[test]
        fn a_location_survives_the_way_to_glue_and_back(folders in prop::collection::vec("[^/\\p{Cc}]{1,8}", 1..4)) {
            prop_assume!(!folders.iter().any(|folder| [".", ".."].contains(&folder.as_str())));
            let mut url = Url::parse("s3://bucket/").unwrap();
            url.path_segments_mut().unwrap().pop_if_empty().extend(&folders).push("");
            let key = key_of_url(url.as_str()).unwrap();
            prop_assert_eq!(&key, &format!("s3://bucket/{}/", folders.join("/")));
            prop_assert_eq!(url_of_key(&key), url.as_str());
        }
    }
}
