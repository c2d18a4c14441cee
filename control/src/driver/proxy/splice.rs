//! Bodies between two unix sockets, without a look at them: the kernel moves their pages by way of a pipe.
//!
//! ```text
//!  socket ──splice──► pipe ──splice──► socket      data: pages change hands, nothing is copied
//!    └─ read ─ framing ─► write ┘                  sizes of chunks: a few bytes, which have to be read
//! ```
//!
//! A copy in and a copy out would cost as much as all that Docker and its client do with the same bytes.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, SpliceFFlags, fcntl, splice};
use nix::unistd::{pipe2, write};
use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::task::coop::consume_budget;
use tokio::time::timeout;

use super::stream::StreamError;
use crate::proxy::body::Body;

/// What a pipe is asked to hold. A kernel that gives less has its reasons, and the pipe works all the same.
const PIPE_LEN: i32 = 1024 * 1024;
/// What is collected before it goes out: some pieces of 32 KiB, as Docker and its client write them, and less than a
/// unix socket holds.
const PASS_LEN: usize = 128 * 1024;
/// Read where a chunk's size is to be: room for it, and no more than a copy that costs nothing. Below what a pipe takes
/// at once.
const FRAMING_LEN: usize = 512;

/// How long a chunk's size waits for the chunk: Docker's client writes one and then the other, and whoever is woken for
/// six bytes waits for the rest anyway.
const CHUNK_SOON: Duration = Duration::from_millis(1);

const AT_ONCE: SpliceFFlags = SpliceFFlags::SPLICE_F_MOVE.union(SpliceFFlags::SPLICE_F_NONBLOCK);

/// A pipe, and what is in it.
#[derive(Debug)]
pub(super) struct Pipe {
    out: OwnedFd,
    into: OwnedFd,
    held: usize,
    /// How much of that was written, not spliced: it has pages of its own.
    framing: usize,
}

/// How a body ended.
#[derive(Debug)]
pub(super) enum Passed {
    /// As it says, with these bytes of what follows.
    Whole(Vec<u8>),
    /// With its connection.
    Cut,
}

impl Pipe {
    pub(super) fn new() -> io::Result<Self> {
        let (out, into) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
        let _ = fcntl(&into, FcntlArg::F_SETPIPE_SZ(PIPE_LEN));
        let (held, framing) = (0, 0);
        Ok(Self {
            out,
            into,
            held,
            framing,
        })
    }

    /// Passes the rest of a body on, of which nothing was read yet.
    pub(super) async fn pass(
        mut self,
        from: &UnixStream,
        body: &mut Body,
        to: &UnixStream,
    ) -> Result<Passed, StreamError> {
        let mut rest = Vec::new();
        while !body.is_done() {
            let taken = match body.data_ahead() {
                0 => self.take_framing(from, body, to, &mut rest).await?,
                data => self.take_data(from, body, data)?,
            };
            match taken {
                Some(0) => {
                    self.empty(to).await?;
                    return Ok(Passed::Cut);
                }
                Some(_) if self.held < PASS_LEN => {}
                None if self.held == 0 => from.readable().await?,
                None if self.holds_a_size() && body.data_ahead() > 0 => {
                    if timeout(CHUNK_SOON, from.readable()).await.is_err() {
                        self.empty(to).await?;
                    }
                }
                Some(_) | None => self.empty(to).await?,
            }
            // Between two sockets that are always ready it would never wait.
            consume_budget().await;
        }
        self.empty(to).await?;
        Ok(Passed::Whole(rest))
    }

    /// Nothing but where chunks begin and end: the pipe has room, whatever kernel gave it.
    fn holds_a_size(&self) -> bool {
        self.held == self.framing && self.held <= FRAMING_LEN
    }

    /// Takes what is there of the data; none if there is nothing, or the pipe may be full.
    fn take_data(
        &mut self,
        from: &UnixStream,
        body: &mut Body,
        data: u64,
    ) -> io::Result<Option<usize>> {
        let len = usize::try_from(data).map_or(PASS_LEN, |data| data.min(PASS_LEN));
        let taken = from.try_io(Interest::READABLE, || {
            match splice(from, None, &self.into, None, len, AT_ONCE) {
                // It does not say which of the two has no more.
                Err(Errno::EAGAIN) if !self.holds_a_size() => Ok(None),
                taken => Ok(Some(taken?)),
            }
        });
        let taken = unless_it_waits(taken)?.flatten();
        if let Some(len) = taken {
            self.held += len;
            body.skip_data(len as u64);
        }
        Ok(taken)
    }

    /// Reads on where chunks begin and end, with some of the data beside.
    async fn take_framing(
        &mut self,
        from: &UnixStream,
        body: &mut Body,
        to: &UnixStream,
        rest: &mut Vec<u8>,
    ) -> Result<Option<usize>, StreamError> {
        let mut framing = [0; FRAMING_LEN];
        let Some(len) = unless_it_waits(from.try_read(&mut framing))? else {
            return Ok(None);
        };
        let ours = body.advance(&framing[..len], |_| ())?;
        rest.extend_from_slice(&framing[ours..len]);
        loop {
            match write(&self.into, &framing[..ours]) {
                Err(Errno::EAGAIN) if self.held > 0 => self.empty(to).await?,
                written => {
                    let len_written = written.map_err(io::Error::from)?;
                    self.held += len_written;
                    self.framing += len_written;
                    return Ok(Some(len));
                }
            }
        }
    }

    /// Sends everything.
    async fn empty(&mut self, to: &UnixStream) -> io::Result<()> {
        while self.held > 0 {
            to.writable().await?;
            let sent = to.try_io(Interest::WRITABLE, || {
                Ok(splice(&self.out, None, to, None, self.held, AT_ONCE)?)
            });
            match unless_it_waits(sent)? {
                Some(0) => return Err(io::ErrorKind::WriteZero.into()),
                Some(len) => self.held -= len,
                None => {}
            }
        }
        self.framing = 0;
        Ok(())
    }
}

fn unless_it_waits<T>(done: io::Result<T>) -> io::Result<Option<T>> {
    match done {
        Ok(done) => Ok(Some(done)),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    /// Passes `sent` through small sockets, as fast as it is read; returns how it ended and what arrived.
    async fn passed(
        sent: Vec<u8>,
        mut body: Body,
        piece: usize,
    ) -> (Result<Passed, StreamError>, Vec<u8>) {
        let (mut docker, from) = UnixStream::pair().unwrap();
        let (to, mut client) = UnixStream::pair().unwrap();
        let send = async {
            for piece in sent.chunks(piece) {
                docker.write_all(piece).await.unwrap();
                tokio::task::yield_now().await;
            }
            drop(docker);
        };
        let pass = async {
            let ended = Pipe::new().unwrap().pass(&from, &mut body, &to).await;
            drop(to);
            ended
        };
        let mut got = Vec::new();
        let (ended, (), read) = tokio::join!(pass, send, client.read_to_end(&mut got));
        read.unwrap();
        (ended, got)
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
                let (ended, got) = passed(more, Body::chunked(), piece).await;
                assert!(
                    got == sent,
                    "{piece}, {size}: {} of {}",
                    got.len(),
                    sent.len()
                );
                let Ok(Passed::Whole(rest)) = ended else {
                    panic!("{piece}, {size}: {ended:?}");
                };
                assert!(b"GET /next".starts_with(&rest), "{piece}, {size}");
            }
            let more = [&data[..], b"GET /next"].concat();
            let length = Body::Length(data.len() as u64);
            let (ended, got) = passed(more, length, piece).await;
            assert!(got == data && matches!(ended, Ok(Passed::Whole(rest)) if rest.is_empty()));
            let (ended, got) = passed(data.clone(), Body::UntilClose, piece).await;
            assert!(got == data && matches!(ended, Ok(Passed::Cut)));
        }
    }

    #[tokio::test]
    async fn a_body_that_breaks_off_or_makes_no_sense_is_seen() {
        let data = random(300_000);
        let short = Body::Length(data.len() as u64 + 1);
        let (ended, got) = passed(data.clone(), short, 4096).await;
        assert!(got == data && matches!(ended, Ok(Passed::Cut)));
        let mut sent = chunked(&data, 1000);
        sent.truncate(200_000);
        sent.extend_from_slice(b"\r\r\r\r");
        let (ended, _) = passed(sent, Body::chunked(), 4096).await;
        // In the data those bytes are data.
        assert!(!matches!(ended, Ok(Passed::Whole(_))), "{ended:?}");
        let bad = b"no size\r\n".to_vec();
        let (ended, got) = passed(bad, Body::chunked(), 4096).await;
        assert!(matches!(ended, Err(StreamError::Refused(_))), "{ended:?}");
        assert_eq!(got, b"");
    }

    /// Nobody can know that the sender will not wait for an answer in the middle of a chunk.
    #[tokio::test]
    async fn the_size_of_a_chunk_waits_for_it_but_not_for_long() {
        let (mut docker, from) = UnixStream::pair().unwrap();
        let (to, mut client) = UnixStream::pair().unwrap();
        let mut body = Body::chunked();
        let pass = Pipe::new().unwrap();
        let talk = async {
            let mut got = vec![0; 1000];
            docker.write_all(b"5\r\n").await.unwrap();
            assert_eq!(client.read(&mut got).await.unwrap(), 3);
            docker.write_all(b"hello\r\n6\r\n").await.unwrap();
            tokio::task::yield_now().await;
            docker.write_all(b", you!\r\n0\r\n\r\n").await.unwrap();
            let rest = b"hello\r\n6\r\n, you!\r\n0\r\n\r\n";
            client.read_exact(&mut got[..rest.len()]).await.unwrap();
            assert_eq!(&got[..rest.len()], rest);
        };
        let (ended, ()) = tokio::join!(pass.pass(&from, &mut body, &to), talk);
        assert!(matches!(ended, Ok(Passed::Whole(rest)) if rest.is_empty()));
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
