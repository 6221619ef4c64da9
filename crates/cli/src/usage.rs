//! What clap says about the arguments: help as it is, wrong usage as one line.

use crate::error::CliError;
use std::process::ExitCode;

/// Prints help or the version, exit 0; wrong usage as one line on standard error, exit 2.
pub(crate) fn report(error: &clap::Error) -> ExitCode {
    if !error.use_stderr() {
        return match error.print() {
            Ok(()) => ExitCode::SUCCESS,
            // `quant --help | head -1` is no error.
            Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
            Err(e) => CliError::Failed(format!("standard output: {e}")).report(),
        };
    }
    CliError::Usage(one_line(&error.to_string())).report()
}

/// The message, its details and its tips, without the usage and without what every message ends with. clap puts a detail on an indented line
/// of its own, and an empty line before anything that is another thought.
fn one_line(message: &str) -> String {
    let message = message.trim().strip_prefix("error: ").unwrap_or(message.trim());
    let (mut out, mut command) = (String::new(), "quant".to_owned());
    let mut new_thought = false;
    for line in message.lines().map(str::trim) {
        if let Some(usage) = line.strip_prefix("Usage: ") {
            // `quant gguf --type <TYPE> <MODEL> <OUT>`: words before the first argument are the command.
            let words = usage.split(' ').take_while(|w| w.starts_with(|c: char| c.is_ascii_lowercase()));
            command = words.collect::<Vec<_>>().join(" ");
            break;
        }
        if line.starts_with("For more information") {
            break;
        }
        if line.is_empty() {
            new_thought = !out.is_empty();
            continue;
        }
        if new_thought {
            out.push(';');
        }
        if !out.is_empty() {
            out.push(' ');
        }
        out.push_str(line);
        new_thought = false;
    }
    format!("{out} (see `{command} --help`)")
}

#[cfg(test)]
mod tests {
    use super::one_line;

    #[test]
    fn one_line_keeps_details_and_tips() {
        let cases = [
            (
                "error: the following required arguments were not provided:\n  --type <TYPE>\n  <OUT>\n\nUsage: quant gguf \
                 --type <TYPE> <MODEL> <OUT>\n\nFor more information, try '--help'.\n",
                "the following required arguments were not provided: --type <TYPE> <OUT> (see `quant gguf --help`)",
            ),
            (
                "error: unexpected argument '--jsn' found\n\n  tip: a similar argument exists: '--json'\n\nUsage: quant bench --json \
                 <MODEL>\n\nFor more information, try '--help'.\n",
                "unexpected argument '--jsn' found; tip: a similar argument exists: '--json' (see `quant bench --help`)",
            ),
            (
                "error: invalid value 'x' for '--type <TYPE>': no type\n\nFor more information, try '--help'.\n",
                "invalid value 'x' for '--type <TYPE>': no type (see `quant --help`)",
            ),
        ];
        for (message, expected) in cases {
            assert_eq!(one_line(message), expected);
        }
    }
}
