//! What can be told of an SQL text before it is parsed.

use sqlparser::keywords::Keyword;
use sqlparser::tokenizer::{Token, TokenWithSpan};

use crate::{Error, Result};

/// Operators in one expression, those around a parenthesis counted too.
const MAX_OPERATORS: usize = 5_000;

/// Checks the rows of operators in a statement's text.
///
/// # Errors
/// `Limit`, with the count.
pub fn check_operators(tokens: &[TokenWithSpan]) -> Result<()> {
    // How many stand at each level of parentheses around the token, since the last comma there.
    let mut levels = vec![0_usize];
    let mut total = 0_usize;
    for token in tokens {
        match &token.token {
            Token::LParen => levels.push(0),
            Token::RParen if levels.len() > 1 => total -= levels.pop().unwrap_or(0),
            Token::Comma | Token::SemiColon => total -= levels.last_mut().map(std::mem::take).unwrap_or(0),
            token if is_operator(token) => {
                if let Some(level) = levels.last_mut() {
                    *level += 1;
                }
                total += 1;
                if total > MAX_OPERATORS {
                    return Err(Error::limit(format!(
                        "expected an expression of at most {MAX_OPERATORS} operators, found more: use IN with a list, or a join with \
                         VALUES"
                    )));
                }
            }
            _ => {}
        }
    }
    Ok(())
}

/// Whether the token makes an expression or a query one level deeper.
fn is_operator(token: &Token) -> bool {
    match token {
        Token::Word(word) => matches!(
            word.keyword,
            Keyword::AND
                | Keyword::OR
                | Keyword::XOR
                | Keyword::NOT
                | Keyword::IS
                | Keyword::LIKE
                | Keyword::ILIKE
                | Keyword::SIMILAR
                | Keyword::RLIKE
                | Keyword::REGEXP
                | Keyword::BETWEEN
                | Keyword::DIV
                | Keyword::COLLATE
                | Keyword::ZONE
                | Keyword::UNION
                | Keyword::EXCEPT
                | Keyword::INTERSECT
                | Keyword::JOIN
        ),
        Token::Number(..)
        | Token::SingleQuotedString(_)
        | Token::Whitespace(_)
        | Token::Period
        | Token::RBracket
        | Token::LBrace
        | Token::RBrace
        | Token::EOF => false,
        Token::LBracket
        | Token::DoubleColon
        | Token::Plus
        | Token::Minus
        | Token::Mul
        | Token::Div
        | Token::Mod
        | Token::StringConcat
        | Token::Eq
        | Token::DoubleEq
        | Token::Neq
        | Token::Lt
        | Token::Gt
        | Token::LtEq
        | Token::GtEq
        | Token::Spaceship
        | Token::Pipe
        | Token::Caret
        | Token::Ampersand
        | Token::Tilde
        | Token::Arrow
        | Token::LongArrow
        | Token::HashArrow
        | Token::HashLongArrow
        | Token::ShiftLeft
        | Token::ShiftRight => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use sqlparser::dialect::GenericDialect;
    use sqlparser::tokenizer::Tokenizer;

    use super::*;
    use crate::ErrorKind;

    fn operators(sql: &str) -> Result<()> {
        check_operators(&Tokenizer::new(&GenericDialect {}, sql).tokenize_with_location().unwrap())
    }

    #[test]
    fn operators_count_along_an_expression_but_not_beside_it() {
        let chain = |n: usize| vec!["1"; n + 1].join(" + ");
        assert!(operators(&format!("SELECT {}", chain(MAX_OPERATORS))).is_ok());
        assert_eq!(operators(&format!("SELECT {}", chain(MAX_OPERATORS + 1))).unwrap_err().kind(), ErrorKind::Limit);
        let half = chain(MAX_OPERATORS / 2 + 1);
        assert_eq!(operators(&format!("SELECT {half} + ({half})")).unwrap_err().kind(), ErrorKind::Limit);
        assert!(operators(&format!("SELECT {half}, ({half}), f({half})")).is_ok());
        let rows = vec!["(-1, -2, - 3)"; MAX_OPERATORS].join(", ");
        assert!(operators(&format!("INSERT INTO t VALUES {rows}")).is_ok());
    }
}
