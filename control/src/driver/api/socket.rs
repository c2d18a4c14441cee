//! A unix socket that belongs to one daemon: never taken from a living one, and gone with its owner.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener as StdListener, UnixStream as StdStream};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, listen, socket,
};
use tokio::net::{UnixListener, UnixStream};

/// Who may use it: the owner and the group.
const MODE: u32 = 0o660;
/// Clients that wait to be accepted: as many as Docker's own socket has. One more is refused at once, which `docker`
/// takes for a failure; what a socket serves at a time is its owner's limit.
const BACKLOG: Backlog = Backlog::MAXCONN;

/// Why the API's socket was not bound.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Another daemon serves it.
    #[error("weft is running already: it answers at {}", .0.display())]
    InUse(PathBuf),
    /// A file that is no socket.
    #[error("{} is there and is no socket: remove it or choose another --run-dir", .0.display())]
    NotASocket(PathBuf),
    /// The system refused.
    #[error("{action} {}", path.display())]
    System {
        /// What was tried, as a verb.
        action: &'static str,
        /// With what.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// A listening socket and its file.
#[derive(Debug)]
pub(in crate::driver) struct OwnedSocket {
    listener: UnixListener,
    path: PathBuf,
    inode: u64,
}

impl OwnedSocket {
    pub(in crate::driver) fn bind(path: &Path) -> Result<Self, SocketError> {
        let failed = |action| {
            move |source| SocketError::System {
                action,
                path: path.to_owned(),
                source,
            }
        };
        // Two daemons starting at once must not both find the file stale.
        let folder = path
            .parent()
            .filter(|folder| !folder.as_os_str().is_empty())
            .unwrap_or(Path::new("."));
        let folder = File::open(folder).map_err(failed("open the folder of"))?;
        let _turn = Flock::lock(folder, FlockArg::LockExclusive)
            .map_err(|(_, errno)| failed("lock the folder of")(errno.into()))?;
        remove_stale(path)?;
        let listener = listen_at(path).map_err(failed("listen at"))?;
        let inode = fs::symlink_metadata(path).map_err(failed("look at"))?.ino();
        let listener = UnixListener::from_std(listener).map_err(failed("listen at"))?;
        Ok(Self {
            listener,
            path: path.to_owned(),
            inode,
        })
    }

    pub(in crate::driver) async fn accept(&self) -> io::Result<UnixStream> {
        let (stream, _) = self.listener.accept().await?;
        Ok(stream)
    }
}

impl Drop for OwnedSocket {
    fn drop(&mut self) {
        // Somebody may have put another in its place.
        if fs::symlink_metadata(&self.path).is_ok_and(|file| file.ino() == self.inode) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// The mode is set between bind and listen, so that nobody else gets in meanwhile.
fn listen_at(path: &Path) -> io::Result<StdListener> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    bind(socket.as_raw_fd(), &UnixAddr::new(path)?)?;
    let ready = fs::set_permissions(path, fs::Permissions::from_mode(MODE))
        .and_then(|()| Ok(listen(&socket, BACKLOG)?));
    if let Err(error) = ready {
        let _ = fs::remove_file(path);
        return Err(error);
    }
    Ok(StdListener::from(socket))
}

fn remove_stale(path: &Path) -> Result<(), SocketError> {
    let failed = |action, source| SocketError::System {
        action,
        path: path.to_owned(),
        source,
    };
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed("look at", error)),
        Ok(file) if !file.file_type().is_socket() => {
            return Err(SocketError::NotASocket(path.to_owned()));
        }
        Ok(_) => {}
    }
    match StdStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(|source| failed("remove stale", source))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        // It answers, or there is no telling.
        Ok(_) => Err(SocketError::InUse(path.to_owned())),
        Err(error) => Err(failed("try", error)),
    }
}

#[cfg(test)]
mod tests {
    use nix::sys::socket::connect;

    use super::*;

    /// More than a busy script starts at once.
    const BURST: usize = 500;

    #[tokio::test]
    async fn a_burst_of_clients_waits_and_none_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.sock");
        let _socket = OwnedSocket::bind(&path).unwrap();
        let address = UnixAddr::new(&path).unwrap();
        // As docker connects: it does not wait for a place.
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let clients: Vec<_> = (0..BURST)
            .map(|_| {
                let client = socket(AddressFamily::Unix, SockType::Stream, flags, None).unwrap();
                connect(client.as_raw_fd(), &address).map(|()| client)
            })
            .collect();
        assert_eq!(clients.iter().filter(|client| client.is_err()).count(), 0);
    }
}
