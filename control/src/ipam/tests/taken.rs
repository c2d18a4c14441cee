//! What becomes of addresses whose owner was removed while containers have them.

use super::*;

impl Net {
    fn remove(&mut self, at: usize, victim: PeerId, force: bool) -> u64 {
        let removal = Request::Remove {
            victim,
            force,
            dry_run: false,
        };
        match self.answer(at, removal) {
            Ok(Reply::Removed { count, .. }) => count,
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_removed_host_that_returns_has_its_many_addresses_back_in_a_few_round_trips() {
    let mut net = Net::started(3, "10.32.0.0/12");
    let names: Vec<_> = (0..300).map(|number| format!("c{number}")).collect();
    let given: Vec<_> = names.iter().map(|name| net.allocate(1, name, "")).collect();
    // Scattered ones are the worst.
    for name in names.iter().step_by(2) {
        net.release(1, name);
    }
    net.run_for(Duration::from_secs(1));
    net.kill(1);
    assert!(net.remove(0, peer(2), false) > 0);

    net.start(1);
    net.run_for(Duration::from_secs(1));
    assert_eq!(net.machines[1].blocked, BTreeSet::new());
    for (name, address) in names.iter().zip(&given).skip(1).step_by(2) {
        assert_eq!(net.allocate(1, name, ""), *address);
    }
}

#[test]
fn what_a_living_host_uses_is_given_to_nobody_when_it_is_removed_by_force() {
    let mut net = Net::started(3, "10.32.0.0/12");
    net.allocate(0, "a", "");
    let theirs: Vec<_> = (0..6)
        .map(|number| net.allocate(1, &format!("b{number}"), ""))
        .collect();
    assert_eq!(theirs[0], "10.44.0.0/12");

    assert!(net.remove(0, peer(2), true) > 0);
    let ours: Vec<_> = (0..6)
        .map(|number| net.allocate(0, &format!("c{number}"), "10.44.0.0/24"))
        .collect();
    let twice: Vec<_> = ours
        .iter()
        .filter(|ours| {
            theirs
                .iter()
                .any(|theirs| net_of(theirs).addr() == net_of(ours).addr())
        })
        .collect();
    assert!(twice.is_empty(), "{twice:?}");
    net.run_for(Duration::from_secs(1));
    assert_eq!(net.machines[1].blocked, BTreeSet::new());
}

#[test]
fn what_was_given_away_meanwhile_is_refused_and_the_rest_comes_back() {
    let mut net = Net::started(3, "10.32.0.0/12");
    for name in ["a", "b", "c"] {
        net.allocate(1, name, "");
    }
    net.run_for(Duration::from_secs(1));
    net.kill(1);
    assert!(net.remove(0, peer(2), false) > 0);
    net.claim(0, "d", "10.40.0.1/12").unwrap();

    net.start(1);
    net.run_for(Duration::from_secs(1));
    let lost = std::net::Ipv4Addr::new(10, 40, 0, 1);
    assert_eq!(net.machines[1].blocked, BTreeSet::from([lost.into()]));
    let is_readdress = |notice: &IpamNotice| matches!(notice, IpamNotice::Readdress { address, .. } if *address == lost);
    assert!(net.machines[1].notices.iter().any(is_readdress));
}
