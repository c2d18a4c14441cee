//! What a run cost: processor time of the machine and of the daemons, and time stolen by the host of a virtual machine.

use std::fs;

/// Ticks a second in `/proc`, the same on every Linux.
const TICKS_PER_S: f64 = 100.0;

/// Processor seconds so far.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Usage {
    /// Busy in any way, all processors.
    pub(crate) busy_s: f64,
    /// Taken away by the hypervisor.
    pub(crate) steal_s: f64,
    /// Of `busy_s`, what the daemons used themselves.
    pub(crate) daemons_s: f64,
}

impl Usage {
    /// Reads all counters now.
    pub(crate) fn now(daemons: &[u32]) -> Self {
        let text = fs::read_to_string("/proc/stat").unwrap_or_default();
        let first = text.lines().next().unwrap_or_default();
        // cpu user nice system idle iowait irq softirq steal …
        let ticks: Vec<f64> = first
            .split_whitespace()
            .skip(1)
            .filter_map(|field| field.parse().ok())
            .collect();
        let at = |field: usize| ticks.get(field).copied().unwrap_or(0.0) / TICKS_PER_S;
        Self {
            busy_s: at(0) + at(1) + at(2) + at(5) + at(6),
            steal_s: at(7),
            daemons_s: daemons.iter().map(|pid| process_seconds(*pid)).sum(),
        }
    }

    /// What was used since `earlier`.
    pub(crate) fn since(self, earlier: Self) -> Self {
        Self {
            busy_s: self.busy_s - earlier.busy_s,
            steal_s: self.steal_s - earlier.steal_s,
            daemons_s: self.daemons_s - earlier.daemons_s,
        }
    }
}

fn process_seconds(pid: u32) -> f64 {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name in parentheses may hold anything; utime and stime are fields 14 and 15, 11 and 12 after it.
    let Some((_, fields)) = text.rsplit_once(')') else {
        return 0.0;
    };
    let ticks: f64 = fields
        .split_whitespace()
        .skip(11)
        .take(2)
        .filter_map(|field| field.parse::<f64>().ok())
        .sum();
    ticks / TICKS_PER_S
}
