//! A backend on tokio-uring 0.5, to measure beside the engine's own: receives as one-shot orders.
//!
//! ```text
//!  socket ── N tasks, each: RECVMSG one-shot ─► slot ─► arrived    in the order of the completions
//!  TAP ───── POLL one-shot, once a sleep ─────► plain reads
//!  eventfd ─ POLL one-shot, once a sleep ─────► wake
//!            └── block_on until one of them completes, or the time is over ┘
//! ```
//!
//! The runtime submits when its thread parks, and finds completions by epoll on the ring. Its one-shots
//! panic on `F_MORE`, so neither multishot receives nor buffer rings are possible; and since nobody enters
//! the ring for events, neither is `DEFER_TASKRUN`. All the rest is as in the engine's io_uring backend.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::fs::File;
use std::future::{Future, poll_fn};
use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::marker::PhantomData;
use std::mem::{offset_of, size_of};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use anyhow::{Context as _, Result};
use io_uring_06::{cqueue, opcode, types::Fd};
use tokio::sync::Notify;
use tokio_uring::{InFlightOneshot, OneshotOutputTransform, Runtime, UnsubmittedOneshot};
use weft_engine::io::udp::Socket;
use weft_engine::io::{Io, Received, SendError, Train};
use weft_engine::packet::{Packet, Pool};

/// Entries of the submission queue: every receive, two polls and the order that ends a short turn.
const RING_ENTRIES: u32 = 64;
/// Completions, as many as the engine's own backend asks for.
const COMPLETIONS: u32 = 256;
/// Fresh packets at hand for filled slots, as many as the engine takes in one batch.
const SPARE_PACKETS: usize = 64;

/// One worker's runtime.
pub(super) struct TokioUringIo {
    runtime: Runtime,
    watch: Watch,
    inbox: Rc<Inbox>,
    socket: Socket,
    tap: File,
    frame: Packet,
    /// Frames came since the runtime last had its turn: it may be a while until the worker waits.
    is_busy: bool,
}

impl TokioUringIo {
    /// A runtime over a TAP queue, a socket of IPv4 and the worker's wake-up, with `receives` orders in flight;
    /// to be called on the worker's thread.
    pub(super) fn new(
        tap: OwnedFd,
        socket: Socket,
        wake: OwnedFd,
        pool: &mut Pool,
        receives: u16,
    ) -> Result<Self> {
        let mut ring = tokio_uring::uring_builder();
        ring.setup_cqsize(COMPLETIONS)
            .setup_coop_taskrun()
            .setup_single_issuer();
        let mut builder = tokio_uring::builder();
        let runtime = Runtime::new(builder.entries(RING_ENTRIES).uring_builder(&ring))
            .context("make a tokio-uring runtime")?;
        let inbox = Rc::new(Inbox::default());
        inbox.refill(pool);
        let packets: Option<Vec<Packet>> = (0..receives).map(|_| pool.take()).collect();
        let fd = socket.raw_fd();
        let tasks = packets.context("a packet for each receive")?;
        runtime.block_on(async {
            for packet in tasks {
                let slot = Slot::new(packet);
                tokio_uring::spawn(receive(Rc::clone(&inbox), fd, slot));
            }
        });
        Ok(Self {
            runtime,
            watch: Watch {
                tap_fd: tap.as_fd().as_raw_fd(),
                wake: File::from(wake),
                tap_ready: true,
                tap_poll: None,
                wake_poll: None,
            },
            inbox,
            socket,
            tap: File::from(tap),
            frame: pool.take().context("a packet for frames")?,
            is_busy: false,
        })
    }

    /// Submits what is to be submitted and takes what has completed, without sleeping. Only an order that
    /// completes at once makes the thread park, and so submit, and then not sleep.
    fn turn(&self) {
        self.runtime.block_on(async {
            let _ = tokio_uring::no_op().await;
        });
    }
}

impl Io for TokioUringIo {
    fn wait(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        let Self {
            runtime,
            watch,
            inbox,
            ..
        } = self;
        self.is_busy = false;
        runtime.block_on(async {
            watch.order();
            let something = poll_fn(|context| watch.poll(inbox, context));
            match timeout {
                // The outcome is the same: the worker looks at everything.
                Some(timeout) => drop(tokio::time::timeout(timeout, something).await),
                None => something.await,
            }
        });
        Ok(())
    }

    fn tap_recv(&mut self) -> Option<&[u8]> {
        if !self.watch.tap_ready {
            return None;
        }
        match self.tap.read(self.frame.bytes_mut()) {
            Ok(len) if len > 0 => {
                self.is_busy = true;
                self.frame.bytes().get(..len)
            }
            _ => {
                self.watch.tap_ready = false;
                None
            }
        }
    }

    fn udp_recv(
        &mut self,
        count_max: usize,
        pool: &mut Pool,
        received: &mut Vec<Received>,
    ) -> bool {
        // Without frames the worker is about to wait, which is a turn, too.
        if self.is_busy && self.inbox.arrived.borrow().is_empty() {
            self.is_busy = false;
            self.turn();
        }
        let mut arrived = self.inbox.arrived.borrow_mut();
        let count = arrived.len().min(count_max);
        received.extend(arrived.drain(..count));
        let more = !arrived.is_empty();
        drop(arrived);
        self.inbox.refill(pool);
        more
    }

    fn tap_send(&mut self, parts: &[IoSlice<'_>]) -> Result<(), SendError> {
        match self.tap.write_vectored(parts) {
            Ok(_) => Ok(()),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Err(SendError::Busy),
            Err(_) => Err(SendError::Refused),
        }
    }

    fn udp_send(&mut self, train: &Train) -> Result<(), SendError> {
        self.socket.send(train)
    }
}

/// What the receiving tasks share with the worker.
#[derive(Default)]
struct Inbox {
    arrived: RefCell<VecDeque<Received>>,
    spare: RefCell<Vec<Packet>>,
    refilled: Notify,
    /// Whoever waits for something to arrive.
    waiting: Cell<Option<Waker>>,
}

impl Inbox {
    fn refill(&self, pool: &mut Pool) {
        let mut spare = self.spare.borrow_mut();
        let was_empty = spare.is_empty();
        while spare.len() < SPARE_PACKETS {
            let Some(packet) = pool.take() else { break };
            spare.push(packet);
        }
        if was_empty {
            self.refilled.notify_waiters();
        }
    }

    /// A fresh packet, as soon as there is one.
    async fn spare(&self) -> Packet {
        loop {
            let refilled = self.refilled.notified();
            let packet = self.spare.borrow_mut().pop();
            match packet {
                Some(packet) => return packet,
                None => refilled.await,
            }
        }
    }

    fn put(&self, received: Received) {
        self.arrived.borrow_mut().push_back(received);
        if let Some(waker) = self.waiting.take() {
            waker.wake();
        }
    }
}

/// Keeps one receive in flight for as long as the runtime lives.
async fn receive(inbox: Rc<Inbox>, fd: RawFd, mut slot: Box<Slot>) {
    loop {
        let order = opcode::RecvMsg::new(Fd(fd), slot.header()).build();
        let (filled, result) = UnsubmittedOneshot::new(slot, Raw(PhantomData), order)
            .submit()
            .await;
        slot = filled;
        let (len, from) = match (usize::try_from(result), slot.sender()) {
            (Ok(len), Some(from)) if len > 0 => (len, from),
            _ => continue,
        };
        let segment = slot.segment().unwrap_or(len);
        let packet = std::mem::replace(&mut slot.packet, inbox.spare().await);
        inbox.put(Received {
            packet,
            start: 0,
            len,
            segment,
            from,
            local: None,
        });
    }
}

/// The two polls, and what they have found.
struct Watch {
    tap_fd: RawFd,
    wake: File,
    tap_ready: bool,
    tap_poll: Option<InFlightOneshot<(), Raw<()>>>,
    wake_poll: Option<InFlightOneshot<(), Raw<()>>>,
}

impl Watch {
    /// Places the polls that are not in flight.
    fn order(&mut self) {
        if !self.tap_ready && self.tap_poll.is_none() {
            self.tap_poll = Some(poll_order(self.tap_fd));
        }
        if self.wake_poll.is_none() {
            self.wake_poll = Some(poll_order(self.wake.as_raw_fd()));
        }
    }

    /// Ready when there is something for the worker.
    fn poll(&mut self, inbox: &Inbox, context: &mut Context<'_>) -> Poll<()> {
        let mut found = !inbox.arrived.borrow().is_empty();
        if has_completed(&mut self.tap_poll, context) {
            self.tap_ready = true;
            found = true;
        }
        if has_completed(&mut self.wake_poll, context) {
            // An eventfd is read as one number; that it has none is fine.
            let _ = self.wake.read(&mut [0; 8]);
            found = true;
        }
        if found {
            return Poll::Ready(());
        }
        inbox.waiting.set(Some(context.waker().clone()));
        Poll::Pending
    }
}

fn poll_order(fd: RawFd) -> InFlightOneshot<(), Raw<()>> {
    let readable = u32::from(libc::POLLIN.cast_unsigned());
    let order = opcode::PollAdd::new(Fd(fd), readable).build();
    UnsubmittedOneshot::new((), Raw(PhantomData), order).submit()
}

fn has_completed(
    flight: &mut Option<InFlightOneshot<(), Raw<()>>>,
    context: &mut Context<'_>,
) -> bool {
    let Some(order) = flight else { return false };
    let done = Pin::new(order).poll(context).is_ready();
    if done {
        *flight = None;
    }
    done
}

/// Hands back what the order held, and the kernel's number.
struct Raw<D>(PhantomData<D>);

impl<D> OneshotOutputTransform for Raw<D> {
    type Output = (D, i32);
    type StoredData = D;
    fn transform_oneshot_output(self, data: D, completion: cqueue::Entry) -> (D, i32) {
        (data, completion.result())
    }
}

/// All that one receive needs, in one place that does not move.
struct Slot {
    header: libc::msghdr,
    part: libc::iovec,
    name: libc::sockaddr_in,
    control: Control,
    packet: Packet,
}

/// One control message: the size of a train's datagrams.
#[repr(C, align(8))]
#[derive(Default)]
struct Control {
    len: usize,
    level: i32,
    kind: i32,
    segment: i32,
    rest: [u32; 11],
}

impl Slot {
    fn new(packet: Packet) -> Box<Self> {
        let nowhere = std::ptr::null_mut();
        Box::new(Self {
            header: libc::msghdr {
                msg_name: nowhere,
                msg_namelen: 0,
                msg_iov: std::ptr::null_mut(),
                msg_iovlen: 0,
                msg_control: nowhere,
                msg_controllen: 0,
                msg_flags: 0,
            },
            part: libc::iovec {
                iov_base: nowhere,
                iov_len: 0,
            },
            name: libc::sockaddr_in {
                sin_family: 0,
                sin_port: 0,
                sin_addr: libc::in_addr { s_addr: 0 },
                sin_zero: [0; 8],
            },
            control: Control::default(),
            packet,
        })
    }

    /// Points everything at its place and returns the header's address; the slot stays boxed while the order is
    /// in flight, because the runtime owns it until then.
    fn header(&mut self) -> *mut libc::msghdr {
        let bytes = self.packet.bytes_mut();
        self.part = libc::iovec {
            iov_base: bytes.as_mut_ptr().cast(),
            iov_len: bytes.len(),
        };
        self.header.msg_name = (&raw mut self.name).cast();
        self.header.msg_namelen = u32::try_from(size_of::<libc::sockaddr_in>()).unwrap_or_default();
        self.header.msg_iov = &raw mut self.part;
        self.header.msg_iovlen = 1;
        self.header.msg_control = (&raw mut self.control).cast();
        self.header.msg_controllen = size_of::<Control>();
        self.header.msg_flags = 0;
        &raw mut self.header
    }

    /// The sender of a whole datagram.
    fn sender(&self) -> Option<SocketAddr> {
        let is_v4 = i32::from(self.name.sin_family) == libc::AF_INET;
        let is_whole = self.header.msg_flags & libc::MSG_TRUNC == 0;
        let address = Ipv4Addr::from(u32::from_be(self.name.sin_addr.s_addr));
        (is_v4 && is_whole).then(|| (address, u16::from_be(self.name.sin_port)).into())
    }

    /// The size of the datagrams of a train, if the kernel put one together.
    fn segment(&self) -> Option<usize> {
        let control = &self.control;
        let is_size = self.header.msg_controllen >= offset_of!(Control, rest)
            && (control.level, control.kind) == (libc::SOL_UDP, libc::UDP_GRO);
        let size = usize::try_from(control.segment).ok()?;
        (is_size && size > 0).then_some(size)
    }
}
