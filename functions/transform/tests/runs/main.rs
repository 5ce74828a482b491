//! Runs of workflows from request to table: the function as its callers see it, over ports in memory.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, unreachable_pub)]

mod by_default;
mod by_hand;
mod check;
mod erase;
mod incremental;
mod lake;
mod maintenance;
mod order;
mod quality;
mod quarantine;
mod queue;
mod recovery;
