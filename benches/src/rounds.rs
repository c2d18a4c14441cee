//! The order of things: every round visits every mode, and in it every peer in turn, so that a noisy minute of the
//! machine hits all of them alike. Each round begins with another peer: the first comes when the machine has just
//! cleaned up after something else.

use anyhow::{Context, Result};

use crate::cases::Case;
use crate::install::Tools;
use crate::pair::{self, Mode, Pair};
use crate::peers::{Peer, Tunnel};
use crate::record::{Figures, Record};

/// What to measure.
pub(crate) struct Plan {
    pub(crate) peers: Vec<Peer>,
    pub(crate) rounds: u32,
    pub(crate) seconds: u32,
    pub(crate) cases: Vec<Case>,
    pub(crate) modes: Vec<Mode>,
}

impl Plan {
    /// What is run, for above the tables.
    pub(crate) fn heading(&self) -> String {
        format!(
            "{} rounds of {} s in turns; median (min to max).",
            self.rounds, self.seconds
        )
    }
}

/// Measures; a peer that does not start costs its records, not the run.
pub(crate) fn run(plan: &Plan, tools: &Tools) -> Result<Vec<Record>> {
    let mut records = Vec::new();
    for round in 1..=plan.rounds {
        for &mode in &plan.modes {
            let first = round as usize - 1;
            for &peer in (plan.peers.iter().cycle().skip(first)).take(plan.peers.len()) {
                let cases = plan
                    .cases
                    .iter()
                    .copied()
                    .filter(|case| mode != Mode::Loss || case.is_tcp());
                let turn = Turn {
                    peer,
                    mode,
                    round,
                    seconds: plan.seconds,
                    cases: cases.collect(),
                };
                if !turn.cases.is_empty() {
                    turn.run(tools, &mut records)?;
                }
            }
        }
    }
    Ok(records)
}

/// One peer's turn.
struct Turn {
    peer: Peer,
    mode: Mode,
    round: u32,
    seconds: u32,
    cases: Vec<Case>,
}

impl Turn {
    fn run(&self, tools: &Tools, records: &mut Vec<Record>) -> Result<()> {
        let pair = Pair::new(self.mode).context("make the two hosts")?;
        match self.start(&pair, tools) {
            Ok(tunnel) => {
                for &case in &self.cases {
                    let measured = case.measure(&pair, &tunnel, self.seconds);
                    let record = self.record(case, measured.with_context(|| tunnel.last_words()));
                    self.say(case.name(), &record.line());
                    records.push(record);
                }
            }
            Err(error) => {
                let error = format!("{error:#}");
                self.say("all cases", &error);
                let failed = |&case: &Case| self.record(case, Err(anyhow::anyhow!("{error}")));
                records.extend(self.cases.iter().map(failed));
            }
        }
        Ok(())
    }

    fn start(&self, pair: &Pair, tools: &Tools) -> Result<Tunnel> {
        let tunnel = self
            .peer
            .start(pair, tools)
            .with_context(|| format!("start {}", self.peer.name()))?;
        pair::wait_for_ping(&tunnel.ends[0], tunnel.address)
            .with_context(|| tunnel.last_words())?;
        Ok(tunnel)
    }

    fn record(&self, case: Case, measured: Result<Figures>) -> Record {
        let (figures, error) = match measured {
            Ok(figures) => (figures, None),
            Err(error) => (Figures::default(), Some(format!("{error:#}"))),
        };
        Record {
            peer: self.peer.name().to_owned(),
            mode: self.mode,
            case,
            round: self.round,
            figures,
            error,
        }
    }

    /// Progress, on stderr.
    fn say(&self, what: &str, line: &str) {
        eprintln!(
            "round {} {} {} {what}: {line}",
            self.round,
            self.mode.name(),
            self.peer.name()
        );
    }
}
