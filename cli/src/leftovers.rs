//! Removes what a daemon left behind that is not running any more.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use crate::args::Places;

/// Removes the state and the runtime files; what is not there is not missed.
///
/// # Errors
///
/// When a file is there and stays.
pub(crate) fn remove(places: &Places) -> anyhow::Result<()> {
    for file in [places.socket(), places.pid_file()] {
        gone(fs::remove_file(&file), &file)?;
    }
    if places.data_dir.exists() {
        for entry in fs::read_dir(&places.data_dir)? {
            let path = entry?.path();
            gone(fs::remove_file(&path), &path)?;
        }
    }
    Ok(())
}

fn gone(outcome: std::io::Result<()>, path: &Path) -> anyhow::Result<()> {
    match outcome {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(anyhow::Error::from(error).context(format!("remove {}", path.display())))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}
