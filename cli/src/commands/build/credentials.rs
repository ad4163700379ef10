//! `--secret` and `--ssh`: secrets and ssh sockets for steps, which do not become part of the image.

use super::agent;
use crate::error::CliError;
use crate::ui;
use kiln_builder::Credentials;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Largest secret in bytes, as in the reference builder.
const MAX_SECRET: u64 = 500 * 1024;

/// Reads all secrets and ssh sockets of the flags.
///
/// An unset variable is an empty secret, as in the reference, and an error with `strict`.
pub(super) fn read(secrets: &[String], ssh: &[String], strict: bool) -> Result<Credentials, CliError> {
    let secrets = secrets.iter().map(|text| secret(text, strict)).collect::<Result<BTreeMap<_, _>, _>>()?;
    let ssh = ssh.iter().map(|text| socket(text)).collect::<Result<BTreeMap<_, _>, _>>()?;
    Ok(Credentials { secrets, ssh })
}

fn invalid(flag: &str, text: &str, hint: &str) -> CliError {
    CliError::Usage(format!("invalid value {text:?} for {flag}"), vec![hint.to_owned()])
}

/// Parses `id=NAME[,src=FILE|,env=VARIABLE][,type=file|env]` and reads the secret.
fn secret(text: &str, strict: bool) -> Result<(String, Vec<u8>), CliError> {
    let hint = "write --secret id=NAME,src=FILE or --secret id=NAME,env=VARIABLE";
    let (mut id, mut file, mut variable, mut kind) = (None, None, None, None);
    for field in text.split(',') {
        let (key, value) = field.split_once('=').ok_or_else(|| invalid("--secret", text, hint))?;
        let slot = match key.to_ascii_lowercase().as_str() {
            "id" => &mut id,
            "src" | "source" => &mut file,
            "env" => &mut variable,
            "type" if matches!(value, "file" | "env") => &mut kind,
            _ => return Err(invalid("--secret", text, hint)),
        };
        *slot = Some(value);
    }
    let id = id.filter(|id| !id.is_empty()).ok_or_else(|| invalid("--secret", text, hint))?;
    if kind == Some("env") && variable.is_none() {
        variable = file.take();
    }
    let content = match (file, variable) {
        (Some(file), _) => read_file(id, Path::new(file))?,
        (None, Some(name)) => match read_variable(id, name) {
            Err(_) if !strict => {
                let message = format!("the variable {name} is not set: the secret {id} is empty");
                ui::tell_line(&format!("[Warning] {message}"));
                Vec::new()
            }
            read => read?,
        },
        // Without a source: the variable with the name of the id, else the file.
        (None, None) => match std::env::var(id) {
            Ok(value) if kind != Some("file") => value.into_bytes(),
            _ => read_file(id, Path::new(id))?,
        },
    };
    Ok((id.to_owned(), content))
}

fn read_variable(id: &str, name: &str) -> Result<Vec<u8>, CliError> {
    std::env::var(name).map(String::into_bytes).map_err(|_| {
        CliError::failed(format!("cannot read the secret {id}: the variable {name} is not set"))
            .hint(format!("set it, or name a file with --secret id={id},src=FILE"))
    })
}

fn read_file(id: &str, path: &Path) -> Result<Vec<u8>, CliError> {
    let failed = |reason: String| {
        CliError::failed(format!("cannot read the secret {id} from `{}`: {reason}", path.display()))
            .hint(format!("name a readable file with --secret id={id},src=FILE"))
    };
    let metadata = std::fs::metadata(path).map_err(|error| failed(error.to_string()))?;
    if metadata.len() > MAX_SECRET {
        return Err(failed("larger than 500 KiB".to_owned()));
    }
    std::fs::read(path).map_err(|error| failed(error.to_string()))
}

/// Parses `default` or `ID[=SOCKET|KEY[,KEY…]]`; without a path the user's own agent is used.
fn socket(text: &str) -> Result<(String, PathBuf), CliError> {
    let (id, path) = text.split_once('=').unwrap_or((text, ""));
    if id.is_empty() {
        return Err(invalid("--ssh", text, "write --ssh default, --ssh ID=SOCKET or --ssh ID=KEY"));
    }
    let path = match path {
        "" => std::env::var_os("SSH_AUTH_SOCK").map(PathBuf::from).ok_or_else(|| {
            CliError::failed("invalid empty ssh agent socket: make sure SSH_AUTH_SOCK is set")
                .hint("start an agent with ssh-agent, or name its socket: --ssh ID=SOCKET")
        })?,
        path => PathBuf::from(path),
    };
    let is_socket = std::fs::metadata(&path)
        .is_ok_and(|metadata| std::os::unix::fs::FileTypeExt::is_socket(&metadata.file_type()));
    if !is_socket {
        let keys = path.to_string_lossy().split(',').map(PathBuf::from).collect::<Vec<_>>();
        return Ok((id.to_owned(), agent::with_keys(&keys)?));
    }
    let path = std::path::absolute(&path).unwrap_or(path);
    Ok((id.to_owned(), path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_come_from_files_and_variables() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "s3cret").unwrap();
        let from_file = format!("id=a,src={}", file.path().display());
        let given = read(&[from_file, "id=b,env=PATH".to_owned()], &[], true).unwrap();
        assert_eq!(given.secrets["a"], b"s3cret");
        assert_eq!(given.secrets["b"], std::env::var("PATH").unwrap().into_bytes());
        assert!(!format!("{given:?}").contains("s3cret"));
        for wrong in ["a", "src=x", "id=a,src=/missing/file", "id=a,env=NOT_SET_AT_ALL", "id=a,typ=x"] {
            assert!(read(&[wrong.to_owned()], &[], true).is_err(), "{wrong}");
        }
        assert_eq!(read(&["id=a,env=NOT_SET_AT_ALL".to_owned()], &[], false).unwrap().secrets["a"], b"");
        assert!(read(&[], &[format!("x={}", file.path().display())], true).is_err());
    }
}
