//! `weft env` and `weft config`: how a `docker` client finds the proxy.

use std::path::Path;

use anyhow::bail;
use weft_control::api::Status;

use crate::args::CONTROL_SOCKET;
use crate::client::Client;
use crate::output::{self, Format};

/// The variable that `docker` reads.
const HOST: &str = "DOCKER_HOST";
/// The host part of the proxy's address, where it has none.
const PROXY_HOST: &str = "PROXY_HOST";
/// Where its old value is kept.
const ORIGINAL: &str = "ORIG_DOCKER_HOST";

/// The daemon says that it has none.
const NO_PROXY: &str =
    "weft runs without its Docker proxy: `weft stop`, then `weft launch` without --no-proxy";

/// Says so if the user's shell goes on asking a proxy that has just ended.
pub(crate) fn warn_of_ended_proxy(run_dir: &Path) {
    if std::env::var(HOST).is_ok_and(|host| leads_below(&host, run_dir)) {
        output::talk(&format!(
            "weft: warning: {HOST} still leads to weft's proxy, which has ended: `eval $(weft env --restore)`"
        ));
    }
}

/// True of the proxy's own socket.
fn leads_below(host: &str, run_dir: &Path) -> bool {
    let path = host.strip_prefix("unix://");
    path.is_some_and(|path| Path::new(path).starts_with(run_dir))
}

/// Prints the assignment for a shell; nothing but a note if weft runs without a proxy.
///
/// # Errors
///
/// If weft does not run; with `restore`, if there is nothing to restore.
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
    let addresses = proxy(client)?;
    match (format, addresses.first()) {
        (Format::Json, address) => output::json(&serde_json::json!({ "docker_host": address })),
        (Format::Text, None) => {
            output::talk(&format!("weft: {NO_PROXY}"));
            Ok(())
        }
        (Format::Text, Some(address)) => {
            let before = variable(HOST).unwrap_or_default();
            let noted = variable(ORIGINAL);
            let before = to_keep(&before, noted.as_deref(), &addresses);
            output::line(&setting(address, before))
        }
    }
}

/// Prints the argument for `docker`.
///
/// # Errors
///
/// If no weft runs, or one without a proxy.
pub(crate) fn argument(client: &Client, format: Format) -> anyhow::Result<()> {
    match (proxy(client)?.first(), format) {
        (None, _) => bail!("{NO_PROXY}"),
        (Some(address), Format::Json) => {
            output::json(&serde_json::json!({ "docker_host": address }))
        }
        (Some(address), Format::Text) => output::line(&format!("-H={address}")),
    }
}

/// The proxy's addresses; none if weft runs without one.
fn proxy(client: &Client) -> anyhow::Result<Vec<String>> {
    let status: Status = client.get("/status")?;
    let host = std::env::var(PROXY_HOST).ok();
    let reached = |address: &String| reachable(address, host.as_deref());
    let addresses = status.proxy.map(|proxy| proxy.addresses);
    Ok(addresses.iter().flatten().map(reached).collect())
}

/// The address as a client on this host reaches it: a port on every address has one of them.
fn reachable(address: &str, host: Option<&str>) -> String {
    let host = host.filter(|host| !host.is_empty());
    for (all, local) in [("tcp://0.0.0.0:", "127.0.0.1"), ("tcp://[::]:", "[::1]")] {
        if let Some(port) = address.strip_prefix(all) {
            return format!("tcp://{}:{port}", host.unwrap_or(local));
        }
    }
    address.to_owned()
}

/// What is to be noted as the old host; none if that is noted already, or there was none but the proxy.
fn to_keep<'a>(before: &'a str, noted: Option<&str>, proxy: &[String]) -> Option<&'a str> {
    let is_ours = proxy.iter().any(|own| own == before);
    let is_kept = is_ours || noted.is_some() && is_of_a_proxy(before);
    (!is_kept).then_some(before)
}

/// Whether this host is the proxy of a weft with another run directory, by the sockets there; or was, and they have gone
/// with their daemon. Neither is what somebody wants back who has another one noted.
fn is_of_a_proxy(host: &str) -> bool {
    let path = Path::new(host.strip_prefix("unix://").unwrap_or(host));
    let beside = path.with_file_name(CONTROL_SOCKET);
    path.is_absolute() && (beside.exists() || !path.exists())
}

/// The assignments; `before` is what to keep, if that is not kept already.
fn setting(address: &str, before: Option<&str>) -> String {
    let mut line = format!("export {HOST}={}", quoted(address));
    if let Some(before) = before {
        line.push_str(&format!(" {ORIGINAL}={}", quoted(before)));
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
        let set = |before| setting(proxy, before);
        assert_eq!(
            set(Some("")),
            "export DOCKER_HOST=unix:///run/weft/docker.sock ORIG_DOCKER_HOST="
        );
        assert!(set(Some("tcp://h:2375")).ends_with(" ORIG_DOCKER_HOST=tcp://h:2375"));
        assert_eq!(set(None), "export DOCKER_HOST=unix:///run/weft/docker.sock");
        let run_dir = Path::new("/run/weft");
        assert!(leads_below("unix:///run/weft/docker.sock", run_dir));
        assert!(!leads_below("unix:///run/docker.sock", run_dir));
        assert!(!leads_below("tcp://h:2375", run_dir));
        assert_eq!(restoring(Some(String::new())).unwrap(), "DOCKER_HOST=");
        assert_eq!(
            restoring(Some("a b'c".to_owned())).unwrap(),
            r"DOCKER_HOST='a b'\''c'"
        );
        assert_eq!(restoring(None), None);
    }

    #[test]
    fn what_was_noted_stays_where_another_proxy_was_used_last() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("docker.sock");
        let host = format!("unix://{}", socket.display());
        let proxy = "unix:///run/weft/docker.sock".to_owned();
        let kept = |before: &str, noted: Option<&str>| {
            to_keep(before, noted, std::slice::from_ref(&proxy)).map(str::to_owned)
        };
        let all = ["", "tcp://h:2375", &host, &proxy];
        for before in all {
            let own = before == proxy;
            assert_eq!(kept(before, None), (!own).then(|| before.to_owned()));
        }
        // Gone with its daemon, Docker's own, a weft's.
        assert_eq!(kept(&host, Some("")), None);
        std::fs::write(&socket, "").unwrap();
        assert_eq!(kept(&host, Some("")).as_ref(), Some(&host));
        std::fs::write(folder.path().join(CONTROL_SOCKET), "").unwrap();
        assert_eq!(kept(&host, Some("")), None);
        assert_eq!(kept("tcp://h:2375", Some("")).unwrap(), "tcp://h:2375");
        assert_eq!(kept("", Some(&host)).unwrap(), "");
    }

    #[test]
    fn a_port_on_every_address_is_reached_at_one() {
        let named = || Some("h1");
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
