//! What went wrong, as the user reads it.

use std::error::Error;

use crate::api::ApiError;

/// An error with its causes, as the one line that the user reads.
pub(super) fn in_one_line(error: &dyn Error) -> ApiError {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let told = error.to_string();
        // Some libraries repeat their cause in their own text.
        if !line.contains(&told) {
            line.push_str(": ");
            line.push_str(&told);
        }
        cause = error.source();
    }
    ApiError {
        error: line.split(char::is_control).collect::<Vec<_>>().join(" "),
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;
    use crate::driver::netns::NetNsError;

    #[test]
    fn causes_follow_in_the_same_line() {
        let error = NetNsError::Socket {
            source: io::Error::other("two\nlines"),
        };
        assert_eq!(
            in_one_line(&error).error,
            "open a netlink socket: two lines"
        );
    }
}
