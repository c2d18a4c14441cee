//! Asks the host's name servers what we do not know.
//!
//! ```text
//!  question ─► place ─► under way already? ─► wait for that one
//!                            │ no
//!                            └► servers, in their order ─► answer │ nothing │ failure, in time
//! ```
//!
//! One question is asked once at a time, whoever asks it: should an upstream ask us what we ask it, the loop ends at
//! its second turn. When too many wait (an upstream is silent), `dns::waits` says who makes room.
//! Bounds: `config::DNS_FORWARDS_MAX`, `config::DNS_FORWARD_TIMEOUT`, `config::DNS_CACHE_MAX`.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use arc_swap::ArcSwapOption;
use hickory_server::proto::op::{LowerQuery, ResponseCode};
use hickory_server::proto::rr::{LowerName, Record, RecordType};
use tokio::sync::{OnceCell, oneshot};
use tokio::time::timeout;

use super::direct::Wish;
use super::handler::now;
use super::resolv_conf::{name_servers, unusable};
use super::servers::Servers;
use super::{DnsConfig, PORT};
use crate::config::DNS_FORWARD_TIMEOUT;
use crate::dns::waits::{WaitId, Waits};

/// As much of a resolv.conf as is read: it names three servers and a few domains.
const RESOLV_CONF_MAX: u64 = 1 << 16;

/// What came back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) code: ResponseCode,
    /// The upstream says that it is signed, and rightly.
    pub(super) is_authentic: bool,
    pub(super) answers: Vec<Record>,
    pub(super) authorities: Vec<Record>,
}

impl Found {
    /// Not a failure: there is something, or nothing for certain.
    pub(super) fn is_verdict(&self) -> bool {
        [ResponseCode::NoError, ResponseCode::NXDomain].contains(&self.code)
    }

    pub(super) fn nothing(code: ResponseCode) -> Self {
        Self {
            code,
            is_authentic: false,
            answers: Vec::new(),
            authorities: Vec::new(),
        }
    }
}

/// A question, however it is spelt.
type Key = (LowerName, RecordType, Wish);
type Flights = HashMap<Key, Arc<OnceCell<Arc<Found>>>>;

/// The upstreams in use.
pub(super) struct Upstreams {
    servers: ArcSwapOption<Servers>,
    waits: Mutex<Waiting>,
    flights: Mutex<Flights>,
    given: Vec<SocketAddr>,
    resolv_conf: PathBuf,
    seen: Mutex<Seen>,
}

/// What the upstreams in use were made from.
#[derive(Default)]
struct Seen {
    /// Time, length and number of the file; `None` inside for a file that is not there.
    file: Option<Option<(SystemTime, u64, u64)>>,
    text: String,
    servers: Vec<SocketAddr>,
}

impl Upstreams {
    pub(super) fn new(config: &DnsConfig) -> Self {
        Self {
            servers: ArcSwapOption::empty(),
            waits: Mutex::default(),
            flights: Mutex::default(),
            given: config.upstreams.clone(),
            resolv_conf: config.resolv_conf.clone(),
            seen: Mutex::default(),
        }
    }

    /// Takes up changes of resolv.conf and of our own addresses; whom we ask now, and what is wrong with that.
    pub(super) fn look(&self, own: &[IpAddr]) -> (Vec<SocketAddr>, Vec<String>) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let servers: Vec<SocketAddr> = if self.given.is_empty() {
            let file = stamp(&self.resolv_conf);
            if seen.file != Some(file) {
                seen.text = text_of(&self.resolv_conf).unwrap_or_default();
                seen.file = Some(file);
            }
            name_servers(&seen.text, own)
                .into_iter()
                .map(|ip| SocketAddr::new(ip, PORT))
                .collect()
        } else {
            let is_other =
                |server: &&SocketAddr| server.port() != PORT || !own.contains(&server.ip());
            self.given.iter().filter(is_other).copied().collect()
        };
        if servers != seen.servers {
            tracing::info!(?servers, "DNS upstreams");
            let used = Servers::new(&servers).unwrap_or_else(|error| {
                tracing::warn!(%error, "DNS upstreams cannot be used");
                None
            });
            self.servers.store(used.map(Arc::new));
            seen.servers = servers;
        }
        (seen.servers.clone(), self.notes(&seen))
    }

    fn notes(&self, seen: &Seen) -> Vec<String> {
        let file = self.resolv_conf.display();
        let left_out = unusable(&seen.text).into_iter().map(|server| {
            format!(
                "nameserver {server} in {file} is not asked: it is no IP address without a zone"
            )
        });
        let none = seen.servers.is_empty().then(|| {
            let from = if self.given.is_empty() {
                format!("{file} names none")
            } else {
                "--dns-upstream names this server itself".to_owned()
            };
            format!(
                "no upstream DNS server: names outside the domain get SERVFAIL ({from}; give one with --dns-upstream)"
            )
        });
        left_out.chain(none).collect()
    }

    /// Asks for a client; `None` if it had to make room for others.
    pub(super) async fn ask(
        &self,
        client: IpAddr,
        query: &LowerQuery,
        wish: Wish,
    ) -> Option<Arc<Found>> {
        let failure = || Arc::new(Found::nothing(ResponseCode::ServFail));
        let Some(servers) = self.servers.load_full() else {
            return Some(failure());
        };
        let (_wait, evicted) = Wait::take(&self.waits, client)?;
        let key = (query.name().clone(), query.query_type(), wish);
        let flight = {
            let mut flights = self.flights.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(flights.entry(key.clone()).or_default())
        };
        let landing = Landing {
            flights: &self.flights,
            key,
            flight,
        };
        let asking = landing
            .flight
            .get_or_init(|| async { Arc::new(servers.ask(query, wish).await) });
        tokio::select! {
            found = timeout(DNS_FORWARD_TIMEOUT, asking) => Some(found.map_or_else(|_| failure(), Arc::clone)),
            _ = evicted => None,
        }
    }
}

/// Who waits for an answer, and how they are told to give up.
#[derive(Default)]
struct Waiting {
    waits: Waits,
    evictions: HashMap<WaitId, oneshot::Sender<()>>,
}

/// One client's wait, over when dropped.
struct Wait<'a> {
    waiting: &'a Mutex<Waiting>,
    id: WaitId,
}

impl<'a> Wait<'a> {
    /// With what tells it to give up.
    fn take(waiting: &'a Mutex<Waiting>, client: IpAddr) -> Option<(Self, oneshot::Receiver<()>)> {
        let mut locked = waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let (id, evicted) = locked.waits.take(client, now())?;
        if let Some(evicted) = evicted {
            // Dropped, it tells.
            locked.evictions.remove(&evicted);
        }
        let (sender, receiver) = oneshot::channel();
        locked.evictions.insert(id, sender);
        Some((Self { waiting, id }, receiver))
    }
}

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.waits.leave(self.id);
        waiting.evictions.remove(&self.id);
    }
}

/// Takes the flight off the list when the last who waits for it is gone.
struct Landing<'a> {
    flights: &'a Mutex<Flights>,
    key: Key,
    flight: Arc<OnceCell<Arc<Found>>>,
}

impl Drop for Landing<'_> {
    fn drop(&mut self) {
        let mut flights = self.flights.lock().unwrap_or_else(PoisonError::into_inner);
        // An answer is there, and in the cache if it may be; without one, whoever still waits takes over.
        if self.flight.initialized() || Arc::strong_count(&self.flight) <= 2 {
            let is_ours = |other: &Arc<_>| Arc::ptr_eq(other, &self.flight);
            if flights.get(&self.key).is_some_and(is_ours) {
                flights.remove(&self.key);
            }
        }
    }
}

/// Reads a file and nothing else: a pipe would keep us for as long as nobody writes to it.
fn text_of(path: &Path) -> io::Result<String> {
    let mut options = File::options();
    let file = options
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)?;
    let mut bytes = Vec::new();
    if file.metadata()?.is_file() {
        file.take(RESOLV_CONF_MAX).read_to_end(&mut bytes)?;
    }
    // A name in a comment may be of another encoding.
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn stamp(path: &Path) -> Option<(SystemTime, u64, u64)> {
    use std::os::unix::fs::MetadataExt as _;
    let file = fs::metadata(path).ok()?;
    Some((file.modified().ok()?, file.len(), file.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_file_is_empty_and_what_has_no_end_is_cut() {
        let dir = tempfile::tempdir().unwrap();
        let pipe = dir.path().join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert_eq!(text_of(&pipe).unwrap(), "");
        assert_eq!(text_of(Path::new("/dev/zero")).unwrap(), "");
        assert!(text_of(dir.path()).unwrap().is_empty());
        let long = dir.path().join("long");
        fs::write(&long, "nameserver 192.0.2.1\n".repeat(10_000)).unwrap();
        assert_eq!(text_of(&long).unwrap().len(), 1 << 16);
        fs::write(&long, b"nameserver 192.0.2.1\n# caf\xe9\n").unwrap();
        assert!(
            text_of(&long)
                .unwrap()
                .starts_with("nameserver 192.0.2.1\n")
        );
    }
}
