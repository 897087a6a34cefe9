//! Many destinations that are applied at once, while Postrider runs.

use std::time::{Duration, Instant};

use super::FANOUT_IN_FLIGHT;
use crate::process;
use crate::report::{Row, Series, Unit};
use crate::stage::Stage;
use crate::system::Setup;

/// Destinations.
const MANY: usize = 1000;
/// Longest wait for all of them.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long after the last apply all are ready, and what they take in memory.
pub(super) fn scale(stage: &mut Stage) {
    let one = Setup::uniform("scale-one", 1, FANOUT_IN_FLIGHT);
    let mut more = Setup::uniform("scale", MANY, FANOUT_IN_FLIGHT);
    more.divide();
    let (mut took, mut resident) = (Series::default(), Series::default());
    stage.ours(1, &one, |stage, running| {
        stage.apply(&more);
        let applied = Instant::now();
        let wanted = MANY + one.destinations.len();
        let is_ready = |stage: &Stage| {
            let product = stage.product.as_ref();
            product.is_some_and(|product| product.ready() >= wanted)
        };
        while !is_ready(stage) {
            if applied.elapsed() > PATIENCE {
                stage.note("scale: not all destinations became ready");
                return;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        took.0.push(applied.elapsed().as_secs_f64());
        resident.0.push(process::resident(running.pid).0);
    });
    let in_time = took.median().map(|seconds| seconds <= 5.0);
    let is_small = resident.median().map(|size| size <= 60.0);
    stage.rows.extend([
        Row::alone(
            "1,000 destinations applied at once: all Ready after the last apply",
            &took,
            &Unit::SECONDS,
        )
        .bar("≤ 5 s", in_time),
        Row::alone("… memory then", &resident, &Unit::MB).bar("≤ 60 MB", is_small),
    ]);
}
