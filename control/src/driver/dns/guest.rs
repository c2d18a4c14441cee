//! What a container gets at attach so that names work in it: a name of its own, and files where `ip netns` finds them.
//!
//! ```text
//!  /etc/netns/NAME/resolv.conf   our server, our domain     ─┐ `ip netns exec NAME` lays them over /etc
//!  /etc/netns/NAME/hosts         the container's own names  ─┘
//! ```
//!
//! Only containers that `ip netns` knows by name have such files; Docker writes its own. A file that somebody else
//! wrote stays as it is.

use std::fs;
use std::io::{self, Write as _};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use ipnet::IpNet;

use super::resolv_conf::{MARK, for_container};
use crate::api::ApiError;
use crate::dns::name::{DnsName, Domain};
use crate::driver::container::Container;

/// Where `ip netns` looks for files.
pub const FOLDER_DEFAULT: &str = "/etc/netns";

/// What every container gets.
#[derive(Debug, Clone)]
pub struct Guest {
    domain: Domain,
    server: Ipv4Addr,
    folder: PathBuf,
}

impl Guest {
    /// Names end in `domain`, `server` answers for them, and files go below `folder`.
    #[must_use]
    pub fn new(domain: Domain, server: Ipv4Addr, folder: &Path) -> Self {
        Self {
            domain,
            server,
            folder: folder.to_owned(),
        }
    }

    /// Where the server is.
    #[must_use]
    pub fn server(&self) -> Ipv4Addr {
        self.server
    }

    /// The names asked for, whole; or else the container's own, if it lies in the domain.
    ///
    /// # Errors
    /// One line for a name that is none, or of another domain.
    pub fn names(&self, container: &Container, asked: &[String]) -> Result<Vec<String>, ApiError> {
        if asked.is_empty() {
            let own = container.host_name.as_deref();
            let own = own.and_then(|name| self.domain.qualify(name).ok());
            return Ok(own.iter().map(ToString::to_string).collect());
        }
        self.whole(asked)
    }

    /// These names, whole.
    ///
    /// # Errors
    /// One line for a name that is none, or of another domain.
    pub fn whole(&self, names: &[String]) -> Result<Vec<String>, ApiError> {
        let whole = |name: &String| match self.domain.qualify(name) {
            Ok(name) => Ok(name.to_string()),
            Err(error) => Err(ApiError {
                error: error.to_string(),
            }),
        };
        names.iter().map(whole).collect()
    }

    /// Writes the files. Not fatal: the network works without.
    pub fn write_files(&self, container: &Container, names: &[String], addresses: &[IpNet]) {
        let Some(folder) = self.folder_of(container) else {
            return;
        };
        let first = names.first().and_then(|name| DnsName::parse(name).ok());
        let resolv_conf = for_container(self.server, first.as_ref(), &self.domain);
        let files = [
            ("resolv.conf", resolv_conf),
            ("hosts", self.hosts(names, addresses)),
        ];
        for (name, text) in files {
            let path = folder.join(name);
            if let Err(error) = write_ours(&path, &text) {
                tracing::warn!(path = %path.display(), %error, "file for a container not written");
            }
        }
    }

    /// Removes what [`Self::write_files`] wrote.
    pub fn remove_files(&self, container: &Container) {
        if let Some(folder) = self.folder_of(container) {
            remove_ours(&folder);
        }
    }

    /// The same for a container by its shown id, if its namespace is gone or `also_living`.
    pub fn forget(&self, id: &str, also_living: bool) {
        let path = Path::new(id);
        let named = [Path::new("/run/netns"), Path::new("/var/run/netns")];
        let Some(name) = path.file_name() else {
            return;
        };
        let is_named = name == id || path.parent().is_some_and(|folder| named.contains(&folder));
        let is_living = || named.iter().any(|folder| folder.join(name).exists());
        if is_named && (also_living || !is_living()) {
            remove_ours(&self.folder.join(name));
        }
    }

    fn folder_of(&self, container: &Container) -> Option<PathBuf> {
        let name = container.netns_name.as_deref()?;
        Some(self.folder.join(name))
    }

    fn hosts(&self, names: &[String], addresses: &[IpNet]) -> String {
        let mut text = format!("{MARK}127.0.0.1 localhost\n::1 localhost ip6-localhost\n");
        let mut words = Vec::new();
        for name in names {
            words.push(name.clone());
            if let Ok(name) = DnsName::parse(name) {
                words.push(self.domain.shorten(&name).to_owned());
            }
        }
        if let (Some(address), false) = (addresses.first(), words.is_empty()) {
            text.push_str(&format!("{} {}\n", address.addr(), words.join(" ")));
        }
        text
    }
}

/// Removes the files that are ours from a folder, and the folder with them.
fn remove_ours(folder: &Path) {
    for path in ["resolv.conf", "hosts"].map(|name| folder.join(name)) {
        if is_ours(&path) {
            let _ = fs::remove_file(path);
        }
    }
    // Stays if somebody else has a file in it.
    let _ = fs::remove_dir(folder);
}

/// Replaces a file of ours, or makes one where there is none.
fn write_ours(path: &Path, text: &str) -> io::Result<()> {
    if path.exists() && !is_ours(path) {
        return Ok(());
    }
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    // Written in place: `ip netns exec` has laid it over another file, and that would keep showing the old one.
    let mut file = fs::File::create(path)?;
    file.write_all(text.as_bytes())
}

fn is_ours(path: &Path) -> bool {
    fs::read_to_string(path).is_ok_and(|text| text.starts_with(MARK))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::netns::NetNs;

    fn container(netns_name: Option<&str>, host_name: Option<&str>) -> Container {
        Container {
            id: "c1".to_owned(),
            netns: NetNs::current().unwrap(),
            path: "/run/netns/c1".into(),
            netns_name: netns_name.map(str::to_owned),
            host_name: host_name.map(str::to_owned),
        }
    }

    fn guest(folder: &Path) -> Guest {
        let domain = Domain::parse("weave.local").unwrap();
        Guest::new(domain, Ipv4Addr::new(169, 254, 53, 1), folder)
    }

    #[test]
    fn a_container_has_the_names_asked_for_or_its_own() {
        let guest = guest(Path::new("/nowhere"));
        let names = |host_name, asked: &[&str]| {
            let asked = asked
                .iter()
                .map(|name| (*name).to_owned())
                .collect::<Vec<_>>();
            guest.names(&container(None, host_name), &asked)
        };
        assert_eq!(names(Some("c1"), &[]).unwrap(), ["c1.weave.local"]);
        assert_eq!(
            names(Some("c1.weave.local"), &[]).unwrap(),
            ["c1.weave.local"]
        );
        assert!(names(Some("c1.example.org"), &[]).unwrap().is_empty());
        assert!(names(Some("not a name"), &[]).unwrap().is_empty());
        assert!(names(None, &[]).unwrap().is_empty());
        assert_eq!(
            names(Some("c1"), &["web", "a.b.weave.local."]).unwrap(),
            ["web.weave.local", "a.b.weave.local"]
        );
        let error = names(None, &["web.example.org"]).unwrap_err().error;
        assert_eq!(error, "web.example.org is not below weave.local.");
    }

    #[test]
    fn files_are_written_and_removed_but_never_somebody_elses() {
        let dir = tempfile::tempdir().unwrap();
        let guest = guest(dir.path());
        let c1 = container(Some("c1"), None);
        let names = ["web.weave.local".to_owned()];

        guest.write_files(&c1, &names, &["10.2.1.1/24".parse().unwrap()]);
        let read = |name: &str| fs::read_to_string(dir.path().join("c1").join(name));
        assert!(
            read("resolv.conf")
                .unwrap()
                .contains("nameserver 169.254.53.1\n")
        );
        assert!(
            read("hosts")
                .unwrap()
                .ends_with("\n10.2.1.1 web.weave.local web\n")
        );

        fs::write(dir.path().join("c1/resolv.conf"), "nameserver 192.0.2.1\n").unwrap();
        guest.write_files(&c1, &[], &[]);
        assert_eq!(read("resolv.conf").unwrap(), "nameserver 192.0.2.1\n");
        assert!(!read("hosts").unwrap().contains("10.2.1.1"));
        guest.remove_files(&c1);
        assert!(read("hosts").is_err());
        assert_eq!(read("resolv.conf").unwrap(), "nameserver 192.0.2.1\n");

        fs::remove_file(dir.path().join("c1/resolv.conf")).unwrap();
        guest.remove_files(&c1);
        assert!(!dir.path().join("c1").exists());
        guest.write_files(&container(None, None), &names, &[]);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);

        guest.write_files(&c1, &names, &[]);
        for id in ["c2", "", "..", "/etc/c1", "/proc/1/ns/net"] {
            guest.forget(id, true);
            assert!(read("resolv.conf").is_ok(), "{id}");
        }
        guest.forget("c1", true);
        assert!(!dir.path().join("c1").exists());
        guest.write_files(&c1, &names, &[]);
        guest.forget("/run/netns/c1", true);
        assert!(!dir.path().join("c1").exists());
    }
}
