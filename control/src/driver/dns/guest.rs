//! What a container gets at attach so that names work in it: a name of its own, and files where `ip netns` finds them.
//!
//! ```text
//!  /etc/netns/NAME/resolv.conf   our server, our domain                     ─┐ `ip netns exec NAME` lays them
//!  /etc/netns/NAME/hosts         the container's own names, --add-host      ─┘ over /etc
//! ```
//!
//! Only containers that `ip netns` knows by name have such files; Docker writes its own. A file that somebody else
//! wrote stays as it is, unless a flag asks for ours: then it is put back when the container is detached. While a daemon
//! without DNS runs they wait elsewhere (`parked`).

use std::ffi::OsStr;
use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use ipnet::IpNet;

use super::files::{self, FILES};
use super::hosts::{ADDED_MAX, AddedHost, Hosts};
use super::parked::Parked;
use super::resolv_conf::{asked_search, for_container, moved};
use crate::api::{ApiError, AttachRequest, ContainerFiles};
use crate::dns::name::{DnsName, Domain, NameError};
use crate::dns::names::Entry;
use crate::driver::container::Container;

/// Where `ip netns` looks for files.
pub const FOLDER_DEFAULT: &str = "/etc/netns";

/// Where `ip netns` keeps its names.
const NAMESPACES: [&str; 2] = ["/run/netns", "/var/run/netns"];
/// Domains to search: older resolvers take no more, and each costs a question for every short name.
const SEARCH_MAX: usize = 6;

/// What goes into a container's files, as it was asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FileWishes {
    has_resolv_conf: bool,
    search: Vec<String>,
    has_own_names: bool,
    added: Vec<AddedHost>,
    /// Which of [`FILES`] are to be ours whatever is there.
    takes: [bool; 2],
    /// Of an earlier call.
    drops_own_names: bool,
}

impl FileWishes {
    /// Reads a request.
    ///
    /// # Errors
    /// One line for a domain or an entry that is none, and for wishes that contradict each other.
    pub fn read(request: &AttachRequest) -> Result<Self, ApiError> {
        let refusal = |error: String| ApiError { error };
        let ContainerFiles {
            dns_search,
            add_hosts,
            rewrite_hosts,
        } = &request.files;
        if request.without_dns && !dns_search.is_empty() {
            let line = "--dns-search needs DNS: leave --without-dns out";
            return Err(refusal(line.to_owned()));
        }
        for (flag, count, max) in [
            ("--dns-search", dns_search.len(), SEARCH_MAX),
            ("--add-host", add_hosts.len(), ADDED_MAX),
        ] {
            if count > max {
                return Err(refusal(format!("{count} times {flag}: at most {max}")));
            }
        }
        let domain = |text: &String| match DnsName::parse(text) {
            Ok(name) => Ok(name.to_string()),
            // None at all, as Docker has it.
            Err(_) if text == "." => Ok(text.clone()),
            Err(error) => Err(refusal(format!("--dns-search: {error}"))),
        };
        let added = |text: &String| {
            let read = text.parse::<AddedHost>();
            read.map_err(|error| refusal(format!("--add-host: {error}")))
        };
        let added: Vec<AddedHost> = add_hosts.iter().map(added).collect::<Result<_, _>>()?;
        let takes_hosts = *rewrite_hosts == Some(true) || !added.is_empty();
        Ok(Self {
            has_resolv_conf: !request.without_dns,
            search: dns_search.iter().map(domain).collect::<Result<_, _>>()?,
            has_own_names: rewrite_hosts.unwrap_or(!request.without_dns),
            takes: [!dns_search.is_empty(), takes_hosts],
            drops_own_names: *rewrite_hosts == Some(false),
            added,
        })
    }

    /// True if a flag asks for a file that Docker does not keep for this container.
    #[must_use]
    pub fn are_asked_of(&self, container: &Container) -> bool {
        let [takes_resolv_conf, takes_hosts] = self.takes;
        takes_resolv_conf || !self.added.is_empty() || (takes_hosts && container.hosts.is_none())
    }
}

/// What a container is called, and where.
#[derive(Debug, Clone, Copy)]
pub struct Called<'a> {
    /// Whole names.
    pub names: &'a [String],
    /// The addresses that have them.
    pub addresses: &'a [IpNet],
    /// All that the container has now.
    pub present: &'a [IpNet],
}

/// What every container gets.
#[derive(Debug, Clone)]
pub struct Guest {
    domain: Domain,
    server: Ipv4Addr,
    folder: PathBuf,
    parked: Parked,
}

impl Guest {
    /// Names end in `domain`, `server` answers for them, and files go below `folder`; without DNS they are `parked`.
    #[must_use]
    pub fn new(domain: Domain, server: Ipv4Addr, folder: &Path, parked: Parked) -> Self {
        Self {
            domain,
            server,
            folder: folder.to_owned(),
            parked,
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
    /// One line for a name that is none, of another domain, or `localhost`.
    pub fn names(&self, container: &Container, asked: &[String]) -> Result<Vec<String>, ApiError> {
        if asked.is_empty() {
            let own = container.host_name.as_deref();
            let own = own.and_then(|name| self.domain.name_to_give(name).ok());
            return Ok(own.iter().map(ToString::to_string).collect());
        }
        self.whole(asked)
    }

    /// Why a container's own name is none that is answered for; none if it has no name, or a good one.
    #[must_use]
    pub fn refusal_of_own_name(&self, container: &Container) -> Option<NameError> {
        let own = container.host_name.as_deref()?;
        self.domain.name_to_give(own).err()
    }

    /// What a container is called whose name in Docker is `name`, whole.
    ///
    /// # Errors
    /// Why it is called nothing.
    pub fn name_of_container(&self, name: &str) -> Result<String, NameError> {
        let name = self.domain.name_of_container(name)?;
        Ok(name.to_string())
    }

    /// These names, whole.
    ///
    /// # Errors
    /// One line for a name that is none, of another domain, or `localhost`.
    pub fn whole(&self, names: &[String]) -> Result<Vec<String>, ApiError> {
        let whole = |name: &String| match self.domain.name_to_give(name) {
            Ok(name) => Ok(name.to_string()),
            Err(error) => Err(ApiError {
                error: error.to_string(),
            }),
        };
        names.iter().map(whole).collect()
    }

    /// Writes the files, and says which are not as they were wished for. Not fatal: the network works without.
    #[must_use]
    pub fn write_files(
        &self,
        container: &Container,
        called: Called<'_>,
        wishes: &FileWishes,
    ) -> Vec<String> {
        let Some(folder) = self.folder_of(container) else {
            let line = format!(
                "{} keeps its own files: --dns-search, --add-host and --rewrite-hosts are for what `ip netns` knows by name",
                container.shown()
            );
            return Vec::from_iter(wishes.are_asked_of(container).then_some(line));
        };
        let mut notes = Vec::new();
        let texts = [
            self.resolv_conf(&folder, called, wishes),
            self.hosts(&folder, called, wishes),
        ];
        for ((name, text), takes) in FILES.iter().zip(texts).zip(wishes.takes) {
            let Some(text) = text else {
                continue;
            };
            let path = folder.join(name);
            let shown = path.display();
            match files::write(&path, &text, takes) {
                Ok(true) => {}
                Ok(false) => notes.push(format!("{shown} is not ours and stays as it is")),
                Err(error) => notes.push(format!("{shown} is not written: {error}")),
            }
        }
        notes
    }

    /// After some addresses were taken: `hosts` names only these.
    pub fn keep_hosts(&self, container: &Container, present: &[IpNet]) {
        if let Some(folder) = self.folder_of(container) {
            keep_hosts(&folder, present);
        }
    }

    /// Takes names that containers no longer have out of their `hosts`.
    pub fn unname(&self, removed: &[Entry]) {
        for entry in removed {
            let Some(folder) = self.folder_by_id(&entry.container) else {
                continue;
            };
            let path = folder.join(FILES[1]);
            let Some(text) = files::read(&path) else {
                continue;
            };
            let mut hosts = Hosts::parse(&text);
            let short = self.domain.shorten(&entry.name);
            hosts.unname(entry.address, &[entry.name.as_str(), short]);
            rewrite(&path, &hosts.text());
        }
    }

    /// Brings the files of an attached container to this server and this domain. Its names below the domain before are
    /// those below the new one.
    pub fn follow(&self, id: &str) {
        let Some(folder) = self.folder_by_id(id) else {
            return;
        };
        let [resolv_conf, hosts] = FILES.map(|name| folder.join(name));
        if let Some(before) = files::read(&resolv_conf) {
            rewrite(&resolv_conf, &moved(&before, self.server, &self.domain));
        }
        if let Some(before) = files::read(&hosts) {
            let mut after = Hosts::parse(&before);
            after.move_to(self.domain.name().as_str());
            rewrite(&hosts, &after.text());
        }
    }

    /// Takes the files of an attached container out of the way, for a daemon without DNS.
    pub fn park(&self, id: &str) {
        if let Some(name) = name_by_id(id) {
            let folder = self.folder.join(name);
            if self.parked.take(&folder, name) {
                // Stays if somebody else has a file in it.
                let _ = fs::remove_dir(folder);
            }
        }
    }

    /// Puts them back, for the addresses that it has now. What is parked is of another one of that name unless the
    /// container still leads to a server of ours (`has_server`), or never did.
    pub fn unpark(&self, id: &str, present: &[IpNet], has_server: bool) {
        let Some(name) = name_by_id(id) else { return };
        if has_server || !self.parked.wants_server(name) {
            let folder = self.folder.join(name);
            if self.parked.put_back(&folder, name) {
                keep_hosts(&folder, present);
            }
        } else {
            self.parked.forget(name);
        }
    }

    /// Removes what [`Self::write_files`] wrote, and puts back what was there before.
    pub fn remove_files(&self, container: &Container) {
        if let Some(folder) = self.folder_of(container) {
            remove_ours(&folder);
        }
    }

    /// The same for a container by its shown id, whether it is still there or not.
    pub fn forget(&self, id: &str) {
        if let Some(folder) = self.folder_by_id(id) {
            remove_ours(&folder);
        }
    }

    fn folder_by_id(&self, id: &str) -> Option<PathBuf> {
        Some(self.folder.join(name_by_id(id)?))
    }

    /// The same for all containers that are gone.
    pub fn sweep(&self) {
        // Where there is no such folder, there is nothing to remove.
        for entry in fs::read_dir(&self.folder).into_iter().flatten().flatten() {
            if !is_living(&entry.file_name()) {
                remove_ours(&entry.path());
            }
        }
        self.parked.keep(is_living);
    }

    fn folder_of(&self, container: &Container) -> Option<PathBuf> {
        let name = container.netns_name.as_deref()?;
        Some(self.folder.join(name))
    }

    fn resolv_conf(
        &self,
        folder: &Path,
        called: Called<'_>,
        wishes: &FileWishes,
    ) -> Option<String> {
        if !wishes.has_resolv_conf {
            return None;
        }
        let first = called
            .names
            .first()
            .and_then(|name| DnsName::parse(name).ok());
        let mut search = wishes.search.clone();
        if search.is_empty() {
            // Another address is no reason to forget what was asked for with the first.
            let before = files::read(&folder.join(FILES[0])).unwrap_or_default();
            search = asked_search(&before);
        }
        let (server, domain) = (self.server, &self.domain);
        Some(for_container(server, first.as_ref(), domain, &search))
    }

    fn hosts(&self, folder: &Path, called: Called<'_>, wishes: &FileWishes) -> Option<String> {
        let before = files::read(&folder.join(FILES[1]));
        if before.is_none() && !wishes.has_own_names && wishes.added.is_empty() {
            return None;
        }
        let mut hosts = before.map_or_else(Hosts::default, |text| Hosts::parse(&text));
        let mut words = Vec::new();
        for name in called.names.iter().filter(|_| wishes.has_own_names) {
            words.push(name.clone());
            if let Ok(name) = DnsName::parse(name) {
                words.push(self.domain.shorten(&name).to_owned());
            }
        }
        hosts.keep(&bare(called.present));
        hosts.name(&bare(called.addresses), &words);
        if wishes.drops_own_names {
            hosts.keep(&[]);
        }
        hosts.add(&wishes.added);
        Some(hosts.text())
    }
}

fn bare(addresses: &[IpNet]) -> Vec<IpAddr> {
    addresses.iter().map(IpNet::addr).collect()
}

/// What `ip netns` calls a container of this id.
fn name_by_id(id: &str) -> Option<&OsStr> {
    let path = Path::new(id);
    let name = path.file_name()?;
    let folders = NAMESPACES.map(Path::new);
    let is_listed = || {
        path.parent()
            .is_some_and(|folder| folders.contains(&folder))
    };
    (name == id || is_listed()).then_some(name)
}

/// `hosts` in a folder names only these.
fn keep_hosts(folder: &Path, present: &[IpNet]) {
    let path = folder.join(FILES[1]);
    let Some(text) = files::read(&path) else {
        return;
    };
    let mut hosts = Hosts::parse(&text);
    hosts.keep(&bare(present));
    rewrite(&path, &hosts.text());
}

fn is_living(name: &OsStr) -> bool {
    let mut folders = NAMESPACES.iter().map(Path::new);
    folders.any(|folder| folder.join(name).exists())
}

fn rewrite(path: &Path, text: &str) {
    if files::read(path).is_some_and(|before| before == text) {
        return;
    }
    if let Err(error) = files::write(path, text, false) {
        tracing::warn!(path = %path.display(), %error, "file for a container not written");
    }
}

/// Removes the files that are ours from a folder, and the folder with them. One that holds nothing of ours stays, even
/// if it is empty.
fn remove_ours(folder: &Path) {
    let mut was_ours = false;
    for path in FILES.map(|name| folder.join(name)) {
        match files::remove(&path) {
            Ok(was_there) => was_ours |= was_there,
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "file of a container not removed");
            }
        }
    }
    if was_ours {
        // Stays if somebody else has a file in it.
        let _ = fs::remove_dir(folder);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dns::names::tests::entry;
    use crate::driver::docker::HostsFile;
    use crate::driver::netns::NetNs;

    fn container(netns_name: Option<&str>, host_name: Option<&str>) -> Container {
        Container {
            id: "c1".to_owned(),
            netns: NetNs::current().unwrap(),
            path: "/run/netns/c1".into(),
            netns_name: netns_name.map(str::to_owned),
            hosts: None,
            host_name: host_name.map(str::to_owned),
        }
    }

    fn guest(folder: &Path) -> Guest {
        let domain = Domain::parse("weave.local").unwrap();
        let parked = Parked::below(folder);
        Guest::new(domain, Ipv4Addr::new(169, 254, 53, 1), folder, parked)
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

    fn wishes(request: &str) -> Result<FileWishes, String> {
        let request = format!(r#"{{"container": "netns:c1", "addresses": []{request}}}"#);
        let request = serde_json::from_str(&request).unwrap();
        FileWishes::read(&request).map_err(|error| error.error)
    }

    /// Writes the files of `c1` at these addresses.
    fn write(guest: &Guest, names: &[&str], addresses: &[&str], request: &str) -> Vec<String> {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let addresses: Vec<IpNet> = addresses.iter().map(|net| net.parse().unwrap()).collect();
        let called = Called {
            names: &names,
            addresses: addresses.get(..1).unwrap_or_default(),
            present: &addresses,
        };
        let c1 = container(Some("c1"), None);
        guest.write_files(&c1, called, &wishes(request).unwrap())
    }

    #[test]
    fn files_are_written_and_removed_but_never_somebody_elses() {
        let dir = tempfile::tempdir().unwrap();
        let guest = guest(dir.path());
        let c1 = container(Some("c1"), None);
        let web = ["web.weave.local"];

        assert!(write(&guest, &web, &["10.2.1.1/24"], "").is_empty());
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

        let path = dir.path().join("c1/resolv.conf");
        fs::write(&path, "nameserver 192.0.2.1\n").unwrap();
        let notes = write(&guest, &[], &[], "");
        assert_eq!(
            notes,
            [format!("{} is not ours and stays as it is", path.display())]
        );
        assert_eq!(read("resolv.conf").unwrap(), "nameserver 192.0.2.1\n");
        assert!(!read("hosts").unwrap().contains("10.2.1.1"));
        guest.remove_files(&c1);
        assert!(read("hosts").is_err());
        assert_eq!(read("resolv.conf").unwrap(), "nameserver 192.0.2.1\n");

        // What is left when they take theirs away is theirs, too.
        fs::remove_file(dir.path().join("c1/resolv.conf")).unwrap();
        guest.remove_files(&c1);
        fs::remove_dir(dir.path().join("c1")).unwrap();
        let nobody = container(None, None);
        let called = Called {
            names: &[],
            addresses: &[],
            present: &[],
        };
        let plain = wishes("").unwrap();
        assert!(guest.write_files(&nobody, called, &plain).is_empty());
        let asking = wishes(r#", "add_hosts": ["a:192.0.2.1"]"#).unwrap();
        let notes = guest.write_files(&nobody, called, &asking);
        assert!(notes[0].starts_with("c1 keeps its own files"), "{notes:?}");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);

        write(&guest, &web, &[], "");
        for id in ["c2", "", "..", "/etc/c1", "/proc/1/ns/net"] {
            guest.forget(id);
            assert!(read("resolv.conf").is_ok(), "{id}");
        }
        guest.forget("c1");
        assert!(!dir.path().join("c1").exists());
        write(&guest, &web, &[], "");
        guest.forget("/run/netns/c1");
        assert!(!dir.path().join("c1").exists());
    }

    #[test]
    fn what_is_asked_for_takes_the_place_of_somebody_elses_until_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let guest = guest(dir.path());
        let c1 = container(Some("c1"), None);
        let path = |name: &str| dir.path().join("c1").join(name);
        let read = |name: &str| fs::read_to_string(path(name)).unwrap();
        fs::create_dir(dir.path().join("c1")).unwrap();
        for name in FILES {
            fs::write(path(name), "theirs").unwrap();
        }
        let web = ["web.weave.local"];
        assert_eq!(write(&guest, &web, &["10.2.1.1/24"], "").len(), 2);

        let asking =
            r#", "dns_search": ["sub.weave.local.", "example.org"], "rewrite_hosts": true"#;
        assert!(write(&guest, &web, &["10.2.1.1/24"], asking).is_empty());
        assert!(read("resolv.conf").contains("\nsearch sub.weave.local example.org\n"));
        assert!(read("hosts").ends_with("\n10.2.1.1 web.weave.local web\n"));

        // Another address later keeps what was asked for.
        let two = ["10.2.2.1/24", "10.2.1.1/24"];
        let more = r#", "add_hosts": ["printer:192.0.2.80"]"#;
        assert!(write(&guest, &["db.weave.local"], &two, more).is_empty());
        assert!(read("resolv.conf").contains("\nsearch sub.weave.local example.org\n"));
        let end = "\n10.2.1.1 web.weave.local web\n10.2.2.1 db.weave.local db\n# --add-host\n192.0.2.80 printer\n";
        assert!(read("hosts").ends_with(end), "{}", read("hosts"));
        guest.keep_hosts(&c1, &["10.2.2.1/24".parse().unwrap()]);
        assert!(!read("hosts").contains("10.2.1.1"));
        let without = r#", "rewrite_hosts": false"#;
        assert!(write(&guest, &web, &two, without).is_empty());
        assert!(!read("hosts").contains("10.2.2.1") && read("hosts").contains("printer"));

        guest.remove_files(&c1);
        assert!(FILES.iter().all(|name| read(name) == "theirs"));
    }

    #[test]
    fn a_name_that_is_taken_leaves_the_file_and_another_joins_it() {
        let dir = tempfile::tempdir().unwrap();
        let guest = guest(dir.path());
        let hosts = || fs::read_to_string(dir.path().join("c1/hosts")).unwrap();
        let one = ["10.2.1.1/24"];
        write(&guest, &["web.weave.local"], &one, "");
        write(&guest, &["shop.weave.local"], &one, "");
        let both = "\n10.2.1.1 web.weave.local web shop.weave.local shop\n";
        assert!(hosts().ends_with(both), "{}", hosts());
        let taken = [
            entry("web.weave.local", "10.2.1.1", "c1"),
            entry("shop.weave.local", "10.2.1.1", "c2"),
        ];
        guest.unname(&taken);
        assert!(hosts().ends_with("\n10.2.1.1 shop.weave.local shop\n"));
    }

    #[test]
    fn a_launch_with_another_server_and_domain_changes_the_files() {
        let dir = tempfile::tempdir().unwrap();
        let before = guest(dir.path());
        write(&before, &["web.weave.local"], &["10.2.1.1/24"], "");
        let domain = Domain::parse("example.internal").unwrap();
        let after = Guest {
            domain,
            server: Ipv4Addr::new(169, 254, 7, 7),
            ..before
        };
        after.follow("c1");
        after.follow("c2");
        let read = |name: &str| fs::read_to_string(dir.path().join("c1").join(name)).unwrap();
        let conf = read("resolv.conf");
        assert!(
            conf.contains("\nnameserver 169.254.7.7\nsearch example.internal\n"),
            "{conf}"
        );
        assert!(read("hosts").ends_with("\n10.2.1.1 web.example.internal web\n"));
        assert!(!dir.path().join("c2").exists());
    }

    #[test]
    fn without_dns_there_are_entries_and_no_names_unless_asked_for() {
        let dir = tempfile::tempdir().unwrap();
        let guest = guest(dir.path());
        let path = |name: &str| dir.path().join("c1").join(name);
        let (web, one) = (["web.weave.local"], ["10.2.1.1/24"]);
        write(&guest, &web, &one, r#", "without_dns": true"#);
        assert!(!dir.path().join("c1").exists());
        let added = r#", "without_dns": true, "add_hosts": ["printer:192.0.2.80"]"#;
        write(&guest, &web, &one, added);
        let hosts = fs::read_to_string(path("hosts")).unwrap();
        assert!(hosts.contains("192.0.2.80 printer") && !hosts.contains("10.2.1.1"));
        let named = r#", "without_dns": true, "rewrite_hosts": true"#;
        write(&guest, &web, &one, named);
        let hosts = fs::read_to_string(path("hosts")).unwrap();
        assert!(hosts.contains("192.0.2.80 printer") && hosts.contains("10.2.1.1 web"));
        assert!(!path("resolv.conf").exists());
    }

    #[test]
    fn wishes_that_make_no_sense_are_refused_in_one_line() {
        for (request, wanted) in [
            (
                r#", "add_hosts": ["printer"]"#,
                "--add-host: \"printer\" is no entry",
            ),
            (
                r#", "dns_search": ["a b"]"#,
                "--dns-search: \"a b\" is no DNS name",
            ),
            (
                r#", "dns_search": ["a","b","c","d","e","f","g"]"#,
                "7 times --dns-search: at most 6",
            ),
            (
                r#", "dns_search": ["a"], "without_dns": true"#,
                "--dns-search needs DNS",
            ),
        ] {
            let refused = wishes(request).unwrap_err();
            assert!(refused.starts_with(wanted), "{refused}");
        }
        let mut nobody = container(None, None);
        assert!(!wishes("").unwrap().are_asked_of(&nobody));
        assert!(
            wishes(r#", "dns_search": ["."]"#)
                .unwrap()
                .are_asked_of(&nobody)
        );
        let hosts = wishes(r#", "rewrite_hosts": true"#).unwrap();
        assert!(hosts.are_asked_of(&nobody));
        nobody.hosts = Some(HostsFile {
            path: "/nowhere".into(),
            name: "c1".to_owned(),
            domain: String::new(),
        });
        assert!(!hosts.are_asked_of(&nobody), "Docker keeps one");
    }

    #[test]
    fn files_of_containers_that_are_gone_are_swept() {
        let dir = tempfile::tempdir().unwrap();
        let guest = guest(dir.path());
        write(&guest, &[], &["10.2.1.1/24"], "");
        let gone = dir.path().join("no-such-namespace");
        fs::rename(dir.path().join("c1"), &gone).unwrap();
        let theirs = dir.path().join("no-such-namespace-either");
        fs::create_dir(&theirs).unwrap();
        fs::write(theirs.join("hosts"), "theirs").unwrap();
        let empty = dir.path().join("an-administrators");
        fs::create_dir(&empty).unwrap();
        guest.sweep();
        assert!(!gone.exists() && theirs.join("hosts").exists() && empty.exists());
        self::guest(Path::new("/nowhere")).sweep();
    }
}
