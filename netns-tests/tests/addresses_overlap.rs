//! Subnets inside each other on one host: each address is taken off as that of its own subnet, and freed only then.
//!
//! ```text
//!  c 10.36.1.1/24, 10.32.0.1/12 ── weft a 10.36.1.128/24, 10.40.0.0/12
//! ```

use weft_netns_tests::{Host, Lab, Weft, in_lab};

const SUBNET: &str = "net:10.36.1.0/24";
const LAUNCH: [&str; 3] = ["launch", "--password", "secret"];

fn launched(lab: &Lab, flags: &[&str]) -> Weft {
    let weft = lab.weft(&lab.host("a"));
    weft.ok(&[&LAUNCH[..], flags].concat());
    weft
}

/// The IPv4 addresses of a device that weft gives, in order.
fn on(host: &Host, device: &str) -> Vec<String> {
    let shown = host.run(&["ip", "-4", "-o", "addr", "show", device]);
    let words = shown.split_whitespace();
    let addresses = words.filter(|word| word.starts_with("10."));
    let addresses = addresses.filter(|word| word.contains('/'));
    let mut addresses: Vec<String> = addresses.map(str::to_owned).collect();
    addresses.sort();
    addresses
}

fn refused(weft: &Weft, words: &[&str], why: &str) {
    let outcome = weft.run(words);
    assert_eq!((outcome.code, &*outcome.stdout), (1, ""), "{outcome:?}");
    assert!(outcome.stderr.contains(why), "{outcome:?}");
}

#[test]
fn hide_takes_off_what_was_asked_and_frees_nothing_that_stays() {
    in_lab(|lab| {
        let a = launched(lab, &[]);
        let host = a.host();
        assert_eq!(a.ok(&["expose", SUBNET]).trim(), "10.36.1.1");
        assert_eq!(a.ok(&["expose"]).trim(), "10.32.0.1", "another subnet");
        assert_eq!(on(host, "weft"), ["10.32.0.1/12", "10.36.1.1/24"]);
        let other = "10.32.0.1 has the prefix length /12 here, not /24";
        refused(&a, &["hide", "10.32.0.1/24"], other);
        refused(&a, &["expose", "10.32.0.1/24"], other);
        assert_eq!(on(host, "weft"), ["10.32.0.1/12", "10.36.1.1/24"]);

        assert_eq!(a.ok(&["hide"]).trim(), "10.32.0.1");
        assert_eq!(on(host, "weft"), ["10.36.1.1/24"]);
        let container = lab.host("c");
        assert_eq!(a.attach(&container, &[SUBNET]), "10.36.1.2", "not a's");
        assert_eq!(a.attach(&container, &[]), "10.32.0.1", "a's no more");
        a.ok(&["ipam", "check"]);
        assert_eq!(a.ok(&["expose"]).trim(), "10.32.0.2");
        assert_eq!(a.ok(&["hide", SUBNET]).trim(), "10.36.1.1");
        assert_eq!(on(host, "weft"), ["10.32.0.2/12"]);
        assert_eq!(a.ok(&["hide"]).trim(), "10.32.0.2");
        assert_eq!(on(host, "weft"), [""; 0]);
        assert!(!host.run(&["nft", "list", "ruleset"]).contains("masquerade"));
        a.ok(&["ipam", "check"]);
    });
}

#[test]
fn a_container_has_an_address_of_each_subnet_in_any_order() {
    in_lab(|lab| {
        let a = launched(lab, &[]);
        let [c1, c2, c3] = ["c1", "c2", "c3"].map(|name| lab.host(name));
        assert_eq!(a.attach(&c1, &[SUBNET]), "10.36.1.1");
        assert_eq!(a.attach(&c1, &[]), "10.32.0.1");
        assert_eq!(
            a.attach(&c2, &[SUBNET, "net:default"]),
            "10.36.1.2 10.32.0.2"
        );
        assert_eq!(a.attach(&c3, &[]), "10.32.0.3");
        assert_eq!(
            a.attach(&c3, &[SUBNET, "10.36.2.9/24"]),
            "10.36.1.3 10.36.2.9"
        );
        assert_eq!(
            a.attach(&c3, &[SUBNET, "net:default"]),
            "10.36.1.3 10.32.0.3"
        );
        assert_eq!(on(&c2, "ethwe"), ["10.32.0.2/12", "10.36.1.2/24"]);
        assert!(c1.reaches([10, 36, 1, 3].into()) && c1.reaches([10, 32, 0, 2].into()));
        a.ok(&["ipam", "check"]);

        assert_eq!(a.detach(&c1, &[SUBNET]), "10.36.1.1");
        assert_eq!(on(&c1, "ethwe"), ["10.32.0.1/12"]);
        assert_eq!(a.detach(&c3, &[]), "10.32.0.3");
        assert_eq!(on(&c3, "ethwe"), ["10.36.1.3/24", "10.36.2.9/24"]);
        assert_eq!(
            a.detach(&c3, &["net:10.36.2.0/24", SUBNET]),
            "10.36.2.9 10.36.1.3"
        );
        assert!(!c3.has_device("ethwe"));
        assert_eq!(
            a.detach(&c2, &[SUBNET, "net:default"]),
            "10.36.1.2 10.32.0.2"
        );
        assert!(!c2.has_device("ethwe"));
        a.ok(&["ipam", "check"]);
    });
}

#[test]
fn an_address_of_ipv6_goes_with_the_other_though_its_prefix_is_given_no_more() {
    in_lab(|lab| {
        let a = launched(lab, &["--ipalloc-range6", "fd57:6566:7400::/64"]);
        let container = lab.host("c");
        let both = a.attach(&container, &[]);
        assert!(both.contains("fd57:"), "{both}");
        a.ok(&["stop"]);
        let again = a.run(&[&LAUNCH[..], &["--ipalloc-range6", ""]].concat());
        assert_eq!(again.code, 0, "{again:?}");
        let told = "launched with --ipalloc-range6 fd57:6566:7400::/64 before";
        assert!(again.stderr.contains(told), "{again:?}");
        assert!(a.ok(&["status"]).contains(told));
        assert_eq!(a.attach(&container, &[]), "10.32.0.1", "the same again");
        assert_eq!(a.detach(&container, &[]), both);
        assert!(!container.has_device("ethwe"));
        a.ok(&["ipam", "check"]);
    });
}
