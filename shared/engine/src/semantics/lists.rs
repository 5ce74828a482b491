//! IN lists: several in one condition, and elements that are no constants.
//!
//! Two lists of one value that stand in one condition are made one by DataFusion, which forgets that the value may be null: `NOT (x IN
//! (1) AND x IN (2))` would be true for a null. [`told_apart`] has them look like lists of different values.
//!
//! DataFusion takes an element for a constant when it can be computed of no rows, as a CASE can, and loses it. [`compared`] has a
//! function of ours compare such lists, row by row.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use arrow::array::{AsArray, BooleanArray};
use arrow::compute::or_kleene;
use arrow::datatypes::DataType;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{DataFusionError, Result, ScalarValue};
use datafusion::logical_expr::expr::{InList, ScalarFunction};
use datafusion::logical_expr::{
    BinaryExpr, ColumnarValue, Expr, Operator, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility, not,
};
use datafusion::physical_expr_common::datum::apply_cmp;

use super::doubles;
use shared::Error;

/// The list as an expression that compares all of its elements. The types are one already.
pub(super) fn compared(list: InList) -> Expr {
    if list.list.iter().all(is_constant) {
        return Expr::InList(list);
    }
    let InList { expr, list, negated } = list;
    let args = std::iter::once(*expr).chain(list).collect();
    let found = Expr::ScalarFunction(ScalarFunction::new_udf(Arc::clone(&FUNCTION), args));
    if negated { not(found) } else { found }
}

/// The expression with the values of lists in one condition told apart.
pub(super) fn told_apart(expr: Expr) -> Result<Expr> {
    let told = expr.transform_down(|part| match is_condition(&part) {
        true if may_be_one(&part) => Ok(Transformed::new(apart(part)?, true, TreeNodeRecursion::Jump)),
        // Nor are there any in what it holds.
        true => Ok(Transformed::new(part, false, TreeNodeRecursion::Jump)),
        false => Ok(Transformed::no(part)),
    });
    Ok(told?.data)
}

fn is_condition(expr: &Expr) -> bool {
    matches!(expr, Expr::Not(_) | Expr::BinaryExpr(BinaryExpr { op: Operator::And | Operator::Or, .. }))
}

/// Whether the condition has several lists, or equalities that become several.
fn may_be_one(condition: &Expr) -> bool {
    let (mut lists, mut equalities, mut ands, mut ors, mut nots) = (0, 0, 0, 0, 0);
    let _ = condition.apply(|part| {
        match part {
            Expr::InList(_) => lists += 1,
            Expr::BinaryExpr(BinaryExpr { op: Operator::Eq | Operator::NotEq, .. }) => equalities += 1,
            Expr::BinaryExpr(BinaryExpr { op: Operator::And, .. }) => ands += 1,
            Expr::BinaryExpr(BinaryExpr { op: Operator::Or, .. }) => ors += 1,
            Expr::Not(_) => nots += 1,
            _ => {}
        }
        Ok(TreeNodeRecursion::Continue)
    });
    // What stands under NOT is turned round: AND is OR there.
    let mixes = (ands > 0 && ors > 0) || (nots > 0 && ands + ors > 0);
    lists > 1 || (mixes && lists + equalities > 1)
}

fn apart(condition: Expr) -> Result<Expr> {
    let mut seen = HashMap::new();
    let told = condition.transform_down(|part| {
        Ok(match part {
            part if is_condition(&part) => Transformed::no(part),
            Expr::BinaryExpr(BinaryExpr { left, op: op @ (Operator::Eq | Operator::NotEq), right }) => {
                let (left, right) = match (is_constant(&left), is_constant(&right)) {
                    (false, true) => (Box::new(marked(*left, &mut seen)), right),
                    (true, false) => (left, Box::new(marked(*right, &mut seen))),
                    _ => (left, right),
                };
                let equality = Expr::BinaryExpr(BinaryExpr { left, op, right });
                Transformed::new(equality, true, TreeNodeRecursion::Jump)
            }
            Expr::InList(InList { expr, list, negated }) => {
                let expr = Box::new(marked(*expr, &mut seen));
                Transformed::new(Expr::InList(InList { expr, list, negated }), true, TreeNodeRecursion::Jump)
            }
            other => {
                let inner = other.map_children(|child| Ok(Transformed::yes(told_apart(child)?)))?.data;
                Transformed::new(inner, true, TreeNodeRecursion::Jump)
            }
        })
    });
    Ok(told?.data)
}

/// The value, marked with how often it was seen.
fn marked(value: Expr, seen: &mut HashMap<Expr, i64>) -> Expr {
    if is_constant(&value) || doubles::is_marked(&value) {
        return value;
    }
    let times = seen.entry(value.clone()).or_insert(0);
    *times += 1;
    match *times {
        1 => value,
        times => doubles::marked(value, times),
    }
}

/// What the simplification of expressions makes a literal.
fn is_constant(expr: &Expr) -> bool {
    match expr {
        Expr::Literal(..) => true,
        Expr::Cast(cast) => is_constant(&cast.expr),
        Expr::Negative(value) => is_constant(value),
        Expr::ScalarFunction(call) => {
            call.func.signature().volatility == Volatility::Immutable && call.args.iter().all(is_constant)
        }
        _ => false,
    }
}

static FUNCTION: LazyLock<Arc<ScalarUDF>> =
    LazyLock::new(|| Arc::new(ScalarUDF::from(Among { signature: Signature::variadic_any(Volatility::Immutable) })));

/// Whether the first argument equals one of the others: unknown where none does and one is null.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Among {
    signature: Signature,
}

impl ScalarUDFImpl for Among {
    fn name(&self) -> &str {
        "$in"
    }

    fn display_name(&self, args: &[Expr]) -> Result<String> {
        let mut args = args.iter().map(ToString::to_string);
        let value = args.next().unwrap_or_default();
        Ok(format!("{value} IN ({})", args.collect::<Vec<_>>().join(", ")))
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Boolean)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [value, elements @ ..] = args.args.as_slice() else {
            return Err(DataFusionError::from(Error::bug("expected a value and a list, found no arguments")));
        };
        let mut found = BooleanArray::from(vec![false; args.number_rows]);
        for element in elements {
            let equal = apply_cmp(Operator::Eq, value, element)?.into_array(args.number_rows)?;
            found = or_kleene(&found, equal.as_boolean())?;
        }
        match args.args.iter().all(|arg| matches!(arg, ColumnarValue::Scalar(_))) && args.number_rows > 0 {
            true => Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&found, 0)?)),
            false => Ok(ColumnarValue::Array(Arc::new(found))),
        }
    }
}
