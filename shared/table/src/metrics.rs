//! What a manifest says of a data file, from the Parquet footer that was just written: sizes, counts, bounds.

use std::collections::{HashMap, HashSet};

use iceberg::spec::{
    DataContentType, DataFile, DataFileBuilder, DataFileFormat, Datum, PrimitiveType, Schema, Struct, Type,
};
use parquet::data_type::AsBytes;
use parquet::file::metadata::{ColumnChunkMetaData, ParquetMetaData};
use parquet::file::statistics::Statistics;
use uuid::Uuid;

use super::files::Metrics;
use shared::{Error, Result};

/// A file that was written, and where it belongs.
pub(super) struct Written<'a> {
    pub(super) location: String,
    pub(super) size: u64,
    pub(super) footer: &'a ParquetMetaData,
    pub(super) partition: Struct,
    pub(super) spec_id: i32,
    /// The table's sort order that the rows are in.
    pub(super) sort_order_id: Option<i32>,
    /// NaN values by field id, for top-level floating point columns.
    pub(super) nan_counts: HashMap<i32, u64>,
}

#[derive(Default)]
struct Columns {
    sizes: HashMap<i32, u64>,
    values: HashMap<i32, u64>,
    nulls: HashMap<i32, u64>,
    lower: HashMap<i32, Datum>,
    upper: HashMap<i32, Datum>,
    /// Columns with values that no statistics cover: bounds would lie.
    unbounded: HashSet<i32>,
}

/// The manifest's view of a written file.
///
/// # Errors
/// `Bug` when the `iceberg` crate finds a field missing.
pub(super) fn data_file(schema: &Schema, metrics: &Metrics, written: Written<'_>) -> Result<DataFile> {
    let mut columns = Columns::default();
    for group in written.footer.row_groups() {
        for chunk in group.columns() {
            columns.add(schema, chunk);
        }
    }
    for id in &columns.unbounded {
        columns.lower.remove(id);
        columns.upper.remove(id);
    }
    let mut nan_counts = written.nan_counts;
    columns.keep(metrics, &mut nan_counts);
    let offsets = written.footer.row_groups().iter().filter_map(|g| g.file_offset()).collect();
    let mut builder = DataFileBuilder::default();
    if let Some(order) = written.sort_order_id {
        builder.sort_order_id(order);
    }
    builder
        .content(DataContentType::Data)
        .file_path(written.location)
        .file_format(DataFileFormat::Parquet)
        .partition(written.partition)
        .partition_spec_id(written.spec_id)
        .record_count(written.footer.file_metadata().num_rows().unsigned_abs())
        .file_size_in_bytes(written.size)
        .column_sizes(columns.sizes)
        .value_counts(columns.values)
        .null_value_counts(columns.nulls)
        .nan_value_counts(nan_counts)
        .lower_bounds(columns.lower)
        .upper_bounds(columns.upper)
        .split_offsets(Some(offsets))
        .build()
        .map_err(|e| Error::bug("describing a data file").with_source(e))
}

impl Columns {
    /// Leaves only what the table's properties ask for.
    fn keep(&mut self, metrics: &Metrics, nans: &mut HashMap<i32, u64>) {
        for id in self.sizes.keys().copied().collect::<Vec<_>>() {
            let kept = metrics.kept(id, self.lower.remove(&id), self.upper.remove(&id));
            if !kept.counts {
                self.sizes.remove(&id);
                self.values.remove(&id);
                self.nulls.remove(&id);
                nans.remove(&id);
            }
            if let Some((lower, upper)) = kept.bounds {
                self.lower.extend(lower.map(|bound| (id, bound)));
                self.upper.extend(upper.map(|bound| (id, bound)));
            }
        }
    }

    fn add(&mut self, schema: &Schema, chunk: &ColumnChunkMetaData) {
        let info = chunk.column_descr().self_type().get_basic_info();
        if !info.has_id() {
            return;
        }
        let id = info.id();
        // Not those of a row's lineage.
        let Some(field) = schema.field_by_id(id) else { return };
        *self.sizes.entry(id).or_default() += chunk.compressed_size().unsigned_abs();
        *self.values.entry(id).or_default() += chunk.num_values().unsigned_abs();
        let nulls = chunk.statistics().and_then(Statistics::null_count_opt);
        if let Some(nulls) = nulls {
            *self.nulls.entry(id).or_default() += nulls;
        }
        if nulls == Some(chunk.num_values().unsigned_abs()) {
            return;
        }
        let bounds = match (field.field_type.as_ref(), chunk.statistics()) {
            (Type::Primitive(ty), Some(statistics)) => bounds(ty, statistics),
            _ => None,
        };
        let Some((lower, upper)) = bounds else {
            self.unbounded.insert(id);
            return;
        };
        widen(&mut self.lower, id, lower, |new, old| new < old);
        widen(&mut self.upper, id, upper, |new, old| new > old);
    }
}

fn widen(bounds: &mut HashMap<i32, Datum>, id: i32, new: Datum, beyond: impl Fn(&Datum, &Datum) -> bool) {
    match bounds.get_mut(&id) {
        Some(old) if !beyond(&new, old) => {}
        Some(old) => *old = new,
        None => {
            bounds.insert(id, new);
        }
    }
}

/// Least and greatest value of a column chunk. Truncated statistics still bound the values.
fn bounds(ty: &PrimitiveType, statistics: &Statistics) -> Option<(Datum, Datum)> {
    use PrimitiveType as P;
    match (ty, statistics) {
        (P::Boolean, Statistics::Boolean(s)) => Some((Datum::bool(*s.min_opt()?), Datum::bool(*s.max_opt()?))),
        (P::Int, Statistics::Int32(s)) => Some((Datum::int(*s.min_opt()?), Datum::int(*s.max_opt()?))),
        (P::Date, Statistics::Int32(s)) => Some((Datum::date(*s.min_opt()?), Datum::date(*s.max_opt()?))),
        (P::Long, Statistics::Int64(s)) => Some((Datum::long(*s.min_opt()?), Datum::long(*s.max_opt()?))),
        (P::Timestamp, Statistics::Int64(s)) => {
            Some((Datum::timestamp_micros(*s.min_opt()?), Datum::timestamp_micros(*s.max_opt()?)))
        }
        (P::Timestamptz, Statistics::Int64(s)) => {
            Some((Datum::timestamptz_micros(*s.min_opt()?), Datum::timestamptz_micros(*s.max_opt()?)))
        }
        (P::TimestampNs, Statistics::Int64(s)) => {
            Some((Datum::timestamp_nanos(*s.min_opt()?), Datum::timestamp_nanos(*s.max_opt()?)))
        }
        (P::TimestamptzNs, Statistics::Int64(s)) => {
            Some((Datum::timestamptz_nanos(*s.min_opt()?), Datum::timestamptz_nanos(*s.max_opt()?)))
        }
        (P::Time, Statistics::Int64(s)) => {
            Some((Datum::time_micros(*s.min_opt()?).ok()?, Datum::time_micros(*s.max_opt()?).ok()?))
        }
        (P::Uuid, Statistics::FixedLenByteArray(s)) => {
            let uuid = |bytes| Uuid::from_slice(bytes).ok().map(Datum::uuid);
            Some((uuid(s.min_opt()?.data())?, uuid(s.max_opt()?.data())?))
        }
        (P::Float, Statistics::Float(s)) => Some((Datum::float(*s.min_opt()?), Datum::float(*s.max_opt()?))),
        (P::Double, Statistics::Double(s)) => Some((Datum::double(*s.min_opt()?), Datum::double(*s.max_opt()?))),
        (P::String, Statistics::ByteArray(s)) => {
            let text = |bytes| std::str::from_utf8(bytes).ok().map(Datum::string);
            Some((text(s.min_opt()?.as_bytes())?, text(s.max_opt()?.as_bytes())?))
        }
        (P::Binary, Statistics::ByteArray(s)) => {
            Some((Datum::binary(s.min_opt()?.data().to_vec()), Datum::binary(s.max_opt()?.data().to_vec())))
        }
        (P::Decimal { .. }, Statistics::Int32(s)) => {
            Some((unscaled(ty, &s.min_opt()?.to_be_bytes())?, unscaled(ty, &s.max_opt()?.to_be_bytes())?))
        }
        (P::Decimal { .. }, Statistics::Int64(s)) => {
            Some((unscaled(ty, &s.min_opt()?.to_be_bytes())?, unscaled(ty, &s.max_opt()?.to_be_bytes())?))
        }
        (P::Decimal { .. }, Statistics::FixedLenByteArray(s)) => {
            Some((unscaled(ty, s.min_opt()?.data())?, unscaled(ty, s.max_opt()?.data())?))
        }
        _ => None,
    }
}

/// A decimal of its unscaled value, two's complement, big-endian, as Parquet and Iceberg both write it.
fn unscaled(ty: &PrimitiveType, bytes: &[u8]) -> Option<Datum> {
    Datum::try_from_bytes(bytes, ty.clone()).ok()
}
