//! `--call=plan`: steps that a build would run, and images that it would create. No step is run.

use super::{Call, ConfigSource, Subject};
use crate::error::CliError;
use crate::images::ConfigFinder;
use crate::ui;
use kiln_builder::check::dry_plan;

pub(super) fn answer(call: Call, subject: &Subject<'_>) -> Result<u8, CliError> {
    if call.json {
        return Err(CliError::failed("--call=plan has no JSON form").hint("leave format=json out"));
    }
    let source = ConfigSource::open(subject.globals)?;
    let images = source.finder();
    let plan = dry_plan(subject.context, subject.options, &ConfigFinder(&images));
    let plan = plan.map_err(|mistake| subject.failure(mistake))?;
    ui::print(&plan.to_string());
    Ok(0)
}
