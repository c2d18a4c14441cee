//! What weft says of addresses while it waits, and what it gives to nobody, on the built binary.
//!
//! ```text
//!  c ── weft a ─ eth0 192.0.2.1 ══ 192.0.2.2 eth0 ─ weft b ── d
//! ```

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;
use std::time::Duration;

use weft_netns_tests::{Weft, in_lab, within};

/// To be connected and to agree, on a busy machine.
const CONNECT_LIMIT: Duration = Duration::from_secs(20);
const LAUNCH: [&str; 3] = ["launch", "--password", "secret"];

/// What a template picks from the report.
fn told(weft: &Weft, template: &str) -> String {
    weft.ok(&["report", "-f", template]).trim().to_owned()
}

#[test]
fn prime_says_what_it_waits_for_until_it_is_there() {
    in_lab(|lab| {
        let [a, b] = lab.two_hosts().map(|host| lab.weft(&host));
        let subnet = ["--ipalloc-default-subnet", "10.32.1.0/24"];
        a.ok(&[&LAUNCH[..], &subnet, &["192.0.2.2"]].concat());
        assert!(a.ok(&["status"]).contains("Status: idle"));
        assert_eq!(told(&a, "{{json .IPAM.Paxos}}"), "null");
        let mut waiting = a.command(&["prime"]);
        let mut waiting = waiting.stderr(Stdio::piped()).spawn().expect("weft starts");
        let said = BufReader::new(waiting.stderr.take().expect("it is piped"));

        let mut said = said.lines().map_while(Result::ok);

        let first = said.next().unwrap_or_default();
        assert_eq!(
            first,
            "weft: awaiting consensus (quorum: 2, known: 1), not connected: 192.0.2.2"
        );
        assert_eq!(
            told(&a, "{{json .IPAM.Paxos}} {{len .IPAM.Entries}}"),
            r#"{"Elector":true,"KnownNodes":1,"Quorum":2} 0"#
        );
        b.ok(&[&LAUNCH[..], &["192.0.2.1"]].concat());
        assert!(waiting.wait().expect("it ends").success());
        assert_eq!(
            told(
                &a,
                "{{.IPAM.DefaultSubnet}} {{.IPAM.Range}} {{.IPAM.RangeNumIPs}} {{.IPAM.ActiveIPs}} \
                 {{len .IPAM.Entries}} {{json .IPAM.Paxos}} {{len .IPAM.PendingAllocates}} {{len .IPAM.PendingClaims}}"
            ),
            "10.32.1.0/24 10.32.0.0/12 1048576 0 2 null 0 0"
        );
        let shown = a.ok(&["status"]);
        assert!(shown.contains("DefaultSubnet: 10.32.1.0/24"), "{shown}");
        let unknown = a.run(&["rmpeer", "--dry-run", "nobody"]);
        assert_eq!((unknown.code, &*unknown.stdout), (1, ""), "{unknown:?}");
        assert!(
            unknown.stderr.contains("nobody of that name"),
            "{unknown:?}"
        );
    });
}

/// The range lies over the hosts' own network, as was asked for: each host keeps what it has.
#[test]
fn no_container_gets_an_address_of_a_host() {
    in_lab(|lab| {
        let [a, b] = lab.two_hosts().map(|host| lab.weft(&host));
        let range = ["--ipalloc-range", "192.0.2.0/24"];
        let launched = a.run(&[&LAUNCH[..], &range].concat());
        assert_eq!(launched.code, 0, "{launched:?}");
        let told = "this host's own addresses in it are given to nobody";
        assert!(launched.stderr.contains(told), "{launched:?}");
        a.ok(&["prime"]);
        b.ok(&[&LAUNCH[..], &range, &["192.0.2.1"]].concat());
        b.wait_for_path(CONNECT_LIMIT);
        let (c, d) = (lab.host("c"), lab.host("d"));
        let refused = a.run(&["attach", "192.0.2.1/24", &c.as_container()]);
        assert_eq!(refused.code, 1, "{refused:?}");
        within("the other host to own its address", CONNECT_LIMIT, || {
            let owners = b.ok(&["status", "ipam"]);
            let own = owners.lines().find(|line| line.contains("active)"));
            own.is_some_and(|line| !line.contains(" 0 IPs"))
        });
        let refused = a.run(&["attach", "192.0.2.2/24", &c.as_container()]);
        assert!(
            refused.stderr.contains("is owned by other peer"),
            "{refused:?}"
        );
        assert_eq!(a.attach(&c, &[]), "192.0.2.3");
        let given = b.attach(&d, &[]);
        assert!(
            !["192.0.2.1", "192.0.2.2"].contains(&given.as_str()),
            "{given}"
        );
        assert_eq!(b.ok(&["ipam", "check"]), "");
    });
}

/// A line on standard error, whatever the lines for scripts are.
#[test]
fn a_host_without_addresses_to_give_says_why() {
    in_lab(|lab| {
        let a = lab.weft(&lab.host("a"));
        let says = |words: &[&str], code: i32, why: &str| {
            let outcome = a.run(words);
            let found = (outcome.code, &*outcome.stdout);
            assert_eq!(found, (code, ""), "{words:?}: {outcome:?}");
            assert!(outcome.stderr.contains(why), "{words:?}: {outcome:?}");
        };
        let blank = "nothing noted here: it was never launched, or reset";
        says(&["ipam", "check"], 0, blank);
        let bad = [&LAUNCH[..], &["--ipalloc-range", "10.0.0.0/33"]].concat();
        let outcome = a.run(&bad);
        let told =
            "accepted is an IPv4 network with a prefix length up to /30, such as 10.32.0.0/12";
        assert_eq!(outcome.stderr.lines().count(), 1, "{outcome:?}");
        assert!(outcome.stderr.trim().ends_with(told), "{outcome:?}");

        a.ok(&[&LAUNCH[..], &["--ipalloc-init", "consensus=3"]].concat());
        says(&["status", "ipam"], 0, "weft: idle");
        for words in [&["rmpeer", ""][..], &["rmpeer", "--dry-run", ""]] {
            says(words, 1, "an empty name is nobody's");
        }
        a.ok(&["reset", "--force"]);
        says(&["ipam", "check"], 0, blank);
        a.ok(&[&LAUNCH[..], &["--ipalloc-range", ""]].concat());
        says(
            &["status", "ipam"],
            0,
            "weft: allocation is off on this host",
        );
    });
}

#[test]
fn without_allocation_a_detach_without_addresses_takes_what_was_given_by_hand() {
    in_lab(|lab| {
        let a = lab.weft(&lab.host("a"));
        a.ok(&[&LAUNCH[..], &["--ipalloc-range", ""]].concat());
        let container = lab.host("c");
        a.attach(&container, &["10.2.1.1/24", "10.2.2.1/24", "10.2.1.2/24"]);
        let detach = |words: &[&str]| {
            let outcome = a.run(&[&["detach"], words, &[&container.as_container()]].concat());
            assert_eq!(outcome.code, 0, "{outcome:?}");
            outcome.stdout.trim().to_owned()
        };
        assert_eq!(detach(&["net:10.2.1.0/24"]), "10.2.1.1 10.2.1.2");
        assert!(container.has_device("ethwe"));
        assert_eq!(detach(&[]), "10.2.2.1");
        assert!(!container.has_device("ethwe"));
        assert_eq!(detach(&[]), "");
    });
}
