//! What the Docker API proxy does with a request, decided from its bytes: pass, rewrite, hold, or refuse.
//!
//! ```text
//!  bytes ─► head ─► route ─┬─ Pass ────────────────────────────► the same bytes
//!                          ├─ Create, Exec ─► object ─► create ─► another body
//!                          └─ Start, Restart ────────────────────► the same bytes; the answer waits for the network
//! ```
//!
//! No sockets and no clock: `driver::proxy` moves the bytes. JSON that is not ours to change is passed on as the very
//! bytes that came.

pub mod body;
pub mod create;
pub mod exec;
pub mod head;
pub mod hosts;
pub mod inspect;
pub mod naming;
pub mod object;
pub mod route;
pub mod wish;

/// The wait program as a container sees it.
pub const WAIT_PROGRAM: &str = "/w/w";
/// The folder that holds it there.
pub const WAIT_FOLDER: &str = "/w";

/// Why a request is not passed on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Not a request that this proxy and Docker are sure to read in the same way.
    #[error("weft's proxy does not pass this request on: {0}")]
    Head(#[from] head::HeadError),
    /// The length of its body is in doubt.
    #[error("weft's proxy does not pass this request on: {0}")]
    Body(#[from] body::BodyError),
    /// Its JSON is in doubt.
    #[error("weft's proxy does not pass this request on: {0}")]
    Object(#[from] object::ObjectError),
    /// The body that has to be read is too long.
    #[error("weft's proxy does not pass this request on: its body is over {0} bytes")]
    TooLong(usize),
    /// The client broke off in the middle of the body that has to be read.
    #[error("weft's proxy does not pass this request on: its body is not whole")]
    Short,
    /// `WEAVE_CIDR` is no list of addresses.
    #[error("WEAVE_CIDR: {0}")]
    Wish(String),
    /// The wait program is not where containers mount it from.
    #[error("weft cannot write the wait program: {0}")]
    NoProgram(String),
}

impl Refusal {
    /// The status that says so.
    #[must_use]
    pub fn status(&self) -> u16 {
        match self {
            Self::Head(head::HeadError::TooLong | head::HeadError::TooManyLines) => 431,
            Self::TooLong(_) => 413,
            Self::NoProgram(_) => 500,
            Self::Head(_) | Self::Body(_) | Self::Object(_) | Self::Short | Self::Wish(_) => 400,
        }
    }
}
