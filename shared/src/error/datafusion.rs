//! DataFusion's errors as ours: the kind by type.

use std::error::Error as StdError;

use arrow::error::ArrowError;
use datafusion_common::DataFusionError;

use crate::{Error, ErrorKind};

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
pub fn lowercase_first(text: &str) -> String {
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
}
