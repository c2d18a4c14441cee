//! Why a link ended, in the words of `weft status connections`.

use crate::config::LINK_DEAD_AFTER;
use crate::link::handshake::HelloError;
use crate::link::message::{ByeReason, Refusal};
use crate::link::noise::NoiseError;
use crate::link::preamble::PreambleError;

/// Why a link ended; the words stand in `weft status connections`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum LinkError {
    #[error("peer {0}")]
    Preamble(#[source] PreambleError),
    #[error("{}", refusal_words(*.0))]
    RefusedByPeer(Refusal),
    #[error("{}", our_refusal_words(*.0))]
    RefusedByUs(Refusal),
    #[error("handshake does not verify: another network, or somebody on the way interferes")]
    Handshake,
    #[error("peer {0}")]
    Hello(#[source] HelloError),
    #[error("peer sent what is no message")]
    Frame,
    #[error("a record does not verify: damaged or forged on the way")]
    Record,
    #[error("peer did not finish the handshake in time")]
    HandshakeTimeout,
    #[error("no sign of life for {} s", LINK_DEAD_AFTER.as_secs())]
    Silent,
    #[error("{}", bye_words(*.0))]
    ByPeer(ByeReason),
    #[error("{}", bye_words(*.0))]
    ByUs(ByeReason),
    #[error("connection closed")]
    Ended,
    #[error("connection broken")]
    Broken,
    #[error("peer takes nothing in")]
    QueueFull,
    #[error("replaced after 2^48 records")]
    Worn,
}

fn refusal_words(refusal: Refusal) -> &'static str {
    match refusal {
        Refusal::OtherNetwork => "refused (unverified): another --network",
        Refusal::WrongSecret => "refused (unverified): wrong password",
        Refusal::Busy => "refused (unverified): peer is busy",
        Refusal::TooManyFailures => "refused (unverified): too many failed attempts",
        Refusal::Malformed => "refused (unverified): peer does not understand us",
        Refusal::Unknown(_) => "refused (unverified)",
    }
}

fn our_refusal_words(refusal: Refusal) -> &'static str {
    match refusal {
        Refusal::OtherNetwork => "peer belongs to another --network",
        Refusal::WrongSecret => "peer has the wrong password",
        Refusal::Busy => "too many handshakes at once",
        Refusal::TooManyFailures => "too many failed attempts from there",
        Refusal::Malformed | Refusal::Unknown(_) => "peer is not understood",
    }
}

fn bye_words(reason: ByeReason) -> &'static str {
    match reason {
        ByeReason::Stopping => "peer stopped",
        ByeReason::Duplicate => "another link to the same peer is kept",
        ByeReason::SelfConnection => "cannot connect to ourself",
        ByeReason::ClonedIdentity => {
            "two hosts run with this identity key; run `weft reset` on the copy"
        }
        ByeReason::PeersMax => "too many peers",
        ByeReason::LabelCollision => {
            "another peer has the same label; run `weft reset` on one of them"
        }
        ByeReason::Enough => "peer has links enough; others lead to it",
        ByeReason::OtherRing => {
            "addresses there come from another ring or range: launch both with the same --ipalloc-range and seeds, or run `weft reset` on the hosts of one network"
        }
        ByeReason::SecretRemoved => "the password of this link is no longer valid",
        ByeReason::Unknown(_) => "closed by peer",
    }
}

impl LinkError {
    /// True if only a person can mend it, so that trying again soon is useless.
    pub(crate) fn is_refusal(self) -> bool {
        match self {
            Self::Preamble(_) | Self::Hello(_) | Self::Handshake => true,
            Self::RefusedByPeer(refusal) | Self::RefusedByUs(refusal) => refusal != Refusal::Busy,
            Self::ByPeer(reason) | Self::ByUs(reason) => {
                matches!(
                    reason,
                    ByeReason::ClonedIdentity
                        | ByeReason::PeersMax
                        | ByeReason::LabelCollision
                        | ByeReason::OtherRing
                )
            }
            Self::Frame
            | Self::Record
            | Self::HandshakeTimeout
            | Self::Silent
            | Self::Ended
            | Self::Broken
            | Self::QueueFull
            | Self::Worn => false,
        }
    }

    /// True for what happens in a healthy network and needs no line in the log.
    pub(crate) fn is_quiet(self) -> bool {
        matches!(self, Self::ByPeer(reason) | Self::ByUs(reason)
            if matches!(reason, ByeReason::Duplicate | ByeReason::SelfConnection))
    }

    /// True for what is counted against who dialled us, and shown in status.
    pub(crate) fn counts_against_source(self) -> bool {
        match self {
            Self::RefusedByUs(refusal) => {
                matches!(refusal, Refusal::WrongSecret | Refusal::OtherNetwork)
            }
            Self::Preamble(error) => error != PreambleError::NotWeft,
            Self::Hello(_) | Self::Frame | Self::Record | Self::Handshake => true,
            Self::RefusedByPeer(_)
            | Self::HandshakeTimeout
            | Self::Silent
            | Self::ByPeer(_)
            | Self::ByUs(_)
            | Self::Ended
            | Self::Broken
            | Self::QueueFull
            | Self::Worn => false,
        }
    }
}

impl From<NoiseError> for LinkError {
    fn from(_: NoiseError) -> Self {
        Self::Handshake
    }
}
