//! Measures meshes of many hosts in the simulator and writes the record: JSON, a table, a plot.
//!
//! ```text
//!  cargo run --release -p weft-control --features sim --example mesh -- [--hosts 10,30,100] [--seed 1] [--out PATH]
//! ```
//!
//! Runs that the record at PATH (default `benches/records/mesh`) has for other numbers of hosts are kept. A line for
//! each stage goes to standard error; the same seed gives the same figures.
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
use weft_control::sim::experiments::{self, Figures};

const HOSTS_DEFAULT: [usize; 5] = [10, 30, 100, 300, 1000];

fn main() {
    let (mut hosts, mut seed) = (HOSTS_DEFAULT.to_vec(), 1);
    let mut out = PathBuf::from("benches/records/mesh");
    let mut arguments = env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let value = arguments.next().unwrap_or_default();
        match argument.as_str() {
            "--hosts" => {
                let numbers = value.split(',').filter(|number| !number.is_empty());
                hosts = numbers
                    .map(|number| number.parse().expect("--hosts takes numbers and commas"))
                    .collect();
            }
            "--seed" => seed = value.parse().expect("--seed takes a number"),
            "--out" => out = value.into(),
            _ => panic!("unknown argument {argument}; accepted are --hosts, --seed and --out"),
        }
    }
    let mut runs = read_runs(&out);
    for count in hosts {
        let run = measure(count, seed);
        runs.retain(|run| run["hosts"] != json!(count));
        runs.push(run);
        runs.sort_by_key(|run| run["hosts"].as_u64());
        write(&out, &runs);
    }
    write(&out, &runs);
    print!("{}", table::markdown(&runs));
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
fn measure(hosts: usize, seed: u64) -> Value {
    let started = Instant::now();
    let figures = experiments::run(hosts, seed, &mut |line| {
        eprintln!("{:7.1} s  {line}", started.elapsed().as_secs_f64());
    });
    let took = started.elapsed().as_secs_f64();
    let resident_kib = resident_kib_at_most();
    let memory = resident_kib / hosts.max(1) as f64 / 1024.0;
    eprintln!("{took:7.1} s  done, {memory:.2} MiB a host");
    record_of(&figures, took, memory)
}

fn record_of(figures: &Figures, took: f64, memory: f64) -> Value {
    let pair = |pair: Option<(f64, f64)>| {
        pair.map(|(median, p99)| json!({ "median": rounded(median), "p99": rounded(p99) }))
    };
    json!({
        "hosts": figures.hosts,
        "seed": figures.seed,
        "acquainted_s": figures.acquainted_s.map(rounded),
        "cold_start_s": figures.cold_start_s.map(rounded),
        "cold_start_kib": rounded(figures.cold_start_kib),
        "links": { "mean": rounded(figures.links.0), "max": figures.links.1 },
        "hops": { "mean": rounded(figures.hops.0), "max": figures.hops.1 },
        "idle_kbit": { "mean": rounded(figures.idle_kbit.0), "max": rounded(figures.idle_kbit.1) },
        "idle_probes_kbit": rounded(figures.idle_probes_kbit),
        "change_ms": pair(figures.change_ms),
        "change_lossy_ms": pair(figures.change_lossy_ms),
        "heal_s": figures.heal_s.map(rounded),
        "flood": {
            "transmissions_a_member": rounded(figures.flood.0),
            "copies_max": figures.flood.1,
            "missed": figures.flood.2,
        },
        "transient_hops_max": figures.transient_hops_max,
        "events": figures.events,
        "trace": format!("{:016x}", figures.trace),
        "wall_s": rounded(took),
        "memory_mib_a_host": rounded(memory),
    })
}

fn rounded(number: f64) -> f64 {
    (number * 100.0).round() / 100.0
}

/// The largest resident size of this process so far; other sizes of mesh before this one count, too.
fn resident_kib_at_most() -> f64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let number = line.and_then(|line| line.split_whitespace().next());
    number
        .and_then(|number| number.parse().ok())
        .unwrap_or_default()
}
