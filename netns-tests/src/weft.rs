//! The `weft` binary on one host, used as a user types it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::host::Host;
use crate::wait;

/// How long a daemon may take to go after any signal before a test calls it stuck.
const STUCK_LIMIT: Duration = Duration::from_secs(20);

/// What a command said, and how it ended.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// Exit code; -1 if a signal ended it.
    pub code: i32,
    /// Data.
    pub stdout: String,
    /// Talk.
    pub stderr: String,
    /// From start to end.
    pub took: Duration,
}

impl Outcome {
    /// Runs a command to the end, whatever comes of it.
    pub(crate) fn of(command: &mut Command) -> Self {
        let start = wait::now();
        let output = command.output();
        let output = output.unwrap_or_else(|error| panic!("start {command:?}: {error}"));
        Self {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
            took: start.elapsed(),
        }
    }
}

/// weft on a host: its folders, its daemon if one runs, and every verb.
#[derive(Debug, Clone)]
pub struct Weft {
    host: Host,
    binary: PathBuf,
    folder: PathBuf,
}

impl Weft {
    pub(crate) fn new(host: &Host, binary: &Path, folder: &Path) -> Self {
        fs::create_dir_all(folder).expect("the lab's folder is writable");
        Self {
            host: host.clone(),
            binary: binary.to_path_buf(),
            folder: folder.to_path_buf(),
        }
    }

    /// The host it runs on.
    #[must_use]
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// Its `--run-dir`.
    #[must_use]
    pub fn run_dir(&self) -> PathBuf {
        self.folder.join("run")
    }

    /// Its `--data-dir`.
    #[must_use]
    pub fn data_dir(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// A command line of it, not started yet.
    #[must_use]
    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = self.host.command(&self.binary.to_string_lossy());
        // Nothing of the tester's own environment may leak in.
        for (name, _) in std::env::vars_os() {
            let name = name.to_string_lossy().into_owned();
            if name.starts_with("WEFT_") || name.starts_with("WEAVE_") {
                command.env_remove(name);
            }
        }
        command
            .env("WEFT_RUN_DIR", self.run_dir())
            .env("WEFT_DATA_DIR", self.data_dir());
        match self.host.docker_socket() {
            Some(socket) => command.env("WEFT_DOCKER_HOST", socket),
            // Hosts without Docker share the lab's own folder for plugins.
            None => command.env("WEFT_PLUGIN_DIR", self.folder.join("plugins")),
        };
        command.args(words);
        command
    }

    /// Runs a verb to the end, whatever comes of it.
    ///
    /// # Panics
    ///
    /// If it cannot be started.
    #[must_use]
    pub fn run(&self, words: &[&str]) -> Outcome {
        Outcome::of(&mut self.command(words))
    }

    /// Runs a verb that must succeed and returns its stdout.
    ///
    /// # Panics
    ///
    /// If it fails.
    pub fn ok(&self, words: &[&str]) -> String {
        let outcome = self.run(words);
        assert_eq!(
            outcome.code,
            0,
            "weft {words:?} on {}: {outcome:?}",
            self.host.name()
        );
        outcome.stdout
    }

    /// Attaches a container with these arguments and returns what is printed.
    ///
    /// # Panics
    ///
    /// If it fails.
    pub fn attach(&self, container: &Host, arguments: &[&str]) -> String {
        self.of_container("attach", container, arguments)
    }

    /// Detaches a container with these arguments and returns what is printed.
    ///
    /// # Panics
    ///
    /// If it fails.
    pub fn detach(&self, container: &Host, arguments: &[&str]) -> String {
        self.of_container("detach", container, arguments)
    }

    fn of_container(&self, verb: &str, container: &Host, arguments: &[&str]) -> String {
        let named = container.as_container();
        let words = [&[verb], arguments, &[named.as_str()]].concat();
        self.ok(&words).trim().to_owned()
    }

    /// Runs a verb with `-o json` that must succeed and returns what it printed.
    ///
    /// # Panics
    ///
    /// If it fails or prints no JSON.
    #[must_use]
    pub fn json(&self, words: &[&str]) -> Value {
        let text = self.ok(&[words, &["-o", "json"]].concat());
        serde_json::from_str(&text)
            .unwrap_or_else(|error| panic!("weft {words:?}: {error} in {text}"))
    }

    /// `weft report`, or null while no daemon answers.
    #[must_use]
    pub fn report(&self) -> Value {
        let outcome = self.run(&["report"]);
        serde_json::from_str(&outcome.stdout).unwrap_or(Value::Null)
    }

    /// The first connection that the report names, or null.
    #[must_use]
    pub fn connection(&self) -> Value {
        self.report()["connections"][0].clone()
    }

    /// Whether some peer is established and has a data path.
    #[must_use]
    pub fn has_path(&self) -> bool {
        self.connection()["path"].is_object()
    }

    /// Waits until a peer is established and has a data path; returns the time it took.
    ///
    /// # Panics
    ///
    /// If that does not come about within `limit`.
    pub fn wait_for_path(&self, limit: Duration) -> Duration {
        wait::within(&format!("a path from {}", self.host.name()), limit, || {
            let connection = self.connection();
            connection["state"] == "established" && connection["path"].is_object()
        })
    }

    /// The engine's and control's counters whose names hold one of `words`, added up.
    #[must_use]
    pub fn count(&self, words: &[&str]) -> u64 {
        let report = self.report();
        let tables = [&report["engine"]["counters"], &report["control_counters"]];
        let counters = tables.into_iter().filter_map(Value::as_object).flatten();
        let wanted = counters.filter(|(name, _)| words.iter().any(|word| name.contains(word)));
        wanted.filter_map(|(_, count)| count.as_u64()).sum()
    }

    /// The daemon's process id, if one runs.
    #[must_use]
    pub fn pid(&self) -> Option<i32> {
        let text = fs::read_to_string(self.run_dir().join("weft.pid")).ok()?;
        let pid: i32 = text.trim().parse().ok()?;
        Path::new(&format!("/proc/{pid}")).exists().then_some(pid)
    }

    /// The daemon's log so far.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.run_dir().join("weft.log")).unwrap_or_default()
    }

    /// Sends the daemon a signal and waits until it is gone; returns the time it took.
    ///
    /// # Panics
    ///
    /// If none runs, or it stays.
    pub fn signal_and_wait(&self, signal: Signal) -> Duration {
        let pid = self
            .pid()
            .unwrap_or_else(|| panic!("no weft runs on {}", self.host.name()));
        kill(Pid::from_raw(pid), signal).expect("a test may signal its own daemon");
        wait::within("the end of weft", STUCK_LIMIT, || {
            !Path::new(&format!("/proc/{pid}")).exists()
        })
    }

    /// Ends the daemon as a crash would.
    pub fn crash(&self) {
        self.signal_and_wait(Signal::SIGKILL);
    }

    /// The daemon's open files.
    ///
    /// # Panics
    ///
    /// If none runs.
    #[must_use]
    pub fn open_files(&self) -> usize {
        let pid = self
            .pid()
            .unwrap_or_else(|| panic!("no weft runs on {}", self.host.name()));
        let open = fs::read_dir(format!("/proc/{pid}/fd")).expect("root reads what is open");
        open.count()
    }

    /// The daemon's resident memory in KiB.
    ///
    /// # Panics
    ///
    /// If none runs.
    #[must_use]
    pub fn resident_kib(&self) -> u64 {
        let pid = self
            .pid()
            .unwrap_or_else(|| panic!("no weft runs on {}", self.host.name()));
        let status =
            fs::read_to_string(format!("/proc/{pid}/status")).expect("a process has a status");
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .expect("the kernel shows VmRSS");
        line.trim()
            .trim_end_matches(" kB")
            .parse()
            .expect("VmRSS is a number of kB")
    }
}
