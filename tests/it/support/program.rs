//! [`Program`]: a program of `tools/verifiers/` that is not ours, which says where it listens and answers questions.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde_json::Value;

use super::{repository_file, verifiers};

/// A running program; killed when it is dropped.
pub(crate) struct Program {
    child: Child,
    input: ChildStdin,
    lines: BufReader<ChildStdout>,
    /// The first thing it said.
    pub(crate) facts: Value,
}

impl Program {
    /// Starts a program of Node with settings, and waits for what it says first.
    pub(crate) fn node(name: &str, settings: &Value) -> Self {
        let mut node = Command::new("node");
        node.arg(repository_file("tools/verifiers").join(name));
        Self::start(node, name, settings)
    }

    /// Starts a program of Go with settings, and waits for what it says first.
    pub(crate) fn go(name: &str, settings: &Value) -> Self {
        Self::start(Command::new(verifiers().join(name)), name, settings)
    }

    fn start(mut command: Command, name: &str, settings: &Value) -> Self {
        let mut child = command
            .arg(settings.to_string())
            .env("NODE_PATH", verifiers().join("node_modules"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        let mut program = Self {
            input: child.stdin.take().unwrap(),
            lines: BufReader::new(child.stdout.take().unwrap()),
            child,
            facts: Value::Null,
        };
        program.facts = program.line();
        program
    }

    /// One of the facts, as text.
    #[track_caller]
    pub(crate) fn fact(&self, name: &str) -> &str {
        self.facts[name].as_str().expect("the program says so")
    }

    /// Says a line to it.
    pub(crate) fn tell(&mut self, line: &str) {
        writeln!(self.input, "{line}").unwrap();
        self.input.flush().unwrap();
    }

    /// Says a line to it and returns its answer.
    pub(crate) fn ask(&mut self, line: &str) -> Value {
        self.tell(line);
        self.line()
    }

    /// The next thing it says; the harness's time limit bounds the wait.
    fn line(&mut self) -> Value {
        let mut line = String::new();
        let length = self.lines.read_line(&mut line).unwrap();
        assert!(length > 0, "the program ended: {:?}", self.child.wait());
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{line}: {error}"))
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
