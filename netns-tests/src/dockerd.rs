//! A real Docker daemon on a host of the lab, and the client that talks to it.
//!
//! ```text
//!  host h1: its network namespace, and mounts of its own ─┬─ dockerd ─ containerd ─ containers
//!           /run/docker: its sockets of plugins           └─ weft
//! ```
//!
//! The daemon is Debian's; each has its own containerd, images and networks, all below the lab's folder. What it leaves
//! behind goes with the lab: its processes, mounts and files with the lab's namespaces, its control groups when the
//! lab has ended.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::host::Host;
use crate::sandbox::cgroup_parent;
use crate::wait;
use crate::weft::Outcome;

/// The image that every daemon has: busybox and nothing else, with a shell as its command.
pub const IMAGE: &str = "box";
/// What a host with Docker needs, besides root.
pub(crate) const PROGRAMS: [&str; 4] = ["dockerd", "containerd", "docker", "busybox"];
/// Where programs look for it that were told nothing: `/run/docker.sock` leads there on every host.
const USUAL_ADDRESS: &str = "unix:///run/docker/docker.sock";
/// To serve, or to end, on a busy machine.
const DAEMON_LIMIT: Duration = Duration::from_secs(60);

/// Makes mounts that the host's programs share: `/sys` is the host's own, with the machine's control groups in it.
const MOUNTS: &str = "set -e
mkdir -p /run/lab/cgroup /run/docker /etc/docker
mount --rbind /sys/fs/cgroup /run/lab/cgroup
mount -t sysfs sysfs /sys
mount --rbind /run/lab/cgroup /sys/fs/cgroup
umount -l /run/lab/cgroup
mount --make-rshared /run
mount -t tmpfs tmpfs /run/docker
ln -sfn docker/docker.sock /run/docker.sock
mount -t tmpfs tmpfs /etc/docker
echo mounted
exec cat";

/// Docker on one host; dropped, it ends.
#[derive(Debug)]
pub struct Dockerd {
    host: Host,
    folder: PathBuf,
    flags: Vec<String>,
    process: Option<Child>,
    /// Holds the host's mounts; ends when its stdin does.
    keeper: Child,
}

/// A `docker` command line that talks to one address.
#[derive(Debug, Clone)]
pub struct DockerClient {
    host: Host,
    address: String,
    folder: PathBuf,
}

impl Dockerd {
    /// Starts Docker; returns at once.
    pub(crate) fn start(host: &Host, folder: &Path, flags: &[&str]) -> Self {
        fs::create_dir_all(folder).expect("the lab's folder is writable");
        let (host, keeper) = with_own_mounts(host, &socket_in(folder));
        let mut dockerd = Self {
            host,
            folder: folder.to_path_buf(),
            flags: flags.iter().map(|flag| (*flag).to_owned()).collect(),
            process: None,
            keeper,
        };
        dockerd.begin();
        dockerd
    }

    /// Waits until it serves, and gives it the image.
    pub(crate) fn make_ready(&mut self) {
        self.wait_until_it_serves();
        let lab = self
            .folder
            .parent()
            .expect("a host's folder is in the lab's");
        let archive = image_archive(lab);
        let shell = "CMD [\"/bin/sh\"]";
        self.ok(&[
            "import",
            "--change",
            shell,
            &archive.to_string_lossy(),
            IMAGE,
        ]);
    }

    /// The host, whose programs run among Docker's mounts: give this one to [`crate::Lab::weft`].
    #[must_use]
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// Where its API is, as `DOCKER_HOST` has it.
    #[must_use]
    pub fn address(&self) -> String {
        format!("unix://{}", socket_in(&self.folder).display())
    }

    /// A client that talks to it.
    #[must_use]
    pub fn client(&self) -> DockerClient {
        self.client_of(&self.address())
    }

    /// A client on this host that talks to another address: weft's.
    #[must_use]
    pub fn client_of(&self, address: &str) -> DockerClient {
        DockerClient {
            host: self.host.clone(),
            address: address.to_owned(),
            folder: self.folder.clone(),
        }
    }

    /// As [`DockerClient::run`], of [`Dockerd::client`].
    #[must_use]
    pub fn docker(&self, words: &[&str]) -> Outcome {
        self.client().run(words)
    }

    /// As [`DockerClient::ok`], of [`Dockerd::client`].
    pub fn ok(&self, words: &[&str]) -> String {
        self.client().ok(words)
    }

    /// The network namespace of a running container as a host: programs of the lab run in it.
    ///
    /// # Panics
    ///
    /// If it does not run.
    #[must_use]
    pub fn container(&self, name: &str) -> Host {
        let pid = self.ok(&["inspect", "-f", "{{.State.Pid}}", name]);
        Host::of_process(name, &pid)
    }

    /// Its log so far.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.join("dockerd.log")).unwrap_or_default()
    }

    /// Sends it a signal and waits until it is gone; returns the time it took. SIGTERM stops its containers first,
    /// unless it was started with `--live-restore`; SIGKILL leaves them, and containerd.
    ///
    /// # Panics
    ///
    /// If it does not run, or stays.
    pub fn stop(&mut self, signal: Signal) -> Duration {
        let mut process = self.process.take().expect("Docker runs");
        send(&process, signal);
        wait::within("the end of dockerd", DAEMON_LIMIT, || {
            process.try_wait().expect("it is our child").is_some()
        })
    }

    /// Starts it again after [`Dockerd::stop`], with what it had; returns at once.
    pub fn begin(&mut self) {
        let log = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.folder.join("dockerd.log"))
            .expect("the lab's folder is writable");
        let said = log.try_clone().expect("a file can be had twice");
        let mut command = self.host.command("dockerd");
        command
            .args(["--host", &self.address(), "--host", USUAL_ADDRESS])
            .arg("--cgroup-parent")
            .arg(cgroup_parent());
        command.arg("--data-root").arg(self.folder.join("docker"));
        command
            .arg("--pidfile")
            .arg(self.folder.join("dockerd.pid"));
        command.args(&self.flags).stdout(log).stderr(said);
        self.process = Some(command.spawn().expect("nsenter is installed"));
    }

    /// Waits until it answers.
    ///
    /// # Panics
    ///
    /// If it does not, or has ended.
    pub fn wait_until_it_serves(&mut self) -> Duration {
        let socket = socket_in(&self.folder);
        wait::within("dockerd serves", DAEMON_LIMIT, || {
            let process = self.process.as_mut().expect("Docker was started");
            let ended = process.try_wait().expect("it is our child");
            assert!(
                ended.is_none(),
                "dockerd ended: {}",
                fs::read_to_string(self.folder.join("dockerd.log")).unwrap_or_default()
            );
            answers_pings(&socket)
        })
    }
}

impl Drop for Dockerd {
    fn drop(&mut self) {
        if let Some(process) = &mut self.process {
            // Containers and containerd end with the lab.
            let _ = process.kill();
            let _ = process.wait();
        }
        drop(self.keeper.stdin.take());
        let _ = self.keeper.wait();
    }
}

impl DockerClient {
    /// A command line, not started yet.
    #[must_use]
    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = self.host.command("docker");
        // Nothing of the tester's own environment may leak in.
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("DOCKER_") {
                command.env_remove(name);
            }
        }
        command.env("DOCKER_HOST", &self.address);
        command.env("DOCKER_CONFIG", self.folder.join("docker-client"));
        command.args(words);
        command
    }

    /// Runs a command to the end, whatever comes of it.
    ///
    /// # Panics
    ///
    /// If it cannot be started.
    #[must_use]
    pub fn run(&self, words: &[&str]) -> Outcome {
        Outcome::of(&mut self.command(words))
    }

    /// Starts a container that stays, and ends at once when it is told to.
    ///
    /// # Panics
    ///
    /// If `docker` cannot be started.
    #[must_use]
    pub fn stay(&self, name: &str, flags: &[&str]) -> Outcome {
        let quick = ["run", "-d", "--stop-signal", "KILL", "--name", name];
        self.run(&[&quick[..], flags, &[IMAGE, "sleep", "100000"]].concat())
    }

    /// Runs a command that must succeed and returns its stdout, trimmed.
    ///
    /// # Panics
    ///
    /// If it fails.
    pub fn ok(&self, words: &[&str]) -> String {
        let outcome = self.run(words);
        let place = self.host.name();
        assert_eq!(outcome.code, 0, "docker {words:?} on {place}: {outcome:?}");
        outcome.stdout.trim().to_owned()
    }
}

fn socket_in(folder: &Path) -> PathBuf {
    folder.join("docker.sock")
}

/// The same host, whose programs see mounts of its own; and the process that holds them.
fn with_own_mounts(host: &Host, socket: &Path) -> (Host, Child) {
    // Mounts of the lab go on to appear in it: a namespace that is named later.
    let unshared = ["unshare", "-m", "--propagation", "slave", "sh", "-c"];
    let mut keeper = Command::new("nsenter")
        .arg(format!("--net=/run/netns/{}", host.name()))
        .args(unshared)
        .arg(MOUNTS)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("nsenter and unshare are installed");
    let mut said = [0; "mounted\n".len()];
    let told = keeper.stdout.take().expect("it is piped");
    let mut told = told;
    told.read_exact(&mut said).expect("mounts can be made");
    let mounts = format!("/proc/{}/ns/mnt", keeper.id());
    (host.with_mounts(Path::new(&mounts), socket), keeper)
}

fn answers_pings(socket: &Path) -> bool {
    let Ok(mut stream) = UnixStream::connect(socket) else {
        return false;
    };
    let mut answer = String::new();
    // A daemon that begins to serve late is asked again.
    stream.set_read_timeout(Some(DAEMON_LIMIT)).is_ok()
        && stream
            .write_all(b"GET /_ping HTTP/1.0\r\nHost: docker\r\n\r\n")
            .is_ok()
        && stream.read_to_string(&mut answer).is_ok()
        && answer.contains(" 200 OK")
}

/// The image's files as one archive, made once in a lab.
fn image_archive(folder: &Path) -> PathBuf {
    let archive = folder.join("image.tar");
    if archive.exists() {
        return archive;
    }
    let root = folder.join("image");
    for part in ["bin", "etc", "tmp", "proc", "sys"] {
        fs::create_dir_all(root.join(part)).expect("the lab's folder is writable");
    }
    let said = Command::new("busybox").arg("--list").output();
    let said = said.expect("busybox is installed").stdout;
    let paths = std::env::var("PATH").unwrap_or_default();
    let own = paths
        .split(':')
        .map(|path| Path::new(path).join("busybox"))
        .find(|path| path.exists())
        .expect("busybox is installed");
    fs::copy(own, root.join("bin/busybox")).expect("busybox can be copied");
    for tool in String::from_utf8_lossy(&said).lines() {
        if tool != "busybox" {
            symlink("busybox", root.join("bin").join(tool)).expect("each tool has one name");
        }
    }
    let mut tar = Command::new("tar");
    tar.arg("-C").arg(&root).arg("-cf").arg(&archive).arg(".");
    assert!(tar.status().expect("tar is installed").success(), "{tar:?}");
    archive
}

fn send(process: &Child, signal: Signal) {
    let pid = Pid::from_raw(process.id().try_into().expect("a pid is positive"));
    kill(pid, signal).expect("a test may signal its own daemon");
}
