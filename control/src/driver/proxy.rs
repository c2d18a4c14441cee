//! The Docker API proxy of this host: a thread of its own between clients and Docker's socket.
//!
//! ```text
//!  docker ── <run-dir>/docker.sock ──► relay ──► /var/run/docker.sock
//!         └─ tcp, with certificates ────►┤
//!                                        │ started
//!                                        ▼
//!                                      starts ◄── life: what Docker says of containers
//!                                        │ Request::Attach
//!                                        ▼
//!                                      driver loop
//! ```
//!
//! What is done to a request is decided in [`crate::proxy`]. Docker need not be there: clients are told so, and it is
//! taken up when it comes. Whoever may use Docker's socket may use this one: owner and mode are copied.

mod calls;
mod kept;
mod listen;
mod relay;
mod seats;
mod splice;
mod starts;
mod stream;
mod wait_program;

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use ipnet::Ipv4Net;
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use self::calls::Calls;
pub use self::listen::{BadAddress, ListenAddress, ListenError, TlsError, TlsFiles};
use self::listen::{Incoming, Listener};
use self::seats::Seats;
use self::starts::{AttachRules, Starts};
use self::stream::{Reader, Side, Writer};
use self::wait_program::WaitProgram;
use super::docker::Docker;
use super::request::Request;
use crate::api::ProxyStatus;
use crate::proxy::create::CreateRules;
use crate::proxy::head::error_answer;
use crate::proxy::naming::Naming;

/// Most clients at once, each with two sockets, of which a raw stream holds one twice. `docker run` needs three.
const CONNECTIONS_MAX: usize = 1024;
/// Most clients at once that are told so; one more is hung up on.
const REFUSALS_MAX: usize = 64;
/// Pause after a failed accept: the process is out of files, and another try at once would fail too.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Most clients over TCP that have not shown their certificate yet; one more is hung up on.
const HANDSHAKES_MAX: usize = 64;
/// How long they have for it.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Folders of the wait program, below `data_dir`.
const WAIT_FOLDERS: [&str; 2] = ["wait/route", "wait/no-route"];

/// What the proxy is started with.
#[derive(Debug, Clone)]
pub struct ProxyConfig {
    /// Where clients come in; `weft env` shows the first.
    pub listen: Vec<ListenAddress>,
    /// What clients over TCP are checked by; without it there are none.
    pub tls: Option<TlsFiles>,
    /// Where the wait program is kept: containers mount it from there after a reboot, too.
    pub data_dir: PathBuf,
    /// The wait program itself.
    pub wait_program: &'static [u8],
    /// Whose API it is.
    pub docker: Docker,
    /// Where addresses come from, if they are given.
    pub range: Option<Ipv4Net>,
    /// Whether a container without `WEAVE_CIDR` gets an address.
    pub default_ipalloc: bool,
    /// Whether containers get a route for multicast.
    pub multicast_route: bool,
    /// Names and DNS for containers; `None` leaves them alone.
    pub naming: Option<Naming>,
    /// Whether a container's `/etc/hosts` names its address here.
    pub rewrite_hosts: bool,
    /// Whether a container that is inspected shows its address here in place of Docker's.
    pub rewrite_inspect: bool,
}

/// Why the proxy did not start.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    /// An address.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// Certificates.
    #[error("TLS for the Docker proxy")]
    Tls(#[from] TlsError),
    /// A port for everybody.
    #[error(
        "the Docker proxy listens at {0} for clients with a certificate only: give --tlsverify"
    )]
    NoTls(ListenAddress),
    /// Its folder has a name that Docker's binds cannot hold.
    #[error(
        "--data-dir {0:?} has a colon or is no text, which Docker cannot mount: choose another"
    )]
    BadFolder(PathBuf),
    /// It would be its own Docker.
    #[error("--docker-host is the proxy's own socket {0:?}: give Docker's")]
    Loop(PathBuf),
    /// The system refused.
    #[error("{action} for the Docker proxy")]
    System {
        /// What was tried.
        action: &'static str,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// The way to a running proxy.
#[derive(Debug, Clone)]
pub struct ProxyHandle(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    status: Mutex<ProxyStatus>,
    /// Docker's own socket, and those of ours that are files.
    docker: PathBuf,
    sockets: Vec<PathBuf>,
    /// What was last said of their owner and mode.
    said: Mutex<Option<String>>,
    program: Arc<WaitProgram>,
    starts: Starts,
    seats: Arc<Seats>,
}

impl ProxyHandle {
    /// Where it listens, and whether Docker is there.
    #[must_use]
    pub fn status(&self) -> ProxyStatus {
        let mut status = self.lock().clone();
        status.refused = self.0.seats.refused();
        status
    }

    fn lock(&self) -> MutexGuard<'_, ProxyStatus> {
        // Nothing in here panics half way.
        let status = &self.0.status;
        status.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is to be noted of the containers.
    #[must_use]
    pub fn note(&self) -> Option<String> {
        self.0.starts.note()
    }

    /// Docker answers, or why not. When it does, its socket's owner and mode become ours.
    pub(super) fn docker_is_there(&self, there: Result<(), String>) {
        let is_there = there.is_ok();
        self.lock().trouble = there.err();
        if !is_there {
            return;
        }
        if let Err(error) = self.0.program.ensure() {
            tracing::warn!(%error, "the wait program is not written; it is tried again");
        }
        let sockets = self.0.sockets.iter();
        let copied = sockets.map(|socket| copy_access(&self.0.docker, socket, own));
        // All are tried.
        let failed: Vec<_> = copied.filter_map(Result::err).collect();
        if let Some(error) = news(&self.0.said, failed.first().map(ToString::to_string)) {
            tracing::warn!(
                error,
                "Docker's owner and mode are not those of the proxy's socket"
            );
        }
    }

    /// There is news of a container: it is attached if it is to be.
    pub(super) async fn noticed(&self, container: &str) {
        self.0.starts.noticed(container).await;
    }

    /// A container has ended.
    pub(super) fn ended(&self, container: &str) {
        self.0.starts.ended(container);
    }

    /// Those of the containers that run which were not noticed yet.
    pub(super) fn unknown(&self, running: &BTreeSet<String>) -> Vec<String> {
        self.0.starts.compare(running)
    }
}

/// A running proxy; it ends when dropped.
#[derive(Debug)]
pub struct ProxyServer {
    handle: ProxyHandle,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl ProxyServer {
    /// Binds the socket and starts the thread; containers are attached by way of `requests`.
    ///
    /// # Errors
    /// [`ProxyError`]; nothing keeps running then.
    pub fn start(config: ProxyConfig, requests: mpsc::Sender<Request>) -> Result<Self, ProxyError> {
        check_addresses(&config)?;
        let tls = config.tls.as_ref().map(listen::acceptor).transpose()?;
        let system = |action| move |source| ProxyError::System { action, source };
        let program = WaitProgram::new(&config.data_dir, config.wait_program);
        let program = Arc::new(program);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(system("start an event loop"))?;
        let listeners = {
            let _inside = runtime.enter();
            let listeners = config.listen.iter().map(Listener::bind);
            listeners.collect::<Result<Vec<_>, _>>()?
        };
        let (rules, attach_rules) = rules(&config)?;
        let status = ProxyStatus {
            addresses: config.listen.iter().map(ToString::to_string).collect(),
            docker: config.docker.host().to_owned(),
            ..ProxyStatus::default()
        };
        let seats = Arc::new(Seats::new(CONNECTIONS_MAX));
        let starts = Starts::new(config.docker.clone(), requests, attach_rules);
        let sockets = config.listen.iter().filter_map(ListenAddress::path);
        let handle = ProxyHandle(Arc::new(Shared {
            status: Mutex::new(status),
            docker: config.docker.socket().to_owned(),
            sockets: sockets.map(Path::to_owned).collect(),
            said: Mutex::default(),
            program: Arc::clone(&program),
            starts: starts.clone(),
            seats: Arc::clone(&seats),
        }));
        let calls = Calls::new(
            config.docker,
            rules,
            starts,
            program,
            config.rewrite_inspect,
        );
        let door = Door::new(calls, tls, seats);
        let (stop, stopped) = oneshot::channel::<()>();
        let thread = std::thread::Builder::new()
            .name("weft-proxy".to_owned())
            .spawn(move || {
                runtime.block_on(async {
                    let mut serving = JoinSet::new();
                    for listener in listeners {
                        serving.spawn(door.clone().serve(listener));
                    }
                    // Dropped is told, too.
                    let _ = stopped.await;
                    // The sockets go with those who listened.
                    serving.shutdown().await;
                });
                // Clients in the middle of something are cut off, as when Docker ends.
                runtime.shutdown_background();
            })
            .map_err(system("start a thread"))?;
        Ok(Self {
            handle,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    /// The way to it.
    #[must_use]
    pub fn handle(&self) -> ProxyHandle {
        self.handle.clone()
    }
}

impl Drop for ProxyServer {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Refuses what nobody may listen at.
fn check_addresses(config: &ProxyConfig) -> Result<(), ProxyError> {
    for address in &config.listen {
        if address.is_at(config.docker.socket()) {
            return Err(ProxyError::Loop(config.docker.socket().to_owned()));
        }
        if address.path().is_none() && config.tls.is_none() {
            return Err(ProxyError::NoTls(address.clone()));
        }
    }
    Ok(())
}

/// What the proxy does with containers.
fn rules(config: &ProxyConfig) -> Result<(CreateRules, AttachRules), ProxyError> {
    let folders = WAIT_FOLDERS.map(|folder| folder_text(&config.data_dir.join(folder)));
    let [with_route, without] = folders;
    let (with_route, without) = (with_route?, without?);
    let rules = CreateRules {
        default_ipalloc: config.default_ipalloc,
        folder: if config.multicast_route {
            with_route.clone()
        } else {
            without.clone()
        },
        naming: config.naming.clone(),
    };
    let attach_rules = AttachRules {
        without_dns: config.naming.is_none(),
        rewrite_hosts: config.rewrite_hosts,
        folders: [with_route, without],
        range: config.range,
    };
    Ok((rules, attach_rules))
}

fn folder_text(folder: &Path) -> Result<String, ProxyError> {
    match folder.to_str() {
        Some(text) if !text.contains(':') => Ok(text.to_owned()),
        Some(_) | None => Err(ProxyError::BadFolder(folder.to_owned())),
    }
}

/// What lets clients in.
#[derive(Clone)]
struct Door {
    calls: Arc<Calls>,
    tls: Option<TlsAcceptor>,
    seats: Arc<Seats>,
    handshakes: Arc<Semaphore>,
    refusals: Arc<Semaphore>,
}

impl Door {
    fn new(calls: Calls, tls: Option<TlsAcceptor>, seats: Arc<Seats>) -> Self {
        Self {
            calls: Arc::new(calls),
            tls,
            seats,
            handshakes: Arc::new(Semaphore::new(HANDSHAKES_MAX)),
            refusals: Arc::new(Semaphore::new(REFUSALS_MAX)),
        }
    }

    async fn serve(self, listener: Listener) {
        loop {
            match listener.accept().await {
                Ok(Incoming::Unix(stream)) => {
                    let door = self.clone();
                    tokio::spawn(async move { door.receive(listen::local_side(stream)).await });
                }
                Ok(Incoming::Tcp(stream)) => self.let_in(stream),
                Err(error) => {
                    tracing::warn!(%error, "client of the Docker proxy not accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// Serves a client if there is a seat, and says so if there is none.
    async fn receive<R: Reader, W: Writer>(&self, mut client: Side<R, W>) {
        let Some(seat) = self.seats.enter().await else {
            tracing::warn!(
                limit = CONNECTIONS_MAX,
                "too many clients of the Docker proxy, refused one"
            );
            if let Ok(_turn) = self.refusals.try_acquire() {
                let why = format!(
                    "weft's proxy has {CONNECTIONS_MAX} clients, all of whom it serves: try again"
                );
                relay::refuse(&mut client, &error_answer(503, &why)).await;
            }
            return;
        };
        relay::converse(client, &self.calls, &self.seats).await;
        drop(seat);
    }

    /// Serves somebody whose certificate is good; others take no seat from anybody but their like.
    fn let_in(&self, stream: TcpStream) {
        let Some(acceptor) = self.tls.clone() else {
            return;
        };
        let Ok(turn) = Arc::clone(&self.handshakes).try_acquire_owned() else {
            tracing::warn!(
                limit = HANDSHAKES_MAX,
                "too many clients of the Docker proxy who have shown no certificate, hung up on one"
            );
            return;
        };
        let door = self.clone();
        tokio::spawn(async move {
            let asked = listen::tls_side(stream, &acceptor);
            let side = match timeout(HANDSHAKE_TIMEOUT, asked).await {
                Ok(Ok(side)) => side,
                Ok(Err(error)) => {
                    tracing::debug!(%error, "a client of the Docker proxy is refused");
                    return;
                }
                Err(_) => return,
            };
            drop(turn);
            door.receive(side).await;
        });
    }
}

/// What there is to say now, unless it has been said.
fn news(said: &Mutex<Option<String>>, now: Option<String>) -> Option<String> {
    let mut said = said.lock().unwrap_or_else(PoisonError::into_inner);
    let before = std::mem::replace(&mut *said, now.clone());
    now.filter(|now| before.as_ref() != Some(now))
}

fn own(path: &Path, user: u32, group: u32) -> io::Result<()> {
    chown(path, Some(user), Some(group))
}

/// Copies owner and mode, the mode even if the owner is refused.
fn copy_access(
    from: &Path,
    to: &Path,
    own: impl FnOnce(&Path, u32, u32) -> io::Result<()>,
) -> io::Result<()> {
    let (wanted, is) = (fs::metadata(from)?, fs::metadata(to)?);
    let who = |file: &fs::Metadata| (file.uid(), file.gid());
    let owned = if who(&wanted) == who(&is) {
        Ok(())
    } else {
        own(to, wanted.uid(), wanted.gid())
    };
    let mode = wanted.permissions().mode() & 0o777;
    if is.permissions().mode() & 0o777 != mode {
        fs::set_permissions(to, fs::Permissions::from_mode(mode))?;
    }
    owned
}

#[cfg(test)]
mod tests;
