//! Hosts whose store was set aside: what they give, what they vote on, and when again.

use super::*;
use crate::ipam::relearn::{Lost, lost_store};

const MINUTE: Duration = Duration::from_secs(60);

fn allocate(holder: &str) -> Request {
    let (holder, subnet) = (holder.to_owned(), None);
    Request::Allocate { holder, subnet }
}

impl Net {
    /// Stops a host, damages its store, and starts it again; it sees what runs there.
    fn lose_store(&mut self, at: usize, running: &[(&str, &str)]) {
        self.kill(at);
        self.machines[at].disk = lost_store();
        self.start(at);
        self.see(at, running);
    }

    fn see(&mut self, at: usize, running: &[(&str, &str)]) {
        let mut present: BTreeMap<String, Vec<IpNet>> = BTreeMap::new();
        for (holder, address) in running {
            let addresses = present.entry((*holder).to_owned()).or_default();
            addresses.push(net_of(address));
        }
        let unsure = BTreeSet::new();
        self.answer(at, Request::Present(Sight { present, unsure }))
            .unwrap();
    }

    fn lost(&self, at: usize) -> Lost {
        self.machines[at].ipam.as_ref().unwrap().relearning.lost
    }

    fn cut_off(&mut self, at: usize) {
        self.cut.insert(at);
        self.meet();
    }

    fn join_again(&mut self, at: usize) {
        self.cut.remove(&at);
        self.meet();
    }
}

#[test]
fn a_lost_store_is_learned_from_peers_before_anything_is_given() {
    let mut net = Net::started(2, "10.32.0.0/12");
    assert_eq!(net.allocate(0, "a", ""), "10.32.0.1/12");
    assert_eq!(net.allocate(1, "b", ""), "10.44.0.0/12");
    net.cut_off(1);
    net.lose_store(0, &[("a", "10.32.0.1/12")]);

    let refused = net.answer(0, allocate("c")).unwrap_err();
    assert!(
        refused
            .to_string()
            .starts_with("the store was lost: nothing is given before peers have said"),
        "{refused}"
    );
    let status = net.status(0).state;
    assert!(status.starts_with("learning from peers"), "{status}");
    assert_eq!(
        net.allocate(0, "a", ""),
        "10.32.0.1/12",
        "what runs keeps its address, and is not blocked"
    );
    assert_eq!(net.machines[0].blocked, BTreeSet::new());

    net.join_again(1);
    assert_eq!(net.allocate(0, "c", ""), "10.32.0.2/12");
    let told =
        |notice: &IpamNotice| matches!(notice, IpamNotice::Relearned { count } if *count > 0);
    assert!(net.machines[0].notices.iter().any(told));
}

#[test]
fn a_gift_that_one_peer_alone_knows_is_waited_for() {
    let mut net = Net::started(3, "10.32.0.0/12");
    net.allocate(0, "a", "");
    net.allocate(1, "b", "");
    net.run_for(Duration::from_secs(5));
    // Host 2 gets its range while host 1 cannot hear of it.
    net.cut_off(1);
    let given = net.allocate(2, "d", "");
    net.cut_off(2);
    net.cut.remove(&1);
    net.lose_store(0, &[("a", "10.32.0.1/12")]);
    net.run_for(Duration::from_secs(2));
    assert_eq!(net.lost(0), Lost::Everything, "host 2 votes and is missing");
    let waiting = net.ask(0, allocate("c"));
    net.run_for(Duration::from_secs(2));
    assert!(!net.machines[0].answers.contains_key(&waiting));

    net.join_again(2);
    net.run_for(Duration::from_secs(2));

    assert_ne!(net.lost(0), Lost::Everything);
    let claimed = net.claim(0, "c2", &given);
    assert!(
        matches!(claimed, Err(Failure::OwnedElsewhere { .. })),
        "{claimed:?}"
    );
}

/// Three hosts with addresses; the last is cut off, and the first has lost its store.
fn learning_without_the_last() -> Net {
    let mut net = Net::started(3, "10.32.0.0/12");
    for (at, holder) in ["a", "b", "d"].iter().enumerate() {
        net.allocate(at, holder, "");
    }
    net.cut_off(2);
    net.lose_store(0, &[]);
    net
}

#[test]
fn who_cannot_be_reached_is_not_waited_for_for_ever() {
    let mut net = learning_without_the_last();
    net.run_for(Duration::from_secs(5));
    assert_eq!(net.lost(0), Lost::Everything);
    net.run_for(Duration::from_secs(6));
    assert_ne!(net.lost(0), Lost::Everything);
    assert!(net.allocate(0, "c", "").starts_with("10.32."));
}

/// Such a peer answers every question with nothing.
#[test]
fn a_peer_that_gives_no_addresses_is_not_waited_for() {
    let mut net = learning_without_the_last();
    let mut contacts = net.machines[0].ipam.as_ref().unwrap().contacts.clone();
    let other = contacts.values().next().cloned().unwrap();
    let mute = PeerId([0xee; 16]);
    contacts.insert(mute, other);
    net.feed(0, IpamInput::Reachable(contacts));
    net.run_for(Duration::from_secs(11));
    assert_eq!(net.lost(0), Lost::Everything, "it has not said so yet");
    let (from, body) = (mute, Vec::new());
    net.feed(0, IpamInput::Message { from, body });
    net.run_for(Duration::from_secs(1));
    assert_ne!(net.lost(0), Lost::Everything);
}

#[test]
fn a_host_killed_while_it_learns_goes_on_learning() {
    let mut net = learning_without_the_last();
    net.run_for(Duration::from_secs(1));
    net.kill(0);
    net.start(0);
    assert_eq!(net.lost(0), Lost::Everything);
    assert!(net.status(0).genesis.is_some(), "it has a ring by then");
}

#[test]
fn forgotten_promises_are_made_good_by_being_admitted_anew() {
    for hosts in [2, 3] {
        let mut net = Net::started(hosts, "10.32.0.0/12");
        for at in 0..usize::from(hosts) {
            net.allocate(at, "a", "");
        }
        net.run_for(MINUTE);
        let council = |net: &Net, at: usize| {
            let ipam = net.machines[at].ipam.as_ref().unwrap();
            ipam.ring.as_ref().unwrap().council.clone()
        };
        let before = council(&net, 1);
        assert_eq!(before.members.len(), usize::from(hosts));
        net.cut_off(1);
        net.lose_store(0, &[("a", "10.32.0.1/12")]);
        assert!(
            !net.machines[0]
                .ipam
                .as_ref()
                .unwrap()
                .may_vote(before.index + 1)
        );
        net.join_again(1);
        net.run_for(MINUTE);

        assert_eq!(net.lost(0), Lost::Nothing, "{hosts} hosts");
        let after = council(&net, 0);
        assert!(after.index > before.index && after.members == before.members);
        assert_eq!(council(&net, 1), after);
        assert_eq!(
            net.machines[0].disk.get(b"l".as_slice()),
            None,
            "{hosts} hosts"
        );
    }
}

#[test]
fn a_store_lost_while_the_host_runs_gets_all_that_is_known() {
    let mut net = Net::started(2, "10.32.0.0/12");
    net.allocate(0, "a", "");
    net.allocate(1, "b", "");
    net.machines[0].disk_is_full = true;
    assert_eq!(net.answer(0, allocate("c")), Err(Failure::Store));
    net.machines[0].disk_is_full = false;
    let before = net.machines[0].disk.clone();
    net.machines[0].disk = lost_store();

    net.feed(0, IpamInput::Reloaded(lost_store()));

    assert_eq!(net.lost(0), Lost::Nothing);
    let disk = &net.machines[0].disk;
    for (key, value) in before {
        assert_eq!(disk.get(&key), Some(&value), "{key:?}");
    }
    assert_eq!(disk.get(b"l".as_slice()), None);
    assert_eq!(net.allocate(0, "a", ""), "10.32.0.1/12");
    assert!(net.allocate(0, "d", "").starts_with("10.32.0."));
}

#[test]
fn a_host_that_learns_neither_gives_nor_leaves() {
    let mut net = Net::started(2, "10.32.0.0/12");
    net.allocate(0, "a", "");
    net.allocate(1, "b", "");
    net.cut_off(1);
    net.lose_store(0, &[]);
    for refused in [
        net.answer(0, allocate("c")),
        net.claim(0, "d", "10.32.0.9/12"),
        net.answer(0, Request::Leave),
    ] {
        let is_refused = matches!(refused, Err(Failure::Relearning { .. }));
        assert!(is_refused, "{refused:?}");
    }
}

#[test]
fn a_store_that_is_read_again_does_not_end_the_learning() {
    let mut net = learning_without_the_last();
    net.run_for(Duration::from_secs(1));
    let disk = net.machines[0].disk.clone();
    let (token, durable) = (0, false);
    net.feed(0, IpamInput::Persisted { token, durable });
    net.feed(0, IpamInput::Reloaded(disk));
    assert_eq!(net.lost(0), Lost::Everything);

    net.join_again(2);
    net.run_for(Duration::from_secs(2));

    assert_ne!(net.lost(0), Lost::Everything);
}

#[test]
fn a_host_that_has_just_learned_can_leave() {
    let mut net = Net::started(2, "10.32.0.0/12");
    net.allocate(0, "a", "");
    net.allocate(1, "b", "");
    net.run_for(MINUTE);
    net.cut_off(1);
    net.lose_store(0, &[("a", "10.32.0.1/12")]);
    // Before it is admitted anew.
    let leaving = net.ask(0, Request::Leave);

    net.join_again(1);
    net.run_for(Duration::from_secs(9));

    let left = net.machines[0].answers.remove(&leaving);
    assert!(matches!(left, Some(Ok(Reply::Left { .. }))), "{left:?}");
}
