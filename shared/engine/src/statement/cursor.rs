//! A cursor over the tokens of a statement: words by their text, and the parts that several statements share.
//!
//! Expressions and queries are left to `sqlparser`, whose parser this is a thin layer on.

use datafusion::sql::sqlparser::ast::{Expr, Query};
use datafusion::sql::sqlparser::parser::{Parser, ParserError};
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan, Word};

use super::Named;
use crate::dialect::Athena;
use crate::errors::Place;
use shared::model::ColumnType;
use shared::model::{PartitionField, Transform};

pub(super) type Parsed<T> = Result<T, ParserError>;

/// Depth of nesting that the parser follows.
const MAX_DEPTH: usize = 100;

/// Types as they are spelled within others, and as [`ColumnType`] reads them; longer ones first.
const SPELLED: [(&str, &str); 6] = [
    ("timestamp(9)with time zone", "timestamptz_ns"),
    ("timestamp(6)with time zone", "timestamptz"),
    ("timestamp with time zone", "timestamptz"),
    ("timestamp(9)", "timestamp_ns"),
    ("timestamp(6)", "timestamp"),
    ("time(6)", "time"),
];

pub(super) struct Cursor<'a> {
    pub(super) parser: Parser<'a>,
}

impl Cursor<'_> {
    pub(super) fn new(tokens: Vec<TokenWithSpan>) -> Self {
        let parser = Parser::new(&Athena).with_recursion_limit(MAX_DEPTH);
        Self { parser: parser.with_tokens_with_locations(tokens) }
    }

    /// Whether the words of `phrase` come next.
    pub(super) fn next_is(&self, phrase: &str) -> bool {
        phrase.split(' ').enumerate().all(|(i, word)| is_word(&self.parser.peek_nth_token_ref(i).token, word))
    }

    /// Takes the words of `phrase` if they come next.
    pub(super) fn eat(&mut self, phrase: &str) -> bool {
        let found = self.next_is(phrase);
        if found {
            phrase.split(' ').for_each(|_| self.parser.advance_token());
        }
        found
    }

    pub(super) fn expect(&mut self, phrase: &str) -> Parsed<()> {
        match self.eat(phrase) {
            true => Ok(()),
            false => self.unexpected(phrase),
        }
    }

    /// Takes the first of `phrases` that comes next.
    pub(super) fn eat_one<'p>(&mut self, phrases: &[&'p str]) -> Option<&'p str> {
        phrases.iter().copied().find(|phrase| self.eat(phrase))
    }

    pub(super) fn eat_token(&mut self, token: &Token) -> bool {
        self.parser.consume_token(token)
    }

    pub(super) fn expect_token(&mut self, token: &Token) -> Parsed<()> {
        self.parser.expect_token(token).map(|_| ())
    }

    pub(super) fn unexpected<T>(&self, expected: &str) -> Parsed<T> {
        self.parser.expected_ref(expected, self.parser.peek_token_ref())
    }

    /// A refusal of what begins at `token`.
    pub(super) fn refused<T>(token: &TokenWithSpan, message: impl std::fmt::Display) -> Parsed<T> {
        Err(ParserError::ParserError(format!("{message}{}", token.span.start)))
    }

    pub(super) fn end(&mut self) -> Parsed<()> {
        while self.eat_token(&Token::SemiColon) {}
        match self.parser.peek_token_ref().token {
            Token::EOF => Ok(()),
            _ => self.unexpected("end of statement"),
        }
    }

    /// A name, in lower case as all names are.
    pub(super) fn ident(&mut self) -> Parsed<String> {
        Ok(self.parser.parse_identifier()?.value.to_ascii_lowercase())
    }

    /// A column, or a field in one: `a.b`.
    pub(super) fn path(&mut self) -> Parsed<String> {
        let mut path = self.ident()?;
        while self.eat_token(&Token::Period) {
            path = format!("{path}.{}", self.ident()?);
        }
        Ok(path)
    }

    pub(super) fn table(&mut self) -> Parsed<Named> {
        let token = self.parser.peek_token();
        let mut parts = vec![self.ident()?];
        while self.eat_token(&Token::Period) {
            parts.push(self.ident()?);
        }
        let place = Place { line: token.span.start.line, column: token.span.start.column };
        match parts.len() {
            1..=3 => Ok(Named { parts, place }),
            _ => Self::refused(&token, "expected `table` or `database.table`"),
        }
    }

    pub(super) fn text(&mut self) -> Parsed<String> {
        self.parser.parse_literal_string()
    }

    pub(super) fn whole_number(&mut self) -> Parsed<u64> {
        self.parser.parse_literal_uint()
    }

    pub(super) fn snapshot(&mut self) -> Parsed<i64> {
        let token = self.parser.peek_token();
        match i64::try_from(self.whole_number()?) {
            Ok(id) => Ok(id),
            Err(_) => Self::refused(&token, "expected the id of a snapshot"),
        }
    }

    pub(super) fn expr(&mut self) -> Parsed<Expr> {
        self.parser.parse_expr()
    }

    pub(super) fn query(&mut self) -> Parsed<Box<Query>> {
        self.parser.parse_query()
    }

    /// `( item, … )`, at least one.
    pub(super) fn list<T>(&mut self, mut item: impl FnMut(&mut Self) -> Parsed<T>) -> Parsed<Vec<T>> {
        self.expect_token(&Token::LParen)?;
        let items = self.items(&mut item)?;
        self.expect_token(&Token::RParen)?;
        Ok(items)
    }

    /// `item, …`, at least one.
    pub(super) fn items<T>(&mut self, item: &mut impl FnMut(&mut Self) -> Parsed<T>) -> Parsed<Vec<T>> {
        let mut items = vec![item(self)?];
        while self.eat_token(&Token::Comma) {
            items.push(item(self)?);
        }
        Ok(items)
    }

    /// A column type in the words of Glue, Athena DDL or standard SQL.
    pub(super) fn column_type(&mut self) -> Parsed<ColumnType> {
        let first = self.parser.peek_token();
        let mut text = self.ident()?;
        if text == "double" {
            self.eat("precision");
        }
        if matches!(self.parser.peek_token_ref().token, Token::Lt | Token::LParen) {
            text += &self.balanced()?;
        }
        if text == "timestamp" || text.starts_with("timestamp(") {
            // Past the sixth digit only nanoseconds will do.
            let nanos = ["timestamp(7)", "timestamp(8)", "timestamp(9)"].contains(&text.as_str());
            let zone = if self.eat("with time zone") { "tz" } else { "" };
            text = format!("timestamp{zone}{}", if nanos { "_ns" } else { "" });
            self.eat("without time zone");
        }
        if ["time(0)", "time(3)", "time(6)"].contains(&text.as_str()) {
            text = "time".to_owned();
        }
        for (spelled, ours) in SPELLED {
            text = text.replace(spelled, ours);
        }
        text.parse().or_else(|e: shared::Error| Self::refused(&first, e.message()))
    }

    /// The text of the tokens up to the bracket that closes the next one.
    fn balanced(&mut self) -> Parsed<String> {
        let (mut text, mut depth, mut after_word) = (String::new(), 0_i32, false);
        loop {
            let token = self.parser.next_token();
            match token.token {
                Token::Lt | Token::LParen => depth += 1,
                Token::Gt | Token::RParen => depth -= 1,
                Token::ShiftRight => depth -= 2,
                Token::EOF | Token::SemiColon => return self.parser.expected("`>` or `)`", token),
                _ => {}
            }
            let word = matches!(token.token, Token::Word(_));
            if word && after_word {
                text.push(' ');
            }
            after_word = word;
            match token.token {
                Token::Word(Word { value, quote_style: Some(_), .. }) => {
                    text += &format!("`{}`", value.replace('`', "``"));
                }
                Token::Word(Word { value, .. }) => text += &value.to_ascii_lowercase(),
                other => text += &other.to_string(),
            }
            if depth <= 0 {
                return Ok(text);
            }
        }
    }

    /// `column`, `day(ts)`, `bucket(16, id)`; the plural names of Spark and Trino's order of arguments are understood too.
    pub(super) fn partition_field(&mut self) -> Parsed<PartitionField> {
        let token = self.parser.peek_token();
        let name = self.path()?;
        if !self.eat_token(&Token::LParen) {
            return Ok(PartitionField { column: name, transform: Transform::Identity });
        }
        let sized = match self.parser.peek_token_ref().token {
            Token::Number(..) => {
                let size = self.whole_number()?;
                self.expect_token(&Token::Comma)?;
                Some(size)
            }
            _ => None,
        };
        let column = self.path()?;
        let sized = match sized {
            None if self.eat_token(&Token::Comma) => Some(self.whole_number()?),
            sized => sized,
        };
        self.expect_token(&Token::RParen)?;
        let size = sized.map(|n| u32::try_from(n).ok().filter(|n| *n > 0));
        let transform = match (name.as_str(), size) {
            ("year" | "years", None) => Transform::Year,
            ("month" | "months", None) => Transform::Month,
            ("day" | "days" | "date", None) => Transform::Day,
            ("hour" | "hours" | "date_hour", None) => Transform::Hour,
            ("bucket", Some(Some(n))) => Transform::Bucket(n),
            ("truncate", Some(Some(n))) => Transform::Truncate(n),
            _ => {
                let expected = "a column, or year|month|day|hour(column), bucket(n, column), truncate(n, column)";
                return self.parser.expected(expected, token);
            }
        };
        Ok(PartitionField { column, transform })
    }
}

fn is_word(token: &Token, word: &str) -> bool {
    matches!(token, Token::Word(w) if w.quote_style.is_none() && w.value.eq_ignore_ascii_case(word))
}
