// Reads one HTTP request as a CloudEvent with the CNCF's SDK for JavaScript, and validates it.
//
//     NODE_PATH=…/node_modules node cloudevents.mjs '{"headers": {…}, "body_base64": "…"}'
//
// Prints {"event": {…}, "mode": "binary"} or {"error": "…"}; stays until stdin is closed.

import { createRequire } from "node:module";

const require = createRequire(process.env.NODE_PATH + "/");
const { HTTP } = require("cloudevents");

const { headers, body_base64 } = JSON.parse(process.argv[2]);
const body = Buffer.from(body_base64, "base64").toString();
let answer;
try {
  if (!HTTP.isEvent({ headers, body })) throw new Error("this is no event");
  const event = HTTP.toEvent({ headers, body });
  event.validate();
  answer = { event: event.toJSON(), mode: headers["ce-id"] ? "binary" : "structured" };
} catch (error) {
  answer = { error: String(error) };
}
process.stdout.write(JSON.stringify(answer) + "\n");
process.stdin.on("end", () => process.exit(0)).resume();
