//! Notices that a container is gone: its interface vanishes from the bridge.
//!
//! ```text
//!  kernel ── link deleted ──► say so once ──► pause
//! ```
//!
//! With a container's namespace goes its end of the pair, and with that the host's end.

use std::time::Duration;

use futures_util::StreamExt;
use netlink_packet_route::RouteNetlinkMessage;
use rtnetlink::packet_core::NetlinkPayload;
use rtnetlink::{MulticastGroup, new_multicast_connection};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::driver::netns::{NetNs, NetNsError};

/// Shortest time between two notices: many containers may go at once, and each notice makes a list of them.
const PAUSE: Duration = Duration::from_millis(100);

/// Sends a notice whenever an interface of the host has gone, and one at the start. Needs a tokio runtime.
pub(crate) fn start(host: NetNs, notices: mpsc::Sender<()>) -> JoinHandle<()> {
    tokio::spawn(async move {
        let watching = host.run(|netlink| async move {
            let socket = netlink.inside(|| new_multicast_connection(&[MulticastGroup::Link]))?;
            let (connection, _handle, mut changes) =
                socket.map_err(|source| NetNsError::Socket { source })?;
            tokio::spawn(connection);
            let _ = notices.try_send(());
            loop {
                let next = tokio::select! {
                    () = notices.closed() => return Ok(()),
                    change = changes.next() => change,
                };
                let Some((change, _)) = next else {
                    return Err(NetNsError::BrokeOff);
                };
                let is_deleted = matches!(
                    change.payload,
                    NetlinkPayload::InnerMessage(RouteNetlinkMessage::DelLink(_))
                );
                if is_deleted {
                    // A notice that waits is enough.
                    let _ = notices.try_send(());
                    tokio::time::sleep(PAUSE).await;
                }
            }
        });
        if let Err(error) = watching.await {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "containers that go are no longer noticed"
            );
        }
    })
}
