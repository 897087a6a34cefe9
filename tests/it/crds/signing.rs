//! What the API server accepts and refuses in `spec.webhook.signing`: a change of a sound spec, and what is said about it.

use super::destinations::HEADER;
use super::rules::ACCEPTED;

const HEADER_ONLY: &str = "header belongs to schemes HmacSHA256, Hmac, Stripe and GitHub";
const WRITING_ONLY: &str = "prefix and encoding belong to schemes HmacSHA256 and Hmac";
const CUSTOM_ONLY: &str = "algorithm and signedContent belong to scheme Hmac";
const SAME_HEADER: &str = "two signatures want the same header; give one of them another";
const SIGNATURE_NAME: &str =
    "use lower-case letters, digits and \"-\", and neither \"secret\" nor \"rotation\"";
const PREVIOUS: &str = "previousSecretTTL must be a duration between 0s and 168h, such as 24h";

pub(super) const SIGNING: &[(&str, &str)] = &[
    (
        "{webhook: {signing: {scheme: StandardWebhooksEd25519, previousSecretTTL: 168h}}}",
        ACCEPTED,
    ),
    (
        "{webhook: {signing: {scheme: StandardWebhooksEd25519, header: X-Sig}}}",
        HEADER_ONLY,
    ),
    ("{webhook: {signing: {scheme: Stripe}}}", ACCEPTED),
    (
        "{webhook: {signing: {scheme: Stripe, header: Acme-Signature, previousSecretTTL: 0s}}}",
        ACCEPTED,
    ),
    (
        "{webhook: {signing: {scheme: Stripe, prefix: 't='}}}",
        WRITING_ONLY,
    ),
    (
        "{webhook: {signing: {scheme: GitHub, header: X-Acme-256}}}",
        ACCEPTED,
    ),
    (
        "{webhook: {signing: {scheme: GitHub, encoding: Base64}}}",
        WRITING_ONLY,
    ),
    (
        "{webhook: {signing: {scheme: Hmac, header: X-Sig, algorithm: SHA384, signedContent: '{{ $.body }}', encoding: Hex, prefix: a}}}",
        ACCEPTED,
    ),
    (
        "{webhook: {signing: {scheme: Hmac}}}",
        "schemes HmacSHA256 and Hmac need header, the name of the header",
    ),
    (
        "{webhook: {signing: {scheme: Hmac, header: X-Sig, algorithm: MD5}}}",
        "Unsupported value: \"MD5\"",
    ),
    (
        "{webhook: {signing: {scheme: Hmac, header: X-Sig, signedContent: ''}}}",
        "should be at least 1 chars long",
    ),
    (
        "{webhook: {signing: {scheme: Hmac, header: X-Sig, signedContent: LONG257}}}",
        "Too long",
    ),
    (
        "{webhook: {signing: {scheme: HmacSHA256, header: X-Sig, algorithm: SHA512}}}",
        CUSTOM_ONLY,
    ),
    (
        "{webhook: {signing: {signedContent: '{{ $.body }}'}}}",
        CUSTOM_ONLY,
    ),
    ("{webhook: {signing: {previousSecretTTL: 169h}}}", PREVIOUS),
    ("{webhook: {signing: {previousSecretTTL: '7d'}}}", PREVIOUS),
    (
        "{webhook: {signing: {scheme: None, previousSecretTTL: 1h}}}",
        "scheme None signs nothing; remove secretRef, previousSecretTTL and also",
    ),
    (
        "{webhook: {signing: {scheme: None, also: [{name: a}]}}}",
        "scheme None signs nothing",
    ),
    (
        "{webhook: {signing: {also: [{name: a}, {name: b-2, scheme: StandardWebhooksEd25519, previousSecretTTL: 1h}, {name: c, scheme: Stripe}, {name: d, scheme: GitHub, secretRef: {name: s, key: k}}]}}}",
        ACCEPTED,
    ),
    (
        "{webhook: {signing: {also: [{name: a}, {name: b}, {name: c}, {name: d}, {name: e}]}}}",
        "must have at most 4 items",
    ),
    (
        "{webhook: {signing: {also: [{name: a}, {name: a}]}}}",
        "Duplicate value",
    ),
    (
        "{webhook: {signing: {also: [{}]}}}",
        "also[0].name: Required value",
    ),
    ("{webhook: {signing: {also: [{name: secret}]}}}", SIGNATURE_NAME),
    ("{webhook: {signing: {also: [{name: rotation}]}}}", SIGNATURE_NAME),
    ("{webhook: {signing: {also: [{name: A.b}]}}}", SIGNATURE_NAME),
    (
        "{webhook: {signing: {also: [{name: a, scheme: None}]}}}",
        "a further signature has a scheme other than None; remove it instead",
    ),
    (
        "{webhook: {signing: {also: [{name: a, header: X-Sig}]}}}",
        HEADER_ONLY,
    ),
    (
        "{webhook: {signing: {also: [{name: a, scheme: Stripe, encoding: Hex}]}}}",
        WRITING_ONLY,
    ),
    (
        "{webhook: {signing: {also: [{name: a, scheme: GitHub, algorithm: SHA1}]}}}",
        CUSTOM_ONLY,
    ),
    (
        "{webhook: {signing: {also: [{name: a, scheme: Hmac}]}}}",
        "schemes HmacSHA256 and Hmac need header",
    ),
    (
        "{webhook: {signing: {also: [{name: a, previousSecretTTL: 200h}]}}}",
        PREVIOUS,
    ),
    (
        "{webhook: {signing: {also: [{name: a, scheme: Hmac, header: Host}]}}}",
        HEADER,
    ),
    (
        "{webhook: {signing: {scheme: Stripe, also: [{name: a, scheme: Stripe, header: Acme-Signature}]}}}",
        ACCEPTED,
    ),
    (
        "{webhook: {signing: {scheme: Stripe, also: [{name: a, scheme: Stripe}]}}}",
        SAME_HEADER,
    ),
    (
        "{webhook: {signing: {scheme: GitHub, also: [{name: a, scheme: Hmac, header: X-Hub-Signature-256}]}}}",
        SAME_HEADER,
    ),
    (
        "{webhook: {signing: {also: [{name: a, scheme: Hmac, header: X-A}, {name: b, scheme: Hmac, header: x-a}]}}}",
        SAME_HEADER,
    ),
    (
        "{webhook: {signing: {scheme: GitHub}, headers: [{name: x-hub-signature-256, value: '1'}]}}",
        "signing.header is also set in headers; choose another name",
    ),
    (
        "{webhook: {signing: {also: [{name: a, scheme: Stripe}]}, headers: [{name: Stripe-Signature, value: '1'}]}}",
        "signing.header is also set in headers; choose another name",
    ),
    ("{webhook: {signing: {}}}", ACCEPTED),
    (
        "{webhook: {signing: {scheme: StandardWebhooks, secretRef: {name: s, key: k}}}}",
        ACCEPTED,
    ),
    (
        "{webhook: {signing: {scheme: HmacSHA256, header: X-Sig, prefix: 'sha256=', encoding: Base64, secretRef: {name: s, key: k}}}}",
        ACCEPTED,
    ),
    ("{webhook: {signing: {scheme: None}}}", ACCEPTED),
    (
        "{webhook: {signing: {scheme: Md5}}}",
        "supported values: \"StandardWebhooks\", \"StandardWebhooksEd25519\", \"Stripe\", \"GitHub\", \"HmacSHA256\", \"Hmac\", \"None\"",
    ),
    (
        "{webhook: {signing: {scheme: HmacSHA256}}}",
        "schemes HmacSHA256 and Hmac need header, the name of the header that carries the signature",
    ),
    ("{webhook: {signing: {header: X-Sig}}}", HEADER_ONLY),
    (
        "{webhook: {signing: {scheme: StandardWebhooks, prefix: 'v1='}}}",
        WRITING_ONLY,
    ),
    (
        "{webhook: {signing: {scheme: None, encoding: Hex}}}",
        WRITING_ONLY,
    ),
    (
        "{webhook: {signing: {scheme: None, secretRef: {name: s, key: k}}}}",
        "scheme None signs nothing; remove secretRef",
    ),
    (
        "{webhook: {signing: {scheme: HmacSHA256, header: Content-Type}}}",
        HEADER,
    ),
    (
        "{webhook: {signing: {scheme: HmacSHA256, header: User-Agent}}}",
        HEADER,
    ),
    (
        "{webhook: {signing: {scheme: HmacSHA256, header: webhook-signature}}}",
        HEADER,
    ),
    (
        "{webhook: {signing: {scheme: HmacSHA256, header: 'X Sig'}}}",
        HEADER,
    ),
    (
        "{webhook: {signing: {scheme: HmacSHA256, header: X-Sig, prefix: 'a b'}}}",
        "use visible ASCII without spaces",
    ),
    (
        "{webhook: {signing: {scheme: HmacSHA256, header: X-Sig, prefix: LONG65}}}",
        "Too long",
    ),
    (
        "{webhook: {signing: {scheme: HmacSHA256, header: X-Sig, encoding: Octal}}}",
        "supported values: \"Hex\", \"Base64\"",
    ),
    (
        "{webhook: {signing: {scheme: HmacSHA256, header: X-Sig}, headers: [{name: x-sig, value: '1'}]}}",
        "signing.header is also set in headers; choose another name",
    ),
];
