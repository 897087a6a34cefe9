// Verifies webhook signatures with libraries that are not Postrider's.
//
// Reads one JSON object per line from standard input and answers each with one JSON line; verify.py describes both.
// The library comes from the folder in POSTRIDER_VERIFIERS (see ensure.sh).

import { createHmac, timingSafeEqual } from "node:crypto";
import { createRequire } from "node:module";
import { createInterface } from "node:readline";

const folder = process.env.POSTRIDER_VERIFIERS;
if (!folder) {
  console.error("POSTRIDER_VERIFIERS is not set; export POSTRIDER_VERIFIERS=$(tools/verifiers/ensure.sh)");
  process.exit(1);
}
const { Webhook } = createRequire(`${folder}/package.json`)("standardwebhooks");

function verify(request) {
  const headers = {};
  for (const [name, value] of Object.entries(request.headers)) headers[name.toLowerCase()] = value;
  const body = Buffer.from(request.body_base64, "base64");
  if (request.scheme === "standard") {
    new Webhook(request.secret).verify(body, headers, { jsonParse: false });
  } else if (request.scheme === "hmac") {
    const digest = createHmac("sha256", request.secret).update(body).digest(request.encoding);
    const wanted = Buffer.from((request.prefix ?? "") + digest);
    const given = headers[request.header.toLowerCase()];
    if (given === undefined) throw new Error(`Missing header ${request.header}`);
    const bytes = Buffer.from(given);
    if (bytes.length !== wanted.length || !timingSafeEqual(bytes, wanted)) {
      throw new Error("No matching signature found");
    }
  } else {
    throw new Error(`Unknown scheme ${request.scheme}`);
  }
}

for await (const line of createInterface({ input: process.stdin })) {
  let answer = { ok: true, error: null };
  try {
    verify(JSON.parse(line));
  } catch (problem) {
    answer = { ok: false, error: problem.message };
  }
  process.stdout.write(`${JSON.stringify(answer)}\n`);
}
