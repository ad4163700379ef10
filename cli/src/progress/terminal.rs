//! Rows of a terminal that are redrawn while a build is running.

use super::frame::{Board, Ended};
use crate::ui;
use kiln_builder::event::Event;
use kiln_parser::diagnostic::Color;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Time between two frames: elapsed times are shown in tenths of seconds.
const TICK: Duration = Duration::from_millis(100);

/// Draws the state of a build at intervals.
pub(super) struct Terminal {
    shared: Arc<Shared>,
    ticker: Option<JoinHandle<()>>,
}

struct Shared {
    began: Instant,
    board: Mutex<Board>,
    /// True when drawing has ended.
    is_over: Mutex<bool>,
    over: Condvar,
}

impl Terminal {
    pub(super) fn new() -> Terminal {
        let shared = Arc::new(Shared {
            began: Instant::now(),
            board: Mutex::default(),
            is_over: Mutex::new(false),
            over: Condvar::new(),
        });
        let drawn = Arc::clone(&shared);
        Terminal { shared, ticker: Some(thread::spawn(move || drawn.draw_until_over())) }
    }

    pub(super) fn show(&mut self, event: &Event) {
        if let Event::Warning { message } = event {
            ui::tell_line(message);
        }
        self.shared.board().apply(event, self.shared.began.elapsed());
    }

    /// Redraws after the terminal's size has changed.
    pub(super) fn redraw(&self) {
        let is_over = self.shared.is_over();
        if !*is_over {
            self.shared.draw();
        }
    }

    pub(super) fn interrupt(&mut self) {
        self.shared.board().interrupt();
    }

    /// Ends drawing; the last frame stays above later output.
    pub(super) fn finish(&mut self, is_ok: bool) {
        let Some(ticker) = self.ticker.take() else { return };
        *self.shared.is_over() = true;
        self.shared.over.notify_all();
        // A frame that cannot be drawn does not fail the build.
        let _ = ticker.join();
        let board = self.shared.board();
        ui::draw(&[]);
        if board.is_empty() {
            return;
        }
        let ended = if is_ok { Ended::Well } else { Ended::Badly };
        let has_colors = ui::color() == Color::Always;
        let lines = board.last(ui::size(), self.shared.began.elapsed(), has_colors, ended);
        ui::tell_colored(&lines.iter().map(|line| format!("{line}\n")).collect::<String>());
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        self.finish(false);
    }
}

impl Shared {
    fn board(&self) -> MutexGuard<'_, Board> {
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_over(&self) -> MutexGuard<'_, bool> {
        self.is_over.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn draw_until_over(&self) {
        let mut is_over = self.is_over();
        while !*is_over {
            self.draw();
            is_over = self.over.wait_timeout(is_over, TICK).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn draw(&self) {
        let board = self.board();
        if board.is_empty() {
            return;
        }
        let has_colors = ui::color() == Color::Always;
        let lines = board.frame(ui::size(), self.began.elapsed(), has_colors);
        drop(board);
        ui::draw(&lines);
    }
}
