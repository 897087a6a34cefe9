//! Proofs that a receiver wants the events, end to end: the CNCF's SDK grants, our own raw receivers lie.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::net::TcpStream;

use crate::support::{Program, Stage, Verifier, condition, eventually, kstatus};
use crate::transport::receiver::{Receiver, answer, closed, request};

/// The host of the operator's `--public-url` in tests.
const ORIGIN: &str = "127.0.0.1";

/// What a receiver answers when it is asked.
#[derive(Clone)]
enum Answer {
    Says(String),
    Hangs,
    Echoes,
    Mirrors,
}

/// A receiver that is asked for a proof; it notes every other request.
struct Asked {
    receiver: Receiver,
    answer: Arc<Mutex<Answer>>,
    questions: Arc<AtomicUsize>,
    last: Arc<Mutex<String>>,
}

fn says(head: &str) -> Answer {
    Answer::Says(format!(
        "HTTP/1.1 {head}\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
    ))
}

fn with_body(body: &str) -> String {
    let length = body.len();
    format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}")
}

impl Asked {
    async fn start(first: Answer) -> Self {
        let given = Arc::new(Mutex::new(first));
        let (questions, last) = (Arc::<AtomicUsize>::default(), Arc::<Mutex<String>>::default());
        let (answers, count, seen) = (given.clone(), questions.clone(), last.clone());
        let receiver = Receiver::start(move |mut stream: TcpStream, log| {
            let (answers, count, seen) = (answers.clone(), count.clone(), seen.clone());
            async move {
                let text = request(&mut stream).await;
                let is_challenge = text.contains("x-postrider-event-type: postrider.challenge");
                if !text.starts_with("OPTIONS ") && !is_challenge {
                    log.note(text);
                    answer(&mut stream, &with_body("")).await;
                    return;
                }
                count.fetch_add(1, Ordering::SeqCst);
                seen.lock().clone_from(&text);
                let body = text
                    .split_once("\r\n\r\n")
                    .map_or("", |(_, body)| body)
                    .to_owned();
                let given = answers.lock().clone();
                match given {
                    Answer::Says(text) => answer(&mut stream, &text).await,
                    Answer::Hangs => closed(&mut stream).await,
                    Answer::Mirrors => answer(&mut stream, &with_body(&body)).await,
                    Answer::Echoes => {
                        let asked: Value = serde_json::from_str(&body).unwrap();
                        let echo = json!({"challenge": asked["challenge"]});
                        answer(&mut stream, &with_body(&echo.to_string())).await;
                    }
                }
            }
        });
        Self {
            receiver: receiver.await,
            answer: given,
            questions,
            last,
        }
    }

    fn questions(&self) -> usize {
        self.questions.load(Ordering::SeqCst)
    }

    /// Answers so from now on, and has itself asked at once.
    fn now(&self, stage: &Stage, name: &str, answer: Answer) {
        *self.answer.lock() = answer;
        let namespace = stage.namespace.name();
        let request = format!("postrider.dev/reconcile={}", self.questions());
        let object = format!("ed/{name}");
        stage
            .cluster
            .kubectl(&["annotate", "--overwrite", "-n", namespace, &object, &request])
            .ok();
    }
}

fn destination(stage: &Stage, name: &str, url: &str, manner: &str, more: &Value) {
    let mut webhook = json!({"url": url, "ownershipProof": {"type": manner}});
    for (key, value) in more.as_object().unwrap() {
        webhook[key] = value.clone();
    }
    let delivery = json!({"timeout": "1s", "retry": {"schedule": ["1s"], "maxAttempts": 100}});
    stage.apply_destination(name, "/", &json!({"webhook": webhook, "delivery": delivery}));
}

/// Waits until `Ready` is false for a reason and says so.
async fn told(stage: &Stage, name: &str, reason: &str, part: &str) -> Value {
    let is_told = |ed: &Value| {
        let ready = condition(ed, "Ready");
        let says = ready["message"].as_str().is_some_and(|text| text.contains(part));
        ready["status"] == "False" && ready["reason"] == reason && says
    };
    stage
        .until("ed", name, &format!("{reason}: {part}"), is_told)
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sdk_of_cloudevents_grants_a_rate_and_gets_the_events_after_it_did() {
    let mut sdk = Program::go("cloudevents", &json!({"origins": [ORIGIN], "rate": 1200}));
    let stranger = Program::go(
        "cloudevents",
        &json!({"origins": ["other.example"], "rate": 1200}),
    );
    let stage = Stage::set("ownership").await;
    let cloud_event = json!({"payload": {"format": "CloudEvent"}});
    let apply = |url: &str| destination(&stage, "hook", url, "CloudEventsOptions", &cloud_event);
    apply(stranger.fact("url"));
    let id = stage.publish("x", &json!({})).await;
    let ed = told(
        &stage,
        "hook",
        "OwnershipRefused",
        "the receiver has not proved that it wants the events",
    )
    .await;
    assert_eq!(condition(&ed, "Stalled")["reason"], "OwnershipRefused");
    assert_eq!(kstatus(&ed).0, "Failed");
    assert!(ed["status"]["ownershipProof"].is_null());

    apply(sdk.fact("url"));
    stage.wait_ready("ed", "hook");
    let mut arrived = Value::Null;
    eventually("the event arrives", Duration::from_secs(10), || {
        arrived = sdk.ask("seen");
        std::future::ready(if arrived["ids"].to_string().contains(&id) {
            Ok(())
        } else {
            Err(arrived.to_string())
        })
    })
    .await;
    let is_written = |ed: &Value| ed["status"]["ownershipProof"]["allowedRate"] == 1200;
    let ed = stage.until("ed", "hook", "the agreed rate", is_written).await;
    assert_eq!(ed["status"]["ownershipProof"]["type"], "CloudEventsOptions");
    assert_eq!(kstatus(&ed).0, "Current");
}

#[tokio::test(flavor = "multi_thread")]
async fn events_wait_until_a_receiver_that_hangs_lies_or_redirects_grants_and_the_proof_is_remembered() {
    let mut stage = Stage::set("ownership").await;
    let asked = Asked::start(says("503 Busy")).await;
    let url = asked.receiver.origin();
    destination(&stage, "hook", &url, "CloudEventsOptions", &json!({}));
    let id = stage.publish("x", &json!({})).await;
    let ed = told(&stage, "hook", "OwnershipUnproved", "503").await;
    assert_eq!(condition(&ed, "Reconciling")["status"], "True");
    assert!(condition(&ed, "Stalled").is_null());
    assert_eq!(kstatus(&ed).0, "InProgress");
    assert_eq!(ed["status"]["delivery"]["state"], "Parked");

    let moved = format!("301 Moved\r\nlocation: {}", stage.receiver.url("/elsewhere"));
    for (answer, reason, part) in [
        (Answer::Hangs, "OwnershipUnproved", "1s"),
        (says(&moved), "OwnershipRefused", "301"),
        (says("403 Forbidden"), "OwnershipRefused", "403"),
        (
            says("200 OK"),
            "OwnershipRefused",
            "has no header WebHook-Allowed-Origin",
        ),
        (
            says("200 OK\r\nwebhook-allowed-origin: other.example"),
            "OwnershipRefused",
            "allows another origin",
        ),
        (
            says("200 OK\r\nwebhook-allowed-origin: *\r\nwebhook-allowed-rate: lots"),
            "OwnershipRefused",
            "WebHook-Allowed-Rate must be a number",
        ),
    ] {
        asked.now(&stage, "hook", answer);
        let ed = told(&stage, "hook", reason, part).await;
        let stalled = condition(&ed, "Stalled")["status"] == "True";
        assert_eq!(stalled, reason == "OwnershipRefused", "{part}");
    }
    eventually(
        "a Kubernetes Event tells it",
        Duration::from_secs(10),
        async || {
            let namespace = stage.namespace.name();
            let events = [
                "get",
                "events.events.k8s.io",
                "-n",
                namespace,
                "-o",
                "jsonpath={.items[*].reason}",
            ];
            let reasons = stage.cluster.kubectl(&events).ok();
            if reasons.contains("OwnershipRefused") && reasons.contains("OwnershipUnproved") {
                Ok(())
            } else {
                Err(reasons)
            }
        },
    )
    .await;
    // A test send is an event, too.
    let namespace = stage.namespace.name().to_owned();
    let test = ["annotate", "-n", &namespace, "ed/hook", "postrider.dev/test=1"];
    stage.cluster.kubectl(&test).ok();
    let is_answered = |ed: &Value| ed["status"]["lastTest"]["requested"] == "1";
    let ed = stage
        .until("ed", "hook", "the test is answered", is_answered)
        .await;
    let test = &ed["status"]["lastTest"];
    assert_eq!(
        (&test["outcome"], &test["reason"]),
        (&json!("NotSent"), &json!("NotReady"))
    );
    assert_eq!(
        stage.receiver.received("/elsewhere").len(),
        0,
        "a redirect is not followed"
    );
    for outcome in ["OwnershipUnproved", "OwnershipRefused"] {
        let metric = format!("postrider_ownership_proofs_total{{outcome=\"{outcome}\"}}");
        assert!(stage.operator().metric(&metric).await > 0.0, "{metric}");
    }

    asked.now(
        &stage,
        "hook",
        says("200 OK\r\nwebhook-allowed-origin: 127.0.0.1"),
    );
    let delivered = asked.receiver.noted().await;
    assert!(
        delivered.contains(&id),
        "the first request is the event: {delivered}"
    );
    assert!(delivered.contains("\r\norigin: 127.0.0.1\r\n"), "{delivered}");
    let question = asked.last.lock().clone();
    assert!(
        question.contains("\r\nwebhook-request-origin: 127.0.0.1\r\n"),
        "{question}"
    );
    let is_proved = |ed: &Value| ed["status"]["ownershipProof"]["seal"].is_string();
    stage.until("ed", "hook", "the proof is told", is_proved).await;
    let log = stage.operator().log();
    for outcome in ["OwnershipUnproved", "OwnershipRefused", "Proved"] {
        let line = format!("\"outcome\":\"{outcome}\"");
        assert!(log.contains(&line), "{line}");
    }

    // It outlives the process, and nobody is asked again.
    let questions = asked.questions();
    let (_, settings) = stage.take_operator().stop().await;
    stage.start_again(settings).await;
    let id = stage.publish("x", &json!({})).await;
    while !asked.receiver.noted().await.contains(&id) {}
    assert_eq!(asked.questions(), questions);

    // It does not hold for another URL, although the status still tells of it.
    *asked.answer.lock() = says("403 Forbidden");
    destination(
        &stage,
        "hook",
        &format!("{url}/other"),
        "CloudEventsOptions",
        &json!({}),
    );
    let ed = told(&stage, "hook", "OwnershipRefused", "403").await;
    assert!(ed["status"]["ownershipProof"]["seal"].is_string());
    let id = stage.publish("x", &json!({})).await;
    assert!(asked.questions() > questions);
    asked.now(&stage, "hook", says("204 Fine\r\nwebhook-allowed-origin: *"));
    while !asked.receiver.noted().await.contains(&id) {}

    // What somebody writes into the status is no proof.
    let (_, settings) = stage.take_operator().stop().await;
    let questions = asked.questions();
    let forged = json!({"status": {"ownershipProof": {"seal": "00".repeat(32)}}}).to_string();
    let patch = [
        "patch",
        "-n",
        &namespace,
        "ed/hook",
        "--subresource=status",
        "--type=merge",
        "-p",
        &forged,
    ];
    stage.cluster.kubectl(&patch).ok();
    stage.start_again(settings).await;
    let id = stage.publish("x", &json!({})).await;
    while !asked.receiver.noted().await.contains(&id) {}
    assert_eq!(asked.questions(), questions + 1);
}

/// What a library makes of the signature of a request as text.
fn verified(text: &str, secret: &str) -> Result<(), String> {
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let headers = head.lines().filter_map(|line| line.split_once(": "));
    let headers: serde_json::Map<_, _> = headers
        .map(|(name, value)| (name.to_owned(), Value::from(value)))
        .collect();
    let request = json!({
        "scheme": "standard", "secret": secret, "headers": headers, "body_base64": STANDARD.encode(body),
    });
    Verifier::Python.verify(&[request]).remove(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signed_challenge_is_answered_by_who_has_read_it_and_not_by_a_mirror() {
    let stage = Stage::set("challenge").await;
    let asked = Asked::start(Answer::Mirrors).await;
    let (url, manner) = (asked.receiver.origin(), "SignedChallenge");
    destination(&stage, "hook", &url, manner, &json!({}));
    // Of what has waited too long, nobody is told.
    stage.apply_destination(
        "old",
        "/",
        &json!({
            "webhook": {"url": format!("{url}/old"), "ownershipProof": {"type": manner}},
            "delivery": {"timeout": "1s", "maxAge": "1s"},
        }),
    );
    let id = stage.publish("x", &json!({})).await;
    let refused = "does not answer the challenge";
    told(&stage, "hook", "OwnershipRefused", refused).await;
    for answer in [with_body("ok"), with_body("{\"challenge\": \"1\"}")] {
        asked.now(&stage, "hook", Answer::Says(answer));
        told(&stage, "hook", "OwnershipRefused", refused).await;
    }
    asked.now(&stage, "old", Answer::Hangs);
    told(&stage, "old", "OwnershipUnproved", "1s").await;
    asked.now(&stage, "hook", Answer::Echoes);
    let delivered = asked.receiver.noted().await;
    assert!(delivered.contains(&id), "{delivered}");
    let secret = stage.secret("hook-signing", "secret").await;
    assert_eq!(verified(&delivered, &secret), Ok(()));
    asked.now(&stage, "old", Answer::Echoes);
    let is_given_up = |ed: &Value| ed["status"]["delivery"]["exhausted"] == 1;
    let ed = stage.until("ed", "old", "too old", is_given_up).await;
    assert_eq!(ed["status"]["delivery"]["delivered"], 0);
    let question = asked.last.lock().clone();
    let secret = stage.secret("old-signing", "secret").await;
    assert_eq!(verified(&question, &secret), Ok(()), "{question}");
}
