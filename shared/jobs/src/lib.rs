//! What runs when, and who runs it.

pub mod schedule;
