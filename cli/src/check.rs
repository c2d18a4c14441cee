//! `weft ipam check`: what does not fit together, a line each, from the daemon or from the store of one that does not run.

use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use anyhow::Context;
use weft_control::api::IpamFinding;
use weft_control::driver::check::check_stopped;
use weft_control::driver::netns::NetNs;

use crate::args::Places;
use crate::client::Client;
use crate::failure::Failure;
use crate::output::{self, Format};

/// Between two looks: what is found in both was not just on its way.
const AGAIN: Duration = Duration::from_secs(1);

/// Prints what is wrong.
///
/// # Errors
///
/// If neither a daemon nor its store can be asked.
pub(crate) fn run(places: &Places) -> anyhow::Result<ExitCode> {
    let findings = match twice(&Client::new(places.socket())) {
        Err(error) if is_not_running(&error) => stopped(places)?,
        outcome => outcome?,
    };
    match places.output {
        Format::Json => output::json(&findings)?,
        Format::Text => {
            for IpamFinding { what, remedy } in &findings {
                output::line(&format!("{what}: {remedy}"))?;
            }
        }
    }
    Ok(if findings.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

#[expect(clippy::disallowed_methods, reason = "two looks of a person's command")]
fn twice(client: &Client) -> anyhow::Result<Vec<IpamFinding>> {
    let mut findings: Vec<IpamFinding> = client.get("/ipam/check")?;
    if !findings.is_empty() {
        thread::sleep(AGAIN);
        let again: Vec<IpamFinding> = client.get("/ipam/check")?;
        findings.retain(|finding| again.contains(finding));
    }
    Ok(findings)
}

fn is_not_running(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(Failure::NotRunning { .. }))
}

fn stopped(places: &Places) -> anyhow::Result<Vec<IpamFinding>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("start a runtime")?;
    let netns = NetNs::current().context("open the host's network namespace")?;
    let checking = check_stopped(&places.data_dir, netns, &places.bridge);
    let found = runtime.block_on(checking)?;
    output::talk(if found.is_some() {
        "weft does not run: this is what its store says"
    } else {
        "weft does not run and has nothing noted here: it was never launched, or reset"
    });
    Ok(found.unwrap_or_default())
}
