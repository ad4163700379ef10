//! `kiln system install-units`.

use crate::arguments::{self, Globals};
use crate::config::Config;
use crate::error::CliError;
use crate::ui;
use clap::{Parser, ValueHint};
use std::ffi::OsString;
use std::fmt::Write;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Name of the unit's file.
const UNIT: &str = "kiln.service";
/// First line of the files that this command writes, and may write again.
const OURS: &str = "# Written by `kiln system install-units`, which overwrites this file.";
/// Directory of units that an administrator installs (systemd.unit(5)).
const SYSTEM: &str = "/etc/systemd/system";

/// Install a systemd unit that starts containers at boot, and stops them at shutdown
#[derive(Debug, Parser)]
struct InstallUnits {
    /// Print the unit, and write nothing
    #[arg(long, visible_alias = "print")]
    dry_run: bool,
    /// Write the unit to this directory
    #[arg(long, value_name = "DIR", default_value = SYSTEM, value_hint = ValueHint::DirPath)]
    dir: PathBuf,
    /// Overwrite a unit of this name that `kiln` has not written
    #[arg(short, long)]
    force: bool,
}

/// Describes the arguments.
pub fn describe() -> clap::Command {
    <InstallUnits as clap::CommandFactory>::command()
}

/// Writes the unit, or prints it.
pub fn run(globals: &Globals, arguments: Vec<OsString>) -> Result<u8, CliError> {
    let install: InstallUnits = arguments::parse("system install-units", arguments)?;
    let program = std::env::current_exe()
        .map_err(|error| CliError::failed(format!("cannot find the path of this program: {error}")))?;
    let unit = unit(&program, &Config::read(globals)?.root)?;
    if install.dry_run {
        ui::print(&unit);
        return Ok(0);
    }
    let path = install.dir.join(UNIT);
    install.write(&path, &unit)?;
    ui::line(&path.display().to_string());
    let enable = format!("systemctl daemon-reload && systemctl enable --now {UNIT}");
    ui::tell_line(&format!("to start containers at boot, and those that should run now: {enable}"));
    Ok(0)
}

impl InstallUnits {
    fn write(&self, path: &Path, unit: &str) -> Result<(), CliError> {
        let failed = |what: &str, error: &io::Error| {
            CliError::failed(format!("cannot {what} `{}`: {error}", path.display()))
                .hint("install units as root, or write them elsewhere: --dir DIR")
        };
        match fs::symlink_metadata(path) {
            Ok(found) if !self.force => {
                let is_ours = found.is_file()
                    && fs::read_to_string(path).is_ok_and(|text| text.lines().next() == Some(OURS));
                if !is_ours {
                    let message = format!("`{}` exists, and `kiln` has not written it", path.display());
                    return Err(CliError::failed(message).hint("--force overwrites it"));
                }
            }
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed("look at", &error)),
        }
        // Beside the file and renamed: systemd never reads half of it, and a link there is replaced, not followed.
        let new = path.with_extension("service.new");
        fs::write(&new, unit).and_then(|()| fs::rename(&new, path)).map_err(|error| {
            let _ = fs::remove_file(&new);
            failed("write", &error)
        })
    }
}

/// Text of the unit. Pure.
///
/// The monitors and their containers stay in the unit's cgroup: without `OOMPolicy=continue` systemd would end all of them
/// when one runs out of memory.
fn unit(program: &Path, root: &Path) -> Result<String, CliError> {
    let (program, root) = (quoted(program)?, quoted(root)?);
    let mut text = String::from(OURS);
    let _ = write!(
        text,
        "
[Unit]
Description=Containers of Kiln
Wants=network-online.target
After=network-online.target local-fs.target nss-lookup.target
RequiresMountsFor={root}

[Service]
Type=oneshot
RemainAfterExit=yes
Environment=\"KILN_ROOT={}\"
ExecStart={program} system boot
ExecStop={program} system boot --stop
TimeoutStopSec=120
Delegate=yes
TasksMax=infinity
OOMPolicy=continue

[Install]
WantedBy=multi-user.target
",
        root.trim_matches('\"')
    );
    Ok(text)
}

/// A path in the syntax of units (systemd.syntax(7), systemd.unit(5) for `%`).
fn quoted(path: &Path) -> Result<String, CliError> {
    let refused = || {
        CliError::failed(format!("the path {path:?} cannot be written in a systemd unit"))
            .hint("use a path of UTF-8 without control characters")
    };
    let text = path.to_str().ok_or_else(refused)?;
    if text.chars().any(char::is_control) {
        return Err(refused());
    }
    let mut out = String::new();
    for letter in text.chars() {
        match letter {
            '%' => out.push_str("%%"),
            '"' | '\\' => out.extend(['\\', letter]),
            letter => out.push(letter),
        }
    }
    Ok(if text.contains([' ', '"', '\'', '\\', ';']) { format!("\"{out}\"") } else { out })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_quoted_for_units() {
        let check =
            |path: &str, expected| assert_eq!(quoted(Path::new(path)).ok().as_deref(), expected, "{path}");
        check("/usr/bin/kiln", Some("/usr/bin/kiln"));
        check("/my files/k%n", Some("\"/my files/k%%n\""));
        check("/a\"b", Some("\"/a\\\"b\""));
        check("/a\nb", None);
    }

    #[test]
    fn units_name_the_program_and_the_store() {
        let text = unit(Path::new("/opt/kiln"), Path::new("/my store")).unwrap();
        for line in [
            "RequiresMountsFor=\"/my store\"",
            "Environment=\"KILN_ROOT=/my store\"",
            "ExecStart=/opt/kiln system boot",
            "ExecStop=/opt/kiln system boot --stop",
            "OOMPolicy=continue",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}: {text}");
        }
        assert!(text.starts_with(OURS));
    }
}
