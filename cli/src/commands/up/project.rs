//! The project of a directory: its name, and the label by which its container is known.

use crate::error::CliError;
use rustix::fd::OwnedFd;
use rustix::fs::{FlockOperation, Mode, OFlags};
use std::path::{Path, PathBuf};

/// Label of containers that `kiln up` made: the absolute path of the directory.
pub(in crate::commands) const LABEL: &str = "io.kiln.project";
/// Tag of images that `kiln up` builds: a directory called `python` does not replace the image `python:latest`.
const TAG: &str = "up";
/// Name of a project whose directory has no character that names may have.
const NAMELESS: &str = "project";
/// Most characters of a name that is taken from a directory, as in host names.
const LONGEST: usize = 63;
/// Names of files that describe projects of several containers.
const COMPOSE: [&str; 4] = ["compose.yaml", "compose.yml", "docker-compose.yaml", "docker-compose.yml"];

/// A directory that is built and run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::commands) struct Project {
    /// Directory without links in its path.
    pub(in crate::commands) dir: PathBuf,
    /// Name of the container.
    pub(in crate::commands) name: String,
}

impl Project {
    /// The project in a directory; `name` is that of `--name`.
    ///
    /// # Errors
    ///
    /// Fails when there is no such directory.
    pub(in crate::commands) fn open(dir: &Path, name: Option<&str>) -> Result<Project, CliError> {
        let failed = |what: &str| {
            CliError::failed(format!("cannot use the project in {:?}: {what}", dir.display().to_string()))
                .hint("name the directory that holds the Dockerfile, such as `.`")
        };
        let real = dir.canonicalize().map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => failed("there is no such directory"),
            _ => failed(&error.to_string()),
        })?;
        if !real.is_dir() {
            return Err(failed("it is not a directory"));
        }
        let own = real.file_name().unwrap_or_default().to_string_lossy();
        if let Some(name) = name {
            kiln_engine::check_name(name)?;
        }
        let name = name.map_or_else(|| valid(&own), str::to_owned);
        Ok(Project { dir: real, name })
    }

    /// Value of [`LABEL`].
    pub(in crate::commands) fn label(&self) -> String {
        self.dir.display().to_string()
    }

    /// Name of the image.
    pub(in crate::commands) fn image(&self) -> String {
        format!("{}:{TAG}", valid(&self.name))
    }

    /// Fails for a directory with a compose file and no Dockerfile.
    ///
    /// # Errors
    ///
    /// Fails with what to do instead.
    pub(in crate::commands) fn check_kind(&self, file: Option<&Path>) -> Result<(), CliError> {
        let has = |name: &str| self.dir.join(name).symlink_metadata().is_ok();
        if file.is_some() || ["Dockerfile", "dockerfile"].iter().any(|name| has(name)) {
            return Ok(());
        }
        let Some(compose) = COMPOSE.iter().find(|name| has(name)) else { return Ok(()) };
        Err(CliError::failed(format!(
            "the directory has a {compose} and no Dockerfile: `kiln up` builds and runs one container, and reads no \
             compose files"
        ))
        .hint("for one of its services, name the directory with its Dockerfile: kiln up DIR")
        .hint("a service without a Dockerfile is started from its image: kiln run -d --name NAME IMAGE"))
    }

    /// Waits until no other `kiln up` or `kiln down` replaces the project's container, and keeps them from it.
    ///
    /// The lock is on the directory itself, so that it works where nothing can be written, leaves nothing, and ends with
    /// this process. `None` where the file system has no locks on directories.
    pub(in crate::commands) fn lock(&self) -> Option<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = rustix::fs::open(&self.dir, flags, Mode::empty()).ok()?;
        rustix::fs::flock(&dir, FlockOperation::LockExclusive).ok()?;
        Some(dir)
    }
}

/// Name for a container and an image like that of a directory: lower case, and other characters as `-`.
fn valid(name: &str) -> String {
    let mut valid = String::new();
    for character in name.chars().flat_map(char::to_lowercase) {
        match character {
            'a'..='z' | '0'..='9' => valid.push(character),
            // Images have no separators in a row, at the beginning, or at the end.
            '.' | '_' if ends_in_word(&valid) => valid.push(character),
            _ if ends_in_word(&valid) => valid.push('-'),
            _ => {}
        }
    }
    let valid: String = valid.chars().take(LONGEST).collect();
    match valid.trim_end_matches(['.', '_', '-']) {
        "" => NAMELESS.to_owned(),
        // Names of containers have two characters at least.
        short if short.len() < 2 => format!("{NAMELESS}-{short}"),
        name => name.to_owned(),
    }
}

fn ends_in_word(text: &str) -> bool {
    text.ends_with(|character: char| character.is_ascii_alphanumeric())
}

#[cfg(test)]
mod tests {
    use super::*;
    use kiln_image::reference::Reference;

    #[test]
    fn directories_become_names() {
        for (dir, name) in [
            ("web", "web"),
            ("My App", "my-app"),
            ("api_v2.1", "api_v2.1"),
            ("a--b..c", "a-b.c"),
            ("_x y_", "x-y"),
            ("Ünïcode", "n-code"),
            ("a", "project-a"),
            ("...", "project"),
            ("日本", "project"),
            ("", "project"),
        ] {
            assert_eq!(valid(dir), name, "{dir:?}");
        }
        let long = valid(&"ab-".repeat(100));
        assert!(long.len() <= LONGEST && long.ends_with('b'), "{long}");
        for dir in ["web", "日本", "a", "x_", "A.B", &"f".repeat(64)] {
            let project = Project { dir: PathBuf::from("/"), name: valid(dir) };
            assert!(project.image().parse::<Reference>().is_ok(), "{}", project.image());
        }
    }

    #[test]
    fn compose_files_are_another_matter() {
        let dir = tempfile::tempdir().unwrap();
        let project = Project::open(dir.path(), Some("web")).unwrap();
        assert!(project.check_kind(None).is_ok());
        std::fs::write(dir.path().join("compose.yml"), "").unwrap();
        assert!(project.check_kind(None).is_err());
        assert!(project.check_kind(Some(Path::new("other"))).is_ok());
        std::fs::write(dir.path().join("Dockerfile"), "").unwrap();
        assert!(project.check_kind(None).is_ok());
        assert!(Project::open(&dir.path().join("none"), None).is_err());
        assert!(Project::open(&dir.path().join("Dockerfile"), None).is_err());
    }
}
