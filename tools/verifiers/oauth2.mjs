// A token endpoint and a receiver that are not Postrider's: oauth2-mock-server issues signed tokens, and jose verifies
// those that requests carry, by the issuer's published keys.
//
//     NODE_PATH=…/node_modules node oauth2.mjs '{"client": "me", "secret": "s3cret", "style": "Basic", "life": 3600}'
//
// Prints {"token": <URL>, "hook": <URL>}. Lines on stdin: `counts` prints {"tokens", "refused", "accepted", "rejected"}
// (requests for tokens and how many of them were refused; deliveries accepted and rejected), `expire` has the receiver
// refuse every token issued so far, `secret …` changes the client's secret.

import { createServer } from "node:http";
import { createRequire } from "node:module";
import readline from "node:readline";
import { pathToFileURL } from "node:url";

const load = (name) => import(pathToFileURL(createRequire(process.env.NODE_PATH + "/").resolve(name)));
const { OAuth2Server } = await load("oauth2-mock-server");
const { createRemoteJWKSet, jwtVerify } = await load("jose");

const settings = JSON.parse(process.argv[2]);
const counts = { tokens: 0, refused: 0, accepted: 0, rejected: 0 };
const say = (value) => process.stdout.write(JSON.stringify(value) + "\n");
const expired = new Set();
const issued = new Set();
let number = 0;

const issuer = new OAuth2Server();
await issuer.issuer.keys.generate("RS256");
const given = (request) => {
  const header = request.headers.authorization ?? "";
  if (header.startsWith("Basic ")) {
    const [id, ...secret] = Buffer.from(header.slice(6), "base64").toString().split(":");
    const plain = (text) => decodeURIComponent(text.replaceAll("+", " "));
    return ["Basic", plain(id), plain(secret.join(":"))];
  }
  return ["Body", request.body.client_id, request.body.client_secret];
};
issuer.service.on("beforeTokenSigning", (token, request) => {
  number += 1;
  issued.add(String(number));
  token.payload.jti = String(number);
  token.payload.aud = request.body.audience ?? "none";
  token.payload.scope = request.body.scope ?? "";
});
issuer.service.on("beforeResponse", (answer, request) => {
  counts.tokens += 1;
  const [style, id, secret] = given(request);
  if (style === settings.style && id === settings.client && secret === settings.secret) {
    answer.body.expires_in = settings.life;
    return;
  }
  counts.refused += 1;
  answer.statusCode = 401;
  answer.body = { error: "invalid_client", error_description: `wrong secret ${secret}` };
});
await issuer.start(0, "127.0.0.1");
const keys = createRemoteJWKSet(new URL(`${issuer.issuer.url}/jwks`));

const receiver = createServer(async (request, response) => {
  for await (const _ of request);
  try {
    const [scheme, token] = (request.headers.authorization ?? "").split(" ");
    if (scheme !== "Bearer") throw new Error("no bearer token");
    const expect = { issuer: issuer.issuer.url, ...(settings.audience ? { audience: settings.audience } : {}) };
    const { payload } = await jwtVerify(token, keys, expect);
    if (payload.scope !== (settings.scope ?? "")) throw new Error("another scope");
    if (expired.has(payload.jti)) throw new Error("expired");
    counts.accepted += 1;
    response.writeHead(200).end("ok");
  } catch {
    counts.rejected += 1;
    // Some receivers repeat what they were sent; it must not get into a status.
    response.writeHead(401).end(`not accepted: ${request.headers.authorization}`);
  }
});
receiver.listen(0, "127.0.0.1", () => {
  const address = `http://127.0.0.1:${receiver.address().port}/hook`;
  say({ token: `http://127.0.0.1:${issuer.address().port}/token`, hook: address });
});
// Ends with whoever started it.
const lines = readline.createInterface({ input: process.stdin });
lines.on("line", (line) => {
  if (line === "counts") say(counts);
  if (line === "expire") issued.forEach((one) => expired.add(one));
  if (line.startsWith("secret ")) settings.secret = line.slice(7);
});
lines.on("close", () => process.exit(0));
