// @ts-check
'use strict';

/* The opening handshake of RFC 6455, as a client speaks it. Bytes in, bytes out; no socket, no clock. */

const { createHash, randomBytes } = require('node:crypto');
const { AuthError } = require('./errors');

const SUBPROTOCOL = 'sessiond.1';
const GUID = '258EAFA5-E914-47DA-95CA-C5AB0DC85B11';
/** Bytes. An answer is some 200; this leaves room for a chatty proxy. */
const MAX_HEADER = 16 * 1024;

/** One handshake: send `request`, then feed what comes until the connection is open. */
class Opening {
  /**
   * @param {string} authority the daemon's name and port
   * @param {{ token: string | null, namespace: string | null }} options
   */
  constructor(authority, { token, namespace }) {
    const nonce = randomBytes(16).toString('base64');
    this.#accept = createHash('sha1').update(nonce + GUID).digest('base64');
    const lines = [
      'GET /v1/stream HTTP/1.1',
      `Host: ${authority}`,
      'Connection: Upgrade',
      'Upgrade: websocket',
      'Sec-WebSocket-Version: 13',
      `Sec-WebSocket-Key: ${nonce}`,
      `Sec-WebSocket-Protocol: ${SUBPROTOCOL}`,
      ...(token === null ? [] : [`Authorization: Bearer ${token}`]),
      ...(namespace === null ? [] : [`Session-Namespace: ${namespace}`]),
    ];
    this.request = `${lines.join('\r\n')}\r\n\r\n`;
  }

  #accept;
  #received = Buffer.alloc(0);

  /**
   * Null while the answer is incomplete; then the bytes that came after it, which are frames.
   *
   * Throws an AuthError for 401 and 403, and an Error for everything else that is no welcome. Redirects are not followed:
   * they could lead a token astray.
   *
   * @param {Buffer} chunk may be overwritten afterwards
   * @returns {Buffer | null}
   */
  feed(chunk) {
    this.#received = Buffer.concat([this.#received, chunk]);
    const end = this.#received.indexOf('\r\n\r\n');
    if ((end < 0 ? this.#received.length : end) > MAX_HEADER) {
      throw new Error('its answer to the handshake is too long: is it a sessiond?');
    }
    if (end < 0) {
      return null;
    }
    this.#check(this.#received.toString('latin1', 0, end).split('\r\n'));
    return this.#received.subarray(end + 4);
  }

  /** @param {string[]} lines */
  #check([first, ...lines]) {
    const status = /^HTTP\/1\.[01] (\d{3})(?: |$)/.exec(first)?.[1];
    if (status === undefined) {
      throw new Error('it does not speak HTTP');
    }
    if (status !== '101') {
      throw refusal(Number(status));
    }
    /** @type {Map<string, string>} */
    const headers = new Map();
    for (const line of lines) {
      const [, name, value] = /^([^\s:]+):(.*)$/.exec(line) ?? [];
      if (name === undefined) {
        throw new Error('its handshake is malformed');
      }
      const before = headers.get(name.toLowerCase());
      headers.set(name.toLowerCase(), before === undefined ? value.trim() : `${before},${value.trim()}`);
    }
    const connection = (headers.get('connection') ?? '').toLowerCase().split(',');
    if (
      headers.get('upgrade')?.toLowerCase() !== 'websocket' ||
      !connection.some((each) => each.trim() === 'upgrade') ||
      headers.get('sec-websocket-accept') !== this.#accept ||
      headers.get('sec-websocket-protocol') !== SUBPROTOCOL ||
      headers.has('sec-websocket-extensions')
    ) {
      throw new Error('its handshake is not that of a sessiond');
    }
  }
}

/** @param {number} status */
function refusal(status) {
  return status === 401 || status === 403
    ? new AuthError(`The daemon refuses the connection (HTTP ${status}): check the option token, or SESSIOND_TOKEN.`, status)
    : new Error(`it answered HTTP ${status} to the handshake: is it a sessiond?`);
}

module.exports = { Opening };
