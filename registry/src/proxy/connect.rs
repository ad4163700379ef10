//! Connections to servers: direct ones, and tunnels through proxies.

use super::{Kind, Proxies, Proxy, ProxyError, ProxyFault, authority};
use crate::origin::Origin;
use http::Uri;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_rustls::{HttpsConnector, MaybeHttpsStream};
use hyper_util::client::legacy::connect::{Connected, Connection, HttpConnector};
use hyper_util::rt::TokioIo;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tower_service::Service;

/// Longest response to `CONNECT`, in bytes.
const MAX_HEAD: usize = 16 << 10;

type Failure = Box<dyn std::error::Error + Send + Sync>;
type Stream = MaybeHttpsStream<TokioIo<TcpStream>>;

/// Connector to servers, through proxies where these are configured.
#[derive(Clone)]
pub(crate) struct Connector {
    /// Connector for TCP, and for TLS to proxies that use it.
    dial: HttpsConnector<HttpConnector>,
    proxies: Proxies,
    user_agent: String,
    /// Longest wait for the response of a proxy.
    patience: Duration,
}

/// An open connection for requests to a server.
pub(crate) struct ServerStream {
    stream: Stream,
    /// Whether requests are sent to a proxy, which requires absolute addresses in them.
    takes_requests: bool,
}

impl Connector {
    pub(crate) fn new(
        dial: HttpsConnector<HttpConnector>,
        proxies: Proxies,
        user_agent: &str,
        patience: Duration,
    ) -> Connector {
        Connector { dial, proxies, user_agent: user_agent.to_owned(), patience }
    }

    async fn connect(mut self, target: Uri) -> Result<ServerStream, Failure> {
        let origin = Origin::of(&target.to_string())?;
        let (host, port) = origin.host_and_port();
        let Some(proxy) = self.proxies.of(origin.is_secure(), host, port)? else {
            // TLS is added by the connector around this one.
            let stream = self.dial(false, host, port).await?;
            return Ok(ServerStream { stream, takes_requests: false });
        };
        let opened = tokio::time::timeout(self.patience, self.through(&proxy, &origin)).await;
        match opened {
            Ok(opened) => Ok(opened?),
            Err(_) => Err(proxy.error(ProxyFault::Silent(self.patience)).into()),
        }
    }

    async fn dial(&mut self, is_secure: bool, host: &str, port: u16) -> Result<Stream, Failure> {
        let scheme = if is_secure { "https" } else { "http" };
        let uri = Uri::builder().scheme(scheme).authority(authority(host, port)).path_and_query("/");
        self.dial.call(uri.build()?).await
    }

    async fn through(&mut self, proxy: &Arc<Proxy>, origin: &Origin) -> Result<ServerStream, ProxyError> {
        let dialled = self.dial(proxy.is_secure(), &proxy.host, proxy.port).await;
        let stream = dialled.map_err(|error| proxy.error(ProxyFault::Unreachable(last_cause(&*error))))?;
        if proxy.takes_requests() && !origin.is_secure() {
            return Ok(ServerStream { stream, takes_requests: true });
        }
        let (host, port) = origin.host_and_port();
        let mut stream = TokioIo::new(stream);
        match proxy.kind {
            Kind::Socks => ask_socks(&mut stream, proxy, host, port).await?,
            Kind::Http | Kind::Https => {
                ask_tunnel(&mut stream, proxy, &authority(host, port), &self.user_agent).await?;
            }
        }
        Ok(ServerStream { stream: stream.into_inner(), takes_requests: false })
    }
}

/// Text of the innermost source of an error: "Connection refused" rather than "client error".
fn last_cause(error: &(dyn std::error::Error + 'static)) -> String {
    let mut cause = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}

/// Requests a tunnel to `target` from an HTTP proxy (RFC 9110, section 9.3.6).
async fn ask_tunnel<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    proxy: &Proxy,
    target: &str,
    user_agent: &str,
) -> Result<(), ProxyError> {
    let broken = |error: io::Error| proxy.error(ProxyFault::Unreachable(error.to_string()));
    let mut request = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n");
    if !user_agent.is_empty() {
        request.push_str(&format!("User-Agent: {user_agent}\r\n"));
    }
    if let Some(authorization) = proxy.authorization() {
        request.push_str(&format!("Proxy-Authorization: {authorization}\r\n"));
    }
    request.push_str("\r\n");
    stream.write_all(request.as_bytes()).await.map_err(broken)?;
    stream.flush().await.map_err(broken)?;
    let malformed = |reason: &str| proxy.error(ProxyFault::Malformed(reason.to_owned()));
    let mut head = Vec::new();
    // Read one byte at a time, so that bytes after the head stay in the stream for the server's protocol.
    while !head.ends_with(b"\r\n\r\n") && !head.ends_with(b"\n\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) if head.is_empty() => return Err(malformed("it closed the connection instead")),
            Err(_) => break,
        }
        if head.len() > MAX_HEAD {
            return Err(malformed("its headers do not end"));
        }
    }
    let head = String::from_utf8_lossy(&head);
    let line = head.lines().next().unwrap_or_default();
    let (version, rest) = line.split_once(' ').unwrap_or((line, ""));
    let (status, reason) = rest.split_once(' ').unwrap_or((rest, ""));
    match status.parse::<u16>() {
        Ok(200..=299) if version.starts_with("HTTP/1.") => Ok(()),
        Ok(status) if version.starts_with("HTTP/") => Err(proxy.refusal(target, status, reason)),
        _ => Err(malformed("it is not HTTP")),
    }
}

/// Requests a connection to a server from a SOCKS proxy (RFC 1928, RFC 1929).
async fn ask_socks<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    proxy: &Proxy,
    host: &str,
    port: u16,
) -> Result<(), ProxyError> {
    const VERSION: u8 = 5;
    const CONNECT: u8 = 1;
    let malformed = |reason: &str| proxy.error(ProxyFault::Malformed(reason.to_owned()));
    let broken = |error: io::Error| match error.kind() {
        io::ErrorKind::UnexpectedEof => malformed("it closed the connection instead"),
        _ => proxy.error(ProxyFault::Unreachable(error.to_string())),
    };
    let methods: &[u8] = if proxy.user.is_some() { &[VERSION, 2, 0, 2] } else { &[VERSION, 1, 0] };
    stream.write_all(methods).await.map_err(broken)?;
    stream.flush().await.map_err(broken)?;
    let mut answer = [0; 2];
    stream.read_exact(&mut answer).await.map_err(broken)?;
    match (answer, &proxy.user) {
        ([VERSION, 0], _) => {}
        ([VERSION, 2], Some((user, password))) => {
            let mut login = vec![1];
            push_counted(&mut login, user).ok_or_else(|| malformed("the user is too long for it"))?;
            push_counted(&mut login, password).ok_or_else(|| malformed("the password is too long for it"))?;
            stream.write_all(&login).await.map_err(broken)?;
            stream.flush().await.map_err(broken)?;
            stream.read_exact(&mut answer).await.map_err(broken)?;
            if answer[1] != 0 {
                return Err(proxy.error(ProxyFault::Authentication(true)));
            }
        }
        ([VERSION, _], _) => return Err(proxy.error(ProxyFault::Authentication(false))),
        _ => return Err(malformed("it is not SOCKS version 5")),
    }
    let mut request = vec![VERSION, CONNECT, 0];
    match host.parse::<IpAddr>() {
        Ok(IpAddr::V4(address)) => request.extend([&[1u8][..], &address.octets()].concat()),
        Ok(IpAddr::V6(address)) => request.extend([&[4u8][..], &address.octets()].concat()),
        Err(_) => {
            request.push(3);
            push_counted(&mut request, host).ok_or_else(|| malformed("the host is too long for it"))?;
        }
    }
    request.extend(port.to_be_bytes());
    stream.write_all(&request).await.map_err(broken)?;
    stream.flush().await.map_err(broken)?;
    let mut answer = [0; 4];
    stream.read_exact(&mut answer).await.map_err(broken)?;
    if answer[0] != VERSION {
        return Err(malformed("it is not SOCKS version 5"));
    }
    if answer[1] != 0 {
        let (target, reason) = (authority(host, port), socks_reason(answer[1]).to_owned());
        return Err(proxy.error(ProxyFault::Refused { target, status: 0, reason }));
    }
    // The address that the proxy connects from is not needed.
    let length = match answer[3] {
        1 => 4,
        4 => 16,
        _ => usize::from(stream.read_u8().await.map_err(broken)?),
    };
    let mut rest = vec![0; length + 2];
    stream.read_exact(&mut rest).await.map_err(broken).map(drop)
}

/// Appends the length of a text in one byte, and the text; `None` when it is too long.
fn push_counted(request: &mut Vec<u8>, text: &str) -> Option<()> {
    request.push(u8::try_from(text.len()).ok()?);
    request.extend(text.as_bytes());
    Some(())
}

fn socks_reason(code: u8) -> &'static str {
    match code {
        1 => "general failure",
        2 => "not allowed by its rules",
        3 => "network unreachable",
        4 => "host unreachable",
        5 => "connection refused",
        6 => "time to live expired",
        7 => "command not supported",
        8 => "kind of address not supported",
        _ => "unknown reason",
    }
}

impl Service<Uri> for Connector {
    type Response = ServerStream;
    type Error = Failure;
    type Future = Pin<Box<dyn Future<Output = Result<ServerStream, Failure>> + Send>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, target: Uri) -> Self::Future {
        Box::pin(self.clone().connect(target))
    }
}

impl Connection for ServerStream {
    fn connected(&self) -> Connected {
        self.stream.connected().proxy(self.takes_requests)
    }
}

impl Read for ServerStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl Write for ServerStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, pieces)
    }
}
