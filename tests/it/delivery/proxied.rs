//! The installation's proxy, end to end, with proxy-chain as the proxy.

use serde_json::{Value, json};

use crate::support::{Program, Stage, condition, until};

const PASSWORD: &str = "hunter2";

#[tokio::test(flavor = "multi_thread")]
async fn webhooks_that_set_no_proxy_go_through_the_installations_whose_password_is_a_file() {
    let mut proxy = Program::node("proxy.mjs", &json!({"user": "me", "password": PASSWORD}));
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    write("username", "me\n");
    write("password", PASSWORD);
    let flags = [
        "--proxy",
        proxy.fact("url"),
        "--proxy-auth-dir",
        folder.path().to_str().unwrap(),
    ];
    let stage = Stage::set_with("proxied", &flags).await;
    let patient = json!({"retry": {"schedule": ["1s"], "maxAttempts": 100}});
    stage.destination("usual", "/usual", &json!({"delivery": patient}));
    let direct = json!({"webhook": {"proxy": {"direct": true}}});
    stage.destination("direct", "/direct", &direct);
    stage.publish("x", &json!({})).await;
    stage.receiver.wait_for("/direct", 1).await;
    let request = stage.receiver.wait_for("/usual", 1).await.remove(0);
    assert!(
        request.headers.get("proxy-authorization").is_none(),
        "the receiver sees the password"
    );
    let seen = proxy.ask("seen");
    assert_eq!(
        seen["requests"].as_array().unwrap().len(),
        1,
        "one went direct: {seen}"
    );

    // Another password: the proxy refuses until the file is put right, and the receiver is not to blame. The event
    // waits meanwhile, so that it goes with what is read after the change.
    stage.destination("usual", "/usual", &json!({"suspend": true, "delivery": patient}));
    let is_suspended = |ed: &Value| condition(ed, "Delivering")["reason"] == "Suspended";
    stage.until("ed", "usual", "the suspension", is_suspended).await;
    write("password", "wrong");
    until(|| {
        stage
            .operator()
            .log()
            .contains("the installation's settings have changed")
    })
    .await;
    stage.publish("x", &json!({})).await;
    stage.receiver.wait_for("/direct", 2).await;
    stage.destination("usual", "/usual", &json!({"suspend": false, "delivery": patient}));
    let is_refused = |ed: &Value| ed["status"]["delivery"]["lastFailure"]["reason"] == "ProxyRefused";
    let ed = stage.until("ed", "usual", "the proxy refuses", is_refused).await;
    let delivering = condition(&ed, "Delivering");
    assert_eq!(
        (&delivering["status"], &delivering["reason"]),
        (&json!("False"), &json!("ProxyRefused")),
        "{delivering}"
    );
    assert_eq!(ed["status"]["delivery"]["state"], "Failing");
    assert_eq!(stage.receiver.received("/usual").len(), 1);
    write("password", PASSWORD);
    stage.receiver.wait_for("/usual", 2).await;

    // Without one, nothing is asked of the proxy: events wait, and who goes direct does not care.
    std::fs::remove_file(folder.path().join("password")).unwrap();
    let is_told = |ed: &Value| condition(ed, "Ready")["reason"] == "ReferenceMissing";
    let ed = stage.until("ed", "usual", "the missing password", is_told).await;
    let message = condition(&ed, "Ready")["message"].as_str().unwrap();
    assert!(
        message.contains("spec.webhook.proxy: ") && message.contains("--proxy-auth-dir"),
        "{message}"
    );
    stage.publish("x", &json!({})).await;
    stage.receiver.wait_for("/direct", 3).await;
    assert_eq!(stage.receiver.received("/usual").len(), 2);
    write("password", PASSWORD);
    stage.receiver.wait_for("/usual", 3).await;
    for secret in [PASSWORD, "bWU6aHVudGVyMg"] {
        assert!(!stage.operator().log().contains(secret));
        assert!(!stage.get("ed", "usual").to_string().contains(secret));
    }
}
