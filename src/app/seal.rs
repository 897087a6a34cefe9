//! The key with which proofs of ownership are sealed: a file beside the queue's, made once.
//!
//! Without it, proofs that statuses tell of count no more and are asked for again; nothing else depends on it.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use anyhow::Context as _;
use zeroize::Zeroizing;

use crate::adapters::kube::system_random;
use crate::domain::secret::Secret;

const NAME: &str = "ownership.key";

/// The key in a folder; makes one when there is none, or none that is whole.
pub(super) fn key(folder: &Path) -> anyhow::Result<Secret<[u8; 32]>> {
    let path = folder.join(NAME);
    let known = match std::fs::read(&path) {
        Ok(bytes) => <[u8; 32]>::try_from(Zeroizing::new(bytes).as_slice()).ok(),
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
    };
    if let Some(known) = known {
        return Ok(Secret::new(known));
    }
    let mut key = [0; 32];
    system_random()(&mut key);
    // A kill leaves no half of one behind.
    let draft = folder.join("ownership.key.new");
    let write = || {
        let mut options = OpenOptions::new();
        let mut file = options
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&draft)?;
        file.write_all(&key)?;
        file.sync_all()?;
        std::fs::rename(&draft, &path)
    };
    write().with_context(|| format!("cannot write {}", path.display()))?;
    Ok(Secret::new(key))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_key_is_made_once_and_only_its_owner_reads_it() {
        let folder = tempfile::tempdir().unwrap();
        let first = key(folder.path()).unwrap();
        assert!(key(folder.path()).unwrap() == first);
        let path = folder.path().join(NAME);
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        std::fs::write(&path, "half").unwrap();
        let other = key(folder.path()).unwrap();
        assert!(other != first, "what is no key is replaced");
        assert!(key(folder.path()).unwrap() == other);
    }
}
