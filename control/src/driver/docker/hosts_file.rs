//! The `/etc/hosts` of a running Docker container, which Docker keeps in a file of the host.
//!
//! The container has that very file mounted: it is written in place, every time, for the container would never see
//! another that takes its name on the host. Docker adds and removes single lines of it when it connects the container to
//! one of its networks, and writes it anew when the container starts again.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::net::IpAddr;
use std::path::PathBuf;

use crate::proxy::hosts::{addresses_in, with_addresses};

/// Longest file that is taken up: Docker's have ten lines.
const LEN_MAX: u64 = 1024 * 1024;

/// Where it is, and whose.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostsFile {
    /// On the host.
    pub path: PathBuf,
    /// The container's host name, without its domain.
    pub name: String,
    /// Its domain; may be empty.
    pub domain: String,
}

impl HostsFile {
    /// Lets the container's name mean these addresses, too.
    ///
    /// # Errors
    /// What the system says.
    pub fn add(&self, addresses: impl Iterator<Item = IpAddr>) -> io::Result<()> {
        self.change(|mut before| {
            for address in addresses {
                if !before.contains(&address) {
                    before.push(address);
                }
            }
            before
        })
    }

    /// Lets it mean no others than these.
    ///
    /// # Errors
    /// What the system says.
    pub fn keep(&self, addresses: &[IpAddr]) -> io::Result<()> {
        self.change(|mut before| {
            before.retain(|address| addresses.contains(address));
            before
        })
    }

    fn change(&self, change: impl FnOnce(Vec<IpAddr>) -> Vec<IpAddr>) -> io::Result<()> {
        if fs::metadata(&self.path)?.len() > LEN_MAX {
            return Err(io::Error::other("it is too long"));
        }
        let before = fs::read_to_string(&self.path)?;
        let own = addresses_in(&before);
        let wanted = change(own.clone());
        if wanted == own {
            return Ok(());
        }
        let text = with_addresses(&before, &self.name, &self.domain, &wanted);
        // Nobody finds it empty.
        let mut file = OpenOptions::new().write(true).open(&self.path)?;
        file.write_all(text.as_bytes())?;
        file.set_len(text.len().try_into().unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Seek as _};

    use super::*;

    #[test]
    fn the_container_sees_every_change_and_what_docker_adds_stays() {
        let dir = tempfile::tempdir().unwrap();
        let file = HostsFile {
            path: dir.path().join("hosts"),
            name: "a2".to_owned(),
            domain: "weave.local".to_owned(),
        };
        fs::write(&file.path, "172.17.0.2\ta2.weave.local a2\n").unwrap();
        // As a mount is, of this file and no later one.
        let mut mounted = fs::File::open(&file.path).unwrap();
        let mut seen = || {
            let mut text = String::new();
            mounted.rewind().unwrap();
            mounted.read_to_string(&mut text).unwrap();
            text
        };
        let ips = |texts: &[&str]| -> Vec<IpAddr> {
            texts.iter().map(|text| text.parse().unwrap()).collect()
        };
        file.add(ips(&["10.32.0.1"]).into_iter()).unwrap();
        let first = "# weft begin\n10.32.0.1 a2.weave.local a2\n# weft end\n";
        assert_eq!(seen(), first);
        file.add(ips(&["10.32.0.1"]).into_iter()).unwrap();
        assert_eq!(seen(), first, "nothing new");

        let mut docker = OpenOptions::new().append(true).open(&file.path).unwrap();
        docker.write_all(b"172.18.0.3\tother\n").unwrap();
        file.add(ips(&["10.32.0.2"]).into_iter()).unwrap();
        assert_eq!(
            seen(),
            "172.18.0.3\tother\n# weft begin\n10.32.0.1 a2.weave.local a2\n10.32.0.2 a2.weave.local a2\n# weft end\n"
        );
        file.keep(&ips(&["10.32.0.2"])).unwrap();
        assert_eq!(
            seen(),
            "172.18.0.3\tother\n# weft begin\n10.32.0.2 a2.weave.local a2\n# weft end\n"
        );
        file.keep(&[]).unwrap();
        assert_eq!(seen(), "172.18.0.3\tother\n", "shorter");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
