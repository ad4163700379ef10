//! Loading of images from archives.

use super::file::open_regular;
use super::{ArchiveError, DockerImage, IMAGE_NAME, REF_NAME, blob};
use crate::compression::{Meter, decompressed};
use crate::config::ImageConfig;
use crate::digest::{DiffId, Digest, ImageId};
use crate::json;
use crate::manifest::{Descriptor, Index, Manifest, ManifestOrIndex, media_type};
use crate::platform::Platform;
use crate::reference::{Reference, ReferenceError};
use crate::store::{Store, StoreError};
use crate::sys::Named;
use crate::tar::{EntryKind, Reader};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// Largest config or manifest, in bytes.
const MAX_JSON: u64 = 8 << 20;
/// Memory for the names of an archive's files, in bytes: an image has a few files for each layer.
const MAX_KNOWN: usize = 128 << 20;
/// Memory for a file besides its name, in bytes.
const KNOWN: usize = 128;
/// Deepest nesting of indexes and of links.
const MAX_DEPTH: usize = 8;
const BUFFER: usize = 1 << 17;

/// An image loaded from an archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// Id of the image.
    pub image: ImageId,
    /// References that the image received.
    pub names: Vec<Reference>,
    /// References that moved to this image, with the previous image of each.
    pub renamed: Vec<(Reference, ImageId)>,
}

/// Loads the images of an archive: docker-archive or OCI layout, as a tar (also compressed) or a directory.
///
/// # Errors
/// Fails when the archive is of neither format, is malformed, or lacks files; images loaded before stay.
pub fn load(store: &Store, path: &Path) -> Result<Vec<Loaded>, ArchiveError> {
    if path.is_dir() {
        let source = &Dir(path.to_owned());
        return Loader { store, source, platform: Platform::host(), meter: Meter::default() }.load();
    }
    let mut file = open_regular(path)?;
    let mut start = [0u8; 6];
    let is_plain = match file.read_exact(&mut start) {
        Ok(()) => file.rewind().is_ok() && !is_compressed(&start),
        Err(_) => false,
    };
    if is_plain {
        let meter = Meter::of_archive(file.metadata().call("stat", path)?.len());
        return load_tar(store, file, meter);
    }
    let file = open_regular(path)?;
    load_stream(store, BufReader::with_capacity(BUFFER, file))
}

/// Loads the images of an archive from a stream.
///
/// # Errors
/// Fails in the cases of [`load`].
pub fn load_stream(store: &Store, stream: impl BufRead) -> Result<Vec<Loaded>, ArchiveError> {
    let dir = store.scratch_dir()?;
    let path = dir.path().join("archive.tar");
    let mut file = File::create_new(&path).call("open", &path)?;
    let meter = Meter::default();
    let mut tar = meter.decompressed(stream).map_err(ArchiveError::Io)?;
    io::copy(&mut tar, &mut file).map_err(ArchiveError::Io)?;
    // The size limit refers to the compressed stream, also when its content is compressed again.
    let meter = Meter::of_archive(meter.consumed());
    load_tar(store, File::open(&path).call("open", &path)?, meter)
}

fn is_compressed(start: &[u8]) -> bool {
    let magics: [&[u8]; 4] = [&[0x1f, 0x8b], &[0x28, 0xb5, 0x2f, 0xfd], b"BZh", b"\xfd7zXZ"];
    magics.iter().any(|magic| start.starts_with(magic))
}

fn load_tar(store: &Store, file: File, meter: Meter) -> Result<Vec<Loaded>, ArchiveError> {
    let source = Tar::index(file)?;
    Loader { store, source: &source, platform: Platform::host(), meter }.load()
}

/// Loads one image of an OCI layout into the store without a reference: that with a digest, or a tag, or the only one.
///
/// # Errors
/// [`ArchiveError::Missing`] when there is no such image, otherwise the cases of [`load`].
pub fn load_layout(
    store: &Store,
    dir: &Path,
    tag: Option<&str>,
    digest: Option<&Digest>,
    platform: &Platform,
) -> Result<ImageId, ArchiveError> {
    let source = &Dir(dir.to_owned());
    let loader = Loader { store, source, platform: platform.clone(), meter: Meter::default() };
    let _using = store.use_layers()?;
    let index = loader.need("index.json")?;
    let index: Index =
        serde_json::from_slice(&index).map_err(|error| ArchiveError::Json("index.json".to_owned(), error))?;
    let has_tag = |descriptor: &&Descriptor, tag: &str| {
        let names = [IMAGE_NAME, REF_NAME].into_iter().filter_map(|name| descriptor.annotations.get(name));
        names.into_iter().any(|name| name == tag || name.ends_with(&format!(":{tag}")))
    };
    let mut images = index.manifests.iter().filter(|descriptor| !descriptor.is_attestation());
    let chosen = match (digest, tag) {
        (Some(digest), _) => {
            let named = images.find(|descriptor| descriptor.digest == *digest).cloned();
            named.or_else(|| Some(Descriptor::new(media_type::OCI_MANIFEST, digest.clone(), 0)))
        }
        (None, Some(tag)) => images.find(|descriptor| has_tag(descriptor, tag)).cloned(),
        (None, None) => {
            let all: Vec<&Descriptor> = images.collect();
            let latest = all.iter().find(|descriptor| has_tag(descriptor, "latest"));
            latest.or(all.first()).map(|descriptor| (*descriptor).clone())
        }
    };
    let missing = || ArchiveError::Missing(format!("an image {}", tag.unwrap_or("of any name")));
    Ok(loader.load_oci(chosen.ok_or_else(missing)?, Vec::new())?.image)
}

/// Files of an archive, by name.
trait Source {
    fn open(&self, name: &str) -> Result<Option<Box<dyn Read + '_>>, ArchiveError>;
}

struct Dir(PathBuf);

impl Source for Dir {
    fn open(&self, name: &str) -> Result<Option<Box<dyn Read + '_>>, ArchiveError> {
        let is_inside =
            Path::new(name).components().all(|part| matches!(part, std::path::Component::Normal(_)));
        if !is_inside {
            return Ok(None);
        }
        match open_regular(&self.0.join(name)) {
            Ok(file) => Ok(Some(Box::new(file))),
            Err(ArchiveError::Call(error)) if error.errno == rustix::io::Errno::NOENT => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// Positions of files in a tar.
struct Tar {
    file: File,
    places: BTreeMap<String, Place>,
}

enum Place {
    File { offset: u64, size: u64 },
    Link(String),
}

/// Reader of a section of a file; does not move the file's offset, so several can read at once.
struct Section<'a> {
    file: &'a File,
    position: u64,
}

impl Read for Section<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.file.read_at(buffer, self.position)?;
        self.position += length as u64;
        Ok(length)
    }
}

/// Reader that counts bytes.
struct Counting<R> {
    inner: R,
    position: u64,
}

impl<R: Read> Read for Counting<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.inner.read(buffer)?;
        self.position += length as u64;
        Ok(length)
    }
}

impl Tar {
    fn index(file: File) -> Result<Tar, ArchiveError> {
        let mut places = BTreeMap::new();
        let mut known = 0;
        let copy = file.try_clone().map_err(ArchiveError::Io)?;
        let mut counting = Counting { inner: BufReader::with_capacity(BUFFER, copy), position: 0 };
        {
            let mut reader = Reader::new(&mut counting);
            while let Some(entry) = reader.next_entry()? {
                let name = clean(&String::from_utf8_lossy(&entry.name));
                let link = String::from_utf8_lossy(&entry.link).into_owned();
                known += name.len() + link.len() + KNOWN;
                if known > MAX_KNOWN {
                    return Err(ArchiveError::TooManyFiles);
                }
                match entry.kind {
                    EntryKind::File => {
                        let offset = reader.get_ref().position;
                        places.insert(name, Place::File { offset, size: entry.size });
                    }
                    EntryKind::HardLink => {
                        places.insert(name, Place::Link(clean(&link)));
                    }
                    EntryKind::Symlink => {
                        let parent = name.rsplit_once('/').map_or("", |(parent, _)| parent);
                        let target = clean(&format!("{parent}/{link}"));
                        places.insert(name, Place::Link(target));
                    }
                    _ => {}
                }
            }
        }
        Ok(Tar { file, places })
    }
}

/// Path without `.`, `..` and redundant slashes; it never leaves the archive.
fn clean(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            other => parts.push(other),
        }
    }
    parts.join("/")
}

impl Source for Tar {
    fn open(&self, name: &str) -> Result<Option<Box<dyn Read + '_>>, ArchiveError> {
        let mut name = clean(name);
        for _ in 0..MAX_DEPTH {
            match self.places.get(&name) {
                None => return Ok(None),
                Some(Place::Link(target)) => name.clone_from(target),
                Some(Place::File { offset, size }) => {
                    let section = Section { file: &self.file, position: *offset };
                    return Ok(Some(Box::new(section.take(*size))));
                }
            }
        }
        Ok(None)
    }
}

struct Loader<'a> {
    store: &'a Store,
    source: &'a dyn Source,
    /// Platform that is chosen from indexes.
    platform: Platform,
    /// Limit on the size of decompressed layers.
    meter: Meter,
}

impl Loader<'_> {
    fn load(&self) -> Result<Vec<Loaded>, ArchiveError> {
        let _using = self.store.use_layers()?;
        if let Some(bytes) = self.read("manifest.json")? {
            let images: Vec<DockerImage> = serde_json::from_slice(&bytes)
                .map_err(|error| ArchiveError::Json("manifest.json".to_owned(), error))?;
            return images.iter().map(|image| self.load_docker(image)).collect();
        }
        let bytes = self.read("index.json")?.ok_or(ArchiveError::Unknown)?;
        let index: Index = serde_json::from_slice(&bytes)
            .map_err(|error| ArchiveError::Json("index.json".to_owned(), error))?;
        self.load_index(&index)
    }

    fn read(&self, name: &str) -> Result<Option<Vec<u8>>, ArchiveError> {
        let Some(file) = self.source.open(name)? else { return Ok(None) };
        let mut bytes = Vec::new();
        file.take(MAX_JSON + 1).read_to_end(&mut bytes).map_err(ArchiveError::Io)?;
        if bytes.len() as u64 > MAX_JSON {
            return Err(ArchiveError::TooLarge(name.to_owned()));
        }
        Ok(Some(bytes))
    }

    fn need(&self, name: &str) -> Result<Vec<u8>, ArchiveError> {
        self.read(name)?.ok_or_else(|| ArchiveError::Missing(name.to_owned()))
    }

    /// Reads a blob and verifies its digest.
    fn need_blob(&self, descriptor: &Descriptor) -> Result<Vec<u8>, ArchiveError> {
        let name = blob(&descriptor.digest);
        let bytes = self.need(&name)?;
        let mut hasher = crate::digest::Hasher::new(descriptor.digest.algorithm());
        hasher.update(&bytes);
        if hasher.finish() != descriptor.digest {
            return Err(ArchiveError::Missing(format!("{name} (with that digest)")));
        }
        Ok(bytes)
    }

    fn load_docker(&self, image: &DockerImage) -> Result<Loaded, ArchiveError> {
        let config = self.need(&image.config)?;
        let names = image.repo_tags.iter().flatten();
        let names = names.map(|name| name.parse::<Reference>().map_err(StoreError::from));
        let names: Vec<Reference> = names.collect::<Result<_, _>>()?;
        self.keep(&config, &image.layers, names)
    }

    fn load_index(&self, index: &Index) -> Result<Vec<Loaded>, ArchiveError> {
        // Descriptors of the same image under several names are one image with several names.
        let mut images: Vec<(Descriptor, Vec<Reference>)> = Vec::new();
        for descriptor in index.manifests.iter().filter(|descriptor| !descriptor.is_attestation()) {
            let name = name_of(descriptor)?;
            match images.iter_mut().find(|(known, _)| known.digest == descriptor.digest) {
                Some((_, names)) => names.extend(name),
                None => images.push((descriptor.clone(), name.into_iter().collect())),
            }
        }
        let host = Platform::host();
        let distance = |descriptor: &Descriptor| match &descriptor.platform {
            Some(platform) => platform.distance(&host),
            None => Some(0),
        };
        let best = images.iter().filter_map(|(descriptor, _)| distance(descriptor)).min();
        let is_foreign = |descriptor: &Descriptor| distance(descriptor) != best || best.is_none();
        if images.len() > 1 && images.iter().any(|(descriptor, _)| !is_foreign(descriptor)) {
            images.retain(|(descriptor, names)| !names.is_empty() || !is_foreign(descriptor));
        }
        images.into_iter().map(|(descriptor, names)| self.load_oci(descriptor, names)).collect()
    }

    fn load_oci(&self, mut descriptor: Descriptor, names: Vec<Reference>) -> Result<Loaded, ArchiveError> {
        for _ in 0..MAX_DEPTH {
            let name = blob(&descriptor.digest);
            let bytes = self.need_blob(&descriptor)?;
            let parsed = ManifestOrIndex::parse(&bytes, Some(&descriptor.media_type));
            match parsed.map_err(|error| ArchiveError::Manifest(name.clone(), error))? {
                ManifestOrIndex::Manifest(manifest) => {
                    let config = self.need_blob(&manifest.config)?;
                    let layers: Vec<String> =
                        manifest.layers.iter().map(|layer| blob(&layer.digest)).collect();
                    return self.keep(&config, &layers, names);
                }
                ManifestOrIndex::Index(index) => {
                    let chosen = index.choose(&self.platform);
                    let missing = || ArchiveError::Platform(self.platform.to_string());
                    descriptor = chosen.ok_or_else(missing)?.clone();
                }
            }
        }
        Err(ArchiveError::Missing("a manifest".to_owned()))
    }

    fn keep(&self, config: &[u8], layers: &[String], names: Vec<Reference>) -> Result<Loaded, ArchiveError> {
        let image = ImageId(Digest::of(config));
        let parsed = ImageConfig::parse(config).map_err(|error| StoreError::Config(image.clone(), error))?;
        let diff_ids = &parsed.rootfs.diff_ids;
        if layers.len() != diff_ids.len() {
            return Err(ArchiveError::Layers { image, layers: layers.len(), diff_ids: diff_ids.len() });
        }
        let mut descriptors = Vec::new();
        for (at, (name, diff_id)) in layers.iter().zip(diff_ids).enumerate() {
            let size = self.keep_layer(name, diff_id, &diff_ids[..at])?;
            descriptors.push(Descriptor::new(media_type::OCI_LAYER, diff_id.0.clone(), size));
        }
        let manifest = Manifest::oci(Descriptor::of(media_type::OCI_CONFIG, config), descriptors);
        let id = self.store.put_image(&json::to_vec(&manifest), media_type::OCI_MANIFEST, config)?;
        let names: Vec<Reference> = names.into_iter().map(Reference::or_latest).collect();
        let mut renamed = Vec::new();
        for name in &names {
            if let Some(before) = self.store.find(name)?.filter(|before| before.id != id) {
                renamed.push((name.clone(), before.id));
            }
            self.store.tag(name, &id)?;
        }
        Ok(Loaded { image: id, names, renamed })
    }

    /// Unpacks a layer unless the store has it; returns the length of its tar.
    fn keep_layer(&self, name: &str, diff_id: &DiffId, below: &[DiffId]) -> Result<u64, ArchiveError> {
        let open = || {
            let file = self.source.open(name)?.ok_or_else(|| ArchiveError::Missing(name.to_owned()))?;
            Ok::<_, ArchiveError>(BufReader::with_capacity(BUFFER, file))
        };
        let layer = match self.store.find_layer(diff_id, below)? {
            Some(layer) if self.store.has_blob_of(&layer) => layer,
            _ => {
                let tar = self.meter.decompressed(open()?).map_err(ArchiveError::Io)?;
                let unpacked = self.store.unpack(tar, diff_id, below)?;
                // The meter has counted it already.
                let again = || open().map_err(io::Error::other).and_then(decompressed);
                self.store.keep_with_tar(unpacked, again)?
            }
        };
        Ok(self.store.layer_tar_size(&layer)?)
    }
}

/// Reference of an image in an index: containerd's annotation, or the OCI one where it is more than a tag. Texts that
/// are not references are ignored; references that look like ids are refused.
fn name_of(descriptor: &Descriptor) -> Result<Option<Reference>, StoreError> {
    let whole = descriptor.annotations.get(IMAGE_NAME);
    let short = descriptor.annotations.get(REF_NAME).filter(|name| name.contains([':', '/']));
    match whole.or(short).map(|name| name.parse::<Reference>()) {
        Some(Err(error @ (ReferenceError::Ambiguous(_) | ReferenceError::ImageId(_)))) => Err(error.into()),
        Some(name) => Ok(name.ok()),
        None => Ok(None),
    }
}
