//! Where the files of attached containers wait while a daemon without DNS runs.
//!
//! ```text
//!  /etc/netns/NAME/resolv.conf, hosts   ── take ──►  <data-dir>/netns/NAME/…   launch --no-dns
//!                                       ◄── put back ──                       the next launch with DNS
//! ```
//!
//! Not beside the others: `ip netns exec` lays whatever is there over `/etc`. They go with their container.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::files::{self, FILES};
use crate::driver::container::Container;

/// Below the data directory.
const FOLDER: &str = "netns";

/// The place for them.
#[derive(Debug, Clone)]
pub struct Parked {
    folder: PathBuf,
}

impl Parked {
    /// That of a data directory, made when it is needed.
    #[must_use]
    pub fn below(data_dir: &Path) -> Self {
        Self {
            folder: data_dir.join(FOLDER),
        }
    }

    /// Takes those of a container from its folder. True if there were any.
    pub(super) fn take(&self, folder: &Path, name: &OsStr) -> bool {
        let place = self.folder.join(name);
        let mut took = false;
        for file in FILES {
            let path = folder.join(file);
            match files::park(&path, &place.join(file)) {
                Ok(was_ours) => took |= was_ours,
                Err(error) => complain(&path, &error, "file for names stays without DNS"),
            }
        }
        took
    }

    /// Whether the files parked under a name are for a container that asks our server.
    pub(super) fn wants_server(&self, name: &OsStr) -> bool {
        files::read(&self.folder.join(name).join(FILES[0])).is_some()
    }

    /// Puts them back. True if there were any, and none is left.
    pub(super) fn put_back(&self, folder: &Path, name: &OsStr) -> bool {
        let place = self.folder.join(name);
        for file in FILES {
            let path = folder.join(file);
            match files::unpark(&path, &place.join(file)) {
                Ok(true) => {}
                Ok(false) => {
                    let error = io::ErrorKind::AlreadyExists.into();
                    complain(&path, &error, "file of somebody else stays as it is");
                }
                Err(error) => complain(&path, &error, "file for names not put back"),
            }
        }
        // Stays with what could not be put back.
        fs::remove_dir(place).is_ok()
    }

    /// Drops what is parked for a container that is detached.
    pub fn drop_of(&self, container: &Container) {
        if let Some(name) = &container.netns_name {
            self.forget(OsStr::new(name));
        }
    }

    pub(super) fn forget(&self, name: &OsStr) {
        let place = self.folder.join(name);
        for file in FILES.map(|file| place.join(file)) {
            if let Err(error) = files::forget_parked(&file) {
                complain(&file, &error, "parked file not removed");
            }
        }
        let _ = fs::remove_dir(place);
    }

    /// Drops what is parked under other names than these.
    pub(super) fn keep(&self, is_kept: impl Fn(&OsStr) -> bool) {
        for entry in fs::read_dir(&self.folder).into_iter().flatten().flatten() {
            if !is_kept(&entry.file_name()) {
                self.forget(&entry.file_name());
            }
        }
        // Stays while something is in it.
        let _ = fs::remove_dir(&self.folder);
    }

    /// Drops all, for `reset`.
    pub fn clear(&self) {
        self.keep(|_| false);
    }
}

fn complain(path: &Path, error: &io::Error, what: &str) {
    tracing::warn!(path = %path.display(), %error, "{what}");
}
