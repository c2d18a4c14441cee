//! Names of Docker's containers, and how a shell finds the proxy.
//!
//! ```text
//!  a: a shell ─► docker, weft ─► weft's docker.sock ─► dockerd
//! ```

use std::time::Duration;

use weft_netns_tests::{Dockerd, IMAGE, Lab, Terminal, eventually, in_docker_lab};

/// To be ready and to agree, on a busy machine.
const SOON: Duration = Duration::from_secs(20);
const STAY: &str = "docker run -d --stop-signal KILL";

fn place(lab: &Lab) -> (Dockerd, Terminal) {
    let host = lab.host("a");
    lab.plug(&lab.switch("switch"), &host, "eth0", "192.0.2.1/24");
    let docker = lab.dockerd(&host, &[]);
    docker.ok(&["tag", IMAGE, "app"]);
    let shell = lab.terminal(docker.host(), &[]);
    (docker, shell)
}

/// Starts a container that stays.
fn stay(shell: &mut Terminal, flags: &str) {
    shell.quietly(&format!("{STAY} {flags} app sleep 1000"));
}

/// Whether a container finds a name, once the answer is settled.
fn finds(shell: &mut Terminal, from: &str, name: &str) {
    let line = format!("docker exec {from} ping -c 1 -W 1 {name}");
    eventually(&line, SOON, || (shell.enter(&line).0 == 0).then_some(()));
}

fn env_says_that_nothing_runs(shell: &mut Terminal) {
    let (code, said) = shell.enter("weft env");
    assert!(
        code == 3 && said.contains("weft is not running"),
        "{code}: {said}"
    );
    // A shell takes no part of that for an assignment.
    let evaluated = shell.enter("eval $(weft env 2> /dev/null)");
    assert_eq!(evaluated, (0, String::new()));
}

#[test]
fn a_shell_finds_the_proxy_and_gives_it_up_again() {
    in_docker_lab(|lab| {
        let (_docker, mut shell) = place(lab);
        env_says_that_nothing_runs(&mut shell);
        let (code, said) = shell.enter("weft config");
        assert!(code != 0 && !said.contains("-H"), "{said}");
        assert_ne!(shell.enter("weft env --restore").0, 0, "nothing to restore");

        shell.quietly("weft launch");
        let said = shell.quietly("docker $(weft config) run --rm app hostname -i");
        assert!(said.starts_with("10.32.0.1"), "{said}");
        let outside = shell.quietly("docker run --rm app ip link");
        assert!(
            !outside.contains("ethwe"),
            "not through the proxy: {outside}"
        );

        shell.quietly("export DOCKER_HOST=unix:///run/docker/docker.sock");
        shell.quietly("eval $(weft env)");
        let address = shell.quietly("echo $DOCKER_HOST");
        assert!(
            address.ends_with("/docker.sock") && address.contains("weft"),
            "{address}"
        );
        let said = shell.quietly("docker run --rm app ip link");
        assert!(said.contains("ethwe"), "{said}");
        // weft's own verbs work in such a shell, and a second `env` forgets nothing.
        stay(&mut shell, "-e WEAVE_CIDR=none --name c1");
        let given = shell.quietly("weft attach c1");
        assert!(shell.quietly("weft ps").contains(&given));
        shell.quietly("eval $(weft env)");
        shell.quietly("eval $(weft env --restore)");
        let address = shell.quietly("echo $DOCKER_HOST");
        assert_eq!(address, "unix:///run/docker/docker.sock");

        // Nor does one of a weft elsewhere, while the shell has the address of the first.
        shell.quietly("eval $(weft env)");
        shell.quietly("weft stop");
        shell.quietly("export WEFT_RUN_DIR=$WEFT_RUN_DIR/other");
        shell.quietly("weft launch");
        shell.quietly("eval $(weft env)");
        let address = shell.quietly("echo $DOCKER_HOST");
        assert!(address.ends_with("/other/docker.sock"), "{address}");
        shell.quietly("eval $(weft env --restore)");
        let address = shell.quietly("echo $DOCKER_HOST");
        assert_eq!(address, "unix:///run/docker/docker.sock");

        shell.quietly("weft stop");
        env_says_that_nothing_runs(&mut shell);
    });
}

#[test]
fn names_come_from_container_names_or_labels_and_are_cut_as_asked() {
    in_docker_lab(|lab| {
        let (_docker, mut shell) = place(lab);
        let cut =
            "--hostname-match '^aws-[0-9]+-(?P<app>.*)$' --hostname-replacement 'my-app-$app'";
        shell.quietly(&format!("weft launch {cut}"));
        shell.quietly("eval $(weft env)");
        stay(&mut shell, "--name aws-12798186823-foo");
        stay(&mut shell, "--name bar --add-host printer:10.32.0.1");
        finds(&mut shell, "bar", "my-app-foo");
        finds(&mut shell, "aws-12798186823-foo", "bar");
        finds(&mut shell, "bar", "printer");
        shell.quietly("docker rm -f bar aws-12798186823-foo");
        shell.quietly("weft stop");

        shell.quietly(&format!(
            "weft launch --hostname-from-label host-label {cut}"
        ));
        stay(&mut shell, "--name c1 --label host-label=aws-1-web");
        stay(&mut shell, "--name c2 --label host-label=shop");
        finds(&mut shell, "c2", "my-app-web");
        finds(&mut shell, "c1", "shop");
        assert_eq!(shell.quietly("docker exec c2 hostname"), "shop");
        shell.quietly("docker rm -f c1 c2");
        shell.quietly("weft stop");

        shell.quietly("weft launch --without-dns");
        stay(&mut shell, "--name c3");
        stay(&mut shell, "--name c4 --add-host printer:10.32.0.1");
        finds(&mut shell, "c4", "printer");
        let (code, said) = shell.enter("docker exec c4 ping -c 1 -W 1 c3");
        assert_ne!(code, 0, "{said}");
        let resolver = shell.quietly("docker exec c4 cat /etc/resolv.conf");
        assert!(!resolver.contains("weave.local"), "{resolver}");
    });
}
