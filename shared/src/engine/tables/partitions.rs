//! Partitions by their values: which ones a filter can match.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BooleanArray, RecordBatch, RecordBatchOptions};
use arrow::datatypes::{FieldRef, Schema};
use datafusion::common::{Column, DFSchema, ScalarValue};
use datafusion::logical_expr::Expr;
use datafusion::logical_expr::execution_props::ExecutionProps;
use datafusion::physical_expr::create_physical_expr;

use crate::catalog::Partition;
use crate::model::TableName;
use crate::{Error, Result};

/// The value that Hive writes for null.
const NULL_VALUE: &str = "__HIVE_DEFAULT_PARTITION__";

/// The partitions that every filter may hold for, with their typed values.
///
/// # Errors
/// `Invalid` for a partition value that is none of its column's type.
pub(super) fn surviving(
    table: &TableName,
    keys: &[FieldRef],
    partitions: Vec<Partition>,
    filters: &[Expr],
) -> Result<Vec<(Partition, Vec<ScalarValue>)>> {
    let mut typed = Vec::with_capacity(partitions.len());
    for partition in partitions {
        let values = typed_values(table, keys, &partition)?;
        typed.push((partition, values));
    }
    if filters.is_empty() || typed.is_empty() {
        return Ok(typed);
    }
    let keep = matching(keys, &typed, filters)?;
    Ok(typed.into_iter().zip(keep.iter()).filter(|(_, keep)| *keep == Some(true)).map(|(p, _)| p).collect())
}

fn typed_values(table: &TableName, keys: &[FieldRef], partition: &Partition) -> Result<Vec<ScalarValue>> {
    if partition.values.len() != keys.len() {
        return Err(Error::invalid(format!(
            "table `{table}`: expected {} partition values, found {:?}",
            keys.len(),
            partition.values
        )));
    }
    let typed = |(key, value): (&FieldRef, &String)| {
        if value == NULL_VALUE {
            return Ok(ScalarValue::try_new_null(key.data_type())?);
        }
        ScalarValue::try_from_string(value.clone(), key.data_type()).map_err(|e| {
            Error::invalid(format!(
                "table `{table}`: expected partition values of type `{}` in column `{}`, found `{value}`",
                key.data_type(),
                key.name()
            ))
            .with_source(e)
        })
    };
    keys.iter().zip(&partition.values).map(typed).collect()
}

/// For each partition, whether all filters hold; null counts as no.
fn matching(keys: &[FieldRef], typed: &[(Partition, Vec<ScalarValue>)], filters: &[Expr]) -> Result<BooleanArray> {
    let schema = Arc::new(Schema::new(keys.to_vec()));
    let columns = (0..keys.len())
        .map(|i| ScalarValue::iter_to_array(typed.iter().map(|(_, values)| values[i].clone())))
        .collect::<datafusion::common::Result<Vec<ArrayRef>>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(typed.len()));
    let batch = RecordBatch::try_new_with_options(Arc::clone(&schema), columns, &options)?;
    let schema = DFSchema::try_from(schema)?;
    let mut keep = BooleanArray::from(vec![true; typed.len()]);
    for filter in filters {
        let filter = unqualified(filter.clone())?;
        let expression = create_physical_expr(&filter, &schema, &ExecutionProps::new())?;
        let holds = expression.evaluate(&batch)?.into_array(typed.len())?;
        keep = arrow::compute::and_kleene(&keep, holds.as_boolean())?;
    }
    Ok(keep)
}

/// Columns without their table's name: the batch of partition values has none.
fn unqualified(filter: Expr) -> Result<Expr> {
    use datafusion::common::tree_node::{Transformed, TreeNode};
    let plain = filter.transform(|expr| match expr {
        Expr::Column(column) if column.relation.is_some() => {
            Ok(Transformed::yes(Expr::Column(Column::new_unqualified(column.name))))
        }
        other => Ok(Transformed::no(other)),
    })?;
    Ok(plain.data)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::StorageDescriptor;
    use arrow::datatypes::{DataType, Field};
    use datafusion::prelude::{col, lit};
    use std::collections::BTreeMap;

    fn keys() -> Vec<FieldRef> {
        vec![Arc::new(Field::new("year", DataType::Int32, true)), Arc::new(Field::new("region", DataType::Utf8, true))]
    }

    fn partition(values: &[&str]) -> Partition {
        Partition {
            values: values.iter().map(|v| (*v).into()).collect(),
            storage: StorageDescriptor::default(),
            parameters: BTreeMap::new(),
        }
    }

    fn surviving_years(filter: Expr) -> Vec<String> {
        let name = TableName::new("db", "t").unwrap();
        let all = vec![partition(&["2012", "eu"]), partition(&["02013", "us"]), partition(&[NULL_VALUE, "us"])];
        let kept = surviving(&name, &keys(), all, &[filter]).unwrap();
        kept.into_iter().map(|(p, _)| p.values[0].clone()).collect()
    }

    #[test]
    fn values_are_compared_by_type_and_null_matches_nothing() {
        assert_eq!(surviving_years(col("t.year").eq(lit(2013_i32))), ["02013"]);
        assert_eq!(surviving_years(col("year").gt(lit(2000_i32)).and(col("region").eq(lit("eu")))), ["2012"]);
        assert_eq!(surviving_years(col("year").is_null()), [NULL_VALUE]);
    }

    #[test]
    fn a_value_of_another_type_is_named() {
        let name = TableName::new("db", "t").unwrap();
        let error = surviving(&name, &keys(), vec![partition(&["old", "eu"])], &[]).unwrap_err();
        assert!(error.to_string().contains("`year`, found `old`"), "{error}");
    }
}
