//! With whom frames may flow, and since when.

use super::*;

fn flow_with(net: &Net, at: usize, peer: PeerId) -> Flow {
    let told = net.flows.iter().rev();
    let mut told = told.filter(|told| (told.at, told.peer) == (at, peer));
    told.next().map_or(Flow::Shut, |told| told.flow)
}

#[test]
fn hosts_that_meet_are_open_to_each_other_at_once() {
    let net = Net::started(2, "10.32.0.0/12");
    for (at, other) in [(0, 2), (1, 1)] {
        assert_eq!(flow_with(&net, at, peer(other)), Flow::Open);
    }
    // Nobody speaks before the other listens.
    for (place, told) in net.flows.iter().enumerate() {
        let other = net.machines[told.at].id;
        let is_heard = |earlier: &Told| {
            net.machines[earlier.at].id == told.peer
                && earlier.peer == other
                && earlier.flow != Flow::Shut
        };
        assert!(told.flow != Flow::Open || net.flows[..place].iter().any(is_heard));
    }
}

#[test]
fn a_removed_host_that_returns_has_blocked_what_it_lost_before_it_is_heard() {
    let mut net = Net::started(3, "10.32.0.0/12");
    for (at, name) in ["a", "b", "c"].into_iter().enumerate() {
        net.allocate(at, name, "");
    }
    net.run_for(Duration::from_secs(30));
    net.kill(0);
    let victim = peer(1);
    assert!(net.answer(1, removal(victim)).is_ok());
    assert!(net.claim(1, "d", "10.32.0.1/12").is_ok());
    net.flows.clear();
    net.start(0);
    net.run_for(Duration::from_secs(1));
    let lost = u32::from(std::net::Ipv4Addr::new(10, 32, 0, 1));
    for at in 1..3 {
        let id = net.machines[at].id;
        assert_eq!(flow_with(&net, 0, id), Flow::Open);
        assert_eq!(flow_with(&net, at, victim), Flow::Open);
    }
    let let_through = net.flows.iter().filter(|told| told.flow != Flow::Shut);
    for told in let_through.filter(|told| told.at == 0 || told.peer == victim) {
        assert!(told.blocked[0].contains(&lost), "{told:?}");
    }
}

/// So does whoever cannot read its own store.
#[test]
fn a_peer_that_says_nothing_is_let_through_after_a_while() {
    for store_is_broken in [false, true] {
        let mut net = Net::started(1, "10.32.0.0/12");
        if store_is_broken {
            net.machines[0].disk_is_full = true;
            assert!(net.allocate(0, "a", "").contains("Store"));
        }
        let mute = Contact {
            label: "mute".to_owned(),
            name: peer(9).name(),
            nickname: String::new(),
            incarnation: 1,
            meets: true,
        };
        let contacts = BTreeMap::from([(peer(9), mute)]);
        net.feed(0, IpamInput::Reachable(contacts));
        net.run_for(Duration::from_secs(9));
        assert_eq!(flow_with(&net, 0, peer(9)), Flow::Shut);
        net.run_for(Duration::from_secs(2));
        assert_eq!(flow_with(&net, 0, peer(9)), Flow::Open);
        net.feed(0, IpamInput::Reachable(BTreeMap::new()));
        assert_eq!(flow_with(&net, 0, peer(9)), Flow::Shut, "it is gone");
        let deadline = net.machines[0].ipam.as_ref().unwrap().deadline();
        assert!(deadline.is_none_or(|at| at > net.now), "it never rests");
    }
}

#[test]
fn two_that_have_lost_their_stores_agree_on_nothing_before_others_have_told_them() {
    let mut net = Net::started(3, "10.32.0.0/12");
    net.run_for(Duration::from_secs(8));
    net.cut.insert(2);
    net.meet();
    for at in [0, 1] {
        net.kill(at);
        net.machines[at].disk = lost_store();
    }
    net.flows.clear();
    for at in [0, 1] {
        net.start(at);
    }
    net.run_for(Duration::from_secs(5));
    assert_eq!(flow_with(&net, 0, peer(2)), Flow::Shut);
    assert_eq!(flow_with(&net, 1, peer(1)), Flow::Shut);

    net.cut.clear();
    net.meet();
    net.run_for(Duration::from_secs(1));
    for (at, other) in [(0, 2), (0, 3), (1, 1), (1, 3)] {
        assert_eq!(flow_with(&net, at, peer(other)), Flow::Open);
    }
}

/// Its disk was put back from before it gave the address away: it does not know of that, and nobody who hears it does.
#[test]
fn who_was_given_an_address_is_not_heard_before_its_giver_knows_of_that() {
    let mut net = Net::started(3, "10.32.0.0/12");
    net.run_for(Duration::from_secs(8));
    net.cut.insert(2);
    net.meet();
    let before = net.machines[0].disk.clone();
    assert!(net.claim(1, "b", "10.32.0.9/12").is_ok());
    net.cut.insert(1);
    net.kill(0);
    net.machines[0].disk = before;
    net.cut.remove(&2);
    net.start(0);
    assert!(net.claim(0, "a", "10.32.0.9/12").is_ok());
    assert_eq!(flow_with(&net, 2, peer(1)), Flow::Open);

    net.flows.clear();
    net.cut.clear();
    net.meet();
    net.run_for(Duration::from_secs(1));

    assert_eq!(flow_with(&net, 2, peer(2)), Flow::Open);
    let twice = u32::from(std::net::Ipv4Addr::new(10, 32, 0, 9));
    let heard = net.flows.iter().filter(|told| told.flow != Flow::Shut);
    for told in heard.filter(|told| (told.at, told.peer) == (2, peer(2))) {
        assert!(told.blocked[0].contains(&twice), "{told:?}");
    }
}
