//! Requests through proxies of each kind, on the loopback interface.

use super::*;
use crate::proxy::ProxyFault;
use std::io::copy;

/// Requests to a proxy: the first line and `Proxy-Authorization`; for SOCKS host and port, and user and password.
type Asked = Arc<Mutex<Vec<(String, String)>>>;

/// Proxy that connects every client to `server`, with a thread for each connection.
struct Tunnel {
    address: String,
    asked: Asked,
}

impl Tunnel {
    fn start(answer: impl Fn(&mut TcpStream, &Asked) -> Option<String> + Send + Sync + 'static) -> Tunnel {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let asked = Asked::default();
        let (log, answer) = (asked.clone(), Arc::new(answer));
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let (log, answer) = (log.clone(), answer.clone());
                std::thread::spawn(move || {
                    if let Some(server) = answer(&mut stream, &log) {
                        join(&stream, &TcpStream::connect(server).unwrap());
                    }
                });
            }
        });
        Tunnel { address, asked }
    }

    /// HTTP proxy that answers `CONNECT` with `answer`.
    fn http(answer: &'static str, server: &Server) -> Tunnel {
        let server = server.authority().replace("localhost", "127.0.0.1");
        Tunnel::start(move |stream, log| {
            log.lock().unwrap().push(head(stream));
            stream.write_all(answer.as_bytes()).unwrap();
            answer.contains(" 200 ").then(|| server.clone())
        })
    }

    /// SOCKS proxy that requires user and password when `wants_user`, and answers requests with `code`.
    fn socks(wants_user: bool, code: u8, server: &Server) -> Tunnel {
        let server = server.authority().replace("localhost", "127.0.0.1");
        Tunnel::start(move |stream, log| {
            let method = if wants_user { 2 } else { 0 };
            let count = take(stream, 2)[1];
            if !take(stream, count.into()).contains(&method) {
                stream.write_all(&[5, 0xff]).unwrap();
                return None;
            }
            stream.write_all(&[5, method]).unwrap();
            let mut user = String::new();
            if wants_user {
                let length = take(stream, 2)[1];
                user = text(take(stream, length.into()));
                let length = take(stream, 1)[0];
                user = format!("{user}:{}", text(take(stream, length.into())));
                stream.write_all(&[1, u8::from(!user.ends_with(":hush"))]).unwrap();
            }
            let request = take(stream, 5);
            let host = text(take(stream, request[4].into()));
            let port = take(stream, 2);
            let port = u16::from_be_bytes([port[0], port[1]]);
            log.lock().unwrap().push((format!("{host}:{port}"), user));
            stream.write_all(&[5, code, 0, 1, 0, 0, 0, 0, 0, 0]).unwrap();
            (code == 0).then(|| server.clone())
        })
    }

    fn asked(&self) -> Vec<(String, String)> {
        self.asked.lock().unwrap().clone()
    }
}

fn take(stream: &mut TcpStream, count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    // A client that closed the connection sends zeros.
    let _ = stream.read_exact(&mut bytes);
    bytes
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap()
}

/// Reads the head of a request.
fn head(stream: &mut TcpStream) -> (String, String) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.extend(take(stream, 1));
    }
    let head = text(head);
    let header = head.lines().find_map(|line| line.strip_prefix("Proxy-Authorization: "));
    (head.lines().next().unwrap().to_owned(), header.unwrap_or_default().to_owned())
}

fn join(one: &TcpStream, other: &TcpStream) {
    std::thread::scope(|scope| {
        for (from, to) in [(one, other), (other, one)] {
            scope.spawn(move || {
                let (mut from, mut to) = (from, to);
                let _ = copy(&mut from, &mut to);
                let _ = to.shutdown(std::net::Shutdown::Write);
            });
        }
    });
}

fn proxied(client: Client, variables: &[(&str, String)]) -> Client {
    let get = |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| value.clone());
    let client = Client { proxies: Proxies::from_environment(get), secure: OnceLock::new(), ..client };
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(CERTIFICATE).unwrap()).unwrap();
    let transport = client.transport_with(roots);
    assert!(client.secure.set(transport).is_ok());
    client
}

/// Requests an address of a host that only the proxy can resolve.
fn through(variable: &str, proxy: String, url: &str) -> Result<u16, RegistryError> {
    ask(&proxied(client("none", PASSWORD), &[(variable, proxy)]), url)
}

fn fault(outcome: Result<u16, RegistryError>) -> ProxyFault {
    match outcome {
        Err(RegistryError::Proxy { source, .. }) => source.fault,
        other => panic!("{other:?}"),
    }
}

const URL: &str = "https://registry.test:8443/v2/";

#[test]
fn https_goes_through_a_tunnel() {
    let server = Server::https(|_| ok("{}"));
    let proxy = Tunnel::http("HTTP/1.1 200 Connection established\r\nVia: x\r\n\r\n", &server);
    assert_eq!(through("HTTPS_PROXY", format!("http://me:hu%73h@{}", proxy.address), URL).unwrap(), 200);
    let (line, authorization) = proxy.asked().remove(0);
    assert_eq!(line, "CONNECT registry.test:8443 HTTP/1.1");
    assert_eq!(authorization, auth::basic("me", "hush"));
    // Requests within the tunnel have no headers for the proxy.
    assert_eq!(server.seen()[0].line, "GET /v2/");
}

#[test]
fn socks_proxies_resolve_the_host() {
    let server = Server::https(|_| ok("{}"));
    let plain = Tunnel::socks(false, 0, &server);
    assert_eq!(through("all_proxy", format!("socks5h://{}", plain.address), URL).unwrap(), 200);
    assert_eq!(plain.asked(), [("registry.test:8443".to_owned(), String::new())]);
    let named = Tunnel::socks(true, 0, &server);
    assert_eq!(through("HTTPS_PROXY", format!("socks5://me:hush@{}", named.address), URL).unwrap(), 200);
    assert_eq!(named.asked()[0].1, "me:hush");
    let wrong = through("HTTPS_PROXY", format!("socks5://me:no@{}", named.address), URL);
    assert_eq!(fault(wrong), ProxyFault::Authentication(true));
    let none = through("HTTPS_PROXY", format!("socks5://{}", named.address), URL);
    assert_eq!(fault(none), ProxyFault::Authentication(false));
    let refusing = Tunnel::socks(false, 2, &server);
    let refused = through("HTTPS_PROXY", format!("socks5://{}", refusing.address), URL);
    assert!(matches!(fault(refused), ProxyFault::Refused { reason, .. } if reason.contains("rules")));
}

#[test]
fn plain_http_requests_go_to_the_proxy_whole() {
    let proxy = Server::http(|seen| match seen.line.contains("wants") {
        true => (407, vec![("Proxy-Authenticate", "Basic realm=x".to_owned())], String::new()),
        false => ok("{}"),
    });
    let address = || format!("http://{}", proxy.authority());
    assert_eq!(through("http_proxy", address(), "http://files.test/a?b").unwrap(), 200);
    assert_eq!(proxy.seen()[0].line, "GET http://files.test/a?b");
    let wants = through("http_proxy", address(), "http://files.test/wants");
    assert_eq!(fault(wants), ProxyFault::Authentication(false));
    // The connection to the proxy itself uses TLS.
    let secure = Server::https(|_| ok("{}"));
    assert_eq!(through("HTTP_PROXY", secure.url.clone(), "http://files.test/").unwrap(), 200);
    assert_eq!(secure.seen()[0].line, "GET http://files.test/");
}

#[test]
fn failures_of_proxies_name_the_proxy() {
    let server = Server::https(|_| ok("{}"));
    let check = |answer: &'static str, user: &str| {
        let proxy = Tunnel::http(answer, &server);
        fault(through("HTTPS_PROXY", format!("{user}{}", proxy.address), URL))
    };
    let refused = |status: u16, reason: &str| ProxyFault::Refused {
        target: "registry.test:8443".to_owned(),
        status,
        reason: reason.to_owned(),
    };
    assert_eq!(
        check("HTTP/1.1 407 Proxy Authentication Required\r\n\r\n", ""),
        ProxyFault::Authentication(false)
    );
    assert_eq!(check("HTTP/1.1 407 x\r\n\r\n", "me:no@"), ProxyFault::Authentication(true));
    assert_eq!(check("HTTP/1.0 403 Forbidden\r\nX: y\r\n\r\n<html>", ""), refused(403, "403 Forbidden"));
    assert_eq!(check("HTTP/1.1 502 Bad Gateway\r\n\r\n", ""), refused(502, "502 Bad Gateway"));
    assert!(matches!(check("SSH-2.0-x\r\n\r\n", ""), ProxyFault::Malformed(_)));
    assert!(matches!(check("", ""), ProxyFault::Malformed(_)));
    let unreachable = through("HTTPS_PROXY", "http://me:hush@127.0.0.1:1".to_owned(), URL).unwrap_err();
    let source = std::error::Error::source(&unreachable).unwrap().to_string();
    assert!(
        source.starts_with("the proxy http://127.0.0.1:1 that HTTPS_PROXY names cannot be reached: "),
        "{source}"
    );
    assert!(source.contains("refused") && !source.contains("hush"), "{source}");
    let invalid = fault(through("HTTPS_PROXY", "ftp://p".to_owned(), URL));
    assert!(matches!(invalid, ProxyFault::Invalid(_)));
    let silent = Client { patience: Duration::from_millis(200), ..client("none", PASSWORD) };
    let silent = proxied(silent, &[("HTTPS_PROXY", silent_address())]);
    assert!(matches!(fault(ask(&silent, URL)), ProxyFault::Silent(_)));
}

/// Proxy that accepts connections and sends nothing.
fn silent_address() -> String {
    super::silent("")
}

#[test]
fn exceptions_and_loopback_bypass_the_proxy() {
    let server = Server::http(|_| ok("{}"));
    let proxy = Server::http(|_| ok("{}"));
    let variables = [("HTTP_PROXY", proxy.url.clone()), ("NO_PROXY", "free.invalid".to_owned())];
    let client = proxied(client("none", PASSWORD), &variables);
    assert_eq!(ask(&client, &server.url).unwrap(), 200);
    assert!(ask(&client, "http://sub.free.invalid/").is_err());
    assert_eq!(proxy.seen(), []);
    assert_eq!(ask(&client, "http://other.invalid/").unwrap(), 200);
    assert_eq!(proxy.seen().len(), 1);
}
