//! Puts the daemon's status into words: the shapes that Weave's users know, and weft's own part.
//!
//! ```text
//!  label, right-aligned to column 15 ─┐
//!         Version: 0.1.0              │  sections are separated by one blank line;
//!                                     │  the block begins and ends with one
//!         Service: router ◄───────────┘
//! ```

use std::collections::BTreeMap;
use std::fmt::Write;

use weft_control::api::{Connection, DnsStatus, EngineStatus, PluginStatus, Status, Target};

use crate::dns::what_was_asked;

/// States of a link in the order in which Weave counts them.
const STATES: [&str; 5] = ["established", "pending", "retrying", "failed", "connecting"];

/// Returns the text of `weft status`.
pub(crate) fn overview(status: &Status) -> String {
    let mut text = String::from("\n");
    row(&mut text, "Version", &status.version);
    text.push('\n');
    router(&mut text, status);
    text.push('\n');
    if let Some(ipam) = &status.ipam {
        row(&mut text, "Service", "ipam");
        row(&mut text, "Status", &ipam.state);
        row(&mut text, "Range", &ipam.range);
        row(&mut text, "DefaultSubnet", &ipam.default_subnet);
        if let Some(range) = &ipam.range6 {
            row(&mut text, "Range6", range);
        }
        text.push('\n');
    }
    if let Some(dns) = &status.dns {
        names(&mut text, dns);
        text.push('\n');
    }
    if let Some(proxy) = &status.proxy {
        row(&mut text, "Service", "proxy");
        row(&mut text, "Address", &proxy.addresses.join(" "));
        row(
            &mut text,
            "Docker",
            &docker(&proxy.docker, proxy.trouble.as_ref()),
        );
        if proxy.refused > 0 {
            let refused = format!("{} clients, when all places were taken", proxy.refused);
            row(&mut text, "Refused", &refused);
        }
        text.push('\n');
    }
    if let Some(serving) = &status.plugin {
        plugin(&mut text, serving);
        text.push('\n');
    }
    engine(&mut text, &status.engine, status.mtu);
    text.push('\n');
    text
}

/// Docker's address, and that nobody is there.
fn docker(address: &str, trouble: Option<&String>) -> String {
    match trouble {
        None => address.to_owned(),
        Some(_) => format!("{address}, not there (its containers follow when it is)"),
    }
}

fn plugin(text: &mut String, plugin: &PluginStatus) {
    row(text, "Service", "plugin");
    row(text, "Drivers", &plugin.drivers.join(" "));
    if let Some(network) = &plugin.network {
        let network = match &plugin.network_fault {
            Some(fault) if plugin.trouble.is_none() => format!("{network}, {fault}"),
            Some(_) | None => network.clone(),
        };
        row(text, "Network", &network);
    }
    let docker = docker(&plugin.docker, plugin.trouble.as_ref());
    row(text, "Docker", &docker);
}

/// Returns the text of `weft status targets`: one a line, as given.
pub(crate) fn targets(targets: &[Target]) -> String {
    targets
        .iter()
        .map(|target| format!("{}\n", target.address))
        .collect()
}

/// Returns the text of `weft status connections`: one a line.
pub(crate) fn connections(status: &Status) -> String {
    let open = status.membership == "open";
    status
        .connections
        .iter()
        .map(|connection| format!("{}\n", link_line(connection, open)))
        .collect()
}

fn row(text: &mut String, label: &str, value: &str) {
    // Writing to a string cannot fail.
    let _infallible = writeln!(text, "{label:>15}: {value}");
}

fn router(text: &mut String, status: &Status) {
    row(text, "Service", "router");
    row(
        text,
        "Name",
        &format!("{}({})", status.name, status.nickname),
    );
    row(text, "Network", &status.network);
    // There is no clear traffic; what an open network lacks is a secret that decides who is a member.
    let encryption = if status.membership == "open" {
        "enabled, open membership"
    } else {
        "enabled"
    };
    row(text, "Encryption", encryption);
    row(
        text,
        "PeerDiscovery",
        if status.discovery {
            "enabled"
        } else {
            "disabled"
        },
    );
    row(text, "Targets", &status.targets.len().to_string());
    let states: Vec<(&str, usize)> = STATES
        .iter()
        .map(|state| {
            (
                *state,
                status
                    .connections
                    .iter()
                    .filter(|link| link.state == *state)
                    .count(),
            )
        })
        .collect();
    row(
        text,
        "Connections",
        &counted(status.connections.len(), &states),
    );
    row(text, "Peers", &peers(&status.connections));
    row(text, "TrustedSubnets", "none");
    row(text, "Uptime", &duration(status.uptime_s));
}

/// Returns a total and its parts; parts that are zero are left out, as in Weave.
fn counted(total: usize, parts: &[(&str, usize)]) -> String {
    let parts: Vec<String> = parts
        .iter()
        .filter(|(_, count)| *count > 0)
        .map(|(name, count)| format!("{count} {name}"))
        .collect();
    match parts.as_slice() {
        [] => total.to_string(),
        some => format!("{total} ({})", some.join(", ")),
    }
}

/// Returns the count of known peers with us among them, and of their links, each seen from both ends.
fn peers(connections: &[Connection]) -> String {
    let mut ids: Vec<&str> = connections
        .iter()
        .map(|link| link.peer_id.as_str())
        .filter(|id| !id.is_empty())
        .collect();
    ids.sort_unstable();
    ids.dedup();
    let both_ends = |state: &str| {
        2 * connections
            .iter()
            .filter(|link| link.state == state)
            .count()
    };
    let parts: Vec<String> = ["established", "pending"]
        .iter()
        .map(|state| (state, both_ends(state)))
        .filter(|(_, count)| *count > 0)
        .map(|(state, count)| format!("{count} {state}"))
        .collect();
    match parts.as_slice() {
        [] => (ids.len() + 1).to_string(),
        some => format!("{} (with {} connections)", ids.len() + 1, some.join(", ")),
    }
}

/// Returns one link or attempt as a line.
fn link_line(link: &Connection, open: bool) -> String {
    let arrow = if link.outbound { "->" } else { "<-" };
    let head = format!("{arrow} {:<21} {:<11}", link.address, link.state);
    let words = match link.state.as_str() {
        "established" | "pending" => live_words(link, open),
        _ => dead_words(link),
    };
    format!("{head} {words}").trim_end().to_owned()
}

fn live_words(link: &Connection, open: bool) -> String {
    let mut words = vec!["encrypted".to_owned()];
    words.extend(link.cipher.clone());
    if let Some(path) = &link.path {
        words.push(path.kind.clone());
        words.push(format!("rtt={}", milliseconds(path.rtt_ms)));
        words.push(format!("mtu={}", path.mtu));
        if path.loss > 0.0 {
            words.push(format!("loss={:.1}%", path.loss * 100.0));
        }
    }
    if open {
        words.push("open membership".to_owned());
    }
    if !link.detail.is_empty() {
        words.push(link.detail.clone());
    }
    words.push(named(link));
    words.retain(|word| !word.is_empty());
    words.join(" ")
}

fn dead_words(link: &Connection) -> String {
    [link.detail.clone(), named(link)]
        .into_iter()
        .filter(|word| !word.is_empty())
        .collect::<Vec<_>>()
        .join(" ")
}

fn named(link: &Connection) -> String {
    match (link.name.as_str(), link.nickname.as_str()) {
        ("", _) => String::new(),
        (name, nickname) => format!("{name}({nickname})"),
    }
}

/// Returns a time with as many digits as say something: `0.08ms`, `0.3ms`, `12.4ms`, `180ms`.
pub(crate) fn milliseconds(ms: f64) -> String {
    match ms {
        tiny if tiny < 0.1 => format!("{tiny:.2}ms"),
        short if short < 100.0 => format!("{short:.1}ms"),
        long => format!("{long:.0}ms"),
    }
}

fn duration(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m{}s", seconds % 60),
        (0, _, _) => format!("{hours}h{minutes}m"),
        _ => format!("{days}d{hours}h"),
    }
}

fn names(text: &mut String, dns: &DnsStatus) {
    row(text, "Service", "dns");
    row(text, "Domain", &dns.domain);
    row(text, "Address", &dns.listening.join(", "));
    row(text, "Upstream", &dns.upstreams.join(", "));
    row(text, "TTL", &dns.ttl.to_string());
    row(text, "Entries", &dns.entry_count.to_string());
    for (what, count) in what_was_asked(dns) {
        row(text, what, &count);
    }
    for trouble in &dns.trouble {
        row(text, "Note", &format!("does not listen on {trouble}"));
    }
    for note in &dns.notes {
        row(text, "Note", note);
    }
}

fn engine(text: &mut String, engine: &EngineStatus, mtu: u16) {
    row(text, "Service", "engine");
    let backend = match engine.backend_reason.as_str() {
        "" => engine.backend.clone(),
        reason => format!("{} ({reason})", engine.backend),
    };
    row(text, "Backend", &backend);
    row(text, "Workers", &engine.workers.to_string());
    let offloads = if engine.offloads.is_empty() {
        "none".to_owned()
    } else {
        engine.offloads.join(" ")
    };
    row(text, "Offloads", &offloads);
    let ciphers: Vec<String> = engine
        .ciphers
        .iter()
        .map(|(name, rate)| format!("{name} {rate:.0} MB/s"))
        .collect();
    if !ciphers.is_empty() {
        row(text, "Ciphers", &ciphers.join(", "));
    }
    row(text, "MTU", &mtu.to_string());
    row(text, "Dropped", &drops(&engine.counters));
    for note in &engine.notes {
        row(text, "Note", note);
    }
}

/// Returns how many frames and datagrams were dropped, and for which reasons, the most frequent first.
fn drops(counters: &BTreeMap<String, u64>) -> String {
    let mut reasons: Vec<(u64, &str)> = counters
        .iter()
        .filter_map(|(name, count)| Some((*count, name.strip_prefix("drop_")?)))
        .filter(|(count, _)| *count > 0)
        .collect();
    reasons.sort_by_key(|(count, name)| (std::cmp::Reverse(*count), *name));
    let total: u64 = reasons.iter().map(|(count, _)| count).sum();
    let words: Vec<String> = reasons
        .iter()
        .map(|(count, name)| format!("{count} {name}"))
        .collect();
    if words.is_empty() {
        "0".to_owned()
    } else {
        format!("{total} ({})", words.join(", "))
    }
}

#[cfg(test)]
mod tests;
