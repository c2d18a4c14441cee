//! Names of containers, with the clients that containers use: dig, getent, busybox nslookup.
//!
//! ```text
//!  c1, c2 ─ ethwe ─ bridge `weft` of a, 169.254.53.1 ─ DNS ─ eth0 192.0.2.1 ══ 192.0.2.2 eth0 ─ b: dnsmasq
//! ```

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use weft_netns_tests::{
    Host, Lab, NameServer, Weft, addresses_in_answer, answers, attached, dig, in_lab, launch_with,
    resolved, say_skipped, within,
};

/// A container that is gone must be forgotten in this time.
const GONE_LIMIT: Duration = Duration::from_secs(2);
/// For what is there at once on an idle machine.
const SOON: Duration = Duration::from_secs(10);
const SERVER: &str = "@169.254.53.1";

fn host(lab: &Lab) -> Weft {
    let hosts = lab.two_hosts();
    lab.weft(&hosts[0])
}

#[test]
fn containers_of_one_host_find_each_other_by_name() {
    in_lab(|lab| {
        let weft = host(lab);
        launch_with(&weft, &[]);
        let c1 = attached(lab, &weft, "c1", &["10.2.1.1/24"]);
        let c2 = attached(
            lab,
            &weft,
            "c2",
            &[
                "--name",
                "Two",
                "--name",
                "x.sub.weave.local",
                "10.2.1.2/24",
            ],
        );

        // With the container's own files: search domain, then whole names.
        assert_eq!(resolved(&c2, "c1"), "10.2.1.1");
        assert_eq!(resolved(&c1, "two"), "10.2.1.2");
        assert_eq!(resolved(&c1, "two.weave.local"), "10.2.1.2");
        c1.run(&["ping", "-c", "1", "-W", "2", "two"]);
        let said = c1.run(&["busybox", "nslookup", "two.weave.local"]);
        assert!(said.contains("10.2.1.2"), "{said}");

        assert_eq!(answers(&c1, &["tWo.weave.LOCAL"]), ["10.2.1.2"]);
        assert_eq!(answers(&c1, &["x.sub.weave.local"]), ["10.2.1.2"]);
        assert_eq!(answers(&c1, &["+tcp", "two.weave.local"]), ["10.2.1.2"]);
        assert_eq!(answers(&c1, &["two"]), ["10.2.1.2"]);
        assert_eq!(answers(&c1, &["-x", "10.2.1.2"]), ["Two.weave.local."]);
        let no_data = dig(&c1, &["two.weave.local", "AAAA"]);
        assert!(
            no_data.contains("status: NOERROR") && no_data.contains("ANSWER: 0"),
            "{no_data}"
        );
        for unknown in ["three.weave.local", "three", "weave"] {
            let said = dig(&c1, &[unknown]);
            assert!(said.contains("status: NXDOMAIN"), "{said}");
            assert!(said.contains("flags: qr aa rd ra"), "{said}");
        }
        let own = [
            ("localhost", "A", "127.0.0.1"),
            ("db.localhost", "AAAA", "::1"),
        ];
        for (name, kind, address) in own {
            assert_eq!(answers(&c1, &[name, kind]), [address]);
        }
        assert_eq!(answers(&c1, &["-x", "127.0.0.1"]), ["localhost."]);
        assert_eq!(weft.ok(&["dns-lookup", "c1"]), "10.2.1.1\n");
        assert_eq!(weft.ok(&["dns-lookup", "nobody"]), "");
        let listed = weft.ok(&["status", "dns"]);
        assert!(
            listed.starts_with("c1           10.2.1.1        c1           "),
            "{listed}"
        );
        assert_eq!(
            weft.ok(&["dns-args"]),
            "--dns=169.254.53.1 --dns-search=weave.local.\n"
        );
        // What is counted is no entry.
        let counted = weft.run(&["status", "dns"]);
        assert_eq!(counted.stdout.lines().count(), 3, "{counted:?}");
        for text in [&counted.stderr, &weft.ok(&["status"])] {
            let lines = [" answered here, 0 forwarded, 0 failed upstream, ", "TCP: "];
            assert!(lines.iter().all(|line| text.contains(line)), "{text}");
        }
        // The host itself may ask, too.
        assert_eq!(answers(weft.host(), &["c1.weave.local"]), ["10.2.1.1"]);
    });
}

#[test]
fn names_go_with_addresses_and_containers() {
    in_lab(|lab| {
        let weft = host(lab);
        launch_with(&weft, &[]);
        let c1 = attached(lab, &weft, "c1", &["10.2.1.1/24"]);
        let c2 = attached(lab, &weft, "c2", &["10.2.1.2/24", "10.2.2.2/24"]);
        assert_eq!(answers(&c1, &["c2.weave.local"]), ["10.2.1.2", "10.2.2.2"]);

        weft.ok(&["detach", "10.2.2.2/24", &c2.as_container()]);
        assert_eq!(answers(&c1, &["c2.weave.local"]), ["10.2.1.2"]);
        weft.ok(&["detach", "10.2.1.2/24", &c2.as_container()]);
        assert!(dig(&c1, &["c2.weave.local"]).contains("status: NXDOMAIN"));

        let c3 = attached(lab, &weft, "c3", &["10.2.1.3/24"]);
        assert_eq!(answers(&c1, &["c3.weave.local"]), ["10.2.1.3"]);
        c3.remove();
        within("the name of a container that is gone", GONE_LIMIT, || {
            dig(&c1, &["c3.weave.local"]).contains("status: NXDOMAIN")
        });
        within("its files", GONE_LIMIT, || {
            !Path::new("/etc/netns/c3").exists()
        });

        let quiet = attached(lab, &weft, "quiet", &["--without-dns", "10.2.1.4/24"]);
        assert_eq!(weft.ok(&["dns-lookup", "quiet"]), "");
        assert!(!quiet.run(&["ip", "route"]).contains("169.254.53.1"));
    });
}

#[test]
fn names_by_hand_are_given_taken_and_survive_a_restart() {
    in_lab(|lab| {
        let weft = host(lab);
        launch_with(&weft, &[]);
        let c1 = attached(lab, &weft, "c1", &["10.2.1.1/24"]);
        let c2 = attached(
            lab,
            &weft,
            "c2",
            &["--without-dns", "10.2.1.2/24", "10.2.2.2/24"],
        );
        let c2 = c2.as_container();
        let found = |name: &str| answers(&c1, &[name]);

        weft.ok(&["dns-add", "10.2.1.2", &c2, "-h", "name.weave.local"]);
        assert_eq!(found("name.weave.local"), ["10.2.1.2"]);
        weft.ok(&["dns-add", &c2, "-h", "name"]);
        assert_eq!(found("name.weave.local"), ["10.2.1.2", "10.2.2.2"]);
        weft.ok(&["dns-remove", "10.2.1.2", &c2, "-h", "name"]);
        assert_eq!(found("name.weave.local"), ["10.2.2.2"]);
        weft.ok(&["dns-remove", &c2]);
        assert!(found("name.weave.local").is_empty());
        weft.ok(&[
            "dns-add",
            "192.0.2.80",
            "2001:db8::80",
            "-h",
            "printer.weave.local",
        ]);
        assert_eq!(found("printer.weave.local"), ["192.0.2.80"]);
        assert_eq!(
            answers(&c1, &["printer.weave.local", "AAAA"]),
            ["2001:db8::80"]
        );
        assert_eq!(
            answers(&c1, &["-x", "2001:db8::80"]),
            ["printer.weave.local."]
        );
        let outside = weft.run(&["dns-add", "192.0.2.80", "-h", "printer.example.org"]);
        assert_eq!(outside.code, 0);
        assert!(
            outside.stderr.contains("not below weave.local."),
            "{outside:?}"
        );
        assert_eq!(weft.run(&["dns-add", "192.0.2.80"]).code, 2);
        assert_eq!(weft.run(&["dns-add", "192.0.2.80", "-h", "a..b"]).code, 1);

        weft.crash();
        launch_with(&weft, &[]);

        assert_eq!(found("printer.weave.local"), ["192.0.2.80"]);
        assert_eq!(found("c1.weave.local"), ["10.2.1.1"]);
        weft.ok(&["stop"]);
        launch_with(&weft, &[]);
        assert_eq!(found("printer.weave.local"), ["192.0.2.80"]);
        weft.ok(&["dns-remove", "192.0.2.80", "-h", "printer"]);
        assert_eq!(
            answers(&c1, &["printer.weave.local", "AAAA"]),
            ["2001:db8::80"]
        );
    });
}

/// Whoever leaves out `netns:` hears what a container's name without it means.
#[test]
fn a_word_that_would_be_of_docker_is_answered_with_what_else_there_is() {
    in_lab(|lab| {
        let weft = host(lab);
        launch_with(&weft, &["--docker-host", "unix:///nowhere/docker.sock"]);
        attached(lab, &weft, "c1", &["10.2.1.1/24"]);
        for words in [
            ["dns-add", "c1"].as_slice(),
            &["dns-remove", "c1"],
            &["attach", "10.2.1.7/24", "c1"],
            &["detach", "c1"],
        ] {
            let refused = weft.run(words);
            assert_eq!(refused.code, 1, "{refused:?}");
            for form in ["start Docker", "netns:NAME", "(there is netns:c1)"] {
                assert!(refused.stderr.contains(form), "{refused:?}");
            }
        }
        let unknown = weft.run(&["dns-add", "c9"]).stderr;
        assert!(
            unknown.contains("netns:NAME") && !unknown.contains("there is"),
            "{unknown}"
        );
    });
}

#[test]
fn many_addresses_are_cut_over_udp_and_whole_over_tcp() {
    in_lab(|lab| {
        let weft = host(lab);
        launch_with(&weft, &[]);
        let c1 = attached(lab, &weft, "c1", &["10.2.1.1/24"]);
        let many: Vec<String> = (1..=50).map(|n| format!("10.9.0.{n}")).collect();
        let words: Vec<&str> = many.iter().map(String::as_str).collect();
        weft.ok(&[&["dns-add"], words.as_slice(), &["-h", "many"]].concat());

        let count =
            |words: &[&str]| addresses_in_answer(&c1, &[words, &["many.weave.local"]].concat());
        let (plain, is_cut) = count(&["+noedns", "+ignore"]);
        assert!(is_cut && (25..35).contains(&plain), "{plain}");
        assert_eq!(count(&["+noedns"]), (50, false), "asked again over TCP");
        assert_eq!(count(&["+tcp"]), (50, false));
        let (more, is_cut) = count(&["+bufsize=700", "+ignore"]);
        assert!(is_cut && more > plain && more < 50, "{more}");
        assert_eq!(count(&["+bufsize=1232", "+ignore"]), (50, false));
        // The order differs from answer to answer.
        let order = || dig(&c1, &["+tcp", "+short", "many.weave.local"]);
        let first = order();
        within("another order", SOON, || order() != first);
    });
}

/// What a program of another C library would do; Alpine's is musl.
const LOOKUP: &str = r#"
#include <netdb.h>
#include <stdio.h>
#include <sys/socket.h>

int main(int count, char **words) {
    struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM}, *found;
    char text[64];
    if (count < 2 || getaddrinfo(words[1], 0, &hints, &found))
        return 1;
    for (; found; found = found->ai_next)
        if (!getnameinfo(found->ai_addr, found->ai_addrlen, text, sizeof text, 0, 0, NI_NUMERICHOST))
            puts(text);
    return 0;
}
"#;

/// musl's resolver asks for A and AAAA at once and takes NXDOMAIN for either as the end.
#[test]
fn programs_of_another_c_library_find_names() {
    let is_there = Command::new("musl-gcc").arg("--version").output().is_ok();
    if !is_there && std::env::var("CI").is_ok_and(|value| value == "true") {
        panic!("musl-gcc is missing: install musl-tools");
    }
    if !is_there {
        return say_skipped("musl-gcc is missing: install musl-tools");
    }
    in_lab(|lab| {
        let weft = host(lab);
        launch_with(&weft, &[]);
        let c1 = attached(lab, &weft, "c1", &["10.2.1.1/24"]);
        attached(lab, &weft, "c2", &["10.2.1.2/24"]);
        weft.ok(&["dns-add", "192.0.2.80", "2001:db8::80", "-h", "both"]);
        let many: Vec<String> = (1..=40).map(|n| format!("10.9.0.{n}")).collect();
        let words: Vec<&str> = many.iter().map(String::as_str).collect();
        weft.ok(&[&["dns-add"], words.as_slice(), &["-h", "many"]].concat());
        let source = lab.folder().join("lookup.c");
        let program = lab.folder().join("lookup");
        std::fs::write(&source, LOOKUP).expect("the lab's folder is writable");
        let compiled = Command::new("musl-gcc")
            .args(["-static", "-o"])
            .args([&program, &source])
            .status();
        assert!(compiled.is_ok_and(|status| status.success()), "musl-tools");
        let found = |name: &str| {
            let output = c1.output(&[&program.to_string_lossy(), name]);
            let said = String::from_utf8_lossy(&output.stdout).into_owned();
            let mut lines: Vec<String> = said.lines().map(str::to_owned).collect();
            lines.sort();
            lines
        };

        assert_eq!(found("c2"), ["10.2.1.2"]);
        assert_eq!(found("c2.weave.local"), ["10.2.1.2"]);
        assert_eq!(found("both"), ["192.0.2.80", "2001:db8::80"]);
        // Too many for 512 bytes: it asks again over TCP, or before musl 1.2.4 does with what fits.
        assert!(found("many").len() > 20);
        assert!(found("nobody").is_empty());
    });
}

#[test]
fn another_domain_and_names_below_it() {
    in_lab(|lab| {
        let weft = host(lab);
        launch_with(&weft, &["--dns-domain", "foo.bar", "--dns-ttl", "7"]);
        let c1 = attached(
            lab,
            &weft,
            "c1",
            &["--name", "foo.sub1.foo.bar", "10.2.1.1/24"],
        );
        attached(
            lab,
            &weft,
            "c2",
            &["--name", "foo.sub2.foo.bar.", "10.2.1.2/24"],
        );
        attached(
            lab,
            &weft,
            "c3",
            &["--name", "tre.sub1.foo.bar", "10.2.1.3/24"],
        );

        // Short names are looked for in the container's own sub-domain first.
        assert_eq!(resolved(&c1, "tre"), "10.2.1.3");
        assert_eq!(resolved(&c1, "foo"), "10.2.1.1");
        assert_eq!(resolved(&c1, "tre.sub1"), "10.2.1.3");
        assert_eq!(answers(&c1, &["foo.sub1.foo.bar"]), ["10.2.1.1"]);
        assert_eq!(answers(&c1, &["foo.sub2.foo.bar"]), ["10.2.1.2"]);
        let search = ["+search", "+domain=sub1.foo.bar", "tre"];
        assert_eq!(answers(&c1, &search), ["10.2.1.3"]);
        assert!(dig(&c1, &["sub1.foo.bar"]).contains("status: NOERROR"));
        assert!(dig(&c1, &["foo.sub1.foo.bar"]).contains("\t7\tIN\tA\t"));
        assert_eq!(
            weft.ok(&["dns-args"]),
            "--dns=169.254.53.1 --dns-search=foo.bar.\n"
        );
        let refused = weft.run(&[
            "attach",
            "--name",
            "a.weave.local",
            "10.2.1.4/24",
            "netns:c1",
        ]);
        assert_eq!(refused.code, 1);
        assert!(refused.stderr.contains("not below foo.bar."), "{refused:?}");

        // The same with the final dot.
        weft.ok(&["stop"]);
        launch_with(&weft, &["--dns-domain", "foo.bar."]);
        assert_eq!(resolved(&c1, "tre"), "10.2.1.3");
        assert_eq!(answers(&c1, &["foo.sub2.foo.bar"]), ["10.2.1.2"]);
        assert!(dig(&c1, &["foo.sub1.foo.bar"]).contains("\t1\tIN\tA\t"));
    });
}

#[test]
fn without_dns_nothing_is_served() {
    in_lab(|lab| {
        let weft = host(lab);
        launch_with(&weft, &["--no-dns"]);
        let theirs = "nameserver 10.2.1.254\n";
        std::fs::create_dir_all("/etc/netns/c1").expect("the lab has its own /etc/netns");
        std::fs::write("/etc/netns/c1/resolv.conf", theirs).expect("the folder is there");
        let c1 = attached(lab, &weft, "c1", &["10.2.1.1/24"]);
        weft.host().add_address("weft", "10.2.1.254/24");
        let known = ["--address=/example.org/192.0.2.99"];
        let _server = NameServer::start(weft.host(), "10.2.1.254", &known);

        within("a name of somebody else's", SOON, || {
            resolved(&c1, "www.example.org") == "192.0.2.99"
        });
        let file = std::fs::read_to_string("/etc/netns/c1/resolv.conf");
        assert_eq!(file.expect("it stays"), theirs);
        assert_eq!(weft.ok(&["dns-args"]), "");
        assert_eq!(weft.ok(&["status", "dns"]), "");
        assert!(!weft.ok(&["status"]).contains("Service: dns"));
        assert!(weft.run(&["dns-lookup", "c1"]).stderr.contains("--no-dns"));
        assert!(!c1.run(&["ip", "route"]).contains("169.254"));
        assert!(!weft.host().run(&["ip", "address"]).contains("169.254.53.1"));
    });
}

#[test]
fn other_names_are_asked_of_the_hosts_servers_which_may_change() {
    in_lab(|lab| {
        let weft = host(lab);
        let file = lab.folder().join("resolv.conf");
        let path = file.to_string_lossy().into_owned();
        std::fs::write(&file, "nameserver 192.0.2.77\n").expect("the lab's folder is writable");
        launch_with(&weft, &["--resolv-conf", &path]);
        let c1 = attached(lab, &weft, "c1", &["10.2.1.1/24"]);

        // A server that is not there: SERVFAIL before the client gives up, and our names as ever.
        assert!(dig(&c1, &["www.example.org"]).contains("status: SERVFAIL"));
        assert_eq!(answers(&c1, &["c1.weave.local"]), ["10.2.1.1"]);

        weft.host().add_address("eth0", "192.0.2.3/24");
        let _server = NameServer::start(
            weft.host(),
            "192.0.2.3",
            &["--address=/example.org/192.0.2.99"],
        );
        std::fs::write(&file, "nameserver 169.254.53.1\nnameserver 192.0.2.3\n")
            .expect("the lab's folder is writable");
        within("the answer of the new server", SOON, || {
            answers(&c1, &["www.example.org"]) == ["192.0.2.99"]
        });
        assert_eq!(answers(&c1, &["+tcp", "www.example.org"]), ["192.0.2.99"]);
        assert_eq!(resolved(&c1, "www.example.org"), "192.0.2.99");
        assert!(weft.ok(&["status"]).contains("Upstream: 192.0.2.3:53\n"));
        bits_of_questions(&c1);
        many_from_elsewhere(lab, &weft, &c1);

        // Those of a flag in place of the file's; the first is not there.
        weft.ok(&["stop"]);
        launch_with(
            &weft,
            &["--dns-upstream", "192.0.2.77,192.0.2.78:5353,192.0.2.3:53"],
        );
        assert_eq!(answers(&c1, &["flag.example.org"]), ["192.0.2.99"]);
        // Single labels are ours, whoever else may know them.
        assert!(dig(&c1, &["example"]).contains("status: NXDOMAIN"));
    });
}

/// An upstream that signs nothing has an answer to who would like it signed, and nobody is answered from others' questions.
fn bits_of_questions(c1: &Host) {
    for (bit, flags) in [
        ("+dnssec", "flags: do;"),
        ("+cdflag", "flags: qr rd ra cd;"),
    ] {
        let said = dig(c1, &[bit, "www.example.org"]);
        assert!(
            said.contains("192.0.2.99") && said.contains(flags),
            "{said}"
        );
    }
    let said = dig(c1, &["+norecurse", "www.example.org"]);
    assert!(said.contains("status: REFUSED"), "{said}");
    assert_eq!(answers(c1, &["+norecurse", "c1.weave.local"]), ["10.2.1.1"]);
}

/// A hundred addresses do not fit into what the upstream may send over UDP, nor into what the client takes.
fn many_from_elsewhere(lab: &Lab, weft: &Weft, c1: &Host) {
    let file = lab.folder().join("many");
    let lines = (1..=100).map(|n| format!("10.9.0.{n} many.example.org\n"));
    std::fs::write(&file, lines.collect::<String>()).expect("the lab's folder is writable");
    weft.host().add_address("eth0", "192.0.2.4/24");
    let known = format!("--addn-hosts={}", file.display());
    let _server = NameServer::start(weft.host(), "192.0.2.4", &[&known]);
    let path = lab.folder().join("resolv.conf");
    std::fs::write(path, "nameserver 192.0.2.4\n").expect("the lab's folder is writable");
    within("the third server", SOON, || {
        weft.ok(&["status"]).contains("Upstream: 192.0.2.4:53\n")
    });
    let count = |words: &[&str]| addresses_in_answer(c1, &[words, &["many.example.org"]].concat());
    within("all addresses", SOON, || {
        count(&["+noedns"]) == (100, false)
    });
    let (plain, is_cut) = count(&["+noedns", "+ignore"]);
    assert!(is_cut && plain < 35, "{plain}");
    let (more, is_cut) = count(&["+bufsize=700", "+ignore"]);
    assert!(is_cut && more < 50, "{more}");
    assert_eq!(count(&["+tcp"]), (100, false));
}

#[test]
fn nobody_outside_is_answered() {
    in_lab(|lab| {
        let hosts = lab.two_hosts();
        let weft = lab.weft(&hosts[0]);
        launch_with(&weft, &[]);
        attached(lab, &weft, "c1", &["10.2.1.1/24"]);
        hosts[1].run(&["ip", "route", "add", "169.254.53.1", "via", "192.0.2.1"]);

        for transport in ["+notcp", "+tcp"] {
            let said = hosts[1].output(&[
                "dig",
                "+tries=1",
                "+time=1",
                transport,
                SERVER,
                "c1.weave.local",
            ]);
            let said = String::from_utf8_lossy(&said.stdout).into_owned();
            assert!(!said.contains("status:"), "{said}");
        }
    });
}
