//! Watches the host's interfaces and has bridge and TAP mended when somebody changed them.
//!
//! ```text
//!  kernel ── link or address changed ──► ensure ──► pause ──► drop what was said meanwhile ──► wait
//!                                          └─ no TAP: have the engine make it anew
//! ```

use std::error::Error;
use std::time::Duration;

use futures_util::StreamExt;
use rtnetlink::{MulticastGroup, new_multicast_connection};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use weft_engine::error::EngineError;

use super::{BridgeConfig, BridgeError, ensure_all};
use crate::driver::netlink::Netlink;
use crate::driver::netns::{NetNs, NetNsError};

/// Shortest time from one look to the next: with a tool that insists on its own idea, this is how often we differ.
const PAUSE: Duration = Duration::from_millis(100);

/// Keeps the host's devices as they should be, until stopped or dropped.
#[derive(Debug)]
pub struct Keeper {
    stop: oneshot::Sender<()>,
    done: JoinHandle<()>,
}

impl Keeper {
    /// Starts watching, with a first look; `make_tap` makes the TAP anew. Needs a tokio runtime.
    pub fn start(
        host: NetNs,
        config: BridgeConfig,
        make_tap: impl Fn() -> Result<(), EngineError> + Send + 'static,
    ) -> Self {
        let (stop, stopped) = oneshot::channel();
        let done = tokio::spawn(async move {
            if let Err(error) = host
                .run(|netlink| watch(netlink, config, make_tap, stopped))
                .await
            {
                tracing::warn!(error = &error as &dyn Error, "bridge is no longer watched");
            }
        });
        Self { stop, done }
    }

    /// Stops; nothing is mended any more once this has returned.
    pub async fn stop(self) {
        drop(self.stop);
        // It ends at its next look.
        let _ = self.done.await;
    }
}

/// Looks at everything and mends it; true if anything was amiss.
async fn mend(
    netlink: &Netlink,
    config: &BridgeConfig,
    make_tap: &impl Fn() -> Result<(), EngineError>,
) -> Result<bool, BridgeError> {
    match ensure_all(netlink, config).await {
        Err(BridgeError::NoTap(name)) => {
            make_tap().map_err(|source| BridgeError::MakeTap { name, source })?;
            ensure_all(netlink, config).await
        }
        outcome => outcome,
    }
}

async fn watch(
    netlink: Netlink,
    config: BridgeConfig,
    make_tap: impl Fn() -> Result<(), EngineError>,
    mut stopped: oneshot::Receiver<()>,
) -> Result<(), BridgeError> {
    // The bridge has the DNS server's address, too.
    let groups = [MulticastGroup::Link, MulticastGroup::Ipv4Ifaddr];
    let socket = netlink.inside(|| new_multicast_connection(&groups))?;
    let (connection, _handle, mut changes) =
        socket.map_err(|source| NetNsError::Socket { source })?;
    tokio::spawn(connection);
    let mut told = String::new();
    loop {
        let trouble = match mend(&netlink, &config, &make_tap).await {
            Ok(is_mended) => {
                if is_mended {
                    tracing::warn!(
                        bridge = config.name,
                        "bridge or TAP was not as it should be, mended"
                    );
                }
                String::new()
            }
            Err(error) => error
                .source()
                .map_or_else(|| error.to_string(), |source| format!("{error}: {source}")),
        };
        if trouble != told && !trouble.is_empty() {
            tracing::warn!(
                bridge = config.name,
                trouble,
                "bridge or TAP is not as it should be"
            );
        }
        told = trouble;
        tokio::select! {
            _ = &mut stopped => return Ok(()),
            change = changes.next() => if change.is_none() {
                return Err(NetNsError::BrokeOff.into());
            },
        }
        tokio::time::sleep(PAUSE).await;
        while changes.try_recv().is_ok() {}
    }
}
