// A device by MQTT.js over WebSocket, on each of some paths: node paths.mjs VERSION TOPIC CLIENT USER PASSWORD URL…
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import mqtt from 'mqtt';

const ANSWER_MS = 20_000;

const [version, topic, clientId, username, password, ...urls] = process.argv.slice(2);
const ca = process.env.MOORLINE_CA ? [readFileSync(process.env.MOORLINE_CA)] : undefined;
for (const url of urls) {
  const client = await mqtt.connectAsync(url, {
    protocolVersion: Number(version),
    clientId,
    username,
    password,
    ca,
    clean: true,
    reconnectPeriod: 0,
    connectTimeout: ANSWER_MS,
    // Offered by the library under it, if it is asked to.
    wsOptions: { perMessageDeflate: true },
  });
  assert.equal(client.connected, true, url);
  await client.publishAsync(topic, '{"data":{"temperature":1}}', { qos: 1 });
  await client.endAsync();
}
