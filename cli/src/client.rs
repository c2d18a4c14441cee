//! Asks the daemon over its unix socket: HTTP with JSON bodies (`weft_control::api`).

mod patience;

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;
use weft_control::api::ApiError;

use crate::failure::Failure;

/// How long a daemon may take to accept a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// The longest answer taken; a report of thousands of peers stays far below.
const ANSWER_LEN_MAX: usize = 64 << 20;
/// The longest line of a streamed answer.
const LINE_LEN_MAX: usize = 64 << 10;

/// The daemon behind a control socket.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    socket: PathBuf,
}

impl Client {
    /// Names the daemon; nothing is sent yet.
    pub(crate) fn new(socket: PathBuf) -> Self {
        Self { socket }
    }

    /// Reads something.
    ///
    /// # Errors
    ///
    /// [`Failure::NotRunning`], the daemon's own words, or what broke on the way.
    pub(crate) fn get<T: DeserializeOwned>(&self, path: &str) -> anyhow::Result<T> {
        let body =
            block_on(async { whole(self.send(Method::GET, path, Bytes::new()).await?).await })?;
        serde_json::from_slice(&body)
            .with_context(|| format!("understand the daemon's answer to {path}"))
    }

    /// Asks for something to be done.
    ///
    /// # Errors
    ///
    /// As [`Self::get`].
    pub(crate) fn post<B: Serialize, T: DeserializeOwned>(
        &self,
        path: &str,
        body: &B,
    ) -> anyhow::Result<T> {
        let body = Bytes::from(serde_json::to_vec(body)?);
        let answer = block_on(async { whole(self.send(Method::POST, path, body).await?).await })?;
        serde_json::from_slice(&answer)
            .with_context(|| format!("understand the daemon's answer to {path}"))
    }

    /// Asks for something whose answer comes line by line; `each` sees the lines as they come.
    ///
    /// # Errors
    ///
    /// As [`Self::get`], and what `each` returns.
    pub(crate) fn stream<B: Serialize>(
        &self,
        path: &str,
        body: &B,
        mut each: impl FnMut(&str) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let body = Bytes::from(serde_json::to_vec(body)?);
        block_on(async {
            let response = checked(self.send(Method::POST, path, body).await?).await?;
            let mut incoming = response.into_body();
            let mut lines = LineSplitter::default();
            while let Some(frame) = incoming.frame().await {
                if let Ok(data) = frame.context("read the daemon's answer")?.into_data() {
                    lines.feed(&data, &mut each)?;
                }
            }
            lines.finish(&mut each)
        })
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> anyhow::Result<Response<Incoming>> {
        let stream = connect(&self.socket).await?;
        let patience = patience::patience_for(&method, path);
        let daemon = stream.peer_cred().ok().and_then(|daemon| daemon.pid());
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .context("speak to the daemon")?;
        // Ends by itself with the exchange; its error shows again at `send_request`.
        tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "weft")
            .header("content-type", "application/json")
            .body(Full::new(body))?;
        // It speaks HTTP by itself, so who hangs up before an answer is the daemon, and there is one reason.
        let answer = patience::answered(sender.send_request(request), daemon, patience).await?;
        answer.with_context(|| {
            format!(
                "ask the daemon for {path}: it serves as many clients as it can, or is about to end: try again"
            )
        })
    }
}

async fn connect(socket: &Path) -> anyhow::Result<UnixStream> {
    let attempt = tokio::time::timeout(CONNECT_TIMEOUT, UnixStream::connect(socket)).await;
    let Ok(result) = attempt else {
        bail!(
            "the daemon does not accept connections on {}: see its log",
            socket.display()
        );
    };
    let error = match result {
        Ok(stream) => return Ok(stream),
        Err(error) => error,
    };
    if [ErrorKind::NotFound, ErrorKind::ConnectionRefused].contains(&error.kind()) {
        return Err(Failure::not_running(socket).into());
    }
    if error.kind() == ErrorKind::PermissionDenied {
        bail!(
            "no permission to open {}: run as root or as a member of its group",
            socket.display()
        );
    }
    Err(anyhow::Error::from(error).context(format!("connect to {}", socket.display())))
}

/// Turns an answer that is not a success into the daemon's own line.
async fn checked(response: Response<Incoming>) -> anyhow::Result<Response<Incoming>> {
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let body = limited(response).await?;
    match serde_json::from_slice::<ApiError>(&body) {
        Ok(said) => bail!("{}", said.error),
        Err(_) if status == StatusCode::NOT_FOUND => {
            bail!(
                "the running daemon does not know this request: it is another version than this command"
            )
        }
        Err(_) => bail!("the daemon answered {status}"),
    }
}

async fn whole(response: Response<Incoming>) -> anyhow::Result<Bytes> {
    limited(checked(response).await?).await
}

async fn limited(response: Response<Incoming>) -> anyhow::Result<Bytes> {
    let body = http_body_util::Limited::new(response.into_body(), ANSWER_LEN_MAX);
    match body.collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) => bail!("read the daemon's answer: {error}"),
    }
}

fn block_on<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("start the client")?;
    runtime.block_on(work)
}

/// Cuts a stream of bytes into lines, wherever the pieces end.
#[derive(Debug, Default)]
struct LineSplitter {
    rest: Vec<u8>,
}

impl LineSplitter {
    fn feed(
        &mut self,
        data: &[u8],
        each: &mut impl FnMut(&str) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        for &byte in data {
            if byte == b'\n' {
                self.finish(each)?;
            } else if self.rest.len() == LINE_LEN_MAX {
                bail!("the daemon's answer has a line of more than {LINE_LEN_MAX} bytes");
            } else {
                self.rest.push(byte);
            }
        }
        Ok(())
    }

    fn finish(&mut self, each: &mut impl FnMut(&str) -> anyhow::Result<()>) -> anyhow::Result<()> {
        let line = std::mem::take(&mut self.rest);
        let line = str::from_utf8(&line)
            .context("read the daemon's answer")?
            .trim();
        if line.is_empty() { Ok(()) } else { each(line) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(pieces: &[&[u8]]) -> anyhow::Result<Vec<String>> {
        let mut lines = Vec::new();
        let mut splitter = LineSplitter::default();
        let mut each = |line: &str| {
            lines.push(line.to_owned());
            Ok(())
        };
        for piece in pieces {
            splitter.feed(piece, &mut each)?;
        }
        splitter.finish(&mut each)?;
        Ok(lines)
    }

    #[test]
    fn lines_are_found_wherever_the_pieces_end() {
        let lines = split(&[b"{\"a\":", b"1}\n{\"b\"", b":2}\r\n\n", b"{\"c\":3}"]).unwrap();

        assert_eq!(lines, ["{\"a\":1}", "{\"b\":2}", "{\"c\":3}"]);
    }

    #[test]
    fn an_endless_line_is_refused() {
        let endless = vec![b'x'; LINE_LEN_MAX + 1];

        assert!(split(&[&endless]).is_err());
    }

    #[test]
    fn a_missing_socket_means_that_the_daemon_is_not_running() {
        let dir = tempfile::tempdir().unwrap();
        let client = Client::new(dir.path().join("weft.sock"));

        let error = client.get::<serde_json::Value>("/status").unwrap_err();

        assert!(
            matches!(error.downcast_ref(), Some(Failure::NotRunning { .. })),
            "{error:#}"
        );
    }
}
