//! Origins of copies and mounts: the stage, context or image that `--from` names.

use super::{Base, Origin, SCRATCH, Stage, Stages, Step};
use crate::mistake::Mistake;
use kiln_parser::Text;
use kiln_parser::ast::{self, Kind};
use kiln_parser::expand::{self, Rules};
use kiln_parser::span::Span;

impl Stages {
    pub(super) fn resolve_origins(&mut self, index: usize) -> Result<(), Mistake> {
        for position in 0..self.list[index].steps.len() {
            let origins = self.origins(index, &self.list[index].steps[position])?;
            self.list[index].steps[position].origins = origins;
        }
        Ok(())
    }

    pub(super) fn origins(&self, index: usize, step: &Step) -> Result<Vec<Option<Origin>>, Mistake> {
        match &step.instruction.kind {
            Kind::Copy(copy) => match copy.from.as_ref().filter(|from| !from.is_empty()) {
                Some(from) => Ok(vec![Some(self.copy_origin(index, step, from)?)]),
                None => Ok(vec![None]),
            },
            Kind::Run(run) => run.mounts.iter().map(|mount| self.mount_origin(index, step, mount)).collect(),
            _ => Ok(Vec::new()),
        }
    }

    fn copy_origin(&self, index: usize, step: &Step, from: &Text) -> Result<Origin, Mistake> {
        let name = from.as_str();
        let span = step.span_of(from);
        let expanded = expand::expand(name, &expand::NoVariables, Rules::value(step.escape));
        if expanded.is_ok_and(|expansion| expansion.value != name) {
            let message = "variable expansion is not supported for --from, define a new stage with FROM using ARG from global scope as a workaround";
            return Err(Mistake::at("from-variable", span, message));
        }
        let found = match name.parse::<i64>() {
            Ok(number) => {
                let valid = usize::try_from(number).ok().filter(|number| *number < self.list.len());
                Some(valid.ok_or_else(|| {
                    let last = self.list.len() - 1;
                    Mistake::at("stage-index", span, format!("invalid stage index {number}"))
                        .hint(Some(format!("stages are counted from 0; the last one here is {last}")))
                })?)
            }
            Err(_) => self.find(name),
        };
        let Some(found) = found else { return Ok(self.other_origin(name)) };
        self.check_order(index, found, span, |stage| {
            format!(
                "cannot copy from stage {name:?}, it needs to be defined before current stage {:?}",
                stage.title
            )
        })?;
        Ok(Origin::Stage(found))
    }

    /// Origin that is a context or an image.
    fn other_origin(&self, name: &str) -> Origin {
        match self.contexts.find(name, &self.list) {
            Some(Base::Context(index)) => Origin::Context(index),
            Some(Base::Image(image)) => Origin::Image(image),
            Some(Base::Scratch) => Origin::Image(SCRATCH.to_owned()),
            Some(Base::Stage(index)) => Origin::Stage(index),
            None => Origin::Image(name.to_owned()),
        }
    }

    fn mount_origin(
        &self,
        index: usize,
        step: &Step,
        mount: &ast::MountFlag,
    ) -> Result<Option<Origin>, Mistake> {
        let field = mount.fields.iter().rev().find_map(|field| {
            let (key, value) = field.as_str().split_once('=')?;
            key.eq_ignore_ascii_case("from")
                .then(|| field.slice(field.as_str().len() - value.len()..field.as_str().len()))
        });
        let Some(field) = field.filter(|field| !field.is_empty()) else { return Ok(None) };
        let name = field.as_str();
        let Some(found) = self.find(name) else { return Ok(Some(self.other_origin(name))) };
        self.check_order(index, found, step.span_of(&field), |_| {
            format!("cannot mount from stage {name:?}, stage needs to be defined before current command")
        })?;
        Ok(Some(Origin::Stage(found)))
    }

    fn check_order(
        &self,
        index: usize,
        found: usize,
        span: Span,
        message: impl FnOnce(&Stage) -> String,
    ) -> Result<(), Mistake> {
        if found < index {
            return Ok(());
        }
        if self.leads_to(found, index) {
            let message = format!("circular dependency detected on stage: {}", self.list[index].title);
            return Err(Mistake::at("circular-dependency", span, message));
        }
        Err(Mistake::at("stage-order", span, message(&self.list[index]))
            .hint(Some("move the stage that is copied from above this one".to_owned())))
    }

    /// True when building `from` needs `to`, according to names alone.
    fn leads_to(&self, from: usize, to: usize) -> bool {
        let mut seen = vec![false; self.list.len()];
        let mut open = vec![from];
        while let Some(index) = open.pop() {
            if index == to {
                return true;
            }
            if std::mem::replace(&mut seen[index], true) {
                continue;
            }
            let stage = &self.list[index];
            if let Base::Stage(base) = stage.base {
                open.push(base);
            }
            for step in &stage.steps {
                if let Kind::Copy(copy) = &step.instruction.kind
                    && let Some(from) = &copy.from
                {
                    let number = from.as_str().parse().ok().filter(|number| *number < self.list.len());
                    open.extend(number.or_else(|| self.find(from.as_str())));
                }
            }
        }
        false
    }
}
