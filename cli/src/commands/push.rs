//! `kiln push`.

use crate::arguments::{self, Globals};
use crate::error::CliError;
use crate::image_events;
use crate::images::ImageFinder;
use crate::missing;
use crate::session::Session;
use crate::{text, ui};
use clap::Parser;
use kiln_image::archive::{Compression, PackOptions, pack};
use kiln_image::reference::Reference;
use kiln_registry::{PushEvent, PushRequest};
use std::ffi::OsString;

/// Level of gzip: the result is hardly larger than at the usual level 6, and takes less time.
const GZIP_LEVEL: u32 = 4;

/// Upload an image to the registry in its name.
#[derive(Debug, Parser)]
struct Push {
    /// Show only the image's name
    #[arg(short, long)]
    quiet: bool,
    /// Upload the image of this name, which begins with the registry: HOST/NAME[:TAG]
    #[arg(value_name = "NAME[:TAG]")]
    image: String,
}

/// Describes the arguments.
pub fn describe() -> clap::Command {
    <Push as clap::CommandFactory>::command()
}

/// Uploads the image; layers that the registry has are not sent again.
pub fn run(globals: &Globals, arguments: Vec<OsString>) -> Result<u8, CliError> {
    let push: Push = arguments::parse("push", arguments)?;
    let invalid = |error| CliError::failed(format!("invalid reference format: {error}")).hint(missing::NAME);
    let reference = push.image.parse::<Reference>().map_err(invalid)?;
    if reference.digest().is_some() {
        return Err(CliError::failed("cannot push a digest reference").hint("push a name with a tag"));
    }
    let reference = reference.or_latest();
    let session = Session::open(globals)?;
    let store = &session.store;
    let record = store.find(&reference)?.ok_or_else(|| {
        let message =
            format!("An image does not exist locally with the tag: {}", reference.familiar_repository());
        CliError::failed(message).hint("see `kiln images`, and give the image that name with `kiln tag`")
    })?;
    let say = |line: &str| {
        if !push.quiet {
            ui::line(line);
        }
    };
    say(&format!("The push refers to repository [{}]", reference.repository()));
    let options = PackOptions { compression: Compression::Gzip(GZIP_LEVEL), ..PackOptions::default() };
    let packed = pack(store, &record, &options)?;
    let images = ImageFinder::new(store, &session.config.registry);
    let request = PushRequest {
        reference: &reference,
        images: std::slice::from_ref(&packed),
        index: None,
        by_digest: false,
    };
    let tell = |event: PushEvent| match event {
        PushEvent::Exists(digest) => say(&format!("{}: Layer already exists", digest.short())),
        PushEvent::Uploading(digest, sent, total) if sent == total => {
            say(&format!("{}: Pushed {}", digest.short(), text::size(total)));
        }
        PushEvent::Uploading(..) => {}
    };
    let digest = images.registry()?.push(store, &request, &tell)?;
    store.add_repo_digest(&record.id, &reference.repository(), &digest)?;
    image_events::moved(store, "push", &reference);
    if push.quiet {
        ui::line(&reference.to_string());
    } else {
        let tag = reference.tag().unwrap_or("latest");
        ui::line(&format!("{tag}: digest: {digest} size: {}", packed.manifest.len()));
    }
    Ok(0)
}
