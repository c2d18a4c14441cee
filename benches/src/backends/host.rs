//! The child process of the comparison: one engine worker with fixed keys, on one backend.
//!
//! All backends run in this same frame, so nothing but the backend differs.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64};

use anyhow::{Context, Result, anyhow};
use clap::Args;
use crossbeam::channel::{Receiver, bounded};
use weft_engine::bridge::{Fib, NextHop};
use weft_engine::command::{Command, PeerSlot, SecretKey, SessionKeys};
use weft_engine::config::COMMANDS_MAX;
use weft_engine::datapath::{Datapath, Order};
use weft_engine::io::epoll::EpollIo;
use weft_engine::io::offload::CoalesceConfig;
use weft_engine::io::uring::UringIo;
use weft_engine::io::{Io, tuntap, udp};
use weft_engine::packet::Pool;
use weft_engine::session::{CipherSuite, EpochShared, fastest, measure};
use weft_engine::shared::{PeerShared, Shared};
use weft_engine::worker::Worker;

use crate::backends::Backend;
use crate::backends::tokio_uring::TokioUringIo;
use crate::wait;

/// The TAP device's name.
pub(crate) const TAP: &str = "weft-tap0";
/// UDP port on both hosts.
const PORT: u16 = 6783;
/// The other host.
const PEER: PeerSlot = PeerSlot(1);

/// What the parent tells the child.
#[derive(Debug, Args)]
pub(crate) struct HostArguments {
    /// The backend
    #[arg(long)]
    backend: Backend,
    /// 1 or 2
    #[arg(long)]
    side: u8,
    /// Own underlay address
    #[arg(long)]
    own: IpAddr,
    /// The other host's underlay address
    #[arg(long)]
    other: IpAddr,
    /// MTU of the overlay, bytes
    #[arg(long)]
    mtu: u16,
    /// MTU of the underlay, bytes
    #[arg(long)]
    underlay_mtu: u16,
}

/// Moves frames until it is killed.
pub(crate) fn run(arguments: &HostArguments) -> Result<()> {
    let ciphers = measure(wait::now);
    let implementations = CipherSuite::ALL
        .iter()
        .filter_map(|suite| Some((*suite, fastest(&ciphers, *suite)?)))
        .collect();
    let (sockets, udp) = udp::open(Some(arguments.own), PORT, 1)?;
    let tap = tuntap::open(TAP, 1, arguments.mtu)?;
    println!("{:?}, {udp:?}, {:?}", arguments.backend, tap.offloads);
    let seed = u64::from(arguments.side);
    let shared = Shared::new(
        1,
        implementations,
        arguments.underlay_mtu,
        seed,
        wait::now(),
    );
    let shared = Arc::new(shared.context("make the engine's tables")?);
    let socket = sockets.into_iter().next().context("a socket")?;
    let queue = tap.queues.into_iter().next().context("a TAP queue")?;
    let orders = orders(arguments)?;
    let wake = Arc::clone(&shared.workers[0].wake);
    let mut pool = Pool::default();
    let coalesce = CoalesceConfig {
        tcp4: true,
        tcp6: true,
        udp: tap.offloads.udp,
    };
    let datapath = |pool| Datapath::new(0, shared, pool, coalesce);
    match arguments.backend {
        Backend::IoUring => {
            let io = UringIo::new(queue, socket, wake, &mut pool)?;
            work(datapath(pool), io, orders)
        }
        Backend::Epoll => {
            let io = EpollIo::new(queue, socket, wake, &mut pool)?;
            work(datapath(pool), io, orders)
        }
        Backend::TokioUring { receives } => {
            let wake = wake
                .as_fd()
                .try_clone_to_owned()
                .context("share the wake-up")?;
            let io = TokioUringIo::new(queue, socket, wake, &mut pool, receives)?;
            work(datapath(pool), io, orders)
        }
    }
}

fn work<I: Io>(datapath: Datapath, io: I, orders: Receiver<Order>) -> Result<()> {
    Worker::new(datapath, io, orders)
        .run()
        .context("the worker ended")
}

/// What control would order for one peer with a live session.
fn orders(arguments: &HostArguments) -> Result<Receiver<Order>> {
    let own = arguments.side;
    let other = 3 - own;
    let keys = SessionKeys {
        slot: PEER,
        local_index: own.into(),
        remote_index: other.into(),
        suite: CipherSuite::Aes256Gcm,
        send_key: SecretKey([own; 32]),
        recv_key: SecretKey([other; 32]),
        peer_lanes: 1,
    };
    let epoch = EpochShared {
        pending: AtomicU16::new(1),
        confirmed: AtomicBool::new(false),
        forged: AtomicU64::new(0),
    };
    let fib = Fib {
        generation: 1,
        routes: [(PEER, NextHop::Direct)].into(),
        flood: vec![PEER],
        ..Fib::default()
    };
    let addresses = [SocketAddr::from((arguments.other, PORT))];
    let all = [
        Order::AddPeer(PEER, Arc::new(PeerShared::default())),
        Order::Command(Command::SetFib(Arc::new(fib))),
        Order::InstallSession(Arc::new(keys), Arc::new(epoch)),
        Order::Command(Command::SetCandidates {
            slot: PEER,
            addresses: addresses.into(),
        }),
        Order::Command(Command::ActivateSession {
            slot: PEER,
            local_index: own.into(),
        }),
    ];
    let (sender, receiver) = bounded(COMMANDS_MAX);
    for order in all {
        sender
            .send(order)
            .map_err(|_| anyhow!("the queue of orders is closed"))?;
    }
    Ok(receiver)
}
