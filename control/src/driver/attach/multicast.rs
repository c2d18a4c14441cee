//! Keeps multicast of other subnets away from a container: an nftables table in the container's namespace for each of
//! its interfaces.
//!
//! ```text
//!  to 224.0.0.0/4 by this interface, from a subnet of the container's   as it is
//!  to 224.0.0.0/4 by this interface, from anybody else                  dropped
//! ```
//!
//! What is sent to one address stays within its subnet, since nobody has a route to another; multicast is flooded to
//! every container of the network. The host's `nft` writes the rules, from a thread inside the namespace. Without it
//! containers hear the multicast of other subnets, which the log says.

use std::collections::BTreeSet;
use std::io::{self, Write as _};
use std::process::{Command, Stdio};

use ipnet::{IpNet, Ipv4Net};

use crate::driver::firewall::{TABLE, without};
use crate::driver::identity::HOST_PREFIX;

/// Whose rules they are, which come and go with the interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Table(String);

impl Table {
    /// That of `ethwe`.
    pub(super) fn own() -> Self {
        Self(TABLE.to_owned())
    }

    /// That of an interface by Docker's plugin, of which a container may have several; `outer` is its end on the host.
    pub(super) fn of_endpoint(outer: &str) -> Self {
        let digits = outer.strip_prefix(HOST_PREFIX).unwrap_or(outer);
        Self(format!("{TABLE}_{digits}"))
    }

    fn without(&self) -> String {
        without("ip", &self.0)
    }
}

/// Lets in multicast of the subnets of these addresses alone. For a thread in the container's namespace.
pub(super) fn isolate(table: &Table, interface: u32, addresses: &[IpNet]) {
    apply(&rules(table, interface, addresses));
}

/// Takes the rules away: the interface goes.
pub(super) fn forget(table: &Table) {
    apply(&table.without());
}

fn apply(rules: &str) {
    if let Err(error) = run(rules) {
        tracing::warn!(%error, "multicast of other subnets is not kept away from the container: is nftables installed?");
    }
}

/// The interface is meant by its number: a name may hold anything.
fn rules(table: &Table, interface: u32, addresses: &[IpNet]) -> String {
    let subnets: BTreeSet<Ipv4Net> = addresses
        .iter()
        .filter_map(|address| match address {
            IpNet::V4(address) => Some(address.trunc()),
            IpNet::V6(_) => None,
        })
        .collect();
    let mut text = table.without();
    let Table(name) = table;
    text.push_str(&format!(
        "table ip {name} {{\n\tchain input {{\n\t\ttype filter hook input priority filter; policy accept;\n\
         \t\tip daddr != 224.0.0.0/4 accept\n\t\tiif != {interface} accept\n"
    ));
    for subnet in subnets {
        text.push_str(&format!("\t\tip saddr {subnet} accept\n"));
    }
    text.push_str("\t\tdrop\n\t}\n}\n");
    text
}

fn run(rules: &str) -> io::Result<()> {
    let mut child = Command::new("nft")
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        // One that ends early says why.
        let _ = stdin.write_all(rules.as_bytes());
    }
    let output = child.wait_with_output()?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let line = said.lines().next().unwrap_or("nft gives no reason");
    Err(io::Error::other(line.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_containers_own_subnets_are_let_in_and_all_others_dropped() {
        let addresses = ["10.2.1.9/24", "10.2.1.8/24", "10.32.0.1/12", "fd00::1/64"];
        let table = Table::of_endpoint("vethwe3f0c81d2a");
        let text = rules(&table, 5, &addresses.map(|text| text.parse().unwrap()));

        assert!(text.contains("delete table ip weft_3f0c81d2a\n"), "{text}");
        let lines: Vec<&str> = text.lines().map(str::trim).skip(5).collect();
        assert_eq!(
            lines,
            [
                "ip daddr != 224.0.0.0/4 accept",
                "iif != 5 accept",
                "ip saddr 10.2.1.0/24 accept",
                "ip saddr 10.32.0.0/12 accept",
                "drop",
                "}",
                "}"
            ]
        );
    }
}
