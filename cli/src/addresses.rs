//! `weft expose`, `hide`, `prime`, `rmpeer` and `status ipam`: who has which addresses.

use std::collections::BTreeSet;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::Duration;

use serde_json::{Value, json};
use weft_control::api::{ExposeRequest, IpamReport, RemoveReply, RemoveRequest, Status};
use weft_control::ipam::check::readdress;

use crate::args::{ExposeArgs, RemovePeerArgs};
use crate::client::Client;
use crate::container::change;
use crate::output::{self, Format};

/// How often it is looked what is waited for; nobody wonders earlier.
const PROGRESS_PERIOD: Duration = Duration::from_secs(1);

/// Puts the host on the network and prints its addresses in the order asked.
///
/// # Errors
///
/// The daemon's line.
pub(crate) fn expose(client: &Client, args: ExposeArgs, format: Format) -> anyhow::Result<()> {
    let request = ExposeRequest {
        addresses: args.addresses,
        names: args.names,
        masquerade: !args.without_masquerade,
    };
    change(client, "/expose", &request, format)
}

/// Takes the host off the network and prints the addresses that went.
///
/// # Errors
///
/// The daemon's line.
pub(crate) fn hide(client: &Client, addresses: Vec<String>, format: Format) -> anyhow::Result<()> {
    let request = ExposeRequest {
        addresses,
        names: Vec::new(),
        masquerade: true,
    };
    change(client, "/hide", &request, format)
}

/// Returns when there is a ring; says what it waits for.
///
/// # Errors
///
/// The daemon's line.
pub(crate) fn prime(client: &Client) -> anyhow::Result<()> {
    let (waiting, is_done) = mpsc::channel::<()>();
    std::thread::scope(|scope| {
        scope.spawn(move || tell_progress(client, &is_done));
        let answer: anyhow::Result<Value> = client.post("/prime", &json!({}));
        drop(waiting);
        answer.map(drop)
    })
}

/// Says what is waited for, whenever that has changed, until the sender is gone.
fn tell_progress(client: &Client, is_done: &Receiver<()>) {
    let mut told = String::new();
    while is_done.recv_timeout(PROGRESS_PERIOD) == Err(RecvTimeoutError::Timeout) {
        // Whoever waits for the answer hears of what goes wrong.
        let Ok(status) = client.get::<Status>("/status") else {
            continue;
        };
        let awaited = awaited(&status).unwrap_or_default();
        if awaited != told && !awaited.is_empty() {
            output::talk(&format!("weft: {awaited}"));
            told = awaited;
        }
    }
}

/// What a first ring waits for; `None` once there is one.
fn awaited(status: &Status) -> Option<String> {
    let ipam = status.ipam.as_ref().filter(|ipam| ipam.ring.is_none())?;
    let missing: Vec<&str> = status
        .targets
        .iter()
        .filter(|target| !["connected", "self"].contains(&target.state.as_str()))
        .map(|target| target.address.as_str())
        .collect();
    let missing = if missing.is_empty() {
        String::new()
    } else {
        format!(", not connected: {}", missing.join(", "))
    };
    Some(format!("{}{missing}", ipam.state))
}

/// Removes peers one after the other and prints what was taken over.
///
/// # Errors
///
/// The daemon's line about the first that cannot be removed.
pub(crate) fn remove(client: &Client, args: &RemovePeerArgs, format: Format) -> anyhow::Result<()> {
    let mut done = BTreeSet::new();
    for peer in args.peers.iter().filter(|peer| done.insert(*peer)) {
        let request = RemoveRequest {
            peer: peer.clone(),
            force: args.force,
            dry_run: args.dry_run,
        };
        let reply: RemoveReply = client.post("/rmpeer", &request)?;
        match format {
            Format::Json => output::json(&reply)?,
            Format::Text if args.dry_run => {
                let lacks = reply.votes < reply.majority && !args.force;
                let refused = if lacks {
                    ", which are too few: --force does without"
                } else {
                    ""
                };
                output::line(&format!(
                    "{} IPs would be taken over from {peer} ({} of {} votes within reach{refused})",
                    reply.addresses, reply.votes, reply.majority
                ))?;
            }
            Format::Text => {
                output::line(&format!("{} IPs taken over from {peer}", reply.addresses))?;
            }
        }
        for (other, count) in &reply.others {
            let would = if args.dry_run { "would go" } else { "went" };
            output::talk(&format!("weft: {count} IPs of {peer} {would} to {other}"));
        }
    }
    Ok(())
}

/// Why no address is given at this moment, beside what `weft status ipam` prints; `None` if they are.
pub(crate) fn why_not_ready(report: Option<&IpamReport>) -> Option<&str> {
    match report {
        None => Some("allocation is off on this host (--ipalloc-range '')"),
        Some(report) if report.state == "ready" => None,
        Some(report) => Some(&report.state),
    }
}

/// Returns the text of `weft status ipam`: a line for each owner, nothing while there is no ring.
pub(crate) fn owners(report: Option<&IpamReport>, own_id: &str) -> String {
    let Some(report) = report.filter(|report| report.ring.is_some()) else {
        return String::new();
    };
    let mut text = String::new();
    for owner in &report.owners {
        let called = if owner.unheard {
            "not heard of"
        } else {
            &owner.nickname
        };
        let name = format!("{}({called})", owner.name);
        let note = if !owner.reachable {
            "- unreachable!".to_owned()
        } else if owner.peer_id == own_id {
            format!("({} active)", report.active)
        } else {
            String::new()
        };
        let line = format!(
            "{name:<37}{:>8} IPs ({:04.1}% of total) {note}",
            owner.addresses, owner.share
        );
        text.push_str(line.trim_end());
        text.push('\n');
    }
    for span in &report.disputed {
        text.push_str(&format!(
            "disputed: {span}, nothing of it is given until its claimants meet: `weft ipam check` names them\n"
        ));
    }
    for (address, holder) in &report.misplaced {
        text.push_str(&format!(
            "blocked: {address} of {holder} belongs to another peer: {}\n",
            readdress(holder)
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use weft_control::api::IpamOwner;

    use super::*;

    #[test]
    fn owners_are_shown_as_weave_shows_them() {
        let owner = |name: &str, nickname: &str, addresses, share, reachable| IpamOwner {
            peer_id: nickname.to_owned(),
            name: name.to_owned(),
            nickname: nickname.to_owned(),
            addresses,
            share,
            reachable,
            unheard: nickname.is_empty(),
        };
        let report = IpamReport {
            state: "ready".to_owned(),
            range: "10.32.0.0/12".to_owned(),
            default_subnet: "10.32.0.0/12".to_owned(),
            range6: None,
            ring: Some("01020304".to_owned()),
            active: 2,
            owners: vec![
                owner("da:fa:eb:dc:28:27", "host1", 786_432, 75.0, true),
                owner("0a:00:27:00:00:01", "host2", 131_072, 12.5, false),
                owner("00:00:00:00:00:03", "", 131_072, 12.5, false),
            ],
            ..IpamReport::default()
        };
        assert_eq!(
            owners(Some(&report), "host1"),
            "da:fa:eb:dc:28:27(host1)               786432 IPs (75.0% of total) (2 active)\n\
             0a:00:27:00:00:01(host2)               131072 IPs (12.5% of total) - unreachable!\n\
             00:00:00:00:00:03(not heard of)        131072 IPs (12.5% of total) - unreachable!\n"
        );
        let misplaced = [("10.32.0.1", "c1"), ("10.32.0.2", "weave:expose")];
        let misplaced =
            misplaced.map(|(ip, holder)| (ip.parse().expect("an address"), holder.to_owned()));
        let blocked = IpamReport {
            owners: Vec::new(),
            disputed: vec!["10.32.0.0/24".to_owned(), "10.36.0.1-10.36.0.6".to_owned()],
            misplaced: misplaced.to_vec(),
            ..report
        };
        assert_eq!(
            owners(Some(&blocked), "host1"),
            "disputed: 10.32.0.0/24, nothing of it is given until its claimants meet: `weft ipam check` names them\n\
             disputed: 10.36.0.1-10.36.0.6, nothing of it is given until its claimants meet: `weft ipam check` names them\n\
             blocked: 10.32.0.1 of c1 belongs to another peer: detach it, then attach it again\n\
             blocked: 10.32.0.2 of weave:expose belongs to another peer: `weft hide`, then `weft expose`\n"
        );
        assert_eq!(
            owners(None, "host1"),
            "",
            "no ring, no line: scripts rest on it"
        );
    }
}
