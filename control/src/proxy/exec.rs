//! `POST /containers/X/exec` in a container that waits for the network: the new process waits, too.

use super::WAIT_PROGRAM;
use super::object::{Object, ObjectError};

/// Puts the wait program before the command; `None` if there is no command, which Docker refuses.
///
/// # Errors
/// [`ObjectError`].
pub fn wait_first(body: &[u8]) -> Result<Option<String>, ObjectError> {
    let text =
        std::str::from_utf8(body).map_err(|error| ObjectError::Malformed(error.to_string()))?;
    let mut config = Object::parse(text)?;
    let mut command = config.strings("Cmd")?.unwrap_or_default();
    if command.first().is_none_or(|first| first == WAIT_PROGRAM) {
        return Ok(None);
    }
    command.insert(0, WAIT_PROGRAM.to_owned());
    config.set("Cmd", &command)?;
    Ok(Some(config.to_json()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_program_is_put_first_once() {
        let body = br#"{"User":"","Tty":true,"Cmd":["ls","-l"],"X":1.0}"#;
        assert_eq!(
            wait_first(body).unwrap().unwrap(),
            r#"{"User":"","Tty":true,"Cmd":["/w/w","ls","-l"],"X":1.0}"#
        );
        for body in [&br#"{"Cmd":["/w/w","ls"]}"#[..], br#"{"Cmd":[]}"#, b"{}"] {
            assert_eq!(wait_first(body), Ok(None));
        }
        assert!(wait_first(b"{").is_err());
    }
}
