//! Standard output that may be closed: `quant inspect model.gguf | head` is no error.

use crate::error::{CliError, CliResult};
use std::io::{self, BufWriter, Write};
use std::ops::ControlFlow;

/// Runs `print` on buffered standard output. A reader that goes away ends the output quietly.
pub(crate) fn to_stdout(print: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> CliResult {
    let mut out = BufWriter::with_capacity(1 << 16, io::stdout().lock());
    match print(&mut out).and_then(|()| out.flush()) {
        Err(e) if e.kind() != io::ErrorKind::BrokenPipe => Err(CliError::Failed(format!("standard output: {e}"))),
        _ => {
            // What is still buffered after a broken pipe has nowhere to go.
            let _ = out.into_parts();
            Ok(())
        }
    }
}

/// `1 fault`, `2 faults`.
pub(crate) fn count(n: u64, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

/// Prints one JSON object on a line of its own.
pub(crate) fn print_json(value: &serde_json::Value) -> CliResult {
    to_stdout(|out| writeln!(out, "{value}"))
}

/// Text on standard output as it comes. Remembers a reader that went away.
pub(crate) struct Stream {
    out: io::Stdout,
    error: Option<io::Error>,
}

impl Stream {
    pub(crate) fn stdout() -> Self {
        Self { out: io::stdout(), error: None }
    }

    /// Writes at once; `Break` if nobody reads any more.
    pub(crate) fn write(&mut self, text: &str) -> ControlFlow<()> {
        if self.error.is_none() {
            self.error = self.out.write_all(text.as_bytes()).and_then(|()| self.out.flush()).err();
        }
        if self.error.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    /// True if nobody reads any more.
    pub(crate) fn is_closed(&self) -> bool {
        self.error.is_some()
    }

    /// A reader that went away is no error, a full disk is.
    pub(crate) fn finish(self) -> CliResult {
        match self.error {
            Some(e) if e.kind() != io::ErrorKind::BrokenPipe => Err(CliError::Failed(format!("standard output: {e}"))),
            _ => Ok(()),
        }
    }
}
