//! Descriptors, manifests and indexes: typed views for reading, and the ones we write.
//!
//! What was received is kept and passed on as the bytes it was; these views are never serialised back.
//! OCI image-spec 1.1, and Docker's schema 2 which names the same fields.

use crate::digest::Digest;
use crate::platform::Platform;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Media types that registries and archives use.
pub mod media_type {
    /// OCI image manifest.
    pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
    /// OCI image index.
    pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
    /// OCI image config.
    pub const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
    /// OCI layer, uncompressed.
    pub const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
    /// OCI layer, gzip.
    pub const OCI_LAYER_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
    /// OCI layer, zstd.
    pub const OCI_LAYER_ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";
    /// Docker manifest.
    pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
    /// Docker manifest list.
    pub const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
    /// Docker image config.
    pub const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
    /// Docker layer, uncompressed.
    pub const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar";
    /// Docker layer, gzip.
    pub const DOCKER_LAYER_GZIP: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";
    /// The long dead first Docker manifest, signed.
    pub const DOCKER_SCHEMA1: &str = "application/vnd.docker.distribution.manifest.v1+prettyjws";

    /// True for an image index of either kind.
    pub fn is_index(media_type: &str) -> bool {
        matches!(media_type, OCI_INDEX | DOCKER_INDEX)
    }

    /// True for an image manifest of either kind.
    pub fn is_manifest(media_type: &str) -> bool {
        matches!(media_type, OCI_MANIFEST | DOCKER_MANIFEST)
    }
}

/// The only way one object points to another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// What the bytes are.
    pub media_type: String,
    /// Their digest.
    pub digest: Digest,
    /// Their length.
    pub size: u64,
    /// Where else they may be had.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub urls: Vec<String>,
    /// Free-form notes.
    #[serde(default, deserialize_with = "null_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// In an index: what the image is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
}

impl Descriptor {
    /// A descriptor of `bytes`.
    pub fn of(media_type: &str, bytes: &[u8]) -> Descriptor {
        Descriptor::new(media_type, Digest::of(bytes), bytes.len() as u64)
    }

    /// A descriptor from its parts.
    pub fn new(media_type: &str, digest: Digest, size: u64) -> Descriptor {
        Descriptor {
            media_type: media_type.to_owned(),
            digest,
            size,
            urls: Vec::new(),
            annotations: BTreeMap::new(),
            platform: None,
        }
    }

    /// True for entries that carry provenance and the like instead of an image.
    pub fn is_attestation(&self) -> bool {
        let unknown = |platform: &Platform| platform.os == "unknown" && platform.architecture == "unknown";
        self.annotations.contains_key("vnd.docker.reference.type")
            || self.platform.as_ref().is_some_and(unknown)
    }
}

/// One platform's config and layers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// Always 2.
    pub schema_version: u32,
    /// What this manifest is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// The image config.
    pub config: Descriptor,
    /// The layers, lowest first.
    #[serde(deserialize_with = "null_default")]
    pub layers: Vec<Descriptor>,
    /// Free-form notes.
    #[serde(default, deserialize_with = "null_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

impl Manifest {
    /// An OCI manifest for `config` and `layers`.
    pub fn oci(config: Descriptor, layers: Vec<Descriptor>) -> Manifest {
        let media_type = Some(media_type::OCI_MANIFEST.to_owned());
        Manifest { schema_version: 2, media_type, config, layers, annotations: BTreeMap::new() }
    }
}

/// A list of manifests, one a platform.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Index {
    /// Always 2.
    pub schema_version: u32,
    /// What this index is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// The manifests.
    #[serde(deserialize_with = "null_default")]
    pub manifests: Vec<Descriptor>,
    /// Free-form notes.
    #[serde(default, deserialize_with = "null_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

impl Index {
    /// An OCI index of `manifests`.
    pub fn oci(manifests: Vec<Descriptor>) -> Index {
        let media_type = Some(media_type::OCI_INDEX.to_owned());
        Index { schema_version: 2, media_type, manifests, annotations: BTreeMap::new() }
    }

    /// The manifest that runs best on `wanted`; the first one when several do.
    ///
    /// An entry without a platform is taken only when nothing else fits.
    pub fn choose(&self, wanted: &Platform) -> Option<&Descriptor> {
        let images = || self.manifests.iter().filter(|entry| !entry.is_attestation());
        let fitting = images().filter_map(|entry| Some((entry.platform.as_ref()?.distance(wanted)?, entry)));
        let best = fitting.min_by_key(|(distance, _)| *distance).map(|(_, entry)| entry);
        best.or_else(|| images().find(|entry| entry.platform.is_none()))
    }
}

/// What a manifest's bytes turned out to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ManifestOrIndex {
    /// One image.
    Manifest(Box<Manifest>),
    /// Several.
    Index(Index),
}

/// Bytes that are no manifest we can use.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// Not JSON of the right shape.
    #[error("malformed manifest")]
    Malformed(#[source] serde_json::Error),
    /// A format that ended in 2017.
    #[error(
        "image manifest version 2, schema 1 is no longer supported: push the image again with a current tool"
    )]
    Schema1,
    /// A media type that is no image.
    #[error("media type `{0}` is not an image manifest or index")]
    MediaType(String),
}

impl ManifestOrIndex {
    /// Reads a manifest or index; `media_type` is what the transport said, if it said something.
    pub fn parse(bytes: &[u8], media_type: Option<&str>) -> Result<ManifestOrIndex, ManifestError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Probe {
            #[serde(default)]
            schema_version: u32,
            media_type: Option<String>,
            manifests: Option<serde::de::IgnoredAny>,
        }
        let probe: Probe = serde_json::from_slice(bytes).map_err(ManifestError::Malformed)?;
        if probe.schema_version == 1 {
            return Err(ManifestError::Schema1);
        }
        let named = probe.media_type.as_deref().or(media_type);
        let is_index = match named {
            Some(named) if media_type::is_index(named) => true,
            Some(named) if media_type::is_manifest(named) => false,
            Some(named) if named.starts_with("application/vnd.docker.distribution.manifest.v1") => {
                return Err(ManifestError::Schema1);
            }
            Some(named) if probe.media_type.is_some() => {
                return Err(ManifestError::MediaType(named.to_owned()));
            }
            _ => probe.manifests.is_some(),
        };
        if is_index {
            serde_json::from_slice(bytes).map(ManifestOrIndex::Index).map_err(ManifestError::Malformed)
        } else {
            serde_json::from_slice(bytes).map(ManifestOrIndex::Manifest).map_err(ManifestError::Malformed)
        }
    }
}

/// Reads JSON `null` as an empty collection: Go writes it for a nil slice or map.
pub(crate) fn null_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(platform: Option<&str>) -> Descriptor {
        let mut descriptor =
            Descriptor::of(media_type::OCI_MANIFEST, platform.unwrap_or_default().as_bytes());
        descriptor.platform = platform.map(|text| match text {
            "unknown" => Platform::new("unknown", "unknown", None),
            _ => text.parse().unwrap(),
        });
        descriptor
    }

    #[test]
    fn the_best_platform_is_chosen() {
        let index = Index::oci(vec![
            entry(Some("unknown")),
            entry(None),
            entry(Some("linux/arm/v5")),
            entry(Some("linux/arm/v7")),
            entry(Some("linux/amd64")),
        ]);
        let choose = |wanted: &str| index.choose(&wanted.parse().unwrap()).and_then(|d| d.platform.clone());
        assert_eq!(choose("linux/amd64").map(|p| p.to_string()), Some("linux/amd64".into()));
        assert_eq!(choose("linux/arm/v7").map(|p| p.to_string()), Some("linux/arm/v7".into()));
        assert_eq!(choose("linux/arm/v6").map(|p| p.to_string()), Some("linux/arm/v5".into()));
        assert_eq!(choose("linux/s390x"), None);
        assert_eq!(Index::oci(vec![entry(Some("unknown"))]).choose(&Platform::host()), None);
    }

    #[test]
    fn what_bytes_are_is_read_from_them_first() {
        let manifest = Manifest::oci(entry(None), vec![]);
        let bytes = crate::json::to_vec(&manifest);
        assert_eq!(
            ManifestOrIndex::parse(&bytes, None).unwrap(),
            ManifestOrIndex::Manifest(Box::new(manifest))
        );
        let bare = br#"{"schemaVersion":2,"manifests":null}"#;
        assert!(matches!(ManifestOrIndex::parse(bare, None), Ok(ManifestOrIndex::Manifest(_)) | Err(_)));
        let index = br#"{"schemaVersion":2,"manifests":[]}"#;
        assert!(matches!(ManifestOrIndex::parse(index, None), Ok(ManifestOrIndex::Index(_))));
        assert!(matches!(
            ManifestOrIndex::parse(br#"{"schemaVersion":1}"#, None),
            Err(ManifestError::Schema1)
        ));
        assert!(matches!(ManifestOrIndex::parse(b"[]", None), Err(ManifestError::Malformed(_))));
    }
}
