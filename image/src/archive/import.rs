//! Images of one layer from a tar of files.

use super::ArchiveError;
use crate::compression::Meter;
use crate::config::{History, ImageConfig, RootFs, RunConfig};
use crate::digest::{DiffId, Hashing, ImageId};
use crate::json;
use crate::manifest::{Descriptor, Manifest, media_type};
use crate::platform::Platform;
use crate::store::Store;
use crate::sys::Named;
use crate::tar::{Reader, TarError};
use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};

/// Size of a header of a tar in bytes.
const BLOCK: u64 = 512;

/// What an imported image has besides its files.
#[derive(Clone, Debug)]
pub struct ImportOptions {
    /// Defaults for containers of the image.
    pub config: RunConfig,
    /// Platform that its programs are for.
    pub platform: Platform,
    /// Comment in its history.
    pub comment: String,
    /// Time of its creation, RFC 3339.
    pub created: String,
}

/// Creates an image whose only layer has the files of a tar, which may be compressed. It has no name.
///
/// # Errors
/// [`ArchiveError::Io`] when the stream cannot be read or decompressed, and the errors of a layer that is no tar.
pub fn import(store: &Store, stream: impl BufRead, options: &ImportOptions) -> Result<ImageId, ArchiveError> {
    let dir = store.scratch_dir()?;
    let path = dir.path().join("layer.tar");
    // The digest of the tar is known only at its end, and the tar may come from a pipe.
    let mut file = Hashing::new(BufWriter::new(File::create_new(&path).call("open", &path)?));
    let mut tar = Meter::default().decompressed(stream).map_err(ArchiveError::Io)?;
    // Looked at before an endless stream that is no tar fills the disk.
    let mut start = Vec::new();
    tar.by_ref().take(BLOCK).read_to_end(&mut start).map_err(ArchiveError::Io)?;
    if start.len() as u64 == BLOCK {
        let mut first = Reader::new(start.as_slice());
        if let Err(error @ TarError::Header { .. }) = first.next_entry() {
            return Err(error.into());
        }
    }
    io::copy(&mut start.as_slice().chain(tar), &mut file).map_err(ArchiveError::Io)?;
    let (mut file, digest, size) = file.finish();
    file.flush().call("write", &path)?;
    let open = || File::open(&path).map(BufReader::new);
    let diff_id = DiffId(digest.clone());
    // The layer must not be collected before the image names it.
    let _using = store.use_layers()?;
    let known = store.find_layer(&diff_id, &[])?.filter(|layer| store.has_blob_of(layer));
    if known.is_none() {
        let unpacked = store.unpack(open().call("open", &path)?, &diff_id, &[])?;
        store.keep_with_tar(unpacked, open)?;
    }
    let config = ImageConfig {
        architecture: options.platform.architecture.clone(),
        os: options.platform.os.clone(),
        variant: options.platform.variant.clone(),
        config: options.config.clone(),
        created: Some(options.created.clone()),
        rootfs: RootFs { diff_ids: vec![diff_id], ..RootFs::default() },
        history: vec![History {
            created: Some(options.created.clone()),
            comment: options.comment.clone(),
            ..History::default()
        }],
        ..ImageConfig::default()
    };
    let (bytes, _) = config.encode();
    let layer = Descriptor::new(media_type::OCI_LAYER, digest, size);
    let mut manifest = Manifest::oci(Descriptor::of(media_type::OCI_CONFIG, &bytes), vec![layer]);
    manifest.media_type = Some(media_type::OCI_MANIFEST.to_owned());
    Ok(store.put_image(&json::to_vec(&manifest), media_type::OCI_MANIFEST, &bytes)?)
}
