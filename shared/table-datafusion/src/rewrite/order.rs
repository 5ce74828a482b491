//! The order that rows are put in, as sort keys of DataFusion.

use std::sync::Arc;

use datafusion::common::{Column, DataFusionError};
use datafusion::logical_expr::{ColumnarValue, Expr, SortExpr, Volatility, create_udf};
use iceberg::spec::{
    NestedFieldRef, NullOrder, SortDirection, SortField as IcebergSortField, TableMetadata, Transform,
};

use super::{Arrangement, zorder};
use shared::{Error, Result};
use table::SortField;
use table::alter::iceberg_transform;
use table::io::IcebergContext;
use table::live::LiveFile;
use table::schema::arrow_type;
use table::transform;

/// What rows are sorted by.
pub(super) enum Order {
    AsTheyAre,
    /// The fields, and the id under which the table knows such an order.
    Fields(Vec<(NestedFieldRef, IcebergSortField)>, Option<i32>),
    Interleaved(Vec<NestedFieldRef>),
}

impl Order {
    /// # Errors
    /// `Invalid` for a column that is unknown or can't be sorted by, no column at all, or no order of the table where it is
    /// asked for.
    pub(super) fn of(metadata: &TableMetadata, arrangement: &Arrangement) -> Result<Self> {
        match arrangement {
            Arrangement::BinPack => Ok(Self::AsTheyAre),
            Arrangement::Sort(fields) if fields.is_empty() => {
                let order = metadata.default_sort_order();
                if order.is_unsorted() {
                    return Err(Error::invalid(
                        "expected columns to sort by, or a table with a sort order, found neither",
                    ));
                }
                let columns = metadata.current_schema().as_struct().fields();
                let fields = order.fields.iter().map(|field| {
                    let column = columns.iter().find(|column| column.id == field.source_id).ok_or_else(|| {
                        Error::invalid(format!(
                            "expected a sort order over top-level columns, found one over the field {}",
                            field.source_id
                        ))
                    })?;
                    Ok((column.clone(), field.clone()))
                });
                Ok(Self::Fields(fields.collect::<Result<_>>()?, i32::try_from(order.order_id).ok()))
            }
            Arrangement::Sort(fields) => {
                let fields: Vec<_> = fields.iter().map(|field| sort_field(metadata, field)).collect::<Result<_>>()?;
                let known = metadata.sort_orders_iter().find(|order| {
                    order.fields.len() == fields.len() && order.fields.iter().zip(&fields).all(|(a, (_, b))| a == b)
                });
                let id = known.and_then(|order| i32::try_from(order.order_id).ok());
                Ok(Self::Fields(fields, id))
            }
            Arrangement::ZOrder(columns) => {
                let columns: Vec<_> = columns.iter().map(|name| column(metadata, name)).collect::<Result<_>>()?;
                if columns.is_empty() {
                    return Err(Error::invalid("expected columns to z-order by, found none"));
                }
                Ok(Self::Interleaved(columns))
            }
        }
    }

    /// What files in this order are marked with.
    pub(super) fn id(&self) -> Option<i32> {
        match self {
            Self::Fields(_, id) => *id,
            Self::AsTheyAre | Self::Interleaved(_) => None,
        }
    }

    /// The sort keys of the rows of `files`; none for rows that stay in their order.
    pub(super) fn keys(&self, files: &[LiveFile]) -> Result<Vec<SortExpr>> {
        match self {
            Self::AsTheyAre => Ok(Vec::new()),
            Self::Fields(fields, _) => fields.iter().map(|(column, field)| key(column, field)).collect(),
            Self::Interleaved(columns) => Ok(vec![zorder::key(columns, files)?.sort(true, true)]),
        }
    }
}

fn column(metadata: &TableMetadata, name: &str) -> Result<NestedFieldRef> {
    let columns = metadata.current_schema().as_struct().fields();
    let found = columns.iter().find(|column| column.name == name).ok_or_else(|| {
        let known: Vec<_> = columns.iter().map(|f| format!("`{}`", f.name)).collect();
        Error::invalid(format!("expected one of the columns {}, found `{name}`", known.join(", ")))
    })?;
    if !found.field_type.is_primitive() {
        return Err(Error::invalid(format!(
            "expected a column that can be sorted by, found `{name}` of type `{}`",
            found.field_type
        )));
    }
    Ok(found.clone())
}

fn sort_field(metadata: &TableMetadata, field: &SortField) -> Result<(NestedFieldRef, IcebergSortField)> {
    let column = column(metadata, &field.column)?;
    let transform = iceberg_transform(field.transform);
    if transform.result_type(&column.field_type).is_err() {
        return Err(Error::invalid(format!(
            "sort field `{}`: expected a column of a type that `{transform}` takes, found `{}`",
            field.column, column.field_type
        )));
    }
    let sorted = IcebergSortField {
        source_id: column.id,
        transform,
        direction: if field.descending { SortDirection::Descending } else { SortDirection::Ascending },
        null_order: if field.nulls_first { NullOrder::First } else { NullOrder::Last },
    };
    Ok((column, sorted))
}

fn key(column: &NestedFieldRef, field: &IcebergSortField) -> Result<SortExpr> {
    let value = Expr::Column(Column::from_name(&column.name));
    let value =
        if field.transform == Transform::Identity { value } else { transformed(column, field.transform, value)? };
    Ok(value.sort(field.direction == SortDirection::Ascending, field.null_order == NullOrder::First))
}

/// What a transform makes of a column.
fn transformed(column: &NestedFieldRef, transform: Transform, value: Expr) -> Result<Expr> {
    let doing = || format!("sorting by `{transform}`");
    let result = arrow_type(&transform.result_type(&column.field_type).doing(doing)?)?;
    let input = arrow_type(&column.field_type)?;
    let apply = move |arguments: &[ColumnarValue]| {
        let arrays = ColumnarValue::values_to_arrays(arguments)?;
        let values = transform::apply(transform, &arrays[0]);
        values.map(ColumnarValue::Array).map_err(DataFusionError::from)
    };
    let function = create_udf("sort_key", vec![input], result, Volatility::Immutable, Arc::new(apply));
    Ok(function.call(vec![value]))
}
