//! The demo's hosts and containers: network namespaces joined by a switch.
//!
//! ```text
//!   c1 ── host1 192.0.2.1 ──┐                      ┌── host2 192.0.2.2 ── c2
//!  10.2.1.1                 └── bridge `underlay` ─┘               10.2.1.2
//! ```

use std::fs::{self, File};
use std::net::Ipv4Addr;
use std::path::Path;
use std::thread;

use anyhow::{Context, bail};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};

use crate::demo::sandbox::command;

/// Where the daemons keep their files, in the sandbox's own `/run`.
pub(crate) const FOLDER: &str = "/run/weft-demo";
/// Where `ip netns` and `weft attach netns:NAME` look for names.
pub(crate) const NAMESPACES: &str = "/run/netns";
/// The switch between the hosts.
const SWITCH: &str = "underlay";

/// Returns the underlay address of a host; they count from 1.
pub(crate) fn host_address(host: u8) -> Ipv4Addr {
    Ipv4Addr::new(192, 0, 2, host)
}

/// Returns the overlay address of a host's container.
pub(crate) fn container_address(host: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 2, 1, host)
}

/// A network namespace with a name.
#[derive(Debug)]
pub(crate) struct Namespace {
    file: File,
}

impl Namespace {
    /// Makes one.
    ///
    /// # Errors
    ///
    /// When the system refuses it.
    pub(crate) fn make(name: &str) -> anyhow::Result<Self> {
        let path = Path::new(NAMESPACES).join(name);
        fs::create_dir_all(NAMESPACES).with_context(|| format!("make {NAMESPACES}"))?;
        File::create(&path).with_context(|| format!("make {}", path.display()))?;
        on_thread(|| {
            unshare(CloneFlags::CLONE_NEWNET)
                .with_context(|| format!("make network namespace {name}"))?;
            let own = "/proc/thread-self/ns/net";
            let none: Option<&str> = None;
            mount(Some(own), &path, none, MsFlags::MS_BIND, none)
                .with_context(|| format!("name network namespace {name}"))?;
            ip(&["link", "set", "lo", "up"])
        })?;
        let file = File::open(&path).with_context(|| format!("open network namespace {name}"))?;
        Ok(Self { file })
    }

    /// Does something inside; sockets and processes made by it stay there.
    ///
    /// # Errors
    ///
    /// What `work` returns.
    pub(crate) fn within<T: Send>(
        &self,
        work: impl FnOnce() -> anyhow::Result<T> + Send,
    ) -> anyhow::Result<T> {
        on_thread(|| {
            setns(&self.file, CloneFlags::CLONE_NEWNET).context("enter a network namespace")?;
            work()
        })
    }
}

/// Works on a thread of its own, whose network namespace nobody else shares.
fn on_thread<T: Send>(work: impl FnOnce() -> anyhow::Result<T> + Send) -> anyhow::Result<T> {
    thread::scope(|scope| match scope.spawn(work).join() {
        Ok(outcome) => outcome,
        Err(panic) => std::panic::resume_unwind(panic),
    })
}

/// One machine of the demo.
#[derive(Debug)]
pub(crate) struct Host {
    /// `host1` and so on.
    pub(crate) name: String,
    /// Its place in the order, from 1.
    pub(crate) number: u8,
    /// The machine.
    pub(crate) machine: Namespace,
    /// A container on it.
    pub(crate) container: Namespace,
}

impl Host {
    /// Returns the run directory of its daemon.
    pub(crate) fn run_dir(&self) -> String {
        format!("{FOLDER}/{}", self.name)
    }

    /// Returns the data directory of its daemon.
    pub(crate) fn data_dir(&self) -> String {
        format!("{FOLDER}/{}/data", self.name)
    }

    /// Returns its container, as `attach` takes it.
    pub(crate) fn container_name(&self) -> String {
        format!("netns:c{}", self.number)
    }
}

/// Makes the switch and the hosts on it.
///
/// # Errors
///
/// When `ip` is missing or the system refuses a device.
pub(crate) fn build(hosts: u8) -> anyhow::Result<Vec<Host>> {
    fs::create_dir_all(FOLDER).with_context(|| format!("make {FOLDER}"))?;
    ip(&["link", "add", SWITCH, "type", "bridge"])?;
    ip(&["link", "set", SWITCH, "up"])?;
    (1..=hosts).map(build_host).collect()
}

fn build_host(number: u8) -> anyhow::Result<Host> {
    let name = format!("host{number}");
    let machine = Namespace::make(&name)?;
    let container = Namespace::make(&format!("c{number}"))?;
    let path = format!("{NAMESPACES}/{name}");
    ip(&[
        "link", "add", &name, "type", "veth", "peer", "name", "eth0", "netns", &path,
    ])?;
    ip(&["link", "set", &name, "master", SWITCH, "up"])?;
    machine.within(|| {
        ip(&[
            "addr",
            "add",
            &format!("{}/24", host_address(number)),
            "dev",
            "eth0",
        ])?;
        ip(&["link", "set", "eth0", "up"])
    })?;
    Ok(Host {
        name,
        number,
        machine,
        container,
    })
}

/// Runs `ip`, which iproute2 brings.
fn ip(arguments: &[&str]) -> anyhow::Result<()> {
    let output = command("ip")
        .args(arguments)
        .output()
        .context("run `ip` (install iproute2)")?;
    if output.status.success() {
        return Ok(());
    }
    bail!(
        "ip {}: {}",
        arguments.join(" "),
        String::from_utf8_lossy(&output.stderr).trim()
    )
}
