//! Removes what a daemon left behind that is not running any more.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::Context;
use weft_control::driver::bridge::{self, BridgeConfig, TAP};
use weft_control::driver::dns::parked::Parked;
use weft_control::driver::firewall;
use weft_control::driver::netlink::GsoLimits;
use weft_control::driver::netns::NetNs;
use weft_control::driver::plugin;

use crate::args::Places;

/// Removes devices, state and runtime files; what is not there is not missed.
///
/// # Errors
///
/// When something is there and stays, or a daemon that was started with other folders still works on the devices.
pub(crate) fn remove(places: &Places) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("start the event loop")?;
    runtime.block_on(async {
        let host = NetNs::current().context("open the host's network namespace")?;
        bridge::check_tap_free(&host, TAP).await?;
        remove_devices(&places.bridge).await?;
        firewall::remove().await.context("remove the rules")
    })?;
    for file in [places.socket(), places.pid_file()] {
        gone(fs::remove_file(&file), &file)?;
    }
    Parked::below(&places.data_dir).clear();
    plugin::forget_networks(&places.data_dir).context("remove what is kept of networks")?;
    for path in state(&places.data_dir)? {
        gone(fs::remove_file(&path), &path)?;
    }
    Ok(())
}

/// Files of a host that was part of a network. Folders are none: in the one that stays is the program with which
/// Docker's containers start, and those that have it could not start without. Nor is the list of networks that Docker
/// still has.
///
/// # Errors
///
/// When the directory is there and cannot be read.
pub(crate) fn state(data_dir: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    if data_dir.exists() {
        let cannot = || format!("read {}", data_dir.display());
        for entry in fs::read_dir(data_dir).with_context(cannot)? {
            let entry = entry.with_context(cannot)?;
            let is_dir = entry.file_type().with_context(cannot)?.is_dir();
            if !is_dir && entry.file_name() != plugin::NETWORKS_FILE {
                files.push(entry.path());
            }
        }
    }
    Ok(files)
}

/// Removes the bridge, the TAP and the containers' interfaces.
///
/// # Errors
///
/// When the kernel refuses.
pub(crate) async fn remove_devices(bridge: &str) -> anyhow::Result<()> {
    let config = BridgeConfig {
        name: bridge.to_owned(),
        tap: Some(TAP.to_owned()),
        // Of no account for what is removed.
        mac: [0; 6],
        mtu: 0,
        gso: GsoLimits::default(),
        dns: None,
    };
    let host = NetNs::current().context("open the host's network namespace")?;
    bridge::remove(&host, &config)
        .await
        .context("remove the network devices")
}

fn gone(outcome: std::io::Result<()>, path: &Path) -> anyhow::Result<()> {
    match outcome {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(anyhow::Error::from(error).context(format!("remove {}", path.display())))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}
