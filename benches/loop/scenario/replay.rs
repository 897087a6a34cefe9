//! Many deliveries again, asked for by the delivery API.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde_json::json;

use super::CONNECTIONS;
use crate::loader::Load;
use crate::product;
use crate::report::{Row, Series, Unit};
use crate::stage::Stage;
use crate::system::{Running, Setup};

/// Most rounds: each delivers everything twice.
const ROUNDS: usize = 3;
/// Longest time for asking.
const PATIENCE: Duration = Duration::from_secs(120);

/// Events are delivered, and then all of them again.
pub(super) fn replay(stage: &mut Stage) {
    let setup = Setup::uniform("replay", 1, CONNECTIONS);
    let count = stage.sized(100_000, 5_000);
    let (mut first, mut again, mut whole) = (Series::default(), Series::default(), Series::default());
    stage.ours(stage.round_count().min(ROUNDS), &setup, |stage, running| {
        let mut load = Load::closed(running.target, &running.path, count);
        (load.batch, load.connections, load.limit) = (100, 8, 60);
        stage.warm_up(running, "replay", &load);
        let since = Timestamp::now();
        first
            .0
            .push(stage.flow_without_warm_up(running, "replay", &load).rate);
        stage.reset();
        let start = Instant::now();
        let made = ask(stage, running, &setup, since);
        let arrived = stage.drain("replay", made);
        let took = start.elapsed().as_secs_f64();
        if made != count {
            stage.note(&format!("replay: {made} of {count} deliveries were made again"));
        }
        eprintln!("  {arrived} deliveries again in {took:.2} s");
        whole.0.push(took);
        again.0.push(arrived as f64 / took);
    });
    let all = Unit::COUNT.write(count as f64);
    stage.rows.extend([
        Row::alone(
            &format!("Replay of {all} deliveries: until all have arrived again"),
            &whole,
            &Unit::SECONDS,
        ),
        Row::beside(
            "… deliveries, from the first request on",
            &again,
            &first,
            "their first delivery",
            &Unit::RATE,
        ),
    ]);
}

/// Asks until there is no more; answers how many deliveries were made.
fn ask(stage: &mut Stage, running: &Running, setup: &Setup, since: Timestamp) -> u64 {
    let (Some(product), Some(destination)) = (&mut stage.product, setup.destinations.first()) else {
        return 0;
    };
    let token = product.oncall();
    let start = Instant::now();
    let (mut made, mut body) = (0, json!({"since": since.to_string()}));
    loop {
        let answer = product::ask(running, &token, destination, "POST", ":replay", &body.to_string());
        made += answer.body["replayed"].as_u64().unwrap_or(0);
        let next = &answer.body["next"];
        if answer.status != "202" || start.elapsed() > PATIENCE {
            stage.note(&format!("replay: answered {}: {}", answer.status, answer.body));
            return made;
        }
        if next.is_null() {
            return made;
        }
        body["cursor"] = next.clone();
    }
}
