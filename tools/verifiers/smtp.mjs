// An SMTP server that is not Postrider's: smtp-server (Nodemailer's), with faults on request.
//
// Takes settings, prints the port and the mails, as smtp.py describes; a mail is printed raw in base64.

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import readline from "node:readline";

const require = createRequire(process.env.NODE_PATH + "/");
const { SMTPServer } = require("smtp-server");

const settings = JSON.parse(process.argv[2]);
const fail = settings.fail ?? {};
const grey = new Set(settings.greylist ?? []);
let count = 0;

const say = (value) => process.stdout.write(JSON.stringify(value) + "\n");
const refusal = (line) => {
  const error = new Error(line.slice(4));
  error.responseCode = Number(line.slice(0, 3));
  return error;
};
const tls = settings.tls ?? "none";
const server = new SMTPServer({
  secure: tls === "implicit",
  ...(tls === "none" ? { hideSTARTTLS: true } : { cert: readFileSync(settings.cert), key: readFileSync(settings.key) }),
  ...(settings.size ? { size: settings.size } : {}),
  authMethods: settings.auth?.mechanism ? [settings.auth.mechanism] : ["PLAIN", "LOGIN"],
  authOptional: !settings.require_auth,
  allowInsecureAuth: tls === "none",
  disabledCommands: settings.auth ? [] : ["AUTH"],
  disableReverseLookup: true,
  closeTimeout: 100,
  onAuth(auth, _session, done) {
    const { user, password } = settings.auth;
    if (auth.username === user && auth.password === password) return done(null, { user });
    return done(refusal("535 5.7.8 wrong user or password: " + auth.password));
  },
  onMailFrom(_address, _session, done) {
    if (settings.hang === "mail") return;
    done(fail.mail ? refusal(fail.mail) : undefined);
  },
  onRcptTo({ address }, _session, done) {
    if (settings.hang === "rcpt") return;
    if (fail["rcpt:" + address]) return done(refusal(fail["rcpt:" + address]));
    if (grey.delete(address)) return done(refusal("451 4.7.1 greylisted, come again"));
    done();
  },
  onData(stream, session, done) {
    const pieces = [];
    stream.on("data", (piece) => pieces.push(piece));
    stream.on("end", () => {
      if (settings.hang === "content") return;
      if (settings.drop === "content") return server.connections.forEach((one) => one._socket.destroy());
      if (fail.data) return done(refusal(fail.data));
      count += 1;
      if (!settings.quiet) {
        say({
          from: session.envelope.mailFrom.address,
          to: session.envelope.rcptTo.map((one) => one.address),
          user: session.user ?? null,
          tls: session.secure,
          raw: Buffer.concat(pieces).toString("base64"),
        });
      }
      done(null, "taken");
    });
  },
});
server.on("error", () => {});
server.listen(0, "127.0.0.1", () => say({ port: server.server.address().port }));
// Ends with whoever started it.
const lines = readline.createInterface({ input: process.stdin });
lines.on("line", () => say({ count }));
lines.on("close", () => process.exit(0));
