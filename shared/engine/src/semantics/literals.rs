//! Literals and patterns as SQL means them, rewritten before planning.
//!
//! A number with a point is a decimal of its digits, one with an exponent a double, a whole one beyond 64 bits a decimal. Times are in
//! microseconds, which reach all years. A pattern of LIKE has the escape character that it names, or none: DataFusion takes a
//! backslash for one always and knows no other.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, StringArray};
use arrow::datatypes::DataType;
use datafusion::common::{DataFusionError, Result as DfResult, ScalarValue};
use datafusion::execution::FunctionRegistry;
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};
use datafusion::sql::sqlparser::ast::{
    BinaryOperator, CastKind, DataType as SqlType, ExactNumberInfo, Expr, TimezoneInfo, UnaryOperator, Value,
    ValueWithSpan,
};

use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan};

use crate::functions::filled;
use shared::{Error, Result};

/// Digits that a decimal has at most.
const MAX_DIGITS: usize = 38;
/// Digits of a second that a time has: microseconds.
const TIME_DIGITS: u64 = 6;
/// A function that gives a pattern of LIKE with backslashes as its escape character.
const PATTERN: &str = "$like_pattern";

/// Makes the function of patterns known.
pub(super) fn register(registry: &mut dyn FunctionRegistry) -> DfResult<()> {
    let signature = Signature::uniform(2, vec![DataType::Utf8], Volatility::Immutable);
    registry.register_udf(Arc::new(ScalarUDF::from(Pattern { signature }))).map(|_| ())
}

/// Operators that stand for IS [NOT] DISTINCT FROM until the statement is parsed.
const DISTINCT: &str = "IS DISTINCT FROM";
const NOT_DISTINCT: &str = "IS NOT DISTINCT FROM";

/// IS [NOT] DISTINCT FROM as one operator: the parser takes all that follows it, AND and OR too, for its right side.
pub(crate) fn mark_distinct(tokens: Vec<TokenWithSpan>) -> Vec<TokenWithSpan> {
    let is = |token: &TokenWithSpan, word: &str| match &token.token {
        Token::Word(found) => found.quote_style.is_none() && found.value.eq_ignore_ascii_case(word),
        _ => false,
    };
    let mut marked: Vec<TokenWithSpan> = Vec::with_capacity(tokens.len());
    let mut at = 0;
    while at < tokens.len() {
        let words: Vec<usize> =
            (at..tokens.len()).filter(|i| !matches!(tokens[*i].token, Token::Whitespace(_))).take(4).collect();
        let follows = |phrase: &[&str]| {
            words.len() >= phrase.len() && words.iter().zip(phrase).all(|(i, word)| is(&tokens[*i], word))
        };
        let found = match is(&tokens[at], "IS") {
            true if follows(&["IS", "DISTINCT", "FROM"]) => Some((DISTINCT, words[2])),
            true if follows(&["IS", "NOT", "DISTINCT", "FROM"]) => Some((NOT_DISTINCT, words[3])),
            _ => None,
        };
        match found {
            Some((operator, last)) => {
                let token = Token::CustomBinaryOperator(operator.to_owned());
                marked.push(TokenWithSpan { token, span: tokens[at].span });
                at = last + 1;
            }
            None => {
                marked.push(tokens[at].clone());
                at += 1;
            }
        }
    }
    marked
}

/// What stands for the expression, whose parts were rewritten before.
///
/// # Errors
/// `Invalid` for a number of too many digits, or an escape character that escapes nothing.
pub(crate) fn rewrite(expr: &mut Expr) -> Result<Option<Expr>> {
    match expr {
        Expr::Value(ValueWithSpan { value: Value::Number(text, _), .. }) => number(text),
        Expr::UnaryOp { op: UnaryOperator::Minus, expr } => Ok(smallest(expr)),
        Expr::BinaryOp { left, op: BinaryOperator::Custom(operator), right } => {
            let (left, right) = (left.clone(), right.clone());
            match operator.as_str() {
                DISTINCT => *expr = Expr::IsDistinctFrom(left, right),
                NOT_DISTINCT => *expr = Expr::IsNotDistinctFrom(left, right),
                _ => {}
            }
            Ok(None)
        }
        Expr::SimilarTo { .. } => {
            Err(Error::invalid("not supported: SIMILAR TO; `LIKE` and `regexp_like` compare with a pattern"))
        }
        // JSON again, where DataFusion's function gives a type of its own.
        Expr::BinaryOp { left, op: BinaryOperator::Arrow, right } => {
            filled("json_get_json($1, $2)", &[left.as_ref().clone(), right.as_ref().clone()]).map(Some)
        }
        // Rewritten by DataFusion to IS NOT NULL, which is false for a null.
        Expr::BinaryOp { left, op: BinaryOperator::PGRegexMatch, right } if is_any_text(right) => {
            filled("($1 LIKE '%')", &[left.as_ref().clone()]).map(Some)
        }
        Expr::BinaryOp { left, op: BinaryOperator::PGRegexNotMatch, right } if is_any_text(right) => {
            filled("($1 NOT LIKE '%')", &[left.as_ref().clone()]).map(Some)
        }
        Expr::BinaryOp { left, op: BinaryOperator::StringConcat, right } if is_null(left) && is_null(right) => {
            Ok(Some(left.as_ref().clone()))
        }
        Expr::Like { any: false, pattern, escape_char, .. } | Expr::ILike { any: false, pattern, escape_char, .. } => {
            **pattern = escaped(pattern, escape_char.take())?;
            Ok(None)
        }
        Expr::Cast { data_type: SqlType::Timestamp(precision @ None, _), .. } => {
            *precision = Some(TIME_DIGITS);
            Ok(None)
        }
        _ => Ok(None),
    }
}

fn is_any_text(pattern: &Expr) -> bool {
    matches!(pattern, Expr::Value(ValueWithSpan { value: Value::SingleQuotedString(text), .. }) if text == ".*")
}

fn is_null(expr: &Expr) -> bool {
    match expr {
        Expr::Nested(inner) => is_null(inner),
        Expr::Value(value) => value.value == Value::Null,
        _ => false,
    }
}

fn number(text: &str) -> Result<Option<Expr>> {
    if text.starts_with("0x") || text.starts_with("0X") {
        return Ok(None);
    }
    if text.contains(['e', 'E']) {
        return Ok(Some(cast(text, SqlType::Double(ExactNumberInfo::None))));
    }
    let digits = text.chars().filter(char::is_ascii_digit).collect::<String>();
    let digits = digits.trim_start_matches('0').len();
    if digits > MAX_DIGITS {
        return Err(Error::invalid(format!(
            "expected a number of at most {MAX_DIGITS} digits, found `{text}`; with an exponent (`1.5e0`) it is a double"
        )));
    }
    let whole = !text.contains('.');
    if whole && text.replace('_', "").parse::<i64>().is_err() {
        let digits = u64::try_from(digits).unwrap_or_default();
        let ty = SqlType::Decimal(ExactNumberInfo::PrecisionAndScale(digits, 0));
        return Ok(Some(cast(&text.replace('_', ""), ty)));
    }
    Ok(None)
}

/// The smallest whole number, whose digits without their sign are beyond 64 bits.
fn smallest(negated: &Expr) -> Option<Expr> {
    let text = i64::MIN.unsigned_abs().to_string();
    let is = |value: &Expr| matches!(value, Expr::Value(v) if v.value == Value::SingleQuotedString(text.clone()));
    let found = matches!(negated, Expr::Cast { expr, .. } if is(expr));
    let number = Expr::Value(Value::Number(text, false).into());
    found.then(|| Expr::UnaryOp { op: UnaryOperator::Minus, expr: Box::new(number) })
}

fn cast(text: &str, data_type: SqlType) -> Expr {
    let text = Expr::Value(Value::SingleQuotedString(text.to_owned()).into());
    Expr::Cast { kind: CastKind::Cast, expr: Box::new(text), data_type, array: false, format: None }
}

/// `DECIMAL '1.50'`: precision and scale are those of its digits.
pub(crate) fn decimal(text: &str, info: &ExactNumberInfo) -> Option<Expr> {
    let digits = text.trim().trim_start_matches(['-', '+']);
    let plain = digits.chars().all(|c| c.is_ascii_digit() || c == '.') && digits.matches('.').count() <= 1;
    if *info != ExactNumberInfo::None || !plain {
        return None;
    }
    let scale = digits.split_once('.').map_or(0, |(_, after)| after.len());
    let precision = digits.chars().filter(char::is_ascii_digit).count().max(1);
    let (precision, scale) = (u64::try_from(precision).ok()?, i64::try_from(scale).ok()?);
    Some(cast(text.trim(), SqlType::Decimal(ExactNumberInfo::PrecisionAndScale(precision, scale))))
}

/// `TIMESTAMP '…'`: in microseconds, with a zone where the text names one; nanoseconds where it has their digits.
///
/// # Errors
/// Whatever a template says.
pub(crate) fn timestamp(text: &str) -> Result<Option<Expr>> {
    let quoted = |text: &str| Expr::Value(Value::SingleQuotedString(text.to_owned()).into());
    let text = text.trim();
    let fraction = text.rsplit_once('.').map_or(0, |(_, after)| after.chars().take_while(char::is_ascii_digit).count());
    if fraction > usize::try_from(TIME_DIGITS).unwrap_or(usize::MAX) {
        return Ok(None);
    }
    let micros = "arrow_cast($1, 'Timestamp(Microsecond, None)')";
    let time = text.get(10..).unwrap_or_default();
    if let Some((local, zone)) = text.rsplit_once(' ')
        && zone.starts_with(|c: char| c.is_ascii_alphabetic())
    {
        let utc = zone.eq_ignore_ascii_case("utc") || zone.eq_ignore_ascii_case("z");
        let zone = if utc { "UTC" } else { zone };
        let ty = format!("Timestamp(Microsecond, \"{zone}\")").replace('\'', "''");
        return filled(&format!("arrow_cast({micros}, '{ty}')"), &[quoted(local)]).map(Some);
    }
    let offset = time.ends_with(['Z', 'z']) || time.contains(['+', '-']);
    let template = if offset { "arrow_cast($1, 'Timestamp(Microsecond, \"UTC\")')" } else { micros };
    filled(template, &[quoted(text)]).map(Some)
}

/// The pattern with backslashes as its escape character.
fn escaped(pattern: &Expr, escape: Option<ValueWithSpan>) -> Result<Expr> {
    let escape = match escape.map(|value| value.value) {
        None => String::new(),
        Some(Value::SingleQuotedString(text)) => text,
        Some(other) => return Err(Error::invalid(format!("expected an escape character in quotes, found `{other}`"))),
    };
    let quoted = |text: String| Expr::Value(Value::SingleQuotedString(text).into());
    if let Expr::Value(ValueWithSpan { value: Value::SingleQuotedString(text), .. }) = pattern {
        return translated(text, character(&escape)?).map(quoted);
    }
    filled(&format!("\"{PATTERN}\"($1, $2)"), &[pattern.clone(), quoted(escape)])
}

fn character(escape: &str) -> Result<Option<char>> {
    let mut characters = escape.chars();
    match (characters.next(), characters.next()) {
        (first, None) => Ok(first),
        _ => Err(Error::invalid(format!("expected one escape character, found `{escape}`"))),
    }
}

fn translated(pattern: &str, escape: Option<char>) -> Result<String> {
    let mut translated = String::with_capacity(pattern.len());
    let mut characters = pattern.chars();
    while let Some(c) = characters.next() {
        let literal = match Some(c) == escape {
            false if c != '\\' => {
                translated.push(c);
                continue;
            }
            false => c,
            true => characters.next().filter(|c| matches!(c, '%' | '_') || Some(*c) == escape).ok_or_else(|| {
                Error::invalid(format!(
                    "expected `%`, `_` or the escape character after the escape character `{c}` in the pattern `{pattern}`"
                ))
            })?,
        };
        if matches!(literal, '%' | '_' | '\\') {
            translated.push('\\');
        }
        translated.push(literal);
    }
    Ok(translated)
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Pattern {
    signature: Signature,
}

impl ScalarUDFImpl for Pattern {
    fn name(&self) -> &str {
        PATTERN
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> DfResult<DataType> {
        Ok(DataType::Utf8)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        let is_scalar = args.args.iter().all(|arg| matches!(arg, ColumnarValue::Scalar(_)));
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let [patterns, escapes] = arrays.as_slice() else {
            return Err(DataFusionError::from(Error::bug(format!("expected 2 arguments, found {}", arrays.len()))));
        };
        let (patterns, escapes) = (patterns.as_string::<i32>(), escapes.as_string::<i32>());
        let of = |(pattern, escape): (Option<&str>, Option<&str>)| match (pattern, escape) {
            (Some(pattern), Some(escape)) => translated(pattern, character(escape)?).map(Some),
            _ => Ok(None),
        };
        let found = patterns.iter().zip(escapes).map(of).collect::<Result<StringArray>>()?;
        let found: ArrayRef = Arc::new(found);
        match is_scalar {
            true => Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&found, 0)?)),
            false => Ok(ColumnarValue::Array(found)),
        }
    }
}

/// Whether the type is a time of day and date without a zone.
pub(crate) fn is_timestamp(ty: &SqlType) -> bool {
    matches!(ty, SqlType::Timestamp(_, TimezoneInfo::None | TimezoneInfo::WithoutTimeZone))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_has_the_escape_character_that_it_names_or_none() {
        for (pattern, escape, expected) in [
            (r"a\b", None, r"a\\b"),
            (r"C:\temp\%", None, r"C:\\temp\\%"),
            ("foo^_bar", Some('^'), r"foo\_bar"),
            ("a||b", Some('|'), "a|b"),
            (r"foo\_bar", Some('\\'), r"foo\_bar"),
            (r"a\\b", Some('\\'), r"a\\b"),
            (r"a#%\", Some('#'), r"a\%\\"),
        ] {
            assert_eq!(translated(pattern, escape).unwrap(), expected, "{pattern} {escape:?}");
        }
        assert!(translated("a#b", Some('#')).is_err());
        assert!(translated("a#", Some('#')).is_err());
    }

    #[test]
    fn numbers_become_what_their_digits_say() {
        let of = |text: &str| number(text).unwrap().map(|expr| expr.to_string());
        assert_eq!(of("1.5"), None);
        assert_eq!(of("9223372036854775807"), None);
        assert_eq!(of("1e2").unwrap(), "CAST('1e2' AS DOUBLE)");
        assert_eq!(of("9223372036854775808").unwrap(), "CAST('9223372036854775808' AS DECIMAL(19,0))");
        assert!(number(&"9".repeat(39)).is_err());
    }

    #[test]
    fn a_decimal_literal_has_the_precision_and_scale_of_its_digits() {
        let of = |text: &str| decimal(text, &ExactNumberInfo::None).unwrap().to_string();
        assert_eq!(of("1.50"), "CAST('1.50' AS DECIMAL(3,2))");
        assert_eq!(of("-7"), "CAST('-7' AS DECIMAL(1,0))");
        assert!(decimal("1e5", &ExactNumberInfo::None).is_none());
    }
}
