//! Which number two numbers of different types are compared as.
//!
//! DataFusion compares a double with a decimal as decimals of 15 digits after the point, which fails for large doubles and NaN and
//! cuts small ones off; and decimals whose common type needs more than 38 digits as one that can't hold all of them.
//! [`CommonNumbers`] runs before the coercion of types: a decimal beside a double becomes a double, and decimals that need more
//! digits are compared in 256 bits.

use std::sync::Arc;

use arrow::datatypes::{DECIMAL128_MAX_PRECISION, DECIMAL256_MAX_PRECISION, DataType, TimeUnit};
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, DFSchema, Result, ScalarValue};
use datafusion::functions::datetime::to_local_time;
use datafusion::logical_expr::expr::{Cast, InList, InSubquery, SetComparison, TryCast};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::logical_plan::{Join, Union, Values};
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{
    Between, BinaryExpr, Case, Expr, ExprSchemable, LogicalPlan, LogicalPlanBuilder, Operator, Subquery, cast,
};
use datafusion::optimizer::AnalyzerRule;

use super::{under_its_name, whole_subqueries};

/// Functions whose arguments get one type.
const OF_ONE_TYPE: [&str; 7] = ["coalesce", "nullif", "nvl", "ifnull", "greatest", "least", "make_array"];

/// Casts numbers to what they are compared or united as.
#[derive(Debug)]
pub(super) struct CommonNumbers;

impl AnalyzerRule for CommonNumbers {
    fn name(&self) -> &str {
        "common_numbers"
    }

    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        whole_subqueries(plan, |plan| {
            let plan = match plan {
                LogicalPlan::Join(join) => LogicalPlan::Join(joined(join)?),
                LogicalPlan::Union(union) => LogicalPlan::Union(united(union)?),
                LogicalPlan::Values(values) => LogicalPlan::Values(rows(values)?),
                other => other,
            };
            let schema = merge_schema(&plan.inputs());
            let names = NamePreserver::new(&plan);
            let plan =
                plan.map_expressions(|expr| under_its_name(expr, &names, &|expr| in_common_types(expr, &schema)))?;
            plan.map_data(LogicalPlan::recompute_schema)
        })
    }
}

fn in_common_types(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    Ok(match expr {
        Expr::BinaryExpr(BinaryExpr { left, op, right }) if compares(op) => {
            let [left, right] = one_type([*left, *right], schema, true)?;
            Transformed::yes(Expr::BinaryExpr(BinaryExpr { left: Box::new(left), op, right: Box::new(right) }))
        }
        Expr::Between(Between { expr, negated, low, high }) => {
            let [expr, low, high] = one_type([*expr, *low, *high], schema, true)?.map(Box::new);
            Transformed::yes(Expr::Between(Between { expr, negated, low, high }))
        }
        Expr::InList(InList { expr, list, negated }) => {
            let mut all = one_type_of([vec![*expr], list].concat(), schema, true)?;
            let expr = Box::new(all.remove(0));
            Transformed::yes(Expr::InList(InList { expr, list: all, negated }))
        }
        Expr::InSubquery(InSubquery { expr, subquery, negated }) => {
            let (expr, subquery) = beside_subquery(expr, subquery, schema)?;
            Transformed::yes(Expr::InSubquery(InSubquery { expr, subquery, negated }))
        }
        Expr::SetComparison(SetComparison { expr, subquery, op, quantifier }) => {
            let (expr, subquery) = beside_subquery(expr, subquery, schema)?;
            Transformed::yes(Expr::SetComparison(SetComparison { expr, subquery, op, quantifier }))
        }
        Expr::Cast(Cast { expr, field }) => {
            let local = local_time(&expr, field.data_type(), schema);
            let is_local = local.is_some();
            Transformed::new_transformed(Expr::Cast(Cast { expr: local.map_or(expr, Box::new), field }), is_local)
        }
        Expr::TryCast(TryCast { expr, field }) => {
            let local = local_time(&expr, field.data_type(), schema);
            let is_local = local.is_some();
            Transformed::new_transformed(Expr::TryCast(TryCast { expr: local.map_or(expr, Box::new), field }), is_local)
        }
        Expr::Case(case) => Transformed::yes(Expr::Case(in_case(case, schema)?)),
        Expr::ScalarFunction(mut call) if OF_ONE_TYPE.contains(&call.func.name()) => {
            call.args = one_type_of(call.args, schema, false)?;
            Transformed::yes(Expr::ScalarFunction(call))
        }
        other => Transformed::no(other),
    })
}

/// Whether times have a zone other than the session's.
fn is_zoned(ty: &DataType) -> bool {
    matches!(ty, DataType::Timestamp(_, Some(zone)) if !matches!(zone.as_ref(), "UTC" | "+00:00" | "Z"))
}

/// A time with a zone as the clocks there show it, where it is cast to a type without one; the other way round, the time in UTC.
fn local_time(value: &Expr, to: &DataType, schema: &DFSchema) -> Option<Expr> {
    let from = value.get_type(schema).ok()?;
    if matches!(from, DataType::Timestamp(_, None) | DataType::Date32) && is_zoned(to) {
        return Some(cast(value.clone(), DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))));
    }
    let plain = matches!(to, DataType::Date32 | DataType::Timestamp(_, None));
    (is_zoned(&from) && plain).then(|| to_local_time().call(vec![value.clone()]))
}

/// Whether files may be pruned by what a part of the plan finds out as it runs. Statistics of files leave NaN out: a file whose
/// largest number is 5 may hold NaN, which is above all numbers.
pub(crate) fn prunes_while_running(plan: &LogicalPlan) -> bool {
    let floats = plan.exists(|node| {
        let schema = merge_schema(&node.inputs());
        let keyed = matches!(node, LogicalPlan::Sort(_) | LogicalPlan::Join(_) | LogicalPlan::Aggregate(_));
        Ok(keyed && node.expressions().iter().any(|expr| is_of_floats(expr, &schema)))
    });
    !floats.unwrap_or(true)
}

fn is_of_floats(expr: &Expr, schema: &DFSchema) -> bool {
    let found = expr.exists(|expr| Ok(expr.get_type(schema).is_ok_and(|ty| ty.is_floating())));
    found.unwrap_or(true)
}

/// Whether an operator compares its sides.
pub(super) fn compares(op: Operator) -> bool {
    use Operator::{Eq, Gt, GtEq, IsDistinctFrom, IsNotDistinctFrom, Lt, LtEq, NotEq};
    matches!(op, Eq | NotEq | Lt | LtEq | Gt | GtEq | IsDistinctFrom | IsNotDistinctFrom)
}

fn one_type<const N: usize>(exprs: [Expr; N], schema: &DFSchema, compares: bool) -> Result<[Expr; N]> {
    let cast = one_type_of(exprs.to_vec(), schema, compares)?;
    Ok(<[Expr; N]>::try_from(cast).unwrap_or(exprs))
}

fn one_type_of(exprs: Vec<Expr>, schema: &DFSchema, compares: bool) -> Result<Vec<Expr>> {
    // What has no type is refused by the coercion of types, which knows the place.
    let Ok(types) = exprs.iter().map(|expr| expr.get_type(schema)).collect::<Result<Vec<_>>>() else {
        return Ok(exprs);
    };
    let moments = compares.then(|| in_micros(&exprs, &types)).flatten();
    let Some(common) = moments.or_else(|| common_type(&types, compares)) else { return Ok(exprs) };
    exprs.into_iter().zip(&types).map(|(expr, ty)| Ok(to_type(expr, ty, &common))).collect()
}

/// The type that decimals, doubles and whole numbers become, where it is not what DataFusion makes of them.
fn common_type(types: &[DataType], compares: bool) -> Option<DataType> {
    let number = |ty: &&DataType| ty.is_numeric();
    if let Some(time) = common_time(types) {
        return Some(time);
    }
    let others = types.iter().any(|ty| !ty.is_numeric() && *ty != DataType::Null);
    let has = |of: fn(&DataType) -> bool| types.iter().any(of);
    if others || !has(DataType::is_decimal) {
        return None;
    }
    if has(|ty| *ty == DataType::Float64) {
        return Some(DataType::Float64);
    }
    if has(DataType::is_floating) {
        return Some(DataType::Float32);
    }
    let digits: Vec<(i16, i16)> = types.iter().filter(number).filter_map(digits).collect();
    let before = digits.iter().map(|(before, _)| *before).max()?;
    let after = digits.iter().map(|(_, after)| *after).max()?;
    let (needed, most) = (before + after, i16::from(DECIMAL256_MAX_PRECISION));
    if !compares || needed <= i16::from(DECIMAL128_MAX_PRECISION) || needed > most {
        return None;
    }
    Some(DataType::Decimal256(u8::try_from(needed).ok()?, i8::try_from(after).ok()?))
}

/// Text or a date beside a time becomes a time of the same unit: DataFusion takes nanoseconds, which end in 2262.
fn common_time(types: &[DataType]) -> Option<DataType> {
    let is_text: fn(&DataType) -> bool = |ty| matches!(ty, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View);
    if let Some(zoned) = common_zoned_time(types, is_text) {
        return Some(zoned);
    }
    if let Some(DataType::Timestamp(TimeUnit::Nanosecond, zone)) =
        types.iter().find(|ty| ty.is_temporal() && **ty != DataType::Date32)
        && types
            .iter()
            .all(|ty| matches!(ty, DataType::Timestamp(TimeUnit::Nanosecond, _) | DataType::Date32 | DataType::Null))
        && types.contains(&DataType::Date32)
    {
        return Some(DataType::Timestamp(TimeUnit::Microsecond, zone.clone()));
    }
    let time = types.iter().find(|ty| matches!(ty, DataType::Timestamp(TimeUnit::Microsecond, _)))?;
    let is_other = |ty: &DataType| is_text(ty) || *ty == DataType::Date32;
    let others = types.iter().any(is_other);
    let alone = types.iter().all(|ty| ty == time || is_other(ty) || *ty == DataType::Null);
    (others && alone).then(|| time.clone())
}

/// Times of which some have zones are compared as instants: one without a zone is in UTC, the session's. DataFusion takes it for the
/// other's wall time.
fn common_zoned_time(types: &[DataType], is_text: fn(&DataType) -> bool) -> Option<DataType> {
    let zoned = |ty: &DataType| matches!(ty, DataType::Timestamp(TimeUnit::Microsecond, Some(_)));
    let plain = |ty: &DataType| matches!(ty, DataType::Timestamp(TimeUnit::Microsecond, None) | DataType::Date32);
    let known = |ty: &DataType| zoned(ty) || plain(ty) || is_text(ty) || *ty == DataType::Null;
    let without = |ty: &DataType| plain(ty) || is_text(ty);
    let mixed = types.iter().any(zoned) && types.iter().any(without) && types.iter().all(known);
    mixed.then(|| DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())))
}

/// Digits before and after the point.
fn digits(ty: &DataType) -> Option<(i16, i16)> {
    match ty {
        DataType::Decimal128(precision, scale) | DataType::Decimal256(precision, scale) => {
            Some((i16::from(*precision) - i16::from(*scale), i16::from(*scale)))
        }
        DataType::Int8 | DataType::UInt8 => Some((3, 0)),
        DataType::Int16 | DataType::UInt16 => Some((5, 0)),
        DataType::Int32 | DataType::UInt32 => Some((10, 0)),
        DataType::Int64 => Some((19, 0)),
        DataType::UInt64 => Some((20, 0)),
        _ => None,
    }
}

/// Microseconds, where a time in them meets one in nanoseconds that no column gives, as `now()`.
fn in_micros(exprs: &[Expr], types: &[DataType]) -> Option<DataType> {
    let time = types.iter().find(|ty| matches!(ty, DataType::Timestamp(TimeUnit::Microsecond, _)))?;
    let fits = |(expr, ty): (&Expr, &DataType)| match (ty, time) {
        (DataType::Timestamp(TimeUnit::Nanosecond, of), DataType::Timestamp(_, zone)) => {
            let literal = matches!(expr, Expr::Literal(..));
            of.is_some() == zone.is_some() && expr.column_refs().is_empty() && !literal
        }
        (ty, time) => ty == time || *ty == DataType::Null,
    };
    let differ = types.iter().any(|ty| ty != time && *ty != DataType::Null);
    (differ && exprs.iter().zip(types).all(fits)).then(|| time.clone())
}

fn to_type(expr: Expr, from: &DataType, to: &DataType) -> Expr {
    if from == to || *from == DataType::Null {
        return expr;
    }
    // The double that is nearest to the digits as they are written.
    if let (Expr::Literal(value @ ScalarValue::Decimal128(Some(_), ..), metadata), DataType::Float64) = (&expr, to)
        && let Ok(double) = value.to_string().parse::<f64>()
    {
        return Expr::Literal(ScalarValue::Float64(Some(double)), metadata.clone());
    }
    cast(expr, to.clone())
}

fn in_case(mut case: Case, schema: &DFSchema) -> Result<Case> {
    let (whens, thens): (Vec<_>, Vec<_>) = case.when_then_expr.into_iter().map(|(w, t)| (*w, *t)).unzip();
    let arms = thens.len();
    let mut results = one_type_of(thens.into_iter().chain(case.else_expr.map(|e| *e)).collect(), schema, false)?;
    case.else_expr = (results.len() > arms).then(|| results.pop()).flatten().map(Box::new);
    let whens = match case.expr {
        None => whens,
        Some(base) => {
            let mut all = one_type_of([vec![*base], whens].concat(), schema, true)?;
            case.expr = Some(Box::new(all.remove(0)));
            all
        }
    };
    case.when_then_expr = whens.into_iter().map(Box::new).zip(results.into_iter().map(Box::new)).collect();
    Ok(case)
}

/// A value and the subquery that it is compared with, in one type.
fn beside_subquery(value: Box<Expr>, subquery: Subquery, schema: &DFSchema) -> Result<(Box<Expr>, Subquery)> {
    let (from, column) = (value.get_type(schema)?, subquery.subquery.schema().field(0).data_type().clone());
    let Some(common) = common_type(&[from.clone(), column.clone()], true) else { return Ok((value, subquery)) };
    let value = Box::new(to_type(*value, &from, &common));
    if column == common {
        return Ok((value, subquery));
    }
    let plan = subquery.subquery.as_ref().clone();
    let cast = cast_column(&plan, 0, &common);
    let plan = LogicalPlanBuilder::from(plan).project([cast])?.build()?;
    Ok((value, Subquery { subquery: Arc::new(plan), ..subquery }))
}

/// A column of the plan in another type, under its name.
fn cast_column(plan: &LogicalPlan, index: usize, to: &DataType) -> Expr {
    let (relation, field) = plan.schema().qualified_field(index);
    let column = Expr::Column(Column::new(relation.cloned(), field.name()));
    cast(column, to.clone()).alias_qualified(relation.cloned(), field.name())
}

fn joined(mut join: Join) -> Result<Join> {
    let (left, right) = (Arc::clone(join.left.schema()), Arc::clone(join.right.schema()));
    let on = join.on.into_iter().map(|(l, r)| {
        let (from, to) = (l.get_type(&left)?, r.get_type(&right)?);
        Ok(match common_type(&[from.clone(), to.clone()], true) {
            Some(common) => (to_type(l, &from, &common), to_type(r, &to, &common)),
            None => (l, r),
        })
    });
    join.on = on.collect::<Result<_>>()?;
    Ok(join)
}

fn united(union: Union) -> Result<Union> {
    let columns = union.schema.fields().len();
    let common: Vec<Option<DataType>> = (0..columns)
        .map(|i| {
            let types: Vec<_> = union.inputs.iter().map(|input| input.schema().field(i).data_type().clone()).collect();
            common_type(&types, false)
        })
        .collect();
    if common.iter().all(Option::is_none) {
        return Ok(union);
    }
    let inputs = union.inputs.into_iter().map(|input| {
        let columns = common.iter().enumerate().map(|(i, common)| {
            let (relation, field) = input.schema().qualified_field(i);
            match common {
                Some(to) if to != field.data_type() => cast_column(&input, i, to),
                _ => Expr::Column(Column::new(relation.cloned(), field.name())),
            }
        });
        let columns: Vec<_> = columns.collect();
        Ok(Arc::new(LogicalPlanBuilder::from(input.as_ref().clone()).project(columns)?.build()?))
    });
    Union::try_new_with_loose_types(inputs.collect::<Result<_>>()?)
}

/// Rows in which a column has decimals and doubles: DataFusion has cast the doubles to decimals already.
fn rows(mut values: Values) -> Result<Values> {
    let none = DFSchema::empty();
    let mut fields: Vec<_> = values.schema.fields().iter().cloned().collect();
    for (i, field) in fields.iter_mut().enumerate() {
        if !field.data_type().is_decimal() {
            continue;
        }
        let double = |expr: &Expr| match expr {
            Expr::Cast(Cast { expr, .. }) => expr.get_type(&none).is_ok_and(|ty| ty.is_floating()),
            _ => false,
        };
        if !values.values.iter().any(|row| double(&row[i])) {
            continue;
        }
        for row in &mut values.values {
            let uncast = match std::mem::take(&mut row[i]) {
                Expr::Cast(Cast { expr, .. }) => *expr,
                other => other,
            };
            let from = uncast.get_type(&none)?;
            row[i] = to_type(uncast, &from, &DataType::Float64);
        }
        *field = Arc::new(field.as_ref().clone().with_data_type(DataType::Float64));
    }
    let schema = DFSchema::from_unqualified_fields(fields.into(), values.schema.metadata().clone())?;
    Ok(Values { schema: Arc::new(schema), ..values })
}

#[cfg(test)]
mod tests {
    use super::*;
    use DataType as D;

    #[test]
    fn a_decimal_beside_a_double_becomes_a_double() {
        assert_eq!(common_type(&[D::Float64, D::Decimal128(3, 2)], true), Some(D::Float64));
        assert_eq!(common_type(&[D::Float32, D::Decimal128(3, 2), D::Null], true), Some(D::Float32));
        assert_eq!(common_type(&[D::Float64, D::Int64], true), None);
        assert_eq!(common_type(&[D::Utf8, D::Decimal128(3, 2)], true), None);
    }

    #[test]
    fn decimals_that_need_more_than_38_digits_are_compared_in_256_bits() {
        assert_eq!(common_type(&[D::Decimal128(38, 2), D::Decimal128(5, 5)], true), Some(D::Decimal256(41, 5)));
        assert_eq!(common_type(&[D::Decimal128(38, 2), D::Decimal128(5, 5)], false), None);
        assert_eq!(common_type(&[D::Decimal128(18, 2), D::Int64], true), None);
    }

    #[test]
    fn a_literal_becomes_the_double_that_its_digits_name() {
        let digits = ScalarValue::Decimal128(Some(30_000_000_000_000_004), 17, 17);
        let made = to_type(Expr::Literal(digits, None), &D::Decimal128(17, 17), &D::Float64);
        assert_eq!(made, Expr::Literal(ScalarValue::Float64(Some(0.300_000_000_000_000_04)), None));
    }
}
