//! How statements are parsed: as the generic dialect has it, with lambdas.
//!
//! `->` is a lambda's arrow after the parameters of an argument of a function that takes lambdas, as in `transform(a, x -> x + 1)`, and
//! JSON's operator everywhere else. The parser takes it for a lambda's after any word, so [`mark_json`] writes JSON's in another way
//! before, which [`Athena`] reads as the operator again.

use std::any::TypeId;
use std::collections::BTreeSet;
use std::sync::LazyLock;

use datafusion::sql::sqlparser::ast::{BinaryOperator, Expr, UnaryOperator};
use datafusion::sql::sqlparser::dialect::{Dialect, GenericDialect, Precedence};
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::parser::{Parser, ParserError};
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan};

/// How JSON's arrow is written between the tokenizer and the parser.
const JSON_ARROW: &str = "->";

/// The functions that take lambdas.
static TAKE_LAMBDAS: LazyLock<BTreeSet<&'static str>> = LazyLock::new(|| {
    trino_functions::functions()
        .iter()
        .filter(|function| function.takes_lambdas())
        .map(|function| function.name)
        .collect()
});

/// The dialect of statements.
#[derive(Debug)]
pub(super) struct Athena;

/// What it has from the generic dialect.
const GENERIC: GenericDialect = GenericDialect {};

macro_rules! as_generic {
    ($($supports:ident)*) => {
        $(
            fn $supports(&self) -> bool {
                GENERIC.$supports()
            }
        )*
    };
}

impl Dialect for Athena {
    fn dialect(&self) -> TypeId {
        GENERIC.dialect()
    }

    fn supports_lambda_functions(&self) -> bool {
        true
    }

    fn is_delimited_identifier_start(&self, c: char) -> bool {
        GENERIC.is_delimited_identifier_start(c)
    }

    fn is_identifier_start(&self, c: char) -> bool {
        GENERIC.is_identifier_start(c)
    }

    fn is_identifier_part(&self, c: char) -> bool {
        GENERIC.is_identifier_part(c)
    }

    fn parse_infix(&self, parser: &mut Parser<'_>, left: &Expr, precedence: u8) -> Option<Result<Expr, ParserError>> {
        if is_symmetric(parser) {
            return Some(symmetric(parser, left));
        }
        if !is_json(&parser.peek_token_ref().token) {
            return None;
        }
        parser.advance_token();
        let right = parser.parse_subexpr(precedence);
        let left = Box::new(left.clone());
        Some(right.map(|right| Expr::BinaryOp { left, op: BinaryOperator::Arrow, right: Box::new(right) }))
    }

    as_generic! {
        supports_unicode_string_literal
        supports_partition_by_after_order_by
        supports_array_join_syntax
        supports_group_by_expr
        supports_group_by_with_modifier
        supports_left_associative_joins_without_parens
        supports_connect_by
        supports_match_recognize
        supports_pipe_operator
        supports_start_transaction_modifier
        supports_window_function_null_treatment_arg
        supports_dictionary_syntax
        supports_window_clause_named_window_reference
        supports_parenthesized_set_variables
        supports_select_wildcard_except
        support_map_literal_syntax
        allow_extract_custom
        allow_extract_single_quotes
        supports_extract_comma_syntax
        supports_create_view_comment_syntax
        supports_parens_around_table_factor
        supports_values_as_table_factor
        supports_create_index_with_clause
        supports_explain_with_utility_options
        supports_limit_comma
        supports_update_order_by
        supports_from_first_select
        supports_projection_trailing_commas
        supports_asc_desc_in_column_definition
        supports_try_convert
        supports_bitwise_shift_operators
        supports_comment_on
        supports_load_extension
        supports_named_fn_args_with_assignment_operator
        supports_struct_literal
        supports_empty_projections
        supports_nested_comments
        supports_multiline_comment_hints
        supports_user_host_grantee
        supports_string_escape_constant
        supports_array_typedef_with_brackets
        supports_match_against
        supports_set_names
        supports_comma_separated_set_assignments
        supports_filter_during_aggregation
        supports_select_wildcard_exclude
        supports_data_type_signed_suffix
        supports_interval_options
        supports_quote_delimited_string
        supports_select_wildcard_replace
        supports_select_wildcard_ilike
        supports_select_wildcard_rename
        supports_optimize_table
        supports_install
        supports_detach
        supports_prewhere
        supports_with_fill
        supports_limit_by
        supports_interpolate
        supports_settings
        supports_select_format
        supports_comment_optimizer_hint
        supports_constraint_keyword_without_name
        supports_key_column_option
        supports_comma_separated_trim
        supports_cte_without_as
        supports_select_item_multi_column_alias
        supports_xml_expressions
    }
}

/// Whether `[NOT] BETWEEN SYMMETRIC` or `ASYMMETRIC` comes next.
fn is_symmetric(parser: &Parser<'_>) -> bool {
    let word = |n: usize| match &parser.peek_nth_token_ref(n).token {
        Token::Word(word) if word.quote_style.is_none() => word.value.to_ascii_uppercase(),
        _ => String::new(),
    };
    let first = usize::from(word(0) == "NOT");
    word(first) == "BETWEEN" && ["SYMMETRIC", "ASYMMETRIC"].contains(&word(first + 1).as_str())
}

/// `x BETWEEN SYMMETRIC a AND b`, which is `x BETWEEN a AND b` or `x BETWEEN b AND a`.
fn symmetric(parser: &mut Parser<'_>, left: &Expr) -> Result<Expr, ParserError> {
    let negated = parser.parse_keyword(Keyword::NOT);
    parser.expect_keyword(Keyword::BETWEEN)?;
    let both = parser.next_token().to_string().eq_ignore_ascii_case("SYMMETRIC");
    let precedence = GENERIC.prec_value(Precedence::Between);
    let low = parser.parse_subexpr(precedence)?;
    parser.expect_keyword(Keyword::AND)?;
    let high = parser.parse_subexpr(precedence)?;
    let between = |low: &Expr, high: &Expr| Expr::Between {
        expr: Box::new(left.clone()),
        negated: false,
        low: Box::new(low.clone()),
        high: Box::new(high.clone()),
    };
    let (one, other) = (Box::new(between(&low, &high)), Box::new(between(&high, &low)));
    let found = if both { Expr::BinaryOp { left: one, op: BinaryOperator::Or, right: other } } else { *one };
    let found = Expr::Nested(Box::new(found));
    Ok(if negated { Expr::UnaryOp { op: UnaryOperator::Not, expr: Box::new(found) } } else { found })
}

fn is_json(token: &Token) -> bool {
    matches!(token, Token::CustomBinaryOperator(operator) if operator == JSON_ARROW)
}

/// A bracket that is open.
struct Open {
    /// Where it stands.
    at: usize,
    /// Whether it holds the arguments of a function that takes lambdas.
    takes_lambdas: bool,
    /// Whether a comma stands in it.
    has_comma: bool,
}

/// Marks the arrows that are JSON's.
pub(super) fn mark_json(mut tokens: Vec<TokenWithSpan>) -> Vec<TokenWithSpan> {
    let mut open: Vec<Open> = Vec::new();
    // The last tokens that are no space: the place of each, and of the bracket that it closes.
    let mut before: Option<(usize, Option<usize>)> = None;
    // Of each token, the one before that is no space.
    let mut previous: Vec<Option<usize>> = Vec::with_capacity(tokens.len());
    for at in 0..tokens.len() {
        previous.push(before.map(|(at, _)| at));
        let mut closed = None;
        match &tokens[at].token {
            Token::Whitespace(_) => continue,
            Token::LParen => {
                let takes_lambdas = before.is_some_and(|(word, _)| takes_lambdas(&tokens[word].token));
                open.push(Open { at, takes_lambdas, has_comma: false });
            }
            Token::RParen => closed = open.pop().map(|open| open.at),
            Token::Comma => open.last_mut().iter_mut().for_each(|open| open.has_comma = true),
            Token::Arrow => {
                let first = before.map(|(last, closes)| closes.unwrap_or(last));
                let argument = first.and_then(|first| previous[first]);
                let starts = argument.is_some_and(|comma| tokens[comma].token == Token::Comma);
                let takes = open.last().is_some_and(|open| open.takes_lambdas && open.has_comma);
                if !(starts && takes && first.is_some_and(|first| are_parameters(&tokens[first..at]))) {
                    tokens[at].token = Token::CustomBinaryOperator(JSON_ARROW.to_owned());
                }
            }
            _ => {}
        }
        before = Some((at, closed));
    }
    tokens
}

fn takes_lambdas(token: &Token) -> bool {
    match token {
        Token::Word(word) => TAKE_LAMBDAS.contains(word.value.to_ascii_lowercase().as_str()),
        _ => false,
    }
}

/// Whether these are a lambda's parameters: a word, or words between brackets.
fn are_parameters(tokens: &[TokenWithSpan]) -> bool {
    tokens.iter().all(|token| {
        matches!(token.token, Token::Word(_) | Token::Comma | Token::LParen | Token::RParen | Token::Whitespace(_))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion::sql::sqlparser::tokenizer::Tokenizer;

    fn parsed(sql: &str) -> Expr {
        let tokens = mark_json(Tokenizer::new(&Athena, sql).tokenize_with_location().unwrap());
        Parser::new(&Athena).with_tokens_with_locations(tokens).parse_expr().unwrap()
    }

    fn count(sql: &str, of: &str) -> usize {
        format!("{:?}", parsed(sql)).matches(of).count()
    }

    #[test]
    fn arrows_of_arguments_are_lambdas_and_others_are_json() {
        for (sql, lambdas, arrows) in [
            ("transform(a, x -> x + 1)", 1, 0),
            ("TRANSFORM (a , x->x)", 1, 0),
            ("zip_with(a, b, (x, y) -> x + y)", 1, 0),
            ("reduce(a, 0, (s, x) -> s + x, s -> s)", 2, 0),
            ("transform(a, x -> filter(x, y -> y > 1))", 2, 0),
            ("transform(a, x -> x -> 'k')", 1, 1),
            ("transform(j -> 'a', x -> x)", 1, 1),
            ("upper(j -> 'a')", 0, 1),
            ("coalesce(b, j -> 'a')", 0, 1),
            ("j -> 'a' = 'b'", 0, 1),
            ("j -> 'a' -> 'b' ->> 'c'", 0, 2),
            ("filter(a, (x) -> f(b, x -> 'k') = 1)", 1, 1),
            ("transform(a, f(x) -> 'k')", 0, 1),
        ] {
            assert_eq!((count(sql, "Lambda("), count(sql, "op: Arrow")), (lambdas, arrows), "{sql}");
        }
    }

    #[test]
    fn json_is_read_as_the_generic_dialect_reads_it() {
        for sql in ["j -> 'a' = 'b'", "j -> 'a' -> 'b' ->> 'c'", "x + (j -> 'a') -> 1 AND b", "upper(j -> 'a')"] {
            let generic = Parser::new(&GENERIC).try_with_sql(sql).unwrap().parse_expr().unwrap();
            assert_eq!(parsed(sql).to_string(), generic.to_string());
            assert_eq!(parsed(sql), generic);
        }
    }

    #[test]
    fn a_column_may_be_called_lambda() {
        assert!(matches!(parsed("lambda"), Expr::Identifier(_)));
        assert_eq!(count("lambda + lambda.x", "BinaryOp"), 1);
    }
}
