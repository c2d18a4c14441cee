//! The lab: hosts and the wires between them.

use std::cell::RefCell;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::dockerd::Dockerd;
use crate::host::Host;
use crate::sandbox::{LAB_BINARIES, weft_binary};
use crate::terminal::Terminal;
use crate::weft::Weft;

/// Files of this lab; in the private `/run`, so they go with it.
const FOLDER: &str = "/run/lab";
/// Lines of each log that a failed test shows.
const LOG_TAIL_LINES: usize = 60;

/// Makes hosts, wires and daemons; shows the daemons' logs when its test fails.
#[derive(Debug)]
pub struct Lab {
    binary: PathBuf,
    hosts: RefCell<Vec<Host>>,
}

impl Lab {
    pub(crate) fn new() -> Self {
        fs::create_dir_all(FOLDER).expect("the private /run is writable");
        // A copy that any user may run, wherever the build folder lies.
        let binary = Path::new(LAB_BINARIES).join("weft");
        fs::copy(weft_binary(), &binary).expect("the binary can be copied");
        Self {
            binary,
            hosts: RefCell::new(Vec::new()),
        }
    }

    /// The binary under test, where every user may run it.
    #[must_use]
    pub fn binary(&self) -> &Path {
        &self.binary
    }

    /// The lab's folder for files, gone when the test ends.
    #[must_use]
    pub fn folder(&self) -> &Path {
        Path::new(FOLDER)
    }

    /// A new host without any device but `lo`; routers and containers are hosts too.
    #[must_use]
    pub fn host(&self, name: &str) -> Host {
        let host = Host::add(name);
        self.hosts.borrow_mut().push(host.clone());
        host
    }

    /// Hosts `a`, 192.0.2.1, and `b`, 192.0.2.2, on one wire between their `eth0`.
    #[must_use]
    pub fn two_hosts(&self) -> [Host; 2] {
        let hosts = [self.host("a"), self.host("b")];
        self.link(
            (&hosts[0], "eth0", "192.0.2.1/24"),
            (&hosts[1], "eth0", "192.0.2.2/24"),
        );
        hosts
    }

    /// Joins two hosts by a veth pair; an end is host, device and address with prefix length.
    pub fn link(&self, one: (&Host, &str, &str), other: (&Host, &str, &str)) {
        let mut command = Command::new("ip");
        command.args([
            "-n",
            one.0.name(),
            "link",
            "add",
            "name",
            one.1,
            "type",
            "veth",
        ]);
        command.args(["peer", "name", other.1, "netns", other.0.name()]);
        assert!(
            command.status().expect("iproute2 is installed").success(),
            "link {one:?} and {other:?}"
        );
        for (host, device, address) in [one, other] {
            host.add_address(device, address);
            host.run(&["ip", "link", "set", device, "up"]);
        }
    }

    /// A switch: a host whose bridge `br0` joins what is plugged in.
    #[must_use]
    pub fn switch(&self, name: &str) -> Host {
        let switch = self.host(name);
        switch.run(&["ip", "link", "add", "br0", "type", "bridge"]);
        switch.run(&["ip", "link", "set", "br0", "up"]);
        switch
    }

    /// Plugs a host's new `device` into a switch; the switch's port is called after the host.
    pub fn plug(&self, switch: &Host, host: &Host, device: &str, address: &str) {
        let port = host.name();
        let mut command = Command::new("ip");
        command.args([
            "-n",
            switch.name(),
            "link",
            "add",
            "name",
            port,
            "type",
            "veth",
        ]);
        command.args(["peer", "name", device, "netns", host.name()]);
        assert!(
            command.status().expect("iproute2 is installed").success(),
            "plug in {host:?}"
        );
        switch.run(&["ip", "link", "set", "dev", port, "master", "br0", "up"]);
        host.add_address(device, address);
        host.run(&["ip", "link", "set", device, "up"]);
    }

    /// weft on a host, not launched yet, with runtime files and state of its own.
    #[must_use]
    pub fn weft(&self, host: &Host) -> Weft {
        Weft::new(host, &self.binary, &self.folder().join(host.name()))
    }

    /// Docker on a host, serving, with these flags besides the lab's own; in a lab of [`crate::in_docker_lab`].
    #[must_use]
    pub fn dockerd(&self, host: &Host, flags: &[&str]) -> Dockerd {
        let [dockerd] = self.dockerds([host], flags);
        dockerd
    }

    /// The same on several hosts, started together.
    #[must_use]
    pub fn dockerds<const N: usize>(&self, hosts: [&Host; N], flags: &[&str]) -> [Dockerd; N] {
        let start = |host: &Host| Dockerd::start(host, &self.folder().join(host.name()), flags);
        let mut dockerds = hosts.map(start);
        dockerds.iter_mut().for_each(Dockerd::make_ready);
        dockerds
    }

    /// The first of two hosts with Docker and with weft, whose addresses are ready.
    #[must_use]
    pub fn docker_and_weft(&self, docker: &[&str], launch: &[&str]) -> (Dockerd, Weft) {
        let [host, _] = self.two_hosts();
        let dockerd = self.dockerd(&host, docker);
        let weft = self.weft(dockerd.host());
        weft.ok(&[&["launch"], launch].concat());
        weft.ok(&["prime"]);
        (dockerd, weft)
    }

    /// A shell on a host, with these variables; on one with Docker that is [`Dockerd::host`].
    #[must_use]
    pub fn terminal(&self, host: &Host, variables: &[(&str, &str)]) -> Terminal {
        let folder = self.folder().join(host.name());
        Terminal::open(host, &folder.to_string_lossy(), variables)
    }

    /// The daemons' logs on every host, each from its end.
    fn logs(&self) -> String {
        let mut text = String::new();
        for host in self.hosts.borrow().iter() {
            for name in ["run/weft.log", "dockerd.log"] {
                let path = self.folder().join(host.name()).join(name);
                let Ok(log) = fs::read_to_string(&path) else {
                    continue;
                };
                let lines: Vec<&str> = log.lines().collect();
                let tail = lines[lines.len().saturating_sub(LOG_TAIL_LINES)..].join("\n");
                text.push_str(&format!("--- {name} of {}\n{tail}\n", host.name()));
            }
        }
        text
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // Written past the test harness, as the panic message is.
            let _ = writeln!(std::io::stderr(), "{}", self.logs());
        }
    }
}
