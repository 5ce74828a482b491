//! Partitions by their values: which ones to ask the catalog for, and which ones a filter can match.

use std::ops::Bound;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BooleanArray, RecordBatch, RecordBatchOptions};
use arrow::datatypes::{DataType, FieldRef, Schema};
use datafusion::common::{Column, DFSchema, ScalarValue};
use datafusion::logical_expr::execution_props::ExecutionProps;
use datafusion::logical_expr::expr::InList;
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::{Between, BinaryExpr, Expr, Operator};
use datafusion::physical_expr::create_physical_expr;

use shared::catalog::{KeyFilter, NULL_VALUE, Partition, Wanted};
use shared::model::TableName;
use shared::{Error, Result};

/// What the catalog can be asked for so that nothing is missing for which all filters hold: equalities, lists and ranges of
/// single columns. [`surviving`] sees to the rest.
pub(super) fn asked(keys: &[FieldRef], filters: &[Expr]) -> Vec<KeyFilter> {
    let conjuncts = filters.iter().flat_map(datafusion::logical_expr::utils::split_conjunction);
    let listed = |filter: &Expr| one_of(keys, filter).map(|(column, values)| (column, Wanted::OneOf(values)));
    let wanted = conjuncts.filter_map(|filter| listed(filter).or_else(|| within(keys, filter)));
    wanted.map(|(column, wanted)| KeyFilter { column, wanted }).collect()
}

/// The column and the values of `a = 1`, `a IN (1, 2)` or `a = 1 OR a = 2`.
fn one_of(keys: &[FieldRef], filter: &Expr) -> Option<(String, Vec<String>)> {
    match filter {
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Or, right }) => {
            let ((column, mut values), (other, more)) = (one_of(keys, left)?, one_of(keys, right)?);
            values.extend(more);
            (column == other).then_some((column, values))
        }
        Expr::InList(InList { expr, list, negated: false }) => {
            let key = key(keys, expr)?;
            let values = list.iter().map(|value| text(key, value)).collect::<Option<_>>()?;
            Some((key.name().clone(), values))
        }
        _ => match compared(keys, filter)? {
            (column, Operator::Eq, value) => Some((column, vec![value])),
            _ => None,
        },
    }
}

/// The column and the bounds of `a >= 1` or `a BETWEEN 1 AND 2`.
fn within(keys: &[FieldRef], filter: &Expr) -> Option<(String, Wanted)> {
    if let Expr::Between(Between { expr, negated: false, low, high }) = filter {
        let key = key(keys, expr)?;
        let bounds = (Bound::Included(text(key, low)?), Bound::Included(text(key, high)?));
        return Some((key.name().clone(), Wanted::Within(bounds.0, bounds.1)));
    }
    let (column, operator, value) = compared(keys, filter)?;
    let wanted = match operator {
        Operator::Gt => Wanted::Within(Bound::Excluded(value), Bound::Unbounded),
        Operator::GtEq => Wanted::Within(Bound::Included(value), Bound::Unbounded),
        Operator::Lt => Wanted::Within(Bound::Unbounded, Bound::Excluded(value)),
        Operator::LtEq => Wanted::Within(Bound::Unbounded, Bound::Included(value)),
        _ => return None,
    };
    Some((column, wanted))
}

/// A column, what it is compared by, and with which value; `1 < a` is told as `a > 1`.
fn compared(keys: &[FieldRef], filter: &Expr) -> Option<(String, Operator, String)> {
    let Expr::BinaryExpr(BinaryExpr { left, op, right }) = filter else { return None };
    let (key, operator, value) = match key(keys, left) {
        Some(key) => (key, *op, right),
        None => (key(keys, right)?, op.swap()?, left),
    };
    Some((key.name().clone(), operator, text(key, value)?))
}

fn key<'a>(keys: &'a [FieldRef], expression: &Expr) -> Option<&'a FieldRef> {
    let Expr::Column(column) = expression else { return None };
    keys.iter().find(|key| *key.name() == column.name)
}

/// A value of the key's own type as a partition would have it.
fn text(key: &FieldRef, value: &Expr) -> Option<String> {
    let Expr::Literal(value, _) = value else { return None };
    let comparable = key.data_type().is_integer() || matches!(key.data_type(), DataType::Utf8 | DataType::Date32);
    (comparable && value.data_type() == *key.data_type() && !value.is_null()).then(|| value.to_string())
}

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
        let expression =
            create_physical_expr(&filter, &schema, &ExecutionProps::new(), &PhysicalPlanningContext::default())?;
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
    use arrow::datatypes::Field;
    use datafusion::prelude::{col, lit};
    use shared::catalog::StorageDescriptor;
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

    /// What is asked for, in short.
    fn asked_for(filter: Expr) -> Vec<String> {
        let shown = |filter: KeyFilter| format!("{}: {:?}", filter.column, filter.wanted);
        let more = [("day", DataType::Date32), ("share", DataType::Float64)];
        let more = more.map(|(name, ty)| Arc::new(Field::new(name, ty, true)));
        asked(&[keys(), more.to_vec()].concat(), &[filter]).into_iter().map(shown).collect()
    }

    #[test]
    fn the_catalog_is_asked_for_values_lists_and_ranges_of_keys() {
        let day = Expr::Literal(ScalarValue::Date32(Some(15_706)), None);
        let year = || col("t.year");
        for (filter, wanted) in [
            (year().eq(lit(2013_i32)), vec![r#"year: OneOf(["2013"])"#]),
            (lit("l'eu").eq(col("region")), vec![r#"region: OneOf(["l'eu"])"#]),
            (year().in_list(vec![lit(1_i32), lit(2_i32)], false), vec![r#"year: OneOf(["1", "2"])"#]),
            (year().eq(lit(1_i32)).or(year().eq(lit(2_i32))), vec![r#"year: OneOf(["1", "2"])"#]),
            (
                year().gt(lit(1_i32)).and(lit("x").gt_eq(col("region"))),
                vec![r#"year: Within(Excluded("1"), Unbounded)"#, r#"region: Within(Unbounded, Included("x"))"#],
            ),
            (year().between(lit(1_i32), lit(2_i32)), vec![r#"year: Within(Included("1"), Included("2"))"#]),
            (col("day").lt(day), vec![r#"day: Within(Unbounded, Excluded("2013-01-01"))"#]),
        ] {
            assert_eq!(asked_for(filter.clone()), wanted, "{filter}");
        }
    }

    #[test]
    fn what_no_single_key_can_answer_is_not_asked_for() {
        for filter in [
            year_or_region(),
            col("year").not_eq(lit(2013_i32)),
            col("year").in_list(vec![lit(1_i32)], true),
            col("year").not_between(lit(1_i32), lit(2_i32)),
            (col("year") + lit(1_i32)).eq(lit(2014_i32)),
            col("year").eq(lit("2013")),
            col("year").eq(lit(ScalarValue::Int32(None))),
            col("region").like(lit("e%")),
            col("share").eq(lit(0.5)),
            col("other").eq(lit(1_i32)),
        ] {
            assert_eq!(asked_for(filter.clone()), Vec::<String>::new(), "{filter}");
        }
    }

    fn year_or_region() -> Expr {
        col("year").eq(lit(2013_i32)).or(col("region").eq(lit("eu")))
    }

    #[test]
    fn a_value_of_another_type_is_named() {
        let name = TableName::new("db", "t").unwrap();
        let error = surviving(&name, &keys(), vec![partition(&["old", "eu"])], &[]).unwrap_err();
        assert!(error.to_string().contains("`year`, found `old`"), "{error}");
    }
}
