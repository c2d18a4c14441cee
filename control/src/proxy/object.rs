//! A JSON object that is changed in a few members and otherwise stays as the very bytes that came.
//!
//! Docker reads keys without regard to case, and the last of several wins. Two keys that it would take for one are
//! refused; only objects that are opened here are looked at, all others are never taken apart.

use std::fmt;

use serde::de::{Deserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// Why JSON is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ObjectError {
    /// No object, or no JSON.
    #[error("its body is not understood: {0}")]
    Malformed(String),
    /// One key twice, or in two spellings.
    #[error("its body has {0:?} twice")]
    Twice(String),
    /// Another type than Docker's.
    #[error("{0} in its body is not what Docker documents")]
    BadType(&'static str),
}

/// The members of an object, in order, as they were written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Object {
    members: Vec<(String, String)>,
}

struct Members;

impl<'de> Visitor<'de> for Members {
    type Value = Object;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object, A::Error> {
        let mut members = Vec::new();
        while let Some((key, value)) = map.next_entry::<String, &RawValue>()? {
            members.push((key, value.get().to_owned()));
        }
        Ok(Object { members })
    }
}

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Members)
    }
}

impl Object {
    /// Reads an object.
    ///
    /// # Errors
    /// [`ObjectError`] if it is none, or has a key twice.
    pub fn parse(text: &str) -> Result<Self, ObjectError> {
        let object: Self = serde_json::from_str(text).map_err(|error| malformed(&error))?;
        let mut seen: Vec<String> = object.members.iter().map(|(key, _)| folded(key)).collect();
        seen.sort_unstable();
        if let Some(twice) = seen.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(ObjectError::Twice(twice[0].clone()));
        }
        Ok(object)
    }

    /// The JSON of a member; `None` if it is missing or `null`, which is the same to Docker.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        let value = &self.members.iter().find(|(key, _)| is_key(key, name))?.1;
        Some(value.as_str()).filter(|value| *value != "null")
    }

    /// A member read as a type.
    ///
    /// # Errors
    /// [`ObjectError::BadType`].
    pub fn read<'a, T: Deserialize<'a>>(
        &'a self,
        name: &'static str,
    ) -> Result<Option<T>, ObjectError> {
        let read = self.get(name).map(serde_json::from_str).transpose();
        read.map_err(|_| ObjectError::BadType(name))
    }

    /// A member that is an object; an empty one if it is missing.
    ///
    /// # Errors
    /// [`ObjectError`].
    pub fn object(&self, name: &'static str) -> Result<Self, ObjectError> {
        self.get(name)
            .map_or_else(|| Ok(Self::default()), Self::parse)
    }

    /// A list of strings, which Docker also takes as one string.
    ///
    /// # Errors
    /// [`ObjectError::BadType`].
    pub fn strings(&self, name: &'static str) -> Result<Option<Vec<String>>, ObjectError> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Strings {
            One(String),
            Many(Vec<String>),
        }
        Ok(self.read(name)?.map(|strings| match strings {
            Strings::One(one) => vec![one],
            Strings::Many(many) => many,
        }))
    }

    /// Puts a value in the place of a member, or at the end.
    ///
    /// # Errors
    /// [`ObjectError::BadType`] for a value that has no JSON.
    pub fn set(&mut self, name: &'static str, value: &impl Serialize) -> Result<(), ObjectError> {
        let value = serde_json::to_string(value).map_err(|_| ObjectError::BadType(name))?;
        self.set_json(name, value);
        Ok(())
    }

    /// The same with an object.
    pub fn set_object(&mut self, name: &str, value: &Self) {
        self.set_json(name, value.to_json());
    }

    fn set_json(&mut self, name: &str, json: String) {
        match self.members.iter_mut().find(|(key, _)| is_key(key, name)) {
            Some((_, value)) => *value = json,
            None => self.members.push((name.to_owned(), json)),
        }
    }

    /// The whole object.
    #[must_use]
    pub fn to_json(&self) -> String {
        let members = self.members.iter().map(|(key, value)| {
            // A string always has JSON.
            let key = serde_json::Value::from(key.as_str()).to_string();
            format!("{key}:{value}")
        });
        format!("{{{}}}", members.collect::<Vec<_>>().join(","))
    }
}

fn malformed(error: &serde_json::Error) -> ObjectError {
    ObjectError::Malformed(error.to_string())
}

/// Whether Docker takes a key for a name of its own.
fn is_key(key: &str, name: &str) -> bool {
    folded(key) == folded(name)
}

/// A key as Go's decoder compares it: two letters outside of ASCII fold to ASCII.
fn folded(key: &str) -> String {
    let fold = |letter| match letter {
        '\u{17f}' => 's',
        '\u{212a}' => 'k',
        other => other.to_ascii_lowercase(),
    };
    key.chars().map(fold).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_changed_stays_as_it_was_written() {
        let text = r#"{ "A" : 1.0e+07 , "HostConfig": {"Memory":9007199254740993, "x":[ 1,  2 ]},"b":{"c":1,"c":2},"é":"ÿ"}"#;
        let mut object = Object::parse(text).unwrap();
        assert_eq!(object.get("a"), Some("1.0e+07"));
        object.set("a", &"x").unwrap();
        object.set("New", &["y"]).unwrap();

        assert_eq!(
            object.to_json(),
            r#"{"A":"x","HostConfig":{"Memory":9007199254740993, "x":[ 1,  2 ]},"b":{"c":1,"c":2},"é":"ÿ","New":["y"]}"#
        );
    }

    #[test]
    fn keys_are_found_as_docker_finds_them() {
        let object =
            Object::parse("{\"ho\u{17f}tconfig\":{\"networ\u{212a}mode\":\"none\"},\"Cmd\":null}");
        let object = object.unwrap();
        let inner = object.object("HostConfig").unwrap();
        assert_eq!(inner.read("NetworkMode").unwrap(), Some("none".to_owned()));
        assert_eq!(object.get("Cmd"), None);
        assert_eq!(object.object("Nothing").unwrap(), Object::default());
    }

    #[test]
    fn keys_that_docker_takes_for_one_are_refused() {
        for (text, key) in [
            (r#"{"a":1,"a":1}"#, "a"),
            (r#"{"HostConfig":{},"hostconfig":{}}"#, "hostconfig"),
            (r#"{"a":1,"\u0061":2}"#, "a"),
            ("{\"\u{212a}\":1,\"k\":2}", "k"),
        ] {
            assert_eq!(Object::parse(text), Err(ObjectError::Twice(key.to_owned())));
        }
        for text in ["", "[]", "1", "{", "{} x", r#"{"a":}"#, "{\"a\":\"\n\"}"] {
            assert!(
                matches!(Object::parse(text), Err(ObjectError::Malformed(_))),
                "{text}"
            );
        }
    }

    #[test]
    fn a_list_of_strings_may_be_one_string() {
        let object = Object::parse(r#"{"a":"x","b":["x","y"],"c":1,"d":[1]}"#).unwrap();
        assert_eq!(object.strings("a").unwrap(), Some(vec!["x".to_owned()]));
        assert_eq!(object.strings("b").unwrap().unwrap().len(), 2);
        assert_eq!(object.strings("e").unwrap(), None);
        for name in ["c", "d"] {
            assert_eq!(object.strings(name), Err(ObjectError::BadType(name)));
        }
    }
}
