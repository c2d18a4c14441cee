//! weft from its Docker image, run with the words of the README.
//!
//! ```text
//!  a: dockerd ─ weft's container, c1 192.0.2.1 ══ 192.0.2.2 b: the same, c2; io_uring is refused
//! ```

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::Signal;
use weft_netns_tests::{
    DockerClient, Dockerd, IMAGE, Lab, eventually, in_docker_lab, is_long, within,
};

/// To be ready, to be connected and to agree, on a busy machine.
const SOON: Duration = Duration::from_secs(30);
/// Refuses io_uring as newer Dockers do, and what the unit for systemd refuses (`systemd-analyze syscall-filter` lists
/// it).
const PROFILE: &str = r#"{
    "defaultAction": "SCMP_ACT_ALLOW",
    "syscalls": [{
        "names": ["io_uring_setup", "io_uring_enter", "io_uring_register",
            "adjtimex", "clock_adjtime", "clock_settime", "settimeofday", "modify_ldt", "vm86", "vm86old",
            "lookup_dcookie", "perf_event_open", "pidfd_getfd", "ptrace", "delete_module", "finit_module",
            "init_module", "_sysctl", "create_module", "query_module", "sysfs", "uselib", "ustat", "ioperm",
            "iopl", "pciconfig_read", "pciconfig_write", "kexec_file_load", "kexec_load", "reboot", "swapoff",
            "swapon"],
        "action": "SCMP_ACT_ERRNO",
        "errnoRet": 1
    }]
}"#;

fn root() -> PathBuf {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.parent()
        .expect("the crate lies in the workspace")
        .into()
}

/// The README's command, from `docker` to the word before the image's name.
fn readme_command() -> Vec<String> {
    let readme = fs::read_to_string(root().join("README.md")).expect("there is one");
    let (_, after) = readme
        .split_once("docker run -d --name weft ")
        .expect("the README runs the image");
    let (words, _) = after.split_once(" weft launch ").expect("of that name");
    let words = words.replace("\\\n", " ");
    let given = words.split_whitespace().map(str::to_owned);
    let run = ["run", "-d", "--name", "weft"].map(str::to_owned);
    run.into_iter().chain(given).collect()
}

/// A host whose weft is a container.
struct Place {
    docker: Dockerd,
    folder: PathBuf,
}

impl Place {
    fn make_image(&self, lab: &Lab) {
        let mut command = self.docker.host().command("bash");
        command.arg(root().join("cli/dist/image")).arg("weft");
        if is_long() {
            // Built as it is shipped: static.
            command.current_dir(root());
        } else {
            command.arg(lab.binary());
        }
        command.env("DOCKER_HOST", self.docker.address());
        command.env("DOCKER_CONFIG", self.folder.join("docker-client"));
        let output = command.output().expect("bash is installed");
        assert!(output.status.success(), "{output:?}");
    }

    /// Runs it, with the lab's folders in the place of the machine's.
    fn launch(&self, flags: &[&str], peers: &[&str]) {
        let folder = self.folder.display();
        let own = [
            ("/var/lib/weft", format!("{folder}/data")),
            ("/var/lib/docker", format!("{folder}/docker")),
        ];
        let command = readme_command().into_iter().map(|word| {
            own.iter()
                .fold(word, |word, (usual, own)| word.replace(usual, own))
        });
        let run_dir = format!("WEFT_RUN_DIR={folder}/run");
        let data_dir = format!("WEFT_DATA_DIR={folder}/data");
        let mut words: Vec<String> = command.collect();
        words.extend(["-e", &run_dir, "-e", &data_dir].map(str::to_owned));
        words.extend(
            flags
                .iter()
                .chain(&["weft", "launch", "--foreground"])
                .map(|&word| word.to_owned()),
        );
        words.extend(peers.iter().map(|&word| word.to_owned()));
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        self.docker.ok(&words);
        let ready = || self.docker.docker(&["exec", "weft", "weft", "status"]).code == 0;
        within("weft to be ready", SOON, || {
            let runs = self.docker.ok(&[
                "inspect",
                "-f",
                "{{.State.Status}} {{.RestartCount}}",
                "weft",
            ]);
            assert_eq!(
                runs,
                "running 0",
                "{}",
                self.docker.docker(&["logs", "weft"]).stderr
            );
            ready()
        });
    }

    fn weft(&self, words: &[&str]) -> String {
        self.docker.ok(&[&["exec", "weft", "weft"], words].concat())
    }

    fn client(&self) -> DockerClient {
        let socket = self.folder.join("run/docker.sock");
        self.docker
            .client_of(&format!("unix://{}", socket.display()))
    }

    fn stay(&self, name: &str) {
        let quick = ["run", "-d", "--stop-signal", "KILL", "--name", name];
        self.client()
            .ok(&[&quick[..], &[IMAGE, "sleep", "1000"]].concat());
    }

    fn pings(&self, from: &str, to: &str) -> bool {
        let words = ["exec", from, "ping", "-c", "1", "-W", "1", to];
        self.docker.docker(&words).code == 0
    }
}

#[test]
fn the_image_needs_no_privileges_and_does_without_io_uring() {
    in_docker_lab(|lab| {
        let hosts = lab.two_hosts();
        let places = lab.dockerds(hosts.each_ref(), &[]).map(|docker| Place {
            folder: lab.folder().join(docker.host().name()),
            docker,
        });
        places.iter().for_each(|place| place.make_image(lab));
        let profile = lab.folder().join("seccomp.json");
        fs::write(&profile, PROFILE).expect("the lab's folder is writable");
        let refused = format!("seccomp={}", profile.display());
        let [a, b] = &places;
        a.launch(&[], &[]);
        b.launch(&["--security-opt", &refused], &["192.0.2.1"]);
        for place in &places {
            let given = "{{.HostConfig.Privileged}}";
            assert_eq!(place.docker.ok(&["inspect", "-f", given, "weft"]), "false");
        }
        let status = b.weft(&["status"]);
        let backend = status.lines().find(|line| line.contains("Backend:"));
        let backend = backend.unwrap_or_else(|| panic!("{status}"));
        assert!(
            backend.contains("epoll (") && backend.contains("io_uring"),
            "{backend}"
        );

        a.stay("c1");
        b.stay("c2");
        for (place, from, to) in [(a, "c1", "c2"), (b, "c2", "c1")] {
            within("the other by name", SOON, || place.pings(from, to));
        }
        a.docker.ok(&[
            "run",
            "-d",
            "--stop-signal",
            "KILL",
            "--name",
            "c3",
            IMAGE,
            "sleep",
            "1000",
        ]);
        let given = a.weft(&["attach", "c3"]);
        within("what was attached", SOON, || b.pings("c2", &given));
        assert_eq!(a.weft(&["detach", "c3"]), given);

        a.weft(&["expose"]);
        let (c2, _) = eventually("the name", SOON, || {
            Some(a.weft(&["dns-lookup", "c2"])).filter(|found| !found.is_empty())
        });
        let c2 = c2.parse().expect("an address");
        within("the host is on the network", SOON, || {
            a.docker.host().reaches(c2)
        });
        let network = a.docker.docker(&["network", "inspect", "weft"]);
        assert_eq!(network.code, 0, "the plugin serves: {network:?}");
        for place in &places {
            let said = place.docker.docker(&["logs", "weft"]);
            for line in said.stderr.lines().chain(said.stdout.lines()) {
                assert!(!line.contains("ERROR"), "{line}");
                let is_expected = ["open membership", "io_uring"];
                let is_fine = is_expected.iter().any(|word| line.contains(word));
                assert!(is_fine || !line.contains("WARN"), "{line}");
            }
        }
    });
}

/// Puts the old iptables in the place of the other, for the programs of one host; of the other nothing is left.
const USE_OLD_IPTABLES: &str = "set -e
nft flush ruleset
mount --bind $(readlink -f $(command -v iptables-legacy)) $(readlink -f $(command -v iptables-nft))";

#[test]
fn the_image_finds_dockers_filter_whichever_iptables_docker_uses() {
    in_docker_lab(|lab| {
        let [host, _] = lab.two_hosts();
        let docker = lab.dockerd(&host, &[]);
        let mut place = Place {
            folder: lab.folder().join(host.name()),
            docker,
        };
        place.make_image(lab);
        place.docker.stop(Signal::SIGTERM);
        place.docker.host().run(&["sh", "-c", USE_OLD_IPTABLES]);
        place.docker.begin();
        place.docker.wait_until_it_serves();
        place.launch(&[], &[]);
        within("the rule", SOON, || {
            let words = ["iptables-legacy", "-S", "DOCKER-USER"];
            let listed = place.docker.host().output(&words);
            String::from_utf8_lossy(&listed.stdout).contains("-i weft -o weft -j ACCEPT")
        });
    });
}
