//! The order that data files were written in, in the words of the optimizer.

use std::sync::Arc;

use arrow::compute::SortOptions;
use arrow::datatypes::{DataType, SchemaRef};
use datafusion::common::stats::Precision;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::{FileGroup, FileScanConfig};
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::{LexOrdering, PhysicalSortExpr};
use iceberg::spec::{NestedFieldRef, NullOrder, SortDirection, TableMetadata, Transform};

use table::live::LiveFile;

/// The order that all `files` were written in, as far as it is one by the values of columns; `fields` are those of the first
/// columns of `schema`. `None` when they have none, or different ones.
pub(super) fn common(
    metadata: &TableMetadata,
    fields: &[NestedFieldRef],
    schema: &SchemaRef,
    files: &[&LiveFile],
) -> Option<LexOrdering> {
    let id = files.first()?.data().sort_order_id()?;
    if files.iter().any(|file| file.data().sort_order_id() != Some(id)) {
        return None;
    }
    let order = metadata.sort_order_by_id(id.into())?;
    let keys = order.fields.iter().map_while(|key| {
        let place = fields.iter().position(|field| field.id == key.source_id)?;
        let column = schema.field(place);
        if key.transform != Transform::Identity || !is_ordered_alike(column.data_type()) {
            return None;
        }
        let options = SortOptions {
            descending: key.direction == SortDirection::Descending,
            nulls_first: key.null_order == NullOrder::First,
        };
        Some(PhysicalSortExpr::new(Arc::new(Column::new(column.name(), place)), options))
    });
    LexOrdering::new(keys)
}

/// Whether every engine puts values of the type in the order that SQL has here. They differ in the forms of zero and NaN, and in
/// the signs of a uuid's halves.
fn is_ordered_alike(ty: &DataType) -> bool {
    !ty.is_floating() && !ty.is_nested() && !matches!(ty, DataType::FixedSizeBinary(_))
}

/// The files in at most `partitions` groups, so that the rows of each come in `order`, and that order. `None` when more groups are
/// needed.
pub(super) fn grouped(
    order: LexOrdering,
    schema: &SchemaRef,
    files: &[PartitionedFile],
    partitions: usize,
) -> Option<(Vec<FileGroup>, LexOrdering)> {
    let nulls = files.iter().any(|file| may_have_nulls(&order, file));
    let groups = if files.len() <= partitions {
        files.iter().map(|file| FileGroup::new(vec![file.clone()])).collect()
    } else if nulls {
        // Bounds don't say where nulls are.
        return None;
    } else {
        let all = [FileGroup::new(files.to_vec())];
        FileScanConfig::split_groups_by_statistics_with_target_partitions(schema, &all, &order, partitions).ok()?
    };
    if groups.len() > partitions {
        return None;
    }
    if nulls {
        return Some((groups, order));
    }
    // Without nulls it is as well the order that ORDER BY has when it says nothing of them.
    let by_default = order.iter().map(|key| {
        let options = SortOptions { nulls_first: key.options.descending, ..key.options };
        PhysicalSortExpr::new(Arc::clone(&key.expr), options)
    });
    Some((groups, LexOrdering::new(by_default)?))
}

fn may_have_nulls(order: &LexOrdering, file: &PartitionedFile) -> bool {
    let columns = order.iter().map(|key| key.expr.downcast_ref::<Column>().map(Column::index));
    let nulls = columns.map(|place| Some(file.statistics.as_ref()?.column_statistics.get(place?)?.null_count));
    nulls.into_iter().any(|nulls| nulls != Some(Precision::Exact(0)) && nulls != Some(Precision::Inexact(0)))
}
