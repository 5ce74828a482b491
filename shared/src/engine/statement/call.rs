//! CALL of a procedure, as Spark names them and their arguments.

use datafusion::sql::sqlparser::tokenizer::Token;

use super::words::{Parsed, Words};
use super::{Named, Writing};
use crate::engine::errors::Place;

/// `[catalog.]system.register_table(table => '…', metadata_file => '…')`, or both in that order without their names.
pub(super) fn call(words: &mut Words<'_>) -> Parsed<Writing> {
    let procedure = words.parser.peek_token();
    let name = words.path()?;
    if name != "system.register_table" && !name.ends_with(".system.register_table") {
        return Words::refused(&procedure, format!("expected the procedure `system.register_table`, found `{name}`"));
    }
    words.expect_token(&Token::LParen)?;
    let (mut table, mut file) = (None, None);
    for place in 0..2 {
        if place > 0 {
            words.expect_token(&Token::Comma)?;
        }
        let start = words.parser.peek_token();
        let named = !matches!(start.token, Token::SingleQuotedString(_));
        let argument = if named { words.ident()? } else { ["table", "metadata_file"][place].to_owned() };
        if named {
            words.expect_token(&Token::RArrow)?;
        }
        let value = words.parser.peek_token();
        let text = words.text()?;
        match argument.as_str() {
            "table" if table.is_none() => {
                let parts: Vec<_> = text.split('.').map(str::to_ascii_lowercase).collect();
                if parts.len() > 3 {
                    return Words::refused(&value, "expected `table` or `database.table`");
                }
                table = Some(Named {
                    parts,
                    place: Place { line: value.span.start.line, column: value.span.start.column },
                });
            }
            "metadata_file" if file.is_none() => file = Some(text),
            _ => return Words::refused(&start, "expected `table` and `metadata_file`, each once"),
        }
    }
    words.expect_token(&Token::RParen)?;
    match (table, file) {
        (Some(table), Some(file)) => Ok(Writing::Register { table, file }),
        _ => words.unexpected("`table` and `metadata_file`"),
    }
}
