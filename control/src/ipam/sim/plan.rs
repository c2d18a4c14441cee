//! What one seed means: how many hosts, how the ring begins, what goes wrong and how often.

use crate::random::Randomness;

/// How the hosts get their first ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Begin {
    Consensus,
    Seeds,
}

/// One run.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    pub(super) hosts: usize,
    pub(super) begin: Begin,
    /// Hosts at the end of the list that only observe.
    pub(super) observers: usize,
    /// Hosts that come later.
    pub(super) late: usize,
    pub(super) prefix: u8,
    pub(super) loss_percent: u64,
    pub(super) repeat_percent: u64,
    pub(super) delay_ms_max: u64,
    /// Every message takes the longest delay.
    pub(super) delay_is_fixed: bool,
    pub(super) write_ms_max: u64,
    /// Rounds of disturbance, each followed by a judgement.
    pub(super) rounds: usize,
    /// Partitions and heals in one round.
    pub(super) partitions: usize,
    /// Old disks, copied hosts, removals by force.
    pub(super) is_clean: bool,
    pub(super) with_leaving: bool,
    pub(super) with_disk_errors: bool,
    /// Stores that are damaged and begun anew, in clean runs, too.
    pub(super) with_lost_stores: bool,
}

/// Picks a number below `max`.
pub(super) fn below(random: &mut Randomness, max: u64) -> u64 {
    random.u64() % max.max(1)
}

impl Plan {
    pub(super) fn of(seed: u64) -> Self {
        let random = &mut Randomness::seeded(seed ^ 0x5eed);
        let hosts = match below(random, 20) {
            0 => 20 + below(random, 31),
            1..=4 => 7 + below(random, 12),
            _ => 3 + below(random, 4),
        };
        let hosts = usize::try_from(hosts).unwrap_or(3);
        let late = usize::try_from(below(random, 3))
            .unwrap_or(0)
            .min(hosts - 2);
        let observers = usize::from(below(random, 4) == 0).min(hosts - late - 2);
        Self {
            hosts,
            begin: if below(random, 5) == 0 {
                Begin::Seeds
            } else {
                Begin::Consensus
            },
            observers,
            late,
            prefix: 26 - u8::try_from(below(random, 5)).unwrap_or(0),
            loss_percent: [0, 0, 5, 20, 35][usize::try_from(below(random, 5)).unwrap_or(0)],
            repeat_percent: below(random, 10),
            delay_ms_max: [2, 20, 100, 400][usize::try_from(below(random, 4)).unwrap_or(0)],
            delay_is_fixed: false,
            write_ms_max: [1, 10, 80][usize::try_from(below(random, 3)).unwrap_or(0)],
            rounds: 2,
            partitions: 6,
            is_clean: below(random, 2) == 0,
            with_leaving: below(random, 4) == 0,
            with_disk_errors: below(random, 4) == 0,
            with_lost_stores: false,
        }
    }
}
