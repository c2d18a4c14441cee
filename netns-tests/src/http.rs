//! A client of an HTTP API on a unix socket that sends what it is told to the letter, right or wrong.

use std::fmt::Write as _;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Longest silence of a server that is alive on a busy machine.
const SILENCE_MAX: Duration = Duration::from_secs(60);
/// Bytes read at once.
const READ_LEN: usize = 64 * 1024;

/// What a server answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The status code; 0 if the connection ended without an answer.
    pub status: u16,
    /// The first line.
    pub line: String,
    /// Name, in small letters, and value.
    pub headers: Vec<(String, String)>,
    /// The body, without its chunks' frames.
    pub body: Vec<u8>,
    /// The body ended before its time.
    pub is_cut: bool,
}

impl Answer {
    /// A header's value.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut found = self.headers.iter().filter(|(key, _)| key == name);
        found.next().map(|(_, value)| value.as_str())
    }

    /// The body as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// The socket that is asked.
#[derive(Debug, Clone)]
pub struct HttpClient {
    socket: PathBuf,
}

/// A request as bytes: the head as clients write it, with the body's length unless `headers` says it.
#[must_use]
pub fn request(method: &str, target: &str, headers: &[&str], body: &[u8]) -> Vec<u8> {
    let mut head = format!("{method} {target} HTTP/1.1\r\nHost: docker\r\n");
    for header in headers {
        let _ = write!(head, "{header}\r\n");
    }
    let says_length = |header: &&str| {
        let header = header.to_ascii_lowercase();
        header.starts_with("content-length") || header.starts_with("transfer-encoding")
    };
    if !headers.iter().any(says_length) && !matches!(method, "GET" | "HEAD") {
        let _ = write!(head, "Content-Length: {}\r\n", body.len());
    }
    head.push_str("\r\n");
    [head.as_bytes(), body].concat()
}

/// A body in chunks of `size` bytes.
#[must_use]
pub fn chunked(body: &[u8], size: usize) -> Vec<u8> {
    let mut all = Vec::with_capacity(body.len() + 64);
    for chunk in body.chunks(size) {
        all.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        all.extend_from_slice(chunk);
        all.extend_from_slice(b"\r\n");
    }
    all.extend_from_slice(b"0\r\n\r\n");
    all
}

impl HttpClient {
    /// Asks at this socket.
    #[must_use]
    pub fn new(socket: &Path) -> Self {
        Self {
            socket: socket.to_path_buf(),
        }
    }

    /// A new connection.
    ///
    /// # Panics
    ///
    /// If nobody listens.
    #[must_use]
    pub fn connect(&self) -> HttpConnection {
        let stream = UnixStream::connect(&self.socket).expect("somebody listens");
        let limited = stream.set_read_timeout(Some(SILENCE_MAX));
        limited.expect("the limit is not zero");
        HttpConnection {
            stream,
            read: Vec::new(),
        }
    }

    /// Asks on a connection of its own, which ends after the answer.
    #[must_use]
    pub fn ask(&self, method: &str, target: &str, headers: &[&str], body: &[u8]) -> Answer {
        let mut connection = self.connect();
        connection.send(&request(method, target, headers, body));
        connection.answer(method)
    }
}

/// One connection.
#[derive(Debug)]
pub struct HttpConnection {
    stream: UnixStream,
    read: Vec<u8>,
}

impl HttpConnection {
    /// Sends bytes; a server that has hung up has its answer under way, which is read all the same.
    pub fn send(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes);
    }

    /// Says that nothing more is sent.
    pub fn end(&mut self) {
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    fn fill(&mut self) -> bool {
        let mut more = vec![0; READ_LEN];
        match self.stream.read(&mut more) {
            Ok(0) => false,
            Ok(len) => {
                self.read.extend_from_slice(&more[..len]);
                true
            }
            // Hung up on with something unread.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => false,
            Err(error) => panic!("the server is silent: {error}; so far {:?}", self.said()),
        }
    }

    fn said(&self) -> String {
        String::from_utf8_lossy(&self.read).into_owned()
    }

    /// Reads a head; `None` if the connection ends instead.
    pub fn head(&mut self) -> Option<Answer> {
        let end = loop {
            if let Some(at) = self.read.windows(4).position(|four| four == b"\r\n\r\n") {
                break at;
            }
            if !self.fill() {
                return None;
            }
        };
        let text = String::from_utf8_lossy(&self.read[..end]).into_owned();
        self.read.drain(..end + 4);
        let mut lines = text.lines();
        let line = lines.next().unwrap_or_default().to_owned();
        let status = line.split(' ').nth(1).and_then(|code| code.parse().ok());
        let headers = lines.filter_map(|line| line.split_once(':'));
        let headers =
            headers.map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()));
        Some(Answer {
            status: status.unwrap_or_default(),
            line,
            headers: headers.collect(),
            body: Vec::new(),
            is_cut: false,
        })
    }

    /// Reads a whole answer; interim ones are left out.
    pub fn answer(&mut self, method: &str) -> Answer {
        let mut answer = loop {
            let Some(head) = self.head() else {
                return Answer {
                    status: 0,
                    line: String::new(),
                    headers: Vec::new(),
                    body: std::mem::take(&mut self.read),
                    is_cut: true,
                };
            };
            if head.status >= 200 || head.status == 101 {
                break head;
            }
        };
        if method == "HEAD" || matches!(answer.status, 101 | 204 | 304) {
            return answer;
        }
        let length = answer.header("content-length").map(str::to_owned);
        let body = match length {
            Some(length) => self.exactly(length.parse().expect("it is a number")),
            None if answer.header("transfer-encoding") == Some("chunked") => self.chunks(),
            None => Ok(self.rest()),
        };
        answer.is_cut = body.is_err();
        answer.body = body.unwrap_or_else(|part| part);
        answer
    }

    /// Everything until the connection ends.
    pub fn rest(&mut self) -> Vec<u8> {
        while self.fill() {}
        std::mem::take(&mut self.read)
    }

    /// So many bytes, or fewer if the connection ends.
    ///
    /// # Errors
    ///
    /// What there was, if it ends.
    pub fn exactly(&mut self, len: usize) -> Result<Vec<u8>, Vec<u8>> {
        while self.read.len() < len {
            if !self.fill() {
                return Err(std::mem::take(&mut self.read));
            }
        }
        let rest = self.read.split_off(len);
        Ok(std::mem::replace(&mut self.read, rest))
    }

    /// The next chunk of a body that comes in chunks; empty at its end.
    ///
    /// # Errors
    ///
    /// What there was, if the connection ends.
    pub fn chunk(&mut self) -> Result<Vec<u8>, Vec<u8>> {
        let end = loop {
            if let Some(at) = self.read.windows(2).position(|two| two == b"\r\n") {
                break at;
            }
            if !self.fill() {
                return Err(std::mem::take(&mut self.read));
            }
        };
        let size = String::from_utf8_lossy(&self.read[..end]).into_owned();
        let size = usize::from_str_radix(&size, 16).expect("a chunk has a size");
        self.exactly(end + 2)?;
        let chunk = self.exactly(size)?;
        self.exactly(2)?;
        Ok(chunk)
    }

    fn chunks(&mut self) -> Result<Vec<u8>, Vec<u8>> {
        let mut all = Vec::new();
        loop {
            match self.chunk() {
                Ok(chunk) if chunk.is_empty() => return Ok(all),
                Ok(chunk) => all.extend_from_slice(&chunk),
                Err(_) => return Err(all),
            }
        }
    }
}
