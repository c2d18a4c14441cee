//! What single containers meet on Docker's networks: a full subnet, their names, and another way onto weft's network.
//!
//! ```text
//!  a: dockerd, weft ── network `weft`, own networks ── containers
//!     └─ weft's docker.sock: attached containers, too
//! ```

use std::time::Duration;

use weft_netns_tests::{DockerClient, Dockerd, IMAGE, Lab, Weft, in_docker_lab, within};

/// A refusal that needs nobody else, on a busy machine: Docker's own part takes a second.
const REFUSAL_LIMIT: Duration = Duration::from_secs(5);
/// For names to follow, on a busy machine.
const SOON: Duration = Duration::from_secs(20);
const DRIVERS: [&str; 4] = ["--driver", "weftmesh", "--ipam-driver", "weftmesh"];

fn host(lab: &Lab, flags: &[&str]) -> (Dockerd, Weft) {
    let host = lab.host("a");
    lab.plug(&lab.switch("switch"), &host, "eth0", "192.0.2.1/24");
    let docker = lab.dockerd(&host, &[]);
    let weft = lab.weft(docker.host());
    weft.ok(&[&["launch"], flags].concat());
    (docker, weft)
}

fn network(docker: &Dockerd, name: &str, subnet: &str) {
    let made = [
        &["network", "create"],
        &DRIVERS[..],
        &["--subnet", subnet, name],
    ];
    docker.ok(&made.concat());
}

fn through_the_proxy(docker: &Dockerd, weft: &Weft) -> DockerClient {
    let socket = weft.run_dir().join("docker.sock");
    docker.client_of(&format!("unix://{}", socket.display()))
}

fn runs(docker: &DockerClient, name: &str, flags: &[&str]) {
    let started = docker.stay(name, flags);
    assert_eq!(started.code, 0, "{started:?}");
}

fn finds(weft: &Weft, name: &str) -> bool {
    !weft.run(&["dns-lookup", name]).stdout.is_empty()
}

#[test]
fn a_full_subnet_of_the_only_host_is_refused_at_once() {
    in_docker_lab(|lab| {
        let (docker, weft) = host(lab, &[]);
        network(&docker, "small", "10.40.0.0/30");
        let client = docker.client();
        for name in ["c1", "c2"] {
            runs(&client, name, &["--net=small"]);
        }
        let reason = "no free address in 10.40.0.0/30: all addresses are in use";
        runs(&client, "c4", &["--net=none"]);
        let took = within("two refusals", REFUSAL_LIMIT, || {
            let refused = client.stay("c3", &["--net=small"]);
            assert!(refused.stderr.contains(reason), "{refused:?}");
            let refused = weft.run(&["attach", "net:10.40.0.0/30", "c4"]);
            assert!(refused.stderr.contains(reason), "{refused:?}");
            true
        });
        assert!(took < REFUSAL_LIMIT, "{took:?}");
        docker.ok(&["rm", "-f", "c1"]);
        runs(&client, "c5", &["--net=small"]);
    });
}

#[test]
fn a_container_is_called_what_docker_calls_it_dots_or_not_and_until_it_is_renamed() {
    in_docker_lab(|lab| {
        let (docker, weft) = host(lab, &[]);
        let client = docker.client();
        runs(&client, "c.d", &["--net=weft"]);
        runs(&client, "x_1", &["--net=weft", "--network-alias", "y.z"]);
        for name in ["c.d.weave.local", "x_1", "y.z.weave.local"] {
            within("the name", SOON, || finds(&weft, name));
        }
        runs(&client, "e..f", &["--net=weft"]);
        within("a word on a name that is none", SOON, || {
            weft.log().contains("a name that DNS does not answer for")
        });

        weft.ok(&["dns-add", "c.d", "-h", "by-hand"]);
        docker.ok(&["rename", "c.d", "gg"]);
        within("the new name", SOON, || finds(&weft, "gg"));
        within("the end of the old one", SOON, || {
            !finds(&weft, "c.d.weave.local")
        });
        assert!(finds(&weft, "by-hand"));
        weft.crash();
        docker.ok(&["rename", "gg", "hh"]);
        docker.ok(&["rename", "hh", "ii"]);
        weft.ok(&["launch"]);
        within("the name that it got meanwhile", SOON, || {
            finds(&weft, "ii") && !finds(&weft, "gg")
        });
        assert!(
            finds(&weft, "by-hand"),
            "given by hand, also before the crash"
        );

        let proxy = through_the_proxy(&docker, &weft);
        runs(&proxy, "p_q.r-1", &[]);
        within("the name", SOON, || finds(&weft, "p_q.r-1.weave.local"));
        let hosts = docker.ok(&["exec", "p_q.r-1", "cat", "/etc/hosts"]);
        let own: Vec<&str> = hosts.lines().filter(|line| line.contains("p_q")).collect();
        assert!(
            own.len() == 1 && own[0].ends_with(" p_q.r-1.weave.local p_q.r-1"),
            "{hosts}"
        );
    });
}

/// More than once: it is a race.
#[test]
fn the_first_instruction_finds_the_containers_own_name() {
    in_docker_lab(|lab| {
        let (docker, _weft) = host(lab, &[]);
        for number in 0..5 {
            let name = format!("c{number}");
            let asking = format!("nslookup {name}.weave.local 169.254.53.1");
            let flags = ["run", "--rm", "--net=weft", "--name", &name, IMAGE];
            let found = docker.docker(&[&flags[..], &["sh", "-c", &asking]].concat());
            assert_eq!(found.code, 0, "{found:?}");
        }
    });
}

#[test]
fn an_attached_container_joins_other_subnets_and_is_told_why_not_its_own() {
    in_docker_lab(|lab| {
        let (docker, weft) = host(lab, &["--ipalloc-default-subnet", "10.33.0.0/16"]);
        network(&docker, "forty", "10.40.0.0/16");
        network(&docker, "one", "10.41.0.0/16");
        let proxy = through_the_proxy(&docker, &weft);
        runs(&proxy, "c1", &[]);
        let refused = docker.docker(&["network", "connect", "weft", "c1"]);
        assert!(
            refused.stderr.contains("on ethwe already") && refused.stderr.contains("weft detach"),
            "{refused:?}"
        );
        docker.ok(&["network", "connect", "forty", "c1"]);
        let routes = docker.ok(&["exec", "c1", "ip", "route"]);
        assert!(routes.contains("10.40.0.0/16 dev ethwe0"), "{routes}");
        assert!(routes.contains("169.254.53.1 dev ethwe "), "{routes}");

        docker.ok(&[
            "create",
            "--name",
            "c2",
            "--net=forty",
            IMAGE,
            "sleep",
            "1000",
        ]);
        docker.ok(&["network", "connect", "one", "c2"]);
        docker.ok(&["start", "c2"]);
        docker.ok(&["network", "connect", "weft", "c2"]);
        let routes = docker.ok(&["exec", "c2", "ip", "route"]);
        assert_eq!(routes.matches("169.254.53.1").count(), 1, "{routes}");
        assert_eq!(routes.matches("224.0.0.0/4").count(), 1, "{routes}");
        docker.ok(&["rm", "-f", "c1", "c2"]);
    });
}

#[test]
fn a_container_keeps_its_address_when_the_range_is_another_until_it_starts_again() {
    in_docker_lab(|lab| {
        let (docker, weft) = host(lab, &[]);
        let proxy = through_the_proxy(&docker, &weft);
        runs(&proxy, "c1", &[]);
        let addresses = || docker.ok(&["exec", "c1", "ip", "-4", "addr", "show", "dev", "ethwe"]);
        let before = addresses();
        weft.ok(&["stop"]);
        weft.ok(&["launch", "--ipalloc-range", "10.64.0.0/16"]);
        within("a note of the old address", SOON, || {
            weft.ok(&["status"])
                .contains("until they start again: c1 (10.32.0.1/12)")
        });
        assert_eq!(addresses(), before);
        within("its name", SOON, || finds(&weft, "c1"));

        let restarted = proxy.run(&["restart", "c1"]);
        assert_eq!(restarted.code, 0, "{restarted:?}");
        let now = addresses();
        assert!(
            now.contains("10.64.0.1/16") && !now.contains("10.32."),
            "{now}"
        );
        assert!(!weft.ok(&["status"]).contains("until they start again"));
    });
}

#[test]
fn the_network_weft_has_the_new_range_once_nobody_is_on_it() {
    in_docker_lab(|lab| {
        let (docker, weft) = host(lab, &[]);
        runs(&docker.client(), "c1", &["--net=weft"]);
        weft.ok(&["stop"]);
        weft.ok(&["launch", "--ipalloc-range", "10.64.0.0/16"]);
        within("what is wrong with it", SOON, || {
            weft.ok(&["status"])
                .contains("weft, which in Docker has the subnet 10.32.0.0/12, not 10.64.0.0/16")
        });
        docker.ok(&["rm", "-f", "c1"]);
        let subnet = ["network", "inspect", "-f", "{{json .IPAM.Config}}", "weft"];
        within("another one", SOON, || {
            docker.docker(&subnet).stdout.contains("10.64.0.0/16")
        });
        runs(&docker.client(), "c2", &["--net=weft"]);
    });
}
