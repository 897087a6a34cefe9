// Judges bodies of ready formats with the services' own libraries; formats.py describes the two lines.
//
// The libraries come from the folder in POSTRIDER_VERIFIERS (see ensure.sh).

import { createRequire } from "node:module";
import { createInterface } from "node:readline";

const folder = process.env.POSTRIDER_VERIFIERS;
if (!folder) {
  console.error("POSTRIDER_VERIFIERS is not set; export POSTRIDER_VERIFIERS=$(tools/verifiers/ensure.sh)");
  process.exit(1);
}
const load = createRequire(`${folder}/package.json`);

// Fails where what a library read is not what it was given: it left something out.
function same(given, read, path = "body") {
  if (Array.isArray(given) && Array.isArray(read) && given.length === read.length) {
    given.forEach((item, index) => same(item, read[index], `${path}[${index}]`));
  } else if (given && read && typeof given === "object" && typeof read === "object") {
    for (const name of Object.keys(given)) {
      if (!(name in read)) throw new Error(`${path}.${name} is unknown to the library`);
      same(given[name], read[name], `${path}.${name}`);
    }
  } else if (given !== read && String(given).toLowerCase() !== String(read).toLowerCase()) {
    throw new Error(`${path} is read as ${String(read).slice(0, 80)}`);
  }
}

function known(object, names) {
  for (const name of Object.keys(object)) {
    if (!names.includes(name)) throw new Error(`${name} is unknown`);
  }
}

function discord(body) {
  const { EmbedBuilder, embedLength } = load("@discordjs/builders");
  const message = JSON.parse(body);
  // https://discord.com/developers/docs/resources/webhook#execute-webhook
  known(message, ["content", "username", "avatar_url", "tts", "embeds", "allowed_mentions"]);
  if (message.embeds.length > 10) throw new Error("more than 10 embeds");
  if (message.allowed_mentions?.parse?.length !== 0) throw new Error("somebody may be mentioned");
  for (const embed of message.embeds) {
    const read = new EmbedBuilder().setTitle(embed.title).setDescription(embed.description).setColor(embed.color)
      .setTimestamp(new Date(embed.timestamp)).setFields(embed.fields);
    if (embed.url !== undefined) read.setURL(embed.url);
    const json = read.toJSON();
    if (new Date(json.timestamp).getTime() !== new Date(embed.timestamp).getTime()) throw new Error("timestamp");
    same({ ...embed, timestamp: json.timestamp }, json, "embed");
    if (embedLength(json) > 6000) throw new Error(`an embed has ${embedLength(json)} characters, not 6,000`);
  }
}

function teams(body) {
  const { AdaptiveCard, SerializationContext } = load("adaptivecards/dist/adaptivecards.min.js");
  const message = JSON.parse(body);
  known(message, ["type", "attachments"]);
  if (message.type !== "message" || message.attachments.length !== 1) throw new Error("not a message with one card");
  // https://learn.microsoft.com/microsoftteams/limits-specifications-teams#chat
  if (Buffer.byteLength(body) > 28 * 1024) throw new Error(`${Buffer.byteLength(body)} bytes are over 28 KB`);
  for (const attachment of message.attachments) {
    known(attachment, ["contentType", "contentUrl", "content"]);
    if (attachment.contentType !== "application/vnd.microsoft.card.adaptive") throw new Error("not a card");
    const card = new AdaptiveCard();
    const context = new SerializationContext();
    card.parse(attachment.content, context);
    for (let index = 0; index < context.eventCount; index += 1) throw new Error(context.getEventAt(index).message);
    for (const event of card.validateProperties().validationEvents) throw new Error(event.message);
    same(attachment.content, card.toJSON(), "card");
  }
}

// Compiles the body as a literal of the type that Mattermost publishes: what it does not know is an error.
function mattermost(body) {
  const typescript = load("typescript");
  const message = JSON.parse(body);
  const name = `${folder}/body.ts`;
  const text = `import type { MessageAttachment } from "@mattermost/types/message_attachments";
    export const body: { text?: string; channel?: string; username?: string; attachments: MessageAttachment[] } =
    ${JSON.stringify(message)};`;
  const options = {
    strict: true, noEmit: true, skipLibCheck: true, types: [], lib: ["lib.es2022.d.ts"],
    target: typescript.ScriptTarget.ES2022, module: typescript.ModuleKind.ESNext,
    moduleResolution: typescript.ModuleResolutionKind.Bundler,
  };
  const host = typescript.createCompilerHost(options);
  const { fileExists, readFile, getSourceFile } = host;
  host.fileExists = (file) => file === name || fileExists(file);
  host.readFile = (file) => (file === name ? text : readFile(file));
  host.getSourceFile = (file, ...rest) =>
    file === name
      ? typescript.createSourceFile(file, text, options.target)
      : (parsed[file] ??= getSourceFile(file, ...rest));
  const program = typescript.createProgram([name], options, host);
  const [problem] = typescript.getPreEmitDiagnostics(program, program.getSourceFile(name));
  if (problem) throw new Error(typescript.flattenDiagnosticMessageText(problem.messageText, " "));
  // https://developers.mattermost.com/integrate/webhooks/incoming/: what does not fit a post is split or refused.
  const length = JSON.stringify(message.attachments).length;
  if (length > 16383) throw new Error(`${length} characters are over 16,383`);
}
const parsed = {};

const services = { Discord: discord, MicrosoftTeams: teams, Mattermost: mattermost };

for await (const line of createInterface({ input: process.stdin })) {
  let answer = { ok: true, error: null };
  try {
    const { service, body_base64 } = JSON.parse(line);
    services[service](Buffer.from(body_base64, "base64").toString("utf8"));
  } catch (problem) {
    answer = { ok: false, error: String(problem.message ?? problem).slice(0, 2000) };
  }
  process.stdout.write(`${JSON.stringify(answer)}\n`);
}
