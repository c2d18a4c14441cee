//! What a daemon starts from: its configuration, and what the last run left.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Instant;

use ipnet::{Ipv4Net, Ipv6Net};
use weft_engine::session::CipherSuite;

use crate::config::{CipherCost, RekeyConfig};
use crate::driver::engine::EngineHandle;
use crate::driver::store::{self, Store};
use crate::error::ControlError;
use crate::ipam::{Ipam, IpamConfig, IpamInit, StoreContent};
use crate::peer::{Identity, Nickname, PeerName};
use crate::random::Randomness;
use crate::secret::Credential;

/// What a daemon is started with.
#[derive(Debug)]
pub struct DriverConfig {
    /// Identity key and store.
    pub data_dir: PathBuf,
    /// The network's name.
    pub network: String,
    /// What proves membership, the one to offer first in front; empty means open membership.
    pub credentials: Vec<Credential>,
    /// Shown name; derived from the identity unless given.
    pub name: Option<PeerName>,
    /// For people.
    pub nickname: Nickname,
    /// Where to listen; every address of the host unless given.
    pub host: Option<IpAddr>,
    /// TCP and UDP port.
    pub port: u16,
    /// Peers to dial, as typed. They replace the ones of the last run; if there are none, those are dialled.
    pub targets: Vec<String>,
    /// Dial the targets of the last run besides the ones given.
    pub resume: bool,
    /// The overlay's bridge, whose addresses are not the host's.
    pub bridge: String,
    /// Overlay MTU in bytes.
    pub mtu: u16,
    /// True when unknown peers may be dialled.
    pub discovery: bool,
    /// True when we pass on datagrams for others.
    pub relay: bool,
    /// Offer this data cipher only.
    pub cipher: Option<CipherSuite>,
    /// When epochs are replaced.
    pub rekey: RekeyConfig,
    /// How addresses are given; `None`: they are not.
    pub addresses: Option<AddressConfig>,
}

/// How addresses are given.
#[derive(Debug, Clone)]
pub struct AddressConfig {
    /// Where they come from.
    pub range: Ipv4Net,
    /// What `net:default` means.
    pub default_subnet: Ipv4Net,
    /// Prefix of IPv6 addresses that go with those of the default subnet.
    pub range6: Option<Ipv6Net>,
    /// How the first ring comes about.
    pub init: IpamInit,
}

impl AddressConfig {
    /// The machine, where the last run left it.
    pub(crate) fn begin(
        self,
        loaded: &Loaded,
        name: PeerName,
        random: &mut Randomness,
        now: Instant,
    ) -> Ipam {
        let mut config = IpamConfig::new(loaded.identity.peer_id(), name, self.range, self.init);
        config.default_subnet = self.default_subnet;
        config.range6 = self.range6;
        config.incarnation = loaded.incarnation;
        let ipam = Ipam::new(config, loaded.ipam.clone(), random.fork(), now);
        let mut ipam = ipam.expect("the store was read through when it was opened");
        if loaded.is_unwritten {
            ipam.begin_without_store();
        }
        ipam
    }
}

/// What the data directory holds.
pub(crate) struct Loaded {
    pub(crate) identity: Identity,
    pub(crate) store: Store,
    pub(crate) incarnation: u64,
    pub(crate) targets: Vec<String>,
    pub(crate) ipam: StoreContent,
    /// The disk takes no writes.
    pub(crate) is_unwritten: bool,
}

/// With what the state is taken up.
pub(crate) struct Start {
    data_dir: PathBuf,
    given: Vec<String>,
    resume: bool,
    /// Where addresses come from, and the prefix of those of IPv6; none if none are given.
    ranges: Option<(Ipv4Net, Option<Ipv6Net>)>,
}

impl Start {
    pub(crate) fn of(config: &DriverConfig) -> Self {
        Self {
            data_dir: config.data_dir.clone(),
            given: config.targets.clone(),
            resume: config.resume,
            ranges: config
                .addresses
                .as_ref()
                .map(|addresses| (addresses.range, addresses.range6)),
        }
    }

    /// Takes up the state and counts this start; blocks.
    pub(crate) fn load(self) -> Result<Loaded, ControlError> {
        let no_place = |error: ControlError| match store::known_identity(&self.data_dir) {
            Err(_) if error.is_of_disk() => ControlError::NoPlace {
                path: self.data_dir.clone(),
                source: Box::new(error),
            },
            Err(_) | Ok(_) => error,
        };
        let store = Store::open(&self.data_dir).map_err(no_place)?;
        let identity = store::load_identity(&self.data_dir).map_err(no_place)?;
        // Before anything else is written: a write that fails closes the store.
        let ipam = self
            .ranges
            .map_or_else(|| store.ipam(), |(range, _)| store.ipam_of(range))?;
        let range6 = self.ranges.map(|(_, range6)| range6);
        let targets = choose_targets(self.given, &store.targets(), self.resume);
        let (incarnation, is_unwritten) = match count_start(&store, &targets, range6) {
            Ok(incarnation) => (incarnation, false),
            Err(error) if error.is_of_disk() => {
                let reason: &dyn std::error::Error = &error;
                tracing::error!(
                    error = reason,
                    "the store takes no writes: no addresses are given"
                );
                (store.owe_start(&targets), true)
            }
            Err(error) => return Err(error),
        };
        Ok(Loaded {
            identity,
            store,
            incarnation,
            targets,
            ipam,
            is_unwritten,
        })
    }
}

fn count_start(
    store: &Store,
    targets: &[String],
    range6: Option<Option<Ipv6Net>>,
) -> Result<u64, ControlError> {
    if targets != store.targets() {
        store.set_targets(targets)?;
    }
    let incarnation = store.next_incarnation()?;
    if let Some(range6) = range6 {
        store.set_range6(range6)?;
    }
    Ok(incarnation)
}

fn choose_targets(given: Vec<String>, saved: &[String], resume: bool) -> Vec<String> {
    let keeps_saved = resume || given.is_empty();
    let kept: &[String] = if keeps_saved { saved } else { &[] };
    let mut targets = kept.to_vec();
    for target in given {
        if !targets.contains(&target) {
            targets.push(target);
        }
    }
    targets
}

/// The ciphers that we offer to peers.
pub(crate) fn offered<E: EngineHandle>(engine: &E, pinned: Option<CipherSuite>) -> Vec<CipherCost> {
    let measured = engine.ciphers();
    measured
        .into_iter()
        .filter(|cipher| pinned.is_none_or(|pinned| cipher.suite == pinned))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn given_targets_replace_saved_ones_unless_resumed() {
        for (given, resume, wanted) in [
            ("", false, "a b"),
            ("", true, "a b"),
            ("c", false, "c"),
            ("c a", true, "a b c"),
        ] {
            assert_eq!(
                choose_targets(list(given), &list("a b"), resume),
                list(wanted)
            );
        }
    }

    #[test]
    fn each_start_counts_and_keeps_the_identity() {
        let dir = tempfile::tempdir().unwrap();
        let start = |given| Start {
            data_dir: dir.path().to_owned(),
            given: list(given),
            resume: false,
            ranges: None,
        };
        let first = start("a").load().unwrap();
        let (id, incarnation) = (first.identity.peer_id(), first.incarnation);
        drop(first);

        let second = start("").load().unwrap();

        assert_eq!(second.identity.peer_id(), id);
        assert_eq!(second.incarnation, incarnation + 1);
        assert_eq!(second.targets, ["a"]);
    }
}
