//! What a container has of us beside its interface, and goes with it: files for names, lines in Docker's hosts file.
//!
//! ```text
//!  detach   addresses off ─► free for others ─► files ─► interface
//!                 └── killed in between ──┴─────────┴─► next launch: files ─► interface
//! ```
//!
//! The interface goes last, as it says whose the rest is.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use tokio::time::timeout;

use super::super::complaint::in_one_line;
use super::{AttachError, Container, Shared};

/// What Docker may take, all in all, to say where the files of its containers are: a hundred of them are a second.
const DOCKER_TIMEOUT: Duration = Duration::from_secs(5);

impl Shared {
    /// The container's files name only the addresses that it still has.
    pub(super) fn keep_files(&self, container: &Container, left: &[IpNet]) {
        if let Some(guest) = &self.guest {
            guest.keep_hosts(container, left);
        }
        keep_in_docker(container, left);
    }

    /// Removes what a container has of us that has no address left; says what stays. Not fatal: its addresses are off
    /// and free.
    pub(super) async fn remove_rest(&self, container: &Container) -> Vec<String> {
        self.remove_files(container);
        let removed = self.host.remove(container).await;
        let note = removed.err().map(|error| {
            let error = in_one_line(&error).error;
            format!("its interface stays until the next launch, without an address: {error}")
        });
        Vec::from_iter(note)
    }

    /// Removes what is left of containers whose attaching or detaching was cut off half way. For a host to which
    /// nobody attaches yet.
    pub(super) async fn finish_detaching(&self) -> Result<(), AttachError> {
        for id in self.host.unfinished().await? {
            match self.find(&id).await {
                Ok(container) => self.remove_files(&container),
                Err(error) => {
                    tracing::debug!(id, error = error.error, "files removed by name");
                    if let Some(guest) = &self.guest {
                        guest.forget(&id);
                    }
                }
            }
        }
        self.host.sweep().await
    }

    /// Removes the files of containers that keep running, for `reset`.
    pub(super) async fn forget_living(&self, ids: &BTreeSet<Arc<str>>) {
        if let Some(guest) = &self.guest {
            for id in ids {
                guest.forget(id);
            }
        }
        let of_docker = async {
            for id in ids {
                if let Ok(container) = self.find(id).await {
                    keep_in_docker(&container, &[]);
                }
            }
        };
        if timeout(DOCKER_TIMEOUT, of_docker).await.is_err() {
            tracing::warn!("Docker is slow: hosts files of its containers may keep our lines");
        }
    }

    fn remove_files(&self, container: &Container) {
        if let Some(guest) = &self.guest {
            guest.remove_files(container);
        }
        if let Some(parked) = &self.parked {
            parked.drop_of(container);
        }
        keep_in_docker(container, &[]);
    }
}

/// In the file that Docker keeps, the container's own name means only these.
fn keep_in_docker(container: &Container, left: &[IpNet]) {
    let Some(hosts) = &container.hosts else {
        return;
    };
    let left: Vec<IpAddr> = left.iter().map(IpNet::addr).collect();
    if let Err(error) = hosts.keep(&left) {
        tracing::warn!(container = container.shown(), %error, "hosts file of a container");
    }
}
