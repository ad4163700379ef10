//! Requests over TLS and plain HTTP. A server here answers by a closure and records its requests.

use super::*;
use kiln_image::reference::Reference;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};

const CERTIFICATE: &[u8] = include_bytes!("../../../testdata/registry/localhost.crt");
const KEY: &[u8] = include_bytes!("../../../testdata/registry/localhost.key");

/// A request: its first line, and its `Authorization`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen {
    line: String,
    authorization: String,
    body: String,
}

/// Status, headers and body of a response.
type Reply = (u16, Vec<(&'static str, String)>, String);

struct Server {
    url: String,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Server {
    fn http(answer: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Server {
        Server::start("http", answer)
    }

    fn https(answer: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Server {
        Server::start("https", answer)
    }

    fn start(scheme: &'static str, answer: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("{scheme}://localhost:{}", listener.local_addr().unwrap().port());
        let seen: Arc<Mutex<Vec<Seen>>> = Arc::default();
        let (log, answer) = (seen.clone(), Arc::new(answer));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (log, answer) = (log.clone(), answer.clone());
                std::thread::spawn(move || match scheme {
                    "https" => {
                        let connection = rustls::ServerConnection::new(server_config()).unwrap();
                        serve(rustls::StreamOwned::new(connection, stream), &*answer, &log);
                    }
                    _ => serve::<TcpStream>(stream, &*answer, &log),
                });
            }
        });
        Server { url, seen }
    }

    fn authority(&self) -> &str {
        self.url.split("://").nth(1).unwrap()
    }

    fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// True when any request contained credentials of the user.
    fn received_secrets(&self) -> bool {
        self.seen().iter().any(|seen| !seen.authorization.is_empty() || seen.body.contains("refresh_token="))
    }
}

fn server_config() -> Arc<rustls::ServerConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let certificate = CertificateDer::from_pem_slice(CERTIFICATE).unwrap();
    let key = PrivateKeyDer::from_pem_slice(KEY).unwrap();
    let config = rustls::ServerConfig::builder_with_provider(provider);
    let config = config.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
    Arc::new(config.with_single_cert(vec![certificate], key).unwrap())
}

fn serve<S: Read + Write>(stream: S, answer: &dyn Fn(&Seen) -> Reply, log: &Mutex<Vec<Seen>>) {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    if reader.read_line(&mut line).unwrap_or(0) == 0 {
        return;
    }
    let (mut authorization, mut length) = (String::new(), 0);
    loop {
        let mut header = String::new();
        if reader.read_line(&mut header).unwrap_or(0) == 0 || header.trim().is_empty() {
            break;
        }
        let (name, value) = header.trim().split_once(':').unwrap();
        match name.to_ascii_lowercase().as_str() {
            "authorization" => authorization = value.trim().to_owned(),
            "content-length" => length = value.trim().parse().unwrap(),
            _ => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    let body = String::from_utf8(body).unwrap();
    let line = line.trim_end().trim_end_matches(" HTTP/1.1").to_owned();
    let seen = Seen { line, authorization, body };
    log.lock().unwrap().push(seen.clone());
    let (status, headers, body) = answer(&seen);
    let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let length = body.len();
    let text = format!(
        "HTTP/1.1 {status} X\r\nContent-Length: {length}\r\nConnection: close\r\n{headers}\r\n{body}"
    );
    let stream = reader.get_mut();
    // The client may have closed the connection already.
    let _ = stream.write_all(text.as_bytes()).and_then(|()| stream.flush());
}

/// Client that trusts the certificate of the tests, and has credentials for `authority`.
fn client(authority: &str, entry: &str) -> Client {
    let inline = Some(format!(r#"{{"auths":{{"{authority}":{entry}}}}}"#));
    let settings = Settings { keychain: Keychain { inline, ..Keychain::default() }, ..Settings::default() };
    let client = Client::new(&settings).unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(CERTIFICATE).unwrap()).unwrap();
    let transport = client.transport_with(roots);
    assert!(client.secure.set(transport).is_ok());
    client
}

const PASSWORD: &str = r#"{"username":"me","password":"hush"}"#;
const IDENTITY: &str = r#"{"identitytoken":"hush"}"#;

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

/// Requests `path` like a registry's file; returns the status or the error.
fn ask(client: &Client, url: &str) -> Result<u16, RegistryError> {
    let scope = Some("repository:x:pull".to_owned());
    let ask = Ask { url: url.to_owned(), scope, ..Ask::default() };
    run(async { Ok(client.send(&ask).await?.status().as_u16()) })
}

fn ok(body: &str) -> Reply {
    (200, vec![], body.to_owned())
}

fn challenge(realm: &str) -> Reply {
    (401, vec![("WWW-Authenticate", format!(r#"Bearer realm="{realm}",service="s""#))], "{}".to_owned())
}

fn redirect(to: &str) -> Reply {
    (307, vec![("Location", to.to_owned())], String::new())
}

/// Registry that requires a token of `realm`.
fn with_realm(seen: &Seen, realm: &str) -> Reply {
    match seen.authorization.as_str() {
        "Bearer T" => ok("{}"),
        _ => challenge(realm),
    }
}

fn is_insecure(error: &RegistryError, server: &Server) -> bool {
    matches!(error, RegistryError::Insecure { url, .. } if url.starts_with(&server.url))
}

#[test]
fn realms_of_https_registries_are_https() {
    for entry in [PASSWORD, IDENTITY] {
        let plain = Server::http(|_| ok(r#"{"token":"T"}"#));
        let realm = format!("{}/token", plain.url);
        let registry = Server::https(move |seen| with_realm(seen, &realm));
        let error = ask(&client(registry.authority(), entry), &registry.url).unwrap_err();
        assert!(is_insecure(&error, &plain), "{error}");
        assert_eq!(plain.seen(), []);

        let token = Server::https(|_| ok(r#"{"token":"T"}"#));
        let realm = format!("{}/token", token.url);
        let registry = Server::https(move |seen| with_realm(seen, &realm));
        assert_eq!(ask(&client(registry.authority(), entry), &registry.url).unwrap(), 200);
        assert!(token.received_secrets());
    }
}

#[test]
fn token_servers_over_http_are_on_the_host_of_the_registry() {
    let token = Server::http(|_| ok(r#"{"token":"T"}"#));
    let realm = format!("{}/token", token.url.replace("localhost", "127.0.0.1"));
    let registry = Server::http(move |seen| with_realm(seen, &realm));
    assert_eq!(ask(&client(registry.authority(), PASSWORD), &registry.url).unwrap(), 200);
    assert!(token.received_secrets());

    let registry = Server::http(|seen| with_realm(seen, "http://token.invalid/"));
    let error = ask(&client(registry.authority(), PASSWORD), &registry.url).unwrap_err();
    assert!(matches!(error, RegistryError::Insecure { .. }), "{error}");
}

#[test]
fn redirects_carry_no_credentials() {
    type Start = fn(Box<dyn Fn(&Seen) -> Reply + Send + Sync>) -> Server;
    let schemes: [Start; 2] = [|answer| Server::http(answer), |answer| Server::https(answer)];
    for start in schemes {
        let other = start(Box::new(|seen| match seen.line.contains("wants") {
            true => (401, vec![("WWW-Authenticate", "Basic realm=x".to_owned())], String::new()),
            false => ok("{}"),
        }));
        let target = other.url.clone();
        let registry = start(Box::new(move |seen| match seen.authorization.as_str() {
            "" => (401, vec![("WWW-Authenticate", "Basic realm=x".to_owned())], String::new()),
            _ => redirect(&format!("{target}{}", seen.line.split(' ').nth(1).unwrap())),
        }));
        let client = client(registry.authority(), PASSWORD);
        assert_eq!(ask(&client, &format!("{}/blob", registry.url)).unwrap(), 200);
        assert_eq!(ask(&client, &format!("{}/wants", registry.url)).unwrap(), 401);
        assert!(other.seen().len() >= 2 && !other.received_secrets(), "{:?}", other.seen());
        assert!(registry.received_secrets());
    }
}

#[test]
fn redirects_back_to_the_origin_carry_no_credentials() {
    let home: Arc<OnceLock<String>> = Arc::default();
    let back = home.clone();
    let other = Server::https(move |_| redirect(&format!("{}/back", back.get().unwrap())));
    let target = other.url.clone();
    let registry = Server::https(move |seen| match (seen.line.as_str(), seen.authorization.as_str()) {
        ("GET /back", "") => ok("{}"),
        (_, "") => (401, vec![("WWW-Authenticate", "Basic realm=x".to_owned())], String::new()),
        ("GET /back", _) => (500, vec![], String::new()),
        _ => redirect(&target),
    });
    home.set(registry.url.clone()).unwrap();
    let client = client(registry.authority(), PASSWORD);
    assert_eq!(ask(&client, &format!("{}/blob", registry.url)).unwrap(), 200);
}

#[test]
fn redirects_from_https_to_http_are_refused() {
    let plain = Server::http(|_| ok("{}"));
    let target = plain.url.clone();
    let last = Server::https(move |_| redirect(&format!("{target}/x")));
    let target = last.url.clone();
    let registry = Server::https(move |_| redirect(&target));
    let error = ask(&client("none", PASSWORD), &registry.url).unwrap_err();
    assert!(is_insecure(&error, &plain), "{error}");
    assert_eq!(plain.seen(), []);
}

#[test]
fn challenges_of_web_servers_are_not_answered() {
    let server =
        Server::http(|_| (401, vec![("WWW-Authenticate", "Basic realm=x".to_owned())], String::new()));
    let client = client(server.authority(), PASSWORD);
    let ask = Ask { url: server.url.clone(), ..Ask::default() };
    assert_eq!(run(client.send(&ask)).unwrap().status(), 401);
    assert!(!server.received_secrets());
}

/// Pushes an image without layers.
fn push(client: &Client, registry: &Server) -> Result<(), RegistryError> {
    let directory = tempfile::tempdir().unwrap();
    let store = kiln_image::store::Store::open(directory.path()).unwrap();
    let endpoint = crate::Endpoint {
        scheme: if registry.url.starts_with("https") { "https" } else { "http" },
        authority: registry.authority().to_owned(),
        mirror_of: None,
    };
    let reference: Reference = "localhost:1/x:1".parse().unwrap();
    let image = kiln_image::archive::PackedImage {
        config: b"{}".to_vec(),
        manifest: b"{}".to_vec(),
        media_type: "m".to_owned(),
        layers: vec![],
        platform: kiln_image::platform::Platform::host(),
    };
    let request =
        crate::PushRequest { reference: &reference, images: &[image], index: None, by_digest: false };
    run(crate::push::push(client, &endpoint, &store, &request, &|_| {})).map(|_| ())
}

#[test]
fn uploads_stay_on_https_and_send_credentials_to_the_registry_only() {
    let answer = |seen: &Seen, location: &str, is_taken: bool| match seen.line.split(' ').next() {
        _ if seen.authorization.is_empty() => {
            (401, vec![("WWW-Authenticate", "Basic realm=x".to_owned())], String::new())
        }
        Some("HEAD") if !is_taken => (404, vec![], String::new()),
        Some("HEAD") => (200, vec![], "{}".to_owned()),
        Some("POST") => (202, vec![("Location", location.to_owned())], String::new()),
        _ => (201, vec![], String::new()),
    };
    let plain = Server::http(|_| (201, vec![], String::new()));
    let location = format!("{}/up", plain.url);
    let registry = Server::https(move |seen| answer(seen, &location, false));
    let error = push(&client(registry.authority(), PASSWORD), &registry).unwrap_err();
    assert!(is_insecure(&error, &plain), "{error}");
    assert_eq!(plain.seen(), []);

    let other = Server::https(|_| (201, vec![], String::new()));
    let location = format!("{}/up", other.url);
    let taken = other.seen.clone();
    let registry = Server::https(move |seen| answer(seen, &location, !taken.lock().unwrap().is_empty()));
    push(&client(registry.authority(), PASSWORD), &registry).unwrap();
    assert_eq!(other.seen().len(), 1);
    assert!(!other.received_secrets());
}

#[test]
fn failures_have_the_message_of_the_registry() {
    let not_found = StatusCode::NOT_FOUND;
    assert_eq!(error_text(br#"{"errors":[{"code":"X","message":"no"},{"code":"Y"}]}"#, not_found), "no; Y");
    assert_eq!(error_text(b"plain words\nmore", not_found), "plain words");
    assert_eq!(error_text(b"<html>", not_found), "Not Found");
}

#[test]
fn requests_to_token_servers_are_retried() {
    for (status, expected) in [(503, 200), (429, 200), (403, 0)] {
        let asked = std::sync::atomic::AtomicUsize::new(0);
        let token = Server::http(move |_| match asked.fetch_add(1, std::sync::atomic::Ordering::SeqCst) {
            0 => (status, vec![("Retry-After", "0".to_owned())], "upstream connect error".to_owned()),
            _ => ok(r#"{"token":"T"}"#),
        });
        let realm = format!("{}/token", token.url);
        let registry = Server::http(move |seen| with_realm(seen, &realm));
        let outcome = ask(&client("none", PASSWORD), &registry.url);
        match expected {
            0 => assert!(matches!(outcome, Err(RegistryError::Auth(AuthError::Token(..)))), "{outcome:?}"),
            expected => assert_eq!(outcome.unwrap(), expected),
        }
    }
}

/// Server that accepts connections, sends `text`, and then neither reads nor writes.
fn silent(text: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let authority = format!("localhost:{}", listener.local_addr().unwrap().port());
    std::thread::spawn(move || {
        let mut held = Vec::new();
        for mut stream in listener.incoming().flatten() {
            let _ = stream.read(&mut [0]).and_then(|_| stream.write_all(text.as_bytes()));
            held.push(stream);
        }
    });
    authority
}

#[test]
fn silent_servers_end_every_exchange() {
    let client = Client { patience: Duration::from_millis(200), ..client("none", PASSWORD) };
    let head = "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc";
    let attempt = |url: String, body: Bytes| {
        let method = if body.is_empty() { Method::GET } else { Method::PUT };
        let ask = Ask { url, method, body, ..Ask::default() };
        let begun = std::time::Instant::now();
        let error = run(client.read(&ask, 1000)).unwrap_err();
        assert!(begun.elapsed() < Duration::from_secs(20), "{error}");
        error
    };
    let handshake = attempt(format!("https://{}", silent("")), Bytes::new());
    let headers = attempt(format!("http://{}", silent("HTTP/1.1 200 OK\r\nX: ")), Bytes::new());
    let upload = attempt(format!("http://{}", silent("")), Bytes::from(vec![0; 64 << 20]));
    for error in [handshake, headers, upload] {
        assert!(matches!(&error, RegistryError::Connection { .. }) && error.is_timeout(), "{error:?}");
    }
    let body = attempt(format!("http://{}", silent(head)), Bytes::new());
    assert!(matches!(&body, RegistryError::Incomplete { received: 3, .. }), "{body}");
}

#[test]
fn a_dripping_server_counts_as_silent() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                // An answer before the request is an error of the protocol.
                let _ = std::io::Read::read(&mut stream, &mut [0; 4096]);
                let mut text: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n";
                while stream.write_all(text).is_ok() {
                    text = b"x";
                    std::thread::sleep(Duration::from_millis(20));
                }
            });
        }
    });
    let client = Client { patience: Duration::from_secs(1), ..client("none", PASSWORD) };
    let error = run(client.read(&Ask { url, ..Ask::default() }, 1 << 20)).unwrap_err();
    assert!(matches!(&error, RegistryError::Incomplete { .. }) && error.is_timeout(), "{error:?}");
}

#[test]
fn waits_that_are_too_long_fail_at_once() {
    let limit = |status: u16, after: &'static str| {
        let body =
            r#"{"errors":[{"code":"TOOMANYREQUESTS","message":"You have reached your pull rate limit."}]}"#;
        move |_: &Seen| (status, vec![("Retry-After", after.to_owned())], body.to_owned())
    };
    for (status, after) in [(429, "3600"), (503, "61"), (429, "Fri, 31 Dec 9999 23:59:59 GMT")] {
        let registry = Server::http(limit(status, after));
        let error = ask(&client("none", PASSWORD), &registry.url).unwrap_err();
        let text = error.to_string();
        assert!(matches!(&error, RegistryError::Busy { .. }), "{text}");
        assert!(text.contains("You have reached your pull rate limit. (it asks to wait "), "{text}");
        assert_eq!(registry.seen().len(), 1);

        let token = Server::http(limit(status, after));
        let realm = format!("{}/token", token.url);
        let registry = Server::http(move |seen| with_realm(seen, &realm));
        let error = ask(&client("none", PASSWORD), &registry.url).unwrap_err();
        assert!(matches!(&error, RegistryError::Busy { url, .. } if url.starts_with(&token.url)), "{error}");
        assert_eq!(token.seen().len(), 1);
    }
}

#[test]
fn shorter_waits_are_counted_down_with_the_servers_message() {
    let asked = std::sync::atomic::AtomicUsize::new(0);
    let registry = Server::http(move |_| match asked.fetch_add(1, std::sync::atomic::Ordering::SeqCst) {
        0 => (429, vec![("Retry-After", "2".to_owned())], "slow down".to_owned()),
        _ => ok("{}"),
    });
    let received: Arc<Mutex<Vec<crate::Waiting>>> = Arc::default();
    let log = received.clone();
    let waits = WaitListener::new(move |waiting| log.lock().unwrap().push(waiting.clone()));
    let client = Client { waits, ..client("none", PASSWORD) };
    assert_eq!(ask(&client, &registry.url).unwrap(), 200);
    let received = received.lock().unwrap();
    assert!(
        received.first().is_some_and(|first| first.left == 2 && first.answer == "429: slow down"),
        "{received:?}"
    );
    assert!(
        received.last().is_some_and(|last| last.left == 0 && registry.url.ends_with(&last.server)),
        "{received:?}"
    );
}

#[test]
fn empty_tokens_are_ignored() {
    for (answer, is_good) in [
        (r#"{"token":"","access_token":"T"}"#, true),
        (r#"{"token":"T","access_token":""}"#, true),
        (r#"{"access_token":"T"}"#, true),
        (r#"{"token":"","access_token":""}"#, false),
        (r#"{"token":null}"#, false),
    ] {
        let token = Server::http(move |_| ok(answer));
        let realm = format!("{}/token", token.url);
        let registry = Server::http(move |seen| with_realm(seen, &realm));
        let outcome = ask(&client("none", PASSWORD), &registry.url);
        assert_eq!(outcome.is_ok_and(|status| status == 200), is_good, "{answer}");
    }
}

/// Registry that accepts uploads, answers the last request of one with `done`, and HEAD with what `head` returns for
/// the number of HEAD requests before.
fn uploads(done: Reply, head: impl Fn(usize) -> Reply + Send + Sync + 'static) -> Server {
    let asked = std::sync::atomic::AtomicUsize::new(0);
    Server::http(move |seen| match seen.line.split(' ').next() {
        Some("HEAD") => head(asked.fetch_add(1, std::sync::atomic::Ordering::SeqCst)),
        Some("POST") => (202, vec![("Location", "/v2/x/blobs/uploads/1".to_owned())], String::new()),
        _ if seen.line.contains("/manifests/") => (201, vec![], String::new()),
        _ => done.clone(),
    })
}

fn heads(server: &Server) -> usize {
    server.seen().iter().filter(|seen| seen.line.starts_with("HEAD")).count()
}

#[test]
fn created_blobs_are_not_verified() {
    let digest = kiln_image::digest::Digest::of(b"{}").to_string();
    let missing = |_| (404, vec![], String::new());
    for headers in [vec![], vec![("Docker-Content-Digest", digest)]] {
        let registry = uploads((201, headers, String::new()), missing);
        push(&client("none", PASSWORD), &registry).unwrap();
        assert_eq!(heads(&registry), 1, "before the upload alone");
    }
    let other = kiln_image::digest::Digest::of(b"other").to_string();
    let registry = uploads((201, vec![("Docker-Content-Digest", other)], String::new()), missing);
    let error = push(&client("none", PASSWORD), &registry).unwrap_err();
    assert!(matches!(error, RegistryError::Digest { .. }), "{error}");
}

#[test]
fn unconfirmed_uploads_are_verified_repeatedly() {
    let done = || (200, vec![], String::new());
    // The blob becomes visible late.
    let registry = uploads(done(), |count| match count {
        0..3 => (404, vec![], String::new()),
        _ => (200, vec![], "{}".to_owned()),
    });
    push(&client("none", PASSWORD), &registry).unwrap();
    assert_eq!(heads(&registry), 4);
    // HEAD is forbidden, or redirects to the blob's storage.
    let registry = uploads(done(), |_| (403, vec![], String::new()));
    push(&client("none", PASSWORD), &registry).unwrap();
    let store = Server::http(|_| (403, vec![], String::new()));
    let target = store.url.clone();
    let registry = uploads(done(), move |_| redirect(&target));
    push(&client("none", PASSWORD), &registry).unwrap();
    let registry = uploads(done(), |_| redirect("http://127.0.0.1:1/"));
    push(&client("none", PASSWORD), &registry).unwrap();
}

mod proxied;
