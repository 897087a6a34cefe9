//! Deliveries that one lane hands over to another.

use std::sync::Arc;

use postrider::domain::dead_letter::{DeadLetter, Note};
use postrider::domain::email::settled::Settled;
use postrider::domain::id::EventId;
use postrider::engine::queue::asked::{Cancelled, HandedOver, Replay};
use postrider::engine::queue::{Lease, Queue};

use crate::queue::conformance::{enqueue_numbered, numbered};
use crate::queue::{at, drain, event, finish, ids, lane, put_off_noting, take};

conformance!(
    an_event_goes_to_a_lane_that_it_was_not_meant_for,
    what_is_noted_stays_until_the_delivery_leaves,
    an_event_that_waits_there_is_not_doubled,
    what_waits_there_takes_the_note_and_counts_anew,
    what_is_a_dead_letter_already_stays_as_it_is,
    what_was_handed_over_is_found_and_cancelled_while_it_waits,
    a_full_quota_refuses_no_handing_over,
);

async fn leased(queue: &dyn Queue, name: &str, now: i64) -> Vec<Lease> {
    queue.lease(&lane(name), at(now), 100).await.unwrap().leases
}

async fn hand_over(queue: &dyn Queue, lease: &Lease, note: &[u8], now: i64) -> HandedOver {
    let handed = queue.hand_over(lease, &lane("b"), note.into(), at(now)).await;
    handed.unwrap()
}

async fn an_event_goes_to_a_lane_that_it_was_not_meant_for(queue: Arc<dyn Queue>) {
    enqueue_numbered(&*queue, 0..20).await;
    let leases = take(&*queue, 1_000, 10).await;
    for lease in &leases {
        assert_eq!(hand_over(&*queue, lease, b"why", 2_000).await, HandedOver::Made);
    }
    finish(&*queue, leases).await;
    assert_eq!(queue.depth(&lane("b")).pending, 10);
    assert_eq!(leased(&*queue, "b", 1_999).await.len(), 0, "due from then on");
    let first = leased(&*queue, "b", 2_000).await.remove(0);
    assert_eq!((first.attempts, first.replayed), (0, Some(at(2_000))));
    drop(first);
    assert_eq!(drain(&*queue, "b", at(2_000)).await, numbered(0..10));
    assert_eq!(drain(&*queue, "a", at(2_000)).await, numbered(10..20));
    assert_eq!(queue.depth(&lane("b")).pending, 0);
}

async fn what_is_noted_stays_until_the_delivery_leaves(queue: Arc<dyn Queue>) {
    queue.enqueue(vec![event("e", 0, &["a", "b"])]).await.unwrap();
    assert_eq!(drain(&*queue, "b", at(10)).await, ["e"]);
    let lease = take(&*queue, 10, 1).await.remove(0);
    hand_over(&*queue, &lease, b"why", 20).await;
    finish(&*queue, vec![lease]).await;
    for (now, note) in [(20, &b"why"[..]), (30, b"why"), (40, b"more")] {
        let lease = leased(&*queue, "b", now).await.remove(0);
        assert_eq!(queue.note(&lease).await.unwrap().as_deref(), Some(note));
        match now {
            20 => put_off_noting(&*queue, lease, 30, None).await,
            30 => put_off_noting(&*queue, lease, 40, Some(b"more")).await,
            _ => finish(&*queue, vec![lease]).await,
        }
    }
    // A delivery of the same event that comes later does not find it, neither after retries nor after none.
    for now in [50, 60] {
        let replay = Replay::Accepted {
            since: at(0),
            until: at(9),
            event_type: None,
            from: 0,
        };
        queue.replay(&lane("b"), replay, at(now)).await.unwrap();
        let lease = leased(&*queue, "b", now).await.remove(0);
        assert_eq!(queue.note(&lease).await.unwrap(), None);
        finish(&*queue, vec![lease]).await;
        let replay = Replay::Events(vec![(1, EventId::parse("e").unwrap())]);
        queue.replay(&lane("a"), replay, at(now)).await.unwrap();
        for lease in take(&*queue, now, 1).await {
            hand_over(&*queue, &lease, b"why", now + 1).await;
            finish(&*queue, vec![lease]).await;
        }
        assert_eq!(drain(&*queue, "b", at(now + 1)).await, ["e"]);
    }
}

async fn an_event_that_waits_there_is_not_doubled(queue: Arc<dyn Queue>) {
    queue
        .enqueue(vec![event("both", 0, &["a", "b"]), event("one", 1, &["a"])])
        .await
        .unwrap();
    let leases = take(&*queue, 10, 2).await;
    assert_eq!(ids(&leases), ["both", "one"]);
    let mut handed = Vec::new();
    for lease in &leases {
        handed.push(hand_over(&*queue, lease, &note("a", b""), 10).await);
    }
    assert_eq!(handed, [HandedOver::Joined, HandedOver::Made]);
    assert_eq!(queue.depth(&lane("b")).pending, 2);
    let under_way = leased(&*queue, "b", 10).await;
    assert_eq!(ids(&under_way), ["both", "one"]);
    for lease in &leases {
        assert_eq!(
            hand_over(&*queue, lease, &note("a", b""), 10).await,
            HandedOver::InFlight
        );
    }
    finish(&*queue, under_way).await;
    assert_eq!(queue.depth(&lane("b")).pending, 0);
    assert_eq!(hand_over(&*queue, &leases[1], b"why", 20).await, HandedOver::Made);
}

/// What is noted with a dead letter, and behind it what attempts left.
fn note(from: &str, settled: &[u8]) -> Box<[u8]> {
    let letter = DeadLetter {
        from: from.into(),
        reason: "ServerError".into(),
    };
    let note = Note {
        letter: Some(letter),
        settled: Settled::of_note(settled),
    };
    note.to_bytes().unwrap()
}

async fn what_waits_there_takes_the_note_and_counts_anew(queue: Arc<dyn Queue>) {
    let events = ["untried", "tried", "cold"].map(|id| event(id, 0, &["a", "b"]));
    queue.enqueue(events.into()).await.unwrap();
    let mut first = queue.lease(&lane("b"), at(5), 2).await.unwrap().leases;
    put_off_noting(&*queue, first.pop().unwrap(), 90_000, Some(&[7; 10])).await;
    drop(first);
    let leases = take(&*queue, 10, 3).await;
    for lease in &leases {
        assert_eq!(
            hand_over(&*queue, lease, &note("a", b""), 50).await,
            HandedOver::Joined
        );
    }
    finish(&*queue, leases).await;
    let depth = queue.depth(&lane("b"));
    assert_eq!((depth.pending, depth.oldest), (3, Some(at(50).as_millisecond())));
    assert_eq!(leased(&*queue, "b", 49).await.len(), 0, "due from then on");
    let leases = leased(&*queue, "b", 50).await;
    assert_eq!(ids(&leases), ["untried", "tried", "cold"]);
    for lease in &leases {
        let settled: &[u8] = if ids(std::slice::from_ref(lease)) == ["tried"] {
            &[7; 10]
        } else {
            b""
        };
        assert_eq!((lease.attempts, lease.replayed), (0, Some(at(50))));
        assert_eq!(queue.note(lease).await.unwrap(), Some(note("a", settled)));
    }
    finish(&*queue, leases).await;
    assert_eq!(queue.depth(&lane("b")).pending, 0);
    assert_eq!(drain(&*queue, "b", at(100_000)).await, Vec::<String>::new());
}

async fn what_is_a_dead_letter_already_stays_as_it_is(queue: Arc<dyn Queue>) {
    queue.enqueue(vec![event("e", 0, &["a"])]).await.unwrap();
    let lease = take(&*queue, 10, 1).await.remove(0);
    assert_eq!(
        hand_over(&*queue, &lease, &note("x", b""), 20).await,
        HandedOver::Made
    );
    assert_eq!(
        hand_over(&*queue, &lease, &note("y", b""), 30).await,
        HandedOver::Open
    );
    let waits = leased(&*queue, "b", 30).await.remove(0);
    assert_eq!(waits.replayed, Some(at(20)));
    assert_eq!(queue.note(&waits).await.unwrap(), Some(note("x", b"")));
}

async fn what_was_handed_over_is_found_and_cancelled_while_it_waits(queue: Arc<dyn Queue>) {
    queue
        .enqueue(vec![event("e", 0, &["a"]), event("f", 0, &["b"])])
        .await
        .unwrap();
    let lease = take(&*queue, 10, 1).await.remove(0);
    let id = EventId::parse("e").unwrap();
    let find = async || queue.find(&lane("b"), &id, None).await.unwrap();
    assert!(find().await.is_none(), "it did not go there");
    hand_over(&*queue, &lease, b"why", 20).await;
    finish(&*queue, vec![lease]).await;
    let found = find().await.unwrap();
    assert_eq!(found.open.map(|open| open.due), Some(at(20)));
    let cancelled = queue.cancel(&lane("b"), found.seq).await.unwrap();
    assert_eq!(cancelled, Cancelled::Done { attempts: 0 });
    assert!(find().await.is_none());
    assert_eq!(drain(&*queue, "b", at(100)).await, ["f"]);
}

async fn a_full_quota_refuses_no_handing_over(queue: Arc<dyn Queue>) {
    enqueue_numbered(&*queue, 0..1_000).await;
    assert!(queue.enqueue(vec![event("more", 1_000, &["a"])]).await.is_err());
    let lease = take(&*queue, 1_000, 1).await.remove(0);
    assert_eq!(hand_over(&*queue, &lease, b"why", 1_000).await, HandedOver::Made);
    finish(&*queue, vec![lease]).await;
    assert!(queue.enqueue(vec![event("more", 1_000, &["a"])]).await.is_err());
    assert_eq!(drain(&*queue, "b", at(1_000)).await, ["e0"]);
    queue.enqueue(vec![event("more", 1_000, &["a"])]).await.unwrap();
}
