//! What a JSON value shows of its column.

use jiter::{Jiter, JiterError, JiterErrorType, JsonErrorType, Peek};

use crate::infer::text_shape;
use crate::merge::Shape;
use shared::model::ColumnType;

/// Levels of nesting that a value may have.
pub(super) const MAX_DEPTH: usize = 128;

/// Fields that an object's type may have: one with more is a map with ever new keys, which is read as its JSON text.
const MAX_FIELDS: usize = 1000;

/// Why an object can't be read.
#[derive(Debug)]
pub(super) enum Trouble {
    TooDeep,
    Invalid(String),
}

impl From<JiterError> for Trouble {
    fn from(error: JiterError) -> Self {
        match &error.error_type {
            JiterErrorType::JsonError(JsonErrorType::RecursionLimitExceeded) => Self::TooDeep,
            JiterErrorType::JsonError(kind) => Self::Invalid(kind.to_string()),
            JiterErrorType::WrongType { expected, actual } => {
                Self::Invalid(format!("expected {expected}, found {actual}"))
            }
        }
    }
}

/// Looks at values, and notes what a reader of the crawl's report should know.
#[derive(Debug, Default)]
pub(super) struct Observer {
    pub(super) notes: Vec<String>,
}

impl Observer {
    /// Tells the key and the shape of each field of an object.
    pub(super) fn object(&mut self, text: &[u8], tell: &mut dyn FnMut(&str, Shape)) -> Result<(), Trouble> {
        let mut json = Jiter::new(text);
        let mut key = json.next_object()?.map(str::to_owned);
        while let Some(name) = key {
            let peek = json.peek()?;
            let shape = self.value(&mut json, peek, &name, 1)?;
            tell(&name, shape);
            key = json.next_key()?.map(str::to_owned);
        }
        json.finish()?;
        Ok(())
    }

    /// The shape of the value that begins with `peek`. Strings that are dates or times have their types, other strings none: a
    /// number in quotes was meant as text, unless other values of the column are plain numbers.
    fn value(&mut self, json: &mut Jiter<'_>, peek: Peek, column: &str, depth: usize) -> Result<Shape, Trouble> {
        if depth > MAX_DEPTH {
            return Err(Trouble::TooDeep);
        }
        Ok(match peek {
            Peek::Null => {
                json.known_null()?;
                Shape::Unknown
            }
            Peek::True | Peek::False => {
                json.known_bool(peek)?;
                Shape::Scalar(ColumnType::Boolean)
            }
            Peek::String => string_shape(json.known_str()?),
            Peek::Array => {
                let (mut item, mut next) = (Shape::Unknown, json.known_array()?);
                while let Some(peek) = next {
                    let shape = self.value(json, peek, column, depth + 1)?;
                    self.merge(&mut item, shape, column);
                    next = json.array_step()?;
                }
                Shape::Array(Box::new(item))
            }
            Peek::Object => self.fields(json, column, depth)?,
            _ => number_shape(json.known_number_bytes(peek)?),
        })
    }

    fn fields(&mut self, json: &mut Jiter<'_>, column: &str, depth: usize) -> Result<Shape, Trouble> {
        let mut fields = Vec::new();
        let mut key = json.known_object()?.map(str::to_owned);
        while let Some(name) = key {
            let peek = json.peek()?;
            fields.push((name, self.value(json, peek, column, depth + 1)?));
            key = json.next_key()?.map(str::to_owned);
        }
        // An object without fields may have some elsewhere.
        if fields.is_empty() {
            return Ok(Shape::Unknown);
        }
        let mut shape = Shape::Struct(Vec::new());
        self.merge(&mut shape, Shape::Struct(fields), column);
        Ok(shape)
    }

    /// As [`merge_into`], with a note when the column's objects have too many fields.
    pub(super) fn merge(&mut self, known: &mut Shape, other: Shape, column: &str) {
        if merge_into(known, other) {
            let note = format!(
                "the column `{column}` holds objects of more than {MAX_FIELDS} different fields and is read as JSON text"
            );
            if !self.notes.contains(&note) {
                self.notes.push(note);
            }
        }
    }
}

fn string_shape(text: &str) -> Shape {
    match text.as_bytes().first() {
        Some(b'0'..=b'9' | b'-') => match text_shape(text) {
            Shape::Scalar(ty @ (ColumnType::Date | ColumnType::Timestamp | ColumnType::TimestampTz)) => {
                Shape::Scalar(ty)
            }
            Shape::Scalar(ty @ (ColumnType::BigInt | ColumnType::Decimal(..) | ColumnType::Double)) => {
                Shape::NumberText(ty)
            }
            _ => Shape::STRING,
        },
        _ => Shape::STRING,
    }
}

/// The type that holds every digit of the number; text where none does.
fn number_shape(text: &[u8]) -> Shape {
    match std::str::from_utf8(text).map(text_shape) {
        Ok(shape @ Shape::Scalar(ColumnType::BigInt | ColumnType::Decimal(..) | ColumnType::Double)) => shape,
        _ => Shape::STRING,
    }
}

/// Whether `text` may be the beginning of a JSON value.
pub(super) fn may_go_on(text: &[u8]) -> bool {
    let mut json = Jiter::new(text);
    match json.next_skip() {
        Ok(()) => true,
        Err(error) => matches!(
            error.error_type,
            JiterErrorType::JsonError(
                JsonErrorType::EofWhileParsingList
                    | JsonErrorType::EofWhileParsingObject
                    | JsonErrorType::EofWhileParsingString
                    | JsonErrorType::EofWhileParsingValue
                    | JsonErrorType::RecursionLimitExceeded
            )
        ),
    }
}

/// Makes `known` the smallest shape that holds both. As [`Shape::merge`], but objects of one record after the other mostly have the
/// same fields in the same order, and ones with too many become text, of which it tells.
fn merge_into(known: &mut Shape, other: Shape) -> bool {
    let mut wide = false;
    match (&mut *known, other) {
        (Shape::Struct(fields), Shape::Struct(more)) => {
            let mut hint = 0;
            for (name, shape) in more {
                let at = match fields.get(hint) {
                    Some((known, _)) if *known == name => Some(hint),
                    _ => fields.iter().position(|(known, _)| *known == name),
                };
                match at {
                    Some(at) => {
                        wide |= merge_into(&mut fields[at].1, shape);
                        hint = at + 1;
                    }
                    None => fields.push((name, shape)),
                }
            }
            if fields.len() > MAX_FIELDS {
                (*known, wide) = (Shape::STRING, true);
            }
        }
        (Shape::Array(item), Shape::Array(other)) => wide = merge_into(item, *other),
        (Shape::Unknown, other) => *known = other,
        (_, Shape::Unknown) => {}
        (_, other) => *known = std::mem::replace(known, Shape::Unknown).merge(other),
    }
    wide
}
