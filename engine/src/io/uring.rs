//! The io_uring backend (Linux 6.1): datagrams are on their way in before anybody asks.
//!
//! ```text
//!  socket ── RECVMSG multishot ──► buffer ring ─► Received     one standing order, one buffer per train
//!  TAP ───── POLL, once a sleep ─► plain reads                 multishot reads don't work on a TAP, and of
//!  eventfd ─ POLL, once a sleep ─► wake                        several reads in flight each frame wakes all
//!            └──────────── one io_uring_enter waits for all of them ┘
//! ```
//!
//! Sends and TAP writes stay plain calls: they run the kernel's path to its end on this stack
//! either way, and their buffers are free at once.
#![expect(unsafe_code, reason = "buffers are lent to the kernel by address")]

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::mem::size_of;
use std::os::fd::{AsRawFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use io_uring::types::{BufRingEntry, Fixed, RecvMsgOut, SubmitArgs, Timespec};
use io_uring::{IoUring, cqueue, opcode, squeue};
use nix::sys::eventfd::EventFd;

use crate::error::EngineError;
use crate::io::udp::{CONTROL_LEN, Name, Socket, segment_size};
use crate::io::{Io, Received, SendError, Train, send_error};
use crate::packet::{Packet, Pool};

/// Buffers that the kernel may fill with datagrams; a power of two.
const BUFFERS: u16 = 64;
/// Orders in flight: one receive and two polls, and what is ordered again in the same round.
const RING_ENTRIES: u32 = 16;
/// Completions: every buffer at once, and the polls.
const COMPLETIONS: u32 = 256;
/// The one buffer group.
const GROUP: u16 = 0;
/// `IORING_ENTER_GETEVENTS`.
const GET_EVENTS: u32 = 1;

const SOCKET_FILE: Fixed = Fixed(0);
const TAP_FILE: Fixed = Fixed(1);
const WAKE_FILE: Fixed = Fixed(2);

const RECEIVE: u64 = 0;
const TAP: u64 = 1;
const WAKE: u64 = 2;

/// One worker's ring.
pub struct UringIo {
    // Dropped first: the kernel lets go of the buffers below.
    ring: IoUring,
    socket: Socket,
    tap: OwnedFd,
    wake: Arc<EventFd>,
    /// What a receive writes before each payload; the kernel keeps the address.
    shape: Box<libc::msghdr>,
    buffers: BufferRing,
    frame: Packet,
    /// Receives that came before anybody asked.
    arrived: VecDeque<Received>,
    receiving: bool,
    tap_ready: bool,
    tap_polled: bool,
    wake_polled: bool,
}

impl std::fmt::Debug for UringIo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("UringIo")
            .field("arrived", &self.arrived.len())
            .finish_non_exhaustive()
    }
}

impl UringIo {
    /// Whether this kernel and this process may use io_uring as the engine does.
    ///
    /// # Errors
    ///
    /// The step that was refused.
    pub fn probe() -> Result<(), EngineError> {
        let ring = build_ring()?;
        let mut probe = io_uring::Probe::new();
        ring.submitter()
            .register_probe(&mut probe)
            .map_err(|source| EngineError::SetUpUring { source })?;
        for (code, name) in [
            (opcode::RecvMsgMulti::CODE, "RECVMSG"),
            (opcode::PollAdd::CODE, "POLL_ADD"),
        ] {
            if !probe.is_supported(code) {
                return Err(EngineError::UnsupportedOperation(name));
            }
        }
        let mut pool = Pool::new(usize::from(BUFFERS));
        BufferRing::register(&ring, &mut pool).map(drop)
    }

    /// A ring over a TAP queue, a socket and the worker's wake-up; to be called on the worker's thread.
    ///
    /// # Errors
    ///
    /// [`EngineError::SetUpUring`] when the kernel refuses a step.
    pub fn new(
        tap: OwnedFd,
        socket: Socket,
        wake: Arc<EventFd>,
        pool: &mut Pool,
    ) -> Result<Self, EngineError> {
        let failed = |source| EngineError::SetUpUring { source };
        let ring = build_ring()?;
        let files = [
            socket.raw_fd(),
            tap.as_raw_fd(),
            std::os::fd::AsFd::as_fd(&*wake).as_raw_fd(),
        ];
        ring.submitter().register_files(&files).map_err(failed)?;
        let buffers = BufferRing::register(&ring, pool)?;
        let frame = pool
            .take()
            .ok_or_else(|| failed(io::ErrorKind::OutOfMemory.into()))?;
        // SAFETY: `msghdr` is a C struct of numbers and pointers, for which all zeroes is a value.
        let mut shape: Box<libc::msghdr> = Box::new(unsafe { std::mem::zeroed() });
        shape.msg_namelen = Name::EMPTY.len;
        shape.msg_controllen = CONTROL_LEN;
        let arrived = VecDeque::with_capacity(usize::from(BUFFERS));
        Ok(Self {
            ring,
            socket,
            tap,
            wake,
            shape,
            buffers,
            frame,
            arrived,
            receiving: false,
            tap_ready: true,
            tap_polled: false,
            wake_polled: false,
        })
    }

    /// Places the orders that are not in flight.
    fn order(&mut self) {
        if !self.receiving {
            let receive = opcode::RecvMsgMulti::new(SOCKET_FILE, &raw const *self.shape, GROUP);
            self.receiving = self.push(&receive.build().user_data(RECEIVE));
        }
        let readable = u32::from(libc::POLLIN.cast_unsigned());
        if !self.tap_polled && !self.tap_ready {
            self.tap_polled = self.push(
                &opcode::PollAdd::new(TAP_FILE, readable)
                    .build()
                    .user_data(TAP),
            );
        }
        if !self.wake_polled {
            self.wake_polled = self.push(
                &opcode::PollAdd::new(WAKE_FILE, readable)
                    .build()
                    .user_data(WAKE),
            );
        }
    }

    fn push(&mut self, entry: &squeue::Entry) -> bool {
        // SAFETY: the orders point only to `shape`, which is boxed and lives until the ring is dropped, and to
        // registered files and buffers.
        unsafe { self.ring.submission().push(entry) }.is_ok()
    }

    /// Takes the completions that are there; fresh packets replace the filled ones.
    fn reap(&mut self, pool: &mut Pool) {
        let Self {
            ring,
            buffers,
            arrived,
            shape,
            ..
        } = self;
        for completion in ring.completion() {
            match completion.user_data() {
                RECEIVE => {
                    self.receiving &= cqueue::more(completion.flags());
                    let Some(id) = cqueue::buffer_select(completion.flags()) else {
                        continue;
                    };
                    let fresh = pool.take();
                    if let Some(packet) = buffers.swap(id, fresh) {
                        match parse(packet, shape, completion.result()) {
                            Ok(received) => arrived.push_back(received),
                            Err(packet) => pool.put(packet),
                        }
                    }
                }
                TAP => {
                    self.tap_polled = false;
                    self.tap_ready = true;
                }
                _ => {
                    self.wake_polled = false;
                    let _ = self.wake.read();
                }
            }
        }
    }
}

fn build_ring() -> Result<IoUring, EngineError> {
    IoUring::builder()
        .setup_single_issuer()
        .setup_defer_taskrun()
        .setup_taskrun_flag()
        .setup_cqsize(COMPLETIONS)
        .build(RING_ENTRIES)
        .map_err(|source| EngineError::SetUpUring { source })
}

/// What a receive wrote: a small header, the sender, control data, the payload.
fn parse(packet: Packet, shape: &libc::msghdr, result: i32) -> Result<Received, Packet> {
    let Ok(filled) = usize::try_from(result) else {
        return Err(packet);
    };
    let out = packet
        .bytes()
        .get(..filled)
        .and_then(|bytes| RecvMsgOut::parse(bytes, shape).ok());
    let Some(out) = out.filter(|out| !out.is_payload_truncated()) else {
        return Err(packet);
    };
    let len = out.payload_data().len();
    let from = Name::from_bytes(out.name_data()).address();
    let segment = segment_size(out.control_data()).unwrap_or(len);
    match from {
        Some(from) if len > 0 => Ok(Received {
            start: filled - len,
            len,
            segment,
            from,
            packet,
        }),
        _ => Err(packet),
    }
}

impl Io for UringIo {
    fn wait(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        self.order();
        let outcome = match timeout {
            Some(timeout) => {
                let time = Timespec::from(timeout);
                self.ring
                    .submitter()
                    .submit_with_args(1, &SubmitArgs::new().timespec(&time))
            }
            None => self.ring.submit_and_wait(1),
        };
        match outcome {
            Ok(_) => Ok(()),
            Err(error)
                if matches!(
                    error.raw_os_error(),
                    Some(libc::ETIME | libc::EINTR | libc::EBUSY)
                ) =>
            {
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    fn tap_recv(&mut self) -> Option<&[u8]> {
        if !self.tap_ready {
            return None;
        }
        match nix::unistd::read(&self.tap, self.frame.bytes_mut()) {
            Ok(len) if len > 0 => self.frame.bytes().get(..len),
            _ => {
                self.tap_ready = false;
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
        if self.arrived.len() < count_max {
            let mut submission = self.ring.submission();
            submission.sync();
            let pending = submission.taskrun() || submission.cq_overflow();
            let unsubmitted = u32::try_from(submission.len()).unwrap_or(0);
            drop(submission);
            if pending {
                // SAFETY: every submitted order is covered by `push`; no signal mask is passed.
                let entered = unsafe {
                    self.ring
                        .submitter()
                        .enter::<libc::sigset_t>(unsubmitted, 0, GET_EVENTS, None)
                };
                // A full completion queue says EBUSY; it is emptied now.
                let _ = entered;
            }
            self.reap(pool);
        }
        let count = self.arrived.len().min(count_max);
        received.extend(self.arrived.drain(..count));
        !self.arrived.is_empty()
    }

    fn tap_send(&mut self, parts: &[IoSlice<'_>]) -> Result<(), SendError> {
        nix::sys::uio::writev(&self.tap, parts)
            .map(|_| ())
            .map_err(|errno| send_error(&errno.into()))
    }

    fn udp_send(&mut self, train: &Train) -> Result<(), SendError> {
        self.socket.send(train)
    }
}

/// The ring of buffers that receives fill, shared with the kernel.
///
/// INVARIANT: each entry that the kernel may use points to the packet of its id in `packets`.
struct BufferRing {
    entries: NonNull<BufRingEntry>,
    packets: Box<[Option<Packet>]>,
    tail: u16,
}

impl BufferRing {
    const LAYOUT: Layout =
        match Layout::from_size_align(size_of::<BufRingEntry>() * BUFFERS as usize, 4096) {
            Ok(layout) => layout,
            Err(_) => panic!("a page is a legal alignment"),
        };

    fn register(ring: &IoUring, pool: &mut Pool) -> Result<Self, EngineError> {
        // SAFETY: the layout's size is not zero.
        let memory = unsafe { alloc_zeroed(Self::LAYOUT) };
        let Some(entries) = NonNull::new(memory.cast()) else {
            handle_alloc_error(Self::LAYOUT)
        };
        let mut buffers = Self {
            entries,
            packets: (0..BUFFERS).map(|_| None).collect(),
            tail: 0,
        };
        // SAFETY: the memory is a page of our own, large enough for the entries, and is freed only by `drop`, after
        // the ring (see the order of fields in `UringIo`).
        unsafe {
            ring.submitter().register_buf_ring_with_flags(
                entries.as_ptr() as u64,
                BUFFERS,
                GROUP,
                0,
            )
        }
        .map_err(|source| EngineError::SetUpUring { source })?;
        for id in 0..BUFFERS {
            let packet = pool.take().ok_or(EngineError::SetUpUring {
                source: io::ErrorKind::OutOfMemory.into(),
            })?;
            buffers.lend(id, packet);
        }
        Ok(buffers)
    }

    /// Takes the filled packet of buffer `id` and lends a fresh one; without one the filled packet
    /// is lent again and what is in it is lost.
    fn swap(&mut self, id: u16, fresh: Option<Packet>) -> Option<Packet> {
        let filled = self.packets.get_mut(usize::from(id))?.take()?;
        match fresh {
            Some(fresh) => {
                self.lend(id, fresh);
                Some(filled)
            }
            None => {
                self.lend(id, filled);
                None
            }
        }
    }

    fn lend(&mut self, id: u16, mut packet: Packet) {
        let bytes = packet.bytes_mut();
        let (address, len) = (
            bytes.as_mut_ptr() as u64,
            u32::try_from(bytes.len()).unwrap_or(0),
        );
        let at = usize::from(self.tail % BUFFERS);
        // SAFETY: `at` is below BUFFERS, and the kernel reads entries only behind the tail stored below.
        let mut entry = unsafe { self.entries.add(at) };
        // SAFETY: entries are plain numbers, zeroed at the allocation, and only this thread writes them.
        let entry = unsafe { entry.as_mut() };
        entry.set_addr(address);
        entry.set_len(len);
        entry.set_bid(id);
        if let Some(place) = self.packets.get_mut(usize::from(id)) {
            *place = Some(packet);
        }
        self.tail = self.tail.wrapping_add(1);
        // SAFETY: the first entry is inside our page; its last two bytes are the ring's tail.
        let tail = unsafe { BufRingEntry::tail(self.entries.as_ptr()) };
        // SAFETY: the kernel only reads the tail, atomically; it is aligned for u16.
        let tail = unsafe { AtomicU16::from_ptr(tail.cast_mut()) };
        tail.store(self.tail, Ordering::Release);
    }
}

impl Drop for BufferRing {
    fn drop(&mut self) {
        // SAFETY: allocated in `register` with this layout; the ring that used it was dropped before.
        unsafe { dealloc(self.entries.as_ptr().cast(), Self::LAYOUT) };
    }
}
