//! weft over an underlay that has IPv6 only.
//!
//! ```text
//!  one 10.2.1.1 ─ weft a ─ 2001:db8::1 ══ 2001:db8::2 ─ weft b ─ two 10.2.1.2
//! ```

use weft_netns_tests::{Overlay, in_lab, transfer};

#[test]
fn containers_reach_each_other_over_ipv6() {
    in_lab(|lab| {
        let hosts = [lab.host("a"), lab.host("b")];
        lab.link(
            (&hosts[0], "eth0", "2001:db8::1/64"),
            (&hosts[1], "eth0", "2001:db8::2/64"),
        );

        let overlay = Overlay::on(lab, &hosts, "2001:db8::1", &[]);

        let path = overlay.weft[1].connection()["path"].clone();
        assert_eq!(path["address"], "[2001:db8::1]:6783", "{path}");
        assert_eq!(path["kind"], "direct", "{path}");
        let [one, two] = &overlay.containers;
        transfer(one, two, overlay.addresses[1], 50_000_000);
        transfer(two, one, overlay.addresses[0], 50_000_000);
    });
}

#[test]
fn a_peer_may_be_given_in_brackets_with_its_port() {
    in_lab(|lab| {
        let hosts = [lab.host("a"), lab.host("b")];
        lab.link(
            (&hosts[0], "eth0", "2001:db8::1/64"),
            (&hosts[1], "eth0", "2001:db8::2/64"),
        );

        let overlay = Overlay::on(lab, &hosts, "[2001:db8::1]:7001", &["--port", "7001"]);

        assert_eq!(
            overlay.weft[1].connection()["path"]["address"],
            "[2001:db8::1]:7001"
        );
    });
}

/// Container MTU 1424 fits one datagram over IPv4 but not over IPv6, where 20 bytes less are left.
#[test]
fn frames_too_big_for_the_path_cross_in_pieces() {
    in_lab(|lab| {
        let hosts = [lab.host("a"), lab.host("b")];
        lab.link(
            (&hosts[0], "eth0", "2001:db8::1/64"),
            (&hosts[1], "eth0", "2001:db8::2/64"),
        );
        let overlay = Overlay::on(lab, &hosts, "2001:db8::1", &["--mtu", "1424"]);
        let [one, two] = &overlay.containers;
        let address = overlay.addresses[1].to_string();

        // 1424 bytes of IP, not to be fragmented by the container.
        one.run(&[
            "ping", "-n", "-c", "3", "-W", "2", "-M", "do", "-s", "1396", &address,
        ]);
        transfer(one, two, overlay.addresses[1], 20_000_000);

        for host in &hosts {
            assert_eq!(
                host.kernel_counter("Ip", "FragCreates"),
                0,
                "the underlay fragments nothing"
            );
        }
    });
}
