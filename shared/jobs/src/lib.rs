//! What runs when, who runs it, and what is known of it: for whatever takes longer than its caller waits.
//!
//! A run has a record in a [`Ledger`], waits in a [`Queue`] unless its caller waits for it, and is done under the [`lease`] of its
//! group by one worker, who renews it as long as it lives ([`lease::Heartbeat`]). [`schedule`] says what is due.
//! [`failures`] keeps what fails until it succeeds, for whoever asks what is wrong.
//! Who lost a lease or came second gets `Conflict`.

pub mod failures;
pub mod lease;
pub mod ledger;
pub mod queue;
pub mod schedule;
pub mod status;

pub use ledger::{Ledger, Record, Stored};
pub use queue::{Queue, Served};
pub use status::{Failure, Status};
