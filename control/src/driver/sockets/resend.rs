//! Asks the kernel to send again soon what a bad line has lost of a link.
//!
//! ```text
//!  pauses of TCP, after each loss of the same segment   0.2 s  0.4  0.8  1.6  3.2  6.4 … 120
//!  a link, since Linux 6.15                             0.2 s  0.4  0.8  1    1    1
//!  a link with little unacknowledged, on any            0.2 s  0.2  0.2  0.2  0.2  0.2  then doubled
//! ```
//!
//! Doubling protects lines that are full; what is said on a link is short and seldom.

use std::os::fd::AsFd;

use nix::libc::{IPPROTO_TCP, TCP_THIN_LINEAR_TIMEOUTS, c_int};
use nix::sys::socket::setsockopt;
use nix::{getsockopt_impl, setsockopt_impl, sockopt_impl};

use crate::config::LINK_RESENT_WITHIN;

/// `include/uapi/linux/tcp.h`, since Linux 6.15.
const TCP_RTO_MAX_MS: c_int = 44;

sockopt_impl!(
    /// Pauses of a stream with little under way do not double (`tcp(7)`, RFC 6298 §5.5 otherwise).
    ThinLinearTimeouts, Both, IPPROTO_TCP, TCP_THIN_LINEAR_TIMEOUTS, bool
);
sockopt_impl!(
    /// The longest pause, in milliseconds.
    LongestPause, Both, IPPROTO_TCP, TCP_RTO_MAX_MS, c_int
);

/// Bounds the pauses of a connection; as far as the kernel knows how: a link works without.
pub(super) fn soon(connection: &impl AsFd) {
    let longest = c_int::try_from(LINK_RESENT_WITHIN.as_millis()).unwrap_or(c_int::MAX);
    let thin = setsockopt(connection, ThinLinearTimeouts, &true);
    if let Err(error) = thin.and(setsockopt(connection, LongestPause, &longest)) {
        tracing::debug!(%error, "the kernel bounds no pause of TCP");
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use nix::errno::Errno;
    use nix::sys::socket::getsockopt;

    use super::*;

    #[test]
    fn the_kernel_knows_what_is_asked_of_it() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        assert_eq!(getsockopt(&stream, ThinLinearTimeouts), Ok(false));
        soon(&stream);
        assert_eq!(getsockopt(&stream, ThinLinearTimeouts), Ok(true));
        match getsockopt(&stream, LongestPause) {
            Ok(longest) => assert_eq!(longest, 1000),
            Err(error) => assert_eq!(error, Errno::ENOPROTOOPT),
        }
    }
}
