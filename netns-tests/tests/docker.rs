//! Containers of real Docker daemons, one on each host.
//!
//! ```text
//!  a: dockerd, weft 192.0.2.1 ══ 192.0.2.2 b: dockerd, weft
//! ```

use nix::sys::signal::Signal;
use weft_netns_tests::{IMAGE, in_docker_lab};

#[test]
fn each_host_has_a_docker_of_its_own() {
    in_docker_lab(|lab| {
        let hosts = lab.two_hosts();
        let mut dockers = hosts.each_ref().map(|host| lab.dockerd(host, &[]));
        let quick = ["run", "-d", "--stop-signal", "KILL"];
        let run = [&quick[..], &["--name", "c1", IMAGE, "sleep", "1000"]].concat();
        let ids = dockers.each_ref().map(|docker| docker.ok(&run));
        assert_ne!(ids[0], ids[1]);
        assert_eq!(dockers[0].ok(&["ps", "-q", "--no-trunc"]), ids[0]);

        let [one, other] = &mut dockers;
        one.ok(&["exec", "c1", "ping", "-c", "1", "-W", "20", "192.0.2.2"]);
        one.stop(Signal::SIGKILL);
        one.begin();
        one.wait_until_it_serves();
        assert_eq!(one.ok(&["ps", "-aq", "--no-trunc"]), ids[0]);
        assert_eq!(other.ok(&["ps", "-q", "--no-trunc"]), ids[1]);
    });
}
