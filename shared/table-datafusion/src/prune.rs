//! What the manifests know of data files, in the words of DataFusion: statistics, and files that a filter rules out.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, StringArray, UInt64Array};
use arrow::datatypes::{DataType, SchemaRef};
use datafusion::common::pruning::PruningStatistics;
use datafusion::common::stats::Precision;
use datafusion::common::{Column, ColumnStatistics, ScalarValue, Statistics};
use iceberg::spec::{
    DataFile, Datum, Literal, ManifestFile, NestedFieldRef, PartitionSpec, PrimitiveLiteral, PrimitiveType,
    TableMetadata, Transform, Type,
};

use super::address::FILE;
use super::floats::with_both_zeros;
use super::span::span;
use table::snapshot::LiveFile;
use table::transform;

/// The statistics of one file for every column of the schema that is read, found by field id. Columns past the ids are none of
/// the file's own.
pub(super) fn statistics(file: &DataFile, schema: &SchemaRef, ids: &[i32]) -> Statistics {
    let rows = usize::try_from(file.record_count()).unwrap_or(usize::MAX);
    let size = usize::try_from(file.file_size_in_bytes()).unwrap_or(usize::MAX);
    let columns = schema.fields().iter().enumerate().map(|(place, field)| {
        let mut column = ColumnStatistics::new_unknown();
        let Some(id) = ids.get(place) else { return column };
        // Counts of nested columns count their leaves, not their rows.
        if !field.data_type().is_nested()
            && let Some(nulls) = file.null_value_counts().get(id)
        {
            column.null_count = Precision::Exact(usize::try_from(*nulls).unwrap_or(usize::MAX));
        }
        // Bounds only bound: a text is cut short, and other writers need not give the least value itself.
        if let Some((lower, upper)) = bounds(file, *id, field.data_type()) {
            column.min_value = Precision::Inexact(lower);
            column.max_value = Precision::Inexact(upper);
        }
        column
    });
    Statistics {
        num_rows: Precision::Exact(rows),
        total_byte_size: Precision::Inexact(size),
        column_statistics: columns.collect(),
    }
}

/// Notes the columns that are constant in a file, because the table is partitioned by their values: the scan takes such values
/// from here, as files that were moved into a table from hive-style folders need not have them.
pub(super) fn add_constants(file: &LiveFile, fields: &[NestedFieldRef], schema: &SchemaRef, known: &mut Statistics) {
    let spec = file.manifest().metadata().partition_spec();
    let identities = spec.fields().iter().zip(file.data().partition().fields());
    for (field, value) in identities.filter(|(field, _)| field.transform == Transform::Identity) {
        let Some(place) = fields.iter().position(|own| own.id == field.source_id) else { continue };
        let (ty, column) = (schema.field(place).data_type(), &mut known.column_statistics[place]);
        let Some(value) = value else {
            column.null_count = known.num_rows;
            continue;
        };
        let Some(Type::Primitive(primitive)) = fields.get(place).map(|field| field.field_type.as_ref()) else {
            continue;
        };
        let value = value.as_primitive_literal().and_then(|literal| self::value(primitive, &literal));
        // Zero and NaN have several forms.
        let value = value.filter(|_| !ty.is_floating()).and_then(|value| value.cast_to(ty).ok());
        if let Some(value) = value {
            column.null_count = Precision::Exact(0);
            column.min_value = Precision::Exact(value.clone());
            column.max_value = Precision::Exact(value);
        }
    }
}

/// Values that all values of a column lie between, as SQL orders them.
pub(super) fn bounds(file: &DataFile, id: i32, ty: &DataType) -> Option<(ScalarValue, ScalarValue)> {
    // Iceberg's bounds pass over NaN, which SQL orders last.
    if ty.is_floating() && file.nan_value_counts().get(&id) != Some(&0) {
        return None;
    }
    let lower = scalar(file.lower_bounds().get(&id)?, ty)?;
    let upper = scalar(file.upper_bounds().get(&id)?, ty)?;
    Some(with_both_zeros(lower, upper))
}

/// A bound as a value of the column's present type; the file may be older than a widening.
fn scalar(datum: &Datum, ty: &DataType) -> Option<ScalarValue> {
    let value = value(datum.data_type(), datum.literal())?;
    if value.data_type() == *ty { Some(value) } else { value.cast_to(ty).ok() }
}

/// A value of the metadata as SQL has it.
pub(super) fn value(ty: &PrimitiveType, literal: &PrimitiveLiteral) -> Option<ScalarValue> {
    use PrimitiveType as P;
    Some(match (ty, literal) {
        (_, PrimitiveLiteral::Boolean(v)) => ScalarValue::Boolean(Some(*v)),
        (P::Date, PrimitiveLiteral::Int(v)) => ScalarValue::Date32(Some(*v)),
        (_, PrimitiveLiteral::Int(v)) => ScalarValue::Int32(Some(*v)),
        (P::Timestamp, PrimitiveLiteral::Long(v)) => ScalarValue::TimestampMicrosecond(Some(*v), None),
        (P::Timestamptz, PrimitiveLiteral::Long(v)) => {
            ScalarValue::TimestampMicrosecond(Some(*v), Some("+00:00".into()))
        }
        (P::TimestampNs, PrimitiveLiteral::Long(v)) => ScalarValue::TimestampNanosecond(Some(*v), None),
        (P::TimestamptzNs, PrimitiveLiteral::Long(v)) => {
            ScalarValue::TimestampNanosecond(Some(*v), Some("+00:00".into()))
        }
        (P::Time, PrimitiveLiteral::Long(v)) => ScalarValue::Time64Microsecond(Some(*v)),
        (P::Long, PrimitiveLiteral::Long(v)) => ScalarValue::Int64(Some(*v)),
        (_, PrimitiveLiteral::Float(v)) => ScalarValue::Float32(Some(v.0)),
        (_, PrimitiveLiteral::Double(v)) => ScalarValue::Float64(Some(v.0)),
        (_, PrimitiveLiteral::String(v)) => ScalarValue::Utf8(Some(v.clone())),
        (P::Binary, PrimitiveLiteral::Binary(v)) => ScalarValue::Binary(Some(v.clone())),
        (P::Fixed(size), PrimitiveLiteral::Binary(v)) => {
            ScalarValue::FixedSizeBinary(i32::try_from(*size).ok()?, Some(v.clone()))
        }
        (P::Uuid, PrimitiveLiteral::UInt128(v)) => ScalarValue::FixedSizeBinary(16, Some(v.to_be_bytes().to_vec())),
        (P::Decimal { precision, scale }, PrimitiveLiteral::Int128(v)) => {
            ScalarValue::Decimal128(Some(*v), u8::try_from(*precision).ok()?, i8::try_from(*scale).ok()?)
        }
        _ => return None,
    })
}

/// A bound or a partition's value in words.
pub(super) fn shown(datum: &Datum) -> String {
    table::transform::zoned(datum.data_type(), datum.literal()).unwrap_or_else(|| datum.to_human_string())
}

/// Files as the containers of DataFusion's pruning.
pub(super) struct Files<'a> {
    pub(super) files: &'a [LiveFile],
    pub(super) schema: &'a SchemaRef,
    /// Field ids of the schema's columns, by name.
    pub(super) ids: &'a HashMap<String, i32>,
}

impl Files<'_> {
    fn each(&self, column: &Column, value: impl Fn((ScalarValue, ScalarValue)) -> ScalarValue) -> Option<ArrayRef> {
        let id = *self.ids.get(&column.name)?;
        let ty = self.schema.field_with_name(&column.name).ok()?.data_type();
        let null = ScalarValue::try_from(ty).ok()?;
        let bounds = |file: &LiveFile| bounds(file.data(), id, ty).or_else(|| partition_bounds(file, id, ty));
        let values = self.files.iter().map(|file| bounds(file).map_or_else(|| null.clone(), &value));
        ScalarValue::iter_to_array(values).ok()
    }

    fn locations(&self) -> ArrayRef {
        Arc::new(self.files.iter().map(|file| Some(file.data().file_path())).collect::<StringArray>())
    }

    fn counts(&self, count: impl Fn(&LiveFile) -> Option<u64>) -> ArrayRef {
        Arc::new(self.files.iter().map(count).collect::<UInt64Array>())
    }
}

impl PruningStatistics for Files<'_> {
    fn min_values(&self, column: &Column) -> Option<ArrayRef> {
        if column.name == FILE && !self.ids.contains_key(FILE) {
            return Some(self.locations());
        }
        self.each(column, |bounds| bounds.0)
    }

    fn max_values(&self, column: &Column) -> Option<ArrayRef> {
        if column.name == FILE && !self.ids.contains_key(FILE) {
            return Some(self.locations());
        }
        self.each(column, |bounds| bounds.1)
    }

    fn num_containers(&self) -> usize {
        self.files.len()
    }

    fn null_counts(&self, column: &Column) -> Option<ArrayRef> {
        let id = *self.ids.get(&column.name)?;
        let nested = self.schema.field_with_name(&column.name).ok()?.data_type().is_nested();
        let of_partition = |file: &LiveFile| {
            let value = identity(file, id)?;
            Some(if value.is_none() { file.data().record_count() } else { 0 })
        };
        (!nested).then(|| {
            self.counts(|file| file.data().null_value_counts().get(&id).copied().or_else(|| of_partition(file)))
        })
    }

    fn row_counts(&self) -> Option<ArrayRef> {
        Some(self.counts(|file| Some(file.data().record_count())))
    }

    /// Hash buckets keep no order; a file holds none of the values when each belongs to another bucket.
    fn contained(&self, column: &Column, values: &HashSet<ScalarValue>) -> Option<BooleanArray> {
        let id = *self.ids.get(&column.name)?;
        let mut found = HashMap::new();
        let answers: BooleanArray = self
            .files
            .iter()
            .map(|file| {
                let spec = file.manifest().metadata().partition_spec();
                let place = spec
                    .fields()
                    .iter()
                    .position(|f| f.source_id == id && matches!(f.transform, Transform::Bucket(_)))?;
                let transform = spec.fields()[place].transform;
                let buckets =
                    found.entry(transform.to_string()).or_insert_with(|| buckets(values, transform)).as_ref()?;
                let own = file.data().partition()[place].as_ref()?.as_primitive_literal()?;
                (!buckets.contains(&own)).then_some(false)
            })
            .collect();
        (answers.null_count() < answers.len()).then_some(answers)
    }
}

/// Manifests as the containers of DataFusion's pruning: the list says between which values their partitions lie.
pub(super) struct Manifests<'a> {
    pub(super) manifests: &'a [&'a ManifestFile],
    pub(super) metadata: &'a TableMetadata,
    pub(super) schema: &'a SchemaRef,
    /// Field ids of the schema's columns, by name.
    pub(super) ids: &'a HashMap<String, i32>,
}

impl Manifests<'_> {
    fn each(&self, column: &Column, value: impl Fn((ScalarValue, ScalarValue)) -> ScalarValue) -> Option<ArrayRef> {
        let id = *self.ids.get(&column.name)?;
        let ty = self.schema.field_with_name(&column.name).ok()?.data_type();
        let null = ScalarValue::try_from(ty).ok()?;
        let specs: HashMap<i32, _> =
            self.metadata.partition_specs_iter().map(|s| (s.spec_id(), Spec::of(s, self.metadata, id))).collect();
        let bounds = |manifest: &ManifestFile| specs.get(&manifest.partition_spec_id)?.as_ref()?.bounds(manifest, ty);
        let values = self.manifests.iter().map(|manifest| bounds(manifest).map_or_else(|| null.clone(), &value));
        ScalarValue::iter_to_array(values).ok()
    }
}

/// The partition field of a spec that tells most of a column.
struct Spec {
    place: usize,
    transform: Transform,
    source: PrimitiveType,
    ty: PrimitiveType,
}

impl Spec {
    fn of(spec: &PartitionSpec, metadata: &TableMetadata, id: i32) -> Option<Self> {
        let types = spec.partition_type(metadata.current_schema()).ok()?;
        let Type::Primitive(source) = metadata.current_schema().field_by_id(id)?.field_type.as_ref() else {
            return None;
        };
        let fields = spec.fields().iter().zip(types.fields()).enumerate();
        let mut own = fields.filter(|(_, (field, _))| field.source_id == id).filter_map(|(place, (field, typed))| {
            let Type::Primitive(ty) = typed.field_type.as_ref() else { return None };
            let telling = !matches!(field.transform, Transform::Bucket(_) | Transform::Void | Transform::Unknown);
            telling.then(|| Self { place, transform: field.transform, source: source.clone(), ty: ty.clone() })
        });
        own.next()
    }

    fn bounds(&self, manifest: &ManifestFile, ty: &DataType) -> Option<(ScalarValue, ScalarValue)> {
        let summary = manifest.partitions.as_ref()?.get(self.place)?;
        let span_of = |bytes: &[u8]| {
            let bound = Datum::try_from_bytes(bytes, self.ty.clone()).ok()?;
            span(self.transform, bound.literal(), &self.source, ty)
        };
        let (least, _) = span_of(summary.lower_bound.as_ref()?.as_slice())?;
        let (_, greatest) = span_of(summary.upper_bound.as_ref()?.as_slice())?;
        Some((least, greatest))
    }
}

impl PruningStatistics for Manifests<'_> {
    fn min_values(&self, column: &Column) -> Option<ArrayRef> {
        self.each(column, |bounds| bounds.0)
    }

    fn max_values(&self, column: &Column) -> Option<ArrayRef> {
        self.each(column, |bounds| bounds.1)
    }

    fn num_containers(&self) -> usize {
        self.manifests.len()
    }

    fn null_counts(&self, _: &Column) -> Option<ArrayRef> {
        None
    }

    fn row_counts(&self) -> Option<ArrayRef> {
        None
    }

    fn contained(&self, _: &Column, _: &HashSet<ScalarValue>) -> Option<BooleanArray> {
        None
    }
}

/// What the partition says of a column that the manifest has no bounds for.
fn partition_bounds(file: &LiveFile, id: i32, ty: &DataType) -> Option<(ScalarValue, ScalarValue)> {
    let metadata = file.manifest().metadata();
    let Type::Primitive(source) = metadata.schema().field_by_id(id)?.field_type.as_ref() else { return None };
    let fields = metadata.partition_spec().fields().iter().zip(file.data().partition().fields());
    let mut values = fields
        .filter(|(field, _)| field.source_id == id)
        .filter_map(|(field, value)| span(field.transform, &value.as_ref()?.as_primitive_literal()?, source, ty));
    values.next()
}

/// The value of a column that the table is partitioned by as it is.
fn identity(file: &LiveFile, id: i32) -> Option<&Option<Literal>> {
    let fields = file.manifest().metadata().partition_spec().fields().iter().zip(file.data().partition().fields());
    let mut own = fields.filter(|(field, _)| field.source_id == id && field.transform == Transform::Identity);
    own.next().map(|(_, value)| value)
}

/// The buckets that hold the values; `None` when one can't be computed.
fn buckets(values: &HashSet<ScalarValue>, transform: Transform) -> Option<HashSet<PrimitiveLiteral>> {
    values
        .iter()
        .map(|value| {
            let buckets = transform::apply(transform, &value.to_array().ok()?).ok()?;
            match ScalarValue::try_from_array(&buckets, 0).ok()? {
                ScalarValue::Int32(Some(bucket)) => Some(PrimitiveLiteral::Int(bucket)),
                _ => None,
            }
        })
        .collect()
}
