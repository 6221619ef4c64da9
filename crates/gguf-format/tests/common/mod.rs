//! Where the data shared between checkouts lie.

use std::path::{Path, PathBuf};

/// A path in the folder `shared` beside the workspace; `None`, said on standard output, where it is missing.
pub(crate) fn shared(path: &str) -> Option<PathBuf> {
    let found = Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .skip(1)
        .map(|folder| folder.join("shared").join(path))
        .find(|candidate| candidate.exists());
    if found.is_none() {
        println!("skipped: shared/{path} is not there");
    }
    found
}
