//! Any method and body that Docker could send to the network plugin: one call, or one refusal; a pool is its own memory.

#![no_main]

use libfuzzer_sys::fuzz_target;
use weft_control::plugin::{Call, Pool, Scope, pool_answer, read};

fuzz_target!(|bytes: &[u8]| {
    let end = bytes.iter().position(|byte| *byte == b'\n');
    let (method, body) = bytes.split_at(end.unwrap_or(bytes.len()));
    let Ok(method) = std::str::from_utf8(method) else {
        return;
    };
    for scope in [Scope::Local, Scope::Global] {
        match read(scope, method, body) {
            Err(error) => {
                assert!([400, 404, 500].contains(&error.status()));
                assert!(error.body()["Err"].is_string());
            }
            Ok(Call::RequestPool { chosen: Some(pool) }) => {
                assert!(pool.subnet().contains(&pool.range()));
                let id = pool_answer(pool)["PoolID"].to_string();
                let id: Pool = id.trim_matches('"').parse().expect("our own id");
                assert_eq!(id, pool);
            }
            Ok(Call::RequestAddress {
                pool,
                address: Some(address),
            }) => assert!(pool.subnet().contains(&address)),
            Ok(Call::CreateEndpoint { endpoint, .. } | Call::DeleteEndpoint { endpoint }) => {
                assert!(!endpoint.is_empty() && !endpoint.contains([' ', '/', '\n']));
            }
            Ok(Call::Join { sandbox, .. }) => assert!(sandbox.starts_with('/')),
            Ok(_) => {}
        }
    }
});
