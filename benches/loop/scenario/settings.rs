//! What settings of a destination cost: the closed loop with them, beside the plain one of the same process.
//!
//! Two destinations want a type each. The loops take turns, the other one first in every other round, so that neither
//! always has the longer file.

use serde_json::{Value, json};

use super::CONNECTIONS;
use crate::loader::Load;
use crate::report::{Row, Unit};
use crate::stage::{Flows, Stage};
use crate::system::{Destination, Setup};

/// Different values of `data.key`.
const KEYS: u64 = 1000;

/// A filter, a template of the body, and an HMAC over time and body.
pub(super) fn dressed(stage: &mut Stage) {
    let spec = json!({
        "filter": "event.type.startsWith('bench.') && event.data.sent > 1000 \
            && (!has(event.data.plan) || event.data.plan != 'test')",
        "webhook": {
            "payload": {"template": {
                "title": "{{ $.event.type }} in {{ $.project.name }}",
                "when": "{{ $.event.timestamp }}",
                "details": "{{ $.event.data }}",
                "trigger": "{{ $.event.data.trigger | default('none') }}",
            }},
            "signing": {
                "scheme": "Hmac",
                "header": "X-Bench-Signature",
                "prefix": "v0=",
                "signedContent": "v0:{{ $.timestamp }}:{{ $.body }}",
            },
        },
    });
    let [plain, dressed] = turns(stage, "dressed", spec, 0);
    let (rate, with) = (plain.series(|flow| flow.rate), dressed.series(|flow| flow.rate));
    let share = with.ratio(&rate);
    let (cpu, cpu_with) = (plain.series(|flow| flow.cpu), dressed.series(|flow| flow.cpu));
    stage.rows.extend([
        Row::alone(
            "Plain closed loop, beside the next: deliveries",
            &rate,
            &Unit::RATE,
        ),
        Row::beside(
            "… with template, filter and HMAC",
            &with,
            &rate,
            "plain",
            &Unit::RATE,
        )
        .bar("≥ 70 % of plain", share.map(|share| share >= 0.70)),
        Row::beside(
            "… CPU per delivery with them",
            &cpu_with,
            &cpu,
            "plain",
            &Unit::CPU,
        ),
    ]);
}

/// In order for each key.
pub(super) fn ordered(stage: &mut Stage) {
    let spec = json!({"delivery": {"ordering": "Fifo", "orderingKey": "$.event.data.key"}});
    let [plain, ordered] = turns(stage, "ordered", spec, KEYS);
    let (rate, with) = (plain.series(|flow| flow.rate), ordered.series(|flow| flow.rate));
    stage.rows.extend([
        Row::alone(
            "Closed loop, events of 1,000 keys, unordered: deliveries",
            &rate,
            &Unit::RATE,
        ),
        Row::beside(
            "… in order for each key (`Fifo`)",
            &with,
            &rate,
            "unordered",
            &Unit::RATE,
        ),
    ]);
}

/// The closed loop to a plain destination and to one with these settings.
fn turns(stage: &mut Stage, project: &'static str, spec: Value, keys: u64) -> [Flows; 2] {
    let groups = [format!("{project}-plain"), format!("{project}-with")];
    let [plain, with] = [0, 1].map(|which| {
        let path = format!("/{}/0", groups[which]);
        Destination::at(&path, &format!("bench.event.{which:04}"), CONNECTIONS)
    });
    let setup = Setup::of(project, vec![plain, with.with(spec)]);
    let count = stage.sized(60_000, 3_000);
    let mut flows = [Flows::default(), Flows::default()];
    let mut round = 0;
    stage.ours(stage.round_count(), &setup, |stage, running| {
        let order = if round % 2 == 0 { [0, 1] } else { [1, 0] };
        round += 1;
        for which in order {
            let mut load = Load::closed(running.target, &running.path, count);
            load.event_type.clone_from(&setup.destinations[which].events);
            load.keys = keys;
            let flow = stage.flow(running, &groups[which], &load);
            eprintln!("  round {round}, {}: {}", groups[which], flow.written());
            flows[which].0.push(flow);
        }
    });
    flows
}
