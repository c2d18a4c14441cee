//! Measures weft end to end, beside the programs that people would otherwise use.
//!
//! ```text
//!  main ─► install (what is missing) ─► sandbox (own namespaces) ─► rounds
//!  rounds: for each round, mode, peer:  pair ─► peers ─► cases ─► record
//!  records ─► table (markdown on stdout), JSON file
//! ```
//!
//! Everything runs in namespaces of its own that the kernel removes with the last process, so nothing is left
//! behind, however the program ends.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command line program: the table goes to stdout, progress to stderr"
)]

mod backends;
mod cases;
mod install;
mod load;
mod pair;
mod peers;
mod program;
mod record;
mod rounds;
mod sandbox;
mod table;
mod usage;
mod wait;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Args, Parser, Subcommand};

use crate::backends::{BackendsArguments, HostArguments};
use crate::cases::Case;
use crate::pair::Mode;
use crate::peers::Peer;
use crate::record::Record;

#[derive(Debug, Parser)]
#[command(name = "weft-benches", about = "Measures weft end to end")]
struct Arguments {
    #[command(subcommand)]
    bench: Bench,
}

#[derive(Debug, Subcommand)]
enum Bench {
    /// weft and its peers in turns between two namespaces; needs root (or user namespaces, once installed)
    Peers(PeersArguments),
    /// The engine's I/O backends in turns, and tokio-uring beside them; needs root
    Backends(BackendsArguments),
    /// One table from the JSON files of several runs, so that a long table can be made in short runs
    Table(TableArguments),
    /// One host of `backends`
    #[command(hide = true)]
    BackendHost(HostArguments),
}

#[derive(Debug, Args)]
struct PeersArguments {
    /// How often each peer has its turn
    #[arg(long, default_value_t = 3)]
    rounds: u32,
    /// Length of each throughput case
    #[arg(long, default_value_t = 5)]
    seconds: u32,
    /// Only these peers; `weft` stands for all its variants [default: all]
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Only these cases: tcp1 tcp4 tcp8 udp64 udp1300-40k udp1300 ping [default: all]
    #[arg(long, value_delimiter = ',')]
    cases: Vec<Case>,
    /// Only these underlays: whole segmented loss wire [default: whole segmented loss]
    #[arg(long, value_delimiter = ',')]
    modes: Vec<Mode>,
    /// Write every record here, too
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// The weft binary [default: beside this program]
    #[arg(long, env = "WEFT_BIN", value_name = "FILE")]
    weft: Option<PathBuf>,
    /// Fail instead of installing what is missing
    #[arg(long)]
    no_install: bool,
}

#[derive(Debug, Args)]
struct TableArguments {
    /// What `--json` wrote
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Write all records here, too
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().bench {
        Bench::Peers(arguments) => bench_peers(&arguments),
        Bench::Backends(arguments) => backends::run(&arguments),
        Bench::Table(arguments) => merge(&arguments).map(|()| ExitCode::SUCCESS),
        Bench::BackendHost(arguments) => backends::run_host(&arguments).map(|()| ExitCode::SUCCESS),
    };
    match outcome {
        Ok(code) => code,
        Err(error) => {
            eprintln!("weft-benches: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn bench_peers(arguments: &PeersArguments) -> Result<ExitCode> {
    let peers = Peer::select(&arguments.only)?;
    let tools = install::Tools::find(&peers, arguments.weft.as_deref(), !arguments.no_install)?;
    if !sandbox::is_inside() {
        return sandbox::enter();
    }
    sandbox::prepare()?;
    let plan = rounds::Plan {
        peers,
        rounds: arguments.rounds,
        seconds: arguments.seconds,
        cases: if arguments.cases.is_empty() {
            Case::ALL.to_vec()
        } else {
            arguments.cases.clone()
        },
        modes: if arguments.modes.is_empty() {
            Mode::DEFAULT.to_vec()
        } else {
            arguments.modes.clone()
        },
    };
    let records = rounds::run(&plan, &tools)?;
    println!("{}\n{}", plan.heading(), table::markdown(&records));
    if let Some(file) = &arguments.json {
        write_json(file, &records)?;
    }
    let failed = records
        .iter()
        .filter(|record| record.error.is_some())
        .count();
    if failed > 0 {
        eprintln!(
            "weft-benches: {failed} of {} measurements failed",
            records.len()
        );
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}

fn write_json(file: &Path, records: &[Record]) -> Result<()> {
    let text = serde_json::to_string_pretty(records).context("write the records as JSON")?;
    std::fs::write(file, text).with_context(|| format!("write {}", file.display()))
}

fn merge(arguments: &TableArguments) -> Result<()> {
    let mut records: Vec<Record> = Vec::new();
    for file in &arguments.files {
        let name = || format!("read {}", file.display());
        let text = std::fs::read_to_string(file).with_context(name)?;
        records.extend(serde_json::from_str::<Vec<Record>>(&text).with_context(name)?);
    }
    println!(
        "{} measurements from {} runs; median (min to max).\n{}",
        records.len(),
        arguments.files.len(),
        table::markdown(&records)
    );
    arguments
        .json
        .as_deref()
        .map_or(Ok(()), |file| write_json(file, &records))
}
