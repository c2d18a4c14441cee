//! Addresses on the built binary when things go wrong: kills, a store that takes no writes, containers that come and go.
//!
//! ```text
//!  attach, detach … ── weft a ── kill -9, again and again ── what was answered is there, and nothing else
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::process::{Child, Stdio};
use std::time::Duration;

use serde_json::json;
use weft_netns_tests::{Host, Lab, Weft, in_lab, is_long, now, pause, record, within};

/// A dead container's address is free after 30 s, and a look at the host comes every 5 s.
const FREE_LIMIT: Duration = Duration::from_secs(60);
/// Containers that are attached at the same time.
const CONTAINERS: usize = 4;

/// Random enough for moments; the same in each run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, max: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % max
    }
}

fn launched(lab: &Lab) -> Weft {
    let host = lab.host("a");
    let weft = lab.weft(&host);
    launch(&weft);
    weft.ok(&["prime"]);
    weft
}

fn launch(weft: &Weft) {
    weft.ok(&["launch", "--password", "secret"]);
}

fn start(weft: &Weft, words: &[&str]) -> Child {
    let mut command = weft.command(words);
    let command = command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().expect("weft can be started")
}

fn active(weft: &Weft) -> u64 {
    weft.json(&["status"])["ipam"]["active"]
        .as_u64()
        .expect("a number")
}

fn has_ports(weft: &Weft) -> bool {
    let links = weft.host().run(&["ip", "-o", "link", "show"]);
    links.contains("vethwe")
}

/// What stands on the container's interface.
fn shown(container: &Host) -> String {
    let output = container.output(&["ip", "-4", "-o", "addr", "show", "dev", "ethwe"]);
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// One kill while containers are attached and detached, which notes what was answered; how long the next launch took.
fn kill_once(
    weft: &Weft,
    containers: &[Host],
    answered: &mut BTreeMap<usize, String>,
    dice: &mut Dice,
) -> Duration {
    let mut commands = Vec::new();
    for (at, container) in containers.iter().enumerate() {
        // A detach may be cut off before or after it freed the address.
        let verb = match answered.remove(&at) {
            Some(_) => "detach",
            None => "attach",
        };
        commands.push((at, verb, start(weft, &[verb, &container.as_container()])));
    }
    pause(Duration::from_millis(dice.below(80)));
    weft.crash();
    for (at, verb, command) in commands {
        let output = command.wait_with_output().expect("it ends");
        if verb == "attach" && output.status.success() {
            let printed = String::from_utf8_lossy(&output.stdout).trim().to_owned();
            answered.insert(at, printed);
        }
    }
    let begun = now();
    launch(weft);
    begun.elapsed()
}

#[test]
fn kills_lose_nothing_that_was_answered_and_leave_nothing_behind() {
    let kills = if is_long() { 500 } else { 8 };
    in_lab(|lab| {
        let weft = launched(lab);
        let names = (0..CONTAINERS).map(|n| format!("c{n}"));
        let containers: Vec<Host> = names.map(|name| lab.host(&name)).collect();
        let (mut answered, mut dice) = (BTreeMap::new(), Dice(7));
        let (mut seen, mut slowest) = (0, Duration::ZERO);
        for kill in 0..kills {
            let took = kill_once(&weft, &containers, &mut answered, &mut dice);
            slowest = slowest.max(took);
            seen += answered.len();
            for (at, address) in &answered {
                let again = weft.attach(&containers[*at], &[]);
                assert_eq!(&again, address, "kill {kill}, c{at}: {}", weft.log());
                let stands = shown(&containers[*at]);
                assert!(stands.contains(&format!(" {address}/")), "{stands}");
            }
            let distinct: BTreeSet<&String> = answered.values().collect();
            assert_eq!(distinct.len(), answered.len(), "kill {kill}: {answered:?}");
        }
        assert!(seen > 0, "some attach was answered before its kill");
        for at in answered.keys() {
            weft.ok(&["detach", &containers[*at].as_container()]);
        }
        // Those whose answers were cut off hold nothing for long, and their interfaces are gone already.
        let before: Vec<String> = containers.iter().map(shown).collect();
        for (at, stands) in before.iter().enumerate() {
            if stands.contains("10.32.") {
                weft.ok(&["detach", &containers[at].as_container()]);
            }
        }
        let freeing = now();
        within("all addresses to be free", FREE_LIMIT, || {
            active(&weft) == 0
        });
        assert!(
            !has_ports(&weft),
            "{}",
            weft.host().run(&["ip", "-o", "link"])
        );
        let figures = json!({
            "kills": kills,
            "answers_held_against_what_was_there": seen,
            "launch_ms_max": slowest.as_millis(),
            "all_free_after_s": freeing.elapsed().as_secs_f64(),
        });
        record("ipam-kills", &figures);
    });
}

#[test]
fn a_thousand_attach_and_detach_leave_nothing() {
    let rounds = if is_long() { 1000 } else { 25 };
    in_lab(|lab| {
        let weft = launched(lab);
        let container = lab.host("c");
        let named = container.as_container();
        let devices = || weft.host().run(&["ip", "-o", "link"]).lines().count();
        let before = devices();
        let begun = now();
        for round in 0..rounds {
            assert_eq!(weft.attach(&container, &[]), "10.32.0.1", "round {round}");
            assert_eq!(weft.ok(&["detach", &named]).trim(), "10.32.0.1");
        }
        let took = begun.elapsed();
        let left = (active(&weft), devices().abs_diff(before));
        assert_eq!(left, (0, 0));
        let figures = json!({
            "attach_and_detach": rounds,
            "mean_ms_each_pair": took.as_secs_f64() * 1000.0 / f64::from(rounds),
            "addresses_left": left.0,
            "interfaces_left": left.1,
        });
        record("ipam-churn", &figures);
    });
}

fn waiting(weft: &Weft) -> u64 {
    weft.json(&["status"])["ipam"]["waiting"]
        .as_u64()
        .expect("a number")
}

/// Begins to attach a container for which there is no address.
fn start_to_wait(weft: &Weft, container: &Host) -> Child {
    let client = start(weft, &["attach", &container.as_container()]);
    within("the request to wait", WAIT_LIMIT, || waiting(weft) == 1);
    client
}

/// Well before the ten seconds in which a request ends by itself.
const WAIT_LIMIT: Duration = Duration::from_secs(4);

#[test]
fn an_attach_that_waits_ends_with_its_client_and_with_its_container() {
    in_lab(|lab| {
        let host = lab.host("a");
        let weft = lab.weft(&host);
        let range = ["--ipalloc-range", "10.9.0.0/29"];
        weft.ok(&[&["launch", "--password", "secret"], &range[..]].concat());
        let users: Vec<Host> = (1..=6).map(|n| lab.host(&format!("c{n}"))).collect();
        for user in &users {
            weft.attach(user, &[]);
        }
        let late = lab.host("late");

        let mut client = start_to_wait(&weft, &late);
        client.kill().expect("it runs");
        client.wait().expect("it ends");
        within("the wait to end", WAIT_LIMIT, || waiting(&weft) == 0);
        weft.ok(&["detach", &users[2].as_container()]);
        assert_eq!(active(&weft), 5, "nobody got what came free");
        assert_eq!(shown(&late), "");
        assert_eq!(weft.attach(&users[2], &[]), "10.9.0.3");

        let client = start_to_wait(&weft, &late);
        late.remove();
        within("the wait to end", WAIT_LIMIT, || waiting(&weft) == 0);
        let output = client.wait_with_output().expect("it ends");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains("container late died"), "{said}");
        assert_eq!(active(&weft), 6);
    });
}
