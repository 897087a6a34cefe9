//! Lanes that want no two events with the same key within a time.

use std::sync::Arc;

use postrider::domain::id::EventId;
use postrider::engine::queue::asked::Replay;
use postrider::engine::queue::{Enqueued, Queue, QueueError};

use crate::queue::{at, drain, event, finish, keyed, lane, publish, take};

conformance!(
    a_key_counts_for_its_window,
    a_key_counts_in_its_own_lane,
    the_second_of_a_batch_is_left_out,
    of_publishers_at_once_one_is_first,
    a_window_that_was_changed_holds_from_then_on,
    an_event_that_is_a_duplicate_or_refused_leaves_no_key,
    a_clock_that_was_ahead_leaves_out_nothing,
    what_was_left_out_never_went_there,
    a_replay_asks_for_no_key,
    a_lane_that_is_dropped_forgets,
);

fn left_out(places: &[usize]) -> Enqueued {
    Enqueued::Suppressed(places.into())
}

async fn a_key_counts_for_its_window(queue: Arc<dyn Queue>) {
    let (first, left_out) = (Enqueued::Accepted, left_out(&[0]));
    for (millis, answer) in [
        (0, &first),
        (999, &left_out),
        (1_000, &first),
        (1_999, &left_out),
        (9_000, &first),
    ] {
        let new = keyed(&format!("e{millis}"), millis, &["a"], 1, 1_000);
        assert_eq!(publish(&*queue, new).await.as_ref(), Ok(answer), "{millis}");
    }
    assert_eq!(queue.depth(&lane("a")).pending, 3);
    assert_eq!(drain(&*queue, "a", at(9_000)).await, ["e0", "e1000", "e9000"]);
    // Nor does what was delivered make room for the next.
    let new = keyed("late", 9_999, &["a"], 1, 1_000);
    assert_eq!(publish(&*queue, new).await, Ok(left_out));
}

async fn a_key_counts_in_its_own_lane(queue: Arc<dyn Queue>) {
    publish(&*queue, keyed("one", 0, &["a"], 1, 1_000)).await.unwrap();
    let both = publish(&*queue, keyed("both", 1, &["b", "a"], 1, 1_000)).await;
    assert_eq!(both, Ok(left_out(&[1])));
    let other = publish(&*queue, keyed("other", 1, &["b", "a"], 2, 1_000)).await;
    assert_eq!(other, Ok(Enqueued::Accepted));
    let plain = publish(&*queue, event("plain", 2, &["a", "b"])).await;
    assert_eq!(
        plain,
        Ok(Enqueued::Accepted),
        "an event without a key is like no other"
    );
    assert_eq!(drain(&*queue, "a", at(10)).await, ["one", "other", "plain"]);
    assert_eq!(drain(&*queue, "b", at(10)).await, ["both", "other", "plain"]);
}

async fn the_second_of_a_batch_is_left_out(queue: Arc<dyn Queue>) {
    let batch = ["1", "2", "3"].map(|id| keyed(id, 0, &["a", "b"], 1, 1_000));
    assert_eq!(
        queue.enqueue(batch.into()).await.unwrap(),
        [Enqueued::Accepted, left_out(&[0, 1]), left_out(&[0, 1])]
    );
    assert_eq!(drain(&*queue, "a", at(10)).await, ["1"]);
}

async fn of_publishers_at_once_one_is_first(queue: Arc<dyn Queue>) {
    for round in 0..20 {
        let racing = (0..8).map(|n| {
            let queue = Arc::clone(&queue);
            // Those who are first to store are not always those who were accepted first.
            let new = keyed(&format!("{round}-{n}"), 10 - n, &["a"], round, 1_000);
            async move { publish(&*queue, new).await.unwrap() }
        });
        let answers = futures::future::join_all(racing).await;
        let first = answers.iter().filter(|answer| **answer == Enqueued::Accepted);
        assert_eq!(first.count(), 1, "{answers:?}");
    }
    assert_eq!(queue.depth(&lane("a")).pending, 20);
}

async fn a_window_that_was_changed_holds_from_then_on(queue: Arc<dyn Queue>) {
    publish(&*queue, keyed("1", 0, &["a"], 1, 10_000)).await.unwrap();
    let shorter = publish(&*queue, keyed("2", 2_000, &["a"], 1, 1_000)).await;
    assert_eq!(shorter, Ok(Enqueued::Accepted));
    let still = publish(&*queue, keyed("3", 2_999, &["a"], 1, 10_000)).await;
    assert_eq!(still, Ok(left_out(&[0])));
    let longer = publish(&*queue, keyed("4", 3_000, &["a"], 1, 10_000)).await;
    assert_eq!(longer, Ok(Enqueued::Accepted), "a window that ended stays ended");
    let from_then_on = publish(&*queue, keyed("5", 12_999, &["a"], 1, 10_000)).await;
    assert_eq!(from_then_on, Ok(left_out(&[0])));
}

async fn an_event_that_is_a_duplicate_or_refused_leaves_no_key(queue: Arc<dyn Queue>) {
    publish(&*queue, event("1", 0, &["b"])).await.unwrap();
    let duplicate = publish(&*queue, keyed("1", 1, &["a"], 1, 1_000)).await;
    assert_eq!(duplicate, Ok(Enqueued::Duplicate));
    let over = (0..1_001).map(|n| keyed(&format!("over-{n}"), 2, &["a"], 1 + n, 1_000));
    let refused = queue.enqueue(over.collect()).await;
    assert!(
        matches!(refused, Err(QueueError::ProjectFull { .. })),
        "{refused:?}"
    );
    let first = publish(&*queue, keyed("2", 3, &["a"], 1, 1_000)).await;
    assert_eq!(first, Ok(Enqueued::Accepted));
}

async fn a_clock_that_was_ahead_leaves_out_nothing(queue: Arc<dyn Queue>) {
    publish(&*queue, keyed("ahead", 90_000_000, &["a"], 1, 1_000))
        .await
        .unwrap();
    let after = publish(&*queue, keyed("after", 0, &["a"], 1, 1_000)).await;
    assert_eq!(after, Ok(Enqueued::Accepted));
    let next = publish(&*queue, keyed("next", 1, &["a"], 1, 1_000)).await;
    assert_eq!(next, Ok(left_out(&[0])));
}

async fn what_was_left_out_never_went_there(queue: Arc<dyn Queue>) {
    for id in ["1", "2"] {
        publish(&*queue, keyed(id, 0, &["a"], 1, 1_000)).await.unwrap();
    }
    let id = EventId::parse("2").unwrap();
    assert!(queue.find(&lane("a"), &id, None).await.unwrap().is_none());
    let again = Replay::Accepted {
        since: at(0),
        until: at(9),
        event_type: None,
        from: 0,
    };
    finish(&*queue, take(&*queue, 10, 9).await).await;
    let replayed = queue.replay(&lane("a"), again, at(10)).await.unwrap();
    assert_eq!(replayed.made, 1);
    assert_eq!(
        publish(&*queue, keyed("2", 5_000, &["a"], 1, 1_000)).await,
        Ok(Enqueued::Duplicate)
    );
}

async fn a_replay_asks_for_no_key(queue: Arc<dyn Queue>) {
    publish(&*queue, keyed("1", 0, &["a"], 1, 1_000)).await.unwrap();
    assert_eq!(drain(&*queue, "a", at(10)).await, ["1"]);
    let again = Replay::Events(vec![(1, EventId::parse("1").unwrap())]);
    queue.replay(&lane("a"), again, at(20)).await.unwrap();
    assert_eq!(drain(&*queue, "a", at(20)).await, ["1"]);
    let after = publish(&*queue, keyed("2", 1_000, &["a"], 1, 1_000)).await;
    assert_eq!(after, Ok(Enqueued::Accepted), "nor does it store one");
}

async fn a_lane_that_is_dropped_forgets(queue: Arc<dyn Queue>) {
    publish(&*queue, keyed("1", 0, &["a", "b"], 1, 1_000))
        .await
        .unwrap();
    assert_eq!(drain(&*queue, "a", at(10)).await, ["1"]);
    assert_eq!(queue.drop_lane(&lane("a")).await.unwrap(), 0);
    let again = publish(&*queue, keyed("2", 1, &["a", "b"], 1, 1_000)).await;
    assert_eq!(again, Ok(left_out(&[1])));
}
