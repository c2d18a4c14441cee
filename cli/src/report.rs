//! `weft report`: everything as JSON, or what a template picks from it.
//!
//! Scripts written for Weave name `.Router.Name`, `.Router.Targets` and the like: a template sees these beside our own
//! keys. Parts that a daemon does not run are absent, as in Weave.

use serde_json::{Map, Value, json};
use weft_control::api::{Connection, DnsEntry, DnsStatus, IpamReport, PendingAddress, Report};

use crate::client::Client;
use crate::output;
use crate::template;

/// Prints the report.
///
/// # Errors
///
/// What the client met, or where the template is wrong.
pub(crate) fn run(client: &Client, template: Option<&str>) -> anyhow::Result<()> {
    let report = client.get::<Report>("/report")?;
    let Some(template) = template else {
        return output::json(&report);
    };
    output::data(&template::render(template, &seen_by_templates(&report)?)?)
}

/// Our report with Weave's names added.
fn seen_by_templates(report: &Report) -> anyhow::Result<Value> {
    let mut all: Map<String, Value> = serde_json::from_value(serde_json::to_value(report)?)?;
    all.insert("Ready".to_owned(), true.into());
    all.insert("Version".to_owned(), report.status.version.clone().into());
    all.insert("Router".to_owned(), router(report));
    if let Some(ipam) = &report.status.ipam {
        all.insert("IPAM".to_owned(), addresses(ipam));
    }
    if let Some(dns) = &report.status.dns {
        all.insert("DNS".to_owned(), names(dns, &report.dns_entries));
    }
    Ok(all.into())
}

/// An entry is an owner, with all that it owns; Weave's were runs of the ring.
fn addresses(ipam: &IpamReport) -> Value {
    let paxos = ipam.election.map(|election| {
        json!({
            "Elector": election.votes,
            "KnownNodes": election.known,
            "Quorum": election.quorum,
        })
    });
    let owners = ipam.owners.iter().map(|owner| {
        json!({
            "Size": owner.addresses,
            "Peer": owner.name,
            "Nickname": owner.nickname,
            "IsKnownPeer": owner.reachable,
        })
    });
    let claims = ipam
        .pending_claims
        .iter()
        .map(|PendingAddress { holder, cidr }| json!({ "Ident": holder, "CIDR": cidr }));
    let allocates = ipam
        .pending_allocates
        .iter()
        .map(|PendingAddress { holder, cidr }| format!("{holder} {cidr}"));
    json!({
        "Paxos": paxos,
        "Range": ipam.range,
        "RangeNumIPs": ipam.gauges.max_ips,
        "ActiveIPs": ipam.active,
        "DefaultSubnet": ipam.default_subnet,
        "Entries": owners.collect::<Vec<_>>(),
        "PendingClaims": claims.collect::<Vec<_>>(),
        "PendingAllocates": allocates.collect::<Vec<_>>(),
    })
}

fn names(dns: &DnsStatus, entries: &[DnsEntry]) -> Value {
    let entries = entries.iter().map(|entry| {
        json!({
            "Hostname": format!("{}.", entry.hostname),
            "Origin": entry.origin_name,
            "ContainerID": entry.container,
            "Address": entry.address,
            "Version": 0,
            "Tombstone": 0,
        })
    });
    json!({
        "Domain": dns.domain,
        "Upstream": dns.upstreams,
        "Address": dns.listening.first(),
        "TTL": dns.ttl,
        "Entries": entries.collect::<Vec<_>>(),
    })
}

fn router(report: &Report) -> Value {
    let status = &report.status;
    let targets: Vec<&str> = status
        .targets
        .iter()
        .map(|target| target.address.as_str())
        .collect();
    let connections: Vec<Value> = status.connections.iter().map(connection).collect();
    json!({
        "Encryption": true,
        "PeerDiscovery": status.discovery,
        "Name": status.name,
        "NickName": status.nickname,
        "Port": status.port,
        "Peers": peers(report),
        "Connections": connections,
        "Targets": targets,
        "TrustedSubnets": [],
    })
}

fn connection(link: &Connection) -> Value {
    let mtu = link.path.as_ref().map(|path| path.mtu);
    json!({
        "Address": link.address,
        "Outbound": link.outbound,
        "State": link.state,
        "Info": link.detail,
        "Attrs": {
            "name": link.path.as_ref().map(|path| path.kind.clone()),
            "mtu": mtu,
            "encrypted": link.cipher.is_some(),
        },
    })
}

/// Ourselves with our links, then whom they lead to, each once.
fn peers(report: &Report) -> Vec<Value> {
    let status = &report.status;
    let known: Vec<&Connection> = status
        .connections
        .iter()
        .filter(|link| !link.peer_id.is_empty())
        .collect();
    let links: Vec<Value> = known
        .iter()
        .map(|link| {
            json!({
                "Name": link.name,
                "NickName": link.nickname,
                "Address": link.address,
                "Outbound": link.outbound,
                "Established": link.state == "established",
            })
        })
        .collect();
    let ours = json!({
        "Name": status.name,
        "NickName": status.nickname,
        "UID": status.peer_id,
        "Version": status.version,
        "Connections": links,
    });
    let mut others: Vec<&Connection> = known;
    others.sort_by(|a, b| a.peer_id.cmp(&b.peer_id));
    others.dedup_by(|a, b| a.peer_id == b.peer_id);
    let others = others.into_iter().map(|link| {
        json!({
            "Name": link.name,
            "NickName": link.nickname,
            "UID": link.peer_id,
            "Connections": [],
        })
    });
    std::iter::once(ours).chain(others).collect()
}

#[cfg(test)]
mod tests {
    use weft_control::api::{IpamElection, IpamGauges, IpamOwner};

    use super::*;

    #[test]
    fn addresses_have_weaves_shape() {
        let asked = |holder: &str, cidr: &str| {
            vec![PendingAddress {
                holder: holder.to_owned(),
                cidr: cidr.to_owned(),
            }]
        };
        let mut report = IpamReport {
            state: "waiting for IP(s) to become available".to_owned(),
            range: "10.32.0.0/12".to_owned(),
            default_subnet: "10.32.1.0/24".to_owned(),
            range6: None,
            ring: Some("01020304".to_owned()),
            active: 2,
            owners: vec![IpamOwner {
                peer_id: "ff".to_owned(),
                name: "da:fa:eb:dc:28:27".to_owned(),
                nickname: "host1".to_owned(),
                addresses: 1 << 20,
                share: 100.0,
                reachable: true,
                unheard: false,
            }],
            waiting: 2,
            pending_allocates: asked("c1", "10.32.1.0/24"),
            pending_claims: asked("c2", "10.32.1.9/24"),
            gauges: IpamGauges {
                max_ips: 1 << 20,
                ..IpamGauges::default()
            },
            ..IpamReport::default()
        };
        assert_eq!(
            addresses(&report),
            json!({
                "Paxos": null,
                "Range": "10.32.0.0/12",
                "RangeNumIPs": 1_048_576,
                "ActiveIPs": 2,
                "DefaultSubnet": "10.32.1.0/24",
                "Entries": [{
                    "Size": 1_048_576, "Peer": "da:fa:eb:dc:28:27", "Nickname": "host1", "IsKnownPeer": true,
                }],
                "PendingClaims": [{ "Ident": "c2", "CIDR": "10.32.1.9/24" }],
                "PendingAllocates": ["c1 10.32.1.0/24"],
            })
        );
        report.election = Some(IpamElection {
            votes: true,
            known: 1,
            quorum: 2,
        });
        assert_eq!(
            addresses(&report)["Paxos"],
            json!({ "Elector": true, "KnownNodes": 1, "Quorum": 2 })
        );
    }
}
