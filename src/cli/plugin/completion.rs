//! `completion`: what a shell reads to complete the plugin's words.
//!
//! A shell completes the words of `kubectl-postrider` with a script of its own. The words of `kubectl postrider` are
//! completed by kubectl, which runs `kubectl_complete-postrider` with them: that script asks the plugin (`complete`).

use clap::{Args, Command, CommandFactory as _, ValueEnum};
use clap_complete::{Shell, generate};

use super::{Plugin, Report};

/// The program's name, as a shell finds it.
const PROGRAM: &str = "kubectl-postrider";
/// What kubectl runs, from version 1.26 on.
const SCRIPT: &str = "#!/bin/sh\n\
    # kubectl 1.26 and later runs this to complete the words of `kubectl postrider`. Save it in a folder of PATH as\n\
    # kubectl_complete-postrider and make it executable.\n\
    exec kubectl-postrider complete -- \"$@\"\n";
/// Tells kubectl to add nothing.
const NOTHING: &str = ":4";
/// Tells kubectl to add the names of files.
const FILES: &str = ":0";

/// Arguments of `completion`.
#[derive(Debug, Args)]
#[command(after_help = "Exit code: 0 printed.\n\n\
    A shell's script completes the words of `kubectl-postrider`, which is the same program as `kubectl postrider`. For\n\
    `kubectl postrider` itself, save the script of `kubectl` as kubectl_complete-postrider in a folder of PATH, where\n\
    kubectl 1.26 and later finds it; your shell needs kubectl's own completion, too.\n\n\
    Examples:\n  \
    source <(kubectl postrider completion bash)\n  \
    kubectl postrider completion zsh > \"${fpath[1]}/_kubectl-postrider\"\n  \
    kubectl postrider completion fish > ~/.config/fish/completions/kubectl-postrider.fish\n  \
    kubectl postrider completion kubectl > ~/.local/bin/kubectl_complete-postrider\n  \
    chmod +x ~/.local/bin/kubectl_complete-postrider")]
pub(super) struct CompletionArgs {
    /// Who is to complete.
    #[arg(value_enum)]
    by: By,
}

/// Who completes words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum By {
    /// bash.
    Bash,
    /// zsh.
    Zsh,
    /// fish.
    Fish,
    /// PowerShell.
    Powershell,
    /// Elvish.
    Elvish,
    /// kubectl, for the words of `kubectl postrider`.
    Kubectl,
}

/// Prints the script.
pub(super) fn run(args: &CompletionArgs) -> Report {
    let mut report = Report::default();
    let shell = match args.by {
        By::Bash => Shell::Bash,
        By::Zsh => Shell::Zsh,
        By::Fish => Shell::Fish,
        By::Powershell => Shell::PowerShell,
        By::Elvish => Shell::Elvish,
        By::Kubectl => {
            report.out.extend_from_slice(SCRIPT.as_bytes());
            return report;
        }
    };
    generate(shell, &mut Plugin::command(), PROGRAM, &mut report.out);
    report
}

/// Arguments of `complete`.
#[derive(Debug, Args)]
pub(super) struct CompleteArgs {
    /// The words after `kubectl postrider`; the last one is to be completed.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    words: Vec<String>,
}

/// Prints what the last word can be, as kubectl reads it: a word a line, with its meaning after a tab, and last what
/// else there is to do.
pub(super) fn complete(args: &CompleteArgs) -> Report {
    let mut root = Plugin::command();
    root.build();
    let (last, before) = args
        .words
        .split_last()
        .map_or(("", &[][..]), |(last, before)| (last.as_str(), before));
    let mut report = Report::default();
    let (found, directive) = candidates(&root, before, last);
    for (word, meaning) in found {
        if word.starts_with(last) {
            match meaning.lines().next() {
                Some(meaning) => report.pair(&word, meaning),
                None => report.line(&word),
            }
        }
    }
    report.line(directive);
    report
}

type Candidates = (Vec<(String, String)>, &'static str);

fn candidates(root: &Command, before: &[String], last: &str) -> Candidates {
    let mut words = before.iter();
    let command = words.by_ref().find_map(|word| root.find_subcommand(word));
    let Some(command) = command else {
        let found = if last.starts_with('-') {
            flags(root)
        } else {
            commands(root)
        };
        return (found, NOTHING);
    };
    // `--flag=value` is one word; otherwise the word before it is the flag.
    if let Some((flag, _)) = last.split_once('=') {
        let (found, directive) = option(command, flag).map_or((Vec::new(), NOTHING), values);
        let found = found
            .into_iter()
            .map(|(word, meaning)| (format!("{flag}={word}"), meaning));
        return (found.collect(), directive);
    }
    if let Some(option) = before.last().and_then(|word| option(command, word)) {
        return values(option);
    }
    if last.starts_with('-') {
        return (flags(command), NOTHING);
    }
    let mut positionals = command.get_positionals();
    positionals.next().map_or((Vec::new(), NOTHING), values)
}

fn commands(command: &Command) -> Vec<(String, String)> {
    let shown = command.get_subcommands().filter(|command| !command.is_hide_set());
    shown
        .map(|command| (command.get_name().to_owned(), said(command.get_about())))
        .collect()
}

fn flags(command: &Command) -> Vec<(String, String)> {
    let shown = command.get_arguments().filter(|argument| !argument.is_hide_set());
    shown
        .filter_map(|argument| Some((format!("--{}", argument.get_long()?), said(argument.get_help()))))
        .collect()
}

/// The option that a word is, when its value is the next word.
fn option<'a>(command: &'a Command, word: &str) -> Option<&'a clap::Arg> {
    let is_it = |argument: &&clap::Arg| {
        let long = word
            .strip_prefix("--")
            .is_some_and(|name| argument.get_long() == Some(name));
        let short = word.strip_prefix('-').and_then(|name| name.parse().ok());
        long || short.is_some_and(|short| argument.get_short() == Some(short))
    };
    let mut options = command
        .get_arguments()
        .filter(|argument| argument.get_action().takes_values());
    options.find(is_it)
}

/// What the value of an argument can be; files when it is one.
fn values(argument: &clap::Arg) -> Candidates {
    let found = argument
        .get_possible_values()
        .into_iter()
        .filter(|value| !value.is_hide_set());
    let found = found.map(|value| (value.get_name().to_owned(), said(value.get_help())));
    let is_file = argument.get_value_parser().type_id() == clap::builder::ValueParser::path_buf().type_id();
    (found.collect(), if is_file { FILES } else { NOTHING })
}

fn said(text: Option<&clap::builder::StyledStr>) -> String {
    text.map(ToString::to_string).unwrap_or_default()
}

impl Report {
    /// A word with its meaning, apart by a tab.
    fn pair(&mut self, word: &str, meaning: &str) {
        self.line(word);
        self.out.pop();
        self.out.push(b'\t');
        self.line(meaning);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shell_is_told_every_command() {
        for by in [By::Bash, By::Zsh, By::Fish, By::Powershell, By::Elvish] {
            let report = run(&CompletionArgs { by });
            let text = String::from_utf8(report.out).unwrap();
            for (command, _) in commands(&Plugin::command()) {
                assert!(text.contains(&command), "{by:?} lacks {command}");
            }
        }
    }

    /// What kubectl is answered for these words, without meanings.
    fn answered(words: &[&str]) -> Vec<String> {
        let words = words.iter().map(|word| (*word).to_owned()).collect();
        let text = String::from_utf8(complete(&CompleteArgs { words }).out).unwrap();
        text.lines()
            .map(|line| line.split('\t').next().unwrap().to_owned())
            .collect()
    }

    #[test]
    fn kubectl_is_told_commands_flags_values_and_when_a_file_is_wanted() {
        let all: Vec<_> = commands(&Plugin::command())
            .into_iter()
            .map(|(name, _)| name)
            .collect();
        let told = answered(&[""]);
        assert!(
            all.iter().all(|name| told.contains(name)) && !told.contains(&"complete".to_owned()),
            "{told:?}"
        );
        assert_eq!(answered(&["re"]), ["render", "replay", ":4"]);
        assert_eq!(
            answered(&["replay", "alerts", "--s"]),
            ["--since", "--server", "--service-account", ":4"]
        );
        for words in [
            &["deliveries", "alerts", "--state", "Ex"][..],
            &["deliveries", "--state=Ex"],
        ] {
            let told = answered(words);
            assert!(told[0].ends_with("Exhausted") && told.len() == 2, "{told:?}");
        }
        assert_eq!(answered(&["status", "-o", ""]), ["table", "json", "yaml", ":4"]);
        assert_eq!(answered(&["completion", "k"]), ["kubectl", ":4"]);
        for words in [&["lint", ""][..], &["publish", "acme", "--file", "a"]] {
            assert_eq!(answered(words), [":0"], "{words:?}");
        }
        assert_eq!(answered(&["show", ""]), [":4"]);
        assert_eq!(answered(&[]).last().unwrap(), ":4");
    }

    #[test]
    fn a_word_is_told_with_its_meaning() {
        let words = vec!["canc".to_owned()];
        let text = String::from_utf8(complete(&CompleteArgs { words }).out).unwrap();
        assert_eq!(text, "cancel\tDrop a delivery that waits\n:4\n");
    }
}
