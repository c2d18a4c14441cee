//! Where the proxy's clients come in: unix sockets, and TCP for those who show a certificate.
//!
//! ```text
//!  unix:///path ─► OwnedSocket ─────────────────────────────┐
//!  tcp://IP:port ─► TLS, the client's certificate checked ──┴─► relay
//! ```
//!
//! Whoever gets in can do everything on this host, so a port is never open without a check of both sides. Certificates
//! are read at start.

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, Interest, ReadBuf, ReadHalf, WriteHalf, split};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::{self, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::{VerifierBuilderError, WebPkiClientVerifier};
use tokio_rustls::rustls::{self, RootCertStore, ServerConfig};
use tokio_rustls::server::TlsStream;

use super::stream::{Reader, Side, Watched, Writer};
use crate::driver::api::{OwnedSocket, SocketError};

/// An address for clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListenAddress {
    /// `unix:///path`, or the path.
    Unix(PathBuf),
    /// `tcp://IP:port`, or without `tcp://`.
    Tcp(SocketAddr),
}

/// Why there is no such address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("give unix:///path/to/socket or tcp://IP:port")]
pub struct BadAddress;

impl ListenAddress {
    /// Reads one as typed.
    ///
    /// # Errors
    /// [`BadAddress`].
    pub fn parse(text: &str) -> Result<Self, BadAddress> {
        let path = text.strip_prefix("unix://").unwrap_or(text);
        if Path::new(path).is_absolute() {
            return Ok(Self::Unix(path.into()));
        }
        let address = text.strip_prefix("tcp://").unwrap_or(text);
        address.parse().map(Self::Tcp).map_err(|_| BadAddress)
    }

    /// Whether it is the socket at `path`, by whatever folders and links both are reached.
    #[must_use]
    pub fn is_at(&self, path: &Path) -> bool {
        self.path()
            .is_some_and(|own| own == path || resolved(own) == resolved(path))
    }

    pub(super) fn path(&self) -> Option<&Path> {
        match self {
            Self::Unix(path) => Some(path),
            Self::Tcp(_) => None,
        }
    }
}

/// The path without links; a socket that is not there yet has a folder that is.
fn resolved(path: &Path) -> PathBuf {
    let by_folder = || Some(path.parent()?.canonicalize().ok()?.join(path.file_name()?));
    let found = path.canonicalize().ok().or_else(by_folder);
    found.unwrap_or_else(|| path.to_owned())
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::Tcp(address) => write!(f, "tcp://{address}"),
        }
    }
}

/// The files of TLS, as Docker has them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// Who signs clients' certificates.
    pub ca: PathBuf,
    /// Our certificate, with those between it and its root.
    pub cert: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

/// Why there is no TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file that cannot be used.
    #[error("read {}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why not.
        #[source]
        source: pem::Error,
    },
    /// The authority's certificates.
    #[error("--tlscacert {} names nobody who could sign a client's certificate", .0.display())]
    NoAuthority(PathBuf),
    /// The authority's certificates.
    #[error("check clients by their certificates")]
    Verifier(#[from] VerifierBuilderError),
    /// Certificate and key.
    #[error("use the certificate and its key")]
    Unfit(#[from] rustls::Error),
}

/// Makes what speaks TLS.
pub(super) fn acceptor(files: &TlsFiles) -> Result<TlsAcceptor, TlsError> {
    let unread = |path: &Path| {
        let path = path.to_owned();
        move |source| TlsError::File { path, source }
    };
    let certificates = |path: &Path| -> Result<Vec<CertificateDer<'static>>, TlsError> {
        let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect);
        read.map_err(unread(path))
    };
    let provider = Arc::new(ring::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(certificates(&files.ca)?);
    if roots.is_empty() {
        return Err(TlsError::NoAuthority(files.ca.clone()));
    }
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(unread(&files.key))?;
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(verifier.build()?)
        .with_single_cert(certificates(&files.cert)?, key)?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// Somebody who waits for clients.
#[derive(Debug)]
pub(super) enum Listener {
    Unix(OwnedSocket),
    Tcp(TcpListener),
}

/// A client as it comes in.
#[derive(Debug)]
pub(super) enum Incoming {
    Unix(UnixStream),
    Tcp(TcpStream),
}

/// Why an address is not to be had.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// A unix socket.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// A port.
    #[error("listen at {address} for the Docker proxy")]
    Tcp {
        /// Where.
        address: SocketAddr,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

impl Listener {
    /// Needs a tokio runtime.
    pub(super) fn bind(address: &ListenAddress) -> Result<Self, ListenError> {
        match address {
            ListenAddress::Unix(path) => Ok(Self::Unix(OwnedSocket::bind(path)?)),
            ListenAddress::Tcp(address) => {
                let failed = |source| ListenError::Tcp {
                    address: *address,
                    source,
                };
                let listener = StdListener::bind(address).map_err(failed)?;
                listener.set_nonblocking(true).map_err(failed)?;
                let listener = TcpListener::from_std(listener).map_err(failed)?;
                Ok(Self::Tcp(listener))
            }
        }
    }

    pub(super) async fn accept(&self) -> io::Result<Incoming> {
        match self {
            Self::Unix(socket) => socket.accept().await.map(Incoming::Unix),
            Self::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                Ok(Incoming::Tcp(stream))
            }
        }
    }
}

/// Both halves of a client that is on this host.
pub(super) fn local_side(stream: UnixStream) -> Side<OwnedReadHalf, OwnedWriteHalf> {
    let (reader, writer) = stream.into_split();
    Side::new(reader, writer)
}

/// The half of a TLS client that is read.
#[derive(Debug)]
pub(super) struct TlsReader {
    half: ReadHalf<TlsStream<TcpStream>>,
    /// The connection once more, to see its end.
    socket: OwnedFd,
}

/// Both halves of a client whose certificate was good.
pub(super) async fn tls_side(
    stream: TcpStream,
    acceptor: &TlsAcceptor,
) -> io::Result<Side<TlsReader, WriteHalf<TlsStream<TcpStream>>>> {
    // Answers are small and waited for.
    stream.set_nodelay(true)?;
    let socket = stream.as_fd().try_clone_to_owned()?;
    let (half, writer) = split(acceptor.accept(stream).await?);
    Ok(Side::new(TlsReader { half, socket }, writer))
}

impl AsyncRead for TlsReader {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.half).poll_read(context, buffer)
    }
}

impl Reader for TlsReader {
    fn watched(&self) -> io::Result<Watched> {
        // The end of a half is said within TLS; the end of the connection's half is that of the client.
        Watched::new(self.socket.try_clone()?, Interest::READABLE)
    }

    fn local(&self) -> Option<&UnixStream> {
        None
    }
}

impl Writer for WriteHalf<TlsStream<TcpStream>> {
    fn local(&self) -> Option<&UnixStream> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_those_of_the_docker_client() {
        let parse = |text: &str| ListenAddress::parse(text).map(|address| address.to_string());
        assert_eq!(parse("unix:///a/b.sock").unwrap(), "unix:///a/b.sock");
        assert_eq!(parse("/a/b.sock").unwrap(), "unix:///a/b.sock");
        assert_eq!(parse("tcp://0.0.0.0:12375").unwrap(), "tcp://0.0.0.0:12375");
        assert_eq!(parse("[::1]:1").unwrap(), "tcp://[::1]:1");
        for text in [
            "unix://a/b",
            "a.sock",
            "tcp://h:1",
            "tcp://192.0.2.1",
            "fd://",
            "",
        ] {
            assert_eq!(parse(text), Err(BadAddress), "{text}");
        }
    }

    #[test]
    fn a_socket_is_the_same_by_another_path() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        std::fs::create_dir(path("run")).unwrap();
        std::os::unix::fs::symlink(path("run"), path("var")).unwrap();
        let own = ListenAddress::Unix(path("run/a.sock"));
        assert!(own.is_at(&path("run/a.sock")));
        // Not there yet.
        assert!(own.is_at(&path("var/a.sock")));
        std::fs::write(path("run/a.sock"), "").unwrap();
        std::os::unix::fs::symlink(path("run/a.sock"), path("b.sock")).unwrap();
        assert!(own.is_at(&path("b.sock")));
        for other in [path("run/c.sock"), path("a.sock"), path("none/a.sock")] {
            assert!(!own.is_at(&other), "{other:?}");
        }
        assert!(
            !ListenAddress::parse("tcp://0.0.0.0:1")
                .unwrap()
                .is_at(Path::new("/"))
        );
    }

    #[test]
    fn what_is_no_certificate_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        std::fs::write(path("empty.pem"), "nothing\n").unwrap();
        let files = |ca: &str| TlsFiles {
            ca: path(ca),
            cert: path("cert.pem"),
            key: path("key.pem"),
        };
        let said = |ca: &str| acceptor(&files(ca)).err().unwrap().to_string();
        assert!(said("no.pem").starts_with("read "), "{}", said("no.pem"));
        assert!(said("empty.pem").contains("names nobody"));
    }
}
