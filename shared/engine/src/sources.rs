//! What FROM may name beside tables as they are: older versions of them, and what changed between two versions.
//!
//! The parser's grammar has no `t FOR TIMESTAMP AS OF x`. Before parsing it is written as the call `t('timestamp as of', x)`,
//! and after parsing each such call, and each of `table_changes`, gives way to a table of its own name (`$0`, `$1`, …), for
//! which [`super::catalog`] finds the rows.

use std::ops::ControlFlow;

use datafusion::arrow::datatypes::{DataType, TimeUnit};
use datafusion::common::ScalarValue;
use datafusion::execution::session_state::SessionState;
use datafusion::physical_plan::collect;
use datafusion::sql::parser::Statement as Parsed;
use datafusion::sql::sqlparser::ast::{
    Expr, FunctionArg, FunctionArgExpr, Ident, ObjectName, TableAlias, TableFactor, TableFunctionArgs, Value, VisitMut,
    VisitorMut,
};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::parser::{Parser, ParserError};
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan};

use super::dialect::Athena;
use shared::model::TableName;
use shared::{Error, Result};
use table::Read;

const AT_TIME: &str = "timestamp as of";
const AT_VERSION: &str = "version as of";
const CHANGES: &str = "table_changes";
const CHANGES_SPELLED: &str =
    "expected `table_changes('table', after, to)` or `table_changes('table', after, to, 'key columns')`";

/// Depth of nesting that the parser follows.
const MAX_DEPTH: usize = 100;

/// A source that is not a table as it is.
#[derive(Debug, Clone)]
pub(super) struct Source {
    /// What the statement calls it now.
    pub(super) name: String,
    pub(super) of: SourceKind,
}

#[derive(Debug, Clone)]
pub(super) enum SourceKind {
    /// A table as it was at a time.
    Time { table: ObjectName, at: Expr },
    /// A table at the snapshot that a number, or a tag or branch that a text names.
    Version { table: ObjectName, at: Expr },
    /// The arguments of `table_changes`.
    Changes(Vec<Expr>),
}

type Unparsed = (ParserError, Vec<TokenWithSpan>);

/// Writes each `FOR TIMESTAMP | VERSION | SYSTEM_TIME | SYSTEM_VERSION AS OF expression` as arguments in brackets.
///
/// # Errors
/// What the parser says of the expression, with the tokens.
pub(super) fn mark_versions(tokens: Vec<TokenWithSpan>) -> Result<Vec<TokenWithSpan>, Unparsed> {
    let mut marked = Vec::with_capacity(tokens.len());
    // One over all tokens, which goes on from clause to clause.
    let mut parser = None;
    let mut i = 0;
    while i < tokens.len() {
        let Some((mark, begin)) = version_at(&tokens, i) else {
            marked.push(tokens[i].clone());
            i += 1;
            continue;
        };
        let parser = parser.get_or_insert_with(|| {
            let parser = Parser::new(&Athena).with_recursion_limit(MAX_DEPTH);
            parser.with_tokens_with_locations(tokens.clone())
        });
        while parser.index() < begin {
            parser.advance_token();
        }
        let parsed = parser.parse_expr();
        let end = parser.index();
        if let Err(error) = parsed {
            return Err((error, tokens));
        }
        let here = |token: Token| TokenWithSpan { token, span: tokens[i].span };
        marked.extend([here(Token::LParen), here(Token::SingleQuotedString(mark.to_owned())), here(Token::Comma)]);
        marked.extend_from_slice(&tokens[begin..end]);
        marked.push(here(Token::RParen));
        i = end;
    }
    Ok(marked)
}

/// The mark, and where the expression begins, of the version clause that begins at `i`.
fn version_at(tokens: &[TokenWithSpan], i: usize) -> Option<(&'static str, usize)> {
    let mut words = tokens[i..].iter().enumerate().filter(|(_, t)| !matches!(t.token, Token::Whitespace(_)));
    let mut next = || match words.next() {
        Some((at, TokenWithSpan { token: Token::Word(word), .. })) => Some((at, word)),
        _ => None,
    };
    let (at, word) = next()?;
    if at != 0 || word.keyword != Keyword::FOR {
        return None;
    }
    let mark = match next()?.1.value.to_ascii_lowercase().as_str() {
        "timestamp" | "system_time" => AT_TIME,
        "version" | "system_version" => AT_VERSION,
        _ => return None,
    };
    let (as_, of) = (next()?.1.keyword, next()?);
    (as_ == Keyword::AS && of.1.keyword == Keyword::OF).then_some((mark, i + of.0 + 1))
}

/// Takes these sources out of the statement, each replaced by a table of its own name.
///
/// # Errors
/// `Invalid` for arguments of `table_changes` that are no plain expressions.
pub(super) fn take(statement: &mut Parsed) -> Result<Vec<Source>> {
    match statement {
        Parsed::Statement(inner) => {
            let mut taken = SourceVisitor(Vec::new());
            match inner.as_mut().visit(&mut taken) {
                ControlFlow::Continue(()) => Ok(taken.0),
                ControlFlow::Break(error) => Err(error),
            }
        }
        Parsed::Explain(explain) => take(explain.statement.as_mut()),
        _ => Ok(Vec::new()),
    }
}

struct SourceVisitor(Vec<Source>);

impl VisitorMut for SourceVisitor {
    type Break = Error;

    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<Error> {
        let TableFactor::Table { name, alias, args, .. } = factor else { return ControlFlow::Continue(()) };
        let Some(found) = args.as_ref().and_then(|args| source(name, args)) else {
            return ControlFlow::Continue(());
        };
        let of = match found {
            Ok(of) => of,
            Err(error) => return ControlFlow::Break(error),
        };
        let last = name.0.last().and_then(|part| part.as_ident()).cloned().unwrap_or_else(|| Ident::new(CHANGES));
        let own = format!("${}", self.0.len());
        let first = name.0.first().and_then(|part| part.as_ident()).map_or(last.span, |ident| ident.span);
        *name = ObjectName::from(vec![Ident { value: own.clone(), quote_style: Some('"'), span: first }]);
        *args = None;
        alias.get_or_insert_with(|| TableAlias { explicit: true, name: last, columns: Vec::new(), at: None });
        self.0.push(Source { name: own, of });
        ControlFlow::Continue(())
    }
}

/// What a call in FROM is, if it is one of ours.
fn source(name: &ObjectName, args: &TableFunctionArgs) -> Option<Result<SourceKind>> {
    let plain = |arg: &FunctionArg| match arg {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Some(expr.clone()),
        _ => None,
    };
    let given: Option<Vec<Expr>> = args.args.iter().map(plain).collect();
    let own_name =
        matches!(name.0.as_slice(), [part] if part.as_ident().is_some_and(|i| i.value.eq_ignore_ascii_case(CHANGES)));
    if own_name {
        let expected =
            "expected `table_changes('table', after, to)` or `table_changes('table', after, to, 'key columns')`";
        return Some(given.map(SourceKind::Changes).ok_or_else(|| Error::invalid(expected)));
    }
    match given.as_deref() {
        Some([mark, at]) => match text_of(mark)? {
            AT_TIME => Some(Ok(SourceKind::Time { table: name.clone(), at: at.clone() })),
            AT_VERSION => Some(Ok(SourceKind::Version { table: name.clone(), at: at.clone() })),
            _ => None,
        },
        _ => None,
    }
}

/// The text that the expression is, if it is one.
pub(super) fn text_of(expr: &Expr) -> Option<&str> {
    match expr {
        Expr::Value(value) => match &value.value {
            Value::SingleQuotedString(text) => Some(text),
            _ => None,
        },
        _ => None,
    }
}

/// The value of an expression without columns.
///
/// # Errors
/// `Invalid` for one that has columns, or fails.
pub(super) async fn constant(state: &SessionState, expr: &Expr) -> Result<ScalarValue> {
    let doing = || format!("expected a value without columns, found `{expr}`");
    let mut statement = Parsed::Statement(Box::new(
        Parser::parse_sql(&GenericDialect {}, &format!("SELECT {expr}"))
            .ok()
            .and_then(|mut parsed| parsed.pop())
            .ok_or_else(|| Error::invalid(doing()))?,
    ));
    super::functions::rewrite(&mut statement)?;
    let value = async {
        let plan = state.statement_to_plan(statement).await?;
        let plan = state.create_physical_plan(&plan).await?;
        let batches = collect(plan, state.task_ctx()).await?;
        batches.first().map(|batch| ScalarValue::try_from_array(batch.column(0), 0)).transpose()
    };
    let value = value.await.map_err(|e| Error::from(e).context(doing()))?;
    value.ok_or_else(|| Error::invalid(doing()))
}

/// Milliseconds since the epoch of a timestamp, a date or a text; times without a zone are in UTC.
///
/// # Errors
/// `Invalid` for another value.
pub(super) async fn instant(state: &SessionState, expr: &Expr) -> Result<i64> {
    let value = constant(state, expr).await?;
    let unfit = || Error::invalid(format!("expected a timestamp, found `{expr}`"));
    match value.data_type() {
        DataType::Timestamp(..) | DataType::Date32 | DataType::Utf8 | DataType::Utf8View | DataType::LargeUtf8 => {}
        _ => return Err(unfit()),
    }
    match value.cast_to(&DataType::Timestamp(TimeUnit::Millisecond, None)) {
        Ok(ScalarValue::TimestampMillisecond(Some(ms), _)) => Ok(ms),
        _ => Err(unfit()),
    }
}

/// The snapshot of a number, or the tag or branch of a text.
///
/// # Errors
/// `Invalid` for another value.
pub(super) async fn version(state: &SessionState, expr: &Expr) -> Result<Read> {
    match constant(state, expr).await? {
        ScalarValue::Utf8(Some(text)) | ScalarValue::Utf8View(Some(text)) => {
            Ok(text.parse().map_or(Read::Reference(text), Read::Snapshot))
        }
        value => match (value.data_type().is_integer(), value.cast_to(&DataType::Int64)) {
            (true, Ok(ScalarValue::Int64(Some(id)))) => Ok(Read::Snapshot(id)),
            _ => Err(Error::invalid(format!("expected the id of a snapshot, or a tag in quotes, found `{expr}`"))),
        },
    }
}

/// What `table_changes` is asked for.
#[derive(Debug)]
pub(super) struct Changes {
    pub(super) table: TableName,
    /// Snapshots; none: from the start, up to the current one.
    pub(super) after: Option<i64>,
    pub(super) to: Option<i64>,
    pub(super) key: Option<Vec<String>>,
}

impl Changes {
    /// # Errors
    /// `Invalid` for arguments other than a table, two snapshots (or nulls), and the key's columns.
    pub(super) async fn of(state: &SessionState, arguments: &[Expr], database: &str) -> Result<Self> {
        let found = || arguments.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        let unfit = || Error::invalid(format!("{CHANGES_SPELLED}, found `{}`", found()));
        let (table, after, to, key) = match arguments {
            [table, after] => (table, after, None, None),
            [table, after, to] => (table, after, Some(to), None),
            [table, after, to, key] => (table, after, Some(to), Some(key)),
            _ => return Err(unfit()),
        };
        let table = TableName::parse(&text_of(table).ok_or_else(unfit)?.to_ascii_lowercase(), database)?;
        let key = match key {
            None => None,
            Some(key) => {
                let columns = text_of(key).ok_or_else(unfit)?.split(',');
                Some(columns.map(|column| column.trim().to_ascii_lowercase()).collect())
            }
        };
        let to = match to {
            Some(to) => snapshot(state, to).await?,
            None => None,
        };
        Ok(Self { table, after: snapshot(state, after).await?, to, key })
    }
}

async fn snapshot(state: &SessionState, expr: &Expr) -> Result<Option<i64>> {
    let value = constant(state, expr).await?;
    match (value.is_null(), value.data_type().is_integer(), value.cast_to(&DataType::Int64)) {
        (true, _, _) => Ok(None),
        (_, true, Ok(ScalarValue::Int64(Some(id)))) => Ok(Some(id)),
        _ => Err(Error::invalid(format!("expected the id of a snapshot or NULL, found `{expr}`"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guard;

    fn taken(sql: &str) -> (String, Vec<Source>) {
        let guard::Reading::Query(mut parsed) = guard::parse(sql).unwrap() else { panic!("{sql} is no query") };
        let sources = take(&mut parsed).unwrap();
        (parsed.to_string(), sources)
    }

    #[test]
    fn each_version_of_a_table_becomes_a_table_of_its_own_and_keeps_its_alias() {
        let (sql, sources) = taken(
            "SELECT * FROM nyc.t FOR VERSION AS OF 12 a JOIN t FOR SYSTEM_VERSION AS OF 'tag' ON a.id = t.id \
             JOIN t FOR TIMESTAMP AS OF now() - interval '1' day AS c ON true WHERE a.id > 1",
        );
        assert_eq!(
            sql,
            "SELECT * FROM \"$0\" AS a JOIN \"$1\" AS t ON a.id = t.id JOIN \"$2\" AS c ON true WHERE a.id > 1"
                .replace("AS a", "a")
        );
        assert!(matches!(&sources[0].of, SourceKind::Version { table, .. } if table.to_string() == "nyc.t"));
        assert!(matches!(&sources[2].of, SourceKind::Time { at, .. } if at.to_string() == "now() - INTERVAL '1' DAY"));
    }

    #[test]
    fn changes_become_a_table_of_their_own() {
        let (sql, sources) = taken("SELECT * FROM table_changes('db.t', 1, 2, 'id') WHERE x");
        assert_eq!(sql, "SELECT * FROM \"$0\" AS table_changes WHERE x");
        assert!(matches!(&sources[0].of, SourceKind::Changes(args) if args.len() == 4));
    }

    #[test]
    fn a_version_without_a_value_points_at_its_place() {
        let error = guard::parse("SELECT *\nFROM t FOR VERSION AS OF").unwrap_err();
        assert!(error.message().starts_with("line 2, column 25"), "{error}");
    }

    #[test]
    fn row_locks_are_no_versions() {
        assert_eq!(guard::parse("SELECT * FROM t FOR UPDATE").unwrap_err().kind(), shared::ErrorKind::Denied);
    }
}
