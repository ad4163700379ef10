//! What can go wrong between us and a registry.

use crate::auth::AuthError;
use crate::patience::Silence;
use crate::proxy::ProxyError;
use crate::retry::in_words;
use kiln_image::digest::Digest;
use kiln_image::manifest::ManifestError;
use kiln_image::store::{BlobError, StoreError};
use std::io;
use std::time::Duration;

/// Why an image cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// No threads, no sockets.
    #[error("cannot set up networking")]
    Runtime(#[source] io::Error),
    /// The certificates that this host trusts cannot be read.
    #[error("cannot read the certificate authorities that this host trusts")]
    Trust(#[source] io::Error),
    /// No connection, or one that broke.
    #[error("cannot reach {url}")]
    Connection {
        /// What was asked for.
        url: String,
        /// Why it failed.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A proxy that does not lead to the server.
    #[error("cannot reach {url}")]
    Proxy {
        /// What was asked for.
        url: String,
        /// Why.
        #[source]
        source: ProxyError,
    },
    /// A server that wants to be asked again later than a command should wait.
    #[error("{url}: the server answers {status}{} (it asks to wait {} before the next request)", detail(.message), in_words(*.wait))]
    Busy {
        /// What was asked for.
        url: String,
        /// The HTTP status.
        status: u16,
        /// What the server says about it.
        message: String,
        /// The wait.
        wait: Duration,
    },
    /// A body that ended, or a server that went silent, before all was there.
    #[error("{url}: the download ended early: {received}{} bytes came", expected.map(|all| format!(" of {all}")).unwrap_or_default())]
    Incomplete {
        /// What was asked for.
        url: String,
        /// Bytes that came.
        received: u64,
        /// Bytes that there are, where that is known.
        expected: Option<u64>,
        /// Why it ended.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// An answer that is no success.
    #[error("{url}: the registry answers {status}{}", detail(.message))]
    Status {
        /// What was asked for.
        url: String,
        /// The HTTP status.
        status: u16,
        /// What the registry says about it.
        message: String,
    },
    /// A file of the web that cannot be had.
    #[error("invalid response status {status} {reason} for {url}")]
    Http {
        /// What was asked for.
        url: String,
        /// The HTTP status.
        status: u16,
        /// Its name.
        reason: String,
    },
    /// No such image.
    #[error("manifest for {0} not found: manifest unknown")]
    ManifestUnknown(String),
    /// An index that names a manifest which is not there.
    #[error(
        "{reference}: the registry has no manifest {digest}, which the image's index names for {platform}"
    )]
    ManifestMissing {
        /// The image.
        reference: String,
        /// The manifest.
        digest: Digest,
        /// What it is for.
        platform: String,
    },
    /// A manifest that names a blob which is not there.
    #[error("{reference}: the registry has no blob {digest}, which is {what} of the image")]
    BlobMissing {
        /// The image.
        reference: String,
        /// The blob.
        digest: Digest,
        /// What it is.
        what: String,
    },
    /// Something that is kept in a registry and is no image.
    #[error("{reference} is {what}, not an image")]
    Artifact {
        /// Its name.
        reference: String,
        /// What it is.
        what: String,
    },
    /// No such repository, or none that we may see.
    #[error("pull access denied for {0}, repository does not exist or may require 'docker login'")]
    Denied(String),
    /// A repository that we may not write to.
    #[error("push access denied for {0}: it does not exist, or may require 'docker login'")]
    PushDenied(String),
    /// A layer cannot be packed.
    #[error(transparent)]
    Archive(#[from] kiln_image::archive::ArchiveError),
    /// No image for the platform.
    #[error(
        "no matching manifest for {platform} in the manifest list entries of {reference} (it has {available})"
    )]
    NoPlatform {
        /// What was asked for.
        reference: String,
        /// For which platform.
        platform: String,
        /// What there is.
        available: String,
    },
    /// An answer that breaks the protocol.
    #[error("{url}: the registry's answer is malformed: {reason}")]
    Protocol {
        /// What was asked for.
        url: String,
        /// What is wrong.
        reason: String,
    },
    /// An address, named by a server, that must not learn what would go there.
    #[error("refused to go on at {url}: {reason}")]
    Insecure {
        /// The address.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Bytes that are not what was asked for.
    #[error("{url}: content does not match its digest: expected {expected}, got {actual}")]
    Digest {
        /// What was asked for.
        url: String,
        /// The digest asked for.
        expected: Digest,
        /// The digest of what came.
        actual: Digest,
    },
    /// A manifest that cannot be read.
    #[error("{reference}: cannot use the manifest")]
    Manifest {
        /// The image.
        reference: String,
        /// Why.
        #[source]
        source: ManifestError,
    },
    /// Logging in failed.
    #[error(transparent)]
    Auth(#[from] AuthError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The content store failed.
    #[error(transparent)]
    Blob(#[from] BlobError),
}

fn detail(message: &str) -> String {
    if message.is_empty() { String::new() } else { format!(": {message}") }
}

impl RegistryError {
    /// True when not even a connection could be made.
    pub fn is_unreachable(&self) -> bool {
        match self {
            RegistryError::Connection { source, .. } => source
                .downcast_ref::<hyper_util::client::legacy::Error>()
                .is_some_and(hyper_util::client::legacy::Error::is_connect),
            _ => false,
        }
    }

    /// True when a server did not answer in time.
    pub fn is_silence(&self) -> bool {
        match self {
            RegistryError::Connection { source, .. } | RegistryError::Incomplete { source, .. } => {
                source.downcast_ref::<Silence>().is_some()
            }
            _ => false,
        }
    }

    /// True when trying again rarely helps within seconds: no connection, or no answer.
    pub(crate) fn is_hopeless(&self) -> bool {
        self.is_unreachable() || self.is_silence() || matches!(self, RegistryError::Proxy { .. })
    }

    /// True when the registry could not be reached, or failed: another one, or a later try, may do better.
    pub fn is_transient(&self) -> bool {
        match self {
            RegistryError::Connection { .. } | RegistryError::Incomplete { .. } => true,
            RegistryError::Proxy { source, .. } => source.is_transient(),
            RegistryError::Status { status, .. } => matches!(status, 408 | 429 | 500..=599),
            _ => false,
        }
    }
}
