//! Tarn on one machine: the embedded runtime ([`runtime`]), the command line ([`cli`]) and the demo ([`demo`]).

pub mod cli;
pub mod demo;
pub mod runtime;
