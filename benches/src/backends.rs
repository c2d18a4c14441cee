//! `backends`: the engine on each I/O backend in turns, in the same pair of hosts and under the same loads.

mod host;
mod tokio_uring;

use std::fmt;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::str::FromStr;

use anyhow::{Context, Result};
use clap::Args;
use serde::Serialize;

pub(crate) use host::{HostArguments, TAP, run as run_host};

use crate::cases::Case;
use crate::install::Tools;
use crate::pair::Mode;
use crate::peers::Peer;
use crate::record::Record;
use crate::{program, rounds, sandbox, table};

/// Receives that a tokio-uring backend may keep in flight: half of its submission queue.
const RECEIVES_MAX: u16 = 32;

/// How a worker talks to the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Backend {
    /// The engine's: multishot receives into a ring of buffers.
    IoUring,
    /// The engine's fallback.
    Epoll,
    /// One-shot receives on tokio-uring.
    TokioUring {
        /// Receives in flight.
        receives: u16,
    },
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::IoUring => f.write_str("io_uring"),
            Self::Epoll => f.write_str("epoll"),
            Self::TokioUring { receives } => write!(f, "tokio-uring-{receives}"),
        }
    }
}

impl FromStr for Backend {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let receives = || {
            let count = name.strip_prefix("tokio-uring-")?.parse().ok()?;
            (1..=RECEIVES_MAX).contains(&count).then_some(count)
        };
        match name {
            "io_uring" => Ok(Self::IoUring),
            "epoll" => Ok(Self::Epoll),
            _ => receives()
                .map(|receives| Self::TokioUring { receives })
                .ok_or_else(|| {
                    format!(
                        "{name} is none of io_uring, epoll, tokio-uring-N (N 1 to {RECEIVES_MAX})"
                    )
                }),
        }
    }
}

/// What to run.
#[derive(Debug, Args)]
pub(crate) struct BackendsArguments {
    /// How often each backend has its turn
    #[arg(long, default_value_t = 3)]
    rounds: u32,
    /// Length of each throughput case
    #[arg(long, default_value_t = 5)]
    seconds: u32,
    /// Only these backends: io_uring epoll tokio-uring-1 tokio-uring-16 [default: all]
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Only these cases [default: tcp1 udp64 ping]
    #[arg(long, value_delimiter = ',')]
    cases: Vec<Case>,
    /// Write every record here, too
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// The file: on what it was measured, and the records.
#[derive(Debug, Serialize)]
struct Report<'a> {
    commit: String,
    kernel: String,
    processor: String,
    processors: usize,
    rounds: u32,
    seconds: u32,
    records: &'a [Record],
}

/// Measures and prints the tables.
pub(crate) fn run(arguments: &BackendsArguments) -> Result<ExitCode> {
    let peers = Peer::select_backends(&arguments.only)?;
    let tools = Tools::find(&peers, None, true)?;
    if !sandbox::is_inside() {
        return sandbox::enter();
    }
    sandbox::prepare()?;
    let cases = match arguments.cases.as_slice() {
        [] => vec![Case::Ping, Case::Tcp1, Case::Udp64],
        cases => cases.to_vec(),
    };
    let plan = rounds::Plan {
        peers,
        rounds: arguments.rounds,
        seconds: arguments.seconds,
        cases,
        modes: vec![Mode::Whole, Mode::Segmented],
    };
    let records = rounds::run(&plan, &tools)?;
    let report = Report::new(&plan, &records)?;
    println!(
        "Commit {}, Linux {}, {} x {}.\n",
        report.commit, report.kernel, report.processors, report.processor
    );
    println!("{}\n{}", plan.heading(), table::markdown(&records));
    if let Some(file) = &arguments.json {
        let text = serde_json::to_string_pretty(&report).context("write the records as JSON")?;
        std::fs::write(file, text + "\n").with_context(|| format!("write {}", file.display()))?;
    }
    let is_whole = records.iter().all(|record| record.error.is_none());
    Ok(if is_whole {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

impl<'a> Report<'a> {
    fn new(plan: &rounds::Plan, records: &'a [Record]) -> Result<Self> {
        let commit = program::run(Command::new("git").args(["describe", "--always", "--dirty"]));
        let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease");
        let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").context("read the processor")?;
        let model = cpuinfo
            .lines()
            .find_map(|line| line.strip_prefix("model name")?.split_once(": "));
        Ok(Self {
            commit: commit.map_or_else(|_| "unknown".to_owned(), |text| text.trim().to_owned()),
            kernel: kernel
                .context("read the kernel's version")?
                .trim()
                .to_owned(),
            processor: model.map_or("unknown", |(_, name)| name).to_owned(),
            processors: std::thread::available_parallelism()
                .context("count processors")?
                .get(),
            rounds: plan.rounds,
            seconds: plan.seconds,
            records,
        })
    }
}
