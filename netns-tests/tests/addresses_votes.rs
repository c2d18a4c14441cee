//! Whose votes count for ranges, on the built binary: of a first ring, of a ring of names.
//!
//! ```text
//!  h0 192.0.2.1 ─┐
//!  h1 192.0.2.2 ─┼─ switch
//!  h2 192.0.2.3 ─┘
//! ```

use std::time::Duration;

use weft_netns_tests::{Mesh, Weft, in_lab, within};

/// To be connected and to agree, on a busy machine.
const CONNECT_LIMIT: Duration = Duration::from_secs(20);

fn sees_peers(weft: &Weft, count: usize) -> bool {
    weft.ok(&["status"]).contains(&format!("Peers: {count}"))
}

/// Nobody named the newcomers to it, so it waits for none of them: neither for one that has died, nor for one that
/// gives no addresses.
#[test]
fn newcomers_do_not_keep_the_first_host_from_its_addresses() {
    in_lab(|lab| {
        let mesh = Mesh::new(lab, 3);
        mesh.launch(0, &[], &[]);
        mesh.launch(1, &["--ipalloc-range", ""], &[0]);
        mesh.launch(2, &[], &[0]);
        within("both to be peers", CONNECT_LIMIT, || {
            sees_peers(&mesh.weft[0], 3)
        });
        mesh.weft[2].crash();
        assert_eq!(
            mesh.weft[0].attach(&mesh.containers[0], &[]),
            "10.32.0.1",
            "its own vote is all it needs"
        );
    });
}
