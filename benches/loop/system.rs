//! The two systems under test, started the same way and seen the same way.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use serde_json::Value;

use crate::process::Helper;
use crate::product::Process;

/// Which of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Kind {
    /// The product.
    Postrider,
    /// The baseline.
    Bare,
}

impl Kind {
    /// Its name in messages.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Postrider => "Postrider",
            Self::Bare => "bare",
        }
    }
}

/// What a scenario needs to exist before it starts.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    /// Name of the project.
    pub(crate) project: &'static str,
    /// Its destinations.
    pub(crate) destinations: Vec<Destination>,
    /// Further objects.
    pub(crate) objects: Vec<Value>,
}

/// One destination.
#[derive(Clone, Debug)]
pub(crate) struct Destination {
    /// Name of the object.
    pub(crate) name: String,
    /// Path at the receiver: its first segment is the group that the receiver counts in.
    pub(crate) path: String,
    /// The event type it wants, or `*`.
    pub(crate) events: String,
    /// Most requests at once.
    pub(crate) in_flight: usize,
    /// Keeps everything, sends nothing.
    pub(crate) suspend: bool,
    /// What its spec has beside that, as a merge patch: `null` takes a member away.
    pub(crate) spec: Value,
}

impl Destination {
    /// A plain destination at that path, named after it.
    pub(crate) fn at(path: &str, events: &str, in_flight: usize) -> Self {
        Self {
            name: path.trim_matches('/').replace('/', "-"),
            path: path.to_owned(),
            events: events.to_owned(),
            in_flight,
            suspend: false,
            spec: Value::Null,
        }
    }

    /// The same with something of its own in its spec.
    #[must_use]
    pub(crate) fn with(self, spec: Value) -> Self {
        Self { spec, ..self }
    }
}

impl Setup {
    /// Destinations that want every event, with paths `/PROJECT/0`, `/PROJECT/1`, ….
    pub(crate) fn uniform(project: &'static str, destinations: usize, in_flight: usize) -> Self {
        let destination = |index| Destination::at(&format!("/{project}/{index}"), "*", in_flight);
        Self::of(project, (0..destinations).map(destination).collect())
    }

    /// Destinations, and nothing else beside their project.
    pub(crate) fn of(project: &'static str, destinations: Vec<Destination>) -> Self {
        Self {
            project,
            destinations,
            objects: Vec::new(),
        }
    }

    /// Gives each destination a type of its own: `bench.event.0000`, `bench.event.0001`, ….
    pub(crate) fn divide(&mut self) {
        for (index, destination) in self.destinations.iter_mut().enumerate() {
            destination.events = format!("bench.event.{index:04}");
        }
    }
}

/// A system that runs and accepts events.
pub(crate) struct Running {
    /// Where it listens.
    pub(crate) target: SocketAddr,
    /// Where events go.
    pub(crate) path: String,
    /// The bearer token.
    pub(crate) token: String,
    /// Process id.
    pub(crate) pid: u32,
    /// Ends it when dropped.
    _process: Box<dyn std::any::Any>,
}

impl Running {
    /// A started Postrider.
    pub(crate) fn postrider(process: Process, path: String, token: String) -> Self {
        Self {
            target: process.target,
            path,
            token,
            pid: process.pid(),
            _process: Box::new(process),
        }
    }

    /// Starts the baseline.
    pub(crate) fn bare(setup: &Setup, receiver: SocketAddr, envelope: usize, data: &Path) -> Self {
        let in_flight = setup
            .destinations
            .iter()
            .map(|destination| destination.in_flight)
            .max()
            .unwrap_or(1);
        let log = data.join("bare.log").display().to_string();
        let mut arguments = vec!["bare".to_owned(), "--receiver".to_owned(), receiver.to_string()];
        arguments.extend([
            "--in-flight".to_owned(),
            in_flight.to_string(),
            "--log".to_owned(),
            log,
        ]);
        arguments.extend(["--envelope".to_owned(), envelope.to_string()]);
        for destination in &setup.destinations {
            arguments.extend(["--path".to_owned(), destination.path.clone()]);
        }
        let helper = Helper::start(&arguments);
        let target = helper
            .greeting
            .parse()
            .unwrap_or_else(|_| panic!("not an address: {}", helper.greeting));
        Self {
            target,
            // As long as the product's, so that requests have the same length.
            path: format!(
                "/v1/namespaces/{}/projects/{}/events",
                crate::product::NAMESPACE,
                setup.project
            ),
            token: "pr_0123456789abcdef0123456789abcdef0123456789a".to_owned(),
            pid: helper.pid(),
            _process: Box::new(helper),
        }
    }
}

/// Where the receiver listens for requests and for mails, from its greeting.
pub(crate) fn receiver_addresses(helper: &Helper) -> [SocketAddr; 2] {
    let ports: Vec<u16> = helper.greeting.split(' ').flat_map(str::parse).collect();
    let [requests, mails] = ports[..] else {
        panic!("not two ports: {}", helper.greeting)
    };
    [requests, mails].map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
}
