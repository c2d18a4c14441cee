//! Subnets that lie inside each other: an address is of the one that its own prefix names.

use super::*;

impl Net {
    fn held(&mut self, holder: &str, subnet: &str) -> Vec<String> {
        let (holder, subnet) = (holder.to_owned(), subnet.parse().ok());
        match self.answer(0, Request::Lookup { holder, subnet }) {
            Ok(Reply::Addresses(held)) => held.iter().map(IpNet::to_string).collect(),
            other => panic!("{other:?}"),
        }
    }

    fn allocate_both(&mut self, holder: &str) -> Vec<IpNet> {
        let asked = Request::Allocate {
            holder: holder.to_owned(),
            subnet: None,
        };
        match self.answer(0, asked) {
            Ok(Reply::Addresses(addresses)) => addresses,
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_subnet_inside_another_has_addresses_of_its_own_in_either_order() {
    let mut net = Net::started(1, "10.32.0.0/12");
    let (inner, outer) = ("10.36.1.0/24", "10.32.0.0/12");
    assert_eq!(net.allocate(0, "c1", inner), "10.36.1.1/24");
    assert_eq!(net.allocate(0, "c1", ""), "10.32.0.1/12");
    assert_eq!(net.allocate(0, "c2", ""), "10.32.0.2/12");
    assert_eq!(net.allocate(0, "c2", inner), "10.36.1.2/24");
    net.claim(0, "c2", "10.36.2.9/24").unwrap();

    assert_eq!(net.allocate(0, "c2", inner), "10.36.1.2/24", "again");
    assert_eq!(net.allocate(0, "c2", ""), "10.32.0.2/12", "again");
    assert_eq!(net.held("c2", outer), ["10.32.0.2/12"]);
    assert_eq!(net.held("c2", inner), ["10.36.1.2/24"]);
    assert_eq!(net.held("c2", "10.36.2.0/24"), ["10.36.2.9/24"]);
    assert_eq!(net.held("c2", "10.36.0.0/16"), [""; 0]);
    let all = ["10.32.0.2/12", "10.36.1.2/24", "10.36.2.9/24"];
    assert_eq!(net.held("c2", ""), all);

    // As read from the disk, too.
    net.kill(0);
    net.start(0);
    assert_eq!(net.held("c2", outer), ["10.32.0.2/12"]);
    assert_eq!(net.allocate(0, "c1", inner), "10.36.1.1/24");
}

#[test]
fn an_address_is_of_the_subnet_that_the_interface_says() {
    let mut net = Net::started(1, "10.32.0.0/12");
    net.claim(0, "c", "10.36.1.7/24").unwrap();
    let sight = Sight {
        present: BTreeMap::from([("c".to_owned(), vec![net_of("10.36.1.7/12")])]),
        unsure: BTreeSet::new(),
    };
    assert_eq!(net.answer(0, Request::Present(sight)), Ok(Reply::Done));
    assert_eq!(net.held("c", "10.36.1.0/24"), [""; 0]);
    assert_eq!(net.held("c", "10.32.0.0/12"), ["10.36.1.7/12"]);
}

#[test]
fn an_address_of_ipv6_goes_with_the_default_subnet_after_its_prefix_is_gone() {
    let mut net = Net::started(1, "10.32.0.0/12");
    net.kill(0);
    net.machines[0].config.range6 = "fd57::/64".parse().ok();
    net.start(0);
    let both = net.allocate_both("c");
    assert_eq!(both.len(), 2);
    net.claim(0, "c", "fd57::5/64").unwrap();
    for prefix in ["", "fd58::/64"] {
        net.kill(0);
        net.machines[0].config.range6 = prefix.parse().ok();
        net.start(0);
        let shown: Vec<String> = both.iter().map(IpNet::to_string).collect();
        assert_eq!(net.held("c", "10.32.0.0/12"), shown, "not the one by hand");
        assert_eq!(net.held("c", "10.36.1.0/24"), [""; 0]);
    }
    let fresh = net.allocate_both("c");
    assert_eq!(fresh[0], both[0]);
    assert_ne!(fresh[1], both[1], "of the prefix of today");
}
