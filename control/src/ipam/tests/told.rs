//! Requests that fail tell what is in the way and what helps.

use super::*;

impl Net {
    /// What a request is told that waits in vain.
    fn told(&mut self, at: usize, what: Request) -> String {
        let number = self.ask(at, what);
        self.run_for(Duration::from_secs(11));
        let answer = self.machines[at].answers.remove(&number).unwrap();
        answer.unwrap_err().to_string()
    }
}

fn consensus(electors: usize) -> IpamInit {
    let electors = Some(electors);
    IpamInit::Consensus { electors }
}

#[test]
fn hosts_with_different_numbers_of_voters_are_named() {
    let mut net = Net::new(3, "10.32.0.0/12", &consensus(3));
    net.machines[1].config.init = consensus(5);
    net.machines[2].config.init = consensus(2);
    (0..3).for_each(|at| net.start(at));
    assert_eq!(
        net.told(0, Request::Prime),
        "no ring yet: awaiting consensus (quorum: 2, known: 3); this host was launched with --ipalloc-init consensus=3, \
         host1 with 5, host2 with 2: all must say the same"
    );
}

#[test]
fn an_observer_and_who_waits_for_it_are_told_of_each_other() {
    let mut net = Net::new(2, "10.32.0.0/12", &consensus(2));
    net.machines[1].config.init = IpamInit::Observer;
    (0..2).for_each(|at| net.start(at));
    let voter = net.told(0, Request::Prime);
    assert!(
        voter.ends_with("; within reach and without a vote: host1"),
        "{voter}"
    );
    let observer = net.told(1, Request::Prime);
    assert!(observer.contains("those that vote (host0)"), "{observer}");
}

#[test]
fn whoever_finds_no_heir_within_reach_is_told_to_try_again() {
    let mut net = Net::started(2, "10.32.0.0/12");
    net.machines[1].disk_is_full = true;
    net.ask(
        1,
        Request::Allocate {
            holder: "a".into(),
            subnet: None,
        },
    );
    let told = net.told(0, Request::Leave);
    assert!(told.contains("run reset again"), "{told}");
}

#[test]
fn leaving_that_fails_half_way_says_what_is_given_away() {
    let mut net = Net::started(2, "10.32.0.0/12");
    net.allocate(0, "a", "");
    net.machines[1].holds_writes = true;
    let number = net.ask(0, Request::Leave);
    net.run_for(Duration::from_secs(1));
    assert_eq!(net.owns(0), 0, "given");
    net.cut = BTreeSet::from([0, 1]);
    net.meet();
    net.run_for(Duration::from_secs(10));
    let told = net.machines[0].answers.remove(&number).unwrap();
    let told = told.unwrap_err();
    let given = matches!(&told, Failure::HalfLeft { count, .. } if *count > 0);
    assert!(given, "{told}");
}

#[test]
fn the_dead_are_called_by_their_names_and_are_not_missed_for_their_own_removal() {
    let mut net = Net::started(3, "10.32.0.0/12");
    net.allocate(2, "a", "");
    net.run_for(Duration::from_secs(10));
    (1..3).for_each(|at| net.kill(at));
    let (victim, force, dry_run) = (peer(3), false, false);
    let removal = Request::Remove {
        victim,
        force,
        dry_run,
    };
    assert_eq!(
        net.told(0, removal),
        "removal of host2 needs 2 of 3 votes, 1 within reach, missing: host1; --force does without"
    );
}

#[test]
fn a_peer_that_was_gone_before_a_restart_has_its_name() {
    let mut net = Net::started(3, "10.32.0.0/12");
    for (at, name) in ["a", "b", "c"].into_iter().enumerate() {
        net.allocate(at, name, "");
    }
    net.run_for(Duration::from_secs(8));
    net.machines[1].config.name = PeerName([9; 6]);
    net.meet();
    net.kill(1);
    net.kill(0);
    net.start(0);

    let ipam = |net: &Net| {
        net.machines[0]
            .ipam
            .as_ref()
            .unwrap()
            .gone(peer(2))
            .cloned()
    };
    assert_eq!(ipam(&net).unwrap().name, PeerName([9; 6]));
    net.run_for(Duration::from_secs(30));
    assert!(net.answer(0, removal(peer(2))).is_ok());
    net.run_for(Duration::from_secs(8));
    net.meet();
    assert_eq!(ipam(&net), None, "it matters no more");
    let names = |disk: &StoreContent| disk.keys().filter(|key| key.starts_with(b"n")).count();
    assert_eq!(names(&net.machines[0].disk), 1, "the third, and not itself");
}

#[test]
fn a_gift_that_may_be_on_its_way_holds_leaving_up_until_its_giver_is_there() {
    let mut net = Net::started(3, "10.32.0.0/12");
    for (at, name) in ["a", "b", "c"].into_iter().enumerate() {
        net.allocate(at, name, "");
    }
    net.run_for(Duration::from_secs(8));
    // The question is lost with its host.
    net.machines[1].ipam = None;
    let (holder, address) = ("c".to_owned(), net_of("10.44.0.9/12"));
    net.ask(2, Request::Claim { holder, address });
    net.kill(1);
    let told = net.told(2, Request::Leave);
    assert!(
        told.contains("host1 cannot be reached, and may have given"),
        "{told}"
    );

    net.start(1);
    net.run_for(Duration::from_secs(2));
    let left = net.answer(2, Request::Leave);
    assert!(matches!(left, Ok(Reply::Left { .. })), "{left:?}");
    let (holder, subnet) = ("c".to_owned(), None);
    let wanted = net.answer(2, Request::Allocate { holder, subnet });
    assert_eq!(wanted, Err(Failure::Leaving), "it wants nothing back");
}
