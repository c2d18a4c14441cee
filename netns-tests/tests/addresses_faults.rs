//! Addresses on the built binary when things go wrong: kills, a store that takes no writes, containers that come and go.
//!
//! ```text
//!  attach, detach, expose, hide … ── weft a ── kill -9, again and again ── what was answered is there, and nothing else
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::process::{Child, Stdio};
use std::time::Duration;

use serde_json::json;
use weft_netns_tests::{Host, Lab, Traces, Weft, in_lab, is_long, now, pause, record, within};

/// A dead container's address is free after 30 s, and a look at the host comes every 5 s.
const FREE_LIMIT: Duration = Duration::from_secs(60);
/// Containers that are attached at the same time.
const CONTAINERS: usize = 4;
/// Attached and detached before anything is measured: what is made at the first use stays.
const WARM_UP: usize = 5;
/// Open files that come and go by themselves, such as the connection of a command that has just ended.
const MORE_FILES: usize = 4;
/// Less than ten bytes kept by each of the thousand, beside what the allocator's threads take for themselves.
const MORE_MEMORY_KIB: u64 = 4096;

/// A command that is not answered in this time hangs.
const ANSWER_LIMIT: Duration = Duration::from_secs(20);

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

/// What stands on a device, if it is there.
fn stands_on(host: &Host, device: &str) -> String {
    let output = host.output(&["ip", "-4", "-o", "addr", "show", "dev", device]);
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Who gets an address and loses it: a container, or the host itself.
struct Place {
    host: Host,
    device: &'static str,
    verbs: [&'static str; 2],
    named: Option<String>,
}

impl Place {
    fn container(host: Host) -> Self {
        Self {
            named: Some(host.as_container()),
            host,
            device: "ethwe",
            verbs: ["attach", "detach"],
        }
    }

    fn exposed(host: &Host) -> Self {
        Self {
            host: host.clone(),
            device: "weft",
            verbs: ["expose", "hide"],
            named: None,
        }
    }

    /// The words that give it an address.
    fn on(&self) -> Vec<&str> {
        self.words(self.verbs[0])
    }

    /// The words that take the address.
    fn off(&self) -> Vec<&str> {
        self.words(self.verbs[1])
    }

    fn words<'a>(&'a self, verb: &'a str) -> Vec<&'a str> {
        let named = self.named.as_deref();
        std::iter::once(verb).chain(named).collect()
    }

    /// What stands on its device.
    fn shown(&self) -> String {
        stands_on(&self.host, self.device)
    }
}

fn traces(places: &[Place]) -> Traces {
    Traces::of(places.iter().map(|place| &place.host))
}

/// When a daemon is killed.
enum Moment {
    /// Since the commands were started.
    After(Duration),
    /// Whatever a busy machine takes for it; the other commands are under way.
    FirstAnswer,
}

/// One kill while all come or go, which notes what was answered; how long the next launch took.
fn kill_once(
    weft: &Weft,
    places: &[Place],
    answered: &mut BTreeMap<usize, String>,
    moment: Moment,
) -> Duration {
    let mut commands = Vec::new();
    for (at, place) in places.iter().enumerate() {
        // What takes an address may be cut off before or after it freed it.
        let had_one = answered.remove(&at).is_some();
        let words = if had_one { place.off() } else { place.on() };
        commands.push((at, had_one, start(weft, &words)));
    }
    match moment {
        Moment::After(time) => pause(time),
        Moment::FirstAnswer => {
            within("the first answer", ANSWER_LIMIT, || {
                let mut commands = commands.iter_mut();
                commands.any(|(.., command)| command.try_wait().is_ok_and(|end| end.is_some()))
            });
        }
    }
    weft.crash();
    for (at, had_one, command) in commands {
        let output = command.wait_with_output().expect("it ends");
        if !had_one && output.status.success() {
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
        let mut places: Vec<Place> = names
            .map(|name| Place::container(lab.host(&name)))
            .collect();
        places.push(Place::exposed(weft.host()));
        let before = traces(&places);
        let (mut answered, mut dice) = (BTreeMap::new(), Dice(7));
        let (mut seen, mut slowest) = (0, Duration::ZERO);
        for kill in 0..kills {
            let moment = match kill % 2 {
                0 => Moment::FirstAnswer,
                _ => Moment::After(Duration::from_millis(dice.below(80))),
            };
            let took = kill_once(&weft, &places, &mut answered, moment);
            slowest = slowest.max(took);
            seen += answered.len();
            for (at, address) in &answered {
                let again = weft.ok(&places[*at].on());
                assert_eq!(again.trim(), address, "kill {kill}, {at}: {}", weft.log());
                let stands = places[*at].shown();
                assert!(stands.contains(&format!(" {address}/")), "{stands}");
            }
            let distinct: BTreeSet<&String> = answered.values().collect();
            assert_eq!(distinct.len(), answered.len(), "kill {kill}: {answered:?}");
        }
        assert!(seen > 0, "some attach was answered before its kill");
        for at in answered.keys() {
            weft.ok(&places[*at].off());
        }
        // Those whose answers were cut off hold nothing for long, and their interfaces are gone already.
        for place in &places {
            if place.shown().contains("10.32.") {
                weft.ok(&place.off());
            }
        }
        let freeing = now();
        within("all addresses to be free", FREE_LIMIT, || {
            active(&weft) == 0
        });
        let left = before.changes_to(&traces(&places));
        assert!(left.is_empty(), "{}", left.join("\n"));
        let figures = json!({
            "kills": kills,
            "answers_held_against_what_was_there": seen,
            "launch_ms_max": slowest.as_millis(),
            "all_free_after_s": freeing.elapsed().as_secs_f64(),
        });
        record("ipam-kills", &figures);
    });
}

/// The state in which a kill between two steps of a detach leaves a host, however seldom it hits that moment.
#[test]
fn a_detach_that_was_cut_off_is_finished_at_the_next_launch() {
    in_lab(|lab| {
        let weft = launched(lab);
        let place = Place::container(lab.host("c0"));
        let places = [place, Place::exposed(weft.host())];
        let before = traces(&places);
        let [place, _] = &places;
        for step in ["addresses off", "addresses and multicast off"] {
            weft.ok(&place.on());
            let attached = before.changes_to(&traces(&places));
            let has_file = |name: &str| attached.iter().any(|line| line.contains(name));
            for file in ["c0/hosts", "c0/resolv.conf"] {
                assert!(has_file(file), "{file}: {}", attached.join("\n"));
            }
            weft.crash();
            place
                .host
                .run(&["ip", "addr", "flush", "dev", place.device]);
            if step != "addresses off" {
                place.host.run(&["nft", "flush", "ruleset"]);
            }
            launch(&weft);
            within(step, ANSWER_LIMIT, || !place.host.has_device(place.device));
            let left = before.changes_to(&traces(&places));
            assert!(left.is_empty(), "{step}: {}", left.join("\n"));
        }
    });
}

#[test]
fn a_thousand_attach_and_detach_leave_nothing() {
    let rounds: u16 = if is_long() { 1000 } else { 25 };
    in_lab(|lab| {
        let weft = launched(lab);
        let container = lab.host("c");
        let named = container.as_container();
        let there = || Traces::of([weft.host(), &container]);
        let come_and_go = |rounds: usize| {
            for round in 0..rounds {
                assert_eq!(weft.attach(&container, &[]), "10.32.0.1", "round {round}");
                assert_eq!(weft.ok(&["detach", &named]).trim(), "10.32.0.1");
            }
        };
        let before = there();
        come_and_go(WARM_UP);
        let (files, memory_kib) = (weft.open_files(), weft.resident_kib());
        let begun = now();
        come_and_go(usize::from(rounds));
        let took = begun.elapsed();
        let more_kib = weft.resident_kib().saturating_sub(memory_kib);
        assert!(more_kib <= MORE_MEMORY_KIB, "{memory_kib} + {more_kib} KiB");
        let more_files = weft.open_files().saturating_sub(files);
        assert!(
            more_files <= MORE_FILES,
            "{files} + {more_files} open files"
        );
        let addresses_left = active(&weft);
        assert_eq!(addresses_left, 0);
        let left = before.changes_to(&there());
        assert!(left.is_empty(), "{}", left.join("\n"));
        let figures = json!({
            "attach_and_detach": rounds,
            "mean_ms_each_pair": took.as_secs_f64() * 1000.0 / f64::from(rounds),
            "addresses_left": addresses_left,
            "traces_left": left.len(),
            "more_open_files": more_files,
            "more_memory_kib": more_kib,
        });
        record("ipam-churn", &figures);
    });
}

fn waiting(weft: &Weft) -> u64 {
    weft.json(&["status"])["ipam"]["waiting"]
        .as_u64()
        .expect("a number")
}

/// Begins to attach a container where no address can be given yet.
fn start_to_wait(weft: &Weft, container: &Host) -> Child {
    let client = start(weft, &["attach", &container.as_container()]);
    within("the request to wait", WAIT_LIMIT, || waiting(weft) == 1);
    let gauges = &weft.json(&["status"])["ipam"]["gauges"];
    assert_eq!(gauges["ipam_pending_allocates"], 1, "{gauges}");
    assert_eq!(gauges["ipam_pending_claims"], 0, "{gauges}");
    assert_eq!((&gauges["ips"], &gauges["max_ips"]), (&0.into(), &8.into()));
    client
}

/// Well before the ten seconds in which a request ends by itself.
const WAIT_LIMIT: Duration = Duration::from_secs(4);

#[test]
fn an_attach_that_waits_ends_with_its_client_and_with_its_container() {
    in_lab(|lab| {
        let wefts = lab.two_hosts().map(|host| lab.weft(&host));
        let launch = ["launch", "--password", "secret", "--ipalloc-range"];
        // Nothing is given until there are two.
        let init = ["10.9.0.0/29", "--ipalloc-init", "consensus=2"];
        let launch = [&launch[..], &init].concat();
        wefts[0].ok(&launch);
        let (early, late) = (lab.host("early"), lab.host("late"));

        let mut client = start_to_wait(&wefts[0], &early);
        client.kill().expect("it runs");
        client.wait().expect("it ends");
        within("the wait to end", WAIT_LIMIT, || waiting(&wefts[0]) == 0);

        let client = start_to_wait(&wefts[0], &late);
        late.remove();
        within("the wait to end", WAIT_LIMIT, || waiting(&wefts[0]) == 0);
        let output = client.wait_with_output().expect("it ends");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains("container late died"), "{said}");

        wefts[1].ok(&[&launch[..], &["192.0.2.1"]].concat());
        wefts[0].ok(&["prime"]);
        assert_eq!(active(&wefts[0]), 0, "nobody got what can be given now");
        assert_eq!(stands_on(&early, "ethwe"), "");
        wefts[0].attach(&early, &[]);
        assert_eq!(active(&wefts[0]), 1);
    });
}
