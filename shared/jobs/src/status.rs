//! How far a run is, and why it failed.

use serde::{Deserialize, Serialize};
use shared::{Error, ErrorKind};

/// How far a run or a job is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Waits for its turn.
    Pending,
    Running,
    Succeeded,
    Failed,
    /// Not begun because another that it needs did not succeed: only for parts of a run, such as a workflow's jobs.
    Skipped,
    /// Stopped because somebody asked for it.
    Cancelled,
}

impl Status {
    /// Whether nothing more happens.
    pub fn is_over(self) -> bool {
        !matches!(self, Self::Pending | Self::Running)
    }

    /// The name in answers and tables.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Skipped => "skipped",
            Self::Cancelled => "cancelled",
        }
    }
}

/// An error as records keep it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// An [`ErrorKind`]'s name.
    pub kind: String,
    pub message: String,
}

impl Failure {
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind: kind.as_str().into(), message: message.into() }
    }
}

impl From<&Error> for Failure {
    fn from(error: &Error) -> Self {
        Self::new(error.kind(), error.to_string())
    }
}
