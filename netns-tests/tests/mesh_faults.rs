//! Parts of the underlay fail, or come and go, and traffic finds its way.
//!
//! ```text
//!  c0 ─ h0 ═══╳═══ h1 ─ c1
//!        ╚══ h2 ═══╝ ─ c2
//! ```

use std::time::Duration;

use weft_netns_tests::{Lab, Mesh, Ping, alone_in_lab, in_lab, pause, transfer, within};

const REACH_LIMIT: Duration = Duration::from_secs(10);
/// A way that fails is left in this time.
const LEFT_LIMIT: Duration = Duration::from_secs(4);
/// After the last flap all is as before in this time.
const CALM_LIMIT: Duration = Duration::from_secs(3);
const PING_INTERVAL: Duration = Duration::from_millis(20);
/// A direct path that works again is taken again, damped, in this time.
const RETURN_LIMIT: Duration = Duration::from_secs(30);

fn triangle(lab: &Lab) -> Mesh {
    let mesh = Mesh::new(lab, 3);
    mesh.start(&[], |index| (0..index).collect());
    mesh.wait_until_all_reachable(REACH_LIMIT);
    mesh.wait_for_way(0, 1, true, REACH_LIMIT);
    mesh.wait_for_way(1, 0, true, REACH_LIMIT);
    mesh
}

/// Cuts, and waits until the relay carries what the cut way did; then heals.
fn moves_to_the_relay_and_back(mesh: &Mesh, cut: impl Fn(), heal: impl Fn()) {
    let ping = Ping::start(&mesh.containers[0], Mesh::overlay(1), PING_INTERVAL);
    pause(Duration::from_secs(1));

    cut();
    pause(Duration::from_secs(1));
    mesh.wait_until_reachable(0, 1, LEFT_LIMIT);
    mesh.wait_for_way(0, 1, false, LEFT_LIMIT);
    pause(Duration::from_secs(3));
    heal();
    mesh.wait_for_way(0, 1, true, RETURN_LIMIT);
    pause(Duration::from_secs(1));

    let report = ping.finish();
    assert!(report.longest_silence <= LEFT_LIMIT, "{report:?}");
}

#[test]
fn a_way_that_works_in_one_direction_only_is_left_for_the_relay() {
    alone_in_lab(|lab| {
        let mesh = triangle(lab);
        moves_to_the_relay_and_back(&mesh, || mesh.deafen(1, 0), || mesh.undeafen(1, 0));
        moves_to_the_relay_and_back(&mesh, || mesh.deafen(0, 1), || mesh.undeafen(0, 1));
    });
}

#[test]
fn a_cut_of_datagrams_alone_moves_traffic_while_the_link_stays() {
    alone_in_lab(|lab| {
        let mesh = triangle(lab);
        let rule = format!("ip saddr {} udp dport 6783 drop;", Mesh::underlay(0));
        moves_to_the_relay_and_back(
            &mesh,
            || mesh.host(1).add_rules("datagrams", &rule),
            || mesh.host(1).remove_rules("datagrams"),
        );
    });
}

#[test]
fn a_cut_of_the_link_alone_disturbs_no_traffic() {
    alone_in_lab(|lab| {
        let mesh = triangle(lab);
        let ping = Ping::start(&mesh.containers[0], Mesh::overlay(1), PING_INTERVAL);
        pause(Duration::from_secs(1));

        for (here, there) in [(0, 1), (1, 0)] {
            let rule = format!("ip saddr {} meta l4proto tcp drop;", Mesh::underlay(there));
            mesh.host(here).add_rules("links", &rule);
        }
        pause(Duration::from_secs(30));

        let report = ping.finish();
        assert!(
            report.longest_silence <= Duration::from_millis(200),
            "{report:?}"
        );
    });
}

#[test]
fn a_flapping_way_makes_no_storm_of_changes_and_no_lasting_hole() {
    alone_in_lab(|lab| {
        let mesh = triangle(lab);
        let (flaps, half) = (10_usize, Duration::from_millis(500));
        let relayed = || mesh.weft[2].count(&["udp_tx_trains"]);
        let changes = || [0, 1].map(|host| mesh.weft[host].count(&["route_changes"]));
        let (before, changes_before) = (relayed(), changes());
        let ping = Ping::start(&mesh.containers[0], Mesh::overlay(1), PING_INTERVAL);

        let mut ways = vec![mesh.way(0, 1)];
        for _ in 0..flaps {
            mesh.keep_apart(0, 1);
            watch(&mesh, half, &mut ways);
            mesh.bring_together(0, 1);
            watch(&mesh, half, &mut ways);
        }
        let last = weft_netns_tests::now();
        mesh.wait_until_reachable(0, 1, CALM_LIMIT);
        // Whatever followed late, each end counted every change of a route.
        for end in [0, 1] {
            let rest = CALM_LIMIT.saturating_sub(last.elapsed());
            mesh.wait_for_way(end, 1 - end, true, rest);
        }

        let report = ping.finish();
        ways.dedup();
        assert!(ways.len() - 1 <= 2 * flaps, "{ways:?}");
        for (before, after) in changes_before.into_iter().zip(changes()) {
            let count = usize::try_from(after - before).expect("a small count");
            assert!(count <= 2 * flaps, "{count} route changes in {flaps} flaps");
        }
        assert!(report.longest_silence <= LEFT_LIMIT, "{report:?}");
        // Each echo crosses the relay at most once in each direction, and the relay talks for itself a little.
        let carried = usize::try_from(relayed() - before).expect("a small count");
        assert!(carried <= report.sent * 2 + 1000, "{carried} of {report:?}");
    });
}

/// Notes each way that is seen in this time.
fn watch(mesh: &Mesh, length: Duration, ways: &mut Vec<String>) {
    let start = weft_netns_tests::now();
    while start.elapsed() < length {
        ways.push(mesh.way(0, 1));
    }
}

/// Datagrams of more than 1300 bytes vanish; nobody says so.
#[test]
fn a_hole_for_large_datagrams_alone_stops_no_stream() {
    in_lab(|lab| {
        let mesh = triangle(lab);
        for index in 0..3 {
            mesh.host(index).send_datagrams_singly("eth0");
        }
        let send = || {
            let [one, two] = [0, 1].map(|index| &mesh.containers[index]);
            transfer(one, two, Mesh::overlay(1), 3_000_000)
        };
        let _ = send();

        for (here, there) in [(0, 1), (1, 0)] {
            let rule = format!("ip saddr {} udp length > 1300 drop;", Mesh::underlay(there));
            mesh.host(here).add_rules("large", &rule);
        }

        let report = send();
        assert!(
            report.longest_silence <= Duration::from_secs(8),
            "{report:?}"
        );
        within("a way that carries large frames", REACH_LIMIT, || {
            let route = mesh.way(0, 1);
            route == "direct" || route.contains("h2")
        });
        let report = send();
        assert!(
            report.longest_silence <= Duration::from_secs(1),
            "{report:?}"
        );
    });
}
