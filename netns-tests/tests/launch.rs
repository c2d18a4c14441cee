//! The verbs, as a user types them.
//!
//! ```text
//!  one 10.2.1.1 ─┐                                                    ┌─ two 10.2.1.2
//!                ├─ weft a ─ eth0 192.0.2.1 ══ 192.0.2.2 eth0 ─ weft b ┤
//!  near 10.2.1.3 ┘
//! ```

use std::fs::File;
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::net::UnixDatagram;
use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use weft_netns_tests::{Host, Lab, Overlay, Ping, Weft, alone_in_lab, in_lab, pause, within};

const NEAR: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 2, 1, 3));
/// weft promises to be ready, and to be gone, in this time.
const PROMPT: Duration = Duration::from_secs(2);
/// To be connected, on a busy machine.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);

fn two_hosts(lab: &Lab) -> [Weft; 2] {
    lab.two_hosts().map(|host| lab.weft(&host))
}

/// A further container on the first host.
fn near_container(lab: &Lab, overlay: &Overlay) -> Host {
    let near = lab.host("near");
    overlay.weft[0].ok(&["attach", "10.2.1.3/24", &near.as_container()]);
    near
}

fn is_mac(text: &str) -> bool {
    let parts: Vec<&str> = text.split(':').collect();
    parts.len() == 6
        && parts
            .iter()
            .all(|part| part.len() == 2 && u8::from_str_radix(part, 16).is_ok())
}

#[test]
fn launch_is_ready_in_two_seconds_and_prints_the_peer_name() {
    alone_in_lab(|lab| {
        let [a, _] = two_hosts(lab);

        let outcome = a.run(&["launch", "--password", "secret"]);

        assert_eq!(outcome.code, 0, "{outcome:?}");
        assert!(is_mac(outcome.stdout.trim()), "{outcome:?}");
        assert!(outcome.took <= PROMPT, "{outcome:?}");
        assert_eq!(a.report()["name"], outcome.stdout.trim());
        assert!(a.pid().is_some(), "a daemon runs");
        assert!(a.host().has_device("weft"), "the bridge is there");
        assert!(
            a.run_dir().join("weft.sock").exists(),
            "the API's socket is there"
        );
    });
}

#[test]
fn the_first_minutes_of_a_user() {
    in_lab(|lab| {
        let [a, b] = two_hosts(lab);
        let [one, two] = [lab.host("one"), lab.host("two")];
        a.ok(&["launch", "--password", "secret"]);
        b.ok(&["launch", "--password", "secret", "192.0.2.1"]);

        assert_eq!(
            a.ok(&["attach", "10.2.1.1/24", &one.as_container()]),
            "10.2.1.1\n"
        );
        assert_eq!(
            b.ok(&["attach", "10.2.1.2/24", &two.as_container()]),
            "10.2.1.2\n"
        );

        within("the containers to reach each other", CONNECT_LIMIT, || {
            one.reaches([10, 2, 1, 2].into())
        });
        assert_eq!(one.device_file("ethwe", "mtu"), "1376");
        b.wait_for_path(CONNECT_LIMIT);
        let status = b.ok(&["status"]);
        for line in [
            "Service: router",
            "Targets: 1",
            "Connections: 1 (1 established)",
            "Peers: 2 ",
        ] {
            assert!(status.contains(line), "`{line}` in {status}");
        }
        let line = b.ok(&["status", "connections"]);
        let name = a.report()["name"].as_str().unwrap().to_owned();
        assert!(line.starts_with("-> 192.0.2.1:6783 "), "{line}");
        for word in [
            "established",
            "encrypted",
            "direct",
            "rtt=",
            "mtu=1424",
            &format!("{name}("),
        ] {
            assert!(line.contains(word), "`{word}` in {line}");
        }
        assert_eq!(b.ok(&["status", "targets"]).trim(), "192.0.2.1");
        let ps = a.ok(&["ps"]);
        let mac = one.device_file("ethwe", "address");
        let own = ps
            .lines()
            .find(|line| line.contains(&mac))
            .unwrap_or_else(|| panic!("{mac} in {ps}"));
        assert!(own.contains("one") && own.ends_with("10.2.1.1/24"), "{own}");

        assert_eq!(
            a.ok(&["detach", "10.2.1.1/24", &one.as_container()]),
            "10.2.1.1\n"
        );
        assert!(!one.has_device("ethwe"), "ethwe goes with the last address");
        assert!(
            !a.ok(&["ps"]).contains(&mac),
            "a detached container is not listed"
        );
        b.ok(&["stop"]);
        assert_eq!(b.run(&["status"]).code, 3, "no daemon runs");
        assert!(b.host().has_device("weft"), "the bridge stays after stop");
        a.ok(&["reset"]);
        for device in ["weft", "weft-tap0"] {
            assert!(!a.host().has_device(device), "{device} goes with reset");
        }
    });
}

#[test]
fn attaching_twice_changes_nothing_and_another_address_is_added() {
    in_lab(|lab| {
        let [a, _] = two_hosts(lab);
        let one = lab.host("one");
        a.ok(&["launch", "--password", "secret"]);
        a.ok(&["attach", "10.2.1.1/24", &one.as_container()]);
        let mac = one.device_file("ethwe", "address");

        assert_eq!(
            a.ok(&["attach", "10.2.1.1/24", &one.as_container()]),
            "10.2.1.1\n"
        );
        assert_eq!(
            a.ok(&["attach", "10.2.2.1/24", "10.2.3.1/24", &one.as_container()]),
            "10.2.2.1 10.2.3.1\n"
        );

        assert_eq!(one.device_file("ethwe", "address"), mac);
        let addresses = one.run(&["ip", "-4", "-o", "address", "show", "dev", "ethwe"]);
        for address in ["10.2.1.1/24", "10.2.2.1/24", "10.2.3.1/24"] {
            assert_eq!(
                addresses.matches(address).count(),
                1,
                "{address} in {addresses}"
            );
        }
        a.ok(&["detach", "10.2.1.1/24", &one.as_container()]);
        assert!(
            one.has_device("ethwe"),
            "ethwe stays with the last addresses"
        );
    });
}

#[test]
fn containers_of_one_host_talk_on_after_stop_and_a_later_launch_takes_them_up() {
    in_lab(|lab| {
        let overlay = Overlay::on_a_link(lab, &[]);
        let near = near_container(lab, &overlay);
        let [a, one] = [&overlay.weft[0], &overlay.weft[0]];
        let before = a.ok(&["ps"]);

        one.ok(&["stop"]);
        assert!(
            overlay.containers[0].reaches(NEAR),
            "containers of one host talk without weft"
        );
        assert!(
            !overlay.containers[0].reaches(overlay.addresses[1]),
            "and no others"
        );
        overlay.launch(0, &[]);

        overlay.wait_until_reachable(CONNECT_LIMIT);
        assert_eq!(a.ok(&["ps"]), before);
        assert!(near.reaches(overlay.addresses[1]));
    });
}

#[test]
fn a_crash_stops_nothing_on_the_host_and_a_launch_mends_the_rest_in_two_seconds() {
    alone_in_lab(|lab| {
        let overlay = Overlay::on_a_link(lab, &[]);
        let _near = near_container(lab, &overlay);
        let local = Ping::start(&overlay.containers[0], NEAR, Duration::from_millis(20));
        let before = overlay.weft[0].ok(&["ps"]);

        overlay.weft[0].crash();
        pause(Duration::from_millis(500));
        overlay.launch(0, &[]);

        overlay.wait_until_reachable(PROMPT);
        assert_eq!(overlay.weft[0].ok(&["ps"]), before);
        let report = local.finish();
        assert_eq!(report.longest_gap, 0, "{report:?}");
        assert!(report.received > 20, "{report:?}");
    });
}

#[test]
fn terminate_ends_the_daemon_in_two_seconds() {
    alone_in_lab(|lab| {
        let overlay = Overlay::on_a_link(lab, &[]);

        let took = overlay.weft[1].signal_and_wait(Signal::SIGTERM);

        assert!(took <= PROMPT, "{took:?}");
        assert!(
            !overlay.weft[1].run_dir().join("weft.sock").exists(),
            "the socket is gone"
        );
        within("the other side to notice", CONNECT_LIMIT, || {
            !overlay.weft[0].has_path()
        });
    });
}

#[test]
fn the_flag_beats_the_environment_and_both_name_the_folders() {
    in_lab(|lab| {
        let [a, _] = two_hosts(lab);
        let elsewhere = lab.folder().join("elsewhere");
        let folder = elsewhere.to_string_lossy().into_owned();

        a.ok(&["--run-dir", &folder, "launch", "--password", "secret"]);

        assert!(elsewhere.join("weft.sock").exists());
        assert!(!a.run_dir().join("weft.sock").exists());
        assert_eq!(a.run(&["status"]).code, 3);
        a.ok(&["status", "--run-dir", &folder]);
        a.ok(&["stop", "--run-dir", &folder]);
    });
}

#[test]
fn a_second_daemon_is_refused() {
    in_lab(|lab| {
        let [a, _] = two_hosts(lab);
        a.ok(&["launch", "--password", "secret"]);
        let pid = a.pid();

        let second = a.run(&["launch", "--password", "secret"]);

        assert_eq!(second.code, 1, "{second:?}");
        assert!(second.stderr.contains("already running"), "{second:?}");
        assert_eq!(a.pid(), pid, "the first one runs on");
    });
}

#[test]
fn a_second_daemon_with_folders_and_a_port_of_its_own_does_not_share_the_first_ones_devices() {
    in_lab(|lab| {
        let [a, _] = two_hosts(lab);
        let one = lab.host("one");
        a.ok(&["launch", "--password", "secret"]);
        a.ok(&["attach", "10.2.1.1/24", &one.as_container()]);
        let folder = lab.folder().join("elsewhere");
        let folder = folder.to_string_lossy();
        let elsewhere = ["--run-dir", &folder, "--data-dir", &folder];
        let before = a.ok(&["ps"]);

        for words in [
            &["launch", "--password", "secret"][..],
            &["launch", "--password", "secret", "--port", "7000"],
            &["reset", "--force"],
        ] {
            let second = a.run(&[words, &elsewhere].concat());

            assert_eq!(second.code, 1, "{words:?}: {second:?}");
            assert!(second.stderr.contains("weft-tap0 is in use"), "{second:?}");
        }

        assert_eq!(a.ok(&["ps"]), before, "bridge and container are as before");
    });
}

/// The kernel goes on taking connections for it.
#[test]
fn a_daemon_stopped_by_a_signal_is_named_and_not_waited_for() {
    in_lab(|lab| {
        let [a, _] = two_hosts(lab);
        a.ok(&["launch", "--password", "secret"]);
        let pid = a.pid().unwrap();
        let signal = |signal| kill(Pid::from_raw(pid), signal).unwrap();
        signal(Signal::SIGSTOP);

        for words in [&["status"][..], &["ps"], &["stop"]] {
            let outcome = a.run(words);

            assert_eq!(outcome.code, 1, "{words:?}: {outcome:?}");
            let mend = format!("`kill -CONT {pid}`");
            assert!(outcome.stderr.contains(&mend), "{words:?}: {outcome:?}");
            assert!(outcome.took < CONNECT_LIMIT, "{words:?}: {outcome:?}");
        }
        signal(Signal::SIGCONT);
        a.ok(&["stop"]);
    });
}

#[test]
fn connect_and_forget_change_the_targets() {
    in_lab(|lab| {
        let [a, b] = two_hosts(lab);
        a.ok(&["launch", "--password", "secret"]);
        b.ok(&["launch", "--password", "secret"]);
        assert_eq!(b.ok(&["status", "targets"]), "");

        b.ok(&["connect", "192.0.2.1"]);
        b.wait_for_path(CONNECT_LIMIT);
        assert_eq!(b.ok(&["status", "targets"]), "192.0.2.1\n");

        b.ok(&["forget", "192.0.2.1"]);
        assert_eq!(b.ok(&["status", "targets"]), "");
        assert!(b.has_path(), "forgetting a target leaves its link");

        b.ok(&["connect", "--replace", "192.0.2.1", "192.0.2.77"]);
        assert_eq!(b.ok(&["status", "targets"]), "192.0.2.1\n192.0.2.77\n");
        let refused = b.run(&["connect", "--replace", "192.0.2.78", "not a host"]);
        assert_eq!(refused.code, 1, "{refused:?}");
        assert!(
            refused.stderr.contains("nothing was changed"),
            "{refused:?}"
        );
        assert_eq!(
            b.ok(&["status", "targets"]),
            "192.0.2.1\n192.0.2.77\n",
            "one that is none changes nothing"
        );
        b.ok(&["connect", "--replace"]);
        assert_eq!(b.ok(&["status", "targets"]), "");
    });
}

#[test]
fn targets_added_while_running_are_dialled_again_after_a_restart_with_resume() {
    in_lab(|lab| {
        let [a, b] = two_hosts(lab);
        a.ok(&["launch", "--password", "secret"]);
        b.ok(&["launch", "--password", "secret"]);
        b.ok(&["connect", "192.0.2.1"]);
        b.wait_for_path(CONNECT_LIMIT);

        b.ok(&["stop"]);
        b.ok(&["launch", "--password", "secret", "--resume"]);

        b.wait_for_path(CONNECT_LIMIT);
    });
}

/// Waits for a word to the service manager; returns the whole message.
fn hear(manager: &UnixDatagram, word: &str) -> String {
    let mut buffer = [0; 4096];
    loop {
        let len = manager
            .recv(&mut buffer)
            .unwrap_or_else(|error| panic!("{word}: {error}"));
        let said = String::from_utf8_lossy(&buffer[..len]).into_owned();
        if said.lines().any(|line| line == word) {
            return said;
        }
    }
}

#[test]
fn a_service_manager_hears_of_start_reload_and_end() {
    in_lab(|lab| {
        let host = lab.host("a");
        let weft = lab.weft(&host);
        let socket = lab.folder().join("notify");
        let manager = UnixDatagram::bind(&socket).expect("the lab's folder is writable");
        manager
            .set_read_timeout(Some(CONNECT_LIMIT))
            .expect("a time-out may be set");
        let mut command = weft.command(&["launch", "--foreground"]);
        command.env("NOTIFY_SOCKET", &socket);
        let mut daemon = command.spawn().expect("weft can be started");

        hear(&manager, "READY=1");
        assert_eq!(weft.run(&["status"]).code, 0, "ready means that it serves");
        let pid = Pid::from_raw(daemon.id().try_into().expect("a pid is positive"));
        kill(pid, Signal::SIGHUP).expect("it runs");
        let said = hear(&manager, "RELOADING=1");
        assert!(said.contains("MONOTONIC_USEC="), "{said}");
        hear(&manager, "READY=1");
        kill(pid, Signal::SIGTERM).expect("it runs");
        hear(&manager, "STOPPING=1");
        assert!(daemon.wait().expect("it is our child").success());
    });
}

#[test]
fn a_log_that_takes_nothing_more_is_no_reason_to_end() {
    in_lab(|lab| {
        let host = lab.host("a");
        let weft = lab.weft(&host);
        let full = File::create("/dev/full").expect("it takes writers");
        let mut command = weft.command(&["launch", "--foreground"]);
        command.stderr(full).stdout(Stdio::null());
        let mut daemon = command.spawn().expect("weft can be started");

        within("it serves", CONNECT_LIMIT, || {
            weft.run(&["status"]).code == 0
        });
        let pid = Pid::from_raw(daemon.id().try_into().expect("a pid is positive"));
        // Both are logged.
        kill(pid, Signal::SIGHUP).expect("it runs");
        weft.ok(&["connect", "192.0.2.9"]);
        assert_eq!(weft.run(&["status"]).code, 0, "it goes on");
        kill(pid, Signal::SIGTERM).expect("it runs");
        assert!(daemon.wait().expect("it is our child").success());
    });
}
