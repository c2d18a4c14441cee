//! Attaches containers of a real Docker by name and by id.
//!
//! ```text
//!  namespace that plays the host:  dockerd ── c1 ── ethwe ─┐
//!                                          └─ c2 ── ethwe ─┴ bridge `weft`
//! ```
//!
//! Needs root, `/dev/net/tun`, `dockerd` and a static `busybox`.
#![expect(
    clippy::unwrap_used,
    reason = "a laboratory that cannot be set up fails its test"
)]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use weft_control::driver::attach::{AttachOptions, Host};
use weft_control::driver::bridge::{self, BridgeConfig, bridge_mac};
use weft_control::driver::container::{Container, ContainerError, ContainerRef};
use weft_control::driver::docker::{Docker, DockerError};
use weft_control::driver::netlink::GsoLimits;
use weft_control::driver::netns::NetNs;

const PEER: [u8; 6] = [0xda, 0xfa, 0xeb, 0xdc, 0x28, 0x27];
const BUSYBOX: &str = "/usr/bin/busybox";
/// Each look runs a command or a connection attempt, so this is many seconds.
const LOOKS_MAX: u32 = 20_000;

/// A Docker of its own in a namespace of its own; all of it goes when it is dropped.
struct Dockerd {
    space: String,
    folder: tempfile::TempDir,
    process: Child,
}

impl Dockerd {
    /// None where it cannot be: said aloud, and a failure where the machine is supposed to be able.
    fn start() -> Option<Self> {
        let is_able = nix::unistd::geteuid().is_root()
            && ["/dev/net/tun", "/usr/sbin/dockerd", BUSYBOX]
                .iter()
                .all(|path| Path::new(path).exists());
        if !is_able {
            assert_ne!(
                std::env::var("CI").as_deref(),
                Ok("true"),
                "needs root, /dev/net/tun, dockerd and busybox"
            );
            skipped("needs root, /dev/net/tun, dockerd and busybox");
            return None;
        }
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let space = format!("attach-docker-{}-{count}", std::process::id());
        run(Command::new("ip").args(["netns", "add", &space]));
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all("/run/docker").unwrap();
        let root = folder.path().display();
        // A mount namespace of its own, so that its runtime files hide those of the machine's Docker, if any.
        let script = format!(
            "mount -t tmpfs tmpfs /run/docker && exec dockerd --data-root {root}/data --exec-root {root}/exec \
             -p {root}/pid -H unix://{root}/docker.sock --iptables=false --ip6tables=false --bridge=none"
        );
        let process = Command::new("nsenter")
            .arg(format!("--net=/run/netns/{space}"))
            .args([
                "unshare",
                "-m",
                "--propagation",
                "private",
                "sh",
                "-c",
                &script,
            ])
            .stdout(Stdio::null())
            .stderr(fs::File::create(folder.path().join("log")).unwrap())
            .spawn()
            .unwrap();
        let dockerd = Self {
            space,
            folder,
            process,
        };
        let is_ready = || {
            dockerd
                .command()
                .arg("version")
                .output()
                .unwrap()
                .status
                .success()
        };
        assert!((0..LOOKS_MAX).any(|_| is_ready()), "{}", dockerd.log());
        dockerd.import();
        Some(dockerd)
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    fn host(&self) -> String {
        format!("unix://{}/docker.sock", self.folder.path().display())
    }

    fn command(&self) -> Command {
        let mut command = Command::new("docker");
        command.args(["-H", &self.host()]);
        command
    }

    fn docker(&self, arguments: &str) -> String {
        run(self.command().args(arguments.split(' ')))
    }

    /// Makes image `box`: busybox and nothing else.
    fn import(&self) {
        let root: PathBuf = self.folder.path().join("root");
        fs::create_dir_all(root.join("bin")).unwrap();
        fs::copy(BUSYBOX, root.join("bin/busybox")).unwrap();
        for tool in ["sh", "ip", "ping", "sleep"] {
            symlink("busybox", root.join("bin").join(tool)).unwrap();
        }
        let archive = self.folder.path().join("root.tar");
        run(Command::new("tar")
            .arg("-C")
            .arg(&root)
            .arg("-cf")
            .arg(&archive)
            .arg("."));
        self.docker(&format!("import {} box", archive.display()));
    }

    fn netns(&self) -> NetNs {
        NetNs::from_name(&self.space).unwrap()
    }

    async fn find(&self, name: &str) -> Result<Container, ContainerError> {
        let docker = Docker::new(Some(&self.host())).unwrap();
        name.parse::<ContainerRef>()
            .unwrap()
            .resolve(&self.netns(), &docker)
            .await
    }
}

impl Drop for Dockerd {
    fn drop(&mut self) {
        for container in ["c1", "c2", "c3", "c4"] {
            let _ = self.command().args(["rm", "-f", container]).output();
        }
        // It ends its containerd in turn; killed, it would leave that behind.
        let pid = nix::unistd::Pid::from_raw(self.process.id().try_into().unwrap_or(0));
        if pid.as_raw() > 0 {
            let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
        }
        let _ = self.process.wait();
        let _ = Command::new("ip")
            .args(["netns", "del", &self.space])
            .output();
    }
}

#[expect(
    clippy::print_stderr,
    reason = "the reader of the test's output is to know that nothing was tested"
)]
fn skipped(why: &str) {
    eprintln!("skipped: {why}");
}

fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {told}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[tokio::test]
async fn containers_are_attached_by_name_and_by_id() {
    let Some(dockerd) = Dockerd::start() else {
        return;
    };
    let config = BridgeConfig {
        name: "weft".to_owned(),
        tap: None,
        mac: bridge_mac(PEER),
        mtu: 1376,
        gso: GsoLimits::default(),
        dns: None,
    };
    bridge::ensure(&dockerd.netns(), &config).await.unwrap();
    let host = Host::new(dockerd.netns(), "weft", PEER);
    let options = AttachOptions {
        mtu: 1376,
        multicast_route: true,
        hairpin: true,
        gso: GsoLimits::default(),
        dns: None,
    };
    let first = dockerd.docker("run -d --name c1 box /bin/sleep 1000");
    let second = dockerd.docker("run -d --name c2 box /bin/sleep 1000");

    let by_name = dockerd.find("c1").await.unwrap();
    let by_id = dockerd.find(&second[..12]).await.unwrap();
    assert_eq!(
        (by_name.id.as_str(), by_id.id.as_str()),
        (first.as_str(), second.as_str())
    );
    assert_eq!(by_name.shown(), &first[..12]);
    host.attach(&by_name, &["10.2.1.1/24".parse().unwrap()], options)
        .await
        .unwrap();
    host.attach(&by_id, &["10.2.1.2/24".parse().unwrap()], options)
        .await
        .unwrap();

    dockerd.docker("exec c1 /bin/ping -c 1 -W 5 10.2.1.2");
    let shown = dockerd.docker("exec c2 /bin/ip addr show dev ethwe");
    assert!(
        shown.contains("mtu 1376") && shown.contains("inet 10.2.1.2/24"),
        "{shown}"
    );
    let mut listed: Vec<_> = host
        .list()
        .await
        .unwrap()
        .into_iter()
        .map(|attached| attached.id)
        .collect();
    let mut expected = [&first[..12], &second[..12]];
    listed.sort_unstable();
    expected.sort_unstable();
    assert_eq!(listed, expected);

    // A restarted container is a new namespace: its interface is gone, and attaching again gives it back.
    let mac = host.attach(&by_name, &[], options).await.unwrap().mac;
    drop(by_name);
    dockerd.docker("restart -t 0 c1");
    let again = dockerd.find("c1").await.unwrap();
    assert_eq!(host.detach(&again, &[]).await.unwrap().left, None);
    let attached = host
        .attach(&again, &["10.2.1.1/24".parse().unwrap()], options)
        .await
        .unwrap();
    assert_eq!(attached.mac, mac);
    dockerd.docker("exec c2 /bin/ping -c 1 -W 5 10.2.1.1");
}

#[tokio::test]
async fn what_docker_cannot_give_is_said_in_words() {
    let Some(dockerd) = Dockerd::start() else {
        return;
    };
    dockerd.docker("run -d --name c3 --net=host box /bin/sleep 1000");
    dockerd.docker("run --name c4 box /bin/sleep 0");

    for (name, expected) in [
        (
            "c3",
            "container c3 shares the host's network and cannot be attached: run it without --net=host",
        ),
        ("c4", "container c4 is not running: start it first"),
    ] {
        let error = dockerd.find(name).await.unwrap_err();
        assert_eq!(error.to_string(), expected);
        assert!(error.is_request_fault());
    }
    let error = dockerd.find("nobody").await.unwrap_err();
    assert!(
        matches!(error, ContainerError::Docker(DockerError::Unknown { .. })),
        "{error}"
    );
}
