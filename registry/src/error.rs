//! Errors of requests to registries and other servers.

use crate::auth::AuthError;
use crate::patience::Silence;
use crate::proxy::ProxyError;
use crate::retry::in_words;
use kiln_image::digest::Digest;
use kiln_image::manifest::ManifestError;
use kiln_image::store::{BlobError, StoreError};
use std::io;
use std::time::Duration;

/// Failure of a pull, push, download or config request.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// Threads or sockets cannot be created.
    #[error("cannot set up networking")]
    Runtime(#[source] io::Error),
    /// The trusted certificates of this host cannot be read.
    #[error("cannot read the certificate authorities that this host trusts")]
    Trust(#[source] io::Error),
    /// The connection cannot be made, or broke.
    #[error("cannot reach {url}")]
    Connection {
        /// Address of the request.
        url: String,
        /// Error of the connection.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The proxy does not connect to the server.
    #[error("cannot reach {url}")]
    Proxy {
        /// Address of the request.
        url: String,
        /// Error of the proxy.
        #[source]
        source: ProxyError,
    },
    /// The server asks for a longer wait than a command should make.
    #[error("{url}: the server answers {status}{} (it asks to wait {} before the next request)", detail(.message), in_words(*.wait))]
    Busy {
        /// Address of the request.
        url: String,
        /// HTTP status of the response.
        status: u16,
        /// Message of the server.
        message: String,
        /// Wait before the next request.
        wait: Duration,
    },
    /// The body of a response ended early, or the server became silent.
    #[error("{url}: the download ended early: {received}{} bytes came", expected.map(|all| format!(" of {all}")).unwrap_or_default())]
    Incomplete {
        /// Address of the request.
        url: String,
        /// Number of bytes received.
        received: u64,
        /// Number of bytes expected; `None` when unknown.
        expected: Option<u64>,
        /// Error that ended the body.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The registry does not accept a user's credentials.
    #[error("{url}: unauthorized{}", detail(.message))]
    Unauthorized {
        /// Address of the request.
        url: String,
        /// Message of the registry, or of its token server.
        message: String,
    },
    /// The status of a registry's response is an error.
    #[error("{url}: the registry answers {status}{}", detail(.message))]
    Status {
        /// Address of the request.
        url: String,
        /// HTTP status of the response.
        status: u16,
        /// Message of the registry.
        message: String,
    },
    /// The status of a web server's response is an error.
    #[error("invalid response status {status} {reason} for {url}")]
    Http {
        /// Address of the request.
        url: String,
        /// HTTP status of the response.
        status: u16,
        /// Reason phrase of the status.
        reason: String,
    },
    /// The image does not exist.
    #[error("manifest for {0} not found: manifest unknown")]
    ManifestUnknown(String),
    /// The index refers to a manifest that does not exist.
    #[error(
        "{reference}: the registry has no manifest {digest}, which the image's index names for {platform}"
    )]
    ManifestMissing {
        /// Reference of the image.
        reference: String,
        /// Digest of the manifest.
        digest: Digest,
        /// Platform of the manifest.
        platform: String,
    },
    /// The manifest refers to a blob that does not exist.
    #[error("{reference}: the registry has no blob {digest}, which is {what} of the image")]
    BlobMissing {
        /// Reference of the image.
        reference: String,
        /// Digest of the blob.
        digest: Digest,
        /// Role of the blob in the image, such as its config.
        what: String,
    },
    /// The registry's object is an artifact of another kind than an image.
    #[error("{reference} is {what}, not an image")]
    Artifact {
        /// Reference of the artifact.
        reference: String,
        /// Kind of the artifact.
        what: String,
    },
    /// The repository does not exist, or the credentials do not permit to read it.
    #[error("pull access denied for {0}, repository does not exist or may require 'docker login'")]
    Denied(String),
    /// The repository does not exist, or the credentials do not permit to write to it.
    #[error("push access denied for {0}: it does not exist, or may require 'docker login'")]
    PushDenied(String),
    /// A layer cannot be packed.
    #[error(transparent)]
    Archive(#[from] kiln_image::archive::ArchiveError),
    /// The index has no image for the platform.
    #[error(
        "no matching manifest for {platform} in the manifest list entries of {reference} (it has {available})"
    )]
    NoPlatform {
        /// Reference of the index.
        reference: String,
        /// Platform that was requested.
        platform: String,
        /// Platforms in the index.
        available: String,
    },
    /// The response violates the protocol.
    #[error("{url}: the registry's answer is malformed: {reason}")]
    Protocol {
        /// Address of the request.
        url: String,
        /// Violation of the protocol.
        reason: String,
    },
    /// A server refers to an address that must not receive the request.
    #[error("refused to go on at {url}: {reason}")]
    Insecure {
        /// Address that the server referred to.
        url: String,
        /// Reason for the refusal.
        reason: String,
    },
    /// The content received has another digest.
    #[error("{url}: content does not match its digest: expected {expected}, got {actual}")]
    Digest {
        /// Address of the request.
        url: String,
        /// Digest of the requested content.
        expected: Digest,
        /// Digest of the received content.
        actual: Digest,
    },
    /// The manifest cannot be used.
    #[error("{reference}: cannot use the manifest")]
    Manifest {
        /// Reference of the image.
        reference: String,
        /// Error of the manifest.
        #[source]
        source: ManifestError,
    },
    /// Authentication at the registry failed.
    #[error(transparent)]
    Auth(#[from] AuthError),
    /// An operation of the store failed.
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
    /// True when no connection could be made.
    pub fn is_unreachable(&self) -> bool {
        match self {
            RegistryError::Connection { source, .. } => source
                .downcast_ref::<hyper_util::client::legacy::Error>()
                .is_some_and(hyper_util::client::legacy::Error::is_connect),
            _ => false,
        }
    }

    /// True when a server did not respond in time.
    pub fn is_timeout(&self) -> bool {
        match self {
            RegistryError::Connection { source, .. } | RegistryError::Incomplete { source, .. } => {
                source.downcast_ref::<Silence>().is_some()
            }
            _ => false,
        }
    }

    /// True when a retry rarely helps within seconds: no connection, or no response.
    pub(crate) fn is_hopeless(&self) -> bool {
        self.is_unreachable() || self.is_timeout() || matches!(self, RegistryError::Proxy { .. })
    }

    /// True when the registry could not be reached or failed: another one, or a later attempt, may succeed.
    pub fn is_transient(&self) -> bool {
        match self {
            RegistryError::Connection { .. } | RegistryError::Incomplete { .. } => true,
            RegistryError::Proxy { source, .. } => source.is_transient(),
            RegistryError::Status { status, .. } => matches!(status, 408 | 429 | 500..=599),
            _ => false,
        }
    }
}
