#!/usr/bin/env node
// A filter for the Postern mail gateway in Node: it rejects messages whose body has an unwelcome
// word, and adds a field with the SHA-256 of the body of all others. README.md says more.
//
// It is written against postern.proto alone, without the Go SDK, and does everything that a
// plugin has to do; where it does, a comment names the rule.
'use strict';

const crypto = require('node:crypto');
const fs = require('node:fs');
const net = require('node:net');
const path = require('node:path');
const grpc = require('@grpc/grpc-js');
const protoLoader = require('@grpc/proto-loader');
const toml = require('smol-toml');

const VERSION = 1; // of the contract
const MAX_MESSAGE = (1 << 20) + (64 << 10) + (64 << 10);

// Whoever starts it by hand learns what it is.
if (process.env.POSTERN_PLUGIN !== 'c4c6ff3a-mail-gateway-plugin') {
  console.error('This is a plugin of the Postern mail gateway: name it in a [[plugin]] table.');
  process.exit(2);
}
if (!(process.env.PLUGIN_PROTOCOL_VERSIONS || '').split(',').includes(String(VERSION))) {
  console.error(`The gateway does not speak version ${VERSION} of the contract.`);
  process.exit(1);
}

// Standard output belongs to the handshake. What is printed goes to the gateway's log; a line
// of JSON with "level" and "msg" keeps its level and fields.
console.log = console.error;
const log = (level, msg, fields) => process.stderr.write(JSON.stringify({ level, msg, ...fields }) + '\n');

// The gateway holds the other end of a pipe; when it ends, the gateway is dead.
const gateway = new net.Socket({ fd: Number(process.env.POSTERN_PARENT_FD), readable: true, writable: false });
gateway.on('close', () => process.exit(1)).on('error', () => {}).resume();

// When a plugin ends is the gateway's decision: signals to the whole family are not for it.
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.on(signal, () => {});

const NEED_BODY = 1;
const RIGHT_REJECT = 1;
const RIGHT_EDIT_HEADER = 8;

let settings = { words: [] };

// configure decodes strictly: an unknown key is the admin's slip, and is named.
function configure(text) {
  const given = toml.parse(text);
  for (const key of Object.keys(given)) {
    if (!Object.hasOwn(settings, key)) throw new Error(`settings: unknown key "${key}"`);
  }
  const words = given.words ?? [];
  if (!Array.isArray(words) || !words.every((w) => typeof w === 'string' && /^[^\p{Cc}]{1,100}$/u.test(w))) {
    throw new Error('settings: words is not a list of words, of 1 to 100 characters each');
  }
  settings = { words };
}

// chunks reads a body: by value, or in pieces from the part of a file that holds it.
async function* chunks(body, signal) {
  if (!body.path) {
    yield body.inline;
  } else if (body.size > 0) {
    yield* fs.createReadStream(body.path, { start: body.offset, end: body.offset + body.size - 1, signal });
  }
}

// look returns the verdict on one message. What it throws is a failure of the plugin, and no
// answer: the gateway then does what on_failure says.
async function look(message, signal) {
  const hash = crypto.createHash('sha256');
  const words = settings.words.map((w) => Buffer.from(w));
  const keep = Math.max(0, ...words.map((w) => w.length - 1)); // a word may lie across two pieces
  let size = 0;
  let rest = Buffer.alloc(0);
  for await (const chunk of chunks(message.body, signal)) {
    hash.update(chunk);
    size += chunk.length;
    const text = Buffer.concat([rest, chunk]);
    const found = words.find((w) => text.includes(w));
    if (found) {
      return {
        outcome: { action: 'ACTION_REJECT', status: { code: 550, enhanced: [5, 7, 1], text: 'this message is not welcome here' } },
        notes: { word: found.toString() },
      };
    }
    rest = text.subarray(Math.max(0, text.length - keep));
  }
  if (size !== message.body.size) throw new Error(`the body has ${size} bytes, not ${message.body.size}`);
  return { edits: [{ kind: 'EDIT_HEADER_INSERT', name: 'X-Body-SHA256', value: Buffer.from(hash.digest('hex')), index: 0 }] };
}

const plugin = {
  Describe: (call, callback) => callback(null, {
    name: 'node-filter', version: '1.0', interfaces: ['filter'], needs: NEED_BODY, may: RIGHT_REJECT | RIGHT_EDIT_HEADER,
    owns: ['X-Body-SHA256'], // the gateway removes those that a message brings along
  }),
  Configure(call, callback) {
    try {
      configure(call.request.settings.toString());
      callback(null, {});
    } catch (err) {
      callback(null, { error: String(err.message).split('\n')[0] });
    }
  },
  Health: (call, callback) => callback(null, {}),
  Drain: (call, callback) => callback(null, {}), // nothing is done in the background
};

const filter = {
  Filter(call, callback) {
    const gone = new AbortController(); // by the deadline, or because the caller gave up
    call.on('cancelled', () => gone.abort());
    look(call.request.message, gone.signal).then(
      (verdict) => callback(null, verdict),
      (err) => {
        if (!gone.signal.aborted) log('ERROR', 'filter failed', { error: String(err) });
        callback({ code: grpc.status.INTERNAL, details: String(err.message) });
      },
    );
  },
};

const api = grpc.loadPackageDefinition(
  protoLoader.loadSync(path.join(__dirname, 'postern.proto'), { keepCase: true, longs: Number, defaults: true }),
).postern.plugin.v1;
const server = new grpc.Server({
  'grpc.max_receive_message_length': MAX_MESSAGE,
  'grpc.max_send_message_length': MAX_MESSAGE,
});
server.addService(api.Plugin.service, plugin);
server.addService(api.Filter.service, filter);

// Listen first, in the directory that the gateway names, and then say so.
const socket = path.join(process.env.PLUGIN_UNIX_SOCKET_DIR, `node-${process.pid}.sock`);
server.bindAsync('unix:' + socket, grpc.ServerCredentials.createInsecure(), (err) => {
  if (err) throw err;
  fs.writeSync(1, `1|${VERSION}|unix|${socket}|grpc\n`);
});
