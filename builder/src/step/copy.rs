//! COPY and ADD of local files: files of the context or of a tree become a layer.

use super::{Built, Evidence, Executor, StepError};
use crate::content::{self, Content, ContentError, CopySelection, FilesDigest, Source};
use crate::graph::{Copy, CopyFrom, CopySource};
use crate::mode::ModeChange;
use crate::solve::NodeId;
use kiln_image::compression::{decompressed, decompressed_limited};
use kiln_image::layer::{CopyRequest, FileData, LayerWriter, Metadata, extract_at, is_tar};
use kiln_image::store::{Active, LayerRecord, Stack, Syncs};
use kiln_image::sys::{self, Named};
use kiln_image::tree::Tree;
use kiln_parser::ignore::Patterns;
use kiln_runtime::view;
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{FileType, Mode};
use rustix::io::Errno;
use std::fs::File;
use std::io::{BufReader, Seek, SeekFrom};

impl Executor<'_> {
    pub(super) fn copy_files(
        &self,
        node: NodeId,
        copy: &Copy,
        evidence: &mut Evidence,
        below: &Stack,
        from: &[Built],
    ) -> Result<LayerRecord, StepError> {
        let origins = self.origins(from)?;
        let active = self.tools.store.prepare()?;
        let lower = self.view(below)?;
        let owner = match &copy.owner {
            Some(text) => Some(self.find_owner(evidence, text, lower.as_ref())?),
            None => None,
        };
        let mut writer = LayerWriter::new(&active.upper(), lower)?;
        let placing = Placing { copy, owner, now: copy.epoch.map_or_else(now, |epoch| (epoch, 0)) };
        let exclude = exclude(copy)?;
        for source in &copy.sources {
            let content = origins.of(source.from);
            for found in find(copy, source, content)? {
                match archive(source, &found)? {
                    Some(file) => self.unpack(&placing, below, &active, &found, file)?,
                    None => placing.copy_one(&mut writer, content, &found, &exclude)?,
                }
            }
        }
        for (name, text) in &copy.inline {
            placing.put_inline(&mut writer, name, text)?;
        }
        writer.finish()?;
        self.keep_layer(node, active)
    }

    /// Unpacks an archive over the files of the image, so that existing files and links affect the extraction.
    fn unpack(
        &self,
        placing: &Placing<'_>,
        below: &Stack,
        active: &Active,
        source: &Source,
        file: File,
    ) -> Result<(), StepError> {
        let shown = || source.path.display();
        // A work directory of overlayfs can serve only one mount.
        let scratch = self.tools.store.scratch_dir()?;
        let upper = active.upper();
        let mount = self.tools.store.writable_mount(below, (&upper, scratch.path()), &[], Syncs::Never);
        let mut tree = LayerWriter::at(view::detached(&mount)?);
        let destination = placing.copy.destination.as_bytes();
        tree.make_dirs(destination, &Metadata { mode: 0o755, ..placing.dirs() })?;
        let dir = tree.open_dir(destination)?;
        tree.finish()?;
        let stream = decompressed_limited(BufReader::new(file)).call("read", shown())?;
        let cancel = self.tools.cancel;
        match extract_at(cancel.reader(stream), dir, placing.owner) {
            Ok(_) => Ok(()),
            Err(_) if cancel.is_stopped() => Err(StepError::Canceled),
            Err(error) => Err(StepError::Archive(shown(), error)),
        }
    }

    /// Digest of the files that a copy takes.
    pub(super) fn digest(&self, copy: &Copy, from: &[Built]) -> Result<FilesDigest, StepError> {
        let origins = self.origins(from)?;
        let exclude = exclude(copy)?;
        let mut sources = Vec::new();
        for source in &copy.sources {
            let content = origins.of(source.from);
            sources.extend(find(copy, source, content)?.into_iter().map(|found| (content, found)));
        }
        Ok(content::digest(&sources, &exclude, copy, self.tools.stat_cache)?)
    }

    /// All contexts and trees that a copy may name; `from` are its content inputs in order.
    fn origins(&self, from: &[Built]) -> Result<Origins<'_>, StepError> {
        let tree = |built: &Built| {
            let root = match self.view(&built.stack)? {
                Some(root) => root,
                None => sys::open_dir(&self.tools.store.empty_tree())?,
            };
            Ok(Content::tree(Tree::of(vec![root])))
        };
        let trees = from.iter().map(tree).collect::<Result<_, StepError>>()?;
        Ok(Origins { contexts: self.tools.contexts, trees })
    }
}

/// Contexts and trees that a copy may name.
struct Origins<'a> {
    contexts: &'a [Option<Content>],
    trees: Vec<Content>,
}

impl Origins<'_> {
    fn of(&self, from: CopyFrom) -> &Content {
        match from {
            CopyFrom::Context(number) => {
                self.contexts[number].as_ref().expect("plans name contexts that are directories")
            }
            CopyFrom::Input(number) => &self.trees[number - 1],
        }
    }
}

fn find(copy: &Copy, source: &CopySource, content: &Content) -> Result<Vec<Source>, ContentError> {
    let found =
        if copy.parents { content.find_with_parents(&source.path) } else { content.find(&source.path) };
    found.map_err(|error| content.told(error, &source.origin))
}

fn exclude(copy: &Copy) -> Result<Patterns, StepError> {
    Patterns::compile(copy.exclude.iter().map(String::as_str)).map_err(StepError::Exclude)
}

/// Current time as seconds and nanoseconds since 1970.
pub(super) fn now() -> (i64, u32) {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    (i64::try_from(now.as_secs()).unwrap_or(i64::MAX), now.subsec_nanos())
}

/// Placement of the files in the layer.
struct Placing<'a> {
    copy: &'a Copy,
    owner: Option<(u32, u32)>,
    now: (i64, u32),
}

impl Placing<'_> {
    /// Metadata of parent directories that have to be created.
    fn dirs(&self) -> Metadata {
        let (uid, gid) = self.owner.unwrap_or((0, 0));
        // As in the reference since 2026, when it stopped applying the usual umask: an octal mode applies to them as
        // well, without setuid, setgid and sticky bits; a symbolic mode does not.
        let mode = self.copy.mode.as_ref().and_then(ModeChange::absolute).map_or(0o755, |mode| mode & 0o777);
        Metadata { mode, uid, gid, mtime: self.now }
    }

    fn change(&self, content: &Content, metadata: Metadata, kind: FileType) -> Metadata {
        let (uid, gid) = match self.owner {
            Some(owner) => owner,
            None if content.is_local() => (0, 0),
            None => (metadata.uid, metadata.gid),
        };
        let mode = match &self.copy.mode {
            Some(change) if kind != FileType::Symlink => {
                change.apply(metadata.mode, kind == FileType::Directory)
            }
            _ => metadata.mode,
        };
        Metadata { mode, uid, gid, ..metadata }
    }

    fn copy_one(
        &self,
        writer: &mut LayerWriter,
        content: &Content,
        found: &Source,
        exclude: &Patterns,
    ) -> Result<(), StepError> {
        writer.copy(&CopyRequest {
            source: found.dir.as_fd(),
            name: &found.name,
            base: &found.base,
            destination: self.copy.destination.as_bytes(),
            dirs: self.dirs(),
            selection: &CopySelection::new(content, found, exclude),
            change: &|metadata, kind| self.change(content, metadata, kind),
            attributes: !content.is_local(),
        })?;
        if self.copy.whole && found.is_dir() {
            let own = self.change(content, Metadata::of(&found.stat), FileType::Directory);
            writer.set_dir(self.copy.destination.as_bytes(), &own)?;
        }
        Ok(())
    }

    /// Writes a file whose content is in the Dockerfile.
    fn put_inline(&self, writer: &mut LayerWriter, name: &str, text: &str) -> Result<(), StepError> {
        let destination = &self.copy.destination;
        let existing = writer.stat(destination.as_bytes())?;
        let is_dir = existing.is_some_and(|stat| sys::file_type(&stat) == FileType::Directory);
        let path = if is_dir || destination.ends_with('/') {
            format!("{}/{name}", destination.trim_end_matches('/'))
        } else {
            destination.clone()
        };
        // As in the reference, directories in the name of a heredoc are not created.
        let parent = match name.contains('/') {
            true => destination.trim_end_matches('/'),
            false => path.rsplit_once('/').map_or("", |(parent, _)| parent),
        };
        writer.make_dirs(parent.as_bytes(), &self.dirs())?;
        let metadata = Metadata { mode: 0o644, ..self.dirs() };
        let metadata = self.change_inline(metadata);
        writer.put_file(path.as_bytes(), FileData::Bytes(text.as_bytes()), &metadata)?;
        Ok(())
    }

    fn change_inline(&self, metadata: Metadata) -> Metadata {
        match &self.copy.mode {
            Some(change) => Metadata { mode: change.apply(metadata.mode, false), ..metadata },
            None => metadata,
        }
    }
}

/// Duplicates the descriptor of a directory.
pub(super) fn duplicate(fd: &rustix::fd::OwnedFd) -> Result<rustix::fd::OwnedFd, kiln_image::sys::CallError> {
    fd.try_clone().call("dup", "/")
}

/// Opens a source that is an archive to be unpacked; `None` for others. The content decides, not the name.
fn archive(copied: &CopySource, source: &Source) -> Result<Option<File>, StepError> {
    if !copied.unpack || sys::file_type(&source.stat) != FileType::RegularFile {
        return Ok(None);
    }
    let shown = || source.path.display();
    let mut file = File::from(sys::open_file_at(source.dir.as_fd(), &source.name).call("open", shown())?);
    let is_archive = decompressed(BufReader::new(&file)).is_ok_and(is_tar);
    file.seek(SeekFrom::Start(0)).call("seek", shown())?;
    Ok(is_archive.then_some(file))
}

pub(super) fn set_metadata(dir: &OwnedFd, metadata: &Metadata) -> Result<(), Errno> {
    let (uid, gid) = sys::owner(metadata.uid, metadata.gid);
    rustix::fs::fchown(dir, uid, gid)?;
    rustix::fs::fchmod(dir, Mode::from_raw_mode(metadata.mode & 0o7777))?;
    rustix::fs::futimens(dir, &sys::timestamps(metadata.mtime.0, metadata.mtime.1))
}
