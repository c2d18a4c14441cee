//! What a container has of us beside its interface, and goes with it: files for names, lines in Docker's hosts file.
//!
//! ```text
//!  detach   addresses off ─► free for others ─► files ─► interface
//!                 └── killed in between ──┴─────────┴─► next launch: files ─► interface
//! ```
//!
//! The interface goes last, as it says whose the rest is.

use std::net::IpAddr;

use ipnet::IpNet;

use super::super::complaint::in_one_line;
use super::{AttachError, Container, Shared};
use crate::api::ApiError;

impl Shared {
    /// The container's files name only the addresses that it still has.
    pub(super) fn keep_files(&self, container: &Container, left: &[IpNet]) {
        if let Some(guest) = &self.guest {
            guest.keep_hosts(container, left);
        }
        keep_in_docker(container, left);
    }

    /// Removes what a container has of us that has no address left.
    pub(super) async fn remove_rest(&self, container: &Container) -> Result<(), ApiError> {
        self.remove_files(container);
        let removed = self.host.remove(container).await;
        removed.map_err(|error| in_one_line(&error))
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
