//! The commands that ask a cluster, on the real control plane with the real operator.

use serde_json::{Value, json};

use super::{Answer, plugin};
use crate::support::{Manner, Stage, repository};

/// A kubeconfig of the stage's cluster and namespace for whoever holds the token.
fn kubeconfig(stage: &Stage, token: &str) -> tempfile::NamedTempFile {
    let authority = stage.cluster.folder().join("certs/apiserver.crt");
    let text = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "test",
        "clusters": [{"name": "test", "cluster": {
            "server": stage.cluster.server(), "certificate-authority": authority,
        }}],
        "users": [{"name": "test", "user": {"token": token}}],
        "contexts": [{"name": "test", "context": {
            "cluster": "test", "user": "test", "namespace": stage.namespace.name(),
        }}],
    });
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text.to_string()).unwrap();
    file
}

/// A service account of the stage's namespace with these rules; its token.
fn account(stage: &Stage, name: &str, rules: &Value) -> String {
    let group = "rbac.authorization.k8s.io";
    let namespace = stage.namespace.name();
    stage.apply(&json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name}}));
    stage.apply(&json!({
        "apiVersion": format!("{group}/v1"), "kind": "Role", "metadata": {"name": name}, "rules": rules,
    }));
    stage.apply(&json!({
        "apiVersion": format!("{group}/v1"), "kind": "RoleBinding", "metadata": {"name": name},
        "roleRef": {"apiGroup": group, "kind": "Role", "name": name},
        "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": namespace}],
    }));
    let token = stage
        .cluster
        .kubectl(&["create", "token", name, "-n", namespace])
        .ok();
    token.trim().to_owned()
}

fn rule(verbs: &[&str], resources: &[&str]) -> Value {
    json!({"apiGroups": ["postrider.dev"], "resources": resources, "verbs": verbs})
}

/// Runs the plugin as whoever a kubeconfig names.
fn run_as(file: &tempfile::NamedTempFile, arguments: &[&str]) -> Answer {
    let file = file.path().to_str().unwrap();
    plugin(repository(), &[arguments, &["--kubeconfig", file]].concat())
}

/// Runs the plugin with all rights in the stage's namespace.
fn run(stage: &Stage, arguments: &[&str]) -> Answer {
    let file = stage.cluster.kubeconfig();
    let cluster = [
        "--kubeconfig",
        file.to_str().unwrap(),
        "-n",
        stage.namespace.name(),
    ];
    plugin(repository(), &[arguments, &cluster].concat())
}

#[track_caller]
fn read(answer: &Answer) -> Value {
    serde_json::from_str(&answer.out).unwrap_or_else(|_| panic!("{}\n{}", answer.out, answer.notes))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_test_is_asked_for_and_its_result_is_the_exit_code() {
    let stage = Stage::set("plugin").await;
    stage.destination("hook", "/hook", &json!({}));
    let answer = run(&stage, &["test", "hook", "--event-type", "run_failed"]);
    assert_eq!(answer.code, 0, "{}{}", answer.out, answer.notes);
    assert!(answer.out.contains("outcome  Delivered"), "{}", answer.out);
    let received = stage.receiver.received("/hook");
    assert_eq!(received[0].header("x-postrider-event-type"), "run_failed");
    stage.receiver.answer("/hook", Manner::Status(503));
    let answer = run(&stage, &["test", "hook", "--wait=30s", "-o", "json"]);
    let told = read(&answer);
    assert_eq!(
        (answer.code, &told["statusCode"], &told["reason"]),
        (1, &json!(503), &json!("Unavailable")),
        "{told}"
    );
    let answer = run(&stage, &["test", "nothing"]);
    assert_eq!(answer.code, 2);
    assert!(
        answer.notes.contains("\"nothing\"") && answer.notes.contains("not found"),
        "{}",
        answer.notes
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_status_is_one_screen_and_says_what_is_wrong() {
    let stage = Stage::set("plugin").await;
    stage.destination("works", "/works", &json!({}));
    let answer = run(&stage, &["status"]);
    assert_eq!(answer.code, 0, "{}{}", answer.out, answer.notes);
    assert!(
        answer.out.starts_with("PROJECT  READY  REASON") && answer.out.contains("\nDESTINATION  READY"),
        "{}",
        answer.out
    );
    assert!(
        !answer.out.contains('\u{1b}'),
        "colours are for terminals: {:?}",
        answer.out
    );
    stage.apply_destination(
        "faulty",
        "/",
        &json!({"webhook": {"url": "http://169.254.169.254/"}}),
    );
    stage
        .until("ed", "faulty", "the fault shows", |ed| {
            ed["status"]["conditions"][0].is_object()
        })
        .await;
    let answer = run(&stage, &["status", "-o", "json"]);
    let screen = read(&answer);
    assert_eq!(answer.code, 1);
    assert_eq!(screen["projects"][0]["ready"], "True");
    let faulty = &screen["destinations"][0];
    assert_eq!(
        (&faulty["name"], &faulty["ready"]),
        (&json!("faulty"), &json!("False"))
    );
    let answer = run(&stage, &["status"]);
    assert!(
        answer.out.contains("EventDestination faulty: spec.webhook.url"),
        "{}",
        answer.out
    );
    let file = stage.cluster.kubeconfig();
    let everywhere = plugin(
        repository(),
        &["status", "-A", "--kubeconfig", file.to_str().unwrap()],
    );
    assert!(everywhere.out.contains("NAMESPACE"), "{}", everywhere.notes);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_destination_is_enabled_and_whoever_may_not_is_told_which_right_it_takes() {
    let stage = Stage::set("plugin").await;
    stage.destination("hook", "/hook", &json!({}));
    let answer = run(&stage, &["enable", "hook", "-o", "json"]);
    assert_eq!((answer.code, &read(&answer)["type"]), (0, &json!("Delivering")));
    let ed = stage.get("ed", "hook");
    let annotation = &ed["metadata"]["annotations"]["postrider.dev/enable"];
    assert_eq!(annotation, &ed["status"]["lastHandledEnable"]);

    let viewer = account(&stage, "viewer", &json!([rule(&["get"], &["eventdestinations"])]));
    let viewer = kubeconfig(&stage, &viewer);
    for arguments in [&["enable", "hook"][..], &["test", "hook"], &["status"]] {
        let answer = run_as(&viewer, arguments);
        assert_eq!((answer.code, answer.out.as_str()), (2, ""));
        assert!(answer.notes.contains("you lack a right: "), "{}", answer.notes);
    }
    let stranger = kubeconfig(&stage, "s3cret");
    let answer = run_as(&stranger, &["status"]);
    assert_eq!(answer.code, 2);
    assert!(
        answer.notes.contains("credentials are wrong") && !answer.notes.contains("s3cret"),
        "{}",
        answer.notes
    );
}

#[test]
fn a_cluster_that_cannot_be_reached_is_said() {
    let folder = super::folder(&[(
        "kubeconfig",
        "{apiVersion: v1, kind: Config, current-context: a, clusters: [{name: a, cluster: {server: \"http://127.0.0.1:1\"}}], \
         users: [{name: a, user: {token: s3cret}}], contexts: [{name: a, context: {cluster: a, user: a}}]}",
    )]);
    let answer = plugin(folder.path(), &["status", "--kubeconfig", "kubeconfig"]);
    assert_eq!(answer.code, 2);
    assert!(answer.notes.contains("cannot be reached"), "{}", answer.notes);
    let answer = plugin(
        folder.path(),
        &["status", "--kubeconfig", "kubeconfig", "--context", "b"],
    );
    assert!(answer.notes.contains("no context \"b\""), "{}", answer.notes);
    let answer = plugin(folder.path(), &["test", "../x"]);
    assert!(
        answer.code == 2 && answer.notes.contains("no object has such a name"),
        "{}",
        answer.notes
    );
}
