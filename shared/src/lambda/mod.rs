//! The opening of the six programs on AWS Lambda: each asks the runtime for events and gives them to its library.
//!
//! What every function needs there is here, once: a span with the invocation's ids around all that it logs, a deadline before
//! Lambda's own, errors as the runtime and API Gateway expect them, answers within Lambda's size, and panics that tell nobody
//! but the log.

mod trace;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::FutureExt;
use lambda_runtime::{Context, Diagnostic, LambdaEvent, Runtime, service_fn};
use serde_json::{Value, json};
use tokio::sync::OnceCell;
use tracing::Instrument;

use crate::api::{Event, Reply, Response, gateway};
use crate::clock::{Clock, SystemClock};
use crate::config::Settings;
use crate::ports::Ports;
use crate::project::Project;
use crate::{Error, ErrorKind, Result, deadline, heap, telemetry};

/// Why a program can't serve at all.
pub use lambda_runtime::Error as Failure;

/// Bytes of an answer at most: what Lambda gives back to a caller.
const MAX_ANSWER: usize = 6 * 1024 * 1024 + 100;
/// How long before Lambda's own end an overrun is answered.
const MARGIN: Duration = Duration::from_secs(1);

/// Runs the function `name` until Lambda ends the process. `connect` opens the ports that the settings name, `open` makes the
/// function of them, `handle` gives it an event. What can't be opened is tried again at each event, and is that event's error.
///
/// # Errors
/// When the environment variables of the log are wrong, or the runtime can't be reached.
pub async fn run<T, C, O, H>(name: &'static str, connect: C, open: O, handle: H) -> Result<(), Failure>
where
    C: AsyncFn(&Settings) -> Result<Ports>,
    O: Fn(&Settings, Arc<Project>, Ports) -> Result<T>,
    H: AsyncFn(&T, Event) -> Result<Reply>,
{
    heap::watch();
    let lookup = |variable: &str| std::env::var(variable).ok();
    telemetry::init(&lookup)?;
    telemetry::metrics::init(&lookup)?;
    std::panic::set_hook(Box::new(|panic| {
        // Its message may hold what a record says.
        let place = panic.location().map(ToString::to_string);
        tracing::error!(place, "the function panicked");
    }));
    let host = Host::new(
        name,
        async || {
            let settings = Settings::from_env()?;
            let ports = connect(&settings).await?;
            open(&settings, Arc::new(Project::load(&settings.project)?), ports)
        },
        handle,
    );
    if let Err(error) = host.function().await {
        tracing::error!(function = name, %error, "the function can't be opened yet");
    }
    let host = &host;
    Runtime::new(service_fn(move |event| host.answer(event))).run().await
}

/// A function and what it was called with so far.
struct Host<T, O, H> {
    name: &'static str,
    open: O,
    handle: H,
    function: OnceCell<T>,
    /// Whether an event was answered before.
    warm: AtomicBool,
}

impl<T, O, H> Host<T, O, H>
where
    O: AsyncFn() -> Result<T>,
    H: AsyncFn(&T, Event) -> Result<Reply>,
{
    fn new(name: &'static str, open: O, handle: H) -> Self {
        Self { name, open, handle, function: OnceCell::new(), warm: AtomicBool::new(false) }
    }

    async fn function(&self) -> Result<&T> {
        self.function.get_or_try_init(|| (self.open)()).await
    }

    /// Answers an event. The error of an HTTP request is its response; any other is told to Lambda by its kind and message.
    async fn answer(&self, event: LambdaEvent<Value>) -> Result<Value, Diagnostic> {
        let (payload, context) = event.into_parts();
        let cold = !self.warm.swap(true, Ordering::Relaxed);
        let trace_id = trace::id(&payload, &context);
        let span = trace::span(self.name, &payload, &context, cold, trace_id.as_deref());
        let is_http = payload.pointer("/requestContext/http").is_some();
        let answer = async {
            let work = async {
                match (self.handle)(self.function().await?, Event::parse(payload)?).await? {
                    Reply::Http(response) => Ok(self.within_size(gateway::answer(response.whole().await?))),
                    Reply::Json(value) => Ok(noted(value)),
                }
            };
            let done = self.in_time(&context, is_http, work.boxed_local()).await;
            if let Err(error) = &done {
                tracing::error!(kind = %error.kind(), %error, "the event was not answered");
            }
            done
        };
        match telemetry::trace::within(trace_id, answer).instrument(span).await {
            Err(error) if is_http => Ok(gateway::answer(Response::error(&error))),
            other => other,
        }
        .map_err(|error| Diagnostic { error_type: error.kind().to_string(), error_message: error.to_string() })
    }

    /// Does the work before Lambda's deadline; a panic is an error that says nothing of it.
    ///
    /// An event comes again as it is, and its function goes on where it was. A request is its caller's to repeat, who must know that
    /// it may have been done: a row that is inserted again is there twice.
    async fn in_time(
        &self,
        context: &Context,
        is_http: bool,
        work: impl Future<Output = Result<Value>>,
    ) -> Result<Value> {
        let at_ms = i64::try_from(context.deadline).unwrap_or(i64::MAX);
        let left = u64::try_from(at_ms.saturating_sub(SystemClock.now_ms())).unwrap_or(0);
        let left = Duration::from_millis(left);
        let time = left - MARGIN.min(left / 4);
        let work = AssertUnwindSafe(deadline::until(at_ms, work)).catch_unwind();
        match tokio::time::timeout(time, work).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(Error::bug(format!("`{}` broke off: its log says where", self.name))),
            Err(_) => Err(self.overrun(time, is_http)),
        }
    }

    fn overrun(&self, time: Duration, is_http: bool) -> Error {
        let found = format!(
            "expected `{}` to answer before the function's time-out, found it at work after {} ms",
            self.name,
            time.as_millis()
        );
        if is_http {
            return Error::new(
                ErrorKind::OutcomeUnknown,
                format!(
                    "{found}: what it changes may or may not be done. Look, or send it again if it only reads or has the \
                     `idempotency-key` that it had"
                ),
            );
        }
        Error::retry(format!("{found}: what it did is kept, and the same event does the rest"))
    }

    /// The answer to an HTTP request, if Lambda can carry it.
    fn within_size(&self, answer: Value) -> Value {
        let bytes = size(&answer);
        if bytes <= MAX_ANSWER {
            return answer;
        }
        gateway::answer(Response::error(&Error::limit(format!(
            "expected an answer of at most {MAX_ANSWER} bytes, which is what Lambda carries, found {bytes} from `{}`: ask for \
             less with a `LIMIT`, fewer columns or a shorter time, or have the result stored: `POST /query` stores what is too \
             large and answers with its URL, an insight stores its result in the table that its `into` names",
            self.name
        ))))
    }
}

/// The answer to an event whose sender does not read it, or its size when Lambda could not carry it: the work is done.
fn noted(answer: Value) -> Value {
    match size(&answer) {
        bytes if bytes > MAX_ANSWER => json!({"answerBytes": bytes}),
        _ => answer,
    }
}

/// Bytes of the answer's JSON.
fn size(answer: &Value) -> usize {
    struct Count(usize);
    impl std::io::Write for Count {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let mut count = Count(0);
    // Counting can't fail, and a Value always has a JSON form.
    let _ = serde_json::to_writer(&mut count, answer);
    count.0
}

#[cfg(test)]
mod tests;
