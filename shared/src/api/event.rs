//! The events that trigger a function, told apart by their shape, and what it gives back.

use aws_lambda_events::eventbridge::EventBridgeEvent;
use serde_json::Value;

use super::{Body, Request, Response, gateway};
use crate::{Error, Result};

/// The `detail-type` of what an EventBridge schedule sends.
const SCHEDULED: &str = "Scheduled Event";

/// What a function was called with.
#[derive(Debug)]
pub enum Event {
    /// A request of an HTTP API.
    Http(Request),
    /// Records of a Kinesis stream, each as it came: one that can't be read holds up no other.
    Kinesis(Vec<Value>),
    /// Objects that were created or removed, each as it came. None for the event that S3 sends to try a notification out.
    Objects(Vec<Value>),
    /// Messages of an SQS queue.
    Queue(Vec<Message>),
    /// A tick of a schedule; `detail` says what is due.
    Schedule(EventBridgeEvent<Value>),
}

impl Event {
    /// Tells the event's shape.
    ///
    /// # Errors
    /// `Invalid` when it is none of the five, or one with a part of the wrong type.
    pub fn parse(payload: Value) -> Result<Self> {
        if payload.get("requestContext").and_then(|c| c.get("http")).is_some() {
            return gateway::request(payload).map(Self::Http);
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
            Some("aws:sqs") => Ok(Self::Queue(records(payload).into_iter().map(Message).collect())),
            found => Err(Error::invalid(format!(
                "expected an event of API Gateway, Kinesis, S3, SQS or EventBridge, found {}",
                found.map_or_else(|| summary(&payload), |source| format!("the event source `{source}`"))
            ))),
        }
    }

    /// The error of a function that was triggered by something it does not serve.
    pub fn unserved(&self, function: &str, serves: &str) -> Error {
        Error::invalid(format!("expected {serves} for `{function}`, found {}", self.named()))
    }

    fn named(&self) -> String {
        match self {
            Self::Http(request) => format!("{} {}", request.method, request.path),
            Self::Kinesis(_) => "a Kinesis event".into(),
            Self::Objects(_) => "an S3 event".into(),
            Self::Queue(_) => "an SQS event".into(),
            Self::Schedule(_) => "a schedule".into(),
        }
    }
}

/// What a function gives back.
#[derive(Debug)]
pub enum Reply {
    /// To [`Event::Http`].
    Http(Response<Body>),
    /// To any other: what its sender reads, or a report.
    Json(Value),
}

impl From<Response> for Reply {
    fn from(response: Response) -> Self {
        Self::Http(response.into())
    }
}

impl From<Response<Body>> for Reply {
    fn from(response: Response<Body>) -> Self {
        Self::Http(response)
    }
}

impl From<Value> for Reply {
    fn from(value: Value) -> Self {
        Self::Json(value)
    }
}

impl Reply {
    /// What answers a request.
    ///
    /// # Errors
    /// `Bug` for the reply to another event.
    pub fn response(self) -> Result<Response<Body>> {
        match self {
            Self::Http(response) => Ok(response),
            Self::Json(_) => Err(Error::bug("expected an HTTP answer from the function, found JSON")),
        }
    }

    /// What answers an event that is no request.
    ///
    /// # Errors
    /// `Bug` for the reply to a request.
    pub fn json(self) -> Result<Value> {
        match self {
            Self::Json(value) => Ok(value),
            Self::Http(_) => Err(Error::bug("expected JSON from the function, found an HTTP answer")),
        }
    }
}

/// A message of an SQS queue, as it came.
#[derive(Debug, Clone, PartialEq)]
pub struct Message(Value);

impl Message {
    /// What `batchItemFailures` names it by; empty when it does not say, which stands for the whole event.
    pub fn id(&self) -> &str {
        self.0.get("messageId").and_then(Value::as_str).unwrap_or_default()
    }

    /// The objects that the S3 event in its body names, as those of [`Event::Objects`].
    ///
    /// # Errors
    /// `Invalid` for a body of something else.
    pub fn objects(&self) -> Result<Vec<Value>> {
        let expected =
            |found: &str| Error::invalid(format!("expected a message whose body is an S3 event, found {found}"));
        let source = self.0.get("eventSource").and_then(Value::as_str);
        if source != Some("aws:sqs") {
            return Err(expected(&source.map_or("a record without a source".into(), |s| format!("a record of `{s}`"))));
        }
        let body = self.0.get("body").and_then(Value::as_str).ok_or_else(|| expected("no body"))?;
        let body = serde_json::from_str(body).map_err(|e| expected("no JSON").with_source(e))?;
        match Event::parse(body) {
            Ok(Event::Objects(records)) => Ok(records),
            Ok(other) => Err(expected(&other.named())),
            Err(error) => Err(error.context("expected a message whose body is an S3 event")),
        }
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

    fn message(body: &str) -> Message {
        Message(json!({"messageId": "m-1", "eventSource": "aws:sqs", "body": body}))
    }

    #[test]
    fn each_message_of_a_queue_holds_an_event_of_objects() {
        let created = json!({"eventSource": "aws:s3", "eventName": "ObjectCreated:Put"});
        let body = json!({"Records": [created]}).to_string();
        let event = json!({"Records": [{"messageId": "m-1", "eventSource": "aws:sqs", "body": body}]});
        let Event::Queue(messages) = Event::parse(event).unwrap() else { panic!("messages") };
        assert_eq!(messages, [message(&body)]);
        assert_eq!((messages[0].id(), messages[0].objects().unwrap()), ("m-1", vec![created]));
        let test = message(&json!({"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": "lake"}).to_string());
        assert_eq!(test.objects().unwrap(), Vec::<Value>::new());
    }

    #[test]
    fn a_message_of_something_else_is_refused_with_what_it_holds() {
        for (bad, found) in [
            (message("s3cret"), "no JSON"),
            (message("\"s3cret\""), "a scalar"),
            (message(r#"{"Records": []}"#), "`Records`"),
            (message(r#"{"s3cret": 1}"#), "an object"),
            (message(r#"{"Records": [{"eventSource": "aws:kinesis"}]}"#), "a Kinesis event"),
            (message(r#"{"Records": [{"eventSource": "aws:sqs", "body": "s3cret"}]}"#), "an SQS event"),
            (Message(json!({"eventSource": "aws:sqs", "body": {"s3cret": 1}})), "no body"),
            (Message(json!({"eventSource": "aws:s3", "body": "s3cret"})), "`aws:s3`"),
            (Message(json!("s3cret")), "without a source"),
        ] {
            let error = bad.objects().unwrap_err();
            let text = error.to_string();
            assert_eq!(error.kind(), crate::ErrorKind::Invalid);
            assert!(text.contains(found) && text.contains("an S3 event"), "{bad:?}: {text}");
        }
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
            (json!({"Records": [{"eventSource": "aws:sns"}]}), "`aws:sns`"),
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
