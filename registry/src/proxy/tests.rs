use super::*;

fn proxies(variables: &[(&str, &str)]) -> Proxies {
    let get =
        |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
    Proxies::from_environment(get)
}

/// Proxy for an address, or the message of its error.
fn proxy_of(variables: &[(&str, &str)], url: &str) -> Option<String> {
    let origin = crate::origin::Origin::of(url).unwrap();
    let (host, port) = origin.host_and_port();
    match proxies(variables).of(origin.is_secure(), host, port) {
        Ok(proxy) => proxy.map(|proxy| proxy.to_string()),
        Err(error) => Some(error.to_string()),
    }
}

#[test]
fn the_scheme_chooses_the_variable() {
    let both = [("HTTP_PROXY", "http://a:1"), ("https_proxy", "b:2")];
    assert_eq!(proxy_of(&both, "http://x.test/").as_deref(), Some("http://a:1"));
    assert_eq!(proxy_of(&both, "https://x.test/").as_deref(), Some("http://b:2"));
    assert_eq!(proxy_of(&both[..1], "https://x.test/"), None);
    let cases = [("HTTP_PROXY", "http://a"), ("http_proxy", "http://b"), ("ALL_PROXY", "http://c")];
    assert_eq!(proxy_of(&cases, "http://x.test/").as_deref(), Some("http://a:80"));
    assert_eq!(proxy_of(&cases, "https://x.test/").as_deref(), Some("http://c:80"));
    let empty = [("HTTP_PROXY", ""), ("http_proxy", "b")];
    assert_eq!(proxy_of(&empty, "http://x.test/").as_deref(), Some("http://b:80"));
    assert_eq!(
        proxy_of(&[("all_proxy", "socks5h://s")], "http://x.test/").as_deref(),
        Some("socks5://s:1080")
    );
}

#[test]
fn loopback_bypasses_the_proxy() {
    let set = [("HTTP_PROXY", "p"), ("HTTPS_PROXY", "p")];
    for url in ["http://localhost/", "https://LOCALHOST:5000/", "http://127.1.2.3:80/", "http://[::1]:5000/"]
    {
        assert_eq!(proxy_of(&set, url), None, "{url}");
    }
    for url in ["http://localhost.test/", "http://128.0.0.1/", "http://[::2]/"] {
        assert!(proxy_of(&set, url).is_some(), "{url}");
    }
}

/// The table of Go's own tests (`httpproxy/proxy_test.go`), with further cases.
#[test]
fn exceptions_are_read_as_in_go() {
    let is_used = |exceptions: &str, url: &str| {
        proxy_of(&[("HTTP_PROXY", "p"), ("NO_PROXY", exceptions)], url).is_some()
    };
    let list = "foobar.com, .barbaz.net, 192.168.1.1, 192.168.1.2:81, 192.168.1.3:80, 10.0.0.0/30, 2001:db8::52:0:1, \
                [2001:db8::52:0:2]:443, [2001:db8::52:0:3]:80, 2002:db8:a::45/64, *.star.test, port.test:8080";
    for (host, expected) in [
        ("192.168.1.1", false),
        ("192.168.1.2", true),
        ("192.168.1.2:81", false),
        ("192.168.1.3", false),
        ("192.168.1.4", true),
        ("10.0.0.2", false),
        ("10.0.0.4", true),
        ("[2001:db8::52:0:1]", false),
        ("[2001:db8::52:0:2]", true),
        ("[2001:db8::52:0:3]", false),
        ("[2002:db8:a::123]", false),
        ("[fe80::424b:c8be:1643:a1b6]", true),
        ("barbaz.net", true),
        ("www.barbaz.net", false),
        ("foobar.com", false),
        ("www.foobar.com", false),
        ("FOOBAR.com:81", false),
        ("foofoobar.com", true),
        ("baz.com", true),
        ("star.test", true),
        ("a.star.test", false),
        ("port.test", true),
        ("a.port.test:8080", false),
        ("[::ffff:192.168.1.1]", false),
    ] {
        assert_eq!(is_used(list, &format!("http://{host}/")), expected, "{host}");
    }
    assert!(!is_used("*", "http://any.test/"));
    assert!(!is_used("a.test, *", "http://any.test/"));
    assert!(is_used(":1,,[]", "http://any.test/") && is_used("0.0.0.0/0", "http://any.test/"));
    assert!(!is_used("0.0.0.0/0", "http://9.9.9.9/"));
    // Blanks are not separators.
    assert!(is_used("a.test b.test", "http://b.test/"));
}

#[test]
fn users_are_sent_and_never_printed() {
    let proxy: Proxy = "http://me%40home:p%3Aw%zz@proxy.test:3128/".parse().unwrap();
    assert_eq!(proxy.authorization().unwrap(), format!("Basic {}", STANDARD.encode("me@home:p:w%zz")));
    assert_eq!(proxy.to_string(), "http://proxy.test:3128");
    assert!(!format!("{proxy:?}").contains("p:w"));
    let v6: Proxy = "u@[2001:db8::1]".parse().unwrap();
    assert_eq!((v6.to_string().as_str(), v6.authorization().is_some()), ("http://[2001:db8::1]:80", true));
}

#[test]
fn invalid_proxies_fail_when_they_apply() {
    for (value, reason) in [
        ("ftp://me:hush@p", "its scheme is none of http, https and socks5"),
        ("http://me:hush@p:99999", "its port is not a number up to 65535"),
        ("http://me:hush@", "it has no valid host"),
        ("http://a b", "it has no valid host"),
    ] {
        let set = [("HTTPS_PROXY", value), ("NO_PROXY", "free.test")];
        let expected = format!("the proxy that HTTPS_PROXY names cannot be used: {reason}");
        assert_eq!(proxy_of(&set, "https://x.test/"), Some(expected));
        assert_eq!(proxy_of(&set, "https://free.test/"), None);
        assert_eq!(proxy_of(&set, "http://x.test/"), None);
    }
}

#[test]
fn curl_receives_the_same_rules() {
    let set = [("HTTP_PROXY", "http://p:1"), ("NO_PROXY", "a.test, *.b.test")];
    let get = |name: &str| set.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
    let expected = [
        ("http_proxy", "http://p:1".to_owned()),
        ("no_proxy", "a.test,.b.test,localhost,127.0.0.1,127.0.0.0/8,::1".to_owned()),
    ];
    assert_eq!(variables_for_curl(get), expected);
    assert_eq!(variables_for_curl(|name| (name == "NO_PROXY").then(|| "x".to_owned())), []);
    let all = |name: &str| ["ALL_PROXY", "NO_PROXY"].contains(&name).then(|| "*".to_owned());
    assert_eq!(variables_for_curl(all).last().unwrap().1, "*");
}
