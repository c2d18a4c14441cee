//! Names after a launch with other settings, of a container with two names, and what is refused in words.
//!
//! ```text
//!  c1, c2 ─ ethwe ─ bridge `weft` of a, 169.254.53.1 or another address ─ DNS
//!   └ /etc/netns/NAME/{resolv.conf,hosts}
//! ```

use std::fs;
use std::path::Path;

use weft_netns_tests::{Host, Lab, Outcome, Weft, attached, in_lab, launch_with, resolved};

fn host(lab: &Lab) -> Weft {
    lab.weft(&lab.host("a"))
}

fn read(container: &str, name: &str) -> String {
    fs::read_to_string(Path::new("/etc/netns").join(container).join(name)).unwrap_or_default()
}

fn server_of(container: &Host) -> String {
    let routes = container.run(&["ip", "route"]);
    let mut words = routes.split_whitespace();
    let server = words.find(|word| word.starts_with("169.254."));
    server.unwrap_or_default().to_owned()
}

fn refused(outcome: &Outcome, code: i32, line: &str) {
    assert_eq!(outcome.code, code, "{outcome:?}");
    assert!(outcome.stderr.contains(line), "{outcome:?}");
    assert_eq!(outcome.stderr.trim_end().lines().count(), 1, "{outcome:?}");
}

#[test]
fn a_launch_with_other_settings_changes_what_attached_containers_have() {
    in_lab(|lab| {
        let weft = host(lab);
        launch_with(&weft, &[]);
        let c1 = attached(lab, &weft, "c1", &["10.2.1.1/24"]);
        let c2 = attached(lab, &weft, "c2", &["--without-dns", "10.2.1.2/24"]);
        let theirs = Path::new("/etc/netns/an-administrators");
        fs::create_dir(theirs).expect("the lab has its own /etc/netns");
        assert_eq!(server_of(&c1), "169.254.53.1");
        weft.ok(&["stop"]);

        let other = [
            "--dns-address",
            "169.254.7.7",
            "--dns-domain",
            "example.internal",
        ];
        launch_with(&weft, &other);
        assert!(
            read("c1", "resolv.conf").contains("nameserver 169.254.7.7\nsearch example.internal\n"),
            "{}",
            read("c1", "resolv.conf")
        );
        assert!(read("c1", "hosts").ends_with("\n10.2.1.1 c1.example.internal c1\n"));
        assert_eq!(server_of(&c1), "169.254.7.7");
        assert_eq!(server_of(&c2), "");
        assert!(!Path::new("/etc/netns/c2").exists());
        let note = "names not answered here: 1 of this host, given under another --dns-domain";
        assert!(weft.ok(&["status"]).contains(note));
        weft.ok(&["attach", "10.2.1.1/24", &c1.as_container()]);
        let asked = ["dig", "+short", "@169.254.7.7", "c1.example.internal"];
        assert_eq!(c1.run(&asked), "10.2.1.1\n");
        weft.ok(&["stop"]);

        launch_with(&weft, &["--no-dns"]);
        assert!(!Path::new("/etc/netns/c1").exists());
        assert_eq!(server_of(&c1), "169.254.7.7", "it is to have DNS again");
        weft.ok(&["stop"]);

        launch_with(&weft, &[]);
        assert!(
            read("c1", "resolv.conf").contains("nameserver 169.254.53.1\nsearch weave.local\n")
        );
        assert!(read("c1", "hosts").ends_with("\n10.2.1.1 c1.weave.local c1\n"));
        assert_eq!(server_of(&c1), "169.254.53.1");
        assert_eq!(server_of(&c2), "");
        assert!(!Path::new("/etc/netns/c2").exists());
        assert!(theirs.exists());
    });
}

#[test]
fn what_waits_for_dns_takes_what_it_took_and_goes_with_its_container() {
    in_lab(|lab| {
        let weft = host(lab);
        let theirs = Path::new("/etc/netns/c1/hosts");
        fs::create_dir_all("/etc/netns/c1").expect("the lab has its own /etc/netns");
        fs::write(theirs, "theirs").expect("it is ours to write");
        launch_with(&weft, &[]);
        let added = [
            "--add-host",
            "printer:192.0.2.80",
            "10.2.1.1/24",
            "10.2.1.2/24",
        ];
        let c1 = attached(lab, &weft, "c1", &added);
        let c3 = attached(lab, &weft, "c3", &["10.2.1.3/24"]);
        weft.ok(&["stop"]);
        let parked = weft.data_dir().join("netns");

        launch_with(&weft, &["--no-dns"]);
        assert_eq!(read("c1", "hosts"), "theirs");
        assert_eq!(read("c1", "resolv.conf"), "");
        assert!(parked.join("c1/hosts").exists() && parked.join("c3/hosts").exists());
        weft.ok(&["detach", "10.2.1.2/24", &c1.as_container()]);
        weft.ok(&["detach", "10.2.1.3/24", &c3.as_container()]);
        assert!(!parked.join("c3").exists());
        weft.ok(&["attach", "10.2.1.3/24", &c3.as_container()]);
        weft.ok(&["stop"]);

        launch_with(&weft, &[]);
        let hosts = read("c1", "hosts");
        assert!(hosts.contains("\n10.2.1.1 c1.weave.local c1\n"), "{hosts}");
        assert!(!hosts.contains("10.2.1.2"), "{hosts}");
        assert!(hosts.ends_with("\n192.0.2.80 printer\n"), "{hosts}");
        assert_eq!(resolved(&c1, "c1"), "10.2.1.1");
        assert!(
            !Path::new("/etc/netns/c3").exists(),
            "it was attached without"
        );
        assert_eq!(server_of(&c3), "");
        assert!(!parked.exists());
        weft.ok(&["detach", "10.2.1.1/24", &c1.as_container()]);
        assert_eq!(fs::read_to_string(theirs).expect("it is back"), "theirs");
    });
}

#[test]
fn one_namespace_is_one_container_whatever_it_is_called() {
    in_lab(|lab| {
        let weft = host(lab);
        launch_with(&weft, &[]);
        let c1 = attached(lab, &weft, "c1", &["10.2.1.1/24"]);
        let path = format!("netns:/run/netns/{}", c1.name());
        weft.ok(&["attach", "10.2.1.2/24", &path]);

        assert_eq!(weft.ok(&["dns-lookup", "c1"]), "10.2.1.1\n10.2.1.2\n");
        let listed = weft.ok(&["ps"]);
        let lines = listed.lines().filter(|line| line.contains("10.2.1."));
        assert_eq!(lines.count(), 1, "{listed}");
        weft.ok(&["detach", "10.2.1.1/24", "10.2.1.2/24", &path]);
        assert_eq!(weft.ok(&["dns-lookup", "c1"]), "");
        assert!(!weft.ok(&["ps"]).contains("c1 "));
    });
}

#[test]
fn what_cannot_be_given_or_taken_is_said() {
    in_lab(|lab| {
        let weft = host(lab);
        launch_with(&weft, &[]);
        let c1 = attached(lab, &weft, "c1", &["10.2.1.1/24"]).as_container();
        let c9 = lab.host("c9").as_container();

        refused(
            &weft.run(&["dns-remove", "-h", "c1"]),
            1,
            "is of c1, not of weave:extern",
        );
        assert_eq!(weft.ok(&["dns-lookup", "c1"]), "10.2.1.1\n");
        weft.ok(&["dns-remove", "-h", "nobody"]);
        refused(
            &weft.run(&["dns-add", "10.2.1.9", &c9, "-h", "x"]),
            1,
            "c9 is not attached",
        );
        for odd in ["0.0.0.0", "224.0.0.1", "255.255.255.255", "ff02::1", "::"] {
            let outcome = weft.run(&["dns-add", odd, "-h", "x"]);
            refused(&outcome, 1, "is no address of a single host");
        }
        let never = "cannot be given: localhost, and what is below it, always means whoever asks";
        for own in ["localhost", "x.localhost", "LocalHost.weave.local."] {
            for words in [
                ["dns-add", "10.2.1.9", "-h", own],
                ["expose", "10.2.1.9/24", "-h", own],
            ] {
                refused(&weft.run(&words), 1, never);
            }
            refused(
                &weft.run(&["attach", "--name", own, "10.2.1.8/24", &c9]),
                1,
                never,
            );
        }
        weft.ok(&["dns-remove", "-h", "localhost"]);
        assert!(!weft.ok(&["ps"]).contains("c9 "), "refused before anything");
        let outcome = weft.run(&["dns-add", "192.0.2.300", "-h", "x"]);
        refused(&outcome, 2, "`192.0.2.300` is no address");

        weft.ok(&["attach", "--name", "shop", "10.2.1.1/24", &c1]);
        let line = "10.2.1.1 c1.weave.local c1 shop.weave.local shop\n";
        assert!(
            read("c1", "hosts").ends_with(line),
            "{}",
            read("c1", "hosts")
        );
        weft.ok(&["dns-remove", &c1, "-h", "c1"]);
        assert!(read("c1", "hosts").ends_with("\n10.2.1.1 shop.weave.local shop\n"));
        weft.ok(&["dns-remove", &c1, "-h", "c1"]);

        weft.ok(&["stop"]);
        let arguments = weft.run(&["dns-args"]);
        assert_eq!(arguments.code, 0);
        assert!(arguments.stderr.contains("no daemon runs"), "{arguments:?}");
    });
}

#[test]
fn a_container_without_room_for_its_name_is_told_so() {
    in_lab(|lab| {
        let weft = host(lab);
        launch_with(&weft, &[]);
        for third in 0..8 {
            let many: Vec<String> = (0..512_u16)
                .map(|n| format!("10.9.{}.{}", third * 2 + n / 256, n % 256))
                .collect();
            let words: Vec<&str> = many.iter().map(String::as_str).collect();
            weft.ok(&[
                &["dns-add"],
                words.as_slice(),
                &["-h", &format!("many{third}")],
            ]
            .concat());
        }
        let c1 = lab.host("c1").as_container();
        let outcome = weft.run(&["attach", "10.2.1.1/24", &c1]);
        assert_eq!(outcome.code, 0);
        let note =
            "note: c1 is not named c1.weave.local: this host has no room for more DNS entries";
        assert!(outcome.stderr.contains(note), "{outcome:?}");
    });
}

/// What waits for DNS goes with all else that a host leaves behind, whether its daemon runs or not.
#[test]
fn a_reset_removes_files_that_wait_for_dns() {
    in_lab(|lab| {
        let weft = host(lab);
        for is_running in [true, false] {
            launch_with(&weft, &[]);
            let name = format!("c{}", u8::from(is_running));
            attached(lab, &weft, &name, &["10.2.1.1/24"]);
            weft.ok(&["stop"]);
            launch_with(&weft, &["--no-dns"]);
            assert!(weft.data_dir().join("netns").join(&name).exists());
            if !is_running {
                weft.ok(&["stop"]);
            }
            // With what is in here Docker's containers start: it stays.
            let programs = weft.data_dir().join("wait/1");
            fs::create_dir_all(&programs).unwrap();
            weft.ok(&["reset", "--force"]);
            assert!(!weft.data_dir().join("netns").exists());
            assert!(!weft.data_dir().join("store.redb").exists());
            assert!(programs.exists());
            // And it is nothing that a host would have to hand over.
            weft.ok(&["reset"]);
        }
    });
}
