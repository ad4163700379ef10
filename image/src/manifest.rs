//! Descriptors, manifests and indexes: typed views for reading, and those that Kiln writes.
//!
//! Received manifests are stored and passed on as their original bytes; these views of them are never serialised. OCI
//! image-spec 1.1, and Docker's schema 2 with the same fields.

use crate::digest::Digest;
use crate::platform::Platform;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Media types that registries and archives use.
#[expect(missing_docs, reason = "a constant is named after the kind of object and its compression")]
pub mod media_type {
    pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
    pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
    pub const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
    pub const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
    pub const OCI_LAYER_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
    pub const OCI_LAYER_ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";
    /// OCI config of an artifact that needs none.
    pub const OCI_EMPTY: &str = "application/vnd.oci.empty.v1+json";
    pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
    pub const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
    pub const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
    pub const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar";
    pub const DOCKER_LAYER_GZIP: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";
    /// Docker manifest of schema 1, signed; obsolete since 2017.
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

/// Reference to a blob or manifest by its digest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// Media type of the content.
    pub media_type: String,
    /// Digest of the content.
    pub digest: Digest,
    /// Length of the content in bytes.
    pub size: u64,
    /// Further addresses of the content.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub urls: Vec<String>,
    /// Values of the annotations, by name.
    #[serde(default, deserialize_with = "null_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// In an index: platform of the image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
}

impl Descriptor {
    /// Descriptor of `bytes`, which it hashes.
    pub fn of(media_type: &str, bytes: &[u8]) -> Descriptor {
        Descriptor::new(media_type, Digest::of(bytes), bytes.len() as u64)
    }

    /// Descriptor from its parts.
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

    /// Descriptor of a layer with OCI's media type instead of Docker's.
    #[must_use]
    pub fn as_oci(self) -> Descriptor {
        let media_type = match self.media_type.as_str() {
            media_type::DOCKER_LAYER => media_type::OCI_LAYER.to_owned(),
            media_type::DOCKER_LAYER_GZIP => media_type::OCI_LAYER_GZIP.to_owned(),
            _ => self.media_type,
        };
        Descriptor { media_type, ..self }
    }

    /// True for entries with provenance or similar attestations instead of an image.
    pub fn is_attestation(&self) -> bool {
        let unknown = |platform: &Platform| platform.os == "unknown" && platform.architecture == "unknown";
        self.annotations.contains_key("vnd.docker.reference.type")
            || self.platform.as_ref().is_some_and(unknown)
    }
}

/// Config and layers of an image for one platform.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// Schema version; always 2.
    pub schema_version: u32,
    /// Media type of this manifest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// Descriptor of the image config.
    pub config: Descriptor,
    /// Descriptors of the layers, lowest first.
    #[serde(deserialize_with = "null_default")]
    pub layers: Vec<Descriptor>,
    /// Values of the annotations, by name.
    #[serde(default, deserialize_with = "null_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// Type of an artifact without a config (OCI image-spec 1.1).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
}

/// Kinds of artifacts in registries, by the media type of the config, the artifact type, or else that of the layers.
const ARTIFACTS: [(&str, &str); 14] = [
    ("application/vnd.cncf.helm.config.", "a Helm chart"),
    ("application/vnd.cncf.helm.chart.", "a Helm chart"),
    ("application/vnd.docker.plugin.", "a Docker plugin"),
    ("application/vnd.docker.ai.model.", "an AI model"),
    ("application/vnd.docker.compose.", "a Compose project"),
    ("application/vnd.wasm.", "a WebAssembly module"),
    ("application/wasm", "a WebAssembly module"),
    ("application/vnd.dev.cosign.", "a signature"),
    ("application/vnd.dev.sigstore.", "a signature"),
    ("application/vnd.cncf.notary.", "a signature"),
    ("application/vnd.in-toto+", "an attestation"),
    ("application/spdx+", "a list of software (SBOM)"),
    ("application/vnd.cyclonedx", "a list of software (SBOM)"),
    ("application/vnd.cncf.openpolicyagent.", "an OPA policy bundle"),
];

impl Manifest {
    /// OCI manifest for `config` and `layers`.
    pub fn oci(config: Descriptor, layers: Vec<Descriptor>) -> Manifest {
        Manifest {
            schema_version: 2,
            media_type: Some(media_type::OCI_MANIFEST.to_owned()),
            config,
            layers,
            annotations: BTreeMap::new(),
            artifact_type: None,
        }
    }

    /// Kind of an artifact that is not an image, with an article and its media type; `None` for images.
    pub fn artifact(&self) -> Option<String> {
        // Old images have generic media types.
        let is_config = |kind: &str| {
            matches!(kind, media_type::OCI_CONFIG | media_type::DOCKER_CONFIG | "")
                || matches!(kind, "application/octet-stream" | "application/json" | "text/plain")
        };
        let is_layer = |kind: &str| {
            kind.starts_with("application/vnd.oci.image.layer.")
                || kind.starts_with("application/vnd.docker.image.rootfs.")
                || is_config(kind)
        };
        let config = self.config.media_type.as_str();
        let foreign = self.layers.iter().map(|layer| layer.media_type.as_str()).find(|kind| !is_layer(kind));
        let kind = match (&self.artifact_type, foreign) {
            _ if self.layers.iter().any(|layer| layer.media_type.ends_with("+encrypted")) => {
                return Some("an image whose layers are encrypted".to_owned());
            }
            _ if !is_config(config) && config != media_type::OCI_EMPTY => config,
            (Some(kind), _) if !kind.is_empty() && config == media_type::OCI_EMPTY => kind,
            (_, Some(kind)) => kind,
            (_, None) if config == media_type::OCI_EMPTY => config,
            _ => return None,
        };
        let known = ARTIFACTS.iter().find(|(prefix, _)| kind.starts_with(prefix));
        Some(match known {
            Some((_, what)) => format!("{what} (`{kind}`)"),
            None => format!("an artifact of the type `{kind}`"),
        })
    }
}

/// List of manifests, one for each platform.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Index {
    /// Schema version; always 2.
    pub schema_version: u32,
    /// Media type of this index.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// Descriptors of the manifests.
    #[serde(deserialize_with = "null_default")]
    pub manifests: Vec<Descriptor>,
    /// Values of the annotations, by name.
    #[serde(default, deserialize_with = "null_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

impl Index {
    /// OCI index of `manifests`.
    pub fn oci(manifests: Vec<Descriptor>) -> Index {
        let media_type = Some(media_type::OCI_INDEX.to_owned());
        Index { schema_version: 2, media_type, manifests, annotations: BTreeMap::new() }
    }

    /// Manifest that suits the platform `wanted` best, the first one of several; `None` when none does.
    ///
    /// An entry without a platform is chosen only when no other one suits.
    pub fn choose(&self, wanted: &Platform) -> Option<&Descriptor> {
        let images = || self.manifests.iter().filter(|entry| !entry.is_attestation());
        let fitting = images().filter_map(|entry| Some((entry.platform.as_ref()?.distance(wanted)?, entry)));
        let best = fitting.min_by_key(|(distance, _)| *distance).map(|(_, entry)| entry);
        best.or_else(|| images().find(|entry| entry.platform.is_none()))
    }
}

/// A parsed manifest or index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ManifestOrIndex {
    /// Manifest of one image.
    Manifest(Box<Manifest>),
    /// Index over several manifests.
    Index(Index),
}

/// Bytes that are not a usable manifest.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// The bytes are not JSON of the expected shape.
    #[error("malformed manifest")]
    Malformed(#[source] serde_json::Error),
    /// The format is schema 1, which ended in 2017.
    #[error(
        "image manifest version 2, schema 1 is no longer supported: push the image again with a current tool"
    )]
    Schema1,
    /// The media type is not that of an image.
    #[error("media type `{0}` is not an image manifest or index")]
    MediaType(String),
}

impl ManifestOrIndex {
    /// Parses a manifest or index; `media_type` comes from the transport, if known.
    ///
    /// # Errors
    /// Fails when the bytes are malformed or of an unsupported format.
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

/// Deserialises JSON `null` as an empty collection: Go writes it for a nil slice or map.
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
    fn artifacts_are_recognised() {
        let named = |config: &str, layer: &str, kind: Option<&str>| {
            let layer = Descriptor::of(layer, b"l");
            let manifest = Manifest::oci(Descriptor::of(config, b"c"), vec![layer]);
            Manifest { artifact_type: kind.map(str::to_owned), ..manifest }.artifact()
        };
        let image = "application/vnd.oci.image.layer.v1.tar+gzip";
        for config in [media_type::OCI_CONFIG, media_type::DOCKER_CONFIG, "application/octet-stream"] {
            for layer in [image, media_type::DOCKER_LAYER_GZIP, media_type::OCI_LAYER_ZSTD] {
                assert_eq!(named(config, layer, None), None);
            }
            assert_eq!(named(config, image, Some("application/vnd.some.hint")), None);
        }
        for (config, layer, kind, expected) in [
            (
                "application/vnd.cncf.helm.config.v1+json",
                "x",
                None,
                "a Helm chart (`application/vnd.cncf.helm.config.v1+json`)",
            ),
            (
                "application/vnd.docker.plugin.v1+json",
                image,
                None,
                "a Docker plugin (`application/vnd.docker.plugin.v1+json`)",
            ),
            (
                media_type::OCI_CONFIG,
                "application/vnd.dev.cosign.simplesigning.v1+json",
                None,
                "a signature (`application/vnd.dev.cosign.simplesigning.v1+json`)",
            ),
            (
                media_type::OCI_CONFIG,
                "application/vnd.in-toto+json",
                None,
                "an attestation (`application/vnd.in-toto+json`)",
            ),
            (
                media_type::OCI_EMPTY,
                "text/x",
                Some("application/x.y"),
                "an artifact of the type `application/x.y`",
            ),
            (media_type::OCI_EMPTY, "text/x", None, "an artifact of the type `text/x`"),
            (
                "application/vnd.unknown.config.v1+json",
                "x",
                None,
                "an artifact of the type `application/vnd.unknown.config.v1+json`",
            ),
        ] {
            assert_eq!(named(config, layer, kind).as_deref(), Some(expected));
        }
        let encrypted = format!("{image}+encrypted");
        assert!(named(media_type::OCI_CONFIG, &encrypted, None).unwrap().contains("encrypted"));
    }

    #[test]
    fn the_content_determines_the_media_type_first() {
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
