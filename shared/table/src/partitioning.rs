//! How a table is partitioned, and which partitions it has.

use std::collections::BTreeSet;

use iceberg::spec::{
    DataContentType, Literal, PartitionSpec, PrimitiveLiteral, Struct, StructType, TableMetadata,
    Transform as IcebergTransform, Type,
};

use super::Table;
use super::io::IcebergContext;
use super::live::live_entries;
use super::transform::zoned;
use shared::model::{PartitionField, Transform};
use shared::{Error, Result};

const DAY_SECONDS: i64 = 86_400;

impl Table {
    /// What rows that come are partitioned by. The column of a field in a struct is its path, e.g. `place.zip`.
    ///
    /// # Errors
    /// `Invalid` for a transform that the specification does not have.
    pub fn partition_fields(&self) -> Result<Vec<PartitionField>> {
        let schema = self.metadata.current_schema();
        let fields = self.metadata.default_partition_spec().fields().iter();
        let fields = fields.filter(|field| field.transform != IcebergTransform::Void).map(|field| {
            let column = schema.name_by_field_id(field.source_id).unwrap_or(&field.name).to_owned();
            Ok(PartitionField { column, transform: our_transform(field.transform)? })
        });
        fields.collect()
    }

    /// The partitions that the current snapshot has rows in, each as `field=value/field=value`, in order. Files that lie in no
    /// partition, as they do after a change of the partitioning, are not told.
    ///
    /// # Errors
    /// `Bug` when metadata can't be read.
    pub async fn partitions(&self) -> Result<Vec<String>> {
        let Some(snapshot) = self.metadata.current_snapshot() else { return Ok(Vec::new()) };
        let mut found = BTreeSet::new();
        for file in live_entries(&self.io, &self.metadata, snapshot).await? {
            if file.data().content_type() != DataContentType::Data {
                continue;
            }
            let spec = file.manifest().metadata().partition_spec();
            let types = partition_type(&self.metadata, spec)?;
            let values = named_values(spec, &types, file.data().partition());
            let kept = values.zip(spec.fields()).filter(|(_, field)| field.transform != IcebergTransform::Void);
            let path: Vec<String> = kept.map(|(value, _)| value).collect();
            if !path.is_empty() {
                found.insert(path.join("/"));
            }
        }
        Ok(found.into_iter().collect())
    }
}

fn our_transform(transform: IcebergTransform) -> Result<Transform> {
    Ok(match transform {
        IcebergTransform::Identity => Transform::Identity,
        IcebergTransform::Year => Transform::Year,
        IcebergTransform::Month => Transform::Month,
        IcebergTransform::Day => Transform::Day,
        IcebergTransform::Hour => Transform::Hour,
        IcebergTransform::Bucket(n) => Transform::Bucket(n),
        IcebergTransform::Truncate(n) => Transform::Truncate(n),
        other => {
            return Err(Error::invalid(format!(
                "expected a partition transform of the specification, found `{other}`"
            )));
        }
    })
}

/// The types of a spec's values. A source column that was dropped is found in an older schema.
///
/// # Errors
/// `Bug` when no schema has the spec's columns.
pub fn partition_type(metadata: &TableMetadata, spec: &PartitionSpec) -> Result<StructType> {
    let doing = || format!("reading the partition spec {}", spec.spec_id());
    let current = spec.partition_type(metadata.current_schema());
    let older = || metadata.schemas_iter().find_map(|schema| spec.partition_type(schema).ok());
    current.or_else(|error| older().ok_or(error)).doing(doing)
}

/// `field=value` of each field of a partition, as Iceberg's other writers name folders.
pub(crate) fn named_values<'a>(
    spec: &'a PartitionSpec,
    types: &'a StructType,
    partition: &'a Struct,
) -> impl Iterator<Item = String> + 'a {
    let fields = spec.fields().iter().zip(types.fields()).zip(partition.iter());
    fields.map(|((field, typed), value)| {
        format!("{}={}", field.name, in_words(field.transform, &typed.field_type, value))
    })
}

fn in_words(transform: IcebergTransform, ty: &Type, value: Option<&Literal>) -> String {
    let literal = value.and_then(Literal::as_primitive_literal);
    if let (Type::Primitive(ty), Some(literal)) = (ty, &literal)
        && let Some(time) = zoned(ty, literal)
    {
        return time;
    }
    let date = |days: i64| chrono::DateTime::from_timestamp(days * DAY_SECONDS, 0).unwrap_or_default().date_naive();
    let whole = match literal {
        Some(PrimitiveLiteral::Int(value)) => Some(i64::from(value)),
        _ => None,
    };
    match (transform, whole) {
        (IcebergTransform::Year, Some(years)) => (1970 + years).to_string(),
        (IcebergTransform::Month, Some(months)) => {
            format!("{:04}-{:02}", 1970 + months.div_euclid(12), months.rem_euclid(12) + 1)
        }
        (IcebergTransform::Day, Some(days)) => date(days).to_string(),
        (IcebergTransform::Hour, Some(hours)) => format!("{}-{:02}", date(hours.div_euclid(24)), hours.rem_euclid(24)),
        _ => transform.to_human_string(ty, value),
    }
}
