//! weft as a user sets it up: `launch` on both hosts, `attach` a container on each.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::install::Tools;
use crate::pair::{INNER, Netns, OUTER, Pair};
use crate::peers::{Tunnel, folder};
use crate::{program, wait};

/// The flags that make a difference.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Variant {
    io: &'static str,
    cipher: &'static str,
    mtu: u32,
}

/// weft's default, which leaves room for relays.
const MTU_DEFAULT: u32 = 1376;
/// The most that a direct path over 1500 bytes carries in one datagram.
const MTU_DIRECT: u32 = 1424;

pub(super) const URING_AES: Variant = Variant {
    io: "uring",
    cipher: "aes-256-gcm",
    mtu: MTU_DEFAULT,
};
pub(super) const URING_AES_1424: Variant = Variant {
    mtu: MTU_DIRECT,
    ..URING_AES
};
pub(super) const URING_CHACHA: Variant = Variant {
    cipher: "chacha20-poly1305",
    ..URING_AES
};
pub(super) const EPOLL_AES: Variant = Variant {
    io: "epoll",
    ..URING_AES
};
pub(super) const EPOLL_CHACHA: Variant = Variant {
    io: "epoll",
    ..URING_CHACHA
};

impl Variant {
    pub(super) fn start(self, pair: &Pair, tools: &Tools) -> Result<Tunnel> {
        let mut daemons = Daemons {
            binary: tools.weft()?,
            running: Vec::new(),
        };
        let ends = pair.containers()?;
        for (side, host) in pair.hosts.iter().enumerate() {
            let folder = folder(&format!("weft-{side}"))?;
            let mtu = self.mtu.to_string();
            let mut arguments = vec![
                "launch",
                "--no-plugin",
                "--password",
                "bench",
                "--io",
                self.io,
                "--cipher",
                self.cipher,
            ];
            arguments.extend(["--mtu", &mtu]);
            if side == 1 {
                arguments.push(OUTER[0]);
            }
            daemons.launch(host, &folder, &arguments)?;
            let address = format!("{}/24", INNER[side]);
            let container = format!("netns:{}", ends[side].name());
            program::run(
                daemons
                    .weft(host, &folder)
                    .args(["attach", &address, &container]),
            )?;
        }
        Ok(Tunnel {
            ends,
            address: INNER[1],
            mtu: self.mtu,
            daemons: Vec::new(),
            weft: Some(daemons),
        })
    }
}

/// The two daemons, which run in the background on their own; dropped, they are killed.
pub(super) struct Daemons {
    binary: String,
    running: Vec<(u32, String)>,
}

impl Daemons {
    fn weft(&self, host: &Netns, folder: &str) -> Command {
        let mut command = host.command(&self.binary);
        // Nothing of the caller's own settings may change what is measured.
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy();
            if text.starts_with("WEFT_") || text.starts_with("WEAVE_") {
                command.env_remove(&name);
            }
        }
        command
            .env("WEFT_RUN_DIR", format!("{folder}/run"))
            .env("WEFT_DATA_DIR", format!("{folder}/data"));
        command
    }

    fn launch(&mut self, host: &Netns, folder: &str, arguments: &[&str]) -> Result<()> {
        program::run(self.weft(host, folder).args(arguments))?;
        let file = format!("{folder}/run/weft.pid");
        let pid = std::fs::read_to_string(&file).with_context(|| format!("read {file}"))?;
        let pid = pid
            .trim()
            .parse()
            .with_context(|| format!("read a pid from {file}"))?;
        self.running.push((pid, folder.to_owned()));
        Ok(())
    }

    pub(super) fn pids(&self) -> impl Iterator<Item = u32> {
        self.running.iter().map(|(pid, _)| *pid)
    }

    pub(super) fn last_words(&self) -> String {
        let log = |folder: &str| {
            std::fs::read_to_string(format!("{folder}/run/weft.log")).unwrap_or_default()
        };
        self.running
            .iter()
            .map(|(_, folder)| log(folder))
            .collect::<Vec<_>>()
            .join("\n")
    }
}

impl Drop for Daemons {
    fn drop(&mut self) {
        for pid in self.pids() {
            // It may have died on its own; the namespaces end it at the latest.
            let _ = program::run(Command::new("kill").args(["-9", &pid.to_string()]));
            let gone = || !std::path::Path::new(&format!("/proc/{pid}")).exists();
            let _ = wait::until("the end of weft", Duration::from_secs(2), gone);
        }
    }
}
