//! What runs when, and who runs it: schedules and leases.

pub mod lease;
pub mod schedule;
