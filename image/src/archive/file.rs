//! Opening of files in archives and layouts from other tools.

use super::ArchiveError;
use crate::sys::Named;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;

/// Opens a regular file. FIFOs, devices and sockets are refused without blocking.
pub(super) fn open_regular(path: &Path) -> Result<File, ArchiveError> {
    let flags = rustix::fs::OFlags::NONBLOCK.union(rustix::fs::OFlags::NOCTTY);
    let opened = OpenOptions::new().read(true).custom_flags(flags.bits().cast_signed()).open(path);
    let kind = match &opened {
        Ok(file) => file.metadata().call("fstat", path)?.file_type(),
        // Sockets and some devices cannot be opened at all.
        Err(_) => match std::fs::metadata(path) {
            Ok(metadata) => metadata.file_type(),
            Err(_) => return Ok(opened.call("open", path)?),
        },
    };
    let what = match kind {
        kind if kind.is_fifo() => "a FIFO",
        kind if kind.is_socket() => "a socket",
        kind if kind.is_char_device() || kind.is_block_device() => "a device",
        kind if kind.is_dir() => "a directory",
        _ => return Ok(opened.call("open", path)?),
    };
    Err(ArchiveError::NotRegular(path.to_owned(), what))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_regular_files_are_opened() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        std::fs::write(path("file"), "x").unwrap();
        assert!(open_regular(&path("file")).is_ok());
        let fifo = rustix::fs::FileType::Fifo;
        rustix::fs::mknodat(rustix::fs::CWD, path("fifo"), fifo, rustix::fs::Mode::RUSR, 0).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(path("socket")).unwrap();
        std::os::unix::fs::symlink("fifo", path("link")).unwrap();
        for (name, what) in
            [("fifo", "a FIFO"), ("link", "a FIFO"), ("socket", "a socket"), (".", "a directory")]
        {
            let error = open_regular(&path(name)).unwrap_err();
            assert!(matches!(&error, ArchiveError::NotRegular(_, found) if *found == what), "{error}");
        }
        let device = open_regular(Path::new("/dev/null")).unwrap_err();
        assert_eq!(device.to_string(), "`/dev/null` is a device, and must be a regular file");
        assert!(matches!(open_regular(&path("none")), Err(ArchiveError::Call(_))));
    }
}
