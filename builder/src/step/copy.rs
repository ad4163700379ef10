//! COPY: files of the context or of a tree become a layer.

use super::{Built, Executor, StepError, owner};
use crate::content::{self, Content, CopySelection, Digested, Source};
use crate::graph::{Copy, CopyFrom};
use crate::mode::ModeChange;
use kiln_image::compression::decompressed;
use kiln_image::layer::{Applied, CopyRequest, Everything, FileData, LayerWriter, Metadata, extract, is_tar};
use kiln_image::store::{LayerRecord, Stack};
use kiln_image::sys::{self, Named};
use kiln_image::tree::Tree;
use kiln_parser::ignore::Patterns;
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{FileType, Gid, Mode, Uid};
use rustix::io::Errno;
use std::fs::File;
use std::io::{BufReader, Seek, SeekFrom};
use std::os::unix::ffi::OsStrExt;

impl Executor<'_> {
    pub(super) fn copy_files(
        &self,
        copy: &Copy,
        below: &Stack,
        from: Option<&Built>,
    ) -> Result<LayerRecord, StepError> {
        let active = self.tools.store.prepare(below)?;
        let lower = self.view(below)?;
        let owner = match &copy.owner {
            Some(text) => Some(owner::find(text, lower.as_ref())?),
            None => None,
        };
        let mut writer = LayerWriter::new(&active.upper(), lower)?;
        let placing = Placing { copy, owner, now: now() };
        if !copy.sources.is_empty() {
            self.with_content(copy, from, |content| self.place(&placing, &mut writer, content))?;
        }
        for (name, text) in &copy.inline {
            placing.put_inline(&mut writer, name, text)?;
        }
        writer.finish()?;
        Ok(self.tools.store.commit(active)?)
    }

    fn place(
        &self,
        placing: &Placing<'_>,
        writer: &mut LayerWriter,
        content: &Content,
    ) -> Result<(), StepError> {
        let exclude = exclude(placing.copy)?;
        for pattern in &placing.copy.sources {
            for source in content.find(pattern)? {
                match archive(placing.copy, &source)? {
                    Some(file) => self.unpack(placing, writer, &source, file)?,
                    None => placing.copy_one(writer, content, &source, &exclude)?,
                }
            }
        }
        Ok(())
    }

    /// Unpacks an archive into a folder of its own, and copies what came out.
    fn unpack(
        &self,
        placing: &Placing<'_>,
        writer: &mut LayerWriter,
        source: &Source,
        file: File,
    ) -> Result<(), StepError> {
        let shown = || source.path.display();
        let scratch = self.tools.store.scratch_folder()?;
        let stream = decompressed(BufReader::new(file)).call("read", shown())?;
        let unpacked = extract(stream, scratch.path()).map_err(|error| StepError::Archive(shown(), error))?;
        let folder = sys::open_dir(scratch.path())?;
        placing.place_unpacked(writer, &folder, &unpacked)
    }

    /// The digest of what a copy takes.
    pub(super) fn digest(&self, copy: &Copy, content: &Content) -> Result<Digested, StepError> {
        let exclude = exclude(copy)?;
        let mut sources = Vec::new();
        for source in &copy.sources {
            sources.extend(content.find(source)?);
        }
        Ok(content::digest(content, &sources, &exclude, copy, self.tools.stat_cache)?)
    }
}

fn exclude(copy: &Copy) -> Result<Patterns, StepError> {
    Patterns::compile(copy.exclude.iter().map(String::as_str)).map_err(StepError::Exclude)
}

/// Seconds and nanoseconds since 1970.
pub(super) fn now() -> (i64, u32) {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    (i64::try_from(now.as_secs()).unwrap_or(i64::MAX), now.subsec_nanos())
}

/// How files are put into the layer.
struct Placing<'a> {
    copy: &'a Copy,
    owner: Option<(u32, u32)>,
    now: (i64, u32),
}

impl Placing<'_> {
    /// Metadata of folders that have to be made on the way.
    fn folders(&self) -> Metadata {
        let (uid, gid) = self.owner.unwrap_or((0, 0));
        // As in the reference: an octal mode is theirs, too, a symbolic one is not.
        let mode = self.copy.mode.as_ref().and_then(ModeChange::absolute).unwrap_or(0o755);
        Metadata { mode, uid, gid, mtime: self.now }
    }

    fn change(&self, metadata: Metadata, kind: FileType) -> Metadata {
        let (uid, gid) = match (self.owner, self.copy.from) {
            (Some(owner), _) => owner,
            (None, CopyFrom::Context) => (0, 0),
            (None, CopyFrom::Input) => (metadata.uid, metadata.gid),
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
        source: &Source,
        exclude: &Patterns,
    ) -> Result<(), StepError> {
        writer.copy(&CopyRequest {
            source: source.folder.as_fd(),
            name: &source.name,
            base: &source.base,
            destination: self.copy.destination.as_bytes(),
            folders: self.folders(),
            selection: &CopySelection::new(content, &source.path, exclude),
            change: &|metadata, kind| self.change(metadata, kind),
        })?;
        Ok(())
    }

    /// Copies the contents of a folder that holds what was in an archive. Owners are the archive's.
    fn place_unpacked(
        &self,
        writer: &mut LayerWriter,
        folder: &OwnedFd,
        unpacked: &Applied,
    ) -> Result<(), StepError> {
        let own = |metadata: Metadata| match self.owner {
            Some((uid, gid)) => Metadata { uid, gid, ..metadata },
            None => metadata,
        };
        let destination = self.copy.destination.trim_end_matches('/');
        let tree = Tree::of(vec![duplicate(folder)?]);
        // Folders that the archive does not name stay as they are where they exist.
        for implied in &unpacked.implied {
            let path = [destination.as_bytes(), b"/", implied.as_os_str().as_bytes()].concat();
            let existing = writer.stat(&path)?.filter(|stat| sys::file_type(stat) == FileType::Directory);
            if let Some(stat) = existing {
                // Later entries of the archive may have put anything in the way.
                let inner = tree.open_folder(&tree.resolve(implied.as_os_str().as_bytes())?)?;
                set_metadata(&inner, &Metadata::of(&stat)).call("set metadata of", implied)?;
            }
        }
        let whole = format!("{destination}/");
        writer.copy(&CopyRequest {
            source: folder.as_fd(),
            name: c".",
            base: b"",
            destination: whole.as_bytes(),
            folders: Metadata { mode: 0o755, ..self.folders() },
            selection: &Everything,
            change: &|metadata, _| own(metadata),
        })?;
        if unpacked.names_root {
            let stat = rustix::fs::fstat(folder).call("stat", "/")?;
            writer.set_folder(whole.as_bytes(), &own(Metadata::of(&stat)))?;
        }
        Ok(())
    }

    /// A file that stands in the Dockerfile.
    fn put_inline(&self, writer: &mut LayerWriter, name: &str, text: &str) -> Result<(), StepError> {
        let destination = &self.copy.destination;
        let existing = writer.stat(destination.as_bytes())?;
        let is_folder = existing.is_some_and(|stat| sys::file_type(&stat) == FileType::Directory);
        let path = if is_folder || destination.ends_with('/') {
            format!("{}/{name}", destination.trim_end_matches('/'))
        } else {
            destination.clone()
        };
        let parent = path.rsplit_once('/').map_or("", |(parent, _)| parent);
        writer.make_folders(parent.as_bytes(), &self.folders())?;
        let metadata = Metadata { mode: 0o644, ..self.folders() };
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

/// A handle of its own on a folder.
pub(super) fn duplicate(fd: &rustix::fd::OwnedFd) -> Result<rustix::fd::OwnedFd, kiln_image::sys::CallError> {
    fd.try_clone().call("dup", "/")
}

/// The file, opened, when it is an archive that is to be unpacked: its content says so, whatever its name.
fn archive(copy: &Copy, source: &Source) -> Result<Option<File>, StepError> {
    if !copy.unpack || sys::file_type(&source.stat) != FileType::RegularFile {
        return Ok(None);
    }
    let shown = || source.path.display();
    let mut file = File::from(sys::open_file_at(source.folder.as_fd(), &source.name).call("open", shown())?);
    let is_archive = decompressed(BufReader::new(&file)).is_ok_and(is_tar);
    file.seek(SeekFrom::Start(0)).call("seek", shown())?;
    Ok(is_archive.then_some(file))
}

pub(super) fn set_metadata(folder: &OwnedFd, metadata: &Metadata) -> Result<(), Errno> {
    rustix::fs::fchown(folder, Some(Uid::from_raw(metadata.uid)), Some(Gid::from_raw(metadata.gid)))?;
    rustix::fs::fchmod(folder, Mode::from_raw_mode(metadata.mode & 0o7777))?;
    rustix::fs::futimens(folder, &sys::timestamps(metadata.mtime.0, metadata.mtime.1))
}
