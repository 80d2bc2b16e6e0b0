// @ts-check
'use strict';

/*
 * One connection to a daemon, from its handshake to its end; it is never revived.
 *
 * Socket and frames are ours. Measured with one caller, a get takes 80 µs of the processor, nearly all of them in system
 * calls, where it took 90 with ws; half of the gain is the one buffer that the socket reads into again and again.
 */

const net = require('node:net');
const tls = require('node:tls');
const { makeChance } = require('./chance');
const { BINARY, CLOSE, FrameReader, PING, PONG, closeCode, encode } = require('./frames');
const { Opening } = require('./opening');

/**
 * What a link tells.
 *
 * @typedef {object} Listener
 * @property {(link: Link, message: Buffer) => void} heard throws for a message that cannot be read
 * @property {(link: Link, error: Error) => void} lost once, after it was open; its `isOpen` is false by then
 */

const READ_SIZE = 64 * 1024;
/** The code 1000, as a close frame holds it. */
const NORMAL = Buffer.from([0x03, 0xe8]);
const GOING_AWAY = 1001;
const UNAUTHORIZED = 4401;
const mask = makeChance(4);

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
  constructor(address, options, listener) {
    this.address = address;
    /** When something last came in. */
    this.heardAt = -Infinity;
    this.isOpen = false;
    this.#options = options;
    this.#listener = listener;
    this.#opening = new Opening(address.authority, options);
  }

  #options;
  #listener;
  /** @type {Opening | null} null once the handshake is done */
  #opening;
  #frames = new FrameReader();
  /** @type {net.Socket | undefined} */
  #socket;
  #isHeld = true;
  #isHalted = false;
  /** Nothing is sent any more, nor listened to. */
  #isOver = false;
  /** @type {Error | undefined} */
  #error;
  /** @type {NodeJS.Timeout | undefined} until it is open, and from the goodbye to the end */
  #timer;
  #welcome = () => {};

  /**
   * Connects. Resolves when the handshake is done. Rejects with an AuthError, or an Error that says why not.
   *
   * @param {number} timeout ms
   * @returns {Promise<void>}
   */
  open(timeout) {
    return new Promise((resolve, reject) => {
      this.#welcome = resolve;
      this.#endIn(timeout, new Error('it did not answer in time'));
      try {
        this.#socket = this.#connect();
      } catch (error) {
        // Options for TLS that cannot be.
        clearTimeout(this.#timer);
        reject(error);
        return;
      }
      this.#applyHold();
      // An alert of TLS that comes after the handshake is an error which does not close the socket by itself.
      this.#socket.on('error', (error) => this.#fail(error));
      this.#socket.on('close', () => {
        clearTimeout(this.#timer);
        this.#isOver = true;
        const error = this.#error ?? new Error('it hung up');
        const wasOpen = this.isOpen;
        this.isOpen = false;
        reject(error);
        if (wasOpen) {
          this.#listener.lost(this, error);
        }
      });
    });
  }

  /** @param {Uint8Array} message is copied */
  send(message) {
    this.#send(BINARY, message);
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
    if (!this.isOpen || isHalted === this.#isHalted) {
      return;
    }
    this.#isHalted = isHalted;
    if (isHalted) {
      this.#socket?.pause();
    } else {
      this.#socket?.resume();
    }
  }

  /** Says goodbye, after what is still to be sent, and waits for the daemon to hang up; not longer than a deadline. */
  close() {
    if (!this.isOpen) {
      this.#fail(new Error('it was closed'));
    } else if (!this.#isOver) {
      this.#sayGoodbye();
      this.#endIn(this.#options.deadline, new Error('it was closed'));
    }
  }

  /**
   * Drops the connection now.
   *
   * @param {Error} error what is told to those who wait
   */
  abort(error) {
    this.#fail(error);
  }

  #connect() {
    const { where, isSecure } = this.address;
    const how = {
      ...this.#options.tls,
      ...where,
      noDelay: true,
      // One buffer for all that comes, instead of a new one each time.
      onread: { buffer: Buffer.allocUnsafeSlow(READ_SIZE), callback: this.#received.bind(this) },
    };
    if (!isSecure) {
      const socket = net.connect(how);
      return socket.on('connect', () => this.#ask(socket));
    }
    const host = 'host' in where ? where.host : '';
    const socket = tls.connect({ servername: net.isIP(host) ? '' : host, ...how });
    // Not before the daemon has shown who it is: the request holds the token.
    return socket.on('secureConnect', () => this.#ask(socket));
  }

  /** @param {net.Socket} socket */
  #ask(socket) {
    socket.write(/** @type {Opening} */ (this.#opening).request);
  }

  /**
   * @param {number} size
   * @param {Uint8Array} buffer it has come in here
   * @returns {boolean} whether to read on
   */
  #received(size, buffer) {
    this.heardAt = performance.now();
    /** @type {Buffer | null} */
    let bytes = /** @type {Buffer} */ (buffer).subarray(0, size);
    try {
      if (this.#opening !== null) {
        bytes = this.#opening.feed(bytes);
        if (bytes === null) {
          return true;
        }
        this.#opened();
      }
      this.#frames.feed(bytes, this.#hear);
    } catch (error) {
      this.#fail(/** @type {Error} */ (error));
    }
    return true;
  }

  #opened() {
    clearTimeout(this.#timer);
    this.#opening = null;
    this.isOpen = true;
    this.#welcome();
  }

  /**
   * @param {number} opcode
   * @param {Buffer} payload
   */
  #hear = (opcode, payload) => {
    if (this.#isOver && opcode !== CLOSE) {
      return;
    }
    if (opcode === BINARY) {
      this.#listener.heard(this, payload);
    } else if (opcode === PING) {
      this.#send(PONG, payload);
    } else if (opcode === CLOSE) {
      const code = closeCode(payload);
      this.#error ??= farewell(code);
      this.#sayGoodbye();
      this.#socket?.destroySoon();
      this.#endIn(this.#options.deadline, this.#error);
    }
  };

  #sayGoodbye() {
    this.#send(CLOSE, NORMAL);
    this.#isOver = true;
  }

  /**
   * @param {number} opcode
   * @param {Uint8Array} payload
   */
  #send(opcode, payload) {
    if (!this.#isOver) {
      this.#socket?.write(encode(opcode, payload, mask()));
    }
  }

  /**
   * @param {number} ms
   * @param {Error} error
   */
  #endIn(ms, error) {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#fail(error), ms);
    this.#timer.unref();
  }

  /** @param {Error} error */
  #fail(error) {
    this.#error ??= error;
    this.#isOver = true;
    this.#socket?.destroy();
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
  return new Error(`it closed with code ${code}`);
}

module.exports = { Dismissed, Link };
