//! Any text as the name of a container: refused in words, or one that is safe in a path and in a request.

#![no_main]

use std::path::Component;

use libfuzzer_sys::fuzz_target;
use weft_control::driver::container::ContainerRef;

fuzz_target!(|text: &str| {
    match text.parse::<ContainerRef>() {
        Ok(ContainerRef::Docker(name)) => {
            assert_eq!(name, text);
            let good = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
            assert!(!name.is_empty() && name.bytes().all(good));
            assert!(!name.starts_with(['.', '-', '_']));
        }
        Ok(ContainerRef::Named(name)) => {
            let path = std::path::Path::new(&name);
            let mut parts = path.components();
            assert!(matches!(parts.next(), Some(Component::Normal(part)) if part == name.as_str()));
            assert_eq!(parts.next(), None);
        }
        Ok(ContainerRef::Path(path)) => {
            assert!(path.is_absolute());
            assert_eq!(format!("netns:{}", path.display()), text);
        }
        Ok(ContainerRef::Pid(pid)) => assert!(pid > 0),
        Err(error) => {
            assert!(error.is_request_fault(), "{error}");
            assert!(!error.to_string().contains(char::is_control), "{error}");
        }
    }
});
