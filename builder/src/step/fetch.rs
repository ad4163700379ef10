//! ADD of remote files and git repositories: the fetched files become a separate tree.

use super::{Evidence, Executor, StepError, copy};
use crate::event::{Event, Row};
use crate::graph::{Checkout, Download};
use crate::key;
use crate::remote::{Answer, Version};
use crate::solve::{Key, NodeId};
use kiln_image::digest::{Algorithm, Digest, Hashing};
use kiln_image::layer::{CopyRequest, Everything, FileData, LayerWriter, Metadata};
use kiln_image::store::{LayerRecord, ScratchDir};
use kiln_image::sys::Named;
use kiln_image::tree::Tree;
use rustix::fd::AsFd;
use rustix::fs::FileType;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io;

/// A file that was downloaded.
pub(super) struct Downloaded {
    dir: ScratchDir,
    version: Version,
}

/// Record of a downloaded file, so that it is not downloaded again.
#[derive(Serialize, Deserialize)]
struct Known {
    version: Version,
    /// Key that the file resulted in.
    key: String,
}

const FILE: &str = "file";

impl Executor<'_> {
    /// Key of a remote file: asks the server whether it has changed, and downloads it if so.
    pub(super) fn download_key(
        &self,
        node: NodeId,
        download: &Download,
        evidence: &mut Evidence,
    ) -> Result<Key, StepError> {
        let cache_name = cache_name(download);
        let known = self.known(node, &cache_name)?;
        let Some(downloaded) = self.fetch(download, known.as_ref().map(|known| &known.version))? else {
            let key = known.map(|known| known.key).unwrap_or_default();
            return Ok(Key(key));
        };
        let digest = digest(&downloaded, Algorithm::Sha256)?;
        let version = downloaded.version.clone();
        evidence.download = Some(downloaded);
        key::add_download(&mut evidence.inputs, &digest, version.time());
        let key = evidence.inputs.key();
        let known = Known { version, key: key.0.clone() };
        let bytes = serde_json::to_vec(&known).expect("texts are JSON");
        // Failure is harmless: the file is downloaded again.
        let _ = self.tools.store.put_cache(&cache_name, &bytes);
        Ok(key)
    }

    /// Record of the file, while the cache record of its layer exists; `None` otherwise.
    fn known(&self, node: NodeId, cache_name: &str) -> Result<Option<Known>, StepError> {
        if self.tools.graph.node(node).no_cache {
            return Ok(None);
        }
        let bytes = self.tools.store.read_cache(cache_name).unwrap_or_default();
        let Ok(known) = serde_json::from_slice::<Known>(&bytes) else { return Ok(None) };
        let is_kept = self.tools.store.step(&known.key)?.is_some();
        Ok(is_kept.then_some(known))
    }

    /// Downloads a file; `None` when it has not changed.
    fn fetch(&self, download: &Download, known: Option<&Version>) -> Result<Option<Downloaded>, StepError> {
        let dir = self.tools.store.scratch_dir()?;
        let path = dir.path().join(FILE);
        let mut file = File::create_new(&path).call("open", &path)?;
        let answer = self.tools.remote.download(&download.url, known, &mut file);
        let answer = answer.map_err(|source| StepError::Fetch { what: download.url.clone(), source })?;
        Ok(match answer {
            Answer::Unchanged => None,
            Answer::File(version) => Some(Downloaded { dir, version }),
        })
    }

    pub(super) fn download_layer(
        &self,
        node: NodeId,
        row: Row,
        download: &Download,
        fetched: Option<Downloaded>,
    ) -> Result<LayerRecord, StepError> {
        let downloaded = match fetched {
            Some(downloaded) => downloaded,
            None => {
                self.tools.reporter.send(Event::Note { row, text: format!("downloading {}", download.url) });
                let fetched = self.fetch(download, None)?;
                fetched.ok_or_else(|| StepError::Fetch {
                    what: download.url.clone(),
                    source: "the server says that nothing changed, without having been asked".into(),
                })?
            }
        };
        if let Some(expected) = &download.checksum {
            let actual = digest(&downloaded, expected.algorithm())?;
            if actual != *expected {
                let (actual, expected) = (actual.to_string(), expected.to_string());
                return Err(StepError::Checksum { actual, expected });
            }
        }
        let path = downloaded.dir.path().join(FILE);
        let file = File::open(&path).call("open", &path)?;
        let active = self.tools.store.prepare()?;
        let mut writer = LayerWriter::new(&active.upper(), None)?;
        let metadata = Metadata { mode: 0o600, uid: 0, gid: 0, mtime: (downloaded.version.time(), 0) };
        let name = format!("/{}", download.name);
        writer.put_file(name.as_bytes(), FileData::File(&file), &metadata)?;
        writer.finish()?;
        self.keep_layer(node, active)
    }

    /// Key of a checkout: resolves its reference to a commit.
    pub(super) fn checkout_key(
        &self,
        checkout: &Checkout,
        evidence: &mut Evidence,
    ) -> Result<Key, StepError> {
        let commit = self.commit(checkout)?;
        key::add_commit(&mut evidence.inputs, &commit);
        evidence.commit = Some(commit);
        Ok(evidence.inputs.key())
    }

    fn commit(&self, checkout: &Checkout) -> Result<String, StepError> {
        let failed = |source| StepError::Fetch { what: checkout.remote.clone(), source };
        let commit = self.tools.remote.commit(checkout).map_err(failed)?;
        if !commit.starts_with(&checkout.commit) {
            let reference = if checkout.reference.is_empty() { "HEAD" } else { &checkout.reference };
            return Err(failed(
                format!("expected checksum to match {}, got {commit} for {reference}", checkout.commit)
                    .into(),
            ));
        }
        Ok(commit)
    }

    pub(super) fn checkout_layer(
        &self,
        node: NodeId,
        row: Row,
        checkout: &Checkout,
        known: Option<String>,
    ) -> Result<LayerRecord, StepError> {
        let commit = match known {
            Some(commit) => commit,
            None => self.commit(checkout)?,
        };
        let text = format!("checking out {commit} of {}", checkout.remote);
        self.tools.reporter.send(Event::Note { row, text });
        let dir = self.tools.store.scratch_dir()?;
        let failed = |source| StepError::Fetch { what: checkout.remote.clone(), source };
        let time = self.tools.remote.check_out(checkout, &commit, dir.path()).map_err(failed)?;
        let tree = Tree::open(dir.path())?;
        let real = tree.resolve(checkout.dir.as_bytes())?;
        let source = tree.open_dir(&real).map_err(|error| match error.is_not_found() {
            true => failed(format!("subdir not found: {:?}", checkout.dir).into()),
            false => error.into(),
        })?;
        let active = self.tools.store.prepare()?;
        let mut writer = LayerWriter::new(&active.upper(), None)?;
        let now = copy::now();
        writer.copy(&CopyRequest {
            source: source.as_fd(),
            name: c".",
            base: b"",
            destination: b"/",
            dirs: Metadata { mode: 0o755, uid: 0, gid: 0, mtime: now },
            selection: &Everything,
            attributes: true,
            change: &|metadata: Metadata, _: FileType| Metadata {
                uid: 0,
                gid: 0,
                mtime: if checkout.commit_times { (time, 0) } else { metadata.mtime },
                ..metadata
            },
        })?;
        writer.finish()?;
        self.keep_layer(node, active)
    }
}

fn cache_name(download: &Download) -> String {
    // The version is part of the name, because the record contains a key of that version.
    let text = format!("{} {} {}", key::VERSION, download.name, download.url);
    format!("http-{}", &Digest::of(text.as_bytes()).hex()[..32])
}

fn digest(downloaded: &Downloaded, algorithm: Algorithm) -> Result<Digest, StepError> {
    let path = downloaded.dir.path().join(FILE);
    let mut file = Hashing::with(File::open(&path).call("open", &path)?, algorithm);
    io::copy(&mut file, &mut io::sink()).call("read", &path)?;
    Ok(file.finish().1)
}
