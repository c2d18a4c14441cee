//! The verbs about names: `dns-add`, `dns-remove`, `dns-lookup`, `dns-args`, `status dns`.

use std::net::IpAddr;

use nix::ifaddrs::getifaddrs;
use weft_control::api::{DnsEntry, DnsFound, DnsLookup, DnsReply, DnsRequest, DnsStatus};
use weft_control::driver::dns::{ADDRESS_DEFAULT, DOCKER_BRIDGE_DEFAULT, DOMAIN_DEFAULT};

use crate::args::DnsLookupArgs;
use crate::client::Client;
use crate::failure::Failure;
use crate::output::{self, Format};

/// Digits of a container's id that are shown.
const SHOWN_DIGITS: usize = 12;

/// Gives or takes a name (`path` says which).
///
/// # Errors
///
/// [`Failure::Usage`] for more words than a container, else the daemon's line.
pub(crate) fn change(
    client: &Client,
    path: &str,
    words: &[String],
    name: Option<String>,
    format: Format,
) -> anyhow::Result<()> {
    let (addresses, container) = split_words(words)?;
    if path == "/dns/add" && container.is_none() && (addresses.is_empty() || name.is_none()) {
        let line = "give a container, or addresses and a name: weft dns-add [IP…] CONTAINER [-h NAME], weft dns-add IP… -h NAME";
        return Err(Failure::Usage(line.to_owned()).into());
    }
    let request = DnsRequest {
        container,
        addresses,
        name,
    };
    let reply: DnsReply = client.post(path, &request)?;
    if format == Format::Json {
        return output::json(&reply);
    }
    if let Some(line) = reply.ignored {
        output::talk(&format!("weft: {line}"));
    }
    Ok(())
}

/// Prints the addresses of a name, one a line; nothing if there are none.
///
/// # Errors
///
/// The daemon's line.
pub(crate) fn lookup(client: &Client, args: DnsLookupArgs, format: Format) -> anyhow::Result<()> {
    let DnsLookupArgs { all, name } = args;
    let mut found: DnsFound = client.post("/dns/lookup", &DnsLookup { name })?;
    // As Weave, so that `ping $(weft dns-lookup NAME)` has one address where the name has one of each family.
    if !all && found.addresses.iter().any(IpAddr::is_ipv4) {
        found.addresses.retain(IpAddr::is_ipv4);
    }
    match format {
        Format::Json => output::json(&found),
        Format::Text => {
            let lines = found.addresses.iter().map(|address| format!("{address}\n"));
            output::data(&lines.collect::<String>())
        }
    }
}

/// Prints what makes `docker run` use our server; nothing if DNS is off, the defaults if no daemon runs.
///
/// # Errors
///
/// What the client met, but for a daemon that does not run.
pub(crate) fn docker_arguments(client: &Client, format: Format) -> anyhow::Result<()> {
    let status: Option<DnsStatus> = match client.get("/dns") {
        Ok(status) => status,
        Err(error) if matches!(error.downcast_ref(), Some(Failure::NotRunning { .. })) => {
            output::talk(
                "note: no daemon runs: this is what one launched without options would have",
            );
            Some(default_status())
        }
        Err(error) => return Err(error),
    };
    let arguments = status.map(|status| arguments(&status)).unwrap_or_default();
    match format {
        Format::Json => output::json(&arguments),
        Format::Text if arguments.is_empty() => Ok(()),
        Format::Text => output::line(&arguments.join(" ")),
    }
}

fn arguments(status: &DnsStatus) -> Vec<String> {
    let address = match status.docker_address.as_str() {
        "" => &status.address,
        docker => docker,
    };
    vec![
        format!("--dns={address}"),
        format!("--dns-search={}", status.domain),
    ]
}

fn default_status() -> DnsStatus {
    let on_docker = getifaddrs().ok().and_then(|mut all| {
        all.find_map(|interface| {
            let address = interface.address?.as_sockaddr_in()?.ip();
            (interface.interface_name == DOCKER_BRIDGE_DEFAULT).then_some(address)
        })
    });
    DnsStatus {
        domain: DOMAIN_DEFAULT.to_owned(),
        address: ADDRESS_DEFAULT.to_string(),
        docker_address: on_docker.map(|ip| ip.to_string()).unwrap_or_default(),
        ..DnsStatus::default()
    }
}

/// Prints the entries, one a line; what was counted is no entry, and goes where talk goes.
///
/// # Errors
///
/// The daemon's line.
pub(crate) fn entries(client: &Client, format: Format) -> anyhow::Result<()> {
    let status: Option<DnsStatus> = client.get("/dns")?;
    match (format, status) {
        (Format::Json, status) => output::json(&status),
        (Format::Text, None) => Ok(()),
        (Format::Text, Some(status)) => {
            let line = |entry| entry_line(entry, &status.domain);
            output::data(&status.entries.iter().map(line).collect::<String>())?;
            for (what, count) in what_was_asked(&status) {
                output::talk(&format!("{what}: {count}"));
            }
            Ok(())
        }
    }
}

/// What the server did since the daemon was started: what, and how often.
pub(crate) fn what_was_asked(status: &DnsStatus) -> [(&'static str, String); 2] {
    let count = |names: &[&str]| -> u64 {
        let counts = names.iter().map(|name| status.counters.get(*name));
        counts.flatten().sum()
    };
    let ends = [
        (
            "answered here",
            count(&["dns_answered", "dns_no_data", "dns_no_name"]),
        ),
        ("forwarded", count(&["dns_forwarded"])),
        (
            "failed upstream",
            count(&["dns_forward_failed", "dns_drop_over_forwards"]),
        ),
        ("refused", count(&["dns_refused"])),
        ("malformed", count(&["dns_malformed"])),
        ("over their client's rate", count(&["dns_drop_over_rate"])),
    ];
    let all: u64 = ends.iter().map(|(_, count)| count).sum();
    let ends = ends.map(|(what, count)| format!("{count} {what}"));
    let (connections, evicted, refused) = (
        count(&["dns_connections"]),
        count(&["dns_connections_evicted"]),
        count(&["dns_drop_over_connections"]),
    );
    [
        ("Questions", format!("{all} ({})", ends.join(", "))),
        (
            "TCP",
            format!("{connections} connections ({evicted} ended to make room, {refused} refused)"),
        ),
    ]
}

/// Name without the domain, address, container, origin.
fn entry_line(entry: &DnsEntry, domain: &str) -> String {
    let tail = domain.trim_end_matches('.').len() + 1;
    let cut = entry.hostname.len().saturating_sub(tail);
    let short = entry.hostname.get(..cut).unwrap_or(&entry.hostname);
    let container: String = match entry.container.strip_prefix("weave:") {
        Some(_) => entry.container.clone(),
        None => entry.container.chars().take(SHOWN_DIGITS).collect(),
    };
    format!(
        "{short:<12} {:<15} {container:<12} {}\n",
        entry.address.to_string(),
        entry.origin_name
    )
}

/// Splits what was typed into leading addresses and at most one container.
fn split_words(words: &[String]) -> Result<(Vec<IpAddr>, Option<String>), Failure> {
    let mut addresses = Vec::new();
    let mut rest = words.iter();
    for word in rest.by_ref() {
        let bare = word.strip_prefix("ip:").unwrap_or(word);
        match bare.parse() {
            Ok(address) => addresses.push(address),
            Err(_) if is_like_an_address(word) => {
                return Err(Failure::Usage(format!(
                    "`{word}` is no address: accepted are addresses such as 10.2.1.1 or fd00::1, without a prefix length"
                )));
            }
            Err(_) => {
                return match rest.next() {
                    None => Ok((addresses, Some(word.clone()))),
                    Some(second) => Err(Failure::Usage(format!(
                        "`{second}` after the container `{word}`: accepted are addresses such as 10.2.1.1, then one container"
                    ))),
                };
            }
        }
    }
    Ok((addresses, None))
}

/// Tells whether a word was meant for an address: no container is called so.
pub(crate) fn is_like_an_address(word: &str) -> bool {
    let is_v4 = |text: &str| {
        text.contains('.')
            && text
                .bytes()
                .all(|b| b.is_ascii_digit() || b"./".contains(&b))
    };
    let is_v6 = |text: &str| {
        text.contains(':')
            && text
                .bytes()
                .all(|b| b.is_ascii_hexdigit() || b":./".contains(&b))
    };
    word.starts_with("ip:") || is_v4(word) || is_v6(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_question_is_counted_once() {
        let names = "answered no_data no_name forwarded forward_failed drop_over_forwards refused malformed \
                     drop_over_rate connections connections_evicted drop_over_connections drop_not_sent";
        let counters = (0..).zip(names.split_whitespace());
        let counters = counters.map(|(n, name)| (format!("dns_{name}"), 1_u64 << n));
        let status = DnsStatus {
            counters: counters.collect(),
            ..DnsStatus::default()
        };
        assert_eq!(
            what_was_asked(&status).map(|(what, count)| format!("{what}: {count}")),
            [
                "Questions: 511 (7 answered here, 8 forwarded, 48 failed upstream, 64 refused, 128 malformed, \
                 256 over their client's rate)",
                "TCP: 512 connections (1024 ended to make room, 2048 refused)"
            ]
        );
    }

    fn split(line: &str) -> Result<(Vec<IpAddr>, Option<String>), Failure> {
        split_words(
            &line
                .split_whitespace()
                .map(str::to_owned)
                .collect::<Vec<_>>(),
        )
    }

    #[test]
    fn addresses_come_first_then_one_container() {
        let two: Vec<IpAddr> = vec!["10.2.1.1".parse().unwrap(), "fd00::1".parse().unwrap()];
        assert_eq!(split("10.2.1.1 fd00::1").unwrap(), (two.clone(), None));
        assert_eq!(
            split("10.2.1.1 ip:fd00::1 netns:c1").unwrap(),
            (two, Some("netns:c1".to_owned()))
        );
        assert_eq!(split("c1").unwrap(), (vec![], Some("c1".to_owned())));
        let error = split("c1 10.2.1.1").unwrap_err().to_string();
        assert!(
            error.contains("`10.2.1.1` after the container `c1`"),
            "{error}"
        );
    }

    #[test]
    fn what_is_nearly_an_address_is_named() {
        for word in ["192.0.2.300", "10.2.1.1/24", "ip:x", "fd00::1::2", "1.2.3"] {
            let error = split(&format!("10.2.1.1 {word}")).unwrap_err().to_string();
            assert!(
                error.starts_with(&format!("`{word}` is no address: ")),
                "{error}"
            );
        }
        for word in [
            "c1",
            "web.1",
            "0123456789ab",
            "pid:12",
            "netns:1.2.3.4",
            "netns:/a",
        ] {
            assert_eq!(split(word).unwrap().1.as_deref(), Some(word));
        }
    }

    #[test]
    fn an_entry_is_a_line_without_the_domain() {
        let entry = DnsEntry {
            hostname: "foo.sub.weave.local".into(),
            address: "10.32.0.1".parse().unwrap(),
            container: "0123456789abcdef".into(),
            origin: "00".repeat(16),
            origin_name: "da:fa:eb:dc:28:27".into(),
        };
        assert_eq!(
            entry_line(&entry, "weave.local."),
            "foo.sub      10.32.0.1       0123456789ab da:fa:eb:dc:28:27\n"
        );
    }

    #[test]
    fn docker_is_pointed_to_the_server_on_its_own_bridge() {
        let mut status = default_status();
        status.docker_address.clear();
        assert_eq!(
            arguments(&status),
            ["--dns=169.254.53.1", "--dns-search=weave.local."]
        );
        status.docker_address = "172.17.0.1".to_owned();
        assert_eq!(arguments(&status)[0], "--dns=172.17.0.1");
    }
}
