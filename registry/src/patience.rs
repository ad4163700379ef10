//! Limits on waiting for the network: no behaviour of a server delays a command for ever.
//!
//! The limit is one of silence, not of duration: transfers that make progress are not limited. It applies to connecting
//! and the TLS handshake, to sending, to the response's headers and to each piece of its body. Only the response to an
//! upload may take longer, since registries verify uploads before they answer.

use crate::error::RegistryError;
use http::Response;
use http_body_util::BodyExt;
use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::Instant;

/// Longest silence of a server unless [`crate::Settings`] set another one.
pub const DEFAULT_PATIENCE: Duration = Duration::from_secs(30);
/// Number of bytes that count as progress within that time: a server could drip for ever.
const MIN_PROGRESS: u64 = 1 << 10;
/// Factor by which the response to an upload may take longer.
const UPLOAD_FACTOR: u32 = 10;
/// Size of the pieces in which uploads are passed to the connection, in bytes.
const PIECE: usize = 64 << 10;

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// A server that was silent for too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the server sent {} for {} s", if *.received == 0 { "nothing".to_owned() } else { format!("only {received} bytes") }, .waited.as_secs_f32())]
pub(crate) struct Silence {
    waited: Duration,
    /// Number of bytes received meanwhile.
    received: u64,
}

impl Silence {
    fn of(waited: Duration) -> Failure {
        Box::new(Silence { waited, received: 0 })
    }
}

/// Body of a response; reading it is limited by the patience.
pub(crate) struct Download {
    body: Incoming,
    patience: Duration,
    /// Time spent waiting since `received` began to count.
    waited: Duration,
    received: u64,
}

impl Download {
    /// Next piece; `None` at the end.
    ///
    /// # Errors
    /// The connection's error, or [`Silence`].
    pub(crate) async fn next(&mut self) -> Option<Result<Bytes, Failure>> {
        loop {
            let begun = Instant::now();
            let frame = match tokio::time::timeout(self.patience, self.body.frame()).await {
                Err(_) => return Some(Err(Silence::of(self.patience))),
                Ok(None) => return None,
                Ok(Some(Err(error))) => return Some(Err(error.into())),
                Ok(Some(Ok(frame))) => frame,
            };
            self.waited += begun.elapsed();
            let Ok(data) = frame.into_data() else { continue };
            self.received += data.len() as u64;
            if self.received >= MIN_PROGRESS {
                (self.waited, self.received) = (Duration::ZERO, 0);
            } else if self.waited >= self.patience {
                return Some(Err(Box::new(Silence { waited: self.patience, received: self.received })));
            }
            return Some(Ok(data));
        }
    }
}

/// Body of a request, with the progress of sending it.
pub(crate) struct Upload {
    rest: Bytes,
    taken: Arc<Mutex<Taken>>,
}

/// Progress of sending a request's body.
#[derive(Clone, Copy)]
pub(crate) struct Taken {
    at: Instant,
    /// Whether the connection has taken all of a body that is not empty.
    is_whole: bool,
}

impl Upload {
    pub(crate) fn new(bytes: Bytes) -> Upload {
        Upload { rest: bytes, taken: Arc::new(Mutex::new(Taken { at: Instant::now(), is_whole: false })) }
    }

    /// Waits for the response to this upload; `answer` sends it.
    ///
    /// # Errors
    /// The error of `answer`, or [`Silence`].
    pub(crate) async fn answer<E: Into<Failure>>(
        taken: &Mutex<Taken>,
        patience: Duration,
        answer: impl Future<Output = Result<Response<Incoming>, E>>,
    ) -> Result<Response<Download>, Failure> {
        let last = || *taken.lock().unwrap_or_else(PoisonError::into_inner);
        let watch = async {
            loop {
                let Taken { at, is_whole } = last();
                let waited = if is_whole { patience * UPLOAD_FACTOR } else { patience };
                if at.elapsed() >= waited {
                    return waited;
                }
                tokio::time::sleep_until(at + waited).await;
            }
        };
        tokio::select! {
            response = answer => response.map_err(Into::into).map(|response| {
                response.map(|body| Download { body, patience, waited: Duration::ZERO, received: 0 })
            }),
            waited = watch => Err(Silence::of(waited)),
        }
    }

    /// Progress of sending, shared with the body.
    pub(crate) fn taken(&self) -> Arc<Mutex<Taken>> {
        Arc::clone(&self.taken)
    }
}

impl Body for Upload {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.rest.is_empty() {
            return Poll::Ready(None);
        }
        let length = self.rest.len().min(PIECE);
        let piece = self.rest.split_to(length);
        let taken = Taken { at: Instant::now(), is_whole: self.rest.is_empty() };
        *self.taken.lock().unwrap_or_else(PoisonError::into_inner) = taken;
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.rest.len() as u64)
    }
}

/// Error for a body that ended after `received` of `expected` bytes.
pub(crate) fn incomplete(
    url: &str,
    received: u64,
    expected: Option<u64>,
    source: Option<Failure>,
) -> RegistryError {
    let source = source.unwrap_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof).into());
    RegistryError::Incomplete { url: url.to_owned(), received, expected, source }
}
