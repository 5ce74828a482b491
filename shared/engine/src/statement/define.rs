//! CREATE and DROP of tables and databases.

use std::collections::BTreeMap;

use datafusion::sql::sqlparser::ast::Query;
use datafusion::sql::sqlparser::tokenizer::Token;

use super::cursor::{Cursor, Parsed};
use super::{Named, Writing};
use shared::model::Column;
use shared::model::PartitionField;

/// `CREATE TABLE`, with columns or AS a query.
#[derive(Debug)]
pub(crate) struct CreateTable {
    pub(crate) table: Named,
    pub(crate) if_not_exists: bool,
    pub(crate) columns: Vec<Column>,
    pub(crate) partition_by: Vec<PartitionField>,
    pub(crate) location: Option<String>,
    pub(crate) comment: Option<String>,
    /// Keys in lower case.
    pub(crate) properties: BTreeMap<String, String>,
    pub(crate) query: Option<Box<Query>>,
    /// `WITH NO DATA` leaves the query's rows out.
    pub(crate) with_data: bool,
}

pub(super) fn create(cursor: &mut Cursor<'_>) -> Parsed<Writing> {
    if cursor.eat_one(&["DATABASE", "SCHEMA"]).is_some() {
        let if_not_exists = cursor.eat("IF NOT EXISTS");
        return Ok(Writing::CreateDatabase { name: cursor.ident()?, if_not_exists });
    }
    cursor.expect("TABLE")?;
    let if_not_exists = cursor.eat("IF NOT EXISTS");
    let mut made = CreateTable {
        table: cursor.table()?,
        if_not_exists,
        columns: Vec::new(),
        partition_by: Vec::new(),
        location: None,
        comment: None,
        properties: BTreeMap::new(),
        query: None,
        with_data: true,
    };
    if cursor.parser.peek_token_ref().token == Token::LParen {
        made.columns = cursor.list(column)?;
    }
    while clause(cursor, &mut made)? {}
    if cursor.eat("AS") {
        made.query = Some(cursor.query()?);
        made.with_data = !cursor.eat("WITH NO DATA");
        cursor.eat("WITH DATA");
    } else if made.columns.is_empty() {
        return cursor.unexpected("`(` and the columns, or AS and a query");
    }
    Ok(Writing::CreateTable(made))
}

/// Takes one of the clauses that may follow in any order.
fn clause(cursor: &mut Cursor<'_>, made: &mut CreateTable) -> Parsed<bool> {
    if cursor.eat("PARTITIONED BY") {
        made.partition_by = cursor.list(Cursor::partition_field)?;
    } else if cursor.eat("LOCATION") {
        made.location = Some(cursor.text()?);
    } else if cursor.eat("COMMENT") {
        made.comment = Some(cursor.text()?);
    } else if cursor.eat("TBLPROPERTIES") {
        made.properties.extend(properties(cursor)?);
    } else if cursor.eat("USING") {
        cursor.expect("ICEBERG")?;
    } else if cursor.next_is("WITH") && !cursor.next_is("WITH NO DATA") {
        cursor.expect("WITH")?;
        options(cursor, made)?;
    } else {
        return Ok(false);
    }
    Ok(true)
}

/// `name type [NOT NULL] [COMMENT 'text']`
pub(super) fn column(cursor: &mut Cursor<'_>) -> Parsed<Column> {
    let mut column = Column::new(cursor.ident()?, cursor.column_type()?);
    loop {
        if cursor.eat("NOT NULL") {
            column.required = true;
        } else if cursor.eat("COMMENT") {
            column.comment = Some(cursor.text()?);
        } else if !cursor.eat("NULL") {
            return Ok(column);
        }
    }
}

/// `('key' = 'value', …)`
pub(super) fn properties(cursor: &mut Cursor<'_>) -> Parsed<BTreeMap<String, String>> {
    let pair = |cursor: &mut Cursor<'_>| {
        let key = cursor.text()?;
        cursor.expect_token(&Token::Eq)?;
        Ok((key, value(cursor)?))
    };
    Ok(cursor.list(pair)?.into_iter().collect())
}

/// A text; numbers and truth values stand for theirs.
fn value(cursor: &mut Cursor<'_>) -> Parsed<String> {
    let token = cursor.parser.next_token();
    match token.token {
        Token::SingleQuotedString(text) => Ok(text),
        Token::Number(digits, _) => Ok(digits),
        Token::Word(word) if ["true", "false"].contains(&word.value.to_ascii_lowercase().as_str()) => {
            Ok(word.value.to_ascii_lowercase())
        }
        _ => cursor.parser.expected("a value in quotes", token),
    }
}

/// `(key = value, …)` of CREATE TABLE AS; `partitioning = ARRAY['day(ts)']` are partition fields.
fn options(cursor: &mut Cursor<'_>, made: &mut CreateTable) -> Parsed<()> {
    cursor.expect_token(&Token::LParen)?;
    loop {
        let token = cursor.parser.peek_token();
        let key = cursor.ident()?;
        cursor.expect_token(&Token::Eq)?;
        match key.as_str() {
            "partitioning" | "partitioned_by" => {
                cursor.expect("ARRAY")?;
                made.partition_by = texts(cursor)?;
            }
            "bucketed_by" | "bucket_count" => {
                return Cursor::refused(
                    &token,
                    "expected `partitioning = ARRAY['bucket(column, n)']`, found bucketing of Hive",
                );
            }
            "location" | "external_location" => made.location = Some(cursor.text()?),
            _ => {
                made.properties.insert(key, value(cursor)?);
            }
        }
        if !cursor.eat_token(&Token::Comma) {
            return cursor.expect_token(&Token::RParen);
        }
    }
}

/// Partition fields that are written as texts: `['day(ts)', 'carrier']`.
fn texts(cursor: &mut Cursor<'_>) -> Parsed<Vec<PartitionField>> {
    cursor.expect_token(&Token::LBracket)?;
    let mut fields = Vec::new();
    while !cursor.eat_token(&Token::RBracket) {
        if !fields.is_empty() {
            cursor.expect_token(&Token::Comma)?;
        }
        let token = cursor.parser.peek_token();
        fields.push(of_text(&cursor.text()?).or_else(|e| Cursor::refused(&token, e))?);
    }
    Ok(fields)
}

fn of_text(text: &str) -> Result<PartitionField, String> {
    let expected = || {
        format!(
            "expected a column, or year|month|day|hour(column), bucket(column, n), truncate(column, n), found `{text}`"
        )
    };
    let tokens = crate::guard::tokens(text).map_err(|_| expected())?;
    let mut cursor = Cursor::new(tokens);
    cursor.partition_field().and_then(|field| cursor.end().map(|()| field)).map_err(|_| expected())
}

pub(super) fn drop(cursor: &mut Cursor<'_>) -> Parsed<Writing> {
    if cursor.eat_one(&["DATABASE", "SCHEMA"]).is_some() {
        let if_exists = cursor.eat("IF EXISTS");
        let name = cursor.ident()?;
        cursor.eat("RESTRICT");
        return Ok(Writing::DropDatabase { name, if_exists });
    }
    cursor.expect("TABLE")?;
    let if_exists = cursor.eat("IF EXISTS");
    let table = cursor.table()?;
    let purge = cursor.eat("PURGE");
    Ok(Writing::DropTable { table, if_exists, purge })
}
