//! What every host knows of everybody's containers: answers at home, moves, duplicates, ways to an address.
//!
//! ```text
//!  c1 10.2.1.1 ─ a ── 192.0.2.0/24 ── b ─ c2 10.2.1.2
//! ```

use std::net::IpAddr;
use std::time::Duration;

use weft_netns_tests::{Lab, Overlay, in_lab, within};

const LIMIT: Duration = Duration::from_secs(5);
/// From a change of a container's MAC until it is reached; a ping that was too early takes a second.
const NEWS_MAX: Duration = Duration::from_millis(2500);

fn reached(lab: &Lab) -> Overlay {
    let overlay = Overlay::on_a_link(lab, &[]);
    overlay.wait_until_reachable(LIMIT);
    overlay
}

/// Answers to ARP that b gave by itself.
fn answers(overlay: &Overlay) -> u64 {
    overlay.weft[1].count(&["bridge_answers"])
}

#[test]
fn questions_about_known_containers_are_answered_at_home_and_a_new_mac_counts_at_once() {
    in_lab(|lab| {
        let overlay = reached(lab);
        let [c1, c2] = &overlay.containers;
        let forget = || c2.run(&["ip", "neigh", "flush", "dev", "ethwe"]);
        within("an answer at home", LIMIT, || {
            forget();
            let before = answers(&overlay);
            c2.reaches(overlay.addresses[0]) && answers(&overlay) > before
        });
        for mac in ["02:00:00:00:00:51", "02:00:00:00:00:52"] {
            // Without a word: the kernel announces nothing.
            c1.run(&["ip", "link", "set", "ethwe", "address", mac]);
            let took = within("the container at its new MAC", NEWS_MAX, || {
                forget();
                c2.reaches(overlay.addresses[0])
            });
            assert!(took <= NEWS_MAX, "{took:?}");
            let known = c2.run(&["ip", "neigh", "show", "dev", "ethwe"]);
            assert!(known.contains(mac), "{known}");
        }
    });
}

#[test]
fn an_address_on_two_hosts_is_told_at_attach_and_shown_in_status() {
    in_lab(|lab| {
        let overlay = reached(lab);
        let notes = |side: usize| {
            let status = overlay.weft[side].json(&["status"]);
            status["engine"]["notes"].to_string()
        };
        assert!(!notes(0).contains("containers"), "{}", notes(0));
        let [_, c2] = &overlay.containers;
        let told = overlay.weft[1].run(&["attach", "10.2.1.1/24", &c2.as_container()]);
        assert_eq!((told.code, told.stdout.trim()), (0, "10.2.1.1"), "{told:?}");
        let words = "10.2.1.1 is the address of 2 containers";
        assert!(told.stderr.contains(words), "{told:?}");
        within("both hosts say it", LIMIT, || {
            notes(0).contains(words) && notes(1).contains(words)
        });
        overlay.weft[1].ok(&["detach", "10.2.1.1/24", &c2.as_container()]);
        within("neither does any more", LIMIT, || {
            !notes(0).contains(words) && !notes(1).contains(words)
        });
    });
}

#[test]
fn path_and_ping_lead_to_a_containers_address() {
    in_lab(|lab| {
        let overlay = reached(lab);
        let address: IpAddr = overlay.addresses[1];
        let path = overlay.weft[0].ok(&["path", &address.to_string()]);
        assert!(path.contains("direct"), "{path}");
        overlay.weft[0].ok(&["ping", &address.to_string()]);
        let own = overlay.weft[0].run(&["path", &overlay.addresses[0].to_string()]);
        assert_ne!(own.code, 0);
        assert!(own.stderr.contains("on this host"), "{own:?}");
    });
}
