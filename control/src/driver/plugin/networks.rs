//! What has to be remembered of Docker's networks: which of them have a route for multicast.
//!
//! Docker says it once, when a network is made, and not again after a restart of either. A small file beside the store,
//! replaced as a whole; one that cannot be read says nothing. Bound: `NETWORKS_MAX`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// In `data_dir`.
pub(super) const FILE: &str = "docker-networks.json";
/// Networks of one Docker that are remembered; each has a bridge's worth of other limits long before.
const NETWORKS_MAX: usize = 4096;

/// The networks by Docker's ids.
#[derive(Debug)]
pub(super) struct Networks {
    path: PathBuf,
    multicast: Mutex<BTreeMap<String, bool>>,
}

/// Why a network is not remembered.
#[derive(Debug, thiserror::Error)]
pub(super) enum NetworksError {
    #[error("more than {NETWORKS_MAX} networks")]
    TooMany,
    #[error("write {}", path.display())]
    Write {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// Removes the file unless Docker still has a network: somebody stands in for it.
pub(super) fn remove_unused(data_dir: &Path) -> io::Result<()> {
    match Networks::load(data_dir).is_empty() {
        true => remove(&data_dir.join(FILE)),
        false => Ok(()),
    }
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

impl Networks {
    pub(super) fn load(data_dir: &Path) -> Self {
        let path = data_dir.join(FILE);
        let read = fs::read(&path).ok();
        let multicast = read.and_then(|text| serde_json::from_slice(&text).ok());
        Self {
            path,
            multicast: Mutex::new(multicast.unwrap_or_default()),
        }
    }

    /// A network that is not known has none.
    pub(super) fn has_multicast(&self, network: &str) -> bool {
        let known = self
            .multicast
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        known.get(network).copied().unwrap_or_default()
    }

    pub(super) fn is_empty(&self) -> bool {
        let known = self.multicast.lock();
        known.unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    pub(super) fn add(&self, network: &str, multicast: bool) -> Result<(), NetworksError> {
        self.change(|known| {
            if known.len() >= NETWORKS_MAX {
                return Err(NetworksError::TooMany);
            }
            known.insert(network.to_owned(), multicast);
            Ok(())
        })
    }

    pub(super) fn remove(&self, network: &str) -> Result<(), NetworksError> {
        self.change(|known| {
            known.remove(network);
            Ok(())
        })
    }

    /// Forgets all but these.
    pub(super) fn keep(&self, present: &BTreeSet<String>) -> Result<(), NetworksError> {
        self.change(|known| {
            known.retain(|network, _| present.contains(network));
            Ok(())
        })
    }

    /// Changes the file first: what is answered is on disk.
    fn change(
        &self,
        how: impl FnOnce(&mut BTreeMap<String, bool>) -> Result<(), NetworksError>,
    ) -> Result<(), NetworksError> {
        let mut known = self
            .multicast
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let mut next = known.clone();
        how(&mut next)?;
        if next == *known {
            return Ok(());
        }
        self.write(&next).map_err(|source| NetworksError::Write {
            path: self.path.clone(),
            source,
        })?;
        *known = next;
        Ok(())
    }

    fn write(&self, content: &BTreeMap<String, bool>) -> io::Result<()> {
        if content.is_empty() {
            return remove(&self.path);
        }
        let beside = self.path.with_extension("new");
        let mut file = File::create(&beside)?;
        file.write_all(serde_json::to_string(content)?.as_bytes())?;
        file.sync_all()?;
        fs::rename(&beside, &self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_docker_said_once_survives() {
        let dir = tempfile::tempdir().unwrap();
        let networks = Networks::load(dir.path());
        networks.add("n1", true).unwrap();
        networks.add("n2", false).unwrap();
        networks.add("n3", true).unwrap();
        networks.remove("n3").unwrap();

        let again = Networks::load(dir.path());
        let kept = ["n1", "n2", "n3"].map(|network| again.has_multicast(network));
        assert_eq!(kept, [true, false, false]);

        remove_unused(dir.path()).unwrap();
        assert!(dir.path().join(FILE).exists(), "Docker has two of them");
        again
            .keep(&BTreeSet::from(["n1".to_owned(), "n4".to_owned()]))
            .unwrap();
        again.add("n2", false).unwrap();
        let kept = Networks::load(dir.path());
        assert!(kept.has_multicast("n1") && !kept.has_multicast("n4"));
        again.remove("n1").unwrap();
        again.remove("n2").unwrap();
        assert!(!dir.path().join(FILE).exists());

        fs::write(dir.path().join(FILE), "{").unwrap();
        assert!(!Networks::load(dir.path()).has_multicast("n1"));
        remove_unused(dir.path()).unwrap();
        remove_unused(dir.path()).unwrap();
        let gone = Networks::load(&dir.path().join("nowhere"));
        assert!(gone.add("n1", true).is_err());
        assert!(!gone.has_multicast("n1"), "what is not on disk is not said");
    }
}
