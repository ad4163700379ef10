//! Pushes of images to registries.
//!
//! Layers are uploaded one after the other in pieces, so that none has to fit into memory; blobs that the registry has
//! already are not sent. The tag is set last, when everything it refers to is uploaded.

use crate::client::{self, Ask, Client};
use crate::endpoint::Endpoint;
use crate::error::RegistryError;
use crate::origin::{Origin, Purpose, absolute, led_to};
use crate::patience::Download;
use http::header::{CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, LOCATION};
use http::{Method, Response, StatusCode};
use hyper::body::Bytes;
use kiln_image::archive::{PackedImage, PackedLayer};
use kiln_image::digest::Digest;
use kiln_image::manifest::media_type;
use kiln_image::reference::Reference;
use kiln_image::store::Store;
use std::io::Read;
use std::time::Duration;
use tracing::debug;

/// Size of the pieces of a layer's upload, in bytes.
const PIECE: usize = 8 << 20;
/// Waits between checks whether a blob has become visible, in milliseconds.
const VERIFY_PAUSES: [u64; 5] = [500, 1000, 2000, 4000, 8000];

/// Presence of a blob in the registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Found {
    /// The registry has the blob.
    Yes,
    /// The registry does not have the blob.
    No,
    /// The registry does not answer: the request is forbidden, or redirected elsewhere.
    Unknown,
}

/// Images to push and their reference.
pub struct PushRequest<'a> {
    /// Reference to push to.
    pub reference: &'a Reference,
    /// Images: a single one, or those in `index`.
    pub images: &'a [PackedImage],
    /// Bytes of an index over the images.
    pub index: Option<&'a [u8]>,
    /// Whether the images get no tag and are available by digest only.
    pub by_digest: bool,
}

/// Progress of a push.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PushEvent {
    /// The registry has a layer already.
    Exists(Digest),
    /// Digest of a layer, number of bytes uploaded, and size.
    Uploading(Digest, u64, u64),
}

pub(crate) async fn push(
    client: &Client,
    endpoint: &Endpoint,
    store: &Store,
    request: &PushRequest<'_>,
    progress: &(dyn Fn(PushEvent) + Sync),
) -> Result<Digest, RegistryError> {
    let pusher = Pusher { client, endpoint, store, reference: request.reference, progress };
    let mut last = None;
    for image in request.images {
        for layer in &image.layers {
            pusher.blob(layer).await?;
        }
        pusher.small_blob(&image.config).await?;
        let version = match request.index {
            None => pusher.version(request.by_digest, &image.manifest),
            Some(_) => Digest::of(&image.manifest).to_string(),
        };
        last = Some(pusher.manifest(&image.manifest, &image.media_type, &version).await?);
    }
    if let Some(index) = request.index {
        let version = pusher.version(request.by_digest, index);
        last = Some(pusher.manifest(index, media_type::OCI_INDEX, &version).await?);
    }
    last.ok_or_else(|| client::protocol(&request.reference.familiar(), "there is no image to push"))
}

struct Pusher<'a> {
    client: &'a Client,
    endpoint: &'a Endpoint,
    store: &'a Store,
    reference: &'a Reference,
    progress: &'a (dyn Fn(PushEvent) + Sync),
}

impl Pusher<'_> {
    fn version(&self, by_digest: bool, manifest: &[u8]) -> String {
        match by_digest {
            true => Digest::of(manifest).to_string(),
            false => self.reference.tag().unwrap_or("latest").to_owned(),
        }
    }

    fn ask(&self, method: Method, url: String) -> Ask {
        let scope = format!("repository:{}:pull,push", self.reference.path());
        Ask { method, url, scope: Some(scope), ..Ask::default() }
    }

    fn url(&self, rest: &str) -> String {
        self.endpoint.url(&format!("{}/{rest}", self.reference.path()))
    }

    /// Sends a request; an unsuccessful response is an error.
    async fn send(&self, ask: Ask) -> Result<Response<Download>, RegistryError> {
        let response = self.client.send(&ask).await?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let body = client::read_body(&ask.url, response, 1 << 16).await.unwrap_or_default();
        if matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
            return Err(RegistryError::PushDenied(self.reference.familiar_repository()));
        }
        let message = client::error_text(&body, status);
        Err(RegistryError::Status { url: ask.url, status: status.as_u16(), message })
    }

    /// True when the registry has a blob; false, too, when it does not answer: then the blob is sent.
    async fn exists(&self, digest: &Digest, size: u64) -> Result<bool, RegistryError> {
        Ok(self.find(digest, size).await? == Found::Yes)
    }

    async fn find(&self, digest: &Digest, size: u64) -> Result<Found, RegistryError> {
        let ask = self.ask(Method::HEAD, self.url(&format!("blobs/{digest}")));
        let response = match self.client.send(&ask).await {
            Ok(response) => response,
            // Failures of the registry itself, not of its blob storage: the next request would fail as well.
            Err(
                error @ (RegistryError::Auth(_) | RegistryError::Proxy { .. } | RegistryError::Busy { .. }),
            ) => return Err(error),
            Err(RegistryError::Connection { url, source }) if url == ask.url => {
                return Err(RegistryError::Connection { url, source });
            }
            Err(_) => return Ok(Found::Unknown),
        };
        let length =
            response.headers().get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
        Ok(match response.status() {
            StatusCode::OK if length.is_none_or(|length| length == size) => Found::Yes,
            StatusCode::OK | StatusCode::NOT_FOUND => Found::No,
            _ => Found::Unknown,
        })
    }

    /// Begins an upload; returns the address for its first piece.
    async fn begin(&self) -> Result<String, RegistryError> {
        let url = self.url("blobs/uploads/");
        let response = self.send(self.ask(Method::POST, url.clone())).await?;
        location(&url, &response)
    }

    /// Request of an upload, at an address that the registry returned: another origin gets no credentials, as in
    /// containerd.
    fn upload(&self, method: Method, url: String) -> Result<Ask, RegistryError> {
        let is_home = Origin::of(&url)? == Origin::of(&self.url(""))?;
        let mut ask = self.ask(method, url);
        ask.scope = ask.scope.filter(|_| is_home);
        ask.headers.push((CONTENT_TYPE, "application/octet-stream".to_owned()));
        Ok(ask)
    }

    /// Ends an upload with its last piece.
    ///
    /// # Errors
    /// [`RegistryError::Digest`] when the registry stored other bytes, or none that it can find.
    async fn finish(&self, url: &str, digest: &Digest, size: u64, rest: Bytes) -> Result<(), RegistryError> {
        let separator = if url.contains('?') { '&' } else { '?' };
        let mut ask = self.upload(Method::PUT, format!("{url}{separator}digest={digest}"))?;
        ask.body = rest;
        let response = self.send(ask).await?;
        let blob = self.url(&format!("blobs/{digest}"));
        match confirmed_digest(&response) {
            Some(told) if told == *digest => Ok(()),
            Some(told) if told.algorithm() == digest.algorithm() => {
                Err(RegistryError::Digest { url: blob, expected: digest.clone(), actual: told })
            }
            // The status confirms the digest that was sent (distribution-spec, "Pushing blobs").
            _ if response.status() == StatusCode::CREATED => Ok(()),
            _ => self.verify(digest, size).await,
        }
    }

    async fn small_blob(&self, bytes: &[u8]) -> Result<(), RegistryError> {
        let digest = Digest::of(bytes);
        if self.exists(&digest, bytes.len() as u64).await? {
            return Ok(());
        }
        let url = self.begin().await?;
        self.finish(&url, &digest, bytes.len() as u64, Bytes::copy_from_slice(bytes)).await
    }

    async fn blob(&self, layer: &PackedLayer) -> Result<(), RegistryError> {
        let (digest, size) = (&layer.descriptor.digest, layer.descriptor.size);
        if self.exists(digest, size).await? {
            debug!(%digest, "blob is not uploaded: the registry has it");
            (self.progress)(PushEvent::Exists(digest.clone()));
            return Ok(());
        }
        let mut url = self.begin().await?;
        let mut source = layer.open(self.store)?;
        let mut sent = 0u64;
        loop {
            let mut piece = Vec::new();
            let taken = source.by_ref().take(PIECE as u64).read_to_end(&mut piece);
            taken.map_err(|error| client::connection("layer", error))?;
            let length = piece.len() as u64;
            if sent + length >= size {
                self.finish(&url, digest, size, Bytes::from(piece)).await?;
                (self.progress)(PushEvent::Uploading(digest.clone(), size, size));
                return Ok(());
            }
            let mut ask = self.upload(Method::PATCH, url.clone())?;
            ask.headers.push((CONTENT_RANGE, format!("{sent}-{}", sent + length - 1)));
            ask.body = Bytes::from(piece);
            let response = self.send(ask).await?;
            url = location(&url, &response)?;
            sent += length;
            (self.progress)(PushEvent::Uploading(digest.clone(), sent, size));
        }
    }

    /// Checks that the registry has a blob whose upload it did not confirm. Registries with separate blob storage may
    /// need a while; one that does not answer such requests is trusted.
    async fn verify(&self, digest: &Digest, size: u64) -> Result<(), RegistryError> {
        for pause in VERIFY_PAUSES {
            if self.find(digest, size).await? != Found::No {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(pause)).await;
        }
        match self.find(digest, size).await? {
            Found::No => Err(client::protocol(
                &self.url(&format!("blobs/{digest}")),
                "the registry took the blob and does not have it",
            )),
            _ => Ok(()),
        }
    }

    async fn manifest(&self, bytes: &[u8], kind: &str, version: &str) -> Result<Digest, RegistryError> {
        let mut ask = self.ask(Method::PUT, self.url(&format!("manifests/{version}")));
        ask.headers.push((CONTENT_TYPE, kind.to_owned()));
        ask.body = Bytes::copy_from_slice(bytes);
        let url = ask.url.clone();
        let response = self.send(ask).await?;
        let digest = Digest::of(bytes);
        match confirmed_digest(&response) {
            Some(actual) if actual.algorithm() == digest.algorithm() && actual != digest => {
                Err(RegistryError::Digest { url, expected: digest, actual })
            }
            _ => Ok(digest),
        }
    }
}

/// Digest that the registry computed; `None` without the header.
fn confirmed_digest(response: &Response<Download>) -> Option<Digest> {
    response.headers().get("docker-content-digest")?.to_str().ok()?.parse().ok()
}

fn location(url: &str, response: &Response<Download>) -> Result<String, RegistryError> {
    let target = response.headers().get(LOCATION).and_then(|value| value.to_str().ok());
    let target =
        target.ok_or_else(|| client::protocol(url, "an upload without a location to continue at"))?;
    let next = absolute(url, target)?;
    led_to(&Origin::of(url)?, &next, Purpose::Upload)?;
    Ok(next)
}
