//! Packing of a stack of layers as one plain tar, as `docker export` writes it.

use super::check_length;
use super::diff::DiffError;
use super::pack::{Owner, Packer, display};
use crate::sys::Named;
use crate::tar::EntryKind;
use crate::tree::merged::{Found, MergedDir};
use rustix::fs;
use rustix::io::Errno;
use std::io::Write;

/// Writes the merged tree of layers to `output` and returns `output`. The root itself has no entry.
///
/// No mount takes part: files are read from the layers, whatever is mounted above them in a container.
///
/// # Errors
/// [`DiffError::Changed`] when a file becomes shorter meanwhile; other errors are those of reading and writing.
pub fn flatten<W: Write>(tree: &MergedDir, output: W) -> Result<W, DiffError> {
    let mut packer = Packer::new(output, i64::MAX, Owner::Container);
    directory(&mut packer, tree, &mut Vec::new())?;
    Ok(packer.writer.finish()?)
}

fn directory<W: Write>(packer: &mut Packer<W>, dir: &MergedDir, path: &mut Vec<u8>) -> Result<(), DiffError> {
    check_length(path)?;
    let names = match dir.names() {
        // The directory was removed after it was found.
        Err(Errno::NOENT) => Vec::new(),
        names => names.call("getdents", display(path))?,
    };
    for name in names {
        let length = path.len();
        path.extend_from_slice(name.to_bytes());
        match dir.lookup(&name).call("stat", display(path))? {
            Found::Dir(inner) => {
                let top = inner.top().expect("a directory that was found is one of a layer");
                let stat = fs::fstat(top).call("stat", display(path))?;
                packer.writer.begin(&packer.entry(EntryKind::Directory, path, &stat))?;
                path.push(b'/');
                directory(packer, &inner, path)?;
            }
            Found::File(file) => {
                match packer.member(std::os::fd::AsFd::as_fd(&*file.dir), &name, path, &file.stat) {
                    // The file was removed after the directory was listed.
                    Err(DiffError::Call(error)) if error.is_not_found() => {}
                    written => written?,
                }
            }
            Found::Nothing | Found::Unknown => {}
        }
        path.truncate(length);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys;
    use crate::tar::Reader;

    #[test]
    fn the_highest_layer_provides_each_file() {
        let (upper, lower) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        std::fs::create_dir(lower.path().join("d")).unwrap();
        std::fs::create_dir(upper.path().join("d")).unwrap();
        std::fs::write(lower.path().join("d/a"), "lower").unwrap();
        std::fs::write(lower.path().join("d/b"), "lower").unwrap();
        std::fs::write(upper.path().join("d/a"), "up").unwrap();
        std::fs::write(upper.path().join("z"), "").unwrap();
        let layers = [&upper, &lower].map(|dir| sys::open_dir(dir.path()).unwrap());
        let tar = flatten(&MergedDir::root(layers.into()), Vec::new()).unwrap();
        let mut reader = Reader::new(tar.as_slice());
        let mut found = Vec::new();
        while let Some(entry) = reader.next_entry().unwrap() {
            found.push((String::from_utf8(entry.name).unwrap(), entry.size));
        }
        let expected = [("d/", 0), ("d/a", 2), ("d/b", 5), ("z", 0)];
        assert_eq!(found, expected.map(|(name, size)| (name.to_owned(), size)));
    }
}
