//! Keeps the server's sockets on the addresses that it should have.
//!
//! ```text
//!  169.254.53.1 on `weft`   ─► UDP, TCP bound to `weft` │ UDP, TCP bound to `lo` (the host itself)
//!  172.17.0.1 on `docker0`  ─► UDP, TCP bound to `docker0` │ …
//! ```
//!
//! A socket that is bound to a device takes nothing that comes in elsewhere, and answers through it without any route:
//! the host needs none to its containers. A device that was made anew has another number, and gets new sockets.

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use nix::ifaddrs::getifaddrs;
use nix::net::if_::if_nametoindex;
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrIn, bind, listen, setsockopt, socket,
    sockopt,
};
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, spawn_blocking};

use super::handler::Handler;
use super::{DnsConfig, PORT, tcp, udp};

/// The host asks its own addresses through this device.
const LOOPBACK: &str = "lo";
/// Connections that wait to be accepted.
const BACKLOG: i32 = 64;
/// Bytes of questions that may wait, which the kernel doubles and charges 768 a question: 2700 of them, as many as may
/// come while a busy machine has its turn elsewhere.
const RECEIVE_BUFFER: usize = 1024 * 1024;

/// One pair of sockets: address, device and the device's number.
type Spot = (Ipv4Addr, String, u32);

/// The sockets and their tasks.
pub(super) struct Listeners {
    handler: Arc<Handler>,
    address: Ipv4Addr,
    bridge: String,
    docker_bridge: String,
    open: BTreeMap<Spot, [JoinHandle<()>; 2]>,
    told: Vec<String>,
}

impl Listeners {
    pub(super) fn new(config: &DnsConfig, handler: Arc<Handler>) -> Self {
        Self {
            handler,
            address: config.address,
            bridge: config.bridge.clone(),
            docker_bridge: config.docker_bridge.clone(),
            open: BTreeMap::new(),
            told: Vec::new(),
        }
    }

    /// Opens what is missing and closes what is gone; where we listen, and what does not work.
    pub(super) async fn look(&mut self) -> (Vec<SocketAddr>, Vec<String>) {
        // With hundreds of containers the list takes milliseconds, in which questions would wait.
        let found = spawn_blocking(addresses).await.map_err(io::Error::other);
        let mut trouble = Vec::new();
        let wanted = match found.flatten() {
            Ok(addresses) => self.wanted(&addresses, &mut trouble),
            Err(error) => {
                trouble.push(format!("changes of addresses: {error}"));
                // What works is left as it is: the process may be out of files for a while.
                self.open.keys().cloned().collect()
            }
        };
        self.open.retain(|spot, tasks| {
            let stays = wanted.contains(spot) && tasks.iter().all(|task| !task.is_finished());
            if !stays {
                tasks.iter().for_each(JoinHandle::abort);
            }
            stays
        });
        for spot in wanted {
            if self.open.contains_key(&spot) {
                continue;
            }
            match open(&spot, &self.handler) {
                Ok(tasks) => {
                    self.open.insert(spot, tasks);
                }
                Err(error) => trouble.push(format!("{}:{PORT} on {}: {error}", spot.0, spot.1)),
            }
        }
        if trouble != self.told {
            for line in &trouble {
                tracing::warn!("DNS does not listen on {line}");
            }
            self.told.clone_from(&trouble);
        }
        let mut listening = self
            .open
            .keys()
            .filter(|(_, device, _)| device != LOOPBACK)
            .map(|(address, _, _)| SocketAddr::from((*address, PORT)))
            .collect::<Vec<_>>();
        listening.dedup();
        (listening, trouble)
    }

    fn wanted(&self, addresses: &[(String, Ipv4Addr)], trouble: &mut Vec<String>) -> Vec<Spot> {
        let mut wanted = Vec::new();
        if !addresses.contains(&(self.bridge.clone(), self.address)) {
            trouble.push(format!(
                "{}:{PORT}: {} does not have the address",
                self.address, self.bridge
            ));
        }
        let is_ours = |(device, address): &&(String, Ipv4Addr)| {
            (*device == self.bridge && *address == self.address) || *device == self.docker_bridge
        };
        for (device, address) in addresses.iter().filter(is_ours) {
            for device in [device.as_str(), LOOPBACK] {
                if let Ok(index) = if_nametoindex(device) {
                    wanted.push((*address, device.to_owned(), index));
                }
            }
        }
        wanted
    }
}

impl Drop for Listeners {
    fn drop(&mut self) {
        self.open.values().flatten().for_each(JoinHandle::abort);
    }
}

fn addresses() -> io::Result<Vec<(String, Ipv4Addr)>> {
    let found = getifaddrs()?.filter_map(|interface| {
        let address = interface.address?.as_sockaddr_in()?.ip();
        Some((interface.interface_name, address))
    });
    Ok(found.collect())
}

fn open(spot: &Spot, handler: &Arc<Handler>) -> io::Result<[JoinHandle<()>; 2]> {
    let udp = udp::watched(bound(spot, SockType::Datagram)?)?;
    let stream = bound(spot, SockType::Stream)?;
    listen(&stream, Backlog::new(BACKLOG)?)?;
    let tcp = TcpListener::from_std(stream.into())?;
    Ok([
        tokio::spawn(udp::serve(udp, Arc::clone(handler))),
        tokio::spawn(tcp::serve(tcp, Arc::clone(handler))),
    ])
}

fn bound(spot: &Spot, kind: SockType) -> io::Result<OwnedFd> {
    let (address, device, _) = spot;
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let socket = socket(AddressFamily::Inet, kind, flags, None)?;
    setsockopt(&socket, sockopt::BindToDevice, &device.into())?;
    if kind == SockType::Stream {
        // Connections of the daemon before this one may still linger.
        setsockopt(&socket, sockopt::ReuseAddr, &true)?;
    } else {
        // Only root of the machine may go beyond `net.core.rmem_max`; others get what that allows.
        if setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BUFFER).is_err() {
            let _ = setsockopt(&socket, sockopt::RcvBuf, &RECEIVE_BUFFER);
        }
    }
    let address = SockaddrIn::from(SocketAddrV4::new(*address, PORT));
    bind(std::os::fd::AsRawFd::as_raw_fd(&socket), &address)?;
    Ok(socket)
}
