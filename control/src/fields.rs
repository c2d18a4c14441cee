//! Typed fields inside a handshake payload or a message: type, length, value.
//!
//! ```text
//!  0    type
//!  1-2  length of the value, big-endian
//!  3..  value
//! ```
//!
//! A reader takes the fields that it knows, in any order, and leaves the rest: a newer peer may say more. A field
//! given twice counts once, the first. The parser is total; its bound is the length of the message.

/// The bytes end inside a field, or a field that must be there is missing or of a wrong length.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("malformed fields")]
pub(crate) struct FieldError;

/// Puts fields one after the other.
#[derive(Debug, Default)]
pub(crate) struct FieldWriter(Vec<u8>);

impl FieldWriter {
    /// Appends a field; a value over 65 535 bytes is cut, which no caller has.
    pub(crate) fn put(mut self, kind: u8, value: &[u8]) -> Self {
        let len = u16::try_from(value.len()).unwrap_or(u16::MAX);
        self.0.push(kind);
        self.0.extend_from_slice(&len.to_be_bytes());
        self.0.extend_from_slice(&value[..usize::from(len)]);
        self
    }

    pub(crate) fn finish(self) -> Vec<u8> {
        self.0
    }
}

/// Finds fields in bytes that were checked once.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    /// Checks that the bytes are whole fields from end to end.
    pub(crate) fn parse(bytes: &'a [u8]) -> Result<Self, FieldError> {
        let mut rest = bytes;
        while !rest.is_empty() {
            rest = split_field(rest).ok_or(FieldError)?.2;
        }
        Ok(Self(bytes))
    }

    /// Every field: type and value, in order.
    pub(crate) fn all(self) -> impl Iterator<Item = (u8, &'a [u8])> {
        let mut rest = self.0;
        std::iter::from_fn(move || {
            let (kind, value, after) = split_field(rest)?;
            rest = after;
            Some((kind, value))
        })
    }

    /// The value of the first field of this type.
    pub(crate) fn find(self, kind: u8) -> Option<&'a [u8]> {
        let mut rest = self.0;
        while let Some((found, value, after)) = split_field(rest) {
            if found == kind {
                return Some(value);
            }
            rest = after;
        }
        None
    }

    /// A field that must be there and have exactly this length.
    pub(crate) fn array<const N: usize>(self, kind: u8) -> Result<[u8; N], FieldError> {
        self.find(kind)
            .and_then(|value| value.try_into().ok())
            .ok_or(FieldError)
    }

    /// A field that must be there and be UTF-8.
    pub(crate) fn text(self, kind: u8) -> Result<&'a str, FieldError> {
        self.find(kind)
            .and_then(|value| std::str::from_utf8(value).ok())
            .ok_or(FieldError)
    }
}

fn split_field(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let ([kind, high, low], rest) = bytes.split_first_chunk()?;
    let (value, after) = rest.split_at_checked(usize::from(u16::from_be_bytes([*high, *low])))?;
    Some((*kind, value, after))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn fields_are_found_whatever_stands_around_them() {
        let bytes = FieldWriter::default()
            .put(9, b"new")
            .put(1, b"one")
            .put(1, b"two")
            .put(2, &[])
            .finish();
        let fields = Fields::parse(&bytes).unwrap();

        assert_eq!(fields.text(1), Ok("one"));
        assert_eq!(fields.array::<0>(2), Ok([]));
        assert_eq!(fields.array::<2>(1), Err(FieldError));
        assert_eq!(fields.find(3), None);
        assert_eq!(&bytes[..6], b"\x09\x00\x03new");
    }

    proptest! {
        #[test]
        fn any_bytes_are_parsed_or_refused(bytes: Vec<u8>) {
            if let Ok(fields) = Fields::parse(&bytes) {
                for kind in 0..=255 {
                    fields.find(kind);
                }
            }
        }
    }
}
