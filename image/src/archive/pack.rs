//! Packing of images for archives and registries: compression of layers, media types of OCI or Docker.

use super::ArchiveError;
use crate::compression::ParallelGzip;
use crate::digest::{Digest, Hashing};
use crate::json;
use crate::manifest::{Descriptor, Manifest, media_type};
use crate::platform::Platform;
use crate::store::{ImageRecord, LayerRecord, ScratchDir, Store, StoreError};
use crate::sys::Named;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Write};
use std::path::PathBuf;
use std::sync::Arc;

/// Compression of layers in an archive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Compression {
    /// Layers are stored as plain tars.
    #[default]
    None,
    /// With gzip, at a level from 0 to 9.
    Gzip(u32),
    /// With zstd, at a level from 1 to 22.
    Zstd(i32),
}

/// Options for packing an image.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PackOptions {
    /// Compression of layers that are not compressed already.
    pub compression: Compression,
    /// Whether layers with another compression are recompressed.
    pub force: bool,
    /// Whether Docker's media types are used instead of OCI's.
    pub docker_types: bool,
    /// Annotations for the manifest, in addition to its own.
    pub annotations: BTreeMap<String, String>,
}

/// A packed image, ready to be written.
#[derive(Clone)]
pub struct PackedImage {
    /// Bytes of the manifest.
    pub manifest: Vec<u8>,
    /// Media type of the manifest.
    pub media_type: String,
    /// Bytes of the config.
    pub config: Vec<u8>,
    /// Layers of the image, lowest first.
    pub layers: Vec<PackedLayer>,
    /// Platform of the image.
    pub platform: Platform,
}

impl PackedImage {
    /// Descriptor of the manifest.
    pub fn descriptor(&self) -> Descriptor {
        let mut descriptor = Descriptor::of(&self.media_type, &self.manifest);
        descriptor.platform = Some(self.platform.clone());
        descriptor
    }
}

/// A packed layer, ready to be written.
#[derive(Clone)]
pub struct PackedLayer {
    /// Descriptor of the packed bytes.
    pub descriptor: Descriptor,
    source: Source,
}

#[derive(Clone)]
enum Source {
    /// A blob of the store.
    Blob,
    /// A temporary file with the compressed layer.
    File { path: PathBuf, _dir: Arc<ScratchDir> },
    /// The tar of a layer, created while it is read.
    Layer(Box<LayerRecord>),
}

impl PackedLayer {
    /// Writes the layer's bytes.
    ///
    /// # Errors
    /// Fails when the layer or blob was removed from the store, or the output fails.
    pub fn write(&self, store: &Store, output: &mut dyn Write) -> Result<(), ArchiveError> {
        if let Source::Layer(layer) = &self.source {
            store.write_layer_tar(layer, output)?;
            return Ok(());
        }
        let mut input = self.open(store)?;
        std::io::copy(&mut input, output).map_err(ArchiveError::Io)?;
        Ok(())
    }

    /// Opens the layer's bytes for reading.
    ///
    /// # Errors
    /// Fails when the layer or blob was removed from the store.
    pub fn open(&self, store: &Store) -> Result<Box<dyn Read + Send>, ArchiveError> {
        match &self.source {
            Source::Blob => {
                store.check_blob(&self.descriptor.digest)?;
                let file = store.blobs().open(&self.descriptor.digest).map_err(StoreError::from)?;
                Ok(Box::new(BufReader::new(file)))
            }
            Source::File { path, .. } => Ok(Box::new(File::open(path).call("open", path)?)),
            Source::Layer(layer) => {
                let dir = Arc::new(store.scratch_dir()?);
                let path = dir.path().join("layer");
                let mut file = BufWriter::new(File::create_new(&path).call("open", &path)?);
                store.write_layer_tar(layer, &mut file)?;
                file.flush().call("write", &path)?;
                let file = File::open(&path).call("open", &path)?;
                // The file stays readable after its directory is removed.
                Ok(Box::new(file))
            }
        }
    }
}

/// Packs an image of the store.
///
/// # Errors
/// Fails when a layer is missing or cannot be compressed.
pub fn pack(store: &Store, image: &ImageRecord, options: &PackOptions) -> Result<PackedImage, ArchiveError> {
    let read = store.read_image(image.clone())?;
    let stored = store.read_manifest(image)?;
    let mut layers = Vec::new();
    let diff_ids = &read.config.rootfs.diff_ids;
    for (number, (diff_id, layer)) in diff_ids.iter().zip(store.layers_of(diff_ids)?).enumerate() {
        layers.push(pack_layer(store, layer, &diff_id.0, stored.layers.get(number), options)?);
    }
    let config = store.blobs().read(&image.id.0).map_err(StoreError::from)?;
    let (config_type, manifest_type) = match options.docker_types {
        true => (media_type::DOCKER_CONFIG, media_type::DOCKER_MANIFEST),
        false => (media_type::OCI_CONFIG, media_type::OCI_MANIFEST),
    };
    let descriptors = layers.iter().map(|layer| layer.descriptor.clone()).collect();
    let mut manifest = Manifest::oci(Descriptor::of(config_type, &config), descriptors);
    manifest.media_type = Some(manifest_type.to_owned());
    manifest.annotations = stored.annotations;
    manifest.annotations.extend(options.annotations.clone());
    Ok(PackedImage {
        manifest: json::to_vec(&manifest),
        media_type: manifest_type.to_owned(),
        config,
        layers,
        platform: read.config.platform(),
    })
}

fn pack_layer(
    store: &Store,
    layer: LayerRecord,
    diff_id: &Digest,
    stored: Option<&Descriptor>,
    options: &PackOptions,
) -> Result<PackedLayer, ArchiveError> {
    if options.compression == Compression::None {
        let size = store.layer_tar_size(&layer)?;
        let kind = if options.docker_types { media_type::DOCKER_LAYER } else { media_type::OCI_LAYER };
        let descriptor = Descriptor::new(kind, diff_id.clone(), size);
        return Ok(PackedLayer { descriptor, source: Source::Layer(Box::new(layer)) });
    }
    let is_gzip = matches!(options.compression, Compression::Gzip(_));
    let kind = match (is_gzip, options.docker_types) {
        (true, true) => media_type::DOCKER_LAYER_GZIP,
        (true, false) => media_type::OCI_LAYER_GZIP,
        // Docker has no separate media type for zstd.
        (false, _) => media_type::OCI_LAYER_ZSTD,
    };
    let compressed = stored.filter(|stored| {
        let same = stored.media_type.ends_with("gzip") == is_gzip;
        let is_compressed = stored.digest != *diff_id;
        is_compressed && (same || !options.force) && store.blobs().contains(&stored.digest)
    });
    if let Some(stored) = compressed {
        let kind = match (stored.media_type.ends_with("gzip"), options.docker_types) {
            (true, true) => media_type::DOCKER_LAYER_GZIP,
            (true, false) => media_type::OCI_LAYER_GZIP,
            (false, _) => media_type::OCI_LAYER_ZSTD,
        };
        let descriptor = Descriptor { media_type: kind.to_owned(), ..stored.clone() };
        return Ok(PackedLayer { descriptor, source: Source::Blob });
    }
    compress(store, &layer, kind, options.compression)
}

fn compress(
    store: &Store,
    layer: &LayerRecord,
    kind: &str,
    compression: Compression,
) -> Result<PackedLayer, ArchiveError> {
    let dir = Arc::new(store.scratch_dir()?);
    let path = dir.path().join("layer");
    let file = BufWriter::with_capacity(1 << 17, File::create_new(&path).call("open", &path)?);
    let output = Hashing::new(file);
    let output = match compression {
        Compression::Zstd(level) => {
            let mut encoder = zstd::stream::write::Encoder::new(output, level).map_err(ArchiveError::Io)?;
            store.write_layer_tar(layer, &mut encoder)?;
            encoder.finish().map_err(ArchiveError::Io)?
        }
        Compression::Gzip(level) => {
            let mut encoder = ParallelGzip::new(output, level);
            store.write_layer_tar(layer, &mut encoder)?;
            encoder.finish().map_err(ArchiveError::Io)?
        }
        Compression::None => unreachable!("layers that are not compressed are not packed"),
    };
    let (mut file, digest, size) = output.finish();
    file.flush().call("write", &path)?;
    let descriptor = Descriptor::new(kind, digest, size);
    Ok(PackedLayer { descriptor, source: Source::File { path, _dir: dir } })
}
