//! Why Docker does not answer, in words that do not depend on the library that asks it.

use std::error::Error;
use std::fmt;
use std::io;

use bollard::errors::Error as BollardError;

use super::ANSWER_TIMEOUT_S;

/// Why there was no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Silence {
    /// No socket.
    Absent,
    /// A socket that nobody has open any more.
    Deserted,
    /// The socket is not for us.
    Denied,
    /// Nothing came in time.
    Late,
    /// What else was in the way: the innermost cause, as it was told.
    Other(String),
}

impl Silence {
    /// Looks for what the library's error comes from.
    pub(super) fn of(error: &BollardError) -> Self {
        if matches!(error, BollardError::SocketNotFoundError(_)) {
            return Self::Absent;
        }
        if matches!(error, BollardError::RequestTimeoutError) {
            return Self::Late;
        }
        let mut cause: &(dyn Error + 'static) = error;
        loop {
            let of_system = cause.downcast_ref().and_then(Self::of_system);
            if let Some(silence) = of_system {
                return silence;
            }
            match cause.source() {
                Some(inner) => cause = inner,
                None => return Self::Other(cause.to_string()),
            }
        }
    }

    /// What it means that a socket cannot be had, if that means something of whom it belongs to.
    pub(super) fn of_system(error: &io::Error) -> Option<Self> {
        let meant = [
            (io::ErrorKind::NotFound, Self::Absent),
            (io::ErrorKind::ConnectionRefused, Self::Deserted),
            (io::ErrorKind::PermissionDenied, Self::Denied),
        ];
        let mut meant = meant.into_iter().filter(|(kind, _)| *kind == error.kind());
        meant.next().map(|(_, silence)| silence)
    }
}

impl fmt::Display for Silence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent => f.write_str("its socket is not there"),
            Self::Deserted => f.write_str("nobody listens there"),
            Self::Denied => f.write_str("permission denied"),
            Self::Late => write!(f, "nothing within {ANSWER_TIMEOUT_S} s"),
            Self::Other(cause) => f.write_str(cause),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::super::{Docker, DockerError};
    use super::*;

    async fn found_at(socket: &std::path::Path) -> Silence {
        let docker = Docker::new(socket.to_str()).unwrap();
        let error = docker.find("c1").await.unwrap_err();
        let DockerError::Unreachable { silence, .. } = error else {
            panic!("{error}");
        };
        silence
    }

    #[tokio::test]
    async fn what_is_in_the_way_is_told_without_the_words_of_a_library() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("docker.sock");
        assert_eq!(found_at(&socket).await, Silence::Absent);
        let docker = Docker::new(socket.to_str()).unwrap();
        assert!(docker.knock().await.is_err());

        let listener = UnixListener::bind(&socket).unwrap();
        assert!(docker.knock().await.is_ok());
        let (_knock, _) = listener.accept().unwrap();
        let hanging_up = std::thread::spawn(move || drop(listener.accept()));
        let said = found_at(&socket).await.to_string();
        assert!(
            !said.contains("client error") && !said.contains("Hyper"),
            "{said}"
        );
        hanging_up.join().unwrap();

        // The socket stays when who listened is gone.
        assert_eq!(found_at(&socket).await, Silence::Deserted);
        let shut = docker.knock().await.unwrap_err().to_string();
        assert!(
            shut.ends_with("does not answer (nobody listens there)"),
            "{shut}"
        );
    }
}
