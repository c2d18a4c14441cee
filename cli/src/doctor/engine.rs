//! What the engine stands on: io_uring, TAP, UDP offloads; tried with the engine's own code.

use std::error::Error;
use std::fs::OpenOptions;
use std::io::{self, ErrorKind};
use std::thread;

use nix::sched::{CloneFlags, unshare};
use weft_engine::error::EngineError;
use weft_engine::io::tuntap::{self, TapOffloads};
use weft_engine::io::udp::{self, UdpOffloads};
use weft_engine::io::uring::UringIo;

use crate::doctor::Check;
use crate::doctor::host::read;

/// Returns what to do about a TUN/TAP device that cannot be opened.
pub(crate) fn tun_mend(error: &io::Error) -> &'static str {
    if error.kind() == ErrorKind::PermissionDenied {
        return "run as root, or chmod 0666 /dev/net/tun, as udev has it: devices still need CAP_NET_ADMIN";
    }
    "modprobe tun; in a container add --device /dev/net/tun"
}

/// A device and a port in a network namespace of our own: any will do.
const TAP_NAME: &str = "weft-doctor";
const PORT: u16 = 6783;
const MTU: u16 = 1376;

/// Judges io_uring, the TUN/TAP device, and the offloads of both sides.
pub(super) fn checks() -> Vec<Check> {
    let mut checks = vec![judge_uring(
        UringIo::probe(),
        read("/proc/sys/kernel/io_uring_disabled").trim(),
    )];
    if let Err(error) = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/net/tun")
    {
        checks.push(Check::fail(
            "tun",
            format!("/dev/net/tun cannot be opened: {error}"),
            tun_mend(&error),
        ));
        return checks;
    }
    checks.push(Check::ok("tun", "/dev/net/tun can be opened"));
    match try_devices() {
        Ok((tap, udp)) => {
            checks.push(judge_tap(tap));
            checks.push(judge_udp(udp));
        }
        Err(line) => checks.push(Check::warn(
            "offloads",
            format!("not examined: {line}"),
            "run as root: devices are tried in a network namespace that goes at once",
        )),
    }
    checks
}

/// Opens a TAP and a socket as the engine does, where nothing else is, and forgets them.
fn try_devices() -> Result<(TapOffloads, UdpOffloads), String> {
    let body = || {
        unshare(CloneFlags::CLONE_NEWNET)
            .map_err(|errno| format!("make a network namespace: {}", errno.desc()))?;
        let tap = tuntap::open(TAP_NAME, 1, MTU).map_err(|error| words(&error))?;
        let (_sockets, udp) = udp::open(None, PORT, 1).map_err(|error| words(&error))?;
        Ok((tap.offloads, udp))
    };
    // The namespace belongs to the thread and goes with it, and the device with the namespace.
    thread::spawn(body)
        .join()
        .unwrap_or_else(|_| Err("the trial broke off".to_owned()))
}

/// Returns an error and its cause as one line.
fn words(error: &EngineError) -> String {
    match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

fn judge_uring(probe: Result<(), EngineError>, disabled: &str) -> Check {
    let Err(error) = probe else {
        return Check::ok("io_uring", "a ring with all that the engine uses was made");
    };
    let mend = match disabled {
        "1" => "sysctl -w kernel.io_uring_disabled=0, or run as root",
        "2" => "sysctl -w kernel.io_uring_disabled=0",
        _ => "a kernel from 6.1 on; in a container a seccomp profile that allows io_uring_setup",
    };
    Check::warn(
        "io_uring",
        format!("{}: the epoll backend is used", words(&error)),
        mend,
    )
}

fn judge_tap(offloads: TapOffloads) -> Check {
    let TapOffloads { checksum, tcp, udp } = offloads;
    if checksum && tcp && udp {
        return Check::ok("tap", "checksum, TCP and UDP segmentation offloads");
    }
    if checksum && tcp {
        return Check::warn(
            "tap",
            "no UDP segmentation offload: UDP is slower",
            "a kernel from 6.2 on",
        );
    }
    Check::warn(
        "tap",
        "no TCP segmentation offload: everything is slower",
        "a newer tun driver",
    )
}

fn judge_udp(offloads: UdpOffloads) -> Check {
    let UdpOffloads {
        segment,
        receive,
        steering,
    } = offloads;
    let missing: Vec<&str> = [
        (segment, "UDP_SEGMENT"),
        (receive, "UDP_GRO"),
        (steering, "SO_ATTACH_REUSEPORT_CBPF"),
    ]
    .iter()
    .filter_map(|(present, name)| (!present).then_some(*name))
    .collect();
    if missing.is_empty() {
        return Check::ok("udp", "UDP_SEGMENT and UDP_GRO");
    }
    Check::warn(
        "udp",
        format!(
            "the kernel refuses {}: sending is slower",
            missing.join(", ")
        ),
        "a newer kernel",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Verdict;

    #[test]
    fn a_refused_ring_names_the_switch_that_refuses_it() {
        assert_eq!(judge_uring(Ok(()), "0").verdict, Verdict::Ok);

        let refused = judge_uring(Err(EngineError::UnsupportedOperation("RECVMSG")), "2");
        assert_eq!(refused.verdict, Verdict::Warn);
        assert!(
            refused.found.contains("RECVMSG") && refused.found.contains("epoll"),
            "{refused:?}"
        );
        assert_eq!(
            refused.mend.as_deref(),
            Some("sysctl -w kernel.io_uring_disabled=0")
        );
    }

    #[test]
    fn each_missing_offload_is_said() {
        let all = TapOffloads {
            checksum: true,
            tcp: true,
            udp: true,
        };
        assert_eq!(judge_tap(all).verdict, Verdict::Ok);
        assert!(
            judge_tap(TapOffloads { udp: false, ..all })
                .found
                .contains("UDP")
        );
        assert!(judge_tap(TapOffloads::default()).found.contains("TCP"));

        let all = UdpOffloads {
            segment: true,
            receive: true,
            steering: true,
        };
        assert_eq!(judge_udp(all).verdict, Verdict::Ok);
        assert!(
            judge_udp(UdpOffloads {
                receive: false,
                ..all
            })
            .found
            .contains("UDP_GRO")
        );
    }
}
