//! Writing images.

use super::{ArchiveError, DockerImage, IMAGE_NAME, REF_NAME, blob};
use crate::digest::Digest;
use crate::json;
use crate::manifest::{Descriptor, Index, Manifest, media_type};
use crate::reference::Reference;
use crate::store::{ImageRecord, Store};
use crate::sys::{CallError, Named};
use crate::tar::{Entry, EntryKind, TarError, Writer};
use rustix::io::Errno;
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

const OCI_LAYOUT: &[u8] = br#"{"imageLayoutVersion":"1.0.0"}"#;

/// An image to save, and the names that it is saved under.
#[derive(Clone, Debug)]
pub struct SaveRequest {
    /// The image.
    pub image: ImageRecord,
    /// Its names; may be none.
    pub names: Vec<Reference>,
}

/// Writes a tar that `docker load` reads and that is an OCI layout, too. The same images give the same bytes.
pub fn save_tar(store: &Store, images: &[SaveRequest], output: impl Write) -> Result<(), ArchiveError> {
    let mut tar = TarOutput(Writer::new(BufWriter::with_capacity(1 << 17, output)));
    save(store, images, &mut tar, true)?;
    tar.0.finish()?.flush().map_err(|error| ArchiveError::Tar(TarError::Io("write", error)))
}

/// Writes an OCI layout as a folder, which must be missing or empty.
pub fn save_folder(store: &Store, images: &[SaveRequest], folder: &Path) -> Result<(), ArchiveError> {
    match fs::create_dir(folder) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let is_empty = fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_none());
            if !is_empty {
                return Err(ArchiveError::NotEmpty(folder.to_owned()));
            }
        }
        failed => failed.call("mkdir", folder)?,
    }
    save(store, images, &mut FolderOutput(folder.to_owned()), false)
}

/// Where an archive goes.
trait Output {
    fn folder(&mut self, name: &str) -> Result<(), ArchiveError>;
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
    output.folder("blobs")?;
    output.folder("blobs/sha256")?;
    let mut written = BTreeSet::new();
    let (mut manifests, mut docker) = (Vec::new(), Vec::new());
    for request in images {
        let image = store.read_image(request.image.clone())?;
        let mut layers = Vec::new();
        for diff_id in &image.config.rootfs.diff_ids {
            let layer = store.layer_of(diff_id)?;
            let size = store.layer_tar_size(&layer)?;
            layers.push(Descriptor::new(media_type::OCI_LAYER, diff_id.0.clone(), size));
            if written.insert(diff_id.0.clone()) {
                output.file(&blob(&diff_id.0), size, &mut |file| {
                    store.write_layer_tar(&layer, file)?;
                    Ok(())
                })?;
            }
        }
        let config = store.blobs().read(&image.record.id.0).map_err(crate::store::StoreError::from)?;
        let manifest =
            json::to_vec(&Manifest::oci(Descriptor::of(media_type::OCI_CONFIG, &config), layers.clone()));
        for bytes in [&config, &manifest] {
            let digest = Digest::of(bytes);
            if written.insert(digest.clone()) {
                output.bytes(&blob(&digest), bytes)?;
            }
        }
        let mut descriptor = Descriptor::of(media_type::OCI_MANIFEST, &manifest);
        descriptor.platform = Some(image.config.platform());
        manifests.extend(descriptors(descriptor, &request.names));
        docker.push(DockerImage {
            config: blob(&image.record.id.0),
            repo_tags: names(&request.names),
            layers: layers.iter().map(|layer| blob(&layer.digest)).collect(),
        });
    }
    output.bytes("index.json", &json::to_vec(&Index::oci(manifests)))?;
    if with_docker {
        output.bytes("manifest.json", &json::to_vec(&docker))?;
    }
    output.bytes("oci-layout", OCI_LAYOUT)
}

fn names(names: &[Reference]) -> Option<Vec<String>> {
    let names: Vec<String> = names.iter().map(Reference::familiar).collect();
    (!names.is_empty()).then_some(names)
}

/// One descriptor a name, or one without.
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
    fn folder(&mut self, name: &str) -> Result<(), ArchiveError> {
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

/// The content of the current entry as a writer.
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

struct FolderOutput(PathBuf);

impl Output for FolderOutput {
    fn folder(&mut self, name: &str) -> Result<(), ArchiveError> {
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
