//! What weft says of Docker's containers and of Docker, there and gone.
//!
//! ```text
//!  a: docker run --net=weft ─► dockerd ─► weft ◄─ ps, detach, attach, status
//! ```

use std::time::Duration;

use nix::sys::signal::Signal;
use weft_netns_tests::{IMAGE, Outcome, Weft, in_docker_lab, within};

/// For what follows an event, on a busy machine.
const SOON: Duration = Duration::from_secs(20);
/// That Docker has begun to end: interface.md says two seconds; the machine may be busy.
const NOTICED: Duration = Duration::from_secs(4);

fn says(outcome: &Outcome, words: &[&str]) {
    for word in words {
        assert!(outcome.stderr.contains(word), "{word:?}: {outcome:?}");
    }
}

/// Whether `weft status` says of plugin and proxy that Docker is gone.
fn is_told_gone(weft: &Weft) -> bool {
    let status = weft.json(&["status"]);
    ["plugin", "proxy"]
        .iter()
        .all(|part| status[part]["trouble"].is_string())
}

#[test]
fn containers_of_the_plugin_are_known_with_docker_and_without() {
    in_docker_lab(|lab| {
        let (mut docker, weft) = lab.docker_and_weft(&["--live-restore"], &[]);
        let status = weft.ok(&["status"]);
        assert!(
            status.contains("Service: plugin\n") && status.contains("Network: weft\n"),
            "{status}"
        );
        let run = ["run", "-d", "--net=weft", "--name", "c1", IMAGE];
        let id = docker.ok(&[&run[..], &["sleep", "1000"]].concat());
        let first = weft.ok(&["ps"]);
        let of_endpoint = first.lines().any(|line| line.starts_with("endpoint:"));
        assert!(of_endpoint || first.contains(&id[..12]), "{first}");
        within("the container's id", SOON, || {
            weft.ok(&["ps"]).contains(&id[..12])
        });

        let disconnect = "`docker network disconnect weft c1`";
        says(&weft.run(&["detach", "c1"]), &[disconnect]);
        says(&weft.run(&["detach", "10.32.0.1/12", "c1"]), &[disconnect]);
        let other = weft.run(&["detach", "10.32.0.9/12", "c1"]);
        says(&other, &["10.32.0.9/12 was not attached to c1"]);

        let taken = weft.run(&["expose", "10.32.0.1/12"]);
        assert_eq!(taken.code, 1);
        says(&taken, &[&format!("already owned by {}\n", &id[..12])]);

        // As the README has it.
        let swarms = docker.docker(&["network", "create", "--driver", "weft", "blue"]);
        says(&swarms, &["This node is not a swarm manager"]);

        docker.stop(Signal::SIGKILL);
        within("the end of Docker, told", NOTICED, || is_told_gone(&weft));
        weft.crash();
        weft.ok(&["launch"]);
        let known = weft.ok(&["ps"]);
        assert!(known.contains(&id[..12]), "{known}");
        let refused = weft.run(&["attach", "c1"]);
        assert_eq!(refused.code, 1);
        says(&refused, &["does not answer (", "start Docker", "pid:N"]);
    });
}

/// Docker stops its containers before it ends, and answers nobody meanwhile.
#[test]
fn a_docker_that_is_told_to_end_is_told_as_gone_before_it_has_ended() {
    in_docker_lab(|lab| {
        let (mut docker, weft) = lab.docker_and_weft(&[], &[]);
        docker.ok(&["run", "-d", IMAGE, "sleep", "1000"]);
        within("Docker, seen", SOON, || !is_told_gone(&weft));
        std::thread::scope(|scope| {
            let ending = scope.spawn(|| docker.stop(Signal::SIGTERM));
            within("the end, told", NOTICED, || is_told_gone(&weft));
            assert!(!ending.is_finished(), "it is told before the end");
            ending.join().expect("it ends");
        });
    });
}
