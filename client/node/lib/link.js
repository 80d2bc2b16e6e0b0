// @ts-check
'use strict';

/* One WebSocket, from its handshake to its end; it is never revived. The one door to ws. */

const { WebSocket } = require('ws');
const { AuthError } = require('./errors');

/**
 * What a link tells.
 *
 * @typedef {object} Listener
 * @property {(link: Link, message: Buffer) => void} heard throws for a message that cannot be read
 * @property {(link: Link, error: Error) => void} lost once, after it was open; its `isOpen` is false by then
 */

const SUBPROTOCOL = 'sessiond.1';
const MAX_MESSAGE = 16 * 1024 * 1024;
const GOING_AWAY = 1001;
const NO_GOODBYE = 1006;
const UNAUTHORIZED = 4401;

/**
 * The daemon said goodbye, because it stops or the token is not valid any more: what it has not answered by then, it
 * never began. A new connection finds out more.
 */
class Dismissed extends Error {}

class Link {
  /**
   * @param {import('./urls').Address} address
   * @param {import('./options').Options} options
   * @param {Listener} listener
   */
  constructor(address, { token, namespace, tls, deadline }, listener) {
    this.address = address;
    /** When something last came in. */
    this.heardAt = -Infinity;
    this.isOpen = false;
    this.#listener = listener;
    /** @type {import('ws').ClientOptions & { closeTimeout: number }} */
    const how = {
      ...tls,
      closeTimeout: deadline,
      headers: {
        ...(token ? { Authorization: `Bearer ${token}` } : {}),
        ...(namespace ? { 'Session-Namespace': namespace } : {}),
      },
      followRedirects: false,
      maxPayload: MAX_MESSAGE,
      perMessageDeflate: false,
      finishRequest: (request) => {
        request.on('socket', (socket) => {
          this.#socket = socket;
          this.#applyHold();
        });
        request.end();
      },
    };
    this.#webSocket = new WebSocket(address.stream, SUBPROTOCOL, how);
  }

  #listener;
  #webSocket;
  /** @type {import('node:net').Socket | undefined} */
  #socket;
  #isHeld = true;
  /** @type {Error | undefined} */
  #error;

  /**
   * Resolves when the handshake is done. Rejects with an AuthError, or an Error that says why not.
   *
   * @param {number} timeout ms
   * @returns {Promise<void>}
   */
  open(timeout) {
    return new Promise((resolve, reject) => {
      const webSocket = this.#webSocket;
      const timer = setTimeout(() => this.#fail(new Error('it did not answer in time')), timeout);
      timer.unref();
      webSocket.on('unexpected-response', (request, response) => {
        response.resume();
        request.destroy();
        this.#fail(refusal(response.statusCode ?? 0));
      });
      webSocket.on('error', (error) => {
        this.#error ??= error;
      });
      webSocket.on('open', () => {
        clearTimeout(timer);
        this.isOpen = true;
        resolve();
      });
      webSocket.on('message', (data, isBinary) => this.#heard(/** @type {Buffer} */ (data), isBinary));
      webSocket.on('ping', () => {
        this.heardAt = performance.now();
      });
      webSocket.on('close', (code) => {
        clearTimeout(timer);
        const error = this.#error ?? farewell(code);
        const wasOpen = this.isOpen;
        this.isOpen = false;
        reject(error);
        if (wasOpen) {
          this.#listener.lost(this, error);
        }
      });
    });
  }

  /** @param {Buffer} message */
  send(message) {
    this.#webSocket.send(message, ignore);
  }

  /**
   * Whether the link keeps the process running: while somebody waits for an answer, and no longer.
   *
   * @param {boolean} isHeld
   */
  hold(isHeld) {
    this.#isHeld = isHeld;
    this.#applyHold();
  }

  /**
   * Reads no further for a while, so that the daemon holds back what nobody takes here; or reads on.
   *
   * @param {boolean} isHalted
   */
  halt(isHalted) {
    if (!this.isOpen) {
      return;
    }
    if (isHalted) {
      this.#webSocket.pause();
    } else {
      this.#webSocket.resume();
    }
  }

  /** Says goodbye, after what is still to be sent. */
  close() {
    this.#webSocket.close(1000);
  }

  /**
   * Drops the connection now.
   *
   * @param {Error} error what is told to those who wait
   */
  abort(error) {
    this.#fail(error);
  }

  /**
   * @param {Buffer} data
   * @param {boolean} isBinary
   */
  #heard(data, isBinary) {
    this.heardAt = performance.now();
    try {
      if (!isBinary) {
        throw new Error('its message is text');
      }
      this.#listener.heard(this, data);
    } catch (error) {
      this.#fail(/** @type {Error} */ (error));
    }
  }

  /** @param {Error} error */
  #fail(error) {
    this.#error ??= error;
    this.#webSocket.terminate();
  }

  #applyHold() {
    if (this.#isHeld) {
      this.#socket?.ref();
    } else {
      this.#socket?.unref();
    }
  }
}

/** @param {number} code */
function farewell(code) {
  if (code === GOING_AWAY || code === UNAUTHORIZED) {
    return new Dismissed(code === GOING_AWAY ? 'the daemon stopped' : 'the token is not valid any more');
  }
  return new Error(code === NO_GOODBYE ? 'it hung up' : `it closed with code ${code}`);
}

/** @param {number} status */
function refusal(status) {
  return status === 401 || status === 403
    ? new AuthError(`The daemon refuses the connection (HTTP ${status}): check the option token, or SESSIOND_TOKEN.`, status)
    : new Error(`it answered HTTP ${status} to the handshake: is it a sessiond?`);
}

/** What cannot be sent is told by the event `close`. */
function ignore() {}

module.exports = { Dismissed, Link };
