//! What can be told of an SQL text without a catalog: whether it is one SELECT, which tables it reads, what its columns are
//! called, which parameters it takes.

use std::collections::BTreeSet;

use std::ops::ControlFlow;

use sqlparser::ast::{Expr, Ident, ObjectName, Query, SelectItem, SetExpr, Statement, Visit, Visitor};
use sqlparser::dialect::GenericDialect;
use sqlparser::parser::{Parser, ParserError};
use sqlparser::tokenizer::{Location, Token, Tokenizer};

use super::parameters::{Piece, Region, pieces};
use crate::model::TableName;
use crate::sql::check_operators;
use crate::threads::deep;
use crate::{Error, Result};

const DIALECT: GenericDialect = GenericDialect {};

/// A SELECT.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Select {
    /// Tables that it reads, wherever they stand in it; names of CTEs and aliases are none.
    pub reads: BTreeSet<TableName>,
    /// What its columns are called, as far as they have names; `None` when a wildcard hides them.
    pub columns: Option<Vec<String>>,
}

impl Select {
    /// Parses `sql`, in which `${name}` may stand for a literal or in quotes. Tables without a database lie in `database`.
    ///
    /// # Errors
    /// `Invalid` when it is not exactly one SELECT, or names a table in more than two parts.
    pub fn parse(sql: &str, database: &str) -> Result<Self> {
        let sql = with_placeholders(sql);
        check_size(&sql)?;
        deep(|| Self::parse_plain(&sql, database))
    }

    fn parse_plain(sql: &str, database: &str) -> Result<Self> {
        let parse = || {
            let mut parser = Parser::new(&DIALECT).try_with_sql(sql)?;
            let statements = parser.parse_statements()?;
            // It ends at the word `END` too.
            parser.expect_token(&Token::EOF)?;
            Ok::<_, ParserError>(statements)
        };
        let statements = parse().map_err(|e| Error::invalid(format!("expected a SELECT: {e}")))?;
        let query = match statements.as_slice() {
            [Statement::Query(query)] => query,
            [other] => return Err(not_a_select(&other.to_string())),
            _ => return Err(Error::invalid("expected exactly one SELECT, found none or several statements")),
        };
        let mut tables = Tables { database, reads: BTreeSet::new(), ctes: Vec::new() };
        match query.visit(&mut tables) {
            ControlFlow::Continue(()) => Ok(Self { reads: tables.reads, columns: columns(query) }),
            ControlFlow::Break(error) => Err(error),
        }
    }
}

/// Collects the tables that a query reads.
struct Tables<'a> {
    database: &'a str,
    reads: BTreeSet<TableName>,
    /// Names of the common table expressions that can be named where the visitor is.
    ctes: Vec<String>,
}

impl Visitor for Tables<'_> {
    type Break = Error;

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<Error> {
        let Some(with) = &query.with else { return ControlFlow::Continue(()) };
        for cte in &with.cte_tables {
            if !with.recursive {
                // Its own name is not known in it. It is visited again with the query, which finds nothing more then.
                cte.visit(self)?;
            }
            self.ctes.push(normal(&cte.alias.name));
        }
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, query: &Query) -> ControlFlow<Error> {
        let ended = query.with.as_ref().map_or(0, |with| with.cte_tables.len());
        self.ctes.truncate(self.ctes.len() - ended);
        ControlFlow::Continue(())
    }

    fn pre_visit_relation(&mut self, relation: &ObjectName) -> ControlFlow<Error> {
        let parts: Option<Vec<String>> = relation.0.iter().map(|part| part.as_ident().map(normal)).collect();
        let name = match parts.as_deref() {
            Some([table]) if self.ctes.contains(table) => return ControlFlow::Continue(()),
            Some([table]) => TableName::new(self.database, table),
            Some([database, table]) => TableName::new(database, table),
            _ => Err(Error::invalid(format!("expected a table named `table` or `database.table`, found `{relation}`"))),
        };
        match name {
            Ok(name) => {
                self.reads.insert(name);
                ControlFlow::Continue(())
            }
            Err(error) => ControlFlow::Break(error),
        }
    }
}

/// Checks that `text` is an SQL condition.
///
/// # Errors
/// `Invalid`, with what the parser says.
pub(super) fn check_condition(text: &str) -> Result<()> {
    let text = with_placeholders(text);
    check_size(&text)?;
    let parse = || {
        let mut parser = Parser::new(&DIALECT).try_with_sql(&text)?;
        parser.parse_expr()?;
        parser.expect_token(&Token::EOF).map(drop)
    };
    deep(parse).map_err(|e| Error::invalid(format!("expected an SQL condition, found `{text}`: {e}")))
}

/// # Errors
/// `Limit` for more operators in a row than the engine takes. What has no tokens is left to the parser.
fn check_size(sql: &str) -> Result<()> {
    match Tokenizer::new(&DIALECT, sql).tokenize_with_location() {
        Ok(tokens) => check_operators(&tokens),
        Err(_) => Ok(()),
    }
}

fn not_a_select(statement: &str) -> Error {
    let beginning: String = statement.chars().take(40).collect();
    Error::invalid(format!("expected a SELECT, found `{beginning}`"))
}

fn columns(query: &Query) -> Option<Vec<String>> {
    let mut body = query.body.as_ref();
    let select = loop {
        match body {
            SetExpr::Select(select) => break select,
            SetExpr::Query(query) => return columns(query),
            SetExpr::SetOperation { left, .. } => body = left.as_ref(),
            _ => return None,
        }
    };
    let mut names = Vec::new();
    for item in &select.projection {
        match item {
            SelectItem::ExprWithAlias { alias, .. } => names.push(normal(alias)),
            SelectItem::UnnamedExpr(Expr::Identifier(ident)) => names.push(normal(ident)),
            SelectItem::UnnamedExpr(Expr::CompoundIdentifier(parts)) => names.extend(parts.last().map(normal)),
            SelectItem::UnnamedExpr(_) => {}
            _ => return None,
        }
    }
    Some(names)
}

/// `sql` without the semicolons at its end, also where comments follow them, so that it can stand in parentheses.
pub fn without_end(sql: &str) -> String {
    let Ok(tokens) = Tokenizer::new(&DIALECT, sql).tokenize_with_location() else { return sql.to_owned() };
    let behind = tokens
        .iter()
        .rev()
        .take_while(|token| matches!(token.token, Token::SemiColon | Token::Whitespace(_) | Token::EOF));
    let ends = behind.filter(|token| token.token == Token::SemiColon).map(|token| token.span.start);
    let mut text = sql.to_owned();
    for end in ends {
        if let Some(at) = offset(sql, end) {
            text.replace_range(at..=at, " ");
        }
    }
    text
}

/// Where a place lies in a text, in bytes.
fn offset(text: &str, place: Location) -> Option<usize> {
    let line = usize::try_from(place.line).ok()?.checked_sub(1)?;
    let column = usize::try_from(place.column).ok()?.checked_sub(1)?;
    let begin: usize = text.split_inclusive('\n').take(line).map(str::len).sum();
    let rest = text.get(begin..)?;
    rest.char_indices().nth(column).map(|(at, _)| begin + at)
}

fn normal(ident: &Ident) -> String {
    if ident.quote_style.is_some() { ident.value.clone() } else { ident.value.to_lowercase() }
}

/// The parameters that `sql` takes as `${name}`, outside comments.
pub(super) fn parameters(sql: &str) -> BTreeSet<String> {
    let name = |piece| match piece {
        Piece::Parameter { name, .. } => Some(name.to_owned()),
        Piece::Text(_) => None,
    };
    pieces(sql).into_iter().filter_map(name).collect()
}

/// `sql` with something that parses in place of each parameter.
fn with_placeholders(sql: &str) -> String {
    let text = |piece| match piece {
        Piece::Text(text) => text,
        Piece::Parameter { region: Region::Code, .. } => "'1'",
        Piece::Parameter { .. } => "x",
    };
    pieces(sql).into_iter().map(text).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reads(sql: &str) -> Vec<String> {
        Select::parse(sql, "nyc").unwrap().reads.iter().map(TableName::to_string).collect()
    }

    #[test]
    fn tables_are_found_wherever_they_stand_and_ctes_are_none() {
        assert_eq!(reads("SELECT * FROM flights f JOIN ref.planes p ON f.t = p.t"), ["nyc.flights", "ref.planes"]);
        assert_eq!(
            reads("WITH a AS (SELECT * FROM b) SELECT * FROM a WHERE x IN (SELECT x FROM c)"),
            ["nyc.b", "nyc.c"]
        );
        assert_eq!(
            reads("SELECT (SELECT max(x) FROM a) FROM b UNION ALL SELECT x FROM c"),
            ["nyc.a", "nyc.b", "nyc.c"]
        );
        assert_eq!(reads("SELECT 1"), Vec::<String>::new());
        assert_eq!(reads("WITH b AS (SELECT * FROM b) SELECT * FROM b"), ["nyc.b"]);
        assert_eq!(reads("WITH RECURSIVE b AS (SELECT 1 UNION SELECT * FROM b) SELECT * FROM b"), Vec::<String>::new());
        assert_eq!(reads("SELECT * FROM (WITH a AS (SELECT 1) SELECT * FROM a) JOIN a ON true"), ["nyc.a"]);
        assert_eq!(reads("WITH A AS (SELECT 1) SELECT * FROM a, nyc.a"), ["nyc.a"]);
    }

    #[test]
    fn long_chains_are_parsed_and_longer_ones_refused() {
        let chain = |n: usize| vec!["1"; n].join(" + ");
        assert!(Select::parse(&format!("SELECT {}", chain(4_000)), "nyc").is_ok());
        assert!(check_condition(&format!("{} > 0", chain(4_000))).is_ok());
        for refused in
            [Select::parse(&format!("SELECT {}", chain(20_000)), "nyc").map(drop), check_condition(&chain(20_000))]
        {
            assert_eq!(refused.unwrap_err().kind(), crate::ErrorKind::Limit);
        }
    }

    #[test]
    fn columns_are_named_by_alias_or_column() {
        let columns = |sql| Select::parse(sql, "nyc").unwrap().columns;
        assert_eq!(
            columns("SELECT a, t.B, count(*) AS n, sum(x) FROM t"),
            Some(vec!["a".into(), "b".into(), "n".into()])
        );
        assert_eq!(columns("SELECT a, t.* FROM t"), None);
        assert_eq!(columns("(SELECT a FROM t) UNION SELECT b FROM u"), Some(vec!["a".into()]));
    }

    #[test]
    fn parameters_stand_for_literals_and_in_quotes_but_not_in_comments() {
        let sql = "SELECT a FROM t WHERE d >= ${start} AND n = 'x ${name}' -- ${nothing}\n LIMIT 1 /* ${no} */";
        assert_eq!(parameters(sql).into_iter().collect::<Vec<_>>(), ["name", "start"]);
        assert!(Select::parse(sql, "nyc").is_ok());
    }

    #[test]
    fn semicolons_leave_the_end_whatever_follows_them() {
        for (sql, expected) in [
            ("SELECT 1", "SELECT 1"),
            ("SELECT 1 ;; ", "SELECT 1    "),
            (
                "SELECT 'ä;' AS \"ü\"\n;  -- that's; all\n/* ; */ ;",
                "SELECT 'ä;' AS \"ü\"\n   -- that's; all\n/* ; */  ",
            ),
            ("SELECT 1 -- ;", "SELECT 1 -- ;"),
            ("SELECT 1; SELECT 2", "SELECT 1; SELECT 2"),
            ("SELECT 'open ;", "SELECT 'open ;"),
        ] {
            assert_eq!(without_end(sql), expected);
        }
    }

    #[test]
    fn what_is_not_one_select_is_refused() {
        for bad in
            ["DELETE FROM t", "SELECT 1; SELECT 2", "SELEC 1", "", "SELECT * FROM a.b.c", "SELECT a FROM t END x"]
        {
            assert!(Select::parse(bad, "nyc").is_err(), "{bad}");
        }
        assert!(check_condition("a > 1 AND b IS NOT NULL").is_ok());
        assert!(check_condition("a >").is_err());
    }
}
