//! Forms of Athena's queries that DataFusion does not plan, as others that it does; and those that it plans and Athena refuses.
//!
//! | as written | as planned |
//! |---|---|
//! | `(a, b) IN (SELECT c, d …)` among the conditions of WHERE | `EXISTS (SELECT … WHERE c = a AND d = b)` |
//! | elsewhere, and NOT IN | whether any row equals it, null where rows are unknown |
//! | `(a, b) IN ((1, 2), …)`, `(a, b) = (c, d)` | equalities joined by AND and OR |
//! | `GROUP BY ()` | an aggregate of all rows |
//! | `FETCH FIRST n ROWS ONLY` | `LIMIT n` |
//! | `FETCH FIRST n ROWS WITH TIES` | `QUALIFY rank() OVER (…) <= n` |

use std::ops::ControlFlow;

use datafusion::sql::parser::Statement as Parsed;
use datafusion::sql::sqlparser::ast::{
    BinaryOperator, DuplicateTreatment, Expr, Fetch, Function, FunctionArg, FunctionArgExpr, FunctionArguments,
    GroupByExpr, Ident, Join, JoinConstraint, JoinOperator, LimitClause, OrderBy, OrderByExpr, OrderByKind, Query,
    Select, SelectItem, SetExpr, Statement, TableFactor, UnaryOperator, Value, VisitMut, VisitorMut, WindowType,
};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::parser::Parser;

use super::functions::filled;
use super::semantics::written;
use shared::{Error, Result};

/// Rewrites every query of the statement.
///
/// # Errors
/// `Invalid` for what Athena's SQL has not.
pub(super) fn rewrite(statement: &mut Parsed) -> Result<()> {
    match statement {
        Parsed::Statement(inner) => match inner.as_mut().visit(&mut Queries) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(error) => Err(error),
        },
        Parsed::Explain(explain) => rewrite(explain.statement.as_mut()),
        _ => Ok(()),
    }
}

struct Queries;

impl VisitorMut for Queries {
    type Break = Error;

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<Error> {
        of(fetched(query))
    }

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<Error> {
        of(selected(select))
    }

    /// Afterwards: what it is made of is as planned already.
    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<Error> {
        of(expression(expr))
    }
}

fn of(result: Result<()>) -> ControlFlow<Error> {
    match result {
        Ok(()) => ControlFlow::Continue(()),
        Err(error) => ControlFlow::Break(error),
    }
}

fn invalid(message: impl Into<String>) -> Error {
    Error::invalid(message)
}

fn selected(select: &mut Select) -> Result<()> {
    for item in &select.projection {
        if let SelectItem::ExprWithAlias { alias, .. } = item
            && alias.quote_style == Some('\'')
        {
            return Err(invalid(format!(
                "expected a name as alias, found the text {alias}: names stand in double quotes"
            )));
        }
    }
    for join in select.from.iter().flat_map(|from| &from.joins) {
        check_join(join)?;
    }
    group_all(select)?;
    select.selection.iter_mut().try_for_each(conditions)
}

/// # Errors
/// For a join without a condition, which would give all pairs.
fn check_join(join: &Join) -> Result<()> {
    let bare = match &join.join_operator {
        JoinOperator::Join(c)
        | JoinOperator::Inner(c)
        | JoinOperator::Left(c)
        | JoinOperator::LeftOuter(c)
        | JoinOperator::Right(c)
        | JoinOperator::RightOuter(c)
        | JoinOperator::FullOuter(c)
        | JoinOperator::Semi(c)
        | JoinOperator::LeftSemi(c)
        | JoinOperator::RightSemi(c)
        | JoinOperator::Anti(c)
        | JoinOperator::LeftAnti(c)
        | JoinOperator::RightAnti(c)
        | JoinOperator::StraightJoin(c) => matches!(c, JoinConstraint::None),
        JoinOperator::CrossJoin(c) if !matches!(c, JoinConstraint::None) => {
            return Err(invalid(format!("expected a CROSS JOIN without a condition, found `{join}`")));
        }
        _ => false,
    };
    match bare {
        true => Err(invalid(format!(
            "expected ON or USING, found `{}` without: CROSS JOIN gives all pairs",
            join.to_string().trim()
        ))),
        false => match &join.relation {
            TableFactor::NestedJoin { table_with_joins, .. } => table_with_joins.joins.iter().try_for_each(check_join),
            _ => Ok(()),
        },
    }
}

/// `()` in GROUP BY is the group of all rows.
fn group_all(select: &mut Select) -> Result<()> {
    let GroupByExpr::Expressions(by, _) = &mut select.group_by else { return Ok(()) };
    let before = by.len();
    by.retain(|by| !matches!(by, Expr::Tuple(parts) if parts.is_empty()));
    if before > 0 && by.is_empty() {
        let one_row = parsed("count(*) >= 0")?;
        select.having = Some(match select.having.take() {
            Some(having) => and(having, one_row),
            None => one_row,
        });
    }
    Ok(())
}

fn parsed(sql: &str) -> Result<Expr> {
    let parsed = Parser::new(&GenericDialect {}).try_with_sql(sql).and_then(|mut parser| parser.parse_expr());
    parsed.map_err(|e| Error::bug(format!("`{sql}` is no expression")).with_source(e))
}

fn and(left: Expr, right: Expr) -> Expr {
    let nested = |expr| Box::new(Expr::Nested(Box::new(expr)));
    Expr::BinaryOp { left: nested(left), op: BinaryOperator::And, right: nested(right) }
}

/// FETCH FIRST as LIMIT, or as a condition on ranks.
fn fetched(query: &mut Query) -> Result<()> {
    let Some(Fetch { with_ties, percent, quantity }) = query.fetch.take() else { return Ok(()) };
    if percent {
        return Err(invalid("not supported: FETCH FIRST … PERCENT"));
    }
    let count = quantity.map_or_else(|| parsed("1"), Ok)?;
    let offset = match query.limit_clause.take() {
        None => None,
        Some(LimitClause::LimitOffset { limit: None, offset, limit_by }) if limit_by.is_empty() => offset,
        Some(_) => return Err(invalid("expected LIMIT or FETCH FIRST, found both")),
    };
    let limit = match with_ties {
        false => Some(count),
        true => {
            let offset = offset.as_ref().map(|offset| offset.value.clone());
            ranked(query, count, offset)?;
            None
        }
    };
    if limit.is_some() || offset.is_some() {
        query.limit_clause = Some(LimitClause::LimitOffset { limit, offset, limit_by: Vec::new() });
    }
    Ok(())
}

/// Keeps the rows that are among the first by the query's order, and their equals.
fn ranked(query: &mut Query, count: Expr, offset: Option<Expr>) -> Result<()> {
    let Some(OrderBy { kind: OrderByKind::Expressions(order), .. }) = &query.order_by else {
        return Err(invalid("expected ORDER BY with FETCH FIRST … WITH TIES, found none"));
    };
    let SetExpr::Select(select) = query.body.as_mut() else {
        return Err(invalid(
            "not supported: FETCH FIRST … WITH TIES of UNION, EXCEPT, INTERSECT or VALUES; select from them",
        ));
    };
    if select.distinct.is_some() {
        return Err(invalid("not supported: FETCH FIRST … WITH TIES of SELECT DISTINCT; select from it"));
    }
    let keys = order.iter().map(|by| Ok(OrderByExpr { expr: meant(&by.expr, &select.projection)?, ..by.clone() }));
    let keys = keys.collect::<Result<Vec<_>>>()?;
    let last = match offset {
        None => count,
        Some(offset) => filled("$1 + $2", &[count, offset])?,
    };
    let mut condition = filled("rank() OVER (ORDER BY 1) <= $1", &[last])?;
    if let Expr::BinaryOp { left, .. } = &mut condition
        && let Expr::Function(Function { over: Some(WindowType::WindowSpec(window)), .. }) = left.as_mut()
    {
        window.order_by = keys;
    }
    select.qualify = Some(match select.qualify.take() {
        Some(qualify) => and(qualify, condition),
        None => condition,
    });
    Ok(())
}

/// What ORDER BY means by a position in the SELECT list, or an alias there.
fn meant(by: &Expr, list: &[SelectItem]) -> Result<Expr> {
    let alias = |name: &Ident| {
        list.iter().find_map(|item| match item {
            SelectItem::ExprWithAlias { expr, alias } if written(alias) == written(name) => Some(expr.clone()),
            _ => None,
        })
    };
    match by {
        Expr::Identifier(name) => Ok(alias(name).unwrap_or_else(|| by.clone())),
        Expr::Value(value) => {
            let Value::Number(digits, _) = &value.value else { return Ok(by.clone()) };
            let at = digits.to_string().parse::<usize>().ok().and_then(|n| n.checked_sub(1));
            let before = at.map(|at| list.iter().take(at + 1));
            let plain =
                |item: &SelectItem| matches!(item, SelectItem::UnnamedExpr(_) | SelectItem::ExprWithAlias { .. });
            match (at.and_then(|at| list.get(at)), before.is_some_and(|mut before| before.all(plain))) {
                (Some(SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. }), true) => {
                    Ok(expr.clone())
                }
                _ => Err(invalid(format!("expected a column of the SELECT list in ORDER BY, found {by}"))),
            }
        }
        _ => Ok(by.clone()),
    }
}

/// Makes joins of the conditions of a WHERE that ask whether a row is among those of a subquery.
fn conditions(condition: &mut Expr) -> Result<()> {
    match condition {
        Expr::BinaryOp { left, op: BinaryOperator::And, right } => {
            conditions(left)?;
            conditions(right)
        }
        Expr::Nested(inner) => conditions(inner),
        Expr::InSubquery { expr, subquery, negated: false } => {
            let Some(parts) = row_of(expr) else { return Ok(()) };
            let (relation, equal) = compared(&parts, subquery)?;
            let mut exists = query("SELECT 1 FROM (SELECT 1) AS x WHERE true")?;
            if let SetExpr::Select(select) = exists.body.as_mut() {
                place(select, relation);
                select.selection = Some(equal);
            }
            *condition = Expr::Exists { subquery: Box::new(exists), negated: false };
            Ok(())
        }
        _ => Ok(()),
    }
}

/// The parts of a row of several values.
fn row_of(expr: &Expr) -> Option<Vec<Expr>> {
    match expr {
        Expr::Nested(inner) => row_of(inner),
        Expr::Tuple(parts) if parts.len() > 1 => Some(parts.clone()),
        Expr::Function(call) if call.name.to_string().eq_ignore_ascii_case("row") => match &call.args {
            FunctionArguments::List(list) if list.args.len() > 1 => list.args.iter().map(plain).collect(),
            _ => None,
        },
        _ => None,
    }
}

fn plain(arg: &FunctionArg) -> Option<Expr> {
    match arg {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Some(expr.clone()),
        _ => None,
    }
}

/// The subquery as a relation of its own, and whether a row of it equals these values.
fn compared(parts: &[Expr], subquery: &Query) -> Result<(TableFactor, Expr)> {
    let names: Vec<String> = (0..parts.len()).map(|i| format!("\"$in_{i}\"")).collect();
    let select = format!("SELECT 1 FROM (SELECT 1) AS \"$in\"({})", names.join(", "));
    let equal =
        parts.iter().zip(&names).map(|(part, name)| filled(&format!("{name} = $1"), std::slice::from_ref(part)));
    let equal = equal.collect::<Result<Vec<_>>>()?.into_iter().reduce(and);
    let equal = equal.ok_or_else(|| Error::bug("a row without values"))?;
    let mut model = query(&select)?;
    let SetExpr::Select(select) = model.body.as_mut() else { return Err(Error::bug("no select")) };
    let Some(mut from) = select.from.pop() else { return Err(Error::bug("no relation")) };
    if let TableFactor::Derived { subquery: derived, .. } = &mut from.relation {
        **derived = subquery.clone();
    }
    Ok((from.relation, equal))
}

fn query(sql: &str) -> Result<Query> {
    let parsed = Parser::parse_sql(&GenericDialect {}, sql).map(|mut statements| statements.pop());
    match parsed {
        Ok(Some(Statement::Query(query))) => Ok(*query),
        _ => Err(Error::bug(format!("`{sql}` is no query"))),
    }
}

fn place(select: &mut Select, relation: TableFactor) {
    if let Some(from) = select.from.first_mut() {
        from.relation = relation;
    }
}

fn expression(expr: &mut Expr) -> Result<()> {
    match expr {
        Expr::InSubquery { expr: row, subquery, negated } => {
            let Some(parts) = row_of(row) else { return Ok(()) };
            let (relation, equal) = compared(&parts, subquery)?;
            let mut any = query("SELECT 1 FROM (SELECT 1) AS x")?;
            if let SetExpr::Select(select) = any.body.as_mut() {
                let value = filled(
                    "CASE WHEN bool_or($1) THEN true WHEN count(*) FILTER (WHERE ($1) IS NULL) > 0 THEN NULL ELSE false END",
                    &[equal],
                )?;
                place(select, relation);
                select.projection = vec![SelectItem::UnnamedExpr(value)];
            }
            let any = Expr::Subquery(Box::new(any));
            *expr = if *negated { filled("NOT $1", &[any])? } else { any };
        }
        Expr::InList { expr: row, list, negated } => {
            let Some(parts) = row_of(row) else { return Ok(()) };
            let equal = list.iter().map(|element| equal(&parts, element, row)).collect::<Result<Vec<_>>>()?;
            let Some(any) = any_of(equal) else { return Ok(()) };
            *expr = if *negated { filled("NOT $1", &[any])? } else { Expr::Nested(Box::new(any)) };
        }
        Expr::BinaryOp { left, op: op @ (BinaryOperator::Eq | BinaryOperator::NotEq), right } => {
            let (Some(parts), Some(_)) = (row_of(left), row_of(right)) else { return Ok(()) };
            let same = equal(&parts, right, left)?;
            *expr = match op {
                BinaryOperator::Eq => Expr::Nested(Box::new(same)),
                _ => filled("NOT $1", &[same])?,
            };
        }
        Expr::BinaryOp { op, .. } => {
            let instead = match op {
                BinaryOperator::PGBitwiseShiftRight => "bitwise_right_shift(x, shift)",
                BinaryOperator::PGBitwiseShiftLeft => "bitwise_left_shift(x, shift)",
                BinaryOperator::Xor => "`<>`",
                BinaryOperator::MyIntegerDivide => "`/`, whose quotient of whole numbers is whole",
                _ => return Ok(()),
            };
            return Err(invalid(format!("expected an operator of Athena's SQL, found `{op}`: use {instead}")));
        }
        Expr::Function(call) => check_call(call)?,
        _ => {}
    }
    Ok(())
}

/// Whether all parts equal those of the other row.
fn equal(parts: &[Expr], other: &Expr, row: &Expr) -> Result<Expr> {
    let others = row_of(other).filter(|others| others.len() == parts.len());
    let others = others
        .ok_or_else(|| invalid(format!("expected a row of {} values beside `{row}`, found `{other}`", parts.len())))?;
    let equal = parts.iter().zip(others).map(|(left, right)| filled("$1 = $2", &[left.clone(), right]));
    let equal = equal.collect::<Result<Vec<_>>>()?.into_iter().reduce(and);
    equal.ok_or_else(|| Error::bug("a row without values"))
}

/// Joined by OR, halves within each other: a chain would go as deep as it is long.
fn any_of(mut conditions: Vec<Expr>) -> Option<Expr> {
    match conditions.len() {
        0 | 1 => conditions.pop(),
        len => {
            let right = any_of(conditions.split_off(len / 2));
            let nested = |expr: Option<Expr>| expr.map(|expr| Box::new(Expr::Nested(Box::new(expr))));
            let (left, right) = (nested(any_of(conditions))?, nested(right)?);
            Some(Expr::BinaryOp { left, op: BinaryOperator::Or, right })
        }
    }
}

/// # Errors
/// For arguments that Athena refuses and DataFusion takes for something else.
fn check_call(call: &Function) -> Result<()> {
    let FunctionArguments::List(list) = &call.args else { return Ok(()) };
    let name = call.name.to_string().to_lowercase();
    let second = list.args.get(1).and_then(plain).and_then(|arg| number(&arg));
    match (name.as_str(), second) {
        ("lag" | "lead", Some(offset)) if offset < 0 => {
            Err(invalid(format!("expected an offset of at least 0 as argument 2 of `{name}`, found {offset}")))
        }
        ("nth_value", Some(offset)) if offset < 1 => {
            Err(invalid(format!("expected an offset of at least 1 as argument 2 of `{name}`, found {offset}")))
        }
        ("ntile", _) => match list.args.first().and_then(plain).and_then(|arg| number(&arg)) {
            Some(buckets) if buckets < 1 => {
                Err(invalid(format!("expected at least 1 bucket as argument 1 of `ntile`, found {buckets}")))
            }
            _ => Ok(()),
        },
        ("count", _) if list.args.len() > 1 => {
            let distinct = list.duplicate_treatment == Some(DuplicateTreatment::Distinct);
            let instead = if distinct {
                "count(DISTINCT ROW(a, b)) or a subquery with DISTINCT"
            } else {
                "count(*) FILTER (WHERE …)"
            };
            Err(invalid(format!("expected one argument of `count`, found {}: use {instead}", list.args.len())))
        }
        _ => Ok(()),
    }
}

fn number(expr: &Expr) -> Option<i128> {
    match expr {
        Expr::Nested(inner) => number(inner),
        Expr::UnaryOp { op: UnaryOperator::Minus, expr } => number(expr).map(|n| -n),
        Expr::Value(value) => match &value.value {
            Value::Number(digits, _) => digits.to_string().parse().ok(),
            _ => None,
        },
        _ => None,
    }
}
