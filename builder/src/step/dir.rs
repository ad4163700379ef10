//! WORKDIR: creates the working directory.

use super::{Executor, StepError, copy, owner};
use crate::graph::MakeDir;
use crate::solve::NodeId;
use kiln_image::layer::{LayerWriter, Metadata, WriteError};
use kiln_image::store::{LayerRecord, Stack};

impl Executor<'_> {
    pub(super) fn make_dir(
        &self,
        node: NodeId,
        dir: &MakeDir,
        below: &Stack,
    ) -> Result<LayerRecord, StepError> {
        let active = self.tools.store.prepare()?;
        let lower = self.view(below)?;
        let (uid, gid) = owner::find(&dir.owner, lower.as_ref())?.ids();
        let mut writer = LayerWriter::new(&active.upper(), lower)?;
        let metadata =
            Metadata { mode: 0o755, uid, gid, mtime: dir.epoch.map_or_else(copy::now, |epoch| (epoch, 0)) };
        writer.make_dirs(dir.path.as_bytes(), &metadata).map_err(|error| match error {
            WriteError::NotADir(_) => StepError::NotADir(dir.path.clone()),
            other => other.into(),
        })?;
        writer.finish()?;
        self.keep_layer(node, active)
    }
}
