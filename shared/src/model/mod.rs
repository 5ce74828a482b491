//! Pure values: names, types, stream positions, object keys. No I/O, no async.

pub mod keys;
pub mod name;
pub mod partition;
pub mod position;
pub(crate) mod text;
pub mod types;

pub use keys::Keys;
pub use name::TableName;
pub use partition::{PartitionField, Transform};
pub use position::{Positions, SequenceNumber, ShardId};
pub use types::{Column, ColumnType};
