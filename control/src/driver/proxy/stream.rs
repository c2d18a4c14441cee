//! The incoming half of a connection: heads are read whole, bodies flow through; long ones past us.

use std::future::pending;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, Interest};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};

use super::splice::{Passed, Pipe};
use crate::proxy::Refusal;
use crate::proxy::body::{Body, BodyError};
use crate::proxy::head::{HEAD_LEN_MAX, HeadError};

/// Bytes read at once: as much as a unix socket holds, so that a large transfer takes few system calls.
const READ_LEN: usize = 256 * 1024;

/// Of a body that is longer the rest is not read here any more: below that a pipe costs more than it saves.
const LONG_LEN: usize = 256 * 1024;

/// Why a connection ends.
#[derive(Debug, thiserror::Error)]
pub(super) enum StreamError {
    /// Reading or writing failed: somebody hung up.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// It ended in the middle of a message.
    #[error("the connection ended in the middle of a message")]
    Truncated,
    /// What came is not to be passed on.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// Docker's answer is none that can be passed on.
    #[error("weft's proxy cannot read Docker's answer: {0}")]
    BadAnswer(String),
}

impl StreamError {
    /// The same, of what Docker sent.
    pub(super) fn of_docker(self) -> Self {
        match self {
            Self::Refused(Refusal::Head(error)) => Self::BadAnswer(error.to_string()),
            Self::Refused(Refusal::Body(error)) => Self::BadAnswer(error.to_string()),
            other @ (Self::Io(_) | Self::Truncated | Self::Refused(_) | Self::BadAnswer(_)) => {
                other
            }
        }
    }
}

impl From<HeadError> for StreamError {
    fn from(error: HeadError) -> Self {
        Self::Refused(error.into())
    }
}

impl From<BodyError> for StreamError {
    fn from(error: BodyError) -> Self {
        Self::Refused(error.into())
    }
}

/// Both halves of a connection.
#[derive(Debug)]
pub(super) struct Side<R, W> {
    pub(super) input: Input<R>,
    pub(super) output: W,
}

impl<R, W> Side<R, W> {
    pub(super) fn new(reader: R, writer: W) -> Self {
        Self {
            input: Input {
                reader,
                buffer: BytesMut::new(),
                has_ended: false,
            },
            output: writer,
        }
    }
}

/// What comes in.
#[derive(Debug)]
pub(super) struct Input<R> {
    reader: R,
    buffer: BytesMut,
    has_ended: bool,
}

impl<R: AsyncRead + Unpin> Input<R> {
    /// Reads more; false at the end. Nothing is lost if the caller stops waiting.
    pub(super) async fn fill(&mut self) -> io::Result<bool> {
        if self.has_ended {
            return Ok(false);
        }
        self.buffer.reserve(READ_LEN);
        self.has_ended = self.reader.read_buf(&mut self.buffer).await? == 0;
        Ok(!self.has_ended)
    }

    /// What has come and is not taken.
    pub(super) fn waiting(&self) -> &[u8] {
        &self.buffer
    }

    /// Takes the first bytes.
    pub(super) fn take(&mut self, len: usize) -> Bytes {
        self.buffer.split_to(len).freeze()
    }

    /// Reads a head with `parse`; `None` if the connection ends before its first byte.
    pub(super) async fn head<T>(
        &mut self,
        parse: impl Fn(&[u8]) -> Result<Option<T>, HeadError>,
    ) -> Result<Option<T>, StreamError> {
        loop {
            if let Some(head) = parse(&self.buffer)? {
                return Ok(Some(head));
            }
            if !self.fill().await? {
                return match self.buffer.is_empty() {
                    true => Ok(None),
                    false => Err(StreamError::Truncated),
                };
            }
        }
    }

    /// Reads a whole body of at most `max` bytes.
    pub(super) async fn read_body(
        &mut self,
        body: &mut Body,
        max: usize,
    ) -> Result<Vec<u8>, StreamError> {
        let mut whole = Vec::new();
        while !body.is_done() {
            if self.buffer.is_empty() && !self.fill().await? {
                return ended_within(body).map(|()| whole);
            }
            let len = body.advance(&self.buffer, |data| whole.extend_from_slice(data))?;
            self.buffer.advance(len);
            if whole.len() > max {
                return Err(StreamError::Refused(Refusal::TooLong(max)));
            }
        }
        Ok(whole)
    }

    /// Passes on everything until the end, then says so.
    pub(super) async fn copy_all(&mut self, to: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
        loop {
            to.write_all(&self.buffer).await?;
            to.flush().await?;
            self.buffer.clear();
            if !self.fill().await? {
                return to.shutdown().await;
            }
        }
    }
}

/// Whether a connection may end where it did.
fn ended_within(body: &Body) -> Result<(), StreamError> {
    match body {
        Body::UntilClose => Ok(()),
        Body::Length(_) | Body::Chunked(_) => Err(StreamError::Truncated),
    }
}

/// The half of a connection that is read.
pub(super) trait Reader: AsyncRead + Unpin {
    /// Its socket once more, to be watched for the other side's end.
    fn watched(&self) -> io::Result<Watched>;

    /// Its socket, if what it holds are the plain bytes.
    fn local(&self) -> Option<&UnixStream>;
}

/// The half that is written.
pub(super) trait Writer: AsyncWrite + Unpin {
    /// Its socket, if that takes the plain bytes.
    fn local(&self) -> Option<&UnixStream>;
}

impl Reader for OwnedReadHalf {
    fn watched(&self) -> io::Result<Watched> {
        let stream: &UnixStream = self.as_ref();
        // A hang-up is always reported; a unix socket has no urgent data, and a half that ended is not asked for.
        Watched::new(stream.as_fd().try_clone_to_owned()?, Interest::PRIORITY)
    }

    fn local(&self) -> Option<&UnixStream> {
        Some(self.as_ref())
    }
}

impl Writer for OwnedWriteHalf {
    fn local(&self) -> Option<&UnixStream> {
        Some(self.as_ref())
    }
}

impl<R: Reader> Input<R> {
    /// Passes a body on as it comes.
    pub(super) async fn copy_body(
        &mut self,
        body: &mut Body,
        to: &mut impl Writer,
    ) -> Result<(), StreamError> {
        let mut passed = 0;
        while !body.is_done() {
            if passed >= LONG_LEN
                && self.buffer.is_empty()
                && let (Some(from), Some(to)) = (self.reader.local(), to.local())
                && let Ok(pipe) = Pipe::new()
            {
                return match pipe.pass(from, body, to).await? {
                    Passed::Whole => Ok(()),
                    Passed::Cut => {
                        self.has_ended = true;
                        ended_within(body)
                    }
                };
            }
            if self.buffer.is_empty() && !self.fill().await? {
                return ended_within(body);
            }
            let len = body.advance(&self.buffer, |_| ())?;
            to.write_all(&self.buffer[..len]).await?;
            // TLS keeps what it could not send at once.
            to.flush().await?;
            self.buffer.advance(len);
            passed += len;
        }
        Ok(())
    }

    /// Waits until the other side has said its last and hears of it no more; a request that comes early stays here.
    pub(super) async fn ended(&mut self) {
        while self.buffer.len() < HEAD_LEN_MAX {
            match self.fill().await {
                Ok(true) => {}
                // What came early is still to be answered.
                Ok(false) if !self.buffer.is_empty() => return self.gone().await,
                Ok(false) | Err(_) => return,
            }
        }
        // Somebody who sends that much before the answer is read on later.
        pending().await
    }

    /// Waits until the other side has gone, both its directions: one that has only said its last goes on listening.
    pub(super) fn gone(&self) -> impl Future<Output = ()> + use<R> {
        let watched = self.reader.watched();
        async move {
            match watched {
                Ok(watched) => watched.gone().await,
                Err(error) => {
                    tracing::debug!(%error, "a client that goes is noticed with the next output only");
                    pending().await
                }
            }
        }
    }
}

/// A client's socket, to hear of nothing but its end.
#[derive(Debug)]
pub(super) struct Watched {
    socket: AsyncFd<OwnedFd>,
    interest: Interest,
}

impl Watched {
    /// `interest` is what brings the news: with READABLE the end of the other side's half is the end of all.
    #[expect(
        deprecated,
        reason = "its successor is unsafe; an OwnedFd is one open descriptor for its whole life"
    )]
    pub(super) fn new(socket: OwnedFd, interest: Interest) -> io::Result<Self> {
        let socket = AsyncFd::with_interest(socket, interest)?;
        Ok(Self { socket, interest })
    }

    async fn gone(self) {
        loop {
            let Ok(mut ready) = self.socket.ready(self.interest).await else {
                return pending().await;
            };
            // Something to read is the relay's.
            if self.interest == Interest::PRIORITY || ready.ready().is_read_closed() {
                return;
            }
            ready.clear_ready();
        }
    }
}
