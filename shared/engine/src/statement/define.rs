//! CREATE and DROP of tables and databases.

use std::collections::BTreeMap;

use datafusion::sql::sqlparser::ast::Query;
use datafusion::sql::sqlparser::tokenizer::Token;

use super::words::{Parsed, Words};
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

pub(super) fn create(words: &mut Words<'_>) -> Parsed<Writing> {
    if words.eat_one(&["DATABASE", "SCHEMA"]).is_some() {
        let if_not_exists = words.eat("IF NOT EXISTS");
        return Ok(Writing::CreateDatabase { name: words.ident()?, if_not_exists });
    }
    words.expect("TABLE")?;
    let if_not_exists = words.eat("IF NOT EXISTS");
    let mut made = CreateTable {
        table: words.table()?,
        if_not_exists,
        columns: Vec::new(),
        partition_by: Vec::new(),
        location: None,
        comment: None,
        properties: BTreeMap::new(),
        query: None,
        with_data: true,
    };
    if words.parser.peek_token_ref().token == Token::LParen {
        made.columns = words.list(column)?;
    }
    while clause(words, &mut made)? {}
    if words.eat("AS") {
        made.query = Some(words.query()?);
        made.with_data = !words.eat("WITH NO DATA");
        words.eat("WITH DATA");
    } else if made.columns.is_empty() {
        return words.unexpected("`(` and the columns, or AS and a query");
    }
    Ok(Writing::CreateTable(made))
}

/// Takes one of the clauses that may follow in any order.
fn clause(words: &mut Words<'_>, made: &mut CreateTable) -> Parsed<bool> {
    if words.eat("PARTITIONED BY") {
        made.partition_by = words.list(Words::partition_field)?;
    } else if words.eat("LOCATION") {
        made.location = Some(words.text()?);
    } else if words.eat("COMMENT") {
        made.comment = Some(words.text()?);
    } else if words.eat("TBLPROPERTIES") {
        made.properties.extend(properties(words)?);
    } else if words.eat("USING") {
        words.expect("ICEBERG")?;
    } else if words.next_is("WITH") && !words.next_is("WITH NO DATA") {
        words.expect("WITH")?;
        options(words, made)?;
    } else {
        return Ok(false);
    }
    Ok(true)
}

/// `name type [NOT NULL] [COMMENT 'text']`
pub(super) fn column(words: &mut Words<'_>) -> Parsed<Column> {
    let mut column = Column::new(words.ident()?, words.column_type()?);
    loop {
        if words.eat("NOT NULL") {
            column.required = true;
        } else if words.eat("COMMENT") {
            column.comment = Some(words.text()?);
        } else if !words.eat("NULL") {
            return Ok(column);
        }
    }
}

/// `('key' = 'value', …)`
pub(super) fn properties(words: &mut Words<'_>) -> Parsed<BTreeMap<String, String>> {
    let pair = |words: &mut Words<'_>| {
        let key = words.text()?;
        words.expect_token(&Token::Eq)?;
        Ok((key, value(words)?))
    };
    Ok(words.list(pair)?.into_iter().collect())
}

/// A text; numbers and truth values stand for theirs.
fn value(words: &mut Words<'_>) -> Parsed<String> {
    let token = words.parser.next_token();
    match token.token {
        Token::SingleQuotedString(text) => Ok(text),
        Token::Number(digits, _) => Ok(digits),
        Token::Word(word) if ["true", "false"].contains(&word.value.to_ascii_lowercase().as_str()) => {
            Ok(word.value.to_ascii_lowercase())
        }
        _ => words.parser.expected("a value in quotes", token),
    }
}

/// `(key = value, …)` of CREATE TABLE AS; `partitioning = ARRAY['day(ts)']` are partition fields.
fn options(words: &mut Words<'_>, made: &mut CreateTable) -> Parsed<()> {
    words.expect_token(&Token::LParen)?;
    loop {
        let token = words.parser.peek_token();
        let key = words.ident()?;
        words.expect_token(&Token::Eq)?;
        match key.as_str() {
            "partitioning" | "partitioned_by" => {
                words.expect("ARRAY")?;
                made.partition_by = texts(words)?;
            }
            "bucketed_by" | "bucket_count" => {
                return Words::refused(
                    &token,
                    "expected `partitioning = ARRAY['bucket(column, n)']`, found bucketing of Hive",
                );
            }
            "location" | "external_location" => made.location = Some(words.text()?),
            _ => {
                made.properties.insert(key, value(words)?);
            }
        }
        if !words.eat_token(&Token::Comma) {
            return words.expect_token(&Token::RParen);
        }
    }
}

/// Partition fields that are written as texts: `['day(ts)', 'carrier']`.
fn texts(words: &mut Words<'_>) -> Parsed<Vec<PartitionField>> {
    words.expect_token(&Token::LBracket)?;
    let mut fields = Vec::new();
    while !words.eat_token(&Token::RBracket) {
        if !fields.is_empty() {
            words.expect_token(&Token::Comma)?;
        }
        let token = words.parser.peek_token();
        fields.push(of_text(&words.text()?).or_else(|e| Words::refused(&token, e))?);
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
    let mut words = Words::new(tokens);
    words.partition_field().and_then(|field| words.end().map(|()| field)).map_err(|_| expected())
}

pub(super) fn drop(words: &mut Words<'_>) -> Parsed<Writing> {
    if words.eat_one(&["DATABASE", "SCHEMA"]).is_some() {
        let if_exists = words.eat("IF EXISTS");
        let name = words.ident()?;
        words.eat("RESTRICT");
        return Ok(Writing::DropDatabase { name, if_exists });
    }
    words.expect("TABLE")?;
    let if_exists = words.eat("IF EXISTS");
    let table = words.table()?;
    let purge = words.eat("PURGE");
    Ok(Writing::DropTable { table, if_exists, purge })
}
