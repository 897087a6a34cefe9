// Verifies a webhook's signature.
//
//   npm install standardwebhooks
//   node verify.js standard "$SECRET" "webhook-id: …" "webhook-timestamp: …" "webhook-signature: …" < body
//   node verify.js hmac "$SECRET" "X-Acme-HMAC-SHA-256: …" < body
const { createHmac, timingSafeEqual } = require("node:crypto");
const { readFileSync } = require("node:fs");
const { Webhook } = require("standardwebhooks");

// Throws when the request is not genuine. Names of headers are in lower case, as Node gives them.
function verifyStandard(secret, headers, body) {
  new Webhook(secret).verify(body, headers);
}

function verifyHmac(secret, signature, body) {
  const expected = Buffer.from(createHmac("sha256", secret).update(body).digest("hex"));
  const given = Buffer.from(signature);
  return given.length === expected.length && timingSafeEqual(given, expected);
}

const [scheme, secret, ...lines] = process.argv.slice(2);
const headers = Object.fromEntries(
  lines.map((line) => [line.slice(0, line.indexOf(": ")).toLowerCase(), line.slice(line.indexOf(": ") + 2)]),
);
const body = readFileSync(0);
try {
  if (scheme === "standard") verifyStandard(secret, headers, body);
  else if (!verifyHmac(secret, headers["x-acme-hmac-sha-256"] ?? "", body)) throw new Error("the signature is not right");
  console.log("genuine");
} catch (problem) {
  console.error(`forged: ${problem.message}`);
  process.exitCode = 1;
}
