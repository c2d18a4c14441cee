//! Who may join: passwords, tokens, open membership.
//!
//! ```text
//!  weft a ─ eth0 192.0.2.1 ══ 192.0.2.2 eth0 ─ weft b
//! ```

use std::time::Duration;

use weft_netns_tests::{Lab, Weft, eventually, in_lab, pause, within};

/// To be connected, or refused, on a busy machine.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// Until nothing of a refused peer is left.
const FORGOTTEN_LIMIT: Duration = Duration::from_secs(5);

fn two_hosts(lab: &Lab) -> [Weft; 2] {
    lab.two_hosts().map(|host| lab.weft(&host))
}

/// Both sides say why. Once the target is forgotten there is no connection and nothing known of the other, but for the
/// line that says for a minute why somebody at that address was refused.
fn never_established(a: &Weft, b: &Weft, words: &[&str]) {
    let reason = |weft: &Weft| {
        eventually(
            &format!("a reason on {}", weft.host().name()),
            CONNECT_LIMIT,
            || {
                let said = format!("{}\n{}", weft.ok(&["status", "connections"]), weft.log())
                    .to_lowercase();
                words.iter().any(|word| said.contains(word)).then_some(said)
            },
        )
    };
    let _ = (reason(a), reason(b));
    pause(Duration::from_secs(2));
    for weft in [a, b] {
        let report = weft.report();
        let connections = report["connections"]
            .as_array()
            .expect("a report lists connections");
        let established = connections
            .iter()
            .filter(|connection| connection["state"] == "established")
            .count();
        assert_eq!(established, 0, "{connections:?}");
        assert!(
            weft.ok(&["status"]).contains("Peers: 1"),
            "only itself is a peer"
        );
    }
    b.ok(&["forget", "192.0.2.1"]);
    for weft in [a, b] {
        within(
            &format!("nothing left on {}", weft.host().name()),
            FORGOTTEN_LIMIT,
            || {
                let report = weft.report();
                let lines = report["connections"].as_array().cloned();
                lines.is_some_and(|lines| lines.iter().all(is_only_a_reason))
                    && tcp_connections(weft) == 0
            },
        );
    }
    let targets = b.json(&["status", "targets"]);
    assert_eq!(targets.as_array().map(Vec::len), Some(0), "{targets}");
}

/// A refusal by us that is remembered: it names an address and no peer.
fn is_only_a_reason(connection: &serde_json::Value) -> bool {
    let nobody = ["name", "nickname", "peer_id"]
        .iter()
        .all(|key| connection[*key] == "");
    let inbound = connection["outbound"] == false;
    connection["state"] == "failed" && nobody && inbound && connection["path"].is_null()
}

/// Connections of weft's port that the kernel still has, other than those that wait out their end.
fn tcp_connections(weft: &Weft) -> usize {
    let sockets = weft
        .host()
        .run(&["ss", "-Htn", "state", "connected", "exclude", "time-wait"]);
    sockets
        .lines()
        .filter(|line| line.contains(":6783"))
        .count()
}

#[test]
fn peers_with_different_passwords_never_link_and_both_say_why() {
    in_lab(|lab| {
        let [a, b] = two_hosts(lab);
        a.ok(&["launch", "--password", "secret"]);
        b.ok(&["launch", "--password", "other", "192.0.2.1"]);

        never_established(&a, &b, &["password", "secret"]);
    });
}

#[test]
fn an_open_peer_and_a_closed_one_never_link_and_both_say_why() {
    in_lab(|lab| {
        let [a, b] = two_hosts(lab);
        let outcome = a.run(&["launch"]);
        assert_eq!(outcome.code, 0, "{outcome:?}");
        assert!(
            outcome.stderr.contains("--password"),
            "open membership is warned of: {outcome:?}"
        );
        assert_eq!(a.report()["membership"], "open");
        b.ok(&["launch", "--password", "secret", "192.0.2.1"]);

        never_established(&a, &b, &["password", "open", "closed"]);
    });
}

#[test]
fn two_open_peers_link_and_are_encrypted_all_the_same() {
    in_lab(|lab| {
        let [a, b] = two_hosts(lab);
        a.ok(&["launch"]);
        b.ok(&["launch", "192.0.2.1"]);

        b.wait_for_path(CONNECT_LIMIT);

        let line = b.ok(&["status", "connections"]);
        assert!(line.contains("established encrypted"), "{line}");
        assert!(b.ok(&["status"]).contains("open membership"));
    });
}

#[test]
fn a_token_goes_where_a_password_goes() {
    in_lab(|lab| {
        let [a, b] = two_hosts(lab);
        let token = a.ok(&["token"]);
        let token = token.trim();
        let file = lab.folder().join("token");
        std::fs::write(&file, format!("{token}\n")).unwrap();

        a.ok(&["launch", "--password", token]);
        b.ok(&[
            "launch",
            "--password-file",
            &file.to_string_lossy(),
            "192.0.2.1",
        ]);

        b.wait_for_path(CONNECT_LIMIT);
        assert_eq!(b.report()["membership"], "token");
        assert_ne!(a.ok(&["token"]).trim(), token, "every token is new");
    });
}
