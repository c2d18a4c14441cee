//! Any bytes as what a client of the Docker proxy sends: a request and its body, whole or in parts, judged and rewritten.

#![no_main]

use std::net::Ipv4Addr;

use libfuzzer_sys::fuzz_target;
use weft_control::proxy::body::Body;
use weft_control::proxy::create::{CreateRequest, CreateRules, Creation, Image};
use weft_control::proxy::exec;
use weft_control::proxy::head::{RequestHead, ResponseHead};
use weft_control::proxy::hosts::{addresses_in, with_addresses};
use weft_control::proxy::naming::Naming;
use weft_control::proxy::object::Object;
use weft_control::proxy::route::Call;

fn rules() -> CreateRules {
    CreateRules {
        default_ipalloc: true,
        folder: "/var/lib/weft/wait/route".to_owned(),
        naming: Some(Naming {
            domain: "weave.local".to_owned(),
            server: Ipv4Addr::new(169, 254, 53, 1),
            label: Some("name".to_owned()),
            replacement: None,
        }),
    }
}

/// The data of a body and where it ends, read in steps.
fn read(mut body: Body, bytes: &[u8], step: usize) -> Option<(Vec<u8>, usize)> {
    let (mut data, mut at) = (Vec::new(), 0);
    while at < bytes.len() && !body.is_done() {
        let end = bytes.len().min(at + step);
        let taken = body.advance(&bytes[at..end], |part| data.extend_from_slice(part));
        at += taken.ok()?;
    }
    Some((data, at))
}

fn create(name: &str, body: &[u8]) {
    let Ok(request) = CreateRequest::parse(body) else {
        return;
    };
    let image = Image {
        command: vec!["sh".to_owned()],
        ..Image::default()
    };
    let Ok(Creation::Changed { body, .. }) = request.decide(name, Some(&image), &rules()) else {
        return;
    };
    // What is made is understood again, and once is enough.
    let again = CreateRequest::parse(body.as_bytes()).expect("ours is JSON");
    let Ok(Creation::Changed { body: twice, .. }) = again.decide(name, Some(&image), &rules()) else {
        panic!("a container of ours is none the second time");
    };
    assert_eq!(body, twice);
}

fuzz_target!(|input: (&[u8], usize)| {
    let (bytes, step) = input;
    let step = step % 64 + 1;
    let _ = ResponseHead::parse(bytes, "GET");
    if let Ok(Some(head)) = RequestHead::parse(bytes) {
        let call = Call::of(&head.method, &head.target);
        let rest = &bytes[head.len..];
        let whole = read(head.body, rest, rest.len().max(1));
        assert_eq!(whole, read(head.body, rest, step));
        let made = RequestHead::with_length(bytes, 7).expect("it was one");
        let made = RequestHead::parse(&made).expect("and is one").expect("whole");
        assert_eq!((made.body, made.target), (Body::Length(7), head.target));
        if let (Call::Create { name }, Some((body, _))) = (call, whole) {
            create(&name, &body);
        }
    }
    create("a", bytes);
    let _ = exec::wait_first(bytes);
    if let Ok(text) = std::str::from_utf8(bytes) {
        if let Ok(object) = Object::parse(text) {
            assert_eq!(Object::parse(&object.to_json()), Ok(object));
        }
        let ours = addresses_in(text);
        let written = with_addresses(text, "a", "weave.local", &ours);
        assert_eq!(addresses_in(&written), ours);
    }
});
