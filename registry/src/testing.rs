//! A registry in process: serves OCI layouts, and fails in the ways that real registries fail.
//!
//! For tests, and for hosts without access to a registry: it is ordinary HTTP on a loopback port.

use flate2::Compression;
use http::header::{CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, RANGE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use kiln_image::config::{History, ImageConfig, RootFs, RunConfig};
use kiln_image::digest::{DiffId, Digest, Hashing};
use kiln_image::json;
use kiln_image::layer;
use kiln_image::manifest::{Descriptor, Index, Manifest, media_type};
use kiln_image::platform::Platform;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fs;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// Failures that the registry simulates.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    /// Number of requests that are answered with 503 first.
    pub unavailable: u32,
    /// Number of bytes of the first blob response after which the connection breaks.
    pub cut_first_blob: Option<usize>,
    /// Number of bytes of each blob response after which the connection breaks.
    pub cut_blobs: Option<usize>,
    /// Number of blob responses that become silent after 1000 bytes.
    pub stall_blobs: u32,
    /// Whether blobs are delivered with other bytes than their digest requires.
    pub corrupt_blobs: bool,
    /// Whether a token is required.
    pub token: bool,
    /// Whether range requests are ignored.
    pub no_ranges: bool,
}

/// A running registry; stops when dropped.
pub struct LayoutServer {
    address: SocketAddr,
    state: Arc<State>,
    _runtime: tokio::runtime::Runtime,
}

struct State {
    dirs: Vec<PathBuf>,
    faults: Mutex<Faults>,
    requests: Mutex<Vec<String>>,
    address: SocketAddr,
}

impl LayoutServer {
    /// Serves the layouts in `dirs` on `listen`.
    pub fn start(listen: SocketAddr, dirs: Vec<PathBuf>, faults: Faults) -> io::Result<LayoutServer> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let listener = runtime.block_on(tokio::net::TcpListener::bind(listen))?;
        let address = listener.local_addr()?;
        let faults = Mutex::new(faults);
        let state = Arc::new(State { dirs, faults, requests: Mutex::default(), address });
        let shared = Arc::clone(&state);
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let state = Arc::clone(&shared);
                tokio::spawn(async move {
                    let service = service_fn(move |request| {
                        let state = Arc::clone(&state);
                        async move { Ok::<_, Infallible>(state.answer(&request)) }
                    });
                    // Broken connections are the client's error.
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        Ok(LayoutServer { address, state, _runtime: runtime })
    }

    /// Address that the registry listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Method and path of all requests so far.
    pub fn requests(&self) -> Vec<String> {
        self.state.requests.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

type Answer = Response<http_body_util::Either<Full<Bytes>, CutBody>>;

/// A body that announces more bytes than it delivers.
pub struct CutBody {
    data: Option<Bytes>,
    /// Whether the bytes before the break have been sent.
    is_flushed: bool,
    /// Whether the connection then stays open without sending, instead of breaking.
    is_silent: bool,
}

impl hyper::body::Body for CutBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<hyper::body::Frame<Bytes>, io::Error>>> {
        std::task::Poll::Ready(Some(match self.data.take() {
            Some(data) => Ok(hyper::body::Frame::data(data)),
            None if self.is_silent => return std::task::Poll::Pending,
            None if !self.is_flushed => {
                self.is_flushed = true;
                context.waker().wake_by_ref();
                return std::task::Poll::Pending;
            }
            None => Err(io::Error::from(io::ErrorKind::ConnectionReset)),
        }))
    }
}

fn whole(status: StatusCode, kind: &str, body: impl Into<Bytes>) -> Answer {
    let response = Response::builder().status(status).header(CONTENT_TYPE, kind);
    let body = http_body_util::Either::Left(Full::new(body.into()));
    response.body(body).expect("the headers are valid")
}

fn error(status: StatusCode, code: &str) -> Answer {
    let body = format!(
        r#"{{"errors":[{{"code":"{code}","message":"{}"}}]}}"#,
        code.to_lowercase().replace('_', " ")
    );
    whole(status, "application/json", body)
}

impl State {
    fn answer(&self, request: &Request<Incoming>) -> Answer {
        let path = request.uri().path().to_owned();
        let log = format!("{} {path}", request.method());
        self.requests.lock().unwrap_or_else(PoisonError::into_inner).push(log);
        if path == "/token" {
            return whole(StatusCode::OK, "application/json", r#"{"token":"let-me-in"}"#);
        }
        let mut faults = self.faults.lock().unwrap_or_else(PoisonError::into_inner);
        if faults.unavailable > 0 {
            faults.unavailable -= 1;
            let mut answer = error(StatusCode::SERVICE_UNAVAILABLE, "UNAVAILABLE");
            answer.headers_mut().insert(RETRY_AFTER, http::HeaderValue::from_static("0"));
            return answer;
        }
        let authorized =
            request.headers().get("authorization").is_some_and(|value| value == "Bearer let-me-in");
        if faults.token && !authorized {
            return self.challenge();
        }
        let Some(rest) = path.strip_prefix("/v2/") else { return error(StatusCode::NOT_FOUND, "NOT_FOUND") };
        if rest.is_empty() {
            return whole(StatusCode::OK, "application/json", "{}");
        }
        let answer = match (rest.rsplit_once("/manifests/"), rest.rsplit_once("/blobs/")) {
            (Some((name, version)), _) => self.manifest(name, version),
            (_, Some((_, digest))) => self.blob(digest, request, &mut faults),
            _ => error(StatusCode::NOT_FOUND, "NOT_FOUND"),
        };
        if *request.method() == Method::HEAD {
            let (parts, body) = answer.into_parts();
            let length = hyper::body::Body::size_hint(&body).exact().unwrap_or(0);
            let mut answer = Response::from_parts(parts, http_body_util::Either::Left(Full::default()));
            answer.headers_mut().insert(CONTENT_LENGTH, length.into());
            return answer;
        }
        answer
    }

    fn challenge(&self) -> Answer {
        let realm = format!(r#"Bearer realm="http://{}/token",service="test",scope="""#, self.address);
        let mut answer = error(StatusCode::UNAUTHORIZED, "UNAUTHORIZED");
        let realm = realm.parse().expect("the challenge is a valid header");
        answer.headers_mut().insert(WWW_AUTHENTICATE, realm);
        answer
    }

    fn manifest(&self, name: &str, version: &str) -> Answer {
        for dir in &self.dirs {
            let Ok(bytes) = fs::read(dir.join("index.json")) else { continue };
            let Ok(index) = serde_json::from_slice::<Index>(&bytes) else { continue };
            for entry in index.manifests {
                let full = entry.annotations.get("io.containerd.image.name").cloned().unwrap_or_default();
                let path = full.split_once('/').map_or("", |(_, path)| path);
                let by_name = path == format!("{name}:{version}");
                let by_digest = entry.digest.as_str() == version && path.starts_with(&format!("{name}:"));
                if by_name || by_digest {
                    let Ok(bytes) = fs::read(blob_path(dir, &entry.digest)) else { continue };
                    return whole(StatusCode::OK, &entry.media_type, bytes);
                }
            }
        }
        // Manifests in an index are requested by digest.
        match version.parse::<Digest>().ok().and_then(|digest| self.read_blob(&digest)) {
            Some(bytes) => whole(StatusCode::OK, media_type::OCI_MANIFEST, bytes),
            None => error(StatusCode::NOT_FOUND, "MANIFEST_UNKNOWN"),
        }
    }

    fn read_blob(&self, digest: &Digest) -> Option<Vec<u8>> {
        self.dirs.iter().find_map(|dir| fs::read(blob_path(dir, digest)).ok())
    }

    fn blob(&self, digest: &str, request: &Request<Incoming>, faults: &mut Faults) -> Answer {
        let bytes = digest.parse::<Digest>().ok().and_then(|digest| self.read_blob(&digest));
        let Some(mut bytes) = bytes else { return error(StatusCode::NOT_FOUND, "BLOB_UNKNOWN") };
        if faults.corrupt_blobs
            && let Some(byte) = bytes.last_mut()
        {
            *byte ^= 1;
        }
        let octets = "application/octet-stream";
        let cut = |bytes: &[u8], length: usize, is_silent: bool| {
            let data = Some(Bytes::from(bytes[..length].to_vec()));
            let response = Response::builder().header(CONTENT_LENGTH, bytes.len());
            let body = http_body_util::Either::Right(CutBody { data, is_flushed: false, is_silent });
            response.body(body).expect("the headers are valid")
        };
        if let Some(length) = faults.cut_first_blob.filter(|length| *length < bytes.len()) {
            faults.cut_first_blob = None;
            return cut(&bytes, length, false);
        }
        if faults.stall_blobs > 0 && bytes.len() > 1000 {
            faults.stall_blobs -= 1;
            return cut(&bytes, 1000, true);
        }
        let from = request
            .headers()
            .get(RANGE)
            .and_then(|value| value.to_str().ok()?.strip_prefix("bytes=")?.split('-').next()?.parse().ok())
            .filter(|_| !faults.no_ranges);
        let rest = &bytes[from.unwrap_or(0).min(bytes.len())..];
        if let Some(length) = faults.cut_blobs.filter(|length| *length < rest.len()) {
            let mut answer = cut(rest, length, false);
            if from.is_some() {
                *answer.status_mut() = StatusCode::PARTIAL_CONTENT;
            }
            return answer;
        }
        match from {
            Some(from) if from < bytes.len() => {
                let range = format!("bytes {from}-{}/{}", bytes.len() - 1, bytes.len());
                let mut answer = whole(StatusCode::PARTIAL_CONTENT, octets, bytes[from..].to_vec());
                let range = range.parse().expect("a range is a valid header");
                answer.headers_mut().insert(CONTENT_RANGE, range);
                answer
            }
            Some(_) => error(StatusCode::RANGE_NOT_SATISFIABLE, "RANGE"),
            None => whole(StatusCode::OK, octets, bytes),
        }
    }
}

fn blob_path(dir: &Path, digest: &Digest) -> PathBuf {
    dir.join("blobs/sha256").join(digest.hex())
}

/// Options of a packed image.
#[derive(Clone, Debug)]
pub struct PackOptions {
    /// Reference of the form `host/path:tag`.
    pub name: String,
    /// Default command of the image.
    pub cmd: Vec<String>,
    /// Creation time, as in RFC 3339.
    pub created: String,
}

/// Packs the directory `root` as an image of one layer into the OCI layout `layout`.
pub fn pack(root: &Path, layout: &Path, options: &PackOptions) -> io::Result<Digest> {
    let packed = |error: layer::DiffError| io::Error::other(error.to_string());
    let blobs = layout.join("blobs/sha256");
    fs::create_dir_all(&blobs)?;
    let temporary = layout.join("layer.part");
    let file = Hashing::new(io::BufWriter::new(fs::File::create(&temporary)?));
    let gzip = flate2::GzBuilder::new().mtime(0).write(file, Compression::new(6));
    let (gzip, diff_id, _) = layer::diff(root, Hashing::new(gzip)).map_err(packed)?.finish();
    let (mut file, digest, size) = gzip.finish()?.finish();
    file.flush()?;
    fs::rename(&temporary, blobs.join(digest.hex()))?;
    let layer = Descriptor::new(media_type::OCI_LAYER_GZIP, digest, size);

    let platform = Platform::host();
    let config = ImageConfig {
        architecture: platform.architecture.clone(),
        os: platform.os.clone(),
        created: Some(options.created.clone()),
        config: RunConfig {
            env: vec!["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned()],
            cmd: Some(options.cmd.clone()),
            ..RunConfig::default()
        },
        rootfs: RootFs { diff_ids: vec![DiffId(diff_id)], ..RootFs::default() },
        history: vec![History {
            created: Some(options.created.clone()),
            created_by: format!("base {}", options.name),
            ..History::default()
        }],
        ..ImageConfig::default()
    };
    let put = |kind: &str, bytes: &[u8]| {
        let descriptor = Descriptor::of(kind, bytes);
        fs::write(blobs.join(descriptor.digest.hex()), bytes).map(|()| descriptor)
    };
    let config = put(media_type::OCI_CONFIG, &config.encode().0)?;
    let mut manifest = put(media_type::OCI_MANIFEST, &json::to_vec(&Manifest::oci(config, vec![layer])))?;
    manifest.platform = Some(platform);
    manifest.annotations = BTreeMap::from([("io.containerd.image.name".to_owned(), options.name.clone())]);
    let digest = manifest.digest.clone();
    fs::write(layout.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#)?;
    fs::write(layout.join("index.json"), json::to_vec(&Index::oci(vec![manifest])))?;
    Ok(digest)
}
