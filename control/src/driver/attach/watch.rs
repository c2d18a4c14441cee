//! Hears when interfaces or addresses change, on the host and inside the containers that it has veths to.
//!
//! ```text
//!  kernel ── link or address changed, in any namespace that has a number here ──► pause ──► changed
//! ```
//!
//! The kernel numbers a namespace when somebody lists a veth whose other end lies in it, as weft does after each
//! attach. No socket stays in a container's namespace: that would keep it alive.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use rtnetlink::sys::AsyncSocket;
use rtnetlink::{MulticastGroup, new_multicast_connection};
use tokio::sync::{Notify, oneshot};

use super::NetNs;
use crate::driver::netlink::Netlink;
use crate::driver::netns::NetNsError;

/// Changes come in swarms: an interface that is renamed, set up and given addresses is one.
const SWARM: Duration = Duration::from_millis(20);

/// One listener; ends when dropped.
#[derive(Debug)]
pub(in crate::driver) struct AttachmentWatch {
    changed: Arc<Notify>,
    _stop: oneshot::Sender<()>,
}

impl AttachmentWatch {
    /// Starts listening. Needs a tokio runtime.
    pub(in crate::driver) fn start(host: NetNs) -> Self {
        let changed = Arc::new(Notify::new());
        let (stop, stopped) = oneshot::channel();
        let told = Arc::clone(&changed);
        tokio::spawn(async move {
            let ended = host.run(|netlink| listen(netlink, told, stopped)).await;
            if let Err::<(), NetNsError>(error) = ended {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "containers are no longer watched, only looked at now and then"
                );
            }
        });
        Self {
            changed,
            _stop: stop,
        }
    }

    /// Waits for the next change; one that came since the last call counts.
    pub(in crate::driver) async fn changed(&self) {
        self.changed.notified().await;
    }
}

async fn listen(
    netlink: Netlink,
    changed: Arc<Notify>,
    mut stopped: oneshot::Receiver<()>,
) -> Result<(), NetNsError> {
    let groups = [
        MulticastGroup::Link,
        MulticastGroup::Ipv4Ifaddr,
        MulticastGroup::Ipv6Ifaddr,
    ];
    let socket = netlink.inside(|| new_multicast_connection(&groups))?;
    let (mut connection, _handle, mut changes) =
        socket.map_err(|source| NetNsError::Socket { source })?;
    let socket = connection.socket_mut().socket_mut();
    if let Err(error) = socket.set_listen_all_namespaces(true) {
        tracing::warn!(
            %error,
            "changes inside containers are seen late: CAP_NET_BROADCAST is missing"
        );
    }
    tokio::spawn(connection);
    loop {
        tokio::select! {
            _ = &mut stopped => return Ok(()),
            change = changes.next() => if change.is_none() {
                return Err(NetNsError::BrokeOff);
            },
        }
        tokio::time::sleep(SWARM).await;
        while changes.try_recv().is_ok() {}
        changed.notify_one();
    }
}
