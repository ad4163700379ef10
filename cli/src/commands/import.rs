//! `kiln import`.

use super::commit::{change_error, reference};
use crate::arguments::{self, Globals};
use crate::error::{CliError, registry_hint};
use crate::image_events;
use crate::images::ImageFinder;
use crate::pulling;
use crate::session::Session;
use crate::ui;
use clap::Parser;
use kiln_builder::change::change;
use kiln_image::archive::{ImportOptions, import};
use kiln_image::config::ImageConfig;
use kiln_registry::FetchRequest;
use std::ffi::OsString;
use std::fs::File;
use std::io::{BufRead, BufReader, IsTerminal, Seek};
use std::path::Path;

/// Create an image from a tar of files, such as `kiln export` writes.
#[derive(Debug, Parser)]
struct Import {
    /// Apply an instruction such as 'CMD ["app"]' to the image; may be repeated
    #[arg(short, long, value_name = "INSTRUCTION")]
    change: Vec<String>,
    /// Set the comment in the image's history
    #[arg(short, long, value_name = "TEXT")]
    message: Option<String>,
    /// Make the image for this platform, os/architecture [default: this host's]
    #[arg(long, value_name = "PLATFORM")]
    platform: Option<String>,
    /// Tar to read, also compressed: a file, a URL, or - for standard input
    #[arg(value_name = "FILE")]
    source: String,
    /// Name of the image
    #[arg(value_name = "REPOSITORY[:TAG]")]
    image: Option<String>,
}

/// Describes the arguments.
pub fn describe() -> clap::Command {
    <Import as clap::CommandFactory>::command()
}

/// Creates the image and prints its id.
pub fn run(globals: &Globals, arguments: Vec<OsString>) -> Result<u8, CliError> {
    let options: Import = arguments::parse("import", arguments)?;
    let name = options.image.as_deref().map(reference).transpose()?;
    let platform = pulling::platform(options.platform.as_deref())?;
    let empty = ImageConfig {
        architecture: platform.architecture.clone(),
        os: platform.os.clone(),
        ..ImageConfig::default()
    };
    let config = change(&empty, &options.change).map_err(|mistake| change_error(&mistake))?;
    let is_url = options.source.starts_with("http://") || options.source.starts_with("https://");
    // Checked before the store is created.
    let file = if is_url { None } else { Some(open(&options.source)?) };
    let session = Session::open(globals)?;
    let stream = match file {
        Some(stream) => stream,
        None => download(&session, &options.source)?,
    };
    let from = if is_url { options.source.as_str() } else { "-" };
    let imported = ImportOptions {
        config,
        platform,
        comment: options.message.clone().unwrap_or_else(|| format!("Imported from {from}")),
        created: jiff::Timestamp::now().to_string(),
    };
    let image = import(&session.store, stream, &imported).map_err(|error| {
        let failed = CliError::from(error);
        let hint = "kiln import reads a tar of files; `kiln load` reads an archive of images";
        if failed.has_hints() { failed } else { failed.hint(hint) }
    })?;
    if let Some(name) = &name {
        session.store.tag(name, &image)?;
    }
    image_events::add(
        &session.store,
        "import",
        &image.to_string(),
        &options.image.clone().unwrap_or_default(),
    );
    ui::line(&image.to_string());
    Ok(0)
}

fn open(source: &str) -> Result<Box<dyn BufRead>, CliError> {
    const BUFFER: usize = 1 << 17;
    if source == "-" {
        if std::io::stdin().is_terminal() {
            return Err(CliError::failed("cannot read a tar from a terminal").hint(
                "name a file, or write the tar to standard input: kiln export web | kiln import - web:1",
            ));
        }
        return Ok(Box::new(BufReader::with_capacity(BUFFER, std::io::stdin().lock())));
    }
    let failed = |reason: String| CliError::failed(format!("cannot open `{source}`: {reason}"));
    if Path::new(source).is_dir() {
        return Err(failed("it is a directory".to_owned())
            .hint(format!("import a tar of it: tar -C {source} -c . | kiln import - NAME")));
    }
    let file = File::open(source).map_err(|error| failed(error.to_string()))?;
    Ok(Box::new(BufReader::with_capacity(BUFFER, file)))
}

/// Downloads the file of a URL into a file without a name.
fn download(session: &Session, url: &str) -> Result<Box<dyn BufRead>, CliError> {
    let unusable =
        |error: std::io::Error| CliError::failed(format!("cannot keep the download of {url}: {error}"));
    let dir = session.store.scratch_dir()?;
    let path = dir.path().join("download");
    let mut file = File::options().read(true).write(true).create_new(true).open(&path).map_err(unusable)?;
    let images = ImageFinder::new(&session.store, &session.config.registry);
    let request = FetchRequest { url, authorization: None, etag: "", last_modified: "" };
    let fetched = images.registry().and_then(|registry| registry.fetch(&request, &mut file));
    fetched.map_err(|error| {
        let failed = CliError::failed(crate::error::chain(&error));
        registry_hint(&error).into_iter().fold(failed, |failed, hint| failed.hint(hint))
    })?;
    file.rewind().map_err(unusable)?;
    // The open file stays when its directory is removed.
    Ok(Box::new(BufReader::new(file)))
}
