// A device, and a gateway with a peripheral, by the vendor's SDK for JavaScript: node mqtt.mjs JSON
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createRequire } from 'node:module';
import { promisify } from 'node:util';
import rest from 'losant-rest';

const { application, device, gateway, peripheral, key, secret, token, transport, sdk } = JSON.parse(process.argv[2]);
const require = createRequire(import.meta.url);
// The SDK where it was put, or what asks as it does.
const { Device, Gateway } = sdk ? require(sdk) : await import('./as_sdk.mjs');
// The SDK tries again after a second.
const AT_ONCE_MS = 5_000;
const ANSWER_MS = 20_000;

const api = rest.createClient({ accessToken: token });
const of = (deviceId) => ({ applicationId: application, deviceId });
const soon = (emitter, event) => once(emitter, event, { signal: AbortSignal.timeout(ANSWER_MS) });

function made(What, id, more = {}) {
  return new What({ id, key, secret, transport, qosPublish: 1, ...more });
}

/** Until the subscription to commands is answered, which the SDK does not wait for. */
async function settled(one, id) {
  const client = one.mqtt.client;
  await promisify(client.subscribe.bind(client))(`losant/${id}/command`);
}

async function connected(one) {
  await promisify(one.connect.bind(one))();
}

/** A state goes up and is written when it is acknowledged; a command comes down. */
async function exchange(one, id, temperature) {
  await promisify(one.sendState.bind(one))({ temperature });
  const [state] = await api.device.getState(of(id));
  assert.deepEqual(state.data, { temperature });
  const heard = soon(one, 'command');
  const deviceCommand = { name: 'set', payload: { temperature } };
  assert.deepEqual(await api.device.sendCommand({ ...of(id), deviceCommand }), { success: true });
  const [command] = await heard;
  assert.deepEqual([command.name, command.payload], ['set', { temperature }]);
  assert.ok(command.time instanceof Date && Math.abs(command.time - Date.now()) < 60_000, `${command.time}`);
}

async function ended(one) {
  await promisify(one.disconnect.bind(one))();
}

{
  const wrong = made(Device, device, { secret: 'invalid secret' });
  const refused = soon(wrong, 'error');
  wrong.connect(() => {});
  const [error] = await refused;
  assert.match(error.message, /Connection refused: Bad username or password/);
  wrong.on('error', () => {});
  wrong.mqtt.client.end(true);
}
{
  const one = made(Device, device);
  await connected(one);
  await settled(one, device);
  await exchange(one, device, 1);
  // A topic of the application's own, and what it says to itself there.
  const client = one.mqtt.client;
  await promisify(client.subscribe.bind(client))('plant/+/in');
  let heard = soon(one.mqtt, 'message');
  const payload = { topic: 'plant/1/in', message: 'hello' };
  await api.application.mqttPublishMessage({ applicationId: application, payload });
  let [topic, message] = await heard;
  assert.deepEqual([topic, message.toString()], ['plant/1/in', 'hello']);
  heard = soon(one.mqtt, 'message');
  client.publish('plant/2/in', Buffer.from([0, 1]));
  [topic, message] = await heard;
  assert.deepEqual([topic, [...message]], ['plant/2/in', [0, 1]]);
  // What is not its own ends the connection, and the next one is taken at once.
  const [closed, again, began] = [soon(one, 'close'), soon(one, 'reconnected'), Date.now()];
  client.publish('/losant/not-this-device/state');
  await closed;
  await again;
  assert.ok(Date.now() - began < AT_ONCE_MS);
  await settled(one, device);
  await exchange(one, device, 2);
  await ended(one);
}
{
  const one = made(Gateway, gateway);
  const other = one.addPeripheral(peripheral);
  await connected(one);
  await settled(one, gateway);
  await settled(one, peripheral);
  await exchange(one, gateway, 3);
  await exchange(other, peripheral, 4);
  await ended(one);
}
process.exit(0);
