//! Starts and stops the workers; control's handle on them.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam::channel::{Sender, bounded};

use crate::command::{Command, Event, PeerSlot};
use crate::config::{COMMANDS_MAX, EngineConfig, IoChoice, LANES_MAX};
use crate::datapath::{Datapath, Order};
use crate::error::EngineError;
use crate::io::epoll::EpollIo;
use crate::io::offload::CoalesceConfig;
use crate::io::slice::ask_for_short_slices;
use crate::io::tuntap::{self, TapOffloads};
use crate::io::udp::{self, Socket, UdpOffloads};
use crate::io::uring::UringIo;
use crate::packet::Pool;
use crate::session::{CipherSpeed, CipherSuite, EpochShared, fastest, measure};
use crate::shared::{PeerShared, Shared};
use crate::verdict::{DropReason, Station};
use crate::worker::Worker;

/// A running engine. Dropping it stops the workers; the TAP device stays.
#[derive(Debug)]
pub struct Engine {
    shared: Arc<Shared>,
    orders: Vec<Sender<Order>>,
    threads: Vec<JoinHandle<()>>,
    peers: Mutex<BTreeMap<PeerSlot, Arc<PeerShared>>>,
    status: EngineStatus,
    tap_name: String,
    /// The workers' queues once more, for a device that has to be made anew.
    tap_queues: Vec<OwnedFd>,
    /// The device outlives us, and its counter with it.
    queue_drops_before: AtomicU64,
}

/// How the engine runs on this host.
#[derive(Debug, Clone, PartialEq)]
pub struct EngineStatus {
    /// `io_uring` or `epoll`.
    pub backend: &'static str,
    /// Why not io_uring; empty when it is, or when `epoll` was asked for.
    pub backend_reason: String,
    /// Worker threads.
    pub workers: u16,
    /// Offloads of the TAP.
    pub tap: TapOffloads,
    /// Offloads of the sockets.
    pub udp: UdpOffloads,
    /// The ciphers measured at start, fastest first.
    pub ciphers: Vec<CipherSpeed>,
}

/// Frame bytes exchanged with one peer since it was added.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PeerTraffic {
    /// Sent, in bytes.
    pub tx_bytes: u64,
    /// Received, in bytes.
    pub rx_bytes: u64,
}

/// Totals of all measurements towards one peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct BenchCounts {
    /// Datagrams sent.
    pub sent: u64,
    /// Datagrams that the peer received.
    pub arrived: u64,
    /// Their frame bytes.
    pub arrived_bytes: u64,
}

impl Engine {
    /// Opens the devices and starts the workers.
    ///
    /// # Errors
    ///
    /// [`EngineError`] names the step that failed; nothing is left running then.
    pub fn start(config: &EngineConfig) -> Result<Self, EngineError> {
        if config.workers == 0 || usize::from(config.workers) > LANES_MAX {
            return Err(EngineError::WorkerCount(config.workers));
        }
        #[expect(
            clippy::disallowed_methods,
            reason = "the start is where the engine's time begins"
        )]
        let clock = Instant::now;
        let ciphers = measure(clock);
        let implementations = CipherSuite::ALL
            .iter()
            .filter_map(|suite| Some((*suite, fastest(&ciphers, *suite)?)))
            .collect();
        let (sockets, udp) = udp::open(config.host, config.port, config.workers)?;
        let tap = tuntap::open(&config.tap_name, config.workers, config.mtu)?;
        let shared = Shared::new(
            config.workers,
            implementations,
            config.underlay_mtu,
            rand::random(),
            clock(),
        )
        .map_err(|errno| EngineError::SetUpEpoll {
            source: errno.into(),
        })?;
        let mut engine = Self {
            shared: Arc::new(shared),
            orders: Vec::new(),
            threads: Vec::new(),
            peers: Mutex::default(),
            status: EngineStatus {
                backend: "epoll",
                backend_reason: String::new(),
                workers: config.workers,
                tap: tap.offloads,
                udp,
                ciphers,
            },
            tap_name: config.tap_name.clone(),
            tap_queues: again(&tap.queues, &config.tap_name)?,
            queue_drops_before: tuntap::queue_drops(&config.tap_name).into(),
        };
        let (backend, reason) = choose(config.io)?;
        engine.status.backend = backend;
        engine.status.backend_reason = reason;
        for (worker, (queue, socket)) in (0..).zip(tap.queues.into_iter().zip(sockets)) {
            engine.start_worker(worker, queue, socket)?;
        }
        Ok(engine)
    }

    fn start_worker(
        &mut self,
        worker: u16,
        queue: OwnedFd,
        socket: Socket,
    ) -> Result<(), EngineError> {
        let (sender, orders) = bounded(COMMANDS_MAX);
        let shared = Arc::clone(&self.shared);
        let coalesce = CoalesceConfig {
            tcp4: true,
            tcp6: true,
            udp: self.status.tap.udp,
        };
        let mut pool = Pool::default();
        let uring = self.status.backend == "io_uring";
        let wake = Arc::clone(&shared.workers[usize::from(worker)].wake);
        // io_uring belongs to the thread that made it, so the backends are made there.
        let (ready, started) = bounded(1);
        let body = move || {
            if let Err(error) = ask_for_short_slices() {
                tracing::debug!(worker, %error, "the scheduler gives no short slices");
            }
            let outcome = if uring {
                UringIo::new(queue, socket, wake, &mut pool).map(|io| {
                    let _ = ready.send(Ok(()));
                    Worker::new(Datapath::new(worker, shared, pool, coalesce), io, orders).run()
                })
            } else {
                EpollIo::new(queue, socket, wake, &mut pool).map(|io| {
                    let _ = ready.send(Ok(()));
                    Worker::new(Datapath::new(worker, shared, pool, coalesce), io, orders).run()
                })
            };
            match outcome {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::error!(worker, %error, "worker ended"),
                Err(error) => {
                    let _ = ready.send(Err(error));
                }
            }
        };
        let thread = std::thread::Builder::new()
            .name(format!("weft-worker-{worker}"))
            .spawn(body)
            .map_err(|source| EngineError::StartWorker { worker, source })?;
        started
            .recv()
            .map_err(|_| EngineError::WorkerGone(worker))??;
        self.orders.push(sender);
        self.threads.push(thread);
        Ok(())
    }

    /// Gives an order to every worker; blocks only while a worker is far behind.
    pub fn command(&self, command: Command) {
        let order = match command {
            Command::AddPeer { slot, label } => {
                let shared = Arc::new(PeerShared::new(label));
                self.lock_peers().insert(slot, Arc::clone(&shared));
                Order::AddPeer(slot, shared)
            }
            Command::InstallSession(keys) => {
                let epoch = EpochShared {
                    pending: AtomicU16::new(self.status.workers),
                    confirmed: AtomicBool::new(false),
                    forged: AtomicU64::new(0),
                };
                Order::InstallSession(keys, Arc::new(epoch))
            }
            Command::RemovePeer { slot } => {
                self.lock_peers().remove(&slot);
                Order::Command(command)
            }
            command @ (Command::ActivateSession { .. }
            | Command::RemoveSession { .. }
            | Command::SetCandidates { .. }
            | Command::SetLabel(_)
            | Command::SetFib(_)
            | Command::SetNeighbours(_)
            | Command::SetDisputed(_)
            | Command::SetFlow { .. }
            | Command::SetLimits(_)
            | Command::SetGroupKey(_)
            | Command::RemoveGroupKey { .. }
            | Command::SendMessage { .. }
            | Command::Bench { .. }) => Order::Command(command),
        };
        for (worker, orders) in (0..).zip(&self.orders) {
            // A worker that has ended takes no orders; status says so.
            let _ = orders.send(order.clone());
            self.shared.wake(worker);
        }
    }

    /// Takes the next report.
    pub fn poll_event(&self) -> Option<Event> {
        let event = self.shared.events.pop();
        if event.is_none() {
            let _ = self.shared.event_fd.read();
            // One may have come between the two.
            return self.shared.events.pop();
        }
        event
    }

    /// Readable while reports wait; cleared by a [`Engine::poll_event`] that finds none.
    pub fn event_fd(&self) -> BorrowedFd<'_> {
        self.shared.event_fd.as_fd()
    }

    /// Keeps frames about an IPv4 address of the host out of the network, both ways: each host has it for itself.
    pub fn keep_on_host(&self, address: Ipv4Addr) {
        self.shared
            .host_only
            .store(address.to_bits(), Ordering::Relaxed);
    }

    /// Makes the TAP device anew after somebody deleted it; it is down, and of the kernel's own MTU.
    ///
    /// # Errors
    ///
    /// [`EngineError`] names the step that failed: also when the device was not deleted.
    pub fn make_tap_again(&self) -> Result<(), EngineError> {
        tuntap::attach_again(&self.tap_name, &self.tap_queues)?;
        self.queue_drops_before.store(0, Ordering::Relaxed);
        for worker in 0..self.status.workers {
            self.shared.wake(worker);
        }
        Ok(())
    }

    /// How the engine runs.
    pub fn status(&self) -> &EngineStatus {
        &self.status
    }

    /// Workers whose thread has ended; none, unless something broke.
    pub fn dead_workers(&self) -> Vec<u16> {
        (0..)
            .zip(&self.threads)
            .filter(|(_, thread)| thread.is_finished())
            .map(|(worker, _)| worker)
            .collect()
    }

    /// Every counter by name, summed over the workers; drops are `drop_REASON`. One is the kernel's: frames that no
    /// worker took from the TAP in time.
    pub fn counters(&self) -> BTreeMap<String, u64> {
        let workers = &self.shared.workers;
        let passed = Station::ALL.iter().map(|station| {
            (
                station.name().to_owned(),
                workers
                    .iter()
                    .map(|worker| worker.counters.passed(*station))
                    .sum(),
            )
        });
        let dropped = DropReason::ALL.iter().map(|reason| {
            let count = workers
                .iter()
                .map(|worker| worker.counters.dropped(*reason))
                .sum();
            (format!("drop_{}", reason.name()), count)
        });
        let queue_full = tuntap::queue_drops(&self.tap_name)
            .saturating_sub(self.queue_drops_before.load(Ordering::Relaxed));
        let kernel = [("drop_tap_queue_full".to_owned(), queue_full)];
        passed.chain(dropped).chain(kernel).collect()
    }

    /// What went to and came from each peer.
    pub fn traffic(&self) -> BTreeMap<PeerSlot, PeerTraffic> {
        self.lock_peers()
            .iter()
            .map(|(slot, peer)| {
                let tx_bytes = peer.tx_bytes.load(Ordering::Relaxed);
                let rx_bytes = peer.rx_bytes.load(Ordering::Relaxed);
                (*slot, PeerTraffic { tx_bytes, rx_bytes })
            })
            .collect()
    }

    /// What a measurement towards a peer sent, and what of it arrived as far as the peer has said.
    pub fn bench_counts(&self, slot: PeerSlot) -> BenchCounts {
        let peers = self.lock_peers();
        let Some(peer) = peers.get(&slot) else {
            return BenchCounts::default();
        };
        BenchCounts {
            sent: peer.bench_sent.load(Ordering::Relaxed),
            arrived: peer.bench_arrived.load(Ordering::Relaxed),
            arrived_bytes: peer.bench_arrived_bytes.load(Ordering::Relaxed),
        }
    }

    /// Takes one measured round trip.
    pub fn take_bench_round_trip(&self) -> Option<Duration> {
        self.shared.bench_nanos.pop().map(Duration::from_nanos)
    }

    /// Ends the workers and waits for them.
    pub fn stop(self) {}

    fn lock_peers(&self) -> std::sync::MutexGuard<'_, BTreeMap<PeerSlot, Arc<PeerShared>>> {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        for (worker, orders) in (0..).zip(&self.orders) {
            let _ = orders.send(Order::Stop);
            self.shared.wake(worker);
        }
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// The same open files under descriptors of their own.
fn again(queues: &[OwnedFd], name: &str) -> Result<Vec<OwnedFd>, EngineError> {
    let clones = queues.iter().map(OwnedFd::try_clone);
    let cloned: std::io::Result<Vec<_>> = clones.collect();
    cloned.map_err(|source| EngineError::SetTapOption {
        name: name.to_owned(),
        option: "a second descriptor",
        source,
    })
}

/// The backend to use, and why it is not the better one.
fn choose(choice: IoChoice) -> Result<(&'static str, String), EngineError> {
    match choice {
        IoChoice::Epoll => Ok(("epoll", String::new())),
        IoChoice::Uring => UringIo::probe().map(|()| ("io_uring", String::new())),
        IoChoice::Auto => match UringIo::probe() {
            Ok(()) => Ok(("io_uring", String::new())),
            Err(error) => {
                use std::error::Error;
                let cause = error
                    .source()
                    .map(|source| format!(": {source}"))
                    .unwrap_or_default();
                Ok(("epoll", format!("{error}{cause}")))
            }
        },
    }
}
