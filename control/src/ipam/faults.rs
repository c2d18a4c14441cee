//! Faults that can be planted, to show that the simulator would find them.
//!
//! All off in every program: only tests can switch one on.

/// Which faults are planted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Faults {
    /// Equal versions are decided by counts of free addresses.
    pub(crate) tie_by_free: bool,
    /// What waits for a write goes out before it.
    pub(crate) answer_before_write: bool,
    /// A restarted voter has forgotten what it promised.
    pub(crate) forget_promise: bool,
    /// A voter accepts what it has promised not to.
    pub(crate) double_vote: bool,
    /// A removal takes addresses over without asking anybody, and nothing holds the removed one back.
    pub(crate) remove_without_fence: bool,
    /// The address of a container that died is free at once.
    pub(crate) reuse_in_grace: bool,
}
