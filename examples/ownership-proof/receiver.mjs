// Receives webhooks, verifies their signature with nothing but Node's standard library, and answers the challenge that
// comes before the first one.
//
//   SECRET=whsec_… [PORT=8098] node receiver.mjs
import { createHmac, timingSafeEqual } from "node:crypto";
import { createServer } from "node:http";

const { SECRET, PORT = "8098" } = process.env;
if (!SECRET) throw new Error("set SECRET to the text of the signing secret");
const key = Buffer.from(SECRET.replace(/^whsec_/, ""), "base64");

// The signature is over id, time and the bytes as they came: verify before parsing, and never over JSON made anew.
function isGenuine(body, headers) {
  const { "webhook-id": id, "webhook-timestamp": time, "webhook-signature": signatures = "" } = headers;
  if (!(Math.abs(Date.now() / 1000 - Number(time)) < 300)) return false;
  const expected = Buffer.from(createHmac("sha256", key).update(`${id}.${time}.`).update(body).digest("base64"));
  return signatures.split(" ").some((signature) => {
    const given = Buffer.from(signature.replace(/^v1,/, ""));
    return given.length === expected.length && timingSafeEqual(given, expected);
  });
}

const server = createServer(async (request, response) => {
  const chunks = [];
  for await (const chunk of request) chunks.push(chunk);
  const body = Buffer.concat(chunks);
  if (!isGenuine(body, request.headers)) {
    console.log("refused: the signature is not right");
    response.writeHead(401).end();
    return;
  }
  const event = JSON.parse(body);
  if (request.headers["x-postrider-event-type"] === "postrider.challenge") {
    // Yes, send your events here.
    response.writeHead(200, { "Content-Type": "application/json" }).end(JSON.stringify({ challenge: event.challenge }));
    return;
  }
  response.writeHead(200).end();
  console.log(`verified: ${JSON.stringify(event)}`);
});

server.listen(Number(PORT), "127.0.0.1", () => console.log(`listening on http://127.0.0.1:${server.address().port}`));
