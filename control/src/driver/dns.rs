//! The DNS server of this host: a thread of its own with the sockets, the upstreams and the snapshot of names.
//!
//! ```text
//!  node ── entries of an origin ──► builder ── snapshot ──┐ (swapped in)
//!                                                         ▼
//!  container ── UDP, TCP 53 ──► sockets ──► handler ─┬► dns::plain ─► answer to the usual question
//!                                                    └► dns::answer ──► answer
//!                                                        │ Forward
//!                                                        └──► upstreams (hickory-resolver, cache) ──► answer
//! ```
//!
//! Sockets are bound to an address and to the device it belongs to: no other interface of the host is answered. What
//! can not be bound now is tried again every second, and seen in the status.

mod batch;
mod builder;
mod counters;
pub(crate) mod desk;
mod direct;
mod files;
pub mod guest;
mod handler;
pub mod hosts;
mod listen;
mod outside;
pub mod parked;
pub mod resolv_conf;
mod servers;
mod tcp;
mod udp;
mod upstreams;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod ways;
mod wire;

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::{mpsc, oneshot};
use tokio::task::spawn_blocking;
use weft_engine::io::slice::ask_for_short_slices;

use self::builder::Builder;
use self::counters::Counters;
use self::handler::Handler;
use self::listen::Listeners;
use self::upstreams::Upstreams;
use crate::dns::name::Domain;
use crate::dns::names::{Entry, Names, Sources};
use crate::error::ControlError;
use crate::peer::PeerId;

/// Where the server is on every bridge of ours.
pub const ADDRESS_DEFAULT: Ipv4Addr = Ipv4Addr::new(169, 254, 53, 1);
/// Docker's bridge unless told otherwise.
pub const DOCKER_BRIDGE_DEFAULT: &str = "docker0";
/// Names end in this unless told otherwise.
pub const DOMAIN_DEFAULT: &str = "weave.local.";
/// Seconds for which an answer holds unless told otherwise.
pub const TTL_DEFAULT: u32 = 1;
/// Where the host's upstreams are written.
pub const RESOLV_CONF_DEFAULT: &str = "/etc/resolv.conf";
/// The server's port.
const PORT: u16 = 53;
/// How often addresses, devices and resolv.conf are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What the server is started with.
#[derive(Debug, Clone)]
pub struct DnsConfig {
    /// What it is authoritative for.
    pub domain: Domain,
    /// Seconds for which an answer holds.
    pub ttl: u32,
    /// Its own address, on `bridge`.
    pub address: Ipv4Addr,
    /// The network's bridge.
    pub bridge: String,
    /// Docker's bridge, where there is one.
    pub docker_bridge: String,
    /// Whom to ask instead of those in `resolv_conf`.
    pub upstreams: Vec<SocketAddr>,
    /// Where the host's upstreams are written.
    pub resolv_conf: PathBuf,
    /// Forwarded questions a second of one client; 0 is no limit.
    pub client_rate: u32,
}

/// What the server says about itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DnsState {
    /// Where it is asked.
    pub listening: Vec<SocketAddr>,
    /// Where it can not be asked, and why.
    pub trouble: Vec<String>,
    /// Whom it asks.
    pub upstreams: Vec<SocketAddr>,
    /// What is wrong with those whom it asks.
    pub notes: Vec<String>,
}

/// What the thread and the rest of the daemon share.
#[derive(Debug)]
struct Shared {
    names: ArcSwap<Names>,
    state: Mutex<DnsState>,
    counters: Counters,
}

impl Shared {
    fn change_state(&self, change: impl FnOnce(&mut DnsState)) {
        change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

enum Update {
    Source(PeerId, Arc<[Entry]>),
    Shown(oneshot::Sender<()>),
}

/// The way to a running server.
#[derive(Debug, Clone)]
pub struct DnsHandle {
    updates: mpsc::UnboundedSender<Update>,
    shared: Arc<Shared>,
    config: Arc<DnsConfig>,
}

impl DnsHandle {
    /// Replaces what an origin says; no entries take it out.
    pub fn set(&self, origin: PeerId, entries: Arc<[Entry]>) {
        // If the server is gone, so is whoever would ask it.
        let _ = self.updates.send(Update::Source(origin, entries));
    }

    /// Returns once everything that was set before is answered for.
    pub async fn shown(&self) {
        let (sender, shown) = oneshot::channel();
        let _ = self.updates.send(Update::Shown(sender));
        let _ = shown.await;
    }

    /// The names that are answered for now.
    #[must_use]
    pub fn names(&self) -> Arc<Names> {
        self.shared.names.load_full()
    }

    /// What the server is started with.
    #[must_use]
    pub fn config(&self) -> &DnsConfig {
        &self.config
    }

    /// Where it listens and whom it asks.
    #[must_use]
    pub fn state(&self) -> DnsState {
        let state = self.shared.state.lock();
        state.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What was counted, by name.
    #[must_use]
    pub fn counters(&self) -> BTreeMap<String, u64> {
        self.shared.counters.by_name()
    }
}

/// A running server; it ends when dropped.
#[derive(Debug)]
pub struct DnsServer {
    handle: DnsHandle,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl DnsServer {
    /// Starts the thread in the calling thread's network namespace; what can be bound is bound when this returns. The
    /// first question is answered from `saved` already: no name is unknown while a daemon starts that it had before.
    ///
    /// # Errors
    /// [`ControlError::StartDns`].
    pub fn start(config: DnsConfig, saved: Sources) -> Result<Self, ControlError> {
        let start_dns = |source: io::Error| ControlError::StartDns { source };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(start_dns)?;
        let shared = Arc::new(Shared {
            names: ArcSwap::from_pointee(saved.build(&config.domain)),
            state: Mutex::default(),
            counters: Counters::default(),
        });
        let config = Arc::new(config);
        let builder = Builder::new(&config.domain, saved);
        let (updates, waiting) = mpsc::unbounded_channel();
        let (stop, stopped) = oneshot::channel();
        let (ready, is_ready) = std::sync::mpsc::sync_channel(1);
        let (ours, given) = (Arc::clone(&shared), Arc::clone(&config));
        let thread = std::thread::Builder::new()
            .name("weft-dns".to_owned())
            .spawn(move || {
                // An answer costs some fifty microseconds, and whoever asked waits for it.
                if let Err(error) = ask_for_short_slices() {
                    tracing::debug!(%error, "the scheduler gives no short slices");
                }
                runtime.block_on(serve(&given, &ours, (builder, waiting), stopped, ready));
                // Lookups under way are nobody's concern any more.
                runtime.shutdown_background();
            })
            .map_err(start_dns)?;
        // An end of the thread before that is an end of the wait, too.
        let _ = is_ready.recv();
        Ok(Self {
            handle: DnsHandle {
                updates,
                shared,
                config,
            },
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    /// The way to it.
    #[must_use]
    pub fn handle(&self) -> DnsHandle {
        self.handle.clone()
    }
}

impl Drop for DnsServer {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn serve(
    config: &DnsConfig,
    shared: &Arc<Shared>,
    (mut builder, mut updates): (Builder, mpsc::UnboundedReceiver<Update>),
    mut stopped: oneshot::Receiver<()>,
    ready: std::sync::mpsc::SyncSender<()>,
) {
    let upstreams = Arc::new(Upstreams::new(config));
    let handler = Arc::new(Handler::new(
        config,
        Arc::clone(shared),
        Arc::clone(&upstreams),
    ));
    let mut listeners = Listeners::new(config, handler);
    let mut ticks = tokio::time::interval(LOOK_EVERY);
    let mut ready = Some(ready);
    loop {
        tokio::select! {
            _ = &mut stopped => return,
            _ = ticks.tick() => {
                let (listening, trouble) = listeners.look().await;
                let own = listening.iter().map(SocketAddr::ip).collect::<Vec<IpAddr>>();
                let (upstreams, notes) = upstreams.look(&own);
                shared.change_state(|state| *state = DnsState { listening, trouble, upstreams, notes });
                if let Some(ready) = ready.take() {
                    let _ = ready.send(());
                }
            }
            Some(update) = updates.recv() => {
                // All that waits goes into one snapshot.
                builder.take(update);
                while let Ok(update) = updates.try_recv() {
                    builder.take(update);
                }
                builder.start();
            }
            made = builder.made() => {
                match made {
                    Ok(names) => {
                        let before = shared.names.swap(Arc::new(names));
                        // Taking a large one apart takes as long as making it.
                        spawn_blocking(move || drop(before));
                    }
                    Err(error) => tracing::error!(%error, "names not taken up"),
                }
                builder.shown();
            }
        }
    }
}

#[cfg(test)]
mod tests;
