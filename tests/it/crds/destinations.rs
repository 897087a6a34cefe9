//! What the API server accepts and refuses in an `EventDestination`: a change of a sound spec, and what is said about it.

use super::rules::{ACCEPTED, MAILBOX, NAME, URL};

pub(super) const HEADER: &str =
    "this is not a header name, or one that HTTP or Postrider itself sets; choose another name";
const TIMEOUT: &str = "timeout must be a duration between 100ms and 60s, such as 500ms or 15s";
const MAX_AGE: &str = "maxAge must be a duration between 1s and 720h";
const WAIT: &str = "each wait must be a duration of at most 168h, such as 5s or 1h30m";
const MINIMUM: &str = "minimumDuration must be a duration between 0s and 720h";
const PROBE: &str = "probeInterval must be 0s (never) or a duration between 1s and 168h, such as 15m";
const PATTERN: &str = "use letters, digits, \"_\", \".\", \"-\" and \"*\" in each pattern";
const KEY_FROM: &str =
    "keyFrom belongs to formats Datadog, NewRelic, PagerDuty, Opsgenie and Telegram, which need it";
const CHAT_ID: &str = "formatOptions.chatID belongs to format Telegram, which needs it";
const NO_READY_FORMAT: &str =
    "formatOptions belongs to the ready formats of services, such as Slack; set payload.format";
const STATUSES: &str =
    "use statuses such as \"409\", ranges such as \"200-299\" or classes such as \"2xx\" in each entry";
const FAILURES: &str = "use statuses such as \"429\", ranges such as \"500-599\", classes such as \"5xx\" or reasons that are tried again";
const PER: &str = "per must be a duration between 1s and 24h, such as 1s or 1m";
const TAG: &str = "a tag's name begins with a letter and has at most 32 letters, digits";

pub(super) const DESTINATIONS: &[(&str, &str)] = &[
    // The spec itself.
    ("{}", ACCEPTED),
    ("{webhook: null}", "set exactly one target: spec.webhook"),
    (
        "{email: {to: [a@b.example]}}",
        "set exactly one target: spec.webhook or spec.email",
    ),
    // E-mail.
    (
        "{webhook: null, email: {to: [a@b.example, 'Ops Team <ops@b.example>']}}",
        ACCEPTED,
    ),
    (
        "{webhook: null, email: {to: [jürgen@bücher.example], cc: [a@b.example], replyTo: [a@b.example], from: a@b.example, subject: s, text: t, html: h, perRecipient: true, smtpRef: {name: mail}}}",
        ACCEPTED,
    ),
    (
        "{webhook: null, email: {to: []}}",
        "spec.email.to in body should have at least 1 items",
    ),
    ("{webhook: null, email: {}}", "spec.email.to: Required value"),
    ("{webhook: null, email: {to: [ops]}}", MAILBOX),
    (
        "{webhook: null, email: {to: [\"a@b.example\\nBcc: c@d.example\"]}}",
        MAILBOX,
    ),
    ("{webhook: null, email: {to: [a@b.example], from: me}}", MAILBOX),
    (
        "{webhook: null, email: {to: [a@b.example], cc: ['@b.example']}}",
        MAILBOX,
    ),
    (
        "{webhook: null, email: {to: [a@b.example], smtpRef: {name: ../x}}}",
        NAME,
    ),
    ("{webhook: {urll: x}}", "unknown field \"spec.webhook.urll\""),
    ("{suspend: true}", ACCEPTED),
    ("{suspend: 'yes'}", "must be of type boolean"),
    ("{projectRef: {name: acme}}", ACCEPTED),
    ("{projectRef: {}}", "spec.projectRef.name: Required value"),
    (
        "{projectRef: {name: ''}}",
        "spec.projectRef.name in body should be at least 1 chars long",
    ),
    ("{projectRef: {name: ../other}}", NAME),
    // Event patterns.
    (
        "{events: [workflow_failure, 'record_*', 'a.b-C9', '*']}",
        ACCEPTED,
    ),
    ("{events: null}", "spec.events: Required value"),
    ("{events: []}", "spec.events in body should have at least 1 items"),
    (
        "{events: ['']}",
        "spec.events[0] in body should be at least 1 chars long",
    ),
    ("{events: ['run failed']}", PATTERN),
    ("{events: ['run/failed']}", PATTERN),
    ("{events: [ok, 'é']}", PATTERN),
    ("{events: [LONG128]}", ACCEPTED),
    ("{events: [LONG129]}", "Too long"),
    ("{events: TIMES64}", ACCEPTED),
    ("{events: TIMES65}", "Too many: 65: must have at most 64 items"),
    // The filter.
    ("{filter: 'event.data.total > 100'}", ACCEPTED),
    ("{filter: ''}", "should be at least 1 chars long"),
    ("{filter: 5}", "must be of type string"),
    // What an answer means.
    (
        "{delivery: {success: ['2xx', '409', '200-299'], retry: {retryOn: ['5xx', '408', Timeout], giveUpOn: ['400-499']}}}",
        ACCEPTED,
    ),
    ("{delivery: {success: []}}", "should have at least 1 items"),
    ("{delivery: {success: [409]}}", "must be of type string"),
    ("{delivery: {success: ['199']}}", STATUSES),
    ("{delivery: {success: ['6xx']}}", STATUSES),
    ("{delivery: {success: [Timeout]}}", STATUSES),
    ("{delivery: {retry: {retryOn: ['408-']}}}", FAILURES),
    ("{delivery: {retry: {giveUpOn: [timeout]}}}", FAILURES),
    ("{delivery: {retry: {retryOn: [TimeOut]}}}", FAILURES),
    (
        "{delivery: {retry: {giveUpOn: [Timeout, TimeoutError]}}}",
        FAILURES,
    ),
    ("{delivery: {retry: {retryOn: [EgressRefused]}}}", FAILURES),
    (
        "{delivery: {retry: {retryOn: [ConnectionReset, TokenRequestFailed], giveUpOn: [Gone, ProxyFailed]}}}",
        ACCEPTED,
    ),
    (
        "{webhook: null, email: {to: [a@b.example]}, delivery: {success: ['2xx']}}",
        "success belongs to webhooks",
    ),
    // The rate.
    ("{delivery: {rateLimit: {events: 50, per: 1m}}}", ACCEPTED),
    (
        "{delivery: {rateLimit: {events: 100000, per: 24h, burst: 100000}}}",
        ACCEPTED,
    ),
    (
        "{delivery: {rateLimit: {per: 1m}}}",
        "spec.delivery.rateLimit.events: Required value",
    ),
    (
        "{delivery: {rateLimit: {events: 1}}}",
        "spec.delivery.rateLimit.per: Required value",
    ),
    (
        "{delivery: {rateLimit: {events: 0, per: 1m}}}",
        "should be greater than or equal to 1",
    ),
    ("{delivery: {rateLimit: {events: 1, per: 500ms}}}", PER),
    ("{delivery: {rateLimit: {events: 1, per: 25h}}}", PER),
    (
        "{delivery: {rateLimit: {events: 1, per: 1s, burst: 0}}}",
        "should be greater than or equal to 1",
    ),
    // Order.
    ("{delivery: {ordering: Fifo}}", ACCEPTED),
    ("{delivery: {ordering: None}}", ACCEPTED),
    (
        "{delivery: {ordering: Fifo, orderingKey: $.event.user.id}}",
        ACCEPTED,
    ),
    ("{delivery: {ordering: Lifo}}", "supported values"),
    (
        "{delivery: {orderingKey: $.event.user.id}}",
        "orderingKey belongs to ordering: Fifo",
    ),
    (
        "{delivery: {ordering: Fifo, orderingKey: ''}}",
        "should be at least 1 chars long",
    ),
    // Dead letters.
    ("{delivery: {deadLetter: {name: others}}}", ACCEPTED),
    (
        "{delivery: {deadLetter: {}}}",
        "spec.delivery.deadLetter.name: Required value",
    ),
    ("{delivery: {deadLetter: {name: ../x}}}", NAME),
    ("{delivery: {deadLetter: others}}", "must be of type object"),
    // Ready formats.
    ("{webhook: {payload: {format: Slack}}}", ACCEPTED),
    (
        "{webhook: {url: null, urlFrom: {secretKeyRef: {name: s, key: dsn}}, payload: {format: Sentry}}}",
        ACCEPTED,
    ),
    (
        "{webhook: {url: null, payload: {format: Slack}}}",
        "only formats Datadog, NewRelic, PagerDuty, Opsgenie and Telegram know their URL",
    ),
    (
        "{webhook: {url: null, payload: {format: Datadog}, formatOptions: {KEY}}}",
        ACCEPTED,
    ),
    (
        "{webhook: {payload: {format: PagerDuty}, formatOptions: {KEY, site: EU}}}",
        ACCEPTED,
    ),
    (
        "{webhook: {urlFrom: {secretKeyRef: {name: s, key: url}}, payload: {format: Datadog}, formatOptions: {KEY}}}",
        "set exactly one of url and urlFrom",
    ),
    ("{webhook: {url: null, payload: {format: Datadog}}}", KEY_FROM),
    (
        "{webhook: {url: null, payload: {format: NewRelic}, formatOptions: {site: EU}}}",
        KEY_FROM,
    ),
    (
        "{webhook: {payload: {format: Slack}, formatOptions: {KEY}}}",
        KEY_FROM,
    ),
    (
        "{webhook: {url: null, payload: {format: Telegram}, formatOptions: {KEY, chatID: '-1001'}}}",
        ACCEPTED,
    ),
    (
        "{webhook: {url: null, payload: {format: Telegram}, formatOptions: {KEY}}}",
        CHAT_ID,
    ),
    (
        "{webhook: {payload: {format: Slack}, formatOptions: {chatID: '-1001'}}}",
        CHAT_ID,
    ),
    (
        "{webhook: {payload: {format: Slack}, formatOptions: {channel: ops, username: Acme}}}",
        ACCEPTED,
    ),
    (
        "{webhook: {payload: {format: Slack}, formatOptions: {username: ''}}}",
        "should be at least 1 chars long",
    ),
    (
        "{webhook: {payload: {format: Slack}, formatOptions: {username: LONG129}}}",
        "Too long",
    ),
    ("{webhook: {formatOptions: {channel: ops}}}", NO_READY_FORMAT),
    (
        "{webhook: {payload: {format: Event}, formatOptions: {channel: ops}}}",
        NO_READY_FORMAT,
    ),
    (
        "{webhook: {payload: {template: {a: b}}, formatOptions: {channel: ops}}}",
        NO_READY_FORMAT,
    ),
    (
        "{webhook: {payload: {format: Slak}}}",
        "spec.webhook.payload.format: Unsupported value: \"Slak\"",
    ),
    (
        "{webhook: {payload: {format: Sentry}, formatOptions: {tags: {team: a, a.b-c_9: ''}}}}",
        ACCEPTED,
    ),
    (
        "{webhook: {payload: {format: Sentry}, formatOptions: {tags: {9a: b}}}}",
        TAG,
    ),
    (
        "{webhook: {payload: {format: Sentry}, formatOptions: {tags: {'a b': b}}}}",
        TAG,
    ),
    (
        "{webhook: {payload: {format: Sentry}, formatOptions: {tags: {a: LONG129}}}}",
        TAG,
    ),
    (
        "{webhook: {payload: {format: Sentry}, formatOptions: {severity: [{events: ['run_*'], level: Critical}]}}}",
        ACCEPTED,
    ),
    (
        "{webhook: {payload: {format: Sentry}, formatOptions: {severity: [{events: ['run_*'], level: Worst}]}}}",
        "Unsupported value: \"Worst\"",
    ),
    (
        "{webhook: {payload: {format: Sentry}, formatOptions: {severity: [{events: [], level: Info}]}}}",
        "should have at least 1 items",
    ),
    (
        "{webhook: {payload: {format: Sentry}, formatOptions: {severity: [{events: ['a b'], level: Info}]}}}",
        PATTERN,
    ),
    (
        "{webhook: {payload: {format: Sentry}, formatOptions: {severity: [{events: ['a']}]}}}",
        "level: Required value",
    ),
    // The URL.
    ("{webhook: {url: 'http://hooks.example.com'}}", ACCEPTED),
    (
        "{webhook: {url: 'HTTPS://Hooks.Example.com:8443/a?b=c'}}",
        ACCEPTED,
    ),
    ("{webhook: {url: 'http://127.0.0.1:8080/in'}}", ACCEPTED),
    ("{webhook: {url: 'http://[::1]:8080/in'}}", ACCEPTED),
    (
        "{webhook: {url: 'https://hooks.example.com/mail@example'}}",
        ACCEPTED,
    ),
    ("{webhook: {url: 'ftp://hooks.example.com'}}", URL),
    ("{webhook: {url: 'hooks.example.com/in'}}", URL),
    ("{webhook: {url: '/in'}}", URL),
    ("{webhook: {url: 'https:///in'}}", URL),
    ("{webhook: {url: 'https://'}}", URL),
    ("{webhook: {url: 'https://:443/in'}}", URL),
    ("{webhook: {url: 'https://user@hooks.example.com'}}", URL),
    ("{webhook: {url: 'https://user:pass@hooks.example.com'}}", URL),
    ("{webhook: {url: 'https://hooks.example.com/a b'}}", URL),
    (
        "{webhook: {url: 'https://hooks.example.com/in/{{ $.event.type }}?user={{ event.user.id | default(\"}\") }}&a={b}'}}",
        ACCEPTED,
    ),
    ("{webhook: {url: 'https://{{ $.event.data.host }}/in'}}", URL),
    (
        "{webhook: {url: 'https://hooks.example.com/{{ $.event.type'}}",
        URL,
    ),
    (
        "{webhook: {headers: [{name: X-Run, value: 'run {{ $.event.id }}'}]}}",
        ACCEPTED,
    ),
    (
        "{webhook: {url: ''}}",
        "spec.webhook.url in body should be at least 1 chars long",
    ),
    (
        "{webhook: {url: 'https://hooks.example.com/LONG2048'}}",
        "Too long",
    ),
    (
        "{webhook: {url: null, urlFrom: {secretKeyRef: {name: s, key: url}}}}",
        ACCEPTED,
    ),
    (
        "{webhook: {urlFrom: {secretKeyRef: {name: s, key: url}}}}",
        "set exactly one of url and urlFrom",
    ),
    ("{webhook: {url: null}}", "set exactly one of url and urlFrom"),
    (
        "{webhook: {url: null, urlFrom: {}}}",
        "spec.webhook.urlFrom.secretKeyRef: Required value",
    ),
    (
        "{webhook: {url: null, urlFrom: {secretKeyRef: {name: s}}}}",
        "secretKeyRef.key: Required value",
    ),
    (
        "{webhook: {url: null, urlFrom: {secretKeyRef: {name: ../x, key: url}}}}",
        NAME,
    ),
    (
        "{webhook: {url: null, urlFrom: {secretKeyRef: {name: S, key: url}}}}",
        NAME,
    ),
    (
        "{webhook: {url: null, urlFrom: {secretKeyRef: {name: s, key: 'a b'}}}}",
        "use letters, digits, \"-\", \"_\" and \".\"",
    ),
    // Headers.
    (
        "{webhook: {headers: [{name: X-A, value: '1'}, {name: X-B, valueFrom: {secretKeyRef: {name: s, key: k}}}]}}",
        ACCEPTED,
    ),
    (
        "{webhook: {headers: [{name: Content-Type, value: text/plain}]}}",
        ACCEPTED,
    ),
    (
        "{webhook: {headers: [{name: \"X!#$%&*+.^_`|~-\", value: '1'}]}}",
        ACCEPTED,
    ),
    ("{webhook: {headers: [{name: 'X A', value: '1'}]}}", HEADER),
    ("{webhook: {headers: [{name: 'X:', value: '1'}]}}", HEADER),
    ("{webhook: {headers: [{name: Host, value: '1'}]}}", HEADER),
    (
        "{webhook: {headers: [{name: CONTENT-LENGTH, value: '1'}]}}",
        HEADER,
    ),
    (
        "{webhook: {headers: [{name: transfer-encoding, value: '1'}]}}",
        HEADER,
    ),
    ("{webhook: {headers: [{name: Connection, value: '1'}]}}", HEADER),
    ("{webhook: {headers: [{name: Keep-Alive, value: '1'}]}}", HEADER),
    (
        "{webhook: {headers: [{name: Proxy-Connection, value: '1'}]}}",
        HEADER,
    ),
    ("{webhook: {headers: [{name: TE, value: '1'}]}}", HEADER),
    ("{webhook: {headers: [{name: Trailer, value: '1'}]}}", HEADER),
    ("{webhook: {headers: [{name: Upgrade, value: '1'}]}}", HEADER),
    ("{webhook: {headers: [{name: Expect, value: '1'}]}}", HEADER),
    (
        "{webhook: {headers: [{name: Content-Encoding, value: '1'}]}}",
        HEADER,
    ),
    (
        "{webhook: {headers: [{name: Accept-Encoding, value: '1'}]}}",
        HEADER,
    ),
    ("{webhook: {headers: [{name: Webhook-Id, value: '1'}]}}", HEADER),
    (
        "{webhook: {headers: [{name: webhook-timestamp, value: '1'}]}}",
        HEADER,
    ),
    (
        "{webhook: {headers: [{name: Webhook-Signature, value: '1'}]}}",
        HEADER,
    ),
    (
        "{webhook: {headers: [{name: X-Postrider-Attempt, value: '1'}]}}",
        HEADER,
    ),
    (
        "{webhook: {headers: [{name: '', value: '1'}]}}",
        "should be at least 1 chars long",
    ),
    ("{webhook: {headers: [{name: LONG129, value: '1'}]}}", "Too long"),
    (
        "{webhook: {headers: [{name: X-A, value: \"tab\\tand space~\"}]}}",
        ACCEPTED,
    ),
    (
        "{webhook: {headers: [{name: X-A, value: \"a\\nb\"}]}}",
        "use visible ASCII without line breaks",
    ),
    (
        "{webhook: {headers: [{name: X-A, value: 'é'}]}}",
        "use visible ASCII without line breaks",
    ),
    (
        "{webhook: {headers: [{name: X-A}]}}",
        "set exactly one of value and valueFrom",
    ),
    (
        "{webhook: {headers: [{name: X-A, value: '1', valueFrom: {secretKeyRef: {name: s, key: k}}}]}}",
        "set exactly one of value and valueFrom",
    ),
    (
        "{webhook: {headers: [{name: X-A, value: '1'}, {name: X-A, value: '2'}]}}",
        "Duplicate value",
    ),
    (
        "{webhook: {headers: [{name: X-A, value: '1'}, {name: x-a, value: '2'}]}}",
        "each header may be set once; upper and lower case are the same name",
    ),
    ("{webhook: {headers: HEADERS32}}", ACCEPTED),
    (
        "{webhook: {headers: HEADERS33}}",
        "Too many: 33: must have at most 32 items",
    ),
    // The payload.
    ("{webhook: {payload: {format: Event}}}", ACCEPTED),
    (
        "{webhook: {payload: {format: Xml}}}",
        "supported values: \"Default\", \"Event\", \"Sync\", \"Flat\", \"Envelope\", \"CloudEvent\"",
    ),
    (
        "{webhook: {payload: {template: {text: '{{ $.event.type }}', list: [1, null, {a: true}]}}}}",
        ACCEPTED,
    ),
    ("{webhook: {payload: {template: '{{ $.event.type }}'}}}", ACCEPTED),
    ("{webhook: {payload: {template: [1, 2]}}}", ACCEPTED),
    (
        "{webhook: {payload: {format: Event, template: {}}}}",
        "spec.webhook.payload: Too many: 2: must have at most 1 item",
    ),
    (
        "{webhook: {payload: {templateFrom: {configMapKeyRef: {name: body, key: order.json}}}}}",
        ACCEPTED,
    ),
    (
        "{webhook: {payload: {templateFrom: {}}}}",
        "templateFrom.configMapKeyRef: Required value",
    ),
    (
        "{webhook: {payload: {template: {}, templateFrom: {configMapKeyRef: {name: body, key: order.json}}}}}",
        "spec.webhook.payload: Too many: 2: must have at most 1 item",
    ),
    // Durations and bounds.
    ("{delivery: {timeout: 100ms}}", ACCEPTED),
    ("{delivery: {timeout: 60s}}", ACCEPTED),
    ("{delivery: {timeout: 1m}}", ACCEPTED),
    ("{delivery: {timeout: 1.5s}}", ACCEPTED),
    ("{delivery: {timeout: 99ms}}", TIMEOUT),
    ("{delivery: {timeout: 61s}}", TIMEOUT),
    ("{delivery: {timeout: '5'}}", TIMEOUT),
    ("{delivery: {timeout: -1s}}", TIMEOUT),
    ("{delivery: {timeout: 1d}}", TIMEOUT),
    ("{delivery: {timeout: 5s5s}}", TIMEOUT),
    ("{delivery: {timeout: 9999999h}}", TIMEOUT),
    ("{delivery: {timeout: 999999h999999m999999999s}}", TIMEOUT),
    ("{delivery: {timeout: 5}}", "must be of type string"),
    ("{delivery: {timeout: ''}}", "should be at least 1 chars long"),
    ("{delivery: {maxAge: 1s}}", ACCEPTED),
    ("{delivery: {maxAge: 720h}}", ACCEPTED),
    ("{delivery: {maxAge: 1h30m}}", ACCEPTED),
    ("{delivery: {maxAge: 0s}}", MAX_AGE),
    ("{delivery: {maxAge: 720h1s}}", MAX_AGE),
    ("{delivery: {maxInFlight: 1}}", ACCEPTED),
    ("{delivery: {maxInFlight: 1024}}", ACCEPTED),
    (
        "{delivery: {maxInFlight: 0}}",
        "should be greater than or equal to 1",
    ),
    (
        "{delivery: {maxInFlight: 1025}}",
        "should be less than or equal to 1024",
    ),
    ("{delivery: {retry: {schedule: [0s, 5s, 168h]}}}", ACCEPTED),
    ("{delivery: {retry: {schedule: [5s, 169h]}}}", WAIT),
    ("{delivery: {retry: {schedule: [soon]}}}", WAIT),
    (
        "{delivery: {retry: {schedule: []}}}",
        "should have at least 1 items",
    ),
    ("{delivery: {retry: {schedule: WAITS32}}}", ACCEPTED),
    (
        "{delivery: {retry: {schedule: WAITS33}}}",
        "Too many: 33: must have at most 32 items",
    ),
    ("{delivery: {retry: {maxAttempts: 1}}}", ACCEPTED),
    ("{delivery: {retry: {maxAttempts: 100}}}", ACCEPTED),
    (
        "{delivery: {retry: {maxAttempts: 0}}}",
        "should be greater than or equal to 1",
    ),
    (
        "{delivery: {retry: {maxAttempts: 101}}}",
        "should be less than or equal to 100",
    ),
    // Auto-disable.
    (
        "{autoDisable: {enabled: false, consecutiveFailures: 1, minimumDuration: 0s, probeInterval: 0s}}",
        ACCEPTED,
    ),
    (
        "{autoDisable: {consecutiveFailures: 10000, minimumDuration: 720h, probeInterval: 168h}}",
        ACCEPTED,
    ),
    (
        "{autoDisable: {consecutiveFailures: 0}}",
        "should be greater than or equal to 1",
    ),
    (
        "{autoDisable: {consecutiveFailures: 10001}}",
        "should be less than or equal to 10000",
    ),
    ("{autoDisable: {minimumDuration: 721h}}", MINIMUM),
    ("{autoDisable: {probeInterval: 1s}}", ACCEPTED),
    ("{autoDisable: {probeInterval: 500ms}}", PROBE),
    ("{autoDisable: {probeInterval: 169h}}", PROBE),
    ("{autoDisable: {probeInterval: never}}", PROBE),
];
