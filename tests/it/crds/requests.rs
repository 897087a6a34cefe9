//! The same for what a webhook asks of its requests.

use super::rules::{ACCEPTED, URL};

const ONE_AUTH: &str = "set exactly one of basic, bearer and oauth2ClientCredentials";
const ONE_PROXY: &str = "set exactly one of url, urlFrom and direct: true";
const BASIC: &str = "set either secretRef, or username and passwordFrom";

pub(super) const REQUESTS: &[(&str, &str)] = &[
    // Who requests say they are from.
    (
        "{webhook: {auth: {bearer: {secretKeyRef: {name: s, key: token}}}}}",
        ACCEPTED,
    ),
    (
        "{webhook: {auth: {basic: {username: me, passwordFrom: {secretKeyRef: {name: s, key: p}}}}}}",
        ACCEPTED,
    ),
    ("{webhook: {auth: {basic: {secretRef: {name: s}}}}}", ACCEPTED),
    (
        "{webhook: {auth: {oauth2ClientCredentials: {tokenURL: 'https://login.example.com/token', clientID: me, SECRET}}}}",
        ACCEPTED,
    ),
    (
        "{webhook: {auth: {oauth2ClientCredentials: {tokenURL: 'https://login.example.com/token', clientIDFrom: {secretKeyRef: {name: s, key: id}}, SECRET, scopes: [a, 'https://x/.default'], audience: 'https://x', parameters: {resource: r}, authStyle: Body}}}}",
        ACCEPTED,
    ),
    ("{webhook: {auth: {}}}", ONE_AUTH),
    (
        "{webhook: {auth: {basic: {secretRef: {name: s}}, bearer: {secretKeyRef: {name: s, key: token}}}}}",
        ONE_AUTH,
    ),
    (
        "{webhook: {auth: {bearer: {}}}}",
        "bearer.secretKeyRef: Required value",
    ),
    ("{webhook: {auth: {basic: {}}}}", BASIC),
    ("{webhook: {auth: {basic: {username: me}}}}", BASIC),
    (
        "{webhook: {auth: {basic: {username: me, secretRef: {name: s}}}}}",
        BASIC,
    ),
    (
        "{webhook: {auth: {basic: {username: 'm:e', passwordFrom: {secretKeyRef: {name: s, key: p}}}}}}",
        "a user name has no \":\" and no control characters",
    ),
    (
        "{webhook: {auth: {oauth2ClientCredentials: {clientID: me, SECRET}}}}",
        "tokenURL: Required value",
    ),
    (
        "{webhook: {auth: {oauth2ClientCredentials: {tokenURL: '/token', clientID: me, SECRET}}}}",
        URL,
    ),
    (
        "{webhook: {auth: {oauth2ClientCredentials: {tokenURL: 'https://login.example.com/token', clientID: me}}}}",
        "clientSecretFrom: Required value",
    ),
    (
        "{webhook: {auth: {oauth2ClientCredentials: {tokenURL: 'https://login.example.com/token', SECRET}}}}",
        "set exactly one of clientID and clientIDFrom",
    ),
    (
        "{webhook: {auth: {oauth2ClientCredentials: {tokenURL: 'https://login.example.com/token', clientID: me, SECRET, scopes: ['a b']}}}}",
        "name each in an item of its own",
    ),
    (
        "{webhook: {auth: {oauth2ClientCredentials: {tokenURL: 'https://login.example.com/token', clientID: me, SECRET, parameters: {scope: a}}}}}",
        "scope and audience have fields of their own",
    ),
    (
        "{webhook: {auth: {oauth2ClientCredentials: {tokenURL: 'https://login.example.com/token', clientID: me, SECRET, authStyle: Query}}}}",
        "Unsupported value: \"Query\"",
    ),
    (
        "{webhook: {headers: [{name: AUTHORIZATION, value: x}], auth: {basic: {secretRef: {name: s}}}}}",
        "auth sets the header Authorization; remove it from headers",
    ),
    (
        "{webhook: {headers: [{name: Authorization, value: x}]}}",
        ACCEPTED,
    ),
    (
        "{webhook: {signing: {scheme: GitHub, header: authorization}, auth: {basic: {secretRef: {name: s}}}}}",
        "auth sets the header Authorization; choose another header for the signature",
    ),
    (
        "{webhook: {signing: {also: [{name: a, scheme: GitHub, header: Authorization}]}, auth: {basic: {secretRef: {name: s}}}}}",
        "auth sets the header Authorization; choose another header for the signature",
    ),
    (
        "{webhook: {signing: {also: [{name: a, scheme: GitHub, header: X-A}]}, auth: {basic: {secretRef: {name: s}}}}}",
        ACCEPTED,
    ),
    (
        "{webhook: {signing: {also: [{name: a, scheme: GitHub, header: Authorization}]}}}",
        ACCEPTED,
    ),
    // TLS.
    (
        "{webhook: {tls: {caFrom: {secretKeyRef: {name: s, key: ca.crt}}, clientCertificateFrom: {secretRef: {name: s}}, serverName: a-b.example.com}}}",
        ACCEPTED,
    ),
    (
        "{webhook: {url: 'HTTPS://hooks.example.com', tls: {serverName: x}}}",
        ACCEPTED,
    ),
    (
        "{webhook: {url: null, urlFrom: {secretKeyRef: {name: s, key: url}}, tls: {serverName: x}}}",
        ACCEPTED,
    ),
    (
        "{webhook: {url: 'http://hooks.example.com', tls: {serverName: x}}}",
        "tls needs an https URL",
    ),
    (
        "{webhook: {tls: {}}}",
        "set at least one of caFrom, clientCertificateFrom and serverName",
    ),
    (
        "{webhook: {tls: {caFrom: {configMapKeyRef: {name: c, key: ca.crt}}}}}",
        ACCEPTED,
    ),
    (
        "{webhook: {tls: {caFrom: {}}}}",
        "set exactly one of secretKeyRef and configMapKeyRef",
    ),
    (
        "{webhook: {tls: {caFrom: {secretKeyRef: {name: s, key: k}, configMapKeyRef: {name: c, key: k}}}}}",
        "set exactly one of secretKeyRef and configMapKeyRef",
    ),
    (
        "{webhook: {tls: {caFrom: {configMapKeyRef: {name: c}}}}}",
        "caFrom.configMapKeyRef.key: Required value",
    ),
    (
        "{webhook: {tls: {caFrom: {configMapKeyRef: {name: 'a/b', key: k}}}}}",
        "caFrom.configMapKeyRef.name",
    ),
    (
        "{webhook: {tls: {caFrom: {configMapKeyRef: {name: c, key: 'a b'}}}}}",
        "use letters, digits, \"-\", \"_\" and \".\"",
    ),
    (
        "{webhook: {tls: {clientCertificateFrom: {}}}}",
        "clientCertificateFrom.secretRef: Required value",
    ),
    (
        "{webhook: {tls: {serverName: 'https://x'}}}",
        "serverName must be a host name, for example hooks.example.com",
    ),
    // Method and form.
    ("{webhook: {method: PUT}}", ACCEPTED),
    ("{webhook: {method: PATCH}}", ACCEPTED),
    ("{webhook: {method: GET}}", "Unsupported value: \"GET\""),
    (
        "{webhook: {contentType: application/x-www-form-urlencoded}}",
        ACCEPTED,
    ),
    (
        "{webhook: {contentType: text/plain, payload: {template: text}}}",
        ACCEPTED,
    ),
    (
        "{webhook: {contentType: text/html}}",
        "Unsupported value: \"text/html\"",
    ),
    (
        "{webhook: {contentType: application/cloudevents+json, payload: {template: {a: b}}}}",
        ACCEPTED,
    ),
    (
        "{webhook: {contentType: application/cloudevents+json, payload: {format: Flat}}}",
        "belongs to format CloudEvent, or to a template that is one",
    ),
    (
        "{webhook: {contentType: application/json, payload: {format: Slack}}}",
        "the ready formats of services have a content type of their own",
    ),
    (
        "{webhook: {contentType: application/json, headers: [{name: content-TYPE, value: a/b}]}}",
        "contentType, cloudEvents and a header Content-Type exclude each other",
    ),
    (
        "{webhook: {cloudEvents: Binary, payload: {format: CloudEvent}}}",
        ACCEPTED,
    ),
    (
        "{webhook: {cloudEvents: Binary}}",
        "cloudEvents belongs to format CloudEvent",
    ),
    (
        "{webhook: {cloudEvents: Batched, payload: {format: CloudEvent}}}",
        "Unsupported value: \"Batched\"",
    ),
    (
        "{webhook: {cloudEvents: Binary, contentType: application/json, payload: {format: CloudEvent}}}",
        "contentType, cloudEvents and a header Content-Type exclude each other",
    ),
    // Compression.
    ("{webhook: {compression: {gzipAboveBytes: 0}}}", ACCEPTED),
    ("{webhook: {compression: {gzipAboveBytes: 1048576}}}", ACCEPTED),
    (
        "{webhook: {compression: {gzipAboveBytes: 1048577}}}",
        "should be less than or equal to 1048576",
    ),
    (
        "{webhook: {compression: {gzipAboveBytes: -1}}}",
        "should be greater than or equal to 0",
    ),
    ("{webhook: {compression: {}}}", "gzipAboveBytes: Required value"),
    // The proof of ownership.
    (
        "{webhook: {ownershipProof: {type: CloudEventsOptions}}}",
        ACCEPTED,
    ),
    ("{webhook: {ownershipProof: {type: SignedChallenge}}}", ACCEPTED),
    (
        "{webhook: {ownershipProof: {}}}",
        "ownershipProof.type: Required value",
    ),
    (
        "{webhook: {ownershipProof: {type: Letter}}}",
        "Unsupported value: \"Letter\"",
    ),
    (
        "{webhook: {url: null, urlFrom: {secretKeyRef: {name: s, key: url}}, ownershipProof: {type: SignedChallenge}}}",
        ACCEPTED,
    ),
    (
        "{webhook: {url: 'https://x.example/{{ $.event.type }}', ownershipProof: {type: CloudEventsOptions}}}",
        "ownershipProof is for one URL without placeholders",
    ),
    (
        "{webhook: {payload: {format: Slack}, ownershipProof: {type: CloudEventsOptions}}}",
        "not for the ready formats of services",
    ),
    (
        "{webhook: {payload: {format: CloudEvent}, ownershipProof: {type: CloudEventsOptions}}}",
        ACCEPTED,
    ),
    (
        "{webhook: {signing: {scheme: None}, ownershipProof: {type: CloudEventsOptions}}}",
        ACCEPTED,
    ),
    (
        "{webhook: {signing: {scheme: None}, ownershipProof: {type: SignedChallenge}}}",
        "a SignedChallenge has to be signed; set signing.scheme",
    ),
    // The proxy.
    (
        "{webhook: {proxy: {url: 'http://proxy.example.com:3128', authFrom: {secretRef: {name: s}}}}}",
        ACCEPTED,
    ),
    (
        "{webhook: {proxy: {urlFrom: {secretKeyRef: {name: s, key: url}}}}}",
        ACCEPTED,
    ),
    ("{webhook: {proxy: {}}}", ONE_PROXY),
    ("{webhook: {proxy: {direct: true}}}", ACCEPTED),
    (
        "{webhook: {proxy: {url: 'http://p.example', direct: false}}}",
        ACCEPTED,
    ),
    ("{webhook: {proxy: {direct: false}}}", ONE_PROXY),
    (
        "{webhook: {proxy: {url: 'http://p.example', direct: true}}}",
        ONE_PROXY,
    ),
    (
        "{webhook: {proxy: {direct: true, authFrom: {secretRef: {name: s}}}}}",
        ONE_PROXY,
    ),
    (
        "{webhook: {proxy: {url: 'http://p.example', urlFrom: {secretKeyRef: {name: s, key: url}}}}}",
        ONE_PROXY,
    ),
    ("{webhook: {proxy: {url: 'http://me:secret@p.example'}}}", URL),
    ("{webhook: {proxy: {url: 'socks5://p.example'}}}", URL),
];
