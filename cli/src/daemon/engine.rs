//! Turns settings into what the engine is started with.

use std::thread;
use std::time::Duration;

use weft_control::config::RekeyConfig;
use weft_control::driver::bridge::TAP;
use weft_engine::config::{EngineConfig, IoChoice, LANES_MAX};
use weft_engine::session::CipherSuite;

use crate::args::{Cipher, Io};
use crate::settings::Settings;

/// Returns the engine's configuration; `underlay_mtu` is the largest of the host's interfaces.
pub(super) fn config(settings: &Settings, underlay_mtu: u16) -> EngineConfig {
    EngineConfig {
        tap_name: TAP.to_owned(),
        port: settings.port,
        host: settings.host,
        workers: settings.workers.unwrap_or_else(one_for_each_core),
        io: match settings.io {
            Io::Auto => IoChoice::Auto,
            Io::Uring => IoChoice::Uring,
            Io::Epoll => IoChoice::Epoll,
        },
        mtu: settings.mtu,
        underlay_mtu,
    }
}

/// Returns the one suite to offer, unless any will do.
pub(super) fn pinned(cipher: Cipher) -> Option<CipherSuite> {
    match cipher {
        Cipher::Auto => None,
        Cipher::ChaCha20Poly1305 => Some(CipherSuite::ChaCha20Poly1305),
        Cipher::Aes256Gcm => Some(CipherSuite::Aes256Gcm),
    }
}

/// Returns a rekey pace for tests: an epoch every `interval_ms`, and as many handshakes as that takes.
pub(super) fn accelerated(interval_ms: u64) -> RekeyConfig {
    RekeyConfig {
        after: Duration::from_millis(interval_ms.max(1)),
        starts_per_second_max: u32::MAX,
    }
}

fn one_for_each_core() -> u16 {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    u16::try_from(cores.min(LANES_MAX)).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_a_worker_for_each_core_and_no_more_than_lanes() {
        let workers = usize::from(one_for_each_core());

        assert!((1..=LANES_MAX).contains(&workers), "{workers}");
    }
}
