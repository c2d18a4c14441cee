//! One underlay address of the peer: the probes sent there and what they prove.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::time::{Duration, Instant};

use super::pmtu::Pmtu;
use super::rtt::Rtt;
use super::{Arrival, PathConfig};
use crate::config::PATH_PROBES_MAX;

/// Waits between the first probes to an address; then it is left at [`PathConfig::unverified_interval`].
const BURST_GAPS: [Duration; 3] = [
    Duration::from_millis(200),
    Duration::from_millis(300),
    Duration::from_millis(500),
];
/// Probes of one challenge. A lost one must not leave the peer unfollowed.
const CHALLENGE_PROBES: u8 = 3;
/// Wait between them: one is outstanding at a time on most paths.
const CHALLENGE_GAP: Duration = Duration::from_millis(300);
/// An address is challenged again only after this: copies of datagrams that someone re-injects from false
/// addresses must not make us send more than they do.
/// Three probes in this time are as many as a living path gets.
const CHALLENGE_EVERY: Duration = Duration::from_secs(3);
/// Answers needed in a row, or nearly, from an address that was given up lately...
const ANSWERS_AFTER_DOWN: u8 = 3;
/// ...and if that had happened lately before, again and again: one more each time up to these, which take half a second.
const ANSWERS_AFTER_DOWNS_MAX: u8 = 5;
/// Three tries of one size in 150 ms on a LAN, well above its round trip.
const TRIAL_TIMEOUT_MIN: Duration = Duration::from_millis(50);
/// Probes lost before they may leave from another address of ours: ours may be what no longer works.
const LOST_BEFORE_OTHER_LOCAL: usize = 3;
/// Probes that say that less crosses than did: one may be lost.
const NARROWER_PROBES: u8 = 3;
/// The peer's word of it is taken once in this time, in which all of them arrive.
const NARROWER_EVERY: Duration = Duration::from_secs(1);
/// The latest probes, of which the share that is lost is told.
const LOSS_PROBES: usize = 32;
/// What "lately" means: at most two flaps a minute on a path that answers one probe in ten.
const DAMPED_FOR: Duration = Duration::from_secs(60);

/// One form for each address: no mapped IPv4, no flow label, a scope only where it means something.
pub(super) fn canonical(address: SocketAddr) -> SocketAddr {
    match (address.ip().to_canonical(), address) {
        (IpAddr::V6(ip), SocketAddr::V6(v6)) if ip.is_unicast_link_local() => {
            SocketAddrV6::new(ip, v6.port(), 0, v6.scope_id()).into()
        }
        (ip, _) => SocketAddr::new(ip, address.port()),
    }
}

/// Whether one peer can be at this address.
pub(super) fn is_probeable(address: SocketAddr) -> bool {
    let ip = address.ip();
    let broadcast = matches!(ip, IpAddr::V4(ip) if ip.is_broadcast());
    address.port() != 0 && !ip.is_unspecified() && !ip.is_multicast() && !broadcast
}

#[derive(Debug)]
pub(super) struct Candidate {
    pub(super) address: SocketAddr,
    /// Control named it; otherwise it was learned from the peer's datagrams.
    pub(super) listed: bool,
    pub(super) created_at: Instant,
    /// When a learned address is forgotten, unless in use.
    pub(super) keep_until: Instant,
    pub(super) rtt: Rtt,
    pub(super) pmtu: Pmtu,
    /// When both directions were last known to work.
    pub(super) proof_at: Option<Instant>,
    /// When the probe that proved it was sent.
    proven_sent_at: Option<Instant>,
    /// Latest probes, oldest first.
    sent: VecDeque<Sent>,
    pub(super) last_sent_at: Option<Instant>,
    /// How much later than due the next probe goes out.
    pub(super) jitter: Duration,
    /// Probes of the burst still to come.
    burst_left: usize,
    /// The next probe goes out at the quick pace.
    pub(super) urgent: bool,
    /// The next probe goes out whenever the last one did.
    pub(super) at_once: bool,
    pub(super) challenge: Option<Challenge>,
    /// What was known of it is void until it answers again: the peer moved away.
    pub(super) stale: bool,
    /// Answers less losses while down.
    pub(super) credit: u8,
    /// The credit that makes it a path while it is damped.
    needed: u8,
    down_at: Option<Instant>,
    /// In a row: how often it was much better than the path in use.
    pub(super) better: u8,
    hint: Option<Hint>,
    /// Probes that are still to say that less crosses than did.
    pub(super) narrower_left: u8,
    /// When the peer said so last.
    narrower_heard: Option<Instant>,
    /// The latest probe that came from there.
    pub(super) heard_probe: u64,
    /// Our address that the peer's last word from there hit.
    pub(super) local: Option<IpAddr>,
    /// Where the peer says our datagrams come from.
    pub(super) observed: Option<SocketAddr>,
}

#[derive(Debug, Clone, Copy)]
struct Sent {
    id: u64,
    at: Instant,
    /// Padded to this UDP payload length.
    full_len: Option<u16>,
    fate: Fate,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Waiting,
    Answered,
    Lost,
}

/// Something outside says that the address may be gone.
#[derive(Debug, Clone, Copy)]
struct Hint {
    at: Instant,
    /// Enough to give it up, not only to prefer another that works.
    strong: bool,
}

/// Is the peer really there?
#[derive(Debug, Clone, Copy)]
pub(super) struct Challenge {
    pub(super) started_at: Instant,
    left: u8,
    /// The peer sends data from there, so an answer moves the path.
    pub(super) moves: bool,
}

/// What brings a challenge about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reason {
    /// The peer sends data from there.
    PeerMoved,
    /// A probe came from there, and there is no path yet.
    PathWanted,
    /// A probe came from there.
    PeerReachesUs,
}

impl Candidate {
    pub(super) fn new(
        address: SocketAddr,
        config: &PathConfig,
        keep: Duration,
        now: Instant,
    ) -> Self {
        Self {
            address,
            listed: false,
            created_at: now,
            keep_until: now + keep,
            rtt: Rtt::default(),
            pmtu: Pmtu::new(address, config.underlay_mtu),
            proof_at: None,
            proven_sent_at: None,
            sent: VecDeque::new(),
            last_sent_at: None,
            jitter: Duration::ZERO,
            burst_left: 0,
            urgent: false,
            at_once: false,
            challenge: None,
            stale: false,
            credit: 0,
            needed: ANSWERS_AFTER_DOWN,
            down_at: None,
            better: 0,
            hint: None,
            narrower_left: 0,
            narrower_heard: None,
            heard_probe: 0,
            local: None,
            observed: None,
        }
    }

    pub(super) fn start_burst(&mut self) {
        self.burst_left = BURST_GAPS.len() + 1;
        self.urgent = true;
    }

    /// The wait before the next probe that a burst or a challenge asks for.
    pub(super) fn opening_gap(&self) -> Option<Duration> {
        let challenged = self.challenge.is_some_and(|challenge| challenge.left > 0);
        match self.burst_left.checked_sub(1) {
            Some(after) => BURST_GAPS.iter().rev().nth(after).copied(),
            None => challenged.then_some(CHALLENGE_GAP),
        }
    }

    /// Asks for a challenge; false if one was made so lately that this one must wait.
    pub(super) fn challenge(&mut self, reason: Reason, now: Instant) -> bool {
        let moves = reason == Reason::PeerMoved;
        let left = if reason == Reason::PeerReachesUs {
            1
        } else {
            CHALLENGE_PROBES
        };
        match &mut self.challenge {
            Some(challenge) if now < challenge.started_at + CHALLENGE_EVERY => {
                if !moves || challenge.moves {
                    return false;
                }
                challenge.moves = true;
                challenge.left = CHALLENGE_PROBES - 1;
            }
            Some(_) | None => {
                self.challenge = Some(Challenge {
                    started_at: now,
                    left,
                    moves,
                })
            }
        }
        self.urgent = true;
        true
    }

    /// A probe goes out.
    pub(super) fn record(
        &mut self,
        id: u64,
        full_len: Option<u16>,
        jitter: Duration,
        now: Instant,
    ) {
        if self.sent.len() == PATH_PROBES_MAX {
            self.sent.pop_front();
        }
        self.sent.push_back(Sent {
            id,
            at: now,
            full_len,
            fate: Fate::Waiting,
        });
        self.last_sent_at = Some(now);
        self.urgent = false;
        self.at_once = false;
        self.jitter = jitter;
        self.burst_left = self.burst_left.saturating_sub(1);
        self.narrower_left = self.narrower_left.saturating_sub(1);
        if let Some(challenge) = &mut self.challenge {
            challenge.left = challenge.left.saturating_sub(1);
        }
    }

    /// How long the answer to a trial of a size may take. Shorter, as a trial given up too early is made again.
    pub(super) fn trial_timeout(&self) -> Duration {
        self.rtt.timeout(TRIAL_TIMEOUT_MIN)
    }

    pub(super) fn timeout(&self, config: &PathConfig) -> Duration {
        self.rtt.timeout(config.timeout_min)
    }

    /// Counts probes out that got no answer in time.
    pub(super) fn time_out(&mut self, config: &PathConfig, now: Instant) {
        let timeout = self.timeout(config);
        for sent in &mut self.sent {
            if sent.fate != Fate::Waiting || now < sent.at + timeout {
                continue;
            }
            sent.fate = Fate::Lost;
            match sent.full_len {
                Some(len) => self.pmtu.full_lost(len),
                None => {
                    self.pmtu.small_lost();
                    self.credit = self.credit.saturating_sub(1);
                }
            }
        }
        if self.lost_count() >= LOST_BEFORE_OTHER_LOCAL {
            self.local = None;
        }
    }

    /// When `time_out` is next due.
    pub(super) fn time_out_at(&self, config: &PathConfig) -> Option<Instant> {
        let waiting = self.sent.iter().find(|sent| sent.fate == Fate::Waiting)?;
        Some(waiting.at + self.timeout(config))
    }

    /// The address, and where to send from.
    pub(super) fn route(&self) -> Arrival {
        Arrival {
            address: self.address,
            local: self.local,
        }
    }

    /// An answer from this address: when its probe was sent, or `None` if it answers nothing.
    pub(super) fn answered(
        &mut self,
        id: u64,
        received_len: u16,
        config: &PathConfig,
        now: Instant,
    ) -> Option<Instant> {
        let open = |sent: &&mut Sent| sent.id == id && sent.fate != Fate::Answered;
        let sent = self.sent.iter_mut().find(open)?;
        sent.fate = Fate::Answered;
        let Sent { at, full_len, .. } = *sent;
        match full_len {
            Some(len) if received_len >= len => self.pmtu.crossed(len, now),
            Some(_) => {}
            None => {
                self.rtt.sample(now.saturating_duration_since(at), now);
                self.pmtu.small_answered();
            }
        }
        self.prove(at, config, now);
        self.stale = false;
        Some(at)
    }

    /// The peer names a probe of ours as the latest it has from us: it crossed, and something came back.
    /// This makes up for lost answers, but only an answer can prove a new path.
    pub(super) fn acknowledged(&mut self, id: u64, config: &PathConfig, now: Instant) {
        let sent_at = self
            .sent
            .iter()
            .find(|sent| sent.id == id)
            .map(|sent| sent.at);
        if let (Some(sent_at), Some(_)) = (sent_at, self.proof_at) {
            self.prove(sent_at, config, now);
        }
    }

    /// INVARIANT: `proof_at` is never later than one timeout after the probe was sent, so that a late
    /// acknowledgement does not prolong the life of a path that died since.
    fn prove(&mut self, sent_at: Instant, config: &PathConfig, now: Instant) {
        if self.proven_sent_at.is_some_and(|proven| sent_at < proven) {
            return;
        }
        let proof_at = now.min(sent_at + self.timeout(config));
        self.proven_sent_at = Some(sent_at);
        self.proof_at = self.proof_at.max(Some(proof_at));
        if self.hint.is_some_and(|hint| hint.at <= sent_at) {
            self.hint = None;
        }
    }

    /// Sees to it that the peer learns, and soon, that less crosses than did.
    pub(super) fn tell_if_narrower(&mut self) {
        if self.pmtu.take_fell() {
            self.narrower_left = NARROWER_PROBES;
            self.at_once = true;
        }
    }

    /// The peer says so, perhaps several times.
    pub(super) fn peer_is_narrower(&mut self, now: Instant) {
        let is_known = |at: Instant| now < at + NARROWER_EVERY;
        if !self.narrower_heard.is_some_and(is_known) {
            self.narrower_heard = Some(now);
            self.pmtu.doubt();
        }
    }

    /// A probe that left at that time or later is known to have crossed.
    pub(super) fn is_proven_since(&self, at: Instant) -> bool {
        self.proven_sent_at.is_some_and(|proven| proven >= at)
    }

    /// Small probes lost since the last that is known to have crossed.
    pub(super) fn lost_count(&self) -> usize {
        let newer = |sent: &Sent| self.proven_sent_at.is_none_or(|proven| sent.at > proven);
        self.count(|sent| newer(sent) && sent.full_len.is_none() && sent.fate == Fate::Lost)
    }

    fn count(&self, mut wanted: impl FnMut(&Sent) -> bool) -> usize {
        self.sent.iter().filter(|sent| wanted(sent)).count()
    }

    /// Share of the recent small probes that got no answer.
    pub(super) fn loss(&self) -> f32 {
        let recent = || self.sent.iter().rev().take(LOSS_PROBES);
        let small = |fate| {
            let wanted = |sent: &&Sent| sent.full_len.is_none() && sent.fate == fate;
            recent().filter(wanted).count()
        };
        let (lost, answered) = (small(Fate::Lost), small(Fate::Answered));
        let share = |part: usize| f32::from(u16::try_from(part).unwrap_or(u16::MAX));
        if lost == 0 {
            0.0
        } else {
            share(lost) / share(lost + answered)
        }
    }

    /// It answered its latest probes.
    pub(super) fn is_alive(&self) -> bool {
        self.proof_at.is_some() && !self.stale && self.lost_count() == 0
    }

    /// Something is wrong, or may be: find out quickly.
    pub(super) fn is_suspect(&self) -> bool {
        self.lost_count() > 0 || self.hint.is_some() || self.pmtu.suspicious()
    }

    /// It answered at a time that, when it was last probed, was not long ago.
    pub(super) fn is_verified(&self, config: &PathConfig) -> bool {
        let fresh = |proof: Instant| {
            self.last_sent_at
                .is_none_or(|sent| sent < proof + config.verified_keep)
        };
        self.proof_at.is_some_and(fresh)
    }

    /// Asks for quick probes, because the address may be gone.
    pub(super) fn hint(&mut self, strong: bool, now: Instant) {
        let at = self.hint.map_or(now, |hint| hint.at);
        let strong = strong || self.hint.is_some_and(|hint| hint.strong);
        self.hint = Some(Hint { at, strong });
        self.urgent = true;
    }

    /// What the probes sent since a hint say.
    pub(super) fn hint_verdict(&self, config: &PathConfig) -> HintVerdict {
        let Some(hint) = self.hint else {
            return HintVerdict::Open;
        };
        let lost = self
            .count(|sent| sent.at >= hint.at && sent.full_len.is_none() && sent.fate == Fate::Lost);
        // What was lost since is no measure of how lossy the path was before.
        let lossy = self.count(|sent| sent.at < hint.at && sent.fate == Fate::Lost) > 2;
        let needed = if lossy {
            2 * config.hint_probes
        } else {
            config.hint_probes
        };
        match (lost >= needed, hint.strong) {
            (false, _) => HintVerdict::Open,
            (true, false) => HintVerdict::PreferAnother,
            (true, true) => HintVerdict::Gone,
        }
    }

    /// It answers no more.
    pub(super) fn give_up(&mut self, now: Instant) {
        self.needed = if self.is_damped(now) {
            (self.needed + 1).min(ANSWERS_AFTER_DOWNS_MAX)
        } else {
            ANSWERS_AFTER_DOWN
        };
        self.down_at = Some(now);
        self.credit = 0;
        self.hint = None;
        self.pmtu.end();
    }

    /// An answer while there is no path; whether that makes it one.
    pub(super) fn earn_credit(&mut self, now: Instant) -> bool {
        self.credit = self.credit.saturating_add(1);
        self.credit >= if self.is_damped(now) { self.needed } else { 1 }
    }

    /// It was given up lately.
    fn is_damped(&self, now: Instant) -> bool {
        self.down_at.is_some_and(|down| now < down + DAMPED_FOR)
    }
}

/// See [`Candidate::hint_verdict`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HintVerdict {
    /// No hint, or too few probes were lost since.
    Open,
    /// Any other address that works is better.
    PreferAnother,
    /// The hint was right.
    Gone,
}
