//! Subqueries that name columns of the query around them, or whose answer is a value.
//!
//! DataFusion turns EXISTS and IN among the conditions of a WHERE into semi and anti joins, and runs a subquery that stands alone
//! once: those stay with it where they are right ([`is_plain`]). All others become joins here:
//!
//! - `x IN (S)` is the aggregate *any row of S equals x*, null where rows of S are unknown; ANY, ALL and EXISTS likewise. So every
//!   subquery is one that gives one row, [`whole`], for each row of the query around it.
//! - Such a subquery is computed once for each distinct combination of the columns that it names, and joined back to the rows
//!   ([`super::dependent`]). An aggregate over no rows is one row: a count of zero, not null.
//! - `x IN (S)` where S names nothing from outside is a join with the distinct values of S.

use std::cell::Cell;
use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DataFusionError, ExprSchema, NullEquality, Result, ScalarValue};
use datafusion::functions_aggregate::expr_fn::{bool_and, bool_or, count};
use datafusion::logical_expr::expr::{AggregateFunction, Exists, InSubquery, SetComparison, SetQuantifier};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::logical_plan::{Filter, Join};
use datafusion::logical_expr::utils::{conjunction, merge_schema, split_conjunction, split_conjunction_owned};
use datafusion::logical_expr::{
    BinaryExpr, Distinct, Expr, ExprSchemable, JoinType, LogicalPlan, LogicalPlanBuilder, Operator, Subquery, lit, not,
    when,
};
use datafusion::optimizer::AnalyzerRule;

use super::dependent::{Dependence, FreshNames, ZeroSign, column_of, empty_of, null_safe};
use super::outer::{as_outer, outer_columns, refers};
use crate::single;
use shared::Error;

/// Column of what a subquery stands for.
pub(super) const VALUE_COLUMN: &str = "value";
/// Column that is true in every row of a subquery.
pub(super) const SEEN_COLUMN: &str = "seen";

/// Turns subqueries into joins. Runs after the coercion of types.
#[derive(Debug)]
pub(super) struct Subqueries;

impl AnalyzerRule for Subqueries {
    fn name(&self) -> &str {
        "subqueries"
    }

    /// From the outside in: what a subquery names of the outermost query is a column of its own once it was joined.
    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        let names = FreshNames { next: Cell::new(0) };
        Ok(plan.transform_down_with_subqueries(|plan| node(plan, &names))?.data)
    }
}

fn node(plan: LogicalPlan, names: &FreshNames) -> Result<Transformed<LogicalPlan>> {
    if !plan.expressions().iter().any(has_subquery) {
        return Ok(Transformed::no(plan));
    }
    match plan {
        LogicalPlan::Filter(filter) => filtered(filter, names),
        LogicalPlan::Join(join) if join.join_type == JoinType::Inner => {
            let Join { filter: Some(condition), .. } = join else {
                return Ok(Transformed::no(LogicalPlan::Join(join)));
            };
            let join = LogicalPlan::Join(Join { filter: None, ..join });
            let filter = Filter::try_new(condition, Arc::new(join))?;
            Ok(Transformed::yes(filtered(filter, names)?.data))
        }
        LogicalPlan::Projection(_) | LogicalPlan::Aggregate(_) | LogicalPlan::Window(_) | LogicalPlan::Sort(_) => {
            over_one(plan, names)
        }
        other => Ok(Transformed::no(other)),
    }
}

fn filtered(filter: Filter, names: &FreshNames) -> Result<Transformed<LogicalPlan>> {
    let columns = Arc::clone(filter.input.schema()).columns();
    let (asking, simple): (Vec<_>, Vec<_>) =
        split_conjunction_owned(filter.predicate.clone()).into_iter().map(without_quantifier).partition(has_subquery);
    let quantified = split_conjunction(&filter.predicate).iter().any(|c| matches!(c, Expr::SetComparison(_)));
    if asking.iter().all(is_plain) && !quantified {
        return Ok(Transformed::no(LogicalPlan::Filter(filter)));
    }
    let mut input = filter.input.as_ref().clone();
    // Fewer rows first: those that are left are asked for.
    if let Some(simple) = conjunction(simple) {
        input = LogicalPlan::Filter(Filter::try_new(simple, Arc::new(input))?);
    }
    let mut joined = Joined { input, names };
    let conditions = asking.into_iter().map(|c| if is_plain(&c) { Ok(c) } else { joined.replaced(c) });
    let conditions = conditions.collect::<Result<Vec<_>>>()?;
    let plan = match conjunction(conditions) {
        Some(condition) => LogicalPlan::Filter(Filter::try_new(condition, Arc::new(joined.input))?),
        None => joined.input,
    };
    let plan = LogicalPlanBuilder::from(plan).project(columns.into_iter().map(Expr::Column))?.build()?;
    Ok(Transformed::yes(plan))
}

/// A node of one input whose expressions have subqueries.
fn over_one(plan: LogicalPlan, names: &FreshNames) -> Result<Transformed<LogicalPlan>> {
    let (inputs, columns) = (plan.inputs(), plan.schema().columns());
    let Some(input) = inputs.first() else { return Ok(Transformed::no(plan)) };
    let passes = matches!(plan, LogicalPlan::Window(_) | LogicalPlan::Sort(_));
    let mut joined = Joined { input: (*input).clone(), names };
    let saved = NamePreserver::new(&plan);
    let mut changed = false;
    let exprs = plan.expressions().into_iter().map(|expr| {
        let name = saved.save(&expr);
        let new = joined.replaced(expr.clone())?;
        changed |= new != expr;
        Ok(name.restore(new))
    });
    let exprs = exprs.collect::<Result<Vec<_>>>()?;
    if !changed {
        return Ok(Transformed::no(plan));
    }
    let new = plan.with_new_exprs(exprs, vec![joined.input])?;
    match passes {
        true => {
            let new = LogicalPlanBuilder::from(new).project(columns.into_iter().map(Expr::Column))?.build()?;
            Ok(Transformed::yes(new))
        }
        false => Ok(Transformed::yes(new)),
    }
}

fn has_subquery(expr: &Expr) -> bool {
    let found = expr.exists(|expr| {
        Ok(matches!(expr, Expr::Exists(_) | Expr::InSubquery(_) | Expr::SetComparison(_) | Expr::ScalarSubquery(_)))
    });
    found.unwrap_or(true)
}

/// `= ANY` is IN, `<> ALL` is NOT IN.
fn without_quantifier(expr: Expr) -> Expr {
    match expr {
        Expr::SetComparison(SetComparison { expr, subquery, op: Operator::Eq, quantifier: SetQuantifier::Any }) => {
            Expr::InSubquery(InSubquery::new(expr, subquery, false))
        }
        Expr::SetComparison(SetComparison { expr, subquery, op: Operator::NotEq, quantifier: SetQuantifier::All }) => {
            Expr::InSubquery(InSubquery::new(expr, subquery, true))
        }
        other => other,
    }
}

/// Whether DataFusion's own joins are right for a condition: EXISTS and IN of a subquery that names columns from outside in its
/// conditions alone; NOT IN of one that names none; values of subqueries that name none.
fn is_plain(condition: &Expr) -> bool {
    let (inner, negated) = match condition {
        Expr::Not(inner) => (inner.as_ref(), true),
        other => (other, false),
    };
    match inner {
        Expr::Exists(exists) => is_plain_query(&exists.subquery.subquery),
        Expr::InSubquery(found) if has_subquery(&found.expr) => false,
        Expr::InSubquery(found) if found.negated != negated => {
            !refers(&found.subquery.subquery) && is_column(&found.expr)
        }
        Expr::InSubquery(found) => is_plain_query(&found.subquery.subquery),
        _ => stands_alone(condition),
    }
}

/// Whether all subqueries in the expression are values that name nothing from outside.
fn stands_alone(expr: &Expr) -> bool {
    let asks = expr.exists(|expr| {
        Ok(match expr {
            Expr::ScalarSubquery(subquery) => refers(&subquery.subquery),
            Expr::Exists(_) | Expr::InSubquery(_) | Expr::SetComparison(_) => true,
            _ => false,
        })
    });
    !asks.unwrap_or(true)
}

fn is_plain_query(plan: &LogicalPlan) -> bool {
    if !refers(plan) {
        return true;
    }
    let own = |expr: &Expr| !expr.contains_outer() && !has_subquery(expr);
    match plan {
        LogicalPlan::Filter(filter) => !has_subquery(&filter.predicate) && is_plain_query(&filter.input),
        LogicalPlan::Projection(projection) => projection.expr.iter().all(own) && is_plain_query(&projection.input),
        LogicalPlan::SubqueryAlias(alias) => is_plain_query(&alias.input),
        LogicalPlan::Join(join) => {
            join.join_type == JoinType::Inner
                && plan.expressions().iter().all(own)
                && is_plain_query(&join.left)
                && is_plain_query(&join.right)
        }
        _ => false,
    }
}

/// The rows of a query, to which the subqueries that its expressions have are joined.
struct Joined<'a> {
    input: LogicalPlan,
    names: &'a FreshNames,
}

impl Joined<'_> {
    /// The expression with columns in the place of its subqueries; those that stand alone stay.
    fn replaced(&mut self, expr: Expr) -> Result<Expr> {
        let replaced = expr.transform_up(|expr| {
            Ok(match without_quantifier(expr) {
                Expr::ScalarSubquery(subquery) if refers(&subquery.subquery) => {
                    Transformed::yes(self.value(scalar(&subquery)?)?)
                }
                Expr::Exists(Exists { subquery, negated }) => {
                    Transformed::yes(self.value(exists(&subquery, negated)?)?)
                }
                Expr::InSubquery(found)
                    if !refers(&found.subquery.subquery) && !found.expr.column_refs().is_empty() =>
                {
                    Transformed::yes(self.member(found)?)
                }
                Expr::InSubquery(InSubquery { expr, subquery, negated }) => {
                    let found = compared(*expr, Operator::Eq, &subquery, SetQuantifier::Any, &self.input)?;
                    let value = self.value(found)?;
                    Transformed::yes(if negated { not(value) } else { value })
                }
                Expr::SetComparison(SetComparison { expr, subquery, op, quantifier }) => {
                    Transformed::yes(self.value(compared(*expr, op, &subquery, quantifier, &self.input)?)?)
                }
                other => Transformed::no(other),
            })
        });
        Ok(replaced?.data)
    }

    /// Joins a subquery of one row and one column, and gives the column that holds its value.
    fn value(&mut self, subquery: LogicalPlan) -> Result<Expr> {
        let outer = outer_columns(&subquery);
        let name = self.names.fresh("sub");
        if outer.is_empty() {
            let right = LogicalPlanBuilder::from(subquery).alias(name.as_str())?.build()?;
            self.input = LogicalPlanBuilder::from(self.input.clone()).cross_join(right)?.build()?;
            return Ok(column_of(&name, VALUE_COLUMN));
        }
        let known = |column: &&Column| !self.input.schema().has_column(column);
        if let Some(column) = outer.iter().find(known) {
            return Err(refused(&format!("it names `{column}`, which is not a column of the query right around it")));
        }
        if let Some(value) = self.by_equality(&subquery, &outer, &name)? {
            return Ok(value);
        }
        self.by_domain(&subquery, outer, &name)
    }

    /// A subquery that aggregates rows whose own columns equal those of outside: all groups, computed once.
    fn by_equality(&mut self, subquery: &LogicalPlan, outer: &[Column], name: &str) -> Result<Option<Expr>> {
        let floating = |column: &Column| self.input.schema().data_type(column).map(DataType::is_floating);
        // The keys would be the subquery's own zeros, whose signs may be others.
        if outer.iter().map(floating).collect::<Result<Vec<_>>>()?.contains(&true) {
            return Ok(None);
        }
        let Some(nothing) = empty_of(subquery)? else { return Ok(None) };
        let dependence = Dependence::on_equality(outer.to_vec(), self.names);
        let Some(groups) = dependence.of(subquery)? else { return Ok(None) };
        let right = dependence.named(groups, name)?;
        let keys = dependence.keys_in(name);
        let none = self.names.fresh("none");
        let nothing = LogicalPlanBuilder::from(nothing).alias(none.as_str())?.build()?;
        self.input = LogicalPlanBuilder::from(self.input.clone())
            .join_detailed(right, JoinType::Left, (outer.to_vec(), keys), None, NullEquality::NullEqualsNothing)?
            .cross_join(nothing)?
            .build()?;
        let value = when(column_of(name, SEEN_COLUMN), column_of(name, VALUE_COLUMN))
            .otherwise(column_of(&none, VALUE_COLUMN))?;
        Ok(Some(value))
    }

    /// Any other: computed for each combination of the columns that it names.
    fn by_domain(&mut self, subquery: &LogicalPlan, outer: Vec<Column>, name: &str) -> Result<Expr> {
        if !is_repeatable(&self.input, &outer)? {
            return Err(refused(
                "the query around it may give other rows each time (`LIMIT`, a window, a sum of doubles, or a function like \
                 `first_value` or `random`)",
            ));
        }
        let signs = self.signs(&outer)?;
        let dependence = Dependence::on_domain(&self.input, outer, signs, self.names)?;
        let Some(groups) = dependence.of(subquery)? else {
            return Err(refused("it names columns of the query around it where no join can say what it means"));
        };
        let right = dependence.named(groups, name)?;
        let on = null_safe(dependence.outer(), &dependence.keys_in(name), self.input.schema())?;
        self.input = LogicalPlanBuilder::from(self.input.clone())
            .join_with_expr_keys(right, JoinType::Left, on, None)?
            .build()?;
        Ok(column_of(name, VALUE_COLUMN))
    }

    /// Gives the rows a column for each of the floating point columns among `outer` that tells its zeros apart.
    fn signs(&mut self, outer: &[Column]) -> Result<Vec<ZeroSign>> {
        let mut signs = Vec::new();
        let mut columns: Vec<Expr> = self.input.schema().columns().into_iter().map(Expr::Column).collect();
        for of in outer {
            let ty = self.input.schema().data_type(of)?;
            if !ty.is_floating() {
                continue;
            }
            let (zero, one) = (lit(ScalarValue::new_zero(ty)?), lit(ScalarValue::new_one(ty)?));
            let value = Expr::Column(of.clone());
            let name = self.names.fresh("sign");
            columns.push(value.clone().eq(zero.clone()).and((one / value).lt(zero)).alias(name.as_str()));
            let negative_zero = ScalarValue::new_zero(ty)?.arithmetic_negate()?;
            signs.push(ZeroSign { column: Column::from_name(name), of: of.clone(), negative_zero });
        }
        if !signs.is_empty() {
            self.input = LogicalPlanBuilder::from(self.input.clone()).project(columns)?.build()?;
        }
        Ok(signs)
    }

    /// Whether a value is among those of a subquery that names nothing from outside.
    fn member(&mut self, found: InSubquery) -> Result<Expr> {
        let InSubquery { expr, subquery, negated } = found;
        let (values, all) = (self.names.fresh("in"), self.names.fresh("all"));
        let rows = subquery.subquery.as_ref().clone();
        let value = first_column(&rows);
        let distinct = LogicalPlanBuilder::from(rows.clone())
            .project([value.clone().alias(VALUE_COLUMN)])?
            .filter(Expr::Column(Column::from_name(VALUE_COLUMN)).is_not_null())?
            .distinct()?
            .project([Expr::Column(Column::from_name(VALUE_COLUMN)), lit(true).alias(SEEN_COLUMN)])?
            .alias(values.as_str())?
            .build()?;
        let counts = LogicalPlanBuilder::from(rows)
            .aggregate(Vec::<Expr>::new(), [count(lit(1_i64)).alias("rows"), count(value).alias("known")])?
            .alias(all.as_str())?
            .build()?;
        self.input = LogicalPlanBuilder::from(self.input.clone())
            .join_with_expr_keys(
                distinct,
                JoinType::Left,
                (vec![*expr.clone()], vec![column_of(&values, VALUE_COLUMN)]),
                None,
            )?
            .cross_join(counts)?
            .build()?;
        let (rows, known) = (column_of(&all, "rows"), column_of(&all, "known"));
        let is_member = when(column_of(&values, SEEN_COLUMN).is_not_null(), lit(true))
            .when(rows.clone().eq(lit(0_i64)), lit(false))
            .when(expr.is_null().or(rows.gt(known)), unknown())
            .otherwise(lit(false))?;
        Ok(if negated { not(is_member) } else { is_member })
    }
}

fn unknown() -> Expr {
    Expr::Literal(ScalarValue::Boolean(None), None)
}

fn first_column(plan: &LogicalPlan) -> Expr {
    let (relation, field) = plan.schema().qualified_field(0);
    Expr::Column(Column::new(relation.cloned(), field.name()))
}

/// Whether the value is that of a column. Others may turn out to be a constant, as `x * NULL`, which is no key of a join.
fn is_column(expr: &Expr) -> bool {
    match expr {
        Expr::Column(_) => true,
        Expr::Cast(cast) => is_column(&cast.expr),
        _ => false,
    }
}

/// The subquery's value: null over no rows, an error over several.
fn scalar(subquery: &Subquery) -> Result<LogicalPlan> {
    let plan = subquery.subquery.as_ref().clone();
    match whole(&plan) {
        true => {
            let value = first_column(&plan);
            LogicalPlanBuilder::from(plan).project([value.alias(VALUE_COLUMN)])?.build()
        }
        false => only_row(plan),
    }
}

/// The value of the plan's first column in its only row: null where there is none, an error where there are several.
pub(super) fn only_row(plan: LogicalPlan) -> Result<LogicalPlan> {
    let call = AggregateFunction::new_udf(single::function(), vec![first_column(&plan)], false, None, vec![], None);
    let only = Expr::AggregateFunction(call).alias(VALUE_COLUMN);
    LogicalPlanBuilder::from(plan).aggregate(Vec::<Expr>::new(), [only])?.build()
}

/// Whether the plan gives one row at most: an aggregate of all rows.
fn whole(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::Aggregate(aggregate) => aggregate.group_expr.is_empty(),
        LogicalPlan::Projection(projection) => whole(&projection.input),
        LogicalPlan::SubqueryAlias(alias) => whole(&alias.input),
        LogicalPlan::Filter(filter) => whole(&filter.input),
        _ => false,
    }
}

fn exists(subquery: &Subquery, negated: bool) -> Result<LogicalPlan> {
    let rows = Expr::Column(Column::from_name("rows"));
    let found = if negated { rows.eq(lit(0_i64)) } else { rows.gt(lit(0_i64)) };
    LogicalPlanBuilder::from(subquery.subquery.as_ref().clone())
        .aggregate(Vec::<Expr>::new(), [count(lit(1_i64)).alias("rows")])?
        .project([found.alias(VALUE_COLUMN)])?
        .build()
}

/// Whether the comparison with a row of the subquery is true for any, or for all of them.
fn compared(
    expr: Expr,
    op: Operator,
    subquery: &Subquery,
    quantifier: SetQuantifier,
    input: &LogicalPlan,
) -> Result<LogicalPlan> {
    let plan = subquery.subquery.as_ref().clone();
    let value = first_column(&plan);
    let left = Box::new(as_outer(expr, input.schema())?);
    let holds = Expr::BinaryExpr(BinaryExpr { left, op, right: Box::new(value) });
    let column = |name: &str| Expr::Column(Column::from_name(name));
    let quantified = match quantifier {
        SetQuantifier::Any => bool_or(column("holds")),
        SetQuantifier::All => bool_and(column("holds")),
    };
    let decided = match quantifier {
        SetQuantifier::Any => when(column("quantified"), lit(true)),
        SetQuantifier::All => when(not(column("quantified")), lit(false)),
    }
    .when(column("rows").gt(column("known")), unknown())
    .otherwise(lit(matches!(quantifier, SetQuantifier::All)))?;
    LogicalPlanBuilder::from(plan)
        .project([holds.alias("holds")])?
        .aggregate(
            Vec::<Expr>::new(),
            [quantified.alias("quantified"), count(lit(1_i64)).alias("rows"), count(column("holds")).alias("known")],
        )?
        .project([decided.alias(VALUE_COLUMN)])?
        .build()
}

/// Aggregates whose value depends on the order of rows.
const ORDERED: [&str; 9] = [
    "first_value",
    "last_value",
    "nth_value",
    "array_agg",
    "string_agg",
    "any_value",
    "arbitrary",
    "approx_median",
    "approx_percentile_cont",
];

/// Whether the plan gives the same values of these columns when it runs a second time: sums of doubles depend on the order of rows.
fn is_repeatable(plan: &LogicalPlan, columns: &[Column]) -> Result<bool> {
    let is_double =
        |column: &Column| Expr::Column(column.clone()).get_type(plan.schema()).is_ok_and(|ty| ty.is_floating());
    let doubles = columns.iter().any(is_double);
    let mut changes = false;
    plan.apply_with_subqueries(|node| {
        let schema = merge_schema(&node.inputs());
        let depends = |expr: &Expr| match expr {
            Expr::AggregateFunction(call) => {
                let name = call.func.name();
                let of_doubles = doubles && !["min", "max"].contains(&name);
                let added = call.params.args.iter().any(|arg| arg.get_type(&schema).is_ok_and(|ty| ty.is_floating()));
                ORDERED.contains(&name) || (of_doubles && added)
            }
            expr => expr.is_volatile_node(),
        };
        let exprs = node.expressions();
        let by_order =
            matches!(node, LogicalPlan::Limit(_) | LogicalPlan::Window(_) | LogicalPlan::Distinct(Distinct::On(_)));
        changes |= by_order || exprs.iter().any(|expr| expr.exists(|part| Ok(depends(part))).unwrap_or(true));
        Ok(if changes { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    })?;
    Ok(!changes)
}

fn refused(reason: &str) -> datafusion::common::DataFusionError {
    DataFusionError::from(Error::invalid(format!(
        "not supported: a subquery that depends on the query around it: {reason}"
    )))
}
