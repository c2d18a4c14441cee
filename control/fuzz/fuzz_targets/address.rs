//! Any text as an address argument: refused in words, or an address that an interface can have.

#![no_main]

use libfuzzer_sys::fuzz_target;
use weft_control::driver::address::{AddressArgument, read_arguments};

fuzz_target!(|text: &str| {
    let arguments: Vec<String> = text.lines().map(str::to_owned).collect();
    for argument in &arguments {
        match argument.parse::<AddressArgument>() {
            Ok(AddressArgument::Explicit(net)) => {
                let ip = net.addr();
                assert!(!ip.is_unspecified() && !ip.is_loopback() && !ip.is_multicast());
                assert_ne!(net.prefix_len(), 0);
                let whole = net.prefix_len() == net.max_prefix_len();
                assert!(whole || ip != net.network());
                assert!(whole || ip.is_ipv6() || ip != net.broadcast());
                assert_eq!(net.to_string().parse(), Ok(AddressArgument::Explicit(net)));
            }
            Ok(AddressArgument::Subnet(net)) => {
                assert_eq!(net, net.trunc());
                assert!(net.prefix_len() + 2 <= net.max_prefix_len());
                assert_eq!(
                    format!("net:{net}").parse(),
                    Ok(AddressArgument::Subnet(net))
                );
            }
            Ok(AddressArgument::DefaultSubnet) => assert_eq!(argument, "net:default"),
            Err(error) => assert!(!error.to_string().is_empty()),
        }
    }
    if let Ok(read) = read_arguments(&arguments) {
        assert_eq!(read.len(), arguments.len().max(1));
    }
});
