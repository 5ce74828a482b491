//! End to end: the real programs, over HTTP and the command line, on files in a temporary directory.
//!
//! [`lake`] starts and stops `tarn up`; every other module is one promise of the README. Build the programs first
//! (`make test` does): the tests run what lies beside them in the target folder. [`simulation`] alone runs the libraries in its own
//! process.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "the whole crate is a test: it stops where it fails"
)]
// The programs under test have the time of the machine.
#![allow(clippy::disallowed_methods)]

mod access;
mod backup;
mod bad_events;
mod bad_input;
mod busy;
mod clients;
mod crash;
mod demo;
mod demo_killed;
mod directory;
mod docs;
mod edits;
mod emulator;
mod erasure;
mod flow;
mod foreign;
mod handlers;
mod interop;
mod lake;
mod lambda;
mod operations;
mod rejected;
mod resend;
mod shell;
mod simulation;
mod slt;
mod tables_page;
mod telemetry;
