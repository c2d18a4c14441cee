//! Asks the scheduler to let a thread in soon, for a short time slice each turn.
//!
//! Since Linux 6.12 a fair thread may say how long its slices should be, and one that wakes up with shorter ones than
//! the one that runs goes first (`kernel/sched/fair.c`, `PREEMPT_SHORT`); its share stays what it was. A worker
//! that handles a lone frame needs some ten microseconds and would else wait for milliseconds behind a program that
//! computes. Older kernels take the call and ignore it.
#![expect(
    unsafe_code,
    reason = "sched_getattr and sched_setattr have no wrappers"
)]

use std::time::Duration;

use nix::errno::Errno;

/// The shortest that the kernel takes.
const SLICE: Duration = Duration::from_micros(100);

/// Asks for short slices for the calling thread; leaves one alone that somebody gave another scheduling policy.
///
/// # Errors
///
/// When the kernel refuses; then slices are as they were.
pub fn ask_for_short_slices() -> nix::Result<()> {
    let mut wish = current()?;
    if wish.sched_policy != u32::try_from(libc::SCHED_OTHER).unwrap_or_default() {
        return Ok(());
    }
    wish.sched_runtime = u64::try_from(SLICE.as_nanos()).unwrap_or(u64::MAX);
    // SAFETY: the kernel reads `size` bytes, which are all of `wish`, and keeps no pointer.
    let result = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const wish, 0) };
    Errno::result(result).map(drop)
}

fn current() -> nix::Result<libc::sched_attr> {
    let size = u32::try_from(size_of::<libc::sched_attr>()).unwrap_or_default();
    let mut wish = libc::sched_attr {
        size,
        sched_policy: 0,
        sched_flags: 0,
        sched_nice: 0,
        sched_priority: 0,
        sched_runtime: 0,
        sched_deadline: 0,
        sched_period: 0,
    };
    // SAFETY: the kernel writes at most `size` bytes, which are all of `wish`, and keeps no pointer.
    let result = unsafe { libc::syscall(libc::SYS_sched_getattr, 0, &raw mut wish, size, 0) };
    Errno::result(result).map(|_| wish)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// On kernels before 6.12 the slice reads as 0; what must hold on all is that nothing else changes.
    #[test]
    fn a_thread_keeps_its_policy_and_its_share() {
        let before = current().unwrap();
        ask_for_short_slices().unwrap();
        let after = current().unwrap();
        assert_eq!(
            (before.sched_policy, before.sched_nice),
            (after.sched_policy, after.sched_nice)
        );
        let kept = [0, u64::try_from(SLICE.as_nanos()).unwrap()];
        assert!(kept.contains(&after.sched_runtime), "{after:?}");
    }
}
