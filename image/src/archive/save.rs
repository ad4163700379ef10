//! Saving of images as archives.

use super::{ArchiveError, DockerImage, IMAGE_NAME, PackOptions, PackedImage, REF_NAME, blob, pack};
use crate::digest::Digest;
use crate::json;
use crate::manifest::{Descriptor, Index, media_type};
use crate::reference::Reference;
use crate::store::{ImageRecord, Store};
use crate::sys::{CallError, Named};
use crate::tar::{Entry, EntryKind, TarError, Writer};
use rustix::io::Errno;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

const OCI_LAYOUT: &[u8] = br#"{"imageLayoutVersion":"1.0.0"}"#;

/// An image to save, and its references in the archive.
#[derive(Clone, Debug)]
pub struct SaveRequest {
    /// Record of the image to save.
    pub image: ImageRecord,
    /// References in the archive; may be empty.
    pub names: Vec<Reference>,
    /// Options for packing the image.
    pub options: PackOptions,
    /// Annotations for the entry in `index.json`.
    pub annotations: BTreeMap<String, String>,
}

impl SaveRequest {
    /// Creates a request with default options.
    pub fn new(image: ImageRecord, names: Vec<Reference>) -> SaveRequest {
        SaveRequest { image, names, options: PackOptions::default(), annotations: BTreeMap::new() }
    }
}

/// Images for several platforms under the same references.
#[derive(Clone, Debug)]
pub struct IndexRequest<'a> {
    /// Images, one for each platform.
    pub images: &'a [SaveRequest],
    /// References of the index.
    pub names: &'a [Reference],
    /// Annotations for the index.
    pub annotations: &'a BTreeMap<String, String>,
    /// Annotations for the descriptor of the index.
    pub descriptor_annotations: &'a BTreeMap<String, String>,
}

/// Writes a tar that `docker load` reads and that is also an OCI layout. The bytes depend on the images only.
///
/// # Errors
/// Fails when an image cannot be packed or the output fails.
pub fn save_tar(store: &Store, images: &[SaveRequest], output: impl Write) -> Result<(), ArchiveError> {
    let mut tar = TarOutput(Writer::new(BufWriter::with_capacity(1 << 17, output)));
    save(store, images, &mut tar, true)?;
    tar.0.finish()?.flush().map_err(|error| ArchiveError::Tar(TarError::Io("write", error)))
}

/// Writes a tar that is an OCI layout of an index over several images.
///
/// # Errors
/// Fails in the cases of [`save_tar`].
pub fn save_index_tar(
    store: &Store,
    index: &IndexRequest<'_>,
    output: impl Write,
) -> Result<(), ArchiveError> {
    let mut tar = TarOutput(Writer::new(BufWriter::with_capacity(1 << 17, output)));
    save_index(store, index, &mut tar)?;
    tar.0.finish()?.flush().map_err(|error| ArchiveError::Tar(TarError::Io("write", error)))
}

/// Writes an OCI layout of an index over several images as a directory, which must be missing or empty.
///
/// # Errors
/// [`ArchiveError::NotEmpty`], or the cases of [`save_tar`].
pub fn save_index_dir(store: &Store, index: &IndexRequest<'_>, dir: &Path) -> Result<(), ArchiveError> {
    make_empty(dir)?;
    save_index(store, index, &mut DirOutput(dir.to_owned()))
}

/// Writes an OCI layout as a directory, which must be missing or empty.
///
/// # Errors
/// [`ArchiveError::NotEmpty`], or the cases of [`save_tar`].
pub fn save_dir(store: &Store, images: &[SaveRequest], dir: &Path) -> Result<(), ArchiveError> {
    make_empty(dir)?;
    save(store, images, &mut DirOutput(dir.to_owned()), false)
}

fn make_empty(dir: &Path) -> Result<(), ArchiveError> {
    match fs::create_dir(dir) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let is_empty = fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_none());
            if is_empty { Ok(()) } else { Err(ArchiveError::NotEmpty(dir.to_owned())) }
        }
        failed => Ok(failed.call("mkdir", dir)?),
    }
}

/// Destination of an archive's files.
trait Output {
    fn dir(&mut self, name: &str) -> Result<(), ArchiveError>;
    fn file(
        &mut self,
        name: &str,
        size: u64,
        write: &mut dyn FnMut(&mut dyn Write) -> Result<(), ArchiveError>,
    ) -> Result<(), ArchiveError>;

    fn bytes(&mut self, name: &str, bytes: &[u8]) -> Result<(), ArchiveError> {
        self.file(name, bytes.len() as u64, &mut |output| {
            output.write_all(bytes).map_err(|error| ArchiveError::Tar(TarError::Io("write", error)))
        })
    }
}

fn save(
    store: &Store,
    images: &[SaveRequest],
    output: &mut dyn Output,
    with_docker: bool,
) -> Result<(), ArchiveError> {
    output.dir("blobs")?;
    output.dir("blobs/sha256")?;
    let mut written = BTreeSet::new();
    let (mut manifests, mut docker) = (Vec::new(), Vec::new());
    for request in images {
        let packed = pack(store, &request.image, &request.options)?;
        write_image(store, &packed, output, &mut written)?;
        let mut descriptor = packed.descriptor();
        descriptor.annotations.extend(request.annotations.clone());
        manifests.extend(descriptors(descriptor, &request.names));
        docker.push(DockerImage {
            config: blob(&Digest::of(&packed.config)),
            repo_tags: names(&request.names),
            layers: packed.layers.iter().map(|layer| blob(&layer.descriptor.digest)).collect(),
        });
    }
    output.bytes("index.json", &json::to_vec(&Index::oci(manifests)))?;
    if with_docker {
        output.bytes("manifest.json", &json::to_vec(&docker))?;
    }
    output.bytes("oci-layout", OCI_LAYOUT)
}

fn write_image(
    store: &Store,
    packed: &PackedImage,
    output: &mut dyn Output,
    written: &mut BTreeSet<Digest>,
) -> Result<(), ArchiveError> {
    for layer in &packed.layers {
        if written.insert(layer.descriptor.digest.clone()) {
            let name = blob(&layer.descriptor.digest);
            output.file(&name, layer.descriptor.size, &mut |file| layer.write(store, file))?;
        }
    }
    for bytes in [&packed.config, &packed.manifest] {
        let digest = Digest::of(bytes);
        if written.insert(digest.clone()) {
            output.bytes(&blob(&digest), bytes)?;
        }
    }
    Ok(())
}

fn save_index(
    store: &Store,
    request: &IndexRequest<'_>,
    output: &mut dyn Output,
) -> Result<(), ArchiveError> {
    output.dir("blobs")?;
    output.dir("blobs/sha256")?;
    let mut written = BTreeSet::new();
    let mut manifests = Vec::new();
    for image in request.images {
        let packed = pack(store, &image.image, &image.options)?;
        write_image(store, &packed, output, &mut written)?;
        let mut descriptor = packed.descriptor();
        descriptor.annotations.extend(image.annotations.clone());
        manifests.push(descriptor);
    }
    let mut index = Index::oci(manifests);
    index.annotations.clone_from(request.annotations);
    let bytes = json::to_vec(&index);
    output.bytes(&blob(&Digest::of(&bytes)), &bytes)?;
    let mut descriptor = Descriptor::of(media_type::OCI_INDEX, &bytes);
    descriptor.annotations.clone_from(request.descriptor_annotations);
    let top = descriptors(descriptor, request.names);
    output.bytes("index.json", &json::to_vec(&Index::oci(top)))?;
    output.bytes("oci-layout", OCI_LAYOUT)
}

fn names(names: &[Reference]) -> Option<Vec<String>> {
    let names: Vec<String> = names.iter().map(Reference::familiar).collect();
    (!names.is_empty()).then_some(names)
}

/// One descriptor for each name, or one without a name.
fn descriptors(descriptor: Descriptor, names: &[Reference]) -> Vec<Descriptor> {
    if names.is_empty() {
        return vec![descriptor];
    }
    let named = |name: &Reference| {
        let mut descriptor = descriptor.clone();
        let tag = name.tag().unwrap_or_default().to_owned();
        descriptor.annotations.insert(IMAGE_NAME.to_owned(), name.to_string());
        descriptor.annotations.insert(REF_NAME.to_owned(), tag);
        descriptor
    };
    names.iter().map(named).collect()
}

struct TarOutput<W: Write>(Writer<W>);

impl<W: Write> Output for TarOutput<W> {
    fn dir(&mut self, name: &str) -> Result<(), ArchiveError> {
        let entry = Entry { mode: 0o755, ..Entry::new(EntryKind::Directory, name) };
        Ok(self.0.begin(&entry)?)
    }

    fn file(
        &mut self,
        name: &str,
        size: u64,
        write: &mut dyn FnMut(&mut dyn Write) -> Result<(), ArchiveError>,
    ) -> Result<(), ArchiveError> {
        self.0.begin(&Entry { mode: 0o644, size, ..Entry::new(EntryKind::File, name) })?;
        write(&mut ContentOf(&mut self.0))
    }
}

/// Writer of the current entry's content.
struct ContentOf<'a, W: Write>(&'a mut Writer<W>);

impl<W: Write> Write for ContentOf<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.0.content(bytes) {
            Ok(()) => Ok(bytes.len()),
            Err(TarError::Io(_, error)) => Err(error),
            Err(error) => Err(io::Error::other(error)),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct DirOutput(PathBuf);

impl Output for DirOutput {
    fn dir(&mut self, name: &str) -> Result<(), ArchiveError> {
        let path = self.0.join(name);
        Ok(fs::create_dir(&path).call("mkdir", &path)?)
    }

    fn file(
        &mut self,
        name: &str,
        _size: u64,
        write: &mut dyn FnMut(&mut dyn Write) -> Result<(), ArchiveError>,
    ) -> Result<(), ArchiveError> {
        let path = self.0.join(name);
        let mut file = BufWriter::with_capacity(1 << 17, File::create_new(&path).call("open", &path)?);
        write(&mut file)?;
        let flushed = file.flush();
        Ok(flushed.map_err(|error| CallError {
            call: "write",
            path,
            errno: Errno::from_io_error(&error).unwrap_or(Errno::IO),
        })?)
    }
}
