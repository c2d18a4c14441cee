//! What `launch` is told about Docker, and what it finds by itself.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use regex::Regex;
use serde::{Deserialize, Serialize};
use weft_control::driver::dns::DOCKER_BRIDGE_DEFAULT;
use weft_control::driver::docker::Docker;
use weft_control::driver::proxy::{ListenAddress, ProxyConfig, TlsFiles};
use weft_control::proxy::naming::Naming;

use super::Settings;
use crate::args::DockerArgs;

/// The wait program, which containers start before their own.
const WAIT_PROGRAM: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/wait_program"));
/// The proxy's socket in the run directory.
pub(crate) const PROXY_SOCKET: &str = "docker.sock";

/// The arguments of `launch` about Docker.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct DockerSettings {
    /// `None` for Docker's default.
    pub(crate) host: Option<String>,
    pub(crate) proxy: bool,
    pub(crate) default_ipalloc: bool,
    pub(crate) hostname_from_label: Option<String>,
    pub(crate) hostname_match: String,
    pub(crate) hostname_replacement: String,
    pub(crate) without_dns: bool,
    pub(crate) rewrite_hosts: bool,
    pub(crate) multicast_route: bool,
    pub(crate) rewrite_inspect: bool,
    /// None: the socket in the run directory.
    pub(crate) listen: Vec<String>,
    /// Authority, certificate and key.
    pub(crate) tls: Option<[PathBuf; 3]>,
}

impl DockerSettings {
    pub(super) fn new(args: &DockerArgs, run_dir: &Path) -> Self {
        let given = args.proxy_host.iter();
        // One that is none is refused later.
        let given = given.filter_map(|address| ListenAddress::parse(address).ok());
        let usual = ListenAddress::Unix(run_dir.join(PROXY_SOCKET));
        let ours: Vec<_> = given.chain([usual]).collect();
        let variable = |name: &str| std::env::var(name).ok();
        let found = || {
            host_in(
                [variable("DOCKER_HOST"), variable("ORIG_DOCKER_HOST")],
                &ours,
            )
        };
        let is_off = is_off(args);
        Self {
            host: args.docker_host.clone().or_else(found),
            proxy: args.proxy && !args.no_proxy && !is_off,
            default_ipalloc: !args.no_default_ipalloc,
            hostname_from_label: args
                .hostname_from_label
                .clone()
                .filter(|label| !label.is_empty()),
            hostname_match: args.hostname_match.clone(),
            hostname_replacement: args.hostname_replacement.clone(),
            without_dns: args.without_dns,
            rewrite_hosts: !args.no_rewrite_hosts,
            multicast_route: !args.no_multicast_route,
            rewrite_inspect: args.rewrite_inspect,
            listen: args.proxy_host.clone(),
            tls: args.tlsverify.then(|| tls_files(args)),
        }
    }

    /// Refuses what the daemon could not use.
    pub(super) fn judge(&self) -> anyhow::Result<()> {
        self.docker()?;
        self.replacement()?;
        let addresses = self.addresses()?;
        let is_tcp = |address: &ListenAddress| matches!(address, ListenAddress::Tcp(_));
        let port = addresses.iter().find(|address| is_tcp(address));
        match (port, &self.tls) {
            (Some(port), None) => {
                bail!("-H {port}: the port takes clients with a certificate only: give --tlsverify")
            }
            (None, Some(_)) => bail!("--tlsverify without -H tcp://IP:port: there is no port"),
            (Some(_), Some(_)) | (None, None) => Ok(()),
        }
    }

    fn addresses(&self) -> anyhow::Result<Vec<ListenAddress>> {
        let parse = |text: &String| {
            ListenAddress::parse(text).with_context(|| format!("-H, --proxy-host `{text}`"))
        };
        self.listen.iter().map(parse).collect()
    }

    /// True if Docker is to be left alone.
    pub(crate) fn is_off(&self) -> bool {
        self.host.as_deref() == Some("")
    }

    /// Where Docker is.
    pub(crate) fn docker(&self) -> anyhow::Result<Docker> {
        if self.is_off() {
            return Ok(Docker::none());
        }
        Docker::new(self.host.as_deref()).context("--docker-host")
    }

    fn replacement(&self) -> anyhow::Result<Option<(Regex, String)>> {
        if self.hostname_match == "(.*)" && self.hostname_replacement == "$1" {
            return Ok(None);
        }
        let pattern = Regex::new(&self.hostname_match)
            .with_context(|| format!("--hostname-match `{}`", self.hostname_match))?;
        Ok(Some((pattern, self.hostname_replacement.clone())))
    }
}

impl Settings {
    /// Docker's own bridge, unless Docker is to be left alone.
    pub(crate) fn docker_bridge(&self) -> Option<&str> {
        let named = self.dns.as_ref().map(|dns| dns.docker_bridge.as_str());
        (!self.docker.is_off()).then(|| named.unwrap_or(DOCKER_BRIDGE_DEFAULT))
    }

    /// Returns the note for a host without Docker; the proxy waits for it.
    pub(super) fn docker_note(&self) -> Option<String> {
        let docker = self.docker.docker().ok()?;
        let is_missing = self.docker.proxy && !docker.socket().exists();
        is_missing.then(|| {
            format!(
                "note: no Docker at {} (--docker-host names another); containers go by netns:NAME or pid:N until it comes",
                docker.host()
            )
        })
    }

    /// What the proxy of this Docker is started with; `None` without one.
    pub(crate) fn proxy(&self, of: &Docker) -> anyhow::Result<Option<ProxyConfig>> {
        let docker = &self.docker;
        if !docker.proxy {
            return Ok(None);
        }
        let naming = match self.dns.as_ref().filter(|_| !docker.without_dns) {
            None => None,
            Some(dns) => Some(Naming {
                domain: dns.domain.trim_end_matches('.').to_owned(),
                server: dns.address,
                label: docker.hostname_from_label.clone(),
                replacement: docker.replacement()?,
            }),
        };
        let mut listen = docker.addresses()?;
        if listen.is_empty() {
            listen.push(ListenAddress::Unix(self.run_dir.join(PROXY_SOCKET)));
        }
        let tls = docker.tls.clone();
        let tls = tls.map(|[ca, cert, key]| TlsFiles { ca, cert, key });
        let range = self.addresses()?.map(|addresses| addresses.range);
        Ok(Some(ProxyConfig {
            listen,
            tls,
            data_dir: self.data_dir.clone(),
            wait_program: WAIT_PROGRAM,
            docker: of.clone(),
            range,
            default_ipalloc: docker.default_ipalloc && range.is_some(),
            multicast_route: docker.multicast_route,
            naming,
            rewrite_hosts: docker.rewrite_hosts,
            rewrite_inspect: docker.rewrite_inspect,
        }))
    }
}

/// As Docker's client finds them.
fn tls_files(args: &DockerArgs) -> [PathBuf; 3] {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    let folder = variable("DOCKER_CERT_PATH").map(PathBuf::from);
    let folder = folder.unwrap_or_else(|| {
        let home = variable("HOME").unwrap_or_else(|| "/root".into());
        Path::new(&home).join(".docker")
    });
    let file = |given: &Option<PathBuf>, name: &str| {
        let file = given.clone().unwrap_or_else(|| folder.join(name));
        // The daemon may run elsewhere; what cannot be made absolute is read from where it is.
        std::path::absolute(&file).unwrap_or(file)
    };
    [
        file(&args.tlscacert, "ca.pem"),
        file(&args.tlscert, "cert.pem"),
        file(&args.tlskey, "key.pem"),
    ]
}

/// An empty address: no Docker.
pub(super) fn is_off(args: &DockerArgs) -> bool {
    args.docker_host.as_deref() == Some("")
}

/// The first of these variables that names a Docker here; our own proxy is none, wherever it listens: after
/// `eval $(weft env)` the next launch finds that there.
fn host_in(variables: [Option<String>; 2], ours: &[ListenAddress]) -> Option<String> {
    let mut hosts = variables.into_iter().flatten();
    hosts.find(|host| {
        let path = host
            .strip_prefix("unix://")
            .filter(|path| path.starts_with('/'));
        path.is_some_and(|path| !ours.iter().any(|own| own.is_at(Path::new(path))))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn docker_is_found_where_the_users_client_finds_it_but_for_the_proxy() {
        let (ours, given) = ("unix:///run/weft/docker.sock", "unix:///own.sock");
        let all = [given, ours].map(|address| ListenAddress::parse(address).unwrap());
        let host = |first: &str, second: Option<&str>| {
            host_in([Some(first.to_owned()), second.map(str::to_owned)], &all)
        };
        assert_eq!(host("unix:///d.sock", None).unwrap(), "unix:///d.sock");
        assert_eq!(host(ours, None), None);
        assert_eq!(host(given, Some("")), None);
        assert_eq!(
            host(given, Some("unix:///d.sock")).unwrap(),
            "unix:///d.sock"
        );
        assert_eq!(
            host(ours, Some("unix:///d.sock")).unwrap(),
            "unix:///d.sock"
        );
        assert_eq!(host("tcp://192.0.2.1:2375", None), None);
        assert_eq!(host("", None), None);
    }
}
