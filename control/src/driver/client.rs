//! Whether whoever asked is still there to hear the answer.
//!
//! ```text
//!  API connection closed ─► reply closed ─► Presence dropped ─► Client::gone
//! ```

use tokio::sync::watch;

/// Held for a client while it waits; dropped when it goes away.
#[derive(Debug)]
pub struct Presence(#[expect(dead_code, reason = "its end is the message")] watch::Sender<()>);

/// Whoever asked.
#[derive(Debug, Clone)]
pub struct Client(watch::Receiver<()>);

impl Client {
    /// A client that is there as long as its presence.
    #[must_use]
    pub fn present() -> (Presence, Self) {
        let (presence, client) = watch::channel(());
        (Presence(presence), Self(client))
    }

    /// Waits until it is gone.
    pub async fn gone(&self) {
        let mut presence = self.0.clone();
        // Nothing is ever sent.
        while presence.changed().await.is_ok() {}
    }

    /// Whether it is gone.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        self.0.has_changed().is_err()
    }
}
