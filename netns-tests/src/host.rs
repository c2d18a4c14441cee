//! A host, router or container: one network namespace.

use std::fs::File;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use nix::sched::{CloneFlags, setns};

/// A network namespace by name, as `ip netns` knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    name: String,
    docker: Option<DockerPlace>,
}

/// Where a host with Docker has its own things.
#[derive(Debug, Clone, PartialEq, Eq)]
struct DockerPlace {
    /// The namespace of its mounts.
    mounts: PathBuf,
    socket: PathBuf,
}

impl Host {
    pub(crate) fn add(name: &str) -> Self {
        let host = Self {
            name: name.to_owned(),
            docker: None,
        };
        let status = Command::new("ip")
            .args(["netns", "add", name])
            .status()
            .expect("iproute2 is installed");
        assert!(status.success(), "add the network namespace {name}");
        host.run(&["ip", "link", "set", "lo", "up"]);
        host
    }

    /// The namespace of a process, under a name; it is the process's own and goes with it.
    pub(crate) fn of_process(name: &str, pid: &str) -> Self {
        let status = Command::new("ip")
            .args(["netns", "attach", name, pid])
            .status()
            .expect("iproute2 is installed");
        assert!(status.success(), "name the namespace of {pid} {name}");
        Self {
            name: name.to_owned(),
            docker: None,
        }
    }

    /// Deletes the namespace, as the owner of a container would: it is gone as soon as nothing runs in it.
    ///
    /// # Panics
    ///
    /// If there is none.
    pub fn remove(&self) {
        let status = Command::new("ip")
            .args(["netns", "del", &self.name])
            .status()
            .expect("iproute2 is installed");
        assert!(
            status.success(),
            "delete the network namespace {}",
            self.name
        );
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// As `weft attach` takes it.
    #[must_use]
    pub fn as_container(&self) -> String {
        format!("netns:{}", self.name)
    }

    /// The same host, whose programs see these mounts and may know of Docker's socket.
    pub(crate) fn with_mounts(&self, mounts: &Path, socket: &Path) -> Self {
        let docker = Some(DockerPlace {
            mounts: mounts.to_path_buf(),
            socket: socket.to_path_buf(),
        });
        Self {
            name: self.name.clone(),
            docker,
        }
    }

    /// Docker's socket, if the host has a Docker.
    #[must_use]
    pub fn docker_socket(&self) -> Option<&Path> {
        self.docker.as_ref().map(|place| place.socket.as_path())
    }

    /// A program that will run here. What leads there becomes the program, so its pid is the program's.
    #[must_use]
    pub fn command(&self, program: &str) -> Command {
        let mut command;
        if let Some(place) = &self.docker {
            // `ip netns exec` would hide the control groups.
            command = Command::new("nsenter");
            command.arg(format!("--net=/run/netns/{}", self.name));
            command.arg(format!("--mount={}", place.mounts.display()));
            command.args(["--", program]);
        } else {
            command = Command::new("ip");
            command.args(["netns", "exec", &self.name, program]);
        }
        command.stdin(Stdio::null());
        command
    }

    /// Runs a program here to the end, whatever comes of it.
    ///
    /// # Panics
    ///
    /// If it cannot be started.
    #[must_use]
    pub fn output(&self, words: &[&str]) -> Output {
        let (program, arguments) = words.split_first().expect("a command has a first word");
        let output = self.command(program).args(arguments).output();
        output.unwrap_or_else(|error| panic!("{}: {words:?}: {error}", self.name))
    }

    /// Runs a program here and returns its stdout.
    ///
    /// # Panics
    ///
    /// If it fails.
    pub fn run(&self, words: &[&str]) -> String {
        let output = self.output(words);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success(),
            "{}: {words:?}: {}: {said}",
            self.name,
            output.status
        );
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Runs `work` on a thread inside this namespace: sockets it opens belong here.
    ///
    /// # Panics
    ///
    /// If `work` panics.
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| {
            let worker = scope.spawn(|| {
                self.enter();
                work()
            });
            worker
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// As [`Host::inside`], in the background.
    pub fn spawn<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> JoinHandle<T> {
        let host = self.clone();
        thread::spawn(move || {
            host.enter();
            work()
        })
    }

    fn enter(&self) {
        let path = PathBuf::from("/run/netns").join(&self.name);
        let namespace =
            File::open(&path).unwrap_or_else(|error| panic!("open {}: {error}", path.display()));
        setns(namespace, CloneFlags::CLONE_NEWNET)
            .expect("a process may enter a namespace that it made");
    }

    /// Gives a device another address; IPv6 ones are usable at once.
    pub fn add_address(&self, device: &str, address: &str) {
        if address.contains(':') {
            self.run(&["ip", "address", "add", address, "dev", device, "nodad"]);
        } else {
            self.run(&["ip", "address", "add", address, "dev", device]);
        }
    }

    /// Sends what no other route takes to `gateway`.
    pub fn route_all_via(&self, gateway: &str) {
        self.run(&["ip", "route", "replace", "default", "via", gateway]);
    }

    /// Forwards IPv4 and IPv6 between its devices.
    pub fn be_a_router(&self) {
        self.run(&[
            "sysctl",
            "-qw",
            "net.ipv4.ip_forward=1",
            "net.ipv6.conf.all.forwarding=1",
        ]);
    }

    /// Sets a device's MTU in bytes.
    pub fn set_mtu(&self, device: &str, mtu: u32) {
        self.run(&["ip", "link", "set", device, "mtu", &mtu.to_string()]);
    }

    /// Switches features of a device, as `ethtool -K` names them.
    pub fn set_features(&self, device: &str, features: &[&str], on: bool) {
        for feature in features {
            self.run(&[
                "ethtool",
                "-K",
                device,
                feature,
                if on { "on" } else { "off" },
            ]);
        }
    }

    /// Makes what leaves through a device fit its MTU and carry its checksums.
    pub fn send_as_on_a_wire(&self, device: &str) {
        self.set_features(device, &["tso", "gso", "tx-udp-segmentation", "tx"], false);
    }

    /// Makes each UDP datagram leave singly, as on a wire, instead of in one large buffer.
    pub fn send_datagrams_singly(&self, device: &str) {
        self.set_features(device, &["tx-udp-segmentation"], false);
    }

    /// Limits what leaves through a device, in Mbit/s.
    pub fn limit_rate(&self, device: &str, mbit_per_s: u32) {
        let rate = format!("{mbit_per_s}mbit");
        let bucket = ["tbf", "rate", &rate, "burst", "128kb", "latency", "50ms"];
        self.run(
            &[
                &["tc", "qdisc", "replace", "dev", device, "root"],
                &bucket[..],
            ]
            .concat(),
        );
    }

    /// Translates what leaves through a device to its address, as a home router does: a port stays the same where it
    /// can, and only who was spoken to may answer, from the same port.
    pub fn masquerade(&self, device: &str) {
        self.translate(device, "masquerade");
    }

    /// As [`Host::masquerade`], but the router takes what strangers send to itself, as one without a firewall does, and
    /// for a while keeps the port for them to which they sent.
    pub fn masquerade_openly(&self, device: &str) {
        self.run(&[
            "nft",
            &format!("table ip translation {{ {}; }}", out(device, "masquerade")),
        ]);
    }

    /// As [`Host::masquerade`], with another random port for each address and port spoken to.
    pub fn masquerade_randomly(&self, device: &str) {
        self.translate(device, "masquerade random,fully-random");
    }

    fn translate(&self, device: &str, how: &str) {
        let out = out(device, how);
        // Without this a stranger's datagram, meant for the router itself, would take the port that the one inside
        // needs a moment later.
        let own = format!(
            "chain own {{ type filter hook input priority 0; iifname {device} ct state new drop; }}"
        );
        self.run(&["nft", &format!("table ip translation {{ {out}; {own}; }}")]);
    }

    /// Adds an nft table of this name (family `inet`) with one chain, before everything else, that holds `rules`.
    pub fn add_rules(&self, table: &str, rules: &str) {
        self.run(&["nft", &first_chain(table, rules)]);
    }

    /// The same in place of what the table held, if it is there, in one step: no packet passes in between.
    pub fn replace_rules(&self, table: &str, rules: &str) {
        let empty = format!("table inet {table} {{ }}; delete table inet {table};");
        let added = first_chain(table, rules);
        self.run(&["nft", &format!("{empty} {added}")]);
    }

    /// Removes what [`Host::add_rules`] added.
    pub fn remove_rules(&self, table: &str) {
        self.run(&["nft", "delete", "table", "inet", table]);
    }

    /// Loses this share of what arrives on a device.
    pub fn lose_percent(&self, device: &str, percent: u32) {
        self.add_rules(
            "lossy",
            &format!("iifname {device} numgen random mod 100 < {percent} drop;"),
        );
    }

    /// Loses everything that arrives on a device until [`Host::heal`].
    pub fn black_hole(&self, device: &str) {
        self.add_rules("hole", &format!("iifname {device} drop;"));
    }

    /// Ends [`Host::black_hole`].
    pub fn heal(&self) {
        self.remove_rules("hole");
    }

    /// Whether a device of this name exists.
    #[must_use]
    pub fn has_device(&self, device: &str) -> bool {
        self.output(&["ip", "link", "show", "dev", device])
            .status
            .success()
    }

    /// A file of `/sys/class/net/DEVICE`, trimmed.
    #[must_use]
    pub fn device_file(&self, device: &str, file: &str) -> String {
        self.run(&["cat", &format!("/sys/class/net/{device}/{file}")])
            .trim()
            .to_owned()
    }

    /// The device here that is the other end of `device` in `container`.
    ///
    /// # Panics
    ///
    /// If there is none.
    #[must_use]
    pub fn other_end_of(&self, container: &Self, device: &str) -> String {
        let index = container.device_file(device, "iflink");
        let links = self.run(&["ip", "-o", "link", "show"]);
        let line = links
            .lines()
            .find(|line| line.starts_with(&format!("{index}: ")));
        let line = line.unwrap_or_else(|| panic!("{} has no device {index}", self.name));
        let name = line
            .split(": ")
            .nth(1)
            .expect("ip -o prints `index: name: …`");
        name.split('@')
            .next()
            .expect("split yields at least one part")
            .to_owned()
    }

    /// A counter of `/proc/net/snmp` or `/proc/net/netstat`, such as `Tcp` `InCsumErrors`.
    ///
    /// # Panics
    ///
    /// If the kernel has no such counter.
    #[must_use]
    pub fn kernel_counter(&self, protocol: &str, counter: &str) -> u64 {
        let text = self.run(&["cat", "/proc/net/snmp", "/proc/net/netstat"]);
        let prefix = format!("{protocol}: ");
        let mut lines = text.lines().filter_map(|line| line.strip_prefix(&prefix));
        let (names, values) = (
            lines.next().unwrap_or_default(),
            lines.next().unwrap_or_default(),
        );
        let mut pairs = names.split(' ').zip(values.split(' '));
        let value = pairs
            .find(|(name, _)| *name == counter)
            .and_then(|(_, value)| value.parse().ok());
        value.unwrap_or_else(|| panic!("the kernel counts no {protocol} {counter}"))
    }

    /// Whether one echo request to `address` is answered within a second.
    #[must_use]
    pub fn reaches(&self, address: IpAddr) -> bool {
        self.reaches_within(address, Duration::from_secs(1))
    }

    /// Whether one echo request to `address` is answered in this time.
    #[must_use]
    pub fn reaches_within(&self, address: IpAddr, limit: Duration) -> bool {
        let (address, limit) = (address.to_string(), limit.as_secs_f64().to_string());
        self.output(&["ping", "-n", "-q", "-c", "1", "-W", &limit, &address])
            .status
            .success()
    }
}

/// An nft table of this name with one chain before everything else.
fn first_chain(table: &str, rules: &str) -> String {
    let chain = format!("chain first {{ type filter hook prerouting priority -350; {rules} }}");
    format!("table inet {table} {{ {chain}; }}")
}

/// The chain of a translator.
fn out(device: &str, how: &str) -> String {
    format!("chain out {{ type nat hook postrouting priority 100; oifname {device} {how}; }}")
}
