//! DataFusion's errors as ours: the kind by type, the place in the SQL text where there is one.

use std::error::Error as StdError;
use std::fmt::Write as _;

use arrow::error::ArrowError;
use datafusion::common::{DataFusionError, Diagnostic, SchemaError};

use crate::{Error, ErrorKind};

/// A place in the SQL text; both count characters and lines from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) line: u64,
    pub(super) column: u64,
}

/// The error of a statement: what DataFusion says, `Invalid` where it says nothing about the kind, with the place in `sql`.
pub(super) fn of_statement(error: DataFusionError, sql: &str) -> Error {
    let Some(diagnostic) = error.diagnostic() else { return from_datafusion(error) };
    let place = diagnostic.span.map(|span| Place { line: span.start.line, column: span.start.column });
    let message = diagnostic_message(diagnostic, &error);
    let kind = from_datafusion(error).kind();
    match place {
        Some(place) => Error::new(kind, pointed(&message, sql, place)),
        None => Error::new(kind, message),
    }
}

/// What the diagnostic says, with its hints; a column that is not found lists the near or all names.
fn diagnostic_message(diagnostic: &Diagnostic, error: &DataFusionError) -> String {
    let mut message = lowercase_first(diagnostic.message.trim_end_matches('.'));
    let hints = diagnostic.notes.iter().map(|n| &n.message).chain(diagnostic.helps.iter().map(|h| &h.message));
    let mut hinted = false;
    for hint in hints {
        let _ = write!(message, "{} {}", if hinted { "," } else { ";" }, lowercase_first(hint.trim_end_matches('.')));
        hinted = true;
    }
    match missing_field(error) {
        Some((name, valid)) if !hinted => message + &suggestion(name, valid.iter().map(String::as_str)),
        _ => message,
    }
}

fn missing_field(error: &DataFusionError) -> Option<(&str, Vec<String>)> {
    match error.find_root() {
        DataFusionError::SchemaError(inner, _) => match inner.as_ref() {
            SchemaError::FieldNotFound { field, valid_fields } => {
                Some((field.name(), valid_fields.iter().map(|f| f.name().to_owned()).collect()))
            }
            _ => None,
        },
        _ => None,
    }
}

/// `message` with line and column before it, the line itself and a caret below it.
pub(super) fn pointed(message: &str, sql: &str, place: Place) -> String {
    let Place { line, column } = place;
    let text = sql.lines().nth(usize::try_from(line).unwrap_or(1).saturating_sub(1)).unwrap_or_default();
    let indent: String = text
        .chars()
        .take(usize::try_from(column).unwrap_or(1).saturating_sub(1))
        .map(|c| if c == '\t' { '\t' } else { ' ' })
        .collect();
    format!("line {line}, column {column}: {message}\n{text}\n{indent}^")
}

/// Nothing, or `; did you mean …` with the nearest names, or the few that there are.
pub(super) fn suggestion<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> String {
    let known: Vec<&str> = known.collect();
    let mut near: Vec<(usize, &str)> = known
        .iter()
        .map(|k| (distance(name, k), *k))
        .filter(|(d, k)| *d <= 1 + name.len().max(k.len()) / 4 || (name.len() > 2 && k.contains(name)))
        .collect();
    near.sort_unstable();
    near.dedup();
    let quoted = |names: Vec<&str>| names.iter().map(|n| format!("`{n}`")).collect::<Vec<_>>().join(", ");
    match near.len() {
        0 if known.is_empty() || known.len() > 30 => String::new(),
        0 => format!("; expected one of {}", quoted(known)),
        _ => format!("; did you mean {}?", quoted(near.into_iter().take(3).map(|(_, k)| k).collect())),
    }
}

/// The Levenshtein distance.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut corner = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replaced = corner + usize::from(x != *y);
            corner = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(corner + 1);
        }
    }
    row.last().copied().unwrap_or_default()
}

/// On its way through DataFusion, which hands it back as it is.
impl From<Error> for DataFusionError {
    fn from(error: Error) -> Self {
        Self::External(Box::new(error))
    }
}

impl From<DataFusionError> for Error {
    fn from(error: DataFusionError) -> Self {
        from_datafusion(error)
    }
}

/// Maps by type; an [`Error`] of ours anywhere inside comes out as it went in.
fn from_datafusion(error: DataFusionError) -> Error {
    use DataFusionError as D;
    match error {
        D::External(inner) => from_boxed(inner),
        D::Context(_, inner) | D::Diagnostic(_, inner) => from_datafusion(*inner),
        D::Collection(mut errors) if !errors.is_empty() => from_datafusion(errors.swap_remove(0)),
        D::Shared(shared) => match std::sync::Arc::try_unwrap(shared) {
            Ok(error) => from_datafusion(error),
            Err(shared) => look_inside(&*shared),
        },
        D::ArrowError(inner, _) => from_arrow(*inner),
        D::ObjectStore(inner) => from_object_store(*inner),
        D::IoError(inner) => inner.into(),
        D::ParquetError(inner) => from_parquet(*inner),
        D::ResourcesExhausted(text) => {
            Error::limit(format!("the query needs more memory or spill space than it may use: {}", tidy(&text)))
        }
        D::NotImplemented(text) => Error::invalid(format!("not supported: {}", tidy(&text))),
        D::SQL(inner, _) => Error::invalid(tidy(&inner.to_string())),
        D::Internal(text) => Error::bug(tidy(&text)),
        D::ExecutionJoin(inner) => Error::bug("a part of the query died").with_source(inner),
        other => Error::invalid(tidy(&other.message())),
    }
}

fn from_boxed(inner: Box<dyn StdError + Send + Sync>) -> Error {
    let inner = match inner.downcast::<Error>() {
        Ok(error) => return *error,
        Err(inner) => inner,
    };
    let inner = match inner.downcast::<DataFusionError>() {
        Ok(error) => return from_datafusion(*error),
        Err(inner) => inner,
    };
    let inner = match inner.downcast::<ArrowError>() {
        Ok(error) => return from_arrow(*error),
        Err(inner) => inner,
    };
    match inner.downcast::<object_store::Error>() {
        Ok(error) => from_object_store(*error),
        Err(inner) => look_inside(inner.as_ref()),
    }
}

fn from_arrow(error: ArrowError) -> Error {
    match error {
        ArrowError::ExternalError(inner) => from_boxed(inner),
        ArrowError::IoError(text, inner) => Error::from(inner).context(tidy(&text)),
        ArrowError::DivideByZero => Error::invalid("division by zero"),
        ArrowError::MemoryError(text) => Error::limit(tidy(&text)),
        ArrowError::CastError(text)
        | ArrowError::ParseError(text)
        | ArrowError::ComputeError(text)
        | ArrowError::ArithmeticOverflow(text)
        | ArrowError::CsvError(text)
        | ArrowError::JsonError(text)
        | ArrowError::InvalidArgumentError(text) => Error::invalid(tidy(&text)),
        other => Error::invalid(tidy(&other.to_string())),
    }
}

fn from_parquet(error: parquet::errors::ParquetError) -> Error {
    match error {
        parquet::errors::ParquetError::External(inner) => from_boxed(inner),
        other => Error::invalid(format!("expected a whole Parquet file: {}", tidy(&other.to_string()))),
    }
}

fn from_object_store(error: object_store::Error) -> Error {
    match error {
        object_store::Error::Generic { source, .. } if source.is::<Error>() => from_boxed(source),
        object_store::Error::NotFound { path, source } => {
            Error::not_found(format!("no object `{path}`; it was there when the table's files were listed"))
                .with_source(object_store::Error::NotFound { path, source })
        }
        other => other.into(),
    }
}

/// An error that is shared and can't be taken apart: the kind of the first error of ours below, else by its innermost type.
fn look_inside(error: &(dyn StdError + 'static)) -> Error {
    let mut next = Some(error);
    let mut kind = ErrorKind::Invalid;
    let mut text = error.to_string();
    while let Some(error) = next {
        if let Some(ours) = error.downcast_ref::<Error>() {
            return Error::new(ours.kind(), ours.to_string());
        }
        match error.downcast_ref::<DataFusionError>() {
            Some(DataFusionError::ResourcesExhausted(_)) => kind = ErrorKind::Limit,
            Some(DataFusionError::Internal(_)) => kind = ErrorKind::Bug,
            _ => {}
        }
        if let Some(object_store::Error::NotFound { path, .. }) = error.downcast_ref::<object_store::Error>() {
            return Error::not_found(format!("no object `{path}`; it was there when the table's files were listed"));
        }
        text = error.to_string();
        next = error.source();
    }
    Error::new(kind, tidy(&text))
}

/// Lowercase, without a backtrace, a final period or DataFusion's plea for a bug report.
fn tidy(text: &str) -> String {
    let text = text.split(DataFusionError::BACK_TRACE_SEP).next().unwrap_or(text);
    lowercase_first(text.trim().trim_end_matches('.'))
}

/// Lowers the first letter unless it begins an acronym.
pub(super) fn lowercase_first(text: &str) -> String {
    let mut chars = text.chars();
    match (chars.next(), chars.next()) {
        (Some(first), Some(second)) if first.is_uppercase() && !second.is_uppercase() => {
            first.to_lowercase().collect::<String>() + &text[first.len_utf8()..]
        }
        _ => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_shown_with_its_line_and_a_caret() {
        let shown = pointed("no column `b`", "SELECT a,\n\tb FROM t", Place { line: 2, column: 2 });
        assert_eq!(shown, "line 2, column 2: no column `b`\n\tb FROM t\n\t^");
    }

    #[test]
    fn an_error_of_ours_comes_out_of_datafusion_as_it_went_in() {
        let ours = Error::limit("too much").context("reading");
        let wrapped = DataFusionError::Context("outer".into(), Box::new(DataFusionError::External(Box::new(ours))));
        let shared = DataFusionError::Shared(std::sync::Arc::new(wrapped));
        let error = Error::from(shared);
        assert_eq!((error.kind(), error.to_string().as_str()), (ErrorKind::Limit, "reading: too much"));
    }

    #[test]
    fn a_vanished_object_is_named() {
        let inner = object_store::Error::NotFound { path: "a/b".into(), source: "gone".into() };
        let error = Error::from(DataFusionError::ObjectStore(Box::new(inner)));
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert!(error.to_string().contains("`a/b`"), "{error}");
    }

    #[test]
    fn near_names_come_first_and_few_names_are_listed() {
        assert_eq!(suggestion("fligths", ["flights", "planes"].into_iter()), "; did you mean `flights`?");
        assert_eq!(suggestion("zzz", ["a_table", "b_table"].into_iter()), "; expected one of `a_table`, `b_table`");
        assert_eq!(suggestion("zzz", std::iter::empty()), "");
    }
}
