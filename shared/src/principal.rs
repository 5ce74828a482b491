//! Whom something is done for.

use crate::Result;
use crate::model::TableName;

/// Who a request, a statement or a run is made for. It comes with what is asked and goes with it to where names are resolved, so
/// that what is done for one is never done with the rights of another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Principal {
    /// Whoever has the data directory, or may call the deployed functions: every table is theirs.
    Owner,
}

/// What is to be done with a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    Read,
    /// Changing rows, columns or properties, making or dropping it.
    Write,
}

impl Principal {
    /// Checks that it may have the table of that name, whether or not there is one.
    ///
    /// # Errors
    /// `Denied` when it may not.
    pub fn check(&self, _access: Access, _table: &TableName) -> Result<()> {
        match self {
            Self::Owner => Ok(()),
        }
    }
}
