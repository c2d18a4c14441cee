//! Opens network namespaces and does work inside them.
//!
//! A netlink socket, a packet socket and a file under `/proc/sys/net` belong to the namespace of the thread that
//! opens them. So work runs on a thread of its own, which enters each namespace, opens its sockets there and ends:
//!
//! ```text
//!  caller ── work ──► thread: setns(host), socket · setns(container), socket · work on both · end
//!         ◄─ answer ─┘
//! ```
//!
//! A worker of the caller's runtime never changes its namespace.

use std::fs::{self, File};
use std::future::Future;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;

use nix::sched::CloneFlags;
use nix::sys::statfs::{NSFS_MAGIC, fstatfs};
use tokio::sync::oneshot;

use super::identity::UNNUMBERED;
use super::netlink::Netlink;

/// Where `ip netns` keeps its names.
const NAMED: &str = "/run/netns";

/// Why a namespace could not be opened or entered.
#[derive(Debug, thiserror::Error)]
pub enum NetNsError {
    /// The name cannot be a file name.
    #[error("{name:?} is no namespace name: give netns:NAME, netns:/path or pid:N")]
    BadName {
        /// As typed.
        name: String,
    },
    /// Nothing of that name or path, or it may not be opened.
    #[error("open network namespace {}", path.display())]
    Open {
        /// What was opened.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// No process of that number.
    #[error("no process {pid}")]
    NoProcess {
        /// As typed.
        pid: u32,
    },
    /// A file, but not a network namespace.
    #[error("{} is not a network namespace", path.display())]
    NotNamespace {
        /// What was opened.
        path: PathBuf,
    },
    /// The thread for the work could not be started.
    #[error("start a thread for a network namespace")]
    Thread {
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The thread could not enter the namespace.
    #[error("enter a network namespace, which takes CAP_SYS_ADMIN: run as root")]
    Enter {
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The thread could not open its netlink socket.
    #[error("open a netlink socket")]
    Socket {
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The work ended without an answer.
    #[error("work in a network namespace broke off")]
    BrokeOff,
}

impl NetNsError {
    /// True if the request named something that is not there.
    pub fn is_request_fault(&self) -> bool {
        matches!(
            self,
            Self::BadName { .. }
                | Self::Open { .. }
                | Self::NoProcess { .. }
                | Self::NotNamespace { .. }
        )
    }
}

/// A network namespace, held open: it lives at least as long as this value.
#[derive(Debug, Clone)]
pub struct NetNs {
    fd: Arc<OwnedFd>,
    device: u64,
    inode: u64,
}

impl PartialEq for NetNs {
    fn eq(&self, other: &Self) -> bool {
        (self.device, self.inode) == (other.device, other.inode)
    }
}

impl Eq for NetNs {}

impl AsFd for NetNs {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl NetNs {
    /// Opens the calling thread's namespace.
    pub fn current() -> Result<Self, NetNsError> {
        Self::from_path(Path::new("/proc/thread-self/ns/net"))
    }

    /// Opens what `ip netns add NAME` made.
    pub fn from_name(name: &str) -> Result<Self, NetNsError> {
        Self::from_path(&Self::named_path(name)?)
    }

    /// Opens a path, which must be a network namespace.
    pub fn from_path(path: &Path) -> Result<Self, NetNsError> {
        let open = |source| NetNsError::Open {
            path: path.to_owned(),
            source,
        };
        // Not blocking: somebody may name a FIFO.
        let file = File::options()
            .read(true)
            .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
            .open(path)
            .map_err(open)?;
        let kind = fstatfs(&file)
            .map_err(|errno| open(errno.into()))?
            .filesystem_type();
        let metadata = file.metadata().map_err(open)?;
        let namespace = Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            fd: Arc::new(file.into()),
        };
        if kind != NSFS_MAGIC || !namespace.is_network() {
            return Err(NetNsError::NotNamespace {
                path: path.to_owned(),
            });
        }
        Ok(namespace)
    }

    /// Opens a process's namespace.
    pub fn from_pid(pid: u32) -> Result<Self, NetNsError> {
        let opened = Self::from_path(&Self::pid_path(pid));
        if let Err(NetNsError::Open { source, .. }) = &opened
            && source.kind() == io::ErrorKind::NotFound
        {
            return Err(NetNsError::NoProcess { pid });
        }
        opened
    }

    /// Finds a namespace again by its number, or one of Docker's by its path alone: at `path`, else by a name under `/run/netns`, else by any process in it.
    pub(super) fn find(inode: u64, path: &Path) -> Option<Self> {
        if inode == UNNUMBERED {
            return Self::from_path(path).ok().filter(|_| path.is_absolute());
        }
        let named = files_in(Path::new(NAMED));
        let processes = files_in(Path::new("/proc")).map(|process| process.join("ns/net"));
        let candidates = std::iter::once(path.to_owned())
            .chain(named)
            .chain(processes);
        let mut matching =
            candidates.filter(|path| fs::metadata(path).is_ok_and(|file| file.ino() == inode));
        matching.find_map(|path| {
            Self::from_path(&path)
                .ok()
                .filter(|found| found.inode == inode)
        })
    }

    /// Where `ip netns` keeps `name`.
    pub fn named_path(name: &str) -> Result<PathBuf, NetNsError> {
        if name.is_empty() || name == "." || name == ".." || name.contains(['/', '\0']) {
            return Err(NetNsError::BadName {
                name: name.to_owned(),
            });
        }
        Ok(Path::new(NAMED).join(name))
    }

    /// Where the kernel shows a process's namespace.
    pub fn pid_path(pid: u32) -> PathBuf {
        PathBuf::from(format!("/proc/{pid}/ns/net"))
    }

    /// The number that tells it from other living namespaces: `ls -i`, and `net:[N]` in `/proc/PID/ns`.
    pub fn inode(&self) -> u64 {
        self.inode
    }

    /// Moves the calling thread into it; only for threads made for that.
    pub(super) fn enter(&self) -> Result<(), NetNsError> {
        nix::sched::setns(self.fd.as_fd(), CloneFlags::CLONE_NEWNET).map_err(|errno| {
            NetNsError::Enter {
                source: errno.into(),
            }
        })
    }

    /// Other kinds of namespace lie in the same file system; the kernel lets only the right kind be entered.
    fn is_network(&self) -> bool {
        thread::scope(|scope| {
            thread::Builder::new()
                .spawn_scoped(scope, || {
                    match nix::sched::setns(self.fd.as_fd(), CloneFlags::CLONE_NEWNET) {
                        // Not allowed to enter is another complaint, made by who enters.
                        Ok(()) | Err(nix::errno::Errno::EPERM) => true,
                        Err(_) => false,
                    }
                })
                .ok()
                .and_then(|probe| probe.join().ok())
                .unwrap_or(false)
        })
    }

    /// Does `work` on a thread inside this namespace.
    pub(super) async fn run<T, E, F, Fut>(&self, work: F) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<NetNsError> + Send + 'static,
        F: FnOnce(Netlink) -> Fut + Send + 'static,
        Fut: Future<Output = Result<T, E>>,
    {
        on_thread([self.clone()], |[netlink]| work(netlink)).await
    }
}

/// Does `work` on one thread with a netlink socket in each of two namespaces.
pub(super) async fn run_between<T, E, F, Fut>(host: &NetNs, guest: &NetNs, work: F) -> Result<T, E>
where
    T: Send + 'static,
    E: From<NetNsError> + Send + 'static,
    F: FnOnce(Netlink, Netlink) -> Fut + Send + 'static,
    Fut: Future<Output = Result<T, E>>,
{
    on_thread([host.clone(), guest.clone()], |[host, guest]| {
        work(host, guest)
    })
    .await
}

fn files_in(folder: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    let entries = fs::read_dir(folder).into_iter().flatten();
    entries.filter_map(|entry| Some(entry.ok()?.path()))
}

async fn on_thread<const N: usize, T, E, F, Fut>(namespaces: [NetNs; N], work: F) -> Result<T, E>
where
    T: Send + 'static,
    E: From<NetNsError> + Send + 'static,
    F: FnOnce([Netlink; N]) -> Fut + Send + 'static,
    Fut: Future<Output = Result<T, E>>,
{
    let (sender, answer) = oneshot::channel();
    thread::Builder::new()
        .name("weft-netns".to_owned())
        .spawn(move || {
            // The caller may have gone; the work is done all the same.
            let _ = sender.send(work_in(namespaces, work));
        })
        .map_err(|source| NetNsError::Thread { source })?;
    answer.await.map_err(|_| NetNsError::BrokeOff)?
}

fn work_in<const N: usize, T, E, F, Fut>(namespaces: [NetNs; N], work: F) -> Result<T, E>
where
    E: From<NetNsError>,
    F: FnOnce([Netlink; N]) -> Fut,
    Fut: Future<Output = Result<T, E>>,
{
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build()
        .map_err(|source| NetNsError::Thread { source })?;
    runtime.block_on(async {
        let mut sockets = Vec::with_capacity(N);
        for namespace in namespaces {
            sockets.push(Netlink::open(namespace)?);
        }
        let Ok(sockets) = sockets.try_into() else {
            return Err(NetNsError::BrokeOff.into());
        };
        work(sockets).await
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_leaves_the_folder_is_refused() {
        for name in ["", ".", "..", "a/b", "../x"] {
            assert!(
                matches!(NetNs::from_name(name), Err(NetNsError::BadName { .. })),
                "{name}"
            );
        }
        assert_eq!(NetNs::named_path("c1").unwrap(), Path::new("/run/netns/c1"));
    }

    #[test]
    fn only_a_network_namespace_opens() {
        let ours = NetNs::current().unwrap();
        assert_eq!(
            ours,
            NetNs::from_path(Path::new("/proc/self/ns/net")).unwrap()
        );
        assert!(ours.inode() > 0);

        for path in ["/dev/null", "/proc/self/ns/mnt", "/"] {
            let refused = NetNs::from_path(Path::new(path));
            assert!(
                matches!(refused, Err(NetNsError::NotNamespace { .. })),
                "{path}: {refused:?}"
            );
        }
        assert!(matches!(
            NetNs::from_path(Path::new("/nowhere")),
            Err(NetNsError::Open { .. })
        ));
    }

    #[test]
    fn a_process_that_is_not_there_is_named() {
        // Above the largest pid that Linux gives out.
        let error = NetNs::from_pid(4_194_305).unwrap_err();
        assert_eq!(error.to_string(), "no process 4194305");
        assert!(error.is_request_fault());
    }
}
