//! The events that trigger a function, told apart by their shape.

use aws_lambda_events::apigw::ApiGatewayV2httpRequest;
use aws_lambda_events::eventbridge::EventBridgeEvent;
use aws_lambda_events::kinesis::KinesisEvent;
use aws_lambda_events::s3::S3Event;
use serde_json::Value;

use super::Request;
use crate::{Error, Result};

/// The `detail-type` of what an EventBridge schedule sends.
const SCHEDULED: &str = "Scheduled Event";

/// What a function was called with.
#[derive(Debug)]
pub enum Event {
    /// An API Gateway HTTP API request, payload version 2.0.
    Http(Request),
    /// Records of a Kinesis stream.
    Kinesis(KinesisEvent),
    /// Objects that were created or removed.
    Objects(S3Event),
    /// A tick of a schedule; `detail` says what is due.
    Schedule(EventBridgeEvent<Value>),
}

impl Event {
    /// Tells the event's shape.
    ///
    /// # Errors
    /// `Invalid` when it is none of the four, or one with a part of the wrong type.
    pub fn parse(payload: Value) -> Result<Self> {
        if payload.get("requestContext").and_then(|c| c.get("http")).is_some() {
            let event: ApiGatewayV2httpRequest = decode(payload, "an API Gateway HTTP request (payload version 2.0)")?;
            return Ok(Self::Http(event.try_into()?));
        }
        if payload.get("detail-type").is_some() {
            let event: EventBridgeEvent<Value> = decode(payload, "an EventBridge event")?;
            if event.detail_type != SCHEDULED {
                return Err(Error::invalid(format!(
                    "expected an EventBridge event with the detail-type `{SCHEDULED}`, found `{}` from `{}`",
                    event.detail_type, event.source
                )));
            }
            return Ok(Self::Schedule(event));
        }
        match payload.pointer("/Records/0/eventSource").and_then(Value::as_str) {
            Some("aws:kinesis") => Ok(Self::Kinesis(decode(payload, "a Kinesis event")?)),
            Some("aws:s3") => Ok(Self::Objects(decode(payload, "an S3 event")?)),
            found => Err(Error::invalid(format!(
                "expected an event of API Gateway, Kinesis, S3 or EventBridge, found {}",
                found.map_or_else(|| summary(&payload), |source| format!("the event source `{source}`"))
            ))),
        }
    }

    /// The error of a function that was triggered by something it does not serve.
    pub fn unserved(&self, function: &str, serves: &str) -> Error {
        let found = match self {
            Self::Http(request) => format!("{} {}", request.method, request.path),
            Self::Kinesis(_) => "a Kinesis event".into(),
            Self::Objects(_) => "an S3 event".into(),
            Self::Schedule(_) => "a schedule".into(),
        };
        Error::invalid(format!("expected {serves} for `{function}`, found {found}"))
    }
}

fn decode<T: serde::de::DeserializeOwned>(payload: Value, what: &str) -> Result<T> {
    serde_json::from_value(payload).map_err(|e| Error::invalid(format!("expected {what}: {e}")))
}

/// The payload's top-level names; its values may be secret.
fn summary(payload: &Value) -> String {
    match payload {
        Value::Object(map) => {
            let names: Vec<_> = map.keys().take(5).map(|k| format!("`{k}`")).collect();
            format!("an object with {}", if names.is_empty() { "no fields".into() } else { names.join(", ") })
        }
        Value::Null => "null".into(),
        Value::Array(_) => "an array".into(),
        _ => "a scalar".into(),
    }
}
