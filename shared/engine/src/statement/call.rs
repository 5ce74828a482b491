//! CALL of a procedure, as Spark and Trino name them and their arguments.

use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan};

use super::cursor::{Cursor, Parsed};
use super::{Named, Writing};
use crate::errors::Place;

/// `[catalog.]system.register_table(table => '…', metadata_file => '…')` or `[catalog.]system.unregister_table(table => '…')`; the
/// arguments may come in that order without their names.
pub(super) fn call(cursor: &mut Cursor<'_>) -> Parsed<Writing> {
    let procedure = cursor.parser.peek_token();
    let name = cursor.path()?;
    let known = ["register_table", "unregister_table"].into_iter().find(|known| {
        let full = format!("system.{known}");
        name == full || name.ends_with(&format!(".{full}"))
    });
    match known {
        Some("register_table") => {
            let [(table, at), (file, _)] = arguments(cursor, ["table", "metadata_file"])?;
            Ok(Writing::Register { table: named(&table, &at)?, file })
        }
        Some(_) => {
            let [(table, at)] = arguments(cursor, ["table"])?;
            Ok(Writing::Unregister { table: named(&table, &at)? })
        }
        None => Cursor::refused(
            &procedure,
            format!("expected the procedure `system.register_table` or `system.unregister_table`, found `{name}`"),
        ),
    }
}

/// The texts in parentheses, each once, and where each stands.
fn arguments<const N: usize>(cursor: &mut Cursor<'_>, names: [&str; N]) -> Parsed<[(String, TokenWithSpan); N]> {
    let expected = || names.map(|name| format!("`{name}`")).join(" and ");
    let mut found: [Option<(String, TokenWithSpan)>; N] = std::array::from_fn(|_| None);
    cursor.expect_token(&Token::LParen)?;
    for place in 0..N {
        if place > 0 {
            cursor.expect_token(&Token::Comma)?;
        }
        let start = cursor.parser.peek_token();
        let is_named = !matches!(start.token, Token::SingleQuotedString(_));
        let name = if is_named { cursor.ident()? } else { names[place].to_owned() };
        if is_named {
            cursor.expect_token(&Token::RArrow)?;
        }
        let value = cursor.parser.peek_token();
        let text = cursor.text()?;
        match names.iter().position(|known| *known == name).map(|place| &mut found[place]) {
            Some(argument @ None) => *argument = Some((text, value)),
            _ => return Cursor::refused(&start, format!("expected {}, each once", expected())),
        }
    }
    cursor.expect_token(&Token::RParen)?;
    // As many as there are names, none twice: all of them.
    match found.into_iter().collect::<Option<Vec<_>>>().and_then(|all| all.try_into().ok()) {
        Some(all) => Ok(all),
        None => cursor.unexpected(&expected()),
    }
}

fn named(text: &str, at: &TokenWithSpan) -> Parsed<Named> {
    let parts: Vec<_> = text.split('.').map(str::to_ascii_lowercase).collect();
    if parts.len() > 3 {
        return Cursor::refused(at, "expected `table` or `database.table`");
    }
    Ok(Named { parts, place: Place { line: at.span.start.line, column: at.span.start.column } })
}
