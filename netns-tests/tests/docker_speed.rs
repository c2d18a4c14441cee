//! Docker containers beside plain namespaces on the same two hosts: neither is slower.
//!
//! ```text
//!  a: dockerd, weft 192.0.2.1 ══ 192.0.2.2 b: dockerd, weft
//!     c1, n1                               c2, n2            c: Docker's, n: namespaces
//! ```

use std::net::IpAddr;
use std::time::Duration;

use serde_json::json;
use weft_netns_tests::{Host, IMAGE, Stream, alone_in_docker_lab, is_long, pause, record, within};

const CONNECT_LIMIT: Duration = Duration::from_secs(20);
/// Docker's share of what namespaces have, and the other way round.
const SHARE_MIN: f64 = 0.85;
/// Turns, of which the middle one counts.
const TURNS: usize = 5;
const PINGS: &str = "200";

/// Two that reach each other.
struct Pair {
    ends: [Host; 2],
    address: IpAddr,
}

impl Pair {
    fn gbit_per_s(&self) -> f64 {
        let stream = Stream::start(&self.ends[0], &self.ends[1], self.address);
        pause(Duration::from_secs(5));
        stream.finish().gbit_per_s()
    }

    /// The middle one of the round trips of an otherwise idle pair.
    fn round_trip_us(&self) -> f64 {
        let address = self.address.to_string();
        let said = self.ends[0].run(&["ping", "-n", "-c", PINGS, "-i", "0.02", &address]);
        let times = said.lines().filter_map(|line| {
            let (_, time) = line.split_once("time=")?;
            time.split(' ').next()?.parse::<f64>().ok()
        });
        1000.0 * middle(times.collect())
    }
}

fn middle(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

#[test]
#[ignore = "measures for two minutes, alone on the machine"]
fn containers_of_docker_are_as_fast_as_namespaces() {
    alone_in_docker_lab(|lab| {
        let hosts = lab.two_hosts();
        let dockers = lab.dockerds(hosts.each_ref(), &[]);
        let wefts = dockers.each_ref().map(|docker| lab.weft(docker.host()));
        wefts[0].ok(&["launch"]);
        wefts[0].ok(&["prime"]);
        wefts[1].ok(&["launch", "192.0.2.1"]);
        wefts[1].wait_for_path(CONNECT_LIMIT);
        let places = [0, 1];
        let containers = places.map(|at| {
            let socket = wefts[at].run_dir().join("docker.sock");
            let client = dockers[at].client_of(&format!("unix://{}", socket.display()));
            let name = format!("c{}", at + 1);
            client.ok(&["run", "-d", "--name", &name, IMAGE, "sleep", "100000"]);
            dockers[at].container(&name)
        });
        let namespaces = places.map(|at| lab.host(&format!("n{}", at + 1)));
        wefts[0].attach(&namespaces[0], &[]);
        let address = wefts[1].attach(&namespaces[1], &[]);
        let plain = Pair {
            ends: namespaces,
            address: address.parse().expect("attach prints an address"),
        };
        let address = wefts[1].ok(&["dns-lookup", "c2"]);
        let docker = Pair {
            ends: containers,
            address: address.trim().parse().expect("the name means an address"),
        };
        for pair in [&plain, &docker] {
            within("the way across", CONNECT_LIMIT, || {
                pair.ends[0].reaches(pair.address)
            });
        }

        // In turns, so that what else the machine does meets both.
        let turns = || 0..TURNS;
        let rates: Vec<[f64; 2]> = turns()
            .map(|_| [&plain, &docker].map(Pair::gbit_per_s))
            .collect();
        let trips: Vec<[f64; 2]> = turns()
            .map(|_| [&plain, &docker].map(Pair::round_trip_us))
            .collect();
        let of =
            |all: &[[f64; 2]], which: usize| middle(all.iter().map(|one| one[which]).collect());
        let share = |all: &[[f64; 2]]| middle(all.iter().map(|one| one[1] / one[0]).collect());
        let (rate_share, trip_share) = (share(&rates), share(&trips));
        let figures = json!({
            "namespaces_gbit_per_s": of(&rates, 0),
            "docker_gbit_per_s": of(&rates, 1),
            "rate_share": rate_share,
            "namespaces_round_trip_us": of(&trips, 0),
            "docker_round_trip_us": of(&trips, 1),
            "round_trip_share": trip_share,
        });
        record("docker-speed", &figures);
        // Beside other work the middle of few turns says little.
        assert!(!is_long() || rate_share >= SHARE_MIN, "{figures}");
        assert!(!is_long() || trip_share <= 1.0 / SHARE_MIN, "{figures}");
    });
}
