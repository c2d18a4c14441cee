//! TCP for links: listens, dials, reads and writes; decides nothing.
//!
//! ```text
//!  listener ─┐                      ┌─ reader task ── bytes ──► NetEvent ──► loop
//!  dial task ┴─ stream ─► attach ──┤
//!                                  └─ writer task ◄── queue, LINK_QUEUE_MAX bytes ── loop
//! ```
//!
//! A reader waits while the loop is behind, so a fast peer fills its own TCP window and nothing of ours.

mod resend;

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinHandle};
use tokio::time::{sleep, timeout};

use crate::config::{DIAL_TIMEOUT, LINK_QUEUE_MAX};
use crate::driver::resolve;
use crate::error::ControlError;
use crate::link::dialer::TargetAddress;
use crate::node::exchange::{CloseCause, DialFailure, DialId, LinkId};

/// Events of all sockets that wait for the loop.
const EVENTS_MAX: usize = 256;
/// Bytes read in one go.
const READ_MAX: usize = 64 * 1024;
/// What a connection that is being closed may take to send its rest.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(2);
/// Pause before the next address of a name is tried beside the first (RFC 8305 §5).
const NEXT_ADDRESS_AFTER: Duration = Duration::from_millis(250);
/// Pause after an accept that failed for want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What happened on a socket.
#[derive(Debug)]
pub(crate) enum NetEvent {
    Accepted(TcpStream, SocketAddr),
    Dialled(DialId, TcpStream),
    DialFailed(DialId, DialFailure),
    Data(LinkId, Bytes),
    Closed(LinkId, CloseCause),
}

/// All connections of a node.
#[derive(Debug)]
pub(crate) struct Sockets {
    events: mpsc::Sender<NetEvent>,
    connections: BTreeMap<LinkId, Connection>,
    /// Writers of closed connections that still drain.
    draining: Vec<JoinHandle<()>>,
    listeners: Vec<AbortHandle>,
    /// The address to dial from, if one was chosen.
    host: Option<IpAddr>,
    next: u64,
}

#[derive(Debug)]
struct Connection {
    queue: mpsc::UnboundedSender<Bytes>,
    queued: Arc<AtomicUsize>,
    reader: AbortHandle,
    writer: JoinHandle<()>,
}

impl Sockets {
    /// Listens on the port of every address of the host, or of one.
    ///
    /// # Errors
    /// [`ControlError::Listen`] if the port is taken or the address is not ours.
    pub(crate) async fn listen(
        host: Option<IpAddr>,
        port: u16,
    ) -> Result<(Self, mpsc::Receiver<NetEvent>, SocketAddr), ControlError> {
        let wanted = SocketAddr::new(host.unwrap_or(Ipv6Addr::UNSPECIFIED.into()), port);
        let mut bound = TcpListener::bind(wanted).await;
        if bound.is_err() && host.is_none() {
            // A host without IPv6 still has IPv4.
            let v4 = SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
            bound = TcpListener::bind(v4).await;
        }
        let listener = bound.map_err(|source| ControlError::Listen {
            address: wanted,
            source,
        })?;
        let local = listener
            .local_addr()
            .map_err(|source| ControlError::Listen {
                address: wanted,
                source,
            })?;
        let (events, receiver) = mpsc::channel(EVENTS_MAX);
        let accepting = tokio::spawn(accept(listener, events.clone())).abort_handle();
        let sockets = Self {
            events,
            connections: BTreeMap::new(),
            draining: Vec::new(),
            listeners: vec![accepting],
            host,
            next: 0,
        };
        Ok((sockets, receiver, local))
    }

    /// Starts to connect; the outcome comes as an event.
    pub(crate) fn dial(&self, dial: DialId, address: TargetAddress) {
        let (events, host) = (self.events.clone(), self.host);
        tokio::spawn(async move {
            let outcome = timeout(DIAL_TIMEOUT, connect(&address, host)).await;
            let event = match outcome {
                Ok(Ok(stream)) => NetEvent::Dialled(dial, stream),
                Ok(Err(failure)) => NetEvent::DialFailed(dial, failure),
                Err(_) => NetEvent::DialFailed(dial, DialFailure::TimedOut),
            };
            let _ = events.send(event).await;
        });
    }

    /// Takes a connection in; says its number and its two ends.
    pub(crate) fn attach(
        &mut self,
        stream: TcpStream,
    ) -> io::Result<(LinkId, SocketAddr, SocketAddr)> {
        let (remote, local) = (stream.peer_addr()?, stream.local_addr()?);
        stream.set_nodelay(true)?;
        resend::soon(&stream);
        self.next += 1;
        let link = LinkId(self.next);
        let (reading, writing) = stream.into_split();
        let (queue, queued_bytes) = mpsc::unbounded_channel();
        let queued = Arc::new(AtomicUsize::new(0));
        let reader = tokio::spawn(read(link, reading, self.events.clone())).abort_handle();
        let writer = tokio::spawn(write(writing, queued_bytes, Arc::clone(&queued)));
        self.connections.insert(
            link,
            Connection {
                queue,
                queued,
                reader,
                writer,
            },
        );
        Ok((link, remote, local))
    }

    /// Queues bytes; false if too many wait already, and then the connection is gone.
    pub(crate) fn send(&mut self, link: LinkId, data: Bytes) -> bool {
        let Some(connection) = self.connections.get(&link) else {
            return true;
        };
        let waiting = connection.queued.fetch_add(data.len(), Ordering::Relaxed);
        if waiting + data.len() > LINK_QUEUE_MAX {
            self.forget(link);
            return false;
        }
        // A writer that has failed takes nothing; the reader reports that connection's end.
        let _ = connection.queue.send(data);
        true
    }

    /// Sends what waits, then closes.
    pub(crate) fn close(&mut self, link: LinkId) {
        let Some(connection) = self.connections.remove(&link) else {
            return;
        };
        connection.reader.abort();
        drop(connection.queue);
        self.draining.retain(|writer| !writer.is_finished());
        let abort = connection.writer.abort_handle();
        tokio::spawn(async move {
            sleep(DRAIN_TIMEOUT).await;
            abort.abort();
        });
        self.draining.push(connection.writer);
    }

    /// Drops a connection whose end was reported.
    pub(crate) fn forget(&mut self, link: LinkId) {
        if let Some(connection) = self.connections.remove(&link) {
            connection.reader.abort();
            connection.writer.abort();
        }
    }

    /// Stops listening, and waits for closed connections to have sent their rest.
    pub(crate) async fn finish(&mut self) {
        self.listeners.iter().for_each(AbortHandle::abort);
        for writer in std::mem::take(&mut self.draining) {
            let _ = timeout(DRAIN_TIMEOUT, writer).await;
        }
    }
}

impl Drop for Sockets {
    fn drop(&mut self) {
        self.listeners.iter().for_each(AbortHandle::abort);
        for connection in self.connections.values() {
            connection.reader.abort();
            connection.writer.abort();
        }
    }
}

async fn accept(listener: TcpListener, events: mpsc::Sender<NetEvent>) {
    loop {
        match listener.accept().await {
            Ok((stream, remote)) => {
                if events
                    .send(NetEvent::Accepted(stream, remote))
                    .await
                    .is_err()
                {
                    return;
                }
            }
            Err(error) => {
                tracing::debug!(%error, "accept failed");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Tries the addresses one after the other, each beside the ones before it.
async fn connect(target: &TargetAddress, host: Option<IpAddr>) -> Result<TcpStream, DialFailure> {
    let addresses = resolve::addresses(target).await;
    if addresses.is_empty() {
        return Err(DialFailure::Unresolved);
    }
    let mut attempts = (0_u32..)
        .zip(addresses)
        .map(|(n, address)| async move {
            sleep(NEXT_ADDRESS_AFTER * n).await;
            connect_from(host, address).await
        })
        .collect::<FuturesUnordered<_>>();
    let mut failure = DialFailure::Unreachable;
    while let Some(outcome) = attempts.next().await {
        match outcome {
            Ok(stream) => return Ok(stream),
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                failure = DialFailure::Refused
            }
            Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                failure = DialFailure::TimedOut
            }
            Err(_) => {}
        }
    }
    Err(failure)
}

async fn connect_from(host: Option<IpAddr>, address: SocketAddr) -> io::Result<TcpStream> {
    let socket = if address.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    // An address of the other family cannot be dialled from; then the kernel chooses.
    if let Some(host) = host.filter(|host| host.is_ipv4() == address.is_ipv4()) {
        socket.bind(SocketAddr::new(host, 0))?;
    }
    socket.connect(address).await
}

async fn read(link: LinkId, mut reading: OwnedReadHalf, events: mpsc::Sender<NetEvent>) {
    let mut buffer = BytesMut::new();
    loop {
        buffer.reserve(READ_MAX);
        let event = match reading.read_buf(&mut buffer).await {
            Ok(0) => NetEvent::Closed(link, CloseCause::Ended),
            Ok(_) => NetEvent::Data(link, buffer.split().freeze()),
            Err(_) => NetEvent::Closed(link, CloseCause::Broken),
        };
        let last = matches!(event, NetEvent::Closed(..));
        if events.send(event).await.is_err() || last {
            return;
        }
    }
}

async fn write(
    mut writing: OwnedWriteHalf,
    mut queue: mpsc::UnboundedReceiver<Bytes>,
    queued: Arc<AtomicUsize>,
) {
    while let Some(data) = queue.recv().await {
        let len = data.len();
        if writing.write_all(&data).await.is_err() {
            return;
        }
        queued.fetch_sub(len, Ordering::Relaxed);
    }
    let _ = writing.shutdown().await;
}
