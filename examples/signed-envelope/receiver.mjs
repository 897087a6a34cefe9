// Receives webhooks and verifies their signature with nothing but Node's standard library.
//
//   SECRET=… [PORT=8091] [HEADER=X-Acme-HMAC-SHA-256] node receiver.mjs
import { createHmac, timingSafeEqual } from "node:crypto";
import { createServer } from "node:http";

const { SECRET, PORT = "8091", HEADER = "X-Acme-HMAC-SHA-256" } = process.env;
if (!SECRET) throw new Error("set SECRET to the text of the signing secret");

// The signature is over the bytes as they came: verify before parsing, and never over JSON made anew.
function isGenuine(body, signature) {
  const expected = Buffer.from(createHmac("sha256", SECRET).update(body).digest("hex"));
  const given = Buffer.from(signature ?? "");
  return given.length === expected.length && timingSafeEqual(given, expected);
}

const server = createServer(async (request, response) => {
  const chunks = [];
  for await (const chunk of request) chunks.push(chunk);
  const body = Buffer.concat(chunks);
  if (!isGenuine(body, request.headers[HEADER.toLowerCase()])) {
    console.log("refused: the signature is not right");
    response.writeHead(401).end();
    return;
  }
  // Answer first and work afterwards: the sender waits five seconds at most.
  response.writeHead(200).end();
  console.log(`verified: ${JSON.stringify(JSON.parse(body))}`);
});

server.listen(Number(PORT), "127.0.0.1", () => console.log(`listening on http://127.0.0.1:${server.address().port}`));
