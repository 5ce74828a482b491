//! A subquery that names columns of the query around it, computed for all combinations of those columns at once.
//!
//! The plan of the subquery gets columns more, the *keys*: one for each column that it names. Filters compare them in place of the
//! outer columns, aggregates group by them, a limit counts within them, joins match them. Where the keys come from:
//!
//! - From the domain, the distinct combinations in the rows around: a part of the plan that names nothing is multiplied with it.
//! - From equality: where the only use of the outer columns is `own expression = outer column` in one WHERE, the own expressions
//!   are the keys, and the rows around are not needed.
//!
//! After Neumann and Kemper, "Unnesting arbitrary queries" (BTW 2015).

use std::cell::Cell;
use std::sync::Arc;

use arrow::array::{ListArray, new_empty_array};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema, ExprSchema, Result, ScalarValue};
use datafusion::functions::core::expr_fn::coalesce;
use datafusion::functions_window::row_number::row_number;
use datafusion::logical_expr::expr::{Exists, InSubquery, SetComparison, Sort as SortExpr};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::logical_plan::{
    Aggregate, Distinct, EmptyRelation, FetchType, Filter, Join, Limit, Projection, SkipType, SubqueryAlias, Union,
    Unnest, Window,
};
use datafusion::logical_expr::utils::{conjunction, split_conjunction};
use datafusion::logical_expr::{
    BinaryExpr, Expr, ExprFunctionExt, JoinType, LogicalPlan, LogicalPlanBuilder, Operator, Subquery, lit, when,
};

use super::outer::{outer_of, outer_references, refers};
use super::subqueries::{SEEN_COLUMN, VALUE_COLUMN};
use super::unlinked::unlinked;

/// Names of relations that no statement has.
pub(super) struct FreshNames {
    pub(super) next: Cell<usize>,
}

impl FreshNames {
    pub(super) fn fresh(&self, kind: &str) -> String {
        self.next.set(self.next.get() + 1);
        format!("__{kind}_{}", self.next.get())
    }
}

pub(super) fn column_of(relation: &str, name: &str) -> Expr {
    Expr::Column(Column::new(Some(relation), name))
}

/// A column that is true where another is a zero with a sign.
#[derive(Clone)]
pub(super) struct ZeroSign {
    pub(super) column: Column,
    pub(super) of: Column,
    pub(super) negative_zero: ScalarValue,
}

/// What a subquery depends on.
#[derive(Clone)]
pub(super) struct Dependence<'a> {
    /// Columns of the rows around.
    outer: Vec<Column>,
    /// Those of them that tell whether another is a zero with a sign.
    signs: Vec<ZeroSign>,
    /// Relation of the keys.
    relation: String,
    /// Distinct combinations of the outer columns, named as the keys; none if equality gives the keys.
    domain: Option<LogicalPlan>,
    names: &'a FreshNames,
}

impl<'a> Dependence<'a> {
    pub(super) fn on_equality(outer: Vec<Column>, names: &'a FreshNames) -> Self {
        Self { outer, signs: Vec::new(), relation: names.fresh("outer"), domain: None, names }
    }

    /// Both zeros are one combination: where a subquery may look at the sign, `signs` has the columns that tell.
    pub(super) fn on_domain(
        input: &LogicalPlan,
        mut outer: Vec<Column>,
        signs: Vec<ZeroSign>,
        names: &'a FreshNames,
    ) -> Result<Self> {
        outer.extend(signs.iter().map(|sign| sign.column.clone()));
        let columns = outer.iter().enumerate().map(|(i, column)| Expr::Column(column.clone()).alias(key_name(i)));
        let domain = LogicalPlanBuilder::from(input.clone()).project(columns)?.distinct()?.build()?;
        let relation = names.fresh("outer");
        Ok(Self { outer, signs, relation, domain: Some(domain), names })
    }

    /// As this, with keys of another name.
    fn renamed(&self) -> Self {
        Self { relation: self.names.fresh("outer"), ..self.clone() }
    }

    /// The columns of the rows around, in the order of their keys.
    pub(super) fn outer(&self) -> &[Column] {
        &self.outer
    }

    /// The keys under a relation of this name.
    pub(super) fn keys_in(&self, name: &str) -> Vec<Column> {
        (0..self.outer.len()).map(|i| Column::new(Some(name), key_name(i))).collect()
    }

    /// The key that replaces an outer column, by `key_expr`; the negative zero where its sign's column says so.
    fn bound_column(
        &self,
        column: &Column,
        key_expr: impl Fn(&Column, Column) -> Result<Expr>,
    ) -> Result<Option<Expr>> {
        let at = |column: &Column| self.outer.iter().position(|outer| outer == column);
        let Some(i) = at(column) else { return Ok(None) };
        let key = key_expr(column, self.key(i))?;
        let Some(sign) = self.signs.iter().find(|sign| sign.of == *column) else { return Ok(Some(key)) };
        let Some(j) = at(&sign.column) else { return Ok(Some(key)) };
        let negative = Expr::Literal(sign.negative_zero.clone(), None);
        when(key_expr(&sign.column, self.key(j))?, negative).otherwise(key).map(Some)
    }

    pub(super) fn key(&self, i: usize) -> Column {
        Column::new(Some(self.relation.as_str()), key_name(i))
    }

    fn key_columns(&self) -> Vec<Column> {
        (0..self.outer.len()).map(|i| self.key(i)).collect()
    }

    fn keys(&self) -> Vec<Expr> {
        self.key_columns().into_iter().map(Expr::Column).collect()
    }

    /// The domain under the keys' names.
    fn domain(&self) -> Result<Option<LogicalPlan>> {
        let Some(domain) = &self.domain else { return Ok(None) };
        LogicalPlanBuilder::from(domain.clone()).alias(self.relation.as_str())?.build().map(Some)
    }

    /// The value and keys of `plan` as a relation of this name, with a column that is true.
    pub(super) fn named(&self, plan: LogicalPlan, name: &str) -> Result<LogicalPlan> {
        let value = Expr::Column(Column::from_name(VALUE_COLUMN));
        let columns = [value, lit(true).alias(SEEN_COLUMN)].into_iter();
        let keys = (0..self.outer.len()).map(|i| Expr::Column(self.key(i)).alias(key_name(i)));
        LogicalPlanBuilder::from(plan).project(columns.chain(keys).collect::<Vec<_>>())?.alias(name)?.build()
    }

    /// The rows of `plan` for each combination of keys: its own columns and the keys. `None` where no plan says that.
    pub(super) fn of(&self, plan: &LogicalPlan) -> Result<Option<LogicalPlan>> {
        if !refers(plan) {
            let Some(domain) = self.domain()? else { return Ok(None) };
            return LogicalPlanBuilder::from(plan.clone()).cross_join(domain)?.build().map(Some);
        }
        match plan {
            LogicalPlan::Filter(filter) => self.filter(filter),
            LogicalPlan::Projection(projection) => self.projection(projection),
            LogicalPlan::SubqueryAlias(alias) => self.alias(alias),
            LogicalPlan::Aggregate(aggregate) => self.aggregate(aggregate),
            LogicalPlan::Limit(limit) => self.limit(limit),
            // The order of rows means nothing to what is made of them.
            LogicalPlan::Sort(sort) if sort.fetch.is_none() => self.of(&sort.input),
            LogicalPlan::Distinct(Distinct::All(input)) => match self.of(input)? {
                Some(input) => LogicalPlanBuilder::from(input).distinct()?.build().map(Some),
                None => Ok(None),
            },
            LogicalPlan::Join(join) => self.join(join),
            LogicalPlan::Union(union) => self.union(union),
            LogicalPlan::Window(window) => self.window(window),
            LogicalPlan::Unnest(unnest) => self.unnest(unnest),
            // Only an unnest above it asks for less.
            LogicalPlan::Extension(node) if node.node.inputs().len() == 1 => self.of(node.node.inputs()[0]),
            // A relation that names columns from outside.
            LogicalPlan::Subquery(relation) => self.of(&relation.subquery),
            _ => Ok(None),
        }
    }

    /// The keys stand beside the elements, under names that nothing else has: those of an unnest's columns are told apart by name.
    fn unnest(&self, unnest: &Unnest) -> Result<Option<LogicalPlan>> {
        let Some(input) = self.of(&unnest.input)? else { return Ok(None) };
        let fresh = self.names.fresh("key");
        let own = |i: usize| format!("{fresh}_{i}");
        let columns = unnest.input.schema().columns().into_iter().map(Expr::Column);
        let keys = (0..self.outer.len()).map(|i| Expr::Column(self.key(i)).alias(own(i)));
        let input = LogicalPlanBuilder::from(input).project(columns.chain(keys).collect::<Vec<_>>())?.build()?;
        let plan = Unnest::try_new(Arc::new(unlinked(input)?), unnest.exec_columns.clone(), unnest.options.clone())?;
        let columns = unnest.schema.columns().into_iter().map(Expr::Column);
        let keys = (0..self.outer.len()).map(|i| {
            Expr::Column(Column::from_name(own(i))).alias_qualified(Some(self.relation.as_str()), key_name(i))
        });
        LogicalPlanBuilder::from(LogicalPlan::Unnest(plan))
            .project(columns.chain(keys).collect::<Vec<_>>())?
            .build()
            .map(Some)
    }

    fn filter(&self, filter: &Filter) -> Result<Option<LogicalPlan>> {
        if self.domain.is_none() && !refers(&filter.input) {
            return self.by_equality(filter);
        }
        let Some(input) = self.of(&filter.input)? else { return Ok(None) };
        let predicate = self.bound(filter.predicate.clone(), filter.input.schema())?;
        Ok(Some(LogicalPlan::Filter(Filter::try_new(predicate, Arc::new(input))?)))
    }

    /// Rows whose own expressions are the keys.
    fn by_equality(&self, filter: &Filter) -> Result<Option<LogicalPlan>> {
        let mut keys: Vec<Option<Expr>> = vec![None; self.outer.len()];
        let mut rest = Vec::new();
        for condition in split_conjunction(&filter.predicate) {
            if outer_of(condition, filter.input.schema()).is_empty() {
                rest.push(condition.clone());
                continue;
            }
            let Some((column, own)) = equality(condition, filter.input.schema()) else { return Ok(None) };
            let Some(i) = self.outer.iter().position(|outer| outer == column) else { return Ok(None) };
            match &keys[i] {
                None => keys[i] = Some(own.clone()),
                Some(key) => rest.push(key.clone().eq(own.clone())),
            }
        }
        let Some(keys) = keys.into_iter().collect::<Option<Vec<Expr>>>() else { return Ok(None) };
        rest.extend(keys.iter().map(|key| key.clone().is_not_null()));
        let mut builder = LogicalPlanBuilder::new_from_arc(Arc::clone(&filter.input));
        if let Some(rest) = conjunction(rest) {
            builder = builder.filter(rest)?;
        }
        let own = filter.input.schema().columns().into_iter().map(Expr::Column);
        let keys = keys.into_iter().enumerate();
        let keys = keys.map(|(i, key)| key.alias_qualified(Some(self.relation.as_str()), key_name(i)));
        builder.project(own.chain(keys).collect::<Vec<_>>())?.build().map(Some)
    }

    fn projection(&self, projection: &Projection) -> Result<Option<LogicalPlan>> {
        let Some(input) = self.of(&projection.input)? else { return Ok(None) };
        let mut exprs = self.all_bound(&projection.expr, projection.input.schema())?;
        exprs.extend(self.keys());
        LogicalPlanBuilder::from(input).project(exprs)?.build().map(Some)
    }

    fn alias(&self, alias: &SubqueryAlias) -> Result<Option<LogicalPlan>> {
        let Some(input) = self.of(&alias.input)? else { return Ok(None) };
        let named = alias.input.schema().columns().into_iter().zip(alias.schema.fields());
        let named =
            named.map(|(column, field)| Expr::Column(column).alias_qualified(Some(alias.alias.clone()), field.name()));
        LogicalPlanBuilder::from(input).project(named.chain(self.keys()).collect::<Vec<_>>())?.build().map(Some)
    }

    fn aggregate(&self, aggregate: &Aggregate) -> Result<Option<LogicalPlan>> {
        if aggregate.group_expr.iter().any(|expr| matches!(expr, Expr::GroupingSet(_))) {
            return Ok(None);
        }
        let Some(input) = self.of(&aggregate.input)? else { return Ok(None) };
        let schema = aggregate.input.schema();
        let aggregates = self.all_bound(&aggregate.aggr_expr, schema)?;
        if aggregate.group_expr.is_empty() && self.domain.is_some() {
            return self.aggregate_of_all(input, aggregates, &aggregate.schema);
        }
        let mut groups = self.all_bound(&aggregate.group_expr, schema)?;
        groups.extend(self.keys());
        let plan = LogicalPlanBuilder::from(input).aggregate(groups, aggregates)?;
        self.with_columns(plan, &aggregate.schema).map(Some)
    }

    /// One row for each combination of keys, also where there is nothing to aggregate.
    fn aggregate_of_all(
        &self,
        input: LogicalPlan,
        aggregates: Vec<Expr>,
        schema: &DFSchema,
    ) -> Result<Option<LogicalPlan>> {
        let all = self.renamed();
        let Some(domain) = all.domain()? else { return Ok(None) };
        let seen = self.names.fresh("seen");
        let mut columns: Vec<Expr> = input.schema().columns().into_iter().map(Expr::Column).collect();
        columns.push(lit(true).alias(seen.as_str()));
        let input = LogicalPlanBuilder::from(input).project(columns)?.build()?;
        let counted = aggregates.into_iter().map(|expr| of_seen(expr, &seen)).collect::<Result<Vec<_>>>()?;
        let mut named: Vec<Expr> = schema.columns().into_iter().map(Expr::Column).collect();
        let keys = (0..self.outer.len())
            .map(|i| Expr::Column(all.key(i)).alias_qualified(Some(self.relation.as_str()), key_name(i)));
        named.extend(keys);
        let on = null_safe(&all.key_columns(), &self.key_columns(), domain.schema())?;
        LogicalPlanBuilder::from(domain)
            .join_with_expr_keys(input, JoinType::Left, on, None)?
            .aggregate(all.keys(), counted)?
            .project(named)?
            .build()
            .map(Some)
    }

    /// The plan's columns in the order of `schema`, then the keys.
    fn with_columns(&self, plan: LogicalPlanBuilder, schema: &DFSchema) -> Result<LogicalPlan> {
        let own = schema.columns().into_iter().map(Expr::Column);
        plan.project(own.chain(self.keys()).collect::<Vec<_>>())?.build()
    }

    fn limit(&self, limit: &Limit) -> Result<Option<LogicalPlan>> {
        let (SkipType::Literal(skip), FetchType::Literal(fetch)) = (limit.get_skip_type()?, limit.get_fetch_type()?)
        else {
            return Ok(None);
        };
        let below = |input: &Arc<LogicalPlan>| {
            Arc::new(LogicalPlan::Limit(Limit { input: Arc::clone(input), ..limit.clone() }))
        };
        let (input, order): (&LogicalPlan, Vec<SortExpr>) = match limit.input.as_ref() {
            LogicalPlan::Projection(projection) => {
                return self.projection(&Projection::try_new(projection.expr.clone(), below(&projection.input))?);
            }
            LogicalPlan::SubqueryAlias(alias) => {
                return self.alias(&SubqueryAlias::try_new(below(&alias.input), alias.alias.clone())?);
            }
            LogicalPlan::Sort(sort) => (&sort.input, sort.expr.clone()),
            other => (other, Vec::new()),
        };
        let Some(rows) = self.of(input)? else { return Ok(None) };
        let order = order.into_iter().map(|by| Ok(SortExpr { expr: self.bound(by.expr, input.schema())?, ..by }));
        let row = self.names.fresh("row");
        let number = row_number().partition_by(self.keys()).order_by(order.collect::<Result<_>>()?).build()?;
        let at = Expr::Column(Column::from_name(row.as_str()));
        let count = |rows: usize| lit(u64::try_from(rows).unwrap_or(u64::MAX));
        let mut within = at.clone().gt(count(skip));
        if let Some(fetch) = fetch {
            within = within.and(at.lt_eq(count(skip.saturating_add(fetch))));
        }
        let plan = LogicalPlanBuilder::from(rows).window([number.alias(row.as_str())])?.filter(within)?;
        self.with_columns(plan, input.schema()).map(Some)
    }

    fn window(&self, window: &Window) -> Result<Option<LogicalPlan>> {
        let Some(input) = self.of(&window.input)? else { return Ok(None) };
        let names = NamePreserver::new_for_projection();
        let exprs = window.window_expr.iter().map(|expr| {
            let name = names.save(expr);
            let bound = self.bound(expr.clone(), window.input.schema())?.transform_down(|expr| match expr {
                Expr::WindowFunction(mut call) => {
                    call.params.partition_by.extend(self.keys());
                    Ok(Transformed::yes(Expr::WindowFunction(call)))
                }
                other => Ok(Transformed::no(other)),
            })?;
            Ok(name.restore(bound.data))
        });
        let plan = LogicalPlanBuilder::from(input).window(exprs.collect::<Result<Vec<_>>>()?)?;
        self.with_columns(plan, &window.schema).map(Some)
    }

    fn union(&self, union: &Union) -> Result<Option<LogicalPlan>> {
        let mut inputs = Vec::new();
        for input in &union.inputs {
            let Some(plan) = self.of(input)? else { return Ok(None) };
            let own = input.schema().columns().into_iter().zip(union.schema.fields());
            let own = own.map(|(column, field)| Expr::Column(column).alias(field.name()));
            let keys = (0..self.outer.len()).map(|i| Expr::Column(self.key(i)).alias(self.key(i).flat_name()));
            let plan = LogicalPlanBuilder::from(plan).project(own.chain(keys).collect::<Vec<_>>())?.build()?;
            inputs.push(Arc::new(plan));
        }
        let plan = LogicalPlan::Union(Union::try_new_with_loose_types(inputs)?);
        let columns = plan.schema().columns();
        let (own, keys) = columns.split_at(union.schema.fields().len());
        let own = own.iter().zip(union.schema.iter()).map(|(column, (relation, field))| {
            Expr::Column(column.clone()).alias_qualified(relation.cloned(), field.name())
        });
        let keys = keys
            .iter()
            .enumerate()
            .map(|(i, column)| Expr::Column(column.clone()).alias_qualified(Some(self.relation.as_str()), key_name(i)));
        let columns: Vec<Expr> = own.chain(keys).collect();
        LogicalPlanBuilder::from(plan).project(columns)?.build().map(Some)
    }

    fn join(&self, join: &Join) -> Result<Option<LogicalPlan>> {
        let (in_left, in_right) = (refers(&join.left), refers(&join.right));
        let (left, right) = match join.join_type {
            // The preserved side is complete for each combination of keys.
            JoinType::Left | JoinType::LeftSemi | JoinType::LeftAnti => (true, in_right),
            JoinType::Right => (in_left, true),
            JoinType::Inner => (in_left || !in_right, in_right),
            _ => return Ok(None),
        };
        let other = self.renamed();
        let on_right = if left { &other } else { self };
        let left_plan = if left { self.of(&join.left)? } else { Some(join.left.as_ref().clone()) };
        let right_plan = if right { on_right.of(&join.right)? } else { Some(join.right.as_ref().clone()) };
        let (Some(left_plan), Some(right_plan)) = (left_plan, right_plan) else { return Ok(None) };
        let schema = join.left.schema().join(join.right.schema())?;
        let bind = |expr: Expr| match left {
            true => self.bound(expr, &schema),
            false => on_right.bound(expr, &schema),
        };
        let on = join.on.iter().map(|(l, r)| Ok((bind(l.clone())?, bind(r.clone())?))).collect::<Result<Vec<_>>>()?;
        let mut filters: Vec<Expr> = join.filter.clone().map(bind).transpose()?.into_iter().collect();
        if left && right {
            let same = |i| not_distinct(self.key(i), other.key(i));
            filters.extend((0..self.outer.len()).map(same));
        }
        let joined = Join::try_new(
            Arc::new(left_plan),
            Arc::new(right_plan),
            on,
            conjunction(filters),
            join.join_type,
            join.join_constraint,
            join.null_equality,
            join.null_aware,
        )?;
        self.with_columns(LogicalPlanBuilder::from(LogicalPlan::Join(joined)), &join.schema).map(Some)
    }

    fn all_bound(&self, exprs: &[Expr], schema: &DFSchema) -> Result<Vec<Expr>> {
        let names = NamePreserver::new_for_projection();
        let bound = exprs.iter().map(|expr| {
            let name = names.save(expr);
            Ok(name.restore(self.bound(expr.clone(), schema)?))
        });
        bound.collect()
    }

    /// The expression with keys in the place of outer columns, in its subqueries too. `schema` is what it stands over.
    fn bound(&self, expr: Expr, schema: &DFSchema) -> Result<Expr> {
        let key = |column: &Column| self.bound_column(column, |_, key| Ok(Expr::Column(key)));
        let nested = |subquery: Subquery| self.bound_subquery(subquery, schema);
        let bound = expr.transform_down(|expr| {
            Ok(match expr {
                Expr::OuterReferenceColumn(field, column) => match key(&column)? {
                    Some(key) => Transformed::new(key, true, TreeNodeRecursion::Jump),
                    None => Transformed::no(Expr::OuterReferenceColumn(field, column)),
                },
                Expr::ScalarSubquery(subquery) => Transformed::yes(Expr::ScalarSubquery(nested(subquery)?)),
                Expr::Exists(exists) => {
                    Transformed::yes(Expr::Exists(Exists { subquery: nested(exists.subquery)?, ..exists }))
                }
                Expr::InSubquery(found) => {
                    Transformed::yes(Expr::InSubquery(InSubquery { subquery: nested(found.subquery)?, ..found }))
                }
                Expr::SetComparison(found) => {
                    Transformed::yes(Expr::SetComparison(SetComparison { subquery: nested(found.subquery)?, ..found }))
                }
                other => Transformed::no(other),
            })
        })?;
        Ok(bound.data)
    }

    /// What a subquery below names of the rows around becomes a key, which it names as an outer column.
    fn bound_subquery(&self, subquery: Subquery, schema: &DFSchema) -> Result<Subquery> {
        let sign: FieldRef = Arc::new(Field::new("sign", DataType::Boolean, true));
        let renamed = |expr: Expr| {
            expr.transform_down(|expr| match expr {
                Expr::OuterReferenceColumn(field, column) if !schema.has_column(&column) => {
                    let key = self.bound_column(&column, |outer, key| {
                        let field = if *outer == column { Arc::clone(&field) } else { Arc::clone(&sign) };
                        Ok(Expr::OuterReferenceColumn(field, key))
                    })?;
                    Ok(match key {
                        Some(key) => Transformed::new(key, true, TreeNodeRecursion::Jump),
                        None => Transformed::no(Expr::OuterReferenceColumn(field, column)),
                    })
                }
                other => Ok(Transformed::no(other)),
            })
        };
        let plan = subquery.subquery.as_ref().clone();
        let plan = plan.transform_down_with_subqueries(|plan| {
            let names = NamePreserver::new(&plan);
            plan.map_expressions(|expr| {
                let name = names.save(&expr);
                Ok(renamed(expr)?.update_data(|expr| name.restore(expr)))
            })
        })?;
        let plan = plan.data;
        let outer = subquery.outer_ref_columns.into_iter().map(|expr| Ok(renamed(expr)?.data));
        let outer = outer_references(&outer.collect::<Result<Vec<_>>>()?)?;
        Ok(Subquery { subquery: Arc::new(plan), outer_ref_columns: outer, ..subquery })
    }
}

/// Keys under which columns meet that are equal or both null. A join that takes nulls for equal is no way to say it: conditions
/// above it, which don't, would become keys of it.
pub(super) fn null_safe(left: &[Column], right: &[Column], schema: &DFSchema) -> Result<(Vec<Expr>, Vec<Expr>)> {
    let mut keys = (Vec::new(), Vec::new());
    for (left, right) in left.iter().zip(right) {
        let none = Expr::Literal(default_of(schema.field_from_column(left)?.data_type())?, None);
        for (keys, column) in [(&mut keys.0, left), (&mut keys.1, right)] {
            let column = Expr::Column(column.clone());
            keys.push(column.clone().is_null());
            keys.push(coalesce(vec![column, none.clone()]));
        }
    }
    Ok(keys)
}

/// A value of the type: of arrays one whose elements have the name that the type says, which DataFusion's has not.
fn default_of(ty: &DataType) -> Result<ScalarValue> {
    match ty {
        DataType::List(element) => {
            let (offsets, values) = (OffsetBuffer::new_zeroed(1), new_empty_array(element.data_type()));
            Ok(ScalarValue::List(Arc::new(ListArray::try_new(Arc::clone(element), offsets, values, None)?)))
        }
        ty => ScalarValue::new_default(ty),
    }
}

fn key_name(i: usize) -> String {
    format!("c{i}")
}

fn not_distinct(left: Column, right: Column) -> Expr {
    let [left, right] = [left, right].map(|column| Box::new(Expr::Column(column)));
    Expr::BinaryExpr(BinaryExpr { left, op: Operator::IsNotDistinctFrom, right })
}

/// The aggregate over the rows that are not there for the sake of their keys alone.
fn of_seen(expr: Expr, seen: &str) -> Result<Expr> {
    let names = NamePreserver::new_for_projection();
    let name = names.save(&expr);
    let of_seen = expr.transform_down(|expr| match expr {
        Expr::AggregateFunction(mut call) => {
            let seen = Expr::Column(Column::from_name(seen));
            let filter = call.params.filter.take().map_or(seen.clone(), |filter| filter.and(seen));
            call.params.filter = Some(Box::new(filter));
            Ok(Transformed::yes(Expr::AggregateFunction(call)))
        }
        other => Ok(Transformed::no(other)),
    })?;
    Ok(name.restore(of_seen.data))
}

/// `outer column = own expression`, either way round.
fn equality<'e>(condition: &'e Expr, schema: &DFSchema) -> Option<(&'e Column, &'e Expr)> {
    let Expr::BinaryExpr(BinaryExpr { left, op: Operator::Eq, right }) = condition else { return None };
    match (left.as_ref(), right.as_ref()) {
        (Expr::OuterReferenceColumn(_, column), own) | (own, Expr::OuterReferenceColumn(_, column)) => {
            (outer_of(own, schema).is_empty() && !own.is_volatile()).then_some((column, own))
        }
        _ => None,
    }
}

/// What the subquery gives where no row fits: its aggregate of all rows, over none. `None` if it is no such aggregate, or another
/// one below depends on the rows around.
pub(super) fn empty_of(plan: &LogicalPlan) -> Result<Option<LogicalPlan>> {
    match plan {
        LogicalPlan::Aggregate(aggregate) if aggregate.group_expr.is_empty() => {
            let nested = aggregate.input.exists(|node| {
                Ok(matches!(node, LogicalPlan::Aggregate(below) if below.group_expr.is_empty() && refers(node)))
            })?;
            if nested || aggregate.aggr_expr.iter().any(Expr::contains_outer) {
                return Ok(None);
            }
            let none = EmptyRelation { produce_one_row: false, schema: Arc::clone(aggregate.input.schema()) };
            let none = Arc::new(LogicalPlan::EmptyRelation(none));
            let made = Aggregate::try_new(none, Vec::new(), aggregate.aggr_expr.clone())?;
            Ok(Some(LogicalPlan::Aggregate(made)))
        }
        LogicalPlan::Projection(projection) if !projection.expr.iter().any(Expr::contains_outer) => {
            let Some(input) = empty_of(&projection.input)? else { return Ok(None) };
            Ok(Some(LogicalPlan::Projection(Projection::try_new(projection.expr.clone(), Arc::new(input))?)))
        }
        LogicalPlan::SubqueryAlias(alias) => {
            let Some(input) = empty_of(&alias.input)? else { return Ok(None) };
            Ok(Some(LogicalPlan::SubqueryAlias(SubqueryAlias::try_new(Arc::new(input), alias.alias.clone())?)))
        }
        _ => Ok(None),
    }
}
