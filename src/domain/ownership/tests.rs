//! What is asked, which answers count, and that a proof cannot be made up or carried elsewhere.

use serde_json::json;

use super::*;
use crate::domain::destination::{Destination, References, Target};
use crate::domain::egress::EgressPolicy;
use crate::domain::id::{ObjectKey, Uid};

const ORIGIN: &str = "events.acme.example";

fn now() -> Timestamp {
    "2026-01-31T08:00:00Z".parse().unwrap()
}

fn identity(uid: &str) -> Identity {
    Identity {
        key: ObjectKey::new("shop", "hook"),
        uid: Uid::new(uid),
        generation: 1,
    }
}

fn check(webhook: &Value, delivery: &Value) -> Result<Webhook, String> {
    let mut whole = json!({"url": "https://hooks.example.com/in", "signing": {"scheme": "None"}});
    for (name, value) in webhook.as_object().unwrap() {
        whole[name] = value.clone();
    }
    let spec = json!({"events": ["*"], "webhook": whole, "delivery": delivery});
    let spec = serde_json::from_value(spec).unwrap();
    let key = Secret::new(b"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".to_vec());
    let references = crate::domain::destination::value_references("hook", &spec).into_iter();
    let references: References = references
        .filter(|(_, of)| !of.name.is_empty())
        .map(|(_, of)| (of, crate::domain::destination::Reference::Found(key.clone())))
        .collect();
    let checked = Destination::try_from_spec(identity("u"), &spec, &references, &EgressPolicy::default());
    match checked.map_err(|faults| faults.to_string())?.target {
        Target::Webhook(webhook) => Ok(*webhook),
        Target::Email(_) => panic!("the spec has a webhook"),
    }
}

fn asking(manner: &str, more: &Value, delivery: &Value) -> (Webhook, Proof) {
    let mut webhook = json!({"ownershipProof": {"type": manner}});
    for (name, value) in more.as_object().unwrap() {
        webhook[name] = value.clone();
    }
    let webhook = check(&webhook, delivery).unwrap();
    let proof = *webhook.request.proof.clone().unwrap();
    (webhook, proof)
}

fn question(manner: &str) -> Question {
    let (webhook, proof) = asking(manner, &json!({"signing": {}}), &json!({}));
    proof.question(&webhook, ORIGIN, &Secret::new([7; 32]), now())
}

/// The verdict on an answer with these headers and this body.
fn verdict(
    question: &Question,
    status: u16,
    headers: &[(&HeaderName, &str)],
    body: &str,
) -> Result<Option<u32>, Unproved> {
    let headers = headers
        .iter()
        .map(|(name, value)| ((*name).clone(), value.parse().unwrap()))
        .collect();
    let reply = Reply {
        status,
        headers: Some(Box::new(headers)),
        excerpt: Bytes::copy_from_slice(body.as_bytes()),
        ..Reply::default()
    };
    question.judge(Ok(reply), now())
}

#[test]
fn options_name_origin_and_rate_and_carry_what_the_receiver_asks_of_requests() {
    let delivery = json!({"rateLimit": {"events": 5, "per": "10s", "burst": 3}});
    let headers = json!({"headers": [{"name": "X-Key", "value": "k"}]});
    let (webhook, proof) = asking("CloudEventsOptions", &headers, &delivery);
    let request = proof
        .question(&webhook, ORIGIN, &Secret::new([7; 32]), now())
        .request;
    assert_eq!(request.method, Method::OPTIONS);
    assert!(request.body.is_empty());
    assert_eq!(request.headers[REQUEST_ORIGIN], ORIGIN);
    assert_eq!(
        request.headers[REQUEST_RATE], "32",
        "30 and the rest of the burst"
    );
    assert_eq!(request.headers["x-key"], "k");
    let (webhook, proof) = asking("CloudEventsOptions", &json!({}), &json!({}));
    let request = proof
        .question(&webhook, ORIGIN, &Secret::new([7; 32]), now())
        .request;
    assert!(request.headers.get(REQUEST_RATE).is_none());
}

#[test]
fn only_an_answer_that_names_us_grants() {
    let question = question("CloudEventsOptions");
    let granted = |headers: &[(&HeaderName, &str)]| verdict(&question, 200, headers, "");
    assert_eq!(granted(&[(&ALLOWED_ORIGIN, "*")]), Ok(None));
    assert_eq!(granted(&[(&ALLOWED_ORIGIN, "Events.Acme.example")]), Ok(None));
    let rated = |rate| granted(&[(&ALLOWED_ORIGIN, "*"), (&ALLOWED_RATE, rate)]);
    assert_eq!(rated("120"), Ok(Some(120)));
    assert_eq!(rated("*"), Ok(None));
    for (headers, part) in [
        (&[][..], "no header WebHook-Allowed-Origin"),
        (&[(&ALLOWED_ORIGIN, "other.example")][..], "allows another origin"),
        (&[(&ALLOWED_ORIGIN, "acme.example")][..], "allows another origin"),
        (
            &[(&ALLOWED_ORIGIN, "*"), (&ALLOWED_RATE, "0")][..],
            "must be a number",
        ),
        (
            &[(&ALLOWED_ORIGIN, "*"), (&ALLOWED_RATE, "many")][..],
            "must be a number",
        ),
    ] {
        let unproved = granted(headers).unwrap_err();
        assert!(
            unproved.refused && unproved.message.contains(part),
            "{unproved:?}"
        );
    }
}

#[test]
fn a_challenge_is_signed_and_only_itself_answers_it() {
    let question = question("SignedChallenge");
    let request = &question.request;
    assert_eq!(request.method, Method::POST);
    assert!(request.headers.contains_key("webhook-signature"));
    assert_eq!(request.headers[EVENT_TYPE], CHALLENGE_TYPE);
    let body: Value = serde_json::from_slice(&request.body).unwrap();
    let challenge = body["challenge"].as_str().unwrap();
    assert_eq!((challenge.len(), &body["type"]), (64, &json!(CHALLENGE_TYPE)));
    let answers = |text: &str| verdict(&question, 200, &[], text);
    assert_eq!(answers(&format!("{challenge}\n")), Ok(None));
    assert_eq!(answers(&json!({"challenge": challenge}).to_string()), Ok(None));
    let mirror = body.to_string();
    for text in [
        "",
        "ok",
        "{\"challenge\": \"7\"}",
        &mirror,
        &format!("x{challenge}"),
    ] {
        let unproved = answers(text).unwrap_err();
        assert!(
            unproved.refused && !unproved.message.contains(challenge),
            "{unproved:?}"
        );
    }
    assert!(!format!("{:?}", Secret::new([7; 32])).contains('7'));
}

#[test]
fn what_passes_is_asked_again_and_what_does_not_needs_somebody() {
    for manner in ["CloudEventsOptions", "SignedChallenge"] {
        let question = question(manner);
        for (status, refused) in [
            (429, false),
            (408, false),
            (425, false),
            (500, false),
            (503, false),
            (301, true),
            (401, true),
            (403, true),
            (404, true),
            (405, true),
            (410, true),
        ] {
            let unproved = verdict(&question, status, &[(&ALLOWED_ORIGIN, "*")], "").unwrap_err();
            assert_eq!(unproved.refused, refused, "{manner} {status}");
        }
        for (reason, refused) in [
            (FailureReason::Timeout, false),
            (FailureReason::TlsError, false),
            (FailureReason::ConnectionRefused, false),
            (FailureReason::ProxyRefused, false),
            (FailureReason::EgressRefused, true),
            (FailureReason::TokenRefused, true),
        ] {
            let unproved = question
                .judge(Err(Failure::new(reason, "so")), now())
                .unwrap_err();
            assert_eq!(unproved.refused, refused, "{manner} {reason:?}");
        }
    }
}

#[test]
fn waits_double_up_to_ten_minutes_and_heed_retry_after_up_to_an_hour() {
    let unproved = |retry_after| Unproved {
        refused: false,
        message: String::new(),
        retry_after,
    };
    let waits: Vec<u64> = (1..=9)
        .map(|tries| wait(tries, &unproved(None)).as_secs())
        .collect();
    assert_eq!(waits, [5, 10, 20, 40, 80, 160, 320, 600, 600]);
    assert_eq!(wait(u32::MAX, &unproved(None)).as_secs(), 600);
    assert_eq!(wait(1, &unproved(Some(Duration::from_secs(60)))).as_secs(), 60);
    let reply = Reply {
        status: 503,
        retry_after: Some("86400".to_owned()),
        ..Reply::default()
    };
    let asked = question("SignedChallenge").judge(Ok(reply), now()).unwrap_err();
    assert!(
        asked.retry_after.unwrap() <= Duration::from_secs(3600),
        "{asked:?}"
    );
}

#[test]
fn the_lower_rate_counts() {
    let agreed = |delivery: &Value, allowed_rate| {
        let (_, mut proof) = asking("CloudEventsOptions", &json!({}), delivery);
        let (time, seal) = (now(), String::new());
        proof.proved = Some(Proved {
            allowed_rate,
            time,
            seal,
        });
        let own = Rate::new(10, Duration::from_secs(1), 1);
        proof.agreed(delivery.get("rateLimit").map(|_| own))
    };
    let own = Some(Rate::new(10, Duration::from_secs(1), 1));
    let limit = json!({"rateLimit": {"events": 10, "per": "1s"}});
    assert_eq!(agreed(&limit, None), own);
    assert_eq!(agreed(&limit, Some(600)), own);
    assert_eq!(agreed(&limit, Some(60)), Some(Rate::new(60, MINUTE, 1)));
    assert_eq!(agreed(&json!({}), Some(60)), Some(Rate::new(60, MINUTE, 1)));
    assert_eq!(agreed(&json!({}), None), None);
}

#[test]
fn a_seal_holds_for_one_object_url_manner_and_rate_alone() {
    use OwnershipProofType::{CloudEventsOptions, SignedChallenge};
    let (webhook, _) = asking("CloudEventsOptions", &json!({}), &json!({}));
    let url = json!({"url": "https://hooks.example.com/other"});
    let (other, _) = asking("CloudEventsOptions", &url, &json!({}));
    let (key, another) = (Secret::new([1; 32]), Secret::new([2; 32]));
    let sealed = |key, uid: &str, manner, webhook, origin, rate| {
        seal(key, &identity(uid), manner, webhook, origin, rate)
    };
    let seals = [
        sealed(&key, "u", CloudEventsOptions, &webhook, ORIGIN, None),
        sealed(&another, "u", CloudEventsOptions, &webhook, ORIGIN, None),
        sealed(&key, "v", CloudEventsOptions, &webhook, ORIGIN, None),
        sealed(&key, "u", SignedChallenge, &webhook, ORIGIN, None),
        sealed(&key, "u", CloudEventsOptions, &other, ORIGIN, None),
        sealed(&key, "u", CloudEventsOptions, &webhook, "other.example", None),
        sealed(&key, "u", CloudEventsOptions, &webhook, ORIGIN, Some(60)),
    ];
    let different: std::collections::HashSet<_> = seals.iter().collect();
    assert_eq!(different.len(), seals.len());
    let again = sealed(&key, "u", CloudEventsOptions, &webhook, ORIGIN, None);
    assert_eq!(again, seals[0]);
    // A challenge names no origin.
    let elsewhere = sealed(&key, "u", SignedChallenge, &webhook, "other.example", None);
    assert_eq!(elsewhere, seals[3]);
    assert!(seals.iter().all(|seal| seal.len() == 64));
}

#[test]
fn a_proof_needs_one_url_a_signature_and_a_receiver_of_ones_own() {
    let proof = |manner: &str| json!({"type": manner});
    for (webhook, fault) in [
        (
            json!({"url": "https://x.example/{{ $.event.type }}", "ownershipProof": proof("CloudEventsOptions")}),
            "spec.webhook.ownershipProof: the proof is for one URL",
        ),
        (
            json!({"ownershipProof": proof("SignedChallenge")}),
            "spec.webhook.ownershipProof: a challenge has to be signed",
        ),
        (
            json!({"payload": {"format": "Slack"}, "ownershipProof": proof("CloudEventsOptions")}),
            "spec.webhook.ownershipProof: the ready formats of services",
        ),
    ] {
        let fault_found = check(&webhook, &json!({})).unwrap_err();
        assert!(fault_found.contains(fault), "{fault_found}");
    }
}
