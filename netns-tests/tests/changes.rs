//! What somebody changes on a host that runs weft: the MTU at a relaunch, a deleted device, a full disk, a new identity.
//!
//! ```text
//!  one 10.2.1.1 ─ weft a 192.0.2.1 ══ 192.0.2.2 weft b ─ two 10.2.1.2
//! ```

use std::fs;
use std::process::Command;
use std::time::Duration;

use weft_netns_tests::{Lab, Overlay, Weft, in_lab, within};

/// What was changed is mended, or said, in this time on a busy machine.
const LIMIT: Duration = Duration::from_secs(10);

fn notes(weft: &Weft) -> Vec<String> {
    let report = weft.report();
    let notes = report["engine"]["notes"].as_array();
    let words = notes.into_iter().flatten().filter_map(|note| note.as_str());
    words.map(str::to_owned).collect()
}

fn says(weft: &Weft, words: &[&str]) -> bool {
    let says_all = |note: &String| words.iter().all(|word| note.contains(word));
    notes(weft).iter().any(says_all)
}

#[test]
fn containers_follow_the_mtu_of_a_relaunch_and_hosts_that_differ_say_so() {
    in_lab(|lab| {
        let overlay = Overlay::on_a_link(lab, &[]);
        let [a, b] = &overlay.weft;
        let one = &overlay.containers[0];

        a.ok(&["stop"]);
        overlay.launch(0, &["--mtu", "1200"]);

        assert_eq!(one.device_file("ethwe", "mtu"), "1200");
        let outer = a.host().other_end_of(one, "ethwe");
        for device in ["weft", "weft-tap0", &outer] {
            assert_eq!(a.host().device_file(device, "mtu"), "1200", "{device}");
        }
        for (weft, words) in [
            (a, ["is 1376 at", "1200 here", "more than 1200 bytes"]),
            (b, ["is 1200 at", "1376 here", "more than 1200 bytes"]),
        ] {
            within("a note of both MTUs", LIMIT, || says(weft, &words));
        }
        b.ok(&["stop"]);
        overlay.launch(1, &["--mtu", "1200", "192.0.2.1"]);
        overlay.wait_until_reachable(LIMIT);
        within("no word of MTUs", LIMIT, || {
            overlay.weft.iter().all(|weft| !says(weft, &["the MTU is"]))
        });
        let largest = ["ping", "-c1", "-W5", "-Mdo", "-s1172", "10.2.1.2"];
        assert!(one.output(&largest).status.success());
    });
}

fn a_deleted_tap_is_made_anew(lab: &Lab, io: &str) {
    let overlay = Overlay::on_a_link(lab, &["--io", io]);
    let host = overlay.weft[0].host();
    for _ in 0..2 {
        host.run(&["ip", "link", "delete", "weft-tap0"]);

        overlay.wait_until_reachable(LIMIT);
        within("no word of the device", LIMIT, || {
            !says(&overlay.weft[0], &["weft-tap0 was deleted"])
        });
    }
    assert_eq!(host.device_file("weft-tap0", "mtu"), "1376");
}

#[test]
fn a_deleted_tap_is_made_anew_on_epoll() {
    in_lab(|lab| a_deleted_tap_is_made_anew(lab, "epoll"));
}

#[test]
fn a_deleted_tap_is_made_anew_on_uring() {
    in_lab(|lab| a_deleted_tap_is_made_anew(lab, "uring"));
}

#[test]
fn an_interface_renamed_in_its_container_is_still_the_containers() {
    in_lab(|lab| {
        let overlay = Overlay::on_a_link(lab, &[]);
        let (a, one) = (&overlay.weft[0], &overlay.containers[0]);
        for words in [&["down"][..], &["name", "lan0"], &["up"]] {
            one.run(
                &[
                    &[
                        "ip",
                        "link",
                        "set",
                        "dev",
                        if words == ["up"] { "lan0" } else { "ethwe" },
                    ],
                    words,
                ]
                .concat(),
            );
        }

        let ps = a.ok(&["ps"]);
        assert!(ps.contains(" 10.2.1.1/24"), "{ps}");
        a.ok(&["attach", "10.2.1.7/24", &one.as_container()]);
        overlay.wait_until_reachable(LIMIT);
        let absent = a.run(&["detach", "10.2.1.99/24", &one.as_container()]);
        assert_eq!(
            (absent.code, &*absent.stdout),
            (0, "10.2.1.99\n"),
            "as Weave"
        );
        let said = "10.2.1.99/24 was not attached to netns:one";
        assert!(absent.stderr.contains(said), "{absent:?}");
        a.ok(&["detach", "10.2.1.1/24", &one.as_container()]);
        a.ok(&["detach", "10.2.1.7/24", &one.as_container()]);
        assert!(!one.has_device("lan0"), "it goes with the last address");
    });
}

#[test]
fn a_full_disk_is_said_in_status_until_there_is_room_again() {
    in_lab(|lab| {
        let a = lab.weft(&lab.host("a"));
        fs::create_dir_all(a.data_dir()).unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=16m,mode=700", "tmpfs"])
            .arg(a.data_dir())
            .status();
        assert!(mounted.unwrap().success());
        a.ok(&["launch", "--password", "secret"]);
        let filler = a.data_dir().join("filler");
        let filled = a.host().output(&[
            "dd",
            "if=/dev/zero",
            &format!("of={}", filler.display()),
            "bs=64k",
        ]);
        assert!(!filled.status.success(), "dd ends with the disk full");

        // What fits into space that the store has already is written yet.
        let mut failed = false;
        for number in 1..=200 {
            let names: Vec<String> = (0..200)
                .map(|n| format!("a-long-name-of-a-host-{number}-{n}.example.org"))
                .collect();
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            failed = a
                .run(&[&["connect", "--replace"][..], &names].concat())
                .code
                != 0;
            if failed {
                break;
            }
        }
        assert!(failed, "a store that cannot grow refuses at last");
        assert!(says(&a, &["No space left on device"]), "{:?}", notes(&a));
        assert!(a.log().contains("No space left on device"), "{}", a.log());

        fs::remove_file(filler).unwrap();
        a.ok(&["connect", "--replace", "192.0.2.9"]);
        assert!(!says(&a, &["No space left"]), "{:?}", notes(&a));
        a.ok(&["stop"]);
        a.ok(&["launch", "--password", "secret"]);
        assert_eq!(a.ok(&["status", "targets"]), "192.0.2.9\n");
    });
}

#[test]
fn a_host_that_was_reset_has_its_nickname_back_at_once() {
    in_lab(|lab| {
        let [a, b] = lab.two_hosts().map(|host| lab.weft(&host));
        let twin = [
            "launch",
            "--password",
            "secret",
            "--nickname",
            "twin",
            "192.0.2.1",
        ];
        a.ok(&["launch", "--password", "secret", "--nickname", "first"]);
        b.ok(&twin);
        b.wait_for_path(LIMIT);

        b.ok(&["reset"]);
        let name = b.ok(&twin);
        b.wait_for_path(LIMIT);

        let ping = a.ok(&["ping", "twin", "--count", "1"]);
        assert!(ping.starts_with(name.trim()), "{ping}");
        assert!(!says(&a, &["share"]), "{:?}", notes(&a));
        let ours = a.run(&["ping", "first"]);
        assert_eq!(ours.code, 1, "{ours:?}");
        assert!(ours.stderr.contains("this host itself"), "{ours:?}");
    });
}

#[test]
fn a_wrong_password_is_a_note_that_names_the_other_host() {
    in_lab(|lab| {
        let [a, b] = lab.two_hosts().map(|host| lab.weft(&host));
        a.ok(&["launch", "--password", "secret"]);
        b.ok(&["launch", "--password", "other", "192.0.2.1"]);

        for (weft, other) in [(&a, "from 192.0.2.2: "), (&b, "to 192.0.2.1:6783: ")] {
            within("a note of the password", LIMIT, || {
                says(weft, &[other, "wrong password", "the same --password"])
            });
        }
    });
}
