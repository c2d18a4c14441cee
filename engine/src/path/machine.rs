//! The machine that owns all paths to one peer: what it is told, and which address data uses.
//!
//! The drawing is in the parent module; when what is probed stands in `schedule`.

mod roaming;
mod schedule;

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use rand::SeedableRng;
use rand::rngs::StdRng;

use super::candidate::{Candidate, canonical, is_probeable};
use super::message::{Message, Probe, Reply};
use super::{Arrival, PathConfig, PathError, PathMessage, PathOutput, PathStatus, SendFailure};
use crate::config::{CANDIDATES_MAX, PATH_SENDS_MAX};

/// Another address takes over when its round trip is shorter by a fifth and by this much...
const BETTER_BY: Duration = Duration::from_millis(1);
/// ...this many times in a row.
const BETTER_TIMES: u8 = 3;
/// A learned address is kept this long after each answer.
const ANSWERED_KEEP: Duration = Duration::from_secs(60);
/// The kernel's hints are believed once in this time.
const HINT_EVERY: Duration = Duration::from_secs(1);
/// New addresses from control that may be probed in a burst within one [`PathConfig::unverified_interval`].
const BURSTS_MAX: usize = CANDIDATES_MAX;

/// All paths to one peer. After each call take [`Self::poll_output`] until `None`, then [`Self::deadline`].
#[derive(Debug)]
pub struct Paths {
    config: PathConfig,
    rng: StdRng,
    candidates: Vec<Candidate>,
    /// There is a session to send probes in.
    active: bool,
    up: bool,
    /// The address in use while up, else the last that was.
    home: Option<SocketAddr>,
    /// The address that the peer left, and until when that counts.
    left: Option<(SocketAddr, Instant)>,
    /// Where the next turn of the addresses not in use starts, and when.
    turn: usize,
    turn_at: Instant,
    /// How many bursts began since when.
    bursts: (Instant, usize),
    data_at: Option<Instant>,
    hint_after: Instant,
    elsewhere_after: Instant,
    /// The peer sends from another address that works: does the one in use still answer?
    race: Option<roaming::Race>,
    /// What the last `Up` or `Changed` said; `None` after `Down`.
    reported: Option<PathStatus>,
    observed: Option<SocketAddr>,
    sends: VecDeque<Sending>,
}

/// A message that waits to be sent.
#[derive(Debug)]
struct Sending {
    to: Arrival,
    message: PathMessage,
    datagram_len: Option<u16>,
}

impl Paths {
    /// No addresses, no session. `seed` comes from the operating system's generator: probe ids are drawn from it.
    pub fn new(config: PathConfig, seed: u64, now: Instant) -> Self {
        Self {
            config,
            rng: StdRng::seed_from_u64(seed),
            candidates: Vec::new(),
            active: false,
            up: false,
            home: None,
            left: None,
            turn: 0,
            turn_at: now,
            bursts: (now, 0),
            data_at: None,
            hint_after: now,
            elsewhere_after: now,
            race: None,
            reported: None,
            observed: None,
            sends: VecDeque::new(),
        }
    }

    /// Replaces the addresses that control knows. Impossible ones are left out, as are those beyond
    /// [`CANDIDATES_MAX`]. The address in use stays.
    pub fn set_candidates(&mut self, addresses: &[SocketAddr], now: Instant) {
        for candidate in self
            .candidates
            .iter_mut()
            .filter(|candidate| candidate.listed)
        {
            let keep = if candidate.proof_at.is_some() {
                self.config.old_address_keep
            } else {
                Duration::ZERO
            };
            candidate.listed = false;
            candidate.keep_until = now + keep;
        }
        let mut listed_count = 0;
        let wanted = addresses.iter().map(|address| canonical(*address));
        for address in wanted.filter(|address| is_probeable(*address)) {
            if listed_count == CANDIDATES_MAX {
                break;
            }
            if self.candidate(address).is_none() {
                let candidate = self.new_listed(address, now);
                self.candidates.push(candidate);
            }
            if let Some(candidate) = self
                .candidate_mut(address)
                .filter(|candidate| !candidate.listed)
            {
                candidate.listed = true;
                listed_count += 1;
            }
        }
        self.run(now);
    }

    fn new_listed(&mut self, address: SocketAddr, now: Instant) -> Candidate {
        let mut candidate = Candidate::new(address, &self.config, Duration::ZERO, now);
        let (since, count) = &mut self.bursts;
        if *since + self.config.unverified_interval <= now {
            (*since, *count) = (now, 0);
        }
        *count += 1;
        if *count <= BURSTS_MAX {
            candidate.start_burst();
        } else {
            // Its first probe waits as if one had just gone out.
            candidate.last_sent_at = Some(now);
        }
        candidate
    }

    /// The MTU of the local underlay interface changed.
    pub fn set_underlay_mtu(&mut self, mtu: u16, now: Instant) {
        self.config.underlay_mtu = mtu;
        for candidate in &mut self.candidates {
            candidate.pmtu.set_underlay_mtu(mtu);
        }
        self.run(now);
    }

    /// A session is active, for the first time or under new keys: probes go out at once.
    pub fn session_ready(&mut self, now: Instant) {
        self.active = true;
        for candidate in &mut self.candidates {
            if !self.up {
                candidate.start_burst();
            } else if Some(candidate.address) == self.home {
                candidate.urgent = true;
            }
        }
        self.run(now);
    }

    /// There is no session any more: nothing is sent until [`Self::session_ready`].
    pub fn session_lost(&mut self) {
        self.active = false;
        self.up = false;
        self.race = None;
        self.sends.clear();
        for candidate in &mut self.candidates {
            candidate.pmtu.end();
        }
    }

    /// A datagram with frames opened that came from this address (messages tell it themselves). Call it at most
    /// once for each batch and address.
    pub fn heard(&mut self, from: SocketAddr, now: Instant) {
        self.data_at = Some(now);
        if self.peer_uses(canonical(from), now) {
            self.run(now);
        }
    }

    /// Frames went to the peer. Call it while they do, for each batch or once a second; without it a path that
    /// shrinks is noticed later if no frames come back.
    pub fn carried(&mut self, now: Instant) {
        self.data_at = Some(now);
    }

    /// An authenticated path message arrived from this address, in a datagram of `datagram_len` bytes of UDP payload.
    ///
    /// # Errors
    ///
    /// The message is malformed, or an answer to nothing; count it and carry on.
    pub fn handle_message(
        &mut self,
        from: impl Into<Arrival>,
        datagram_len: u16,
        message: &[u8],
        now: Instant,
    ) -> Result<(), PathError> {
        let Arrival { address, local } = from.into();
        let from = canonical(address);
        if !is_probeable(from) {
            return Err(PathError::ImpossibleSource);
        }
        let verdict = match Message::decode(message)? {
            Message::Probe(probe) => {
                let from = Arrival {
                    address: from,
                    local,
                };
                self.handle_probe(from, datagram_len, probe, now);
                Ok(())
            }
            Message::Reply(reply) => {
                let verdict = self.handle_reply(from, reply, now);
                if let (Ok(()), Some(candidate)) = (&verdict, self.candidate_mut(from)) {
                    // It came to where our probe had left from.
                    candidate.local = local;
                }
                verdict
            }
        };
        self.run(now);
        verdict
    }

    fn handle_probe(&mut self, arrival: Arrival, datagram_len: u16, probe: Probe, now: Instant) {
        let from = arrival.address;
        let reply = Reply {
            id: probe.id,
            datagram_len,
            observed: from,
        };
        self.send(arrival, Message::Reply(reply), None);
        if probe.in_use {
            self.peer_uses(from, now);
        } else {
            self.peer_reaches_us_from(from, now);
        }
        let (config, in_use) = (self.config, self.is_in_use(from));
        let Some(candidate) = self.candidate_mut(from) else {
            return;
        };
        // The peer may try several addresses of ours; the one that it uses is the one to answer from.
        if probe.in_use || candidate.local.is_none() {
            candidate.local = arrival.local;
        }
        if probe.narrower && in_use {
            candidate.peer_is_narrower(now);
        }
        candidate.heard_probe = probe.id;
        candidate.acknowledged(probe.heard, &config, now);
        // Our next probe tells the peer that its own arrived, should the answer be lost.
        candidate.urgent |= probe.unanswered && in_use;
    }

    fn handle_reply(
        &mut self,
        from: SocketAddr,
        reply: Reply,
        now: Instant,
    ) -> Result<(), PathError> {
        let config = self.config;
        let Some(candidate) = self.candidate_mut(from) else {
            self.peer_reaches_us_from(from, now);
            return Err(PathError::UnexpectedReply);
        };
        let trial = candidate
            .pmtu
            .trial_answered(reply.id, reply.datagram_len, now);
        let sent_at = candidate.answered(reply.id, reply.datagram_len, &config, now);
        if !trial && sent_at.is_none() {
            return Err(PathError::UnexpectedReply);
        }
        let observed = canonical(reply.observed);
        let news = is_probeable(observed) && candidate.observed != Some(observed);
        candidate.observed = if news {
            Some(observed)
        } else {
            candidate.observed
        };
        let challenge = candidate
            .challenge
            .filter(|challenge| sent_at >= Some(challenge.started_at));
        if challenge.is_some() {
            candidate.challenge = None;
        }
        candidate.keep_until = candidate.keep_until.max(now + ANSWERED_KEEP);
        if news {
            self.observed = Some(observed);
        }
        if sent_at.is_some() {
            self.choose(
                from,
                challenge.is_some_and(|challenge| challenge.moves),
                now,
            );
        }
        Ok(())
    }

    /// An address answered: is it to be used?
    fn choose(&mut self, address: SocketAddr, peer_is_there: bool, now: Instant) {
        match (self.up, peer_is_there) {
            (true, _) if self.is_in_use(address) => {}
            (true, true) => self.follow(address, now),
            (true, false) => self.compare(address, now),
            (false, _) => {
                let candidate = self.candidate_mut(address);
                if candidate.is_some_and(|candidate| candidate.earn_credit(now)) {
                    self.use_address(address, now);
                }
            }
        }
    }

    /// Is it so much better than the one in use, and for long enough?
    fn compare(&mut self, address: SocketAddr, now: Instant) {
        let Some(current) = self.in_use().and_then(|candidate| candidate.rtt.smoothed()) else {
            return;
        };
        let Some(candidate) = self.candidate_mut(address) else {
            return;
        };
        let rtt = candidate.rtt.smoothed().unwrap_or(current);
        let better = rtt * 5 < current * 4 && rtt + BETTER_BY < current && candidate.is_alive();
        candidate.better = if better {
            candidate.better.saturating_add(1)
        } else {
            0
        };
        if candidate.better >= BETTER_TIMES {
            self.use_address(address, now);
        }
    }

    fn use_address(&mut self, address: SocketAddr, now: Instant) {
        let keep_until = now + self.config.old_address_keep;
        for candidate in &mut self.candidates {
            if candidate.address == address {
                candidate.challenge = None;
                // The peer learns at once which of its addresses it should send from.
                candidate.urgent = true;
                candidate.pmtu.begin();
            } else if Some(candidate.address) == self.home {
                candidate.keep_until = keep_until;
                candidate.pmtu.end();
            }
            candidate.better = 0;
            candidate.credit = 0;
        }
        self.up = true;
        self.race = None;
        self.home = Some(address);
        self.turn_at = now + self.config.alternate_interval;
    }

    fn go_down(&mut self, now: Instant) {
        if let Some(candidate) = self.home.and_then(|home| self.candidate_mut(home)) {
            candidate.give_up(now);
        }
        self.up = false;
        self.race = None;
    }

    /// The kernel or ICMP reports that a datagram of this UDP payload length did not go there. A hint, no more.
    pub fn sent_failed(
        &mut self,
        to: SocketAddr,
        datagram_len: u16,
        failure: SendFailure,
        now: Instant,
    ) {
        let to = canonical(to);
        match failure {
            SendFailure::TooBig => {
                if let Some(candidate) = self.candidate_mut(to) {
                    candidate.pmtu.refused(datagram_len);
                }
            }
            SendFailure::Unreachable => {
                if !self.is_in_use(to) || now < self.hint_after {
                    return;
                }
                self.hint_after = now + HINT_EVERY;
                if let Some(candidate) = self.candidate_mut(to) {
                    candidate.hint(true, now);
                }
            }
        }
        self.run(now);
    }

    /// The next thing to do or to tell.
    pub fn poll_output(&mut self) -> Option<PathOutput> {
        let status = self.current();
        let news = match (self.reported, status) {
            (None, Some(status)) => Some(PathOutput::Up(status)),
            (Some(old), Some(new)) if is_notable(&old, &new) => Some(PathOutput::Changed(new)),
            (Some(_), None) => Some(PathOutput::Down),
            (Some(_), Some(_)) | (None, None) => None,
        };
        if news.is_some() {
            self.reported = status;
            return news;
        }
        if let Some(observed) = self.observed.take() {
            return Some(PathOutput::Observed(observed));
        }
        let Sending {
            to,
            message,
            datagram_len,
        } = self.sends.pop_front()?;
        Some(PathOutput::Send {
            to: to.address,
            local: to.local,
            message,
            datagram_len,
        })
    }

    /// What data uses now.
    pub fn current(&self) -> Option<PathStatus> {
        let candidate = self.in_use()?;
        Some(PathStatus {
            address: candidate.address,
            rtt: candidate.rtt.smoothed().unwrap_or_default(),
            rtt_least: candidate.rtt.least().unwrap_or_default(),
            datagram_max: candidate.pmtu.confirmed(),
            loss: candidate.loss(),
        })
    }

    /// Our address that data leaves from; the kernel chooses if there is none.
    pub fn local(&self) -> Option<IpAddr> {
        self.in_use()?.local
    }

    fn candidate(&self, address: SocketAddr) -> Option<&Candidate> {
        self.candidates
            .iter()
            .find(|candidate| candidate.address == address)
    }

    fn candidate_mut(&mut self, address: SocketAddr) -> Option<&mut Candidate> {
        self.candidates
            .iter_mut()
            .find(|candidate| candidate.address == address)
    }

    fn in_use(&self) -> Option<&Candidate> {
        self.candidate(self.home.filter(|_| self.up)?)
    }

    fn is_in_use(&self, address: SocketAddr) -> bool {
        self.up && self.home == Some(address)
    }

    fn is_forgettable(&self, candidate: &Candidate) -> bool {
        !candidate.listed && self.home != Some(candidate.address)
    }

    fn send(&mut self, to: Arrival, message: Message, datagram_len: Option<u16>) {
        if self.active && self.sends.len() < PATH_SENDS_MAX {
            self.sends.push_back(Sending {
                to,
                message: message.encode(),
                datagram_len,
            });
        }
    }
}

/// Worth telling control: another address or size, a round trip a quarter off, a tenth more or less loss, or the end of
/// it.
fn is_notable(old: &PathStatus, new: &PathStatus) -> bool {
    let is_off = |old: Duration, new: Duration| {
        let off = old.abs_diff(new);
        off * 4 > old && off > Duration::from_millis(1)
    };
    let rtt_changed = is_off(old.rtt, new.rtt) || is_off(old.rtt_least, new.rtt_least);
    let loss_ended = old.loss > 0.0 && new.loss <= 0.0;
    let loss_changed = loss_ended || (old.loss - new.loss).abs() > 0.1;
    old.address != new.address
        || old.datagram_max != new.datagram_max
        || rtt_changed
        || loss_changed
}
