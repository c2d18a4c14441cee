//! The host's nftables tables: `inet weft` translates for exposed subnets, `bridge weft` holds blocked addresses back.
//!
//! ```text
//!  to 224.0.0.0/4 from an exposed subnet   as it is
//!  into an exposed subnet from outside     from the host's own address on the bridge, so that answers come back
//!  out of an exposed subnet                from the host's own address there
//! ```
//!
//! A blocked address is one that is in use here and belongs to another peer: no frame of it passes the bridge, so
//! that its neighbours here reach the container that has it by right. What would leave the host the engine drops as well:
//! no other host may hear it, be `nft` there or not.
//!
//! One file of rules is handed to `nft` at once, which is atomic; other tables, and rules of users, are left alone.
//! A subnet exposed without translation has no rule; the table is there all the same, so that the next daemon knows.

mod changes;

use std::io;
use std::net::Ipv4Addr;
use std::process::Stdio;

use ipnet::Ipv4Net;
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

pub(crate) use self::changes::FirewallChanges;

/// The table's name.
const TABLE: &str = "weft";

/// Why the rules do not stand.
#[derive(Debug, thiserror::Error)]
pub enum FirewallError {
    /// The program is missing.
    #[error("start nft: install nftables, or use --without-masquerade")]
    Start(#[source] io::Error),
    /// It could not be talked to.
    #[error("hand rules to nft")]
    Talk(#[source] io::Error),
    /// It said no.
    #[error("nft refuses the rules: {0}")]
    Refused(String),
}

/// Writes the rules for these subnets, in the place of all that stood there; without any list not even the table.
pub(crate) async fn apply(subnets: Option<&[Ipv4Net]>) -> Result<(), FirewallError> {
    run(&["-f", "-"], &ruleset(subnets)).await.map(drop)
}

/// Removes both tables; without `nft` there are none.
///
/// # Errors
///
/// If `nft` refuses.
pub async fn remove() -> Result<(), FirewallError> {
    let text = [ruleset(None), blocking(&[])].concat();
    match run(&["-f", "-"], &text).await {
        Ok(_) | Err(FirewallError::Start(_)) => Ok(()),
        Err(error) => Err(error),
    }
}

/// The subnets that are translated now; `None` if the table is gone.
pub(crate) async fn translated() -> Result<Option<Vec<Ipv4Net>>, FirewallError> {
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
    let mut text = format!("table bridge {TABLE}\ndelete table bridge {TABLE}\n");
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

/// Declaring the table before deleting it makes the deletion right whether it was there or not.
fn ruleset(subnets: Option<&[Ipv4Net]>) -> String {
    let mut text = format!("table inet {TABLE}\ndelete table inet {TABLE}\n");
    let Some(subnets) = subnets else {
        return text;
    };
    if subnets.is_empty() {
        text.push_str(&format!("table inet {TABLE}\n"));
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

/// The subnets of the rules in `nft`'s own words.
fn read(listing: &str) -> Vec<Ipv4Net> {
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
    subnets
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_read_as_they_were_written() {
        let subnets: Vec<Ipv4Net> = ["10.2.1.0/24", "10.32.0.0/12"]
            .map(|text| text.parse().unwrap())
            .to_vec();
        let rules = ruleset(Some(&subnets));

        assert_eq!(read(&rules), subnets);
        assert!(
            rules.contains("ip saddr != 10.2.1.0/24 ip daddr 10.2.1.0/24 masquerade"),
            "{rules}"
        );
        assert_eq!(read(&ruleset(Some(&[]))), []);
    }

    /// What is exposed without translation has a table without rules, and what is hidden has none.
    #[test]
    fn the_table_stays_without_rules_and_goes_with_the_last_address() {
        let tables = |rules: &str| rules.matches(&format!("table inet {TABLE}\n")).count();
        assert_eq!(tables(&ruleset(Some(&[]))), 3, "declared, deleted, made");
        assert_eq!(tables(&ruleset(None)), 2, "declared, deleted");
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
        let rules = ruleset(Some(&["10.2.1.9/24".parse().unwrap()]));
        assert!(
            rules.contains("ip saddr 10.2.1.0/24 ip daddr 224.0.0.0/4 return"),
            "{rules}"
        );
    }
}
