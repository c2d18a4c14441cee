//! Where random bytes come from: the kernel, or a seed that makes a run repeatable.

use std::time::Duration;

use rand::rngs::{StdRng, SysRng};
use rand::{Rng as _, SeedableRng as _, TryRng as _};

/// A source of random bytes, handed to a node when it is made.
///
/// Real nodes use [`Randomness::system`]: the kernel's generator notices when a virtual machine was cloned, a
/// generator of our own would not. Simulations use [`Randomness::seeded`].
#[derive(Debug)]
pub struct Randomness(Source);

#[derive(Debug)]
enum Source {
    System,
    Seeded(Box<StdRng>),
}

impl Randomness {
    /// The kernel's generator.
    #[must_use]
    pub fn system() -> Self {
        Self(Source::System)
    }

    /// The same bytes for the same seed; for tests and simulations only.
    #[must_use]
    pub fn seeded(seed: u64) -> Self {
        Self(Source::Seeded(Box::new(StdRng::seed_from_u64(seed))))
    }

    /// A source of its own for a part of the node.
    #[must_use]
    pub fn fork(&mut self) -> Self {
        match &mut self.0 {
            Source::System => Self::system(),
            Source::Seeded(rng) => Self::seeded(rng.next_u64()),
        }
    }

    /// Fills `bytes`.
    pub fn fill(&mut self, bytes: &mut [u8]) {
        match &mut self.0 {
            Source::System => {
                SysRng
                    .try_fill_bytes(bytes)
                    .expect("the kernel's random generator works once the host is up");
            }
            Source::Seeded(rng) => rng.fill_bytes(bytes),
        }
    }

    /// Random bytes.
    pub fn bytes<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        self.fill(&mut bytes);
        bytes
    }

    /// A random number.
    pub fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.bytes())
    }

    /// A random number.
    pub fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.bytes())
    }

    /// `base` give or take up to `percent` of it.
    pub fn around(&mut self, base: Duration, percent: u32) -> Duration {
        let span = base.saturating_mul(percent) / 100;
        let share = f64::from(self.u32()) / f64::from(u32::MAX);
        base.saturating_sub(span) + span.mul_f64(2.0 * share)
    }
}
