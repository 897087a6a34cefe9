//! Objects that are being deleted and are held by somebody's finalizer: they work on until they are gone.

use postrider::domain::id::ObjectKey;
use serde_json::{Value, json};

use super::operator::{Operator, Playground, SOON, condition, ready, truth, uid};
use super::{HOOK, PROJECT, decoded, destination};
use crate::support::eventually;

const HELD: &str = "finalizers: [example.com/hold], name: ";

/// Manifests whose objects stay until their finalizer is taken away.
fn held(manifests: &str) -> String {
    manifests
        .replace("name: hook}", &format!("{HELD}hook}}"))
        .replace("name: acme}", &format!("{HELD}acme}}"))
}

/// Asks for the deletion of an object that a finalizer holds.
fn delete(ground: &Playground, object: &str) {
    ground.kubectl(&["delete", object, "--wait=false"]).ok();
}

fn release(ground: &Playground, object: &str) {
    let nothing = r#"{"metadata":{"finalizers":null}}"#;
    ground
        .kubectl(&["patch", object, "--type=merge", "-p", nothing])
        .ok();
}

fn is_ending(object: &Value) -> bool {
    !object["metadata"]["deletionTimestamp"].is_null()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_destination_that_is_being_deleted_delivers_until_it_is_gone() {
    let ground = Playground::new("ending").await;
    let operator = Operator::start(&ground.namespace).synced().await;
    ground.apply(&held(&destination("hook", HOOK)));
    let object = ground.await_destination("hook", "ready", ready).await;
    let uid = uid(&object);
    delete(&ground, "ed/hook");
    let object = ground
        .await_destination(
            "hook",
            "ready in the generation that the deletion made",
            |object| is_ending(object) && ready(object),
        )
        .await;
    assert_ne!(object["metadata"]["generation"], 1, "{object}");
    assert!(operator.entry(&uid).unwrap().ready().is_some());

    operator.stop().await;
    let operator = Operator::start(&ground.namespace).synced().await;
    let in_force = || async {
        let entry = operator.entry(&uid).ok_or("it is not there")?;
        entry.ready().map(drop).ok_or("it parks its events")
    };
    eventually("it delivers after a restart", SOON, in_force).await;

    ground.kubectl(&["delete", "secret/hook-signing"]).ok();
    let object = ground
        .await_destination("hook", "it waits for its Secret", |object| {
            truth(object, "Reconciling") == "True"
        })
        .await;
    assert_eq!(
        condition(&object, "Ready")["message"],
        "Secret \"hook-signing\" is missing, and none is made for a destination that is being deleted; events wait"
    );
    assert_eq!(truth(&object, "Stalled"), "");
    assert_eq!(ground.secret("hook-signing").await, Value::Null);

    release(&ground, "ed/hook");
    eventually("it left the directory", SOON, async || {
        operator.entry(&uid).map_or(Ok(()), |_| Err("it is there"))
    })
    .await;
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_destination_that_is_being_deleted_takes_a_changed_spec() {
    let ground = Playground::new("endingspec").await;
    let operator = Operator::start(&ground.namespace).synced().await;
    ground.apply(&held(&destination("hook", HOOK)));
    let object = ground.await_destination("hook", "ready", ready).await;
    delete(&ground, "ed/hook");
    let suspend = json!({"spec": {"suspend": true}}).to_string();
    ground
        .kubectl(&["patch", "ed/hook", "--type=merge", "-p", &suspend])
        .ok();
    ground
        .await_destination("hook", "suspended", |object| {
            ready(object) && condition(object, "Delivering")["reason"] == "Suspended"
        })
        .await;
    assert!(operator.entry(&uid(&object)).unwrap().ready().unwrap().suspended);
    release(&ground, "ed/hook");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_project_that_is_being_deleted_is_published_to_until_it_is_gone() {
    let ground = Playground::new("endingproject").await;
    let operator = Operator::start(&ground.namespace).synced().await;
    ground.apply(&held(PROJECT));
    ground
        .kubectl(&["wait", "--for=condition=Ready", "--timeout=5s", "eproj/acme"])
        .ok();
    let token = decoded(&ground.secret("acme-publish-token").await, "token");
    delete(&ground, "eproj/acme");
    let right = |object: &Value| is_ending(object) && ready(object);
    eventually(
        "ready in the generation that the deletion made",
        SOON,
        async || {
            let object = ground.project("acme").await;
            if right(&object) {
                Ok(())
            } else {
                Err(format!("{object:#}"))
            }
        },
    )
    .await;

    operator.stop().await;
    let operator = Operator::start(&ground.namespace).synced().await;
    let key = ObjectKey::new(ground.name(), "acme");
    let known = || {
        let project = operator.directory.project(&key)?;
        project.token.known().map(|token| token.expose().clone())
    };
    assert_eq!(known(), Some(token), "its token is good after a restart");

    ground.kubectl(&["delete", "secret/acme-publish-token"]).ok();
    eventually("publishers come again", SOON, async || {
        known().map_or(Ok(()), |_| Err("the token is known"))
    })
    .await;
    let message =
        "Secret \"acme-publish-token\" is missing, and none is made for a project that is being deleted";
    eventually("it says so", SOON, async || {
        let object = ground.project("acme").await;
        let ready = condition(&object, "Ready");
        if ready["message"] == message {
            Ok(())
        } else {
            Err(ready.to_string())
        }
    })
    .await;
    assert_eq!(ground.secret("acme-publish-token").await, Value::Null);
    release(&ground, "eproj/acme");
    eventually("it left the directory", SOON, async || {
        operator
            .directory
            .project(&key)
            .map_or(Ok(()), |_| Err("it is there"))
    })
    .await;
    operator.stop().await;
}
