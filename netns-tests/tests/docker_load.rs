//! Many containers at once, and Docker or weft that go away under them.
//!
//! ```text
//!  four clients ─► weft's docker.sock ─► dockerd        a 192.0.2.1 ══ 192.0.2.2 b: weft, which knows the names
//! ```

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::json;
use weft_netns_tests::{
    DockerClient, Dockerd, IMAGE, Lab, Weft, in_docker_lab, is_long, record, within,
};

/// To be connected and to agree, on a busy machine.
const CONNECT_LIMIT: Duration = Duration::from_secs(20);
/// A name is true everywhere after this.
const NAME_LIMIT: Duration = Duration::from_secs(2);
/// Containers must be whole again this long after Docker and weft are both back.
const BACK_LIMIT: Duration = Duration::from_secs(5);
/// What weft may add to a start, on average.
const ADDED_MAX: Duration = Duration::from_millis(300);
/// A client of Docker that takes longer hangs; seconds.
const HANG_S: &str = "60";
const CLIENTS: usize = 4;

/// Docker and weft on `a`, weft alone on `b`.
struct Place {
    docker: Dockerd,
    weft: Weft,
    other: Weft,
}

fn place(lab: &Lab, flags: &[&str]) -> Place {
    let [a, b] = lab.two_hosts();
    let docker = lab.dockerd(&a, &[]);
    let (weft, other) = (lab.weft(docker.host()), lab.weft(&b));
    weft.ok(&[&["launch"], flags].concat());
    weft.ok(&["prime"]);
    other.ok(&[&["launch", "--docker-host", ""], flags, &["192.0.2.1"]].concat());
    other.wait_for_path(CONNECT_LIMIT);
    Place {
        docker,
        weft,
        other,
    }
}

impl Place {
    fn client(&self) -> DockerClient {
        let config = self.weft.ok(&["config"]);
        let address = config.trim().strip_prefix("-H=").expect("a proxy runs");
        self.docker.client_of(address)
    }

    /// The address of a container's interface, without its prefix length.
    fn address(&self, name: &str) -> String {
        let show = "ip -o -4 addr show dev ethwe | awk '{print $4}' | cut -d/ -f1";
        let shown = self.docker.docker(&["exec", name, "sh", "-c", show]);
        shown.stdout.trim().to_owned()
    }

    fn means(&self, name: &str) -> String {
        self.other
            .run(&["dns-lookup", name])
            .stdout
            .trim()
            .to_owned()
    }
}

/// Starts, looks at and removes `count` containers, so many at once as there are clients; returns the mean time that
/// a start took.
fn come_and_go(
    client: &DockerClient,
    count: usize,
    look: impl Fn(&str) + Sync,
    gone: impl Fn(&str) + Sync,
) -> Duration {
    let next = AtomicUsize::new(0);
    let took = Mutex::new(Duration::ZERO);
    thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    if index >= count {
                        return;
                    }
                    let name = format!("n{index}");
                    let quick = ["run", "-d", "--stop-signal", "KILL", "--name", &name];
                    let run = client.run(&[&quick[..], &[IMAGE, "sleep", "1000"]].concat());
                    assert_eq!(run.code, 0, "{name}: {run:?}");
                    *took.lock().expect("no client has failed") += run.took;
                    look(&name);
                    client.ok(&["rm", "-f", &name]);
                    gone(&name);
                }
            });
        }
    });
    let took = took.into_inner().expect("no client has failed");
    took / u32::try_from(count).expect("a test has few containers")
}

#[test]
fn containers_that_come_and_go_never_share_an_address_or_leak_one() {
    in_docker_lab(|lab| {
        // Fewer addresses than containers: what is removed has to be free at once.
        let (count, range) = if is_long() {
            (100, "10.32.0.0/26")
        } else {
            (12, "10.32.0.0/28")
        };
        let place = place(lab, &["--ipalloc-range", range]);
        let held: Mutex<BTreeMap<String, String>> = Mutex::default();
        let look = |name: &str| {
            let address = place.address(name);
            assert!(address.starts_with("10.32.0."), "{name}: {address:?}");
            let before = held
                .lock()
                .expect("no client has failed")
                .insert(address.clone(), name.to_owned());
            assert_eq!(before, None, "{name} has {address}, too");
            within(&format!("the name {name}"), NAME_LIMIT, || {
                place.means(name) == address
            });
            held.lock().expect("no client has failed").remove(&address);
        };
        let gone = |name: &str| {
            within(&format!("the end of the name {name}"), NAME_LIMIT, || {
                place.means(name).is_empty()
            });
        };
        let ours = come_and_go(&place.client(), count, look, gone);
        let plain = come_and_go(&place.docker.client(), count, |_| (), |_| ());
        assert_eq!(
            place.weft.ok(&["ps"]).lines().count(),
            1,
            "only the host is left"
        );
        within("all addresses to be free", CONNECT_LIMIT, || {
            let status = place.weft.json(&["status"]);
            status["ipam"]["active"] == 0
        });
        let added = ours.saturating_sub(plain);
        let figures = json!({
            "containers": count,
            "range": range,
            "clients": CLIENTS,
            "start_ms": ours.as_millis(),
            "start_with_plain_docker_ms": plain.as_millis(),
            "added_ms": added.as_millis(),
        });
        record("docker-load", &figures);
        // The promise is judged where nothing runs beside it.
        assert!(!is_long() || added <= ADDED_MAX, "{figures}");
    });
}

/// Containers that Docker starts again, and a client that goes on starting others.
#[test]
fn containers_have_their_addresses_again_after_any_end_under_load() {
    in_docker_lab(|lab| {
        let mut place = place(lab, &[]);
        let client = place.client();
        let names = ["c1", "c2"];
        for name in names {
            let run = [
                "run",
                "-d",
                "--restart",
                "always",
                "--stop-signal",
                "KILL",
                "--name",
                name,
            ];
            client.ok(&[&run[..], &[IMAGE, "sleep", "1000"]].concat());
        }
        let own = names.map(|name| place.address(name));
        assert!(own.iter().all(|address| !address.is_empty()), "{own:?}");
        let is_over = AtomicBool::new(false);
        let (ended, failed) = (AtomicUsize::new(0), AtomicUsize::new(0));
        thread::scope(|scope| {
            let _end = AtTheEnd(&is_over);
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    match load(&client) {
                        Some(0) => ended.fetch_add(1, Ordering::Relaxed),
                        Some(124 | 137) | None => panic!("a client hangs"),
                        Some(_) => failed.fetch_add(1, Ordering::Relaxed),
                    };
                }
            });
            let troubles = [
                "weft",
                "docker",
                "docker, then weft",
                "weft, then docker",
                "docker as told",
                "docker as told, then weft",
                "weft, then docker as told",
            ];
            for trouble in troubles {
                end_and_restart(&mut place, trouble);
                let what = format!("all is as before the end of {trouble}");
                within(&what, BACK_LIMIT, || is_whole(&place, names, &own));
                let before = ended.load(Ordering::Relaxed);
                within("others to start", CONNECT_LIMIT, || {
                    ended.load(Ordering::Relaxed) > before
                });
            }
        });
        let counts = [ended, failed].map(AtomicUsize::into_inner);
        assert!(counts[0] > 4, "{counts:?}");
    });
}

/// Lets the load end with the test, also with one that fails.
struct AtTheEnd<'a>(&'a AtomicBool);

impl Drop for AtTheEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// One container that comes and goes by the proxy; `None` if a signal ended the client.
fn load(client: &DockerClient) -> Option<i32> {
    let docker = client.command(&["run", "--rm", IMAGE, "true"]);
    let mut command = Command::new("timeout");
    command
        .arg(HANG_S)
        .arg(docker.get_program())
        .args(docker.get_args());
    for (name, value) in docker.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command
        .output()
        .expect("timeout is installed")
        .status
        .code()
}

/// Ends all the parts, each by a crash unless as told, and then starts them in the same order.
fn end_and_restart(place: &mut Place, trouble: &str) {
    for part in trouble.split(", then ") {
        match part {
            "weft" => place.weft.crash(),
            "docker" => drop(place.docker.stop(Signal::SIGKILL)),
            // Its containers end with it, and it starts them again.
            "docker as told" => drop(place.docker.stop(Signal::SIGTERM)),
            other => panic!("no such part: {other}"),
        }
    }
    for part in trouble.split(", then ") {
        if part == "weft" {
            place.weft.ok(&["launch"]);
        } else {
            place.docker.begin();
            place.docker.wait_until_it_serves();
        }
    }
}

fn is_whole(place: &Place, names: [&str; 2], own: &[String; 2]) -> bool {
    let is_there = |at: usize| {
        place.address(names[at]) == own[at]
            && place.weft.run(&["dns-lookup", names[at]]).stdout.trim() == own[at]
    };
    let ping = ["exec", names[0], "ping", "-c", "1", "-W", "1", &own[1]];
    is_there(0) && is_there(1) && place.docker.docker(&ping).code == 0
}
