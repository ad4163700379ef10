//! Secrets stay secret: their values are masked in what programs print, and an image that holds one is refused.

use crate::error::BuildError;
use crate::plan::Planned;
use crate::step::Built;
use kiln_image::config::ImageConfig;
use kiln_image::store::Store;
use kiln_image::sys::{self, Named};
use memchr::memmem;
use rustix::fd::{AsFd, BorrowedFd};
use rustix::fs::{self, FileType, Mode, OFlags};
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
    /// One line of several: it is masked, and not looked for in images, which may hold such lines for other reasons, as
    /// those of certificates.
    is_part: bool,
}

impl Needles {
    pub(crate) fn new(secrets: &BTreeMap<String, Vec<u8>>) -> Needles {
        let mut list = Vec::new();
        for (id, value) in secrets {
            let whole = value.trim_ascii();
            if whole.len() >= SHORTEST {
                list.push(Needle { id: id.clone(), value: whole.to_vec(), is_part: false });
            }
            let lines = whole.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
            let long = lines.filter(|line| line.len() >= SHORTEST_LINE && line.len() < whole.len());
            let is_short = whole.split(|byte| *byte == b'\n').count() <= MOST_LINES;
            list.extend(long.filter(|_| is_short).map(|line| Needle {
                id: id.clone(),
                value: line.to_vec(),
                is_part: true,
            }));
        }
        list.sort_by_key(|needle| std::cmp::Reverse(needle.value.len()));
        Needles { list }
    }

    /// Masks a stream.
    pub(crate) fn mask(&self) -> Mask<'_> {
        Mask { needles: self, held: Vec::new() }
    }

    /// The id of the first secret in `text`.
    fn find(&self, text: &[u8]) -> Option<&str> {
        let mut whole = self.list.iter().filter(|needle| !needle.is_part);
        whole.find(|needle| memmem::find(text, &needle.value).is_some()).map(|needle| needle.id.as_str())
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
        for Needle { value, .. } in &self.needles.list {
            if memmem::find(&text, value).is_none() {
                continue;
            }
            let mut replaced = Vec::with_capacity(text.len());
            let mut rest = 0;
            for at in memmem::find_iter(&text, value) {
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

/// Looks for secrets in the layers that a build made and in the image's config.
pub(crate) fn scan(
    store: &Store,
    needles: &Needles,
    planned: &Planned,
    built: &Built,
) -> Result<(), BuildError> {
    if needles.list.is_empty() {
        return Ok(());
    }
    let leak = |id: &str, place: String| Err(BuildError::Leak { id: id.to_owned(), place });
    if let Some((id, place)) = in_config(needles, &planned.config) {
        return leak(&id, place);
    }
    let entries = planned.config.history.iter().filter(|entry| !entry.empty_layer);
    let entries: Vec<&str> = entries.map(|entry| entry.created_by.as_str()).collect();
    let first = entries.len().saturating_sub(built.layers.len());
    for (number, (layer, _)) in built.layers.iter().enumerate() {
        let folder = store.layer_folder(layer);
        let scanner = Scanner { needles, root: &folder };
        let root = sys::open_dir(&folder)?;
        if let Some((id, path)) = scanner.folder(root.as_fd(), Path::new("/"))? {
            let step = entries.get(first + number).copied().unwrap_or_default();
            return leak(&id, format!("`{}`, made by `{step}`", path.display()));
        }
    }
    Ok(())
}

/// Names, values and commands.
fn in_config(needles: &Needles, config: &ImageConfig) -> Option<(String, String)> {
    let history = config.history.iter().map(|entry| ("the history", &entry.created_by));
    let run = &config.config;
    let environment = run.env.iter().map(|entry| ("the environment", entry));
    let labels = run.labels.iter().flat_map(|(name, value)| [("a label", name), ("a label", value)]);
    let commands = run.entrypoint.iter().chain(&run.cmd).flatten().map(|word| ("the command", word));
    let triggers = run.on_build.iter().map(|trigger| ("a trigger", trigger));
    let mut all = history.chain(environment).chain(labels).chain(commands).chain(triggers);
    all.find_map(|(place, text)| Some((needles.find(text.as_bytes())?.to_owned(), place.to_owned())))
}

struct Scanner<'a> {
    needles: &'a Needles,
    root: &'a Path,
}

type Found = Option<(String, PathBuf)>;

impl Scanner<'_> {
    fn folder(&self, folder: BorrowedFd<'_>, path: &Path) -> Result<Found, BuildError> {
        for name in sys::sorted_names(folder).call("getdents", self.root)? {
            let inner = path.join(std::ffi::OsStr::new(&*name.to_string_lossy()));
            if let Some(id) = self.needles.find(name.to_bytes()) {
                return Ok(Some((id.to_owned(), inner)));
            }
            let Some(stat) = sys::stat_at(folder, &name).call("stat", &inner)? else { continue };
            let found = match sys::file_type(&stat) {
                FileType::Directory => {
                    let opened = sys::open_dir_at(folder, &name).call("open", &inner)?;
                    self.folder(opened.as_fd(), &inner)?
                }
                FileType::RegularFile => {
                    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                    let file = fs::openat(folder, &name, flags, Mode::empty()).call("open", &inner)?;
                    self.content(File::from(file), &inner)?.map(|id| (id, inner))
                }
                FileType::Symlink => {
                    let target = fs::readlinkat(folder, &name, Vec::new()).call("readlink", &inner)?;
                    self.needles.find(target.to_bytes()).map(|id| (id.to_owned(), inner))
                }
                _ => None,
            };
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }

    /// Reads a file in pieces that overlap by what a secret may be long.
    fn content(&self, mut file: File, path: &Path) -> Result<Option<String>, BuildError> {
        const PIECE: usize = 256 * 1024;
        let mut buffer = vec![0; PIECE + self.needles.longest()];
        let mut kept = 0;
        loop {
            let count = file.read(&mut buffer[kept..]).call("read", path)?;
            if count == 0 {
                return Ok(None);
            }
            let length = kept + count;
            if let Some(id) = self.needles.find(&buffer[..length]) {
                return Ok(Some(id.to_owned()));
            }
            kept = length.min(self.needles.longest().saturating_sub(1));
            buffer.copy_within(length - kept..length, 0);
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
