//! What weft's Docker proxy costs: the time of a large transfer, and of a container's start, beside Docker alone.
//!
//! ```text
//!  docker ─┬─ docker.sock ──────────► dockerd     turn by turn, so that both meet the same machine
//!          └─ weft's docker.sock ───►
//! ```
#![expect(
    clippy::print_stdout,
    reason = "figures, for whoever runs it with --nocapture"
)]

use std::fs::{self, File};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::{Map, Value, json};
use weft_netns_tests::{DockerClient, IMAGE, Lab, Weft, in_docker_lab, is_long, now, record};

/// What is moved, in MiB.
const SIZE_LONG: usize = 1024;
const SIZE: usize = 64;
/// How often each way takes its turn.
const TURNS_LONG: usize = 15;
const TURNS: usize = 3;
/// Starts of each kind.
const STARTS_LONG: usize = 60;
const STARTS: usize = 8;
/// Of the direct speed. A short transfer on a machine that does something else beside is told apart from a proxy that
/// crawls, no more.
const RATIO_LONG: f64 = 0.9;
const RATIO: f64 = 0.4;
/// What the network may add to a start, on average; beside other tests the machine itself is slower than that.
const ADDED_LONG: Duration = Duration::from_millis(50);
const ADDED: Duration = Duration::from_millis(1000);

/// The host with Docker, the first of [`Lab::two_hosts`].
const HOST: &str = "a";

/// Keeps what Docker writes in memory: a disk that is written to swings by more than the proxy takes.
fn without_disk(lab: &Lab) {
    let folder = lab.folder().join(HOST);
    fs::create_dir_all(&folder).expect("the lab's folder is writable");
    let mut mount = Command::new("mount");
    let mounted = mount.args(["-t", "tmpfs", "tmpfs"]).arg(&folder).status();
    assert!(mounted.expect("mount is installed").success());
}

/// Docker's own client, and one of the proxy.
fn clients(lab: &Lab) -> ([DockerClient; 2], Weft) {
    without_disk(lab);
    let (docker, weft) = lab.docker_and_weft(&[], &[]);
    let docker = Box::leak(Box::new(docker));
    let config = weft.ok(&["config"]);
    let address = config.trim().strip_prefix("-H=").expect("a proxy runs");
    ([docker.client(), docker.client_of(address)], weft)
}

fn median(times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

/// Runs a client with stdin from a file, if there is one, and stdout to nowhere.
fn timed(client: &DockerClient, words: &[&str], input: Option<&File>) -> Duration {
    let start = now();
    let mut command = client.command(words);
    command.stdout(Stdio::null());
    if let Some(input) = input {
        let input = input.try_clone().expect("a file can be had twice");
        let mut at_start = &input;
        std::io::Seek::rewind(&mut at_start).expect("it is a plain file");
        command.stdin(input);
    }
    let status = command.status().expect("docker is installed");
    assert!(status.success(), "{words:?}");
    start.elapsed()
}

#[test]
fn a_large_transfer_takes_as_long_as_with_docker_alone() {
    let (size, turns, least) = match is_long() {
        true => (SIZE_LONG, TURNS_LONG, RATIO_LONG),
        false => (SIZE, TURNS, RATIO),
    };
    in_docker_lab(|lab| {
        let (clients, _weft) = clients(lab);
        let docker = &clients[0];
        docker.ok(&["run", "-d", "--name", "c1", IMAGE, "sleep", "100000"]);
        let make = format!("dd if=/dev/urandom of=/large bs=1M count={size}");
        docker.ok(&["exec", "c1", "sh", "-c", &make]);
        docker.ok(&["commit", "c1", "large"]);
        let path = lab.folder().join(HOST).join("large.tar");
        let file = File::create(&path).expect("the lab's folder is writable");
        let mut saving = docker.command(&["cp", "c1:/large", "-"]);
        assert!(saving.stdout(file).status().expect("docker runs").success());
        let file = File::open(&path).expect("it was written");

        let mut figures = Map::from_iter([
            ("mib".to_owned(), size.into()),
            ("docker_writes_to".to_owned(), "memory".into()),
            ("turns".to_owned(), turns.into()),
        ]);
        let mut slow = Vec::new();
        for (what, words, input) in [
            ("cp_out", &["cp", "c1:/large", "-"][..], None),
            ("cp_in", &["cp", "-", "c1:/tmp"], Some(&file)),
            ("save", &["save", "large"], None),
        ] {
            let mut times = [Vec::new(), Vec::new()];
            for turn in 0..turns {
                // Who comes second finds warm caches: they take it in turns.
                for way in [turn % 2, 1 - turn % 2] {
                    times[way].push(timed(&clients[way], words, input));
                }
            }
            let [direct, proxied] = times.each_mut().map(|times| median(times).as_secs_f64());
            let ratio = direct / proxied;
            println!(
                "{what}: direct {direct:.3} s, proxy {proxied:.3} s, {ratio:.3} of the direct speed"
            );
            figures.insert(
                what.to_owned(),
                json!({ "direct_s": direct, "proxy_s": proxied, "ratio": ratio }),
            );
            if ratio < least {
                slow.push(what);
            }
        }
        let figures = Value::Object(figures);
        record("docker-transfers", &figures);
        assert!(slow.is_empty(), "{slow:?}: {figures:#}");
    });
}

#[test]
fn the_network_adds_little_to_a_start() {
    let (starts, most) = match is_long() {
        true => (STARTS_LONG, ADDED_LONG),
        false => (STARTS, ADDED),
    };
    in_docker_lab(|lab| {
        let (clients, _weft) = clients(lab);
        let run = ["run", "--rm", IMAGE, "true"];
        let mut times = [Vec::new(), Vec::new()];
        // The first of each finds nothing in memory.
        for client in &clients {
            timed(client, &run, None);
        }
        for turn in 0..starts {
            for way in [turn % 2, 1 - turn % 2] {
                times[way].push(timed(&clients[way], &run, None));
            }
        }
        let count = u32::try_from(starts).expect("they are few");
        let [direct, proxied] = times
            .each_ref()
            .map(|times| times.iter().sum::<Duration>() / count);
        let [direct_median, proxied_median] = times.each_mut().map(|times| median(times));
        let added = proxied.saturating_sub(direct);
        println!(
            "a run takes {direct:?} with Docker alone, {proxied:?} on the network: {added:?} more (medians {direct_median:?}, {proxied_median:?})"
        );
        let ms = |time: Duration| time.as_secs_f64() * 1000.0;
        record(
            "docker-starts",
            &json!({
                "starts": starts, "direct_ms": ms(direct), "proxy_ms": ms(proxied), "added_ms": ms(added),
                "direct_median_ms": ms(direct_median), "proxy_median_ms": ms(proxied_median),
            }),
        );
        assert!(added <= most, "{added:?}");
    });
}
