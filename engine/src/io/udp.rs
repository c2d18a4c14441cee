//! UDP sockets of one port: options, and trains out and in.
#![expect(
    unsafe_code,
    reason = "sendmsg and recvmmsg with control data, without an allocation per call"
)]

mod control;
mod name;

use std::io;
use std::mem::size_of;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use crate::config::{LANES_MAX, RECEIVE_BATCH_MAX, SOCKET_BUFFER_LEN};
use crate::error::EngineError;
use crate::io::udp::control::{CONTROL_LEN, Control, Said};
use crate::io::udp::name::{Name, socklen};
use crate::io::{Received, SendError, Train, send_error};
use crate::packet::{Packet, Pool};

/// What the kernel agreed to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct UdpOffloads {
    /// Trains leave in one call.
    pub segment: bool,
    /// Trains arrive in one call.
    pub receive: bool,
    /// A datagram reaches the worker that owns its lane.
    pub steering: bool,
}

/// One worker's socket.
#[derive(Debug)]
pub struct Socket {
    fd: OwnedFd,
    v6: bool,
    segment: bool,
}

/// Opens one socket a worker on a shared port; the kernel picks by the lane byte.
pub fn open(
    host: Option<IpAddr>,
    port: u16,
    count: u16,
) -> Result<(Vec<Socket>, UdpOffloads), EngineError> {
    let mut sockets = Vec::new();
    let mut offloads = UdpOffloads {
        segment: true,
        receive: true,
        steering: true,
    };
    for _ in 0..count.min(u16::try_from(LANES_MAX).unwrap_or(u16::MAX)) {
        let socket = open_one(host, port)?;
        offloads.segment &= socket.segment;
        offloads.receive &= set_option(&socket.fd, libc::SOL_UDP, libc::UDP_GRO, 1).is_ok();
        sockets.push(socket);
    }
    // The program belongs to the group of sockets, and counts them in the order of their bind.
    if let Some(last) = sockets.last() {
        offloads.steering = count == 1 || steer_by_lane(&last.fd, count).is_ok();
    }
    Ok((sockets, offloads))
}

fn open_one(host: Option<IpAddr>, port: u16) -> Result<Socket, EngineError> {
    let (address, v6) = match host {
        Some(IpAddr::V4(host)) => (SocketAddr::from((host, port)), false),
        Some(IpAddr::V6(host)) => (SocketAddr::from((host, port)), true),
        None => (SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)), true),
    };
    let opened = open_at(address, v6);
    // A host without IPv6 still has IPv4.
    let opened = match (opened, host) {
        (Err(_), None) => {
            open_at(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)), false).map(|fd| (fd, false))
        }
        (opened, _) => opened.map(|fd| (fd, v6)),
    };
    let (fd, v6) = opened.map_err(|source| EngineError::OpenUdp { port, source })?;
    let segment = set_option(&fd, libc::SOL_UDP, libc::UDP_SEGMENT, 0).is_ok();
    if host.is_none() {
        // Without it the kernel chooses what answers leave from, as it does when an address is gone.
        let (level, option) = if v6 {
            (libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO)
        } else {
            (libc::IPPROTO_IP, libc::IP_PKTINFO)
        };
        let _ = set_option(&fd, level, option, 1);
    }
    Ok(Socket { fd, v6, segment })
}

fn open_at(address: SocketAddr, v6: bool) -> io::Result<OwnedFd> {
    let family = if v6 { libc::AF_INET6 } else { libc::AF_INET };
    // SAFETY: takes plain numbers.
    let fd = unsafe {
        libc::socket(
            family,
            libc::SOCK_DGRAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK,
            0,
        )
    };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel just made this descriptor and nobody else has it.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    set_option(&fd, libc::SOL_SOCKET, libc::SO_REUSEPORT, 1)?;
    if v6 {
        set_option(&fd, libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, 0)?;
        set_option(
            &fd,
            libc::IPPROTO_IPV6,
            libc::IPV6_MTU_DISCOVER,
            libc::IPV6_PMTUDISC_PROBE,
        )?;
    }
    // Don't fragment, and don't believe what ICMP says of the path: probes find out (RFC 8899).
    set_option(
        &fd,
        libc::IPPROTO_IP,
        libc::IP_MTU_DISCOVER,
        libc::IP_PMTUDISC_PROBE,
    )?;
    let length = libc::c_int::try_from(SOCKET_BUFFER_LEN).unwrap_or(libc::c_int::MAX);
    for (force, plain) in [
        (libc::SO_RCVBUFFORCE, libc::SO_RCVBUF),
        (libc::SO_SNDBUFFORCE, libc::SO_SNDBUF),
    ] {
        // Forcing needs CAP_NET_ADMIN in the first user namespace; without, the system's limit holds.
        if set_option(&fd, libc::SOL_SOCKET, force, length).is_err() {
            set_option(&fd, libc::SOL_SOCKET, plain, length)?;
        }
    }
    let name = Name::new(address, v6);
    // SAFETY: the kernel reads `name.len` bytes of a name that lives for the call.
    let bound = unsafe { libc::bind(fd.as_raw_fd(), (&raw const name.bytes).cast(), name.len) };
    if bound < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(fd)
    }
}

fn set_option(fd: &OwnedFd, level: i32, option: i32, value: i32) -> io::Result<()> {
    let len = socklen(size_of::<i32>());
    // SAFETY: the kernel reads one int, borrowed for the call.
    let done = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            level,
            option,
            (&raw const value).cast(),
            len,
        )
    };
    if done < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// Classic BPF over the UDP payload: the lane byte, modulo the number of sockets.
fn steer_by_lane(fd: &OwnedFd, count: u16) -> io::Result<()> {
    let op = |code: u32, k: u32| libc::sock_filter {
        code: u16::try_from(code).unwrap_or(0),
        jt: 0,
        jf: 0,
        k,
    };
    let mut program = [
        op(libc::BPF_LD | libc::BPF_B | libc::BPF_ABS, 1),
        op(libc::BPF_ALU | libc::BPF_MOD | libc::BPF_K, count.into()),
        op(libc::BPF_RET | libc::BPF_A, 0),
    ];
    let filter = libc::sock_fprog {
        len: u16::try_from(program.len()).unwrap_or(0),
        filter: program.as_mut_ptr(),
    };
    let len = socklen(size_of::<libc::sock_fprog>());
    // SAFETY: the kernel copies `filter.len` instructions from `program`, which lives for the call.
    let done = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_REUSEPORT_CBPF,
            (&raw const filter).cast(),
            len,
        )
    };
    if done < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

impl Socket {
    /// The descriptor, for whoever waits on it.
    pub fn raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }

    /// The descriptor, for whoever adds it to a set.
    pub fn borrowed_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Sends one train, in one call where the kernel can.
    pub fn send(&self, train: &Train) -> Result<(), SendError> {
        let bytes = train.bytes();
        if self.segment || train.len <= train.segment {
            return self.send_bytes(bytes, train.segment, (train.to, train.local));
        }
        // Without UDP_SEGMENT the datagrams leave one by one.
        bytes.chunks(train.segment.max(1)).try_for_each(|datagram| {
            self.send_bytes(datagram, datagram.len(), (train.to, train.local))
        })
    }

    fn send_bytes(
        &self,
        bytes: &[u8],
        segment: usize,
        (to, local): (SocketAddr, Option<IpAddr>),
    ) -> Result<(), SendError> {
        let sent = self.send_once(bytes, segment, to, local);
        match sent.map_err(|error| send_error(&error)) {
            // The address, or the way out from it, may be gone from this host: the kernel chooses another.
            Err(SendError::Unreachable | SendError::Refused) if local.is_some() => self
                .send_once(bytes, segment, to, None)
                .map_err(|error| send_error(&error)),
            outcome => outcome,
        }
    }

    fn send_once(
        &self,
        bytes: &[u8],
        segment: usize,
        to: SocketAddr,
        local: Option<IpAddr>,
    ) -> io::Result<()> {
        let mut name = Name::new(to, self.v6);
        let mut part = libc::iovec {
            iov_base: bytes.as_ptr().cast_mut().cast(),
            iov_len: bytes.len(),
        };
        let mut control = Control([0; CONTROL_LEN]);
        let mut control_len = 0;
        if bytes.len() > segment {
            let segment = u16::try_from(segment).map_err(|_| too_big())?;
            let value = segment.to_ne_bytes();
            control_len = control.put(0, libc::SOL_UDP, libc::UDP_SEGMENT, &value);
        }
        if let Some(local) = local {
            control_len = control.put_local(control_len, local, self.v6);
        }
        // SAFETY: `msghdr` is a C struct of numbers and pointers, for which all zeroes is a value.
        let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
        message.msg_name = (&raw mut name.bytes).cast();
        message.msg_namelen = name.len;
        message.msg_iov = &raw mut part;
        message.msg_iovlen = 1;
        if control_len > 0 {
            message.msg_control = (&raw mut control).cast();
            message.msg_controllen = control_len;
        }
        // SAFETY: every pointer in `message` is to a local or to `bytes`, all alive for the call; the kernel only reads them.
        let sent =
            unsafe { libc::sendmsg(self.fd.as_raw_fd(), &raw const message, libc::MSG_DONTWAIT) };
        if sent < 0 {
            Err(io::Error::last_os_error())
        } else {
            Ok(())
        }
    }
}

fn too_big() -> io::Error {
    io::Error::from_raw_os_error(libc::EMSGSIZE)
}

/// The receive side of one socket without io_uring: a batch of buffers that `recvmmsg` fills.
pub struct Receiver {
    messages: Box<[libc::mmsghdr]>,
    parts: Box<[libc::iovec]>,
    names: Box<[Name]>,
    controls: Box<[Control]>,
    /// A place whose packet was given away is filled again before the next call, with the packet that came back
    /// last: so a socket that brings little uses few buffers, which stay in the cache.
    packets: Box<[Option<Packet>]>,
}

// SAFETY: the raw pointers inside `messages` and `parts` are to the heap blocks that the other fields own, so they move along.
unsafe impl Send for Receiver {}

impl std::fmt::Debug for Receiver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Receiver")
            .field("packets", &self.packets.iter().flatten().count())
            .finish_non_exhaustive()
    }
}

impl Default for Receiver {
    fn default() -> Self {
        // SAFETY: `mmsghdr` is a C struct of numbers and pointers, for which all zeroes is a value.
        let empty: libc::mmsghdr = unsafe { std::mem::zeroed() };
        let part = libc::iovec {
            iov_base: std::ptr::null_mut(),
            iov_len: 0,
        };
        Self {
            messages: vec![empty; RECEIVE_BATCH_MAX].into_boxed_slice(),
            parts: vec![part; RECEIVE_BATCH_MAX].into_boxed_slice(),
            names: (0..RECEIVE_BATCH_MAX).map(|_| Name::EMPTY).collect(),
            controls: vec![Control([0; CONTROL_LEN]); RECEIVE_BATCH_MAX].into_boxed_slice(),
            packets: (0..RECEIVE_BATCH_MAX).map(|_| None).collect(),
        }
    }
}

impl Receiver {
    /// Takes at most `count_max` trains; true if the batch came back full, so that more may wait.
    pub fn receive(
        &mut self,
        socket: &Socket,
        count_max: usize,
        pool: &mut Pool,
        received: &mut Vec<Received>,
    ) -> bool {
        let count = self.refill(count_max.min(RECEIVE_BATCH_MAX), pool);
        if count == 0 {
            return false;
        }
        // SAFETY: the first `count` messages point to names, parts, controls and packets that `self` owns and
        // nobody touches during the call, each with its true length.
        let filled = unsafe {
            libc::recvmmsg(
                socket.raw_fd(),
                self.messages.as_mut_ptr(),
                u32::try_from(count).unwrap_or(u32::MAX),
                libc::MSG_DONTWAIT,
                std::ptr::null_mut(),
            )
        };
        let filled = usize::try_from(filled).unwrap_or(0).min(count);
        for (((slot, message), name), control) in (self.packets.iter_mut().take(filled))
            .zip(&self.messages)
            .zip(&mut self.names)
            .zip(&self.controls)
        {
            let Some(packet) = slot.take() else { continue };
            let len = (message.msg_len as usize).min(packet.bytes().len());
            let control = control
                .0
                .get(..message.msg_hdr.msg_controllen)
                .unwrap_or_default();
            let said = Said::read(control);
            let segment = said.segment.unwrap_or(len);
            match name.address() {
                Some(from) => received.push(Received {
                    packet,
                    start: 0,
                    len,
                    segment,
                    from,
                    local: said.local,
                }),
                None => pool.put(packet),
            }
        }
        filled == count
    }

    /// Puts packets into the first `count` places that have none, and says how many places are ready, from the first on.
    fn refill(&mut self, count: usize, pool: &mut Pool) -> usize {
        for index in 0..count {
            if self.packets.get(index).is_none_or(Option::is_some) {
                continue;
            }
            let last = || {
                self.packets
                    .iter_mut()
                    .skip(index)
                    .rev()
                    .find_map(Option::take)
            };
            let Some(packet) = pool.take().or_else(last) else {
                return index;
            };
            self.point(index, packet);
        }
        count
    }

    /// Has one message fill a packet.
    fn point(&mut self, index: usize, packet: Packet) {
        let Self {
            messages,
            parts,
            names,
            controls,
            packets,
        } = self;
        let (Some(message), Some(part)) = (messages.get_mut(index), parts.get_mut(index)) else {
            return;
        };
        let (Some(name), Some(control)) = (names.get_mut(index), controls.get_mut(index)) else {
            return;
        };
        let Some(slot) = packets.get_mut(index) else {
            return;
        };
        // In its place first: a box that moves gives up what points into it.
        let packet = slot.insert(packet);
        part.iov_base = packet.bytes_mut().as_mut_ptr().cast();
        part.iov_len = packet.bytes().len();
        message.msg_hdr.msg_name = (&raw mut name.bytes).cast();
        message.msg_hdr.msg_namelen = socklen(size_of::<libc::sockaddr_in6>());
        message.msg_hdr.msg_iov = part;
        message.msg_hdr.msg_iovlen = 1;
        message.msg_hdr.msg_control = control.0.as_mut_ptr().cast();
        message.msg_hdr.msg_controllen = CONTROL_LEN;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_survive_the_kernels_form() {
        for address in ["192.0.2.1:6783", "[2001:db8::1]:6783", "[fe80::1%3]:1"] {
            let address: SocketAddr = address.parse().unwrap();
            assert_eq!(Name::new(address, true).address(), Some(address));
        }
        let v4: SocketAddr = "192.0.2.1:6783".parse().unwrap();
        assert_eq!(Name::new(v4, false).address(), Some(v4));
        assert_eq!(Name::EMPTY.address(), None);
    }

    #[test]
    fn a_train_sent_over_loopback_arrives_with_its_size() {
        let (sockets, offloads) = open(Some(Ipv4Addr::LOCALHOST.into()), 0, 1).unwrap();
        let peer = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let mut pool = Pool::new(RECEIVE_BATCH_MAX + 1);
        let packet = pool.take().unwrap();
        let to = peer.local_addr().unwrap();
        sockets[0]
            .send(&Train {
                packet,
                start: 0,
                len: 3000,
                segment: 1400,
                to,
                local: None,
            })
            .unwrap();
        let mut bytes = [0; 2000];
        let mut lens = Vec::new();
        let mut from = None;
        for _ in 0..3 {
            let (len, address) = peer.recv_from(&mut bytes).unwrap();
            lens.push(len);
            from = Some(address);
        }
        assert_eq!(lens, [1400, 1400, 200]);
        assert!(offloads.segment && offloads.receive);
        peer.send_to(&[9; 77], from.unwrap()).unwrap();
        let mut received = Vec::new();
        while received.is_empty() {
            Receiver::default().receive(&sockets[0], 4, &mut pool, &mut received);
        }
        assert_eq!(
            (received[0].len, received[0].segment, received[0].from),
            (77, 77, to)
        );
    }

    /// Two addresses on loopback: what comes to either is answered from it.
    #[test]
    fn a_datagram_says_which_address_it_hit_and_the_answer_leaves_from_there() {
        let (sockets, _) = open(None, 0, 1).unwrap();
        let port = port_of(&sockets[0]);
        let peer = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let mut pool = Pool::new(RECEIVE_BATCH_MAX + 1);
        let mut receiver = Receiver::default();
        for hit in [Ipv4Addr::new(127, 0, 0, 9), Ipv4Addr::new(127, 0, 0, 3)] {
            peer.send_to(&[7; 50], (hit, port)).unwrap();
            let mut received = Vec::new();
            while received.is_empty() {
                receiver.receive(&sockets[0], 4, &mut pool, &mut received);
            }
            let Received {
                packet,
                from,
                local,
                ..
            } = received.remove(0);
            assert_eq!(local, Some(hit.into()));
            let answer = Train {
                packet,
                start: 0,
                len: 100,
                segment: 50,
                to: from,
                local,
            };
            sockets[0].send(&answer).unwrap();
            for _ in 0..2 {
                let (len, seen) = peer.recv_from(&mut [0; 100]).unwrap();
                assert_eq!((len, seen), (50, (hit, port).into()));
            }
            pool.put(answer.packet);
        }
    }

    #[test]
    fn an_address_that_is_gone_from_this_host_stops_no_datagram() {
        let (sockets, _) = open(None, 0, 1).unwrap();
        let peer = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let train = Train {
            packet: Pool::new(1).take().unwrap(),
            start: 0,
            len: 60,
            segment: 60,
            to: peer.local_addr().unwrap(),
            local: Some(Ipv4Addr::new(192, 0, 2, 77).into()),
        };

        sockets[0].send(&train).unwrap();

        let (len, from) = peer.recv_from(&mut [0; 100]).unwrap();
        assert_eq!((len, from.ip()), (60, Ipv4Addr::LOCALHOST.into()));
    }

    fn port_of(socket: &Socket) -> u16 {
        let mut name = Name::EMPTY;
        // SAFETY: the kernel writes at most `name.len` bytes into a name that is as long, borrowed for the call.
        let done = unsafe {
            libc::getsockname(
                socket.raw_fd(),
                (&raw mut name.bytes).cast(),
                &raw mut name.len,
            )
        };
        assert_eq!(done, 0);
        name.address().unwrap().port()
    }
}
