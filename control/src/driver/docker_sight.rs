//! What was last seen of Docker, for `weft status`: who follows Docker writes it, the loop reads it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::api::PluginStatus;

/// Shared by its clones.
#[derive(Debug, Clone, Default)]
pub struct DockerSight(Arc<Mutex<Option<PluginStatus>>>);

impl DockerSight {
    fn lock(&self) -> MutexGuard<'_, Option<PluginStatus>> {
        // Nothing in here panics half way.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The plugin answers.
    pub fn plugin_serves(&self, status: PluginStatus) {
        *self.lock() = Some(status);
    }

    /// Docker answers, or why not.
    pub(super) fn docker_is_there(&self, there: Result<(), String>) {
        if let Some(status) = &mut *self.lock() {
            status.trouble = there.err();
        }
    }

    /// Why Docker does not have the plugin's network as it is to be, if so.
    pub(super) fn network_has(&self, fault: Option<String>) {
        if let Some(status) = &mut *self.lock() {
            status.network_fault = fault;
        }
    }

    /// Of the plugin, if it serves.
    #[must_use]
    pub fn plugin(&self) -> Option<PluginStatus> {
        self.lock().clone()
    }
}
