//! Secrets of containers: files in memory, or variables.
//!
//! A value is read once, when the container is created. It is kept in `containers/ID/secrets`, which only root can read and
//! which is removed with the container, because later starts need it and its source may be gone by then. It is in no
//! record, no layer and no image: a start copies it into a file system that no mount table of the host shows.

use crate::container::Owned;
use crate::error::EngineError;
use kiln_image::sys::Named;
use kiln_runtime::spec::{self, clean_path};
use kiln_runtime::view;
use oci_spec::runtime::Spec;
use rustix::fd::OwnedFd;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

/// Directory of the values in a container's directory.
const DIR: &str = "secrets";
/// Directory of the files in a container.
const TARGETS: &str = "/run/secrets";
/// Largest value in bytes, as in other engines.
const LARGEST: usize = 512_000;

/// Secret of a container, without its value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Secret {
    /// Name of the secret.
    pub id: String,
    /// Form in which programs find it.
    pub form: SecretForm,
}

/// Form of a secret in a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SecretForm {
    /// A file in memory.
    File {
        /// Absolute path in the container.
        target: String,
        /// Permission bits of the file.
        mode: u32,
        /// Uid of the owner.
        uid: u32,
        /// Gid of the file.
        gid: u32,
    },
    /// A variable of the environment, by its name.
    Variable(String),
}

/// Secret with its value, for a new container.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretRequest {
    /// Secret as the record names it.
    pub secret: Secret,
    value: Vec<u8>,
}

impl fmt::Debug for SecretRequest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Requests may be logged, values must not.
        self.secret.fmt(formatter)
    }
}

/// Text that describes no secret, or whose value cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// A part that is not `KEY=VALUE`, or an unknown key.
    #[error("invalid secret {0:?}: {1}")]
    Invalid(String, &'static str),
    /// A number that cannot be read.
    #[error("invalid {1} of secret {0:?}: it is a number, the mode an octal one such as 0400")]
    Number(String, &'static str),
    /// The file cannot be read.
    #[error("cannot read the secret {id:?} from `{path}`")]
    File {
        /// Name of the secret.
        id: String,
        /// Path as its user wrote it.
        path: String,
        /// Cause of the failure.
        source: std::io::Error,
    },
    /// The variable is not set.
    #[error("cannot read the secret {id:?}: the variable {variable} is not set here")]
    Unset {
        /// Name of the secret.
        id: String,
        /// Name of the variable.
        variable: String,
    },
    /// The value is too large.
    #[error("the secret {0:?} is larger than {LARGEST} bytes")]
    Large(String),
    /// The value cannot be a variable.
    #[error("the secret {0:?} cannot be a variable: it is not UTF-8, or has a null byte")]
    NoText(String),
}

/// Parts of the text of a secret.
#[derive(Default)]
struct Parts<'a> {
    id: &'a str,
    source: Option<&'a str>,
    variable: Option<&'a str>,
    kind: Option<&'a str>,
    target: Option<&'a str>,
    numbers: [Option<&'a str>; 3],
}

impl SecretRequest {
    /// Reads `id=ID[,src=FILE|env=VARIABLE][,type=mount|env][,target=PATH|NAME][,mode=OCTAL][,uid=UID][,gid=GID]`, and the
    /// value; without a source the value is that of the variable ID. `variable` looks a variable up.
    ///
    /// # Errors
    /// Fails for other texts, and when the value cannot be read.
    pub fn parse(
        text: &str,
        variable: impl Fn(&str) -> Option<Vec<u8>>,
    ) -> Result<SecretRequest, SecretError> {
        let parts = Parts::parse(text)?;
        let id = parts.id.to_owned();
        let form = parts.form(text)?;
        let value = match (parts.source, parts.variable) {
            (Some(_), Some(_)) => return Err(invalid(text, "write src=FILE or env=VARIABLE, not both")),
            (Some(path), None) => read_most(path).map_err(|source| SecretError::File {
                id: id.clone(),
                path: path.to_owned(),
                source,
            })?,
            (None, given) => {
                let name = given.unwrap_or(parts.id);
                let unset = || SecretError::Unset { id: id.clone(), variable: name.to_owned() };
                variable(name).ok_or_else(unset)?
            }
        };
        if value.len() > LARGEST {
            return Err(SecretError::Large(id));
        }
        let is_text = !value.contains(&0) && std::str::from_utf8(&value).is_ok();
        if matches!(form, SecretForm::Variable(_)) && !is_text {
            return Err(SecretError::NoText(id));
        }
        Ok(SecretRequest { secret: Secret { id, form }, value })
    }
}

/// Reads one byte more than a secret may have at most: a device has no end.
fn read_most(path: &str) -> io::Result<Vec<u8>> {
    let mut value = Vec::new();
    fs::File::open(path)?.take(LARGEST as u64 + 1).read_to_end(&mut value)?;
    Ok(value)
}

impl<'a> Parts<'a> {
    fn parse(text: &'a str) -> Result<Parts<'a>, SecretError> {
        let mut parts = Parts::default();
        for part in text.split(',') {
            let stored = "there is no store of secrets: write id=NAME,src=FILE or id=NAME,env=VARIABLE";
            let (key, value) = part.split_once('=').ok_or_else(|| invalid(text, stored))?;
            match key {
                "id" => parts.id = value,
                "src" | "source" => parts.source = Some(value),
                "env" => parts.variable = Some(value),
                "type" => parts.kind = Some(value),
                "target" | "dst" | "destination" => parts.target = Some(value),
                "mode" => parts.numbers[0] = Some(value),
                "uid" => parts.numbers[1] = Some(value),
                "gid" => parts.numbers[2] = Some(value),
                _ => return Err(invalid(text, "its keys are id, src, env, type, target, mode, uid and gid")),
            }
        }
        if parts.id.is_empty() || parts.id.contains('/') || [".", ".."].contains(&parts.id) {
            return Err(invalid(text, "it needs id=NAME, a name without slashes"));
        }
        Ok(parts)
    }

    fn form(&self, text: &str) -> Result<SecretForm, SecretError> {
        match self.kind {
            None | Some("mount") => {
                let number = |at: usize, name, radix, default| match self.numbers[at] {
                    None => Ok(default),
                    Some(text) => u32::from_str_radix(text, radix)
                        .map_err(|_| SecretError::Number(self.id.to_owned(), name)),
                };
                Ok(SecretForm::File {
                    target: clean_path(&match self.target.unwrap_or(self.id) {
                        absolute if absolute.starts_with('/') => absolute.to_owned(),
                        relative => format!("{TARGETS}/{relative}"),
                    }),
                    mode: number(0, "mode", 8, 0o444)? & 0o7777,
                    uid: number(1, "uid", 10, 0)?,
                    gid: number(2, "gid", 10, 0)?,
                })
            }
            Some("env") if self.numbers.iter().any(Option::is_some) => {
                Err(invalid(text, "mode, uid and gid are for files, type=mount"))
            }
            Some("env") => {
                let name = self.target.unwrap_or(self.id);
                match name.is_empty() || name.contains('=') {
                    true => Err(invalid(text, "its target is the name of a variable")),
                    false => Ok(SecretForm::Variable(name.to_owned())),
                }
            }
            Some(_) => Err(invalid(text, "its type is mount or env")),
        }
    }
}

fn invalid(text: &str, reason: &'static str) -> SecretError {
    SecretError::Invalid(text.to_owned(), reason)
}

/// Writes the values into the directory of a new container.
pub(crate) fn keep(dir: &Path, secrets: &[SecretRequest]) -> Result<(), EngineError> {
    if secrets.is_empty() {
        return Ok(());
    }
    let dir = dir.join(DIR);
    fs::DirBuilder::new().mode(0o700).create(&dir).call("mkdir", &dir)?;
    for (number, request) in secrets.iter().enumerate() {
        let path = dir.join(number.to_string());
        let file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        file.and_then(|mut file| file.write_all(&request.value)).call("write", &path)?;
    }
    Ok(())
}

impl Owned {
    /// Adds the secrets to a specification. Returns the sources of their mounts, by the index of the mount. This process has
    /// one thread.
    ///
    /// # Errors
    /// Fails when a value cannot be read, and when there can be no file system in memory.
    pub(crate) fn add_secrets(&self, spec: &mut Spec) -> Result<Vec<(usize, OwnedFd)>, EngineError> {
        let (mut files, mut targets) = (Vec::new(), Vec::new());
        for (number, secret) in self.container.settings.secrets.iter().enumerate() {
            let path = self.dir().join(DIR).join(number.to_string());
            let value = fs::read(&path).call("read", &path)?;
            match &secret.form {
                SecretForm::File { target, mode, uid, gid } => {
                    files.push(view::MemoryFile { content: value, mode: *mode, owner: (*uid, *gid) });
                    targets.push(target);
                }
                SecretForm::Variable(name) => {
                    let process = spec.process_mut().get_or_insert_default();
                    let environment = process.env_mut().get_or_insert_default();
                    environment.retain(|entry| entry.split('=').next() != Some(name));
                    environment.push(format!("{name}={}", String::from_utf8_lossy(&value)));
                }
            }
        }
        if files.is_empty() {
            return Ok(Vec::new());
        }
        let mounts = spec.mounts_mut().get_or_insert_default();
        let mut sources = Vec::new();
        for (source, target) in view::files(&files)?.into_iter().zip(targets) {
            sources.push((mounts.len(), source));
            let options = ["bind", "rprivate", "ro", "nosuid", "nodev", "noexec"];
            mounts.push(spec::mount("bind", target, target, &options));
        }
        Ok(sources)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<SecretRequest, String> {
        let variable = |name: &str| (name == "TOKEN").then(|| b"value".to_vec());
        SecretRequest::parse(text, variable).map_err(|error| error.to_string())
    }

    fn file(target: &str, mode: u32, uid: u32, gid: u32) -> SecretForm {
        SecretForm::File { target: target.to_owned(), mode, uid, gid }
    }

    #[test]
    fn secrets_are_files_or_variables() {
        for (text, form) in [
            ("id=TOKEN", file("/run/secrets/TOKEN", 0o444, 0, 0)),
            ("id=t,env=TOKEN,mode=0400,uid=7,gid=8", file("/run/secrets/t", 0o400, 7, 8)),
            ("id=t,env=TOKEN,type=mount,target=a/b", file("/run/secrets/a/b", 0o444, 0, 0)),
            ("id=t,env=TOKEN,target=/etc/../key", file("/key", 0o444, 0, 0)),
            ("id=t,env=TOKEN,type=env", SecretForm::Variable("t".to_owned())),
            ("id=t,env=TOKEN,type=env,target=KEY", SecretForm::Variable("KEY".to_owned())),
        ] {
            let request = parse(text).unwrap();
            assert_eq!(
                (request.secret.form, request.value.as_slice()),
                (form, b"value".as_slice()),
                "{text}"
            );
        }
    }

    #[test]
    fn other_texts_are_refused() {
        for (text, reason) in [
            ("token", "there is no store of secrets"),
            ("id=", "it needs id=NAME"),
            ("src=f", "it needs id=NAME"),
            ("id=a/b,env=TOKEN", "a name without slashes"),
            ("id=t,what=x", "its keys are id"),
            ("id=t,env=TOKEN,src=f", "not both"),
            ("id=t,env=NOSUCH", "the variable NOSUCH is not set here"),
            ("id=NOSUCH", "the variable NOSUCH is not set here"),
            ("id=t,src=/no/such", "cannot read the secret \"t\" from `/no/such`"),
            ("id=t,env=TOKEN,mode=9", "invalid mode of secret \"t\""),
            ("id=t,env=TOKEN,uid=me", "invalid uid of secret \"t\""),
            ("id=t,env=TOKEN,type=env,mode=0400", "are for files"),
            ("id=t,env=TOKEN,type=ssh", "its type is mount or env"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(reason), "{text}: {error}");
        }
        let endless = SecretRequest::parse("id=t,src=/dev/zero", |_: &str| None);
        assert!(matches!(endless, Err(SecretError::Large(_))));
        let large = |_: &str| Some(vec![b'x'; LARGEST + 1]);
        assert!(SecretRequest::parse("id=t", large).is_err());
        assert!(SecretRequest::parse("id=t,type=env", |_: &str| Some(vec![0])).is_err());
    }

    #[test]
    fn values_are_not_printed() {
        assert!(!format!("{:?}", parse("id=TOKEN").unwrap()).contains("value"));
    }
}
