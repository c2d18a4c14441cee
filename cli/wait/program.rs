//! `/w/w`, the wait program: runs as a container's first process until the network is there, then becomes the real one.
//!
//! ```text
//!  /w/w PROGRAM ARGUMENT…  ─► looks at /proc/self/net every millisecond ─► exec PROGRAM ARGUMENT…
//! ```
//!
//! A static program of its own, compiled by `cli/build.rs` and carried inside `weft`: it has to run in an empty image.
//! It reads only: no socket, no file written. As a container's first process it would not hear what is to end it unless
//! it says what then: `docker stop` ends the wait at once. The sign that the network is ready is the last thing
//! that attaching does: the multicast route; or, where [`NO_ROUTE_MARK`] lies beside the program, the route to the DNS server;
//! or, where there is none either, addresses that stay the same for a moment.

#![expect(
    unsafe_code,
    reason = "the C library's signal() has no safe form in the standard library, the only one that this program has"
)]

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::thread;
use std::time::Duration;

/// The interface.
const INTERFACE: &str = "ethwe";
/// Beside the program where containers get no multicast route.
const NO_ROUTE_MARK: &str = "/w/no-multicast-route";
/// Between two looks: reading a file of a few lines costs some 20 µs.
const PAUSE: Duration = Duration::from_millis(1);
/// The same once it takes long: who waits for minutes does not mind 20 ms.
const LONG_PAUSE: Duration = Duration::from_millis(20);
/// Looks after which the pause is long: some seconds.
const LOOKS_SOON: u32 = 3000;
/// Looks after which the container's log says what is going on.
const LOOKS_BEFORE_NOTE: u32 = 3400;
/// Looks for which addresses have to be the same where no route is the last thing to come.
const LOOKS_SAME: u32 = 40;
/// As a shell has it.
const NOT_FOUND: u8 = 127;
/// As a shell has it.
const NOT_RUNNABLE: u8 = 126;
/// As Docker has it for a program that cannot be started after all.
const NOT_STARTED: u8 = 1;

/// SIGHUP, SIGINT, SIGQUIT and SIGTERM: what ends a program that has not said otherwise.
const ENDING: [i32; 4] = [1, 2, 3, 15];
/// Added to a signal's number, as a shell has it.
const BY_SIGNAL: i32 = 128;

unsafe extern "C" {
    fn signal(number: i32, handler: extern "C" fn(i32)) -> usize;
    fn _exit(code: i32) -> !;
}

/// Why the program is not started: the line, and the exit code.
type Failure = (String, u8);

pub(crate) fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    let Some(program) = arguments.next() else {
        talk("weft: the wait program has no program to start: No command specified");
        return ExitCode::from(NOT_FOUND);
    };
    end_when_told();
    wait();
    let search = std::env::var_os("PATH").unwrap_or_default();
    let (line, code) = match find(&program, &search) {
        Ok(path) => start(&path, &program, arguments),
        Err(failure) => failure,
    };
    talk(&line);
    ExitCode::from(code)
}

/// The kernel keeps from a first process what it would only die of. The program that is started finds everything as it
/// was: handlers do not outlive `exec`.
fn end_when_told() {
    extern "C" fn leave(number: i32) {
        // SAFETY: a handler may call it at any moment.
        unsafe { _exit(BY_SIGNAL + number) }
    }
    for number in ENDING {
        // SAFETY: the handler touches nothing of ours.
        unsafe { signal(number, leave) };
    }
}

fn talk(line: &str) {
    // A container without stderr learns it from the exit code.
    let _ = writeln!(io::stderr(), "{line}");
}

#[expect(
    clippy::disallowed_methods,
    reason = "there is no event to wait for without system calls of our own"
)]
fn wait() {
    let wants_route = !Path::new(NO_ROUTE_MARK).exists();
    let (mut looks, mut same, mut before) = (0, 0, String::new());
    loop {
        let routes = read("/proc/self/net/route");
        let is_last = if wants_route {
            has_multicast_route(&routes)
        } else {
            has_server_route(&routes)
        };
        if is_last {
            return;
        }
        if !wants_route {
            let now = addresses(&routes, &read("/proc/self/net/if_inet6"));
            same = if now.is_empty() || now != before {
                0
            } else {
                same + 1
            };
            before = now;
            if same == LOOKS_SAME {
                return;
            }
        }
        looks += 1;
        if looks == LOOKS_BEFORE_NOTE {
            talk(
                "weft: waiting for the network before the program is started; does weft run on this host (`weft status`)?",
            );
        }
        thread::sleep(if looks < LOOKS_SOON {
            PAUSE
        } else {
            LONG_PAUSE
        });
    }
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

/// The lines about our interface, as words.
fn ours(routes: &str) -> impl Iterator<Item = Vec<&str>> {
    let lines = routes.lines().map(|line| line.split_whitespace().collect());
    lines.filter(|words: &Vec<&str>| words.first() == Some(&INTERFACE))
}

/// 224.0.0.0/4, as `/proc/net/route` writes it: in the order of the machine's bytes.
fn has_multicast_route(routes: &str) -> bool {
    let hex = |bytes| format!("{:08X}", u32::from_ne_bytes(bytes));
    let (network, mask) = (hex([224, 0, 0, 0]), hex([240, 0, 0, 0]));
    ours(routes).any(|words| {
        words.get(1) == Some(&network.as_str()) && words.get(7) == Some(&mask.as_str())
    })
}

/// To the DNS server: a single address of the link, 169.254.0.0/16.
fn has_server_route(routes: &str) -> bool {
    ours(routes).any(|words| {
        let number = |at: usize| u32::from_str_radix(words.get(at).unwrap_or(&""), 16);
        let bytes = number(1).unwrap_or_default().to_ne_bytes();
        bytes[..2] == [169, 254] && number(7) == Ok(u32::MAX)
    })
}

/// What tells of the addresses of our interface: the routes to their subnets, and those of IPv6 that are not only of
/// the link; the fourth word is their scope.
fn addresses(routes: &str, six: &str) -> String {
    let routes = ours(routes).map(|words| words.join(" "));
    let six = six.lines().filter(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        words.last() == Some(&INTERFACE) && words.get(3) == Some(&"00")
    });
    routes.chain(six.map(str::to_owned)).collect()
}

/// Finds the program as Docker does: by its path, or in the folders of PATH.
fn find(program: &OsStr, search: &OsStr) -> Result<PathBuf, Failure> {
    let shown = program.to_string_lossy();
    if program.as_bytes().contains(&b'/') {
        let path = PathBuf::from(program);
        return match fs::metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err((
                format!("exec: {shown:?}: stat {shown}: no such file or directory"),
                NOT_FOUND,
            )),
            Err(error) => Err((format!("exec: {shown:?}: {error}"), NOT_RUNNABLE)),
            Ok(file) if file.is_dir() => {
                Err((format!("exec: {shown:?}: is a directory"), NOT_RUNNABLE))
            }
            Ok(file) if file.permissions().mode() & 0o111 == 0 => {
                Err((format!("exec: {shown:?}: permission denied"), NOT_RUNNABLE))
            }
            Ok(_) => Ok(path),
        };
    }
    let folders = search.as_bytes().split(|byte| *byte == b':');
    let folders = folders.map(|folder| match folder {
        b"" => Path::new("."),
        folder => Path::new(OsStr::from_bytes(folder)),
    });
    let mut candidates = folders.map(|folder| folder.join(program));
    let found = candidates.find(|path| {
        fs::metadata(path)
            .is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
    });
    found.filter(|_| !program.is_empty()).ok_or_else(|| {
        let line = format!("exec: {shown:?}: executable file not found in $PATH");
        (line, NOT_FOUND)
    })
}

/// Becomes the program; returns only why not.
fn start(path: &Path, name: &OsStr, arguments: impl Iterator<Item = OsString>) -> Failure {
    let shown = path.display();
    if is_bare_script(path) {
        return (format!("exec {shown}: exec format error"), NOT_STARTED);
    }
    let error = Command::new(path).arg0(name).args(arguments).exec();
    if error.kind() == io::ErrorKind::PermissionDenied {
        return (format!("exec {shown}: permission denied"), NOT_RUNNABLE);
    }
    let reason = if error.kind() == io::ErrorKind::NotFound {
        "no such file or directory".to_owned()
    } else {
        error.to_string()
    };
    (format!("exec {shown}: {reason}"), NOT_STARTED)
}

/// A text that does not say who reads it. The C library would start a shell for it; Docker does not.
fn is_bare_script(path: &Path) -> bool {
    let mut beginning = [0; 128];
    let read = fs::File::open(path).and_then(|mut file| io::Read::read(&mut file, &mut beginning));
    // What may be run and not read is left to the kernel.
    let Ok(len) = read else {
        return false;
    };
    let beginning = &beginning[..len];
    let is_text = |byte: &u8| matches!(byte, b'\t' | b'\n' | b'\r' | b' '..=b'~' | 0x80..);
    !beginning.starts_with(b"#!") && beginning.iter().all(is_text)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROUTES: &str = "\
Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
eth0\t00000000\t010011AC\t0003\t0\t0\t0\t00000000\t0\t0\t0
eth0\t000000E0\t00000000\t0001\t0\t0\t0\t000000F0\t0\t0\t0
";

    #[test]
    #[cfg(target_endian = "little")]
    fn the_network_is_ready_with_the_multicast_route_of_our_interface() {
        assert!(!has_multicast_route("") && !has_multicast_route(ROUTES));
        let address =
            format!("{ROUTES}ethwe\t0000200A\t00000000\t0001\t0\t0\t0\t0000F0FF\t0\t0\t0\n");
        assert!(!has_multicast_route(&address) && !has_server_route(&address));
        assert!(addresses(&address, "").starts_with("ethwe 0000200A"));
        let route =
            format!("{ROUTES}ethwe\t000000E0\t00000000\t0001\t0\t0\t0\t000000F0\t0\t0\t0\n");
        assert!(has_multicast_route(&route));
        let server =
            format!("{ROUTES}ethwe\t0135FEA9\t00000000\t0001\t0\t0\t0\tFFFFFFFF\t0\t0\t0\n");
        assert!(has_server_route(&server) && !has_server_route(ROUTES));
    }

    #[test]
    fn an_address_of_the_link_alone_is_none() {
        let local = "fe80000000000000000000fffe000001 02 40 20 80    ethwe\n";
        assert_eq!(addresses(ROUTES, local), "");
        let global = "fd000000000000000000000000000001 02 40 00 80";
        assert_ne!(addresses("", &format!("{global}    ethwe\n")), "");
        assert_eq!(addresses("", &format!("{global}    eth0\n")), "");
    }

    #[test]
    fn programs_are_found_and_missed_as_docker_does() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, mode| {
            let path = dir.path().join(name);
            fs::write(&path, "#!/bin/sh\n").unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            path
        };
        let (runs, plain) = (file("runs", 0o755), file("plain", 0o644));
        let search = OsString::from(format!("/nowhere:{}", dir.path().display()));
        let find = |name: &str| find(OsStr::new(name), &search);

        assert_eq!(find("runs"), Ok(runs.clone()));
        assert_eq!(find(runs.to_str().unwrap()), Ok(runs));
        let missing = |name: &str| format!("exec: {name:?}: executable file not found in $PATH");
        for name in ["nosuch", "plain", ""] {
            assert_eq!(find(name), Err((missing(name), NOT_FOUND)));
        }
        let denied = format!("exec: {plain:?}: permission denied");
        assert_eq!(find(plain.to_str().unwrap()), Err((denied, NOT_RUNNABLE)));
        let line = "exec: \"/no/such\": stat /no/such: no such file or directory";
        assert_eq!(find("/no/such"), Err((line.to_owned(), NOT_FOUND)));
        assert_eq!(
            find("/"),
            Err(("exec: \"/\": is a directory".to_owned(), NOT_RUNNABLE))
        );
    }

    #[test]
    fn a_text_without_an_interpreter_is_no_program() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        for (text, is_bare) in [
            (&b"echo hello\n"[..], true),
            (b"", true),
            (b"#!/bin/sh\n", false),
            (b"\x7fELF\x02\x01\x01\x00", false),
        ] {
            fs::write(&path, text).unwrap();
            assert_eq!(is_bare_script(&path), is_bare, "{text:?}");
        }
    }
}
