// A durable session of MQTT.js that leaves one node and comes back on another: node check.mjs VERSION TOPIC URL URL URL
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import mqtt from 'mqtt';

const MESSAGES = 100;
const ANSWER_MS = 20_000;

const [version, topic, ...urls] = process.argv.slice(2);
const protocolVersion = Number(version);
// The certificate that a TLS node shows, if it has one of its own making.
const ca = process.env.MOORLINE_CA ? [readFileSync(process.env.MOORLINE_CA)] : undefined;
const spoken = { protocolVersion, ca, ...(protocolVersion === 3 && { protocolId: 'MQIsdp' }) };
const durable = {
  ...spoken,
  clean: false,
  clientId: `js-${topic}`,
  reconnectPeriod: 0,
  connectTimeout: ANSWER_MS,
  ...(protocolVersion === 5 && { properties: { sessionExpiryInterval: 3600 } }),
};

const first = await mqtt.connectAsync(urls[0], durable);
const [granted] = await first.subscribeAsync(topic, { qos: 1 });
assert.equal(granted.qos, 1);
await first.endAsync();

const writer = await mqtt.connectAsync(urls[1], { ...spoken, reconnectPeriod: 0 });
const expected = Array.from({ length: MESSAGES }, (_, number) => String(number));
await Promise.all(expected.map((text) => writer.publishAsync(topic, text, { qos: 1 })));
await writer.endAsync();

const heard = [];
const second = mqtt.connect(urls[2], durable);
await new Promise((resolve, reject) => {
  const late = setTimeout(() => reject(new Error(`only ${heard.length} messages came`)), ANSWER_MS);
  second.on('error', reject);
  second.on('connect', (connack) => assert.equal(connack.sessionPresent, protocolVersion !== 3));
  second.on('message', (_, payload) => {
    heard.push(payload.toString());
    if (heard.length === MESSAGES) {
      clearTimeout(late);
      resolve();
    }
  });
});
await second.endAsync();
assert.deepEqual(heard, expected);
