//! INSERT: the rows of a query become rows of a table.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::datatypes::FieldRef;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::utils::split_conjunction_owned;
use datafusion::logical_expr::{Expr as PlanExpr, LogicalPlan};
use datafusion::sql::sqlparser::ast::{Expr, Ident, Query, SelectItem, SetExpr, TableFactor};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::parser::Parser;

use super::change::{TARGET, bare, quoted, template};
use super::{Idempotency, Outcome, Source, Write, assign};
use crate::errors::suggestion;
use crate::names::NamedTables;
use crate::statement::{Insert, Into};
use shared::model::TableName;
use shared::{Error, Result};
use table::{Read, Table};
use table_datafusion::{Change, ChangeTable, ReadTable};

impl Write<'_> {
    pub(super) async fn insert(&self, insert: Insert) -> Result<Outcome> {
        let table = self.iceberg(&insert.table).await?;
        let token = match self.idempotency("INSERT", &table)? {
            Idempotency::New(token) => token,
            Idempotency::Done(outcome) => return Ok(outcome),
        };
        let state = self.run.session(self.engine);
        let planned = async {
            let source = self.inserted(&state, &insert, &table).await?;
            self.start(&state, &source.plan).await
        };
        let rows = self.run.in_time(planned).await?;
        let change = match &insert.into {
            Into::Append => Change::Append,
            Into::Overwrite if table.is_partitioned() => Change::ReplacePartitions,
            Into::Overwrite => Change::Overwrite,
            Into::Replace(conditions) => Change::OverwriteWhere(self.conditions(&table, conditions).await?),
        };
        let committed = Box::pin(table.commit(change, rows, token)).await;
        self.settled("INSERT", &table, committed).await
    }

    /// Conditions on the table's columns, as its commits want them.
    ///
    /// # Errors
    /// `Invalid` for a condition that needs other tables.
    pub(super) async fn conditions(&self, table: &Table, conditions: &[Expr]) -> Result<Vec<PlanExpr>> {
        let state = self.run.session(self.engine);
        let mut whole = Vec::new();
        for condition in conditions {
            let text = format!("SELECT 1 FROM \"{TARGET}\" AS {} WHERE $1", quoted(&table.name().table));
            let given: NamedTables = [(TARGET.to_owned(), table.provider(Read::Current).await?)].into();
            let source = self.query(&state, &template(&text, std::slice::from_ref(condition))?, &given).await?;
            let found = filter_of(&source.plan)?;
            let found = found.ok_or_else(|| {
                Error::invalid(format!(
                    "expected a condition on the columns of `{}`, found `{condition}`",
                    table.name()
                ))
            })?;
            whole.extend(found);
        }
        Ok(whole)
    }

    /// The rows to insert, as rows of the table.
    pub(super) async fn inserted(&self, state: &SessionState, insert: &Insert, table: &Table) -> Result<Source> {
        let targets = targets(insert, table)?;
        let query = with_fixed(named(&insert.query), &insert.fixed)?;
        let source = self.query(state, &query, &NamedTables::new()).await?;
        let found = source.plan.schema().fields().len();
        if found != targets.len() {
            let names: Vec<_> = targets.iter().map(|f| format!("`{}`", f.name())).collect();
            let (n, found) = (targets.len() - insert.fixed.len(), found.saturating_sub(insert.fixed.len()));
            return Err(Error::invalid(format!("expected {n} columns ({}), found {found}", names[..n].join(", "))));
        }
        let plan = assign::project(source.plan, &targets).map_err(|e| self.run.explained(e))?;
        Ok(Source { plan, ..source })
    }
}

impl Insert {
    /// What it does, for EXPLAIN.
    pub(super) fn effect(&self, table: &TableName) -> String {
        match &self.into {
            Into::Append => format!("append rows to {table}"),
            Into::Overwrite => format!("replace rows of {table}"),
            Into::Replace(conditions) => {
                let conditions: Vec<_> = conditions.iter().map(ToString::to_string).collect();
                format!("replace the rows of {table} where {}", conditions.join(" AND "))
            }
        }
    }
}

/// The columns that the query's give values to, then those of fixed value.
fn targets(insert: &Insert, table: &Table) -> Result<Vec<FieldRef>> {
    let schema = table.arrow_schema();
    let fixed: Vec<&str> = insert.fixed.iter().map(|(name, _)| name.as_str()).collect();
    let given: Vec<&str> = match insert.columns.is_empty() {
        true => schema.fields().iter().map(|f| f.name().as_str()).filter(|name| !fixed.contains(name)).collect(),
        false => insert.columns.iter().map(String::as_str).collect(),
    };
    let mut targets: Vec<FieldRef> = Vec::new();
    for name in given.into_iter().chain(fixed) {
        let field = field(table, name)?;
        if targets.iter().any(|known| known.name() == name) {
            return Err(Error::invalid(format!("expected every column once, found `{name}` a second time")));
        }
        targets.push(field);
    }
    Ok(targets)
}

/// # Errors
/// `Invalid`, with near names, for a column that the table lacks.
pub(super) fn field(table: &Table, name: &str) -> Result<FieldRef> {
    let schema = table.arrow_schema();
    let found = schema.fields().iter().find(|field| field.name() == name);
    found.map(Arc::clone).ok_or_else(|| {
        let near = suggestion(name, schema.fields().iter().map(|f| f.name().as_str()));
        Error::invalid(format!("no column `{name}` in the table `{}`{near}", table.name()))
    })
}

/// The parts of the plan's filter, on the columns' bare names; none when it has subqueries.
fn filter_of(plan: &LogicalPlan) -> Result<Option<Vec<PlanExpr>>> {
    let mut predicate = None;
    plan.apply(|node| match node {
        LogicalPlan::Filter(filter) => {
            predicate = Some(filter.predicate.clone());
            Ok(TreeNodeRecursion::Stop)
        }
        _ => Ok(TreeNodeRecursion::Continue),
    })?;
    let Some(predicate) = predicate else { return Ok(None) };
    let nested = predicate.exists(|expr| {
        let nested = matches!(expr, PlanExpr::Exists(_) | PlanExpr::InSubquery(_) | PlanExpr::ScalarSubquery(_));
        Ok(nested || matches!(expr, PlanExpr::SetComparison(_) | PlanExpr::OuterReferenceColumn(..)))
    })?;
    if nested {
        return Ok(None);
    }
    Ok(Some(split_conjunction_owned(predicate).into_iter().map(bare).collect::<datafusion::common::Result<_>>()?))
}

/// Expressions of the query, and columns that it gives twice, get names of their own: two of the same could not be told apart.
fn named(query: &Query) -> Query {
    let mut query = query.clone();
    let mut body = query.body.as_mut();
    loop {
        match body {
            SetExpr::SetOperation { left, .. } => body = left,
            SetExpr::Query(inner) => body = inner.body.as_mut(),
            SetExpr::Select(select) => {
                let mut seen = BTreeSet::new();
                for (i, item) in select.projection.iter_mut().enumerate() {
                    let SelectItem::UnnamedExpr(expr) = item else { continue };
                    let plain = matches!(expr, Expr::Identifier(_) | Expr::CompoundIdentifier(_));
                    if !plain || !seen.insert(expr.to_string()) {
                        let alias = Ident::with_quote('"', format!("${i}"));
                        *item = SelectItem::ExprWithAlias { expr: expr.clone(), alias };
                    }
                }
                return query;
            }
            _ => return query,
        }
    }
}

/// The query with columns of one value after its own.
fn with_fixed(query: Query, fixed: &[(String, Expr)]) -> Result<Query> {
    if fixed.is_empty() {
        return Ok(query);
    }
    let template = "SELECT * FROM (SELECT 1) AS \"$rows\"";
    let parsed = Parser::new(&GenericDialect {}).try_with_sql(template).and_then(|mut parser| parser.parse_query());
    let mut around = *parsed.map_err(|e| Error::bug(format!("`{template}` is no query")).with_source(e))?;
    if let SetExpr::Select(select) = around.body.as_mut() {
        for (i, (_, value)) in fixed.iter().enumerate() {
            let alias = Ident::with_quote('"', format!("$fixed_{i}"));
            select.projection.push(SelectItem::ExprWithAlias { expr: value.clone(), alias });
        }
        if let Some(TableFactor::Derived { subquery, .. }) = select.from.first_mut().map(|from| &mut from.relation) {
            **subquery = query;
        }
    }
    Ok(around)
}
