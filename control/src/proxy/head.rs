//! Reads the head of a request or an answer: what it asks, and how long its body is (RFC 9112).
//!
//! The bytes themselves are passed on as they came. A head whose body two readers could measure in two ways is
//! refused: Docker would see another request than we did.

use httparse::{Header, Status};

use super::body::Body;

/// Longest head in bytes; Docker reads 1 MiB, and its client's longest (registry credentials) are a few kilobytes.
pub const HEAD_LEN_MAX: usize = 256 * 1024;
/// Most header lines; clients send a dozen.
const HEADERS_MAX: usize = 256;

/// Why a head is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HeadError {
    /// Not HTTP/1.
    #[error("it is not HTTP/1.1: {0}")]
    Malformed(String),
    /// Longer than it may be.
    #[error("its head is over {HEAD_LEN_MAX} bytes")]
    TooLong,
    /// More lines than there may be.
    #[error("its head has more than {HEADERS_MAX} lines")]
    TooManyLines,
    /// Content-Length that is no number, or two that differ.
    #[error("its Content-Length is not one number")]
    BadLength,
    /// Both ways of saying it.
    #[error("it has Content-Length and Transfer-Encoding")]
    TwoLengths,
    /// An encoding that is not `chunked`.
    #[error("its Transfer-Encoding is not chunked, or it is HTTP/1.0")]
    BadEncoding,
    /// No text.
    #[error("its first line is no text")]
    NotText,
}

/// A request's head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestHead {
    /// `GET`, `POST`…
    pub method: String,
    /// As it stands in the first line.
    pub target: String,
    /// Bytes of the head.
    pub len: usize,
    /// What follows it.
    pub body: Body,
    /// The client waits for `100 Continue`.
    pub expects_continue: bool,
}

/// An answer's head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResponseHead {
    /// The status code.
    pub status: u16,
    /// Bytes of the head.
    pub len: usize,
    /// What follows it.
    pub body: Body,
    /// The content is a raw stream of a container.
    pub is_raw_stream: bool,
    /// It says that the connection ends after it.
    pub closes: bool,
}

/// How a head says how long its body is.
struct Lengths {
    length: Option<u64>,
    is_chunked: bool,
}

impl Lengths {
    fn read(headers: &[Header<'_>], version: Option<u8>) -> Result<Self, HeadError> {
        let mut length = None;
        let mut is_chunked = false;
        for header in headers {
            if header.name.eq_ignore_ascii_case("content-length") {
                let number = read_length(header.value)?;
                if length.is_some_and(|before| before != number) {
                    return Err(HeadError::BadLength);
                }
                length = Some(number);
            } else if header.name.eq_ignore_ascii_case("transfer-encoding") {
                let is_plain = header.value.eq_ignore_ascii_case(b"chunked");
                if is_chunked || !is_plain || version != Some(1) {
                    return Err(HeadError::BadEncoding);
                }
                is_chunked = true;
            }
        }
        if is_chunked && length.is_some() {
            return Err(HeadError::TwoLengths);
        }
        Ok(Self { length, is_chunked })
    }
}

fn read_length(value: &[u8]) -> Result<u64, HeadError> {
    let is_number = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
    let text = std::str::from_utf8(value).map_err(|_| HeadError::BadLength)?;
    match text.parse() {
        Ok(number) if is_number => Ok(number),
        Ok(_) | Err(_) => Err(HeadError::BadLength),
    }
}

fn has_token(headers: &[Header<'_>], name: &str, token: &str) -> bool {
    let mut values = headers
        .iter()
        .filter(|header| header.name.eq_ignore_ascii_case(name));
    values.any(|header| {
        let mut tokens = header.value.split(|byte| *byte == b',');
        tokens.any(|found| found.trim_ascii().eq_ignore_ascii_case(token.as_bytes()))
    })
}

fn malformed(error: httparse::Error) -> HeadError {
    match error {
        httparse::Error::TooManyHeaders => HeadError::TooManyLines,
        httparse::Error::HeaderName
        | httparse::Error::HeaderValue
        | httparse::Error::NewLine
        | httparse::Error::Status
        | httparse::Error::Token
        | httparse::Error::Version => HeadError::Malformed(error.to_string()),
    }
}

/// Whether a head is whole, and not too long.
fn whole(parsed: Status<usize>, bytes: &[u8]) -> Result<Option<usize>, HeadError> {
    let (len, len_so_far) = match parsed {
        Status::Complete(len) => (Some(len), len),
        Status::Partial => (None, bytes.len()),
    };
    match len_so_far {
        0..HEAD_LEN_MAX => Ok(len),
        _ => Err(HeadError::TooLong),
    }
}

impl RequestHead {
    /// Reads a head at the beginning of `bytes`; `None` if it is not whole.
    ///
    /// # Errors
    /// [`HeadError`].
    pub fn parse(bytes: &[u8]) -> Result<Option<Self>, HeadError> {
        let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
        let mut request = httparse::Request::new(&mut headers);
        let parsed = request.parse(bytes).map_err(malformed)?;
        let Some(len) = whole(parsed, bytes)? else {
            return Ok(None);
        };
        let lengths = Lengths::read(request.headers, request.version)?;
        let body = match lengths.length {
            _ if lengths.is_chunked => Body::chunked(),
            Some(length) => Body::Length(length),
            None => Body::NONE,
        };
        let text = |text: Option<&str>| text.map(str::to_owned).ok_or(HeadError::NotText);
        Ok(Some(Self {
            method: text(request.method)?,
            target: text(request.path)?,
            len,
            body,
            expects_continue: has_token(request.headers, "expect", "100-continue"),
        }))
    }

    /// The head at the beginning of `bytes` again, for a body of `length` bytes that is sent whole.
    ///
    /// # Errors
    /// [`HeadError`] if it is none.
    pub fn with_length(bytes: &[u8], length: usize) -> Result<Vec<u8>, HeadError> {
        let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
        let mut request = httparse::Request::new(&mut headers);
        let Status::Complete(end) = request.parse(bytes).map_err(malformed)? else {
            return Err(HeadError::NotText);
        };
        with_length(bytes, end, request.headers, length)
    }
}

/// The first line and the headers again, with another length.
fn with_length(
    bytes: &[u8],
    end: usize,
    headers: &[Header<'_>],
    length: usize,
) -> Result<Vec<u8>, HeadError> {
    // Empty lines may come before the first (RFC 9112, 2.2): they are no part of it.
    let is_break = |byte: &u8| matches!(byte, b'\r' | b'\n');
    let mut lines = bytes[..end].split(is_break);
    let first = lines.find(|line| !line.is_empty());
    let mut head = first.ok_or(HeadError::NotText)?.to_vec();
    head.extend_from_slice(b"\r\n");
    let about_the_body = ["content-length", "transfer-encoding", "trailer", "expect"];
    for header in headers {
        let is = |name: &&str| header.name.eq_ignore_ascii_case(name);
        if about_the_body.iter().any(is) {
            continue;
        }
        head.extend_from_slice(header.name.as_bytes());
        head.extend_from_slice(b": ");
        head.extend_from_slice(header.value);
        head.extend_from_slice(b"\r\n");
    }
    head.extend_from_slice(format!("Content-Length: {length}\r\n\r\n").as_bytes());
    Ok(head)
}

impl ResponseHead {
    /// The head at the beginning of `bytes` again, for a body of `length` bytes.
    ///
    /// # Errors
    /// [`HeadError`] if it is none.
    pub fn with_length(bytes: &[u8], length: usize) -> Result<Vec<u8>, HeadError> {
        let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
        let mut response = httparse::Response::new(&mut headers);
        let Status::Complete(end) = response.parse(bytes).map_err(malformed)? else {
            return Err(HeadError::NotText);
        };
        with_length(bytes, end, response.headers, length)
    }

    /// Reads a head at the beginning of `bytes`, the answer to a request of `method`; `None` if it is not whole.
    ///
    /// # Errors
    /// [`HeadError`].
    pub fn parse(bytes: &[u8], method: &str) -> Result<Option<Self>, HeadError> {
        let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
        let mut response = httparse::Response::new(&mut headers);
        let parsed = response.parse(bytes).map_err(malformed)?;
        let Some(len) = whole(parsed, bytes)? else {
            return Ok(None);
        };
        let status = response.code.ok_or(HeadError::NotText)?;
        let is_bare = method == "HEAD" || matches!(status, 100..200 | 204 | 304);
        let lengths = Lengths::read(response.headers, response.version)?;
        let body = match lengths.length {
            _ if is_bare => Body::NONE,
            _ if lengths.is_chunked => Body::chunked(),
            Some(length) => Body::Length(length),
            None => Body::UntilClose,
        };
        let kinds = [
            "application/vnd.docker.raw-stream",
            "application/vnd.docker.multiplexed-stream",
        ];
        let is_raw_stream = kinds
            .iter()
            .any(|kind| has_token(response.headers, "content-type", kind));
        Ok(Some(Self {
            status,
            len,
            body,
            is_raw_stream,
            closes: has_token(response.headers, "connection", "close"),
        }))
    }
}

/// An answer of our own, in the form of Docker's errors.
#[must_use]
pub fn error_answer(status: u16, message: &str) -> Vec<u8> {
    let reason = match status {
        400 => "Bad Request",
        413 => "Content Too Large",
        431 => "Request Header Fields Too Large",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        _ => "Internal Server Error",
    };
    let body = format!("{}\n", serde_json::json!({ "message": message }));
    format!(
        "HTTP/1.1 {status} {reason}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(headers: &str) -> Result<Body, HeadError> {
        let text = format!("POST /containers/create HTTP/1.1\r\nHost: docker\r\n{headers}\r\n");
        RequestHead::parse(text.as_bytes()).map(|head| head.unwrap().body)
    }

    #[test]
    fn a_requests_body_is_as_long_as_its_head_says_in_one_way() {
        assert_eq!(request(""), Ok(Body::NONE));
        assert_eq!(request("content-length: 17\r\n"), Ok(Body::Length(17)));
        assert_eq!(
            request("Content-Length: 17\r\nContent-Length: 17\r\n"),
            Ok(Body::Length(17))
        );
        assert_eq!(
            request("Transfer-Encoding: Chunked\r\n"),
            Ok(Body::chunked())
        );
    }

    #[test]
    fn a_head_that_could_be_measured_in_two_ways_is_refused() {
        for (headers, error) in [
            (
                "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n",
                HeadError::TwoLengths,
            ),
            (
                "Transfer-Encoding: chunked\r\nContent-Length: 1\r\n",
                HeadError::TwoLengths,
            ),
            (
                "Content-Length: 1\r\nContent-Length: 2\r\n",
                HeadError::BadLength,
            ),
            ("Content-Length: 1, 1\r\n", HeadError::BadLength),
            ("Content-Length: +1\r\n", HeadError::BadLength),
            ("Content-Length: 0x1\r\n", HeadError::BadLength),
            ("Content-Length:\r\n", HeadError::BadLength),
            (
                "Content-Length: 99999999999999999999\r\n",
                HeadError::BadLength,
            ),
            ("Transfer-Encoding: identity\r\n", HeadError::BadEncoding),
            (
                "Transfer-Encoding: gzip, chunked\r\n",
                HeadError::BadEncoding,
            ),
            (
                "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
                HeadError::BadEncoding,
            ),
        ] {
            assert_eq!(request(headers), Err(error), "{headers}");
        }
        for headers in ["Content-Length : 1\r\n", "A: b\r\n folded: c\r\n", "A\r\n"] {
            assert!(
                matches!(request(headers), Err(HeadError::Malformed(_))),
                "{headers}"
            );
        }
        let old = b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n";
        assert_eq!(RequestHead::parse(old), Err(HeadError::BadEncoding));
    }

    #[test]
    fn a_head_that_is_not_whole_is_awaited_up_to_a_limit() {
        assert_eq!(RequestHead::parse(b"GET / HTTP/1.1\r\nA: b\r\n"), Ok(None));
        let mut endless = b"GET / HTTP/1.1\r\nA: ".to_vec();
        endless.resize(HEAD_LEN_MAX, b'a');
        assert_eq!(RequestHead::parse(&endless), Err(HeadError::TooLong));
        endless.extend_from_slice(b"\r\n\r\n");
        assert_eq!(RequestHead::parse(&endless), Err(HeadError::TooLong));
        let lines = |count| format!("GET / HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(count));
        assert!(matches!(
            RequestHead::parse(lines(HEADERS_MAX).as_bytes()),
            Ok(Some(_))
        ));
        let more = RequestHead::parse(lines(HEADERS_MAX + 1).as_bytes());
        assert_eq!(more, Err(HeadError::TooManyLines));
    }

    #[test]
    fn a_head_for_another_body_keeps_all_other_lines() {
        let head = b"POST /v1.41/containers/create?name=a HTTP/1.1\r\nHost: \r\nX-A: b,  c\r\nTransfer-Encoding: chunked\r\nContent-Type: application/json\r\n\r\nrest";
        let expected = "POST /v1.41/containers/create?name=a HTTP/1.1\r\nHost: \r\nX-A: b,  c\r\nContent-Type: application/json\r\nContent-Length: 5\r\n\r\n";
        let made = RequestHead::with_length(head, 5).unwrap();
        assert_eq!(String::from_utf8(made).unwrap(), expected);
        for before in ["\n", "\r\n", "\r\n\n"] {
            let head = format!("{before}POST / HTTP/1.1\nHost: \n\n");
            let made = RequestHead::with_length(head.as_bytes(), 5).unwrap();
            let expected = "POST / HTTP/1.1\r\nHost: \r\nContent-Length: 5\r\n\r\n";
            assert_eq!(String::from_utf8(made).unwrap(), expected);
        }
    }

    #[test]
    fn an_answers_body_depends_on_status_and_method() {
        let body = |text: &str, method| {
            let text = format!("HTTP/1.1 {text}\r\n\r\n");
            let head = ResponseHead::parse(text.as_bytes(), method);
            head.map(|head| head.unwrap().body)
        };
        assert_eq!(body("200 OK", "GET"), Ok(Body::UntilClose));
        assert_eq!(body("200 OK\r\nContent-Length: 3", "HEAD"), Ok(Body::NONE));
        assert_eq!(
            body("200 OK\r\nContent-Length: 3", "GET"),
            Ok(Body::Length(3))
        );
        assert_eq!(
            body("200 OK\r\nTransfer-Encoding: chunked", "GET"),
            Ok(Body::chunked())
        );
        for bare in ["101 UPGRADED", "204 No Content", "304 Not Modified"] {
            assert_eq!(body(bare, "POST"), Ok(Body::NONE), "{bare}");
        }
        let raw = b"HTTP/1.1 200 OK\r\nContent-Type: application/vnd.docker.raw-stream\r\n\r\n";
        assert!(
            ResponseHead::parse(raw, "POST")
                .unwrap()
                .unwrap()
                .is_raw_stream
        );
    }

    #[test]
    fn an_error_is_one_that_dockers_clients_understand() {
        let text = String::from_utf8(error_answer(400, "a \"b\"")).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert_eq!(body, "{\"message\":\"a \\\"b\\\"\"}\n");
        assert!(head.contains(&format!("Content-Length: {}", body.len())));
        let parsed = ResponseHead::parse(text.as_bytes(), "GET")
            .unwrap()
            .unwrap();
        assert_eq!((parsed.status, parsed.closes), (400, true));
    }
}
