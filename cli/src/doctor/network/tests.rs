//! Tests of the network checks on texts that kernels and firewalls printed.

use super::*;
use crate::doctor::Verdict;

#[test]
fn overlay_mtus_are_those_of_the_design() {
    assert_eq!(overlay_mtu(1500, false, false), 1424);
    assert_eq!(overlay_mtu(1500, false, true), 1376);
    assert_eq!(overlay_mtu(1500, true, false), 1404);
    assert_eq!(overlay_mtu(9000, false, false), 8924);
    assert_eq!(overlay_mtu(100, true, true), 0);
}

#[test]
fn an_ordinary_underlay_suits_the_default() {
    let check = judge_mtu("eth0", 1500, false);

    assert_eq!(check.verdict, Verdict::Ok);
    assert!(
        check.found.contains("default 1376 is best") && check.found.contains("--mtu 1424"),
        "{check:?}"
    );
}

#[test]
fn a_narrow_underlay_gets_a_smaller_mtu_recommended() {
    let cloud = judge_mtu("eth0", 1460, false);
    assert_eq!(cloud.verdict, Verdict::Warn);
    assert!(cloud.found.contains("through a relay"), "{cloud:?}");
    assert_eq!(cloud.mend.as_deref(), Some("--mtu 1336 on all hosts"));

    let nested = judge_mtu("eth0", 1400, false);
    assert!(nested.found.contains("this way"), "{nested:?}");
    assert_eq!(nested.mend.as_deref(), Some("--mtu 1276 on all hosts"));
}

#[test]
fn a_jumbo_underlay_gets_a_larger_mtu_recommended() {
    let check = judge_mtu("eth0", 9000, false);

    assert_eq!(check.verdict, Verdict::Ok);
    assert!(
        check.found.contains("--mtu 8876") && check.found.contains("--mtu 8924"),
        "{check:?}"
    );
}

#[test]
fn the_default_route_with_the_lowest_metric_leads_out() {
    let table = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n\
                 wlan0\t00000000\t0102A8C0\t0003\t0\t0\t600\t00000000\t0\t0\t0\n\
                 eth0\t00000000\t0100A8C0\t0003\t0\t0\t100\t00000000\t0\t0\t0\n\
                 eth1\t0000A8C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n";

    assert_eq!(default_interface_v4(table).as_deref(), Some("eth0"));
    assert_eq!(default_interface_v4("Iface\tDestination\n"), None);
}

#[test]
fn the_ipv6_default_route_is_not_the_one_to_nowhere() {
    let zeros = "0".repeat(32);
    let line = |metric: &str, name: &str| {
        format!(
            "{zeros} 00 {zeros} 00 fe800000000000000000000000000001 {metric} 00000001 00000000 00000003 {name}\n"
        )
    };
    let table = format!("{}{}", line("00000064", "eth0"), line("00000001", "lo"));

    assert_eq!(default_interface_v6(&table).as_deref(), Some("eth0"));
}

#[test]
fn a_free_port_is_free_and_a_taken_one_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let places = Places {
        run_dir: dir.path().to_owned(),
        data_dir: dir.path().to_owned(),
        config: None,
        bridge: "weft".into(),
        output: crate::output::Format::Text,
    };
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let number = taken.local_addr().unwrap().port();

    let check = port(&places, number);
    assert_eq!(check.verdict, Verdict::Fail, "{check:?}");
    assert!(check.mend.unwrap().contains(&number.to_string()));

    drop(taken);
    assert_eq!(port(&places, number).verdict, Verdict::Ok);
}

#[test]
fn bridged_frames_in_iptables_are_warned_about() {
    let verdict = |v4, v6, docker| judge_bridge_filter(v4, v6, docker).verdict;
    assert_eq!(verdict(false, false, false), Verdict::Ok);
    assert_eq!(verdict(true, false, false), Verdict::Warn);
    assert_eq!(verdict(true, true, true), Verdict::Ok, "Docker wants it so");
}
