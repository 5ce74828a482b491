//! The table properties that say how data files are written: encoding of Parquet, and what manifests keep of columns.

use std::collections::HashMap;
use std::str::FromStr;

use arrow::datatypes::Schema as ArrowSchema;
use iceberg::spec::{Datum, PrimitiveLiteral, PrimitiveType, Schema, TableMetadata};
use parquet::arrow::ArrowSchemaConverter;
use parquet::basic::{Compression, GzipLevel, ZstdLevel};
use parquet::file::properties::{WriterProperties, WriterPropertiesBuilder};
use parquet::schema::types::ColumnPath;

use super::properties::read;
use super::schema;
use shared::{Error, Result};

/// Encoded bytes of a row group, which a writer holds in memory: the most that a property can ask for.
const ROW_GROUP_BYTES: usize = 16 << 20;
/// Bytes of text and binary that Parquet's own statistics keep.
const STATISTICS_BYTES: usize = 64;
/// The size of a bloom filter unless a property says otherwise.
const BLOOM_FILTER_BYTES: u64 = 1 << 20;
/// The share of values that a bloom filter takes for present though they are not, unless a property says otherwise.
const BLOOM_FILTER_FPP: f64 = 0.01;

/// Values that the Parquet writer takes at a time.
const BATCH_ROWS: usize = 1024;

const CODEC: &str = "write.parquet.compression-codec";
const LEVEL: &str = "write.parquet.compression-level";
const BLOOM_ENABLED: &str = "write.parquet.bloom-filter-enabled.column.";
const BLOOM_FPP: &str = "write.parquet.bloom-filter-fpp.column.";
const BLOOM_NDV: &str = "write.parquet.bloom-filter-ndv.column.";
const METRICS: &str = "write.metadata.metrics.default";
const METRICS_OF: &str = "write.metadata.metrics.column.";

/// Whether the properties can be read.
///
/// # Errors
/// `Invalid`, naming the property, for a value that can't.
pub(super) fn check(metadata: &TableMetadata) -> Result<()> {
    let schema = metadata.current_schema();
    writer_properties(metadata, schema, schema::arrow_schema(schema)?.as_ref())?;
    Metrics::of(metadata, schema).map(drop)
}

/// How Parquet files of the table are written; `arrow` is its schema with field ids.
///
/// # Errors
/// `Invalid`, naming the property, for a value that can't be read.
pub(super) fn writer_properties(
    metadata: &TableMetadata,
    schema: &Schema,
    arrow: &ArrowSchema,
) -> Result<WriterProperties> {
    let bytes = |key| read::<usize>(metadata, key, "a number of bytes");
    let mut builder = WriterProperties::builder()
        .set_compression(compression(metadata)?)
        .set_statistics_truncate_length(Some(STATISTICS_BYTES));
    let row_group = bytes("write.parquet.row-group-size-bytes")?.unwrap_or(ROW_GROUP_BYTES);
    builder = builder.set_max_row_group_bytes(Some(row_group.clamp(1, ROW_GROUP_BYTES)));
    if let Some(bytes) = bytes("write.parquet.page-size-bytes")? {
        builder = builder.set_data_page_size_limit(bytes.max(1));
    }
    if let Some(rows) = read::<usize>(metadata, "write.parquet.page-row-limit", "a number of rows")? {
        // The limit is looked at after each batch of values.
        builder = builder.set_data_page_row_count_limit(rows.max(1)).set_write_batch_size(rows.clamp(1, BATCH_ROWS));
    }
    if let Some(bytes) = bytes("write.parquet.dict-size-bytes")? {
        builder = builder.set_dictionary_page_size_limit(bytes);
    }
    Ok(bloom_filters(builder, metadata, schema, arrow)?.build())
}

/// # Errors
/// `Invalid` for a codec or level that is not known.
fn compression(metadata: &TableMetadata) -> Result<Compression> {
    let codec = metadata.properties().get(CODEC).map(|codec| codec.to_ascii_lowercase());
    let level = metadata.properties().get(LEVEL);
    let leveled = |name: &str, of: &dyn Fn(&str) -> Option<Compression>, plain: Compression| {
        let Some(level) = level else { return Ok(plain) };
        of(level).ok_or_else(|| {
            Error::invalid(format!("table property `{LEVEL}`: expected a level of `{name}`, found `{level}`"))
        })
    };
    let zstd = |level: &str| Some(Compression::ZSTD(ZstdLevel::try_new(level.parse().ok()?).ok()?));
    let gzip = |level: &str| Some(Compression::GZIP(GzipLevel::try_new(level.parse().ok()?).ok()?));
    match codec.as_deref() {
        None | Some("zstd") => leveled("zstd", &zstd, Compression::ZSTD(ZstdLevel::default())),
        Some("gzip") => leveled("gzip", &gzip, Compression::GZIP(GzipLevel::default())),
        Some("snappy") => Ok(Compression::SNAPPY),
        Some("lz4") => Ok(Compression::LZ4_RAW),
        Some("uncompressed" | "none") => Ok(Compression::UNCOMPRESSED),
        Some(found) => Err(Error::invalid(format!(
            "table property `{CODEC}`: expected `zstd`, `snappy`, `gzip`, `lz4` or `uncompressed`, found `{found}`"
        ))),
    }
}

/// Bloom filters of the columns whose properties ask for one, no larger than `write.parquet.bloom-filter-max-bytes`.
fn bloom_filters(
    mut builder: WriterPropertiesBuilder,
    metadata: &TableMetadata,
    schema: &Schema,
    arrow: &ArrowSchema,
) -> Result<WriterPropertiesBuilder> {
    let names: Vec<_> = metadata.properties().keys().filter_map(|key| key.strip_prefix(BLOOM_ENABLED)).collect();
    if names.is_empty() {
        return Ok(builder);
    }
    let most = read(metadata, "write.parquet.bloom-filter-max-bytes", "a number of bytes")?;
    let most: u64 = most.unwrap_or(BLOOM_FILTER_BYTES);
    let paths = leaves(arrow)?;
    for name in names {
        if read(metadata, &format!("{BLOOM_ENABLED}{name}"), "`true` or `false`")? != Some(true) {
            continue;
        }
        // A column that is gone, or of a type that has no filter, leaves its property behind.
        let Some(path) = schema.field_id_by_name(name).and_then(|id| paths.get(&id)) else { continue };
        let share = read(metadata, &format!("{BLOOM_FPP}{name}"), "a number between 0 and 1")?;
        let share = share.unwrap_or(BLOOM_FILTER_FPP);
        if !(share > 0.0 && share < 1.0) {
            let message =
                format!("table property `{BLOOM_FPP}{name}`: expected a number between 0 and 1, found `{share}`");
            return Err(Error::invalid(message));
        }
        let distinct: Option<u64> = read(metadata, &format!("{BLOOM_NDV}{name}"), "a number of values")?;
        let distinct = distinct.unwrap_or(u64::MAX).min(distinct_within(most, share)).max(1);
        builder = builder
            .set_column_bloom_filter_enabled(path.clone(), true)
            .set_column_bloom_filter_fpp(path.clone(), share)
            .set_column_bloom_filter_max_ndv(path.clone(), distinct);
    }
    Ok(builder)
}

/// How many distinct values a split-block bloom filter of so many bytes has room for: Parquet's own formula, solved for them.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
fn distinct_within(bytes: u64, share: f64) -> u64 {
    let bits = bytes as f64 * 8.0;
    (-bits / 8.0 * (1.0 - share.powf(1.0 / 8.0)).ln()) as u64
}

/// Where Parquet has the columns with values, by field id.
fn leaves(arrow: &ArrowSchema) -> Result<HashMap<i32, ColumnPath>> {
    let parquet = ArrowSchemaConverter::new().convert(arrow);
    let parquet = parquet.map_err(|e| Error::bug("expected columns that Parquet can hold").with_source(e))?;
    let leaves = parquet.columns().iter().filter(|leaf| leaf.self_type().get_basic_info().has_id());
    Ok(leaves.map(|leaf| (leaf.self_type().get_basic_info().id(), leaf.path().clone())).collect())
}

/// What a manifest keeps of a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    None,
    Counts,
    /// Counts, and bounds of so many characters or bytes.
    Truncate(usize),
    Full,
}

impl FromStr for Mode {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let text = text.to_ascii_lowercase();
        let length = || text.strip_prefix("truncate(")?.strip_suffix(')')?.trim().parse().ok().filter(|n| *n > 0);
        match text.as_str() {
            "none" => Ok(Self::None),
            "counts" => Ok(Self::Counts),
            "full" => Ok(Self::Full),
            _ => length().map(Self::Truncate).ok_or(()),
        }
    }
}

/// What manifests keep of each column. By default bounds as long as Parquet's own.
#[derive(Debug, Clone)]
pub(super) struct Metrics {
    default: Mode,
    columns: HashMap<i32, Mode>,
}

/// What is kept of the values of one column.
#[derive(Debug, Default)]
pub(super) struct Kept {
    pub(super) counts: bool,
    pub(super) bounds: Option<(Option<Datum>, Option<Datum>)>,
}

impl Metrics {
    /// # Errors
    /// `Invalid`, naming the property, for a mode that is not known.
    pub(super) fn of(metadata: &TableMetadata, schema: &Schema) -> Result<Self> {
        const EXPECTED: &str = "`none`, `counts`, `truncate(length)` or `full`";
        let mut columns = HashMap::new();
        for name in metadata.properties().keys().filter_map(|key| key.strip_prefix(METRICS_OF)) {
            let mode = read(metadata, &format!("{METRICS_OF}{name}"), EXPECTED)?;
            // A column that is gone leaves its property behind.
            columns.extend(schema.field_id_by_name(name).zip(mode));
        }
        Ok(Self { default: read(metadata, METRICS, EXPECTED)?.unwrap_or(Mode::Full), columns })
    }

    /// What is kept of a column with these bounds.
    pub(super) fn kept(&self, id: i32, lower: Option<Datum>, upper: Option<Datum>) -> Kept {
        match *self.columns.get(&id).unwrap_or(&self.default) {
            Mode::None => Kept::default(),
            Mode::Counts => Kept { counts: true, bounds: None },
            Mode::Full => Kept { counts: true, bounds: Some((lower, upper)) },
            Mode::Truncate(length) => {
                let lower = lower.map(|bound| floor(bound, length));
                let upper = upper.and_then(|bound| ceiling(bound, length));
                Kept { counts: true, bounds: Some((lower, upper)) }
            }
        }
    }
}

/// A bound of at most `length` characters or bytes that is no greater.
fn floor(bound: Datum, length: usize) -> Datum {
    match (bound.data_type(), bound.literal()) {
        (PrimitiveType::String, PrimitiveLiteral::String(text)) => {
            Datum::string(text.chars().take(length).collect::<String>())
        }
        (PrimitiveType::Binary, PrimitiveLiteral::Binary(bytes)) => {
            Datum::binary(bytes.iter().copied().take(length).collect::<Vec<_>>())
        }
        _ => bound,
    }
}

/// A bound of at most `length` characters or bytes that is no less; `None` when there is none.
fn ceiling(bound: Datum, length: usize) -> Option<Datum> {
    match (bound.data_type(), bound.literal()) {
        (PrimitiveType::String, PrimitiveLiteral::String(text)) if text.chars().nth(length).is_some() => {
            let mut kept: Vec<char> = text.chars().take(length).collect();
            while let Some(last) = kept.pop() {
                if let Some(next) = (u32::from(last) + 1..=u32::from(char::MAX)).find_map(char::from_u32) {
                    kept.push(next);
                    return Some(Datum::string(kept.into_iter().collect::<String>()));
                }
            }
            None
        }
        (PrimitiveType::Binary, PrimitiveLiteral::Binary(bytes)) if bytes.len() > length => {
            let mut kept = bytes[..length].to_vec();
            while let Some(last) = kept.pop() {
                if let Some(next) = last.checked_add(1) {
                    kept.push(next);
                    return Some(Datum::binary(kept));
                }
            }
            None
        }
        _ => Some(bound),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn truncated_bounds_still_bound() {
        assert_eq!(floor(Datum::string("abcdef"), 3), Datum::string("abc"));
        assert_eq!(ceiling(Datum::string("abcdef"), 3), Some(Datum::string("abd")));
        assert_eq!(ceiling(Datum::string("abc"), 3), Some(Datum::string("abc")));
        assert_eq!(ceiling(Datum::string("ab\u{10ffff}d"), 3), Some(Datum::string("ac")));
        assert_eq!(ceiling(Datum::string("\u{10ffff}d"), 1), None);
        assert_eq!(ceiling(Datum::string("a\u{d7ff}b"), 2), Some(Datum::string("a\u{e000}")));
        assert_eq!(floor(Datum::binary(vec![1, 2, 3]), 2), Datum::binary(vec![1, 2]));
        assert_eq!(ceiling(Datum::binary(vec![1, 255, 3]), 2), Some(Datum::binary(vec![2])));
        assert_eq!(ceiling(Datum::binary(vec![255, 255, 3]), 2), None);
        assert_eq!(ceiling(Datum::long(5), 2), Some(Datum::long(5)));
    }

    #[test]
    fn modes_are_read_as_iceberg_writes_them() {
        for (text, mode) in [
            ("none", Ok(Mode::None)),
            ("Counts", Ok(Mode::Counts)),
            ("full", Ok(Mode::Full)),
            ("truncate(16)", Ok(Mode::Truncate(16))),
            ("truncate(0)", Err(())),
            ("truncate", Err(())),
            ("some", Err(())),
        ] {
            assert_eq!(text.parse::<Mode>(), mode, "{text}");
        }
    }

    #[test]
    fn a_bloom_filter_has_room_for_the_values_that_its_size_allows() {
        // 1 MiB and one in a hundred: about 0.8 million distinct values.
        let distinct = distinct_within(1 << 20, 0.01);
        assert!((800_000..1_000_000).contains(&distinct), "{distinct}");
    }
}
