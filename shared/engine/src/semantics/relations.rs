//! RIGHT and FULL joins with USING or NATURAL; joins with UNNEST.
//!
//! The common column of such a join is the one that has a value; DataFusion takes the left one always. A FROM item with such a
//! join is put in brackets before planning ([`bracketed`]) and planned here: common columns once, in the place of the left ones,
//! everything else under its own name. As in Athena, the sides' own common columns have no name outside.
//!
//! A FROM with an UNNEST beside other relations is put in brackets too. What stands left of the UNNEST is planned first; to what stands
//! right of it, it is a table of a name that nothing else has.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use datafusion::common::{Column, DFSchema, DataFusionError, NullEquality, Result, TableReference};
use datafusion::functions::core::expr_fn::coalesce;
use datafusion::logical_expr::planner::{PlannedRelation, RelationPlanner, RelationPlannerContext, RelationPlanning};
use datafusion::logical_expr::{Expr, JoinType, LogicalPlan, LogicalPlanBuilder};
use datafusion::sql::sqlparser::ast::{
    Ident, Join, JoinConstraint, JoinOperator, ObjectName, Select, TableFactor, TableWithJoins,
};

use super::{samples, unnest};
use shared::Error;

/// Puts FROM items that are planned here into brackets.
pub(crate) fn bracketed(select: &mut Select) {
    unnest::gather(&mut select.from);
    for item in &mut select.from {
        if merges(item) {
            let inner = std::mem::replace(item, TableWithJoins { relation: nothing(), joins: Vec::new() });
            item.relation = TableFactor::NestedJoin { table_with_joins: Box::new(inner), alias: None };
        }
    }
}

fn nothing() -> TableFactor {
    TableFactor::UNNEST {
        alias: None,
        array_exprs: Vec::new(),
        with_offset: false,
        with_offset_alias: None,
        with_ordinality: false,
    }
}

/// Whether a join has common columns that its right side may give.
fn merges(item: &TableWithJoins) -> bool {
    item.joins.iter().any(|join| match kind(&join.join_operator) {
        Some((JoinType::Right | JoinType::Full, constraint)) => {
            matches!(constraint, JoinConstraint::Using(_) | JoinConstraint::Natural)
        }
        _ => false,
    })
}

fn kind(operator: &JoinOperator) -> Option<(JoinType, &JoinConstraint)> {
    match operator {
        JoinOperator::Join(c) | JoinOperator::Inner(c) | JoinOperator::CrossJoin(c) => Some((JoinType::Inner, c)),
        JoinOperator::Left(c) | JoinOperator::LeftOuter(c) => Some((JoinType::Left, c)),
        JoinOperator::Right(c) | JoinOperator::RightOuter(c) => Some((JoinType::Right, c)),
        JoinOperator::FullOuter(c) => Some((JoinType::Full, c)),
        _ => None,
    }
}

/// Plans the FROM items in brackets.
#[derive(Debug, Default)]
pub(super) struct Relations {
    /// Counts the relations of common columns, and those that are planned.
    made: AtomicUsize,
    /// What is planned of a FROM, until the rest of it is.
    planned: Mutex<BTreeMap<String, LogicalPlan>>,
}

/// Begins the name of a relation that is planned.
const PLANNED: &str = "$planned_";

impl RelationPlanner for Relations {
    fn plan_relation(
        &self,
        mut relation: TableFactor,
        context: &mut dyn RelationPlannerContext,
    ) -> Result<RelationPlanning> {
        if let Some(sample) = samples::take(&mut relation) {
            let share = samples::sampled(&sample).map_err(DataFusionError::from)?;
            let plan = samples::by_chance(context.plan(relation)?, share)?;
            return Ok(RelationPlanning::Planned(Box::new(PlannedRelation::new(plan, None))));
        }
        match relation {
            TableFactor::NestedJoin { table_with_joins, alias } if merges(&table_with_joins) => {
                let mut plan = factor(table_with_joins.relation, context)?;
                for join in table_with_joins.joins {
                    plan = self.joined(plan, join, context)?;
                }
                Ok(RelationPlanning::Planned(Box::new(PlannedRelation::new(plan, alias))))
            }
            TableFactor::NestedJoin { table_with_joins, alias } if unnest::joins_unnest(&table_with_joins) => {
                let plan = self.unnested(*table_with_joins, context)?;
                Ok(RelationPlanning::Planned(Box::new(PlannedRelation::new(plan, alias))))
            }
            relation if unnest::is_unnest(&relation) => {
                let plan = unnest::plan(None, relation, false, self.number(), context)?;
                Ok(RelationPlanning::Planned(Box::new(PlannedRelation::new(plan, None))))
            }
            other => match self.take(&other) {
                Some(plan) => Ok(RelationPlanning::Planned(Box::new(PlannedRelation::new(plan, None)))),
                None => Ok(RelationPlanning::Original(Box::new(other))),
            },
        }
    }
}

fn factor(relation: TableFactor, context: &mut dyn RelationPlannerContext) -> Result<LogicalPlan> {
    let lateral = match &relation {
        TableFactor::Derived { lateral, .. } | TableFactor::Function { lateral, .. } => *lateral,
        _ => false,
    };
    match lateral {
        true => Err(invalid("not supported: LATERAL beside a RIGHT or FULL JOIN with USING or NATURAL")),
        false => context.plan(relation),
    }
}

impl Relations {
    fn number(&self) -> usize {
        self.made.fetch_add(1, Ordering::Relaxed)
    }

    /// The plan that this relation stands for, which nobody can have twice.
    fn take(&self, relation: &TableFactor) -> Option<LogicalPlan> {
        let TableFactor::Table { name, .. } = relation else { return None };
        let [part] = name.0.as_slice() else { return None };
        let name = part.as_ident().map(|ident| ident.value.as_str()).filter(|name| name.starts_with(PLANNED))?;
        self.planned.lock().unwrap_or_else(PoisonError::into_inner).remove(name)
    }

    /// Joins of which some are with an UNNEST.
    fn unnested(&self, item: TableWithJoins, context: &mut dyn RelationPlannerContext) -> Result<LogicalPlan> {
        let TableWithJoins { mut relation, joins } = item;
        let mut others = Vec::new();
        for join in joins {
            if !unnest::is_unnest(&join.relation) {
                others.push(join);
                continue;
            }
            let left = self.with_others(relation, std::mem::take(&mut others), context)?;
            let plan = self.with_unnest(left, join, context)?;
            let name = format!("{PLANNED}{}", self.number());
            relation = planned(&name);
            self.planned.lock().unwrap_or_else(PoisonError::into_inner).insert(name, plan);
        }
        self.with_others(relation, others, context)
    }

    fn with_unnest(
        &self,
        left: LogicalPlan,
        join: Join,
        context: &mut dyn RelationPlannerContext,
    ) -> Result<LogicalPlan> {
        let keeps_rows = unnest::keeps_rows(&join.join_operator)?;
        unnest::plan(Some(left), join.relation, keeps_rows, self.number(), context)
    }

    /// The relation with joins that DataFusion plans.
    fn with_others(
        &self,
        relation: TableFactor,
        joins: Vec<Join>,
        context: &mut dyn RelationPlannerContext,
    ) -> Result<LogicalPlan> {
        if joins.is_empty()
            && let Some(plan) = self.take(&relation)
        {
            return Ok(plan);
        }
        let item = Box::new(TableWithJoins { relation, joins });
        context.plan(TableFactor::NestedJoin { table_with_joins: item, alias: None })
    }

    fn joined(&self, left: LogicalPlan, join: Join, context: &mut dyn RelationPlannerContext) -> Result<LogicalPlan> {
        if unnest::is_unnest(&join.relation) {
            return self.with_unnest(left, join, context);
        }
        let right = factor(join.relation, context)?;
        let Some((ty, constraint)) = kind(&join.join_operator) else {
            return Err(invalid("not supported: this kind of join beside a RIGHT or FULL JOIN with USING or NATURAL"));
        };
        match constraint {
            JoinConstraint::On(condition) => {
                let schema = left.schema().join(right.schema())?;
                let condition = context.sql_to_expr(condition.clone(), &schema)?;
                LogicalPlanBuilder::from(left).join_on(right, ty, Some(condition))?.build()
            }
            JoinConstraint::Using(names) => {
                let names =
                    names.iter().map(|name| Ok(context.normalize_ident(single(name)?))).collect::<Result<_>>()?;
                self.merged(left, right, ty, names)
            }
            JoinConstraint::Natural => {
                let names = common_names(left.schema(), right.schema());
                self.merged(left, right, ty, names)
            }
            JoinConstraint::None if ty == JoinType::Inner => LogicalPlanBuilder::from(left).cross_join(right)?.build(),
            JoinConstraint::None => Err(invalid("expected ON, USING or NATURAL with an outer join")),
        }
    }

    fn merged(&self, left: LogicalPlan, right: LogicalPlan, ty: JoinType, names: Vec<String>) -> Result<LogicalPlan> {
        let relation = TableReference::bare(format!("$using_{}", self.number()));
        let of = |schema: &DFSchema| names.iter().map(|name| column(schema, name)).collect::<Result<Vec<_>>>();
        let (left_keys, right_keys) = (of(left.schema())?, of(right.schema())?);
        let mut columns = Vec::new();
        for own in left.schema().columns() {
            columns.push(match left_keys.iter().position(|key| *key == own) {
                None => Expr::Column(own),
                Some(i) => {
                    let (l, r) = (Expr::Column(own), Expr::Column(right_keys[i].clone()));
                    let value = match ty {
                        JoinType::Right => r,
                        JoinType::Full => coalesce(vec![l, r]),
                        _ => l,
                    };
                    value.alias_qualified(Some(relation.clone()), &names[i])
                }
            });
        }
        let rest = right.schema().columns().into_iter().filter(|own| !right_keys.contains(own));
        columns.extend(rest.map(Expr::Column));
        LogicalPlanBuilder::from(left)
            .join_detailed(right, ty, (left_keys, right_keys), None, NullEquality::NullEqualsNothing)?
            .project(columns)?
            .build()
    }
}

/// The relation of a plan that is kept under this name.
fn planned(name: &str) -> TableFactor {
    TableFactor::Table {
        name: ObjectName::from(vec![Ident::with_quote('"', name)]),
        alias: None,
        args: None,
        with_hints: Vec::new(),
        version: None,
        with_ordinality: false,
        partitions: Vec::new(),
        json_path: None,
        sample: None,
        index_hints: Vec::new(),
    }
}

fn single(name: &ObjectName) -> Result<Ident> {
    match name.0.as_slice() {
        [part] => part.as_ident().cloned().ok_or_else(|| invalid("expected the name of a column in USING")),
        _ => Err(invalid(&format!("expected the bare name of a column in USING, found `{name}`"))),
    }
}

/// Names that both sides have, in the order of the left one.
fn common_names(left: &DFSchema, right: &DFSchema) -> Vec<String> {
    let names = left.fields().iter().map(|field| field.name());
    names.filter(|name| right.fields().iter().any(|field| field.name() == *name)).cloned().collect()
}

/// The one column of that name.
fn column(schema: &DFSchema, name: &str) -> Result<Column> {
    let found = schema.qualified_fields_with_unqualified_name(name);
    match found.as_slice() {
        [(relation, field)] => Ok(Column::new(relation.cloned(), field.name())),
        found => Err(invalid(&format!(
            "expected one column `{name}` on each side of a join that has it in common, found {}",
            found.len()
        ))),
    }
}

fn invalid(message: &str) -> DataFusionError {
    DataFusionError::from(Error::invalid(message))
}
