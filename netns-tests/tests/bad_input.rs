//! Wrong words are refused in one line that names them, and change nothing.
//!
//! ```text
//!  weft a (running) ─ container one          weft b (not running)
//! ```

use weft_netns_tests::{Outcome, in_lab};

/// A command line and the word in it that the refusal must name. `ONE` stands for a container.
type Bad = (&'static [&'static str], &'static str);

const ONE: &str = "netns:one";

/// Arguments that parse and make no sense (exit code 1), or do not parse (2): which of both is no promise.
const WHILE_RUNNING: [Bad; 14] = [
    (&["attach", "10.2.1.1/31", ONE], "10.2.1.1/31"),
    (&["attach", "10.2.1.1/40", ONE], "10.2.1.1/40"),
    (&["attach", "10.2.1/24", ONE], "10.2.1/24"),
    (&["attach", "10.2.1.0/24", ONE], "10.2.1.0/24"),
    (&["attach", "10.2.1.255/24", ONE], "10.2.1.255/24"),
    (&["attach", "127.0.0.1/8", ONE], "127.0.0.1/8"),
    (&["attach", "224.0.0.1/24", ONE], "224.0.0.1/24"),
    (&["attach", "10.2.1.1/24", "netns:absent"], "absent"),
    (
        &["attach", "10.2.1.1/24", "netns:/nonexistent/ns"],
        "/nonexistent/ns",
    ),
    (&["attach", "10.2.1.1/24", "pid:4194304"], "4194304"),
    (&["attach", "10.2.1.1/24", "pid:self"], "self"),
    (&["connect", "192.0.2.1:99999"], "99999"),
    (&["connect", "not a host"], "not a host"),
    (&["status", "nonsense"], "nonsense"),
];

/// What no daemon is started for.
const AT_LAUNCH: [Bad; 7] = [
    (&["launch", "--mtu", "12"], "12"),
    (&["launch", "--mtu", "banana"], "banana"),
    (&["launch", "--port", "65536"], "65536"),
    (
        &["launch", "--password-file", "/nonexistent/file"],
        "/nonexistent/file",
    ),
    (
        &["launch", "--password", "secret", "192.0.2.1:99999"],
        "99999",
    ),
    (
        &["launch", "--password", "secret", "--name", "not-a-name"],
        "not-a-name",
    ),
    (
        &["launch", "--password", "secret", "--log-level", "shout"],
        "shout",
    ),
];

/// What does not parse at all.
const USAGE: [Bad; 5] = [
    (&["frobnicate"], "frobnicate"),
    (&["launch", "--frobnicate"], "--frobnicate"),
    (&["launch", "--io", "carrier-pigeon"], "carrier-pigeon"),
    (&["launch", "--cipher", "rot13"], "rot13"),
    (&["attach"], "CONTAINER"),
];

/// What needs a daemon.
const NEEDS_DAEMON: [&[&str]; 6] = [
    &["status"],
    &["ps"],
    &["report"],
    &["attach", "10.2.1.1/24", ONE],
    &["detach", "10.2.1.1/24", ONE],
    &["connect", "192.0.2.1"],
];

fn assert_refused(bad: Bad, codes: &[i32], outcome: &Outcome) {
    let (words, culprit) = bad;
    assert!(codes.contains(&outcome.code), "{words:?}: {outcome:?}");
    assert!(
        outcome.stderr.contains(culprit),
        "{words:?} must name {culprit}: {outcome:?}"
    );
    assert_eq!(outcome.stdout, "", "{words:?}: {outcome:?}");
    // Usage may take more than one line.
    let lines = outcome
        .stderr
        .lines()
        .filter(|line| !line.trim().is_empty())
        .count();
    assert!(outcome.code == 2 || lines == 1, "{words:?}: {outcome:?}");
}

#[test]
fn bad_arguments_to_a_running_daemon_change_nothing() {
    in_lab(|lab| {
        let (a, one) = (lab.weft(&lab.host("a")), lab.host("one"));
        a.ok(&["launch", "--password", "secret"]);
        let before = (a.ok(&["ps"]), a.ok(&["status", "targets"]), a.pid());

        for bad in WHILE_RUNNING {
            assert_refused(bad, &[1, 2], &a.run(bad.0));
        }

        assert_eq!(
            (a.ok(&["ps"]), a.ok(&["status", "targets"]), a.pid()),
            before
        );
        assert!(!one.has_device("ethwe"), "nothing was attached");
    });
}

#[test]
fn bad_arguments_start_no_daemon() {
    in_lab(|lab| {
        let b = lab.weft(&lab.host("b"));
        for bad in AT_LAUNCH {
            assert_refused(bad, &[1, 2], &b.run(bad.0));
            assert_eq!(b.pid(), None, "{:?}", bad.0);
        }
        for bad in USAGE {
            assert_refused(bad, &[2], &b.run(bad.0));
            assert_eq!(b.pid(), None, "{:?}", bad.0);
        }
        for device in ["weft", "weft-tap0"] {
            assert!(!b.host().has_device(device), "{device}");
        }
    });
}

#[test]
fn what_needs_a_daemon_says_how_to_start_one() {
    in_lab(|lab| {
        let (b, _one) = (lab.weft(&lab.host("b")), lab.host("one"));
        for words in NEEDS_DAEMON {
            assert_refused((words, "weft launch"), &[3], &b.run(words));
        }
    });
}
