//! What functions are called with and what they answer, and the one place where error kinds become status codes. The JSON of
//! Lambda's events is read in [`Event::parse`] and, for HTTP, in [`gateway`], nowhere behind.

pub mod event;
pub mod gateway;
pub mod http;
pub mod status;

pub use event::{Event, Message, Reply};
pub use http::{Body, Request, Response};
