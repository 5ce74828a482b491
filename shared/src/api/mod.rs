//! The edge: HTTP requests as API Gateway (payload version 2) sends them, answers, and the one place where error kinds become
//! status codes.

pub mod event;
pub mod http;

pub use event::{Event, Message};
pub use http::{Request, Response};
