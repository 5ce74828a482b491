//! Tarn on one machine: the embedded runtime ([`runtime`]), the command line ([`cli`]), backups ([`backup`]) and the demo ([`demo`]).
//! An error ends a command with the exit code of its kind.

// A program: its clock and its chance are the machine's.
#![allow(clippy::disallowed_methods)]

pub mod backup;
pub mod cli;
pub mod demo;
pub mod runtime;
