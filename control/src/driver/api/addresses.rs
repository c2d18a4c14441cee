//! The calls about addresses: wait for a ring, remove a peer, leave.

use axum::extract::{Request as HttpRequest, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use tokio::sync::mpsc;

use super::{Empty, Failure, Requests, answer, ask, read};
use crate::api::{RemoveReply, RemoveRequest, ResetRequest};
use crate::driver::request::Request;
use crate::ipam::request::{Failure as Refusal, Reply, Request as AddressRequest};
use crate::peer::PeerId;

/// Waits until there is a ring, as long as the client does.
pub(super) async fn prime(State(to): Requests) -> Response {
    loop {
        match addresses(&to, AddressRequest::Prime).await {
            Err(Refused::Because(Refusal::NoRing { .. } | Refusal::Observing { .. })) => {}
            outcome => {
                return answer(outcome.map(|_| Empty {}).map_err(Refused::into_failure));
            }
        }
    }
}

/// Holds what is believed against what exists.
pub(super) async fn check(State(to): Requests) -> Response {
    match ask(&to, Request::CheckAddresses).await {
        Ok(Ok(Some(found))) => answer(Ok(found)),
        Ok(Ok(None)) => Failure(StatusCode::BAD_REQUEST, Refusal::Off.to_string()).into_response(),
        Ok(Err(error)) => Failure(StatusCode::INTERNAL_SERVER_ERROR, error.error).into_response(),
        Err(failure) => failure.into_response(),
    }
}

pub(super) async fn remove(State(to): Requests, call: HttpRequest) -> Response {
    answer(removed(&to, call).await)
}

/// Gives our ranges to a peer that stays, then ends the daemon and removes its state.
pub(super) async fn reset(State(to): Requests, call: HttpRequest) -> Response {
    let ResetRequest { force } = match read(call).await {
        Ok(request) => request,
        Err(failure) => return failure.into_response(),
    };
    match addresses(&to, AddressRequest::Leave).await {
        Ok(_) | Err(Refused::Because(Refusal::Off)) => {}
        Err(_) if force => {}
        Err(refused) => return refused.into_failure().into_response(),
    }
    match ask(&to, Request::Reset).await {
        Ok(Err(error)) => Failure(StatusCode::INTERNAL_SERVER_ERROR, error.error).into_response(),
        done => answer(done.map(|_| Empty {})),
    }
}

async fn removed(to: &mpsc::Sender<Request>, call: HttpRequest) -> Result<RemoveReply, Failure> {
    let RemoveRequest {
        peer,
        force,
        dry_run,
    } = read(call).await?;
    // Peers of whom no name is known are not meant by it.
    if peer.is_empty() {
        let line =
            "an empty name is nobody's: give a name, nickname or PeerId (see `weft status ipam`)";
        return Err(Failure(StatusCode::BAD_REQUEST, line.to_owned()));
    }
    let named = peer.clone();
    let found = ask(to, |reply| Request::FindOwner(named, reply)).await?;
    let victim = match found[..] {
        [] if dry_run => {
            let line = format!(
                "{peer}: nobody of that name owns addresses or can be reached (see `weft status ipam`)"
            );
            return Err(Failure(StatusCode::BAD_REQUEST, line));
        }
        // As in Weave: whom nobody knows owns nothing.
        [] => return Ok(RemoveReply::default()),
        [victim] => victim,
        [_, _, ..] => return Err(ambiguous(&peer, &found)),
    };
    let what = AddressRequest::Remove {
        victim,
        force,
        dry_run,
    };
    match addresses(to, what).await.map_err(Refused::into_failure)? {
        Reply::Removed {
            count,
            others,
            votes,
            majority,
        } => Ok(RemoveReply {
            addresses: count,
            others: others
                .into_iter()
                .map(|(peer, count)| (peer.name().to_string(), count))
                .collect(),
            votes,
            majority,
        }),
        Reply::Addresses(_) | Reply::Done | Reply::Freed { .. } | Reply::Left { .. } => {
            Ok(RemoveReply::default())
        }
    }
}

fn ambiguous(name: &str, found: &[PeerId]) -> Failure {
    let ids: Vec<String> = found.iter().map(PeerId::to_string).collect();
    let line = format!("{name} can be any of {}: give one of these", ids.join(", "));
    Failure(StatusCode::BAD_REQUEST, line)
}

/// Why there is no answer of use.
enum Refused {
    Because(Refusal),
    Gone(Failure),
}

impl Refused {
    fn into_failure(self) -> Failure {
        match self {
            Self::Because(refusal) => Failure(StatusCode::BAD_REQUEST, refusal.to_string()),
            Self::Gone(failure) => failure,
        }
    }
}

async fn addresses(to: &mpsc::Sender<Request>, what: AddressRequest) -> Result<Reply, Refused> {
    match ask(to, |reply| Request::Addresses(what, reply)).await {
        Ok(Ok(reply)) => Ok(reply),
        Ok(Err(refusal)) => Err(Refused::Because(refusal)),
        Err(failure) => Err(Refused::Gone(failure)),
    }
}
