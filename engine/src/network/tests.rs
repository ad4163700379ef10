use super::*;

fn create(networks: &Networks, change: impl FnOnce(&mut NetworkOptions)) -> Result<Network, EngineError> {
    let mut options =
        NetworkOptions { name: "web".into(), driver: "bridge".into(), ..NetworkOptions::default() };
    change(&mut options);
    networks.create(&options)
}

fn with_networks(test: impl FnOnce(&Networks)) {
    let dir = tempfile::tempdir().unwrap();
    test(&Networks::open(dir.path()).unwrap());
}

#[test]
fn predefined_networks_are_always_there() {
    with_networks(|networks| {
        let all = networks.list().unwrap();
        let shown: Vec<_> = all.iter().map(|one| (one.name.as_str(), one.driver.name())).collect();
        assert_eq!(shown, [("bridge", "bridge"), ("host", "host"), ("none", "null")]);
        assert_eq!(networks.find(&all[1].id[..12]).unwrap(), all[1]);
        assert_eq!(networks.with_id(""), Some(all[0].clone()));
        assert!(matches!(networks.find("nosuch"), Err(EngineError::NoSuchNetwork(_))));
        assert!(matches!(networks.find(""), Err(EngineError::NoSuchNetwork(_))));
    });
}

#[test]
fn records_are_complete_or_absent() {
    with_networks(|networks| {
        let made = create(networks, |options| {
            options.subnets = vec!["10.251.7.0/24".into(), "fd51:7::/64".into()];
            options.gateways = vec!["10.251.7.9".into(), "fd51:7::1".into()];
            options.ranges = vec!["10.251.7.128/25".into()];
            options.auxiliary = vec!["router=10.251.7.5".into()];
            options.labels = BTreeMap::from([("a".into(), "b".into())]);
        })
        .unwrap();
        assert_eq!(networks.find("web").unwrap(), made);
        assert_eq!(made.bridge(), format!("br-{}", &made.id[..12]));
        let config = made.config(&[]);
        assert_eq!(config.gateway, Some(Ipv4Addr::new(10, 251, 7, 9)));
        assert_eq!(config.reserved, [IpAddr::V4(Ipv4Addr::new(10, 251, 7, 5))]);
        assert!(matches!(create(networks, |_| {}), Err(EngineError::NetworkExists(_))));
        // A damaged record, and a file that a killed process left.
        fs::write(networks.path(&"a".repeat(64)), "{").unwrap();
        fs::write(networks.dir.join(".new-x"), "").unwrap();
        assert_eq!(networks.list().unwrap().len(), 4);
        networks.erase(&made.id).unwrap();
        networks.erase(&made.id).unwrap();
        assert_eq!(networks.with_id(&made.id), None);
    });
}

#[test]
fn networks_have_different_subnets() {
    with_networks(|networks| {
        let subnets: Vec<Subnet> = (0..4)
            .map(|number| create(networks, |options| options.name = format!("n{number}")).unwrap())
            .map(|network| network.ipv4.unwrap().subnet)
            .collect();
        for (at, one) in subnets.iter().enumerate() {
            assert!(!subnets[at + 1..].iter().any(|other| other.overlaps(*one)), "{subnets:?}");
        }
    });
}

#[test]
fn wrong_descriptions_leave_nothing() {
    with_networks(|networks| {
        create(networks, |options| {
            options.name = "taken".into();
            options.subnets = vec!["10.251.0.0/16".into()];
            options.options = BTreeMap::from([(BRIDGE_NAME.into(), "br-kt-taken".into())]);
        })
        .unwrap();
        let check = |expected: &str, change: &dyn Fn(&mut NetworkOptions)| {
            let error = create(networks, change).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
            assert_eq!(networks.list().unwrap().len(), 4, "{error}");
        };
        let list = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        for (expected, subnets) in [
            ("`x` is no subnet", &["x"][..]),
            ("invalid subnet 10.1.2.3/24: it should be 10.1.2.0/24", &["10.1.2.3/24"]),
            ("it has no room for a gateway", &["10.1.0.0/31"]),
            ("its addresses are not those of hosts", &["224.0.0.0/24"]),
            ("its addresses are not those of hosts", &["fe80::/64"]),
            ("one subnet of each IP version", &["10.1.0.0/24", "10.2.0.0/24"]),
            (
                "Pool overlaps with other one on this address space: 10.251.3.0/24 with 10.251.0.0/16 of network taken",
                &["10.251.3.0/24"],
            ),
            ("its addresses are not those of hosts", &["127.0.0.0/8"]),
            ("has fewer addresses than 10.1.0.0/16", &["10.1.0.0/16", "fd51::/120"]),
        ] {
            check(expected, &|options| options.subnets = list(subnets));
        }
        let subnet = |options: &mut NetworkOptions| options.subnets = list(&["10.1.0.0/24"]);
        check("no matching subnet for gateway 10.9.0.1", &|options| {
            subnet(options);
            options.gateways = list(&["10.9.0.1"]);
        });
        check("which no host can have", &|options| {
            subnet(options);
            options.gateways = list(&["10.1.0.255"]);
        });
        check("no matching subnet for range 10.2.0.0/25", &|options| {
            subnet(options);
            options.ranges = list(&["10.2.0.0/25"]);
        });
        check("no matching subnet for aux-address 10.2.0.1", &|options| {
            subnet(options);
            options.auxiliary = list(&["a=10.2.0.1"]);
        });
        check("no matching subnet for gateway", &|options| options.gateways = list(&["10.1.0.1"]));
        for (expected, name, value) in [
            ("1 to 15 characters", BRIDGE_NAME, "br-0123456789012"),
            ("cannot be an interface's name", BRIDGE_NAME, "a/b"),
            ("network with name taken already has the bridge", BRIDGE_NAME, "br-kt-taken"),
            ("network with name bridge already has the bridge", BRIDGE_NAME, "kiln0"),
            ("has a network device `lo` already", BRIDGE_NAME, "lo"),
            ("from 68 to 65535", MTU, "9"),
            ("true or false", ICC, "maybe"),
            ("is not supported: known are", "com.example", "1"),
        ] {
            check(expected, &|options| options.options = BTreeMap::from([(name.into(), value.into())]));
        }
        check("is not permitted on predefined host network", &|options| options.name = "host".into());
        check("invalid network name", &|options| options.name = "a/b".into());
        check("only one instance of \"host\" network", &|options| options.driver = "host".into());
        let macvlan = |options: &mut NetworkOptions, parent: &str| {
            options.driver = "macvlan".into();
            options.options = BTreeMap::from([(PARENT.into(), parent.into())]);
        };
        check("needs a network device", &|options| options.driver = "macvlan".into());
        check("needs --subnet", &|options| macvlan(options, "eth0"));
        for device in ["nosuch", "lo", "", "a/b", "0123456789abcdef"] {
            check("-o parent interface does not exist on the host", &|options| {
                subnet(options);
                macvlan(options, device);
            });
        }
        check("no swarms", &|options| options.driver = "overlay".into());
    });
}
