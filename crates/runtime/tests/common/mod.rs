//! What the tests of this crate share.
#![allow(dead_code, reason = "each test uses a part")]

use std::path::PathBuf;

/// A file of the shared test data, beside the workspace. `None`, with a word on it, where it is missing.
pub(crate) fn shared(name: &str) -> Option<PathBuf> {
    let manifest = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let path = manifest.ancestors().nth(3)?.join("shared").join(name);
    if path.exists() {
        return Some(path);
    }
    println!("skipped: {} is not there", path.display());
    None
}

/// A real model by the environment variable that names it. `None`, with a word on it, where it is not set.
pub(crate) fn from_environment(variable: &str) -> Option<PathBuf> {
    let path = std::env::var_os(variable).map(PathBuf::from);
    if path.is_none() {
        println!("skipped: {variable} is not set");
    }
    path
}

/// SHA-256 in hexadecimal.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    use sha2::Digest;
    sha2::Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}
