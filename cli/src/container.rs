//! `weft attach`, `detach` and `ps`: containers and their addresses.

use std::net::IpAddr;

use serde::Serialize;
use weft_control::api::{AttachReply, AttachRequest, Attachment, ContainerFiles, FindRequest};

use crate::args::AttachArgs;
use crate::client::Client;
use crate::dns::is_like_an_address;
use crate::failure::Failure;
use crate::output::{self, Format};

/// Attaches and prints the addresses in the order asked.
///
/// # Errors
///
/// [`Failure::Usage`] when the words name no container, else the daemon's line.
pub(crate) fn attach(client: &Client, args: AttachArgs, format: Format) -> anyhow::Result<()> {
    let (addresses, container) = split_words(&args.words)?;
    let request = AttachRequest {
        container,
        addresses,
        multicast_route: !args.no_multicast_route,
        names: args.dns_name,
        without_dns: args.without_dns,
        files: ContainerFiles {
            dns_search: args.files.dns_search,
            add_hosts: args.files.add_host,
            rewrite_hosts: match (args.files.rewrite_hosts, args.files.no_rewrite_hosts) {
                (true, _) => Some(true),
                (false, true) => Some(false),
                (false, false) => None,
            },
        },
    };
    change(client, "/attach", &request, format)
}

/// Detaches and prints the addresses in the order asked.
///
/// # Errors
///
/// [`Failure::Usage`] when the words name no container, else the daemon's line.
pub(crate) fn detach(client: &Client, words: &[String], format: Format) -> anyhow::Result<()> {
    let (addresses, container) = split_words(words)?;
    let request = AttachRequest {
        container,
        addresses,
        multicast_route: true,
        names: Vec::new(),
        without_dns: false,
        files: ContainerFiles::default(),
    };
    change(client, "/detach", &request, format)
}

/// Has addresses given or taken, and prints those of the reply in its order.
///
/// # Errors
///
/// The daemon's line.
pub(crate) fn change(
    client: &Client,
    path: &str,
    request: &impl Serialize,
    format: Format,
) -> anyhow::Result<()> {
    let reply: AttachReply = client.post(path, request)?;
    for warning in &reply.warnings {
        output::talk(&format!("note: {warning}"));
    }
    match format {
        Format::Json => output::json(&reply),
        Format::Text => {
            let addresses: Vec<String> = reply.addresses.iter().map(ToString::to_string).collect();
            if addresses.is_empty() {
                return Ok(());
            }
            output::line(&addresses.join(" "))
        }
    }
}

/// Prints the attached containers, all or the named ones.
///
/// # Errors
///
/// The daemon's line.
pub(crate) fn list(client: &Client, only: &[String], format: Format) -> anyhow::Result<()> {
    let mut attachments: Vec<Attachment> = client.get("/ps")?;
    if !only.is_empty() {
        let ids = only
            .iter()
            .map(|typed| shown_id(client, typed, &attachments));
        let ids: Vec<String> = ids.collect();
        attachments.retain(|attachment| ids.iter().any(|id| names(id, &attachment.id)));
    }
    match format {
        Format::Json => output::json(&attachments),
        Format::Text => output::data(&attachments.iter().map(ps_line).collect::<String>()),
    }
}

/// The id under which a container is listed: the daemon knows what Docker calls by the name that was typed.
fn shown_id(client: &Client, typed: &str, listed: &[Attachment]) -> String {
    let is_listed = listed.iter().any(|attachment| names(typed, &attachment.id));
    let request = FindRequest {
        container: typed.to_owned(),
    };
    let found = || client.post::<_, AttachReply>("/find", &request).ok();
    // One that nobody knows is skipped.
    let found = if is_listed { None } else { found() };
    found.map_or_else(|| typed.to_owned(), |reply| reply.id)
}

/// Splits what was typed into leading addresses and the one container after them.
fn split_words(words: &[String]) -> Result<(Vec<String>, String), Failure> {
    let count = words.iter().take_while(|word| is_address(word)).count();
    let (addresses, rest) = words.split_at(count);
    match rest {
        [] => Err(Failure::Usage(
            "no container given: after the addresses comes a container's name or id, netns:NAME, netns:/path or pid:N"
                .to_owned(),
        )),
        [first, ..] if first.parse::<IpAddr>().is_ok() => Err(Failure::Usage(format!(
            "`{first}` lacks the length of its subnet's prefix: write {first}/{}, or what the subnet has",
            if first.contains(':') { 64 } else { 24 }
        ))),
        [first, ..] if is_like_an_address(first) => Err(Failure::Usage(format!(
            "`{first}` is no address: accepted are ADDR/LEN such as 10.2.1.1/24, ip:ADDR/LEN, net:CIDR and net:default"
        ))),
        [container] => Ok((addresses.to_vec(), container.clone())),
        [first, second, ..] => Err(Failure::Usage(format!(
            "`{second}` after the container `{first}`: accepted are addresses (ADDR/LEN, ip:ADDR/LEN, net:CIDR, net:default), then one container"
        ))),
    }
}

/// Tells whether a word speaks of an address, a faulty one included: the daemon says what is wrong with it.
fn is_address(word: &str) -> bool {
    let numeric = |part: &str| {
        !part.is_empty()
            && part
                .bytes()
                .all(|b| b.is_ascii_hexdigit() || b".:".contains(&b))
    };
    word.starts_with("ip:")
        || word.starts_with("net:")
        || word
            .split_once('/')
            .is_some_and(|(address, _)| numeric(address) && address.contains(['.', ':']))
}

/// Tells whether a typed name means the shown id, which Docker's long ids are cut to; a namespace may have been given
/// by its name or its path.
fn names(typed: &str, id: &str) -> bool {
    typed == id || (id.len() == 12 && typed.starts_with(id)) || bare(typed) == bare(id)
}

/// What is left of `netns:NAME`, `netns:/run/netns/NAME` and `pid:N`: the name, another path, the number.
fn bare(container: &str) -> &str {
    let name = container
        .strip_prefix("netns:")
        .or_else(|| container.strip_prefix("pid:"))
        .unwrap_or(container);
    ["/run/netns/", "/var/run/netns/"]
        .iter()
        .find_map(|directory| name.strip_prefix(directory))
        .unwrap_or(name)
}

fn ps_line(attachment: &Attachment) -> String {
    let mut line = format!("{} {}", attachment.id, attachment.mac);
    for address in &attachment.addresses {
        line.push(' ');
        line.push_str(&address.to_string());
    }
    line.push('\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(line: &str) -> Result<(Vec<String>, String), Failure> {
        split_words(
            &line
                .split_whitespace()
                .map(str::to_owned)
                .collect::<Vec<_>>(),
        )
    }

    #[test]
    fn leading_addresses_are_taken_until_the_container() {
        let (addresses, container) =
            split("10.2.1.1/24 ip:10.2.2.1/24 net:default net:10.2.3.0/24 netns:/run/x").unwrap();

        assert_eq!(
            addresses,
            [
                "10.2.1.1/24",
                "ip:10.2.2.1/24",
                "net:default",
                "net:10.2.3.0/24"
            ]
        );
        assert_eq!(container, "netns:/run/x");
        assert_eq!(split("web").unwrap(), (vec![], "web".to_owned()));
        assert_eq!(
            split("fd00::1/64 pid:7").unwrap(),
            (vec!["fd00::1/64".to_owned()], "pid:7".to_owned())
        );
    }

    #[test]
    fn a_namespace_is_the_same_by_its_name_and_by_its_path() {
        for id in ["c1", "/run/netns/c1"] {
            for typed in [
                "c1",
                "netns:c1",
                "netns:/run/netns/c1",
                "netns:/var/run/netns/c1",
            ] {
                assert!(names(typed, id), "{typed} {id}");
            }
            assert!(!names("netns:c", id) && !names("netns:/run/other/c1", id));
        }
        assert!(names("pid:17", "17") && names("0123456789abcdef", "0123456789ab"));
    }

    #[test]
    fn a_faulty_address_is_still_an_address_and_not_a_container() {
        let (addresses, container) = split("10.2.1.300/24 10.2.1.1/99 web").unwrap();

        assert_eq!(addresses, ["10.2.1.300/24", "10.2.1.1/99"]);
        assert_eq!(container, "web");
    }

    #[test]
    fn a_missing_or_second_container_is_named() {
        assert!(
            split("10.2.1.1/24")
                .unwrap_err()
                .to_string()
                .contains("no container given")
        );
        assert!(
            split("10.2.1.1 web")
                .unwrap_err()
                .to_string()
                .contains("write 10.2.1.1/24")
        );
        assert!(
            split("web db")
                .unwrap_err()
                .to_string()
                .contains("`db` after the container `web`")
        );
        assert!(
            split("web 10.2.1.1/24")
                .unwrap_err()
                .to_string()
                .contains("`10.2.1.1/24`")
        );
        let forms =
            "accepted are ADDR/LEN such as 10.2.1.1/24, ip:ADDR/LEN, net:CIDR and net:default";
        let faulty = split("10.2.1.256 web").unwrap_err().to_string();
        assert_eq!(faulty, format!("`10.2.1.256` is no address: {forms}"));
    }

    #[test]
    fn a_line_of_ps_is_id_mac_and_addresses() {
        let attachment = Attachment {
            id: "0123456789ab".into(),
            mac: "86:00:00:00:00:01".into(),
            addresses: vec![
                "10.2.1.1/24".parse().unwrap(),
                "fd00::1/64".parse().unwrap(),
            ],
        };

        assert_eq!(
            ps_line(&attachment),
            "0123456789ab 86:00:00:00:00:01 10.2.1.1/24 fd00::1/64\n"
        );
        let bare = Attachment {
            id: "weave:expose".into(),
            addresses: vec![],
            ..attachment
        };
        assert_eq!(ps_line(&bare), "weave:expose 86:00:00:00:00:01\n");
    }

    #[test]
    fn a_long_docker_id_finds_its_short_line() {
        assert!(names("0123456789abcdef0123", "0123456789ab"));
        assert!(names("netns:blue", "netns:blue"));
        assert!(!names("netns:blues", "netns:blue"));
    }
}
