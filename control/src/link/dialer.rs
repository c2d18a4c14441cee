//! Which targets to dial, and when.
//!
//! ```text
//!            ┌────────── due ─────────► Dialing ── opened ──► Handshaking ── up ──► Connected
//!  Waiting ──┘                             │                       │                    │
//!     ▲  ◄──────────── failed: back-off ───┴───────────────────────┘                    │
//!     └──────────────────────────────── link gone, or suspect: at once ─────────────────┘
//!  OurOwn: the target is this very host; never dialled again
//! ```
//!
//! The back-off forgives. It counts from the start of an attempt, starts over after every link, and its cap grows with
//! the outage, so that a healed network is found in a share of the time for which it was broken, and at once if that
//! was short. A sign of life (`hurry`) starts it over. Bounds: `config::TARGETS_MAX`, `DIALS_MAX`, `BACKOFF_MIN` and
//! its neighbours.

pub(crate) mod discovered;
pub(crate) mod target;

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use crate::config::{BACKOFF_MIN, DIAL_STALE_AFTER, DIALS_MAX, TARGET_LEN_MAX, TARGETS_MAX};
use crate::link::dialer::target::Target;
use crate::link::error::LinkError;
use crate::link::message::ByeReason;
use crate::node::exchange::{DialFailure, DialId, LinkId};
use crate::peer::PeerId;
use crate::random::Randomness;

/// How much the pause grows with each failure, in quarters: ×1.5.
const BACKOFF_GROWTH_QUARTERS: u32 = 6;
/// A link that lived this long starts the back-off over.
const LINK_PROVED_AFTER: Duration = Duration::from_secs(5);
/// An attempt that took as long as its pause is not repeated before this.
const BACKOFF_BREATH: Duration = Duration::from_millis(50);

/// Why a target is not one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// Neither an address nor a DNS name.
    #[error("not a peer; accepted are host[:port], [v6]:port or a DNS name")]
    Host,
    /// Not 1 to 65535.
    #[error("port is not 1 to 65535; an IPv6 address with a port is written [v6]:port")]
    Port,
    /// More than `config::TARGETS_MAX`.
    #[error("more than {TARGETS_MAX} targets")]
    TooMany,
    /// Never given to `connect`, or spelt otherwise.
    #[error("not a target; `weft status targets` lists them as they were given")]
    Unknown,
}

/// Where a target is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetAddress {
    /// Its host.
    pub host: TargetHost,
    /// Its TCP port.
    pub port: u16,
}

/// The host part of a target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TargetHost {
    /// An address.
    Ip(IpAddr),
    /// A name, looked up at every attempt.
    Name(String),
}

impl fmt::Display for TargetAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            TargetHost::Ip(ip) => SocketAddr::new(*ip, self.port).fmt(f),
            TargetHost::Name(name) => write!(f, "{name}:{}", self.port),
        }
    }
}

impl TargetAddress {
    /// Reads `host`, `host:port`, `[v6]`, `[v6]:port` or a bare IPv6 address.
    ///
    /// # Errors
    /// [`TargetError`] if it is none of them.
    pub fn parse(text: &str, port_default: u16) -> Result<Self, TargetError> {
        if text.len() > TARGET_LEN_MAX {
            return Err(TargetError::Host);
        }
        if let Ok(ip) = text.parse::<Ipv6Addr>() {
            return Self::at(ip.into(), port_default);
        }
        if let Some(rest) = text.strip_prefix('[') {
            let (ip, rest) = rest.split_once(']').ok_or(TargetError::Host)?;
            let port = match rest.strip_prefix(':') {
                Some(port) => parse_port(port)?,
                None if rest.is_empty() => port_default,
                None => return Err(TargetError::Host),
            };
            return Self::at(
                ip.parse::<Ipv6Addr>()
                    .map_err(|_| TargetError::Host)?
                    .into(),
                port,
            );
        }
        let (host, port) = match text.split_once(':') {
            Some((host, port)) => (host, parse_port(port)?),
            None => (text, port_default),
        };
        if let Ok(ip) = host.parse::<IpAddr>() {
            return Self::at(ip, port);
        }
        if is_dns_name(host) {
            Ok(Self {
                host: TargetHost::Name(host.to_owned()),
                port,
            })
        } else {
            Err(TargetError::Host)
        }
    }

    fn at(ip: IpAddr, port: u16) -> Result<Self, TargetError> {
        if ip.is_unspecified() || ip.is_multicast() {
            return Err(TargetError::Host);
        }
        Ok(Self {
            host: TargetHost::Ip(ip),
            port,
        })
    }
}

fn parse_port(text: &str) -> Result<u16, TargetError> {
    match text.parse() {
        Ok(port) if port > 0 && text.bytes().all(|b| b.is_ascii_digit()) => Ok(port),
        _ => Err(TargetError::Port),
    }
}

/// RFC 1123 §2.1, with underscores; a name whose last label is a number is a mistyped address.
fn is_dns_name(name: &str) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name);
    let label_is_good = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    let last_is_number = name
        .rsplit('.')
        .next()
        .is_some_and(|last| last.bytes().all(|b| b.is_ascii_digit()));
    name.len() <= 253 && !last_is_number && name.split('.').all(label_is_good)
}

/// Why the last attempt failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TargetFailure {
    #[error("{0}")]
    Dial(DialFailure),
    #[error("{0}")]
    Link(LinkError),
}

/// What a target is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TargetPhase {
    Waiting {
        until: Instant,
    },
    Dialing {
        dial: DialId,
    },
    Handshaking {
        link: LinkId,
    },
    /// The peer has a link, dialled by either end.
    Connected,
    OurOwn,
}

/// The targets and their back-off.
#[derive(Debug)]
pub(crate) struct Dialer {
    targets: Vec<Target>,
    port_default: u16,
    dials: u64,
}

impl Dialer {
    pub(crate) fn new(port_default: u16) -> Self {
        Self {
            targets: Vec::new(),
            port_default,
            dials: 0,
        }
    }

    /// The targets that somebody named, in the order given, and those that were discovered.
    pub(crate) fn targets(&self) -> &[Target] {
        &self.targets
    }

    /// How many hosts somebody named, as far as they are not this one.
    pub(crate) fn named_others(&self) -> usize {
        let others = self
            .named()
            .filter(|target| target.phase != TargetPhase::OurOwn);
        others.count()
    }

    fn named(&self) -> impl Iterator<Item = &Target> {
        self.targets.iter().filter(|target| target.is_named())
    }

    /// The targets as typed.
    pub(crate) fn texts(&self) -> Vec<String> {
        self.named().map(|target| target.text.clone()).collect()
    }

    /// Whether somebody named the peer.
    pub(crate) fn is_named(&self, peer: PeerId) -> bool {
        self.named().any(|target| target.peer == Some(peer))
    }

    /// Whether the text can be a target.
    pub(crate) fn judge(&self, text: &str) -> Result<(), TargetError> {
        TargetAddress::parse(text, self.port_default).map(drop)
    }

    /// Adds a target, or dials one again at once that is there.
    pub(crate) fn add(&mut self, text: &str, now: Instant) -> Result<(), TargetError> {
        let address = TargetAddress::parse(text, self.port_default)?;
        let is_it = |target: &&mut Target| target.is_named() && target.text == text;
        if let Some(target) = self.targets.iter_mut().find(is_it) {
            target.hurry(now);
            return Ok(());
        }
        if self.named().count() >= TARGETS_MAX {
            return Err(TargetError::TooMany);
        }
        self.targets
            .push(Target::new(text.to_owned(), address, now));
        Ok(())
    }

    /// Empties the list of named targets; what is being dialled runs out.
    pub(crate) fn clear(&mut self) {
        self.targets.retain(|target| !target.is_named());
    }

    /// Takes a target from the list; its link stays.
    pub(crate) fn remove(&mut self, text: &str) -> Result<(), TargetError> {
        let at = self
            .targets
            .iter()
            .position(|target| target.is_named() && target.text == text)
            .ok_or(TargetError::Unknown)?;
        self.targets.remove(at);
        Ok(())
    }

    /// The next target that is due, now being dialled.
    pub(crate) fn poll_dial(&mut self, now: Instant) -> Option<(DialId, TargetAddress)> {
        if self.dials_in_flight() >= DIALS_MAX {
            return None;
        }
        let target = self.targets.iter_mut().find(
            |target| matches!(target.phase, TargetPhase::Waiting { until } if until <= now),
        )?;
        self.dials += 1;
        let dial = DialId(self.dials);
        target.phase = TargetPhase::Dialing { dial };
        target.started_at = now;
        Some((dial, target.address.clone()))
    }

    fn dials_in_flight(&self) -> usize {
        let busy = |target: &&Target| matches!(target.phase, TargetPhase::Dialing { .. });
        self.targets.iter().filter(busy).count()
    }

    /// When the next target is due.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        if self.dials_in_flight() >= DIALS_MAX {
            return None;
        }
        let due = |target: &Target| match target.phase {
            TargetPhase::Waiting { until } => Some(until),
            TargetPhase::Dialing { .. }
            | TargetPhase::Handshaking { .. }
            | TargetPhase::Connected
            | TargetPhase::OurOwn => None,
        };
        self.targets.iter().filter_map(due).min()
    }

    /// A dial has become a connection. Says which secret to offer, counted from the best.
    pub(crate) fn opened(&mut self, dial: DialId, link: LinkId) -> Option<usize> {
        let target = self
            .targets
            .iter_mut()
            .find(|t| t.phase == TargetPhase::Dialing { dial })?;
        target.phase = TargetPhase::Handshaking { link };
        Some(target.refusals)
    }

    /// A dial has come to nothing.
    pub(crate) fn dial_failed(
        &mut self,
        dial: DialId,
        failure: DialFailure,
        random: &mut Randomness,
        now: Instant,
    ) {
        if let Some(target) = self
            .targets
            .iter_mut()
            .find(|t| t.phase == TargetPhase::Dialing { dial })
        {
            target.failed(TargetFailure::Dial(failure), random, now);
        }
    }

    /// A link of ours ended before it was up. `secrets` is how many we could offer.
    pub(crate) fn handshake_failed(
        &mut self,
        link: LinkId,
        error: LinkError,
        secrets: usize,
        random: &mut Randomness,
        now: Instant,
    ) {
        let Some(target) = self
            .targets
            .iter_mut()
            .find(|t| t.phase == TargetPhase::Handshaking { link })
        else {
            return;
        };
        target.failed(TargetFailure::Link(error), random, now);
        if error.is_refusal() {
            target.refusals += 1;
            // The peer may accept the next of our secrets: try each once before waiting for a person.
            if target.refusals.is_multiple_of(secrets.max(1)) {
                target.refused(error, random, now);
            } else {
                target.phase = TargetPhase::Waiting {
                    until: now + BACKOFF_BREATH,
                };
            }
        }
    }

    /// The peer has a link, dialled by us as `link` or by the peer.
    pub(crate) fn connected(&mut self, link: LinkId, peer: PeerId, now: Instant) {
        for target in &mut self.targets {
            if target.phase == (TargetPhase::Handshaking { link }) {
                target.found(peer, now);
            }
            let settled = matches!(target.phase, TargetPhase::OurOwn | TargetPhase::Connected);
            if target.peer == Some(peer) && !settled {
                target.phase = TargetPhase::Connected;
                target.connected_at = now;
                target.failures = 0;
            }
        }
    }

    /// The target behind `link` is this host; false if no target is.
    pub(crate) fn is_ourself(&mut self, link: LinkId, now: Instant) -> bool {
        let target = self
            .targets
            .iter_mut()
            .find(|t| t.phase == TargetPhase::Handshaking { link });
        target.map(|target| target.found_ourself(now)).is_some()
    }

    /// The peer has no link any more, or one that seems dead.
    pub(crate) fn disconnected(
        &mut self,
        peer: PeerId,
        failure: Option<LinkError>,
        random: &mut Randomness,
        now: Instant,
    ) {
        let connected = |target: &&mut Target| {
            target.peer == Some(peer) && target.phase == TargetPhase::Connected
        };
        for target in self.targets.iter_mut().filter(connected) {
            if now.duration_since(target.connected_at) >= LINK_PROVED_AFTER {
                target.interval = BACKOFF_MIN;
                target.outage_since = now;
                target.refusals = 0;
                target.failure = None;
            }
            match failure {
                Some(error) if error.is_refusal() => target.refused(error, random, now),
                Some(LinkError::ByPeer(ByeReason::Enough)) => target.is_enough(random, now),
                // A link that ended as soon as it was up may do so again.
                Some(error) if target.interval > BACKOFF_MIN => {
                    target.failed(TargetFailure::Link(error), random, now);
                }
                _ => {
                    target.phase = TargetPhase::Waiting { until: now };
                    target.failure = failure.map(TargetFailure::Link);
                    target.interval = target.interval * BACKOFF_GROWTH_QUARTERS / 4;
                }
            }
        }
    }

    /// A sign of life from the peer: its targets are dialled at once.
    pub(crate) fn hurry(&mut self, peer: PeerId, now: Instant) {
        let is_its = |target: &&mut Target| target.peer == Some(peer);
        for target in self.targets.iter_mut().filter(is_its) {
            let is_stale = now.duration_since(target.started_at) >= DIAL_STALE_AFTER;
            if is_stale && matches!(target.phase, TargetPhase::Dialing { .. }) {
                target.phase = TargetPhase::Waiting { until: now };
            }
            target.hurry(now);
        }
    }

    /// Targets that sent us away because others lead to them are dialled at once: nobody does any more.
    pub(crate) fn hurry_enough(&mut self, now: Instant) {
        let enough = TargetFailure::Link(LinkError::ByPeer(ByeReason::Enough));
        self.targets
            .iter_mut()
            .filter(|target| target.failure == Some(enough))
            .for_each(|target| target.hurry(now));
    }

    /// Everything may have changed: all targets without a link are dialled at once.
    pub(crate) fn hurry_all(&mut self, now: Instant) {
        self.targets.iter_mut().for_each(|target| target.hurry(now));
    }
}

#[cfg(test)]
mod tests;
