//! INSERT, DELETE, UPDATE and MERGE.

use datafusion::sql::sqlparser::ast::{Expr, Query, TableFactor};
use datafusion::sql::sqlparser::tokenizer::Token;

use super::Named;
use super::cursor::{Cursor, Parsed};

/// What becomes of the rows that are there.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Into {
    /// They stay.
    Append,
    /// They leave: all, or those of the partitions that rows come for.
    Overwrite,
    /// Those leave for which all of these hold.
    Replace(Vec<Expr>),
}

#[derive(Debug)]
pub(crate) struct Insert {
    pub(crate) table: Named,
    /// The columns that the query gives, in its order; empty: all of the table.
    pub(crate) columns: Vec<String>,
    /// Columns that have one value in all rows: `PARTITION (day = DATE '2013-01-01')`.
    pub(crate) fixed: Vec<(String, Expr)>,
    pub(crate) into: Into,
    pub(crate) query: Box<Query>,
}

#[derive(Debug)]
pub(crate) struct Delete {
    pub(crate) table: Named,
    pub(crate) alias: Option<String>,
    pub(crate) condition: Option<Expr>,
}

#[derive(Debug)]
pub(crate) struct Update {
    pub(crate) table: Named,
    pub(crate) alias: Option<String>,
    pub(crate) set: Vec<(String, Expr)>,
    pub(crate) condition: Option<Expr>,
}

#[derive(Debug)]
pub(crate) struct Merge {
    pub(crate) table: Named,
    pub(crate) alias: Option<String>,
    pub(crate) source: TableFactor,
    pub(crate) on: Expr,
    pub(crate) arms: Vec<Arm>,
}

/// `WHEN … [AND condition] THEN …`
#[derive(Debug)]
pub(crate) struct Arm {
    pub(crate) when: Match,
    pub(crate) condition: Option<Expr>,
    pub(crate) action: Action,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Match {
    /// A row of the table and one of the source.
    Both,
    /// A row of the source alone: WHEN NOT MATCHED.
    Source,
    /// A row of the table alone: WHEN NOT MATCHED BY SOURCE.
    Target,
}

#[derive(Debug)]
pub(crate) enum Action {
    Delete,
    Update(Vec<(String, Expr)>),
    /// `UPDATE SET *`: every column from the source's of its name.
    UpdateAll,
    /// Columns, all of the table if empty, and their values.
    Insert(Vec<String>, Vec<Expr>),
    /// `INSERT *`
    InsertAll,
}

pub(super) fn insert(cursor: &mut Cursor<'_>) -> Parsed<Insert> {
    let overwrite = cursor.eat("OVERWRITE");
    if !overwrite {
        cursor.expect("INTO")?;
    }
    cursor.eat("TABLE");
    let table = cursor.table()?;
    let fixed = if cursor.eat("PARTITION") { cursor.list(equality)? } else { Vec::new() };
    let columns = if begins_columns(cursor) { cursor.list(Cursor::ident)? } else { Vec::new() };
    let into = if overwrite {
        let conditions: Vec<Expr> = fixed.iter().map(|(column, value)| equals(column, value)).collect();
        if conditions.is_empty() { Into::Overwrite } else { Into::Replace(conditions) }
    } else if cursor.eat("REPLACE WHERE") {
        Into::Replace(vec![cursor.expr()?])
    } else {
        Into::Append
    };
    Ok(Insert { table, columns, fixed, into, query: cursor.query()? })
}

/// Whether a bracket opens a list of columns and not a query.
fn begins_columns(cursor: &Cursor<'_>) -> bool {
    let second = cursor.parser.peek_nth_token_ref(1);
    let query = ["SELECT", "WITH", "VALUES", "TABLE"];
    let opens_query = match &second.token {
        Token::LParen => true,
        Token::Word(word) => word.quote_style.is_none() && query.contains(&word.value.to_ascii_uppercase().as_str()),
        _ => false,
    };
    cursor.parser.peek_token_ref().token == Token::LParen && !opens_query
}

fn equality(cursor: &mut Cursor<'_>) -> Parsed<(String, Expr)> {
    let column = cursor.ident()?;
    cursor.expect_token(&Token::Eq)?;
    Ok((column, cursor.expr()?))
}

fn equals(column: &str, value: &Expr) -> Expr {
    use datafusion::sql::sqlparser::ast::{BinaryOperator, Ident};
    let column = Expr::Identifier(Ident::with_quote('"', column));
    Expr::BinaryOp {
        left: Box::new(column),
        op: BinaryOperator::Eq,
        right: Box::new(Expr::Nested(Box::new(value.clone()))),
    }
}

pub(super) fn delete(cursor: &mut Cursor<'_>) -> Parsed<Delete> {
    cursor.expect("FROM")?;
    let (table, alias) = target(cursor, &["WHERE"])?;
    let condition = if cursor.eat("WHERE") { Some(cursor.expr()?) } else { None };
    Ok(Delete { table, alias, condition })
}

pub(super) fn truncate(cursor: &mut Cursor<'_>) -> Parsed<Delete> {
    cursor.expect("TABLE")?;
    Ok(Delete { table: cursor.table()?, alias: None, condition: None })
}

pub(super) fn update(cursor: &mut Cursor<'_>) -> Parsed<Update> {
    let (table, alias) = target(cursor, &["SET"])?;
    cursor.expect("SET")?;
    let set = assignments(cursor, table.table(), alias.as_deref())?;
    let condition = if cursor.eat("WHERE") { Some(cursor.expr()?) } else { None };
    Ok(Update { table, alias, set, condition })
}

/// `table [[AS] alias]`; words of `ends` are no alias.
fn target(cursor: &mut Cursor<'_>, ends: &[&str]) -> Parsed<(Named, Option<String>)> {
    let table = cursor.table()?;
    let named = cursor.eat("AS")
        || (matches!(cursor.parser.peek_token_ref().token, Token::Word(_))
            && !ends.iter().any(|end| cursor.next_is(end)));
    let alias = if named { Some(cursor.ident()?) } else { None };
    Ok((table, alias))
}

/// `column = value, …`; columns may be qualified with the table's name or alias.
fn assignments(cursor: &mut Cursor<'_>, table: &str, alias: Option<&str>) -> Parsed<Vec<(String, Expr)>> {
    let mut set: Vec<(String, Expr)> = Vec::new();
    loop {
        let token = cursor.parser.peek_token();
        let path = cursor.path()?;
        let of_target = |prefix: &str| prefix == alias.unwrap_or(table) || prefix.rsplit('.').next() == Some(table);
        let column = match path.rsplit_once('.') {
            None => path,
            Some((prefix, column)) if of_target(prefix) => column.to_owned(),
            Some(_) => {
                let expected = format!("expected a column of `{}` to set, found `{path}`", alias.unwrap_or(table));
                return Cursor::refused(&token, expected);
            }
        };
        if set.iter().any(|(known, _)| *known == column) {
            return Cursor::refused(&token, format!("expected every column once, found `{column}` a second time"));
        }
        cursor.expect_token(&Token::Eq)?;
        set.push((column, cursor.expr()?));
        if !cursor.eat_token(&Token::Comma) {
            return Ok(set);
        }
    }
}

pub(super) fn merge(cursor: &mut Cursor<'_>) -> Parsed<Merge> {
    cursor.expect("INTO")?;
    let (table, alias) = target(cursor, &["USING"])?;
    cursor.expect("USING")?;
    let source = cursor.parser.parse_table_factor()?;
    cursor.expect("ON")?;
    let on = cursor.expr()?;
    let mut arms = Vec::new();
    while cursor.eat("WHEN") {
        arms.push(arm(cursor, table.table(), alias.as_deref())?);
    }
    match arms.is_empty() {
        true => cursor.unexpected("WHEN MATCHED or WHEN NOT MATCHED"),
        false => Ok(Merge { table, alias, source, on, arms }),
    }
}

fn arm(cursor: &mut Cursor<'_>, table: &str, alias: Option<&str>) -> Parsed<Arm> {
    let when = match cursor.eat_one(&["MATCHED", "NOT MATCHED BY SOURCE", "NOT MATCHED BY TARGET", "NOT MATCHED"]) {
        Some("MATCHED") => Match::Both,
        Some("NOT MATCHED BY SOURCE") => Match::Target,
        Some(_) => Match::Source,
        None => return cursor.unexpected("MATCHED, NOT MATCHED or NOT MATCHED BY SOURCE"),
    };
    let condition = if cursor.eat("AND") { Some(cursor.expr()?) } else { None };
    cursor.expect("THEN")?;
    let token = cursor.parser.peek_token();
    let action = match cursor.eat_one(&["DELETE", "UPDATE SET", "INSERT"]) {
        Some("DELETE") => Action::Delete,
        Some("UPDATE SET") if cursor.eat_token(&Token::Mul) => Action::UpdateAll,
        Some("UPDATE SET") => Action::Update(assignments(cursor, table, alias)?),
        Some(_) if cursor.eat_token(&Token::Mul) => Action::InsertAll,
        Some(_) => inserted(cursor)?,
        None => return cursor.unexpected("UPDATE SET, DELETE or INSERT"),
    };
    let inserts = matches!(action, Action::Insert(..) | Action::InsertAll);
    match (when, &action) {
        (Match::Source, _) if !inserts => {
            Cursor::refused(&token, "expected INSERT: there is no row of the table to change")
        }
        (Match::Both | Match::Target, _) if inserts => {
            Cursor::refused(&token, "expected UPDATE SET or DELETE: there is a row of the table")
        }
        (Match::Target, Action::UpdateAll) => {
            Cursor::refused(&token, "expected UPDATE SET with columns: there is no row of the source")
        }
        _ => Ok(Arm { when, condition, action }),
    }
}

fn inserted(cursor: &mut Cursor<'_>) -> Parsed<Action> {
    let columns = match cursor.next_is("VALUES") {
        true => Vec::new(),
        false => cursor.list(Cursor::ident)?,
    };
    cursor.expect("VALUES")?;
    let token = cursor.parser.peek_token();
    let values = cursor.list(Cursor::expr)?;
    if !columns.is_empty() && columns.len() != values.len() {
        let found = format!("expected {} values, one for each column, found {}", columns.len(), values.len());
        return Cursor::refused(&token, found);
    }
    Ok(Action::Insert(columns, values))
}
