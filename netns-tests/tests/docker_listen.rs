//! Where the Docker proxy's clients come in, and what they are shown there.
//!
//! ```text
//!  docker ─┬─ unix socket of one's own ──► weft's proxy ─► dockerd
//!          └─ tcp, both certificates checked ─┘
//! ```

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use weft_netns_tests::{DockerClient, IMAGE, Weft, in_docker_lab, within};

/// Where the proxy listens.
const PORT: &str = "tcp://127.0.0.1:12376";
/// On a busy machine.
const SOON: Duration = Duration::from_secs(20);
/// Longer than `docker stop` may take of a container that does as it is told.
const PATIENCE: &str = "60";

/// Authorities and what they signed, made by openssl.
struct Certificates(PathBuf);

impl Certificates {
    fn new(folder: &Path) -> Self {
        fs::create_dir_all(folder).expect("the lab's folder is writable");
        let all = Self(folder.to_path_buf());
        for authority in ["ca", "other"] {
            let subject = format!("/CN={authority}");
            let key = format!("{authority}-key.pem");
            let own = format!("{authority}.pem");
            all.openssl(
                &[
                    "req", "-x509", "-days", "2", "-subj", &subject, "-keyout", &key, "-out", &own,
                ],
                true,
            );
        }
        let server = "subjectAltName=IP:127.0.0.1\nextendedKeyUsage=serverAuth\n";
        all.sign("weft", "ca", server);
        all.sign("client", "ca", "extendedKeyUsage=clientAuth\n");
        all.sign("stranger", "other", "extendedKeyUsage=clientAuth\n");
        all
    }

    fn openssl(&self, words: &[&str], makes_key: bool) {
        let mut command = Command::new("openssl");
        command
            .args(words)
            .current_dir(&self.0)
            .stderr(Stdio::null());
        if makes_key {
            command.args([
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:P-256",
                "-nodes",
            ]);
        }
        let status = command.status().expect("openssl is installed");
        assert!(status.success(), "openssl {words:?}");
    }

    fn sign(&self, name: &str, authority: &str, extensions: &str) {
        let file = |end: &str| format!("{name}{end}");
        let (subject, key, asked) = (format!("/CN={name}"), file("-key.pem"), file("-req.pem"));
        self.openssl(
            &["req", "-subj", &subject, "-keyout", &key, "-out", &asked],
            true,
        );
        fs::write(self.0.join(file("-ext")), extensions).expect("the lab's folder is writable");
        let (extensions, signed) = (file("-ext"), file(".pem"));
        let (ca, ca_key) = (format!("{authority}.pem"), format!("{authority}-key.pem"));
        let words = [
            "x509", "-req", "-days", "2", "-in", &asked, "-CA", &ca, "-CAkey", &ca_key,
        ];
        let more = ["-CAcreateserial", "-extfile", &extensions, "-out", &signed];
        self.openssl(&[&words[..], &more].concat(), false);
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).to_string_lossy().into_owned()
    }

    /// The flags of `docker` for a client of this name.
    fn flags(&self, name: &str) -> Vec<String> {
        let mut flags = vec!["--tlsverify".to_owned()];
        for (flag, file) in [
            ("--tlscacert", "ca.pem".to_owned()),
            ("--tlscert", format!("{name}.pem")),
            ("--tlskey", format!("{name}-key.pem")),
        ] {
            flags.extend([flag.to_owned(), self.path(&file)]);
        }
        flags
    }
}

/// Runs a client with this stdin; returns its code and what it said.
fn fed(client: &DockerClient, words: &[&str], input: &[u8]) -> (Option<i32>, Vec<u8>) {
    let mut command = client.command(words);
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let mut child = command.spawn().expect("docker is installed");
    let mut stdin = child.stdin.take().expect("it is piped");
    let input = input.to_vec();
    let writing = std::thread::spawn(move || stdin.write_all(&input));
    let output = child.wait_with_output().expect("docker ends");
    // A client that is refused does not read.
    let _ = writing.join();
    (output.status.code(), output.stdout)
}

#[test]
fn clients_come_in_where_they_are_told_and_over_tcp_with_a_certificate_only() {
    in_docker_lab(|lab| {
        let [host, _] = lab.two_hosts();
        let docker = lab.dockerd(&host, &[]);
        let weft = lab.weft(docker.host());
        let files = Certificates::new(&lab.folder().join("certificates"));
        refuses_a_port_for_everybody(&weft);
        let own = format!("unix://{}", lab.folder().join("own.sock").display());
        let tls = [
            files.path("ca.pem"),
            files.path("weft.pem"),
            files.path("weft-key.pem"),
        ];
        let launch = [
            "launch",
            "-H",
            &own,
            "-H",
            PORT,
            "--tlsverify",
            "--rewrite-inspect",
        ];
        let with_files = [
            "--tlscacert",
            &tls[0],
            "--tlscert",
            &tls[1],
            "--tlskey",
            &tls[2],
        ];
        weft.ok(&[&launch[..], &with_files].concat());
        weft.ok(&["prime"]);
        let shown = weft.ok(&["env"]);
        assert!(
            shown.starts_with(&format!("export DOCKER_HOST={own} ")),
            "{shown}"
        );
        assert_eq!(weft.ok(&["config"]).trim(), format!("-H={own}"));
        let status = weft.ok(&["status"]);
        assert!(status.contains(&own) && status.contains(PORT), "{status}");

        let tcp = docker.client_of(PORT);
        let good = files.flags("client");
        let good: Vec<&str> = good.iter().map(String::as_str).collect();
        let over_tcp = |words: &[&str]| tcp.ok(&[&good[..], words].concat());
        docker
            .client_of(&own)
            .ok(&["run", "-d", "--name", "c1", IMAGE, "sleep", "1000"]);
        let said = over_tcp(&[
            "exec", "c1", "ip", "-o", "-4", "addr", "show", "dev", "ethwe",
        ]);
        assert!(said.contains("inet 10.32.0.1/12"), "{said}");
        // The end of the client's half gets through, and all that was before it.
        let large: Vec<u8> = (0..3 << 20)
            .map(|at: u32| at.to_le_bytes()[at as usize % 4])
            .collect();
        let words = [&good[..], &["run", "--rm", "-i", IMAGE, "cat"]].concat();
        assert!(fed(&tcp, &words, &large) == (Some(0), large.clone()));
        let words = [
            &good[..],
            &["exec", "-i", "c1", "sh", "-c", "cat > /large; echo done"],
        ]
        .concat();
        assert_eq!(fed(&tcp, &words, &large), (Some(0), b"done\n".to_vec()));
        let size = over_tcp(&["exec", "c1", "stat", "-c", "%s", "/large"]);
        assert_eq!(size, large.len().to_string());

        refuses_strangers(&files, &tcp);
        shows_the_address_here(&docker.client(), &docker.client_of(&own));
        weft.ok(&["stop"]);
        assert!(!lab.folder().join("own.sock").exists());
    });
}

fn refuses_a_port_for_everybody(weft: &Weft) {
    for (flags, reason) in [
        (&["-H", PORT][..], "give --tlsverify"),
        (&["--tlsverify"], "there is no port"),
        (
            &["-H", "tcp://localhost:1"],
            "give unix:///path/to/socket or tcp://IP:port",
        ),
    ] {
        let refused = weft.run(&[&["launch"], flags].concat());
        assert_eq!(refused.code, 2, "{flags:?}: {refused:?}");
        assert!(refused.stderr.contains(reason), "{flags:?}: {refused:?}");
    }
}

fn refuses_strangers(files: &Certificates, tcp: &DockerClient) {
    let ca = files.path("ca.pem");
    let stranger = files.flags("stranger");
    let stranger: Vec<&str> = stranger.iter().map(String::as_str).collect();
    let authority = ["--tls", "--tlscacert", &ca];
    for flags in [&stranger[..], &authority, &[]] {
        let refused = tcp.run(&[flags, &["ps"]].concat());
        assert_ne!(refused.code, 0, "{flags:?}: {refused:?}");
    }
}

fn shows_the_address_here(theirs: &DockerClient, ours: &DockerClient) {
    let format = "{{.NetworkSettings.IPAddress}}/{{.NetworkSettings.IPPrefixLen}} {{.NetworkSettings.MacAddress}}";
    let show = ["inspect", "-f", format, "c1"];
    let mac = ours.ok(&["exec", "c1", "cat", "/sys/class/net/ethwe/address"]);
    assert_eq!(ours.ok(&show), format!("10.32.0.1/12 {mac}"));
    assert!(theirs.ok(&show).starts_with("172.17."));
    // One that is not on the network is as Docker says.
    theirs.ok(&["run", "-d", "--name", "c2", IMAGE, "sleep", "1000"]);
    let of_other = ["inspect", "c2"];
    assert_eq!(ours.ok(&of_other), theirs.ok(&of_other));
}

#[test]
fn a_container_keeps_its_own_hosts_and_ends_at_once_while_it_waits() {
    in_docker_lab(|lab| {
        let (docker, weft) = lab.docker_and_weft(&[], &[]);
        let config = weft.ok(&["config"]);
        let client = docker.client_of(config.trim().strip_prefix("-H=").expect("a proxy runs"));
        let read = [
            "run",
            "--rm",
            "--name",
            "c0",
            "--add-host",
            "other:192.0.2.9",
            IMAGE,
            "cat",
            "/etc/hosts",
        ];
        let hosts = client.ok(&read);
        let is_there = |address: &str, name: &str| {
            let mut lines = hosts
                .lines()
                .map(|line| line.split_whitespace().collect::<Vec<_>>());
            lines.any(|words| words.first() == Some(&address) && words.contains(&name))
        };
        assert!(
            is_there("192.0.2.9", "other") && is_there("10.32.0.1", "c0"),
            "{hosts}"
        );

        client.ok(&["run", "-d", "--name", "c2", IMAGE, "sleep", "1000"]);
        let lines_of_c2 = || docker.ok(&["exec", "c2", "cat", "/etc/hosts"]);
        assert!(lines_of_c2().contains("# weft begin\n10.32."));
        weft.ok(&["reset"]);
        assert!(!lines_of_c2().contains("weft"), "{}", lines_of_c2());
        weft.ok(&["launch"]);

        client.ok(&["create", "--name", "c1", IMAGE, "sleep", "1000"]);
        weft.ok(&["stop"]);
        // Nobody will bring the network.
        docker.ok(&["start", "c1"]);
        let top = || docker.ok(&["top", "c1", "-o", "pid,args"]);
        within("the wait program waits", SOON, || {
            top().contains("/w/w sleep 1000")
        });
        let stop = docker.docker(&["stop", "-t", PATIENCE, "c1"]);
        assert!(stop.code == 0 && stop.took < SOON, "{stop:?}");
        assert_eq!(
            docker.ok(&["inspect", "-f", "{{.State.ExitCode}}", "c1"]),
            "143"
        );
    });
}
