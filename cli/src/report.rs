//! `weft report`: everything as JSON, or what a template picks from it.
//!
//! Scripts written for Weave name `.Router.Name`, `.Router.Targets` and the like: a template sees these beside our own
//! keys. Parts that a daemon does not run are absent, as in Weave.

use serde_json::{Map, Value, json};
use weft_control::api::{Connection, DnsEntry, DnsStatus, Report};

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
    if let Some(dns) = &report.status.dns {
        all.insert("DNS".to_owned(), names(dns, &report.dns_entries));
    }
    Ok(all.into())
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
