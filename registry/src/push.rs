//! Uploading images.
//!
//! Layers go up one after the other in pieces, so that none has to fit into memory; what the registry has already is not
//! sent again. A name is set last, when all that it leads to is there.

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

/// Size of the pieces that layers go up in, in bytes.
const PIECE: usize = 8 << 20;
/// Pauses between questions whether a blob has arrived, in milliseconds.
const VERIFY_PAUSES: [u64; 5] = [500, 1000, 2000, 4000, 8000];

/// What a registry says of a blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Found {
    /// It has it.
    Yes,
    /// It does not have it.
    No,
    /// It does not say: the question is forbidden, or leads elsewhere.
    Unknown,
}

/// What is uploaded under which name.
pub struct PushRequest<'a> {
    /// The name.
    pub reference: &'a Reference,
    /// The images: one, or those that `index` points to.
    pub images: &'a [PackedImage],
    /// The bytes of an index over the images.
    pub index: Option<&'a [u8]>,
    /// No name is set: the image can be had by its digest alone.
    pub by_digest: bool,
}

/// What happens during a push.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PushEvent {
    /// The registry has a layer already.
    Exists(Digest),
    /// So many bytes of a layer have gone up.
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

    /// Sends a request; an answer that is no success is an error.
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

    /// Whether the registry has a blob; false where it does not say: then the blob is sent.
    async fn exists(&self, digest: &Digest, size: u64) -> Result<bool, RegistryError> {
        Ok(self.find(digest, size).await? == Found::Yes)
    }

    async fn find(&self, digest: &Digest, size: u64) -> Result<Found, RegistryError> {
        let ask = self.ask(Method::HEAD, self.url(&format!("blobs/{digest}")));
        let response = match self.client.send(&ask).await {
            Ok(response) => response,
            // The registry itself, and not where it keeps its blobs: the next request would fail as well.
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

    /// Begins an upload; gives the address for its first piece.
    async fn begin(&self) -> Result<String, RegistryError> {
        let url = self.url("blobs/uploads/");
        let response = self.send(self.ask(Method::POST, url.clone())).await?;
        location(&url, &response)
    }

    /// A request of an upload, at an address that the registry named: another origin gets no credentials, as in containerd.
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
    ///
    /// [`RegistryError::Digest`] when the registry has taken other bytes, or none that it can find.
    async fn finish(&self, url: &str, digest: &Digest, size: u64, rest: Bytes) -> Result<(), RegistryError> {
        let separator = if url.contains('?') { '&' } else { '?' };
        let mut ask = self.upload(Method::PUT, format!("{url}{separator}digest={digest}"))?;
        ask.body = rest;
        let response = self.send(ask).await?;
        let blob = self.url(&format!("blobs/{digest}"));
        match told_digest(&response) {
            Some(told) if told == *digest => Ok(()),
            Some(told) if told.algorithm() == digest.algorithm() => {
                Err(RegistryError::Digest { url: blob, expected: digest.clone(), actual: told })
            }
            // Created, under the digest that it was sent with (distribution-spec, "Pushing blobs").
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

    /// Checks that the registry has what it took without saying so. One that stores blobs elsewhere may need a while; one
    /// that does not answer such questions is believed.
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
        match told_digest(&response) {
            Some(actual) if actual.algorithm() == digest.algorithm() && actual != digest => {
                Err(RegistryError::Digest { url, expected: digest, actual })
            }
            _ => Ok(digest),
        }
    }
}

/// The digest that the registry computed.
fn told_digest(response: &Response<Download>) -> Option<Digest> {
    response.headers().get("docker-content-digest")?.to_str().ok()?.parse().ok()
}

fn location(url: &str, response: &Response<Download>) -> Result<String, RegistryError> {
    let target = response.headers().get(LOCATION).and_then(|value| value.to_str().ok());
    let target = target.ok_or_else(|| client::protocol(url, "an upload without a place to go on"))?;
    let next = absolute(url, target)?;
    led_to(&Origin::of(url)?, &next, Purpose::Upload)?;
    Ok(next)
}
