//! The verbs about the mesh: `status peers`, `path`, `ping`, `topology`, put into words.
//!
//! ```text
//!  status peers    P(nick), then a line for each of its links, as in Weave
//!  path            the way, why it is that one, and a line for each link of it
//!  ping            a line for each round trip, then the figures of all
//!  topology        a graph for Graphviz, or JSON
//! ```

use std::collections::BTreeMap;
use std::fmt::Write;
use std::thread;
use std::time::Duration;

use anyhow::bail;
use weft_control::api::{
    HopReport, PeerReport, PeerRequest, PingReply, RouteReport, TopologyLink, TopologyReport,
};

use crate::client::Client;
use crate::output::{self, Format};
use crate::status::milliseconds;

/// Pause between two pings.
const PING_PERIOD: Duration = Duration::from_secs(1);

/// Shows all peers, as everybody hears of them.
///
/// # Errors
///
/// When the daemon does not answer.
pub(crate) fn show_peers(client: &Client, format: Format) -> anyhow::Result<()> {
    let reports: Vec<PeerReport> = client.get("/peers")?;
    match format {
        Format::Json => output::json(&reports),
        Format::Text => output::data(&peers(&reports)),
    }
}

/// Returns the text of `weft status peers`.
fn peers(peers: &[PeerReport]) -> String {
    let mut text = String::new();
    for peer in peers {
        // Writing to a string cannot fail.
        let _infallible = writeln!(text, "{}({})", peer.name, peer.nickname);
        for link in &peer.links {
            let arrow = if link.outbound == Some(false) {
                "<-"
            } else {
                "->"
            };
            let who = format!("{}({})", link.name, link.nickname);
            let address = if link.address.is_empty() {
                "-"
            } else {
                &link.address
            };
            let _infallible = writeln!(text, "   {arrow} {address:<21} {who:<37} {}", link.state);
        }
    }
    text
}

/// Shows the way to a peer.
///
/// # Errors
///
/// The daemon's line: no such peer, or several.
pub(crate) fn path(client: &Client, peer: &str, format: Format) -> anyhow::Result<()> {
    let request = PeerRequest {
        peer: peer.to_owned(),
    };
    let route: RouteReport = client.post("/path", &request)?;
    match format {
        Format::Json => output::json(&route),
        Format::Text => output::data(&route_text(&route)),
    }
}

fn route_text(route: &RouteReport) -> String {
    let cipher = route.cipher.as_deref().map_or_else(
        || "no session yet".to_owned(),
        |cipher| format!("{cipher} from end to end"),
    );
    let mut text = format!(
        "{}({}) {}, {cipher}\n   why: {}\n",
        route.name, route.nickname, route.kind, route.why
    );
    for (number, hop) in (1..).zip(&route.hops) {
        let _infallible = writeln!(text, "{number:>4}  {}", hop_text(hop));
    }
    text
}

fn hop_text(hop: &HopReport) -> String {
    let who = format!("{}({})", hop.name, hop.nickname);
    let address = if hop.address.is_empty() {
        "-"
    } else {
        &hop.address
    };
    let mut text = format!(
        "{who:<37} {address:<21} rtt={} mtu={}",
        milliseconds(hop.rtt_ms),
        hop.mtu
    );
    if hop.loss > 0.0 {
        let _infallible = write!(text, " loss={:.0}%", hop.loss * 100.0);
    }
    text
}

/// Pings a peer so many times, one a second.
///
/// # Errors
///
/// The daemon's line: no such peer, no way, no answer.
pub(crate) fn ping(client: &Client, peer: &str, count: u32, format: Format) -> anyhow::Result<()> {
    let request = PeerRequest {
        peer: peer.to_owned(),
    };
    let mut replies: Vec<PingReply> = Vec::new();
    let mut failure = None;
    for number in 1..=count {
        match client.post::<_, PingReply>("/ping", &request) {
            Ok(reply) => {
                if format == Format::Text {
                    output::line(&reply_text(number, &reply))?;
                }
                replies.push(reply);
            }
            Err(error) if replies.is_empty() && number == 1 => return Err(error),
            Err(error) => failure = Some(error),
        }
        if number < count {
            pause();
        }
    }
    match format {
        Format::Json => output::json(&replies)?,
        Format::Text => output::data(&summary(&replies, count))?,
    }
    match failure {
        Some(error) if replies.is_empty() => Err(error),
        _ if replies.is_empty() => bail!("no answer"),
        _ => Ok(()),
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "a person watches; there is nothing else to wait for"
)]
fn pause() {
    thread::sleep(PING_PERIOD);
}

fn reply_text(number: u32, reply: &PingReply) -> String {
    format!(
        "{}({}): seq={number} time={} {}",
        reply.name,
        reply.nickname,
        milliseconds(reply.rtt_ms),
        reply.kind
    )
}

fn summary(replies: &[PingReply], count: u32) -> String {
    let times: Vec<f64> = replies.iter().map(|reply| reply.rtt_ms).collect();
    let least = times.iter().copied().fold(f64::INFINITY, f64::min);
    let most = times.iter().copied().fold(0.0, f64::max);
    let mean =
        times.iter().sum::<f64>() / f64::from(u32::try_from(times.len()).unwrap_or(1).max(1));
    let figures = if times.is_empty() {
        String::new()
    } else {
        let [least, mean, most] = [least, mean, most].map(milliseconds);
        format!(", round trip {least} least, {mean} mean, {most} most")
    };
    format!("{count} sent, {} answered{figures}\n", times.len())
}

/// Shows the network as it is known here.
///
/// # Errors
///
/// When the daemon does not answer.
pub(crate) fn topology(client: &Client, format: Format) -> anyhow::Result<()> {
    let report: TopologyReport = client.get("/topology")?;
    match format {
        Format::Json => output::json(&report),
        Format::Text => output::data(&dot(&report)),
    }
}

/// The network as a graph for Graphviz: `weft topology -o dot | dot -Tsvg`.
fn dot(report: &TopologyReport) -> String {
    let mut text = String::from("graph weft {\n  node [shape=box]\n");
    let mut names = BTreeMap::new();
    for peer in &report.peers {
        let relay = if peer.relay { "" } else { " style=dashed" };
        let label = format!("{}\\n{}", quoted(&peer.nickname), peer.name);
        let _infallible = writeln!(text, "  \"{}\" [label=\"{label}\"{relay}]", peer.peer_id);
        names.insert(&peer.peer_id, ());
    }
    let known = |link: &&TopologyLink| link.ends.iter().all(|end| names.contains_key(end));
    for link in report.links.iter().filter(known) {
        let [from, to] = &link.ends;
        let style = if link.data {
            format!("label=\"{}\"", milliseconds(link.rtt_ms))
        } else {
            "style=dotted".to_owned()
        };
        let _infallible = writeln!(text, "  \"{from}\" -- \"{to}\" [{style}]");
    }
    text.push_str("}\n");
    text
}

/// Safe inside a quoted word: nicknames are chosen by others.
fn quoted(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"")
}

#[cfg(test)]
mod tests {
    use weft_control::api::{PeerLink, TopologyPeer};

    use super::*;

    #[test]
    fn peers_keep_weaves_shape() {
        let link = PeerLink {
            name: "0a:00:00:00:00:02".to_owned(),
            nickname: "two".to_owned(),
            outbound: Some(true),
            address: "192.0.2.2:6783".to_owned(),
            state: "established".to_owned(),
        };
        let peer = PeerReport {
            name: "0a:00:00:00:00:01".to_owned(),
            nickname: "one".to_owned(),
            peer_id: "00".repeat(16),
            version: "0.1.0".to_owned(),
            relay: true,
            links: vec![link],
        };
        let text = peers(&[peer]);
        let (head, line) = text.trim_end().split_once('\n').unwrap();
        assert_eq!(head, "0a:00:00:00:00:01(one)");
        assert_eq!(
            line,
            format!(
                "   -> {:<21} {:<37} established",
                "192.0.2.2:6783", "0a:00:00:00:00:02(two)"
            )
        );
    }

    #[test]
    fn a_path_names_each_link_and_the_reason() {
        let hop = |nickname: &str, address: &str| HopReport {
            name: "0a:00:00:00:00:03".to_owned(),
            nickname: nickname.to_owned(),
            address: address.to_owned(),
            rtt_ms: 1.25,
            loss: 0.0,
            mtu: 1376,
        };
        let route = RouteReport {
            name: "0a:00:00:00:00:02".to_owned(),
            nickname: "two".to_owned(),
            peer_id: "00".repeat(16),
            kind: "via 0a:00:00:00:00:03(three)".to_owned(),
            why: "no direct path answers".to_owned(),
            cipher: Some("aes-256-gcm".to_owned()),
            hops: vec![hop("three", "192.0.2.3:6783"), hop("two", "")],
        };
        let text = route_text(&route);
        assert!(text.starts_with(
            "0a:00:00:00:00:02(two) via 0a:00:00:00:00:03(three), aes-256-gcm from end to end\n   why: no direct path answers\n"
        ));
        assert_eq!(text.matches("rtt=1.2ms mtu=1376").count(), 2);
    }

    #[test]
    fn the_graph_cannot_be_broken_by_a_nickname() {
        let peer = TopologyPeer {
            peer_id: "ab".repeat(16),
            name: "0a:00:00:00:00:01".to_owned(),
            nickname: "a\"]b\\".to_owned(),
            relay: false,
        };
        let text = dot(&TopologyReport {
            peers: vec![peer],
            links: Vec::new(),
        });
        assert!(
            text.contains(r#"[label="a\"]b\\\n0a:00:00:00:00:01" style=dashed]"#),
            "{text}"
        );
    }

    #[test]
    fn pings_are_summed_up() {
        let reply = |rtt_ms| PingReply {
            name: "0a:00:00:00:00:01".to_owned(),
            nickname: "one".to_owned(),
            rtt_ms,
            kind: "direct".to_owned(),
        };
        assert_eq!(
            summary(&[reply(1.0), reply(3.0)], 3),
            "3 sent, 2 answered, round trip 1.0ms least, 2.0ms mean, 3.0ms most\n"
        );
        assert_eq!(summary(&[], 3), "3 sent, 0 answered\n");
    }
}
