//! [`Installation`]: the SMTP server that Postrider was installed with.
//!
//! Its settings are files in a folder, named like the keys of a Secret, which is how Kubernetes mounts one: the
//! operator needs no right to read Secrets of its own namespace for it. The kubelet replaces the files when the Secret
//! changes, so they are read again from time to time.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use crate::domain::destination::{INSTALLATION, Reference, References, secret};
use crate::domain::secret::Secret;
use crate::domain::smtp::KEYS;

/// How often the files are read again.
pub const LOOK_AGAIN: Duration = Duration::from_secs(5);
/// Most bytes of one file; a longer one counts as missing.
const MAX_FILE: u64 = 128 * 1024;

/// The settings of the SMTP server that Postrider was installed with.
#[derive(Debug, Default)]
pub struct Installation {
    folder: Option<PathBuf>,
    found: Mutex<Arc<References>>,
}

impl Installation {
    /// The settings in a folder; without a folder, none. They are read by [`Installation::refresh`].
    #[must_use]
    pub fn new(folder: Option<PathBuf>) -> Self {
        Self {
            folder,
            ..Self::default()
        }
    }

    /// Whether there may be any.
    #[must_use]
    pub const fn is_configured(&self) -> bool {
        self.folder.is_some()
    }

    /// Reads the files; whether they say something else than before. Blocks for as long as the files take.
    pub fn refresh(&self) -> bool {
        let Some(folder) = &self.folder else {
            return false;
        };
        let found = Arc::new(read(folder));
        let mut known = self.found.lock();
        let changed = **known != *found;
        *known = found;
        changed
    }

    /// What the files said when they were last read, under the name [`INSTALLATION`].
    pub fn references(&self) -> Arc<References> {
        Arc::clone(&self.found.lock())
    }
}

fn read(folder: &Path) -> References {
    let mut found = BTreeMap::new();
    for key in KEYS {
        let mut value = Vec::new();
        let file = std::fs::File::open(folder.join(key));
        let read = file.and_then(|file| file.take(MAX_FILE + 1).read_to_end(&mut value));
        let value = match read {
            Ok(_) if value.len() as u64 <= MAX_FILE => Reference::Found(Secret::new(value)),
            Ok(_) => {
                tracing::warn!(key, "a file of --smtp-dir is too long and is left out");
                continue;
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => {
                tracing::warn!(key, %error, "a file of --smtp-dir cannot be read");
                continue;
            }
        };
        found.insert(secret(INSTALLATION, key), value);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_file_is_noticed_and_a_missing_folder_holds_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let installation = Installation::new(Some(folder.path().join("smtp")));
        assert!(!installation.refresh() && installation.references().is_empty());
        std::fs::create_dir(folder.path().join("smtp")).unwrap();
        std::fs::write(folder.path().join("smtp/host"), "a.example").unwrap();
        std::fs::write(folder.path().join("smtp/other"), "x").unwrap();
        assert!(installation.refresh());
        assert_eq!(installation.references().len(), 1);
        assert!(!installation.refresh());
        std::fs::write(folder.path().join("smtp/host"), "b.example").unwrap();
        assert!(installation.refresh());
    }
}
