//! The host's nftables tables: `inet weft` translates for exposed subnets, `bridge weft` holds blocked addresses back, and
//! `inet weft_port` (`port`) keeps containers from the daemon's port.
//!
//! ```text
//!  to 224.0.0.0/4 from an exposed subnet   as it is
//!  into an exposed subnet from outside     from the host's own address on the bridge, so that answers come back
//!  out of an exposed subnet                from the host's own address there
//!  from Docker's own bridge to ours        dropped while any subnet is exposed: who is in another subnet, or in none, has
//!                                          a way to the host, which has one to the exposed subnet
//! ```
//!
//! A blocked address is one that is in use here and belongs to another peer: no frame of it passes the bridge, so
//! that its neighbours here reach the container that has it by right. What would leave the host the engine drops as well:
//! no other host may hear it, be `nft` there or not.
//!
//! One file of rules is handed to `nft` at once, which is atomic; other tables, and rules of users, are left alone.
//! A subnet exposed without translation has no rule; the table is there all the same, so that the next daemon knows.

pub mod docker;
pub mod port;

use std::io;
use std::net::Ipv4Addr;
use std::process::Stdio;

use ipnet::Ipv4Net;
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

/// The name of every table of ours.
pub(super) const TABLE: &str = "weft";
/// The chain in it that holds Docker's bridge back.
const GATE: &str = "chain forward";

/// Why the rules do not stand.
#[derive(Debug, thiserror::Error)]
pub enum FirewallError {
    /// The program is missing.
    #[error("start nft: install nftables, or use --without-masquerade")]
    Start(#[source] io::Error),
    /// It could not be talked to.
    #[error("hand rules to nft")]
    Talk(#[source] io::Error),
    /// What others change cannot be heard of.
    #[error("hear of changes of nftables")]
    Watch(#[source] io::Error),
    /// It said no.
    #[error("nft refuses the rules: {0}")]
    Refused(String),
}

/// The two bridges of a host with Docker; nothing begins at Docker's that goes to ours.
#[derive(Debug, Clone)]
pub(crate) struct Gate {
    /// Ours.
    pub(crate) bridge: String,
    /// Docker's.
    pub(crate) docker_bridge: String,
}

/// What the table holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Standing {
    /// The subnets that are translated.
    pub(crate) translated: Vec<Ipv4Net>,
    /// Whether a [`Gate`] is shut.
    pub(crate) is_gated: bool,
}

/// Writes the rules for these subnets, in the place of all that stood there; without any list not even the table.
pub(crate) async fn apply(
    subnets: Option<&[Ipv4Net]>,
    gate: Option<&Gate>,
) -> Result<(), FirewallError> {
    run(&["-f", "-"], &ruleset(subnets, gate)).await.map(drop)
}

/// Removes all tables; without `nft` there are none.
///
/// # Errors
///
/// If `nft` refuses.
pub async fn remove() -> Result<(), FirewallError> {
    let text = [ruleset(None, None), blocking(&[]), port::nothing()].concat();
    match run(&["-f", "-"], &text).await {
        Ok(_) | Err(FirewallError::Start(_)) => Ok(()),
        Err(error) => Err(error),
    }
}

/// What stands now; `None` if the table is gone.
pub(crate) async fn standing() -> Result<Option<Standing>, FirewallError> {
    match run(&["-s", "list", "table", "inet", TABLE], "").await {
        Ok(listing) => Ok(Some(read(&listing))),
        Err(FirewallError::Refused(_)) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Lets no frame from these addresses through the bridge, and all others again.
pub(crate) async fn block(addresses: &[Ipv4Addr]) -> Result<(), FirewallError> {
    run(&["-f", "-"], &blocking(addresses)).await.map(drop)
}

fn blocking(addresses: &[Ipv4Addr]) -> String {
    let mut text = without("bridge", TABLE);
    if addresses.is_empty() {
        return text;
    }
    let list: Vec<String> = addresses.iter().map(Ipv4Addr::to_string).collect();
    let list = list.join(", ");
    text.push_str(&format!("table bridge {TABLE} {{\n"));
    for hook in ["forward", "output"] {
        text.push_str(&format!(
            "\tchain {hook} {{\n\t\ttype filter hook {hook} priority filter; policy accept;\n\
             \t\tip saddr {{ {list} }} drop\n\t\tarp saddr ip {{ {list} }} drop\n\t}}\n"
        ));
    }
    text.push_str("}\n");
    text
}

async fn run(arguments: &[&str], input: &str) -> Result<String, FirewallError> {
    let mut child = Command::new("nft")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(FirewallError::Start)?;
    if let Some(mut stdin) = child.stdin.take() {
        let written = stdin.write_all(input.as_bytes()).await;
        written.map_err(FirewallError::Talk)?;
    }
    let output = child
        .wait_with_output()
        .await
        .map_err(FirewallError::Talk)?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        let said = String::from_utf8_lossy(&output.stderr);
        let line = said.lines().next().unwrap_or("no reason given");
        Err(FirewallError::Refused(line.to_owned()))
    }
}

/// Takes a table away. Declaring it first makes the deletion right whether it was there or not.
pub(super) fn without(family: &str, table: &str) -> String {
    format!("table {family} {table}\ndelete table {family} {table}\n")
}

fn ruleset(subnets: Option<&[Ipv4Net]>, gate: Option<&Gate>) -> String {
    let mut text = without("inet", TABLE);
    let Some(subnets) = subnets else {
        return text;
    };
    text.push_str(&format!("table inet {TABLE}\n"));
    if let Some(gate) = gate {
        let (from, to) = (&gate.docker_bridge, &gate.bridge);
        // Answers to what our side began pass.
        text.push_str(&format!(
            "table inet {TABLE} {{\n\t{GATE} {{\n\t\ttype filter hook forward priority filter; policy accept;\n\
             \t\tiifname \"{from}\" oifname \"{to}\" ct state new drop\n\t}}\n}}\n"
        ));
    }
    if subnets.is_empty() {
        return text;
    }
    text.push_str(&format!(
        "table inet {TABLE} {{\n\tchain postrouting {{\n\t\ttype nat hook postrouting priority srcnat; policy accept;\n"
    ));
    for subnet in subnets {
        let subnet = subnet.trunc();
        text.push_str(&format!(
            "\t\tip saddr {subnet} ip daddr 224.0.0.0/4 return\n\
             \t\tip saddr != {subnet} ip daddr {subnet} masquerade\n\
             \t\tip saddr {subnet} ip daddr != {subnet} masquerade\n"
        ));
    }
    text.push_str("\t}\n}\n");
    text
}

/// The rules in `nft`'s own words.
fn read(listing: &str) -> Standing {
    let rules = listing
        .lines()
        .map(str::trim)
        .filter(|line| line.ends_with("masquerade"));
    let mut subnets: Vec<Ipv4Net> = rules
        .filter_map(|rule| {
            rule.strip_prefix("ip saddr ")?
                .split(' ')
                .next()?
                .parse()
                .ok()
        })
        .collect();
    subnets.sort_unstable();
    subnets.dedup();
    Standing {
        translated: subnets,
        is_gated: listing.contains(GATE),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_read_as_they_were_written() {
        let subnets: Vec<Ipv4Net> = ["10.2.1.0/24", "10.32.0.0/12"]
            .map(|text| text.parse().unwrap())
            .to_vec();
        let rules = ruleset(Some(&subnets), None);
        let plain = Standing {
            translated: subnets.clone(),
            is_gated: false,
        };
        assert_eq!(read(&rules), plain);
        assert!(
            rules.contains("ip saddr != 10.2.1.0/24 ip daddr 10.2.1.0/24 masquerade"),
            "{rules}"
        );
        assert_eq!(read(&ruleset(Some(&[]), None)).translated, []);

        let gate = Gate {
            bridge: "weft".to_owned(),
            docker_bridge: "docker0".to_owned(),
        };
        for subnets in [&subnets[..], &[]] {
            let rules = ruleset(Some(subnets), Some(&gate));
            let gated = Standing {
                translated: subnets.to_vec(),
                is_gated: true,
            };
            assert_eq!(read(&rules), gated);
            let rule = "iifname \"docker0\" oifname \"weft\" ct state new drop";
            assert!(rules.contains(rule), "{rules}");
        }
    }

    /// What is exposed without translation has a table without rules, and what is hidden has none.
    #[test]
    fn the_table_stays_without_rules_and_goes_with_the_last_address() {
        let tables = |rules: &str| rules.matches(&format!("table inet {TABLE}\n")).count();
        assert_eq!(
            tables(&ruleset(Some(&[]), None)),
            3,
            "declared, deleted, made"
        );
        assert_eq!(tables(&ruleset(None, None)), 2, "declared, deleted");
    }

    #[test]
    fn blocked_addresses_pass_neither_as_packets_nor_as_arp() {
        let rules = blocking(&["10.2.1.1".parse().unwrap(), "10.2.1.2".parse().unwrap()]);
        for rule in [
            "ip saddr { 10.2.1.1, 10.2.1.2 } drop",
            "arp saddr ip { 10.2.1.1, 10.2.1.2 } drop",
        ] {
            assert_eq!(rules.matches(rule).count(), 2, "{rules}");
        }
        assert!(!blocking(&[]).contains("chain"), "nothing is left");
    }

    #[test]
    fn an_address_of_the_subnet_means_the_subnet() {
        let rules = ruleset(Some(&["10.2.1.9/24".parse().unwrap()]), None);
        assert!(
            rules.contains("ip saddr 10.2.1.0/24 ip daddr 224.0.0.0/4 return"),
            "{rules}"
        );
    }
}
