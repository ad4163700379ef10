//! Pulls of images into the store.

use crate::client::{self, Ask, Client};
use crate::endpoint::Endpoint;
use crate::error::RegistryError;
use crate::patience::incomplete;
use http::StatusCode;
use hyper::body::Bytes;
use kiln_image::compression::decompressed_limited;
use kiln_image::config::ImageConfig;
use kiln_image::digest::{Algorithm, DiffId, Digest, ImageId};
use kiln_image::layer::WALK_STACK;
use kiln_image::manifest::{Descriptor, Manifest, ManifestError, ManifestOrIndex, media_type};
use kiln_image::platform::Platform;
use kiln_image::reference::Reference;
use kiln_image::store::{BlobError, MAX_METADATA, Store, StoreError};
use std::io::{self, BufReader, Read, Write};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tracing::debug;

/// Number of layers that are downloaded at once, as in Docker.
const PARALLEL: usize = 3;
/// Pieces of a layer in the queue between the network and the unpacker.
const QUEUE: usize = 16;
/// Deepest nesting of indexes.
const MAX_DEPTH: usize = 4;

const ACCEPT: &str = "application/vnd.oci.image.index.v1+json, application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json";

/// Listener for the progress of a pull.
pub type Progress<'a> = dyn Fn(PullEvent) + Sync + 'a;

/// Progress of a pull.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PullEvent {
    /// The digest of the image and its layers are known.
    Resolved(Digest, Vec<Descriptor>),
    /// A layer is in the store already.
    Exists(Digest),
    /// Number of bytes of a layer that have been downloaded.
    Downloading(Digest, u64),
    /// A layer is complete.
    Complete(Digest),
}

/// Result of a pull.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pulled {
    /// Id of the image.
    pub image: ImageId,
    /// Digest in the registry: that of the index or manifest that the tag refers to.
    pub digest: Digest,
    /// Whether the tag changed.
    pub is_new: bool,
}

/// Bytes of a manifest and the endpoint they came from.
struct Fetched {
    bytes: Vec<u8>,
    media_type: Option<String>,
    digest: Digest,
    endpoint: Endpoint,
}

/// Pulls on the calling thread; `network` runs the requests.
pub(crate) fn pull(
    network: &Handle,
    client: &Client,
    endpoints: &[Endpoint],
    store: &Store,
    reference: &Reference,
    platform: &Platform,
    progress: &Progress<'_>,
) -> Result<Pulled, RegistryError> {
    let top = network.block_on(fetch_manifest(client, endpoints, reference, &reference.version()))?;
    let digest = top.digest.clone();
    let endpoint = top.endpoint.clone();
    let (bytes, kind, manifest) = network.block_on(choose_manifest(client, top, reference, platform))?;
    progress(PullEvent::Resolved(digest.clone(), manifest.layers.clone()));
    let before = store.find(reference)?.map(|image| image.id);

    let _using = store.use_layers()?;
    let config = network.block_on(fetch_config(client, &endpoint, reference, &manifest))?;
    let image = ImageId(manifest.config.digest.clone());
    let parsed = ImageConfig::parse(&config).map_err(|error| StoreError::Config(image.clone(), error))?;
    if parsed.rootfs.diff_ids.len() != manifest.layers.len() {
        let reason = format!(
            "the manifest has {} layers, the config {}",
            manifest.layers.len(),
            parsed.rootfs.diff_ids.len()
        );
        return Err(client::protocol(&endpoint.url(reference.path()), &reason));
    }
    let source = LayerSource { network, client, endpoint: &endpoint, store, reference };
    source.fetch_all(&manifest.layers, &parsed.rootfs.diff_ids, progress)?;
    let id = store.put_image(&bytes, &kind, &config)?;
    store.add_repo_digest(&id, &reference.repository(), &digest)?;
    // A tag refers to the image for this host's platform, if there is one: images for other platforms are stored by
    // digest.
    let is_own = platform.distance(&Platform::host()).is_some();
    let is_free = store.find(&reference.clone().or_latest())?.is_none();
    if (is_own || is_free) && (reference.tag().is_some() || reference.digest().is_none()) {
        store.tag(&reference.clone().or_latest(), &id)?;
    }
    Ok(Pulled { is_new: before.as_ref() != Some(&id), image: id, digest })
}

/// Config of an image, and the digest under which the registry stores the image; fetches no layers.
pub(crate) fn config(
    network: &Handle,
    client: &Client,
    endpoints: &[Endpoint],
    reference: &Reference,
    platform: &Platform,
) -> Result<(ImageConfig, Digest), RegistryError> {
    network.block_on(async {
        let top = fetch_manifest(client, endpoints, reference, &reference.version()).await?;
        let (digest, endpoint) = (top.digest.clone(), top.endpoint.clone());
        let (_, _, manifest) = choose_manifest(client, top, reference, platform).await?;
        let config = fetch_config(client, &endpoint, reference, &manifest).await?;
        let image = ImageId(manifest.config.digest.clone());
        let parsed = ImageConfig::parse(&config).map_err(|error| StoreError::Config(image, error))?;
        Ok((parsed, digest))
    })
}

fn scope(reference: &Reference) -> Option<String> {
    Some(format!("repository:{}:pull", reference.path()))
}

/// Fetches a manifest from the first endpoint that has it. The error is that of the last one, the registry itself.
async fn fetch_manifest(
    client: &Client,
    endpoints: &[Endpoint],
    reference: &Reference,
    version: &str,
) -> Result<Fetched, RegistryError> {
    let mut failure = None;
    for endpoint in endpoints {
        let (host, is_mirror) = (&endpoint.authority, endpoint.mirror_of.is_some());
        match fetch_manifest_from(client, endpoint, reference, version).await {
            Ok(fetched) => {
                debug!(%reference, host, is_mirror, digest = %fetched.digest, "manifest");
                return Ok(fetched);
            }
            // A mirror's "not found" is more informative than a failed connection to the registry.
            Err(error) => {
                debug!(%reference, host, is_mirror, error = %error, "no manifest");
                failure = Some(match (failure, error) {
                    (
                        Some(told @ (RegistryError::ManifestUnknown(_) | RegistryError::Busy { .. })),
                        RegistryError::Connection { .. } | RegistryError::Proxy { .. },
                    ) => told,
                    // Neither could be reached: the error names both.
                    (
                        Some(RegistryError::Connection { url: before, .. }),
                        RegistryError::Connection { url, source },
                    ) => RegistryError::Connection { url: format!("{before} or {url}"), source },
                    (_, error) => error,
                });
            }
        }
    }
    Err(failure.unwrap_or_else(|| RegistryError::ManifestUnknown(reference.familiar())))
}

async fn fetch_manifest_from(
    client: &Client,
    endpoint: &Endpoint,
    reference: &Reference,
    version: &str,
) -> Result<Fetched, RegistryError> {
    let url = endpoint.url(&format!("{}/manifests/{version}", reference.path()));
    let ask = Ask { url: url.clone(), accept: Some(ACCEPT), scope: scope(reference), ..Ask::default() };
    let (answer, bytes) = client.read(&ask, MAX_METADATA as usize).await?;
    let status = answer.status;
    let header = answer.headers.get(http::header::CONTENT_TYPE);
    let kind = header
        .and_then(|value| value.to_str().ok())
        .map(|text| text.split(';').next().unwrap_or_default().trim().to_owned());
    if !status.is_success() {
        return Err(refused(url, status, &bytes, reference));
    }
    // Digests that Kiln computes itself are SHA-256.
    let expected = version.parse::<Digest>().ok();
    let algorithm = expected.as_ref().map_or(Algorithm::Sha256, Digest::algorithm);
    let digest = Digest::with(algorithm, &bytes);
    if let Some(expected) = expected.filter(|expected| *expected != digest) {
        return Err(RegistryError::Digest { url, expected, actual: digest });
    }
    Ok(Fetched { bytes, media_type: kind, digest, endpoint: endpoint.clone() })
}

fn refused(url: String, status: StatusCode, body: &[u8], reference: &Reference) -> RegistryError {
    match status {
        StatusCode::NOT_FOUND => RegistryError::ManifestUnknown(reference.familiar()),
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            RegistryError::Denied(reference.familiar_repository())
        }
        _ => {
            RegistryError::Status { url, status: status.as_u16(), message: client::error_text(body, status) }
        }
    }
}

/// Follows an index to the manifest for a platform.
async fn choose_manifest(
    client: &Client,
    mut fetched: Fetched,
    reference: &Reference,
    platform: &Platform,
) -> Result<(Vec<u8>, String, Manifest), RegistryError> {
    let malformed =
        |source: ManifestError| RegistryError::Manifest { reference: reference.familiar(), source };
    for _ in 0..MAX_DEPTH {
        let kind = fetched.media_type.clone();
        match ManifestOrIndex::parse(&fetched.bytes, kind.as_deref()).map_err(malformed)? {
            ManifestOrIndex::Manifest(manifest) => {
                let kind =
                    manifest.media_type.clone().or(kind).unwrap_or(media_type::OCI_MANIFEST.to_owned());
                return Ok((fetched.bytes, kind, *manifest));
            }
            ManifestOrIndex::Index(index) => {
                let chosen = index.choose(platform).ok_or_else(|| {
                    let entries = index.manifests.iter().filter(|entry| !entry.is_attestation());
                    let platforms = entries.filter_map(|entry| Some(entry.platform.as_ref()?.to_string()));
                    RegistryError::NoPlatform {
                        reference: reference.familiar(),
                        platform: platform.to_string(),
                        available: platforms.collect::<Vec<_>>().join(", "),
                    }
                })?;
                let (digest, platform) = (chosen.digest.clone(), platform.to_string());
                let below = fetch_manifest(client, &[fetched.endpoint], reference, digest.as_str()).await;
                fetched = below.map_err(|error| match error {
                    RegistryError::ManifestUnknown(reference) => {
                        RegistryError::ManifestMissing { reference, digest, platform }
                    }
                    other => other,
                })?;
            }
        }
    }
    Err(client::protocol(&reference.familiar(), "indexes are nested too deeply"))
}

/// Fetches and verifies an image's config.
///
/// # Errors
/// [`RegistryError::Artifact`] when the manifest is not that of an image.
async fn fetch_config(
    client: &Client,
    endpoint: &Endpoint,
    reference: &Reference,
    manifest: &Manifest,
) -> Result<Vec<u8>, RegistryError> {
    if let Some(what) = manifest.artifact() {
        return Err(RegistryError::Artifact { reference: reference.familiar(), what });
    }
    let digest = &manifest.config.digest;
    let ask = blob_ask(endpoint, reference, digest, 0);
    let (answer, bytes) = client.read(&ask, MAX_METADATA as usize).await?;
    let status = answer.status;
    if !status.is_success() {
        return Err(blob_refused(ask.url, status, &bytes, reference, digest, "the config"));
    }
    let actual = Digest::with(digest.algorithm(), &bytes);
    if actual != *digest {
        return Err(RegistryError::Digest { url: ask.url, expected: digest.clone(), actual });
    }
    Ok(bytes)
}

/// Error for a blob that a manifest refers to and the registry does not deliver.
fn blob_refused(
    url: String,
    status: StatusCode,
    body: &[u8],
    reference: &Reference,
    digest: &Digest,
    what: &str,
) -> RegistryError {
    match refused(url, status, body, reference) {
        RegistryError::ManifestUnknown(reference) => {
            RegistryError::BlobMissing { reference, digest: digest.clone(), what: what.to_owned() }
        }
        other => other,
    }
}

fn blob_ask(endpoint: &Endpoint, reference: &Reference, digest: &Digest, from: u64) -> Ask {
    let url = endpoint.url(&format!("{}/blobs/{digest}", reference.path()));
    Ask { url, from, scope: scope(reference), ..Ask::default() }
}

/// Source and destination of layers.
struct LayerSource<'a> {
    network: &'a Handle,
    client: &'a Client,
    endpoint: &'a Endpoint,
    store: &'a Store,
    reference: &'a Reference,
}

/// Download of one layer of an image.
struct LayerJob<'a> {
    source: &'a LayerSource<'a>,
    layer: &'a Descriptor,
    diff_id: &'a DiffId,
    below: &'a [DiffId],
}

impl LayerSource<'_> {
    /// Downloads and unpacks several layers at once; those that need the layers below them are unpacked last.
    fn fetch_all(
        &self,
        layers: &[Descriptor],
        diff_ids: &[DiffId],
        progress: &Progress<'_>,
    ) -> Result<(), RegistryError> {
        let job = |index: usize| LayerJob {
            source: self,
            layer: &layers[index],
            diff_id: &diff_ids[index],
            below: &diff_ids[..index],
        };
        let next = AtomicUsize::new(0);
        let outcome = Mutex::new(Ok(Vec::new()));
        std::thread::scope(|scope| {
            for _ in 0..PARALLEL.min(layers.len()) {
                let worker = || {
                    loop {
                        let index = next.fetch_add(1, Ordering::Relaxed);
                        if index >= layers.len() || lock(&outcome).is_err() {
                            return;
                        }
                        let result = job(index).run(progress);
                        let mut outcome = lock(&outcome);
                        match (result, outcome.as_mut()) {
                            (Ok(()), _) | (_, Err(_)) => {}
                            (Err(RegistryError::Store(StoreError::LayerMissing(_))), Ok(waiting)) => {
                                waiting.push(index);
                            }
                            (Err(error), Ok(_)) => *outcome = Err(error),
                        }
                    }
                };
                let thread = std::thread::Builder::new().stack_size(WALK_STACK);
                thread.spawn_scoped(scope, worker).expect("a thread can be started");
            }
        });
        let mut waiting = outcome.into_inner().unwrap_or_else(PoisonError::into_inner)?;
        waiting.sort_unstable();
        waiting.into_iter().try_for_each(|index| job(index).run(progress))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl LayerJob<'_> {
    fn run(&self, progress: &Progress<'_>) -> Result<(), RegistryError> {
        let store = self.source.store;
        let digest = &self.layer.digest;
        let is_there = || -> Result<bool, StoreError> {
            Ok(store.find_layer(self.diff_id, self.below)?.is_some_and(|layer| store.has_blob_of(&layer)))
        };
        if !is_there()? {
            // The lock lets only one of several processes download the layer.
            let name = format!("layer-{}", self.diff_id.0.hex());
            let _lock = store.lock(&name, || {})?;
            if !is_there()? {
                self.stream(progress)?;
                progress(PullEvent::Complete(digest.clone()));
                return Ok(());
            }
        }
        progress(PullEvent::Exists(digest.clone()));
        Ok(())
    }

    /// Downloads on this thread and unpacks on another.
    fn stream(&self, progress: &Progress<'_>) -> Result<(), RegistryError> {
        // A stored blob whose content is damaged is removed, and downloaded like a missing one.
        if self.source.store.blobs().has(&self.layer.digest, self.layer.size) {
            debug!(digest = %self.layer.digest, "layer is not downloaded: the store has its blob");
            match self.unpack_stored() {
                Err(RegistryError::Store(StoreError::Blob(BlobError::Mismatch { .. }))) => {}
                done => return done,
            }
        }
        let (sender, receiver) = mpsc::channel(QUEUE);
        std::thread::scope(|scope| {
            let unpack = || self.unpack(receiver);
            let unpacker = std::thread::Builder::new().stack_size(WALK_STACK).spawn_scoped(scope, unpack);
            let unpacker = unpacker.expect("a thread can be started");
            let downloaded = self.source.network.block_on(self.download(sender, progress));
            let unpacked = unpacker.join().expect("unpacking does not panic");
            // The first failure caused the other.
            downloaded.and(unpacked)
        })
    }

    /// Sends the layer's bytes to the unpacker, and resumes when the connection breaks.
    async fn download(
        &self,
        sender: mpsc::Sender<Bytes>,
        progress: &Progress<'_>,
    ) -> Result<(), RegistryError> {
        const RESUMES: u32 = 5;
        /// Number of bytes that count as progress.
        const PROGRESS: u64 = 16 << 10;
        let digest = &self.layer.digest;
        let mut done = 0u64;
        let mut broken = 0;
        while done < self.layer.size || (self.layer.size == 0 && broken == 0) {
            let ask = blob_ask(self.source.endpoint, self.source.reference, digest, done);
            let response = self.source.client.send(&ask).await?;
            let status = response.status();
            if !status.is_success() {
                let body = client::read_body(&ask.url, response, 1 << 16).await.unwrap_or_default();
                let what = format!("layer {}", self.below.len() + 1);
                return Err(blob_refused(ask.url, status, &body, self.source.reference, digest, &what));
            }
            // A server that ignores the range starts over: skip the bytes received before.
            let mut skip = if status == StatusCode::PARTIAL_CONTENT { 0 } else { done };
            let before = done;
            let mut body = response.into_body();
            let failure = loop {
                let mut data = match body.next().await {
                    None => break None,
                    Some(Err(error)) => break Some(error),
                    Some(Ok(data)) => data,
                };
                let skipped = skip.min(data.len() as u64);
                skip -= skipped;
                let data = data.split_off(skipped as usize);
                done += data.len() as u64;
                if done > self.layer.size {
                    return Err(client::protocol(&ask.url, "more bytes than the manifest states"));
                }
                progress(PullEvent::Downloading(digest.clone(), done));
                if sender.send(data).await.is_err() {
                    // The unpacker ended with an error, which is reported there.
                    return Ok(());
                }
            };
            // The limit of attempts counts only those without progress.
            broken = if done >= before + PROGRESS { 0 } else { broken + 1 };
            if done < self.layer.size && broken > RESUMES {
                return Err(incomplete(&ask.url, done, Some(self.layer.size), failure));
            }
        }
        Ok(())
    }

    /// Unpacks a layer whose blob was kept when the layer itself was removed.
    fn unpack_stored(&self) -> Result<(), RegistryError> {
        let (store, digest) = (self.source.store, &self.layer.digest);
        store.unpack_blob(digest, self.diff_id, self.below)?;
        Ok(())
    }

    fn unpack(&self, receiver: mpsc::Receiver<Bytes>) -> Result<(), RegistryError> {
        let (store, digest) = (self.source.store, &self.layer.digest);
        let blob = store.blobs().writer(digest)?;
        let mut source = Tee { input: ChannelReader { receiver, current: Bytes::new() }, copy: blob };
        let unpacked = {
            let input = BufReader::with_capacity(1 << 17, &mut source);
            let tar = decompressed_limited(input).map_err(unreadable)?;
            store.unpack(tar, self.diff_id, self.below)
        };
        // The blob is stored before the layer that refers to it.
        let waits = matches!(unpacked, Err(StoreError::LayerMissing(_)));
        if unpacked.is_ok() || waits {
            io::copy(&mut source, &mut io::sink()).map_err(unreadable)?;
            source.copy.commit()?;
        }
        store.keep_unpacked(unpacked?, Some(digest))?;
        Ok(())
    }
}

fn unreadable(error: io::Error) -> RegistryError {
    client::connection("layer", error)
}

/// Reader of the downloaded bytes for the unpacking thread.
struct ChannelReader {
    receiver: mpsc::Receiver<Bytes>,
    current: Bytes,
}

impl Read for ChannelReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() {
            match self.receiver.blocking_recv() {
                None => return Ok(0),
                Some(piece) => self.current = piece,
            }
        }
        let length = buffer.len().min(self.current.len());
        buffer[..length].copy_from_slice(&self.current.split_to(length));
        Ok(length)
    }
}

/// Reader that writes a copy of all bytes it passes on.
struct Tee<R, W> {
    input: R,
    copy: W,
}

impl<R: Read, W: Write> Read for Tee<R, W> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.input.read(buffer)?;
        self.copy.write_all(&buffer[..length])?;
        Ok(length)
    }
}
