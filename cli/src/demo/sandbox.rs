//! Namespaces for the demo: users (if need be), processes, mounts and network.
//!
//! The outer process makes them and starts the first process inside. When that one ends, the kernel ends
//! every other inside and takes the namespaces down with all devices and files in them.

use std::fs;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, ExitCode, Stdio};

use anyhow::{Context, bail};
use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::waitpid;
use nix::unistd::{dup2_stderr, dup2_stdin, dup2_stdout, getegid, geteuid, setsid, write};

use crate::args::DemoArgs;
use crate::demo::lab;
use crate::doctor::tun_mend;
use crate::output::{self, Format};

/// Variables of the caller that would steer the daemons of the demo.
const OWN_PREFIXES: [&str; 2] = ["WEFT_", "WEAVE_"];

/// Makes the namespaces, starts the demo inside and waits for its end.
///
/// # Errors
///
/// One line if this system refuses what the demo needs, or if it was interrupted.
pub(crate) fn run(format: Format, args: &DemoArgs) -> anyhow::Result<ExitCode> {
    File::options()
        .read(true)
        .write(true)
        .open("/dev/net/tun")
        .map_err(|error| {
            let mend = tun_mend(&error);
            anyhow::Error::from(error).context(format!("open /dev/net/tun (mend: {mend})"))
        })?;
    let signals = block_signals()?;
    let as_user = enter()?;
    let (ours, theirs) = UnixStream::pair().context("make a socket pair")?;
    // From here on no thread may be made: a process whose children live in another process namespace cannot.
    let mut child = inside(format, args)
        .stdin(OwnedFd::from(theirs))
        .spawn()
        .context("start the demo inside")?;
    match wait(&mut child, &ours, &signals)? {
        End::Kept => {
            output::talk(&how_to_look_around(child.id(), as_user, args.hosts));
            Ok(ExitCode::SUCCESS)
        }
        // It has said itself what was wrong.
        End::Done(success) => Ok(if success {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        }),
        End::Interrupted => bail!("the demo was interrupted; everything it made is gone"),
    }
}

/// How the demo came to its end, seen from outside.
enum End {
    Done(bool),
    Kept,
    Interrupted,
}

/// Makes signals readable instead of deadly; returns where they are read.
fn block_signals() -> anyhow::Result<SignalFd> {
    let set: SigSet = [
        Signal::SIGINT,
        Signal::SIGTERM,
        Signal::SIGHUP,
        Signal::SIGQUIT,
    ]
    .into_iter()
    .collect();
    set.thread_block().context("hold signals back")?;
    SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC).context("listen for signals")
}

/// Leaves the caller's namespaces; returns whether that took a user namespace.
fn enter() -> anyhow::Result<bool> {
    let (user, group) = (geteuid(), getegid());
    let namespaces = CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWPID;
    match unshare(namespaces) {
        Ok(()) => return Ok(false),
        Err(Errno::EPERM) => {}
        Err(errno) => return Err(anyhow::Error::from(errno).context("make namespaces")),
    }
    unshare(namespaces | CloneFlags::CLONE_NEWUSER).context(
        "this system refuses namespaces to ordinary users (see user.max_user_namespaces and \
         kernel.apparmor_restrict_unprivileged_userns): run the demo as root",
    )?;
    // Without this, an ordinary user may not map a group (user_namespaces(7)).
    fs::write("/proc/self/setgroups", "deny").context("give up groups in the user namespace")?;
    fs::write("/proc/self/uid_map", format!("0 {user} 1"))
        .context("become root of the user namespace")?;
    fs::write("/proc/self/gid_map", format!("0 {group} 1"))
        .context("become root of the user namespace")?;
    Ok(true)
}

fn inside(format: Format, args: &DemoArgs) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command
        .args(["--config", "/dev/null", "demo", "--stage", "inside"])
        .args([
            "--hosts",
            &args.hosts.to_string(),
            "--seconds",
            &args.seconds.to_string(),
        ]);
    if args.keep {
        command.arg("--keep");
    }
    if format == Format::Json {
        command.args(["-o", "json"]);
    }
    for (name, _) in std::env::vars_os() {
        if name
            .to_str()
            .is_some_and(|name| OWN_PREFIXES.iter().any(|own| name.starts_with(own)))
        {
            command.env_remove(name);
        }
    }
    command
}

/// Waits for the end, a word, or a signal, whichever comes first.
fn wait(child: &mut Child, word: &UnixStream, signals: &SignalFd) -> anyhow::Result<End> {
    loop {
        let mut sources = [
            PollFd::new(word.as_fd(), PollFlags::POLLIN),
            PollFd::new(signals.as_fd(), PollFlags::POLLIN),
        ];
        match poll(&mut sources, PollTimeout::NONE) {
            Ok(_) => {}
            Err(Errno::EINTR) => continue,
            Err(errno) => return Err(anyhow::Error::from(errno).context("wait for the demo")),
        }
        let [said, signalled] = sources.map(|source| source.any().unwrap_or(true));
        if signalled {
            child.kill().context("end the demo")?;
            child.wait().context("wait for the demo's end")?;
            return Ok(End::Interrupted);
        }
        if said {
            let kept = { word }.read(&mut [0; 1]).context("listen to the demo")? == 1;
            return Ok(if kept {
                End::Kept
            } else {
                End::Done(child.wait().context("wait for the demo's end")?.success())
            });
        }
    }
}

fn how_to_look_around(pid: u32, as_user: bool, hosts: u8) -> String {
    let user = if as_user {
        format!(" -t {pid} -U --preserve-credentials")
    } else {
        String::new()
    };
    let places = format!("/proc/{pid}/root{}", lab::FOLDER);
    let namespaces = format!("/proc/{pid}/root{}", lab::NAMESPACES);
    let [_, _, _, second] = lab::container_address(2).octets();
    format!(
        "\n{hosts} hosts are still running. Look around with\n\
         \x20 weft --run-dir {places}/host1 status\n\
         \x20 weft --run-dir {places}/host1 status connections\n\
         \x20 weft --run-dir {places}/host1 bench host2\n\
         \x20 nsenter{user} --net={namespaces}/c1 ping 10.2.1.{second}\n\
         \x20 nsenter{user} --net={namespaces}/host1 ip addr\n\
         and end everything with\n\
         \x20 kill {pid}"
    )
}

/// First steps of the first process inside: mounts of its own.
///
/// # Errors
///
/// When a mount is refused.
pub(crate) fn arrive(keep: bool) -> anyhow::Result<()> {
    if !keep {
        // Killed outright, the outer process cannot end us any more: the kernel does.
        set_pdeathsig(Signal::SIGKILL).context("go when the outer process goes")?;
    }
    let none: Option<&str> = None;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).context(
        "part from the system's mounts (namespaces are restricted here: run the demo as root)",
    )?;
    mount(
        Some("tmpfs"),
        "/run",
        Some("tmpfs"),
        MsFlags::MS_NOSUID | MsFlags::MS_NODEV,
        Some("mode=755"),
    )
    .context("mount a /run of its own")?;
    // Containers' files for `ip netns exec` go here; where the folder is missing and may not be made, there are none.
    let _refused = fs::create_dir_all("/etc/netns");
    let _refused = mount(
        Some("tmpfs"),
        "/etc/netns",
        Some("tmpfs"),
        MsFlags::empty(),
        none,
    );
    // Refused inside some containers; then /proc shows the processes outside, which disturbs nobody.
    let _refused = mount(Some("proc"), "/proc", Some("proc"), MsFlags::empty(), none);
    Ok(())
}

/// Tells the outer process to go, and stays until a signal comes.
///
/// # Errors
///
/// When signals cannot be waited for.
pub(crate) fn stay() -> anyhow::Result<ExitCode> {
    let end: SigSet = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGCHLD]
        .into_iter()
        .collect();
    end.thread_block().context("hold signals back")?;
    setsid().context("leave the terminal's session")?;
    write(std::io::stdin(), b"k").context("tell the outer process")?;
    let nothing = File::options()
        .read(true)
        .write(true)
        .open("/dev/null")
        .context("open /dev/null")?;
    dup2_stdin(&nothing)?;
    dup2_stdout(&nothing)?;
    dup2_stderr(&nothing)?;
    while end.wait()? == Signal::SIGCHLD {
        // The first process inherits every daemon whose parent has gone.
        while waitpid(None, Some(nix::sys::wait::WaitPidFlag::WNOHANG))
            .is_ok_and(|status| status.pid().is_some())
        {}
    }
    Ok(ExitCode::SUCCESS)
}

/// Returns a command whose input is empty: stdin is the line to the outer process.
pub(crate) fn command(program: &str) -> Command {
    let mut command = Command::new(program);
    command.stdin(Stdio::null());
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looking_around_as_an_ordinary_user_enters_the_user_namespace() {
        let root = how_to_look_around(77, false, 2);
        let user = how_to_look_around(77, true, 2);

        assert!(
            root.contains("nsenter --net=/proc/77/root/run/netns/c1 ping 10.2.1.2\n"),
            "{root}"
        );
        assert!(
            user.contains("nsenter -t 77 -U --preserve-credentials --net="),
            "{user}"
        );
        assert!(root.ends_with("kill 77"));
    }

    #[test]
    fn the_inside_gets_what_was_asked_for() {
        let args = DemoArgs {
            hosts: 3,
            seconds: 7,
            keep: true,
            stage: None,
        };

        let command = inside(Format::Json, &args);

        let words: Vec<&str> = command
            .get_args()
            .filter_map(|word| word.to_str())
            .collect();
        assert_eq!(
            words.join(" "),
            "--config /dev/null demo --stage inside --hosts 3 --seconds 7 --keep -o json"
        );
    }
}
