//! Puts a daemon together: engine, bridge, control.

mod engine;

use anyhow::Context;
use tokio::sync::mpsc;
use weft_control::driver::netns::NetNs;
use weft_control::driver::underlay;

use crate::settings::Settings;
use weft_control::secret::Credential;

/// What a running daemon can be told from outside its API.
#[derive(Debug)]
pub(crate) enum Order {
    /// Say good-bye and end.
    Leave,
    /// These secrets are valid from now on, the first is to be offered.
    Secrets(Vec<Credential>),
}

/// Runs a daemon until it is told to leave; calls `ready` with the peer's name once it serves.
///
/// # Errors
///
/// What prevented the start, or what it could not go on after.
pub(crate) async fn run(
    settings: &Settings,
    mut orders: mpsc::Receiver<Order>,
    ready: impl FnOnce(&str),
) -> anyhow::Result<()> {
    let host = NetNs::current().context("open the host's network namespace")?;
    let underlay_mtu = underlay::largest_mtu(&host, &settings.bridge)
        .await
        .context("look at the interfaces")?;
    let _config = engine::config(settings, underlay_mtu);
    let _ = (&mut orders, ready);
    anyhow::bail!("daemon assembly is not merged yet")
}
