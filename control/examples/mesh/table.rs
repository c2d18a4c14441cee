//! The record as a table in Markdown.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use serde_json::Value;

/// Reads a figure out of a run.
type Figure = fn(&Value) -> Option<f64>;

/// What stands in each row: its name, the target at 100 and at 1000 hosts, and the figure.
const ROWS: [(&str, &str, Figure); 19] = [
    (
        "cold start to all pairs reachable, s",
        "≤ 10; ≤ 60",
        |run| run["cold_start_s"].as_f64(),
    ),
    ("everybody known to everybody, s", "", |run| {
        run["acquainted_s"].as_f64()
    }),
    ("control sent until then, KiB a host", "", |run| {
        run["cold_start_kib"].as_f64()
    }),
    (
        "topology change known everywhere, p99, ms",
        "≤ 1000; ≤ 3000",
        |run| run["change_ms"]["p99"].as_f64(),
    ),
    ("… median, ms", "", |run| {
        run["change_ms"]["median"].as_f64()
    }),
    ("… with 20 % loss, p99, ms", "≤ 10000", |run| {
        run["change_lossy_ms"]["p99"].as_f64()
    }),
    (
        "idle control traffic, kbit/s a host",
        "≤ 16; ≤ 64",
        |run| run["idle_kbit"]["mean"].as_f64(),
    ),
    ("… busiest host, kbit/s", "", |run| {
        run["idle_kbit"]["max"].as_f64()
    }),
    ("… while 20 % are lost, mean", "", |run| {
        run["lossy_kbit"].as_f64()
    }),
    ("probes of data paths, kbit/s a host", "", |run| {
        run["idle_probes_kbit"].as_f64()
    }),
    (
        "two halves joined, all pairs reachable, s",
        "≤ 5 (2 × 50)",
        |run| run["heal_s"].as_f64(),
    ),
    ("transmissions of a broadcast for each member", "", |run| {
        run["flood"]["transmissions_a_member"].as_f64()
    }),
    ("most copies that one member got", "≤ 1", |run| {
        run["flood"]["copies_max"].as_f64()
    }),
    ("members that got none", "0", |run| {
        run["flood"]["missed"].as_f64()
    }),
    (
        "most links that one frame crossed while routes changed",
        "≤ 8",
        |run| run["transient_hops_max"].as_f64(),
    ),
    ("control links of a host, mean", "", |run| {
        run["links"]["mean"].as_f64()
    }),
    ("hops of a route, mean", "", |run| {
        run["hops"]["mean"].as_f64()
    }),
    ("memory of a simulated host, MiB", "≤ 16", |run| {
        run["memory_mib_a_host"].as_f64()
    }),
    ("time that the simulation took, s", "", |run| {
        run["wall_s"].as_f64()
    }),
];

/// The whole record.
pub(crate) fn markdown(runs: &[Value]) -> String {
    let mut text = String::from(
        "# Meshes of many hosts, in the simulator\n\n\
         The shipped node logic on a virtual clock, every host dialling the first one and nothing else; round trips\n\
         of 50 ms, give or take a tenth. The targets are those for 100 and for 1000 hosts. Traffic is what a host sends,\n\
         with TCP, UDP and IP headers. `–`: not within the stage's limit, or not measured. Made by\n\
         `cargo run --release -p weft-control --features sim --example mesh`; the same seed gives the same figures.\n\n",
    );
    let mut row = |cells: Vec<String>| {
        writeln!(text, "| {} |", cells.join(" | ")).expect("a string takes all");
    };
    let all = |first: &str, second: &str, cell: &dyn Fn(&Value) -> String| {
        let head = [first.to_owned(), second.to_owned()];
        head.into_iter().chain(runs.iter().map(cell)).collect()
    };
    row(all("hosts", "target", &|run| run["hosts"].to_string()));
    row(all("---", "---", &|_| "---:".to_owned()));
    for (name, target, figure) in ROWS {
        row(all(name, target, &|run| {
            figure(run).map_or_else(|| "–".to_owned(), shown)
        }));
    }
    row(all("commit", "", &|run| {
        run["commit"].as_str().unwrap_or("–").to_owned()
    }));
    row(all("… of stages that this run left out", "", &kept_of));
    row(all("seed", "", &|run| run["seed"].to_string()));
    row(all("events simulated, millions", "", &|run| {
        let events = run["events"].as_f64();
        events.map_or_else(|| "–".to_owned(), |events| shown(events / 1e6))
    }));
    row(all("trace", "", &|run| {
        run["trace"].as_str().unwrap_or("–").to_owned()
    }));
    text.push_str("\n![how cost grows with the number of hosts](mesh.svg)\n");
    text
}

/// The commits that figures of earlier runs are of.
fn kept_of(run: &Value) -> String {
    let kept = run["kept"].as_object().into_iter().flatten();
    let commits: BTreeSet<&str> = kept.filter_map(|(_, commit)| commit.as_str()).collect();
    if commits.is_empty() {
        return "–".to_owned();
    }
    commits.into_iter().collect::<Vec<_>>().join(", ")
}

fn shown(figure: f64) -> String {
    if figure >= 100.0 {
        format!("{figure:.0}")
    } else if figure >= 10.0 {
        format!("{figure:.1}")
    } else {
        format!("{figure:.2}")
    }
}
