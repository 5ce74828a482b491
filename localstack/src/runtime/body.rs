//! Bodies of requests: read within time and memory that slow or large senders can't take from others.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, HttpBody};
use bytes::{Bytes, BytesMut};
use shared::api::Response;
use shared::{Error, ErrorKind};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};

/// What the permits of [`Bodies`] count.
const UNIT: usize = 1024;
/// Bodies of the largest size that are held at once.
const LARGEST_AT_ONCE: usize = 4;
/// How long a sender may be silent.
const SILENCE: Duration = Duration::from_secs(10);
/// The time of a body of no bytes, and how many bytes a second it must have beside.
const START: Duration = Duration::from_secs(20);
const BYTES_PER_SECOND: u64 = 32 << 10;
/// How long the rest of a body that is too large is read, and thrown away.
const DRAIN: Duration = Duration::from_secs(5);

/// The memory of all bodies that are read or worked on.
#[derive(Debug)]
pub(super) struct Bodies {
    /// Bytes of one at most.
    largest: usize,
    memory: Arc<Semaphore>,
    /// How long a sender may be silent, and the time of a body of no bytes.
    silence: Duration,
    start: Duration,
}

/// A body that was read whole, with its memory.
#[derive(Debug)]
pub(super) struct ReadBody {
    pub(super) bytes: Bytes,
    _memory: Option<OwnedSemaphorePermit>,
}

impl Bodies {
    pub(super) fn new(largest: usize) -> Self {
        let units = (largest / UNIT + 1).saturating_mul(LARGEST_AT_ONCE).min(Semaphore::MAX_PERMITS);
        Self { largest, memory: Arc::new(Semaphore::new(units)), silence: SILENCE, start: START }
    }

    /// Reads to the end, or gives the answer that refuses the body: 413 past its size, 408 when it comes too slowly, 429 while
    /// others have the memory.
    pub(super) async fn read(&self, mut body: Body) -> Result<ReadBody, Response> {
        let started = Instant::now();
        let (mut bytes, mut memory): (_, Option<OwnedSemaphorePermit>) = (BytesMut::new(), None);
        loop {
            let slowest = started + self.start + Duration::from_secs(bytes.len() as u64 / BYTES_PER_SECOND);
            let frame = std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx));
            let frame = match timeout_at(slowest.min(Instant::now() + self.silence), frame).await {
                Err(_) => return Err(too_slow(bytes.len(), self.silence)),
                Ok(None) => return Ok(ReadBody { bytes: bytes.freeze(), _memory: memory }),
                Ok(Some(frame)) => frame.map_err(|_| broken_off(bytes.len()))?,
            };
            let Ok(data) = frame.into_data() else { continue };
            if bytes.len() + data.len() > self.largest {
                drop(bytes);
                drain(body).await;
                return Err(too_large(self.largest));
            }
            bytes.extend_from_slice(&data);
            self.account(bytes.len(), &mut memory)?;
        }
    }

    /// Takes as much memory as `bytes` need beside what is had.
    fn account(&self, bytes: usize, memory: &mut Option<OwnedSemaphorePermit>) -> Result<(), Response> {
        let had = memory.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let more = u32::try_from(bytes.div_ceil(UNIT).saturating_sub(had)).unwrap_or(u32::MAX);
        if more == 0 {
            return Ok(());
        }
        let taken = Arc::clone(&self.memory).try_acquire_many_owned(more).map_err(|_| too_many())?;
        match memory {
            Some(memory) => memory.merge(taken),
            None => *memory = Some(taken),
        }
        Ok(())
    }
}

/// Lets the sender come to its end, for a while: one that is cut off while it sends never reads its answer.
async fn drain(mut body: Body) {
    let rest = async { while let Some(Ok(_)) = std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {} };
    if tokio::time::timeout(DRAIN, rest).await.is_err() {
        tracing::debug!("a body that is too large was still being sent when its request was refused");
    }
}

/// 429, with the advice to come back.
pub(super) fn too_many() -> Response {
    answer(429, ErrorKind::Retry, "too many requests are under way: send this one again later".into())
        .with_header("retry-after", "1")
}

fn too_slow(bytes: usize, silence: Duration) -> Response {
    let message = format!(
        "expected a body of at least {BYTES_PER_SECOND} bytes a second without a pause of {} s, found one that fell behind after \
         {bytes} bytes",
        silence.as_secs_f64()
    );
    answer(408, ErrorKind::Retry, message).with_header("connection", "close")
}

fn broken_off(bytes: usize) -> Response {
    Response::error(&Error::invalid(format!("expected a whole body, found one that broke off after {bytes} bytes")))
}

fn too_large(largest: usize) -> Response {
    Response::error(&Error::limit(format!("expected a body of {largest} bytes at most, found more")))
}

fn answer(status: u16, kind: ErrorKind, message: String) -> Response {
    Response { status, ..Response::error(&Error::new(kind, message)) }
}

#[cfg(test)]
mod tests {
    use futures::StreamExt;

    use super::*;

    fn chunks(sizes: &[usize]) -> Body {
        let chunks: Vec<_> = sizes.iter().map(|n| Ok::<_, std::io::Error>(vec![b'x'; *n])).collect();
        Body::from_stream(futures::stream::iter(chunks))
    }

    #[tokio::test]
    async fn a_body_is_read_whole_up_to_its_size() {
        let bodies = Bodies::new(2_000);
        assert_eq!(bodies.read(chunks(&[1_000, 1_000])).await.unwrap().bytes.len(), 2_000);
        assert_eq!(bodies.read(chunks(&[1_000, 1_001])).await.unwrap_err().status, 413);
    }

    #[tokio::test]
    async fn bodies_share_a_memory_that_they_give_back() {
        let bodies = Bodies::new(UNIT);
        let mut held = Vec::new();
        let refused = loop {
            match bodies.read(chunks(&[UNIT])).await {
                Ok(body) => held.push(body),
                Err(refusal) => break refusal,
            }
        };
        assert_eq!((refused.status, held.len()), (429, 2 * LARGEST_AT_ONCE));
        held.pop();
        assert!(bodies.read(chunks(&[UNIT])).await.is_ok());
    }

    #[tokio::test]
    async fn a_sender_that_falls_silent_or_drips_is_given_up() {
        let pause = Duration::from_millis(20);
        let bodies = Bodies { silence: 5 * pause, start: 10 * pause, ..Bodies::new(1 << 20) };
        let silent = Body::from_stream(futures::stream::pending::<Result<Bytes, std::io::Error>>());
        assert_eq!(bodies.read(silent).await.unwrap_err().status, 408);
        let drip = futures::stream::repeat(()).then(move |()| async move {
            tokio::time::sleep(pause).await;
            Ok::<_, std::io::Error>(Bytes::from_static(b"x"))
        });
        assert_eq!(bodies.read(Body::from_stream(drip)).await.unwrap_err().status, 408);
    }
}
