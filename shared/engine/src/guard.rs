//! What a statement may be: one, not too long, and only reading. Everything else is refused before anything is planned.

use std::ops::ControlFlow;

use datafusion::common::DataFusionError;
use datafusion::sql::parser::{DFParserBuilder, Statement as Parsed};
use datafusion::sql::sqlparser::ast::{
    DescribeAlias, Expr, Function, LimitClause, NamedWindowDefinition, NamedWindowExpr, ObjectName, Query, Select,
    SetExpr, Statement, TableFactor, Visit, Visitor, WindowSpec, WindowType,
};
use datafusion::sql::sqlparser::tokenizer::{Span, Token, TokenWithSpan, Tokenizer};

use super::dialect::{self, Athena};
use super::errors::{Place, of_statement, pointed};
use super::{forms, semantics, size, sources, summary};
use shared::error::datafusion::lowercase_first;
use shared::sql::check_operators;
use shared::{Error, Result};

/// Longest statement in bytes (Athena's limit).
pub(super) const MAX_SQL_BYTES: usize = 262_144;

/// Depth of nesting that the parser follows.
const MAX_DEPTH: usize = 100;

/// What to do in the place of statements that write files.
const ANSWERS: &str =
    "ask for the answer in a format of files (docs/query.md), or make a table of it with CREATE TABLE AS";

/// A statement that reads.
#[derive(Debug)]
pub(super) enum Reading {
    /// A query, or EXPLAIN of one.
    Query(Parsed),
    /// SHOW or DESCRIBE, answered from the catalog and the tables' metadata.
    Catalog(Box<Statement>),
    /// SUMMARIZE of a table or query, which is the query here.
    Summary(Parsed),
    /// DESCRIBE of a query.
    Columns(Parsed),
}

/// Parses one statement that reads.
///
/// # Errors
/// `Limit` for a text that is too long; `Invalid` with line and column for one that does not parse; `Denied` for any statement
/// that does more than read.
pub(super) fn parse(sql: &str) -> Result<Reading> {
    parse_tokens(sql, tokens(sql)?)
}

/// # Errors
/// `Limit` for a text that is too long.
pub(super) fn check_length(sql: &str) -> Result<()> {
    match sql.len() {
        0..=MAX_SQL_BYTES => Ok(()),
        bytes => {
            Err(Error::limit(format!("expected a statement of at most {MAX_SQL_BYTES} bytes, found {bytes} bytes")))
        }
    }
}

/// The tokens of a statement; versions of tables are marked as [`sources::mark_versions`] does.
///
/// # Errors
/// `Limit` for a text that is too long or has too many operators in a row; `Invalid` with line and column where a token or a
/// version can't be.
pub(super) fn tokens(sql: &str) -> Result<Vec<TokenWithSpan>> {
    check_length(sql)?;
    let dialect = Athena;
    let tokens = Tokenizer::new(&dialect, sql).tokenize_with_location().map_err(|e| {
        let place = Place { line: e.location.line, column: e.location.column };
        Error::invalid(pointed(&lowercase_first(&e.message), sql, place))
    })?;
    check_operators(&tokens)?;
    let tokens = forms::rewrite(tokens, sql)?;
    sources::mark_versions(semantics::mark_distinct(dialect::mark_json(tokens))).map_err(|(error, tokens)| {
        let error = DataFusionError::SQL(Box::new(error), None);
        refuse_unparsed(error, &tokens, &TokenWithSpan::new_eof(), sql)
    })
}

/// As [`parse`], of tokens.
pub(super) fn parse_tokens(sql: &str, tokens: Vec<TokenWithSpan>) -> Result<Reading> {
    match summary::query_of(&tokens) {
        None => parse_one(sql, tokens),
        Some(query) => match parse_one(sql, query)? {
            Reading::Query(query @ Parsed::Statement(_)) => Ok(Reading::Summary(query)),
            _ => Err(Error::invalid("expected SUMMARIZE of a table or a query, found another statement")),
        },
    }
}

fn parse_one(sql: &str, tokens: Vec<TokenWithSpan>) -> Result<Reading> {
    let dialect = Athena;
    let mut parser = DFParserBuilder::new(tokens.clone())
        .with_dialect(&dialect)
        .with_recursion_limit(MAX_DEPTH)
        .build()
        .map_err(|e| of_statement(e, sql))?;
    let mut statements = match parser.parse_statements() {
        Ok(statements) => statements,
        Err(error) => {
            let stopped_at = parser.parser.peek_token_ref().clone();
            return Err(refuse_unparsed(error, &tokens, &stopped_at, sql));
        }
    };
    match (statements.pop_front(), statements.len()) {
        (Some(statement), 0) => admit(statement),
        (Some(_), more) => Err(Error::invalid(format!("expected one statement, found {}", more + 1))),
        (None, _) => Err(Error::invalid("expected a statement, found none")),
    }
}

/// The parser's messages end with the place of the token that they are about; the token whose place that is gives us the place
/// as a value. Otherwise it is where the parser stopped.
pub(super) fn refuse_unparsed(
    error: DataFusionError,
    tokens: &[TokenWithSpan],
    stopped_at: &TokenWithSpan,
    sql: &str,
) -> Error {
    let error = Error::from(error);
    let message = error.message();
    let meant = tokens
        .iter()
        .chain([stopped_at])
        .find(|token| token.span != Span::empty() && message.ends_with(&token.span.start.to_string()))
        .unwrap_or(stopped_at);
    let text = message.strip_suffix(&meant.span.start.to_string()).unwrap_or(message);
    let text = text.strip_prefix("sql parser error: ").unwrap_or(text);
    if meant.span == Span::empty() || meant.token == Token::EOF {
        let place = end_of(sql);
        return Error::new(error.kind(), pointed(&lowercase_first(text), sql, place));
    }
    let place = Place { line: meant.span.start.line, column: meant.span.start.column };
    Error::new(error.kind(), pointed(&lowercase_first(text), sql, place))
}

fn end_of(sql: &str) -> Place {
    let sql = sql.trim_end();
    let last = sql.lines().last().unwrap_or_default();
    let line = u64::try_from(sql.lines().count()).unwrap_or(1).max(1);
    Place { line, column: u64::try_from(last.chars().count()).unwrap_or(0) + 1 }
}

fn admit(statement: Parsed) -> Result<Reading> {
    match statement {
        Parsed::Statement(inner) => match *inner {
            Statement::Query(query) => {
                check_query(&query)?;
                Ok(Reading::Query(Parsed::Statement(Box::new(Statement::Query(query)))))
            }
            Statement::Explain {
                describe_alias: DescribeAlias::Describe | DescribeAlias::Desc,
                analyze: false,
                statement,
                ..
            } => match *statement {
                Statement::Query(query) => {
                    check_query(&query)?;
                    Ok(Reading::Columns(Parsed::Statement(Box::new(Statement::Query(query)))))
                }
                other => Err(denied(&other)),
            },
            shown @ (Statement::ExplainTable { .. }
            | Statement::ShowTables { .. }
            | Statement::ShowViews { .. }
            | Statement::ShowDatabases { .. }
            | Statement::ShowSchemas { .. }
            | Statement::ShowColumns { .. }
            | Statement::ShowCreate { .. }
            | Statement::ShowFunctions { .. }
            | Statement::ShowVariable { .. }) => Ok(Reading::Catalog(Box::new(shown))),
            other => Err(denied(&other)),
        },
        Parsed::Explain(explain) => match explain.statement.as_ref() {
            Parsed::Statement(inner) => match inner.as_ref() {
                Statement::Query(query) => {
                    check_query(query)?;
                    Ok(Reading::Query(Parsed::Explain(explain)))
                }
                other => Err(denied(other)),
            },
            _ => Err(Error::denied("expected EXPLAIN of a query, found EXPLAIN of a statement that writes")),
        },
        Parsed::CreateExternalTable(_) => Err(Error::denied(
            "CREATE EXTERNAL TABLE is not allowed: declare a location in the lakehouse file, and crawl registers its tables",
        )),
        Parsed::CopyTo(_) => Err(Error::denied(format!("COPY is not allowed: {ANSWERS}"))),
        Parsed::Reset(_) => Err(Error::denied("RESET is not allowed: settings are fixed")),
    }
}

fn denied(statement: &Statement) -> Error {
    let text = statement.to_string();
    let mut words = text.split_whitespace().map(str::to_ascii_uppercase);
    let word = words.next().unwrap_or_default();
    if word == "CREATE" || word == "DROP" {
        let kind = words.find(|word| {
            !matches!(
                word.as_str(),
                "OR" | "REPLACE" | "TEMPORARY" | "TEMP" | "GLOBAL" | "LOCAL" | "IF" | "NOT" | "EXISTS"
            )
        });
        let kind = kind.unwrap_or_default();
        if !matches!(kind.as_str(), "TABLE" | "DATABASE" | "SCHEMA") {
            return Error::denied(format!("{word} {kind} is not supported; docs/query.md lists the statements"));
        }
    }
    let hint = match word.as_str() {
        "INSERT" | "UPDATE" | "DELETE" | "MERGE" | "TRUNCATE" | "CREATE" | "ALTER" | "DROP" => {
            "expected a statement that reads: SELECT, EXPLAIN, SHOW, DESCRIBE or SUMMARIZE"
        }
        "SET" | "USE" => "settings are fixed; name tables as `database.table`",
        "UNLOAD" => ANSWERS,
        "MSCK" => "partitions come from crawls",
        _ => "it is none of the statements in docs/query.md",
    };
    Error::denied(format!("{word} is not allowed: {hint}"))
}

/// What planning takes for the window written there alone.
const REFINED: &str = "a window that adds to a named one";

fn refines(window: &WindowSpec) -> bool {
    window.window_name.is_some()
}

/// Refuses what hides in a query: INSERT or UPDATE as its body, SELECT INTO, row locks; what would be ignored, and what unfolds to
/// too much.
pub(super) fn check_query(query: &Query) -> Result<()> {
    size::check_query(query)?;
    struct Check;
    impl Visitor for Check {
        type Break = Error;

        fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<Error> {
            if !query.locks.is_empty() {
                return ControlFlow::Break(Error::denied("FOR UPDATE is not allowed: queries only read"));
            }
            if let Some(clause) = ignored_clause(query) {
                return ControlFlow::Break(unsupported(clause));
            }
            match query.body.as_ref() {
                SetExpr::Insert(s) | SetExpr::Update(s) | SetExpr::Delete(s) | SetExpr::Merge(s) => {
                    ControlFlow::Break(denied(s))
                }
                SetExpr::Select(select) if select.into.is_some() => {
                    ControlFlow::Break(Error::denied("SELECT INTO is not allowed: use CREATE TABLE AS, or a workflow"))
                }
                _ => ControlFlow::Continue(()),
            }
        }

        fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<Error> {
            match expr {
                Expr::Function(Function { over: Some(WindowType::WindowSpec(window)), .. }) if refines(window) => {
                    ControlFlow::Break(unsupported(REFINED))
                }
                _ => ControlFlow::Continue(()),
            }
        }

        fn pre_visit_select(&mut self, select: &Select) -> ControlFlow<Error> {
            let refined = select.named_window.iter().any(|NamedWindowDefinition(_, window)| match window {
                NamedWindowExpr::WindowSpec(window) => refines(window),
                NamedWindowExpr::NamedWindow(_) => false,
            });
            let ignored = [
                (refined, REFINED),
                (select.prewhere.is_some(), "PREWHERE"),
                (!select.connect_by.is_empty(), "CONNECT BY"),
                (!select.distribute_by.is_empty(), "DISTRIBUTE BY"),
                (select.value_table_mode.is_some(), "SELECT AS"),
                (select.exclude.is_some(), "EXCLUDE after the SELECT list"),
            ];
            match ignored.iter().find(|(is_there, _)| *is_there) {
                Some((_, clause)) => ControlFlow::Break(unsupported(clause)),
                None => ControlFlow::Continue(()),
            }
        }

        fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<Error> {
            let (sample, chosen) = match factor {
                TableFactor::Table { sample, with_hints, partitions, index_hints, .. } => {
                    (sample.as_ref(), !with_hints.is_empty() || !partitions.is_empty() || !index_hints.is_empty())
                }
                TableFactor::Derived { sample, .. } => (sample.as_ref(), false),
                _ => (None, false),
            };
            if chosen {
                return ControlFlow::Break(unsupported("PARTITION, WITH or an index hint after a table's name"));
            }
            match sample.map(semantics::sampled).transpose() {
                Ok(_) => ControlFlow::Continue(()),
                Err(error) => ControlFlow::Break(error),
            }
        }
    }
    match query.visit(&mut Check) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(error) => Err(error),
    }
}

/// A clause that planning would pass over.
fn ignored_clause(query: &Query) -> Option<&'static str> {
    let by = matches!(&query.limit_clause, Some(LimitClause::LimitOffset { limit_by, .. }) if !limit_by.is_empty());
    let ignored = [
        (by, "LIMIT … BY"),
        (query.for_clause.is_some(), "FOR XML or JSON"),
        (query.settings.is_some(), "SETTINGS"),
        (query.format_clause.is_some(), "FORMAT"),
    ];
    ignored.iter().find(|(is_there, _)| *is_there).map(|(_, clause)| *clause)
}

fn unsupported(clause: &str) -> Error {
    Error::invalid(format!("not supported: {clause}"))
}

/// Every relation that the statement names, with the place of its first part. Names of common table expressions among them.
pub(super) fn relations(statement: &Parsed) -> Vec<(ObjectName, Place)> {
    #[derive(Default)]
    struct Collect(Vec<(ObjectName, Place)>);
    impl Visitor for Collect {
        type Break = ();

        fn pre_visit_relation(&mut self, name: &ObjectName) -> ControlFlow<()> {
            let start = name.0.first().and_then(|part| part.as_ident()).map_or(Span::empty(), |ident| ident.span).start;
            self.0.push((name.clone(), Place { line: start.line, column: start.column }));
            ControlFlow::Continue(())
        }

        fn pre_visit_expr(&mut self, _: &Expr) -> ControlFlow<()> {
            ControlFlow::Continue(())
        }
    }
    let mut found = Collect::default();
    let mut statement = statement;
    loop {
        match statement {
            Parsed::Statement(inner) => {
                let _ = inner.visit(&mut found);
                return found.0;
            }
            Parsed::Explain(explain) => statement = explain.statement.as_ref(),
            _ => return found.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared::ErrorKind;

    fn kind_of(sql: &str) -> ErrorKind {
        parse(sql).unwrap_err().kind()
    }

    #[test]
    fn statements_that_read_are_admitted() {
        for sql in [
            "SELECT 1",
            "select * from a.b;",
            "WITH x AS (SELECT 1) SELECT * FROM x",
            "VALUES (1), (2)",
            "EXPLAIN SELECT 1",
            "EXPLAIN ANALYZE SELECT 1",
            "SHOW TABLES",
            "SHOW TABLES IN nyc",
            "SHOW DATABASES",
            "SHOW SCHEMAS",
            "DESCRIBE t",
            "DESC nyc.t",
            "DESCRIBE SELECT 1",
            "SHOW COLUMNS FROM t",
            "SHOW TABLES IN nyc 'a*|b*'",
            "SUMMARIZE nyc.t",
            "summarize select 1;",
            "SUMMARIZE t FOR VERSION AS OF 'tag'",
        ] {
            assert!(parse(sql).is_ok(), "{sql}: {:?}", parse(sql).unwrap_err());
        }
    }

    #[test]
    fn everything_that_writes_or_sets_is_denied() {
        for sql in [
            "INSERT INTO t VALUES (1)",
            "DELETE FROM t",
            "UPDATE t SET a = 1",
            "DROP TABLE t",
            "CREATE TABLE t (a int)",
            "CREATE TABLE t AS SELECT 1",
            "CREATE VIEW v AS SELECT 1",
            "CREATE EXTERNAL TABLE t STORED AS CSV LOCATION '/etc/passwd'",
            "COPY (SELECT 1) TO '/tmp/x.csv'",
            "SET datafusion.catalog.location = '/'",
            "RESET datafusion.execution.batch_size",
            "SELECT 1 INTO t",
            "EXPLAIN INSERT INTO t VALUES (1)",
            "EXPLAIN ANALYZE COPY (SELECT 1) TO '/tmp/x.csv'",
            "TRUNCATE TABLE t",
            "DESCRIBE DELETE FROM t",
            "PREPARE p AS SELECT 1",
        ] {
            assert_eq!(kind_of(sql), ErrorKind::Denied, "{sql}");
        }
    }

    #[test]
    fn what_would_be_ignored_is_refused_by_name() {
        for (sql, named) in [
            ("SELECT * FROM (SELECT 1) AS x TABLESAMPLE SYSTEM (10)", "TABLESAMPLE"),
            ("SELECT * FROM t TABLESAMPLE BERNOULLI (101)", "from 0 to 100"),
            ("SELECT * FROM t TABLESAMPLE BERNOULLI (1) REPEATABLE (2)", "TABLESAMPLE"),
            ("SELECT * FROM t TABLESAMPLE (5 ROWS)", "TABLESAMPLE"),
            ("SELECT a FROM t LIMIT 1 BY a", "LIMIT … BY"),
            ("SELECT 1 WHERE 1 IN (SELECT a FROM t TABLESAMPLE SYSTEM (1))", "TABLESAMPLE"),
        ] {
            let error = parse(sql).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid, "{sql}");
            assert!(error.message().contains(named), "{sql}: {error}");
        }
    }

    #[test]
    fn a_syntax_error_points_at_the_word() {
        let error = parse("SELECT a\nFORM t WHERE").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.message().starts_with("line 2, column 6: "), "{error}");
        assert!(error.message().ends_with("FORM t WHERE\n     ^"), "{error}");
    }

    #[test]
    fn an_unfinished_statement_points_at_its_end() {
        let error = parse("SELECT a FROM").unwrap_err();
        assert!(error.message().starts_with("line 1, column 14: "), "{error}");
    }

    #[test]
    fn an_open_quote_points_at_the_quote() {
        let error = parse("SELECT\n  'abc").unwrap_err();
        assert!(error.message().starts_with("line 2, column 3: "), "{error}");
    }

    #[test]
    fn one_statement_at_a_time_and_not_too_long() {
        assert_eq!(kind_of("SELECT 1; SELECT 2"), ErrorKind::Invalid);
        assert_eq!(kind_of("  ;; "), ErrorKind::Invalid);
        assert_eq!(kind_of(&format!("SELECT '{}'", "x".repeat(MAX_SQL_BYTES))), ErrorKind::Limit);
    }

    #[test]
    fn nesting_without_end_is_refused_instead_of_overflowing_the_stack() {
        let sql = format!("SELECT {}1{}", "(".repeat(5_000), ")".repeat(5_000));
        assert_eq!(kind_of(&sql), ErrorKind::Invalid);
    }
}
