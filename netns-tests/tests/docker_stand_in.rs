//! What Docker hears where weft has ended: no removal waits, nothing new comes to be, and all is well when weft is back.

use std::time::Duration;

use nix::sys::signal::Signal;
use weft_netns_tests::{Dockerd, IMAGE, Outcome, in_docker_lab, now, within};

/// Docker waits 15 s for each answer that it does not get; a removal needs three.
const ANSWER_LIMIT: Duration = Duration::from_secs(8);
/// A stand-in that is not needed any more goes within a second, a container comes back within five.
const SOON: Duration = Duration::from_secs(10);
const OWN: [&str; 8] = [
    "network",
    "create",
    "-d",
    "weftmesh",
    "--ipam-driver",
    "weftmesh",
    "--subnet",
    "10.40.1.0/24",
];

/// Does it, and fails if Docker had to wait for somebody.
fn at_once(dockerd: &Dockerd, words: &[&str]) -> Outcome {
    let start = now();
    let done = dockerd.docker(words);
    let took = start.elapsed();
    assert!(took < ANSWER_LIMIT, "{words:?} took {took:?}");
    done
}

fn is_answered(dockerd: &Dockerd) -> bool {
    let path = "/run/docker/plugins/weftmesh.sock";
    dockerd
        .host()
        .output(&["test", "-S", path])
        .status
        .success()
}

#[test]
fn who_is_removed_while_weft_is_stopped_is_removed_at_once() {
    in_docker_lab(|lab| {
        let (dockerd, weft) = lab.docker_and_weft(&[], &[]);
        dockerd.ok(&[&OWN[..], &["own"]].concat());
        for (name, network) in [
            ("c1", "--net=weft"),
            ("c2", "--net=weft"),
            ("c3", "--net=own"),
        ] {
            assert_eq!(dockerd.client().stay(name, &[network]).code, 0);
        }
        let stopped = weft.run(&["stop"]);
        assert_eq!(stopped.code, 0, "{stopped:?}");
        for said in [
            "network own with container c3",
            "network weft with containers c1, c2",
        ] {
            assert!(stopped.stderr.contains(said), "{}", stopped.stderr);
        }

        assert_eq!(at_once(&dockerd, &["rm", "-f", "c1"]).code, 0);
        assert_eq!(at_once(&dockerd, &["rm", "-f", "c3"]).code, 0);
        assert_eq!(at_once(&dockerd, &["network", "rm", "own"]).code, 0);
        let refused = at_once(&dockerd, &["run", "--rm", "--net=weft", IMAGE, "true"]);
        assert_ne!(refused.code, 0);
        assert!(refused.stderr.contains("weft launch"), "{}", refused.stderr);

        weft.ok(&["launch"]);
        let id = dockerd.ok(&["inspect", "-f", "{{.Id}}", "c2"]);
        within("one container is left", SOON, || {
            let listed = weft.ok(&["ps"]);
            listed.contains(&id[..12]) && listed.lines().count() == 2
        });
        assert_eq!(dockerd.client().stay("c1", &["--net=weft"]).code, 0);

        // With the last network the stand-in goes.
        weft.ok(&["stop"]);
        assert!(is_answered(&dockerd));
        for words in [&["rm", "-f", "c1", "c2"][..], &["network", "rm", "weft"]] {
            assert_eq!(at_once(&dockerd, words).code, 0);
        }
        within("nobody stands in", SOON, || !is_answered(&dockerd));
    });
}

#[test]
fn a_crash_holds_docker_up_no_more_than_an_end() {
    in_docker_lab(|lab| {
        let (mut dockerd, weft) = lab.docker_and_weft(&[], &[]);
        for name in ["c1", "c2"] {
            let flags = ["--net=weft", "--restart=always"];
            assert_eq!(dockerd.client().stay(name, &flags).code, 0);
        }
        weft.crash();
        assert_eq!(at_once(&dockerd, &["rm", "-f", "c1"]).code, 0);

        // Nor one that starts meanwhile; what it could not start comes with weft.
        dockerd.stop(Signal::SIGTERM);
        dockerd.begin();
        let took = dockerd.wait_until_it_serves();
        assert!(took < ANSWER_LIMIT, "Docker waited: {took:?}");
        let is_up = || {
            dockerd
                .ok(&["inspect", "-f", "{{.State.Running}}", "c2"])
                .trim()
                == "true"
        };
        within("Docker has tried", SOON, || {
            let said = dockerd.ok(&["inspect", "-f", "{{.State.Error}}", "c2"]);
            said.contains("weft launch")
        });
        weft.ok(&["launch"]);
        within("the container is up", SOON, is_up);
        within("and on the network", SOON, || {
            weft.ok(&["ps"]).contains(" 10.32.")
        });

        // A stand-in that is killed is replaced; and a reset leaves one for as long as Docker has networks.
        let stand_in = || {
            let found = dockerd.host().output(&["pgrep", "-f", "weft .*stand-in"]);
            let found = String::from_utf8_lossy(&found.stdout).into_owned();
            let mine = weft.data_dir();
            found.lines().find_map(|pid| {
                let line = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).ok()?;
                line.contains(mine.to_str()?).then(|| pid.to_owned())
            })
        };
        let first = stand_in().expect("one waits");
        let killed = dockerd.host().output(&["kill", "-9", &first]);
        assert!(killed.status.success(), "{killed:?}");
        within("another one waits", SOON, || {
            stand_in().is_some_and(|pid| pid != first)
        });
        weft.crash();
        weft.ok(&["reset", "--force"]);
        assert_eq!(at_once(&dockerd, &["rm", "-f", "c2"]).code, 0);
        assert_eq!(at_once(&dockerd, &["network", "rm", "weft"]).code, 0);
        within("nobody stands in", SOON, || !is_answered(&dockerd));
        assert!(stand_in().is_none());
    });
}
