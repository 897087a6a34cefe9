//! What the API server accepts and refuses in `spec.delivery.batch` and `dedup`: a change of a sound spec, and what is said
//! about it.

use super::rules::ACCEPTED;

const MAX_WAIT: &str = "maxWait must be a duration between 1s and 5m, such as 10s";
const BATCH: &str = "batch needs a webhook that takes JSON: remove it for email";
const BATCH_FIELDS: &str = "with batch, a request is for several events: remove the placeholders";
const WINDOW: &str = "window must be a duration between 1s and 24h, such as 10m";

pub(super) const POLICY: &[(&str, &str)] = &[
    // Batches.
    ("{delivery: {batch: {maxEvents: 2, maxWait: 1s}}}", ACCEPTED),
    (
        "{webhook: {url: 'https://a.example', method: PUT, contentType: application/json, headers: [{name: X-A, value: b}]}, delivery: {batch: {maxEvents: 100, maxWait: 5m}, dedup: {key: $.event.type, window: 1s}}}",
        ACCEPTED,
    ),
    (
        "{webhook: {url: 'https://a.example', payload: {format: CloudEvent}, cloudEvents: Structured}, delivery: {batch: {maxEvents: 9, maxWait: 1m}}}",
        ACCEPTED,
    ),
    (
        "{webhook: {url: 'https://a.example', payload: {template: {a: 1}}}, delivery: {ordering: None, batch: {maxEvents: 9, maxWait: 1m}}}",
        ACCEPTED,
    ),
    (
        "{delivery: {batch: {maxWait: 1s}}}",
        "spec.delivery.batch.maxEvents: Required value",
    ),
    (
        "{delivery: {batch: {maxEvents: 2}}}",
        "spec.delivery.batch.maxWait: Required value",
    ),
    (
        "{delivery: {batch: {maxEvents: 1, maxWait: 1s}}}",
        "should be greater than or equal to 2",
    ),
    (
        "{delivery: {batch: {maxEvents: 101, maxWait: 1s}}}",
        "should be less than or equal to 100",
    ),
    ("{delivery: {batch: {maxEvents: 2, maxWait: 999ms}}}", MAX_WAIT),
    ("{delivery: {batch: {maxEvents: 2, maxWait: 6m}}}", MAX_WAIT),
    (
        "{webhook: null, email: {to: [a@b.example]}, delivery: {batch: {maxEvents: 2, maxWait: 1s}}}",
        BATCH,
    ),
    (
        "{webhook: {url: 'https://a.example', payload: {format: Slack}}, delivery: {batch: {maxEvents: 2, maxWait: 1s}}}",
        BATCH,
    ),
    (
        "{webhook: {url: 'https://a.example', payload: {format: CloudEvent}, cloudEvents: Binary}, delivery: {batch: {maxEvents: 2, maxWait: 1s}}}",
        BATCH,
    ),
    (
        "{webhook: {url: 'https://a.example', contentType: application/x-www-form-urlencoded}, delivery: {batch: {maxEvents: 2, maxWait: 1s}}}",
        BATCH,
    ),
    (
        "{webhook: {url: 'https://a.example', payload: {template: 'a'}, contentType: text/plain}, delivery: {batch: {maxEvents: 2, maxWait: 1s}}}",
        BATCH,
    ),
    (
        "{webhook: {url: 'https://a.example/{{ $.event.type }}'}, delivery: {batch: {maxEvents: 2, maxWait: 1s}}}",
        BATCH_FIELDS,
    ),
    (
        "{webhook: {url: 'https://a.example', headers: [{name: X-A, value: '{{ $.event.type }}'}]}, delivery: {batch: {maxEvents: 2, maxWait: 1s}}}",
        BATCH_FIELDS,
    ),
    (
        "{delivery: {ordering: Fifo, batch: {maxEvents: 2, maxWait: 1s}}}",
        "batch and ordering: Fifo exclude each other",
    ),
    // What is the same.
    (
        "{delivery: {dedup: {key: $.event.data.invoice, window: 10m}}}",
        ACCEPTED,
    ),
    (
        "{delivery: {dedup: {key: '{{ $.event.type }}/{{ $.event.user.id }}', window: 24h}}}",
        ACCEPTED,
    ),
    (
        "{webhook: null, email: {to: [a@b.example]}, delivery: {dedup: {key: $.event.type, window: 1s}}}",
        ACCEPTED,
    ),
    (
        "{delivery: {dedup: {window: 10m}}}",
        "spec.delivery.dedup.key: Required value",
    ),
    (
        "{delivery: {dedup: {key: $.event.type}}}",
        "spec.delivery.dedup.window: Required value",
    ),
    (
        "{delivery: {dedup: {key: '', window: 10m}}}",
        "should be at least 1 chars long",
    ),
    ("{delivery: {dedup: {key: $.event.type, window: 500ms}}}", WINDOW),
    ("{delivery: {dedup: {key: $.event.type, window: 25h}}}", WINDOW),
    ("{delivery: {dedup: {key: $.event.type, window: soon}}}", WINDOW),
];
