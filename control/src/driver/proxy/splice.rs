//! Bodies between two unix sockets, without a look at them: the kernel moves their pages by way of a pipe.
//!
//! ```text
//!  socket ──splice──► pipe ──splice──► socket      data: pages change hands, nothing is copied
//!    └─ peek ─► where the next chunk ends          a few bytes of each chunk are looked at, and stay where they are
//! ```
//!
//! A copy in and a copy out would cost as much as all that Docker and its client do with the same bytes. What costs
//! after that is to be woken: so whoever sends gets a moment to send more.

use std::io;
use std::ops::RangeInclusive;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, SpliceFFlags, fcntl, splice};
use nix::sys::socket::sockopt::SndBufForce;
use nix::sys::socket::{MsgFlags, recv, setsockopt};
use nix::unistd::pipe2;
use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::task::yield_now;

use super::stream::StreamError;
use crate::proxy::body::Body;

/// What a pipe is asked to hold. A kernel that gives less has its reasons, and the pipe works all the same.
const PIPE_LEN: i32 = 1024 * 1024;
/// What is collected before it goes out: more than a sender's socket holds, so what is short of it is all there is.
const PASS_LEN: usize = 256 * 1024;
/// What the reader's socket is asked to hold: some of that, so that we seldom wait for the reader.
const SOCKET_LEN: usize = 1024 * 1024;
/// Looked at where a chunk's size is to be: room for it and the end of the chunk before.
const FRAMING_LEN: usize = 64;

/// How long a sender may go on before what it wrote is passed on. Docker and its client write a chunk of 32 KiB in three
/// pieces: without this each of them wakes us, and we wake whoever reads. Nothing that a reader would notice.
const PAUSES: RangeInclusive<Duration> = Duration::from_micros(50)..=Duration::from_micros(400);
/// What a pause is to bring, on fast machines and on slow ones: a few chunks, and less than a sender needs to fill its
/// socket of 208 KiB, or it would wait for us.
const GATHERED: RangeInclusive<usize> = 64 * 1024..=128 * 1024;
/// How often in a row that is waited for a sender who has written nothing, before we wait to be woken.
const SILENT_MAX: u32 = 3;

const AT_ONCE: SpliceFFlags = SpliceFFlags::SPLICE_F_MOVE.union(SpliceFFlags::SPLICE_F_NONBLOCK);

/// A pipe, and what is in it.
#[derive(Debug)]
pub(super) struct Pipe {
    out: OwnedFd,
    into: OwnedFd,
    held: usize,
    /// Bytes to come of which is known that they belong to the body, which is followed past them already.
    ahead: u64,
}

/// How a body ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Passed {
    /// As it says; what follows was not read.
    Whole,
    /// With its connection.
    Cut,
}

/// What came of an attempt to fill the pipe.
#[derive(Debug, Clone, Copy)]
enum Taken {
    /// So many bytes; 0 at the end of the connection.
    Len(usize),
    /// There are none.
    Nothing,
    /// The pipe has no room for more.
    Full,
}

impl Pipe {
    pub(super) fn new() -> io::Result<Self> {
        let (out, into) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
        let _ = fcntl(&into, FcntlArg::F_SETPIPE_SZ(PIPE_LEN));
        let (held, ahead) = (0, 0);
        Ok(Self {
            out,
            into,
            held,
            ahead,
        })
    }

    /// Passes the rest of a body on, of which nothing was read yet.
    pub(super) async fn pass(
        mut self,
        from: &UnixStream,
        body: &mut Body,
        to: &UnixStream,
    ) -> Result<Passed, StreamError> {
        // Without the right to it the socket is as small as others.
        let _ = setsockopt(to, SndBufForce, &SOCKET_LEN);
        let mut pace = Pace::start();
        let mut silent = 0;
        while self.follows(body) {
            pace.pause();
            // Between two sockets that are always ready nobody else would have a turn.
            yield_now().await;
            let end = self.fill(from, body)?;
            pace.adapt(self.held);
            if self.held == 0 && matches!(end, Taken::Nothing) {
                silent += 1;
                if silent == SILENT_MAX {
                    let more = || peek(from, &mut [0]);
                    from.async_io(Interest::READABLE, more).await?;
                    silent = 0;
                }
                continue;
            }
            silent = 0;
            self.empty(to).await?;
            if matches!(end, Taken::Len(0)) && self.follows(body) {
                return Ok(Passed::Cut);
            }
        }
        Ok(Passed::Whole)
    }

    /// Whether there is more of the body to come.
    fn follows(&self, body: &Body) -> bool {
        self.ahead > 0 || !body.is_done()
    }

    /// Takes all that is there, as far as it is to go out at once; returns what ended that.
    fn fill(&mut self, from: &UnixStream, body: &mut Body) -> Result<Taken, StreamError> {
        loop {
            match self.take(from, body)? {
                Taken::Len(len) if len > 0 && self.held < PASS_LEN && self.follows(body) => {}
                end @ (Taken::Len(_) | Taken::Nothing | Taken::Full) => return Ok(end),
            }
        }
    }

    /// Takes what is there.
    fn take(&mut self, from: &UnixStream, body: &mut Body) -> Result<Taken, StreamError> {
        if self.ahead == 0 {
            let mut framing = [0; FRAMING_LEN];
            let len = match peek(from, &mut framing) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Ok(Taken::Nothing);
                }
                len => len?,
            };
            let ours = body.advance(&framing[..len], |_| ())?;
            let data = body.data_ahead();
            body.skip_data(data);
            self.ahead = data.saturating_add(ours as u64);
        }
        let len = usize::try_from(self.ahead).map_or(PASS_LEN, |ahead| ahead.min(PASS_LEN));
        match splice(from, None, &self.into, None, len, AT_ONCE) {
            // It does not say which of the two has no more.
            Err(Errno::EAGAIN) if self.held > 0 && peek(from, &mut [0]).is_ok() => Ok(Taken::Full),
            Err(Errno::EAGAIN) => Ok(Taken::Nothing),
            taken => {
                let taken = taken.map_err(io::Error::from)?;
                self.held += taken;
                self.ahead -= taken as u64;
                Ok(Taken::Len(taken))
            }
        }
    }

    /// Sends everything.
    async fn empty(&mut self, to: &UnixStream) -> io::Result<()> {
        while self.held > 0 {
            let sent = to.async_io(Interest::WRITABLE, || {
                Ok(splice(&self.out, None, to, None, self.held, AT_ONCE)?)
            });
            match sent.await? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                len => self.held -= len,
            }
        }
        Ok(())
    }
}

/// How long senders are given: what others' transfers took of the thread counts.
#[derive(Debug)]
struct Pace {
    pause: Duration,
    since: Instant,
}

impl Pace {
    fn start() -> Self {
        Self {
            pause: *PAUSES.start(),
            since: clock(),
        }
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "the thread, not the task: in the poller each piece that comes or goes would wake it"
    )]
    fn pause(&self) {
        let passed = clock().saturating_duration_since(self.since);
        if let Some(left) = self.pause.checked_sub(passed) {
            thread::sleep(left);
        }
    }

    /// After a pause that brought so much.
    fn adapt(&mut self, gathered: usize) {
        self.pause = match gathered {
            0 => self.pause,
            len if len < *GATHERED.start() => (self.pause * 2).min(*PAUSES.end()),
            len if len > *GATHERED.end() => (self.pause / 2).max(*PAUSES.start()),
            _ => self.pause,
        };
        self.since = clock();
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "a pause by the clock is the point: to wait for an event is to be woken by every piece"
)]
fn clock() -> Instant {
    Instant::now()
}

/// Looks at what can be read next, and leaves it there; 0 at the end.
fn peek(socket: &UnixStream, bytes: &mut [u8]) -> io::Result<usize> {
    let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
    Ok(recv(socket.as_raw_fd(), bytes, flags)?)
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    /// Passes `sent` through small sockets, as fast as it is read; returns how it ended, what arrived, and what was left.
    async fn passed(
        sent: Vec<u8>,
        mut body: Body,
        piece: usize,
    ) -> (Result<Passed, StreamError>, Vec<u8>, Vec<u8>) {
        let (mut docker, mut from) = UnixStream::pair().unwrap();
        let (to, mut client) = UnixStream::pair().unwrap();
        let send = async {
            for piece in sent.chunks(piece) {
                docker.write_all(piece).await.unwrap();
                yield_now().await;
            }
            drop(docker);
        };
        let pass = async {
            let ended = Pipe::new().unwrap().pass(&from, &mut body, &to).await;
            drop(to);
            let mut left = Vec::new();
            from.read_to_end(&mut left).await.unwrap();
            (ended, left)
        };
        let mut got = Vec::new();
        let ((ended, left), (), read) = tokio::join!(pass, send, client.read_to_end(&mut got));
        read.unwrap();
        (ended, got, left)
    }

    fn random(len: usize) -> Vec<u8> {
        let mut state = 1_u32;
        let bytes = std::iter::repeat_with(|| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            state.to_be_bytes()[0]
        });
        bytes.take(len).collect()
    }

    fn chunked(data: &[u8], size: usize) -> Vec<u8> {
        let mut sent = Vec::new();
        for chunk in data.chunks(size) {
            sent.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
            sent.extend_from_slice(chunk);
            sent.extend_from_slice(b"\r\n");
        }
        sent.extend_from_slice(b"0\r\n\r\n");
        sent
    }

    #[tokio::test]
    async fn every_byte_arrives_in_its_place_and_none_that_follows() {
        let data = random(3_000_000);
        for piece in [997, 4096, 200_000] {
            for size in [1000, 32 * 1024, 1_000_000] {
                let sent = chunked(&data, size);
                let more = [&sent[..], b"GET /next"].concat();
                let (ended, got, left) = passed(more, Body::chunked(), piece).await;
                assert!(
                    got == sent,
                    "{piece}, {size}: {} of {}",
                    got.len(),
                    sent.len()
                );
                assert_eq!(ended.unwrap(), Passed::Whole, "{piece}, {size}");
                assert_eq!(left, b"GET /next", "{piece}, {size}");
            }
            let more = [&data[..], b"GET /next"].concat();
            let length = Body::Length(data.len() as u64);
            let (ended, got, left) = passed(more, length, piece).await;
            assert!(got == data && left == b"GET /next");
            assert_eq!(ended.unwrap(), Passed::Whole);
            let (ended, got, _) = passed(data.clone(), Body::UntilClose, piece).await;
            assert!(got == data);
            assert_eq!(ended.unwrap(), Passed::Cut);
        }
    }

    #[tokio::test]
    async fn a_body_that_breaks_off_or_makes_no_sense_is_seen() {
        let data = random(300_000);
        let short = Body::Length(data.len() as u64 + 1);
        let (ended, got, _) = passed(data.clone(), short, 4096).await;
        assert!(got == data);
        assert_eq!(ended.unwrap(), Passed::Cut);
        let mut sent = chunked(&data, 1000);
        sent.truncate(200_000);
        sent.extend_from_slice(b"\r\r\r\r");
        let (ended, ..) = passed(sent, Body::chunked(), 4096).await;
        // In the data those bytes are data.
        assert!(!matches!(ended, Ok(Passed::Whole)), "{ended:?}");
        let bad = b"no size\r\n".to_vec();
        let (ended, got, _) = passed(bad, Body::chunked(), 4096).await;
        assert!(matches!(ended, Err(StreamError::Refused(_))), "{ended:?}");
        assert_eq!(got, b"");
    }

    /// Nobody can know that the sender will not wait for an answer in the middle of a chunk.
    #[tokio::test]
    async fn a_part_of_a_chunk_goes_on_without_the_rest() {
        let (mut docker, from) = UnixStream::pair().unwrap();
        let (to, mut client) = UnixStream::pair().unwrap();
        let mut body = Body::chunked();
        let pass = Pipe::new().unwrap();
        let talk = async {
            let mut got = [0; 100];
            for part in [&b"5"[..], b"\r\nhe", b"llo", b"\r", b"\n0\r\n\r\n"] {
                docker.write_all(part).await.unwrap();
                client.read_exact(&mut got[..part.len()]).await.unwrap();
                assert_eq!(&got[..part.len()], part);
            }
        };
        let (ended, ()) = tokio::join!(pass.pass(&from, &mut body, &to), talk);
        assert_eq!(ended.unwrap(), Passed::Whole);
    }

    /// Sizes and ends of a byte or two take as much room in a pipe as a page of data.
    #[tokio::test]
    async fn more_small_pieces_than_a_pipe_has_room_for_pass() {
        let (mut docker, from) = UnixStream::pair().unwrap();
        let (to, mut client) = UnixStream::pair().unwrap();
        let pieces = 100;
        for _ in 0..pieces {
            docker.write_all(b"1\r\nx\r\n").await.unwrap();
        }
        docker.write_all(b"0\r\n\r\n").await.unwrap();
        let mut body = Body::chunked();
        let pipe = Pipe::new().unwrap();
        fcntl(&pipe.into, FcntlArg::F_SETPIPE_SZ(4096)).unwrap();
        let ended = pipe.pass(&from, &mut body, &to).await;
        assert_eq!(ended.unwrap(), Passed::Whole);
        drop(to);
        let mut got = Vec::new();
        client.read_to_end(&mut got).await.unwrap();
        assert_eq!(got.len(), pieces * 6 + 5);
    }

    #[tokio::test]
    async fn what_has_come_goes_on_at_once() {
        let (mut docker, from) = UnixStream::pair().unwrap();
        let (to, mut client) = UnixStream::pair().unwrap();
        let mut body = Body::chunked();
        let pass = Pipe::new().unwrap();
        let talk = async {
            for chunk in [&b"5\r\nhello\r\n"[..], b"6\r\n, you!\r\n"] {
                docker.write_all(chunk).await.unwrap();
                let mut got = vec![0; chunk.len()];
                client.read_exact(&mut got).await.unwrap();
                assert_eq!(got, chunk);
            }
        };
        tokio::select! {
            ended = pass.pass(&from, &mut body, &to) => panic!("{ended:?}"),
            () = talk => {}
        }
    }
}
