//! Finds the programs that a run needs, and installs what is missing: from the distribution, or with cargo into a cache.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::peers::Peer;
use crate::{program, sandbox};

/// A program and the distribution's package that has it.
struct Packaged {
    program: &'static str,
    package: &'static str,
}

const BASE: [Packaged; 6] = [
    Packaged {
        program: "ip",
        package: "iproute2",
    },
    Packaged {
        program: "iperf3",
        package: "iperf3",
    },
    Packaged {
        program: "ethtool",
        package: "ethtool",
    },
    Packaged {
        program: "nft",
        package: "nftables",
    },
    Packaged {
        program: "ping",
        package: "iputils-ping",
    },
    Packaged {
        program: "sysctl",
        package: "procps",
    },
];

/// Where everything is.
pub(crate) struct Tools {
    weft: Option<PathBuf>,
    cargo_root: PathBuf,
}

impl Tools {
    /// Looks for all that `peers` need; `install`s what is missing, or fails naming it.
    pub(crate) fn find(peers: &[Peer], weft: Option<&Path>, install: bool) -> Result<Self> {
        let mut tools = Self {
            weft: None,
            cargo_root: cargo_root()?,
        };
        tools.find_packaged(peers, install)?;
        for peer in peers {
            if let Some((krate, version, program)) = peer.cargo_crate() {
                tools.find_crate(krate, version, program, install)?;
            }
        }
        if peers.iter().any(|peer| peer.is_weft()) {
            tools.weft = Some(find_weft(weft)?);
        }
        Ok(tools)
    }

    fn find_packaged(&self, peers: &[Peer], install: bool) -> Result<()> {
        let of_peers = peers
            .iter()
            .flat_map(|peer| peer.packages().iter().copied());
        let wanted = BASE
            .iter()
            .map(|base| (base.program, base.package))
            .chain(of_peers);
        let mut missing: Vec<&str> = Vec::new();
        for (program, package) in wanted {
            if in_path(program).is_none() && !missing.contains(&package) {
                missing.push(package);
            }
        }
        if missing.is_empty() {
            return Ok(());
        }
        if !install || !sandbox::is_root() {
            bail!(
                "missing packages: run `sudo apt-get install {}`",
                missing.join(" ")
            );
        }
        let apt = |words: &[&str]| {
            let mut apt = Command::new("apt-get");
            apt.arg("--yes")
                .args(words)
                .env("DEBIAN_FRONTEND", "noninteractive");
            program::run(&mut apt).map(drop)
        };
        eprintln!("weft-benches: installing {}", missing.join(" "));
        apt(&["update"])?;
        apt(&[&["install", "--no-install-recommends"], missing.as_slice()].concat())
    }

    fn find_crate(&self, krate: &str, version: &str, program: &str, install: bool) -> Result<()> {
        if self.cargo_root.join("bin").join(program).exists() {
            return Ok(());
        }
        let root = self.cargo_root.display();
        if !install {
            bail!(
                "missing {program}: run `cargo install --locked {krate}@{version} --root {root}`"
            );
        }
        eprintln!("weft-benches: building {krate} {version} into {root}");
        let mut cargo = Command::new("cargo");
        cargo
            .args([
                "install",
                "--locked",
                &format!("{krate}@{version}"),
                "--root",
            ])
            .arg(&self.cargo_root);
        cargo.env("CARGO_TARGET_DIR", self.cargo_root.join("build"));
        program::run(&mut cargo)
            .map(drop)
            .with_context(|| format!("build {krate}"))
    }

    /// A program that cargo installed.
    pub(crate) fn of_cargo(&self, program: &str) -> String {
        self.cargo_root
            .join("bin")
            .join(program)
            .to_string_lossy()
            .into_owned()
    }

    /// The weft binary.
    pub(crate) fn weft(&self) -> Result<String> {
        let path = self.weft.as_ref().context("weft was not asked for")?;
        Ok(path.to_string_lossy().into_owned())
    }
}

fn in_path(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path)
        .map(|folder| folder.join(program))
        .find(|file| file.is_file())
}

fn cargo_root() -> Result<PathBuf> {
    let cache = env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let home = || env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache"));
    Ok(cache
        .or_else(home)
        .context("neither XDG_CACHE_HOME nor HOME is set")?
        .join("weft-peers"))
}

fn find_weft(given: Option<&Path>) -> Result<PathBuf> {
    let beside = env::current_exe()
        .context("find this program")?
        .with_file_name("weft");
    let path = given.map_or(beside, Path::to_path_buf);
    if !path.is_file() {
        bail!(
            "no weft binary at {}: run `cargo build --release`, or give --weft FILE",
            path.display()
        );
    }
    path.canonicalize()
        .with_context(|| format!("find {}", path.display()))
}
