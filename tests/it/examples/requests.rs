//! The examples of requests, templates and mails, driven.

use rustls::version::TLS13;
use serde_json::{Value, json};
use tokio_rustls::TlsAcceptor;

use super::json_file;
use super::site::{Site, changed};
use crate::mail::server::{Make, Server, header};
use crate::support::{Authority, Manner, Program};
use crate::transport::receiver::{Receiver, answer, request};

const OK: &str = "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";

#[tokio::test(flavor = "multi_thread")]
async fn email_sends_one_mail_to_the_team_and_one_each_about_tenants() {
    let site = Site::set("email").await;
    let mut server = Server::start(Make::Python, &json!({}));
    site.smtp("smtp", &server);
    site.apply_without("email", "host: smtp.example.com", &[]);
    site.publish("email", &json_file("examples/email/event.json"))
        .await;
    let mail = server.mail();
    assert_eq!(
        mail["to"],
        json!(["ops@example.com", "oncall@example.com"]),
        "{mail}"
    );
    assert_eq!(header(&mail, "Reply-To"), "support@example.com");
    assert!(
        mail["parts"]["text/plain"]
            .as_str()
            .unwrap()
            .contains("rate limit"),
        "{mail}"
    );

    let tenant = json!({"type": "tenant_created", "data": {"tenant_id": 7, "tenant_name": "Globex <b>"}});
    site.publish("email", &tenant).await;
    let mut to = Vec::new();
    for _ in 0..2 {
        let mail = server.mail();
        assert_eq!(header(&mail, "Subject"), "Globex <b>: tenant_created");
        let html = mail["parts"]["text/html"].as_str().unwrap();
        assert!(html.contains("Tenant <b>Globex &lt;b&gt;</b>"), "{html}");
        to.push(mail["to"][0].as_str().unwrap().to_owned());
    }
    to.sort_unstable();
    assert_eq!(to, ["partner@example.org", "sales@example.com"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn templates_makes_url_header_and_body_of_each_event() {
    let site = Site::set("templates").await;
    site.apply("templates");
    site.publish("templates", &json_file("examples/templates/events.json"))
        .await;
    for (team, workflow, error, data) in [
        (
            "data%20%26%20ml",
            "Nightly import",
            "rate limit",
            json!({"team": "data & ml", "error": "rate limit"}),
        ),
        ("all", "none", "unknown", json!({})),
    ] {
        let path = format!("/templates/teams/{team}/in");
        let request = site.receiver.wait_for(&path, 1).await.remove(0);
        assert_eq!(request.query, "type=workflow_failure");
        assert_eq!(request.header("x-workflow"), workflow);
        let body = request.json();
        assert_eq!(body["title"], "workflow_failure in Templates");
        assert_eq!(body["error"], error);
        assert!(body["when"].is_u64(), "{body}");
        let details: Value = serde_json::from_str(body["details"].as_str().unwrap()).unwrap();
        assert_eq!(details, data);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn template_from_makes_the_bodies_of_both_destinations() {
    let site = Site::set("template-from").await;
    site.apply("template-from");
    let event = json!({"type": "workflow_failure", "timestamp": 1_729_629_642_607_u64, "data": {"error": "rate limit"}});
    site.publish("template-from", &event).await;
    for path in ["/template-from/webhook", "/template-from/audit"] {
        let body = site.receiver.wait_for(path, 1).await.remove(0).json();
        let expected = json!({
            "title": "workflow_failure in Acme", "when": 1_729_629_642_607_u64, "error": "rate limit",
        });
        assert_eq!(body, expected, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn auth_basic_and_cloudevents_binary_set_the_headers_they_say() {
    let site = Site::set("headers").await;
    site.apply("auth-basic");
    site.apply("cloudevents-binary");
    let event = json!({"type": "order.placed", "data": {"n": 1}});
    site.publish("auth-basic", &event).await;
    let basic = site.receiver.wait_for("/auth-basic/in", 1).await.remove(0);
    assert_eq!(
        basic.header("authorization"),
        "Basic cG9zdHJpZGVyOmNvcnJlY3QgaG9yc2UgYmF0dGVyeSBzdGFwbGU="
    );
    let basic = site.receiver.wait_for("/auth-basic/other", 1).await.remove(0);
    assert_eq!(
        basic.header("authorization"),
        "Basic YWNtZTpjb3JyZWN0IGhvcnNlIGJhdHRlcnkgc3RhcGxl"
    );
    let answer = site.publish("cloudevents-binary", &event).await;
    let binary = site
        .receiver
        .wait_for("/cloudevents-binary/in", 1)
        .await
        .remove(0);
    assert_eq!(
        ["ce-specversion", "ce-type", "ce-id", "content-type"].map(|name| binary.header(name)),
        [
            "1.0",
            "order.placed",
            answer["events"][0]["id"].as_str().unwrap(),
            "application/json"
        ]
    );
    assert_eq!(binary.json(), event["data"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn oauth2_is_accepted_by_a_receiver_that_checks_tokens() {
    let site = Site::set("oauth2").await;
    let settings = json!({
        "client": "postrider", "secret": "correct-horse-battery-staple", "style": "Body", "life": 3600,
        "scope": "events:write", "audience": "https://hooks.example.com",
    });
    let mut partner = Program::node("oauth2.mjs", &settings);
    let moved = [
        ("https://hooks.example.com/in", partner.fact("hook")),
        ("https://login.example.com/oauth2/token", partner.fact("token")),
    ];
    site.apply_with("oauth2", &moved);
    site.publish("oauth2", &json!({"type": "x"})).await;
    site.counts("oauth2", "delivered", 1).await;
    let counts = partner.ask("counts");
    assert_eq!(
        (&counts["tokens"], &counts["accepted"], &counts["rejected"]),
        (&json!(1), &json!(1), &json!(0))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn proxy_goes_through_the_proxy_and_direct_does_not() {
    let site = Site::set("proxy").await;
    let settings = json!({"user": "postrider", "password": "correct horse battery staple"});
    let mut proxy = Program::node("proxy.mjs", &settings);
    let moved = [
        ("https://hooks.example.com/in", &*site.receiver.url("/in")),
        ("http://proxy.example.com:3128", proxy.fact("url")),
    ];
    site.apply_with("proxy", &moved);
    site.publish("proxy", &json!({"type": "x"})).await;
    for destination in ["proxy", "direct"] {
        site.counts(destination, "delivered", 1).await;
    }
    let seen = proxy.ask("seen");
    assert_eq!(seen["requests"].as_array().map(Vec::len), Some(1), "{seen}");
    assert_eq!(site.receiver.received("/in").len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn form_puts_the_members_of_its_template() {
    let site = Site::set("form").await;
    site.apply("form");
    let event = json!({"id": "e1", "type": "invoice.paid", "user": {"id": "u 1"}, "data": {"total": 12}});
    site.publish("form", &event).await;
    let request = site.receiver.wait_for("/form/webhook", 1).await.remove(0);
    assert_eq!(request.method, "PUT");
    assert_eq!(
        request.header("content-type"),
        "application/x-www-form-urlencoded"
    );
    assert_eq!(request.body, "id=e1&total=12&type=invoice.paid&user%5Bid%5D=u+1");
}

#[tokio::test(flavor = "multi_thread")]
async fn ownership_cloudevents_sends_nothing_before_the_receiver_has_agreed() {
    let site = Site::set("handshake").await;
    let path = "/ownership-cloudevents/webhook";
    site.receiver.answer(path, Manner::Status(503));
    let here = site.receiver.url("/ownership-cloudevents");
    site.make(&changed(
        "ownership-cloudevents",
        &[("http://127.0.0.1:8094", &here)],
    ));
    let project = "eproj/ownership-cloudevents";
    site.kubectl(&["wait", "--for=condition=Ready", "--timeout=30s", project]);
    let waits = |ed: &Value| {
        ed["status"]["conditions"]
            .to_string()
            .contains("OwnershipUnproved")
    };
    site.until("ownership-cloudevents", "it waits for the proof", waits)
        .await;
    let event = json!({"type": "order.placed", "data": {"n": 1}});
    site.publish("ownership-cloudevents", &event).await;
    let asked = site.receiver.received(path);
    assert!(
        asked.iter().all(|request| request.method == "OPTIONS"),
        "{asked:?}"
    );
    let agrees = Manner::StatusWith(200, "webhook-allowed-origin", "*".to_owned());
    site.receiver.answer(path, agrees);
    let ed = site.counts("ownership-cloudevents", "delivered", 1).await;
    assert!(ed["status"]["ownershipProof"]["provedTime"].is_string(), "{ed}");
    let sent = site.receiver.received(path).pop().unwrap();
    assert_eq!(
        (sent.method.as_str(), sent.json()["type"].as_str()),
        ("POST", Some("order.placed"))
    );
}

/// A receiver behind TLS.
async fn behind(acceptor: TlsAcceptor) -> Receiver {
    Receiver::start(move |stream, log| {
        let acceptor = acceptor.clone();
        async move {
            let Ok(mut stream) = acceptor.accept(stream).await else {
                return;
            };
            log.note(request(&mut stream).await);
            answer(&mut stream, OK).await;
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn mtls_is_let_in_by_a_receiver_that_asks_for_a_certificate() {
    let site = Site::set("mtls").await;
    let authority = Authority::new();
    let receiver = behind(authority.asking("receiver.example.com", &TLS13)).await;
    let client = authority.pair("postrider.example.com");
    site.secret("mtls-authority", "Opaque", &json!({"ca.crt": authority.bundle()}));
    let pair = json!({"tls.crt": client.chain(), "tls.key": client.key()});
    site.secret("mtls-client", "kubernetes.io/tls", &pair);
    let moved = [(
        "https://hooks.example.com",
        &*format!("https://{}", receiver.address()),
    )];
    site.apply_without("mtls", "-----BEGIN CERTIFICATE-----", &moved);
    site.publish("mtls", &json!({"type": "order.placed"})).await;
    assert!(receiver.noted().await.contains("order.placed"));
    site.counts("mtls", "delivered", 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn private_authority_is_trusted_from_its_config_map() {
    let site = Site::set("private").await;
    let authority = Authority::new();
    let receiver = behind(Authority::showing(&authority.pair("127.0.0.1"))).await;
    let bundle = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "private-authority"},
        "data": {"ca.crt": authority.bundle()},
    });
    site.make(&bundle.to_string());
    let here = format!("https://{}", receiver.address());
    let moved = [("https://hooks.internal.example.com", &*here)];
    site.apply_without("private-authority", "-----BEGIN CERTIFICATE-----", &moved);
    site.publish("private-authority", &json!({"type": "order.placed"}))
        .await;
    assert!(receiver.noted().await.contains("order.placed"));
    site.counts("private-authority", "delivered", 1).await;
}
