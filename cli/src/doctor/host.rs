//! The host itself: kernel, capabilities, limits.

use std::fs;

use crate::doctor::Check;

/// Below this, parts of either backend are missing.
const KERNEL_MIN: (u32, u32) = (5, 15);
/// From here on io_uring has all that its backend uses.
const KERNEL_URING: (u32, u32) = (6, 1);
/// What the io_uring backend registers for a few workers.
const LOCKED_MEMORY_MIN: u64 = 64 << 20;
/// What arrives at 10 Gbit/s while a worker is off its core for a few milliseconds.
const RECEIVE_BUFFER_MIN: u64 = 4 << 20;
/// What the engine asks for.
const RECEIVE_BUFFER_BEST: u64 = 16 << 20;

/// Capabilities by number (`capabilities(7)`), whether weft runs without, and what for.
const CAPABILITIES: [(u32, &str, bool, &str); 3] = [
    (12, "CAP_NET_ADMIN", true, "to make devices"),
    (13, "CAP_NET_RAW", false, "to announce moved addresses"),
    (
        21,
        "CAP_SYS_ADMIN",
        false,
        "to enter containers' namespaces",
    ),
];
const CAP_IPC_LOCK: u32 = 14;

/// Judges the kernel's version.
pub(super) fn kernel() -> Check {
    judge_kernel(read("/proc/sys/kernel/osrelease").trim())
}

fn judge_kernel(release: &str) -> Check {
    let mut numbers = release
        .split(|c: char| !c.is_ascii_digit())
        .map(|part| part.parse::<u32>().unwrap_or(0));
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if version >= KERNEL_URING {
        return Check::ok("kernel", format!("{release}: io_uring and epoll"));
    }
    if version >= KERNEL_MIN {
        return Check::warn(
            "kernel",
            format!("{release}: epoll alone"),
            "a kernel from 6.1 on adds the io_uring backend",
        );
    }
    Check::fail(
        "kernel",
        format!("{release} is older than 5.15"),
        "a newer kernel",
    )
}

/// Judges what this process may do.
pub(super) fn capabilities() -> Check {
    judge_capabilities(effective_capabilities())
}

fn effective_capabilities() -> u64 {
    let status = read("/proc/self/status");
    let hex = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .unwrap_or_default();
    u64::from_str_radix(hex.trim(), 16).unwrap_or(0)
}

fn judge_capabilities(set: u64) -> Check {
    let missing: Vec<_> = CAPABILITIES
        .iter()
        .filter(|(number, ..)| set >> number & 1 == 0)
        .collect();
    if missing.is_empty() {
        return Check::ok("capabilities", "CAP_NET_ADMIN, CAP_NET_RAW, CAP_SYS_ADMIN");
    }
    let names: Vec<String> = missing
        .iter()
        .map(|(_, name, _, purpose)| format!("{name} ({purpose})"))
        .collect();
    let found = format!("missing: {}", names.join(", "));
    let mend = "run as root, or give the service these capabilities; `weft demo` needs none";
    if missing.iter().any(|(_, _, needed, _)| *needed) {
        Check::fail("capabilities", found, mend)
    } else {
        Check::warn("capabilities", found, mend)
    }
}

/// Judges how much memory may be locked, which is where io_uring's buffers are.
pub(super) fn locked_memory() -> Check {
    let privileged = effective_capabilities() >> CAP_IPC_LOCK & 1 == 1;
    judge_locked_memory(&read("/proc/self/limits"), privileged)
}

fn judge_locked_memory(limits: &str, privileged: bool) -> Check {
    let line = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max locked memory"))
        .unwrap_or_default();
    let soft = line.split_whitespace().next().unwrap_or_default();
    if privileged {
        return Check::ok("memlock", "CAP_IPC_LOCK: no limit");
    }
    match soft.parse::<u64>() {
        Ok(limit) if limit < LOCKED_MEMORY_MIN => Check::warn(
            "memlock",
            format!(
                "{} may be locked: io_uring may be refused its buffers",
                size(limit)
            ),
            "LimitMEMLOCK=infinity in the unit, or `ulimit -l unlimited`",
        ),
        Ok(limit) => Check::ok("memlock", size(limit)),
        Err(_) => Check::ok("memlock", "no limit"),
    }
}

/// Judges how long a socket's receive buffer may be.
pub(super) fn receive_buffer() -> Check {
    judge_receive_buffer(read("/proc/sys/net/core/rmem_max").trim().parse().ok())
}

fn judge_receive_buffer(limit: Option<u64>) -> Check {
    match limit {
        // In a network namespace other than the host's the file is not there.
        None => Check::ok("rmem_max", "not shown here: the host's value holds"),
        Some(limit) if limit < RECEIVE_BUFFER_MIN => Check::warn(
            "rmem_max",
            format!("{}: bursts may be lost at high rates", size(limit)),
            format!("sysctl -w net.core.rmem_max={RECEIVE_BUFFER_BEST}"),
        ),
        Some(limit) => Check::ok("rmem_max", size(limit)),
    }
}

fn size(bytes: u64) -> String {
    if bytes >= 1 << 20 {
        format!("{} MiB", bytes >> 20)
    } else {
        format!("{} KiB", bytes >> 10)
    }
}

/// Returns a file of the kernel's, empty if it is not there.
pub(super) fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Verdict;

    #[test]
    fn the_kernel_floor_is_5_15_and_6_1_is_best() {
        let verdicts = [
            "5.14.21-suse",
            "5.15.0-91-generic",
            "6.0.9",
            "6.1.0-13-amd64",
            "6.18.44",
            "10.0",
        ]
        .map(|release| judge_kernel(release).verdict);

        use Verdict::{Fail, Ok, Warn};
        assert_eq!(verdicts, [Fail, Warn, Warn, Ok, Ok, Ok]);
    }

    #[test]
    fn missing_capabilities_are_named_and_only_net_admin_is_needed() {
        let all = 1 << 12 | 1 << 13 | 1 << 21;
        assert_eq!(judge_capabilities(all).verdict, Verdict::Ok);

        let without_admin = judge_capabilities(all & !(1 << 12));
        assert_eq!(without_admin.verdict, Verdict::Fail);
        assert!(
            without_admin.found.contains("CAP_NET_ADMIN"),
            "{without_admin:?}"
        );
        assert_eq!(judge_capabilities(all & !(1 << 21)).verdict, Verdict::Warn);
    }

    #[test]
    fn locked_memory_is_judged_by_its_soft_limit() {
        let limits = |soft: &str| {
            format!(
                "Max file size   unlimited\nMax locked memory         {soft}   {soft}   bytes\n"
            )
        };

        assert_eq!(
            judge_locked_memory(&limits("65536"), false).verdict,
            Verdict::Warn
        );
        assert_eq!(
            judge_locked_memory(&limits("65536"), true).verdict,
            Verdict::Ok
        );
        assert_eq!(
            judge_locked_memory(&limits("unlimited"), false).verdict,
            Verdict::Ok
        );
        assert_eq!(
            judge_locked_memory(&limits("1073741824"), false).found,
            "1024 MiB"
        );
    }

    #[test]
    fn a_small_receive_buffer_is_said_with_the_command_that_mends_it() {
        let small = judge_receive_buffer(Some(212_992));

        assert_eq!(small.verdict, Verdict::Warn);
        assert_eq!(
            small.mend.as_deref(),
            Some("sysctl -w net.core.rmem_max=16777216")
        );
        assert_eq!(
            judge_receive_buffer(Some(RECEIVE_BUFFER_BEST)).verdict,
            Verdict::Ok
        );
        assert_eq!(judge_receive_buffer(None).verdict, Verdict::Ok);
    }
}
