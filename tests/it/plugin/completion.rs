//! `kubectl postrider` completed by kubectl itself.

use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::process::Command;

use super::plugin;
use crate::support::Cluster;

#[test]
fn kubectl_completes_words_by_the_script_that_the_plugin_prints() {
    let folder = tempfile::tempdir().unwrap();
    let own = env!("CARGO_BIN_EXE_kubectl-postrider");
    symlink(own, folder.path().join("kubectl-postrider")).unwrap();
    let script = folder.path().join("kubectl_complete-postrider");
    let printed = plugin(folder.path(), &["completion", "kubectl"]);
    std::fs::write(&script, printed.out).unwrap();
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", folder.path().display(), std::env::var("PATH").unwrap());
    for (words, expected) in [(&["re"][..], "replay\t"), (&["replay", "--si"], "--since\t")] {
        // What the shell's completion of kubectl calls.
        let completed = Command::new(Cluster::shared().bin().join("kubectl"))
            .args(["__complete", "postrider"])
            .args(words)
            .env("PATH", &path)
            .output()
            .unwrap();
        let told = String::from_utf8(completed.stdout).unwrap();
        assert!(
            told.lines().any(|line| line.starts_with(expected)),
            "{words:?}: {told}"
        );
    }
}
