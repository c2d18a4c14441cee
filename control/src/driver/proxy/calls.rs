//! What the proxy does about a call before it goes to Docker, and before its answer goes back.

use std::sync::Arc;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};

use super::starts::Starts;
use super::stream::{Side, StreamError};
use super::wait_program::WaitProgram;
use crate::driver::address::read_arguments;
use crate::driver::docker::{Docker, DockerError};
use crate::proxy::body::Body;
use crate::proxy::create::{BODY_LEN_MAX, CreateRequest, CreateRules, Creation, Image};
use crate::proxy::head::RequestHead;
use crate::proxy::inspect::Inspection;
use crate::proxy::route::Call;
use crate::proxy::{Refusal, exec};

/// What goes to Docker.
pub(super) struct Outgoing {
    /// The head, and the body if it was read.
    pub(super) bytes: Bytes,
    /// What of the body is still to come from the client.
    pub(super) body: Body,
    /// What its answer means.
    pub(super) after: After,
}

/// What an answer means to us.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum After {
    /// Nothing.
    Nothing,
    /// The connection may be a raw stream from then on.
    Raw,
    /// This container has started; its network comes before the answer.
    Started(String),
    /// It describes a container.
    Inspected,
}

impl After {
    pub(super) fn may_become_raw(&self) -> bool {
        *self == Self::Raw
    }
}

/// What it takes to treat calls.
#[derive(Debug)]
pub(super) struct Calls {
    docker: Docker,
    rules: CreateRules,
    starts: Starts,
    wait_program: Arc<WaitProgram>,
    /// Whether a container that is inspected shows its address here in place of Docker's.
    rewrite_inspect: bool,
}

impl Calls {
    pub(super) fn new(
        docker: Docker,
        rules: CreateRules,
        starts: Starts,
        wait_program: Arc<WaitProgram>,
        rewrite_inspect: bool,
    ) -> Self {
        Self {
            docker,
            rules,
            starts,
            wait_program,
            rewrite_inspect,
        }
    }

    pub(super) fn docker(&self) -> &Docker {
        &self.docker
    }

    /// Takes the head off the client's side, and the body if it has to be read.
    pub(super) async fn prepare<R, W>(
        &self,
        client: &mut Side<R, W>,
        head: &RequestHead,
        call: Call,
    ) -> Result<Outgoing, StreamError>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        let bytes = client.input.take(head.len);
        let after = match call {
            Call::Create { name } => {
                let body = read_body(client, head).await?;
                let changed = self.create(&name, &body).await?;
                return whole(&bytes, changed, body);
            }
            Call::Exec { container } if self.starts.must_wait(&container).await => {
                let body = read_body(client, head).await?;
                let changed = exec::wait_first(&body).map_err(Refusal::from)?;
                return whole(&bytes, changed, body);
            }
            Call::Start { container } => After::Started(container),
            Call::Hijack => After::Raw,
            Call::Inspect if self.rewrite_inspect => After::Inspected,
            Call::Exec { .. } | Call::Inspect | Call::Pass => After::Nothing,
        };
        let body = head.body;
        Ok(Outgoing { bytes, body, after })
    }

    /// Does what has to be done before an answer goes back.
    pub(super) async fn finish(&self, after: &After, status: u16) -> Result<(), String> {
        match after {
            // 304: it ran already, whatever became of its network; that is not this start's.
            After::Started(container) if status == 204 => self.starts.attached(container).await,
            After::Started(_) | After::Inspected | After::Nothing | After::Raw => Ok(()),
        }
    }

    /// Whether an answer is to be read whole, and shown with our address.
    pub(super) fn rewrites(&self, after: &After, status: u16) -> bool {
        *after == After::Inspected && status == 200
    }

    /// Another description of a container that is on the network.
    pub(super) async fn inspected(&self, body: &[u8]) -> Option<Vec<u8>> {
        let described = Inspection::parse(body)?;
        let own = self.starts.on_the_network(described.id()).await?;
        described.with(&own)
    }

    /// Another body for a container that is to be on the network.
    async fn create(&self, name: &str, body: &[u8]) -> Result<Option<String>, Refusal> {
        // Docker says what it thinks of an empty body.
        if body.trim_ascii().is_empty() {
            return Ok(None);
        }
        let request = CreateRequest::parse(body)?;
        let Some(image) = request.image()? else {
            tracing::info!(name, "container left alone: its network mode");
            return Ok(None);
        };
        let image = self.image(&image).await;
        match request.decide(name, image.as_ref(), &self.rules)? {
            Creation::AsItIs(why) => {
                tracing::info!(name, why, "container left alone");
                Ok(None)
            }
            Creation::Changed { body, addresses } => {
                read_arguments(&addresses).map_err(|error| Refusal::Wish(error.to_string()))?;
                let written = self.wait_program.ensure();
                written.map_err(|error| Refusal::NoProgram(error.to_string()))?;
                Ok(Some(body))
            }
        }
    }

    /// What an image says; none if Docker does not have it, or does not say: then it does not create the container
    /// either.
    async fn image(&self, name: &str) -> Option<Image> {
        // Of no image there is nothing to ask: what it starts is what the request says.
        if name.is_empty() {
            return Some(Image::default());
        }
        match self.docker.image(name).await {
            Ok(image) => Some(image),
            Err(DockerError::Unknown { .. }) => None,
            Err(error) => {
                tracing::warn!(image = name, %error, "cannot see what an image starts");
                None
            }
        }
    }
}

async fn read_body<R, W>(
    client: &mut Side<R, W>,
    head: &RequestHead,
) -> Result<Vec<u8>, StreamError>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    if let Body::Length(length) = head.body
        && length > BODY_LEN_MAX as u64
    {
        return Err(StreamError::Refused(Refusal::TooLong(BODY_LEN_MAX)));
    }
    if head.expects_continue {
        client
            .output
            .write_all(b"HTTP/1.1 100 Continue\r\n\r\n")
            .await?;
    }
    let mut body = head.body;
    let reading = client.input.read_body(&mut body, BODY_LEN_MAX);
    // Docker would take what JSON it got; half a request may not be what was meant.
    reading.await.map_err(|error| match error {
        StreamError::Truncated => StreamError::Refused(Refusal::Short),
        other @ (StreamError::Io(_) | StreamError::Refused(_) | StreamError::BadAnswer(_)) => other,
    })
}

/// A request whose body was read, with another one or as it was.
fn whole(head: &[u8], changed: Option<String>, body: Vec<u8>) -> Result<Outgoing, StreamError> {
    let body = changed.map_or(body, String::into_bytes);
    let mut bytes = RequestHead::with_length(head, body.len())?;
    bytes.extend_from_slice(&body);
    Ok(Outgoing {
        bytes: bytes.into(),
        body: Body::NONE,
        after: After::Nothing,
    })
}
