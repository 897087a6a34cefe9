//! [`Parsers`]: where the body of a request becomes events.
//!
//! Parsing, and checking what was parsed against the project's schemas, is work, not waiting. A body of at most
//! [`INLINE`] bytes, as nearly all are, is parsed at once, unless a schema is large: going
//! elsewhere would cost more than the work. A longer one would keep the connections that share its thread waiting
//! for milliseconds, so it is parsed on a thread for such work, one for each processor at a time; others wait for
//! their turn. The body's share of memory goes with it, also when its client goes away meanwhile.

use std::panic::resume_unwind;
use std::sync::Arc;
use std::thread::available_parallelism;

use bytes::Bytes;
use http::HeaderMap;
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;

use super::body::Share;
use crate::api::v1alpha1::event_project::CloudEventsSubject;
use crate::domain::event::parse::{parse, places};
use crate::domain::event::refusal::{EventFaults, ParseError};
use crate::domain::event::reserved::refusals;
use crate::domain::event::{Draft, subject_as_user};
use crate::domain::type_rules::TypeRules;

/// Longest body that is parsed where it was read.
pub(super) const INLINE: usize = 64 * 1024;

/// Most work, as [`TypeRules::work`] measures it, that is done where the body was read.
const INLINE_WORK: usize = INLINE * 64;

/// What became of a body.
pub(super) struct Parsed {
    /// Its events.
    pub(super) drafts: Result<Vec<Draft>, ParseError>,
    /// How they break their schemas.
    pub(super) violations: EventFaults,
    /// The body's share of memory.
    pub(super) share: Share,
}

fn read(body: &Bytes, headers: &HeaderMap, rules: &TypeRules, share: Share) -> Parsed {
    let drafts = parse(body, headers).and_then(|mut drafts| {
        if rules.subject == CloudEventsSubject::UserId {
            drafts.iter_mut().for_each(subject_as_user);
        }
        let own = refusals(&drafts, places(body, headers));
        if own.total() == 0 {
            Ok(drafts)
        } else {
            Err(own.into())
        }
    });
    let violations = match &drafts {
        Ok(drafts) => rules.check(drafts, places(body, headers)),
        Err(_) => EventFaults::default(),
    };
    Parsed {
        drafts,
        violations,
        share,
    }
}

/// Turns for long bodies.
pub(super) struct Parsers(Arc<Semaphore>);

impl Default for Parsers {
    fn default() -> Self {
        let turns = available_parallelism().map_or(1, usize::from);
        Self(Arc::new(Semaphore::new(turns)))
    }
}

impl Parsers {
    /// Parses a body; `None` when the process is stopping.
    pub(super) async fn parse(
        &self,
        body: Bytes,
        headers: HeaderMap,
        rules: Arc<TypeRules>,
        share: Share,
    ) -> Option<Parsed> {
        if body.len() <= INLINE && rules.work(body.len()) <= INLINE_WORK {
            return Some(read(&body, &headers, &rules, share));
        }
        let turn = Arc::clone(&self.0).acquire_owned().await.ok()?;
        let work = spawn_blocking(move || {
            let _turn = turn;
            read(&body, &headers, &rules, share)
        });
        match work.await {
            Ok(parsed) => Some(parsed),
            Err(error) => match error.try_into_panic() {
                // As if it had been parsed here: the connection answers, and the log says more.
                Ok(panic) => resume_unwind(panic),
                Err(_) => None,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;
    use http::HeaderValue;
    use http::header::CONTENT_TYPE;

    use super::*;
    use crate::adapters::http::body::Budget;
    use crate::adapters::http::metrics::HttpMetrics;

    fn batch(events: usize) -> (Bytes, HeaderMap, Share) {
        let events =
            vec![r#"{"type":"a","data":{"text":"0123456789012345678901234567890123456789"}}"#; events];
        let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static("application/json"))]);
        let share = Share::empty(&Budget::new(usize::MAX, HttpMetrics::default()));
        (format!("[{}]", events.join(",")).into(), headers, share)
    }

    #[test]
    fn a_short_body_is_parsed_at_once() {
        let (body, headers, share) = batch(10);
        let parsed = Parsers::default()
            .parse(body, headers, Arc::default(), share)
            .now_or_never()
            .expect("no waiting")
            .unwrap();
        assert_eq!(parsed.drafts.unwrap().len(), 10);
    }

    #[tokio::test]
    async fn a_long_body_is_parsed_elsewhere_with_the_same_result() {
        let parsers = Parsers::default();
        let (body, headers, share) = batch(1_000);
        assert!(body.len() > INLINE);
        let work = parsers.parse(body.clone(), headers.clone(), Arc::default(), share);
        let drafts = work.await.unwrap().drafts.unwrap();
        let expected = parse(&body, &headers).unwrap();
        assert_eq!(format!("{drafts:?}"), format!("{expected:?}"));
        let broken = body.slice(..body.len() - 1);
        let (_, _, share) = batch(1);
        let refused = parsers
            .parse(broken, headers, Arc::default(), share)
            .await
            .unwrap();
        assert!(refused.drafts.is_err());
    }

    #[tokio::test]
    async fn long_bodies_wait_for_a_turn() {
        let parsers = Parsers(Arc::new(Semaphore::new(1)));
        let turn = Arc::clone(&parsers.0).acquire_owned().await.unwrap();
        let (body, headers, share) = batch(1_000);
        let mut waiting = std::pin::pin!(parsers.parse(body, headers, Arc::default(), share));
        assert!(waiting.as_mut().now_or_never().is_none());
        let (body, headers, share) = batch(1);
        assert!(
            parsers
                .parse(body, headers, Arc::default(), share)
                .now_or_never()
                .is_some(),
            "a short one does not wait"
        );
        drop(turn);
        assert!(waiting.await.unwrap().drafts.is_ok());
    }
}
