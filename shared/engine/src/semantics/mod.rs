//! What SQL means where DataFusion answers something else: rules and functions of ours in the place of its own.
//!
//! | module | what it sees to |
//! |---|---|
//! | [`checked`] | arithmetic that fails instead of wrapping; quotients and casts that round |
//! | [`totals`] | `sum` and `avg` that fail instead of wrapping |
//! | [`doubles`] | both zeros and NaN, wherever numbers are compared |
//! | [`frames`] | aggregates over window frames that leave rows behind |
//! | [`joins`] | inner joins whose keys may be null |
//! | [`lists`] | IN lists whose elements are no constants |
//! | [`numbers`] | doubles beside decimals, decimals of more than 38 digits, dates and texts beside times, times with zones beside others |
//! | [`projections`] | projections over filters that give their columns in another order |
//! | [`pushdown`] | filters that a plan hands down, where two columns have one name |
//! | [`dependent`] | what a subquery that names columns of the query around it gives for each of them |
//! | [`subqueries`] | subqueries that name columns of the query around them, or stand for a value |
//! | [`scalars`] | subqueries that give no row where a value stands |
//! | [`set_operations`] | EXCEPT ALL and INTERSECT ALL |
//! | [`relations`] | RIGHT and FULL JOIN … USING and NATURAL; subqueries that give two columns of one name |
//! | [`names`] | a SELECT list that gives two columns of one name |
//! | [`samples`] | TABLESAMPLE BERNOULLI |
//! | [`unnest`] | UNNEST in FROM |
//! | [`unlinked`] | what is left out because it depends on groups, over an UNNEST |
//! | [`literals`] | literals of numbers and times; patterns of LIKE |
//!
//! `docs/engine-faults.md` lists what is done here because of a fault, and the test that tells when it can go.

mod checked;
mod dependent;
mod doubles;
mod frames;
mod joins;
mod lists;
mod literals;
mod names;
mod numbers;
mod outer;
mod projections;
mod pushdown;
mod relations;
mod samples;
mod scalars;
mod set_operations;
mod subqueries;
mod totals;
mod unlinked;
mod unnest;

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, Result};
use datafusion::execution::SessionStateBuilder;
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::expr::InSubquery;
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, Projection, Subquery, lit};
use datafusion::optimizer::AnalyzerRule;
use datafusion::optimizer::analyzer::resolve_grouping_function::ResolveGroupingFunction;
use datafusion::optimizer::analyzer::type_coercion::TypeCoercion;

pub(super) use self::literals::{decimal, is_timestamp, mark_distinct, rewrite as literals, timestamp};
pub(super) use self::names::{distinct as distinct_names, given as given_name, shown as shown_name, written};
pub(super) use self::relations::bracketed;
pub(super) use self::samples::sampled;

/// Gives the session the rules.
pub(super) fn rules(builder: SessionStateBuilder) -> SessionStateBuilder {
    let rules: Vec<Arc<dyn AnalyzerRule + Send + Sync>> = vec![
        Arc::new(set_operations::Multisets),
        Arc::new(numbers::CommonNumbers),
        Arc::new(ResolveGroupingFunction::new()),
        Arc::new(TypeCoercion::new()),
        Arc::new(scalars::NullableScalars),
        Arc::new(subqueries::Subqueries),
        Arc::new(unlinked::UnlinkUnnest),
        Arc::new(doubles::EqualNumbers),
        Arc::new(checked::CheckedArithmetic),
    ];
    builder
        .with_analyzer_rules(rules)
        .with_optimizer_rules(joins::logical_rules())
        .with_physical_optimizer_rules(pushdown::physical_rules())
        .with_query_planner(Arc::new(unlinked::Planner))
        .with_relation_planners(vec![Arc::new(relations::Relations::default())])
}

/// Gives the session the functions.
///
/// # Errors
/// Whatever the registry says.
pub(super) fn register(state: &mut SessionState) -> Result<()> {
    literals::register(state)?;
    totals::register(state)
}

/// The session for a plan: one whose numbers are doubles is run without filters that the plan makes as it runs.
pub(super) fn session_for(state: &SessionState, plan: &LogicalPlan) -> SessionState {
    let mut state = state.clone();
    if !numbers::prunes_while_running(plan) {
        let options = state.config_mut().options_mut();
        options.optimizer.enable_dynamic_filter_pushdown = false;
        options.optimizer.enable_join_dynamic_filter_pushdown = false;
        options.optimizer.enable_topk_dynamic_filter_pushdown = false;
        options.optimizer.enable_aggregate_dynamic_filter_pushdown = false;
    }
    state
}

/// The plan with every node, those of subqueries among them, as `f` gives it; inputs first.
fn whole_subqueries(
    plan: LogicalPlan,
    f: impl FnMut(LogicalPlan) -> Result<Transformed<LogicalPlan>>,
) -> Result<LogicalPlan> {
    Ok(plan.transform_up_with_subqueries(f)?.data)
}

/// The expression with its parts as `f` gives them, under the name that it had. Grouping sets have no name, what they hold has.
pub(super) fn under_its_name(
    expr: Expr,
    names: &NamePreserver,
    f: &impl Fn(Expr) -> Result<Transformed<Expr>>,
) -> Result<Transformed<Expr>> {
    if matches!(expr, Expr::GroupingSet(_)) {
        return expr.map_children(|inner| under_its_name(inner, names, f));
    }
    let name = names.save(&expr);
    Ok(expr.transform_up(f)?.update_data(|expr| name.restore(expr)))
}

/// The name of a subquery's value.
const VALUE: &str = "$value";

/// The subquery of an EXISTS with a constant for its values, which nobody asks for.
fn without_values(subquery: Subquery) -> Result<Subquery> {
    let LogicalPlan::Projection(Projection { input, .. }) = subquery.subquery.as_ref() else { return Ok(subquery) };
    let plan = LogicalPlan::Projection(Projection::try_new(vec![lit(true).alias(VALUE)], Arc::clone(input))?);
    Ok(Subquery { subquery: Arc::new(plan), ..subquery })
}

/// The subquery with `f` of its value, under a name that no column has: the columns that it depends on come to stand beside it.
fn named_value(mut found: InSubquery, f: &impl Fn(Expr, &DFSchema) -> Expr) -> Result<InSubquery> {
    let plan = match found.subquery.subquery.as_ref().clone() {
        LogicalPlan::Projection(Projection { expr, input, .. }) if expr.len() == 1 => {
            let value = expr.into_iter().map(|value| f(value.unalias(), input.schema()).alias(VALUE)).collect();
            LogicalPlan::Projection(Projection::try_new(value, input)?)
        }
        plan => {
            let value = f(Expr::Column(plan.schema().columns().remove(0)), plan.schema()).alias(VALUE);
            LogicalPlanBuilder::from(plan).project([value])?.build()?
        }
    };
    found.subquery = Subquery { subquery: Arc::new(plan), ..found.subquery };
    Ok(found)
}
