//! `weft stop` and `weft reset`: ask the daemon to end, and wait until it has.

mod networks;

use std::time::Duration;

use anyhow::bail;
use serde_json::{Value, json};
use weft_control::api::STOPPING;

use self::networks::Remedy;
use crate::args::Places;
use crate::client::Client;
use crate::docker;
use crate::failure::Failure;
use crate::launch::lock::Watched;
use crate::leftovers;
use crate::output;

/// The daemon takes two seconds at most; `reset` has interfaces and files to remove besides.
const END_TIMEOUT: Duration = Duration::from_secs(10);

/// Ends the daemon; one that is not running is no failure, as in Weave.
///
/// # Errors
///
/// The daemon's line, or that it does not end.
pub(crate) fn stop(places: &Places) -> anyhow::Result<()> {
    match end(places, "/stop", &json!({}), Remedy::Launch) {
        Err(error) if matches!(error.downcast_ref(), Some(Failure::NotRunning { .. })) => {
            output::talk("weft: weft is not running");
            Ok(())
        }
        outcome => outcome,
    }
}

/// Ends the daemon and has it remove what it made; with `force` what a daemon left behind that is not running.
///
/// # Errors
///
/// The daemon's line; or that none runs although one was here, so that nobody can hand over what it owns.
pub(crate) fn reset(places: &Places, force: bool) -> anyhow::Result<()> {
    match end(places, "/reset", &json!({ "force": force }), Remedy::Remove) {
        Err(error) if matches!(error.downcast_ref(), Some(Failure::NotRunning { .. })) => {
            if !force && !leftovers::state(&places.data_dir)?.is_empty() {
                bail!(error.context(
                    "cannot take this host out of the network: launch again and reset, or use --force"
                ));
            }
            leftovers::remove(places)
        }
        outcome => outcome,
    }
}

fn end(places: &Places, path: &str, body: &Value, remedy: Remedy) -> anyhow::Result<()> {
    let watched = Watched::new(&places.pid_file());
    let client = Client::new(places.socket());
    let docker_host = networks::docker_host(&client);
    let asked: anyhow::Result<Value> = client.post(path, body);
    match asked {
        // Somebody else has asked before us: what is left is to wait.
        Err(error) if path == "/stop" && error.to_string() == STOPPING => {}
        asked => {
            asked?;
        }
    }
    watched.wait_end(END_TIMEOUT)?;
    docker::warn_of_ended_proxy(&places.run_dir);
    networks::tell(docker_host.as_deref(), remedy);
    Ok(())
}
