//! Runs a test again inside namespaces of its own.
//!
//! The test's process starts `unshare … <test executable> --exact <test>` and waits. Inside, `/run` is a private
//! tmpfs, which is where `ip netns` keeps its names and where the lab keeps its files. A shell is the first process
//! there and collects daemons whose parents have gone, as an init does.

use std::any::type_name;
use std::env;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::dockerd::PROGRAMS as DOCKER_PROGRAMS;
use crate::lab::Lab;
use crate::wait;

/// Set in the process inside.
const MARK: &str = "WEFT_LAB_INSIDE";
/// Where the lab keeps a copy of the binary: not in `/run`, for the demo has one of its own.
pub(crate) const LAB_BINARIES: &str = "/mnt";
/// Where `ip netns exec` finds files of a namespace.
pub(crate) const NETNS_FILES: &str = "/etc/netns";
/// A test that takes longer hangs; seconds.
const LIMIT_S: u32 = 300;
/// The same for the long versions.
const LIMIT_LONG_S: u32 = 3600;

/// Runs `body`, a closure written in the test itself, in a lab; other labs may run at the same time.
///
/// # Panics
///
/// If the test fails inside, or cannot be run while `CI=true`.
pub fn in_lab<F: FnOnce(&Lab)>(body: F) {
    enter(body, File::try_lock_shared, &[]);
}

/// As [`in_lab`], where hosts may have a Docker each.
///
/// # Panics
///
/// As [`in_lab`].
pub fn in_docker_lab<F: FnOnce(&Lab)>(body: F) {
    enter(body, File::try_lock_shared, &DOCKER_PROGRAMS);
}

/// As [`in_lab`], while no other lab runs: for tests that measure time or throughput.
///
/// # Panics
///
/// As [`in_lab`].
pub fn alone_in_lab<F: FnOnce(&Lab)>(body: F) {
    enter(body, File::try_lock, &[]);
}

/// As [`in_docker_lab`], while no other lab runs.
///
/// # Panics
///
/// As [`in_lab`].
pub fn alone_in_docker_lab<F: FnOnce(&Lab)>(body: F) {
    enter(body, File::try_lock, &DOCKER_PROGRAMS);
}

/// Whether the long versions of tests are wanted.
#[must_use]
pub fn is_long() -> bool {
    env::var("WEFT_TESTS_LONG").is_ok_and(|value| value == "1")
}

/// The binary under test.
///
/// # Panics
///
/// If it has not been built.
#[must_use]
pub fn weft_binary() -> PathBuf {
    let given = env::var_os("WEFT_BIN").map(PathBuf::from);
    let beside = || {
        let own = env::current_exe().expect("the test executable has a path");
        own.ancestors()
            .nth(2)
            .expect("test executables lie in target/PROFILE/deps")
            .join("weft")
    };
    let path = given.unwrap_or_else(beside);
    assert!(
        path.is_file(),
        "no weft binary at {}: run `cargo build`, or set WEFT_BIN",
        path.display()
    );
    path.canonicalize()
        .expect("the path of a file that exists resolves")
}

/// Whether this process is root, in whatever user namespace.
pub(crate) fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0)
}

fn enter<F: FnOnce(&Lab)>(body: F, lock: fn(&File) -> Result<(), TryLockError>, programs: &[&str]) {
    if env::var_os(MARK).is_some() {
        prepare();
        body(&Lab::new());
        return;
    }
    let binary = weft_binary();
    if let Err(reason) = possible().and_then(|()| present(programs)) {
        return skip(&reason);
    }
    let turn = turnstile();
    let limit = Duration::from_secs(u64::from(limit_s()) * 6);
    wait::within(
        "the turn of this test: another one holds the lock",
        limit,
        || lock(&turn).is_ok(),
    );
    run_inside(test_name::<F>(), &binary);
}

/// `frames::a_test::{{closure}}` is the closure of the test `a_test` of the executable `frames`.
fn test_name<F>() -> &'static str {
    let path = type_name::<F>();
    let (_, name) = path
        .split_once("::")
        .expect("a closure's type name starts with its crate");
    name.split("::{{closure}}")
        .next()
        .expect("split yields at least one part")
}

fn run_inside(test: &str, binary: &Path) {
    let limit = limit_s();
    let groups = format!(
        "weft-lab-{}-{}",
        std::process::id(),
        test.replace("::", "-")
    );
    let mut command = Command::new("timeout");
    command
        .args(["--kill-after=5", &limit.to_string(), "unshare"])
        .args(namespaces());
    command.args(["sh", "-c", "\"$0\" \"$@\"; exit $?"]);
    command.arg(env::current_exe().expect("the test executable has a path"));
    command.args([
        "--exact",
        test,
        "--nocapture",
        "--include-ignored",
        "--test-threads=1",
    ]);
    let command = command
        .env(MARK, &groups)
        .env("WEFT_BIN", binary)
        .stdin(Stdio::null());
    let output = command.output().expect("timeout and unshare are installed");
    remove_groups(&groups);
    let said = String::from_utf8_lossy(&output.stdout);
    let logged = String::from_utf8_lossy(&output.stderr);
    // A name that matches no test would pass in silence.
    let passed = output.status.success() && said.contains("1 passed");
    assert!(passed, "{test}: {}\n{said}\n{logged}", output.status);
}

fn limit_s() -> u32 {
    if is_long() { LIMIT_LONG_S } else { LIMIT_S }
}

fn namespaces() -> Vec<&'static str> {
    let mut flags = vec![
        "--net",
        "--mount",
        "--pid",
        "--fork",
        "--kill-child",
        "--mount-proc",
    ];
    if !is_root() {
        flags.extend(["--user", "--map-root-user"]);
    }
    flags
}

fn possible() -> Result<(), String> {
    if !Path::new("/dev/net/tun").exists() {
        return Err("/dev/net/tun is missing".to_owned());
    }
    let tried = Command::new("unshare")
        .args(namespaces())
        .arg("true")
        .output();
    let output = tried.map_err(|error| format!("unshare: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!(
        "namespaces are refused: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    ))
}

/// Whether programs are installed that only root can use in full.
fn present(programs: &[&str]) -> Result<(), String> {
    if programs.is_empty() {
        return Ok(());
    }
    let is_machines_root = is_root()
        && std::fs::read_to_string("/proc/self/uid_map")
            .is_ok_and(|map| map.split_whitespace().eq(["0", "0", "4294967295"]));
    if !is_machines_root {
        return Err("Docker needs the machine's own root".to_owned());
    }
    let paths = env::var("PATH").unwrap_or_default();
    let is_there = |program: &&&str| {
        let mut folders = paths.split(':').chain(["/usr/sbin"]);
        folders.any(|folder| Path::new(folder).join(program).is_file())
    };
    match programs.iter().find(|program| !is_there(program)) {
        Some(missing) => Err(format!("{missing} is not installed")),
        None => Ok(()),
    }
}

/// Where the containers of this lab's hosts have their control groups.
pub(crate) fn cgroup_parent() -> String {
    format!("/{}", env::var(MARK).unwrap_or_default())
}

/// Removes control groups that containers left behind; the kernel keeps those that still have processes.
fn remove_groups(groups: &str) {
    let Ok(hierarchies) = std::fs::read_dir("/sys/fs/cgroup") else {
        return;
    };
    for hierarchy in hierarchies.flatten() {
        remove_group(&hierarchy.path().join(groups));
    }
    remove_group(&Path::new("/sys/fs/cgroup").join(groups));
}

fn remove_group(group: &Path) {
    let Ok(inner) = std::fs::read_dir(group) else {
        return;
    };
    for inner in inner.flatten() {
        if inner.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_group(&inner.path());
        }
    }
    // Nobody waits for it: a leftover takes no room.
    let _ = std::fs::remove_dir(group);
}

fn skip(reason: &str) {
    let in_ci = env::var("CI").is_ok_and(|value| value == "true");
    assert!(!in_ci, "cannot run here: {reason}");
    say_skipped(reason);
}

/// Prints `skipped: …` where a tester sees it.
pub fn say_skipped(reason: &str) {
    // Written past the test harness, which would hide it.
    let _ = writeln!(std::io::stderr(), "skipped: {reason}");
}

/// The file whose lock tests share, or hold alone.
fn turnstile() -> File {
    let owner = std::fs::metadata("/proc/self").map_or(0, |own| own.uid());
    let path = env::temp_dir().join(format!("weft-netns-tests-{owner}.lock"));
    let opened = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path);
    opened.unwrap_or_else(|error| panic!("open {}: {error}", path.display()))
}

/// Puts private folders where `ip netns` keeps its names and where the lab keeps the binary.
fn prepare() {
    // Attached containers have files there; who may not make the folder has none of them written either.
    let has_files = std::fs::create_dir_all(NETNS_FILES).is_ok();
    let folders = ["/run", LAB_BINARIES].into_iter();
    for folder in folders.chain(has_files.then_some(NETNS_FILES)) {
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "mode=755", "tmpfs", folder]);
        assert!(
            mount.status().expect("mount is installed").success(),
            "mount a private {folder}"
        );
    }
}
