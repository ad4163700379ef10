//! `kiln login`.

mod prompt;

use crate::arguments::{self, Globals};
use crate::config::Config;
use crate::error::{CliError, registry_hint};
use crate::ui;
use clap::Parser;
use kiln_registry::{AuthError, Credentials, HUB_KEY, Place, Registry, RegistryError, host_of};
use std::ffi::OsString;
use std::io::Read;

/// Most bytes of a password on standard input.
const LONGEST: u64 = 64 << 10;

/// Check and keep the credentials of a user at a registry; Docker Hub without a registry.
#[derive(Debug, Parser)]
struct Login {
    /// Name of the user
    #[arg(short, long, value_name = "NAME")]
    username: Option<String>,
    /// Password or access token; other users of the host may see it
    #[arg(short, long, value_name = "PASSWORD")]
    password: Option<String>,
    /// Read the password or access token from standard input
    #[arg(long)]
    password_stdin: bool,
    /// Registry, such as registry.example.com:5000
    #[arg(value_name = "REGISTRY")]
    registry: Option<String>,
}

/// Describes the arguments.
pub fn describe() -> clap::Command {
    <Login as clap::CommandFactory>::command()
}

/// Asks the registry whether it accepts the credentials, and keeps them where Docker does.
pub fn run(globals: &Globals, arguments: Vec<OsString>) -> Result<u8, CliError> {
    let login: Login = arguments::parse("login", arguments)?;
    let host = host_of(login.registry.as_deref().unwrap_or(HUB_KEY));
    if host.is_empty() || host.contains(char::is_whitespace) {
        let text = login.registry.unwrap_or_default();
        return Err(CliError::failed(format!("invalid registry {text:?}"))
            .hint("write its host, with the port if it has one: registry.example.com:5000"));
    }
    let given = login.given()?;
    let settings = Config::read(globals)?.registry;
    let registry = Registry::new(settings.clone()).map_err(|error| refused(&error))?;
    let (user, password) = match given {
        (Some(user), Some(password)) => (user, password),
        (user, password) => {
            let known = settings.keychain.find(&host, "").map_err(|error| unusable(&error))?;
            match (known, &user, &password) {
                (Some(Credentials::Basic(known, secret)), None, None) => {
                    ui::tell_line(&format!(
                        "Authenticating with existing credentials... [Username: {known}]"
                    ));
                    registry.log_in(&host, &known, &secret).map_err(|error| {
                        refused(&error).hint(format!(
                            "`kiln logout{}` forgets these credentials",
                            login.registry.as_ref().map(|text| format!(" {text}")).unwrap_or_default()
                        ))
                    })?;
                    ui::line("Login Succeeded");
                    return Ok(0);
                }
                _ => prompt::ask(user, password)?,
            }
        }
    };
    let credentials = registry.log_in(&host, &user, &password).map_err(|error| refused(&error))?;
    let place = settings.keychain.store(&host, &user, &credentials).map_err(|error| unusable(&error))?;
    if let Place::File(path) = place {
        ui::tell_line(&format!("WARNING! Your credentials are stored unencrypted in '{}'.", path.display()));
        ui::tell_line("hint: name a credential helper in that file: {\"credsStore\": \"pass\"}");
    }
    ui::line("Login Succeeded");
    Ok(0)
}

impl Login {
    /// User and password of the command line and of standard input.
    fn given(&self) -> Result<(Option<String>, Option<String>), CliError> {
        if self.password.is_some() {
            ui::tell_line("WARNING! Using --password via the CLI is insecure. Use --password-stdin.");
        }
        if self.password_stdin {
            if self.password.is_some() {
                return Err(CliError::failed(
                    "conflicting options: cannot specify both --password and --password-stdin",
                ));
            }
            if self.username.is_none() {
                return Err(CliError::failed("the --password-stdin option requires --username to be set"));
            }
        }
        for (value, name) in [(&self.username, "username"), (&self.password, "password")] {
            if value.as_ref().is_some_and(|value| value.trim().is_empty()) {
                return Err(CliError::failed(format!("{name} is empty")));
            }
        }
        let password = if self.password_stdin { Some(read_password()?) } else { self.password.clone() };
        Ok((self.username.as_ref().map(|user| user.trim().to_owned()), password))
    }
}

/// Reads the password from standard input, without the end of its line.
fn read_password() -> Result<String, CliError> {
    let mut text = String::new();
    let read = std::io::stdin().take(LONGEST).read_to_string(&mut text);
    read.map_err(|error| CliError::failed(format!("cannot read the password from standard input: {error}")))?;
    let line = text.strip_suffix('\n').unwrap_or(&text);
    let line = line.strip_suffix('\r').unwrap_or(line);
    if line.trim().is_empty() {
        return Err(CliError::failed("the password on standard input is empty")
            .hint("echo \"$PASSWORD\" | kiln login -u NAME --password-stdin REGISTRY"));
    }
    Ok(line.to_owned())
}

/// Error of a registry, with advice.
fn refused(error: &RegistryError) -> CliError {
    let failed = CliError::failed(crate::error::chain(error));
    match (error, registry_hint(error)) {
        (RegistryError::Unauthorized { url, .. }, _) if url.contains("docker.io") => {
            failed.hint("Docker Hub takes the password or a personal access token of the user")
        }
        (RegistryError::Unauthorized { .. }, _) => {
            failed.hint("check user and password; many registries want an access token instead")
        }
        (_, Some(hint)) => failed.hint(hint),
        (_, None) => failed,
    }
}

/// Error of a credential file or a helper.
pub(super) fn unusable(error: &AuthError) -> CliError {
    let failed = CliError::failed(crate::error::chain(error));
    match error {
        AuthError::Config(..) => failed.hint("mend or remove the file; DOCKER_CONFIG names another directory for it"),
        AuthError::Helper { .. } => failed.hint(
            "the keys credsStore and credHelpers of Docker's config.json name helpers: check that the program works",
        ),
        _ => failed,
    }
}
