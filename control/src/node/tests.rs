//! Small networks on a virtual clock.

use std::time::Duration;

use weft_engine::session::CipherSuite;

use crate::config::{
    BACKOFF_YOUNG_MAX, CLONE_SHOWN, CipherCost, EPOCH_LIFE_MAX, JUMP_PAUSE_MAX,
    PEER_FORGOTTEN_AFTER, RekeyConfig,
};
use crate::node::exchange::{Input, LinkId};
use crate::node::notice::Notice;
use crate::random::Randomness;
pub(crate) use crate::sim::first_instant;
use crate::sim::host::{HostSpec, tokens};
use crate::sim::{HostId, Sim};

const SECOND: Duration = Duration::from_secs(1);

/// b (192.0.2.2) is named by a (192.0.2.1).
fn pair(seed: u64) -> Sim {
    let mut sim = Sim::new(seed);
    sim.add(HostSpec::new("a").dialling(&["192.0.2.2"]));
    sim.add(HostSpec::new("b"));
    sim
}

fn run_until_connected(sim: &mut Sim, limit: Duration) -> Duration {
    sim.run_until(limit, "both established", |sim| {
        sim.established(0, "b") && sim.established(1, "a")
    })
}

fn detail_of(sim: &Sim, host: HostId) -> String {
    let status = sim.status(host).unwrap();
    status
        .connections
        .iter()
        .map(|line| format!("{} {}", line.state, line.detail))
        .collect::<Vec<_>>()
        .join("; ")
}

#[test]
fn two_hosts_connect() {
    let mut sim = pair(1);

    let took = run_until_connected(&mut sim, 2 * SECOND);

    assert!(took < Duration::from_millis(600), "{took:?}");
    sim.run_for(2 * SECOND);
    let status = sim.status(0).unwrap();
    assert_eq!(status.targets[0].state, "connected");
    let line = &status.connections[0];
    assert!(line.outbound);
    assert_eq!(line.address, "192.0.2.2:6783");
    assert_eq!(line.cipher.as_deref(), Some("chacha20-poly1305"));
    let path = line.path.as_ref().unwrap();
    assert_eq!((path.kind.as_str(), path.mtu), ("direct", 1424));
    assert!(!sim.status(1).unwrap().connections[0].outbound);
    assert_eq!(sim.lost, 0);
}

#[test]
fn a_mesh_of_named_hosts_comes_up() {
    let mut sim = Sim::new(5);
    let names = ["a", "b", "c", "d", "e"];
    for name in names {
        sim.add(HostSpec::new(name).dialling(&[
            "192.0.2.1",
            "192.0.2.2",
            "192.0.2.3",
            "192.0.2.4",
            "192.0.2.5",
        ]));
    }

    sim.run_until(3 * SECOND, "everybody with everybody", |sim| {
        (0..5).all(|host| {
            names
                .iter()
                .enumerate()
                .all(|(n, name)| n == host || sim.established(host, name))
        })
    });
    sim.run_for(30 * SECOND);

    for host in 0..5 {
        let status = sim.status(host).unwrap();
        assert_eq!(
            status.connections.len(),
            4,
            "one link for each peer: {:?}",
            status.connections
        );
        assert_eq!(status.targets[host].state, "self");
        assert_eq!(
            status
                .targets
                .iter()
                .filter(|target| target.state == "connected")
                .count(),
            4
        );
    }
}

#[test]
fn a_wrong_password_is_said_on_both_sides_and_leaves_nothing() {
    let mut sim = Sim::new(1);
    sim.add(
        HostSpec::new("a")
            .dialling(&["192.0.2.2"])
            .with_secrets(tokens(&[1])),
    );
    sim.add(HostSpec::new("b").with_secrets(tokens(&[2])));

    sim.run_for(SECOND);

    assert!(
        detail_of(&sim, 0).contains("refused (unverified): wrong password"),
        "{}",
        detail_of(&sim, 0)
    );
    assert!(
        detail_of(&sim, 1).contains("peer has the wrong password"),
        "{}",
        detail_of(&sim, 1)
    );
    assert_eq!(sim.status(0).unwrap().targets[0].state, "refused");
    for (host, words) in [
        (
            0,
            "no link to 192.0.2.2:6783: refused (unverified): wrong password",
        ),
        (1, "no link from 192.0.2.1: peer has the wrong password"),
    ] {
        let notes = sim.status(host).unwrap().engine.notes;
        let note = notes.iter().find(|note| note.starts_with(words));
        let note = note.unwrap_or_else(|| panic!("{words}: {notes:?}"));
        assert!(note.contains("the same --password"), "{note}");
    }
    sim.run_for(600 * SECOND);
    assert!(sim.hosts.iter().all(|host| {
        host.notices
            .iter()
            .all(|notice| matches!(notice, Notice::LinkFailed { .. }))
    }));
    let tries = sim.counters(1)["handshakes_failed"];
    assert!((20..=50).contains(&tries), "{tries} tries in ten minutes");
}

#[test]
fn open_and_closed_hosts_refuse_each_other_with_the_reason() {
    let mut sim = Sim::new(1);
    sim.add(HostSpec::new("a").dialling(&["192.0.2.2"]));
    sim.add(HostSpec::new("b").with_secrets(tokens(&[2])));

    sim.run_for(SECOND);

    assert!(
        detail_of(&sim, 0).contains("requires a password, and we have none"),
        "{}",
        detail_of(&sim, 0)
    );
    assert!(
        detail_of(&sim, 1).contains("has no password, and we require one"),
        "{}",
        detail_of(&sim, 1)
    );
}

#[test]
fn another_network_is_refused_with_the_reason() {
    let mut sim = Sim::new(1);
    sim.add(HostSpec::new("a").dialling(&["192.0.2.2"]));
    sim.add(HostSpec {
        network: "other",
        ..HostSpec::new("b")
    });

    sim.run_for(SECOND);

    assert!(
        detail_of(&sim, 0).contains("another --network"),
        "{}",
        detail_of(&sim, 0)
    );
    assert!(
        detail_of(&sim, 1).contains("another --network"),
        "{}",
        detail_of(&sim, 1)
    );
}

/// Both dial at the same moment, with many seeds: one link stays, quietly, and no session is lost for it.
#[test]
fn simultaneous_dials_leave_one_link() {
    for seed in 0..60 {
        let mut sim = Sim::new(seed);
        sim.add(HostSpec::new("a").dialling(&["192.0.2.2"]));
        sim.add(HostSpec::new("b").dialling(&["192.0.2.1"]));

        run_until_connected(&mut sim, 2 * SECOND);
        sim.run_for(30 * SECOND);

        for (host, other) in [(0, "b"), (1, "a")] {
            assert_eq!(
                sim.links_to(host, other),
                1,
                "seed {seed}: {:#?}",
                sim.status(host).map(|s| (s.connections, s.targets))
            );
            let up = |notice: &&Notice| matches!(notice, Notice::LinkUp { .. });
            assert_eq!(
                sim.hosts[host].notices.iter().filter(up).count(),
                1,
                "seed {seed}"
            );
            assert!(
                !sim.hosts[host]
                    .notices
                    .iter()
                    .any(|n| matches!(n, Notice::LinkDown { .. })),
                "seed {seed}"
            );
        }
        assert_eq!(sim.lost, 0, "seed {seed}");
    }
}

#[test]
fn a_second_name_for_a_peer_does_not_make_a_second_link() {
    let mut sim = pair(3);
    run_until_connected(&mut sim, 2 * SECOND);
    sim.run_for(20 * SECOND);

    sim.connect(0, &["192.0.2.2:6783"], false);
    sim.run_for(20 * SECOND);

    assert_eq!(sim.links_to(0, "b"), 1);
    assert_eq!(sim.links_to(1, "a"), 1);
    assert!(
        sim.status(0)
            .unwrap()
            .targets
            .iter()
            .all(|target| target.state == "connected")
    );
    assert_eq!(sim.lost, 0);
}

#[test]
fn a_restarted_peer_is_back_in_two_seconds() {
    for (seed, restarted) in [(1, 0), (2, 1), (3, 0), (4, 1)] {
        let mut sim = pair(seed);
        run_until_connected(&mut sim, 2 * SECOND);
        sim.run_for(10 * SECOND);

        sim.kill(restarted);
        sim.run_for(Duration::from_millis(300));
        sim.start(restarted);
        let survivor = 1 - restarted;
        let other = ["a", "b"][restarted];
        sim.run_until(2 * SECOND, "back", |sim| {
            sim.established(survivor, other)
                && sim.hosts[survivor]
                    .notices
                    .iter()
                    .any(|notice| matches!(notice, Notice::PeerRestarted { .. }))
        });
        run_until_connected(&mut sim, SECOND);
        assert_eq!(sim.epochs(survivor), 1, "the old process's epochs are gone");
    }
}

/// The host dies without a word and comes back before anybody noticed.
#[test]
fn a_restart_that_nobody_saw_takes_over_at_once() {
    let mut sim = pair(7);
    run_until_connected(&mut sim, 2 * SECOND);
    sim.cut(0, 1);
    sim.kill(0);
    sim.heal(0, 1);
    sim.start(0);

    run_until_connected(&mut sim, 2 * SECOND);
    sim.run_for(30 * SECOND);

    assert!(sim.established(0, "b") && sim.established(1, "a"));
    assert_eq!(sim.links_to(1, "a"), 1);
}

#[test]
fn a_clone_is_refused_and_said() {
    let mut sim = pair(1);
    run_until_connected(&mut sim, 2 * SECOND);
    let identity = sim.identity(0);
    let clone = sim.add_with_identity(HostSpec::new("clone").dialling(&["192.0.2.2"]), identity, 1);
    sim.run_for(10 * SECOND);

    assert!(sim.established(1, "a"), "the first stays");
    assert!(
        sim.hosts[1]
            .notices
            .iter()
            .any(|n| matches!(n, Notice::ClonedIdentity { ours: false, .. }))
    );
    assert!(
        detail_of(&sim, clone).contains("two hosts run with this identity key"),
        "{}",
        detail_of(&sim, clone)
    );
    sim.connect(clone, &["192.0.2.1"], false);
    sim.run_for(SECOND);
    assert!(
        sim.hosts[0]
            .notices
            .iter()
            .any(|n| matches!(n, Notice::ClonedIdentity { ours: true, .. }))
    );
}

/// a and its copy are at two ends of a line, and each hears the other's records.
#[test]
fn a_clone_is_shown_as_long_as_it_is_there() {
    let mut sim = Sim::new(13);
    sim.add(HostSpec::new("a"));
    sim.add(HostSpec::new("b").dialling(&["192.0.2.1"]));
    sim.add(HostSpec::new("c").dialling(&["192.0.2.2"]));
    sim.cut(0, 2);
    sim.run_for(5 * SECOND);
    let identity = sim.identity(0);
    let copy = HostSpec::new("copy").dialling(&["192.0.2.3"]);
    let copy = sim.add_with_identity(copy, identity, 1);
    let is_shown = |sim: &Sim, host: usize| {
        let notes = sim.status(host).unwrap().engine.notes;
        notes
            .iter()
            .any(|note| note.contains("two hosts run with the identity key"))
    };
    sim.cut(0, copy);
    sim.cut(1, copy);
    sim.run_for(10 * SECOND);
    for _ in 0..100 {
        sim.run_for(3 * SECOND);
        for host in [0, 1, copy] {
            assert!(is_shown(&sim, host), "host {host}: it is there");
        }
    }
    sim.kill(copy);
    sim.run_for(CLONE_SHOWN + SECOND);
    assert!(!is_shown(&sim, 0), "it is gone");
    // To others the original's reply to the copy's last words looks like one more of these.
    sim.run_for(JUMP_PAUSE_MAX);
    assert!(!is_shown(&sim, 1), "it is gone");
}

/// The old identity is known for an hour yet, under the same nickname and at the same address.
#[test]
fn a_host_that_was_reset_leaves_no_ghost() {
    let mut sim = Sim::new(11);
    for name in ["a", "b", "c"] {
        sim.add(HostSpec::new(name).dialling(&["192.0.2.1"]));
    }
    let all = |sim: &Sim| (0..2).all(|host| sim.established(host, "c"));
    sim.run_until(10 * SECOND, "everybody with c", all);
    sim.run_for(30 * SECOND);

    sim.reset(2);
    sim.run_for(30 * SECOND);

    let id = sim.identity(2).peer_id().to_string();
    for host in 0..2 {
        let found = sim.node(host).unwrap().path_report("c").unwrap();
        assert_eq!(found.peer_id, id, "the one that is there has the name");
        let notes = sim.status(host).unwrap().engine.notes;
        assert!(
            !notes.iter().any(|note| note.contains("share")),
            "{notes:?}"
        );
    }
    let before = sim.counters(2)["links_accepted"];
    sim.run_for(300 * SECOND);
    let calls = sim.counters(2)["links_accepted"] - before;
    assert!(
        calls < 60,
        "{calls} calls for the old identity in five minutes"
    );
}

#[test]
fn hosts_with_different_mtus_say_so() {
    let mut sim = Sim::new(1);
    sim.add(HostSpec::new("a").dialling(&["192.0.2.2"]));
    sim.add(HostSpec {
        mtu: 1200,
        ..HostSpec::new("b")
    });
    run_until_connected(&mut sim, 2 * SECOND);

    for (host, words) in [
        (0, ["is 1200 at", "(b)", "and 1376 here", "more than 1200"]),
        (1, ["is 1376 at", "(a)", "and 1200 here", "more than 1200"]),
    ] {
        let notes = sim.status(host).unwrap().engine.notes;
        let all = |note: &String| words.iter().all(|word| note.contains(word));
        assert!(notes.iter().any(all), "{words:?}: {notes:?}");
        let notices = &sim.hosts[host].notices;
        let said = |notice: &&Notice| matches!(notice, Notice::OtherMtu { .. });
        assert_eq!(notices.iter().filter(said).count(), 1);
    }
}

#[test]
fn a_question_about_ourselves_is_answered_as_one() {
    let sim = pair(1);
    let node = sim.node(0).unwrap();
    let name = sim.identity(0).peer_id().name().to_string();
    for text in ["a", &name, "192.0.2.1"] {
        let refusal = node.path_report(text).unwrap_err().error;
        assert!(refusal.contains("this host itself"), "{refusal}");
    }
}

/// Both directions are cut for a while: the link is back within two seconds of healing, whatever the outage.
#[test]
fn an_outage_is_over_soon_after_it_heals() {
    for (seed, outage) in [1, 2, 5, 8, 13, 20, 30, 45, 60].into_iter().enumerate() {
        let mut sim = pair(seed as u64);
        run_until_connected(&mut sim, 2 * SECOND);
        sim.run_for(10 * SECOND);
        sim.cut(0, 1);
        sim.run_for(outage * SECOND);
        sim.heal(0, 1);

        let took = run_until_connected(&mut sim, 4 * SECOND);
        assert!(took <= 2 * SECOND, "{took:?} after an outage of {outage} s");
        sim.run_for(40 * SECOND);
        assert!(
            sim.established(0, "b") && sim.established(1, "a"),
            "and it stays after {outage} s"
        );
        assert_eq!(sim.links_to(0, "b"), 1);
    }
}

#[test]
fn an_absent_peer_is_dialled_often_and_found_at_once() {
    let mut sim = pair(1);
    sim.kill(1);
    sim.run_for(60 * SECOND);
    assert_eq!(
        sim.status(0).unwrap().targets[0].detail.split(',').next(),
        Some("connection refused")
    );

    sim.start(1);
    let took = run_until_connected(&mut sim, 4 * SECOND);

    assert!(took <= BACKOFF_YOUNG_MAX.mul_f64(1.3), "{took:?}");
}

/// The TCP connection goes while datagrams pass: the session lives on and rekeys inside itself.
#[test]
fn data_goes_on_without_a_link() {
    let mut sim = Sim::new(4);
    let rekey = RekeyConfig::accelerated(SECOND);
    sim.add(HostSpec {
        rekey,
        ..HostSpec::new("a")
            .dialling(&["192.0.2.2"])
            .without_discovery()
    });
    sim.add(HostSpec {
        rekey,
        ..HostSpec::new("b").without_discovery()
    });
    run_until_connected(&mut sim, 2 * SECOND);

    sim.input(
        0,
        Input::Forget {
            request: crate::node::exchange::RequestId(2),
            peers: vec!["192.0.2.2".to_owned()],
        },
    );
    let before = sim.rekeys(0);
    let last = LinkId(2);
    for (host, link) in [(0, last), (1, LinkId(3))] {
        sim.input(
            host,
            Input::LinkClosed {
                link,
                cause: crate::node::exchange::CloseCause::Broken,
            },
        );
    }
    sim.run_for(20 * SECOND);

    assert_eq!(sim.links_to(0, "b"), 0);
    assert!(
        sim.established(0, "b") && sim.established(1, "a"),
        "{}",
        detail_of(&sim, 0)
    );
    assert!(detail_of(&sim, 0).contains("control link lost"));
    let lines = sim.status(0).unwrap().connections.len();
    assert_eq!(lines, 1, "one line for one peer: {}", detail_of(&sim, 0));
    assert!(
        sim.rekeys(0) >= before + 10,
        "{} after {before}",
        sim.rekeys(0)
    );
    assert_eq!(sim.lost, 0);
}

/// Records are opened in the order in which they were sealed, whatever they answer and however many come at once.
#[test]
fn records_keep_their_order_when_many_come_at_once() {
    let mut sim = Sim::new(11);
    let rekey = RekeyConfig::accelerated(Duration::from_millis(3));
    sim.add(HostSpec {
        rekey,
        ..HostSpec::new("a").dialling(&["192.0.2.2"])
    });
    sim.add(HostSpec {
        rekey,
        ..HostSpec::new("b")
    });
    run_until_connected(&mut sim, 2 * SECOND);

    for _ in 0..2000 {
        for host in 0..2 {
            // A path that goes makes the node ask the link for a sign of life.
            sim.lose_path(host);
        }
        sim.run_for(Duration::from_millis(2));
    }

    for host in &sim.hosts {
        let down = |notice: &Notice| matches!(notice, Notice::LinkDown { .. });
        assert!(!host.notices.iter().any(down), "{:?}", host.notices);
    }
    assert!(sim.rekeys(0) > 100);
}

#[test]
fn ten_thousand_rekeys_lose_nothing() {
    let mut sim = Sim::new(9);
    sim.latency = Duration::from_micros(300);
    let rekey = RekeyConfig::accelerated(Duration::from_millis(2));
    sim.add(HostSpec {
        rekey,
        ..HostSpec::new("a").dialling(&["192.0.2.2"])
    });
    sim.add(HostSpec {
        rekey,
        ..HostSpec::new("b")
    });
    run_until_connected(&mut sim, 2 * SECOND);
    let start = sim.now;

    while sim.rekeys(0) < 10_000 {
        sim.traffic();
        sim.run_for(Duration::from_millis(1));
        assert!(
            sim.now - start < 100 * SECOND,
            "fewer than 100 a second: {}",
            sim.rekeys(0)
        );
    }

    assert_eq!(sim.lost, 0);
    assert!(sim.delivered > 20_000);
    assert!(sim.epochs(0) <= 4 && sim.epochs(1) <= 4);
}

#[test]
fn rekeys_come_every_two_minutes_and_old_epochs_go() {
    let mut sim = pair(2);
    run_until_connected(&mut sim, 2 * SECOND);

    for _ in 0..600 {
        sim.traffic();
        sim.run_for(SECOND);
    }

    assert!(
        (4..=6).contains(&sim.rekeys(0)),
        "{} in ten minutes",
        sim.rekeys(0)
    );
    assert_eq!(sim.rekeys(0), sim.rekeys(1));
    assert!(sim.epochs(0) <= 2);
    assert_eq!(sim.lost, 0);
}

#[test]
fn a_password_is_changed_without_an_outage() {
    let mut sim = Sim::new(1);
    sim.add(
        HostSpec::new("a")
            .dialling(&["192.0.2.2"])
            .with_secrets(tokens(&[1])),
    );
    sim.add(HostSpec::new("b").with_secrets(tokens(&[1])));
    run_until_connected(&mut sim, 2 * SECOND);

    for (host, secrets) in [
        (0, [1, 2].as_slice()),
        (1, &[1, 2]),
        (0, &[2, 1]),
        (1, &[2, 1]),
        (0, &[2]),
        (1, &[2]),
    ] {
        sim.input(host, Input::Reload(tokens(secrets)));
        for _ in 0..20 {
            sim.traffic();
            sim.run_for(Duration::from_millis(100));
        }
        assert!(
            sim.established(0, "b") && sim.established(1, "a"),
            "host {host} with {secrets:?}"
        );
    }

    sim.run_for(EPOCH_LIFE_MAX + 20 * SECOND);
    assert!(sim.established(0, "b") && sim.established(1, "a"));
    assert_eq!(sim.lost, 0);
}

#[test]
fn a_removed_password_ends_the_session() {
    let mut sim = Sim::new(1);
    sim.add(
        HostSpec::new("a")
            .dialling(&["192.0.2.2"])
            .with_secrets(tokens(&[1])),
    );
    sim.add(HostSpec::new("b").with_secrets(tokens(&[1])));
    run_until_connected(&mut sim, 2 * SECOND);

    sim.input(1, Input::Reload(tokens(&[2])));
    sim.run_for(EPOCH_LIFE_MAX + SECOND);

    assert!(!sim.established(0, "b") && !sim.established(1, "a"));
    assert_eq!((sim.epochs(0), sim.epochs(1)), (0, 0));
}

#[test]
fn a_dialler_offers_its_other_secret() {
    let mut sim = Sim::new(1);
    sim.add(
        HostSpec::new("a")
            .dialling(&["192.0.2.2"])
            .with_secrets(tokens(&[9, 1])),
    );
    sim.add(HostSpec::new("b").with_secrets(tokens(&[1])));

    run_until_connected(&mut sim, 20 * SECOND);
}

#[test]
fn the_cheapest_common_cipher_is_used_and_a_pinned_one_kept_to() {
    let cost = |suite, ns_per_kib| CipherCost { suite, ns_per_kib };
    let (chacha, aes) = (CipherSuite::ChaCha20Poly1305, CipherSuite::Aes256Gcm);
    let both = vec![cost(chacha, 700), cost(aes, 300)];
    for (left, right, wanted) in [
        (both.clone(), both.clone(), Some("aes-256-gcm")),
        (
            both.clone(),
            vec![cost(chacha, 700)],
            Some("chacha20-poly1305"),
        ),
        (vec![cost(aes, 300)], vec![cost(chacha, 700)], None),
    ] {
        let mut sim = Sim::new(1);
        sim.add(HostSpec {
            ciphers: left,
            ..HostSpec::new("a").dialling(&["192.0.2.2"])
        });
        sim.add(HostSpec {
            ciphers: right,
            ..HostSpec::new("b")
        });
        sim.run_for(2 * SECOND);

        let line = sim.status(0).unwrap().connections[0].clone();
        assert_eq!(line.cipher.as_deref(), wanted);
        if wanted.is_none() {
            let details = detail_of(&sim, 0) + &detail_of(&sim, 1);
            assert!(details.contains("no common data cipher"), "{details}");
        }
    }
}

#[test]
fn connect_replace_and_forget_do_as_told() {
    let mut sim = pair(1);
    run_until_connected(&mut sim, 2 * SECOND);
    let targets = |sim: &Sim| -> Vec<_> {
        let targets = sim.status(0).unwrap().targets;
        targets.into_iter().map(|target| target.address).collect()
    };

    sim.connect(0, &["192.0.2.9", "nonsense..", "host.example"], true);
    sim.run_for(SECOND);
    assert_eq!(targets(&sim), ["192.0.2.2"], "one bad word changes nothing");
    let error = sim.hosts[0].answers.remove(0).unwrap_err();
    assert!(error.starts_with("nonsense..: not a peer"), "{error}");
    assert!(error.ends_with("nothing was changed"), "{error}");

    sim.connect(0, &["192.0.2.9", "host.example"], true);
    sim.run_for(SECOND);

    assert!(sim.established(0, "b"), "replacing targets breaks no link");
    assert_eq!(targets(&sim), ["192.0.2.9", "host.example"]);
    assert!(sim.hosts[0].answers[0].is_ok());
    sim.input(
        0,
        Input::Forget {
            request: crate::node::exchange::RequestId(2),
            peers: vec!["192.0.2.9".to_owned(), "192.0.2.2".to_owned()],
        },
    );
    sim.run_for(SECOND);
    assert!(
        sim.hosts[0].answers[1]
            .clone()
            .unwrap_err()
            .starts_with("192.0.2.2: not a target")
    );
    assert_eq!(sim.status(0).unwrap().targets.len(), 1);
}

#[test]
fn a_stopped_peer_is_gone_at_once_and_its_slot_later() {
    let mut sim = pair(1);
    run_until_connected(&mut sim, 2 * SECOND);

    sim.input(0, Input::Stop);
    sim.run_for(Duration::from_millis(100));
    sim.kill(0);
    assert_eq!(sim.epochs(1), 0);
    assert!(!sim.established(1, "a"));
    sim.run_for(PEER_FORGOTTEN_AFTER + 10 * SECOND);
    sim.start(0);
    run_until_connected(&mut sim, 2 * SECOND);
}

/// One bit anywhere, or a cut anywhere, in any of the first bytes between the hosts: no panic, and whatever comes up
/// later came up properly.
#[test]
fn damage_on_the_way_makes_no_session_and_no_panic() {
    for seed in 0..300 {
        let mut sim = pair(seed);
        let mut random = Randomness::seeded(seed);
        let (mut at, flip) = (random.u32() as usize % 900, random.u32());
        sim.tamper = Some(Box::new(move |bytes| {
            if at < bytes.len() {
                if flip % 3 == 0 {
                    bytes.truncate(at)
                } else {
                    bytes[at] ^= 1 << (flip % 8)
                }
                at = usize::MAX;
            } else if at != usize::MAX {
                at -= bytes.len();
            }
            true
        }));

        run_until_connected(&mut sim, 60 * SECOND);
        assert_eq!(sim.lost, 0, "seed {seed}");
    }
}

/// Every handshake is damaged, for ever: nothing comes up.
#[test]
fn nothing_comes_up_over_a_line_that_damages_everything() {
    let mut sim = pair(1);
    sim.tamper = Some(Box::new(|bytes| {
        let last = bytes.len() - 1;
        bytes[last] ^= 0x40;
        true
    }));

    sim.run_for(120 * SECOND);

    for host in 0..2 {
        assert_eq!(sim.epochs(host), 0);
        assert!(
            !sim.hosts[host]
                .notices
                .iter()
                .any(|notice| matches!(notice, Notice::LinkUp { .. }))
        );
    }
}

#[test]
fn silent_connections_and_garbage_are_closed_and_bounded() {
    let mut sim = pair(1);
    sim.kill(0);
    for n in 0..200_u64 {
        let link = LinkId(1_000_000 + n);
        let remote =
            std::net::SocketAddr::from(([198, 51, 100, u8::try_from(n % 50).unwrap()], 1234));
        let local = sim.hosts[1].address;
        sim.input(
            1,
            Input::LinkOpened {
                link,
                dial: None,
                remote,
                local,
            },
        );
        if n % 3 == 0 {
            sim.input(
                1,
                Input::LinkData {
                    link,
                    data: bytes::Bytes::from_static(b"GET / HTTP/1.1\r\n"),
                },
            );
        } else if n % 3 == 1 {
            sim.input(
                1,
                Input::LinkData {
                    link,
                    data: bytes::Bytes::from_static(b"weft"),
                },
            );
        }
    }
    let connections = sim.status(1).unwrap().connections.len();
    assert!(connections <= 64, "{connections}");

    sim.start(0);
    run_until_connected(&mut sim, 5 * SECOND);
    sim.run_for(5 * SECOND);
    assert_eq!(sim.status(1).unwrap().connections.len(), 1);
}
