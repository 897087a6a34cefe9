//! Mails per second, beside a bare SMTP client that says the same message to the same sink over as many connections.

use postrider::adapters::smtp::MAX_CONNECTIONS;
use serde_json::json;

use super::CONNECTIONS;
use crate::loader::Load;
use crate::process;
use crate::report::{Row, Series, Unit};
use crate::smtp::Mailed;
use crate::stage::{Flows, Stage};
use crate::system::Setup;

/// The receiver counts mails in this group.
const GROUP: &str = "mail";

/// A mail for each event, in default words.
pub(super) fn mail(stage: &mut Stage) {
    let mut setup = Setup::uniform(GROUP, 1, CONNECTIONS);
    setup.objects.push(json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "sink", "namespace": crate::product::NAMESPACE},
        "stringData": {
            "host": stage.post.ip().to_string(),
            "port": stage.post.port().to_string(),
            "security": "None",
            "from": "Postrider <postrider@example.com>",
        },
    }));
    for destination in &mut setup.destinations {
        destination.spec = json!({
            "webhook": null,
            "email": {"to": ["Ops <ops@example.com>"], "smtpRef": {"name": "sink"}},
        });
    }
    let count = stage.sized(10_000, 1_000);
    let (mut ours, mut bare) = (Flows::default(), Series::default());
    let mut round = 0;
    stage.ours(stage.round_count(), &setup, |stage, running| {
        round += 1;
        // Published at once, so that the mails have the machine for themselves.
        let mut load = Load::closed(running.target, &running.path, count);
        (load.batch, load.connections) = (100, 8);
        let flow = stage.flow(running, GROUP, &load);
        eprintln!("  round {round}, Postrider: {:.0} mails/s", flow.rate);
        ours.0.push(flow);
        let rate = bare_client(stage, count);
        eprintln!("  round {round}, bare: {rate:.0} mails/s");
        bare.0.push(rate);
    });
    let rate = ours.series(|flow| flow.rate);
    stage.rows.push(Row::new("Mails", &rate, &bare, &Unit::RATE));
    let cpu = ours.series(|flow| flow.cpu);
    stage.rows.push(Row::alone("CPU per mail", &cpu, &Unit::CPU));
}

/// Says Postrider's last mail again and again; mails per second from the first to the last.
fn bare_client(stage: &mut Stage, count: u64) -> f64 {
    let message = stage.folder().join("message.eml");
    std::fs::write(&message, stage.last_mail()).expect("the folder can be written");
    stage.reset();
    let arguments = [
        "mailer".to_owned(),
        "--server".to_owned(),
        stage.post.to_string(),
        "--message".to_owned(),
        message.display().to_string(),
        "--count".to_owned(),
        count.to_string(),
        "--connections".to_owned(),
        MAX_CONNECTIONS.to_string(),
    ];
    let mailed: Mailed = process::run_to_end(&arguments, ("", ""));
    let arrived = stage.drain(GROUP, mailed.taken);
    if mailed.taken < count {
        let faults = &mailed.faults;
        stage.note(&format!(
            "mail: the bare client sent {} of {count} mails: {faults:?}",
            mailed.taken
        ));
    }
    arrived as f64 / stage.stats(GROUP).seconds.max(1e-9)
}
