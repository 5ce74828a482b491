//! DELETE, UPDATE and MERGE: a query over the table's rows and their addresses says which leave and which come.
//!
//! Each statement becomes one query that gives `_file`, `_pos`, `_insert` and the table's columns, as [`RowChange`] asks. The
//! table is in it under the name [`TARGET`], so that it is planned anew against each state that a commit is tried on; all other
//! tables are as they are then.
//!
//! MERGE is a join of the source, which is read whole, with the rows of the table: inner, or outer towards the side whose rows
//! may stand alone. The first clause whose match and condition hold is a row's action.

use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::common::Column as PlanColumn;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::execution::SendableRecordBatchStream;
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::{Expr as PlanExpr, LogicalPlan};
use datafusion::physical_plan::EmptyRecordBatchStream;
use datafusion::sql::sqlparser::ast::{Expr, Ident, Query, SelectItem, SetExpr, TableFactor, TableWithJoins};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::parser::Parser;

use super::insert::field;
use super::{Idempotency, Outcome, Source, Write, assign};
use crate::functions::{fill, filled};
use crate::names::NamedTables;
use crate::statement::{Action, Arm, Delete, Match, Merge, Named, Update};
use shared::{Error, Result};
use table::Table;
use table_datafusion::{Change, ChangeTable, ReadTable, RowChange, RowChangeKind};

/// What queries call the table that a statement changes.
pub(super) const TARGET: &str = "$target";
/// A column that is true in all rows of a merge's source.
const SOURCE: &str = "$source";

/// A statement that changes rows.
#[derive(Debug, Clone, Copy)]
pub(super) enum Rows<'a> {
    Delete(&'a Delete),
    Update(&'a Update),
    Merge(&'a Merge),
}

/// A statement under way, as the table's commits want it.
struct Changing<'a> {
    write: &'a Write<'a>,
    statement: Rows<'a>,
    filters: Vec<PlanExpr>,
}

#[async_trait]
impl RowChange for Changing<'_> {
    fn kind(&self) -> RowChangeKind {
        match self.statement {
            Rows::Delete(_) => RowChangeKind::Delete,
            Rows::Update(_) => RowChangeKind::Update,
            Rows::Merge(_) => RowChangeKind::Merge,
        }
    }

    fn filters(&self) -> Vec<PlanExpr> {
        self.filters.clone()
    }

    async fn rows(&self, table: &Table) -> Result<SendableRecordBatchStream> {
        let started = async {
            let (state, source) = self.write.changed(self.statement, table).await?;
            self.write.start(&state, &source.plan).await
        };
        self.write.run.in_time(started).await
    }
}

impl Write<'_> {
    pub(super) async fn change(&self, statement: Rows<'_>) -> Result<Outcome> {
        let table = self.iceberg(statement.table()).await?;
        let token = match self.idempotency(statement.word(), &table)? {
            Idempotency::New(token) => token,
            Idempotency::Done(outcome) => return Ok(outcome),
        };
        let committed = match statement {
            Rows::Delete(Delete { condition: None, .. }) => {
                self.run.go_on_to_commit()?;
                let none = Box::pin(EmptyRecordBatchStream::new(Arc::clone(table.arrow_schema())));
                Box::pin(table.commit(Change::Overwrite, none, token)).await
            }
            _ => {
                let (state, source) = self.run.in_time(self.changed(statement, &table)).await?;
                let filters = self.filters(&state, &source, &table)?;
                let changing = Changing { write: self, statement, filters };
                Box::pin(table.change_rows(&changing, token)).await
            }
        };
        self.settled(statement.word(), &table, committed).await
    }

    /// The plan of the rows that leave and come.
    pub(super) async fn changed(&self, statement: Rows<'_>, table: &Table) -> Result<(SessionState, Source)> {
        let mut state = self.run.session(self.engine);
        assign::register(&mut state, table.arrow_schema())?;
        let given: NamedTables = [(TARGET.to_owned(), table.addressed().await?)].into();
        let source = self.query(&state, &statement.query(table)?, &given).await?;
        Ok((state, source))
    }

    /// The filters that the optimizer found for the table's rows; rows outside don't matter to the statement.
    fn filters(&self, state: &SessionState, source: &Source, table: &Table) -> Result<Vec<PlanExpr>> {
        // Read elsewhere in the statement too, the whole table matters.
        if source.tables.iter().any(|read| read.name == *table.name()) {
            return Ok(Vec::new());
        }
        Ok(pushed_down(&self.optimized(state, &source.plan)?, TARGET)?)
    }
}

/// The filters on the scan of a table, on its columns' bare names.
fn pushed_down(plan: &LogicalPlan, table: &str) -> datafusion::common::Result<Vec<PlanExpr>> {
    let mut found = Vec::new();
    plan.apply_with_subqueries(|node| {
        if let LogicalPlan::TableScan(scan) = node
            && scan.table_name.table() == table
        {
            for filter in &scan.filters {
                found.push(bare(filter.clone())?);
            }
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(found)
}

/// The expression on the columns' bare names.
pub(super) fn bare(expr: PlanExpr) -> datafusion::common::Result<PlanExpr> {
    let bare = expr.transform(|expr| match expr {
        PlanExpr::Column(column) => Ok(Transformed::yes(PlanExpr::Column(PlanColumn::new_unqualified(column.name)))),
        other => Ok(Transformed::no(other)),
    })?;
    Ok(bare.data)
}

impl Rows<'_> {
    pub(super) fn table(&self) -> &Named {
        match self {
            Self::Delete(delete) => &delete.table,
            Self::Update(update) => &update.table,
            Self::Merge(merge) => &merge.table,
        }
    }

    fn word(&self) -> &'static str {
        match self {
            Self::Delete(_) => "DELETE",
            Self::Update(_) => "UPDATE",
            Self::Merge(_) => "MERGE",
        }
    }

    /// What it does, for EXPLAIN.
    pub(super) fn effect(&self, table: &Table) -> String {
        match self {
            Self::Delete(_) => format!("delete rows of {}", table.name()),
            Self::Update(_) => format!("update rows of {}", table.name()),
            Self::Merge(_) => format!("merge rows into {}", table.name()),
        }
    }

    fn query(&self, table: &Table) -> Result<Query> {
        match self {
            Self::Delete(delete) => deleted(delete, table),
            Self::Update(update) => updated(update, table),
            Self::Merge(merge) => merged(merge, table),
        }
    }
}

fn deleted(delete: &Delete, table: &Table) -> Result<Query> {
    let alias = delete.alias.as_deref().unwrap_or(delete.table.table());
    let condition = delete.condition.clone().unwrap_or_else(|| word("true"));
    let mut query = template(&format!("SELECT 1 FROM \"{TARGET}\" AS {} WHERE $1", quoted(alias)), &[condition])?;
    let mut items = address(alias);
    items.push(item(word("false"), "_insert"));
    for column in table.arrow_schema().fields() {
        items.push(item(assigned(column.name(), word("NULL"))?, column.name()));
    }
    *select(&mut query)?.0 = items;
    Ok(finished(query, &delete.table, alias))
}

fn updated(update: &Update, table: &Table) -> Result<Query> {
    let alias = update.alias.as_deref().unwrap_or(update.table.table());
    let condition = update.condition.clone().unwrap_or_else(|| word("true"));
    let mut query = template(&format!("SELECT 1 FROM \"{TARGET}\" AS {} WHERE $1", quoted(alias)), &[condition])?;
    let values = set_values(&update.set, table, alias)?;
    let mut items = identity(alias, table);
    items.push(item(word("true"), "_insert"));
    items.extend(table.arrow_schema().fields().iter().zip(values).map(|(f, value)| item(value, f.name())));
    *select(&mut query)?.0 = items;
    Ok(finished(query, &update.table, alias))
}

fn merged(merge: &Merge, table: &Table) -> Result<Query> {
    let alias = merge.alias.as_deref().unwrap_or(merge.table.table());
    let source = source_alias(&merge.source)?;
    if source == alias {
        return Err(Error::invalid(format!("expected different names of table and source, found `{alias}` for both")));
    }
    let whens: Vec<Match> = merge.arms.iter().map(|arm| arm.when).collect();
    let join = match (whens.contains(&Match::Source), whens.contains(&Match::Target)) {
        (false, false) => "INNER",
        (true, false) => "LEFT",
        (false, true) => "RIGHT",
        (true, true) => "FULL",
    };
    let action = action(&merge.arms, alias, &source)?;
    let (target_as, source_as) = (quoted(alias), quoted(&source));
    let text = format!(
        "SELECT 1 FROM (SELECT *, true AS \"{SOURCE}\" FROM x) AS {source_as} \
         {join} JOIN \"{TARGET}\" AS {target_as} ON $1 WHERE $2 IS NOT NULL"
    );
    let mut query = template(&text, &[merge.on.clone(), action.clone()])?;
    let (items, from) = select(&mut query)?;
    *items = identity(alias, table);
    let deletes = |arm: &Arm| matches!(arm.action, Action::Delete);
    let inserts = merge.arms.iter().map(|arm| word(if deletes(arm) { "false" } else { "true" })).collect();
    items.push(item(chosen(&action, inserts)?, "_insert"));
    let mut values: Vec<Vec<Expr>> = Vec::new();
    for arm in &merge.arms {
        values.push(arm_values(arm, table, alias, &source)?);
    }
    for (i, column) in table.arrow_schema().fields().iter().enumerate() {
        let of_arms = values.iter().map(|values| values[i].clone()).collect();
        items.push(item(chosen(&action, of_arms)?, column.name()));
    }
    if let Some(TableFactor::Derived { subquery, .. }) = from.first_mut().map(|from| &mut from.relation)
        && let Some(first) = select(subquery)?.1.first_mut()
    {
        first.relation = merge.source.clone();
    }
    Ok(finished(query, &merge.table, alias))
}

/// The number of the clause that applies to a row; null where none does.
fn action(arms: &[Arm], alias: &str, source: &str) -> Result<Expr> {
    let (target, source) = (column(alias, "_file"), column(source, SOURCE));
    let mut conditions = Vec::with_capacity(arms.len());
    for arm in arms {
        let met = match arm.when {
            Match::Both => "$1 IS NOT NULL AND $2 IS NOT NULL",
            Match::Source => "$1 IS NULL",
            Match::Target => "$2 IS NULL",
        };
        conditions.push(match &arm.condition {
            None => filled(met, &[target.clone(), source.clone()])?,
            Some(condition) => filled(&format!("{met} AND $3"), &[target.clone(), source.clone(), condition.clone()])?,
        });
    }
    let whens: String = (0..arms.len()).map(|i| format!(" WHEN ${} THEN {i}", i + 1)).collect();
    filled(&format!("CASE{whens} END"), &conditions)
}

/// The value of the clause that applies.
fn chosen(action: &Expr, mut values: Vec<Expr>) -> Result<Expr> {
    let whens: String = (0..values.len()).map(|i| format!(" WHEN {i} THEN ${}", i + 2)).collect();
    values.insert(0, action.clone());
    filled(&format!("CASE $1{whens} END"), &values)
}

/// A value for each column of the table.
fn arm_values(arm: &Arm, table: &Table, alias: &str, source: &str) -> Result<Vec<Expr>> {
    let schema = table.arrow_schema();
    let names = || schema.fields().iter().map(|f| f.name().as_str());
    match &arm.action {
        Action::Delete => names().map(|name| assigned(name, word("NULL"))).collect(),
        Action::UpdateAll | Action::InsertAll => names().map(|name| assigned(name, column(source, name))).collect(),
        Action::Update(set) => set_values(set, table, alias),
        Action::Insert(columns, values) => {
            let columns: Vec<&str> = match columns.is_empty() {
                true => names().collect(),
                false => columns.iter().map(String::as_str).collect(),
            };
            if columns.len() != values.len() {
                let (expected, found) = (columns.len(), values.len());
                return Err(Error::invalid(format!("expected {expected} values, one for each column, found {found}")));
            }
            let mut seen = BTreeSet::new();
            for name in &columns {
                field(table, name)?;
                if !seen.insert(*name) {
                    return Err(Error::invalid(format!("expected every column once, found `{name}` a second time")));
                }
            }
            let value = |name: &str| match columns.iter().position(|column| *column == name) {
                Some(i) => values[i].clone(),
                None => word("NULL"),
            };
            names().map(|name| assigned(name, value(name))).collect()
        }
    }
}

/// The new value of each column; that of a row where the statement sets none.
fn set_values(set: &[(String, Expr)], table: &Table, alias: &str) -> Result<Vec<Expr>> {
    for (name, _) in set {
        field(table, name)?;
    }
    let value = |name: &str| match set.iter().find(|(column, _)| column == name) {
        Some((_, value)) => assigned(name, value.clone()),
        None => Ok(column(alias, name)),
    };
    table.arrow_schema().fields().iter().map(|field| value(field.name())).collect()
}

/// The name by which the statement knows its source.
fn source_alias(source: &TableFactor) -> Result<String> {
    let given = match source {
        TableFactor::Table { alias, .. } | TableFactor::Derived { alias, .. } | TableFactor::Function { alias, .. } => {
            alias.as_ref().map(|alias| alias.name.value.clone())
        }
        _ => None,
    };
    let own = match source {
        TableFactor::Table { name, .. } => name.0.last().and_then(|part| part.as_ident()).map(|i| i.value.clone()),
        _ => None,
    };
    let name =
        given.or(own).ok_or_else(|| Error::invalid(format!("expected an alias after `{source}`, found none")))?;
    Ok(name.to_ascii_lowercase())
}

/// Columns that are qualified with the database too are known by the table alone.
fn finished(mut query: Query, table: &Named, alias: &str) -> Query {
    use datafusion::sql::sqlparser::ast::{VisitMut, VisitorMut};
    use std::ops::ControlFlow;
    struct Shorten<'a>(&'a Named, &'a str);
    impl VisitorMut for Shorten<'_> {
        type Break = ();

        fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
            if let Expr::CompoundIdentifier(parts) = expr
                && parts.len() > 2
                && self.0.is(&parts[..parts.len() - 1])
            {
                let name = parts.split_off(parts.len() - 1);
                *parts = vec![Ident::with_quote('"', self.1)];
                parts.extend(name);
            }
            ControlFlow::Continue(())
        }
    }
    if alias == table.table() {
        let _ = query.visit(&mut Shorten(table, alias));
    }
    query
}

/// A query with expressions in the places `$1`, `$2`, ….
pub(super) fn template(text: &str, args: &[Expr]) -> Result<Query> {
    let parsed = Parser::new(&GenericDialect {}).try_with_sql(text).and_then(|mut parser| parser.parse_query());
    let mut query = *parsed.map_err(|e| Error::bug(format!("`{text}` is no query")).with_source(e))?;
    fill(&mut query, args);
    Ok(query)
}

/// What a query selects, and from what.
fn select(query: &mut Query) -> Result<(&mut Vec<SelectItem>, &mut Vec<TableWithJoins>)> {
    match query.body.as_mut() {
        SetExpr::Select(select) => Ok((&mut select.projection, &mut select.from)),
        other => Err(Error::bug(format!("expected SELECT, found `{other}`"))),
    }
}

/// The rows' addresses.
fn address(alias: &str) -> Vec<SelectItem> {
    ["_file", "_pos"].map(|name| item(column(alias, name), name)).into()
}

/// The rows' addresses, and their ids where the table keeps them: rows that are updated are still the same.
fn identity(alias: &str, table: &Table) -> Vec<SelectItem> {
    let mut items = address(alias);
    if table.keeps_lineage() {
        items.push(item(column(alias, "_row_id"), "_row_id"));
    }
    items
}

fn item(expr: Expr, name: &str) -> SelectItem {
    SelectItem::ExprWithAlias { expr, alias: Ident::with_quote('"', name) }
}

fn column(table: &str, name: &str) -> Expr {
    Expr::CompoundIdentifier(vec![Ident::with_quote('"', table), Ident::with_quote('"', name)])
}

/// The value as the column takes it.
fn assigned(column: &str, value: Expr) -> Result<Expr> {
    filled(&format!("{}($1)", quoted(&assign::name_of(column))), &[value])
}

/// TRUE, FALSE or NULL.
fn word(word: &str) -> Expr {
    use datafusion::sql::sqlparser::ast::Value;
    Expr::Value(match word {
        "NULL" => Value::Null.into(),
        word => Value::Boolean(word == "true").into(),
    })
}

pub(super) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
