//! Paths and arguments, which need not be UTF-8.

use serde::{Deserialize, Serialize};
use std::ffi::{CString, OsStr};
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// A path or argument as bytes: a string where it is UTF-8, numbers where it is not.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Bytes(pub Vec<u8>);

impl Bytes {
    /// The bytes as a path.
    pub fn as_path(&self) -> &Path {
        Path::new(OsStr::from_bytes(&self.0))
    }

    /// Components of a path, without following links: `..` removes the one before it.
    pub(crate) fn names(&self) -> Vec<Vec<u8>> {
        let parts = self.0.split(|byte| *byte == b'/').filter(|part| !matches!(*part, b"" | b"."));
        let mut names: Vec<Vec<u8>> = Vec::new();
        for part in parts {
            if part == b".." {
                names.pop();
            } else {
                names.push(part.to_vec());
            }
        }
        names
    }

    /// The bytes as a C string, cut at a NUL, which no path or argument of a process can contain.
    pub fn to_c_string(&self) -> CString {
        let end = self.0.iter().position(|byte| *byte == 0).unwrap_or(self.0.len());
        CString::new(&self.0[..end]).expect("the text was cut at its first NUL")
    }
}

impl fmt::Debug for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", String::from_utf8_lossy(&self.0))
    }
}

impl From<&str> for Bytes {
    fn from(text: &str) -> Bytes {
        Bytes(text.as_bytes().to_vec())
    }
}

impl From<String> for Bytes {
    fn from(text: String) -> Bytes {
        Bytes(text.into_bytes())
    }
}

impl From<&Path> for Bytes {
    fn from(path: &Path) -> Bytes {
        Bytes(path.as_os_str().as_bytes().to_vec())
    }
}

impl From<&PathBuf> for Bytes {
    fn from(path: &PathBuf) -> Bytes {
        path.as_path().into()
    }
}

impl Serialize for Bytes {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match std::str::from_utf8(&self.0) {
            Ok(text) => serializer.serialize_str(text),
            Err(_) => self.0.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Bytes, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Form {
            Text(String),
            Raw(Vec<u8>),
        }
        Ok(Bytes(match Form::deserialize(deserializer)? {
            Form::Text(text) => text.into_bytes(),
            Form::Raw(bytes) => bytes,
        }))
    }
}
