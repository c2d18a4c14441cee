//! Measures meshes of many hosts in the simulator and writes the record: JSON, a table, a plot.
//!
//! ```text
//!  cargo run --release -p weft-control --features sim --example mesh -- [--hosts 10,30,100] [--seed 1] [--out PATH] \
//!    [--stages idle,changes,floods,heal,lossy]
//! ```
//!
//! Runs that the record at PATH (default `benches/records/mesh`) has for other numbers of hosts are kept, and so are the
//! figures of stages that are left out, with the commit that they are of. After each
//! stage a line goes to standard error, and the figures so far to the record: a thousand hosts take hours. The same
//! seed gives the same figures. `WEFT_COMMIT` names the commit in the record.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program for the terminal"
)]

mod plot;
mod table;

use std::path::PathBuf;
use std::time::Instant;
use std::{env, fs};

use serde_json::{Value, json};
use weft_control::sim::experiments::{self, Figures, Stage};

const HOSTS_DEFAULT: [usize; 5] = [10, 30, 100, 300, 1000];

/// The figures of the record that each stage measures.
const FIGURES_OF: [(Stage, &[&str]); 5] = [
    (
        Stage::Idle,
        &["idle_kbit", "idle_probes_kbit", "links", "hops"],
    ),
    (Stage::Changes, &["change_ms"]),
    (Stage::Floods, &["flood"]),
    (Stage::Heal, &["heal_s", "transient_hops_max"]),
    (Stage::Lossy, &["change_lossy_ms", "lossy_kbit"]),
];

fn main() {
    let (mut hosts, mut seed) = (HOSTS_DEFAULT.to_vec(), 1);
    let mut out = PathBuf::from("benches/records/mesh");
    let mut stages = Stage::ALL.map(|(_, stage)| stage).to_vec();
    let mut arguments = env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let value = arguments.next().unwrap_or_default();
        match argument.as_str() {
            "--hosts" => {
                hosts = parts(&value)
                    .map(|number| number.parse().expect("--hosts takes numbers and commas"))
                    .collect();
            }
            "--seed" => seed = value.parse().expect("--seed takes a number"),
            "--out" => out = value.into(),
            "--stages" => stages = parts(&value).map(stage_of).collect(),
            _ => panic!(
                "unknown argument {argument}; accepted are --hosts, --seed, --out and --stages"
            ),
        }
    }
    let mut runs = read_runs(&out);
    for count in hosts {
        let earlier = runs.iter().find(|run| run["hosts"] == json!(count));
        let earlier = earlier.cloned().unwrap_or_default();
        measure(count, seed, &stages, &mut |mut run| {
            keep_other_stages(&mut run, &earlier, &stages);
            runs.retain(|run| run["hosts"] != json!(count));
            runs.push(run);
            runs.sort_by_key(|run| run["hosts"].as_u64());
            write(&out, &runs);
        });
    }
    write(&out, &runs);
    print!("{}", table::markdown(&runs));
}

/// Takes the figures of stages that are not run from an earlier run, and says of which commit each is.
fn keep_other_stages(run: &mut Value, earlier: &Value, stages: &[Stage]) {
    for (stage, figures) in FIGURES_OF {
        if stages.contains(&stage) {
            continue;
        }
        for figure in figures {
            run[figure] = earlier[figure].clone();
            if !earlier[figure].is_null() {
                let kept = &earlier["kept"][figure];
                let commit = if kept.is_null() {
                    &earlier["commit"]
                } else {
                    kept
                };
                run["kept"][figure] = commit.clone();
            }
        }
    }
}

/// What stands between commas.
fn parts(value: &str) -> impl Iterator<Item = &str> {
    value.split(',').filter(|part| !part.is_empty())
}

fn stage_of(name: &str) -> Stage {
    let found = Stage::ALL.into_iter().find(|(known, _)| *known == name);
    found.unwrap_or_else(|| panic!("no stage {name}")).1
}

fn read_runs(out: &std::path::Path) -> Vec<Value> {
    let text = fs::read_to_string(out.with_extension("json")).unwrap_or_default();
    let record: Value = serde_json::from_str(&text).unwrap_or_default();
    record["runs"].as_array().cloned().unwrap_or_default()
}

fn write(out: &std::path::Path, runs: &[Value]) {
    let record = json!({ "runs": runs });
    let text = serde_json::to_string_pretty(&record).expect("the record is plain data");
    for (extension, text) in [
        ("json", text + "\n"),
        ("md", table::markdown(runs)),
        ("svg", plot::svg(runs)),
    ] {
        let path = out.with_extension(extension);
        fs::write(&path, text).unwrap_or_else(|error| panic!("write {}: {error}", path.display()));
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "how long the simulation itself takes"
)]
fn measure(hosts: usize, seed: u64, stages: &[Stage], keep: &mut dyn FnMut(Value)) {
    let started = Instant::now();
    let figures = experiments::run(hosts, seed, stages, &mut |line, figures| {
        let took = started.elapsed().as_secs_f64();
        eprintln!("{took:7.1} s  {line}");
        keep(record_of(figures, took));
    });
    let took = started.elapsed().as_secs_f64();
    let memory = memory_mib_a_host(hosts);
    eprintln!("{took:7.1} s  done, {memory:.2} MiB a host");
    keep(record_of(&figures, took));
}

fn record_of(figures: &Figures, took: f64) -> Value {
    let pair = |pair: Option<(f64, f64)>| {
        pair.map(|(median, p99)| json!({ "median": rounded(median), "p99": rounded(p99) }))
    };
    // What is 0 belongs to a stage that was not reached.
    let reached = |figure: f64| (figure > 0.0).then(|| rounded(figure));
    let flood = reached(figures.flood.0).map(|transmissions| {
        json!({
            "transmissions_a_member": transmissions,
            "copies_max": figures.flood.1,
            "missed": figures.flood.2,
        })
    });
    json!({
        "hosts": figures.hosts,
        "seed": figures.seed,
        "commit": env::var("WEFT_COMMIT").ok(),
        "acquainted_s": figures.acquainted_s.map(rounded),
        "cold_start_s": figures.cold_start_s.map(rounded),
        "cold_start_kib": rounded(figures.cold_start_kib),
        "links": { "mean": reached(figures.links.0), "max": figures.links.1 },
        "hops": { "mean": reached(figures.hops.0), "max": figures.hops.1 },
        "idle_kbit": { "mean": reached(figures.idle_kbit.0), "max": reached(figures.idle_kbit.1) },
        "idle_probes_kbit": reached(figures.idle_probes_kbit),
        "change_ms": pair(figures.change_ms),
        "change_lossy_ms": pair(figures.change_lossy_ms),
        "lossy_kbit": reached(figures.lossy_kbit),
        "heal_s": figures.heal_s.map(rounded),
        "flood": flood,
        "transient_hops_max": (figures.transient_hops_max > 0).then_some(figures.transient_hops_max),
        "events": (figures.events > 0).then_some(figures.events),
        "trace": (figures.trace != 0).then(|| format!("{:016x}", figures.trace)),
        "wall_s": rounded(took),
        "memory_mib_a_host": rounded(memory_mib_a_host(figures.hosts)),
    })
}

fn rounded(number: f64) -> f64 {
    (number * 100.0).round() / 100.0
}

/// The largest resident size of this process so far, for each host; other sizes of mesh before this one count, too.
fn memory_mib_a_host(hosts: usize) -> f64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let number = line.and_then(|line| line.split_whitespace().next());
    let kib: f64 = number
        .and_then(|number| number.parse().ok())
        .unwrap_or_default();
    kib / 1024.0 / hosts.max(1) as f64
}
