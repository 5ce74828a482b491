//! For tests: one conformance suite per port, faults, and a simulation of processes among them.
//!
//! A suite is one async function over the port's trait that asserts what the trait's documentation promises. Every adapter
//! runs it: those in SQLite here, those on AWS against an emulator. [`faults`] and [`catalog_faults`] make ports fail;
//! [`simulation::World`] has processes, time and chance of its own.

// A suite fails by panicking, also where it is compiled for other crates' tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

pub mod catalog;
pub mod catalog_faults;
pub mod faults;
mod invoke;
pub mod simulation;
pub mod state;
pub mod storage;
pub mod stream;

pub use invoke::{invoke, request};

/// The kind of an error that must be there.
#[track_caller]
fn kind<T: std::fmt::Debug>(result: shared::Result<T>) -> shared::ErrorKind {
    result.expect_err("expected an error").kind()
}

#[cfg(test)]
mod adapters;
#[cfg(test)]
mod declared;
#[cfg(test)]
mod kill;
