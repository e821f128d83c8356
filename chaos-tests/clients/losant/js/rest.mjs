// The vendor's REST SDK for JavaScript: a device, what happens to it, and keys: node rest.mjs JSON
import assert from 'node:assert/strict';
import { once } from 'node:events';
import rest from 'losant-rest';

const { application, device, key, secret, token } = JSON.parse(process.argv[2]);
const ANSWER_MS = 20_000;
const integrator = rest.createClient({ accessToken: token });
const of = { applicationId: application, deviceId: device };

async function refused(asked, status, type) {
  await assert.rejects(asked, (error) => error.statusCode === status && error.type === type && error.message !== '');
}

const nobody = rest.createClient();
await refused(nobody.auth.authenticateDevice({ credentials: { deviceId: device, key, secret: 'wrong' } }), 401, 'Unauthorized');
const said = await nobody.auth.authenticateDevice({ credentials: { deviceId: device, key, secret } });
assert.deepEqual([said.applicationId, said.deviceId, said.deviceClass], [application, device, 'standalone']);
const api = rest.createClient({ accessToken: said.token });

const streams = [
  await api.device.stateStream({ ...of, keepAliveInterval: 1 }),
  await api.device.commandStream(of),
];
const soon = (stream, event) => {
  const signal = AbortSignal.timeout(ANSWER_MS);
  return new Promise((resolve, reject) => {
    stream.addEventListener(event, ({ data }) => resolve(JSON.parse(data)), { once: true });
    signal.addEventListener('abort', () => reject(new Error(`no ${event}`)));
  });
};
const heard = [soon(streams[0], 'deviceState'), soon(streams[1], 'deviceCommand')];
assert.deepEqual(await api.device.sendState({ ...of, deviceState: { data: { temperature: 7 } } }), { success: true });
assert.deepEqual(await api.device.sendCommand({ ...of, deviceCommand: { name: 'go', payload: [1] } }), { success: true });
const [state, command] = await Promise.all(heard);
assert.deepEqual([state.data, state.deviceId], [{ temperature: 7 }, device]);
assert.deepEqual([command.name, command.payload], ['go', [1]]);
streams.forEach((stream) => stream.close());

assert.deepEqual((await api.device.getState(of)).map((one) => one.data), [{ temperature: 7 }]);
assert.equal((await api.device.getCommand(of))[0].name, 'go');
assert.equal((await api.device.getCompositeState(of)).temperature.value, 7);
await refused(api.applicationKeys.get({ applicationId: application }), 403, 'Forbidden');
await refused(api.device.sendState({ ...of, deviceState: { data: 1 } }), 400, 'Validation');

const made = await integrator.applicationKeys.post({ applicationId: application, applicationKey: { deviceIds: [device] } });
const ofKey = { applicationId: application, applicationKeyId: made.applicationKeyId };
const { key: name, secret: made_secret } = made;
await nobody.auth.authenticateDevice({ credentials: { deviceId: device, key: name, secret: made_secret } });
const changed = await integrator.applicationKey.patch({ ...ofKey, applicationKey: { status: 'inactive' } });
assert.deepEqual([changed.status, changed.secret], ['inactive', undefined]);
await refused(nobody.auth.authenticateDevice({ credentials: { deviceId: device, key: name, secret: made_secret } }), 401, 'Unauthorized');
const { items } = await integrator.applicationKeys.get({ applicationId: application });
assert.ok(items.some((one) => one.key === name && one.secret === undefined));
assert.deepEqual(await integrator.applicationKey.delete(ofKey), { success: true });
await refused(integrator.applicationKey.get(ofKey), 404, 'NotFound');
await integrator.devices.get({ applicationId: application, perPage: 1 });
process.exit(0);
