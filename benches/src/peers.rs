//! What is measured: weft in its variants, and the programs beside it.

mod engine;
mod nebula;
mod openvpn;
mod plain;
mod tinc;
mod vpncloud;
mod weft;
mod wireguard;

use anyhow::{Result, bail};

use crate::backends::Backend;
use crate::install::Tools;
use crate::pair::{Netns, Pair};
use crate::program::Daemon;
use crate::sandbox::RUN;

/// A program to measure, set up in one way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Peer {
    name: &'static str,
    kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Raw,
    Vxlan,
    Weft(weft::Variant),
    Vpncloud,
    Boringtun,
    Nebula,
    WireguardGo,
    Openvpn,
    Tinc,
    Engine(Backend),
}

const ALL: [Peer; 13] = [
    Peer {
        name: "raw",
        kind: Kind::Raw,
    },
    Peer {
        name: "vxlan",
        kind: Kind::Vxlan,
    },
    Peer {
        name: "weft-uring-aes",
        kind: Kind::Weft(weft::URING_AES),
    },
    Peer {
        name: "weft-uring-aes-1424",
        kind: Kind::Weft(weft::URING_AES_1424),
    },
    Peer {
        name: "weft-uring-chacha",
        kind: Kind::Weft(weft::URING_CHACHA),
    },
    Peer {
        name: "weft-epoll-aes",
        kind: Kind::Weft(weft::EPOLL_AES),
    },
    Peer {
        name: "weft-epoll-chacha",
        kind: Kind::Weft(weft::EPOLL_CHACHA),
    },
    Peer {
        name: "vpncloud",
        kind: Kind::Vpncloud,
    },
    Peer {
        name: "openvpn",
        kind: Kind::Openvpn,
    },
    Peer {
        name: "tinc",
        kind: Kind::Tinc,
    },
    Peer {
        name: "nebula",
        kind: Kind::Nebula,
    },
    Peer {
        name: "wireguard-go",
        kind: Kind::WireguardGo,
    },
    Peer {
        name: "boringtun",
        kind: Kind::Boringtun,
    },
];

/// The engine alone on each backend.
const BACKENDS: [Peer; 4] = [
    Peer {
        name: "io_uring",
        kind: Kind::Engine(Backend::IoUring),
    },
    Peer {
        name: "epoll",
        kind: Kind::Engine(Backend::Epoll),
    },
    Peer {
        name: "tokio-uring-1",
        kind: Kind::Engine(Backend::TokioUring { receives: 1 }),
    },
    Peer {
        name: "tokio-uring-16",
        kind: Kind::Engine(Backend::TokioUring { receives: 16 }),
    },
];

impl Peer {
    /// The peers of these names, all if there are none; `weft` stands for all its variants.
    pub(crate) fn select(names: &[String]) -> Result<Vec<Self>> {
        if names.is_empty() {
            return Ok(ALL.to_vec());
        }
        let mut selected: Vec<Self> = Vec::new();
        for name in names {
            let matching = |peer: &&Self| peer.name == name || (name == "weft" && peer.is_weft());
            let found: Vec<Self> = ALL.iter().filter(matching).copied().collect();
            if found.is_empty() {
                let known = ALL.map(|peer| peer.name).join(", ");
                bail!("unknown peer {name}: it is none of {known}, weft");
            }
            selected.extend(
                found
                    .into_iter()
                    .filter(|peer| !selected.contains(peer))
                    .collect::<Vec<_>>(),
            );
        }
        Ok(selected)
    }

    /// The engine on the backends of these names, all if there are none.
    pub(crate) fn select_backends(names: &[String]) -> Result<Vec<Self>> {
        let known = BACKENDS.map(|peer| peer.name);
        if let Some(name) = names.iter().find(|name| !known.contains(&name.as_str())) {
            bail!("unknown backend {name}: it is none of {}", known.join(", "));
        }
        let is_wanted =
            |peer: &Self| names.is_empty() || names.iter().any(|name| name == peer.name);
        Ok(BACKENDS.into_iter().filter(is_wanted).collect())
    }

    pub(crate) fn name(&self) -> &'static str {
        self.name
    }

    pub(crate) fn is_weft(&self) -> bool {
        matches!(self.kind, Kind::Weft(_))
    }

    /// Programs it needs, with the distribution's package of each.
    pub(crate) fn packages(&self) -> &'static [(&'static str, &'static str)] {
        match self.kind {
            Kind::Raw | Kind::Vxlan | Kind::Weft(_) | Kind::Vpncloud | Kind::Engine(_) => &[],
            Kind::Boringtun => &[("wg", "wireguard-tools")],
            Kind::WireguardGo => &[("wireguard-go", "wireguard-go"), ("wg", "wireguard-tools")],
            Kind::Nebula => &[("nebula", "nebula"), ("nebula-cert", "nebula")],
            Kind::Openvpn => &[("openvpn", "openvpn"), ("openssl", "openssl")],
            Kind::Tinc => &[("tincd", "tinc"), ("openssl", "openssl")],
        }
    }

    /// Crate, version and program, if cargo installs it.
    pub(crate) fn cargo_crate(&self) -> Option<(&'static str, &'static str, &'static str)> {
        match self.kind {
            Kind::Vpncloud => Some(("vpncloud", "2.3.0", "vpncloud")),
            Kind::Boringtun => Some(("boringtun-cli", "0.7.1", "boringtun-cli")),
            Kind::Raw
            | Kind::Vxlan
            | Kind::Weft(_)
            | Kind::Nebula
            | Kind::WireguardGo
            | Kind::Openvpn
            | Kind::Tinc
            | Kind::Engine(_) => None,
        }
    }

    /// Makes the tunnel; its ends may not answer yet.
    pub(crate) fn start(&self, pair: &Pair, tools: &Tools) -> Result<Tunnel> {
        match self.kind {
            Kind::Raw => plain::raw(pair),
            Kind::Vxlan => plain::vxlan(pair),
            Kind::Weft(variant) => variant.start(pair, tools),
            Kind::Vpncloud => vpncloud::start(pair, tools),
            Kind::Boringtun => wireguard::boringtun(pair, tools),
            Kind::WireguardGo => wireguard::wireguard_go(pair),
            Kind::Nebula => nebula::start(pair),
            Kind::Openvpn => openvpn::start(pair),
            Kind::Tinc => tinc::start(pair),
            Kind::Engine(backend) => engine::start(pair, backend),
        }
    }
}

/// A tunnel that stands; dropped, its daemons end.
pub(crate) struct Tunnel {
    /// Where load starts and where it arrives.
    pub(crate) ends: [Netns; 2],
    /// The second end's address.
    pub(crate) address: &'static str,
    /// MTU inside, bytes.
    pub(crate) mtu: u32,
    daemons: Vec<Daemon>,
    weft: Option<weft::Daemons>,
}

impl Tunnel {
    /// All processes that carry it.
    pub(crate) fn pids(&self) -> Vec<u32> {
        let weft = self.weft.iter().flat_map(weft::Daemons::pids);
        self.daemons.iter().map(Daemon::pid).chain(weft).collect()
    }

    /// The ends of the daemons' logs.
    pub(crate) fn last_words(&self) -> String {
        let weft = self.weft.iter().map(weft::Daemons::last_words);
        self.daemons
            .iter()
            .map(Daemon::last_words)
            .chain(weft)
            .collect::<Vec<_>>()
            .join("\n")
    }
}

/// Makes an empty folder for a peer's files.
fn folder(name: &str) -> Result<String> {
    let path = format!("{RUN}/{name}");
    if std::fs::exists(&path)? {
        std::fs::remove_dir_all(&path)?;
    }
    std::fs::create_dir_all(&path)?;
    Ok(path)
}
