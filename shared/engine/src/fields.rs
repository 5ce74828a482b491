//! Parts of columns: how they are written, and the names of the columns that they give.
//!
//! `SELECT a.b.c` gives the column `c`, as in Trino and DuckDB, and `SELECT tags[1]` the
//! column `tags[1]`. Without a name of their own they would have the one of the engine's expression, `t.a[b][c]`.

use std::ops::ControlFlow;

use datafusion::sql::parser::Statement as Parsed;
use datafusion::sql::sqlparser::ast::{
    AccessExpr, Expr, Ident, ObjectName, OrderByKind, Query, Select, SelectItem, SetExpr, TableFactor, TableWithJoins,
    Value, VisitMut, VisitorMut,
};

use crate::semantics::written;

/// Gives such columns of every SELECT list their names.
pub(super) fn name(statement: &mut Parsed) {
    match statement {
        Parsed::Statement(inner) => {
            let _ = inner.as_mut().visit(&mut Fields::default());
        }
        Parsed::Explain(explain) => name(explain.statement.as_mut()),
        _ => {}
    }
}

/// The names of relations that a column can be qualified with, of each SELECT around.
#[derive(Default)]
struct Fields {
    relations: Vec<Vec<Vec<String>>>,
}

impl VisitorMut for Fields {
    type Break = ();

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<()> {
        let mut relations = Vec::new();
        select.from.iter().for_each(|from| of_joins(from, &mut relations));
        self.relations.push(relations);
        for item in &mut select.projection {
            let SelectItem::UnnamedExpr(expr) = item else { continue };
            if let Some(alias) = self.name_of(expr) {
                *item = SelectItem::ExprWithAlias { expr: expr.clone(), alias };
            }
        }
        ControlFlow::Continue(())
    }

    /// DataFusion takes the field of an expression, as in `tags[1].x`, by a text alone.
    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if let Expr::CompoundFieldAccess { access_chain, .. } = expr {
            for access in access_chain {
                if let AccessExpr::Dot(field) = access
                    && let Expr::Identifier(name) = field
                {
                    *field = Expr::Value(Value::SingleQuotedString(written(name)).into());
                }
            }
        }
        ControlFlow::Continue(())
    }

    /// DISTINCT is ordered by what its list gives.
    fn post_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        let (SetExpr::Select(select), Some(order)) = (query.body.as_ref(), &mut query.order_by) else {
            return ControlFlow::Continue(());
        };
        if let (Some(_), OrderByKind::Expressions(by)) = (&select.distinct, &mut order.kind) {
            let given = |by: &Expr| {
                select.projection.iter().find_map(|item| match item {
                    SelectItem::ExprWithAlias { expr, alias } if expr == by => Some(alias.clone()),
                    _ => None,
                })
            };
            for by in by {
                if let Some(alias) = given(&by.expr) {
                    by.expr = Expr::Identifier(alias);
                }
            }
        }
        ControlFlow::Continue(())
    }

    fn post_visit_select(&mut self, _: &mut Select) -> ControlFlow<()> {
        self.relations.pop();
        ControlFlow::Continue(())
    }
}

impl Fields {
    /// The name of a column that is a part of another.
    fn name_of(&self, expr: &Expr) -> Option<Ident> {
        match expr {
            Expr::Nested(inner) => self.name_of(inner),
            Expr::CompoundIdentifier(parts) => {
                let is_field = parts.len() > self.qualifiers(parts) + 1;
                parts.last().filter(|_| is_field).map(|last| named(written(last)))
            }
            Expr::CompoundFieldAccess { access_chain, .. } => Some(match access_chain.last() {
                Some(AccessExpr::Dot(Expr::Identifier(field))) => named(written(field)),
                _ => named(expr.to_string()),
            }),
            _ => None,
        }
    }

    /// How many of these words name a relation.
    fn qualifiers(&self, parts: &[Ident]) -> usize {
        let words: Vec<String> = parts.iter().map(written).collect();
        // A table is named by its last words: `t` and `db.t` mean `db.t`.
        let of = |relation: &Vec<String>| {
            (1..=relation.len()).rev().find(|n| words.starts_with(&relation[relation.len() - n..]))
        };
        self.relations.iter().flatten().filter_map(of).max().unwrap_or(0)
    }
}

fn of_joins(from: &TableWithJoins, relations: &mut Vec<Vec<String>>) {
    of_factor(&from.relation, relations);
    from.joins.iter().for_each(|join| of_factor(&join.relation, relations));
}

fn of_factor(factor: &TableFactor, relations: &mut Vec<Vec<String>>) {
    let alias = match factor {
        TableFactor::Table { alias, name, .. } => {
            if alias.is_none() {
                relations.push(words_of(name));
            }
            alias
        }
        TableFactor::NestedJoin { table_with_joins, alias } => {
            of_joins(table_with_joins, relations);
            alias
        }
        TableFactor::Derived { alias, .. }
        | TableFactor::TableFunction { alias, .. }
        | TableFactor::Function { alias, .. }
        | TableFactor::UNNEST { alias, .. } => alias,
        _ => &None,
    };
    relations.extend(alias.iter().map(|alias| vec![written(&alias.name)]));
}

fn words_of(name: &ObjectName) -> Vec<String> {
    name.0.iter().filter_map(|part| part.as_ident()).map(written).collect()
}

fn named(name: String) -> Ident {
    Ident::with_quote('"', name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion::sql::parser::DFParser;

    fn named_in(sql: &str) -> String {
        let mut statement = DFParser::parse_sql(sql).unwrap().pop_front().unwrap();
        name(&mut statement);
        statement.to_string()
    }

    #[test]
    fn a_field_gives_a_column_of_its_name() {
        for (list, from, named) in [
            ("a.b.c", "t", "a.b.c AS \"c\""),
            ("t.a.b", "t", "t.a.b AS \"b\""),
            ("a.B", "t", "a.B AS \"b\""),
            ("db.t.a.b", "db.t", "db.t.a.b AS \"b\""),
            ("x.a.b", "t AS x", "x.a.b AS \"b\""),
            ("tags[1]", "t", "tags[1] AS \"tags[1]\""),
            ("tags[1].x", "t", "tags[1].'x' AS \"x\""),
        ] {
            let (given, expected) = (format!("SELECT {list} FROM {from}"), format!("SELECT {named} FROM {from}"));
            assert_eq!(named_in(&given), expected);
        }
    }

    #[test]
    fn a_column_keeps_its_name() {
        for sql in [
            "SELECT a, t.a, db.t.a FROM db.t",
            "SELECT x.a FROM t AS x JOIN u ON x.a = u.a",
            "SELECT q.a FROM (SELECT 1 AS a) AS q",
            "SELECT (SELECT o.a) FROM t AS o",
            "SELECT a.b AS n FROM t",
        ] {
            assert_eq!(named_in(sql), sql);
        }
    }
}
