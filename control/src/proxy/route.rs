//! Which call of Docker's API a request line is, as Docker's own router takes it.
//!
//! The router matches the percent-decoded path, with or without `/vX.Y` in front, letter by letter. It sends away paths
//! with empty, `.` or `..` segments; those are passed on as they are.

/// A call that the proxy has something to do with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Call {
    /// `POST /containers/create`, with the wanted name.
    Create {
        /// From the query; empty if there is none.
        name: String,
    },
    /// `POST /containers/X/start` or `/restart`.
    Start {
        /// Name or id.
        container: String,
    },
    /// `POST /containers/X/exec`.
    Exec {
        /// Name or id.
        container: String,
    },
    /// `GET /containers/X/json`.
    Inspect,
    /// A call whose answer may turn the connection into a raw stream without an upgrade.
    Hijack,
    /// Any other.
    Pass,
}

impl Call {
    /// Tells which call it is.
    #[must_use]
    pub fn of(method: &str, target: &str) -> Self {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let Some(path) = decoded(without_authority(path), false) else {
            return Self::Pass;
        };
        if !is_clean(&path) {
            return Self::Pass;
        }
        let path = without_version(&path);
        match method {
            "POST" => Self::of_post(path, query),
            "GET" if between(path, "/containers/", "/json").is_some() => Self::Inspect,
            _ => Self::Pass,
        }
    }

    fn of_post(path: &str, query: &str) -> Self {
        if path == "/containers/create" {
            let name = parameter(query, "name").unwrap_or_default();
            return Self::Create { name };
        }
        for end in ["/start", "/restart"] {
            if let Some(container) = between(path, "/containers/", end) {
                return Self::Start { container };
            }
        }
        if let Some(container) = between(path, "/containers/", "/exec") {
            return Self::Exec { container };
        }
        let is_hijack = between(path, "/containers/", "/attach").is_some()
            || between(path, "/exec/", "/start").is_some();
        if is_hijack { Self::Hijack } else { Self::Pass }
    }
}

/// The path of a target in absolute form.
fn without_authority(target: &str) -> &str {
    for scheme in ["http://", "https://"] {
        if let Some(rest) = target.strip_prefix(scheme) {
            return rest.find('/').map_or("/", |at| &rest[at..]);
        }
    }
    target
}

/// The router sends any other path to its cleaned form.
fn is_clean(path: &str) -> bool {
    let mut segments = path.split('/').skip(1).peekable();
    path.starts_with('/')
        && std::iter::from_fn(|| segments.next().map(|it| (it, segments.peek().is_none()))).all(
            |(segment, is_last)| !matches!(segment, "." | "..") && (is_last || !segment.is_empty()),
        )
}

fn without_version(path: &str) -> &str {
    let Some(rest) = path.strip_prefix("/v") else {
        return path;
    };
    let Some((version, _)) = rest.split_once('/') else {
        return path;
    };
    let is_version = !version.is_empty()
        && version
            .bytes()
            .all(|byte| byte.is_ascii_digit() || byte == b'.');
    if is_version {
        &rest[version.len()..]
    } else {
        path
    }
}

fn between(path: &str, start: &str, end: &str) -> Option<String> {
    let middle = path.strip_prefix(start)?.strip_suffix(end)?;
    (!middle.is_empty()).then(|| middle.to_owned())
}

/// The first value of a parameter.
fn parameter(query: &str, wanted: &str) -> Option<String> {
    // Go leaves parts with a semicolon out.
    let parts = query.split('&').filter(|part| !part.contains(';'));
    for part in parts {
        let (key, value) = part.split_once('=').unwrap_or((part, ""));
        if decoded(key, true).as_deref() == Some(wanted)
            && let Some(value) = decoded(value, true)
        {
            return Some(value);
        }
    }
    None
}

/// Decodes `%XX`, and `+` in a query; `None` if that is no text.
fn decoded(text: &str, is_query: bool) -> Option<String> {
    let mut bytes = text.bytes();
    let mut decoded = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'%' => {
                let high = char::from(bytes.next()?).to_digit(16)?;
                let low = char::from(bytes.next()?).to_digit(16)?;
                u8::try_from(high << 4 | low).ok()?
            }
            b'+' if is_query => b' ',
            other => other,
        });
    }
    String::from_utf8(decoded).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start(container: &str) -> Call {
        Call::Start {
            container: container.to_owned(),
        }
    }

    fn create(name: &str) -> Call {
        Call::Create {
            name: name.to_owned(),
        }
    }

    #[test]
    fn calls_are_known_with_and_without_a_version_and_however_they_are_encoded() {
        for (line, call) in [
            ("POST /containers/create", create("")),
            ("POST /v1.41/containers/create?name=a2", create("a2")),
            (
                "POST /v1.41/containers/create?platform=&name=a+b%2Fc&name=d",
                create("a b/c"),
            ),
            ("POST /v1/%63ontainers%2fcreate?n%61me=x", create("x")),
            ("POST http://docker/v1.24/containers/create", create("")),
            ("POST /v1.41/containers/abc/start?detachKeys=", start("abc")),
            ("POST /containers/abc/restart?t=5", start("abc")),
            ("POST /containers/a/b/start", start("a/b")),
            (
                "POST /containers/abc/exec",
                Call::Exec {
                    container: "abc".to_owned(),
                },
            ),
            ("POST /containers/abc/attach?stream=1", Call::Hijack),
            ("POST /v1.41/exec/0123/start", Call::Hijack),
            ("GET /v1.41/containers/abc/json?size=1", Call::Inspect),
        ] {
            let (method, target) = line.split_once(' ').unwrap();
            assert_eq!(Call::of(method, target), call, "{line}");
        }
    }

    #[test]
    fn everything_else_passes() {
        for line in [
            "GET /containers/create",
            "post /containers/create",
            "POST /Containers/create",
            "POST //containers/create",
            "POST /containers//create",
            "POST /containers/./create",
            "POST /v1.41/../containers/create",
            "POST /vx/containers/create",
            "POST /v/containers/create",
            "POST /containers/create/",
            "POST /containers/%zz/start",
            "POST /containers/%ff/start",
            "POST /containers/start",
            "GET /containers/json",
            "GET /v1.41/containers//json",
            "HEAD /containers/abc/json",
            "POST /exec/start",
            "POST /containers/abc/stop",
            "OPTIONS *",
            "POST ",
        ] {
            let (method, target) = line.split_once(' ').unwrap();
            assert_eq!(Call::of(method, target), Call::Pass, "{line}");
        }
    }
}
