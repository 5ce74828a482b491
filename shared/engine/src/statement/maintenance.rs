//! OPTIMIZE.

use datafusion::sql::sqlparser::ast::Expr;
use datafusion::sql::sqlparser::tokenizer::Token;

use super::Named;
use super::alter::sort_field;
use super::cursor::{Cursor, Parsed};
use table_datafusion::Arrangement;

#[derive(Debug)]
pub(crate) struct Optimize {
    pub(crate) table: Named,
    pub(crate) arrangement: Arrangement,
    pub(crate) condition: Option<Expr>,
}

/// `table REWRITE DATA USING BIN_PACK | SORT [(…)] | ZORDER (…) [WHERE …]`
pub(super) fn optimize(cursor: &mut Cursor<'_>) -> Parsed<Optimize> {
    let table = cursor.table()?;
    cursor.expect("REWRITE DATA")?;
    cursor.expect("USING")?;
    let arrangement = match cursor.eat_one(&["BIN_PACK", "SORT", "ZORDER", "Z_ORDER"]) {
        Some("BIN_PACK") => Arrangement::BinPack,
        Some("SORT") => {
            cursor.eat("BY");
            let named = cursor.parser.peek_token_ref().token == Token::LParen;
            Arrangement::Sort(if named { cursor.list(sort_field)? } else { Vec::new() })
        }
        Some(_) => {
            cursor.eat("BY");
            Arrangement::ZOrder(cursor.list(Cursor::path)?)
        }
        None => return cursor.unexpected("BIN_PACK, SORT (…) or ZORDER (…)"),
    };
    let condition = if cursor.eat("WHERE") { Some(cursor.expr()?) } else { None };
    Ok(Optimize { table, arrangement, condition })
}
