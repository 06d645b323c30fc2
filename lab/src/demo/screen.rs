//! Standard output: lines that stay, and below them one that shows the progress.

use std::io::{IsTerminal, Write, stdout};
use std::time::Duration;

/// Writes for people at a terminal, or for a file.
pub struct Screen {
    is_terminal: bool,
}

impl Screen {
    pub fn new() -> Screen {
        Screen { is_terminal: stdout().is_terminal() }
    }

    /// How often progress is worth showing. In a file each showing takes a line.
    pub fn refresh_interval(&self) -> Duration {
        Duration::from_secs(if self.is_terminal { 1 } else { 2 })
    }

    /// Writes what stays.
    pub fn say(&self, text: &str) {
        self.write(&format!("{text}\n"));
    }

    /// Writes over the last progress.
    pub fn show(&self, progress: &str) {
        let end = if self.is_terminal { "" } else { "\n" };
        self.write(&format!("{progress}{end}"));
    }

    fn write(&self, text: &str) {
        // To the beginning of the line, and forget the line.
        let start = if self.is_terminal { "\r\x1b[2K" } else { "" };
        let mut out = stdout().lock();
        // The story goes on, though nobody watches any more.
        drop(write!(out, "{start}{text}").and_then(|()| out.flush()));
    }
}
