//! Exit codes: 2 for wrong usage, 1 for anything else, one line on standard error.

use std::process::ExitCode;

/// What a command ends with.
pub(crate) type CliResult<T = ()> = Result<T, CliError>;

/// Why a command failed.
#[derive(Debug)]
pub(crate) enum CliError {
    /// The arguments make no sense: exit 2.
    Usage(String),
    /// Anything else: exit 1.
    Failed(String),
    /// Two files differ, as was printed: exit 1 without a line, as of `diff`.
    Different,
}

impl CliError {
    /// Prints one line and gives the exit code.
    pub(crate) fn report(self) -> ExitCode {
        let (message, code) = match self {
            Self::Usage(m) => (m, 2),
            Self::Failed(m) => (m, 1),
            Self::Different => return ExitCode::from(1),
        };
        eprintln!("error: {}", message.replace('\n', " "));
        ExitCode::from(code)
    }
}

impl From<quant_runtime::Error> for CliError {
    fn from(e: quant_runtime::Error) -> Self {
        match e {
            quant_runtime::Error::Usage(m) => Self::Usage(m),
            e => Self::Failed(e.to_string()),
        }
    }
}
