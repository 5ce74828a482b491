//! A SELECT list that gives two columns of one name.
//!
//! DataFusion refuses such a list, and gives a cast the name of what it casts: `ORDER BY id` would sort `CAST(id AS varchar)` as text.
//! What collides gets a name of its own here, with a mark that no name has; [`shown`] takes it off the answer's columns.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use datafusion::sql::parser::Statement as Parsed;
use datafusion::sql::sqlparser::ast::{
    self, Expr, GroupByExpr, Ident, Query, Select, SelectItem, SelectItemQualifiedWildcardKind, SetExpr, Statement,
    VisitMut, Visitor, VisitorMut,
};

use crate::functions::filled;

/// Begins what is no part of a column's name.
const MARK: char = '\u{1}';

/// The name without its mark; none of a column that has no name.
pub(crate) fn given(name: &str) -> Option<&str> {
    name.split(MARK).next().filter(|given| !given.is_empty() || name.is_empty())
}

/// The name of an answer's column at this position, counted from 0: one without a name has Athena's for its position.
pub(crate) fn shown(position: usize, name: &str) -> String {
    given(name).map_or_else(|| format!("_col{position}"), str::to_owned)
}

/// The name of a column that has none: nothing can name it.
pub(super) fn unnamed(position: usize) -> String {
    format!("{MARK}{position}")
}

/// Gives the columns of each SELECT list names of their own.
pub(crate) fn distinct(statement: &mut Parsed) {
    match statement {
        Parsed::Statement(inner) => {
            let outermost = matches!(inner.as_ref(), Statement::Query(_));
            let _ = inner.as_mut().visit(&mut Distinct { outermost });
        }
        Parsed::Explain(explain) => distinct(explain.statement.as_mut()),
        _ => {}
    }
}

struct Distinct {
    outermost: bool,
}

impl VisitorMut for Distinct {
    type Break = ();

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        let outermost = std::mem::take(&mut self.outermost);
        let sorted = query.order_by.is_some() && (outermost || query.limit_clause.is_some());
        match query.body.as_mut() {
            SetExpr::Select(select) => {
                let sorted = sorted && select.distinct.is_none();
                named(select, outermost, sorted);
            }
            other => operands(other),
        }
        ControlFlow::Continue(())
    }
}

/// The lists of a set operation. Its ORDER BY names columns of its answer, casts among them.
fn operands(body: &mut SetExpr) {
    match body {
        SetExpr::Select(select) => named(select, false, false),
        SetExpr::SetOperation { left, right, .. } => {
            operands(left);
            operands(right);
        }
        _ => {}
    }
}

fn named(select: &mut Select, outermost: bool, sorted: bool) {
    write_sets_out(select);
    let before = select.projection.clone();
    tell_casts_apart(select);
    tell_calls_apart(select);
    for (item, before) in select.projection.iter_mut().zip(before) {
        if let (SelectItem::UnnamedExpr(expr), SelectItem::UnnamedExpr(was)) = (&*item, before)
            && *expr != was
        {
            *item =
                SelectItem::ExprWithAlias { expr: expr.clone(), alias: Ident::with_quote('"', Name::of(&was).name) };
        }
    }
    let mut stars = Stars::default();
    select.projection.iter().for_each(|item| stars.add(item));
    let asking = select.projection.iter().filter(|item| matches!(item, SelectItem::UnnamedExpr(e) if asks(e))).count();
    let mut seen = BTreeSet::new();
    for (i, item) in select.projection.iter_mut().enumerate() {
        let (expr, name, given) = match item {
            SelectItem::UnnamedExpr(expr) => (expr.clone(), Name::of(expr), false),
            SelectItem::ExprWithAlias { expr, alias } => (expr.clone(), Name { of: None, name: written(alias) }, true),
            _ => continue,
        };
        let collides = !seen.insert(name.clone()) || seen.iter().any(|other| other.meets(&name));
        let sorts_otherwise = sorted && !given && is_cast(&expr) && name.is_column();
        // All subqueries have one name.
        let collides = collides || (!given && asking > 1 && asks(&expr));
        if collides || (!given && stars.hold(&name, outermost)) || sorts_otherwise {
            let alias = Ident::with_quote('"', format!("{}{MARK}{i}", name.name));
            *item = SelectItem::ExprWithAlias { expr, alias };
        }
    }
}

/// Whether an expression has a subquery.
fn asks(expr: &Expr) -> bool {
    struct Queries;
    impl Visitor for Queries {
        type Break = ();

        fn pre_visit_query(&mut self, _: &Query) -> ControlFlow<()> {
            ControlFlow::Break(())
        }
    }
    ast::Visit::visit(expr, &mut Queries).is_break()
}

/// Elements of a CUBE whose sets are written out.
const MAX_CUBE: usize = 8;

/// A CUBE or ROLLUP that names an expression twice, as the grouping sets that it stands for: DataFusion refuses it.
fn write_sets_out(select: &mut Select) {
    let GroupByExpr::Expressions(by, _) = &mut select.group_by else { return };
    for by in by {
        let sets: Vec<Vec<Expr>> = match by {
            Expr::Rollup(elements) if repeats(elements) => {
                (0..=elements.len()).rev().map(|n| elements[..n].concat()).collect()
            }
            Expr::Cube(elements) if repeats(elements) && elements.len() <= MAX_CUBE => (0..1_usize << elements.len())
                .rev()
                .map(|set| elements.iter().enumerate().filter(move |(i, _)| set >> i & 1 == 1))
                .map(|set| set.flat_map(|(_, element)| element.clone()).collect())
                .collect(),
            _ => continue,
        };
        *by = Expr::GroupingSets(sets.into_iter().map(once_each).collect());
    }
}

fn repeats(elements: &[Vec<Expr>]) -> bool {
    let all = elements.concat();
    once_each(all.clone()).len() < all.len()
}

fn once_each(exprs: Vec<Expr>) -> Vec<Expr> {
    let mut seen = BTreeSet::new();
    exprs.into_iter().filter(|expr| seen.insert(same(expr))).collect()
}

/// Equal for expressions that are one; names in quotes keep their letters.
fn same(expr: &Expr) -> String {
    let text = expr.to_string();
    if text.contains(['"', '\'']) { text } else { text.to_lowercase() }
}

/// A cast that is grouped by beside its column gets a name of its own, wherever it stands.
fn tell_casts_apart(select: &mut Select) {
    let GroupByExpr::Expressions(by, _) = &select.group_by else { return };
    let columns: BTreeSet<String> = by.iter().filter(|by| !is_cast(by)).map(|by| Name::of(by).name).collect();
    let casts: Vec<Expr> =
        by.iter().filter(|by| is_cast(by) && columns.contains(&Name::of(by).name)).cloned().collect();
    if casts.is_empty() {
        return;
    }
    let _ = select.visit(&mut Apart(&casts));
}

struct Apart<'a>(&'a [Expr]);

impl VisitorMut for Apart<'_> {
    type Break = ();

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if self.0.contains(expr)
            && let Ok(apart) = filled("coalesce($1)", std::slice::from_ref(expr))
        {
            *expr = apart;
        }
        ControlFlow::Continue(())
    }
}

/// Calls that differ in casts only, as `avg(x)` and `avg(CAST(x AS double))`, get names of their own.
fn tell_calls_apart(select: &mut Select) {
    let mut calls = Calls::default();
    let _ = select.visit(&mut calls);
    let apart: Vec<Expr> = calls.0.into_values().filter(|calls| calls.len() > 1).flatten().collect();
    if apart.is_empty() {
        return;
    }
    let mut casts = Casts::default();
    for mut call in apart {
        let _ = call.visit(&mut casts);
    }
    let _ = select.visit(&mut Apart(&casts.0));
}

/// Calls with casts or without, by what they are without.
#[derive(Default)]
struct Calls(BTreeMap<String, Vec<Expr>>);

impl VisitorMut for Calls {
    type Break = ();

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if matches!(expr, Expr::Function(_)) {
            let mut bare = expr.clone();
            let _ = bare.visit(&mut Bare);
            let calls = self.0.entry(same(&bare)).or_default();
            if !calls.contains(expr) {
                calls.push(expr.clone());
            }
        }
        ControlFlow::Continue(())
    }
}

/// Takes casts off.
struct Bare;

impl VisitorMut for Bare {
    type Break = ();

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if let Expr::Cast { expr: inner, .. } = expr {
            *expr = inner.as_ref().clone();
        }
        ControlFlow::Continue(())
    }
}

#[derive(Default)]
struct Casts(Vec<Expr>);

impl VisitorMut for Casts {
    type Break = ();

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if is_cast(expr) && !self.0.contains(expr) {
            self.0.push(expr.clone());
        }
        ControlFlow::Continue(())
    }
}

/// What the stars of a list give.
#[derive(Default)]
struct Stars {
    all: bool,
    of: BTreeSet<String>,
}

impl Stars {
    fn add(&mut self, item: &SelectItem) {
        match item {
            SelectItem::Wildcard(options) if options.opt_except.is_none() && options.opt_exclude.is_none() => {
                self.all = true;
            }
            SelectItem::QualifiedWildcard(SelectItemQualifiedWildcardKind::ObjectName(name), _) => {
                let last = name.0.last().and_then(|part| part.as_ident());
                self.of.extend(last.map(written));
            }
            _ => {}
        }
    }

    /// Whether they have a column of that name too; for the answer's columns, whether they might.
    fn hold(&self, name: &Name, outermost: bool) -> bool {
        let qualified = name.of.as_ref().is_some_and(|of| self.of.contains(of));
        let might = outermost && !self.of.is_empty();
        name.is_column() && (self.all || qualified || might)
    }
}

/// Name of a column as DataFusion gives it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Name {
    /// The relation that it is qualified with; empty for an expression's name.
    of: Option<String>,
    name: String,
}

impl Name {
    fn of(expr: &Expr) -> Self {
        match expr {
            Expr::Identifier(ident) => Self { of: None, name: written(ident) },
            Expr::CompoundIdentifier(parts) if parts.len() > 1 => {
                let name = parts.last().map(written).unwrap_or_default();
                Self { of: parts.get(parts.len() - 2).map(written), name }
            }
            Expr::Nested(inner) | Expr::Cast { expr: inner, .. } => Self::of(inner),
            other => Self { of: Some(String::new()), name: other.to_string() },
        }
    }

    fn is_column(&self) -> bool {
        self.of.as_deref() != Some("")
    }

    /// Whether both may be one column: `id` and `t.id`.
    fn meets(&self, other: &Self) -> bool {
        self != other && self.name == other.name && (self.of.is_none() || other.of.is_none())
    }
}

fn is_cast(expr: &Expr) -> bool {
    match expr {
        Expr::Cast { .. } => true,
        Expr::Nested(inner) => is_cast(inner),
        _ => false,
    }
}

/// The name that an identifier stands for: in quotes as it is written, otherwise in lower case.
pub(crate) fn written(ident: &Ident) -> String {
    match ident.quote_style {
        Some(_) => ident.value.clone(),
        None => ident.value.to_lowercase(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion::sql::parser::DFParser;

    fn named_in(sql: &str) -> String {
        let mut statement = DFParser::parse_sql(sql).unwrap().pop_front().unwrap();
        distinct(&mut statement);
        statement.to_string().replace(MARK, "#")
    }

    #[test]
    fn a_name_that_comes_twice_is_marked() {
        assert_eq!(named_in("SELECT id, id, t.id FROM t"), "SELECT id, id AS \"id#1\", t.id AS \"id#2\" FROM t");
        assert_eq!(named_in("SELECT a.id, b.id FROM a JOIN b"), "SELECT a.id, b.id FROM a JOIN b");
        assert_eq!(named_in("SELECT CAST(id AS INT), id FROM t"), "SELECT CAST(id AS INT), id AS \"id#1\" FROM t");
        assert_eq!(named_in("SELECT *, id FROM t"), "SELECT *, id AS \"id#1\" FROM t");
        assert_eq!(named_in("SELECT count(*), count(*) FROM t"), "SELECT count(*), count(*) AS \"count(*)#1\" FROM t");
    }

    #[test]
    fn a_cast_is_not_what_order_by_names() {
        assert_eq!(
            named_in("SELECT CAST(id AS VARCHAR) FROM t ORDER BY id"),
            "SELECT CAST(id AS VARCHAR) AS \"id#0\" FROM t ORDER BY id"
        );
        let subquery = "SELECT x.id FROM (SELECT CAST(id AS VARCHAR) FROM t) AS x";
        assert_eq!(named_in(subquery).replace(" AS x", " x"), subquery.replace(" AS x", " x"));
    }

    #[test]
    fn a_shown_name_has_no_mark_and_is_never_empty() {
        assert_eq!(["id\u{1}3", "id", "\u{1}7"].map(|name| shown(2, name)), ["id", "id", "_col2"]);
    }
}
