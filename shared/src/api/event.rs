//! The events that trigger a function, told apart by their shape.

use aws_lambda_events::apigw::ApiGatewayV2httpRequest;
use aws_lambda_events::eventbridge::EventBridgeEvent;
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
    /// Records of a Kinesis stream, each as it came: one that can't be read holds up no other.
    Kinesis(Vec<Value>),
    /// Objects that were created or removed, each as it came. None for the event that S3 sends to try a notification out.
    Objects(Vec<Value>),
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
            // What serde found may be the value of a header.
            let event: ApiGatewayV2httpRequest = serde_json::from_value(payload).map_err(|_| {
                Error::invalid(
                    "expected an API Gateway HTTP request (payload version 2.0), found one with parts of other types",
                )
            })?;
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
        if payload.get("Event").and_then(Value::as_str) == Some("s3:TestEvent") {
            return Ok(Self::Objects(Vec::new()));
        }
        match source(&payload) {
            Some("aws:kinesis") => Ok(Self::Kinesis(records(payload))),
            Some("aws:s3") => Ok(Self::Objects(records(payload))),
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

/// The source of an event's records: that of the first which names one.
fn source(payload: &Value) -> Option<&str> {
    let records = payload.get("Records")?.as_array()?;
    records.iter().find_map(|record| record.get("eventSource").and_then(Value::as_str))
}

fn records(mut payload: Value) -> Vec<Value> {
    match payload.get_mut("Records").map(Value::take) {
        Some(Value::Array(records)) => records,
        _ => Vec::new(),
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn records_that_lack_their_source_are_told_by_the_others() {
        let good = json!({"eventSource": "aws:s3"});
        let Event::Objects(records) = Event::parse(json!({"Records": [{}, good]})).unwrap() else { panic!("objects") };
        assert_eq!(records, [json!({}), good]);
    }

    #[test]
    fn the_event_that_tries_a_notification_out_names_no_object() {
        let event = json!({
            "Service": "Amazon S3", "Event": "s3:TestEvent", "Time": "2024-01-01T00:00:00.000Z", "Bucket": "lake",
            "RequestId": "r", "HostId": "h",
        });
        let Event::Objects(records) = Event::parse(event).unwrap() else { panic!("objects") };
        assert!(records.is_empty());
    }

    #[test]
    fn what_is_no_event_is_refused_with_what_it_is() {
        for (payload, found) in [
            (json!(null), "null"),
            (json!([1]), "an array"),
            (json!({}), "no fields"),
            (json!({"secret": "s3cret"}), "`secret`"),
            (json!({"Records": []}), "`Records`"),
            (json!({"Records": "all"}), "`Records`"),
            (json!({"Records": [{"eventSource": "aws:sqs"}]}), "`aws:sqs`"),
            (
                json!({"detail-type": "Object Created", "source": "aws.s3", "detail": {}}),
                "`Object Created` from `aws.s3`",
            ),
            (json!({"detail-type": "Scheduled Event"}), "source"),
            (json!({"requestContext": {"http": {"method": "GET"}}, "headers": "s3cret"}), "parts of other types"),
        ] {
            let error = Event::parse(payload.clone()).unwrap_err();
            assert_eq!(error.kind(), crate::ErrorKind::Invalid);
            let text = error.to_string();
            assert!(text.contains(found) && !text.contains("s3cret"), "{payload}: {text}");
        }
    }
}
