//! What Docker sends, as it sends it, and what it is answered.

use super::*;

fn ok(method: &str, body: &str) -> Call {
    read(Scope::Local, method, body.as_bytes()).unwrap()
}

fn refused(method: &str, body: &str) -> (u16, String) {
    let error = read(Scope::Local, method, body.as_bytes()).unwrap_err();
    (error.status(), error.to_string())
}

fn pool(text: &str) -> Pool {
    text.parse().unwrap()
}

#[test]
fn the_two_drivers_say_what_they_do() {
    let said = |scope, method| {
        let Call::Fixed(said) = read(scope, method, b"").unwrap() else {
            panic!("{method} needs no look at anything")
        };
        said.to_string()
    };
    assert_eq!(
        said(Scope::Local, "Plugin.Activate"),
        r#"{"Implements":["NetworkDriver","IpamDriver"]}"#
    );
    assert_eq!(
        said(Scope::Global, "Plugin.Activate"),
        r#"{"Implements":["NetworkDriver"]}"#
    );
    let scope = said(Scope::Global, "NetworkDriver.GetCapabilities");
    assert!(scope.contains(r#""Scope":"global""#), "{scope}");
    let error = read(Scope::Global, "IpamDriver.RequestPool", b"{}").unwrap_err();
    assert_eq!(error.status(), 404, "no addresses from the global one");
}

#[test]
fn a_network_may_have_multicast_in_either_spelling() {
    let body = |options: &str| {
        format!(
            r#"{{"NetworkID":"n1","Options":{{"com.docker.network.enable_ipv6":false,
            "com.docker.network.generic":{options}}},"IPv4Data":[],"IPv6Data":[]}}"#
        )
    };
    for (options, wanted) in [
        ("{}", false),
        (r#"{"works.weave.multicast":"true"}"#, true),
        (r#"{"weft.multicast":""}"#, true),
        (r#"{"weft.multicast":"0"}"#, false),
    ] {
        let call = ok("NetworkDriver.CreateNetwork", &body(options));
        assert!(
            matches!(&call, Call::CreateNetwork { network, multicast, .. }
                if network == "n1" && *multicast == wanted),
            "{options}: {call:?}"
        );
    }
    let call = ok("NetworkDriver.CreateNetwork", &body(r#"{"colour":"red"}"#));
    assert!(matches!(call, Call::CreateNetwork { unknown, .. } if unknown == ["colour"]));
    let bad = body(r#"{"weft.multicast":"perhaps"}"#);
    let (status, why) = refused("NetworkDriver.CreateNetwork", &bad);
    assert_eq!(status, 500);
    assert!(why.contains("neither true nor false"), "{why}");
}

#[test]
fn no_address_of_ours_is_set_aside() {
    let body = |space: &str, aux: &str| {
        format!(
            r#"{{"NetworkID":"n1","Options":{{}},"IPv6Data":[],"IPv4Data":[{{"AddressSpace":"{space}",
            "Pool":"10.32.0.0/16","Gateway":"10.32.0.0/16"{aux}}}]}}"#
        )
    };
    let aux = r#","AuxAddresses":{"router":"10.32.0.7/16"}"#;
    let (status, why) = refused("NetworkDriver.CreateNetwork", &body("weftlocal", aux));
    assert!(
        status == 500 && why.contains("leave --aux-address out"),
        "{why}"
    );
    for (space, aux) in [
        ("weftlocal", ""),
        ("weftlocal", r#","AuxAddresses":{}"#),
        ("LocalDefault", aux),
    ] {
        ok("NetworkDriver.CreateNetwork", &body(space, aux));
    }
}

#[test]
fn a_pool_is_its_own_memory() {
    let body = r#"{"AddressSpace":"weftlocal","Pool":"10.32.0.0/16","SubPool":"10.32.1.0/24","Options":{},"V6":false}"#;
    let Call::RequestPool {
        chosen: Some(chosen),
    } = ok("IpamDriver.RequestPool", body)
    else {
        panic!("a pool was chosen")
    };
    assert_eq!(chosen.to_string(), "weft_10.32.0.0/16_10.32.1.0/24");
    assert_eq!(chosen.to_string().parse(), Ok(chosen));
    let said = pool_answer(chosen);
    assert_eq!(said["Pool"], "10.32.0.0/16");
    assert_eq!(said["Data"]["com.docker.network.gateway"], "10.32.0.0/16");

    let none = r#"{"AddressSpace":"weftlocal","Pool":"","SubPool":"","Options":null,"V6":false}"#;
    assert_eq!(
        ok("IpamDriver.RequestPool", none),
        Call::RequestPool { chosen: None }
    );
    for (body, why) in [
        (r#"{"Pool":"","V6":true}"#, "IPv4 addresses only"),
        (
            r#"{"Pool":"10.32.0.0/16","SubPool":"10.33.1.0/24"}"#,
            "not in",
        ),
        (r#"{"SubPool":"10.33.1.0/24"}"#, "needs its --subnet"),
        (r#"{"Pool":"fd00::/64"}"#, "no IPv4 subnet"),
    ] {
        let (status, said) = refused("IpamDriver.RequestPool", body);
        assert!(status == 500 && said.contains(why), "{body}: {said}");
    }
}

#[test]
fn an_address_is_any_or_this_one_or_the_gateways() {
    let of = pool("weft_10.32.0.0/16_10.32.0.0/16");
    let any = r#"{"PoolID":"weft_10.32.0.0/16_10.32.0.0/16","Address":"","Options":null}"#;
    assert_eq!(
        ok("IpamDriver.RequestAddress", any),
        Call::RequestAddress {
            pool: of,
            address: None
        }
    );
    let this = r#"{"PoolID":"weft_10.32.0.0/16_10.32.0.0/16","Address":"10.32.5.6","Options":{}}"#;
    let address = Some(Ipv4Addr::new(10, 32, 5, 6));
    assert_eq!(
        ok("IpamDriver.RequestAddress", this),
        Call::RequestAddress { pool: of, address }
    );
    let gateway = r#"{"PoolID":"weft_10.32.0.0/16_10.32.0.0/16","Address":"",
        "Options":{"RequestAddressType":"com.docker.network.gateway"}}"#;
    assert_eq!(
        ok("IpamDriver.RequestAddress", gateway),
        Call::RequestGateway { pool: of }
    );
    let ours = gateway.replace(r#""Address":"""#, r#""Address":"10.32.0.0""#);
    assert_eq!(
        ok("IpamDriver.RequestAddress", &ours),
        Call::RequestGateway { pool: of }
    );
    let chosen = gateway.replace(r#""Address":"""#, r#""Address":"10.32.0.1""#);
    let (status, why) = refused("IpamDriver.RequestAddress", &chosen);
    assert!(
        status == 500 && why.contains("leave --gateway out"),
        "{why}"
    );
    let free = r#"{"PoolID":"weft_10.32.0.0/16_10.32.0.0/16","Address":"10.32.5.6"}"#;
    assert_eq!(
        ok("IpamDriver.ReleaseAddress", free),
        Call::ReleaseAddress {
            pool: of,
            address: Ipv4Addr::new(10, 32, 5, 6)
        }
    );
    let outside = r#"{"PoolID":"weft_10.32.0.0/16_10.32.0.0/16","Address":"10.99.0.1"}"#;
    assert_eq!(
        refused("IpamDriver.RequestAddress", outside),
        (500, "10.99.0.1 is not in 10.32.0.0/16".to_owned())
    );
}

#[test]
fn an_endpoint_gets_a_mac_unless_it_has_one() {
    let body = r#"{"NetworkID":"n1","EndpointID":"e1","Options":{},"Interface":{"Address":"10.32.0.1/12","AddressIPv6":"","MacAddress":""}}"#;
    let Call::CreateEndpoint {
        endpoint,
        address,
        mac,
    } = ok("NetworkDriver.CreateEndpoint", body)
    else {
        panic!("an endpoint")
    };
    assert_eq!((endpoint.as_str(), mac), ("e1", None));
    assert_eq!(address, Some("10.32.0.1/12".parse().unwrap()));
    let said = endpoint_answer(None, "02:00:00:00:00:01");
    assert_eq!(said["Interface"]["MacAddress"], "02:00:00:00:00:01");

    let own = body.replace(r#""MacAddress":"""#, r#""MacAddress":"02:42:0a:00:00:01""#);
    let call = ok("NetworkDriver.CreateEndpoint", &own);
    let wanted = Some([2, 0x42, 10, 0, 0, 1]);
    assert!(matches!(call, Call::CreateEndpoint { mac, .. } if mac == wanted));
    assert_eq!(endpoint_answer(wanted, "x"), json!({ "Interface": {} }));
}

#[test]
fn a_join_names_the_interface_and_the_routes_through_it() {
    let body = r#"{"NetworkID":"n1","EndpointID":"e1","SandboxKey":"/var/run/docker/netns/0123","Options":{}}"#;
    let call = ok("NetworkDriver.Join", body);
    assert!(matches!(call, Call::Join { sandbox, .. } if sandbox == "/var/run/docker/netns/0123"));
    let said = join_answer("vethwg0", true, Some(Ipv4Addr::new(169, 254, 53, 1)));
    assert_eq!(said["InterfaceName"]["DstPrefix"], "ethwe");
    assert_eq!(said["StaticRoutes"][0]["Destination"], "224.0.0.0/4");
    assert_eq!(said["StaticRoutes"][1]["Destination"], "169.254.53.1/32");
    assert!(said.get("Gateway").is_none());
    assert_eq!(join_answer("v", false, None)["StaticRoutes"], json!([]));
}

#[test]
fn what_is_not_the_protocol_is_told_apart() {
    assert_eq!(refused("NetworkDriver.Fly", "{}").0, 404);
    assert_eq!(refused("../etc/passwd", "").0, 404);
    for (method, body) in [
        ("NetworkDriver.CreateNetwork", ""),
        ("NetworkDriver.CreateNetwork", "[]"),
        ("NetworkDriver.CreateNetwork", r#"{"NetworkID":"a/b"}"#),
        ("NetworkDriver.DeleteNetwork", r#"{"NetworkID":""}"#),
        (
            "NetworkDriver.Join",
            r#"{"NetworkID":"n","EndpointID":"e","SandboxKey":"x"}"#,
        ),
        ("IpamDriver.RequestAddress", r#"{"PoolID":"other"}"#),
        (
            "IpamDriver.ReleaseAddress",
            r#"{"PoolID":"weft_10.32.0.0/16_10.32.0.0/16","Address":"fd00::1"}"#,
        ),
        (
            "IpamDriver.ReleaseAddress",
            r#"{"PoolID":"p","Address":"10.32.0.1"}"#,
        ),
    ] {
        assert_eq!(refused(method, body).0, 400, "{method} {body}");
    }
    let error = read(Scope::Local, "NetworkDriver.Fly", b"").unwrap_err();
    assert_eq!(error.body()["Err"], error.body()["Error"]);
}
