//! Runs many machines on a virtual clock and does everything to them that happens in the field.
//!
//! ```text
//!  plan (seed) ─► world: hosts, their disks, the network between them ─► what users and the wire see ─► checker
//! ```
//!
//! One number decides everything; the same number gives the same run. The checker is code of its own and sees only
//! answers, writes on interfaces, and at the end what each host says of the ring.

mod checker;
mod host;
mod plan;
mod tests;
mod world;

pub(crate) use tests::first_instant;
