//! How rows that come are partitioned and sorted.
//!
//! A partition field that the table had before gets its old id and name again, as the Iceberg specification asks.

use iceberg::spec::{
    FormatVersion, NullOrder, SortDirection, SortField as IcebergSortField, SortOrder, TableMetadataBuilder,
    Transform as IcebergTransform, UnboundPartitionField, UnboundPartitionSpec,
};

use super::SortField;
use super::draft::Draft;
use crate::write::check_partition_type;
use shared::model::{PartitionField, Transform};
use shared::{Error, Result};

impl Draft<'_> {
    pub(super) fn add_partition_field(&mut self, field: &PartitionField) -> Result<()> {
        self.settle_columns()?;
        let mut fields = self.partition_fields();
        let new = self.partition_field(field)?;
        if fields.iter().any(|have| same(have, &new)) {
            return Err(Error::invalid(format!("expected a partition field that the table lacks, found `{field}`")));
        }
        fields.push(new);
        self.set_partition_fields(fields)
    }

    pub(super) fn drop_partition_field(&mut self, field: &PartitionField) -> Result<()> {
        self.settle_columns()?;
        let mut fields = self.partition_fields();
        let dropped = self.partition_field(field)?;
        let count = fields.len();
        fields.retain(|have| !same(have, &dropped));
        if fields.len() == count {
            let known: Vec<_> = fields.iter().map(|f| format!("`{}`", f.name)).collect();
            return Err(Error::invalid(format!(
                "expected one of the table's partition fields ({}), found `{field}`",
                if known.is_empty() { "it has none".to_owned() } else { known.join(", ") }
            )));
        }
        self.set_partition_fields(fields)
    }

    pub(super) fn replace_partition_fields(&mut self, fields: &[PartitionField]) -> Result<()> {
        self.settle_columns()?;
        let fields = fields.iter().map(|field| self.partition_field(field)).collect::<Result<Vec<_>>>()?;
        self.set_partition_fields(fields)
    }

    fn partition_fields(&self) -> Vec<UnboundPartitionField> {
        let fields = self.metadata.default_partition_spec().fields();
        fields.iter().filter(|f| f.transform != IcebergTransform::Void).map(|f| f.clone().into_unbound()).collect()
    }

    fn set_partition_fields(&mut self, fields: Vec<UnboundPartitionField>) -> Result<()> {
        if fields == self.partition_fields() {
            return Ok(());
        }
        if self.metadata.format_version() == FormatVersion::V1 {
            return Err(Error::invalid(
                "expected a table of Iceberg's format v2 or later to partition anew, found `v1`: upgrade it with the property `format-version`",
            ));
        }
        let described = fields.iter().map(|f| format!("`{}`", f.name)).collect::<Vec<_>>().join(", ");
        let unfit =
            |e| Error::invalid(format!("partition fields {described}: expected some that go together")).with_source(e);
        let spec = UnboundPartitionSpec::builder().add_partition_fields(fields).map_err(unfit)?.build();
        self.edit(|builder| builder.add_default_partition_spec(spec))
            .map_err(|e| e.context(format!("partition fields {described}")))
    }

    /// As a spec holds it, with the id and the name that it had in an earlier spec, if there was one.
    fn partition_field(&self, field: &PartitionField) -> Result<UnboundPartitionField> {
        let (source_id, transform) =
            self.source(&field.column, field.transform, &format!("partition field `{field}`"))?;
        if let Some(source) = self.metadata.current_schema().field_by_id(source_id) {
            check_partition_type(&field.column, transform, &source.field_type)?;
        }
        let earlier = self.metadata.partition_specs_iter().flat_map(|spec| spec.fields());
        let earlier: Vec<_> = earlier.filter(|f| f.source_id == source_id && f.transform == transform).collect();
        if let Some(earlier) = earlier.iter().max_by_key(|f| f.field_id) {
            return Ok((*earlier).clone().into_unbound());
        }
        let column = &field.column;
        let name = match field.transform {
            Transform::Identity => column.clone(),
            Transform::Year => format!("{column}_year"),
            Transform::Month => format!("{column}_month"),
            Transform::Day => format!("{column}_day"),
            Transform::Hour => format!("{column}_hour"),
            Transform::Bucket(n) => format!("{column}_bucket_{n}"),
            Transform::Truncate(n) => format!("{column}_trunc_{n}"),
        };
        Ok(UnboundPartitionField { source_id, field_id: None, name, transform })
    }

    pub(super) fn set_sort_order(&mut self, fields: &[SortField]) -> Result<()> {
        let order = self.sort_order(fields)?;
        if order.fields == self.metadata.default_sort_order().fields {
            return Ok(());
        }
        let last = i64::from(TableMetadataBuilder::LAST_ADDED);
        self.edit(|builder| builder.add_sort_order(order)?.set_default_sort_order(last))
    }

    pub(super) fn name_sort_order(&mut self, fields: &[SortField]) -> Result<()> {
        let order = self.sort_order(fields)?;
        if self.metadata.sort_orders_iter().any(|known| known.fields == order.fields) {
            return Ok(());
        }
        self.edit(|builder| builder.add_sort_order(order))
    }

    fn sort_order(&mut self, fields: &[SortField]) -> Result<SortOrder> {
        self.settle_columns()?;
        let mut order = SortOrder::builder();
        for field in fields {
            let what = format!("sort field `{}`", field.column);
            let (source_id, transform) = self.source(&field.column, field.transform, &what)?;
            order.with_sort_field(IcebergSortField {
                source_id,
                transform,
                direction: if field.descending { SortDirection::Descending } else { SortDirection::Ascending },
                null_order: if field.nulls_first { NullOrder::First } else { NullOrder::Last },
            });
        }
        order.build_unbound().map_err(|e| Error::invalid("expected a sort order").with_source(e))
    }

    /// The id of a top-level column, and the transform if the column's type fits it.
    fn source(&self, column: &str, transform: Transform, what: &str) -> Result<(i32, IcebergTransform)> {
        let schema = self.metadata.current_schema();
        let source = schema.as_struct().fields().iter().find(|f| f.name == column).ok_or_else(|| {
            let known: Vec<_> = schema.as_struct().fields().iter().map(|f| format!("`{}`", f.name)).collect();
            Error::invalid(format!("{what}: expected one of {}, found `{column}`", known.join(", ")))
        })?;
        let transform = iceberg_transform(transform);
        if transform.result_type(&source.field_type).is_err() || !source.field_type.is_primitive() {
            return Err(Error::invalid(format!(
                "{what}: expected a column of a type that `{transform}` takes, found `{}`",
                source.field_type
            )));
        }
        Ok((source.id, transform))
    }
}

pub fn iceberg_transform(transform: Transform) -> IcebergTransform {
    match transform {
        Transform::Identity => IcebergTransform::Identity,
        Transform::Year => IcebergTransform::Year,
        Transform::Month => IcebergTransform::Month,
        Transform::Day => IcebergTransform::Day,
        Transform::Hour => IcebergTransform::Hour,
        Transform::Bucket(n) => IcebergTransform::Bucket(n),
        Transform::Truncate(n) => IcebergTransform::Truncate(n),
    }
}

fn same(a: &UnboundPartitionField, b: &UnboundPartitionField) -> bool {
    a.source_id == b.source_id && a.transform == b.transform
}
