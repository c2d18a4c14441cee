//! Where this host's names are given and taken: keeps them on disk, tells the server, and then answers who asked.
//!
//! ```text
//!  add, remove, keep ─► registry ─► server (at once) ─► writer: store, one after the other ─► answer
//! ```
//!
//! A request is answered when its change is on disk and answered for. Changes that wait are written in one go.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::mpsc;
use tokio::task::{JoinHandle, spawn_blocking};

use super::{DnsHandle, outside};
use crate::api::{
    ApiError, AttachReply, DnsEntry, DnsFound, DnsLookup, DnsReply, DnsRequest, DnsStatus,
};
use crate::dns::answer::{CLASS_IN, Question, TYPE_ANY, Verdict, answer};
use crate::dns::name::{AskedName, DnsName, Domain, NameError};
use crate::dns::names::Entry;
use crate::dns::record;
use crate::dns::registry::{EXPOSE, EXTERN, Filter, Giver, Registry};
use crate::driver::complaint::in_one_line;
use crate::driver::store::Store;
use crate::peer::{PeerId, PeerName};

/// What to do once a change is done, or has failed.
type Then = Box<dyn FnOnce(Result<(), ApiError>) + Send>;

struct Write {
    bodies: BTreeMap<u16, Vec<u8>>,
    then: Option<Then>,
}

/// Give or take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    Add,
    Remove,
}

/// The answer to every verb of DNS when there is none.
pub(crate) fn is_off() -> ApiError {
    ApiError {
        error: "DNS is off on this host: it was launched with --no-dns".to_owned(),
    }
}

/// The names of this host.
pub(crate) struct Desk {
    registry: Registry,
    dns: DnsHandle,
    own: PeerId,
    /// Rises with each name given: a list of containers that was begun before may not know its container.
    generation: Arc<AtomicU64>,
    /// Addresses in use here that other peers own.
    blocked: BTreeSet<Ipv4Addr>,
    /// Other hosts have not been told yet.
    is_fresh: bool,
    writes: mpsc::UnboundedSender<Write>,
    writer: JoinHandle<()>,
}

impl Desk {
    /// Takes up what the last run left. Needs a tokio runtime.
    pub(crate) fn start(store: Arc<Store>, saved: &[Vec<u8>], dns: DnsHandle, own: PeerId) -> Self {
        let registry = Registry::new(saved.iter().flat_map(|body| record::parse_saved(body)));
        let (writes, waiting) = mpsc::unbounded_channel();
        let desk = Self {
            registry,
            own,
            blocked: BTreeSet::new(),
            generation: Arc::default(),
            is_fresh: true,
            writes,
            writer: tokio::spawn(write(store, waiting, dns.clone())),
            dns,
        };
        desk.show();
        desk
    }

    /// Waits until everything is on disk.
    pub(crate) async fn finish(self) {
        drop(self.writes);
        if let Err(error) = self.writer.await {
            tracing::error!(%error, "the writer of names was cut off");
        }
    }

    /// The server.
    pub(crate) fn dns(&self) -> &DnsHandle {
        &self.dns
    }

    /// See [`Self::keep`].
    pub(crate) fn generation(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.generation)
    }

    /// The bodies of this host's NAMES records, by part, if other hosts are to be told.
    pub(crate) fn take_fresh(&mut self) -> Option<BTreeMap<u16, Vec<u8>>> {
        let is_said = |entry: &Entry| is_answered(&self.blocked, entry);
        std::mem::take(&mut self.is_fresh).then(|| self.registry.bodies_of(is_said))
    }

    /// From now on these addresses are blocked, and no others: the names that containers here have for them are kept,
    /// and not answered for, here or elsewhere.
    pub(crate) fn block(&mut self, blocked: BTreeSet<Ipv4Addr>) {
        if self.blocked != blocked {
            self.blocked = blocked;
            self.is_fresh = true;
            self.show();
        }
    }

    /// A container is attached under these names. `then` is given a line about names that are not taken: the network
    /// works all the same.
    pub(crate) fn attached(
        &mut self,
        attached: &AttachReply,
        then: impl FnOnce(Option<String>) + Send + 'static,
    ) {
        let (names, to) = (names_of(attached), &attached.addresses);
        let added = self
            .registry
            .add(&attached.id, &names, to, Giver::Container);
        let note = added.as_ref().err().map(|error| {
            tracing::warn!(container = attached.id, %error, "container has no name");
            format!(
                "{} is not named {}: {error}",
                attached.id,
                attached.names.join(", ")
            )
        });
        self.generation.fetch_add(1, Ordering::Relaxed);
        self.changed(added.unwrap_or(false), Box::new(|_| then(note)));
    }

    /// A container is called no more than what it says here, and what users gave it: Docker may have called it otherwise
    /// before, also while nobody of us was there.
    pub(crate) fn only_called(&mut self, now: &AttachReply) {
        let names = names_of(now);
        if self.registry.only(&now.id, &names, &now.addresses) {
            self.changed(true, Box::new(|_| {}));
        }
    }

    /// These addresses of a container are gone.
    pub(crate) fn detached(
        &mut self,
        detached: &AttachReply,
        then: impl FnOnce() + Send + 'static,
    ) {
        // To the filter no address means any.
        let filter = Filter {
            container: Some(detached.id.clone()),
            addresses: detached.addresses.clone(),
            name: None,
        };
        let changed = !detached.addresses.is_empty() && !self.registry.remove(&filter).is_empty();
        self.changed(changed, Box::new(|_| then()));
    }

    /// Drops the names of containers that a list, begun at `generation`, does not have, and returns these containers.
    /// `None` if the list is too old.
    pub(crate) fn keep(
        &mut self,
        living: &BTreeSet<String>,
        generation: u64,
    ) -> Option<BTreeSet<Arc<str>>> {
        if generation != self.generation.load(Ordering::Relaxed) {
            return None;
        }
        let gone = self.registry.keep(living);
        self.changed(!gone.is_empty(), Box::new(|_| {}));
        Some(gone)
    }

    /// All containers that have names.
    pub(crate) fn containers(&self) -> BTreeSet<Arc<str>> {
        self.registry.containers()
    }

    /// Gives a name, or takes it, as a user asked; `described` is the container that was named. What was taken comes
    /// back.
    pub(crate) fn change(
        &mut self,
        change: Change,
        request: &DnsRequest,
        described: Option<&AttachReply>,
        then: impl FnOnce(Result<DnsReply, ApiError>) + Send + 'static,
    ) -> Vec<Entry> {
        let mut removed = Vec::new();
        let outcome = match change {
            Change::Add => self.add(request, described),
            Change::Remove => self.remove(request, described).map(|entries| {
                removed = entries;
                !removed.is_empty()
            }),
        };
        match outcome {
            Ok(changed) => {
                let done =
                    |result: Result<(), ApiError>| then(result.map(|()| DnsReply::default()));
                self.changed(changed, Box::new(done));
            }
            Err(Refusal::Outside(line)) => {
                tracing::info!("{line}");
                let ignored = Some(line);
                then(Ok(DnsReply { ignored }));
            }
            Err(Refusal::Fault(error)) => then(Err(ApiError { error })),
        }
        removed
    }

    fn remove(
        &mut self,
        request: &DnsRequest,
        described: Option<&AttachReply>,
    ) -> Result<Vec<Entry>, Refusal> {
        // Whatever was given by a version that did not refuse it can be taken.
        let name = self.asked_name(request, Domain::qualify)?;
        if described.is_none() && request.addresses.is_empty() && name.is_none() {
            let line = "give a container, an address or a name (-h)";
            return Err(Refusal::Fault(line.to_owned()));
        }
        let filter = Filter {
            container: Some(owner_of(described).to_owned()),
            addresses: request.addresses.clone(),
            name,
        };
        let removed = self.registry.remove(&filter);
        match removed.is_empty().then(|| self.others_entry(filter)) {
            Some(Some(line)) => Err(Refusal::Fault(line)),
            Some(None) | None => Ok(removed),
        }
    }

    /// Says who has what was to be removed, if somebody else has. What nobody has is as it was to be.
    fn others_entry(&self, mut filter: Filter) -> Option<String> {
        let asked = filter.container.take()?;
        if filter.addresses.is_empty() && filter.name.is_none() {
            return None;
        }
        let said = |entry: &Entry| format!("{} at {}", entry.name, entry.address);
        let mut ours = self.registry.entries();
        if let Some(entry) = ours.find(|entry| filter.matches(entry)) {
            let (said, has) = (said(entry), &entry.container);
            let hint = match &**has {
                EXTERN => "give no container".to_owned(),
                EXPOSE => "`weft hide` takes it".to_owned(),
                has => format!("give the container {has}"),
            };
            return Some(format!(
                "{said} is of {has}, not of {asked}, and stays: {hint}"
            ));
        }
        let names = self.dns.names();
        let all = names.entries();
        let mut others = all.iter().filter(|(_, origin)| *origin != self.own);
        let (entry, origin) = others.find(|(entry, _)| filter.matches(entry))?;
        let (said, host) = (said(entry), origin.name());
        Some(format!(
            "{said} is of host {host}, and stays: remove it there"
        ))
    }

    fn add(
        &mut self,
        request: &DnsRequest,
        described: Option<&AttachReply>,
    ) -> Result<bool, Refusal> {
        let fault = |line: String| Refusal::Fault(line);
        let owner = owner_of(described);
        let names = match (self.asked_name(request, Domain::name_to_give)?, described) {
            (Some(name), _) => vec![name],
            (None, Some(container)) => names_of(container),
            (None, None) => Vec::new(),
        };
        if names.is_empty() {
            let line = format!("{owner} has no name of its own: give one with -h NAME");
            return Err(fault(line));
        }
        // A name goes with its container, and one that is not attached is gone.
        if described.is_some_and(|container| container.addresses.is_empty()) {
            let line = format!(
                "{owner} is not attached: attach it first, or give no container for addresses of something else"
            );
            return Err(fault(line));
        }
        let addresses = match described {
            Some(container) if request.addresses.is_empty() => &container.addresses,
            Some(_) | None => &request.addresses,
        };
        if addresses.is_empty() {
            return Err(fault("give an address".to_owned()));
        }
        if let Some(odd) = addresses.iter().find(|address| is_nobodys(address)) {
            let line = format!("{odd} is no address of a single host: give one such as 192.0.2.80");
            return Err(fault(line));
        }
        self.generation.fetch_add(1, Ordering::Relaxed);
        let added = self.registry.add(owner, &names, addresses, Giver::Hand);
        added.map_err(|error| fault(error.to_string()))
    }

    fn asked_name(
        &self,
        request: &DnsRequest,
        read: impl FnOnce(&Domain, &str) -> Result<DnsName, NameError>,
    ) -> Result<Option<DnsName>, Refusal> {
        let Some(text) = &request.name else {
            return Ok(None);
        };
        let name = read(&self.dns.config().domain, text).map_err(|error| {
            let line = error.to_string();
            match error {
                NameError::Malformed(_) | NameError::Localhost(_) => Refusal::Fault(line),
                NameError::OutsideDomain { .. } => Refusal::Outside(format!("{line}: ignored")),
            }
        })?;
        Ok(Some(name))
    }

    /// What a name means now.
    pub(crate) fn lookup(&self, request: &DnsLookup) -> Result<DnsFound, ApiError> {
        let name = DnsName::parse(&request.name).map_err(|error| ApiError {
            error: error.to_string(),
        })?;
        let labels = name.as_str().split('.').map(str::as_bytes);
        let Some(asked) = AskedName::from_labels(labels) else {
            return Ok(DnsFound::default());
        };
        let question = Question {
            name: asked,
            kind: TYPE_ANY,
            class: CLASS_IN,
        };
        let names = self.dns.names();
        let mut addresses = match answer(&names, &question, 0) {
            Verdict::Addresses(addresses) => addresses,
            Verdict::Pointer(_)
            | Verdict::Zone
            | Verdict::NoData
            | Verdict::NoName
            | Verdict::Forward
            | Verdict::Refused => Vec::new(),
        };
        addresses.sort();
        Ok(DnsFound { addresses })
    }

    /// The server's part of the status.
    pub(crate) fn status(
        &self,
        with_entries: bool,
        name_of: impl Fn(PeerId) -> PeerName,
    ) -> DnsStatus {
        let (config, state, names) = (self.dns.config(), self.dns.state(), self.dns.names());
        let entries = names.entries();
        let text = |addresses: &[std::net::SocketAddr]| {
            addresses
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
        };
        let mut others = state.listening.iter().map(std::net::SocketAddr::ip);
        let docker = others.rfind(|ip| *ip != IpAddr::from(config.address));
        DnsStatus {
            domain: config.domain.to_string(),
            address: config.address.to_string(),
            docker_address: docker.map(|ip| ip.to_string()).unwrap_or_default(),
            ttl: config.ttl,
            upstreams: text(&state.upstreams),
            listening: text(&state.listening),
            trouble: state.trouble,
            notes: [
                state.notes,
                outside::notes(names.outside(), self.own, &name_of),
            ]
            .concat(),
            entry_count: entries.len(),
            counters: self.dns.counters(),
            entries: if with_entries {
                entries
                    .iter()
                    .map(|(entry, origin)| shown(entry, *origin, name_of(*origin)))
                    .collect()
            } else {
                Vec::new()
            },
        }
    }

    fn show(&self) {
        let entries = self.registry.entries();
        let said = entries.filter(|entry| is_answered(&self.blocked, entry));
        let entries = said.cloned().collect::<Vec<_>>();
        self.dns.set(self.own, entries.into());
    }

    /// Tells the server of a change and has it written.
    fn changed(&mut self, changed: bool, then: Then) {
        if changed {
            self.is_fresh = true;
            self.show();
        }
        let bodies = self.registry.bodies_to_save();
        let then = Some(then);
        // The writer ends only with us.
        let _ = self.writes.send(Write { bodies, then });
    }
}

/// What was given by hand for an address outside stands, whoever has it.
fn is_answered(blocked: &BTreeSet<Ipv4Addr>, entry: &Entry) -> bool {
    match entry.address {
        IpAddr::V4(ip) => &*entry.container == EXTERN || !blocked.contains(&ip),
        IpAddr::V6(_) => true,
    }
}

enum Refusal {
    /// The user's fault.
    Fault(String),
    /// Nothing of ours.
    Outside(String),
}

fn names_of(container: &AttachReply) -> Vec<DnsName> {
    let names = container.names.iter();
    names.filter_map(|name| DnsName::parse(name).ok()).collect()
}

fn owner_of(described: Option<&AttachReply>) -> &str {
    described.map_or(EXTERN, |container| container.id.as_str())
}

/// True for what no single host can be reached at.
fn is_nobodys(address: &IpAddr) -> bool {
    address.is_unspecified() || address.is_multicast() || *address == Ipv4Addr::BROADCAST
}

fn shown(entry: &Entry, origin: PeerId, name: PeerName) -> DnsEntry {
    DnsEntry {
        hostname: entry.name.to_string(),
        address: entry.address,
        container: entry.container.to_string(),
        origin: origin.to_string(),
        origin_name: name.to_string(),
    }
}

async fn write(store: Arc<Store>, mut waiting: mpsc::UnboundedReceiver<Write>, dns: DnsHandle) {
    let mut written = None;
    while let Some(mut latest) = waiting.recv().await {
        let mut done = Vec::from_iter(latest.then.take());
        while let Ok(mut next) = waiting.try_recv() {
            done.extend(next.then.take());
            latest = next;
        }
        let result = if written.as_ref() == Some(&latest.bodies) {
            Ok(())
        } else {
            write_once(&store, &latest.bodies).await
        };
        written = result.is_ok().then_some(latest.bodies);
        dns.shown().await;
        for then in done {
            then(result.clone());
        }
    }
}

async fn write_once(store: &Arc<Store>, bodies: &BTreeMap<u16, Vec<u8>>) -> Result<(), ApiError> {
    let (store, bodies) = (Arc::clone(store), bodies.clone());
    let write = move || store.set_names(bodies.values().map(Vec::as_slice));
    let error = match spawn_blocking(write).await {
        Ok(Ok(())) => return Ok(()),
        Ok(Err(error)) => in_one_line(&error).error,
        Err(error) => error.to_string(),
    };
    tracing::error!(error, "names not written to the store");
    Err(ApiError {
        error: format!("{error}: the change holds until the daemon stops"),
    })
}
