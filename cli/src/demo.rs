//! `weft demo`: hosts, daemons, containers and measured traffic on this machine, in a minute.
//!
//! ```text
//!  weft demo ──► sandbox: namespaces of its own ──► weft demo --stage inside (their first process)
//!     │ signals, the end                                │ lab: hosts, links, containers
//!     ▼                                                 │ story: launch, attach, wait
//!  kills the first process: the kernel ends all others  │ measure: round trips, TCP
//!  and removes every namespace, device and file         ▼ findings: the table
//! ```
//!
//! Nothing is made outside of the sandbox, so nothing can be left behind, however the demo ends.

mod findings;
mod lab;
mod measure;
mod sandbox;
mod story;

use std::process::ExitCode;

use crate::args::{DemoArgs, DemoStage, Places};

/// Runs the demo.
///
/// # Errors
///
/// One line for what stands in the way of it.
pub(crate) fn run(places: &Places, args: &DemoArgs) -> anyhow::Result<ExitCode> {
    match args.stage {
        None => sandbox::run(places.output, args),
        Some(DemoStage::Inside) => {
            sandbox::arrive(args.keep)?;
            let findings = story::play(args)?;
            findings.print(places.output)?;
            if args.keep {
                sandbox::stay()
            } else {
                Ok(ExitCode::SUCCESS)
            }
        }
    }
}
