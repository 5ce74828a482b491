//! What all functions and all crates beneath them share: names, types and errors; the ports; the lakehouse file; how a program
//! meets its callers.
//!
//! Every function fails with an [`Error`], whose [`ErrorKind`] says what its caller does next: mend the request, try again, look
//! whether it happened. [`ports::Ports`] is what a function is given.
//!
//! [`model`] and [`error`] are pure. The ports ([`storage`], [`stream`], [`catalog`], [`state`], and the [`clock`]) build on them;
//! their adapters are the crates `adapters-embedded` and `adapters-aws`, which only the programs name, through `wiring`. On the
//! ports stand `format`, `jobs` and `table`; on that `table-datafusion`, and the `engine` on it and on `format`.

pub mod api;
pub mod aside;
pub mod catalog;
pub mod clock;
pub mod config;
pub mod deadline;
pub mod digest;
pub mod erasure;
pub mod error;
pub mod heap;
pub mod lambda;
pub mod lock;
pub mod model;
pub mod pause;
pub mod ports;
pub mod principal;
pub mod project;
pub mod random;
pub mod sql;
pub mod state;
pub mod storage;
pub mod stream;
pub mod telemetry;
pub mod text;
pub mod threads;

pub use error::{Error, ErrorKind, Result};
pub use principal::Principal;
