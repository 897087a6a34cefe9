//! The commands that ask a cluster, on the real control plane with the real operator.

use std::time::Duration;

use serde_json::{Value, json};

use super::{Answer, plugin};
use crate::support::{Manner, Stage, eventually, repository};

/// A kubeconfig of the stage's cluster and namespace for whoever holds the token.
fn kubeconfig(stage: &Stage, token: &str) -> tempfile::NamedTempFile {
    kubeconfig_of(stage, stage.cluster.server(), token)
}

/// The same for another API server.
pub(super) fn kubeconfig_of(stage: &Stage, server: &str, token: &str) -> tempfile::NamedTempFile {
    let authority = stage.cluster.folder().join("certs/apiserver.crt");
    let text = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "test",
        "clusters": [{"name": "test", "cluster": {
            "server": server, "certificate-authority": authority,
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
pub(super) fn account(stage: &Stage, name: &str, rules: &Value) -> String {
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

pub(super) fn rule(verbs: &[&str], resources: &[&str]) -> Value {
    json!({"apiGroups": ["postrider.dev"], "resources": resources, "verbs": verbs})
}

/// Runs the plugin as whoever a kubeconfig names.
pub(super) fn run_as(file: &tempfile::NamedTempFile, arguments: &[&str]) -> Answer {
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

#[test]
fn a_token_without_encryption_is_warned_of_before_it_goes_out() {
    let folder = super::folder(&[(
        "kubeconfig",
        "{apiVersion: v1, kind: Config, current-context: a, clusters: [{name: a, cluster: {server: \"http://127.0.0.1:1\"}}], \
         users: [{name: a, user: {token: s3cret}}], contexts: [{name: a, context: {cluster: a, user: a}}]}",
    )]);
    let ask = |server: &str| {
        let arguments = [
            "deliveries",
            "hook",
            "--kubeconfig",
            "kubeconfig",
            "--server",
            server,
        ];
        plugin(folder.path(), &arguments)
    };
    // Nobody listens there: what the command ends with does not replace the warning.
    let answer = ask("http://0.0.0.0:1");
    let lines: Vec<_> = answer.notes.lines().collect();
    assert_eq!((answer.code, lines.len()), (2, 2), "{}", answer.notes);
    assert!(
        lines[0].contains("warning: the token goes to 0.0.0.0 without encryption")
            && lines[1].starts_with("error: cannot connect to the operator"),
        "{}",
        answer.notes
    );
    assert!(!ask("http://127.0.0.1:1").notes.contains("warning"));
}

/// A service account that may see and act.
fn operator_of_deliveries(stage: &Stage) -> tempfile::NamedTempFile {
    let rules = json!([
        rule(&["get", "list"], &["eventdestinations/deliveries"]),
        rule(
            &["create"],
            &["eventdestinations/replay", "eventdestinations/cancel"]
        ),
    ]);
    kubeconfig(stage, &account(stage, "oncall", &rules))
}

/// The base of the operator's URL.
fn server(stage: &Stage) -> String {
    let url = stage.operator().publish_url("x");
    url.split("/v1/").next().unwrap().to_owned()
}

/// Runs a command until its answer is as wanted.
async fn until(what: &str, ask: impl Fn() -> Answer, wanted: impl Fn(&Answer) -> bool) -> Answer {
    eventually(what, Duration::from_secs(20), || {
        let answer = ask();
        std::future::ready(if wanted(&answer) {
            Ok(answer)
        } else {
            Err(format!("{} {}{}", answer.code, answer.out, answer.notes))
        })
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_failed_is_listed_shown_and_delivered_again() {
    let stage = Stage::set("plugin").await;
    stage.receiver.answer("/hook", Manner::Status(500));
    stage.destination(
        "hook",
        "/hook",
        &json!({"delivery": {"retry": {"maxAttempts": 1}}}),
    );
    let (oncall, server) = (operator_of_deliveries(&stage), server(&stage));
    let ask = |arguments: &[&str]| run_as(&oncall, &[arguments, &["--server", &server]].concat());
    let mut ids = Vec::new();
    for number in 0..3 {
        ids.push(stage.publish("invoice.paid", &json!({"number": number})).await);
    }
    let failed = ["deliveries", "hook", "--state", "exhausted", "--since", "1h"];
    let lines = |answer: &Answer| answer.out.lines().count();
    let listed = until(
        "the list is complete",
        || ask(&failed),
        |answer| lines(answer) == 4,
    )
    .await;
    assert!(
        listed.out.contains("500") && listed.out.contains("ServerError") && listed.out.contains(&ids[0]),
        "{}",
        listed.out
    );
    let some = ask(&["deliveries", "hook", "--limit", "2", "-o", "json"]);
    assert_eq!(read(&some).as_array().unwrap().len(), 2);
    assert!(some.notes.contains("more than these 2"), "{}", some.notes);
    let all = ask(&[
        "deliveries",
        "hook",
        "--all",
        "--type",
        "invoice.paid",
        "-o",
        "json",
    ]);
    assert_eq!(read(&all).as_array().unwrap().len(), 3);

    let shown = ask(&["show", "hook", &ids[0]]);
    assert_eq!(shown.code, 0, "{}", shown.notes);
    for words in [
        "state     Exhausted",
        "webhook-signature: [redacted]",
        &format!("webhook-id: {}", ids[0]),
    ] {
        assert!(shown.out.contains(words), "{words:?} is not in\n{}", shown.out);
    }
    let unknown = ask(&["show", "hook", "evt/unknown"]);
    assert_eq!((unknown.code, unknown.out.as_str()), (1, ""), "{}", unknown.notes);

    stage.receiver.answer("/hook", Manner::Status(200));
    let one = ask(&["replay", "hook", "--id", &ids[0]]);
    assert_eq!(
        (one.code, one.out.as_str()),
        (0, "1 delivery was made\n"),
        "{}",
        one.notes
    );
    let received = stage.receiver.wait_for("/hook", 4).await;
    assert_eq!(received[3].header("webhook-id"), ids[0]);
    until(
        "the success is logged",
        || ask(&failed),
        |answer| lines(answer) == 3,
    )
    .await;
    let rest = ask(&["replay", "hook", "--since", "1h", "--failed", "-o", "json"]);
    assert_eq!(
        (rest.code, read(&rest)),
        (
            0,
            json!({"replayed": 2, "alreadyWaiting": 0, "noLongerStored": 0, "deadLetters": 0})
        ),
        "{}",
        rest.notes
    );
    stage.receiver.wait_for("/hook", 6).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_of_many_goes_on_until_its_end() {
    let stage = Stage::set("plugin").await;
    stage.destination(
        "hook",
        "/hook",
        &json!({"suspend": true, "delivery": {"maxInFlight": 64}}),
    );
    let (oncall, server) = (operator_of_deliveries(&stage), server(&stage));
    for _ in 0..5 {
        let events: Vec<Value> = (0..1000)
            .map(|number| json!({"type": "x", "data": {"n": number}}))
            .collect();
        assert_eq!(stage.publish_raw(&json!(events)).await.0, 202);
    }
    let ask = |arguments: &[&str]| run_as(&oncall, &[arguments, &["--server", &server]].concat());
    let replay = ask(&["replay", "hook", "--since", "1h"]);
    assert_eq!(replay.code, 0, "{}", replay.notes);
    assert_eq!(
        replay.out,
        "0 deliveries were made; 5000 waited or were under way anyway\n"
    );
    let waiting = ask(&["deliveries", "hook", "--state", "Waiting", "--all", "-o", "json"]);
    let waiting = read(&waiting);
    assert_eq!(waiting.as_array().unwrap().len(), 5000);
    let id = waiting[0]["id"].as_str().unwrap();
    let cancel = ask(&["cancel", "hook", id]);
    assert_eq!(
        (cancel.code, cancel.out),
        (0, format!("{id} is cancelled\n")),
        "{}",
        cancel.notes
    );
    let again = ask(&["cancel", "hook", id]);
    assert_eq!(again.code, 1);
    assert!(again.notes.contains("does not wait"), "{}", again.notes);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_operator_is_asked_as_the_caller_or_as_a_service_account() {
    let stage = Stage::set("plugin").await;
    stage.destination("hook", "/hook", &json!({}));
    drop(operator_of_deliveries(&stage));
    let server = server(&stage);
    let viewer = account(
        &stage,
        "viewer",
        &json!([rule(&["get", "list"], &["eventdestinations/deliveries"])]),
    );
    let viewer = kubeconfig(&stage, &viewer);
    let refused = run_as(&viewer, &["replay", "hook", "--since", "1h", "--server", &server]);
    assert_eq!((refused.code, refused.out.as_str()), (2, ""));
    assert!(
        refused.notes.contains("you lack a right: ") && refused.notes.contains("eventdestinations/replay"),
        "{}",
        refused.notes
    );
    let own = run(&stage, &["deliveries", "hook", "--server", &server, "-o", "json"]);
    assert_eq!((own.code, own.out.as_str()), (0, "[]\n"), "{}", own.notes);
    let unknown = run_as(
        &kubeconfig(&stage, "s3cret"),
        &["deliveries", "hook", "--server", &server],
    );
    assert!(
        unknown.code == 2
            && unknown.notes.contains("--service-account NAME")
            && !unknown.notes.contains("s3cret"),
        "{}",
        unknown.notes
    );
    let account = ["--server", &server, "--service-account", "oncall"];
    let listed = run(
        &stage,
        &[&["deliveries", "hook", "-o", "json"][..], &account].concat(),
    );
    assert_eq!(
        (listed.code, listed.out.as_str()),
        (0, "[]\n"),
        "{}",
        listed.notes
    );
    let nobody = run(
        &stage,
        &[
            "deliveries",
            "hook",
            "--server",
            &server,
            "--service-account",
            "nobody",
        ],
    );
    assert!(
        nobody.code == 2 && nobody.notes.contains("\"nobody\""),
        "{}",
        nobody.notes
    );
    let nowhere = run_as(&viewer, &["deliveries", "hook", "--server", "http://127.0.0.1:1"]);
    assert!(
        nowhere.code == 2 && nowhere.notes.contains("nothing was sent"),
        "{}",
        nowhere.notes
    );
    // Without a URL the pod is looked for, and there is none.
    let no_pod = run(&stage, &["deliveries", "hook", "--service-account", "oncall"]);
    assert!(
        no_pod.code == 2 && no_pod.notes.contains("--server"),
        "{}",
        no_pod.notes
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_is_published_with_the_projects_own_token() {
    let stage = Stage::set("plugin").await;
    stage.destination("hook", "/hook", &json!({"events": ["order.*"]}));
    let server = server(&stage);
    let ask = |arguments: &[&str]| run(&stage, &[arguments, &["--server", &server]].concat());
    let order = [
        "publish",
        "acme",
        "--type",
        "order.placed",
        "--data",
        "{\"total\": 12}",
        "--id",
        "order-1",
    ];
    let answer = ask(&order);
    assert_eq!(answer.code, 0, "{}", answer.notes);
    let words: Vec<_> = answer.out.split_whitespace().collect();
    assert_eq!(words, ["ID", "DELIVERIES", "DUPLICATE", "order-1", "1", "no"]);
    assert_eq!(
        stage.receiver.wait_for("/hook", 1).await[0].json()["data"],
        json!({"total": 12})
    );
    assert!(ask(&order).out.contains("yes"));
    // Somebody takes the event and goes away without an answer.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let away = format!("http://{}", listener.local_addr().unwrap());
    let taker = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        std::io::Read::read(&mut stream, &mut [0; 64]).unwrap()
    });
    let lost = ["publish", "acme", "--type", "order.lost", "--server", &away];
    let lost = run(&stage, &lost);
    assert!(taker.join().unwrap() > 0);
    let id = lost
        .notes
        .split("--id ")
        .nth(1)
        .and_then(|rest| rest.split(':').next());
    let id = id.unwrap_or_else(|| panic!("{}", lost.notes));
    let again = ["publish", "acme", "--type", "order.lost", "--id", id];
    assert_eq!((lost.code, ask(&again).code), (2, 0));
    assert!(ask(&again).out.contains("yes"), "it counts once");
    let unwanted = ask(&["publish", "acme", "--type", "other"]);
    assert!(
        unwanted.code == 0 && unwanted.notes.contains("no destination wants"),
        "{}",
        unwanted.notes
    );

    let folder = super::folder(&[
        (
            "cloud.json",
            "{\"specversion\": \"1.0\", \"id\": \"c1\", \"source\": \"/s\", \"type\": \"order.sent\"}",
        ),
        ("bad.json", "{\"type\": \"order.sent\", \"wrong\": 1}"),
    ]);
    let file = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let cloud = ask(&["publish", "acme", "--event", &file("cloud.json"), "-o", "json"]);
    assert_eq!(read(&cloud)["events"][0]["id"], "c1", "{}", cloud.notes);
    let bad = ask(&["publish", "acme", "--event", &file("bad.json")]);
    assert_eq!((bad.code, bad.out.as_str()), (1, ""));
    assert!(bad.notes.contains("wrong"), "{}", bad.notes);

    let stranger = kubeconfig(
        &stage,
        &account(&stage, "stranger", &json!([rule(&["get"], &["eventprojects"])])),
    );
    let refused = run_as(
        &stranger,
        &["publish", "acme", "--type", "x", "--server", &server],
    );
    assert_eq!(refused.code, 2);
    assert!(
        refused.notes.contains("you lack a right") && refused.notes.contains("acme-publish-token"),
        "{}",
        refused.notes
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signing_key_is_rotated_and_does_not_show() {
    let stage = Stage::set("plugin").await;
    stage.destination("hook", "/hook", &json!({}));
    let before = stage.secret("hook-signing", "secret").await;
    let answer = run(&stage, &["rotate-secret", "hook", "-o", "json"]);
    let told = read(&answer);
    assert_eq!((answer.code, &told["outcome"]), (0, &json!("Rotated")), "{told}");
    let after = stage.secret("hook-signing", "secret").await;
    assert_ne!(before, after);
    for key in [before, after] {
        assert!(!answer.out.contains(&key) && !answer.notes.contains(&key));
    }
    let answer = run(&stage, &["rotate-secret", "hook", "--wait=0s"]);
    assert_eq!((answer.code, answer.out.as_str()), (0, ""));
    assert!(
        answer.notes.contains("status.lastHandledRotateSecret"),
        "{}",
        answer.notes
    );
}
