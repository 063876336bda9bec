// An event collector for Node, of nothing but its standard library, written from docs/protocol.md.
//
//   node collector.mjs --key NAME=BASE64 [--port PORT] [--forget N] [--busy N]
//   node collector.mjs --check-vectors DIRECTORY
//
// It prints one JSON object a line: {"listening": PORT} first, then for each request {"status", "reason"}, and for
// one that was taken {"status": 200, "mac", "duplicate", "events"}, where a duplicate has no events.
//
// --forget N: take the first N batches, and hang up instead of answering.
// --busy N: answer the next N batches with 503 and Retry-After: 0, and take nothing.

import crypto from "node:crypto";
import fs from "node:fs";
import http from "node:http";
import path from "node:path";
import { parseArgs } from "node:util";
import zlib from "node:zlib";

// Bytes of an inflated body: what a publisher sends by default.
const MAX_SIZE = 512_000;

// Bytes of a body as it is sent: gzip makes a small one a little larger.
const MAX_SENT = 2 * MAX_SIZE;

// Containers within each other in a body.
const MAX_DEPTH = 64;

// The secret for an unknown key, so that it takes as long as a known one.
const NOBODYS_SECRET = crypto.randomBytes(32);

const SIGNATURE = /^key=([!#-&(-+\--~]+), mac=([0-9a-f]{64})$/;

class Refusal extends Error {
  constructor(status, reason) {
    super(reason);
    this.status = status;
  }
}

// --- what a request holds ---

function mac(secret, body) {
  return crypto.createHmac("sha256", secret).update(body).digest("hex");
}

function checkHead(method, target, headers) {
  if (target !== "/v2" && target !== "/v2j") throw new Refusal(404, "no such target");
  if (method !== "POST") throw new Refusal(405, "not POST");
  if (!/^[0-9]{1,9}$/.test(headers["content-length"] ?? "")) throw new Refusal(411, "no Content-Length");
  if (Number(headers["content-length"]) > MAX_SENT) throw new Refusal(413, "too large as sent");
  if (headers["content-type"] !== "application/json") throw new Refusal(415, "not application/json");
  if (headers["content-encoding"] !== "gzip") throw new Refusal(415, "not gzip");
}

function inflate(sent) {
  try {
    return zlib.gunzipSync(sent, { maxOutputLength: MAX_SIZE });
  } catch (error) {
    if (error.code === "ERR_BUFFER_TOO_LARGE") throw new Refusal(413, "too large inflated");
    throw new Refusal(400, "no gzip, or damaged");
  }
}

function checkSignature(keys, header, body) {
  const found = SIGNATURE.exec(header ?? "");
  if (found === null) throw new Refusal(401, "no X-Signature, or not well-formed");
  const [, name, claimed] = found;
  const right = mac(keys.get(name) ?? NOBODYS_SECRET, body);
  const same = crypto.timingSafeEqual(Buffer.from(right), Buffer.from(claimed));
  if (!keys.has(name) || !same) throw new Refusal(401, "unknown key or wrong mac");
  return { name, mac: claimed };
}

// The texts of the events, byte for byte.
function splitBody(body, version) {
  let text;
  try {
    text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(body);
  } catch {
    throw new Refusal(400, "not UTF-8");
  }
  const items = splitArray(text, version);
  let parsed;
  try {
    parsed = JSON.parse(text);
  } catch {
    throw new Refusal(400, "not JSON");
  }
  const events = version === "2" ? parsed["1"].lst.slice(2) : parsed;
  const number = version === "2" ? parsed["1"].lst[1] : events.length;
  if (number !== events.length || items.length !== events.length) throw new Refusal(400, "wrong number of events");
  if (events.length === 0) throw new Refusal(400, "no events");
  if (!events.every((event) => typeof event === "object" && event !== null && !Array.isArray(event))) {
    throw new Refusal(400, "an event is no object");
  }
  return items;
}

// Depth alone shows where one event ends and the next begins; JSON.parse says afterwards whether it is JSON.
function splitArray(text, version) {
  const opening = version === "2" ? /^\{"1":\{"lst":\["rec",[1-9][0-9]*,/.exec(text)?.[0] : "[";
  const closing = version === "2" ? "]}}" : "]";
  if (opening === undefined || !text.startsWith(opening) || !text.endsWith(closing)) {
    throw new Refusal(400, `not the wrapper of version ${version}`);
  }
  const items = [];
  let start = opening.length;
  let depth = 0;
  let quoted = false;
  const end = text.length - closing.length;
  for (let place = start; place < end; place += 1) {
    const character = text[place];
    if (quoted) {
      if (character === "\\") place += 1;
      else if (character === '"') quoted = false;
    } else if (character === '"') quoted = true;
    else if (character === "{" || character === "[") depth += 1;
    else if (character === "}" || character === "]") depth -= 1;
    else if (character === "," && depth === 0) {
      items.push(text.slice(start, place).trim());
      start = place + 1;
    }
    if (depth < 0 || depth > MAX_DEPTH) throw new Refusal(400, "brackets don't match, or too many");
  }
  items.push(text.slice(start, end).trim());
  return items;
}

// Everything about a request, or a Refusal.
function check(keys, method, target, headers, sent) {
  checkHead(method, target, headers);
  const body = inflate(sent);
  const signer = checkSignature(keys, headers["x-signature"], body);
  return { ...signer, events: splitBody(body, target.slice(2)) };
}

// --- the server ---

function serve(keys, port, forget, busy) {
  const seen = new Set();
  const print = (line) => process.stdout.write(`${JSON.stringify(line)}\n`);

  function take(request, response, sent) {
    const batch = check(keys, request.method, request.url, request.headers, sent);
    if (busy > 0) {
      busy -= 1;
      response.setHeader("Retry-After", "0");
      throw new Refusal(503, "busy");
    }
    // A collector that keeps its events stores this key along with them.
    const key = `${batch.name} ${request.headers["idempotency-key"] ?? batch.mac}`;
    const duplicate = seen.has(key);
    seen.add(key);
    print({ status: 200, mac: batch.mac, duplicate, events: duplicate ? [] : batch.events });
    if (forget > 0) {
      forget -= 1;
      request.socket.destroy();
    } else {
      response.writeHead(200).end();
    }
  }

  const server = http.createServer((request, response) => {
    const chunks = [];
    let size = 0;
    request.on("data", (chunk) => {
      size += chunk.length;
      if (size <= MAX_SENT) chunks.push(chunk);
    });
    request.on("end", () => {
      try {
        take(request, response, Buffer.concat(chunks));
      } catch (error) {
        if (!(error instanceof Refusal)) throw error;
        print({ status: error.status, reason: error.message });
        response.writeHead(error.status, { "Content-Type": "text/plain" }).end(error.message);
      }
    });
  });
  server.listen(port, "127.0.0.1", () => print({ listening: server.address().port }));
  process.on("SIGTERM", () => process.exit(0));
}

// --- TJSON, as the protocol describes it ---

const TAGS = { bool: "tf", double: "dbl", string: "str", binary: "str", uuid: "uid", struct: "rec" };
const CONTAINERS = { list: "lst", set: "set", map: "map" };

function tag(type) {
  if (typeof type === "object") return CONTAINERS[Object.keys(type)[0]];
  return TAGS[type] ?? type;
}

function tjsonStruct(fields) {
  return `{${fields.map(({ id, type, value }) => `"${id}":{"${tag(type)}":${tjson(type, value)}}`).join(",")}}`;
}

function tjson(type, value) {
  if (typeof type === "object") {
    const [[container, inner]] = Object.entries(type);
    if (container !== "map") {
      return `[${[`"${tag(inner)}"`, value.length, ...value.map((item) => tjson(inner, item))].join(",")}]`;
    }
    const pairs = value.map(([key, item]) => `${tjsonKey(inner[0], key)}:${tjson(inner[1], item)}`);
    return `["${tag(inner[0])}","${tag(inner[1])}",${pairs.length},{${pairs.join(",")}}]`;
  }
  if (type === "struct") return tjsonStruct(value);
  if (type === "bool") return value ? "1" : "0";
  if (type === "double") return typeof value === "string" ? `"${value}"` : seventeenDigits(value);
  if (type === "string" || type === "binary" || type === "uuid") return tjsonString(value);
  return String(value);
}

// The names that a double has as a key where it is no number.
const DOUBLE_KEYS = { NaN: "nan", Infinity: "inf", "-Infinity": "-inf" };

function tjsonKey(type, value) {
  if (type === "double" && typeof value === "string") return `"${DOUBLE_KEYS[value]}"`;
  const text = tjson(type, value);
  return text.startsWith('"') ? text : `"${text}"`;
}

const ESCAPES = { '"': '\\"', "\\": "\\\\", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t" };

function tjsonString(text) {
  const escape = (character) =>
    ESCAPES[character] ?? `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`;
  return `"${text.replace(/["\\\u0000-\u001f]/g, escape)}"`;
}

// C's %.17g.
function seventeenDigits(value) {
  if (value === 0) return Object.is(value, -0) ? "-0" : "0";
  const [, sign, first, rest, exponent] = /^(-?)(.)\.(.*)e(.*)$/.exec(value.toExponential(16));
  const power = Number(exponent);
  const digits = (first + rest).replace(/0+$/, "");
  if (power < -4 || power >= 17) {
    const fraction = digits.length > 1 ? `.${digits.slice(1)}` : "";
    const width = String(Math.abs(power)).padStart(2, "0");
    return `${sign}${first}${fraction}e${power < 0 ? "-" : "+"}${width}`;
  }
  if (power < 0) return `${sign}0.${"0".repeat(-power - 1)}${digits}`;
  const whole = digits.slice(0, power + 1).padEnd(power + 1, "0");
  const fraction = digits.slice(power + 1);
  return sign + whole + (fraction ? `.${fraction}` : "");
}

// --- the vectors ---

const decode = (base64) => Buffer.from(base64, "base64");

// For each file: what this program makes of a vector's input, and what the vector says.
const CHECKS = {
  signatures(vector) {
    const made = mac(decode(vector.secret_base64), decode(vector.body_base64));
    return [[made, `key=${vector.key_name}, mac=${made}`], [vector.mac, vector.header]];
  },
  bodies(vector) {
    return [splitBody(Buffer.from(vector.body), vector.version), vector.events];
  },
  requests(vector) {
    const keys = new Map(Object.entries(vector.keys).map(([name, secret]) => [name, decode(secret)]));
    const headers = Object.fromEntries(Object.entries(vector.headers).map(([name, value]) => [name.toLowerCase(), value]));
    try {
      const { events } = check(keys, vector.method, vector.target, headers, decode(vector.body_base64));
      return [[200, events], [vector.status, vector.events]];
    } catch (error) {
      if (!(error instanceof Refusal)) throw error;
      return [error.status, vector.status];
    }
  },
  tjson(vector) {
    return [tjsonStruct(vector.fields), vector.json];
  },
};

function checkVectors(directory) {
  let wrong = 0;
  for (const [file, check] of Object.entries(CHECKS)) {
    const vectors = JSON.parse(fs.readFileSync(path.join(directory, `${file}.json`), "utf-8"));
    for (const vector of vectors) {
      const [made, expected] = check(vector).map((side) => JSON.stringify(side));
      if (made === expected) continue;
      wrong += 1;
      process.stderr.write(`${file}: ${vector.name}: expected ${expected}, got ${made}\n`);
    }
    process.stdout.write(`${JSON.stringify({ file, vectors: vectors.length })}\n`);
  }
  process.exitCode = wrong === 0 ? 0 : 1;
}

const { values } = parseArgs({
  options: {
    "check-vectors": { type: "string" },
    key: { type: "string", multiple: true, default: [] },
    port: { type: "string", default: "0" },
    forget: { type: "string", default: "0" },
    busy: { type: "string", default: "0" },
  },
});

if (values["check-vectors"] !== undefined) {
  checkVectors(values["check-vectors"]);
} else {
  const keys = values.key.map((pair) => /^([^=]+)=(.+)$/.exec(pair)).map(([, name, secret]) => [name, decode(secret)]);
  serve(new Map(keys), Number(values.port), Number(values.forget), Number(values.busy));
}
