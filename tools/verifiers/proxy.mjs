// An HTTP proxy that is not Postrider's: proxy-chain, with a password when it is told one.
//
//     NODE_PATH=…/node_modules node proxy.mjs '{"user": "me", "password": "s3cret"}'
//
// Prints {"url": "http://127.0.0.1:<port>"}. The line `seen` on stdin prints {"tunnels": [<host:port>], "requests": […]}
// of what was let through.

import { createRequire } from "node:module";
import readline from "node:readline";
import { pathToFileURL } from "node:url";

const path = createRequire(process.env.NODE_PATH + "/").resolve("proxy-chain");
const { Server } = await import(pathToFileURL(path));

const settings = JSON.parse(process.argv[2]);
const seen = { tunnels: [], requests: [] };
const say = (value) => process.stdout.write(JSON.stringify(value) + "\n");

const server = new Server({
  port: 0,
  host: "127.0.0.1",
  prepareRequestFunction({ username, password, hostname, port, isHttp }) {
    if (settings.user && (username !== settings.user || password !== settings.password)) {
      return { requestAuthentication: true };
    }
    (isHttp ? seen.requests : seen.tunnels).push(`${hostname}:${port}`);
    return {};
  },
});
server.on("requestFailed", () => {});
await server.listen();
say({ url: `http://127.0.0.1:${server.port}` });
// Ends with whoever started it.
const lines = readline.createInterface({ input: process.stdin });
lines.on("line", () => say(seen));
lines.on("close", () => process.exit(0));
