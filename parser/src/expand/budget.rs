//! Limits on the cost of expansion: one for each word, and one for all words of a file.

use super::Environment;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Number of bytes that variables and replacements may add to one word. The kernel accepts at most an eighth of it in
/// one argument or variable.
pub const MAX_GROWTH: usize = 1 << 20;
/// Number of bytes copied and of pattern steps for all words of a file.
const MAX_TOTAL: usize = 64 << 20;

/// Limit that an expansion exceeded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BudgetExceeded {
    /// The limit on one word.
    Value,
    /// The limit on all words of a file.
    Total,
}

impl std::fmt::Display for BudgetExceeded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            BudgetExceeded::Value => {
                write!(f, "variables add more than {} MiB to this value", MAX_GROWTH >> 20)
            }
            BudgetExceeded::Total => {
                write!(f, "variables of this file expand to more than {} MiB altogether", MAX_TOTAL >> 20)
            }
        }
    }
}

impl std::error::Error for BudgetExceeded {}

/// Remaining cost of all expansions of a file; clones share it.
#[derive(Clone, Debug)]
pub struct Budget {
    left: Arc<AtomicUsize>,
}

impl Default for Budget {
    fn default() -> Budget {
        Budget { left: Arc::new(AtomicUsize::new(MAX_TOTAL)) }
    }
}

impl Budget {
    /// Spends the cost of `count` bytes or steps.
    ///
    /// # Errors
    /// Fails when less is left; all later calls then fail, too.
    pub fn spend(&self, count: usize) -> Result<(), BudgetExceeded> {
        let left = self.left.load(Ordering::Relaxed).checked_sub(count);
        self.left.store(left.unwrap_or(0), Ordering::Relaxed);
        left.map(|_| ()).ok_or(BudgetExceeded::Total)
    }
}

/// Variables together with the budget of the file that uses them.
#[derive(Clone, Copy)]
pub struct BudgetedVariables<'a> {
    /// Variables to look up.
    pub variables: &'a dyn Environment,
    /// Budget that the expansions spend from.
    pub budget: &'a Budget,
}

impl Environment for BudgetedVariables<'_> {
    fn get(&self, name: &str) -> Option<&str> {
        self.variables.get(name)
    }

    fn budget(&self) -> Option<&Budget> {
        Some(self.budget)
    }
}

/// Remaining cost of one word.
#[derive(Debug)]
pub(super) struct Allowance {
    growth: usize,
    budget: Budget,
}

impl Allowance {
    pub(super) fn new(budget: Option<&Budget>) -> Allowance {
        Allowance { growth: MAX_GROWTH, budget: budget.cloned().unwrap_or_default() }
    }

    /// Spends the cost of `count` bytes by which a value grows.
    pub(super) fn grow(&mut self, count: usize) -> Result<(), BudgetExceeded> {
        self.growth = self.growth.checked_sub(count).ok_or(BudgetExceeded::Value)?;
        self.budget.spend(count)
    }

    /// Spends the cost of `count` steps through a pattern.
    pub(super) fn work(&mut self, count: usize) -> Result<(), BudgetExceeded> {
        self.budget.spend(count)
    }
}
