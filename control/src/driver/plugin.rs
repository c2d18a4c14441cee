//! Serves Docker's network plugin: two sockets where Docker looks for them, and the network `weft` in Docker.
//!
//! ```text
//!  dockerd ── /run/docker/plugins/weft.sock, weftmesh.sock ──► plugin::read ──► Call ──► addresses, pairs
//!          ◄── JSON, at once or within 10 s ──────────────────────────────── Answer ◄──┘
//! ```
//!
//! No call asks Docker anything, since Docker waits for the answer with locks held. The sockets are there only while
//! somebody answers at them: Docker waits long for one that is there and dead, and for one that its networks need; for
//! those somebody stands in when weft has ended.

mod endpoints;
mod left_out;
mod network;
mod networks;
mod places;
mod stand_in;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path as UrlPath, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use ipnet::{IpNet, Ipv4Net};
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, spawn_blocking};

pub use self::network::{DEFAULT_NETWORK, NetworkUsers, networks_in_use};
pub(super) use self::network::{Verdict, judge};
use self::networks::Networks;
use self::places::Places;
pub use self::stand_in::stand_in;
use super::address::AddressArgument;
use super::api::{Manners, OwnedSocket, SocketError, serve_at};
use super::attach_service::HostAttacher;
use super::attach_service::endpoints::docker_holder;
use super::complaint::in_one_line;
use super::docker::Docker;
use super::request::Request;
use crate::ipam::request::Failure;
use crate::plugin::{Call, CallError, DRIVERS, Pool, Scope, address_answer, pool_answer, read};
use crate::random::Randomness;

/// Where Docker looks for the sockets of plugins.
pub const PLUGIN_DIR: &str = "/run/docker/plugins";
/// What Docker calls the form of the answers.
const CONTENT_TYPE: HeaderValue =
    HeaderValue::from_static("application/vnd.docker.plugins.v1.2+json");
/// Addresses whose holders are known: a bridge of Linux takes 1024 interfaces, and what Docker does not take is freed
/// soon.
const GIVEN_MAX: usize = 4096;
/// Calls of Docker at once, a connection each, beside which one more would fail a container's start: as many as a bridge
/// takes interfaces.
const MANNERS: Manners = Manners {
    // Docker's client does not take it well when an idle connection is closed under a call.
    keeps: false,
    connections_max: 1024,
};
/// How long `launch` waits for the network `weft`: Docker makes it in some 50 ms. One that is busy with something else
/// gets it later; `launch` promises to be ready in two seconds.
const NETWORK_TIMEOUT: Duration = Duration::from_millis(1500);
/// How long the end of the daemon waits for Docker to remove it: a signal must end the daemon within two seconds.
const FAREWELL_TIMEOUT: Duration = Duration::from_secs(1);

/// How long Docker is waited for to say which networks it has: that takes milliseconds, and a Docker that starts waits for
/// us.
const IDS_TIMEOUT: Duration = Duration::from_millis(300);

/// Why there is no plugin.
#[derive(Debug, thiserror::Error)]
pub enum PluginError {
    /// The folder for the sockets.
    #[error("make {}", path.display())]
    Folder {
        /// Which.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A socket.
    #[error(transparent)]
    Socket(#[from] SocketError),
}

/// What the plugin is started with.
#[derive(Debug, Clone)]
pub struct PluginConfig {
    /// Folder for the sockets.
    pub dir: PathBuf,
    /// Where what must survive is kept.
    pub data_dir: PathBuf,
    /// The subnet of the network `weft`, and of those that name none; `None`: addresses are not given.
    pub default_subnet: Option<Ipv4Net>,
    /// Where addresses come from.
    pub range: Option<Ipv4Net>,
}

/// The running plugin.
#[derive(Debug)]
pub struct Plugin {
    docker: Docker,
    networks: Arc<Networks>,
    subnet: Option<Ipv4Net>,
    stop: watch::Sender<bool>,
    serving: Vec<JoinHandle<()>>,
}

struct Desk {
    scope: Scope,
    shared: Arc<Shared>,
}

struct Shared {
    config: PluginConfig,
    attacher: HostAttacher,
    requests: mpsc::Sender<Request>,
    networks: Arc<Networks>,
    /// Who has the addresses that were given in this run.
    given: Mutex<BTreeMap<IpAddr, String>>,
    places: Places,
}

impl Plugin {
    /// Binds the sockets and answers at them; then has Docker make the network `weft`, if Docker is there.
    ///
    /// # Errors
    /// [`PluginError`] if the sockets cannot be had.
    pub async fn start(
        config: PluginConfig,
        attacher: HostAttacher,
        requests: mpsc::Sender<Request>,
        docker: Docker,
    ) -> Result<Self, PluginError> {
        make_folder(&config.dir)?;
        let mut sockets = Vec::new();
        for (driver, scope) in DRIVERS {
            sockets.push((stand_in::bind(&config.dir, driver).await?, scope));
        }
        // Once nobody else changes what is noted of them, and before Docker has more of them.
        let networks = Networks::load(&config.data_dir);
        forget_gone(&networks, &docker).await;
        let shared = Arc::new(Shared {
            networks: Arc::new(networks),
            attacher,
            requests,
            given: Mutex::default(),
            places: Places::default(),
            config,
        });
        let (stop, stopped) = watch::channel(false);
        let serving = serve(sockets, &stopped, |scope| {
            let shared = Arc::clone(&shared);
            let desk = Arc::new(Desk { scope, shared });
            Router::new()
                .route("/{method}", post(answer))
                .with_state(desk)
        });
        let plugin = Self {
            subnet: shared.config.default_subnet,
            networks: Arc::clone(&shared.networks),
            docker,
            stop,
            serving,
        };
        plugin.make_network().await;
        Ok(plugin)
    }

    async fn make_network(&self) {
        let Some(subnet) = self.subnet else { return };
        let making = network::ensure(&self.docker, subnet);
        // Whoever follows Docker tries again, and says why it is refused.
        if tokio::time::timeout(NETWORK_TIMEOUT, making).await.is_err() {
            tracing::warn!("Docker does not answer: the network {DEFAULT_NETWORK} may be missing");
        }
    }

    /// Removes the network `weft` if nobody uses it, then the sockets: a Docker that starts while weft is down must
    /// not wait for them.
    pub async fn stop(self) {
        if self.subnet.is_some() {
            let removing = network::remove(&self.docker);
            let _ = tokio::time::timeout(FAREWELL_TIMEOUT, removing).await;
        }
        forget_gone(&self.networks, &self.docker).await;
        self.stop.send_replace(true);
        for task in self.serving {
            let _ = task.await;
        }
    }
}

/// Has Docker make the network `weft`, unless it is there; says why Docker does not.
pub(super) async fn ensure_network(docker: &Docker, subnet: Ipv4Net) -> Option<String> {
    network::ensure(docker, subnet).await
}

/// Forgets networks that went while nobody was told: of a Docker that was set up anew.
async fn forget_gone(networks: &Networks, docker: &Docker) {
    if networks.is_empty() {
        return;
    }
    let present = tokio::time::timeout(IDS_TIMEOUT, network::ids(docker)).await;
    if let Ok(Some(present)) = present
        && let Err(error) = networks.keep(&present)
    {
        tracing::warn!(%error, "networks that Docker has no more are remembered");
    }
}

/// Starts containers that Docker was to start while no plugin answered.
pub(super) async fn start_left_out(docker: Docker) {
    left_out::start(&docker).await;
}

/// What is kept of Docker's networks, in `data_dir`.
pub const NETWORKS_FILE: &str = networks::FILE;

/// Forgets what was kept of Docker's networks, for `reset`; what Docker still has is kept for who stands in for us.
///
/// # Errors
/// If the file is there and stays.
pub fn forget_networks(data_dir: &Path) -> io::Result<()> {
    networks::remove_unused(data_dir)
}

/// Answers at all sockets until it is to stop.
fn serve(
    sockets: Vec<(OwnedSocket, Scope)>,
    stopped: &watch::Receiver<bool>,
    router: impl Fn(Scope) -> Router,
) -> Vec<JoinHandle<()>> {
    let sockets = sockets.into_iter();
    let serving = sockets.map(|(socket, scope)| {
        let mut stopped = stopped.clone();
        let stop = async move {
            let _ = stopped.wait_for(|stopped| *stopped).await;
        };
        tokio::spawn(serve_at(socket, router(scope), MANNERS, stop))
    });
    serving.collect()
}

async fn answer(
    State(desk): State<Arc<Desk>>,
    UrlPath(method): UrlPath<String>,
    body: Bytes,
) -> Response {
    let answered = match read(desk.scope, &method, &body) {
        Ok(call) => desk.shared.carry_out(call).await,
        Err(error) => Err(error),
    };
    match &answered {
        Ok(said) => tracing::debug!(method, %said, "Docker asks"),
        Err(error) => tracing::warn!(method, %error, "Docker is refused"),
    }
    response(answered)
}

fn response(answered: Result<Value, CallError>) -> Response {
    let (status, said) = match answered {
        Ok(said) => (StatusCode::OK, said),
        Err(error) => {
            let status = StatusCode::from_u16(error.status());
            let status = status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            (status, error.body())
        }
    };
    let kind = [(header::CONTENT_TYPE, CONTENT_TYPE)];
    (status, kind, said.to_string()).into_response()
}

fn make_folder(path: &Path) -> Result<(), PluginError> {
    fs::create_dir_all(path).map_err(|source| PluginError::Folder {
        path: path.to_owned(),
        source,
    })
}

impl Shared {
    fn given(&self) -> MutexGuard<'_, BTreeMap<IpAddr, String>> {
        // Nothing in here panics half way.
        self.given.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn carry_out(self: &Arc<Self>, call: Call) -> Result<Value, CallError> {
        match call {
            Call::Fixed(said) => Ok(said),
            Call::CreateNetwork {
                network,
                multicast,
                unknown,
            } => {
                if !unknown.is_empty() {
                    tracing::warn!(network, ?unknown, "options without a meaning");
                }
                let shared = Arc::clone(self);
                let writing = move || shared.networks.add(&network, multicast);
                match spawn_blocking(writing).await {
                    Ok(Ok(())) => Ok(json!({})),
                    Ok(Err(error)) => Err(CallError::Refused(in_one_line(&error).error)),
                    Err(error) => Err(CallError::Refused(error.to_string())),
                }
            }
            Call::DeleteNetwork { network } => {
                let shared = Arc::clone(self);
                let writing = move || shared.networks.remove(&network);
                if let Ok(Err(error)) = spawn_blocking(writing).await {
                    tracing::warn!(%error, "a network that is gone is still noted");
                }
                Ok(json!({}))
            }
            Call::CreateEndpoint {
                endpoint,
                address,
                mac,
            } => self.create_endpoint(endpoint, address, mac).await,
            Call::DeleteEndpoint { endpoint } => self.delete_endpoint(&endpoint).await,
            Call::Join {
                network,
                endpoint,
                sandbox,
            } => self.join(&network, &endpoint, &sandbox).await,
            Call::RequestPool { chosen } => self.request_pool(chosen),
            Call::RequestGateway { pool } => Ok(address_answer(pool.no_gateway().into())),
            Call::RequestAddress { pool, address } => self.request_address(pool, address).await,
            Call::ReleaseAddress { pool, address } => {
                self.release_address(pool, address).await;
                Ok(json!({}))
            }
        }
    }

    /// Refuses at once what no address could be given of.
    fn request_pool(&self, chosen: Option<Pool>) -> Result<Value, CallError> {
        let (Some(default), Some(range)) = (self.config.default_subnet, self.config.range) else {
            let why = "allocation is off on this host (--ipalloc-range ''): \
                       choose another --ipam-driver";
            return Err(CallError::Refused(why.to_owned()));
        };
        let pool = chosen.unwrap_or_else(|| Pool::of(default));
        if !range.contains(&pool.range()) {
            let subnet = pool.range();
            let why = Failure::OutOfBounds { subnet, range };
            return Err(CallError::Refused(why.to_string()));
        }
        Ok(pool_answer(pool))
    }

    async fn request_address(
        &self,
        pool: Pool,
        address: Option<Ipv4Addr>,
    ) -> Result<Value, CallError> {
        self.make_room().await?;
        let mark: [u8; 8] = Randomness::system().bytes();
        let holder = docker_holder(&hex(&mark));
        let wanted = match address {
            Some(address) => AddressArgument::explicit(in_subnet(address, pool))
                .map_err(|error| CallError::Refused(error.to_string()))?,
            None => AddressArgument::Subnet(pool.range().into()),
        };
        let forgotten = |address| !self.given().contains_key(&address);
        let got = self.attacher.give(&holder, wanted, forgotten).await;
        let got = got.map_err(|error| CallError::Refused(error.error))?;
        let mut others = Vec::new();
        let mut chosen = None;
        for address in got {
            match address {
                IpNet::V4(address) if chosen.is_none() => chosen = Some(address.addr()),
                // Docker asked for one, of IPv4.
                IpNet::V4(_) | IpNet::V6(_) => others.push(address),
            }
        }
        if !others.is_empty() {
            self.attacher.take_back(&holder, &others).await;
        }
        let Some(address) = chosen else {
            let why = format!("no address in {}", pool.range());
            return Err(CallError::Refused(why));
        };
        self.given().insert(address.into(), holder);
        Ok(address_answer(in_subnet(address, pool)))
    }

    /// Frees an address, unless it is the network's gateway, which nobody was given: in another network the same
    /// address may be a container's.
    async fn release_address(&self, pool: Pool, address: Ipv4Addr) {
        if address == pool.no_gateway().addr() {
            return;
        }
        let address = IpAddr::from(address);
        // One of an earlier run whose pair was gone before is freed as those of dead containers.
        let Some(holder) = self.given().get(&address).cloned() else {
            return;
        };
        match self.attacher.is_on_an_interface(&holder).await {
            Ok(false) => {}
            Ok(true) => {
                tracing::warn!(%address, holder, "Docker releases what an interface has: kept");
                return;
            }
            Err(error) => {
                tracing::warn!(%address, holder, %error, "cannot see whether it is in use: kept");
                return;
            }
        }
        self.forget(address, &holder);
        let addresses = self.attacher.addresses_of(&holder).await;
        self.attacher.take_back(&holder, &addresses).await;
    }

    /// Forgets who was given what and has it no more, once much is known: Docker releases nothing of what it forgot
    /// in a crash.
    async fn make_room(&self) -> Result<(), CallError> {
        if self.given().len() < GIVEN_MAX {
            return Ok(());
        }
        let known = self.given().clone();
        for (address, holder) in known {
            if !self.has(&holder, address).await {
                self.forget(address, &holder);
            }
        }
        if self.given().len() < GIVEN_MAX {
            return Ok(());
        }
        let why = format!("Docker has {GIVEN_MAX} addresses here, and gets no more");
        Err(CallError::Refused(why))
    }

    async fn has(&self, holder: &str, address: IpAddr) -> bool {
        let addresses = self.attacher.addresses_of(holder).await;
        addresses.iter().any(|had| had.addr() == address)
    }

    /// Forgets a holder of an address, unless that is another's by now.
    fn forget(&self, address: IpAddr, holder: &str) {
        let mut given = self.given();
        if given.get(&address).is_some_and(|known| known == holder) {
            given.remove(&address);
        }
    }
}

/// An address as it stands on an interface of the network.
fn in_subnet(address: Ipv4Addr, pool: Pool) -> IpNet {
    let length = pool.subnet().prefix_len();
    // The length is that of a subnet, so it is right.
    Ipv4Net::new(address, length).map_or_else(|_| IpNet::from(IpAddr::from(address)), IpNet::from)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests;
