//! Secrets stay secret: their values are masked in what programs print, and an image that holds one is refused.
//!
//! Every layer is searched before it gets a name in the store. One that holds a secret, and all that stands on it, has no
//! cache record that builds without `--allow secret-leak` could find, whatever becomes of the build that made it.

use crate::cancel::Cancel;
use crate::export::Annotations;
use kiln_image::config::ImageConfig;
use kiln_image::sys::{self, CallError, Named};
use memchr::memmem;
use rustix::fd::{AsFd, BorrowedFd};
use rustix::fs::{self, FileType, Mode, OFlags, SeekFrom};
use rustix::io::Errno;
use serde_json::Value;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Shorter values are in every file by chance.
const SHORTEST: usize = 4;
/// Lines of a secret of several lines count on their own from this length.
const SHORTEST_LINE: usize = 12;
/// Files of more lines are no keys: their lines do not count.
const MOST_LINES: usize = 100;
/// Largest extended attribute, as in Linux.
const LARGEST_ATTRIBUTE: usize = 64 * 1024;
/// What stands in the place of a secret.
const MASK: &[u8] = b"***";

/// Values to look for, longer ones first.
#[derive(Debug, Default)]
pub(crate) struct Needles {
    list: Vec<Needle>,
}

#[derive(Debug)]
struct Needle {
    /// The secret's id.
    id: String,
    value: Vec<u8>,
    /// Finds the value; made once, as that takes as long as the value is.
    finder: memmem::Finder<'static>,
    /// One line of several: it is masked, and not looked for in images, which may hold such lines for other reasons, as
    /// those of certificates.
    is_part: bool,
}

impl Needle {
    fn new(id: &str, value: &[u8], is_part: bool) -> Needle {
        let finder = memmem::Finder::new(value).into_owned();
        Needle { id: id.to_owned(), value: value.to_vec(), finder, is_part }
    }
}

impl Needles {
    pub(crate) fn new(secrets: &BTreeMap<String, Vec<u8>>) -> Needles {
        let mut list = Vec::new();
        for (id, value) in secrets {
            let whole = value.trim_ascii();
            if whole.len() >= SHORTEST {
                list.push(Needle::new(id, whole, false));
            }
            let lines = whole.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
            let long = lines.filter(|line| line.len() >= SHORTEST_LINE && line.len() < whole.len());
            let is_short = whole.split(|byte| *byte == b'\n').count() <= MOST_LINES;
            list.extend(long.filter(|_| is_short).map(|line| Needle::new(id, line, true)));
        }
        list.sort_by_key(|needle| std::cmp::Reverse(needle.value.len()));
        Needles { list }
    }

    /// Masks a stream.
    pub(crate) fn mask(&self) -> Mask<'_> {
        Mask { needles: self, held: Vec::new() }
    }

    /// True when there is nothing to look for.
    pub(crate) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// `text` with every secret masked.
    pub(crate) fn masked(&self, text: &str) -> String {
        let mut mask = self.mask();
        let mut shown = mask.pass(text.as_bytes());
        shown.extend(mask.finish());
        String::from_utf8_lossy(&shown).into_owned()
    }

    /// The first secret in a tree of files: in content, names, link targets or extended attributes.
    ///
    /// With `since` (seconds since 1970) only files that changed then or later are read.
    ///
    /// # Errors
    /// `ECANCELED` when `cancel` stopped the search.
    pub(crate) fn find_in_tree(
        &self,
        root: &Path,
        since: Option<i64>,
        cancel: &Cancel,
    ) -> Result<Option<Leak>, CallError> {
        if self.is_empty() {
            return Ok(None);
        }
        let buffer = RefCell::default();
        let scanner = Scanner { needles: self, root, since, cancel, buffer };
        let opened = sys::open_dir(root)?;
        scanner.directory(opened.as_fd(), Path::new("/"))
    }

    /// The id of the first secret in an image's config or annotations, and its place in words.
    pub(crate) fn find_in_image(
        &self,
        config: &ImageConfig,
        annotations: &Annotations,
    ) -> Option<(String, String)> {
        if self.is_empty() {
            return None;
        }
        self.find_in_config(config).or_else(|| {
            let found = annotations.texts().find_map(|text| self.find(text.as_bytes()));
            found.map(|id| (id.to_owned(), "an annotation".to_owned()))
        })
    }

    fn find_in_config(&self, config: &ImageConfig) -> Option<(String, String)> {
        let history = config.history.iter().map(|entry| ("the history", &entry.created_by));
        let run = &config.config;
        let environment = run.env.iter().map(|entry| ("the environment", entry));
        let labels = run.labels.iter().flat_map(|(name, value)| [("a label", name), ("a label", value)]);
        let commands = run.entrypoint.iter().chain(&run.cmd).flatten().map(|word| ("the command", word));
        let triggers = run.on_build.iter().map(|trigger| ("a trigger", trigger));
        let mut named = history.chain(environment).chain(labels).chain(commands).chain(triggers);
        let found = named.find_map(|(place, text)| Some((self.find(text.as_bytes())?, place)));
        let found = found.or_else(|| {
            // Directory, user, health check, volumes, and whatever else a config may hold.
            let whole = serde_json::to_value(config).unwrap_or(Value::Null);
            Some((self.find_in_value(&whole)?, "the config"))
        });
        found.map(|(id, place)| (id.to_owned(), place.to_owned()))
    }

    fn find_in_value(&self, value: &Value) -> Option<&str> {
        match value {
            Value::String(text) => self.find(text.as_bytes()),
            Value::Array(list) => list.iter().find_map(|value| self.find_in_value(value)),
            Value::Object(fields) => fields
                .iter()
                .find_map(|(name, value)| self.find(name.as_bytes()).or_else(|| self.find_in_value(value))),
            Value::Null | Value::Bool(_) | Value::Number(_) => None,
        }
    }

    /// The id of the first secret in `text`.
    fn find(&self, text: &[u8]) -> Option<&str> {
        let mut whole = self.list.iter().filter(|needle| !needle.is_part && needle.value.len() <= text.len());
        whole.find(|needle| needle.finder.find(text).is_some()).map(|needle| needle.id.as_str())
    }

    /// The length of the shortest value that is looked for in images.
    fn shortest(&self) -> usize {
        let whole = self.list.iter().filter(|needle| !needle.is_part);
        whole.map(|needle| needle.value.len()).min().unwrap_or(usize::MAX)
    }

    fn longest(&self) -> usize {
        self.list.first().map_or(0, |needle| needle.value.len())
    }
}

/// Replaces secrets in a stream that comes in pieces.
pub(crate) struct Mask<'a> {
    needles: &'a Needles,
    /// The end of what came, while it may be the beginning of a secret.
    held: Vec<u8>,
}

impl Mask<'_> {
    /// What can be shown after more bytes have come.
    pub(crate) fn pass(&mut self, bytes: &[u8]) -> Vec<u8> {
        if self.needles.list.is_empty() {
            return bytes.to_vec();
        }
        self.held.extend_from_slice(bytes);
        let mut shown = self.replace();
        let kept = self.needles.list.iter().map(|needle| overlap(&shown, &needle.value)).max().unwrap_or(0);
        self.held = shown.split_off(shown.len() - kept);
        shown
    }

    /// What is left at the end.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        self.replace()
    }

    fn replace(&mut self) -> Vec<u8> {
        let mut text = std::mem::take(&mut self.held);
        for Needle { value, finder, .. } in &self.needles.list {
            if value.len() > text.len() || finder.find(&text).is_none() {
                continue;
            }
            let mut replaced = Vec::with_capacity(text.len());
            let mut rest = 0;
            for at in finder.find_iter(&text) {
                replaced.extend_from_slice(&text[rest..at]);
                replaced.extend_from_slice(MASK);
                rest = at + value.len();
            }
            replaced.extend_from_slice(&text[rest..]);
            text = replaced;
        }
        text
    }
}

/// The length of the longest end of `text` that `value` begins with, without being all of it.
fn overlap(text: &[u8], value: &[u8]) -> usize {
    let most = text.len().min(value.len() - 1);
    (1..=most).rev().find(|length| text.ends_with(&value[..*length])).unwrap_or(0)
}

/// A secret in a tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Leak {
    /// The secret's id.
    pub(crate) id: String,
    /// The file that holds it, or whose name does.
    pub(crate) path: PathBuf,
}

struct Scanner<'a> {
    needles: &'a Needles,
    root: &'a Path,
    since: Option<i64>,
    cancel: &'a Cancel,
    /// For pieces of files; kept, as there are many files.
    buffer: RefCell<Vec<u8>>,
}

impl Scanner<'_> {
    fn directory(&self, directory: BorrowedFd<'_>, path: &Path) -> Result<Option<Leak>, CallError> {
        if let Some(id) = self.attributes(directory, path)? {
            return Ok(Some(Leak { id, path: path.to_owned() }));
        }
        for name in sys::sorted_names(directory).call("getdents", self.root)? {
            let inner = path.join(std::ffi::OsStr::new(&*name.to_string_lossy()));
            if let Some(id) = self.needles.find(name.to_bytes()) {
                return Ok(Some(Leak { id: id.to_owned(), path: inner }));
            }
            let Some(stat) = sys::stat_at(directory, &name).call("stat", &inner)? else { continue };
            let kind = sys::file_type(&stat);
            if kind == FileType::Directory {
                let opened = sys::open_dir_at(directory, &name).call("open", &inner)?;
                if let Some(leak) = self.directory(opened.as_fd(), &inner)? {
                    return Ok(Some(leak));
                }
                continue;
            }
            if self.since.is_some_and(|since| stat.st_ctime < since) {
                continue;
            }
            let found = match kind {
                FileType::RegularFile => {
                    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                    let file = fs::openat(directory, &name, flags, Mode::empty()).call("open", &inner)?;
                    match self.attributes(file.as_fd(), &inner)? {
                        Some(id) => Some(id),
                        // A file shorter than every secret holds none.
                        None if (stat.st_size as u64) < self.needles.shortest() as u64 => None,
                        None => self.content(File::from(file), &inner)?,
                    }
                }
                FileType::Symlink => {
                    let target = fs::readlinkat(directory, &name, Vec::new()).call("readlink", &inner)?;
                    self.needles.find(target.to_bytes()).map(str::to_owned)
                }
                _ => None,
            };
            if let Some(id) = found {
                return Ok(Some(Leak { id, path: inner }));
            }
        }
        Ok(None)
    }

    /// Looks at names and values of extended attributes.
    fn attributes(&self, file: BorrowedFd<'_>, path: &Path) -> Result<Option<String>, CallError> {
        let list = |names: &mut [u8]| match fs::flistxattr(file, names) {
            Ok(length) => Ok(length),
            Err(Errno::OPNOTSUPP) => Ok(0),
            Err(errno) => Err(CallError { call: "listxattr", path: path.to_owned(), errno }),
        };
        // Most files have none.
        if list(&mut [])? == 0 {
            return Ok(None);
        }
        let mut names = vec![0u8; LARGEST_ATTRIBUTE];
        let length = list(&mut names)?;
        let mut value = vec![0u8; LARGEST_ATTRIBUTE];
        for name in names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
            if let Some(id) = self.needles.find(name) {
                return Ok(Some(id.to_owned()));
            }
            // Attributes that may not be read are not part of a layer either.
            let Ok(length) = fs::fgetxattr(file, name, value.as_mut_slice()) else { continue };
            if let Some(id) = self.needles.find(&value[..length]) {
                return Ok(Some(id.to_owned()));
            }
        }
        Ok(None)
    }

    /// Reads a file in pieces that overlap by what a secret may be long; holes are passed over.
    fn content(&self, mut file: File, path: &Path) -> Result<Option<String>, CallError> {
        const PIECE: usize = 256 * 1024;
        let mut buffer = self.buffer.borrow_mut();
        buffer.resize(PIECE + self.needles.longest(), 0);
        let mut kept = 0;
        let mut offset = 0;
        loop {
            if self.cancel.is_stopped() {
                return Err(CallError { call: "read", path: path.to_owned(), errno: Errno::CANCELED });
            }
            let count = file.read(&mut buffer[kept..]).call("read", path)?;
            if count == 0 {
                return Ok(None);
            }
            offset += count as u64;
            let length = kept + count;
            if let Some(id) = self.needles.find(&buffer[..length]) {
                return Ok(Some(id.to_owned()));
            }
            kept = length.min(self.needles.longest().saturating_sub(1));
            buffer.copy_within(length - kept..length, 0);
            if buffer[..kept].iter().all(|byte| *byte == 0) {
                match fs::seek(&file, SeekFrom::Data(offset)) {
                    Ok(data) => offset = data,
                    // Nothing but a hole is left.
                    Err(Errno::NXIO) => return Ok(None),
                    Err(errno) => return Err(CallError { call: "lseek", path: path.to_owned(), errno }),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn needles(values: &[&str]) -> Needles {
        let secrets = values.iter().map(|value| ((*value).to_owned(), value.as_bytes().to_vec()));
        Needles::new(&secrets.collect())
    }

    fn masked(needles: &Needles, pieces: &[&str]) -> String {
        let mut mask = needles.mask();
        let mut shown: Vec<u8> = pieces.iter().flat_map(|piece| mask.pass(piece.as_bytes())).collect();
        shown.extend(mask.finish());
        String::from_utf8(shown).unwrap()
    }

    #[test]
    fn secrets_are_masked_wherever_the_pieces_are_cut() {
        let needles = needles(&["hunter2\n", "hunt"]);
        assert_eq!(masked(&needles, &["a hunter2 b"]), "a *** b");
        assert_eq!(masked(&needles, &["a hun", "ter2 b"]), "a *** b");
        assert_eq!(masked(&needles, &["h", "u", "n", "t", "!"]), "***!");
        assert_eq!(masked(&needles, &["hun"]), "hun");
        assert_eq!(masked(&needles, &["hu", "hunter2hunter2"]), "hu******");
    }

    #[test]
    fn lines_of_a_secret_are_masked_and_only_the_whole_is_looked_for() {
        let needles = needles(&["-----BEGIN-----\nfirst-line-of-it\n-----END-----\n"]);
        assert_eq!(masked(&needles, &["a first-line-of-it b"]), "a *** b");
        assert_eq!(needles.find(b"x first-line-of-it y"), None);
        assert!(needles.find(b"x -----BEGIN-----\nfirst-line-of-it\n-----END----- y").is_some());
    }

    #[test]
    fn output_is_shown_at_once_where_it_can_be() {
        let needles = needles(&["secret"]);
        assert_eq!(needles.mask().pass(b"nothing of it"), b"nothing of it");
        assert_eq!(needles.mask().pass(b"ends in s"), b"ends in ");
    }

    proptest::proptest! {
        #[test]
        fn no_cut_lets_a_secret_through(text in "[abs]{0,40}", cuts in proptest::collection::vec(0usize..40, 0..6)) {
            let needles = needles(&["abba", "sabs"]);
            let mut cuts: Vec<usize> = cuts.into_iter().filter(|cut| *cut < text.len()).collect();
            cuts.sort_unstable();
            let mut pieces = Vec::new();
            let mut last = 0;
            for cut in cuts {
                pieces.push(&text[last..cut]);
                last = cut;
            }
            pieces.push(&text[last..]);
            let shown = masked(&needles, &pieces);
            proptest::prop_assert!(!shown.contains("abba") && !shown.contains("sabs"), "{}", shown);
        }
    }
}
