//! What containers get so that names work in them: `resolv.conf` and `hosts`, beside or in place of their own.
//!
//! ```text
//!  c1, c2 … ─ ethwe ─ bridge `weft` of a, 169.254.53.1 ─ DNS
//!     └ /etc/netns/NAME/{resolv.conf,hosts} ─ `ip netns exec NAME` ─► /etc
//! ```

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use weft_netns_tests::{Host, Lab, Weft, answers, dig, in_lab, launch_with, resolved, within};

/// For what is there at once on an idle machine.
const SOON: Duration = Duration::from_secs(10);

fn launched(lab: &Lab, flags: &[&str]) -> Weft {
    let weft = lab.weft(&lab.host("a"));
    launch_with(&weft, flags);
    weft
}

fn attach(weft: &Weft, container: &Host, words: &[&str]) {
    weft.ok(&[&["attach"], words, &[container.as_container().as_str()]].concat());
}

fn file(container: &str, name: &str) -> PathBuf {
    ["/etc/netns", container, name].iter().collect()
}

fn read(container: &str, name: &str) -> String {
    fs::read_to_string(file(container, name)).unwrap_or_default()
}

/// Files as an administrator would leave them: one plain, one a link to the host's own.
fn make_own_files(container: &str) {
    fs::create_dir_all(file(container, "")).expect("the lab has its own /etc/netns");
    fs::write(file(container, "hosts"), "192.0.2.9 theirs\n").expect("the folder is there");
    std::os::unix::fs::symlink("/etc/hostname", file(container, "resolv.conf"))
        .expect("the folder is there");
}

fn has_own_files(container: &str) -> bool {
    let link = fs::read_link(file(container, "resolv.conf"));
    let aside =
        ["hosts", "resolv.conf"].map(|name| file(container, &format!("{name}.before-weft")));
    read(container, "hosts") == "192.0.2.9 theirs\n"
        && link.is_ok_and(|to| to.as_path() == Path::new("/etc/hostname"))
        && !aside.iter().any(|path| path.exists())
}

/// Scenario 200.
#[test]
fn names_entries_and_the_hosts_own_names_are_found_from_containers() {
    in_lab(|lab| {
        let weft = launched(lab, &[]);
        let (c1, c2) = (lab.host("c1"), lab.host("c2"));
        let added = [
            "--add-host",
            "printer:192.0.2.80",
            "--add-host",
            "six:2001:db8::80",
        ];
        attach(&weft, &c1, &[&added[..], &["10.2.1.1/24"]].concat());
        let named = ["--name", "seetwo.weave.local"];
        attach(
            &weft,
            &c2,
            &[&added[..2], &named, &["10.2.1.2/24"]].concat(),
        );

        assert_eq!(resolved(&c1, "seetwo.weave.local"), "10.2.1.2");
        assert_eq!(answers(&c1, &["-x", "10.2.1.2"]), ["seetwo.weave.local."]);
        for container in [&c1, &c2] {
            assert_eq!(resolved(container, "printer"), "192.0.2.80");
        }
        let six = c1.run(&["getent", "ahostsv6", "six"]);
        assert!(six.starts_with("2001:db8::80 "), "{six}");
        // One's own name is in the file, so that it works without any server.
        assert!(
            c2.run(&["getent", "hosts", "10.2.1.2"])
                .contains("seetwo.weave.local")
        );

        for name in ["exposed1.weave.local", "exposed2"] {
            assert_eq!(
                weft.ok(&["expose", "10.2.1.101/24", "-h", name]),
                "10.2.1.101\n"
            );
        }
        for name in ["exposed1", "exposed2.weave.local"] {
            assert_eq!(resolved(&c1, name), "10.2.1.101");
        }
        assert_eq!(
            answers(&c1, &["-x", "10.2.1.101"]),
            ["exposed1.weave.local."]
        );
        weft.ok(&["hide", "10.2.1.101/24"]);
        assert!(answers(&c1, &["exposed1.weave.local"]).is_empty());
        assert!(answers(&c1, &["exposed2.weave.local"]).is_empty());
    });
}

/// Scenarios 220, 225, 230 and 635.
#[test]
fn short_names_are_found_whatever_a_container_is_called() {
    in_lab(|lab| {
        let weft = launched(lab, &[]);
        let hosts = ["c1", "c2", "c3"].map(|name| lab.host(name));
        let [named, searching, nameless] = &hosts;
        attach(
            &weft,
            named,
            &["--name", "one.sub.weave.local", "10.2.1.1/24"],
        );
        let search = [
            "--dns-search",
            "sub.weave.local.",
            "--dns-search",
            "weave.local",
        ];
        attach(&weft, searching, &[&search[..], &["10.2.1.2/24"]].concat());
        // Without a name and without files: a process is all that is known of it.
        let mut process = nameless
            .command("busybox")
            .args(["sleep", "600"])
            .spawn()
            .expect("busybox is installed");
        weft.ok(&["attach", "10.2.1.3/24", &format!("pid:{}", process.id())]);

        assert_eq!(resolved(named, "one"), "10.2.1.1");
        assert_eq!(resolved(named, "c2"), "10.2.1.2");
        assert_eq!(resolved(searching, "one"), "10.2.1.1");
        assert_eq!(resolved(searching, "c2"), "10.2.1.2");
        assert_eq!(answers(nameless, &["c2"]), ["10.2.1.2"]);
        assert_eq!(answers(nameless, &["one.sub.weave.local"]), ["10.2.1.1"]);
        assert!(dig(nameless, &["one"]).contains("status: NXDOMAIN"));
        assert_eq!(
            answers(nameless, &["+search", "+domain=sub.weave.local", "one"]),
            ["10.2.1.1"]
        );

        // Docker's way of saying that nothing is to be searched.
        attach(&weft, searching, &["--dns-search", ".", "10.2.1.2/24"]);
        assert!(read("c2", "resolv.conf").contains("\nsearch .\n"));
        let outcome = weft.run(&[
            "attach",
            "--add-host",
            "x:192.0.2.1",
            "10.2.1.3/24",
            &format!("pid:{}", process.id()),
        ]);
        assert_eq!(outcome.code, 0);
        assert!(
            outcome.stderr.contains("keeps its own files"),
            "{outcome:?}"
        );
        process.kill().expect("it sleeps");
        process.wait().expect("it was killed");
    });
}

/// What an administrator wrote stays, or comes back: at detach, and when the namespace ends.
#[test]
fn files_of_others_stay_or_are_put_back() {
    in_lab(|lab| {
        let weft = launched(lab, &[]);
        let c1 = lab.host("c1");
        make_own_files("c1");

        let outcome = weft.run(&["attach", "10.2.1.1/24", "netns:c1"]);
        assert_eq!(outcome.code, 0);
        for name in ["resolv.conf", "hosts"] {
            let note = format!("note: /etc/netns/c1/{name} is not ours and stays as it is\n");
            assert!(outcome.stderr.contains(&note), "{outcome:?}");
        }
        assert!(has_own_files("c1"));
        weft.ok(&["detach", "10.2.1.1/24", "netns:c1"]);
        assert!(has_own_files("c1"));

        let asked = ["--rewrite-hosts", "--dns-search", "weave.local"];
        let hostname = fs::read("/etc/hostname").ok();
        attach(
            &weft,
            &c1,
            &[&asked[..], &["10.2.1.1/24", "10.2.2.1/24"]].concat(),
        );
        assert_eq!(resolved(&c1, "c1"), "10.2.1.1");
        assert!(!has_own_files("c1"));
        // A crash in between changes nothing.
        weft.crash();
        launch_with(&weft, &[]);
        weft.ok(&["detach", "10.2.1.1/24", "netns:c1"]);
        assert!(!read("c1", "hosts").contains("10.2.1.1"));
        assert_eq!(resolved(&c1, "c1"), "10.2.2.1");
        weft.ok(&["detach", "10.2.2.1/24", "netns:c1"]);
        assert!(has_own_files("c1"));
        assert_eq!(fs::read("/etc/hostname").ok(), hostname);

        // One that has no name in DNS is found, too.
        let asked = ["--without-dns", "--add-host", "printer:192.0.2.80"];
        attach(&weft, &c1, &[&asked[..], &["10.2.1.1/24"]].concat());
        assert_eq!(resolved(&c1, "printer"), "192.0.2.80");
        c1.remove();
        within("the administrator's files", SOON, || has_own_files("c1"));
    });
}

/// Scenario 615 for namespaces, and what `reset` leaves.
#[test]
fn own_names_are_in_the_hosts_file_unless_they_are_not_wanted() {
    in_lab(|lab| {
        let weft = launched(lab, &[]);
        let (c1, c2) = (lab.host("c1"), lab.host("c2"));
        attach(&weft, &c1, &["10.2.1.1/24"]);
        assert!(read("c1", "hosts").ends_with("\n10.2.1.1 c1.weave.local c1\n"));
        attach(&weft, &c1, &["--no-rewrite-hosts", "10.2.1.1/24"]);
        assert!(!read("c1", "hosts").contains("10.2.1.1"));
        assert_eq!(resolved(&c1, "c1"), "10.2.1.1", "from the server");
        let without = ["--without-dns", "--no-rewrite-hosts", "10.2.1.2/24"];
        attach(&weft, &c2, &without);
        assert!(!file("c2", "").exists());
        let without = ["--without-dns", "--rewrite-hosts", "10.2.1.2/24"];
        attach(&weft, &c2, &without);
        assert_eq!(resolved(&c2, "c2"), "10.2.1.2");
        assert!(!file("c2", "resolv.conf").exists());

        let refused = weft.run(&["attach", "--add-host", "printer", "10.2.1.3/24", "netns:c2"]);
        assert_eq!(refused.code, 1);
        assert!(
            refused.stderr.contains("accepted is NAME:IP"),
            "{refused:?}"
        );
        assert!(!weft.ok(&["ps", "c2"]).contains("10.2.1.3"));
        weft.ok(&["reset", "--force"]);
        assert!(!file("c1", "").exists() && !file("c2", "").exists());
    });
}
