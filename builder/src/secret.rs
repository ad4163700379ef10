//! Protection of secrets: their values are masked in the output of programs, and an image that contains one is refused.
//!
//! A value that is part of the build's input ([`crate::known`]) has not leaked, and is not masked either. A short value
//! or a plain word may be in files by chance: an image that contains it is not refused, but causes a warning.
//!
//! Every layer is searched before it gets a name in the store. A layer that contains a secret, and every layer based on
//! it, has no cache record that builds without `--allow secret-leak` could find, whatever the outcome of the build that
//! created it.

use crate::annotation::Annotations;
use crate::cancel::Cancel;
use kiln_image::config::ImageConfig;
use kiln_image::layer::check_length;
use kiln_image::sys::{self, CallError, Descent, Named};
use memchr::memmem;
use rustix::fd::{AsFd, BorrowedFd};
use rustix::fs::{self, FileType, Mode, OFlags, SeekFrom};
use rustix::io::Errno;
use serde_json::Value;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};

/// Minimum length of values: shorter ones are in every file by chance.
const SHORTEST: usize = 4;
/// Minimum length of lines that count separately in a secret of several lines.
const SHORTEST_LINE: usize = 12;
/// Maximum number of lines that count separately: larger files are not keys.
const MOST_LINES: usize = 100;
/// Largest extended attribute of Linux, in bytes (`XATTR_SIZE_MAX`).
const LARGEST_ATTRIBUTE: usize = 64 * 1024;
/// Text that replaces a secret.
const MASK: &[u8] = b"***";

/// Values up to this length are weak.
const SHORT: usize = 7;
/// Values of letters only are plain words up to this length, and weak.
const LONGEST_WORD: usize = 15;
/// Values of digits only are weak up to this length.
const LONGEST_NUMBER: usize = 11;
/// Values of fewer different bytes are weak.
const FEW_BYTES: usize = 5;

/// Predicate that is true when the build's input contains a text.
type Test<'a> = Box<dyn Fn(&memmem::Finder<'_>) -> bool + Send + Sync + 'a>;

/// Values to search for, longer ones first.
#[derive(Default)]
pub(crate) struct Needles<'a> {
    list: Vec<Needle>,
    /// Search in the build's input; called once for each value that was found. `None` treats no value as known.
    is_known: Option<Test<'a>>,
    /// First location of each weak value that was found, by id.
    weak: Mutex<BTreeMap<String, String>>,
}

#[derive(Debug)]
struct Needle {
    /// Id of the secret.
    id: String,
    value: Vec<u8>,
    /// Searcher for the value; created once, because that takes time in proportion to the value's length.
    finder: memmem::Finder<'static>,
    /// One line of several: it is masked, but not searched for in images, which may contain such lines for other
    /// reasons, such as those of certificates.
    is_part: bool,
    /// The value is so short or simple that files contain it by chance.
    is_weak: bool,
    /// The build's input contains the value; unset until it was searched.
    is_known: OnceLock<bool>,
}

impl Needle {
    fn new(id: &str, value: &[u8], is_part: bool) -> Needle {
        let finder = memmem::Finder::new(value).into_owned();
        let is_weak = is_weak(value);
        Needle {
            id: id.to_owned(),
            value: value.to_vec(),
            finder,
            is_part,
            is_weak,
            is_known: OnceLock::new(),
        }
    }
}

/// True for values that files contain by chance.
fn is_weak(value: &[u8]) -> bool {
    let all = |test: fn(&u8) -> bool| value.iter().all(test);
    let different: BTreeSet<u8> = value.iter().copied().collect();
    value.len() <= SHORT
        || different.len() < FEW_BYTES
        || (value.len() <= LONGEST_WORD && all(u8::is_ascii_alphabetic))
        || (value.len() <= LONGEST_NUMBER && all(u8::is_ascii_digit))
}

impl<'a> Needles<'a> {
    pub(crate) fn new(secrets: &BTreeMap<String, Vec<u8>>) -> Needles<'a> {
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
        Needles { list, ..Needles::default() }
    }

    /// The same values, except those that the build's input contains.
    #[must_use]
    pub(crate) fn but_known(self, is_known: Test<'a>) -> Needles<'a> {
        Needles { is_known: Some(is_known), ..self }
    }

    /// Ids and locations of weak values that were found since the last call.
    pub(crate) fn take_weak(&self) -> Vec<(String, String)> {
        let mut weak = self.weak.lock().unwrap_or_else(PoisonError::into_inner);
        // An empty location means that the value was already reported.
        let new = weak.iter_mut().filter(|(_, place)| !place.is_empty());
        new.map(|(id, place)| (id.clone(), std::mem::take(place))).collect()
    }

    fn knows(&self, needle: &Needle) -> bool {
        let Some(is_known) = &self.is_known else { return false };
        *needle.is_known.get_or_init(|| is_known(&needle.finder))
    }

    /// True when `text` contains a whole value that is not weak.
    pub(crate) fn stand_in(&self, text: &[u8]) -> bool {
        let counts = |needle: &&Needle| !needle.is_part && !needle.is_weak;
        self.list.iter().filter(counts).any(|needle| needle.finder.find(text).is_some())
    }

    /// Creates a mask for one stream.
    pub(crate) fn mask(&self) -> Mask<'_> {
        Mask { needles: self, held: Vec::new() }
    }

    /// True when there are no values to search for.
    pub(crate) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Replaces every secret in `text` by the mask.
    pub(crate) fn masked(&self, text: &str) -> String {
        let mut mask = self.mask();
        let mut shown = mask.pass(text.as_bytes());
        shown.extend(mask.finish());
        String::from_utf8_lossy(&shown).into_owned()
    }

    /// Finds the first secret in a tree of files: in content, names, link targets or extended attributes; `None` when
    /// there is no secret.
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
        scanner.directory(&mut Descent::new(sys::open_dir(root)?), Path::new("/"))
    }

    /// Id of the first secret in an image's config or annotations, and a description of its location; `None` without a
    /// secret.
    pub(crate) fn find_in_image(
        &self,
        config: &ImageConfig,
        annotations: &Annotations,
    ) -> Option<(String, String)> {
        if self.is_empty() {
            return None;
        }
        self.find_in_config(config).or_else(|| {
            let place = || "an annotation".to_owned();
            let found = annotations.texts().find_map(|text| self.find(text.as_bytes(), &place));
            found.map(|id| (id.to_owned(), place()))
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
        let found =
            named.find_map(|(place, text)| Some((self.find(text.as_bytes(), &|| place.to_owned())?, place)));
        let found = found.or_else(|| {
            // Directory, user, health check, volumes, and all other fields of a config.
            let whole = serde_json::to_value(config).unwrap_or(Value::Null);
            Some((self.find_in_value(&whole)?, "the config"))
        });
        found.map(|(id, place)| (id.to_owned(), place.to_owned()))
    }

    fn find_in_value(&self, value: &Value) -> Option<&str> {
        match value {
            Value::String(text) => self.find(text.as_bytes(), &|| "the config".to_owned()),
            Value::Array(list) => list.iter().find_map(|value| self.find_in_value(value)),
            Value::Object(fields) => fields.iter().find_map(|(name, value)| {
                let own = self.find(name.as_bytes(), &|| "the config".to_owned());
                own.or_else(|| self.find_in_value(value))
            }),
            Value::Null | Value::Bool(_) | Value::Number(_) => None,
        }
    }

    /// Id of the first secret in `text`, which is from `place`; `None` without one. Known values are skipped, weak ones
    /// recorded.
    fn find(&self, text: &[u8], place: &dyn Fn() -> String) -> Option<&str> {
        let whole = self.list.iter().filter(|needle| !needle.is_part && needle.value.len() <= text.len());
        for needle in whole.filter(|needle| needle.finder.find(text).is_some()) {
            if self.knows(needle) {
                continue;
            }
            if !needle.is_weak {
                return Some(&needle.id);
            }
            let mut weak = self.weak.lock().unwrap_or_else(PoisonError::into_inner);
            weak.entry(needle.id.clone()).or_insert_with(place);
        }
        None
    }

    /// Length of the shortest value that is searched for in images.
    fn shortest(&self) -> usize {
        let whole = self.list.iter().filter(|needle| !needle.is_part);
        whole.map(|needle| needle.value.len()).min().unwrap_or(usize::MAX)
    }

    fn longest(&self) -> usize {
        self.list.first().map_or(0, |needle| needle.value.len())
    }
}

/// Replaces secrets in a stream that arrives in pieces.
pub(crate) struct Mask<'a> {
    needles: &'a Needles<'a>,
    /// End of the received bytes, while it may be the beginning of a secret.
    held: Vec<u8>,
}

impl Mask<'_> {
    /// Masks more bytes of the stream, and returns those that can be shown now.
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

    /// Returns the masked rest at the end of the stream.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        self.replace()
    }

    fn replace(&mut self) -> Vec<u8> {
        let mut text = std::mem::take(&mut self.held);
        for needle in &self.needles.list {
            let Needle { value, finder, .. } = needle;
            if value.len() > text.len() || finder.find(&text).is_none() || self.needles.knows(needle) {
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

/// Length of the longest end of `text` that is a proper prefix of `value`.
fn overlap(text: &[u8], value: &[u8]) -> usize {
    let most = text.len().min(value.len() - 1);
    (1..=most).rev().find(|length| text.ends_with(&value[..*length])).unwrap_or(0)
}

/// A secret in a tree of files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Leak {
    /// Id of the secret.
    pub(crate) id: String,
    /// Path of the file whose content or name contains it.
    pub(crate) path: PathBuf,
}

/// Relation of a file to a text.
pub(crate) enum Holds {
    /// The file does not contain it.
    Nothing,
    /// The file contains it and other text.
    Among,
    /// The file contains nothing else, except white space around it.
    Alone,
}

/// Searches a file for the text of `finder`.
pub(crate) fn holds(finder: &memmem::Finder<'_>, mut file: File) -> std::io::Result<Holds> {
    const PIECE: usize = 256 * 1024;
    let length = finder.needle().len();
    let mut buffer = vec![0; PIECE + length];
    let (mut kept, mut is_first) = (0, true);
    loop {
        let count = file.read(&mut buffer[kept..])?;
        if count == 0 {
            return Ok(Holds::Nothing);
        }
        let read = &buffer[..kept + count];
        if finder.find(read).is_some() {
            let is_alone = is_first && read.trim_ascii() == finder.needle();
            return Ok(if is_alone { Holds::Alone } else { Holds::Among });
        }
        let end = kept + count;
        kept = end.min(length.saturating_sub(1));
        buffer.copy_within(end - kept..end, 0);
        is_first = false;
    }
}

/// True when a tree of files contains `value`.
///
/// # Errors
/// `ECANCELED` when `cancel` stopped the search.
pub(crate) fn is_in_tree(value: &[u8], root: &Path, cancel: &Cancel) -> Result<bool, CallError> {
    let needle = Needle { is_weak: false, ..Needle::new("", value, false) };
    let needles = Needles { list: vec![needle], ..Needles::default() };
    Ok(needles.find_in_tree(root, None, cancel)?.is_some())
}

struct Scanner<'a> {
    needles: &'a Needles<'a>,
    root: &'a Path,
    since: Option<i64>,
    cancel: &'a Cancel,
    /// Buffer for pieces of files; reused, because there are many files.
    buffer: RefCell<Vec<u8>>,
}

impl Scanner<'_> {
    /// Searches the current directory of `way`, whose path in the tree is `path`.
    fn directory(&self, way: &mut Descent, path: &Path) -> Result<Option<Leak>, CallError> {
        check_length(path.as_os_str().as_bytes())?;
        if let Some(id) = self.attributes(way.here(), path)? {
            return Ok(Some(Leak { id, path: path.to_owned() }));
        }
        for name in sys::sorted_names(way.here()).call("getdents", self.root)? {
            let inner = path.join(std::ffi::OsStr::new(&*name.to_string_lossy()));
            if let Some(id) = self.find(name.to_bytes(), &inner) {
                return Ok(Some(Leak { id: id.to_owned(), path: inner }));
            }
            let Some(stat) = sys::stat_at(way.here(), &name).call("stat", &inner)? else { continue };
            let kind = sys::file_type(&stat);
            if kind == FileType::Directory {
                way.enter(&name).call("open", &inner)?;
                if let Some(leak) = self.directory(way, &inner)? {
                    return Ok(Some(leak));
                }
                way.leave().call("open", path)?;
                continue;
            }
            let directory = way.here();
            if self.since.is_some_and(|since| stat.st_ctime < since) {
                continue;
            }
            let found = match kind {
                FileType::RegularFile => {
                    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                    let file = fs::openat(directory, &name, flags, Mode::empty()).call("open", &inner)?;
                    match self.attributes(file.as_fd(), &inner)? {
                        Some(id) => Some(id),
                        // A file shorter than every secret contains none.
                        None if (stat.st_size as u64) < self.needles.shortest() as u64 => None,
                        None => self.content(File::from(file), &inner)?,
                    }
                }
                FileType::Symlink => {
                    let target = fs::readlinkat(directory, &name, Vec::new()).call("readlink", &inner)?;
                    self.find(target.to_bytes(), &inner).map(str::to_owned)
                }
                _ => None,
            };
            if let Some(id) = found {
                return Ok(Some(Leak { id, path: inner }));
            }
        }
        Ok(None)
    }

    fn find(&self, text: &[u8], path: &Path) -> Option<&str> {
        self.needles.find(text, &|| format!("`{}`", path.display()))
    }

    /// Searches names and values of extended attributes.
    fn attributes(&self, file: BorrowedFd<'_>, path: &Path) -> Result<Option<String>, CallError> {
        let list = |names: &mut [u8]| match fs::flistxattr(file, names) {
            Ok(length) => Ok(length),
            Err(Errno::OPNOTSUPP) => Ok(0),
            Err(errno) => Err(CallError { call: "listxattr", path: path.to_owned(), errno }),
        };
        // Most files have no extended attributes.
        if list(&mut [])? == 0 {
            return Ok(None);
        }
        let mut names = vec![0u8; LARGEST_ATTRIBUTE];
        let length = list(&mut names)?;
        let mut value = vec![0u8; LARGEST_ATTRIBUTE];
        for name in names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
            if let Some(id) = self.find(name, path) {
                return Ok(Some(id.to_owned()));
            }
            // Attributes that cannot be read are not part of a layer either.
            let Ok(length) = fs::fgetxattr(file, name, value.as_mut_slice()) else { continue };
            if let Some(id) = self.find(&value[..length], path) {
                return Ok(Some(id.to_owned()));
            }
        }
        Ok(None)
    }

    /// Reads a file in pieces that overlap by the length of the longest secret; skips holes.
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
            if let Some(id) = self.find(&buffer[..length], path) {
                return Ok(Some(id.to_owned()));
            }
            kept = length.min(self.needles.longest().saturating_sub(1));
            buffer.copy_within(length - kept..length, 0);
            if buffer[..kept].iter().all(|byte| *byte == 0) {
                match fs::seek(&file, SeekFrom::Data(offset)) {
                    Ok(data) => offset = data,
                    // Only a hole is left.
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

    fn needles(values: &[&str]) -> Needles<'static> {
        let secrets = values.iter().map(|value| ((*value).to_owned(), value.as_bytes().to_vec()));
        Needles::new(&secrets.collect())
    }

    fn masked(needles: &Needles<'_>, pieces: &[&str]) -> String {
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
        let find = |text: &[u8]| needles.find(text, &String::new).map(str::to_owned);
        assert_eq!(find(b"x first-line-of-it y"), None);
        assert!(find(b"x -----BEGIN-----\nfirst-line-of-it\n-----END----- y").is_some());
    }

    #[test]
    fn short_and_simple_values_are_weak() {
        for weak in ["root", "hunter2", "production", "Development", "aaaaaaaaaaaaaaaa", "12345678"] {
            assert!(is_weak(weak.as_bytes()), "{weak}");
        }
        for strong in ["s3cret-value", "hunter2-is-secret", "ghp_x8Jd02kPq", "correcthorsebatterystaple"] {
            assert!(!is_weak(strong.as_bytes()), "{strong}");
        }
    }

    #[test]
    fn weak_values_are_noted_and_known_ones_do_not_count() {
        let needles = needles(&["production", "known-value-1", "other-value-2"]);
        let needles = needles.but_known(Box::new(|finder| finder.needle() == b"known-value-1"));
        let find = |text: &str| needles.find(text.as_bytes(), &|| "the place".to_owned());
        assert_eq!(find("a production b known-value-1"), None);
        assert_eq!(find("a production b other-value-2"), Some("other-value-2"));
        assert_eq!(needles.take_weak(), [("production".to_owned(), "the place".to_owned())]);
        find("production");
        assert!(needles.take_weak().is_empty(), "it is told once");
        assert_eq!(masked(&needles, &["production known-value-1 other-value-2"]), "*** known-value-1 ***");
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
