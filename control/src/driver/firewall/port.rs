//! Keeps the daemon's own port to itself: what comes to it from a bridge with containers is dropped.
//!
//! ```text
//!  container ─► our bridge, Docker's ─► an address of the host ─► port   dropped, whatever the address
//!  peer ─────────────────────────────────────────────────────────► port
//! ```
//!
//! Peers come from elsewhere, and containers have no business there (`design/security.md` 1.19). The table is one of its
//! own: it goes with the daemon, and the one for exposed subnets outlives it. Flushed rules are put back as soon as the
//! kernel tells of a change.

use std::error::Error;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::{FirewallError, run, without};
use crate::driver::expose::changes::Changes;

/// The table.
const TABLE: &str = "weft_port";
/// Shortest time from one look to the next, as with exposed subnets: a tool may insist on its own rules.
const SETTLE_PAUSE: Duration = Duration::from_millis(200);

/// Guards the port until stopped.
#[derive(Debug)]
pub struct PortGuard {
    watch: JoinHandle<()>,
}

impl PortGuard {
    /// Guards `port`, TCP and UDP, against what comes from these bridges, there or not. Needs a tokio runtime, in the
    /// host's network namespace.
    ///
    /// # Errors
    ///
    /// If `nft` is missing, or refuses.
    pub async fn start(port: u16, bridges: &[&str]) -> Result<Self, FirewallError> {
        let changes = Changes::of_firewall().map_err(FirewallError::Watch)?;
        let rules = ruleset(port, bridges);
        run(&["-f", "-"], &rules).await?;
        let listed = listing().await?;
        let watch = tokio::spawn(async move { watch(&changes, &rules, &listed).await });
        Ok(Self { watch })
    }

    /// Stops, and opens the port: nobody listens there any more.
    pub async fn stop(self) {
        self.watch.abort();
        // An `nft` that it has begun ends with it.
        let _ = self.watch.await;
        if let Err(error) = run(&["-f", "-"], &nothing()).await {
            tracing::warn!(
                error = &error as &dyn Error,
                "rules for our port not removed"
            );
        }
    }
}

/// Puts the rules back whenever they are not what they were, for ever.
async fn watch(changes: &Changes, rules: &str, listed: &str) {
    loop {
        if let Err(error) = changes.next().await {
            tracing::debug!(%error, "changes of the firewall are not told");
            std::future::pending::<()>().await;
        }
        sleep(SETTLE_PAUSE).await;
        if listing().await.is_ok_and(|found| found == listed) {
            continue;
        }
        match run(&["-f", "-"], rules).await {
            Ok(_) => tracing::warn!("the rules for our port were gone, put back"),
            Err(error) => tracing::warn!(
                error = &error as &dyn Error,
                "rules for our port not put back"
            ),
        }
        // That was us.
        let _ = timeout(SETTLE_PAUSE, changes.next()).await;
    }
}

async fn listing() -> Result<String, FirewallError> {
    run(&["-s", "list", "table", "inet", TABLE], "").await
}

pub(super) fn nothing() -> String {
    without("inet", TABLE)
}

fn ruleset(port: u16, bridges: &[&str]) -> String {
    let bridges: Vec<String> = bridges.iter().map(|name| format!("\"{name}\"")).collect();
    format!(
        "{}table inet {TABLE} {{\n\tchain input {{\n\t\ttype filter hook input priority filter; policy accept;\n\
         \t\tiifname {{ {} }} meta l4proto {{ tcp, udp }} th dport {port} drop\n\t}}\n}}\n",
        nothing(),
        bridges.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_port_is_shut_for_these_bridges_and_for_both_transports() {
        let rules = ruleset(6783, &["weft", "docker0"]);
        let rule = "iifname { \"weft\", \"docker0\" } meta l4proto { tcp, udp } th dport 6783 drop";
        assert!(rules.contains(rule), "{rules}");
        assert!(
            rules.starts_with(&nothing()),
            "an earlier table goes: {rules}"
        );
    }
}
