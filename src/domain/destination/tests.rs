//! Every fault names its field, and what is wrong in a Secret names the Secret, its key and no value.

use serde_json::json;

use super::*;
use crate::domain::secret::Secret;

mod url;

const KEY: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// Validates `spec.webhook`, with values of Secrets as `name/key`.
fn check(webhook: serde_json::Value, secrets: &[(&str, &[u8])]) -> Result<Destination, Vec<String>> {
    let mut webhook = webhook;
    if webhook.get("urlFrom").is_none() && webhook.get("url").is_none() {
        webhook["url"] = json!("https://hooks.example.com/in");
    }
    let spec = serde_json::from_value(json!({"events": ["*"], "webhook": webhook})).unwrap();
    let references = secrets
        .iter()
        .map(|(place, value)| {
            let (name, key) = place.split_once('/').unwrap();
            (secret(name, key), Reference::Found(Secret::new(value.to_vec())))
        })
        .collect();
    let mut references: References = references;
    let known: Vec<String> = references.keys().map(|key| key.name.clone()).collect();
    for (_, key) in value_references("hook", &spec) {
        if known.contains(&key.name) {
            references.entry(key).or_insert(Reference::NoKey);
        }
    }
    let identity = Identity {
        key: ObjectKey::new("shop", "hook"),
        uid: Uid::new("u"),
        generation: 1,
    };
    Destination::try_from_spec(identity, &spec, &references, &EgressPolicy::default()).map_err(|faults| {
        faults
            .iter()
            .map(|fault| format!("{}: {}", fault.path, fault.message))
            .collect()
    })
}

#[test]
fn a_destination_cannot_take_its_own_dead_letters() {
    let of = |name: &str| {
        let spec = json!({
            "events": ["*"], "webhook": {"url": "https://hooks.example.com/in", "signing": {"scheme": "None"}},
            "delivery": {"deadLetter": {"name": name}},
        });
        let identity = Identity {
            key: ObjectKey::new("shop", "hook"),
            uid: Uid::new("u"),
            generation: 1,
        };
        let spec = serde_json::from_value(spec).unwrap();
        Destination::try_from_spec(identity, &spec, &References::new(), &EgressPolicy::default())
    };
    assert_eq!(of("other").unwrap().policy.dead_letter.as_deref(), Some("other"));
    let faults = of("hook").unwrap_err();
    let paths: Vec<_> = faults.iter().map(|fault| &*fault.path).collect();
    assert_eq!(paths, ["spec.delivery.deadLetter.name"]);
}

#[test]
fn a_faulty_dedup_is_told_and_leaves_out_nothing() {
    let of = |key: &str, window: &str| {
        let spec = json!({
            "events": ["*"], "webhook": {"url": "https://hooks.example.com/in", "signing": {"scheme": "None"}},
            "delivery": {"dedup": {"key": key, "window": window}},
        });
        let spec: EventDestinationSpec = serde_json::from_value(spec).unwrap();
        let subscription = Subscription::of(&spec);
        let identity = crate::domain::event::sample::identity();
        let checked =
            Destination::try_from_spec(identity, &spec, &References::new(), &EgressPolicy::default());
        let faults = checked.err().into_iter().flat_map(|faults| {
            let paths: Vec<_> = faults.iter().map(|fault| fault.path.clone()).collect();
            paths
        });
        (subscription.dedup.is_some(), faults.collect::<Vec<_>>())
    };
    let (key, window) = ("spec.delivery.dedup.key", "spec.delivery.dedup.window");
    for (given, is_there, faults) in [
        (("$.event.user.id", "10m"), true, vec![]),
        (("$.event.user.id", "1s"), true, vec![]),
        (("$.event.user.id", "24h"), true, vec![]),
        (("$.event.usr.id", "10m"), false, vec![key]),
        (("$.event.user.id", "999ms"), false, vec![window]),
        (("$.event.user.id", "24h1s"), false, vec![window]),
        (("", "soon"), false, vec![key, window]),
    ] {
        let (found, told) = of(given.0, given.1);
        assert_eq!(
            (found, told),
            (is_there, faults.into_iter().map(Into::into).collect()),
            "{given:?}"
        );
    }
}

#[test]
fn a_spoilt_generated_key_is_told_by_its_secret_and_how_to_have_a_new_one() {
    let hmac = json!({"signing": {"scheme": "HmacSHA256", "header": "X-Sig"}});
    let remedy = "delete the Secret to have a new one made, and give the receiver the new key";
    for (webhook, value, fault) in [
        (
            json!({}),
            "zzz-garbage",
            "the signing key must start with whsec_, followed by base64",
        ),
        (json!({}), "whsec_zzz-garbage", "the signing key is not base64"),
        (hmac.clone(), "zzz-garbage\n", "the signing key ends in a newline"),
        (hmac, " ", "the signing key is blank"),
    ] {
        let faults = check(webhook, &[("hook-signing/secret", value.as_bytes())]).unwrap_err();
        let [told] = faults.as_slice() else {
            panic!("{faults:?}")
        };
        let start = format!("status.signingSecretRef: Secret \"hook-signing\" key \"secret\": {fault}");
        assert!(told.starts_with(&start) && told.ends_with(remedy), "{told}");
        assert!(!told.contains("zzz"), "{told}");
    }
}

#[test]
fn a_spoilt_secret_behind_a_field_is_told_by_field_secret_and_key() {
    let from = |key: &str| json!({"secretKeyRef": {"name": "s", "key": key}});
    let webhook = json!({
        "urlFrom": from("url"),
        "headers": [{"name": "X-Key", "valueFrom": from("api")}],
        "signing": {"secretRef": {"name": "s", "key": "signing"}},
    });
    for (url, api, signing, expected) in [
        (
            "zzz",
            "zzz\nzzz",
            "zzz",
            [
                "this is not a URL; give an absolute one, for example https://hooks.example.com/in",
                "a header value is visible ASCII of at most 4096 characters, without line breaks",
                "the signing key must start with whsec_, followed by base64",
            ],
        ),
        (
            " ",
            "",
            "whsec_zzz",
            [
                "the value is empty; fill it in",
                "the value is empty; fill it in",
                "the signing key is not base64 (standard alphabet, with padding) after whsec_",
            ],
        ),
    ] {
        let secrets = [
            ("s/url", url.as_bytes()),
            ("s/api", api.as_bytes()),
            ("s/signing", signing.as_bytes()),
        ];
        let [first, second, third] = expected;
        assert_eq!(
            check(webhook.clone(), &secrets).unwrap_err(),
            [
                format!("spec.webhook.urlFrom: Secret \"s\" key \"url\": {first}"),
                format!("spec.webhook.headers[0].valueFrom: Secret \"s\" key \"api\": {second}"),
                format!("spec.webhook.signing.secretRef: Secret \"s\" key \"signing\": {third}"),
            ]
        );
    }
    let secrets: [(&str, &[u8]); 3] = [
        ("s/url", b"\xff"),
        ("s/api", b"ok"),
        ("s/signing", KEY.as_bytes()),
    ];
    assert_eq!(
        check(webhook, &secrets).unwrap_err(),
        ["spec.webhook.urlFrom: Secret \"s\" key \"url\": the value is not UTF-8 text; replace it"]
    );
}

#[test]
fn a_signature_takes_the_place_of_no_other_header() {
    const PATH: &str = "spec.webhook.signing.header";
    let headers = json!([{"name": "X-A", "value": "1"}, {"name": "x-acme-SIGNATURE", "value": "1"}]);
    for (name, fault) in [
        (
            "X-Acme-Signature",
            "this header is also set by spec.webhook.headers[1]; choose another name for one of them",
        ),
        (
            "Content-Type",
            "every request has this header with another meaning; choose another name",
        ),
        (
            "user-agent",
            "every request has this header with another meaning; choose another name",
        ),
        (
            "webhook-signature",
            "this header is set by HTTP or by Postrider; choose another name",
        ),
        (
            "X-Postrider-Attempt",
            "this header is set by HTTP or by Postrider; choose another name",
        ),
        (
            "Content-Length",
            "this header is set by HTTP or by Postrider; choose another name",
        ),
    ] {
        let webhook = json!({"headers": headers, "signing": {"scheme": "HmacSHA256", "header": name}});
        let faults = check(webhook, &[("hook-signing/secret", b"key")]).unwrap_err();
        assert_eq!(faults, [format!("{PATH}: {fault}")], "{name}");
    }
    let webhook = json!({"headers": headers, "signing": {"scheme": "HmacSHA256", "header": "X-Other"}});
    assert!(check(webhook, &[("hook-signing/secret", b"key")]).is_ok());
}

#[test]
fn a_header_is_set_once_however_it_is_written() {
    let signing = json!({"scheme": "None"});
    let headers = json!([
        {"name": "X-A", "value": "1"},
        {"name": "X-B", "value": "1"},
        {"name": "x-a", "valueFrom": {"secretKeyRef": {"name": "none", "key": "none"}}},
    ]);
    let faults = check(json!({"headers": headers, "signing": signing}), &[]).unwrap_err();
    assert_eq!(
        faults,
        [
            "spec.webhook.headers[2].name: header \"x-a\" is set already by headers[0]; upper and lower case are the \
             same name; remove one of them",
            "spec.webhook.headers[2].valueFrom: Secret \"none\" does not exist; create it with key \"none\"",
        ]
    );
    let headers =
        json!([{"name": "Content-Type", "value": "text/plain"}, {"name": "User-Agent", "value": "me"}]);
    assert!(check(json!({"headers": headers, "signing": signing}), &[]).is_ok());
}

/// A webhook without URL in a ready format whose key is in Secret `s`, key `key`.
fn keyed(format: &str, options: &serde_json::Value) -> serde_json::Value {
    let mut all = json!({"keyFrom": {"secretKeyRef": {"name": "s", "key": "key"}}});
    for (name, value) in options.as_object().unwrap() {
        all[name] = value.clone();
    }
    json!({"url": null, "payload": {"format": format}, "formatOptions": all})
}

/// The webhook of a sound spec.
fn webhook(more: serde_json::Value, secrets: &[(&str, &[u8])]) -> Webhook {
    match check(more, secrets).unwrap().target {
        Target::Webhook(webhook) => *webhook,
        Target::Email(_) => panic!("the spec has a webhook"),
    }
}

#[test]
fn a_ready_format_needs_its_name_and_a_key_or_url() {
    let secrets: &[(&str, &[u8])] = &[("s/key", b" k3y\n")];
    let datadog = webhook(keyed("Datadog", &json!({"site": "datadoghq.eu"})), secrets);
    assert_eq!(datadog.endpoint.origin(), "https://http-intake.logs.datadoghq.eu");
    assert!(datadog.signer.signatures().is_empty());
    let (name, value) = &datadog.headers[0];
    assert_eq!((name.as_str(), value.to_str().unwrap()), ("dd-api-key", "k3y"));
    assert!(value.is_sensitive() && !format!("{datadog:?}").contains("k3y"));
    // A header of one's own does not take the key's place.
    let mut own = keyed("Datadog", &json!({}));
    own["headers"] = json!([{"name": "DD-API-Key", "value": "other"}, {"name": "X-A", "value": "1"}]);
    let own = webhook(own, secrets);
    let names: Vec<&str> = own.headers.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["x-a", "dd-api-key"]);
    assert_eq!(own.headers[1].1, "k3y");
    let slack = webhook(json!({"payload": {"format": "Slack"}}), &[]);
    assert_eq!(slack.endpoint.origin(), "https://hooks.example.com");
    let signed =
        json!({"payload": {"format": "Slack"}, "signing": {"secretRef": {"name": "s", "key": "sign"}}});
    let signed = webhook(signed, &[("s/sign", KEY.as_bytes())]);
    assert!(!signed.signer.signatures().is_empty());
}

#[test]
fn what_is_wrong_with_a_ready_format_names_its_field() {
    let slack =
        |options: serde_json::Value| json!({"payload": {"format": "Slack"}, "formatOptions": options});
    let key = json!({"secretKeyRef": {"name": "s", "key": "key"}});
    for (webhook, fault) in [
        (
            json!({"url": null, "payload": {"format": "Slack"}}),
            "url: format Slack needs url or urlFrom",
        ),
        (
            json!({"payload": {"format": "Datadog"}}),
            "formatOptions.keyFrom: format Datadog needs a key; name the Secret that holds it",
        ),
        (
            slack(json!({"keyFrom": key})),
            "formatOptions.keyFrom: format Slack has no key, its URL is the secret; remove it",
        ),
        (
            slack(json!({"chatID": "1"})),
            "formatOptions.chatID: format Telegram, and no other, needs the id of a chat",
        ),
        (
            keyed("Telegram", &json!({})),
            "formatOptions.chatID: format Telegram, and no other, needs the id of a chat",
        ),
        (
            slack(json!({"username": "u".repeat(81)})),
            "formatOptions.username: use 1 to 80 characters",
        ),
        (
            slack(json!({"tags": {"a b": "c"}})),
            "formatOptions.tags: tag \"a b\": a tag's name begins with a letter",
        ),
        (
            slack(json!({"tags": {"a": "c".repeat(101)}})),
            "formatOptions.tags: tag \"a\": a tag's name begins with a letter",
        ),
        (
            slack(json!({"severity": [{"events": [], "level": "Info"}]})),
            "formatOptions.severity[0].events: name at least one event type",
        ),
        (
            keyed("PagerDuty", &json!({"site": "MARS"})),
            "formatOptions.site: PagerDuty has no such site; use one of US, EU",
        ),
        (
            json!({"formatOptions": {"channel": "c"}, "signing": {"scheme": "None"}}),
            "formatOptions: this belongs to the ready formats of services",
        ),
    ] {
        let faults = check(webhook, &[("s/key", b"k3y")]).unwrap_err();
        let [told] = faults.as_slice() else {
            panic!("{fault}: {faults:?}")
        };
        assert!(told.starts_with(&format!("spec.webhook.{fault}")), "{told}");
    }
}

fn token(more: &serde_json::Value) -> serde_json::Value {
    let mut client = json!({
        "tokenURL": "https://login.example.com/token", "clientID": "me",
        "clientSecretFrom": {"secretKeyRef": {"name": "s", "key": "secret"}},
    });
    for (name, value) in more.as_object().unwrap() {
        client[name] = value.clone();
    }
    json!({"auth": {"oauth2ClientCredentials": client}, "signing": {"scheme": "None"}})
}

#[test]
fn user_and_password_become_a_header_that_does_not_show() {
    let own = json!({"username": "jürgen", "passwordFrom": {"secretKeyRef": {"name": "s", "key": "p"}}});
    let whole = json!({"secretRef": {"name": "s"}});
    for (basic, secrets) in [
        (own, vec![("s/p", &b"hunter2\n"[..])]),
        (
            whole,
            vec![("s/username", "jürgen".as_bytes()), ("s/password", b"hunter2")],
        ),
    ] {
        let spec = json!({"auth": {"basic": basic}, "signing": {"scheme": "None"}});
        let webhook = webhook(spec, &secrets);
        let [(name, value)] = webhook.headers.as_slice() else {
            panic!("{:?}", webhook.headers)
        };
        assert_eq!(
            (name.as_str(), value.to_str().unwrap()),
            ("authorization", "Basic asO8cmdlbjpodW50ZXIy")
        );
        assert!(value.is_sensitive() && !format!("{webhook:?}").contains("asO8"));
        assert!(
            webhook.request.passage.is_none(),
            "a header needs nothing of the transport"
        );
    }
}

#[test]
fn what_is_wrong_with_auth_names_its_field() {
    let basic = |basic: serde_json::Value| json!({"auth": {"basic": basic}, "signing": {"scheme": "None"}});
    let bearer = json!({"auth": {"bearer": {"secretKeyRef": {"name": "s", "key": "token"}}},
        "signing": {"scheme": "None"}});
    let mut opsgenie = keyed("Opsgenie", &json!({}));
    opsgenie["auth"] = bearer["auth"].clone();
    let mut signed = bearer.clone();
    signed["signing"] = json!({"scheme": "HmacSHA256", "header": "Authorization"});
    let mut also = bearer.clone();
    also["signing"] = json!({"also": [{"name": "a", "scheme": "GitHub", "header": "AUTHORIZATION"}]});
    let mut header = bearer.clone();
    header["headers"] = json!([{"name": "X-A", "value": "1"}, {"name": "AUTHORIZATION", "value": "1"}]);
    let secrets: &[(&str, &[u8])] = &[
        ("s/username", b"a:b"),
        ("s/password", b"p"),
        ("s/two", b"a\nb"),
        ("s/token", b"tok"),
        ("s/spaced", b"to ken"),
        ("s/secret", b"zzz"),
        ("s/key", b"00000000-0000-0000-0000-000000000000"),
        ("hook-signing/secret", b"key"),
        ("hook-signing/a", b"key"),
    ];
    let spaced = json!({"auth": {"bearer": {"secretKeyRef": {"name": "s", "key": "spaced"}}},
        "signing": {"scheme": "None"}});
    let oauth2 = "auth.oauth2ClientCredentials";
    for (webhook, fault) in [
        (
            basic(json!({"secretRef": {"name": "s"}})),
            "auth.basic.secretRef: a user name has no \":\" and no control characters".to_owned(),
        ),
        (
            basic(json!({"secretRef": {"name": "gone"}})),
            "auth.basic.secretRef: Secret \"gone\" does not exist; create it with key \"username\"".to_owned(),
        ),
        (
            basic(json!({"username": "me", "passwordFrom": {"secretKeyRef": {"name": "s", "key": "two"}}})),
            "auth.basic.username: a password has no control characters".to_owned(),
        ),
        (
            basic(json!({})),
            "auth.basic: set either secretRef, or username and passwordFrom".to_owned(),
        ),
        (
            spaced,
            "auth.bearer: Secret \"s\" key \"spaced\": a token is visible ASCII of at most 4096 characters, without \
             spaces"
                .to_owned(),
        ),
        (
            header,
            "headers[1].name: spec.webhook.auth sets this header; remove one of them".to_owned(),
        ),
        (
            signed,
            "signing.header: spec.webhook.auth sets this header; choose another name".to_owned(),
        ),
        (
            also,
            "signing.also[0].header: spec.webhook.auth sets this header; choose another name".to_owned(),
        ),
        (
            opsgenie,
            "auth: this format sets the header Authorization itself; remove auth".to_owned(),
        ),
        (
            token(&json!({"tokenURL": "http://169.254.169.254/token"})),
            format!("{oauth2}.tokenURL: "),
        ),
        (
            token(&json!({"clientIDFrom": {"secretKeyRef": {"name": "s", "key": "p"}}})),
            format!("{oauth2}: set exactly one of clientID and clientIDFrom"),
        ),
        (
            token(&json!({"clientSecretFrom": {"secretKeyRef": {"name": "s", "key": "none"}}})),
            format!("{oauth2}.clientSecretFrom: Secret \"s\" has no key \"none\"; add it"),
        ),
        (token(&json!({"scopes": ["a b"]})), format!("{oauth2}.scopes: at most 64")),
        (
            token(&json!({"parameters": {"client_secret": "x"}})),
            format!("{oauth2}.parameters: at most 16"),
        ),
        (
            json!({"auth": {}, "signing": {"scheme": "None"}}),
            "auth: set exactly one of basic, bearer and oauth2ClientCredentials".to_owned(),
        ),
    ] {
        let faults = check(webhook.clone(), secrets).unwrap_err();
        let told = &faults[0];
        assert!(told.starts_with(&format!("spec.webhook.{fault}")), "{told}");
        assert!(!told.contains("zzz"), "{told}");
    }
}

#[test]
fn a_client_of_a_token_endpoint_does_not_show_its_secret() {
    let webhook = webhook(
        token(&json!({"scopes": ["a", "b"], "authStyle": "Body"})),
        &[("s/secret", b"hunter2")],
    );
    assert!(webhook.headers.is_empty());
    assert!(!format!("{webhook:?}").contains("hunter2"), "{webhook:?}");
    let passage = webhook.request.passage.unwrap();
    let request = passage.credentials.as_ref().unwrap().request();
    assert_eq!(
        request.body,
        "grant_type=client_credentials&scope=a+b&client_id=me&client_secret=hunter2"
    );
}

#[test]
fn a_form_that_the_payload_cannot_have_is_a_fault() {
    let text = json!({"template": "total {{ $.event.data.total }}"});
    let tree = json!({"template": {"a": 1}});
    let none = json!({"scheme": "None"});
    let of = |content_type: &str, payload: &serde_json::Value| json!({"contentType": content_type, "payload": payload, "signing": none});
    let event = json!({"format": "Event"});
    let cloud_event = json!({"format": "CloudEvent"});
    for (webhook, fault) in [
        (of("application/json", &text), "contentType: the template is text"),
        (
            of("application/x-www-form-urlencoded", &text),
            "contentType: a form needs the members",
        ),
        (
            of("text/plain", &tree),
            "contentType: this belongs to templates that are text",
        ),
        (
            of("text/plain", &event),
            "contentType: this belongs to templates that are text",
        ),
        (
            of("application/cloudevents+json", &event),
            "contentType: this belongs to format CloudEvent",
        ),
        (
            of("application/json", &json!({"format": "Slack"})),
            "contentType: the ready formats of services",
        ),
        (
            json!({"cloudEvents": "Binary", "payload": event, "signing": none}),
            "cloudEvents: this belongs to format CloudEvent",
        ),
        (
            json!({"cloudEvents": "Binary", "payload": cloud_event, "signing": none,
                "headers": [{"name": "Content-Type", "value": "a/b"}]}),
            "headers[0].name: spec.webhook.cloudEvents: Binary sets this header",
        ),
    ] {
        let faults = check(webhook, &[]).unwrap_err();
        assert!(
            faults[0].starts_with(&format!("spec.webhook.{fault}")),
            "{faults:?}"
        );
        assert_eq!(faults.len(), 1, "{faults:?}");
    }
    for webhook in [
        of("application/json", &tree),
        of("application/json", &cloud_event),
        of("application/x-www-form-urlencoded", &event),
        of("application/cloudevents+json", &tree),
        of("text/plain", &text),
        json!({"cloudEvents": "Binary", "payload": cloud_event, "signing": none, "method": "PATCH"}),
    ] {
        assert!(check(webhook.clone(), &[]).is_ok(), "{webhook}");
    }
}

#[test]
fn a_proxy_is_read_with_the_login_of_its_secret_and_its_faults_name_the_field() {
    let none = json!({"scheme": "None"});
    let of = |proxy: serde_json::Value| json!({"proxy": proxy, "signing": none});
    let from = |key: &str| json!({"secretKeyRef": {"name": "s", "key": key}});
    let secrets: &[(&str, &[u8])] = &[
        ("s/url", b"http://me:hunter2@proxy.example:3128\n"),
        ("s/bad", b"socks5://me:hunter2@proxy.example"),
        ("s/username", b"you"),
        ("s/password", b"pass"),
    ];
    let login = json!({"secretRef": {"name": "s"}});
    let made = webhook(of(json!({"urlFrom": from("url"), "authFrom": login})), secrets);
    let passage = made.request.passage.unwrap();
    let proxy = passage.proxy.as_ref().unwrap();
    assert_eq!(proxy.origin(), "http://proxy.example:3128");
    assert_eq!(proxy.authorization.as_ref().unwrap(), "Basic eW91OnBhc3M=");
    for (proxy, fault) in [
        (
            json!({}),
            "proxy: set exactly one of url, urlFrom and direct: true",
        ),
        (
            json!({"direct": true, "url": "http://proxy.example"}),
            "proxy: set exactly one of url, urlFrom and direct: true",
        ),
        (
            json!({"url": "http://proxy.example/path"}),
            "proxy.url: a proxy's URL has no path",
        ),
        (
            json!({"urlFrom": from("bad")}),
            "proxy.urlFrom: Secret \"s\" key \"bad\": a proxy's scheme is http or https",
        ),
        (
            json!({"url": "http://proxy.example", "authFrom": {"secretRef": {"name": "gone"}}}),
            "proxy.authFrom.secretRef: Secret \"gone\" does not exist",
        ),
    ] {
        let faults = check(of(proxy), secrets).unwrap_err();
        assert!(
            faults[0].starts_with(&format!("spec.webhook.{fault}")),
            "{faults:?}"
        );
        assert!(!faults[0].contains("hunter2"), "{faults:?}");
    }
}
