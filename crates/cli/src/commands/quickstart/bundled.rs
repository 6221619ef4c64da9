//! The model in the binary.

use crate::error::{CliError, CliResult};
use std::io::Write;
use std::path::Path;

/// The bundled model: trained for this project, 5.8 million parameters.
const FILES: [(&str, &[u8]); 5] = [
    ("config.json", include_bytes!("../../../../../models/pocket-6m/config.json")),
    ("generation_config.json", include_bytes!("../../../../../models/pocket-6m/generation_config.json")),
    ("model.safetensors", include_bytes!("../../../../../models/pocket-6m/model.safetensors")),
    ("tokenizer.json", include_bytes!("../../../../../models/pocket-6m/tokenizer.json")),
    ("tokenizer_config.json", include_bytes!("../../../../../models/pocket-6m/tokenizer_config.json")),
];

/// Writes the bundled model as a directory, each file atomically.
pub(super) fn unpack(dir: &Path) -> CliResult {
    let failed = |path: &Path, e: std::io::Error| CliError::Failed(format!("{}: {e}", path.display()));
    std::fs::create_dir_all(dir).map_err(|e| failed(dir, e))?;
    for (name, bytes) in FILES {
        let path = dir.join(name);
        let mut file = tempfile::Builder::new().prefix(".quant-").tempfile_in(dir).map_err(|e| failed(&path, e))?;
        file.write_all(bytes).map_err(|e| failed(&path, e))?;
        file.persist(&path).map_err(|e| failed(&path, e.error))?;
    }
    Ok(())
}
