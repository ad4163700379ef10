//! ARG: build arguments and their values.

use super::{Planner, StageState, commit, expand_value};
use crate::mistake::Mistake;
use crate::stage::Step;
use kiln_parser::ast::ArgItem;

/// ARGs that configure the builder and are not in the environment of RUN.
const NOT_IN_ENVIRONMENT: [&str; 2] = ["BUILDKIT_SBOM_SCAN_CONTEXT", "BUILDKIT_SBOM_SCAN_STAGE"];

impl Planner<'_> {
    /// Plans ARG: `--build-arg` overrides the default, and the default overrides the global value.
    pub(super) fn arg(
        &mut self,
        state: &mut StageState,
        step: &Step,
        items: &[ArgItem],
    ) -> Result<(), Mistake> {
        let mut shown = Vec::new();
        for item in items {
            let name = item.key.as_str();
            let value = match (self.options.build_args.get(name), &item.value) {
                (Some(value), _) => Some(value.clone()),
                (None, Some(default)) => Some(expand_value(state, step, default)?),
                (None, None) => self.stages.globals.value(name).map(str::to_owned),
            };
            if let Some(value) = value.as_ref().filter(|_| !NOT_IN_ENVIRONMENT.contains(&name)) {
                state.environment.set(name, value.clone());
            }
            shown.push(match &value {
                Some(value) => format!("{name}={value}"),
                None => name.to_owned(),
            });
            state.arguments.push((name.to_owned(), value));
        }
        commit(state, format!("ARG {}", shown.join(" ")), false);
        Ok(())
    }
}
