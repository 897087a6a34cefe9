//! What is refused of a URL.

use super::*;

#[test]
fn a_url_of_a_secret_has_no_placeholders() {
    let url = b"https://hooks.example.com/zzz/{{ $.event.type }}";
    for payload in [json!({}), json!({"format": "Slack"})] {
        let webhook = json!({"urlFrom": {"secretKeyRef": {"name": "s", "key": "url"}}, "payload": payload,
            "signing": {"scheme": "None"}});
        let faults = check(webhook, &[("s/url", url)]).unwrap_err();
        let [fault] = faults.as_slice() else {
            panic!("{faults:?}")
        };
        assert!(
            fault.starts_with(
                "spec.webhook.urlFrom: Secret \"s\" key \"url\": placeholders are for spec.webhook.url;"
            ),
            "{fault}"
        );
        assert!(!fault.contains("zzz"), "{fault}");
    }
}
