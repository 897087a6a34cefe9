//! `completion`: what a shell reads to complete the plugin's words.

use clap::{Args, CommandFactory as _};
use clap_complete::{Shell, generate};

use super::{Plugin, Report};

/// The program's name, as a shell finds it.
const PROGRAM: &str = "kubectl-postrider";

/// Arguments of `completion`.
#[derive(Debug, Args)]
#[command(after_help = "Exit code: 0 printed.\n\n\
    It completes the words of `kubectl-postrider`, which is the same program as `kubectl postrider`.\n\n\
    Examples:\n  \
    source <(kubectl postrider completion bash)\n  \
    kubectl postrider completion zsh > \"${fpath[1]}/_kubectl-postrider\"\n  \
    kubectl postrider completion fish > ~/.config/fish/completions/kubectl-postrider.fish")]
pub(super) struct CompletionArgs {
    /// Shell that is to complete.
    #[arg(value_enum)]
    shell: Shell,
}

/// Prints the script.
pub(super) fn run(args: &CompletionArgs) -> Report {
    let mut report = Report::default();
    generate(args.shell, &mut Plugin::command(), PROGRAM, &mut report.out);
    report
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shell_is_told_every_command() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish, Shell::PowerShell] {
            let report = run(&CompletionArgs { shell });
            let text = String::from_utf8(report.out).unwrap();
            for command in Plugin::command().get_subcommands() {
                assert!(
                    text.contains(command.get_name()),
                    "{shell} lacks {}",
                    command.get_name()
                );
            }
        }
    }
}
