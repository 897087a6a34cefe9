// Verifies webhook signatures with libraries that are not Postrider's.
//
// Reads one JSON object per line from standard input and answers each with one JSON line; verify.py describes both.
// The libraries come from the folder in POSTRIDER_VERIFIERS (see ensure.sh): standardwebhooks, stripe and
// @octokit/webhooks; v1a, which the first does not know, is judged by Node's own Ed25519.

import { createHmac, createPublicKey, timingSafeEqual, verify as verifySignature } from "node:crypto";
import { createRequire } from "node:module";
import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";

const folder = process.env.POSTRIDER_VERIFIERS;
if (!folder) {
  console.error("POSTRIDER_VERIFIERS is not set; export POSTRIDER_VERIFIERS=$(tools/verifiers/ensure.sh)");
  process.exit(1);
}
const library = createRequire(`${folder}/package.json`);
const { Webhook } = library("standardwebhooks");
const stripeModule = library("stripe");
const Stripe = stripeModule.default ?? stripeModule;
const { Webhooks } = await import(
  pathToFileURL(`${folder}/node_modules/@octokit/webhooks/dist-bundle/index.js`).href
);

const TOLERANCE = 300;

function ed25519(secret, headers, body) {
  const key = createPublicKey({
    key: { kty: "OKP", crv: "Ed25519", x: Buffer.from(secret.replace(/^whpk_/, ""), "base64").toString("base64url") },
    format: "jwk",
  });
  const stamp = headers["webhook-timestamp"];
  if (!(Math.abs(Date.now() / 1000 - Number(stamp)) <= TOLERANCE)) throw new Error("Message timestamp too old");
  const signed = Buffer.concat([Buffer.from(`${headers["webhook-id"]}.${stamp}.`), body]);
  const genuine = (headers["webhook-signature"] ?? "")
    .split(" ")
    .filter((one) => one.startsWith("v1a,"))
    .some((one) => verifySignature(null, signed, key, Buffer.from(one.slice(4), "base64")));
  if (!genuine) throw new Error("No matching signature found");
}

function plain(request, headers, body) {
  const mac = createHmac(request.algorithm ?? "sha256", request.secret);
  const digest = mac.update(request.before ?? "").update(body).update(request.after ?? "").digest(request.encoding);
  const wanted = Buffer.from((request.prefix ?? "") + digest);
  const given = headers[request.header.toLowerCase()];
  if (given === undefined) throw new Error(`Missing header ${request.header}`);
  const bytes = Buffer.from(given);
  if (bytes.length !== wanted.length || !timingSafeEqual(bytes, wanted)) {
    throw new Error("No matching signature found");
  }
}

async function verify(request) {
  const headers = {};
  for (const [name, value] of Object.entries(request.headers)) headers[name.toLowerCase()] = value;
  const body = Buffer.from(request.body_base64, "base64");
  if (request.scheme === "standard") {
    new Webhook(request.secret).verify(body, headers, { jsonParse: false });
  } else if (request.scheme === "ed25519") {
    ed25519(request.secret, headers, body);
  } else if (request.scheme === "stripe") {
    Stripe.webhooks.signature.verifyHeader(body, headers["stripe-signature"], request.secret, TOLERANCE);
  } else if (request.scheme === "github") {
    const given = headers["x-hub-signature-256"] ?? "";
    const genuine = await new Webhooks({ secret: request.secret }).verify(body.toString("utf8"), given);
    if (!genuine) throw new Error("@octokit/webhooks says no");
  } else if (request.scheme === "hmac") {
    plain(request, headers, body);
  } else {
    throw new Error(`Unknown scheme ${request.scheme}`);
  }
}

for await (const line of createInterface({ input: process.stdin })) {
  let answer = { ok: true, error: null };
  try {
    await verify(JSON.parse(line));
  } catch (problem) {
    answer = { ok: false, error: problem.message };
  }
  process.stdout.write(`${JSON.stringify(answer)}\n`);
}
