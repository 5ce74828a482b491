//! The crate that all six functions share.
//!
//! Imports go one way: [`model`] and [`error`] are pure; the ports ([`storage`], [`stream`], [`catalog`], [`state`])
//! build on them; [`table`] and [`format`](mod@format) build on the ports; [`engine`] builds on those. Only wiring
//! ([`config`]) names an adapter.

pub mod api;
pub mod aws;
pub mod catalog;
pub mod clock;
pub mod config;
pub mod deadline;
pub mod engine;
pub mod error;
pub mod format;
pub mod heap;
pub mod lambda;
pub mod lock;
pub mod model;
pub mod pause;
pub mod project;
pub mod schedule;
mod sqlite;
pub mod state;
pub mod storage;
pub mod stream;
pub mod table;
pub mod telemetry;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod threads;

pub use error::{Error, ErrorKind, Result};
