//! Why a file can't be a table's.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What is wrong with a file. The file is reported and passed over; the crawl goes on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "reason", rename_all = "snake_case")]
pub enum FileFault {
    /// No bytes, or nothing but white space.
    Empty,
    /// The file ends before its content does.
    Truncated { found: String },
    /// The text is not UTF-8; `offset` counts bytes of the uncompressed text.
    InvalidUtf8 { offset: u64 },
    /// The content is broken otherwise.
    Corrupt { found: String },
    /// A format that is known but not read.
    Unsupported { format: String },
    /// No format fits.
    Unrecognized { found: String },
    /// The file may be sound, but a record is larger or nested more deeply than is read.
    TooLarge { found: String },
    /// The file went away between listing and reading.
    Vanished,
    /// The file is sound, but not of its table's format or schema.
    Misfit { found: String },
}

impl fmt::Display for FileFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("the file holds nothing"),
            Self::Truncated { found } => write!(f, "the file is cut short: {found}"),
            Self::InvalidUtf8 { offset } => write!(f, "expected UTF-8 text, found another byte at offset {offset}"),
            Self::Corrupt { found } => write!(f, "the file is broken: {found}"),
            Self::Unsupported { format } => write!(f, "expected CSV, JSON or Parquet, found {format}"),
            Self::Unrecognized { found } => write!(f, "expected CSV, JSON or Parquet, found {found}"),
            Self::TooLarge { found } => write!(f, "expected records of at most 8 MiB and 128 levels, found {found}"),
            Self::Vanished => f.write_str("the file went away while it was read"),
            Self::Misfit { found } => f.write_str(found),
        }
    }
}
