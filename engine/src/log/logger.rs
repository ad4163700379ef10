//! The log of a container, whatever its driver is.

use super::journal::{JournalWriter, field_name};
use super::settings::expand;
use super::{LogDriver, LogWriter, Stream};
use crate::error::EngineError;
use crate::record::Container;
use jiff::Timestamp;
use std::io;
use std::path::Path;

/// Number of digits of a short id.
const SHORT: usize = 12;

/// Writer of a container's log.
pub(crate) enum Logger {
    Files(LogWriter),
    Journal(JournalWriter),
}

impl Logger {
    /// Opens the log of a container, whose files are in `dir`. `None` when its output is not kept.
    pub(crate) fn open(container: &Container, dir: &Path) -> Result<Option<Logger>, EngineError> {
        let failed = |path: &Path, source| EngineError::Log { path: path.to_owned(), source };
        Ok(match container.log.driver {
            LogDriver::JsonFile => {
                let files = LogWriter::open(dir, container.log.files());
                Some(Logger::Files(files.map_err(|source| failed(dir, source))?))
            }
            LogDriver::Journald => {
                let path = container.log.journal();
                if !path.exists() {
                    return Err(failed(path, io::ErrorKind::NotFound.into()));
                }
                let journal = JournalWriter::open(path, &fields(container));
                Some(Logger::Journal(journal.map_err(|errno| failed(path, errno.into()))?))
            }
            LogDriver::None => None,
        })
    }

    /// Adds output of the program.
    pub(crate) fn write(&mut self, stream: Stream, bytes: &[u8], time: Timestamp) {
        match self {
            Logger::Files(files) => files.write(stream, bytes, time),
            Logger::Journal(journal) => journal.write(stream, bytes, time),
        }
    }

    /// Writes incomplete lines: the program has ended.
    pub(crate) fn finish(&mut self, time: Timestamp) {
        match self {
            Logger::Files(files) => files.finish(time),
            Logger::Journal(journal) => journal.finish(time),
        }
    }
}

/// Fields of a container's entries in the journal (moby `daemon/logger/journald`).
fn fields(container: &Container) -> Vec<(String, String)> {
    let image = container.image.to_string();
    let image = image.split_once(':').map_or(image.as_str(), |(_, hex)| hex);
    let short = |id: &str| id.chars().take(SHORT).collect::<String>();
    let field = |name: &str| match name {
        "ID" => Some(short(&container.id)),
        "FullID" => Some(container.id.clone()),
        "Name" => Some(container.name.clone()),
        "ImageName" => Some(container.image_name.clone()),
        "ImageID" => Some(short(image)),
        "ImageFullID" => Some(image.to_owned()),
        _ => None,
    };
    let options = &container.log.options;
    let template = options.get("tag").map_or("{{.ID}}", String::as_str);
    let tag = expand(template, field).unwrap_or_else(|| short(&container.id));
    let mut fields = vec![
        ("CONTAINER_ID".to_owned(), short(&container.id)),
        ("CONTAINER_ID_FULL".to_owned(), container.id.clone()),
        ("CONTAINER_NAME".to_owned(), container.name.clone()),
        ("CONTAINER_TAG".to_owned(), tag.clone()),
        ("IMAGE_NAME".to_owned(), container.image_name.clone()),
        ("SYSLOG_IDENTIFIER".to_owned(), tag),
    ];
    let names = |option: &str| options.get(option).cloned().unwrap_or_default();
    for name in names("labels").split(',') {
        let value = container.settings.labels.get(name);
        fields.extend(value.map(|value| (field_name(name), value.clone())));
    }
    for name in names("env").split(',') {
        let variables = container.settings.environment.iter().filter_map(|entry| entry.split_once('='));
        let value = variables.filter(|(known, _)| *known == name).map(|(_, value)| value).next();
        fields.extend(value.map(|value| (field_name(name), value.to_owned())));
    }
    // A field must have a name.
    fields.retain(|(name, _)| !name.is_empty());
    fields
}
