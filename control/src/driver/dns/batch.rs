//! Takes the datagrams that wait at a UDP socket with one call, and sends the answers with another.
//!
//! Called by `udp`. Nothing here waits: what is there is taken. Bounds: `config::DNS_BATCH_MAX` datagrams,
//! [`QUESTION_LEN_MAX`] and `config::DNS_UDP_LEN_MAX` bytes each.

use std::array;
use std::io::{self, IoSlice, IoSliceMut};
use std::net::{SocketAddr, SocketAddrV4};
use std::os::fd::{AsRawFd as _, BorrowedFd};

use nix::sys::socket::{MsgFlags, MultiHeaders, SockaddrIn, recvmmsg, sendmmsg};

use crate::config::{DNS_BATCH_MAX, DNS_UDP_LEN_MAX};

/// Largest question; ours have some 60 bytes, and cookies make it a hundred.
const QUESTION_LEN_MAX: usize = 2048;
const ANSWER_LEN_MAX: usize = DNS_UDP_LEN_MAX as usize;

/// Buffers for questions and for answers.
pub(super) struct Batch {
    questions: Box<[[u8; QUESTION_LEN_MAX]]>,
    answers: Box<[[u8; ANSWER_LEN_MAX]]>,
}

/// How long a datagram is, and whose.
type Envelope = (usize, Option<SockaddrIn>);

impl Default for Batch {
    fn default() -> Self {
        Self {
            questions: vec![[0; QUESTION_LEN_MAX]; DNS_BATCH_MAX].into(),
            answers: vec![[0; ANSWER_LEN_MAX]; DNS_BATCH_MAX].into(),
        }
    }
}

impl Batch {
    /// Takes the questions that wait at a socket of IPv4 and says how many they were. `answer` writes what each gets,
    /// if anything, and says how long that is.
    ///
    /// # Errors
    /// What the socket reports; [`io::ErrorKind::WouldBlock`] if nothing waits.
    pub(super) fn turn(
        &mut self,
        socket: BorrowedFd<'_>,
        mut answer: impl FnMut(&[u8], SocketAddr, &mut [u8]) -> Option<usize>,
    ) -> io::Result<usize> {
        // Its pointers are no longer good once it was used to send: a new one each time.
        let mut headers = MultiHeaders::preallocate(DNS_BATCH_MAX, None);
        let (arrived, count) = self.receive(socket, &mut headers)?;
        let mut leaving: [Envelope; DNS_BATCH_MAX] = [(0, None); DNS_BATCH_MAX];
        let mut rest = self.answers.iter_mut().zip(&mut leaving);
        let mut place = rest.next();
        for (question, (len, source)) in self.questions.iter().zip(&arrived).take(count) {
            let (Some(source), Some((out, envelope))) = (source, &mut place) else {
                continue;
            };
            let from = SocketAddr::V4(SocketAddrV4::from(*source));
            let question = question.get(..*len).unwrap_or_default();
            if let Some(len) = answer(question, from, out.as_mut_slice()) {
                **envelope = (len, Some(*source));
                place = rest.next();
            }
        }
        self.send(socket, &mut headers, &leaving);
        Ok(count)
    }

    fn receive(
        &mut self,
        socket: BorrowedFd<'_>,
        headers: &mut MultiHeaders<SockaddrIn>,
    ) -> io::Result<([Envelope; DNS_BATCH_MAX], usize)> {
        let mut buffers = self.questions.iter_mut();
        let mut parts: [[IoSliceMut<'_>; 1]; DNS_BATCH_MAX] =
            array::from_fn(|_| [IoSliceMut::new(buffers.next().map_or(&mut [], |b| b))]);
        let flags = MsgFlags::MSG_DONTWAIT;
        let received = recvmmsg(socket.as_raw_fd(), headers, &mut parts, flags, None)?;
        let mut arrived = [(0, None); DNS_BATCH_MAX];
        let mut count = 0;
        for (envelope, message) in arrived.iter_mut().zip(received) {
            *envelope = (message.bytes, message.address);
            count += 1;
        }
        Ok((arrived, count))
    }

    /// A datagram that can not be sent is lost, as on any wire, and those behind it are not to blame.
    fn send(
        &self,
        socket: BorrowedFd<'_>,
        headers: &mut MultiHeaders<SockaddrIn>,
        leaving: &[Envelope; DNS_BATCH_MAX],
    ) {
        let mut answers = self.answers.iter().zip(leaving);
        let parts: [[IoSlice<'_>; 1]; DNS_BATCH_MAX] = array::from_fn(|_| {
            let part = answers
                .next()
                .and_then(|(answer, (len, _))| answer.get(..*len));
            [IoSlice::new(part.unwrap_or_default())]
        });
        let to = leaving.map(|(_, source)| source);
        let count = to.iter().flatten().count();
        let mut done = 0;
        while done < count {
            let (Some(parts), Some(to)) = (parts.get(done..count), to.get(done..count)) else {
                return;
            };
            let flags = MsgFlags::MSG_DONTWAIT;
            let sent = sendmmsg(socket.as_raw_fd(), headers, parts, to, [], flags);
            done += sent.map_or(1, Iterator::count).max(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::os::fd::AsFd as _;

    use super::*;

    fn bound() -> UdpSocket {
        UdpSocket::bind("127.0.0.1:0").unwrap()
    }

    fn backwards(question: &[u8], out: &mut [u8]) -> usize {
        let turned = question.iter().rev();
        out.iter_mut()
            .zip(turned)
            .map(|(to, from)| *to = *from)
            .count()
    }

    /// On loopback a datagram is there when the call that sends it returns.
    #[test]
    fn what_waits_is_taken_at_once_and_everybody_gets_their_own_answer() {
        let (server, clients) = (bound(), [bound(), bound(), bound()]);
        let mut batch = Batch::default();
        let questions = (0..DNS_BATCH_MAX + 3).map(|n| format!("{n:08}"));
        let questions = questions.collect::<Vec<_>>();
        for (question, client) in questions.iter().zip(clients.iter().cycle()) {
            let to = server.local_addr().unwrap();
            client.send_to(question.as_bytes(), to).unwrap();
        }
        let mut heard = 0;
        let mut turn = || {
            batch.turn(server.as_fd(), |question, _, out| {
                heard += 1;
                // One of them gets none, and the others are none the worse.
                (question != b"00000005").then(|| backwards(question, out))
            })
        };

        assert_eq!(turn().unwrap(), DNS_BATCH_MAX);
        assert_eq!(turn().unwrap(), 3);
        assert_eq!(turn().unwrap_err().kind(), io::ErrorKind::WouldBlock);
        assert_eq!(heard, questions.len());
        for (question, client) in questions.iter().zip(clients.iter().cycle()) {
            if question == "00000005" {
                continue;
            }
            let mut answer = [0; 100];
            let (len, from) = client.recv_from(&mut answer).unwrap();
            answer[..len].reverse();
            assert_eq!(&answer[..len], question.as_bytes());
            assert_eq!(from, server.local_addr().unwrap());
        }
    }

    /// A socket may not send to a broadcast address unless it was told that it may.
    #[test]
    fn an_answer_that_can_not_leave_does_not_hold_up_the_others() {
        let (server, client) = (bound(), bound());
        let good = match client.local_addr().unwrap() {
            SocketAddr::V4(address) => SockaddrIn::from(address),
            SocketAddr::V6(address) => panic!("{address}"),
        };
        let bad = SockaddrIn::from(SocketAddrV4::new([255; 4].into(), 9));
        let mut batch = Batch::default();
        for _ in 0..6 {
            client.send_to(&[0], server.local_addr().unwrap()).unwrap();
        }
        let mut headers = MultiHeaders::preallocate(DNS_BATCH_MAX, None);
        batch.receive(server.as_fd(), &mut headers).unwrap();
        let mut leaving = [(0, None); DNS_BATCH_MAX];
        for ((n, envelope), to) in (0..)
            .zip(&mut leaving)
            .zip([bad, good, bad, bad, good, bad])
        {
            batch.answers[n].fill(u8::try_from(n).unwrap());
            *envelope = (4, Some(to));
        }

        batch.send(server.as_fd(), &mut headers, &leaving);

        for wanted in [[1; 4], [4; 4]] {
            let mut answer = [0; 4];
            client.recv_from(&mut answer).unwrap();
            assert_eq!(answer, wanted);
        }
    }
}
