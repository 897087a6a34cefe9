//! Lanes side by side: their depth, their health, and what is left of one that is dropped.

use std::sync::Arc;

use postrider::domain::health::Health;
use postrider::engine::queue::{Completion, Depth, Enqueued, Queue, Settlement};

use crate::queue::conformance::numbered;
use crate::queue::{at, drain, event, finish, lane, pending, publish, put_off, take};

conformance!(
    every_lane_gets_its_own_delivery,
    depth_counts_leased_deliveries,
    a_dropped_lane_is_empty_and_usable_again,
    a_lease_outlives_its_dropped_lane,
    a_lane_dropped_and_reused_ignores_old_leases,
    health_survives_settlement_and_drop,
    an_older_health_never_replaces_a_newer_one,
);

async fn every_lane_gets_its_own_delivery(queue: Arc<dyn Queue>) {
    queue
        .enqueue(vec![event("1", 0, &["a", "b"]), event("2", 0, &["b"])])
        .await
        .unwrap();
    assert_eq!(drain(&*queue, "b", at(0)).await, ["1", "2"]);
    assert_eq!(queue.lanes(), [lane("a")]);
    assert_eq!(drain(&*queue, "a", at(0)).await, ["1"]);
    assert!(
        queue
            .lease(&lane("unknown"), at(0), 1)
            .await
            .unwrap()
            .leases
            .is_empty()
    );
}

async fn depth_counts_leased_deliveries(queue: Arc<dyn Queue>) {
    queue
        .enqueue(vec![event("1", 5, &["a"]), event("2", 9, &["a"])])
        .await
        .unwrap();
    let oldest = |millis| Some(at(millis).as_millisecond());
    let leased = queue.lease(&lane("a"), at(5), 9).await.unwrap();
    assert_eq!(leased.next_due, Some(at(9)));
    assert_eq!(
        queue.depth(&lane("a")),
        Depth {
            pending: 2,
            oldest: oldest(5),
            next_due: oldest(9),
        }
    );
    finish(&*queue, leased.leases).await;
    assert_eq!(
        queue.depth(&lane("a")),
        Depth {
            pending: 1,
            oldest: oldest(9),
            next_due: oldest(9),
        }
    );
}

async fn a_dropped_lane_is_empty_and_usable_again(queue: Arc<dyn Queue>) {
    let names = numbered(0..900);
    queue
        .enqueue(names.iter().map(|name| event(name, 0, &["a"])).collect())
        .await
        .unwrap();
    queue
        .save_health(vec![(
            lane("a"),
            Health {
                delivered: 3,
                ..Health::default()
            },
        )])
        .await
        .unwrap();
    assert_eq!(queue.drop_lane(&lane("a")).await.unwrap(), 900);
    assert_eq!(queue.drop_lane(&lane("a")).await.unwrap(), 0);
    assert_eq!(queue.lanes(), []);
    assert_eq!(queue.load_health().await, Ok(vec![]));
    // The ids are still known.
    let again = queue
        .enqueue(
            names
                .iter()
                .map(|name| event(&format!("{name}x"), 0, &["a"]))
                .collect(),
        )
        .await;
    assert!(again.is_ok(), "the quota has room again: {again:?}");
    assert_eq!(
        publish(&*queue, event("e1", 0, &["a"])).await,
        Ok(Enqueued::Duplicate)
    );
    assert_eq!(drain(&*queue, "a", at(0)).await.len(), 900);
}

async fn a_lease_outlives_its_dropped_lane(queue: Arc<dyn Queue>) {
    queue
        .enqueue(vec![event("1", 0, &["a"]), event("2", 0, &["a"])])
        .await
        .unwrap();
    let mut leases = take(&*queue, 0, 2).await;
    assert_eq!(queue.drop_lane(&lane("a")).await.unwrap(), 2);
    drop(leases.pop());
    put_off(&*queue, leases, 1).await;
    assert_eq!(take(&*queue, 9, 9).await.len(), 0, "its deliveries are gone");
    assert_eq!(queue.depth(&lane("a")), Depth::default());
}

async fn a_lane_dropped_and_reused_ignores_old_leases(queue: Arc<dyn Queue>) {
    publish(&*queue, event("1", 0, &["a"])).await.unwrap();
    let old = take(&*queue, 0, 1).await;
    queue.drop_lane(&lane("a")).await.unwrap();
    publish(&*queue, event("2", 0, &["a"])).await.unwrap();
    let health = Some(Box::new(Health {
        delivered: 9,
        ..Health::default()
    }));
    let settlements = old.into_iter().map(|lease| Settlement {
        lease,
        completion: Completion::Finished,
        health: health.clone(),
        note: None,
    });
    queue.settle(settlements.collect()).await.unwrap();
    assert_eq!(queue.load_health().await, Ok(vec![]));
    assert_eq!(drain(&*queue, "a", at(0)).await, ["2"]);
}

async fn health_survives_settlement_and_drop(queue: Arc<dyn Queue>) {
    queue
        .enqueue(vec![event("1", 0, &["a"]), event("2", 0, &["b"])])
        .await
        .unwrap();
    let leased = queue.lease(&lane("a"), at(0), 1).await.unwrap();
    let health = Health {
        consecutive_failures: 7,
        generation: 2,
        ..Health::default()
    };
    let settlements = leased.leases.into_iter().map(|lease| Settlement {
        lease,
        completion: Completion::Finished,
        health: Some(Box::new(health.clone())),
        note: None,
    });
    queue.settle(settlements.collect()).await.unwrap();
    assert_eq!(queue.load_health().await.unwrap(), [(lane("a"), health)]);
    queue
        .save_health(vec![(lane("c"), Health::default())])
        .await
        .unwrap();
    let mut names = queue.lanes();
    names.sort();
    assert_eq!(names, [lane("a"), lane("b"), lane("c")]);
    queue.drop_lane(&lane("a")).await.unwrap();
    assert_eq!(
        queue.load_health().await.unwrap(),
        [(lane("c"), Health::default())]
    );
}

async fn an_older_health_never_replaces_a_newer_one(queue: Arc<dyn Queue>) {
    let health = |revision, exhausted| Health {
        revision,
        exhausted,
        ..Health::default()
    };
    let settled = |lease, health| {
        let settlement = Settlement {
            lease,
            completion: Completion::Finished,
            health: Some(Box::new(health)),
            note: None,
        };
        queue.settle(vec![settlement])
    };
    let stored = async || queue.load_health().await.unwrap().remove(0).1.exhausted;
    queue
        .enqueue(vec![event("1", 0, &["a"]), event("2", 0, &["a"])])
        .await
        .unwrap();
    let mut leases = take(&*queue, 0, 2).await;
    settled(leases.remove(0), health(7, 70)).await.unwrap();
    settled(leases.remove(0), health(6, 60)).await.unwrap();
    assert_eq!((stored().await, pending(&*queue)), (70, 0));
    queue.save_health(vec![(lane("a"), health(5, 50))]).await.unwrap();
    assert_eq!(stored().await, 70);
    queue.save_health(vec![(lane("a"), health(8, 80))]).await.unwrap();
    assert_eq!(stored().await, 80);
    queue.drop_lane(&lane("a")).await.unwrap();
    queue.save_health(vec![(lane("a"), health(1, 10))]).await.unwrap();
    assert_eq!(stored().await, 10, "a lane that is made later starts anew");
}
