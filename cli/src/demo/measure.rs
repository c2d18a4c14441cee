//! Measures TCP between two containers of the demo: round trips and throughput, with sockets of its own.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::demo::lab::Namespace;

/// Round trips measured: enough for a 99th percentile, done in a second on anything.
const ROUND_TRIPS: usize = 2000;
/// Bytes of a round trip.
const MESSAGE_LEN: usize = 64;
/// Bytes handed to the kernel at once; larger gains nothing.
const CHUNK_LEN: usize = 256 << 10;
/// One attempt to connect, while the overlay may still be coming up.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(500);
/// How long the other side may be silent.
const SILENCE_MAX: Duration = Duration::from_secs(5);
/// Between two attempts that fail at once.
const PAUSE_MS: u8 = 50;

/// Round trips of a small message over TCP.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct RoundTrips {
    /// Half of them were faster.
    pub(crate) median: Duration,
    /// One in a hundred was slower.
    pub(crate) p99: Duration,
}

#[expect(clippy::disallowed_methods, reason = "measuring is reading the clock")]
fn now() -> Instant {
    Instant::now()
}

/// Measures round trips from one container to another, once they can reach each other.
///
/// # Errors
///
/// When they cannot within `limit`, or the connection breaks.
pub(crate) fn round_trips(
    from: &Namespace,
    to: &Namespace,
    address: Ipv4Addr,
    limit: Duration,
) -> anyhow::Result<RoundTrips> {
    let client = |target| {
        let stream = connect(target, limit)?;
        let mut times = Vec::with_capacity(ROUND_TRIPS);
        for _ in 0..ROUND_TRIPS {
            let start = now();
            let mut message = [7; MESSAGE_LEN];
            { &stream }.write_all(&message).context("send a message")?;
            { &stream }
                .read_exact(&mut message)
                .context("wait for its echo")?;
            times.push(start.elapsed());
        }
        Ok(summary(times))
    };
    between(from, to, address, limit, client, echo)
}

/// Sends as much as TCP can for a while; returns Gbit/s by the receiver's count.
///
/// # Errors
///
/// When the connection breaks.
pub(crate) fn throughput(
    from: &Namespace,
    to: &Namespace,
    address: Ipv4Addr,
    length: Duration,
) -> anyhow::Result<f64> {
    let client = |target| {
        let stream = connect(target, SILENCE_MAX)?;
        let chunk = vec![0x5a; CHUNK_LEN];
        let start = now();
        while start.elapsed() < length {
            { &stream }.write_all(&chunk).context("send")?;
        }
        stream
            .shutdown(std::net::Shutdown::Write)
            .context("end sending")?;
        // The receiver answers with its count when it has seen the end.
        let mut rate = [0; 8];
        { &stream }
            .read_exact(&mut rate)
            .context("wait for the receiver's count")?;
        Ok(f64::from_be_bytes(rate))
    };
    between(from, to, address, SILENCE_MAX, client, sink)
}

/// Runs a client in one namespace and a server in another.
fn between<T: Send>(
    from: &Namespace,
    to: &Namespace,
    address: Ipv4Addr,
    limit: Duration,
    client: impl FnOnce(SocketAddr) -> anyhow::Result<T> + Send,
    server: impl FnOnce(&TcpStream) -> anyhow::Result<()> + Send,
) -> anyhow::Result<T> {
    let (sender, receiver) = mpsc::channel();
    thread::scope(|scope| {
        let serving = scope.spawn(move || {
            to.within(move || {
                let listener = TcpListener::bind((address, 0)).context("listen in a container")?;
                sender
                    .send(listener.local_addr()?)
                    .context("tell the port")?;
                server(&accept(&listener, limit)?)
            })
        });
        let served = |outcome: thread::Result<anyhow::Result<()>>| match outcome {
            Ok(outcome) => outcome,
            Err(panic) => std::panic::resume_unwind(panic),
        };
        let Ok(target) = receiver.recv() else {
            served(serving.join())?;
            bail!("the container's server ended before it began");
        };
        // The client's reason comes first: without it the server has none.
        let outcome = from.within(|| client(target))?;
        served(serving.join())?;
        Ok(outcome)
    })
}

fn connect(target: SocketAddr, limit: Duration) -> anyhow::Result<TcpStream> {
    let start = now();
    loop {
        match TcpStream::connect_timeout(&target, CONNECT_TIMEOUT) {
            Ok(stream) => return prepare(stream),
            Err(error) if start.elapsed() > limit => {
                return Err(anyhow::Error::from(error)).with_context(|| {
                    format!("reach {} within {} s", target.ip(), limit.as_secs())
                });
            }
            // Unreachable is said at once: do not spin.
            Err(_) => poll(&mut [], PollTimeout::from(PAUSE_MS))
                .map(drop)
                .unwrap_or_default(),
        }
    }
}

fn accept(listener: &TcpListener, limit: Duration) -> anyhow::Result<TcpStream> {
    let timeout = PollTimeout::try_from(limit + CONNECT_TIMEOUT).unwrap_or(PollTimeout::MAX);
    let mut sources = [PollFd::new(listener.as_fd(), PollFlags::POLLIN)];
    if poll(&mut sources, timeout).context("wait for a connection")? == 0 {
        bail!("nobody connected within {} s", limit.as_secs());
    }
    prepare(listener.accept().context("accept a connection")?.0)
}

fn prepare(stream: TcpStream) -> anyhow::Result<TcpStream> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(SILENCE_MAX))?;
    stream.set_write_timeout(Some(SILENCE_MAX))?;
    Ok(stream)
}

fn echo(mut stream: &TcpStream) -> anyhow::Result<()> {
    let mut message = [0; MESSAGE_LEN];
    loop {
        match stream.read_exact(&mut message) {
            Ok(()) => stream.write_all(&message).context("echo")?,
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(()),
            Err(error) => return Err(anyhow::Error::from(error).context("wait for a message")),
        }
    }
}

/// Takes everything and answers with the rate in Gbit/s.
fn sink(mut stream: &TcpStream) -> anyhow::Result<()> {
    let mut chunk = vec![0; CHUNK_LEN];
    let mut bytes = 0;
    let start = now();
    loop {
        match stream.read(&mut chunk).context("receive")? {
            0 => break,
            count => bytes += count,
        }
    }
    let rate = gigabits(bytes, start.elapsed());
    stream
        .write_all(&rate.to_be_bytes())
        .context("tell the rate")
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a rate for people; exact up to 2^53 bytes"
)]
fn gigabits(bytes: usize, time: Duration) -> f64 {
    bytes as f64 * 8.0 / 1e9 / time.as_secs_f64().max(f64::EPSILON)
}

fn summary(mut times: Vec<Duration>) -> RoundTrips {
    times.sort_unstable();
    let at = |percent: usize| {
        times
            .get(times.len() * percent / 100)
            .copied()
            .unwrap_or_default()
    };
    RoundTrips {
        median: at(50),
        p99: at(99),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_and_the_99th_percentile_are_taken_in_order() {
        let times = (1..=1000).rev().map(Duration::from_micros).collect();

        let RoundTrips { median, p99 } = summary(times);

        assert_eq!((median.as_micros(), p99.as_micros()), (501, 991));
    }

    #[test]
    fn a_rate_is_in_gigabits() {
        assert!((gigabits(250_000_000, Duration::from_secs(2)) - 1.0).abs() < 1e-9);
    }

    #[test]
    fn a_sink_answers_with_what_it_counted() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = thread::spawn(move || sink(&accept(&listener, SILENCE_MAX).unwrap()).unwrap());
        let mut stream = connect(address, SILENCE_MAX).unwrap();

        stream.write_all(&[0; 1 << 20]).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut rate = [0; 8];
        stream.read_exact(&mut rate).unwrap();

        assert!(f64::from_be_bytes(rate) > 0.0);
        server.join().unwrap();
    }

    #[test]
    fn an_unreachable_target_is_an_error_in_time() {
        let closed = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap();

        let error = connect(closed, Duration::from_millis(100)).unwrap_err();

        assert!(format!("{error:#}").contains("127.0.0.1"), "{error:#}");
    }
}
