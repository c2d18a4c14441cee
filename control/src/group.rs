//! The key under which our own floods are sealed once for everybody: when there is one, and who has it.
//!
//! ```text
//!  too many members to seal for each, and a flood ─► a key is drawn
//!    ─► given to each member in its session, again until it says that it took it
//!    ─► all that can be reached took it, or HANDOUT_MAX is over ─► in use
//!  a member departed, the secrets changed, the key is worn or old ─► the next key, while the last is in use
//! ```
//!
//! Who joins, or is a new process, is given the key in use. A member that nothing has led to for
//! `config::GROUP_DEPARTED_AFTER` has departed: what it holds opens nothing that is sent later. A thousand hosts give
//! a thousand keys each, so departures within `GROUP_RENEW_PAUSE` are one. Sans-IO. Bounds: the peers that there may
//! be, `GROUP_HANDOUTS_MAX` at work at once.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use weft_engine::command::SecretKey;
use weft_engine::config::FLOOD_COPIES_MAX;

use crate::config::{
    BootId, GROUP_DEPARTED_AFTER, GROUP_HANDOUT_MAX, GROUP_HANDOUTS_MAX, GROUP_KEY_LIFE,
    GROUP_LOOK_EVERY, GROUP_RENEW_PAUSE, GROUP_RETRY_MAX, GROUP_RETRY_MIN,
};
use crate::peer::PeerId;
use crate::random::Randomness;

/// How often we look for more to do while a key is handed out.
const TURN: Duration = Duration::from_millis(250);
/// A member that was given the key this often, and did not say that it took it, makes room for others.
const TRIES_AT_WORK: u32 = 3;
/// After so many it is not waited for, either: sessions take their time where all begin by one neighbour.
const TRIES_AWAITED: u32 = 5;

/// One key of ours.
#[derive(Debug, Clone)]
pub(crate) struct OwnKey {
    pub(crate) epoch: u32,
    pub(crate) key: SecretKey,
    made_at: Instant,
    is_used: bool,
}

/// Somebody who is to have our key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Candidate {
    pub(crate) peer: PeerId,
    pub(crate) boot_id: BootId,
    /// Something leads there.
    pub(crate) is_reachable: bool,
}

/// What we know of a member.
#[derive(Debug)]
struct Member {
    boot_id: BootId,
    /// The newest key that it took.
    has: Option<u32>,
    tries: u32,
    next_at: Instant,
    seen_at: Instant,
}

/// Something for the node to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Act {
    /// Give the newest key to this member, or make a session with it.
    Give(PeerId),
    /// Seal floods under the newest key from now on.
    Use,
    /// Seal no more floods for all.
    Cease(u32),
}

/// Our keys.
#[derive(Debug, Default)]
pub(crate) struct GroupKeys {
    newest: Option<OwnKey>,
    /// The number of the last key; none is used twice.
    last_epoch: Option<u32>,
    members: BTreeMap<PeerId, Member>,
    is_wanted: bool,
    /// Another key is to follow, and whether at once.
    is_over: bool,
    is_worn: bool,
    due: Option<Instant>,
}

impl GroupKeys {
    /// The key that members are given.
    pub(crate) fn newest(&self) -> Option<&OwnKey> {
        self.newest.as_ref()
    }

    /// Members that have it, and all that there are.
    pub(crate) fn spread(&self) -> (usize, usize) {
        let epoch = self.newest.as_ref().map(|key| key.epoch);
        let has = |member: &&Member| epoch.is_some() && member.has == epoch;
        (
            self.members.values().filter(has).count(),
            self.members.len(),
        )
    }

    /// The next time for [`GroupKeys::look`].
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.due
    }

    fn look_at(&mut self, at: Instant) {
        self.due = Some(self.due.map_or(at, |due| due.min(at)));
    }

    /// Our side floods, and there is no key.
    pub(crate) fn wanted(&mut self, now: Instant) {
        if self.newest.is_none() {
            self.is_wanted = true;
            self.look_at(now);
        }
    }

    /// The key has sealed as much as it may.
    pub(crate) fn worn(&mut self, epoch: u32, now: Instant) {
        if self.newest.as_ref().is_some_and(|key| key.epoch == epoch) {
            (self.is_over, self.is_worn) = (true, true);
            self.look_at(now);
        }
    }

    /// Somebody who has the key may belong to us no longer.
    pub(crate) fn distrust(&mut self, now: Instant) {
        if self.newest.is_some() {
            self.is_over = true;
            self.look_at(now);
        }
    }

    /// There is a session with the member now.
    pub(crate) fn may_be_given(&mut self, peer: PeerId, now: Instant) {
        let epoch = self.newest.as_ref().map(|key| key.epoch);
        if let Some(member) = self.members.get_mut(&peer)
            && epoch.is_some()
            && member.has != epoch
        {
            member.next_at = now;
            self.look_at(now);
        }
    }

    /// The member says that it took this key.
    pub(crate) fn taken(&mut self, peer: PeerId, epoch: u32, now: Instant) {
        if self.newest.as_ref().is_some_and(|key| key.epoch == epoch)
            && let Some(member) = self.members.get_mut(&peer)
        {
            member.has = Some(epoch);
            // Another one may have its turn, and perhaps it was the last.
            self.look_at(now + TURN / 10);
        }
    }

    /// Looks what is to be done now, given all peers that there are.
    pub(crate) fn look(
        &mut self,
        candidates: &[Candidate],
        random: &mut Randomness,
        now: Instant,
    ) -> Vec<Act> {
        self.due = None;
        if candidates.len() <= FLOOD_COPIES_MAX {
            return self.cease();
        }
        if !self.is_wanted && self.newest.is_none() {
            return Vec::new();
        }
        self.count_members(candidates, now);
        self.draw_if_due(random, now);
        let mut acts = self.hand_out(candidates, now);
        let lacking = |member: &Member, epoch| member.has != Some(epoch) && member.seen_at == now;
        let members = &self.members;
        if let Some(key) = self.newest.as_mut() {
            let mut lacking = members.values().filter(|member| lacking(member, key.epoch));
            let is_late = now.duration_since(key.made_at) >= GROUP_HANDOUT_MAX;
            let awaited = lacking.clone().any(|member| member.tries < TRIES_AWAITED);
            let pause = if lacking.next().is_some() {
                TURN
            } else {
                GROUP_LOOK_EVERY
            };
            if !key.is_used && (is_late || !awaited) {
                key.is_used = true;
                acts.push(Act::Use);
            }
            self.look_at(now + pause);
        }
        acts
    }

    /// So few members that each gets its own copy.
    fn cease(&mut self) -> Vec<Act> {
        let epoch = self.newest.take().map(|key| key.epoch);
        *self = Self {
            last_epoch: self.last_epoch,
            ..Self::default()
        };
        epoch.map(Act::Cease).into_iter().collect()
    }

    /// Takes in who is there; notes who has departed.
    fn count_members(&mut self, candidates: &[Candidate], now: Instant) {
        for candidate in candidates {
            if !candidate.is_reachable && !self.members.contains_key(&candidate.peer) {
                continue;
            }
            let member = self.members.entry(candidate.peer).or_insert(Member {
                boot_id: candidate.boot_id,
                has: None,
                tries: 0,
                next_at: now,
                seen_at: now,
            });
            if member.boot_id != candidate.boot_id {
                (member.boot_id, member.has, member.tries) = (candidate.boot_id, None, 0);
                member.next_at = now;
            }
            if candidate.is_reachable {
                member.seen_at = now;
            }
        }
        let mut departed = false;
        self.members.retain(|_, member| {
            let stays = now.duration_since(member.seen_at) < GROUP_DEPARTED_AFTER;
            departed |= !stays && member.has.is_some();
            stays
        });
        self.is_over |= departed;
    }

    /// Makes the first key, or the next one if that is due.
    fn draw_if_due(&mut self, random: &mut Randomness, now: Instant) {
        if let Some(key) = &self.newest {
            let age = now.duration_since(key.made_at);
            let is_due =
                self.is_worn || self.is_over && age >= GROUP_RENEW_PAUSE || age >= GROUP_KEY_LIFE;
            if !is_due || !key.is_used {
                return;
            }
        }
        // Another process of ours began elsewhere: its keys may still be held.
        let epoch = self
            .last_epoch
            .map_or(random.u32() / 2, |last| last.wrapping_add(1));
        self.last_epoch = Some(epoch);
        self.newest = Some(OwnKey {
            epoch,
            key: SecretKey(random.bytes()),
            made_at: now,
            is_used: false,
        });
        (self.is_wanted, self.is_over, self.is_worn) = (false, false, false);
        for member in self.members.values_mut() {
            (member.tries, member.next_at) = (0, now);
        }
    }

    /// Who is to be given the key now: as many as may be at work at once.
    fn hand_out(&mut self, candidates: &[Candidate], now: Instant) -> Vec<Act> {
        let Some(epoch) = self.newest.as_ref().map(|key| key.epoch) else {
            return Vec::new();
        };
        let at_work = |member: &&Member| {
            member.has != Some(epoch)
                && member.seen_at == now
                && (1..TRIES_AT_WORK).contains(&member.tries)
        };
        let at_work = self.members.values().filter(at_work).count();
        let mut room = GROUP_HANDOUTS_MAX.saturating_sub(at_work);
        let mut acts = Vec::new();
        for candidate in candidates.iter().filter(|candidate| candidate.is_reachable) {
            let Some(member) = self.members.get_mut(&candidate.peer) else {
                continue;
            };
            if member.has == Some(epoch) || member.next_at > now {
                continue;
            }
            if member.tries == 0 || member.tries >= TRIES_AT_WORK {
                if room == 0 {
                    continue;
                }
                room -= 1;
            }
            let pause = GROUP_RETRY_MIN * (1 << member.tries.min(8));
            member.next_at = now + pause.min(GROUP_RETRY_MAX);
            member.tries = member.tries.saturating_add(1);
            acts.push(Act::Give(candidate.peer));
        }
        acts
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::tests::first_instant;

    fn peers(count: u8) -> Vec<Candidate> {
        let candidate = |n| Candidate {
            peer: PeerId([n; 16]),
            boot_id: BootId([n; 8]),
            is_reachable: true,
        };
        (1..=count).map(candidate).collect()
    }

    struct World {
        keys: GroupKeys,
        random: Randomness,
        now: Instant,
    }

    impl World {
        fn new() -> Self {
            Self {
                keys: GroupKeys::default(),
                random: Randomness::seeded(1),
                now: first_instant(),
            }
        }

        /// Looks until nothing is due within `time`; everybody in `deaf` takes nothing. Returns what was done.
        fn run(&mut self, peers: &[Candidate], deaf: &[PeerId], time: Duration) -> Vec<Act> {
            let (end, mut done) = (self.now + time, Vec::new());
            while let Some(due) = self.keys.deadline().filter(|due| *due <= end) {
                self.now = self.now.max(due);
                let acts = self.keys.look(peers, &mut self.random, self.now);
                for act in &acts {
                    if let Act::Give(peer) = act
                        && !deaf.contains(peer)
                        && let Some(epoch) = self.keys.newest().map(|key| key.epoch)
                    {
                        self.keys.taken(*peer, epoch, self.now);
                    }
                }
                done.extend(acts);
            }
            self.now = end;
            done
        }
    }

    const SECOND: Duration = Duration::from_secs(1);

    fn given(acts: &[Act]) -> usize {
        acts.iter()
            .filter(|act| matches!(act, Act::Give(_)))
            .count()
    }

    #[test]
    fn a_key_is_used_once_everybody_has_it() {
        let mut world = World::new();
        let peers = peers(100);
        assert!(
            world.run(&peers, &[], 60 * SECOND).is_empty(),
            "nobody floods"
        );

        world.keys.wanted(world.now);
        let acts = world.run(&peers, &[], 10 * SECOND);

        assert_eq!(given(&acts), 100);
        assert_eq!(acts.last(), Some(&Act::Use));
        assert_eq!(world.keys.spread(), (100, 100));
    }

    #[test]
    fn few_members_need_no_key() {
        let mut world = World::new();
        world.keys.wanted(world.now);
        assert!(world.run(&peers(64), &[], 10 * SECOND).is_empty());

        world.keys.wanted(world.now);
        assert!(!world.run(&peers(65), &[], 10 * SECOND).is_empty());
        let epoch = world.keys.newest().unwrap().epoch;
        let acts = world.run(&peers(64), &[], 60 * SECOND);
        assert_eq!(acts, [Act::Cease(epoch)]);
    }

    #[test]
    fn who_takes_nothing_is_waited_for_a_while_and_tried_again() {
        let mut world = World::new();
        let (peers, deaf) = (peers(70), [PeerId([9; 16])]);
        world.keys.wanted(world.now);
        let acts = world.run(&peers, &deaf, GROUP_HANDOUT_MAX);
        assert!(acts.contains(&Act::Use));
        let later = world.run(&peers, &deaf, 10 * GROUP_RETRY_MAX);
        assert!((2..=12).contains(&given(&later)), "{later:?}");
    }

    #[test]
    fn a_newcomer_and_a_new_process_are_given_the_key_in_use() {
        let mut world = World::new();
        let mut peers = peers(71);
        world.keys.wanted(world.now);
        world.run(&peers[..70], &[], 10 * SECOND);
        let epoch = world.keys.newest().unwrap().epoch;

        assert_eq!(
            world.run(&peers, &[], 60 * SECOND),
            [Act::Give(PeerId([71; 16]))]
        );
        peers[4].boot_id = BootId(*b"another!");
        assert_eq!(
            world.run(&peers, &[], 60 * SECOND),
            [Act::Give(PeerId([5; 16]))]
        );
        assert_eq!(world.keys.newest().unwrap().epoch, epoch);
    }

    #[test]
    fn a_departure_brings_another_key_and_many_bring_one() {
        let mut world = World::new();
        let mut peers = peers(80);
        world.keys.wanted(world.now);
        world.run(&peers, &[], GROUP_RENEW_PAUSE);
        let first = world.keys.newest().unwrap().epoch;

        peers[3].is_reachable = false;
        let acts = world.run(&peers, &[], GROUP_DEPARTED_AFTER / 2);
        assert!(acts.is_empty(), "it may come back");
        let acts = world.run(&peers, &[], GROUP_DEPARTED_AFTER);
        assert_eq!((given(&acts), acts.last()), (79, Some(&Act::Use)));
        assert_eq!(world.keys.newest().unwrap().epoch, first + 1);

        for gone in [5, 6, 7, 8] {
            peers[gone].is_reachable = false;
            world.run(&peers, &[], 20 * SECOND);
        }
        world.run(&peers, &[], GROUP_RENEW_PAUSE + GROUP_DEPARTED_AFTER);
        assert_eq!(
            world.keys.newest().unwrap().epoch,
            first + 2,
            "one for all four"
        );
    }

    #[test]
    fn a_worn_key_is_replaced_at_once_and_an_old_one_in_time() {
        let mut world = World::new();
        let peers = peers(70);
        world.keys.wanted(world.now);
        world.run(&peers, &[], 10 * SECOND);
        let first = world.keys.newest().unwrap().epoch;

        world.keys.worn(first, world.now);
        let acts = world.run(&peers, &[], 10 * SECOND);
        assert_eq!((given(&acts), acts.last()), (70, Some(&Act::Use)));
        world.keys.worn(first, world.now);
        world.run(&peers, &[], 10 * SECOND);
        assert_eq!(world.keys.newest().unwrap().epoch, first + 1);

        world.run(&peers, &[], GROUP_KEY_LIFE);
        assert_eq!(world.keys.newest().unwrap().epoch, first + 2);
    }
}
