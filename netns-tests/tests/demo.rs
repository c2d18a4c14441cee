//! `weft demo` as root and as an ordinary user, to the end and interrupted.
//!
//! The demo makes its own hosts; what is tested is that it works from a plain shell and leaves nothing behind.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use weft_netns_tests::{Host, Lab, alone_in_lab, eventually, say_skipped, within};

/// The two minutes in which somebody decides must not be used up.
const DEMO_LIMIT: Duration = Duration::from_secs(60);
const CLEAN_LIMIT: Duration = Duration::from_secs(10);
/// `nobody` on every distribution.
const ORDINARY_USER: &str = "65534";

/// A shell of root: the demo runs on a host of the lab.
fn as_root(_: &Lab, host: &Host, binary: &str) -> Command {
    let mut command = host.command(binary);
    command.arg("demo");
    command
}

/// A shell of somebody else, with nothing of root's.
fn as_ordinary_user(lab: &Lab, host: &Host, binary: &str) -> Command {
    // Some hosts keep this device for root; the lab's mounts are its own.
    let device = lab.folder().join("tun");
    if !device.exists() {
        let make = "mknod -m 666 \"$0\" c 10 200 && mount --bind \"$0\" /dev/net/tun";
        let made = Command::new("sh").args(["-c", make]).arg(&device).status();
        assert!(
            made.expect("sh is installed").success(),
            "open /dev/net/tun to everybody"
        );
    }
    let home = lab.folder().join("home");
    fs::create_dir_all(&home).expect("the lab's folder is writable");
    Command::new("chown")
        .arg(ORDINARY_USER)
        .arg(&home)
        .status()
        .expect("chown is installed");
    let mut command = host.command("setpriv");
    command.args([
        "--reuid",
        ORDINARY_USER,
        "--regid",
        ORDINARY_USER,
        "--clear-groups",
        binary,
        "demo",
    ]);
    command
        .env("HOME", &home)
        .env("TMPDIR", &home)
        .current_dir(&home);
    command
}

/// Every process but this test's own, by id.
fn processes() -> Vec<String> {
    let entries = fs::read_dir("/proc").expect("/proc is mounted").flatten();
    let ids = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    let ids = ids.filter(|name| name.bytes().all(|byte| byte.is_ascii_digit()));
    let command =
        |id: &String| fs::read_to_string(format!("/proc/{id}/cmdline")).unwrap_or_default();
    ids.map(|id| command(&id).replace('\0', " "))
        .filter(|line| line.contains("weft") && !line.contains("demo-"))
        .collect()
}

fn namespaces() -> usize {
    fs::read_dir("/run/netns").map(Iterator::count).unwrap_or(0)
}

fn demo_works(lab: &Lab, shell: fn(&Lab, &Host, &str) -> Command) {
    demo_of_works(lab, shell, lab.binary());
}

fn demo_of_works(lab: &Lab, shell: fn(&Lab, &Host, &str) -> Command, binary: &Path) {
    let host = lab.host("a");
    let (before, running) = (namespaces(), processes().len());
    let mut command = shell(lab, &host, &binary.to_string_lossy());

    let output = command
        .stdin(Stdio::null())
        .output()
        .expect("weft can be started");

    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let talk = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{}\n{said}\n{talk}", output.status);
    for word in ["Gbit/s", "ms"] {
        assert!(said.contains(word), "the demo shows {word}: {said}");
    }
    assert_eq!(namespaces(), before, "namespaces");
    within("the end of all processes of the demo", CLEAN_LIMIT, || {
        processes().len() == running
    });
    for device in ["weft", "weft-tap0"] {
        assert!(!host.has_device(device), "{device} is not on the host");
    }
}

fn demo_can_be_interrupted(lab: &Lab, shell: fn(&Lab, &Host, &str) -> Command) {
    let host = lab.host("a");
    let (before, running) = (namespaces(), processes().len());
    let mut command = shell(lab, &host, &lab.binary().to_string_lossy());
    // Its own process group, as a terminal gives each command, which Ctrl-C then reaches as a whole.
    let child = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .process_group(0)
        .spawn();
    let mut child: Child = child.expect("weft can be started");
    within("daemons of the demo", DEMO_LIMIT, || {
        processes().len() >= running + 3
    });

    let group = Pid::from_raw(-i32::try_from(child.id()).expect("process ids fit"));
    kill(group, Signal::SIGINT).expect("a test may signal its own child");

    let (status, _) = eventually("the end of the demo", CLEAN_LIMIT, || {
        child.try_wait().ok().flatten()
    });
    assert!(
        !status.success(),
        "an interrupted demo does not claim success"
    );
    within("the end of all processes of the demo", CLEAN_LIMIT, || {
        processes().len() == running
    });
    within("the end of its namespaces", CLEAN_LIMIT, || {
        namespaces() == before
    });
}

#[test]
fn the_demo_works_as_root_and_leaves_nothing() {
    alone_in_lab(|lab| demo_works(lab, as_root));
}

/// The demo has a `/run` of its own, which hides a program that lies there.
fn demo_from_run_works(lab: &Lab, shell: fn(&Lab, &Host, &str) -> Command) {
    let binary = lab.folder().join("weft");
    fs::copy(lab.binary(), &binary).expect("the lab's folder is writable");
    demo_of_works(lab, shell, &binary);
}

#[test]
fn the_demo_works_when_the_program_lies_in_run() {
    alone_in_lab(|lab| demo_from_run_works(lab, as_root));
}

#[test]
fn the_demo_works_for_an_ordinary_user_when_the_program_lies_in_run() {
    alone_in_lab(|lab| {
        if can_change_user() {
            demo_from_run_works(lab, as_ordinary_user);
        }
    });
}

#[test]
fn the_demo_works_as_an_ordinary_user_and_leaves_nothing() {
    alone_in_lab(|lab| {
        if !can_change_user() {
            return;
        }
        demo_works(lab, as_ordinary_user);
    });
}

#[test]
fn an_interrupted_demo_leaves_nothing() {
    alone_in_lab(|lab| demo_can_be_interrupted(lab, as_root));
}

#[test]
fn an_interrupted_demo_of_an_ordinary_user_leaves_nothing() {
    alone_in_lab(|lab| {
        if !can_change_user() {
            return;
        }
        demo_can_be_interrupted(lab, as_ordinary_user);
    });
}

/// A lab in a user namespace has one user only, and is itself what an ordinary user runs.
fn can_change_user() -> bool {
    let mut id = Command::new("setpriv");
    id.args([
        "--reuid",
        ORDINARY_USER,
        "--regid",
        ORDINARY_USER,
        "--clear-groups",
        "true",
    ]);
    let can = id
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    if !can {
        say_skipped("this lab has only one user, an ordinary one: the other demo tests cover it");
    }
    can
}
