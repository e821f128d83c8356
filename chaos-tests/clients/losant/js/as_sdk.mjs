// What the vendor's losant-mqtt asks of MQTT.js, asked in the same way: for where the SDK itself can't be had. The same names, so that
// one check is for both. Only what the check needs.
import { EventEmitter, once } from 'node:events';
import mqtt from 'mqtt';

const ADDRESSES = {
  tcp: ['mqtt', 1883], tls: ['mqtts', 8883], ws: ['ws', 80], wss: ['wss', 443],
};

/** A connection that a device has, or a gateway with its peripherals. */
class Connection extends EventEmitter {
  connect({ id, key, secret, transport, qosPublish }, callback) {
    const [scheme, port] = ADDRESSES[transport];
    this.qos = qosPublish;
    // No more than this: the version, a clean session and a keep-alive of 60 s are what MQTT.js does by itself.
    const login = { clientId: id, username: key, password: secret, port };
    this.client = mqtt.connect(`${scheme}://broker.losant.com`, login);
    for (const event of ['connect', 'close', 'error', 'message']) {
      this.client.on(event, (...said) => this.emit(event, ...said));
    }
    once(this.client, 'connect').then(() => callback(), callback);
  }
}

export class Device extends EventEmitter {
  constructor(options) {
    super();
    this.options = options;
    this.mqtt = options.mqtt ?? new Connection();
    const topic = `losant/${options.id}/command`;
    let connected = false;
    this.mqtt.on('connect', () => {
      this.mqtt.client.subscribe(topic);
      this.emit(connected ? 'reconnected' : 'connect');
      connected = true;
    });
    this.mqtt.on('close', () => this.emit('close'));
    this.mqtt.on('error', (error) => this.emit('error', error));
    this.mqtt.on('message', (on, payload) => on === topic && this.emit('command', read(payload)));
  }

  connect(callback) {
    this.mqtt.connect(this.options, callback);
  }

  disconnect(callback) {
    this.mqtt.client.end(callback);
  }

  sendState(data, callback) {
    const said = JSON.stringify({ time: { $date: new Date().toISOString() }, data });
    this.mqtt.client.publish(`losant/${this.options.id}/state`, said, { qos: this.mqtt.qos }, callback);
  }
}

export class Gateway extends Device {
  addPeripheral(id) {
    return new Device({ id, mqtt: this.mqtt });
  }
}

function read(payload) {
  return JSON.parse(payload, (_, value) => (value?.$date ? new Date(value.$date) : value));
}
