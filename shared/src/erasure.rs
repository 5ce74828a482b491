//! Whom an erasure is about, and how it is remembered: rows are meant by the values of columns, such as `customer_id = 42`.
//!
//! A [`Subject`] is what the caller names. It is kept nowhere: [`Erased`] holds salted hashes of its values, by which a record that
//! comes again from a stream or an error object is known. A hash hides a value from who reads the document, not from who tries all
//! values there are.

use std::borrow::Cow;
use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sqlparser::ast::{BinaryOperator, Expr, UnaryOperator, Value as Literal};
use sqlparser::dialect::GenericDialect;
use sqlparser::parser::Parser;
use sqlparser::tokenizer::Token;

use crate::digest;
use crate::model::ColumnType;
use crate::model::name::to_column_name;
use crate::random::Random;
use crate::state::{State, change_json, get_json};
use crate::{Error, Result, text};

/// The state document with the subjects that were erased.
const KEY: &str = "erasures";
/// How long a subject is remembered: longer than any stream keeps its records.
const REMEMBERED_MS: i64 = 400 * 86_400_000;
/// Bytes of a hash.
const HASH_BYTES: usize = 16;

/// Rows with one of the values in each of these columns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    terms: Vec<Term>,
}

/// A column and its values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Term {
    /// In lower case.
    pub column: String,
    /// As they were written.
    pub values: BTreeSet<String>,
    /// As values of each kind that they can be.
    forms: BTreeSet<String>,
}

impl Term {
    fn new(column: String, values: BTreeSet<String>) -> Self {
        let forms = values.iter().flat_map(|value| Kind::Any.forms(value)).collect();
        Self { column, values, forms }
    }

    /// Whether one of the values is that of a cell.
    pub fn holds(&self, cell: &Cell<'_>) -> bool {
        cell.kind.forms(&cell.text).iter().any(|form| self.forms.contains(form))
    }
}

/// What texts of a column stand for: `1.50` and `1.5` are one number and two texts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Text,
    Number,
    Boolean,
    Date,
    /// With or without a zone; without one UTC is meant.
    Timestamp,
    /// It is not known: any of these.
    Any,
}

/// A value as text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cell<'a> {
    pub text: Cow<'a, str>,
    pub kind: Kind,
}

impl Kind {
    /// Of a column's values.
    pub fn of(ty: &ColumnType) -> Self {
        match ty {
            ColumnType::TinyInt | ColumnType::SmallInt | ColumnType::Int | ColumnType::BigInt => Self::Number,
            ColumnType::Float | ColumnType::Double | ColumnType::Decimal(..) => Self::Number,
            ColumnType::Boolean => Self::Boolean,
            ColumnType::Date => Self::Date,
            ColumnType::Timestamp | ColumnType::TimestampTz | ColumnType::TimestampNs | ColumnType::TimestampTzNs => {
                Self::Timestamp
            }
            _ => Self::Text,
        }
    }

    /// A text as the value of this kind that it stands for, written one way; several for a text of which that is not known.
    fn forms(self, written: &str) -> Vec<String> {
        let plain = written.trim().as_bytes();
        let form = |kind: Self| match kind {
            Self::Text => Some(format!("t:{written}")),
            Self::Number => text::canonical_number(plain).ok().map(|number| format!("n:{number}")),
            Self::Boolean => text::boolean(plain).ok().map(|value| format!("b:{value}")),
            Self::Date => text::date(plain).ok().map(|days| format!("d:{days}")),
            Self::Timestamp => text::timestamp(plain).ok().map(|micros| format!("s:{micros}")),
            Self::Any => None,
        };
        match self {
            Self::Any => [Self::Text, Self::Number, Self::Boolean, Self::Date, Self::Timestamp]
                .into_iter()
                .filter_map(form)
                .collect(),
            kind => form(kind).into_iter().collect(),
        }
    }
}

impl Subject {
    /// Of a condition: `column = value` or `column IN (value, …)`, several joined by AND.
    ///
    /// # Errors
    /// `Invalid`, saying what was found, for any other condition.
    pub fn parse(condition: &str) -> Result<Self> {
        let expected = "expected `column = value` or `column IN (value, …)`, joined by AND";
        let parse = || {
            let mut parser = Parser::new(&GenericDialect {}).try_with_sql(condition)?;
            let expr = parser.parse_expr()?;
            parser.expect_token(&Token::EOF)?;
            Ok::<_, sqlparser::parser::ParserError>(expr)
        };
        let expr = parse().map_err(|e| Error::invalid(format!("{expected}: {e}")))?;
        let mut terms = Vec::new();
        collect(&expr, &mut terms).map_err(|found| Error::invalid(format!("{expected}, found `{found}`")))?;
        Ok(Self { terms })
    }

    pub fn terms(&self) -> &[Term] {
        &self.terms
    }

    /// The columns, in the order in which they were named.
    pub fn columns(&self) -> impl Iterator<Item = &str> {
        self.terms.iter().map(|term| term.column.as_str())
    }

    /// Whether it is about a JSON object, by its own fields; `kind` says what those of a column stand for.
    pub fn is_json(&self, object: &Value, kind: impl Fn(&str) -> Kind) -> bool {
        self.terms.iter().all(|term| field(object, &term.column, &kind).is_some_and(|cell| term.holds(&cell)))
    }

    /// Whether some text, of whatever form, holds a value of each column as a word of its own.
    pub fn may_be_text(&self, text: &str) -> bool {
        let holds = |value: &String| {
            text.match_indices(value.as_str()).any(|(at, found)| {
                let is_edge = |c: Option<char>| !c.is_some_and(|c| c.is_alphanumeric() || c == '_');
                is_edge(text[..at].chars().next_back()) && is_edge(text[at + found.len()..].chars().next())
            })
        };
        self.terms.iter().all(|term| term.values.iter().any(holds))
    }
}

/// Adds the terms of a condition; gives the part that is none.
fn collect(expr: &Expr, terms: &mut Vec<Term>) -> std::result::Result<(), String> {
    let column = |expr: &Expr| match expr {
        Expr::Identifier(name) => Ok(name.value.to_ascii_lowercase()),
        other => Err(other.to_string()),
    };
    match expr {
        Expr::Nested(inner) => collect(inner, terms),
        Expr::BinaryOp { left, op: BinaryOperator::And, right } => {
            collect(left, terms)?;
            collect(right, terms)
        }
        Expr::BinaryOp { left, op: BinaryOperator::Eq, right } => {
            let values = BTreeSet::from([literal(right)?]);
            terms.push(Term::new(column(left)?, values));
            Ok(())
        }
        Expr::InList { expr, list, negated: false } => {
            let values = list.iter().map(literal).collect::<std::result::Result<_, _>>()?;
            terms.push(Term::new(column(expr)?, values));
            Ok(())
        }
        other => Err(other.to_string()),
    }
}

fn literal(expr: &Expr) -> std::result::Result<String, String> {
    match expr {
        Expr::Value(value) => match &value.value {
            Literal::Number(text, _) => Ok(text.clone()),
            Literal::SingleQuotedString(text) => Ok(text.clone()),
            Literal::Boolean(value) => Ok(value.to_string()),
            other => Err(other.to_string()),
        },
        Expr::UnaryOp { op: UnaryOperator::Minus, expr } => literal(expr).map(|text| format!("-{text}")),
        other => Err(other.to_string()),
    }
}

/// A field of a JSON object, under whatever name becomes the column's; none of what is nested or null.
fn field<'a>(object: &'a Value, column: &str, kind: impl Fn(&str) -> Kind) -> Option<Cell<'a>> {
    let fields = object.as_object()?;
    let named = || fields.iter().find(|(name, _)| to_column_name(name) == column).map(|(_, value)| value);
    let (text, written) = match fields.get(column).or_else(named)? {
        Value::String(text) => (Cow::from(text.as_str()), Kind::Any),
        Value::Number(n) => (n.to_string().into(), Kind::Number),
        Value::Bool(value) => (value.to_string().into(), Kind::Boolean),
        Value::Null | Value::Array(_) | Value::Object(_) => return None,
    };
    // A text column may be given a number; a column of which nothing is known holds what was written.
    let kind = match kind(column) {
        Kind::Any => written,
        known => known,
    };
    Some(Cell { text, kind })
}

/// A subject that was erased.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Erased {
    salt: String,
    terms: Vec<ErasedTerm>,
    /// The streams whose records are meant; none: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    streams: Option<BTreeSet<String>>,
    /// Records that arrived until then are not stored: milliseconds since the epoch.
    pub until_ms: i64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct ErasedTerm {
    column: String,
    hashes: BTreeSet<String>,
}

impl Erased {
    /// Of a subject, about all that arrived until now in these streams (none: in all).
    pub fn new(subject: &Subject, random: &dyn Random, streams: Option<BTreeSet<String>>, now_ms: i64) -> Self {
        let salt = format!("{:032x}", random.bits());
        let hashed = |term: &Term| ErasedTerm {
            column: term.column.clone(),
            hashes: term.forms.iter().map(|form| hash(&salt, form)).collect(),
        };
        let terms = subject.terms.iter().map(hashed).collect();
        Self { salt, terms, streams, until_ms: now_ms }
    }

    /// Whether it is the same subject.
    pub fn is_of(&self, subject: &Subject) -> bool {
        let same = |(erased, term): (&ErasedTerm, &Term)| {
            erased.column == term.column
                && erased.hashes == term.forms.iter().map(|form| hash(&self.salt, form)).collect::<BTreeSet<_>>()
        };
        self.terms.len() == subject.terms.len() && self.terms.iter().zip(&subject.terms).all(same)
    }

    /// Whether it may be about a record that arrived in the stream at this time.
    pub fn concerns(&self, stream: &str, arrival_ms: i64) -> bool {
        arrival_ms <= self.until_ms && self.streams.as_ref().is_none_or(|streams| streams.contains(stream))
    }

    /// Whether it is about a record of a stream: JSON that arrived at this time. `kind` says what texts of a column stand for.
    pub fn is_record(&self, stream: &str, arrival_ms: i64, data: &[u8], kind: impl Fn(&str) -> Kind) -> bool {
        let is_meant = |object: &Value| {
            self.terms.iter().all(|term| {
                let cell = field(object, &term.column, &kind);
                let forms = cell.map(|cell| cell.kind.forms(&cell.text)).unwrap_or_default();
                forms.iter().any(|form| term.hashes.contains(&hash(&self.salt, form)))
            })
        };
        self.concerns(stream, arrival_ms) && serde_json::from_slice(data).is_ok_and(|object| is_meant(&object))
    }
}

fn hash(salt: &str, value: &str) -> String {
    digest::sha256_hex(format!("{salt}\n{value}"), HASH_BYTES)
}

/// Every subject that was erased.
///
/// # Errors
/// What the state answers; `Bug` when the document is another program's.
pub async fn erased(state: &dyn State) -> Result<Vec<Erased>> {
    Ok(get_json(state, KEY).await?.map(|(erased, _)| erased).unwrap_or_default())
}

/// Means the records of a stream under another name too.
///
/// # Errors
/// What the state answers.
pub async fn rename_stream(state: &dyn State, random: &dyn Random, from: &str, to: &str) -> Result<()> {
    let rename = |known: &mut Vec<Erased>| {
        let meant = known.iter_mut().filter_map(|erased| erased.streams.as_mut()).filter(|names| names.contains(from));
        meant.filter_map(|names| names.insert(to.to_owned()).then_some(())).count() > 0
    };
    change_json(state, random, KEY, rename).await.map(|_: Vec<Erased>| ())
}

/// Remembers that what arrived of a subject until now, in these streams (none: in all), is not to be stored any more. Whether it was
/// remembered before: who reads streams may not know of it otherwise.
///
/// # Errors
/// What the state answers.
pub async fn remember(
    state: &dyn State,
    random: &dyn Random,
    subject: &Subject,
    streams: Option<BTreeSet<String>>,
    now_ms: i64,
) -> Result<bool> {
    let mut is_known = false;
    let fresh = Erased::new(subject, random, streams, now_ms);
    let add = |known: &mut Vec<Erased>| {
        known.retain(|erased| now_ms.saturating_sub(erased.until_ms) < REMEMBERED_MS);
        let is_same = |erased: &&mut Erased| erased.streams == fresh.streams && erased.is_of(subject);
        match known.iter_mut().find(is_same) {
            Some(erased) => {
                erased.until_ms = erased.until_ms.max(now_ms);
                is_known = true;
            }
            None => {
                known.push(fresh.clone());
                is_known = false;
            }
        }
        true
    };
    change_json(state, random, KEY, add).await.map(|_: Vec<Erased>| is_known)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::random::SeededRandom;

    fn subject(condition: &str) -> Subject {
        Subject::parse(condition).unwrap()
    }

    #[test]
    fn a_subject_is_named_by_equality_alone() {
        let one = subject("Customer_ID = 42 AND (region IN ('eu', 'us'))");
        assert_eq!(one.columns().collect::<Vec<_>>(), ["customer_id", "region"]);
        assert_eq!(one.terms()[1].values, BTreeSet::from(["eu".into(), "us".into()]));
        for other in
            ["id > 3", "id = 3 OR id = 4", "id NOT IN (3)", "lower(name) = 'x'", "id = NULL", "id = 3 x", "id", ""]
        {
            let error = Subject::parse(other).unwrap_err();
            assert!(error.to_string().contains("expected `column = value`"), "{other}: {error}");
        }
    }

    #[test]
    fn values_are_the_same_however_they_are_written() {
        let (any, number, text) = (|_: &str| Kind::Any, |_: &str| Kind::Number, |_: &str| Kind::Text);
        let one = subject("id = 42");
        for same in [json!({"id": 42}), json!({"ID": "42"}), json!({"id": 42.0, "x": 1}), json!({"id": "0042"})] {
            assert!(one.is_json(&same, any) && one.is_json(&same, number), "{same}");
        }
        for other in [json!({"id": 420}), json!({"id": null}), json!({"x": 42}), json!([42]), json!({"id": [42]})] {
            assert!(!one.is_json(&other, any), "{other}");
        }
        assert!(subject("id = -1.50").is_json(&json!({"id": -1.5}), any));
        // Of a text column two texts are two values.
        assert!(!subject("v = '1.1'").is_json(&json!({"v": "1.10"}), text));
        assert!(subject("v = '1.10'").is_json(&json!({"v": "1.10"}), text));
        assert!(subject("e_mail = 'x'").is_json(&json!({"E-Mail": "x"}), text), "as a crawl names it");
        assert!(subject("id = 'a' AND n = 1").is_json(&json!({"id": "a", "n": 1}), any));
        assert!(!subject("id = 'a' AND n = 1").is_json(&json!({"id": "a", "n": 2}), any));
        let at = subject("at = '2024-01-02 10:00:00'");
        for same in ["2024-01-02T10:00:00Z", "2024-01-02 10:00:00.000", "2024-01-02T12:00:00+02:00"] {
            assert!(at.is_json(&json!({"at": same}), |_| Kind::Timestamp), "{same}");
        }
        assert!(!at.is_json(&json!({"at": "2024-01-02"}), |_| Kind::Date));
        assert!(subject("ok = true").is_json(&json!({"ok": "TRUE"}), |_| Kind::Boolean));
    }

    #[test]
    fn text_of_any_form_is_searched_for_whole_words() {
        let one = subject("id = 42");
        assert!(one.may_be_text("{\"id\":42,") && one.may_be_text("42") && one.may_be_text("x,42;y"));
        assert!(!one.may_be_text("142") && !one.may_be_text("420 a42"));
        assert!(subject("name = 'Zoë K'").may_be_text("1;Zoë K;x"));
    }

    #[test]
    fn hashes_know_a_subject_and_do_not_tell_it() {
        let (one, random) = (subject("id IN (42, 43)"), SeededRandom::new(1));
        let erased = Erased::new(&one, &random, None, 7);
        assert!(erased.is_of(&one) && !erased.is_of(&subject("id = 42")));
        let is = |erased: &Erased, at_ms: i64, data: &str| {
            erased.is_record("orders", at_ms, data.as_bytes(), |_| Kind::Number)
        };
        assert!(
            is(&erased, 7, "{\"id\":\"42.0\"}") && !is(&erased, 8, "{\"id\":42}") && !is(&erased, 7, "{\"id\":44}")
        );
        let scoped = Erased::new(&one, &random, Some(BTreeSet::from(["orders".to_owned()])), 7);
        assert!(scoped.concerns("orders", 7) && !scoped.concerns("clicks", 7));
        let text = serde_json::to_string(&erased).unwrap();
        assert!(!text.contains("\"42\""), "{text}");
        assert_ne!(Erased::new(&one, &random, None, 7).terms, erased.terms, "each has a salt of its own");
    }
}
