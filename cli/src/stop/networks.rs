//! What Docker still has of weft's when the daemon has ended, and what is to be done about it.

use std::time::Duration;

use tokio::time::timeout;
use weft_control::api::Status;
use weft_control::driver::docker::Docker;
use weft_control::driver::plugin::{NetworkUsers, networks_in_use};

use crate::client::Client;
use crate::output;

/// How long the end of the daemon is kept from its user for what Docker says.
const LOOK_TIMEOUT: Duration = Duration::from_secs(2);

/// Docker's own address, as the daemon has it.
pub(super) fn docker_host(client: &Client) -> Option<String> {
    let status: Status = client.get("/status").ok()?;
    let plugin = status.plugin.map(|plugin| plugin.docker);
    plugin.or_else(|| status.proxy.map(|proxy| proxy.docker))
}

/// What is to be done about networks that Docker still has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Remedy {
    /// They wait for weft.
    Launch,
    /// They are of no use any more.
    Remove,
}

/// Says which of Docker's networks and containers need a weft that has ended.
pub(super) fn tell(host: Option<&str>, remedy: Remedy) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let (Ok(runtime), Ok(docker)) = (runtime, Docker::new(host)) else {
        return;
    };
    let looked = async { timeout(LOOK_TIMEOUT, networks_in_use(&docker)).await };
    // A Docker that does not answer is waited for no longer.
    for users in runtime.block_on(looked).iter().flatten() {
        output::talk(&remaining(users, remedy));
    }
}

fn remaining(users: &NetworkUsers, remedy: Remedy) -> String {
    let NetworkUsers {
        network,
        containers,
    } = users;
    let of = match containers.as_slice() {
        [] => String::new(),
        [one] => format!(" with container {one}"),
        all => format!(" with containers {}", all.join(", ")),
    };
    let what = match remedy {
        Remedy::Launch => "which needs weft: `weft launch`".to_owned(),
        Remedy::Remove => format!("which is of no use any more: `docker network rm {network}`"),
    };
    format!("weft: warning: Docker still has network {network}{of}, {what}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_needs_weft_is_named() {
        let users = |containers: &[&str]| NetworkUsers {
            network: "weft".to_owned(),
            containers: containers.iter().map(ToString::to_string).collect(),
        };
        let said = |containers: &[&str]| remaining(&users(containers), Remedy::Launch);
        assert!(said(&[]).contains("network weft, which"));
        assert!(said(&["a"]).contains("network weft with container a, which"));
        let gone = remaining(&users(&[]), Remedy::Remove);
        assert!(gone.ends_with("`docker network rm weft`"), "{gone}");
        assert!(said(&["a", "b"]).contains("network weft with containers a, b, which"));
    }
}
