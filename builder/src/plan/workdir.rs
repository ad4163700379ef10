//! WORKDIR.

use super::{Planner, StageState, WINDOWS, commit, expand_value, shown_expanded};
use crate::graph::{self, Operation};
use crate::mistake::Mistake;
use crate::path;
use crate::stage::Step;
use kiln_parser::Text;
use kiln_parser::expand::Quotes;

impl Planner<'_> {
    pub(super) fn workdir(
        &mut self,
        state: &mut StageState,
        step: &Step,
        text: &Text,
    ) -> Result<(), Mistake> {
        let value = expand_value(state, step, text)?;
        if state.platform.os == WINDOWS {
            return self.windows_workdir(state, step, &value);
        }
        let dir = path::working_dir(&state.config.config.working_dir, &value);
        state.config.config.working_dir.clone_from(&dir);
        let is_root = dir == "/";
        if !is_root {
            let make = graph::MakeDir {
                path: dir.clone(),
                owner: state.config.config.user.clone(),
                epoch: self.options.epoch,
            };
            let shown = shown_expanded(state, step, Quotes::Remove, false);
            self.push(state, step, Operation::MakeDir(make), Vec::new(), &shown);
        }
        commit(state, format!("WORKDIR {dir}"), !is_root);
        Ok(())
    }

    /// WORKDIR of an image for Windows: paths of files have slashes and no drive, the config has backslashes.
    fn windows_workdir(&mut self, state: &mut StageState, step: &Step, value: &str) -> Result<(), Mistake> {
        let value = path::of_windows(value);
        let dir = path::working_dir(&path::of_windows(&state.config.config.working_dir), &value);
        let dir = path::join("/", &dir);
        let shown = dir.replace('/', "\\");
        state.config.config.working_dir.clone_from(&shown);
        let is_root = dir == "/";
        if !is_root {
            let make = graph::MakeDir { path: dir, owner: String::new(), epoch: self.options.epoch };
            let name = shown_expanded(state, step, Quotes::Remove, false);
            self.push(state, step, Operation::MakeDir(make), Vec::new(), &name);
        }
        commit(state, format!("WORKDIR {shown}"), !is_root);
        Ok(())
    }
}
