//! Standard output that may be closed: `quant inspect model.gguf | head` is no error.

use crate::error::{CliError, CliResult};
use std::io::{self, BufWriter, Write};

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

/// Prints one JSON object on a line of its own.
pub(crate) fn print_json(value: &serde_json::Value) -> CliResult {
    to_stdout(|out| writeln!(out, "{value}"))
}
