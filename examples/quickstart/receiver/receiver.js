// A receiver of signed webhooks that trusts nothing but the signature.
//
// WEBHOOK_SECRET (or WEBHOOK_SECRET_FILE, read for each request)   the destination's signing secret, whsec_...
// HOST, PORT                                                       where to listen; 127.0.0.1:9100
//
// POST /hooks     answers 204 to a request whose signature is right, 401 to any other
// GET /received   the last 100 requests that were right, as JSON

"use strict";

const { readFileSync } = require("node:fs");
const { createServer } = require("node:http");
const { Webhook } = require("standardwebhooks");

const MAX_BODY = 1024 * 1024;
const received = [];
const ids = new Set();

function secret() {
  const file = process.env.WEBHOOK_SECRET_FILE;
  return (file ? readFileSync(file, "utf8") : process.env.WEBHOOK_SECRET ?? "").trim();
}

async function read(request) {
  const chunks = [];
  let length = 0;
  for await (const chunk of request) {
    length += chunk.length;
    if (length > MAX_BODY) throw new Error("body too large");
    chunks.push(chunk);
  }
  return Buffer.concat(chunks); // the signature is over these bytes, not over what JSON.parse makes of them
}

async function hook(request) {
  const body = await read(request);
  const event = new Webhook(secret()).verify(body, request.headers);
  const id = request.headers["webhook-id"];
  const type = event.type ?? event.event ?? event.event_type ?? event.eventType;
  if (ids.has(id)) {
    console.log(`verified again, ignored: ${id}`); // a delivery may be repeated; its id says so
    return;
  }
  ids.add(id);
  received.push({ id, type, headers: request.headers, body: event });
  if (received.length > 100) ids.delete(received.shift().id);
  console.log(`verified: ${type} ${id}`);
}

const server = createServer(async (request, response) => {
  const path = request.url.split("?")[0];
  if (request.method === "POST" && path === "/hooks") {
    try {
      await hook(request);
      response.writeHead(204).end();
    } catch (problem) {
      console.log(`refused: ${problem.message}`);
      response.writeHead(401, { "content-type": "text/plain" }).end(`${problem.message}\n`);
    }
  } else if (request.method === "GET" && path === "/received") {
    response.writeHead(200, { "content-type": "application/json" }).end(`${JSON.stringify(received, null, 2)}\n`);
  } else {
    response.writeHead(404).end();
  }
});

server.listen(Number(process.env.PORT ?? 9100), process.env.HOST ?? "127.0.0.1", () => {
  const { address, port } = server.address();
  console.log(`listening on http://${address}:${port}/hooks`);
});

for (const signal of ["SIGINT", "SIGTERM"]) {
  process.on(signal, () => {
    server.close(() => process.exit(0));
    server.closeAllConnections();
  });
}
