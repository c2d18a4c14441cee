//! What is said where every address of a subnet is in use.

use super::*;

fn full_net() -> Net {
    let mut net = Net::started(1, "10.0.0.0/29");
    for n in 0..6 {
        net.allocate(0, &format!("a{n}"), "");
    }
    net
}

#[test]
fn where_nobody_else_has_any_a_full_subnet_is_refused_at_once() {
    let mut net = full_net();
    let asked_at = net.now;
    assert_eq!(
        net.allocate(0, "c", ""),
        "Err(NoSpace { subnet: 10.0.0.0/29, detail: \"all addresses are in use\" })"
    );
    assert!(net.now - asked_at <= STEP, "{:?}", net.now - asked_at);

    // The others stay with the dead for longer than anybody waits.
    net.feed(0, IpamInput::Died("a0".to_owned()));
    let asked_at = net.now;
    assert!(net.allocate(0, "c", "").starts_with("Err(NoSpace"));
    assert!(net.now - asked_at <= STEP, "{:?}", net.now - asked_at);
}

#[test]
fn an_address_that_a_dead_container_leaves_in_time_is_waited_for() {
    let mut net = full_net();
    net.feed(0, IpamInput::Died("a0".to_owned()));
    net.run_for(DEATH_GRACE - Duration::from_secs(5));
    assert_eq!(net.allocate(0, "c", ""), "10.0.0.1/29");
}
