//! HTTP client for registries: redirects, retries, tokens.

use crate::Settings;
use crate::auth::{self, AuthError, Challenge};
use crate::error::RegistryError;
use crate::keychain::{Credentials, Keychain};
use crate::origin::{Origin, Purpose, absolute, led_to, trust_realm};
use crate::patience::{DEFAULT_PATIENCE, Download, Upload, incomplete};
use crate::proxy::{Connector, Proxies, ProxyError};
use crate::retry::{MAX_WAIT, WaitListener, is_transient, retry_after};
use http::header::{
    ACCEPT, AUTHORIZATION, LOCATION, PROXY_AUTHORIZATION, RANGE, USER_AGENT, WWW_AUTHENTICATE,
};
use http::{HeaderName, Method, Request, Response, StatusCode};
use hyper::body::Bytes;
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client as HyperClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use serde::Deserialize;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;
use tracing::debug;

/// Number of attempts for a request that fails with a transient error.
const TRIES: u32 = 5;
/// Number of attempts for a connection and for a silent server, which rarely recover within seconds.
const CONNECT_TRIES: u32 = 2;
/// Wait before the second attempt; doubled for each further one.
const FIRST_WAIT: Duration = Duration::from_millis(500);
const MAX_REDIRECTS: u32 = 5;
/// Longest wait for a connection; shorter when the patience is shorter.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);
/// Longest error text that is read from a response, in bytes.
const MAX_ERROR_TEXT: usize = 1 << 16;
/// Longest response of a token server, in bytes.
const MAX_TOKEN: usize = 1 << 20;

type Tokens = HashMap<(Origin, String), String>;
type Transport = HyperClient<HttpsConnector<Connector>, Upload>;

/// HTTP client for registries.
pub struct Client {
    plain: OnceLock<Transport>,
    secure: OnceLock<Transport>,
    keychain: Keychain,
    user_agent: String,
    patience: Duration,
    proxies: Proxies,
    waits: WaitListener,
    /// `Authorization` headers by origin and scope.
    tokens: Mutex<Tokens>,
}

/// A request that may be sent several times.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ask {
    pub(crate) method: Method,
    pub(crate) url: String,
    pub(crate) accept: Option<&'static str>,
    /// Offset in bytes for a range request; 0 for the whole content.
    pub(crate) from: u64,
    /// Scope of the token, such as `repository:library/busybox:pull`; `None` for servers that are not registries and
    /// get no credentials, whatever challenge they send.
    pub(crate) scope: Option<String>,
    /// Additional headers; `Authorization` is sent to the first origin only.
    pub(crate) headers: Vec<(HeaderName, String)>,
    /// Body of the request.
    pub(crate) body: Bytes,
}

/// A response, and whether it comes from the first origin.
struct Followed {
    response: Response<Download>,
    /// False when a redirect led to another origin, even if a later one led back.
    is_home: bool,
}

/// Failure of one attempt, and the wait that the server asks for before the next one.
struct Failed {
    error: RegistryError,
    retry_after: Option<Duration>,
}

/// Reason for sending a request again.
struct Refusal {
    url: String,
    /// HTTP status; `None` without a response.
    status: Option<StatusCode>,
    /// Message of the server or of the error.
    message: String,
}

impl Refusal {
    fn answer(&self) -> String {
        match self.status {
            Some(status) => format!("{}: {}", status.as_u16(), self.message),
            None => self.message.clone(),
        }
    }

    fn into_busy(self, wait: Duration) -> RegistryError {
        let status = self.status.map_or(0, |status| status.as_u16());
        RegistryError::Busy { url: self.url, status, message: self.message, wait }
    }
}

/// Converts the outcome of an attempt into a refusal.
async fn refusal(url: &str, outcome: Result<Response<Download>, Failed>) -> Refusal {
    match outcome {
        Ok(response) => {
            let status = response.status();
            // The body is optional: it may be incomplete, too.
            let body = read_body(url, response, MAX_ERROR_TEXT).await.unwrap_or_default();
            Refusal { url: url.to_owned(), status: Some(status), message: error_text(&body, status) }
        }
        Err(Failed { error: RegistryError::Status { url, status, message }, .. }) => {
            Refusal { url, status: StatusCode::from_u16(status).ok(), message }
        }
        Err(failed) => Refusal { url: url.to_owned(), status: None, message: failed.error.to_string() },
    }
}

impl From<RegistryError> for Failed {
    fn from(error: RegistryError) -> Failed {
        Failed { error, retry_after: None }
    }
}

impl Client {
    /// Creates a client; connections are opened on demand.
    pub fn new(settings: &Settings) -> Result<Client, RegistryError> {
        Ok(Client {
            plain: OnceLock::new(),
            secure: OnceLock::new(),
            keychain: settings.keychain.clone(),
            user_agent: settings.user_agent.clone(),
            patience: settings.patience.unwrap_or(DEFAULT_PATIENCE),
            proxies: settings.proxies.clone(),
            waits: settings.waits.clone(),
            tokens: Mutex::default(),
        })
    }

    /// Transport for one scheme. Certificates are read on the first secure request, since that takes milliseconds.
    fn transport(&self, is_secure: bool) -> Result<&Transport, RegistryError> {
        if !is_secure {
            return Ok(self.plain.get_or_init(|| self.transport_with(rustls::RootCertStore::empty())));
        }
        if let Some(ready) = self.secure.get() {
            return Ok(ready);
        }
        let found = rustls_native_certs::load_native_certs();
        let mut roots = rustls::RootCertStore::empty();
        roots.add_parsable_certificates(found.certs);
        if roots.is_empty() {
            let text = found.errors.first().map_or("none are installed".to_owned(), ToString::to_string);
            return Err(RegistryError::Trust(std::io::Error::other(text)));
        }
        Ok(self.secure.get_or_init(|| self.transport_with(roots)))
    }

    /// Transport that trusts the certificates in `roots`.
    fn transport_with(&self, roots: rustls::RootCertStore) -> Transport {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("the provider knows the default protocol versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(CONNECT_TIMEOUT.min(self.patience)));
        let tls = || {
            hyper_rustls::HttpsConnectorBuilder::new()
                .with_tls_config(config.clone())
                .https_or_http()
                .enable_http1()
        };
        let dial = tls().wrap_connector(tcp);
        // Shorter than the limit of the whole exchange, whose error would not name the proxy.
        let patience = CONNECT_TIMEOUT.min(self.patience * 2 / 3);
        let connector = Connector::new(dial, self.proxies.clone(), &self.user_agent, patience);
        HyperClient::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .build(tls().wrap_connector(connector))
    }

    /// Sends a request, authenticates when challenged, and retries until there is a final response.
    ///
    /// # Errors
    /// [`RegistryError::Busy`] when the registry or its token server asks for a wait of more than a minute.
    pub(crate) async fn send(&self, ask: &Ask) -> Result<Response<Download>, RegistryError> {
        let mut attempt = 0;
        loop {
            attempt += 1;
            let outcome = self.send_once(ask).await;
            let asked = match &outcome {
                Ok(response) if is_transient(response.status()) => retry_after(response.headers()),
                Err(failed) if failed.error.is_transient() => failed.retry_after,
                _ => return outcome.map_err(|failed| failed.error),
            };
            let hopeless = matches!(&outcome, Err(failed) if failed.error.is_hopeless());
            let is_last = attempt == if hopeless { CONNECT_TRIES } else { TRIES };
            let long = asked.filter(|wait| *wait > MAX_WAIT);
            if is_last && long.is_none() {
                return outcome.map_err(|failed| failed.error);
            }
            let refusal = refusal(&ask.url, outcome).await;
            if let Some(wait) = long {
                return Err(refusal.into_busy(wait));
            }
            let wait = asked.unwrap_or(FIRST_WAIT * 2u32.pow(attempt - 1));
            debug!(attempt, answer = refusal.answer(), ?wait, "request is sent again");
            self.waits.wait(&authority_of(&refusal.url)?, &refusal.answer(), wait).await;
        }
    }

    /// Sends a request and reads the whole response, of limited length; retries when the connection breaks.
    pub(crate) async fn read(
        &self,
        ask: &Ask,
        limit: usize,
    ) -> Result<(http::response::Parts, Vec<u8>), RegistryError> {
        let mut attempt = 0;
        loop {
            attempt += 1;
            let (parts, body) = self.send(ask).await?.into_parts();
            match read_body(&ask.url, Response::from_parts(parts.clone(), body), limit).await {
                Ok(bytes) => return Ok((parts, bytes)),
                Err(error) if error.is_transient() && attempt < CONNECT_TRIES => {}
                Err(error) => return Err(error),
            }
        }
    }

    async fn send_once(&self, ask: &Ask) -> Result<Response<Download>, Failed> {
        let Some(scope) = &ask.scope else { return Ok(self.follow(ask, None).await?.response) };
        let origin = Origin::of(&ask.url)?;
        let host = authority_of(&ask.url)?;
        let key = (origin.clone(), scope.clone());
        let known = self.tokens().get(&key).cloned();
        let Followed { response, is_home } = self.follow(ask, known.as_deref()).await?;
        // Challenges of other origins are ignored: the credentials belong to the registry.
        if response.status() != StatusCode::UNAUTHORIZED || !is_home {
            return Ok(response);
        }
        let text = challenges(&response);
        if text.is_empty() {
            return Ok(response);
        }
        let challenge = Challenge::parse(&text)
            .ok_or_else(|| RegistryError::from(AuthError::Challenge(host.clone(), text.clone())))?;
        let Some(authorization) = self.authorize(&origin, &host, &challenge, scope).await? else {
            return Ok(response);
        };
        let again = self.follow(ask, Some(&authorization)).await?.response;
        if again.status() != StatusCode::UNAUTHORIZED {
            self.tokens().insert(key, authorization);
        }
        Ok(again)
    }

    fn tokens(&self) -> std::sync::MutexGuard<'_, Tokens> {
        self.tokens.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Sends a request and follows redirects; credentials are sent to the first origin only.
    async fn follow(&self, ask: &Ask, authorization: Option<&str>) -> Result<Followed, RegistryError> {
        let mut url = ask.url.clone();
        let first = Origin::of(&url)?;
        let mut origin = first.clone();
        // Redirects that return to the first origin do not restore the credentials.
        let mut is_home = true;
        for _ in 0..=MAX_REDIRECTS {
            let response = self.exchange(ask, &url, authorization, is_home).await?;
            let status = response.status();
            if !status.is_redirection() || status == StatusCode::NOT_MODIFIED {
                return Ok(Followed { response, is_home });
            }
            let target = response.headers().get(LOCATION).and_then(|value| value.to_str().ok());
            let target = target.ok_or_else(|| protocol(&url, "a redirect to nowhere"))?;
            url = absolute(&url, target)?;
            origin = led_to(&origin, &url, Purpose::Redirect)?;
            is_home &= origin == first;
        }
        Err(protocol(&ask.url, "too many redirects"))
    }

    async fn exchange(
        &self,
        ask: &Ask,
        url: &str,
        authorization: Option<&str>,
        is_home: bool,
    ) -> Result<Response<Download>, RegistryError> {
        let mut request = Request::builder().method(ask.method.clone()).uri(url);
        request = request.header(USER_AGENT, &self.user_agent);
        if let Some(accept) = ask.accept {
            request = request.header(ACCEPT, accept);
        }
        if ask.from > 0 {
            request = request.header(RANGE, format!("bytes={}-", ask.from));
        }
        if let Some(authorization) = authorization.filter(|_| is_home) {
            request = request.header(AUTHORIZATION, authorization);
        }
        for (name, value) in ask.headers.iter().filter(|(name, _)| is_home || *name != AUTHORIZATION) {
            request = request.header(name, value);
        }
        self.call(url, request, ask.body.clone()).await
    }

    /// Sends one request, and waits for the response as long as there is progress.
    async fn call(
        &self,
        url: &str,
        mut request: http::request::Builder,
        body: Bytes,
    ) -> Result<Response<Download>, RegistryError> {
        let failed = |source: ProxyError| RegistryError::Proxy { url: url.to_owned(), source };
        let origin = Origin::of(url)?;
        let (host, port) = origin.host_and_port();
        let proxy = self.proxies.of(origin.is_secure(), host, port).map_err(failed)?;
        // Over tunnels of a proxy, requests carry no headers for it.
        let passes_on = proxy.as_ref().filter(|proxy| proxy.takes_requests() && !origin.is_secure());
        if let Some(authorization) = passes_on.and_then(|proxy| proxy.authorization()) {
            request = request.header(PROXY_AUTHORIZATION, authorization);
        }
        let upload = Upload::new(body);
        let taken = upload.taken();
        let request = request.body(upload).map_err(|error| protocol(url, &error.to_string()))?;
        let through = proxy.as_ref().map_or("no proxy", |proxy| proxy.variable);
        debug!(host, port, through, "request");
        let is_secure = origin.is_secure() || proxy.as_ref().is_some_and(|proxy| proxy.is_secure());
        let answer = self.transport(is_secure)?.request(request);
        let answer = Upload::answer(&taken, self.patience, answer).await;
        let response = answer.map_err(|error| match ProxyError::behind(&*error) {
            Some(source) => failed(source),
            None => connection(url, error),
        })?;
        match passes_on {
            Some(proxy) if response.status() == StatusCode::PROXY_AUTHENTICATION_REQUIRED => {
                Err(failed(proxy.refusal(host, 407, "")))
            }
            _ => Ok(response),
        }
    }

    /// Value of `Authorization` for a challenge; `None` without credentials.
    async fn authorize(
        &self,
        origin: &Origin,
        host: &str,
        challenge: &Challenge,
        scope: &str,
    ) -> Result<Option<String>, Failed> {
        let credentials = self.keychain.find(host, repository_of(scope)).map_err(RegistryError::from)?;
        let kind = match &credentials {
            None => "none",
            Some(Credentials::Basic(..)) => "user and password",
            Some(Credentials::Identity(_)) => "identity token",
        };
        debug!(host, scope, credentials = kind, "authentication is required");
        match challenge {
            Challenge::Basic => Ok(match credentials {
                Some(Credentials::Basic(user, password)) => Some(auth::basic(&user, &password)),
                _ => None,
            }),
            Challenge::Bearer { realm, service, scope: asked } => {
                let scope = if asked.is_empty() { scope } else { asked };
                let to = led_to(origin, realm, Purpose::Realm)?;
                if credentials.is_some() {
                    trust_realm(origin, &to, realm)?;
                }
                let (token, _) = self.token(realm, service, scope, credentials, false).await?;
                Ok(Some(format!("Bearer {token}")))
            }
        }
    }

    /// Token for the login of a user, and the identity token of servers that have them.
    pub(crate) async fn login_token(
        &self,
        realm: &str,
        service: &str,
        scope: &str,
        credentials: Credentials,
    ) -> Result<(String, Option<String>), RegistryError> {
        let granted = self.token(realm, service, scope, Some(credentials), true).await;
        granted.map_err(|failed| failed.error)
    }

    /// Sends a request with a value of `Authorization`, once.
    pub(crate) async fn ask_with(
        &self,
        ask: &Ask,
        authorization: &str,
    ) -> Result<Response<Download>, RegistryError> {
        Ok(self.follow(ask, Some(authorization)).await?.response)
    }

    /// Token of a token server, and with `is_login` the identity token of those that have them.
    async fn token(
        &self,
        realm: &str,
        service: &str,
        scope: &str,
        credentials: Option<Credentials>,
        is_login: bool,
    ) -> Result<(String, Option<String>), Failed> {
        let (request, body) = token_request(realm, service, scope, credentials.as_ref(), is_login);
        let mut request = request.header(USER_AGENT, &self.user_agent);
        if let Some(Credentials::Basic(user, password)) = &credentials {
            request = request.header(AUTHORIZATION, auth::basic(user, password));
        }
        let response = self.call(realm, request, Bytes::from(body)).await?;
        let (status, wait) = (response.status(), retry_after(response.headers()));
        let body = read_body(realm, response, MAX_TOKEN).await?;
        if is_transient(status) {
            let (url, message) = (realm.to_owned(), error_text(&body, status));
            let error = RegistryError::Status { url, status: status.as_u16(), message };
            return Err(Failed { error, retry_after: wait });
        }
        if !status.is_success() {
            return Err(
                RegistryError::from(AuthError::Token(realm.to_owned(), error_text(&body, status))).into()
            );
        }
        #[derive(Deserialize)]
        struct Answer {
            token: Option<String>,
            access_token: Option<String>,
            refresh_token: Option<String>,
        }
        let answer: Answer =
            serde_json::from_slice(&body).map_err(|error| protocol(realm, &error.to_string()))?;
        // Some servers send both fields, one of them empty.
        let token = [answer.token, answer.access_token].into_iter().flatten().find(|token| !token.is_empty());
        let token = token.ok_or_else(|| protocol(realm, "an answer without a token"))?;
        Ok((token, answer.refresh_token.filter(|token| !token.is_empty())))
    }
}

/// Request for a token, and its body (distribution `docs/spec/auth/token.md` and `oauth.md`): an identity token is
/// exchanged; without one the request is that of the user, or without credentials.
fn token_request(
    realm: &str,
    service: &str,
    scope: &str,
    credentials: Option<&Credentials>,
    is_login: bool,
) -> (http::request::Builder, String) {
    let (service, scope) = (encoded(service), encoded(scope));
    if let Some(Credentials::Identity(token)) = credentials {
        let form = format!(
            "grant_type=refresh_token&service={service}&scope={scope}&client_id=kiln&refresh_token={}",
            encoded(token)
        );
        let request = Request::builder().method(Method::POST).uri(realm);
        return (request.header("content-type", "application/x-www-form-urlencoded"), form);
    }
    let separator = if realm.contains('?') { '&' } else { '?' };
    let mut url = format!("{realm}{separator}service={service}");
    if !scope.is_empty() || !is_login {
        url = format!("{url}&scope={scope}");
    }
    if let (Some(Credentials::Basic(user, _)), true) = (credentials, is_login) {
        url = format!("{url}&account={}&client_id=kiln&offline_token=true", encoded(user));
    }
    (Request::builder().method(Method::GET).uri(url), String::new())
}

/// Text as a value in the query of a URL.
fn encoded(text: &str) -> String {
    let keep = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~' | b'/' | b':');
    text.bytes().map(|b| if keep(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

/// All challenges of a response in one text; empty without any.
pub(crate) fn challenges(response: &Response<Download>) -> String {
    let all = response.headers().get_all(WWW_AUTHENTICATE).iter();
    let text: Vec<&str> = all.filter_map(|value| value.to_str().ok()).collect();
    text.join(", ")
}

/// Repository of a scope such as `repository:library/busybox:pull`; empty for other scopes.
fn repository_of(scope: &str) -> &str {
    let rest = scope.strip_prefix("repository:").unwrap_or_default();
    rest.rsplit_once(':').map_or("", |(repository, _)| repository)
}

/// Reads a whole body of limited length.
///
/// # Errors
/// [`RegistryError::Incomplete`] when the connection breaks or the server is silent.
pub(crate) async fn read_body(
    url: &str,
    response: Response<Download>,
    limit: usize,
) -> Result<Vec<u8>, RegistryError> {
    let mut body = response.into_body();
    let mut bytes = Vec::new();
    while let Some(piece) = body.next().await {
        match piece {
            Ok(data) => bytes.extend_from_slice(&data),
            Err(error) => return Err(incomplete(url, bytes.len() as u64, None, Some(error))),
        }
        if bytes.len() > limit {
            return Err(protocol(url, "more bytes than are reasonable"));
        }
    }
    Ok(bytes)
}

/// Message of a registry's error response: the messages of its error list, or its text.
pub(crate) fn error_text(body: &[u8], status: StatusCode) -> String {
    #[derive(Deserialize)]
    struct Errors {
        errors: Vec<OneError>,
    }
    #[derive(Deserialize)]
    struct OneError {
        #[serde(default)]
        code: String,
        #[serde(default)]
        message: String,
    }
    if let Ok(list) = serde_json::from_slice::<Errors>(body) {
        let texts = list.errors.into_iter().map(|error| match error.message.is_empty() {
            true => error.code,
            false => error.message,
        });
        return texts.collect::<Vec<_>>().join("; ");
    }
    let text = String::from_utf8_lossy(body);
    let line = text.lines().next().unwrap_or_default().trim();
    let readable = !line.is_empty() && line.len() < 200 && !line.starts_with('<');
    if readable { line.to_owned() } else { status.canonical_reason().unwrap_or_default().to_owned() }
}

/// Host and port as written, without a user: the key of credentials.
fn authority_of(url: &str) -> Result<String, RegistryError> {
    let uri: http::Uri = url.parse().map_err(|_| protocol(url, "not an address"))?;
    let authority = uri.authority().map(ToString::to_string).unwrap_or_default();
    Ok(authority.rsplit('@').next().unwrap_or_default().to_owned())
}

pub(crate) fn protocol(url: &str, reason: &str) -> RegistryError {
    RegistryError::Protocol { url: url.to_owned(), reason: reason.to_owned() }
}

pub(crate) fn connection(
    url: &str,
    error: impl Into<Box<dyn std::error::Error + Send + Sync>>,
) -> RegistryError {
    RegistryError::Connection { url: url.to_owned(), source: error.into() }
}

#[cfg(test)]
mod tests;
