//! [`Installation`]: the SMTP server and the proxy that Postrider was installed with.
//!
//! Their settings are files in folders, named like the keys of a Secret, which is how Kubernetes mounts one: the
//! operator needs no right to read Secrets of its own namespace for it. The kubelet replaces the files when the Secret
//! changes, so they are read again from time to time.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use crate::domain::destination::{INSTALLATION, PROXY_LOGIN, PROXY_URL, Reference, References, secret};
use crate::domain::secret::Secret;
use crate::domain::smtp::KEYS;

/// How often the files are read again.
pub const LOOK_AGAIN: Duration = Duration::from_secs(5);
/// Most bytes of one file; a longer one counts as missing.
const MAX_FILE: u64 = 128 * 1024;

/// Where the settings are.
#[derive(Clone, Debug, Default)]
pub struct Folders {
    /// Folder that describes the SMTP server.
    pub smtp: Option<PathBuf>,
    /// URL of the proxy, without user name and password.
    pub proxy: Option<String>,
    /// Folder of user name and password for the proxy.
    pub proxy_login: Option<PathBuf>,
}

/// The settings of the SMTP server and the proxy that Postrider was installed with.
#[derive(Debug, Default)]
pub struct Installation {
    folders: Folders,
    found: Mutex<Arc<References>>,
}

/// What says something else than before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// The SMTP server.
    pub smtp: bool,
    /// The proxy, or the login for it.
    pub proxy: bool,
}

impl Changes {
    /// Whether there are any.
    #[must_use]
    pub const fn any(self) -> bool {
        self.smtp || self.proxy
    }
}

impl Installation {
    /// The settings in folders. They are read by [`Installation::refresh`].
    #[must_use]
    pub fn new(folders: Folders) -> Self {
        Self {
            folders,
            ..Self::default()
        }
    }

    /// Whether there are files that may change.
    #[must_use]
    pub const fn is_watched(&self) -> bool {
        self.folders.smtp.is_some() || self.folders.proxy_login.is_some()
    }

    /// Reads the files; says what has changed. Blocks for as long as the files take.
    pub fn refresh(&self) -> Changes {
        let found = Arc::new(self.read());
        let mut known = self.found.lock();
        let differs = |of_proxy: bool| {
            let part = |all: &References| -> BTreeMap<_, _> {
                all.clone()
                    .into_iter()
                    .filter(|(of, _)| is_of_proxy(&of.key) == of_proxy)
                    .collect()
            };
            part(&known) != part(&found)
        };
        let changes = Changes {
            smtp: differs(false),
            proxy: differs(true),
        };
        *known = found;
        changes
    }

    /// What the settings were when they were last read, under the name [`INSTALLATION`].
    pub fn references(&self) -> Arc<References> {
        Arc::clone(&self.found.lock())
    }

    fn read(&self) -> References {
        let Folders {
            smtp,
            proxy,
            proxy_login,
        } = &self.folders;
        let mut found = References::new();
        for key in smtp.iter().flat_map(|_| KEYS) {
            let value = smtp.as_ref().and_then(|folder| file("--smtp-dir", folder, key));
            found.extend(value.map(|value| (secret(INSTALLATION, key), Reference::Found(value))));
        }
        if let Some(url) = proxy {
            let value = Secret::new(url.clone().into_bytes());
            found.insert(secret(INSTALLATION, PROXY_URL), Reference::Found(value));
        }
        for (name, key) in proxy_login.iter().flat_map(|_| PROXY_LOGIN) {
            let value = proxy_login
                .as_ref()
                .and_then(|folder| file("--proxy-auth-dir", folder, name));
            // That it is not there must be told: the proxy would be asked without.
            let value = value.map_or(Reference::NoKey, Reference::Found);
            found.insert(secret(INSTALLATION, key), value);
        }
        found
    }
}

fn is_of_proxy(key: &str) -> bool {
    key == PROXY_URL || PROXY_LOGIN.iter().any(|(_, known)| *known == key)
}

fn file(flag: &str, folder: &Path, key: &str) -> Option<Secret<Vec<u8>>> {
    let mut value = Vec::new();
    let file = std::fs::File::open(folder.join(key));
    let read = file.and_then(|file| file.take(MAX_FILE + 1).read_to_end(&mut value));
    let value = Secret::new(value);
    match read {
        Ok(_) if value.expose().len() as u64 <= MAX_FILE => Some(value),
        Ok(_) => {
            tracing::warn!(flag, key, "a file of the folder is too long and is left out");
            None
        }
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Err(error) => {
            tracing::warn!(flag, key, %error, "a file of the folder cannot be read");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMTP: Changes = Changes {
        smtp: true,
        proxy: false,
    };
    const PROXY: Changes = Changes {
        smtp: false,
        proxy: true,
    };

    #[test]
    fn a_changed_file_is_noticed_and_a_missing_folder_holds_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let installation = Installation::new(Folders {
            smtp: Some(folder.path().join("smtp")),
            ..Folders::default()
        });
        assert!(!installation.refresh().any() && installation.references().is_empty());
        std::fs::create_dir(folder.path().join("smtp")).unwrap();
        std::fs::write(folder.path().join("smtp/host"), "a.example").unwrap();
        std::fs::write(folder.path().join("smtp/other"), "x").unwrap();
        assert_eq!(installation.refresh(), SMTP);
        assert_eq!(installation.references().len(), 1);
        assert!(!installation.refresh().any());
        std::fs::write(folder.path().join("smtp/host"), "b.example").unwrap();
        assert_eq!(installation.refresh(), SMTP);
    }

    #[test]
    fn a_login_for_the_proxy_that_is_not_there_is_told_and_a_changed_one_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let installation = Installation::new(Folders {
            proxy: Some("http://proxy.example:3128".to_owned()),
            proxy_login: Some(folder.path().to_owned()),
            ..Folders::default()
        });
        let found = |name: &str| {
            installation
                .references()
                .get(&secret(INSTALLATION, name))
                .cloned()
        };
        assert_eq!(installation.refresh(), PROXY);
        assert!(matches!(found(PROXY_URL), Some(Reference::Found(_))));
        for (name, key) in PROXY_LOGIN {
            assert_eq!(found(key), Some(Reference::NoKey));
            std::fs::write(folder.path().join(name), "x").unwrap();
            assert_eq!(installation.refresh(), PROXY);
            assert!(matches!(found(key), Some(Reference::Found(_))));
        }
        assert!(!installation.refresh().any());
    }
}
