//! Watches that the API server ends because what they ask for is too old (410).

use std::collections::HashSet;
use std::sync::Arc;
use std::task::{self, Poll};

use futures::future::BoxFuture;
use kube::client::Body;
use parking_lot::Mutex;
use serde_json::json;

use super::operator::{Operator, Playground, SOON, ready};
use super::{HOOK, PROJECT, destination};
use crate::support::eventually;

/// How the end is told.
#[derive(Clone, Copy, Debug)]
enum Told {
    /// In the answer to the request.
    AtOnce,
    /// As an event of a watch that began well.
    Later,
}

/// A client whose first watch of each kind has expired, after something happened that it would have told.
#[derive(Clone)]
struct Expiring {
    client: kube::Client,
    told: Told,
    expired: Arc<Mutex<HashSet<String>>>,
    lists: Arc<Mutex<Vec<String>>>,
    /// Makes what the watches miss.
    missed: Arc<dyn Fn() + Send + Sync>,
}

impl Expiring {
    fn answer(&self) -> http::Response<Body> {
        let status = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "reason": "Expired", "code": 410,
            "message": "too old resource version: 1 (2)",
        });
        let (code, body) = match self.told {
            Told::AtOnce => (410, status),
            Told::Later => (200, json!({"type": "ERROR", "object": status})),
        };
        let answer = http::Response::builder()
            .status(code)
            .header("content-type", "application/json");
        answer.body(Body::from(format!("{body}\n").into_bytes())).unwrap()
    }
}

impl tower_service::Service<http::Request<Body>> for Expiring {
    type Response = http::Response<Body>;
    type Error = kube::Error;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _: &mut task::Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let path = request.uri().path().to_owned();
        let query = request.uri().query().unwrap_or_default();
        let is_watch = query.contains("watch=true");
        if is_watch && self.expired.lock().insert(path.clone()) {
            let (answer, missed) = (self.answer(), Arc::clone(&self.missed));
            return Box::pin(async move {
                tokio::task::spawn_blocking(move || missed()).await.unwrap();
                Ok(answer)
            });
        }
        if request.method() == http::Method::GET && !is_watch && query.contains("limit=") {
            self.lists.lock().push(path);
        }
        let client = self.client.clone();
        Box::pin(async move { client.send(request).await })
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_that_has_expired_misses_nothing() {
    for told in [Told::AtOnce, Told::Later] {
        let ground = Playground::new("expired").await;
        ground.apply(&format!("{PROJECT}{}", destination("before", HOOK)));
        let (cluster, namespace) = (ground.cluster, ground.name().to_owned());
        // Several watches begin at once, and two `kubectl apply` of a new object exclude each other.
        let once = std::sync::Once::new();
        let missed = move || {
            once.call_once(|| {
                let missed = destination("missed", HOOK);
                cluster.kubectl_with(&["apply", "-n", &namespace], &missed).ok();
            });
        };
        let expiring = Expiring {
            client: ground.namespace.client(),
            told,
            expired: Arc::default(),
            lists: Arc::default(),
            missed: Arc::new(missed),
        };
        let client = kube::Client::new(expiring.clone(), ground.name());
        let name = ground.name().to_owned();
        let operator = Operator::start_with(client, Some(&name), SOON).synced().await;
        for name in ["before", "missed"] {
            ground
                .await_destination(name, &format!("{told:?}: {name} is ready"), ready)
                .await;
        }
        eventually("each watch has met its end", SOON, async || {
            let (text, count) = (operator.metrics_text(), expiring.expired.lock().len());
            let counted = text
                .lines()
                .filter(|line| line.starts_with("watch_errors_total{"))
                .count();
            if count >= 3 && counted >= 3 {
                Ok(())
            } else {
                Err(format!("{count}: {text}"))
            }
        })
        .await;
        // The watches that follow work.
        ground.apply(&destination("after", HOOK));
        ground
            .await_destination("after", &format!("{told:?}: after is ready"), ready)
            .await;
        operator.stop().await;
    }
}
