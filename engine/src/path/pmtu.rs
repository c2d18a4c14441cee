//! Path MTU of one path, searched and watched (RFC 8899). Sizes are UDP payload bytes.
//!
//! ```text
//!            begin                    nothing left to try
//!   Off ───────────► Searching ─────────────────────────────► Settled
//!    ▲    end        trials of many      ▲                       │
//!    └────────────   sizes in flight     └───────────────────────┘
//!                                          RAISE_EVERY passed, or full-size probes
//!                                          vanish while small ones are answered
//! ```
//!
//! The first round of a search tries every well-known size at once, later rounds divide what is left
//! between the largest size that crossed and the smallest that did not, until less than
//! [`PRECISION`] is left. Losing all tries of a trial makes its size too big for this search only, so
//! random loss is forgiven at the next one.
//!
//! A path whose full-size probes vanish falls back to the base size. How many must vanish rises with
//! the small ones lost meanwhile: on a lossy path a few prove nothing.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::config::{DATAGRAM_LEN_MAX, MTU_TRIALS_MAX};

/// Sent without asking, crosses every usable path (RFC 8899 section 5.1.2, `BASE_PLPMTU`).
pub(super) const BASE: u16 = 1200;
/// Underlay MTUs met in practice: IPv6 minimum, tunnels, PPPoE, Ethernet, a page, jumbo frames.
const WELL_KNOWN_MTUS: [u16; 7] = [1280, 1400, 1420, 1492, 1500, 4096, 9000];
/// A gap of this many bytes is not worth more trials.
const PRECISION: u16 = 8;
/// A size is too big when this many datagrams of it vanish (RFC 8899 section 5.1.2, `MAX_PROBES`).
const TRIES: u8 = 3;
/// How often a path below the interface's limit is searched again: routes mend, and loss misleads.
/// Shorter than the ten minutes of RFC 8899 section 5.1.1, as it costs a handful of datagrams.
const RAISE_EVERY: Duration = Duration::from_secs(60);
/// Full-size probes that must vanish, when no small one does, before the size is given up.
const LOST_FULL_MIN: u32 = 6;
/// Small probes that must be answered meanwhile, else the path itself is in doubt.
const ANSWERED_SMALL_MIN: u32 = 2;

/// Headers of IP and UDP before a payload that goes to this address.
fn header_len(to: SocketAddr) -> u16 {
    if to.is_ipv4() { 28 } else { 48 }
}

/// The largest size worth trying: the interface may carry more than the engine's buffers are made for.
fn limit(underlay_mtu: u16, header_len: u16) -> u16 {
    let engine_max = u16::try_from(DATAGRAM_LEN_MAX).unwrap_or(u16::MAX);
    underlay_mtu
        .saturating_sub(header_len)
        .clamp(BASE, engine_max)
}

#[derive(Debug)]
pub(super) struct Pmtu {
    header_len: u16,
    limit: u16,
    /// INVARIANT: `BASE <= confirmed <= limit` and `confirmed < too_big <= limit + 1`.
    confirmed: u16,
    too_big: u16,
    phase: Phase,
    trials: Vec<Trial>,
    checked_at: Option<Instant>,
    suspicion: Option<Suspicion>,
    /// Less crosses than did, and the peer does not know.
    fell: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Off,
    Searching,
    Settled { raise_at: Instant },
}

#[derive(Debug)]
struct Trial {
    len: u16,
    /// The same for all tries: an answer to any of them proves the size.
    id: u64,
    sent_at: Option<Instant>,
    tries: u8,
}

/// What happened since a full-size probe vanished.
#[derive(Debug, Default)]
struct Suspicion {
    full_lost: u32,
    small_lost: u32,
    small_answered: u32,
}

impl Pmtu {
    pub(super) fn new(to: SocketAddr, underlay_mtu: u16) -> Self {
        let header_len = header_len(to);
        let limit = limit(underlay_mtu, header_len);
        Self {
            header_len,
            limit,
            confirmed: BASE,
            too_big: limit + 1,
            phase: Phase::Off,
            trials: Vec::new(),
            checked_at: None,
            suspicion: None,
            fell: false,
        }
    }

    /// The largest size known to cross.
    pub(super) fn confirmed(&self) -> u16 {
        self.confirmed
    }

    /// The path is in use from now on.
    pub(super) fn begin(&mut self) {
        self.end();
        self.search(None);
    }

    /// The path is no longer in use: forget what was found, routes change.
    pub(super) fn end(&mut self) {
        self.confirmed = BASE;
        self.too_big = self.limit + 1;
        self.phase = Phase::Off;
        self.trials.clear();
        self.checked_at = None;
        self.suspicion = None;
        self.fell = false;
    }

    /// The local interface's MTU changed.
    pub(super) fn set_underlay_mtu(&mut self, underlay_mtu: u16) {
        let limit = limit(underlay_mtu, self.header_len);
        if limit == self.limit {
            return;
        }
        self.limit = limit;
        self.fell |= self.confirmed > limit;
        self.confirmed = self.confirmed.min(limit);
        match self.phase {
            Phase::Off => self.too_big = limit + 1,
            Phase::Searching | Phase::Settled { .. } => self.search(None),
        }
    }

    /// Starts over with the well-known sizes above what is confirmed, and one more.
    fn search(&mut self, also: Option<u16>) {
        self.phase = Phase::Searching;
        self.too_big = self.limit + 1;
        self.trials.clear();
        let well_known = WELL_KNOWN_MTUS.map(|mtu| mtu - self.header_len);
        for len in well_known.into_iter().chain(also).chain([self.limit]) {
            self.try_len(len);
        }
    }

    fn try_len(&mut self, len: u16) {
        let open = self.confirmed < len && len < self.too_big;
        let known = self.trials.iter().any(|trial| trial.len == len);
        if open && !known && self.trials.len() < MTU_TRIALS_MAX {
            self.trials.push(Trial {
                len,
                id: 0,
                sent_at: None,
                tries: 0,
            });
        }
    }

    /// Counts out what was not answered in time and plans what to try next.
    pub(super) fn advance(&mut self, timeout: Duration, now: Instant) {
        for trial in &mut self.trials {
            if trial.sent_at.is_some_and(|at| at + timeout <= now) {
                trial.sent_at = None;
                if trial.tries >= TRIES {
                    self.too_big = self.too_big.min(trial.len);
                }
            }
        }
        self.drop_decided_trials();
        match self.phase {
            Phase::Searching if self.trials.is_empty() => self.divide(now),
            Phase::Settled { raise_at } if raise_at <= now && self.confirmed < self.limit => {
                self.search(Some(self.too_big));
            }
            Phase::Off | Phase::Searching | Phase::Settled { .. } => {}
        }
    }

    /// Plans a round between the largest size that crossed and the smallest that did not.
    fn divide(&mut self, now: Instant) {
        let gap = self.too_big - self.confirmed;
        if self.confirmed == self.limit || gap <= PRECISION {
            self.phase = Phase::Settled {
                raise_at: now + RAISE_EVERY,
            };
            return;
        }
        for step in 1..MTU_TRIALS_MAX {
            let share = usize::from(gap) * step / MTU_TRIALS_MAX;
            self.try_len(self.confirmed + u16::try_from(share).unwrap_or(gap));
        }
    }

    fn drop_decided_trials(&mut self) {
        let (low, high) = (self.confirmed, self.too_big);
        self.trials
            .retain(|trial| low < trial.len && trial.len < high);
    }

    /// The next trial to send now: its id (this one, if it is new) and size. Call until `None`.
    pub(super) fn next_trial(&mut self, id: u64, now: Instant) -> Option<(u64, u16)> {
        let trial = self
            .trials
            .iter_mut()
            .find(|trial| trial.sent_at.is_none())?;
        if trial.tries == 0 {
            trial.id = id;
        }
        trial.tries += 1;
        trial.sent_at = Some(now);
        Some((trial.id, trial.len))
    }

    /// A probe came back; tells whether it was one of the trials.
    pub(super) fn trial_answered(&mut self, id: u64, received_len: u16, now: Instant) -> bool {
        let trial = self
            .trials
            .iter()
            .find(|trial| trial.tries > 0 && trial.id == id);
        let Some(len) = trial.map(|trial| trial.len) else {
            return false;
        };
        if received_len >= len {
            self.crossed(len, now);
        }
        true
    }

    /// A datagram of this size crossed.
    pub(super) fn crossed(&mut self, len: u16, now: Instant) {
        if self.phase == Phase::Off || len < self.confirmed || len > self.limit {
            return;
        }
        self.confirmed = len;
        self.checked_at = Some(now);
        self.suspicion = None;
        if self.too_big <= len {
            self.too_big = self.limit + 1;
        }
        self.drop_decided_trials();
    }

    /// The kernel refused a datagram of this size. It knows; but the base size is never given up.
    pub(super) fn refused(&mut self, len: u16) {
        if self.phase == Phase::Off || len <= BASE {
            return;
        }
        if len <= self.confirmed {
            self.fall();
            self.search(None);
        }
        self.too_big = self.too_big.min(len);
        self.drop_decided_trials();
    }

    fn fall(&mut self) {
        self.confirmed = BASE;
        self.suspicion = None;
        self.fell = true;
    }

    /// Whether the peer is to be told that less crosses than did.
    pub(super) fn take_fell(&mut self) -> bool {
        std::mem::take(&mut self.fell)
    }

    /// Less crosses in the other direction than did: is it so in this one? Until that is known the base size is used,
    /// for a round trip if it is not so.
    pub(super) fn doubt(&mut self) {
        let confirmed = std::mem::replace(&mut self.confirmed, BASE);
        if self.phase != Phase::Off && confirmed > BASE {
            self.suspicion = None;
            self.search(Some(confirmed));
        }
    }

    /// Whether the next probe is to have the full size.
    pub(super) fn check_due(&self, every: Duration, now: Instant) -> bool {
        let late = self.checked_at.is_none_or(|at| at + every <= now);
        self.confirmed > BASE && (late || self.suspicion.is_some())
    }

    /// A full-size probe goes out.
    pub(super) fn check_sent(&mut self, now: Instant) {
        self.checked_at = Some(now);
    }

    /// Whether full-size probes vanish, so that more are needed soon.
    pub(super) fn suspicious(&self) -> bool {
        self.suspicion.is_some()
    }

    /// A full-size probe vanished.
    pub(super) fn full_lost(&mut self, len: u16) {
        if self.phase == Phase::Off || len != self.confirmed || len == BASE {
            return;
        }
        let suspicion = self.suspicion.get_or_insert_default();
        suspicion.full_lost += 1;
        let enough = LOST_FULL_MIN + suspicion.small_lost * 3 / 2;
        if suspicion.full_lost >= enough && suspicion.small_answered >= ANSWERED_SMALL_MIN {
            self.fall();
            self.search(Some(len));
        }
    }

    pub(super) fn small_lost(&mut self) {
        if let Some(suspicion) = &mut self.suspicion {
            suspicion.small_lost += 1;
        }
    }

    pub(super) fn small_answered(&mut self) {
        if let Some(suspicion) = &mut self.suspicion {
            suspicion.small_answered += 1;
        }
    }

    /// When `advance` is next due.
    pub(super) fn deadline(&self, timeout: Duration) -> Option<Instant> {
        let trials = self
            .trials
            .iter()
            .filter_map(|trial| Some(trial.sent_at? + timeout))
            .min();
        match self.phase {
            Phase::Off => None,
            Phase::Searching => trials,
            Phase::Settled { raise_at } => (self.confirmed < self.limit).then_some(raise_at),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::path::tests::sim::{address, epoch, ms};

    /// In use, and settled at the limit of an Ethernet.
    fn settled(now: Instant) -> Pmtu {
        let mut pmtu = Pmtu::new(address("192.0.2.1:1"), 1500);
        pmtu.begin();
        while let Some((id, len)) = pmtu.next_trial(u64::from(pmtu.limit), now) {
            assert!(pmtu.trial_answered(id, len, now));
        }
        pmtu.advance(ms(50), now);
        assert_eq!(pmtu.confirmed(), 1472);
        pmtu
    }

    #[test]
    fn full_size_probes_that_vanish_among_answered_ones_give_the_size_up() {
        let mut pmtu = settled(epoch());
        pmtu.full_lost(1472);
        for _ in 0..4 {
            pmtu.small_answered();
            pmtu.full_lost(1472);
        }
        assert!((pmtu.confirmed(), pmtu.suspicious()) == (1472, true));
        pmtu.full_lost(1472);
        assert!((pmtu.confirmed(), pmtu.suspicious()) == (1200, false));
    }

    #[test]
    fn a_path_on_which_nothing_is_answered_keeps_its_size() {
        let mut pmtu = settled(epoch());
        for _ in 0..30 {
            pmtu.full_lost(1472);
        }
        assert_eq!(pmtu.confirmed(), 1472);
    }

    #[test]
    fn lost_small_probes_raise_the_number_of_full_ones_that_must_vanish() {
        let mut pmtu = settled(epoch());
        pmtu.full_lost(1472);
        for _ in 0..4 {
            pmtu.small_lost();
            pmtu.small_answered();
        }
        // 6 + 4 * 3 / 2
        for _ in 1..11 {
            pmtu.full_lost(1472);
        }
        assert_eq!(pmtu.confirmed(), 1472);
        pmtu.full_lost(1472);
        assert_eq!(pmtu.confirmed(), 1200);
    }

    #[test]
    fn one_full_size_answer_ends_the_suspicion() {
        let now = epoch();
        let mut pmtu = settled(now);
        for _ in 0..20 {
            pmtu.small_answered();
            for _ in 0..5 {
                pmtu.full_lost(1472);
            }
            pmtu.crossed(1472, now);
        }
        assert!((pmtu.confirmed(), pmtu.suspicious()) == (1472, false));
    }

    #[test]
    fn losses_of_a_size_no_longer_used_mean_nothing() {
        let mut pmtu = settled(epoch());
        pmtu.full_lost(1372);
        assert!(!pmtu.suspicious());
    }

    #[test]
    fn an_answer_that_saw_fewer_bytes_confirms_nothing() {
        let now = epoch();
        let mut pmtu = Pmtu::new(address("192.0.2.1:1"), 1500);
        pmtu.begin();
        let (id, len) = pmtu.next_trial(7, now).expect("a trial");
        assert!(pmtu.trial_answered(id, len - 1, now));
        assert_eq!(pmtu.confirmed(), BASE);
        assert!(pmtu.trial_answered(id, len, now));
        assert_eq!(pmtu.confirmed(), len);
    }

    #[test]
    fn a_size_gets_three_tries() {
        let mut now = epoch();
        let mut pmtu = Pmtu::new(address("192.0.2.1:1"), 1232);
        pmtu.begin();
        for id in 1..=3 {
            assert_eq!(pmtu.next_trial(id, now), Some((1, 1204)));
            assert_eq!(pmtu.next_trial(9, now), None);
            now += ms(50);
            pmtu.advance(ms(50), now);
        }
        assert_eq!(pmtu.next_trial(9, now), None);
        assert_eq!(
            pmtu.phase,
            Phase::Settled {
                raise_at: now + RAISE_EVERY
            }
        );
    }

    #[test]
    fn an_answer_to_an_earlier_try_still_counts() {
        let mut now = epoch();
        let mut pmtu = Pmtu::new(address("192.0.2.1:1"), 1500);
        pmtu.begin();
        let (id, len) = pmtu.next_trial(1, now).expect("a trial");
        now += ms(50);
        pmtu.advance(ms(50), now);
        while pmtu.next_trial(2, now).is_some() {}
        assert!(pmtu.trial_answered(id, len, now));
        assert_eq!(pmtu.confirmed(), len);
    }

    #[test]
    fn a_path_not_in_use_learns_nothing() {
        let now = epoch();
        let mut pmtu = settled(now);
        pmtu.end();
        pmtu.crossed(1472, now);
        pmtu.refused(1400);
        assert_eq!((pmtu.confirmed(), pmtu.deadline(ms(50))), (BASE, None));
        assert_eq!(pmtu.next_trial(1, now), None);
    }
}
