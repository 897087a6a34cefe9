//! Processes of the benchmark: how they are started, spoken to and looked at.
//!
//! A helper is this program again with a subcommand. It says one line when it is ready and then answers a line
//! with a line; when its standard input ends it ends, so none survives a parent that was killed.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

/// A started helper; killed on drop.
pub(crate) struct Helper {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    /// What it said when it was ready.
    pub(crate) greeting: String,
}

impl Helper {
    /// Starts this program with other arguments and waits for its first line.
    pub(crate) fn start<S: AsRef<OsStr>>(args: &[S]) -> Self {
        let mut child = this_program(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("this program starts again");
        let input = child.stdin.take().expect("standard input is piped");
        let output = BufReader::new(child.stdout.take().expect("standard output is piped"));
        let mut helper = Self {
            child,
            input,
            output,
            greeting: String::new(),
        };
        helper.greeting = helper.line();
        helper
    }

    /// Sends a line and waits for the answer.
    pub(crate) fn ask(&mut self, line: &str) -> String {
        writeln!(self.input, "{line}").expect("the helper lives");
        self.line()
    }

    /// Process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        let length = self.output.read_line(&mut line).expect("the helper speaks UTF-8");
        assert!(length > 0, "a helper ended; it said why on standard error");
        line.trim_end().to_owned()
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Runs this program with other arguments and one more variable to its end and reads the JSON it prints.
pub(crate) fn run_to_end<T: serde::de::DeserializeOwned, S: AsRef<OsStr>>(
    args: &[S],
    secret: (&str, &str),
) -> T {
    let output = this_program(args)
        .env(secret.0, secret.1)
        .stderr(Stdio::inherit())
        .output()
        .expect("this program starts again");
    let text = String::from_utf8_lossy(&output.stdout);
    serde_json::from_str(&text)
        .unwrap_or_else(|error| panic!("a helper ended with {}: {error}: {text}", output.status))
}

fn this_program<S: AsRef<OsStr>>(args: &[S]) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("this program has a path"));
    command.args(args);
    command
}

/// The helper's side: greets, then answers each line of standard input on a thread; exits when it ends.
pub(crate) fn answer_lines(greeting: &str, mut answer: impl FnMut(&str) -> String + Send + 'static) {
    println!("{greeting}");
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            println!("{}", answer(&line));
        }
        std::process::exit(0);
    });
}

/// Processor time of a process so far, all its threads, user and system.
pub(crate) fn cpu(pid: u32) -> Duration {
    /// The kernel's unit in `/proc/PID/stat`, the same on every Linux platform.
    const TICKS_PER_SECOND: u64 = 100;
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("the process lives");
    // The second field, the name, may hold anything; fields are counted from its closing parenthesis.
    let rest = stat.rsplit_once(')').expect("a name in parentheses").1;
    let ticks: u64 = rest
        .split_whitespace()
        .skip(11)
        .take(2)
        .filter_map(|field| field.parse::<u64>().ok())
        .sum();
    Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND)
}

/// Resident memory of a process in megabytes of 10^6 bytes: all of it, and its highest so far.
pub(crate) fn resident(pid: u32) -> (f64, f64) {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the process lives");
    let field = |name: &str| {
        let line = status
            .lines()
            .find(|line| line.starts_with(name))
            .unwrap_or_default();
        let kibibytes: f64 = line
            .split_whitespace()
            .nth(1)
            .and_then(|word| word.parse().ok())
            .unwrap_or(0.0);
        kibibytes * 1024.0 / 1e6
    };
    (field("VmRSS:"), field("VmHWM:"))
}
