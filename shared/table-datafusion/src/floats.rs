//! What statistics of Parquet and Iceberg don't say of floating point numbers.
//!
//! Bounds pass over NaN, which SQL orders after all numbers: `x > 6` and `x <> 5` hold for it. They and bloom filters may tell 0.0
//! from -0.0, which are equal. So a filter prunes by a column only if it can't hold for what the statistics leave out.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray};
use arrow::datatypes::{DataType, Float32Type, Float64Type, Schema};
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::{Expr, Operator};
use datafusion::physical_expr::expressions::{BinaryExpr, Column, InListExpr, Literal};
use datafusion::physical_expr::utils::collect_columns;
use datafusion::physical_expr::{PhysicalExpr, ScalarFunctionExpr};

/// The columns of a schema that hold floating point numbers, also inside.
pub fn floating(schema: &Schema) -> impl Iterator<Item = &str> {
    schema.fields().iter().filter(|field| holds_floats(field.data_type())).map(|field| field.name().as_str())
}

fn holds_floats(ty: &DataType) -> bool {
    match ty {
        DataType::List(field)
        | DataType::LargeList(field)
        | DataType::FixedSizeList(field, _)
        | DataType::Map(field, _) => holds_floats(field.data_type()),
        DataType::Struct(fields) => fields.iter().any(|field| holds_floats(field.data_type())),
        ty => ty.is_floating(),
    }
}

/// Whether a filter names one of these columns.
pub(super) fn names(filter: &Arc<dyn PhysicalExpr>, columns: &HashSet<String>) -> bool {
    collect_columns(filter).iter().any(|column| columns.contains(column.name()))
}

/// Whether a filter holds for no row that has NaN in one of `suspects`, so that bounds which leave NaN out may decide it.
pub(super) fn may_prune(filter: &Arc<dyn PhysicalExpr>, suspects: &HashSet<String>) -> bool {
    if !names(filter, suspects) {
        return true;
    }
    if let Some(list) = filter.downcast_ref::<InListExpr>() {
        return !list.negated() && list.expr().is::<Column>() && list.list().iter().all(is_number);
    }
    let Some(binary) = filter.downcast_ref::<BinaryExpr>() else { return false };
    let (left, right) = (binary.left(), binary.right());
    match binary.op() {
        Operator::And | Operator::Or => may_prune(left, suspects) && may_prune(right, suspects),
        Operator::Eq => (left.is::<Column>() && is_number(right)) || (is_number(left) && right.is::<Column>()),
        Operator::Lt | Operator::LtEq => left.is::<Column>() && is_number(right),
        Operator::Gt | Operator::GtEq => is_number(left) && right.is::<Column>(),
        _ => false,
    }
}

/// Whether an expression is a number, and not NaN.
fn is_number(expr: &Arc<dyn PhysicalExpr>) -> bool {
    match expr.downcast_ref::<Literal>().map(Literal::value) {
        Some(ScalarValue::Float64(Some(value))) => !value.is_nan(),
        Some(ScalarValue::Float32(Some(value))) => !value.is_nan(),
        _ => false,
    }
}

/// The name of [`comparable`] in a plan. What tells values by their statistics looks through it.
pub const COMPARABLE: &str = "$comparable";

/// Values whose bytes are equal where the values are: 0.0 for -0.0, and one NaN for all.
pub fn comparable(values: &ArrayRef) -> ArrayRef {
    // Most columns have neither, and stay as they are.
    if let Some(doubles) = values.as_primitive_opt::<Float64Type>() {
        let of = |v: f64| if v.is_nan() { f64::NAN } else { v + 0.0 };
        let changes = doubles.values().iter().fold(false, |found, v| found | (of(*v).to_bits() != v.to_bits()));
        return if changes { Arc::new(doubles.unary::<_, Float64Type>(of)) } else { Arc::clone(values) };
    }
    if let Some(floats) = values.as_primitive_opt::<Float32Type>() {
        let of = |v: f32| if v.is_nan() { f32::NAN } else { v + 0.0 };
        let changes = floats.values().iter().fold(false, |found, v| found | (of(*v).to_bits() != v.to_bits()));
        return if changes { Arc::new(floats.unary::<_, Float32Type>(of)) } else { Arc::clone(values) };
    }
    Arc::clone(values)
}

/// The values as they are, one NaN for all.
pub fn with_one_nan(values: &ArrayRef) -> ArrayRef {
    if let Some(doubles) = values.as_primitive_opt::<Float64Type>() {
        return Arc::new(doubles.unary::<_, Float64Type>(|v| if v.is_nan() { f64::NAN } else { v }));
    }
    if let Some(floats) = values.as_primitive_opt::<Float32Type>() {
        return Arc::new(floats.unary::<_, Float32Type>(|v| if v.is_nan() { f32::NAN } else { v }));
    }
    Arc::clone(values)
}

/// The filter on the values themselves, for what prunes by statistics.
pub(super) fn on_values(filter: Expr) -> Result<Expr> {
    let on_value = |expr| match expr {
        Expr::ScalarFunction(mut call) if call.func.name() == COMPARABLE && !call.args.is_empty() => {
            Transformed::yes(call.args.remove(0))
        }
        other => Transformed::no(other),
    };
    Ok(filter.transform_up(|expr| Ok(on_value(expr)))?.data)
}

/// The same of a filter of a plan that runs.
pub(super) fn on_columns(filter: &Arc<dyn PhysicalExpr>) -> Result<Arc<dyn PhysicalExpr>> {
    let on_column = |expr: Arc<dyn PhysicalExpr>| {
        let call = expr.downcast_ref::<ScalarFunctionExpr>().filter(|call| call.name() == COMPARABLE);
        match call.map(ScalarFunctionExpr::args) {
            Some([value, ..]) => Transformed::yes(Arc::clone(value)),
            _ => Transformed::no(expr),
        }
    };
    Ok(Arc::clone(filter).transform_up(|expr| Ok(on_column(expr)))?.data)
}

/// The two values with zeros as far apart as they come: a bound that is zero stands for both.
pub(super) fn with_both_zeros(lower: ScalarValue, upper: ScalarValue) -> (ScalarValue, ScalarValue) {
    use ScalarValue::{Float32, Float64};
    // Sums whose result is a zero of one sign; every other number stays as it is.
    let lower = match lower {
        Float64(Some(value)) => Float64(Some(-(0.0 - value))),
        Float32(Some(value)) => Float32(Some(-(0.0 - value))),
        other => other,
    };
    let upper = match upper {
        Float64(Some(value)) => Float64(Some(0.0 + value)),
        Float32(Some(value)) => Float32(Some(0.0 + value)),
        other => other,
    };
    (lower, upper)
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::Field;
    use datafusion::common::DFSchema;
    use datafusion::logical_expr::lit;
    use datafusion::prelude::{SessionContext, col};

    use super::*;

    #[test]
    fn a_filter_that_holds_for_nan_does_not_prune_by_bounds_without_it() {
        let schema =
            Schema::new(vec![Field::new("x", DataType::Float64, true), Field::new("n", DataType::Int64, true)]);
        let frame = DFSchema::try_from(schema.clone()).unwrap();
        let suspects: HashSet<String> = floating(&schema).map(str::to_owned).collect();
        let prunes = |filter: Expr| {
            let filter = SessionContext::new().create_physical_expr(filter, &frame).unwrap();
            may_prune(&filter, &suspects)
        };
        let x = || col("x");
        for safe in [
            x().eq(lit(5.0)),
            x().lt(lit(5.0)),
            lit(5.0).gt_eq(x()),
            x().in_list(vec![lit(1.0)], false),
            col("n").gt(lit(1_i64)),
        ] {
            assert!(prunes(safe.clone()), "{safe}");
        }
        for unsafe_ in [
            x().gt(lit(5.0)),
            x().not_eq(lit(5.0)),
            lit(5.0).lt_eq(x()),
            !x().lt(lit(5.0)),
            x().eq(lit(f64::NAN)),
            x().in_list(vec![lit(1.0)], true),
            x().eq(lit(1.0)).or(x().gt(lit(2.0))),
            (x() + lit(1.0)).lt(lit(5.0)),
        ] {
            assert!(!prunes(unsafe_.clone()), "{unsafe_}");
        }
    }

    #[test]
    fn a_bound_that_is_zero_stands_for_both_zeros() {
        let zero = |value: f64| ScalarValue::Float64(Some(value));
        let bits = |value: ScalarValue| if let ScalarValue::Float64(Some(v)) = value { v.to_bits() } else { 1 };
        for (lower, upper) in [(0.0, 0.0), (-0.0, -0.0), (0.0, -0.0)] {
            let (lower, upper) = with_both_zeros(zero(lower), zero(upper));
            assert_eq!((bits(lower), bits(upper)), ((-0.0_f64).to_bits(), 0.0_f64.to_bits()));
        }
    }
}
