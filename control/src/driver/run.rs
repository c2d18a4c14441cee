//! The loop: feeds the node, carries out what it wants; the only clock of control.
//!
//! ```text
//!  sockets ──────┐                        ┌─► sockets
//!  engine events ├─► Input ─► node ─ Output ─► engine
//!  requests ─────┤                        ├─► store (a task that writes in order)
//!  deadline ─────┘                        └─► answers, log
//! ```
//!
//! Whatever may block runs beside the loop: stretching passwords, the store, DNS, attaching containers.

mod addresses;
mod beside;
mod names;
mod present;
mod requests;

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::os::fd::BorrowedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::Interval;

use crate::api::{ApiError, PingReply};
use crate::config::{BootId, NodeConfig};
use crate::driver::docker_sight::DockerSight;
use crate::driver::engine::EngineHandle;
use crate::driver::log;
use crate::driver::proxy::ProxyHandle;
use crate::driver::request::{Attacher, Reply, Request};
use crate::driver::run::addresses::Addresses;
use crate::driver::run::beside::{Beside, Done};
use crate::driver::run::names::Naming;
use crate::driver::sockets::{NetEvent, Sockets};
use crate::driver::start::{DriverConfig, Loaded, Start, offered};
use crate::driver::store::{self, Store};
use crate::driver::underlay::local_addresses;
use crate::error::ControlError;
use crate::node::Node;
use crate::node::exchange::{
    CloseCause, DialFailure, DialId, Input, LocalAttachment, Output, RequestId,
};
use crate::peer::{PeerId, PeerName};
use crate::random::Randomness;
use crate::secret::{NetworkId, SecretError, Secrets};

/// Engine events taken before the sockets have their turn again.
const EVENTS_PER_TURN_MAX: usize = 256;

/// How often the host's addresses are looked at: a laptop that changes networks is found soon.
const ADDRESSES_PERIOD: Duration = Duration::from_secs(5);

/// How the loop ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// The state stays.
    Stopped,
    /// Identity and store are gone.
    Reset,
}

/// A daemon that is ready to run.
pub struct Driver<E> {
    node: Node,
    engine: Arc<E>,
    attacher: Arc<dyn Attacher>,
    sockets: Sockets,
    net: mpsc::Receiver<NetEvent>,
    store: Arc<Store>,
    data_dir: PathBuf,
    network: NetworkId,
    id: PeerId,
    name: PeerName,
    address: SocketAddr,
    mtu: u16,
    bridge: String,
    answers: BTreeMap<RequestId, Reply<Result<(), ApiError>>>,
    pings: BTreeMap<RequestId, Reply<Result<PingReply, ApiError>>>,
    requests: u64,
    /// Engine events wait that the last turn did not take.
    events_left: bool,
    benching: Option<JoinHandle<()>>,
    /// None without DNS.
    naming: Option<Naming>,
    proxy: Option<ProxyHandle>,
    docker_sight: DockerSight,
    addresses: Addresses,
    /// What is attached to this host, by shown id and MAC.
    attached: BTreeMap<(String, String), LocalAttachment>,
}

/// What a turn of the loop is about.
enum Turn {
    Deadline,
    /// Time to look at the host's addresses.
    Addresses,
    Net(NetEvent),
    Engine,
    Request(Request),
    Done(Done),
    /// Nobody can ask for anything any more.
    Abandoned,
}

#[expect(
    clippy::disallowed_methods,
    reason = "the driver reads the clock for the whole of control"
)]
fn now() -> Instant {
    Instant::now()
}

/// Waits for the engine's events.
#[expect(
    deprecated,
    reason = "its successor is unsafe; a BorrowedFd names one open descriptor for its whole life"
)]
fn listen_to(events: BorrowedFd<'_>) -> io::Result<AsyncFd<BorrowedFd<'_>>> {
    AsyncFd::with_interest(events, Interest::READABLE)
}

async fn stretched(
    stretching: JoinHandle<Result<Secrets, SecretError>>,
) -> Result<Secrets, ControlError> {
    let task = "the stretching of passwords";
    let secrets = stretching.await;
    let secrets = secrets.map_err(|source| ControlError::Task { task, source })?;
    secrets.map_err(|source| ControlError::Secrets { source })
}

impl<E: EngineHandle> Driver<E> {
    /// Takes up identity and store, stretches the passwords, and listens; `attacher` is made once the peer's name
    /// is known. The incarnation is on disk when this returns, and nothing has been sent.
    ///
    /// # Errors
    /// [`ControlError`] names what failed; nothing keeps running then.
    pub async fn new(
        config: DriverConfig,
        engine: Arc<E>,
        attacher: impl FnOnce(PeerName) -> Arc<dyn Attacher>,
    ) -> Result<Self, ControlError> {
        let network = NetworkId::of(&config.network);
        let credentials = config.credentials.clone();
        let stretching = spawn_blocking(move || Secrets::stretch(&credentials, &network));
        let start = Start::of(&config);
        let loaded = spawn_blocking(move || start.load()).await;
        let task = "the reading of the store";
        let loaded: Loaded = loaded.map_err(|source| ControlError::Task { task, source })??;
        let secrets = stretched(stretching).await?;
        let (sockets, net, address) = Sockets::listen(config.host, config.port).await?;
        let mut random = Randomness::system();
        let node_config = NodeConfig {
            network_id: network,
            network: config.network,
            secrets,
            name: config.name,
            nickname: config.nickname,
            port: address.port(),
            workers: u8::try_from(engine.workers()).unwrap_or(1),
            ciphers: offered(&*engine, config.cipher),
            mtu: config.mtu,
            discovery: config.discovery,
            relay: config.relay,
            boot_id: BootId(random.bytes()),
            incarnation: loaded.incarnation,
            targets: loaded.targets.clone(),
            rekey: config.rekey,
        };
        let id = loaded.identity.peer_id();
        let name = config.name.unwrap_or_else(|| id.name());
        let ipam = config
            .addresses
            .map(|given| given.begin(&loaded, name, &mut random, now()));
        let mut node = Node::new(node_config, loaded.identity, random, now());
        if let Some(ipam) = ipam {
            node = node.with_ipam(ipam);
        }
        Ok(Self {
            node,
            engine,
            attacher: attacher(name),
            sockets,
            net,
            store: Arc::new(loaded.store),
            data_dir: config.data_dir,
            network,
            id,
            name,
            address,
            mtu: config.mtu,
            bridge: config.bridge,
            answers: BTreeMap::new(),
            pings: BTreeMap::new(),
            requests: 0,
            events_left: false,
            benching: None,
            naming: None,
            proxy: None,
            docker_sight: DockerSight::default(),
            addresses: Addresses::default(),
            attached: BTreeMap::new(),
        })
    }

    /// The name that `launch` prints.
    #[must_use]
    pub fn name(&self) -> PeerName {
        self.name
    }

    /// What its user is to know of its store.
    #[must_use]
    pub fn notes(&self) -> Vec<String> {
        self.store.notes()
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Runs until told to stop, or until nobody can tell it any more.
    ///
    /// # Errors
    /// [`ControlError`] if the engine cannot be listened to, or the state not be removed by `reset`.
    pub async fn run(
        mut self,
        mut requests: mpsc::Receiver<Request>,
    ) -> Result<Ended, ControlError> {
        let engine = Arc::clone(&self.engine);
        let events =
            listen_to(engine.event_fd()).map_err(|source| ControlError::EngineEvents { source })?;
        let (done, mut finished) = mpsc::unbounded_channel();
        let attacher = Arc::clone(&self.attacher);
        let generation = self.naming.as_ref().map(|naming| naming.desk.generation());
        let generation = generation.unwrap_or_default();
        let beside = Beside::start(Arc::clone(&self.store), attacher, generation, done);
        let mut addresses = tokio::time::interval(ADDRESSES_PERIOD);
        loop {
            self.publish_names(&beside);
            match self
                .next_turn(&mut requests, &mut finished, &events, &mut addresses)
                .await?
            {
                Turn::Addresses => self.look_at_addresses(&beside),
                Turn::Deadline => self.feed(Input::Tick, &beside),
                Turn::Engine => self.take_events(&beside),
                Turn::Net(event) => self.net_event(event, &beside),
                Turn::Done(done) => self.work_done(done, &beside),
                Turn::Request(Request::Stop(reply)) => {
                    self.leave(beside).await;
                    let _ = reply.send(());
                    return Ok(Ended::Stopped);
                }
                Turn::Request(Request::Reset(reply)) => return self.reset(beside, reply).await,
                Turn::Request(request) => self.request(request, &beside),
                Turn::Abandoned => {
                    self.leave(beside).await;
                    return Ok(Ended::Stopped);
                }
            }
        }
    }

    async fn next_turn(
        &mut self,
        requests: &mut mpsc::Receiver<Request>,
        finished: &mut mpsc::UnboundedReceiver<Done>,
        events: &AsyncFd<BorrowedFd<'_>>,
        addresses: &mut Interval,
    ) -> Result<Turn, ControlError> {
        let deadline = self.node.deadline();
        let due = async {
            match deadline {
                Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
                None => std::future::pending().await,
            }
        };
        // Branches that are ready have their turn at random, so none starves.
        Ok(tokio::select! {
            () = due => Turn::Deadline,
            _ = addresses.tick() => Turn::Addresses,
            Some(event) = self.net.recv() => Turn::Net(event),
            Some(done) = finished.recv() => Turn::Done(done),
            () = std::future::ready(()), if self.events_left => Turn::Engine,
            ready = events.readable() => {
                // Cleared before the events are taken: one that comes meanwhile is a new edge.
                ready.map_err(|source| ControlError::EngineEvents { source })?.clear_ready();
                Turn::Engine
            }
            request = requests.recv() => request.map_or(Turn::Abandoned, Turn::Request),
        })
    }

    /// Feeds one input and carries out what comes of it.
    fn feed(&mut self, input: Input, beside: &Beside) {
        let mut inputs = VecDeque::from([input]);
        while let Some(input) = inputs.pop_front() {
            self.node.handle(input, now());
            while let Some(output) = self.node.poll_output() {
                inputs.extend(self.carry_out(output, beside));
            }
        }
    }

    /// Does one thing; says what went wrong at once.
    fn carry_out(&mut self, output: Output, beside: &Beside) -> Option<Input> {
        match output {
            Output::Dial { dial, address } => self.sockets.dial(dial, address),
            Output::Send { link, data } => {
                if !self.sockets.send(link, data) {
                    return Some(Input::LinkClosed {
                        link,
                        cause: CloseCause::QueueFull,
                    });
                }
            }
            Output::Close { link } => self.sockets.close(link),
            Output::Engine(command) => self.engine.command(command),
            Output::Persist { token, record } => {
                if beside.writes.try_send((token, record)).is_err() {
                    return Some(Input::Persisted {
                        token,
                        durable: false,
                    });
                }
            }
            Output::Answer { request, result } => {
                if let Some(reply) = self.answers.remove(&request) {
                    let _ = reply.send(result);
                }
            }
            Output::Pong { request, result } => {
                if let Some(reply) = self.pings.remove(&request) {
                    let _ = reply.send(result);
                }
            }
            Output::CountTraffic => return Some(Input::Traffic(self.engine.traffic())),
            Output::Names { origin, entries } => {
                if let Some(naming) = &self.naming {
                    naming.desk.dns().set(origin, entries);
                }
            }
            Output::Ipam(output) => self.carry_out_for_addresses(output, beside),
            Output::Notice(notice) => log::write(&notice),
        }
        None
    }

    /// Tells the node where the host is; what is the same as before changes nothing.
    fn look_at_addresses(&mut self, beside: &Beside) {
        let ip = self.address.ip();
        let addresses = if ip.is_unspecified() {
            local_addresses(&self.bridge)
        } else {
            vec![ip]
        };
        self.feed(Input::LocalAddresses(addresses), beside);
    }

    fn take_events(&mut self, beside: &Beside) {
        for _ in 0..EVENTS_PER_TURN_MAX {
            let Some(event) = self.engine.poll_event() else {
                self.events_left = false;
                return;
            };
            self.feed(Input::Engine(event), beside);
        }
        self.events_left = true;
    }

    fn net_event(&mut self, event: NetEvent, beside: &Beside) {
        let input = match event {
            NetEvent::Accepted(stream, remote) => self.opened(stream, None, remote.to_string()),
            NetEvent::Dialled(dial, stream) => {
                self.opened(stream, Some(dial), String::new())
                    .or(Some(Input::DialFailed {
                        dial,
                        failure: DialFailure::Unreachable,
                    }))
            }
            NetEvent::DialFailed(dial, failure) => Some(Input::DialFailed { dial, failure }),
            NetEvent::Data(link, data) => Some(Input::LinkData { link, data }),
            NetEvent::Closed(link, cause) => {
                self.sockets.forget(link);
                Some(Input::LinkClosed { link, cause })
            }
        };
        if let Some(input) = input {
            self.feed(input, beside);
        }
    }

    fn opened(&mut self, stream: TcpStream, dial: Option<DialId>, remote: String) -> Option<Input> {
        match self.sockets.attach(stream) {
            Ok((link, remote, local)) => Some(Input::LinkOpened {
                link,
                dial,
                remote,
                local,
            }),
            Err(error) => {
                tracing::debug!(%error, remote, "connection was gone at once");
                None
            }
        }
    }

    fn work_done(&mut self, done: Done, beside: &Beside) {
        match done {
            Done::Persisted(token, durable) => {
                self.feed(Input::Persisted { token, durable }, beside)
            }
            Done::Attached(changed, reply) => self.attached(changed, reply, beside),
            Done::Detached(changed, reply) => self.detached(changed, reply, beside),
            Done::Adopted(now, reply) => self.adopted(now, reply, beside),
            Done::Described(change, request, described, reply) => {
                self.change_names(change, &request, Some(&described), reply);
            }
            Done::Present(list, generation) => self.present(list, generation, beside),
            Done::AddressesWritten(token, trouble) => {
                self.addresses_written(token, trouble, beside);
            }
            Done::AddressesRead(content) => self.addresses_read(content, beside),
            Done::Stretched(Ok(secrets), reply) => {
                tracing::info!(membership = secrets.membership().word(), "secrets reloaded");
                self.feed(Input::Reload(secrets), beside);
                let _ = reply.send(Ok(()));
            }
            Done::Stretched(Err(error), reply) => {
                let error = error.to_string();
                let _ = reply.send(Err(ApiError { error }));
            }
        }
    }

    /// Says goodbye, and waits for it to be sent and for writes to be done.
    async fn leave(&mut self, beside: Beside) {
        self.feed(Input::Stop, &beside);
        if let Some(task) = self.benching.take() {
            task.abort();
        }
        self.sockets.finish().await;
        self.finish_naming().await;
        let Beside {
            writes,
            addresses,
            done,
            writer,
            lister,
            listing,
            address_writer,
        } = beside;
        listing.abort();
        drop((writes, addresses, done, lister));
        // The writers end when nobody can give them anything any more and all is durable.
        for writer in [writer, address_writer] {
            if let Err(error) = writer.await {
                tracing::error!(%error, "the store's writer was cut off");
            }
        }
    }

    async fn reset(
        mut self,
        beside: Beside,
        reply: Reply<Result<(), ApiError>>,
    ) -> Result<Ended, ControlError> {
        self.forget_containers().await;
        self.leave(beside).await;
        let data_dir = self.data_dir.clone();
        drop(self);
        let removed = spawn_blocking(move || store::remove(&data_dir)).await;
        let removed = removed.map_err(|source| ControlError::Task {
            task: "the removal of state",
            source,
        })?;
        let answer = match &removed {
            Ok(()) => Ok(()),
            Err(error) => Err(ApiError {
                error: error.to_string(),
            }),
        };
        let _ = reply.send(answer);
        removed.map(|()| Ended::Reset)
    }
}

#[cfg(test)]
mod tests;
