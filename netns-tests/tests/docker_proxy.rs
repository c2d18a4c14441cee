//! Containers that are started through weft's Docker proxy: the network is there before their first program.
//!
//! ```text
//!  a: docker ─► weft's docker.sock ─► dockerd        192.0.2.1 ══ 192.0.2.2        b: the same
//! ```

use std::net::Ipv4Addr;
use std::time::Duration;

use weft_netns_tests::{DockerClient, Dockerd, Host, IMAGE, Lab, Weft, in_docker_lab, within};

/// For a link, a path, or a name to be there on a busy machine.
const SOON: Duration = Duration::from_secs(20);
/// What a container does that only has to stay; it ends at once when told to.
const STAY: [&str; 5] = [IMAGE, "sh", "-c", "trap exit TERM; sleep 1000 & wait", "sh"];

/// Docker, weft and a client of its proxy on one host.
struct Place {
    docker: Dockerd,
    weft: Weft,
}

impl Place {
    fn launch(lab: &Lab, name: &Host, flags: &[&str]) -> Self {
        let docker = lab.dockerd(name, &[]);
        let weft = lab.weft(docker.host());
        weft.ok(&[&["launch"], flags].concat());
        Self { docker, weft }
    }

    fn client(&self) -> DockerClient {
        let config = self.weft.ok(&["config"]);
        let address = config.trim().strip_prefix("-H=").expect("a proxy runs");
        self.docker.client_of(address)
    }

    /// Starts a container that stays, through the proxy; returns its id.
    fn stay(&self, flags: &[&str]) -> String {
        let words = [&["run", "-d"], flags, &STAY[..]].concat();
        self.client().ok(&words)
    }
}

#[test]
fn two_hosts_first_containers() {
    in_docker_lab(|lab| {
        let [a, b] = lab.two_hosts();
        let a = Place::launch(lab, &a, &[]);
        a.stay(&["--name", "a2"]);
        let b = Place::launch(lab, &b, &["192.0.2.1"]);
        let a3 = b.stay(&["--name", "a3"]);

        let link = |place: &Place, name: &str| {
            let shown = ["exec", name, "ip", "addr", "show", "dev", "ethwe"];
            place.docker.ok(&shown)
        };
        let (of_a2, of_a3) = (link(&a, "a2"), link(&b, "a3"));
        assert!(
            of_a2.contains("mtu 1376") && of_a2.contains("inet 10.32.0.1/12"),
            "{of_a2}"
        );
        assert!(
            of_a3.contains("mtu 1376") && of_a3.contains("inet 10.44.0.0/12"),
            "{of_a3}"
        );
        let eth0 = a
            .docker
            .ok(&["exec", "a2", "ip", "link", "show", "dev", "eth0"]);
        assert!(eth0.contains("mtu 1500"), "{eth0}");
        for (place, from, to) in [(&b, "a3", "a2"), (&a, "a2", "a3")] {
            within(&format!("{from} reaches {to}"), SOON, || {
                place
                    .docker
                    .docker(&["exec", from, "ping", "-c", "1", "-W", "2", to])
                    .code
                    == 0
            });
        }
        let said = b
            .docker
            .ok(&["exec", "a3", "ping", "-c", "1", "-W", "2", "a2"]);
        assert!(said.contains("PING a2 (10.32.0.1)"), "{said}");

        let listed = b.weft.ok(&["ps"]);
        let lines: Vec<Vec<&str>> = listed
            .lines()
            .map(|line| line.split(' ').collect())
            .collect();
        assert_eq!(lines.len(), 2, "{listed}");
        assert_eq!((lines[0][0], lines[0].len()), ("weave:expose", 2));
        assert_eq!((lines[1][0], lines[1][2]), (&a3[..12], "10.44.0.0/12"));
        for typed in ["a3", &a3[..4], &a3] {
            let line = b.weft.ok(&["ps", typed, "nobody"]);
            assert_eq!(line.trim_end(), listed.lines().nth(1).unwrap(), "{typed}");
        }
    });
}

#[test]
fn the_first_program_finds_the_network_however_its_container_starts() {
    in_docker_lab(|lab| {
        let [host, _] = lab.two_hosts();
        let place = Place::launch(lab, &host, &[]);
        let client = place.client();
        let look =
            "cat /sys/class/net/ethwe/carrier; ip -o addr show dev ethwe; ip route; hostname -i";
        for flags in [
            &["--rm"][..],
            &["--rm", "--net=none"],
            &["--rm", "--net=bridge"],
            &["--rm", "--user", "1000"],
            &["--rm", "--entrypoint", "/bin/sh"],
            &["--rm", "--read-only", "--cap-drop", "ALL"],
        ] {
            let command: &[&str] = if flags.contains(&"--entrypoint") {
                &["-c", look]
            } else {
                &["sh", "-c", look]
            };
            let said = client.ok(&[&["run", "--name", "c1"], flags, &[IMAGE], command].concat());
            let lines: Vec<&str> = said.lines().collect();
            assert_eq!(lines.first(), Some(&"1"), "{flags:?}: {said}");
            assert!(said.contains("inet 10.32.0."), "{flags:?}: {said}");
            assert!(said.contains("224.0.0.0/4 dev ethwe"), "{flags:?}: {said}");
            let own = lines.last().expect("it said something");
            assert!(
                own.starts_with("10.32.0."),
                "{flags:?}: hostname -i: {said}"
            );
        }
        // Created, started, restarted.
        client.ok(&["create", "--name", "c2", IMAGE, "sh", "-c", look]);
        for _ in 0..2 {
            let said = client.ok(&["start", "-a", "c2"]);
            assert!(said.starts_with("1\n"), "{said}");
        }
        // Docker alone starts it again.
        let again = ["run", "-d", "--name", "c3", "--restart", "on-failure:2"];
        client.ok(&[&again[..], &[IMAGE, "sh", "-c", &format!("{look}; exit 1")]].concat());
        within("three runs", SOON, || {
            let log = place.docker.ok(&["logs", "c3"]);
            let runs = log.lines().filter(|line| *line == "1").count();
            assert!(!log.contains("ethwe: No such file"), "{log}");
            runs == 3
        });
    });
}

#[test]
fn containers_of_other_networks_and_programs_that_are_not_there_are_as_with_docker() {
    in_docker_lab(|lab| {
        let [host, _] = lab.two_hosts();
        let place = Place::launch(lab, &host, &[]);
        let (client, docker) = (place.client(), &place.docker);
        let has_ethwe = [
            "sh",
            "-c",
            "test -e /sys/class/net/ethwe && echo yes || echo no",
        ];
        for flags in [&["--net=host"][..], &["-e", "WEAVE_CIDR=none"]] {
            let run = [&["run", "--rm"], flags, &[IMAGE], &has_ethwe].concat();
            assert_eq!(client.ok(&run), "no", "{flags:?}");
        }
        place.stay(&["--name", "c1", "--hostname", "c1"]);
        let stay = ["run", "-d", "--stop-signal", "KILL", "--name", "alone"];
        docker.ok(&[&stay[..], &[IMAGE, "sleep", "1000"]].concat());
        let inside = [&["exec", "alone"], &has_ethwe[..]].concat();
        assert_eq!(client.ok(&inside), "no", "what is none of weft's");
        let joined = ["run", "--rm", "--net=container:c1", IMAGE, "hostname", "-i"];
        assert!(client.ok(&joined).starts_with("10.32.0.1"));
        let mounts = docker.ok(&[
            "inspect",
            "-f",
            "{{len .Mounts}} {{(index .Mounts 0).RW}}",
            "c1",
        ]);
        assert_eq!(mounts, "1 false");

        let missing = client.run(&["run", "--rm", IMAGE, "nosuch"]);
        assert_eq!(missing.code, 127, "{missing:?}");
        let line = "exec: \"nosuch\": executable file not found in $PATH";
        assert!(missing.stderr.contains(line), "{missing:?}");
        let denied = client.run(&["run", "--rm", IMAGE, "/etc"]);
        assert_eq!(denied.code, 126, "{denied:?}");
        for words in [
            &["run", "--rm", "no-such-image", "sh"][..],
            &["create", "--pull", "never", "no-such-image"],
            &["start", "no-such-container"],
            &["inspect", "no-such-container"],
            &["run", "--rm", "--entrypoint", "", IMAGE],
            &["run", "--rm", "--memory", "1", IMAGE, "sh"],
        ] {
            let (ours, theirs) = (client.run(words), docker.docker(words));
            assert_eq!(
                (ours.code, &ours.stderr),
                (theirs.code, &theirs.stderr),
                "{words:?}"
            );
        }
        // A committed image has the wait program once.
        client.ok(&["commit", "c1", "c1-image"]);
        let run = ["run", "-d", "--name", "c2", "c1-image"];
        client.ok(&run);
        let words = docker.ok(&["inspect", "-f", "{{.Config.Entrypoint}}", "c2"]);
        assert_eq!(words.matches("/w/w").count(), 1, "{words}");
    });
}

#[test]
fn addresses_are_those_that_were_asked_for() {
    in_docker_lab(|lab| {
        let [host, _] = lab.two_hosts();
        let flags = [
            "--no-default-ipalloc",
            "--no-multicast-route",
            "--no-rewrite-hosts",
        ];
        let place = Place::launch(lab, &host, &flags);
        let client = place.client();
        let addresses = |variable: Option<&str>| {
            let variable = variable.map(|words| format!("WEAVE_CIDR={words}"));
            let flags: Vec<&str> = variable.iter().flat_map(|line| ["-e", line]).collect();
            let show = "ip -o -4 addr show dev ethwe 2>/dev/null | awk '{print $4}'; ip route | grep -c 224; true";
            client.ok(&[&["run", "--rm"], &flags[..], &[IMAGE, "sh", "-c", show]].concat())
        };
        assert_eq!(addresses(None), "0");
        assert_eq!(addresses(Some("none")), "0");
        assert!(
            addresses(Some("")).starts_with("10.32.0.1/12\n"),
            "{}",
            addresses(Some(""))
        );
        assert_eq!(
            addresses(Some("10.2.1.1/24 ip:10.2.2.1/24")),
            "10.2.1.1/24\n10.2.2.1/24\n0"
        );
        let first = |words: &[&str]| {
            let run = ["run", "--rm", "-e", "WEAVE_CIDR=", IMAGE];
            client.ok(&[&run[..], words].concat())
        };
        assert_eq!(first(&["cat", "/sys/class/net/ethwe/carrier"]), "1");
        // Left to Docker, the host name means Docker's address.
        assert!(first(&["hostname", "-i"]).starts_with("172."));
        let both = addresses(Some("net:10.33.1.0/24 10.2.3.1/32"));
        assert_eq!(both, "10.33.1.1/24\n10.2.3.1/32\n0");

        for (words, reason) in [
            (
                "10.2.1.0/24",
                "10.2.1.0/24 is the address of the network itself",
            ),
            ("none net:default", "\"none\" is no address"),
            ("net:192.0.2.0/24", "out of bounds"),
        ] {
            let variable = format!("WEAVE_CIDR={words}");
            let refused = client.run(&["run", "-e", &variable, IMAGE, "true"]);
            assert_eq!(refused.code, 125, "{words}: {refused:?}");
            assert!(refused.stderr.contains(reason), "{words}: {refused:?}");
        }
        let left = place.docker.ok(&["ps", "-q"]);
        assert_eq!(left, "", "a container that is not attached does not stay");
    });
}

#[test]
fn twenty_at_once_have_twenty_addresses() {
    in_docker_lab(|lab| {
        let [host, _] = lab.two_hosts();
        let place = Place::launch(lab, &host, &[]);
        let client = place.client();
        let run = [&["run", "-d"], &STAY[..]].concat();
        let runs: Vec<_> = (0..20)
            .map(|_| {
                let mut command = client.command(&run);
                command.stdout(std::process::Stdio::piped());
                command.spawn().expect("docker can be started")
            })
            .collect();
        let ids: Vec<String> = runs
            .into_iter()
            .map(|run| {
                let output = run.wait_with_output().expect("docker ends");
                assert!(output.status.success(), "{output:?}");
                String::from_utf8_lossy(&output.stdout).trim().to_owned()
            })
            .collect();
        // None has ended: no address was free for another.
        let mut addresses: Vec<Ipv4Addr> = Vec::new();
        for id in &ids {
            let show = "ip -o -4 addr show dev ethwe | awk '{print $4}'";
            let said = place.docker.ok(&["exec", id, "sh", "-c", show]);
            let address = said.trim().strip_suffix("/12").expect("each has one");
            addresses.push(address.parse().expect("it is an address"));
        }
        addresses.sort_unstable();
        addresses.dedup();
        assert_eq!(addresses.len(), 20, "{addresses:?}");
        let ids = ids.iter().map(String::as_str);
        place
            .docker
            .ok(&Vec::from_iter(["rm", "-f"].into_iter().chain(ids)));
    });
}
