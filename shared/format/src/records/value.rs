//! One JSON value into one column.

use std::collections::{HashMap, HashSet};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiter::{Jiter, JiterError, JiterErrorType, Peek};

use super::column::{Buffer, Values};
use super::{ErrorCode, RecordError};
use shared::model::ColumnType;
use shared::text::{self, Misfit};
use shared::{Error, Result};

/// Bytes of a value that a message quotes.
const QUOTED: usize = 60;

/// Finds fields by name.
#[derive(Debug)]
pub(super) struct FieldIndex {
    names: Vec<String>,
    by_name: HashMap<String, usize>,
    /// Set where names that differ only in case are different fields, as in files.
    exact: Option<HashMap<String, usize>>,
}

impl FieldIndex {
    /// # Errors
    /// `Invalid` when two names are equal without regard to case.
    pub(super) fn new<'a>(names: impl Iterator<Item = &'a str>) -> Result<Self> {
        let index = Self::unchecked(names);
        if index.by_name.len() == index.names.len() {
            return Ok(index);
        }
        let mut seen = HashSet::new();
        let twice = index.names.iter().find(|name| !seen.insert(name.to_ascii_lowercase()));
        Err(Error::invalid(format!(
            "expected each name once, found `{}` twice",
            twice.map_or("", |name| name.as_str())
        )))
    }

    /// The same for names that [`FieldIndex::new`] took before.
    pub(super) fn unchecked<'a>(names: impl Iterator<Item = &'a str>) -> Self {
        let names: Vec<String> = names.map(str::to_owned).collect();
        let by_name = names.iter().enumerate().map(|(at, name)| (name.to_ascii_lowercase(), at)).collect();
        Self { names, by_name, exact: None }
    }

    /// The fields of objects in files: a name means the field of just that name, else the first that differs in case only.
    pub(super) fn of_files(names: &[String]) -> Self {
        let mut by_name = HashMap::new();
        for (at, name) in names.iter().enumerate() {
            by_name.entry(name.to_ascii_lowercase()).or_insert(at);
        }
        let exact = names.iter().enumerate().map(|(at, name)| (name.clone(), at)).collect();
        Self { names: names.to_vec(), by_name, exact: Some(exact) }
    }

    pub(super) fn names(&self) -> &[String] {
        &self.names
    }

    /// The field that `name` means; `hint` is tried first, since producers write fields in the same order again and again.
    pub(super) fn find(&self, name: &str, hint: usize) -> Option<usize> {
        if self.names.get(hint).is_some_and(|n| n == name) {
            return Some(hint);
        }
        if let Some(at) = self.exact.as_ref().and_then(|exact| exact.get(name)) {
            return Some(*at);
        }
        if name.bytes().any(|b| b.is_ascii_uppercase()) {
            return self.by_name.get(&name.to_ascii_lowercase()).copied();
        }
        self.by_name.get(name).copied()
    }
}

/// What is wrong with a record, and the path to it, built from the inside out.
#[derive(Debug)]
pub(super) struct Fault {
    code: ErrorCode,
    message: String,
    /// E.g. `.city`, `[3].city`, `address.city`.
    path: String,
}

impl Fault {
    pub(super) fn new(code: ErrorCode, message: String) -> Self {
        Self { code, message, path: String::new() }
    }

    /// The message with the path of the value before it.
    pub(super) fn text(&self) -> String {
        if self.path.is_empty() { self.message.clone() } else { format!("`{}`: {}", self.path, self.message) }
    }

    pub(super) fn within_field(mut self, name: &str) -> Self {
        let dot = if self.path.is_empty() || self.path.starts_with('[') { "" } else { "." };
        self.path = format!("{name}{dot}{}", self.path);
        self
    }

    fn within_item(mut self, at: usize) -> Self {
        let dot = if self.path.is_empty() || self.path.starts_with('[') { "" } else { "." };
        self.path = format!("[{at}]{dot}{}", self.path);
        self
    }

    pub(super) fn into_error(self) -> RecordError {
        if matches!(self.code, ErrorCode::InvalidJson | ErrorCode::InvalidUtf8 | ErrorCode::NotAnObject) {
            return RecordError { code: self.code, column: None, message: self.message };
        }
        let column = self.path.split(['.', '[']).next().unwrap_or_default().to_owned();
        RecordError {
            code: self.code,
            column: Some(column),
            message: format!("column `{}`: {}", self.path, self.message),
        }
    }
}

impl From<JiterError> for Fault {
    fn from(error: JiterError) -> Self {
        let what = match &error.error_type {
            JiterErrorType::JsonError(kind) => kind.to_string(),
            JiterErrorType::WrongType { expected, actual } => format!("expected {expected}, found {actual}"),
        };
        Self::new(ErrorCode::InvalidJson, format!("invalid JSON at byte {}: {what}", error.index))
    }
}

/// The fault of a record that is no object (if it is JSON at all).
pub(super) fn not_an_object(json: &mut Jiter<'_>, peek: Peek) -> Fault {
    let found = match found(json, peek).and_then(|found| json.finish().map(|()| found).map_err(Fault::from)) {
        Ok(found) => found,
        Err(fault) => return fault,
    };
    Fault::new(ErrorCode::NotAnObject, format!("expected a JSON object, found {found}"))
}

/// Reads an object's fields into `buffers`, each of which has `row` values before. Fields that the object lacks stay at `row`.
pub(super) fn fields(
    json: &mut Jiter<'_>,
    buffers: &mut [Buffer],
    index: &FieldIndex,
    row: usize,
    on_unknown: &mut dyn FnMut(&str),
) -> Result<(), Fault> {
    let (mut hint, mut spelled_otherwise) = (0, Vec::new());
    let mut name = json.known_object()?;
    while let Some(text) = name {
        let Some(at) = index.find(text, hint) else {
            on_unknown(text);
            json.next_skip()?;
            name = json.next_key()?;
            continue;
        };
        let buffer = &mut buffers[at];
        if buffer.len() != row {
            // Of a key that is there twice most readers take the last value; of two spellings neither is the right one.
            if index.exact.is_none() || index.names[at] != text || spelled_otherwise.contains(&at) {
                let message = format!("expected each field once, found `{text}` twice");
                return Err(Fault::new(ErrorCode::InvalidJson, message));
            }
            buffer.truncate(row);
        }
        if index.exact.is_some() && index.names[at] != text {
            spelled_otherwise.push(at);
        }
        let peek = json.peek()?;
        value(json, peek, buffer).map_err(|fault| fault.within_field(&index.names[at]))?;
        hint = at + 1;
        name = json.next_key()?;
    }
    Ok(())
}

/// Reads the value that begins with `peek`.
pub(super) fn value(json: &mut Jiter<'_>, peek: Peek, into: &mut Buffer) -> Result<(), Fault> {
    if peek == Peek::Null {
        json.known_null()?;
        into.push_null();
        return Ok(());
    }
    let (ty, lenient) = (&into.ty, into.lenient);
    match &mut into.values {
        Values::TinyInt(v) => v.push(integer(json, peek, ty, lenient)?),
        Values::SmallInt(v) => v.push(integer(json, peek, ty, lenient)?),
        Values::Int(v) => v.push(integer(json, peek, ty, lenient)?),
        Values::BigInt(v) => v.push(integer(json, peek, ty, lenient)?),
        Values::Double(v) => v.push(float(json, peek, ty, lenient, f64::is_infinite)?),
        Values::Float(v) => v.push(float(json, peek, ty, lenient, f32::is_infinite)?),
        Values::Boolean(v) => match peek {
            Peek::True | Peek::False => v.append(json.known_bool(peek)?),
            Peek::String if lenient => v.append(parsed(json, peek, ty, text::boolean)?),
            _ => return Err(wrong(json, peek, ty)),
        },
        Values::Decimal(v) => v.push(decimal(json, peek, ty)?),
        Values::Date(v) => v.push(parsed(json, peek, ty, text::date)?),
        Values::Timestamp(v) => v.push(parsed(json, peek, ty, text::timestamp)?),
        Values::Time(v) => v.push(parsed(json, peek, ty, text::time)?),
        Values::Bytes(ends, data) => {
            if peek != Peek::String {
                if !lenient || *ty != ColumnType::String {
                    return Err(wrong(json, peek, ty));
                }
                let start = json.current_index();
                json.known_skip(peek)?;
                data.extend_from_slice(json.slice_to_current(start));
                ends.push(data.len());
                into.mark_valid();
                return Ok(());
            }
            let text = json.known_str()?;
            match ty {
                ColumnType::Binary => {
                    STANDARD.decode_vec(text, data).map_err(|_| misfit(Misfit::Form, ty, &quoted(text)))?
                }
                _ => data.extend_from_slice(text.as_bytes()),
            }
            ends.push(data.len());
        }
        Values::Array(ends, items) => {
            if peek != Peek::Array {
                return Err(wrong(json, peek, ty));
            }
            array(json, items, ends.last())?;
            ends.push(items.len());
        }
        Values::Map(ends, keys, values) => {
            if peek != Peek::Object {
                return Err(wrong(json, peek, ty));
            }
            entries(json, keys, values)?;
            ends.push(keys.len());
        }
        Values::Struct(buffers, index) => {
            if peek != Peek::Object {
                return Err(wrong(json, peek, ty));
            }
            let row = into.nulls.len();
            fields(json, buffers, index, row, &mut |_| ())?;
            buffers.iter_mut().filter(|b| b.len() == row).for_each(Buffer::push_null);
        }
    }
    into.mark_valid();
    Ok(())
}

fn array(json: &mut Jiter<'_>, items: &mut Buffer, first: usize) -> Result<(), Fault> {
    let mut next = json.known_array()?;
    while let Some(peek) = next {
        let at = items.len() - first;
        value(json, peek, items).map_err(|fault| fault.within_item(at))?;
        next = json.array_step()?;
    }
    Ok(())
}

fn entries(json: &mut Jiter<'_>, keys: &mut Buffer, values: &mut Buffer) -> Result<(), Fault> {
    let mut seen = HashSet::new();
    let mut next = json.known_object()?.map(str::to_owned);
    while let Some(name) = next {
        key(&name, keys)?;
        let peek = json.peek()?;
        value(json, peek, values).map_err(|fault| fault.within_field(&name))?;
        next = json.next_key()?.map(str::to_owned);
        if next.as_ref().is_some_and(|next| *next == name || seen.contains(next)) {
            let message = format!("expected each key once, found `{}` twice", next.unwrap_or_default());
            return Err(Fault::new(ErrorCode::InvalidJson, message));
        }
        seen.insert(name);
    }
    Ok(())
}

/// A map's key from its text.
fn key(text: &str, into: &mut Buffer) -> Result<(), Fault> {
    let ty = &into.ty;
    let refuse = |why| misfit(why, ty, &quoted(text));
    let whole = || text::integer(text.as_bytes());
    match &mut into.values {
        Values::Bytes(ends, data) => {
            data.extend_from_slice(text.as_bytes());
            ends.push(data.len());
        }
        Values::Int(v) => v.push(whole().and_then(|n| i32::try_from(n).map_err(|_| Misfit::Range)).map_err(refuse)?),
        Values::BigInt(v) => v.push(whole().map_err(refuse)?),
        Values::Date(v) => v.push(text::date(text.as_bytes()).map_err(refuse)?),
        _ => return Err(refuse(Misfit::Form)),
    }
    into.mark_valid();
    Ok(())
}

fn integer<T: TryFrom<i64>>(json: &mut Jiter<'_>, peek: Peek, ty: &ColumnType, lenient: bool) -> Result<T, Fault> {
    if lenient && peek == Peek::String {
        return parsed(json, peek, ty, |text| match text {
            // Leading zeros are not a number's, which would lose them.
            [b'0', _, ..] | [b'-', b'0', _, ..] => Err(Misfit::Form),
            _ => text::integer(text).and_then(|value| T::try_from(value).map_err(|_| Misfit::Range)),
        });
    }
    if !peek.is_num() {
        return Err(wrong(json, peek, ty));
    }
    let text = json.known_number_bytes(peek)?;
    text::integer(text)
        .and_then(|value| T::try_from(value).map_err(|_| Misfit::Range))
        .map_err(|why| misfit(why, ty, &excerpt(text)))
}

fn float<T: std::str::FromStr + Copy>(
    json: &mut Jiter<'_>,
    peek: Peek,
    ty: &ColumnType,
    lenient: bool,
    is_infinite: fn(T) -> bool,
) -> Result<T, Fault> {
    let (text, named) = if peek.is_num() {
        (json.known_number_bytes(peek)?, false)
    } else if peek == Peek::String {
        (json.known_str()?.as_bytes(), true)
    } else {
        return Err(wrong(json, peek, ty));
    };
    let is_name = named && matches!(text, b"NaN" | b"Infinity" | b"-Infinity");
    let written = !named || is_name || (lenient && text::is_number(text));
    let value = std::str::from_utf8(text).ok().filter(|_| written).and_then(|text| text.parse().ok());
    match value {
        Some(value) if !is_name && is_infinite(value) => Err(misfit(Misfit::Range, ty, &excerpt(text))),
        Some(value) => Ok(value),
        None => Err(misfit(Misfit::Form, ty, &quoted(&String::from_utf8_lossy(text)))),
    }
}

fn decimal(json: &mut Jiter<'_>, peek: Peek, ty: &ColumnType) -> Result<i128, Fault> {
    let (precision, scale) = match ty {
        ColumnType::Decimal(precision, scale) => (*precision, *scale),
        _ => (38, 0),
    };
    if peek == Peek::String {
        return parsed(json, peek, ty, |text| text::decimal(text, precision, scale));
    }
    if !peek.is_num() {
        return Err(wrong(json, peek, ty));
    }
    let text = json.known_number_bytes(peek)?;
    text::decimal(text, precision, scale).map_err(|why| misfit(why, ty, &excerpt(text)))
}

/// A value that JSON writes as text.
fn parsed<T>(
    json: &mut Jiter<'_>,
    peek: Peek,
    ty: &ColumnType,
    parse: impl Fn(&[u8]) -> Result<T, Misfit>,
) -> Result<T, Fault> {
    if peek != Peek::String {
        return Err(wrong(json, peek, ty));
    }
    let text = json.known_str()?;
    parse(text.as_bytes()).map_err(|why| misfit(why, ty, &quoted(text)))
}

/// The fault of a value that can't be of type `ty`, whatever it says.
fn wrong(json: &mut Jiter<'_>, peek: Peek, ty: &ColumnType) -> Fault {
    match found(json, peek) {
        Ok(found) => Fault::new(ErrorCode::WrongType, format!("expected {}, found {found}", expected(ty))),
        Err(fault) => fault,
    }
}

/// The fault of a text that is of no use for `ty`.
fn misfit(why: Misfit, ty: &ColumnType, found: &str) -> Fault {
    let lossy = matches!(ty, ColumnType::Decimal(..)) && why == Misfit::Fraction;
    if lossy {
        let message = format!("expected a number that {ty} holds without loss, found {found}");
        return Fault::new(ErrorCode::Overflow, message);
    }
    match why {
        Misfit::Range => {
            Fault::new(ErrorCode::Overflow, format!("expected a value in the range of {ty}, found {found}"))
        }
        Misfit::Form | Misfit::Fraction => {
            Fault::new(ErrorCode::WrongType, format!("expected {}, found {found}", expected(ty)))
        }
        Misfit::NoSuch(part) => Fault::new(
            ErrorCode::WrongType,
            format!("expected {}, found {found}: there is no such {part}", expected(ty)),
        ),
    }
}

/// How JSON writes values of `ty`.
fn expected(ty: &ColumnType) -> String {
    match ty {
        ColumnType::Boolean => "boolean (`true` or `false`)".into(),
        ColumnType::Decimal(..) => format!("{ty} (a number or its text)"),
        ColumnType::Binary => "binary (a base64 string)".into(),
        ColumnType::Date => "date (such as \"2013-01-31\")".into(),
        ColumnType::Time => "time (such as \"06:00:00.5\")".into(),
        ColumnType::Timestamp | ColumnType::TimestampTz => format!("{ty} (such as \"2013-01-31T06:00:00Z\")"),
        ColumnType::Array(_) => format!("{ty} (an array)"),
        ColumnType::Map(..) | ColumnType::Struct(_) => format!("{ty} (an object)"),
        _ => ty.to_string(),
    }
}

/// Reads the value that begins with `peek` and says what it is.
fn found(json: &mut Jiter<'_>, peek: Peek) -> Result<String, Fault> {
    let start = json.current_index();
    json.known_skip(peek)?;
    let text = excerpt(json.slice_to_current(start));
    Ok(match peek {
        Peek::String => format!("the string {text}"),
        Peek::Array => format!("the array {text}"),
        Peek::Object => format!("the object {text}"),
        Peek::Null | Peek::True | Peek::False => text,
        _ => format!("the number {text}"),
    })
}

/// A value's text as messages show it.
fn quoted(text: &str) -> String {
    excerpt(serde_json::Value::from(text).to_string().as_bytes())
}

/// The beginning of a value, in backticks.
fn excerpt(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    match text.char_indices().nth(QUOTED) {
        Some((end, _)) => format!("`{}…`", &text[..end]),
        None => format!("`{text}`"),
    }
}
