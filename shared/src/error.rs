//! One error type for the whole project.
//!
//! [`ErrorKind`] is what the caller should do next, not where the error came from. The message says what was expected
//! and what was found, in lowercase, with values in backticks. The edge ([`crate::api`]) maps kinds to HTTP and AWS
//! codes, once; nothing parses error text. What errors of DataFusion and SQLite become is in modules of their own, behind features.

#[cfg(feature = "datafusion")]
pub mod datafusion;
#[cfg(feature = "sqlite")]
mod sqlite;

use std::error::Error as StdError;
use std::fmt;

/// A result whose error is [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What the caller should do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The request is wrong: correct it before sending it again.
    Invalid,
    /// The named thing does not exist.
    NotFound,
    /// The caller may not do this.
    Denied,
    /// Somebody else changed the same thing first: reload, validate, try again.
    Conflict,
    /// A passing fault: the same call may succeed later.
    Retry,
    /// A declared limit was reached (size, memory, rate, time).
    Limit,
    /// The call may or may not have taken effect: look before retrying.
    OutcomeUnknown,
    /// A defect in this program, or data that it wrote itself and can't read.
    Bug,
}

impl ErrorKind {
    /// The stable name used in answers and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Invalid => "Invalid",
            Self::NotFound => "NotFound",
            Self::Denied => "Denied",
            Self::Conflict => "Conflict",
            Self::Retry => "Retry",
            Self::Limit => "Limit",
            Self::OutcomeUnknown => "OutcomeUnknown",
            Self::Bug => "Bug",
        }
    }

    /// What the error of a store asks for.
    pub fn of_store(error: &object_store::Error) -> Self {
        use object_store::Error as E;
        match error {
            E::NotFound { .. } => Self::NotFound,
            E::AlreadyExists { .. } | E::Precondition { .. } => Self::Conflict,
            E::PermissionDenied { .. } | E::Unauthenticated { .. } => Self::Denied,
            E::InvalidPath { .. } | E::NotSupported { .. } | E::UnknownConfigurationKey { .. } => Self::Invalid,
            E::Generic { source, .. } if is_disk_full(source.as_ref()) => Self::Limit,
            E::Generic { source, .. } if is_misplaced(source.as_ref()) => Self::Invalid,
            E::Generic { source, .. } if below::<Impossible>(source.as_ref()).is_some() => Self::Invalid,
            E::Generic { source, .. } => below::<Error>(source.as_ref()).map_or(Self::Retry, Error::kind),
            _ => Self::Retry,
        }
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A kind, a message, what was being done (outermost last), and the error underneath.
#[derive(Debug)]
pub struct Error {
    kind: ErrorKind,
    message: String,
    context: Vec<String>,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl Error {
    /// An error of `kind`; `message` is lowercase, without a final period.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), context: Vec::new(), source: None }
    }

    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Invalid, message)
    }

    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::NotFound, message)
    }

    pub fn denied(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Denied, message)
    }

    pub fn conflict(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Conflict, message)
    }

    pub fn retry(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Retry, message)
    }

    pub fn limit(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Limit, message)
    }

    pub fn bug(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Bug, message)
    }

    /// Keeps the error underneath.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Says what was being done when the error happened, e.g. ``"committing table `nyc.flights`"``.
    #[must_use]
    pub fn context(mut self, doing: impl Into<String>) -> Self {
        self.context.push(doing.into());
        self
    }

    /// What the caller should do next.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The message alone, without context or source.
    pub fn message(&self) -> &str {
        &self.message
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for doing in self.context.iter().rev() {
            write!(f, "{doing}: ")?;
        }
        f.write_str(&self.message)?;
        let mut source = self.source();
        while let Some(error) = source {
            let text = error.to_string();
            if !self.message.contains(&text) {
                write!(f, ": {text}")?;
            }
            source = error.source();
        }
        Ok(())
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|e| e as &(dyn StdError + 'static))
    }
}

/// Adds context to the error of a result.
pub trait Context<T> {
    /// Says what was being done; the text is built only when there is an error.
    fn context(self, doing: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: Into<Error>> Context<T> for std::result::Result<T, E> {
    fn context(self, doing: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|error| error.into().context(doing()))
    }
}

impl From<object_store::Error> for Error {
    fn from(error: object_store::Error) -> Self {
        match (below::<Impossible>(&error), below::<Self>(&error)) {
            (Some(Impossible(text)), _) => Self::invalid(text.clone()),
            // Ours, on its way through a store.
            (None, Some(own)) => Self::new(own.kind(), own.to_string()),
            (None, None) => {
                Self::new(ErrorKind::of_store(&error), "object store refused the request").with_source(error)
            }
        }
    }
}

impl From<std::io::Error> for Error {
    fn from(error: std::io::Error) -> Self {
        use std::io::ErrorKind as Io;
        let kind = match error.kind() {
            Io::NotFound => ErrorKind::NotFound,
            Io::PermissionDenied => ErrorKind::Denied,
            Io::StorageFull | Io::QuotaExceeded | Io::FileTooLarge => ErrorKind::Limit,
            Io::InvalidInput | Io::InvalidData | Io::UnexpectedEof | Io::NotADirectory | Io::IsADirectory => {
                ErrorKind::Invalid
            }
            _ => ErrorKind::Retry,
        };
        Self::new(kind, "input or output failed").with_source(error)
    }
}

impl From<arrow::error::ArrowError> for Error {
    fn from(error: arrow::error::ArrowError) -> Self {
        Self::new(ErrorKind::Invalid, "data does not fit its declared type").with_source(error)
    }
}

/// What was asked for can't be: below errors that a library takes for passing faults. The text says what was expected and found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Impossible(pub String);

impl fmt::Display for Impossible {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl StdError for Impossible {}

/// Whether an I/O error anywhere below says that the disk is full.
fn is_disk_full(error: &(dyn StdError + 'static)) -> bool {
    below::<std::io::Error>(error)
        .is_some_and(|io| matches!(io.kind(), std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded))
}

/// Whether an I/O error anywhere below says that a name is a file's where a folder is needed, or a folder's: of local files only, where
/// no name is both.
fn is_misplaced(error: &(dyn StdError + 'static)) -> bool {
    use std::io::ErrorKind as Io;
    below::<std::io::Error>(error)
        .is_some_and(|io| matches!(io.kind(), Io::NotADirectory | Io::IsADirectory | Io::DirectoryNotEmpty))
}

/// The first error of a type in the chain of causes that begins with `error`.
fn below<'a, E: StdError + 'static>(error: &'a (dyn StdError + 'static)) -> Option<&'a E> {
    std::iter::successors(Some(error), |&error| error.source()).find_map(|error| error.downcast_ref())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_reads_outermost_context_first_and_source_last() {
        let error = Error::invalid("expected `int`, found `x`")
            .with_source(std::io::Error::other("inner"))
            .context("reading column `a`")
            .context("loading table `t`");
        assert_eq!(error.to_string(), "loading table `t`: reading column `a`: expected `int`, found `x`: inner");
        assert_eq!(error.kind(), ErrorKind::Invalid);
    }

    #[test]
    fn a_name_that_is_a_file_s_and_a_folder_s_is_the_caller_s_to_change() {
        for kind in [std::io::ErrorKind::NotADirectory, std::io::ErrorKind::IsADirectory] {
            let error = object_store::Error::Generic { store: "test", source: Box::new(std::io::Error::from(kind)) };
            assert_eq!(Error::from(error).kind(), ErrorKind::Invalid);
        }
    }

    #[test]
    fn a_full_disk_is_a_limit() {
        let io = std::io::Error::from(std::io::ErrorKind::StorageFull);
        let error = object_store::Error::Generic { store: "test", source: Box::new(io) };
        assert_eq!(Error::from(error).kind(), ErrorKind::Limit);
    }
}
