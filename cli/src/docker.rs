//! `weft env` and `weft config`: how a `docker` client finds the proxy.

use anyhow::bail;
use weft_control::api::Status;

use crate::client::Client;
use crate::failure::Failure;
use crate::output::{self, Format};

/// The variable that `docker` reads.
const HOST: &str = "DOCKER_HOST";
/// The host part of the proxy's address, where it has none.
const PROXY_HOST: &str = "PROXY_HOST";
/// Where its old value is kept.
const ORIGINAL: &str = "ORIG_DOCKER_HOST";

/// Prints the assignment for a shell; nothing if no proxy runs.
///
/// # Errors
///
/// With `restore`, if there is nothing to restore.
pub(crate) fn environment(client: &Client, restore: bool, format: Format) -> anyhow::Result<()> {
    let variable = |name| std::env::var(name).ok();
    if restore {
        let Some(line) = restoring(variable(ORIGINAL)) else {
            bail!(
                "nothing to restore: {ORIGINAL} is not set, `eval $(weft env)` was not used here"
            );
        };
        return output::line(&line);
    }
    let address = proxy(client)?;
    match (format, address) {
        (Format::Json, address) => output::json(&serde_json::json!({ "docker_host": address })),
        (Format::Text, None) => Ok(()),
        (Format::Text, Some(address)) => output::line(&setting(&address, variable(HOST))),
    }
}

/// Prints the argument for `docker`.
///
/// # Errors
///
/// If no proxy runs.
pub(crate) fn argument(client: &Client, format: Format) -> anyhow::Result<()> {
    match (proxy(client)?, format) {
        (None, _) => bail!("no Docker proxy runs: `weft launch`, without --no-proxy"),
        (Some(address), Format::Json) => {
            output::json(&serde_json::json!({ "docker_host": address }))
        }
        (Some(address), Format::Text) => output::line(&format!("-H={address}")),
    }
}

/// The proxy's address, if one runs.
fn proxy(client: &Client) -> anyhow::Result<Option<String>> {
    let status: Status = match client.get("/status") {
        Ok(status) => status,
        Err(error) if matches!(error.downcast_ref(), Some(Failure::NotRunning { .. })) => {
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    let addresses = status.proxy.map(|proxy| proxy.addresses);
    let first = addresses.and_then(|addresses| addresses.into_iter().next());
    Ok(first.map(|address| reachable(&address, std::env::var(PROXY_HOST).ok())))
}

/// The address as a client on this host reaches it: a port on every address has one of them.
fn reachable(address: &str, host: Option<String>) -> String {
    let host = host.filter(|host| !host.is_empty());
    for (all, local) in [("tcp://0.0.0.0:", "127.0.0.1"), ("tcp://[::]:", "[::1]")] {
        if let Some(port) = address.strip_prefix(all) {
            return format!("tcp://{}:{port}", host.as_deref().unwrap_or(local));
        }
    }
    address.to_owned()
}

fn setting(address: &str, before: Option<String>) -> String {
    let before = before.unwrap_or_default();
    let mut line = format!("export {HOST}={}", quoted(address));
    if before != address {
        line.push_str(&format!(" {ORIGINAL}={}", quoted(&before)));
    }
    line
}

fn restoring(original: Option<String>) -> Option<String> {
    Some(format!("{HOST}={}", quoted(&original?)))
}

/// A word for a shell; what the shell would not leave alone is put in quotes.
fn quoted(word: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/:._-@[]".contains(&byte);
    if word.bytes().all(is_plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_gets_the_proxy_and_keeps_what_it_had() {
        let proxy = "unix:///run/weft/docker.sock";
        let set = |before: Option<&str>| setting(proxy, before.map(str::to_owned));
        assert_eq!(
            set(None),
            "export DOCKER_HOST=unix:///run/weft/docker.sock ORIG_DOCKER_HOST="
        );
        assert!(set(Some("tcp://h:2375")).ends_with(" ORIG_DOCKER_HOST=tcp://h:2375"));
        assert_eq!(
            set(Some(proxy)),
            "export DOCKER_HOST=unix:///run/weft/docker.sock"
        );
        assert_eq!(restoring(Some(String::new())).unwrap(), "DOCKER_HOST=");
        assert_eq!(
            restoring(Some("a b'c".to_owned())).unwrap(),
            r"DOCKER_HOST='a b'\''c'"
        );
        assert_eq!(restoring(None), None);
    }

    #[test]
    fn a_port_on_every_address_is_reached_at_one() {
        let named = || Some("h1".to_owned());
        for (address, host, reached) in [
            ("tcp://0.0.0.0:2376", None, "tcp://127.0.0.1:2376"),
            ("tcp://[::]:2376", None, "tcp://[::1]:2376"),
            ("tcp://0.0.0.0:2376", named(), "tcp://h1:2376"),
            ("tcp://192.0.2.1:2376", named(), "tcp://192.0.2.1:2376"),
            ("unix:///a", named(), "unix:///a"),
        ] {
            assert_eq!(reachable(address, host), reached, "{address}");
        }
    }
}
