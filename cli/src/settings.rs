//! What a daemon is started with: the arguments of `launch`, judged and complete.

mod addresses;
pub(crate) mod dns;
pub(crate) mod docker;

use std::fmt;
use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};
use weft_control::TargetAddress;
use weft_control::config::SECRETS_MAX;
use weft_control::driver::bridge;
use weft_control::peer::{Nickname, PeerName};
use weft_control::secret::{Credential, SecretError};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use self::dns::DnsSettings;
use self::docker::DockerSettings;
use crate::args::{Cipher, Io, LaunchArgs, Places};
use crate::daemon::overlap;
use crate::failure::Failure;

/// A password or token as it was typed; wiped when dropped and never shown.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
#[serde(transparent)]
pub(crate) struct Secret(String);

#[cfg(test)]
impl Secret {
    /// Returns the secret itself.
    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }
}

impl FromStr for Secret {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// Everything that the daemon needs to know; it reads neither arguments nor environment.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Settings {
    /// Absolute, because a daemon in the background leaves the directory it was started in.
    pub(crate) run_dir: PathBuf,
    /// As `run_dir`.
    pub(crate) data_dir: PathBuf,
    pub(crate) bridge: String,
    pub(crate) peers: Vec<String>,
    pub(crate) name: Option<String>,
    pub(crate) nickname: String,
    pub(crate) host: Option<IpAddr>,
    pub(crate) port: u16,
    /// Given as arguments or in the environment; those of the file are not among them.
    pub(crate) secrets: Vec<Secret>,
    pub(crate) password_file: Option<PathBuf>,
    pub(crate) network: String,
    pub(crate) discovery: bool,
    pub(crate) relay: bool,
    pub(crate) mtu: u16,
    /// `None`: one for each core.
    pub(crate) workers: Option<u16>,
    pub(crate) io: Io,
    pub(crate) cipher: Cipher,
    pub(crate) log_level: String,
    pub(crate) resume: bool,
    pub(crate) docker: DockerSettings,
    /// Where the sockets of Docker's network plugin go; `None` without it.
    pub(crate) plugin_dir: Option<PathBuf>,
    /// `None` without DNS.
    pub(crate) dns: Option<DnsSettings>,
    /// Where files of containers are, with and without DNS.
    pub(crate) netns_files: PathBuf,
    pub(crate) rekey_interval_ms: Option<u64>,
    /// As typed; `None` means the default range.
    pub(crate) ipalloc_range: Option<String>,
    pub(crate) ipalloc_default_subnet: Option<String>,
    pub(crate) ipalloc_range6: Option<String>,
    pub(crate) ipalloc_init: Option<String>,
}

impl Settings {
    /// Judges the arguments and fills in what the host knows.
    ///
    /// # Errors
    ///
    /// One line for an argument that parses and makes no sense.
    pub(crate) fn new(places: &Places, args: &LaunchArgs) -> anyhow::Result<Self> {
        let peers: Vec<String> = args
            .peers
            .iter()
            .filter(|peer| !peer.is_empty())
            .cloned()
            .collect();
        if args.peer.resume && !peers.is_empty() {
            bail!(
                "--resume takes the targets of the last run: leave out `{}` or --resume",
                peers.join(" ")
            );
        }
        bridge::check_name(&places.bridge)
            .context("--bridge")
            .map_err(Failure::usage)?;
        if args.peer.network.is_empty() {
            bail!("--network is empty: give the network's name, or leave it out for `weft`");
        }
        let settings = Self {
            run_dir: absolute(&places.run_dir)?,
            data_dir: absolute(&places.data_dir)?,
            bridge: places.bridge.clone(),
            peers,
            name: args.peer.name.clone(),
            nickname: args.peer.nickname.clone().unwrap_or_else(host_name),
            host: args.peer.host,
            port: args.peer.port,
            secrets: args.peer.password.clone(),
            password_file: args
                .peer
                .password_file
                .as_deref()
                .map(absolute)
                .transpose()?,
            network: args.peer.network.clone(),
            discovery: !args.peer.no_discovery,
            relay: !args.peer.no_relay,
            mtu: args.engine.mtu,
            workers: args.engine.workers,
            io: args.engine.io,
            cipher: args.engine.cipher,
            log_level: args.log_level.clone(),
            resume: args.peer.resume,
            docker: DockerSettings::new(&args.docker, &absolute(&places.run_dir)?),
            plugin_dir: (args.plugin.plugin
                && !args.plugin.no_plugin
                && !docker::is_off(&args.docker))
            .then(|| absolute(&args.plugin.plugin_dir))
            .transpose()?,
            dns: (!args.dns.no_dns).then(|| DnsSettings::new(&args.dns)),
            netns_files: args.dns.netns_files.clone(),
            rekey_interval_ms: args.peer.rekey_interval_ms,
            ipalloc_range: args.addresses.ipalloc_range.clone(),
            ipalloc_default_subnet: args.addresses.ipalloc_default_subnet.clone(),
            ipalloc_range6: args.addresses.ipalloc_range6.clone(),
            ipalloc_init: args.addresses.ipalloc_init.clone(),
        };
        settings.judge()?;
        Ok(settings)
    }

    /// Refuses what the daemon could not use, so that none is started for it.
    fn judge(&self) -> anyhow::Result<()> {
        self.judge_words().map_err(Failure::usage)?;
        self.credentials()?;
        self.addresses()?;
        if let Some(dns) = &self.dns {
            dns.judge()?;
        }
        Ok(())
    }

    /// Reads what clap has taken for any text.
    fn judge_words(&self) -> anyhow::Result<()> {
        crate::logging::filter(&self.log_level)?;
        for peer in &self.peers {
            TargetAddress::parse(peer, self.port).with_context(|| format!("`{peer}`"))?;
        }
        self.peer_name()?;
        self.checked_nickname()?;
        self.docker.judge()?;
        Ok(())
    }

    /// Returns the shown name, if one was given.
    ///
    /// # Errors
    ///
    /// When it is none.
    pub(crate) fn peer_name(&self) -> anyhow::Result<Option<PeerName>> {
        let Some(name) = &self.name else {
            return Ok(None);
        };
        Ok(Some(
            name.parse().with_context(|| format!("--name `{name}`"))?,
        ))
    }

    /// Returns the name for people.
    ///
    /// # Errors
    ///
    /// When it is none.
    pub(crate) fn checked_nickname(&self) -> anyhow::Result<Nickname> {
        self.nickname
            .parse()
            .with_context(|| format!("--nickname `{}`", self.nickname))
    }

    /// Returns every secret that is valid now, the one to offer first; reads the file again each time.
    ///
    /// # Errors
    ///
    /// When the file cannot be read or holds no secret, or one is no use.
    pub(crate) fn credentials(&self) -> anyhow::Result<Vec<Credential>> {
        let secrets = self.all_secrets()?;
        if secrets.len() > SECRETS_MAX {
            return Err(SecretError::TooMany.into());
        }
        Ok(secrets
            .iter()
            .map(|secret| Credential::parse(&secret.0))
            .collect::<Result<_, _>>()?)
    }

    fn all_secrets(&self) -> anyhow::Result<Vec<Secret>> {
        let mut secrets = self.secrets.clone();
        if let Some(path) = &self.password_file {
            let text = fs::read_to_string(path)
                .with_context(|| format!("read password file {}", path.display()))?;
            let found = secrets_in(&Zeroizing::new(text));
            if found.is_empty() {
                bail!(
                    "password file {} holds no secret: one is expected on each line",
                    path.display()
                );
            }
            secrets.extend(found);
        }
        Ok(secrets)
    }

    /// Tells whether anybody may become a member.
    pub(crate) fn open_membership(&self) -> bool {
        self.secrets.is_empty() && self.password_file.is_none()
    }

    /// Returns what somebody who launches should know about the secret.
    pub(crate) fn warnings(&self) -> Vec<String> {
        let warnings = self.open_warning().into_iter();
        let warnings = warnings.chain(self.file_warning());
        let warnings = warnings.chain(self.docker_note());
        warnings.chain(self.range_warning()).collect()
    }

    /// Returns the warning for a chosen range that overlaps a route of this host; a bad one fails elsewhere.
    fn range_warning(&self) -> Option<String> {
        let addresses = self.addresses().ok()??;
        let warning = overlap::warning(addresses.range, &self.bridge);
        warning.filter(|_| self.range_is_given())
    }

    /// Returns the warning for a password file that others can read.
    fn file_warning(&self) -> Option<String> {
        let path = self.password_file.as_ref()?;
        let mode = fs::metadata(path).ok()?.permissions().mode();
        (mode & 0o044 != 0).then(|| {
            format!(
                "warning: other users can read the password file: `chmod 600 {}`",
                path.display()
            )
        })
    }

    /// Returns the warning for an open network, with the flag that closes it.
    fn open_warning(&self) -> Option<String> {
        self.open_membership().then(|| {
            format!(
                "warning: open membership: whoever reaches port {} can join; \
                 close the network with --password-file FILE (`(umask 077; weft token > FILE)`)",
                self.port
            )
        })
    }

    /// Returns the path of the log that a daemon in the background writes.
    pub(crate) fn log_file(&self) -> PathBuf {
        self.run_dir.join("weft.log")
    }

    /// Returns the path of the pid file, which is also the lock of the run directory.
    pub(crate) fn pid_file(&self) -> PathBuf {
        self.run_dir.join("weft.pid")
    }
}

/// Returns the secrets of a password file: each line that is not blank, without its line end.
fn secrets_in(text: &str) -> Vec<Secret> {
    text.lines()
        .filter(|line| !line.trim().is_empty())
        .map(|line| Secret(line.to_owned()))
        .collect()
}

fn absolute(path: &Path) -> anyhow::Result<PathBuf> {
    std::path::absolute(path).with_context(|| format!("find the place of `{}`", path.display()))
}

fn host_name() -> String {
    match fs::read_to_string("/proc/sys/kernel/hostname") {
        Ok(name) if !name.trim().is_empty() => name.trim().to_owned(),
        Ok(_) | Err(_) => "localhost".to_owned(),
    }
}

#[cfg(test)]
mod tests;
