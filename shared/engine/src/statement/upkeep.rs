//! OPTIMIZE.

use datafusion::sql::sqlparser::ast::Expr;
use datafusion::sql::sqlparser::tokenizer::Token;

use super::Named;
use super::alter::sort_field;
use super::words::{Parsed, Words};
use table_datafusion::Arrangement;

#[derive(Debug)]
pub(crate) struct Optimize {
    pub(crate) table: Named,
    pub(crate) arrangement: Arrangement,
    pub(crate) condition: Option<Expr>,
}

/// `table REWRITE DATA USING BIN_PACK | SORT [(…)] | ZORDER (…) [WHERE …]`
pub(super) fn optimize(words: &mut Words<'_>) -> Parsed<Optimize> {
    let table = words.table()?;
    words.expect("REWRITE DATA")?;
    words.expect("USING")?;
    let arrangement = match words.eat_one(&["BIN_PACK", "SORT", "ZORDER", "Z_ORDER"]) {
        Some("BIN_PACK") => Arrangement::BinPack,
        Some("SORT") => {
            words.eat("BY");
            let named = words.parser.peek_token_ref().token == Token::LParen;
            Arrangement::Sort(if named { words.list(sort_field)? } else { Vec::new() })
        }
        Some(_) => {
            words.eat("BY");
            Arrangement::ZOrder(words.list(Words::path)?)
        }
        None => return words.unexpected("BIN_PACK, SORT (…) or ZORDER (…)"),
    };
    let condition = if words.eat("WHERE") { Some(words.expr()?) } else { None };
    Ok(Optimize { table, arrangement, condition })
}
