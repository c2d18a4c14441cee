//! The host's own addresses, where the range lies over its network.

use super::*;

impl Net {
    fn see_host(&mut self, at: usize, addresses: &[&str]) {
        let own = addresses.iter().map(|address| net_of(address)).collect();
        let sight = Sight {
            present: BTreeMap::from([(HOST.to_owned(), own)]),
            unsure: BTreeSet::new(),
        };
        assert_eq!(self.answer(at, Request::Present(sight)), Ok(Reply::Done));
    }
}

#[test]
fn the_hosts_own_addresses_are_given_to_nobody_and_never_blocked() {
    let mut net = Net::started(2, "192.0.2.0/24");
    net.see_host(0, &["192.0.2.1/32", "10.9.9.9/32"]);
    // The first host owns it as yet.
    net.see_host(1, &["192.0.2.2/32"]);
    assert_eq!(net.machines[1].blocked, BTreeSet::new());
    net.run_for(Duration::from_secs(2));

    assert_eq!(net.allocate(0, "a", ""), "192.0.2.3/24");
    let held = net.claim(0, "b", "192.0.2.1/24").unwrap_err().to_string();
    assert_eq!(held, "address 192.0.2.1 is already owned by weave:host");
    let elsewhere = net.claim(0, "b", "192.0.2.2/24");
    assert!(
        matches!(elsewhere, Err(Failure::OwnedElsewhere { .. })),
        "{elsewhere:?}"
    );
    let believed = net.machines[0].ipam.as_ref().unwrap().believed();
    let exists = ("a".to_owned(), vec![net_of("192.0.2.3/24")]);
    assert_eq!(believed.against(&[exists], |id| id).len(), 0);

    // It has moved: after a while the old one is anybody's.
    net.see_host(0, &["192.0.2.9/32"]);
    net.run_for(DEATH_GRACE + Duration::from_secs(1));
    assert_eq!(net.allocate(0, "b", ""), "192.0.2.1/24");
}

/// A runtime that does not say whether a container exists: nothing of it is freed, and nobody takes what it has over.
#[test]
fn a_silent_runtime_frees_nothing() {
    let mut net = Net::started(1, "10.32.0.0/12");
    net.allocate(0, "a", "");
    net.allocate(0, "b", "");
    for _ in 0..30 {
        let sight = Sight {
            present: BTreeMap::from([("c".to_owned(), vec![net_of("10.32.0.1/12")])]),
            unsure: BTreeSet::from(["a".to_owned()]),
        };
        assert_eq!(net.answer(0, Request::Present(sight)), Ok(Reply::Done));
        net.run_for(Duration::from_secs(5));
    }
    // That of `b`, of whom it is known that it is gone.
    assert_eq!(net.allocate(0, "d", ""), "10.32.0.2/12");
    assert!(net.claim(0, "d", "10.32.0.1/12").is_err());
    assert_eq!(net.allocate(0, "a", ""), "10.32.0.1/12", "it kept it");
}
