// @ts-check
'use strict';

/*
 * The frames of RFC 6455, as a client speaks them. Bytes in, bytes out; no socket, no clock.
 *
 * Rule 1: what the daemon sent is never trusted. Every length has a limit, and everything odd is an Error that says what.
 * Rule 2: a frame that comes in one piece is copied once, and one in many pieces twice.
 */

const BINARY = 2;
const CLOSE = 8;
const PING = 9;
const PONG = 10;
const CONTINUATION = 0;
const TEXT = 1;

/** The protocol's limit for one message, in bytes. */
const MAX_MESSAGE = 16 * 1024 * 1024;
const FINAL = 0x80;
const MASKED = 0x80;
/** A close frame without a code counts as this one (RFC 6455 §7.1.5). */
const NO_CODE = 1005;

/**
 * One whole frame, masked; the payload is copied.
 *
 * @param {number} opcode
 * @param {Uint8Array} payload
 * @param {Uint8Array} mask 4 bytes
 * @returns {Buffer}
 */
function encode(opcode, payload, mask) {
  const size = payload.length;
  const start = size < 126 ? 6 : size < 65536 ? 8 : 14;
  const frame = Buffer.allocUnsafe(start + size);
  frame[0] = FINAL | opcode;
  if (size < 126) {
    frame[1] = MASKED | size;
  } else if (size < 65536) {
    frame[1] = MASKED | 126;
    frame.writeUInt16BE(size, 2);
  } else {
    frame[1] = MASKED | 127;
    frame.writeUInt32BE(0, 2);
    frame.writeUInt32BE(size, 6);
  }
  const [a, b, c, d] = mask;
  frame[start - 4] = a;
  frame[start - 3] = b;
  frame[start - 2] = c;
  frame[start - 1] = d;
  let at = 0;
  for (const whole = size - (size % 4); at < whole; at += 4) {
    frame[start + at] = payload[at] ^ a;
    frame[start + at + 1] = payload[at + 1] ^ b;
    frame[start + at + 2] = payload[at + 2] ^ c;
    frame[start + at + 3] = payload[at + 3] ^ d;
  }
  for (; at < size; at += 1) {
    frame[start + at] = payload[at] ^ mask[at % 4];
  }
  return frame;
}

/**
 * The code in the payload of a close frame.
 *
 * @param {Buffer} payload
 */
function closeCode(payload) {
  return payload.length === 0 ? NO_CODE : payload.readUInt16BE(0);
}

/** Turns received bytes, cut anywhere, into events. */
class FrameReader {
  /** @type {Buffer[]} what has come of a frame that is not whole yet */
  #kept = [];
  #keptSize = 0;
  /** How much there has to be of it before it is worth another look. */
  #needed = 0;
  /** @type {Buffer[] | null} of a message in fragments, those that have come */
  #fragments = null;
  #fragmentsSize = 0;

  // The frame that was looked at last.
  #opcode = 0;
  #isFinal = false;
  #start = 0;
  #end = 0;

  /**
   * Tells `each`, in order, of every BINARY message, PING, PONG and CLOSE with its payload. Throws an Error behind those
   * that were still good; the reader is of no use then.
   *
   * @param {Buffer} chunk may be overwritten afterwards
   * @param {(opcode: number, payload: Buffer) => void} each keeps the payload as long as it likes
   */
  feed(chunk, each) {
    let bytes = chunk;
    const isOurs = this.#kept.length > 0;
    if (isOurs) {
      this.#keep(Buffer.from(chunk));
      if (this.#keptSize < this.#needed) {
        return;
      }
      bytes = Buffer.concat(this.#kept, this.#keptSize);
      this.#kept = [];
      this.#keptSize = 0;
    }
    let at = 0;
    while (this.#look(bytes, at)) {
      const payload = bytes.subarray(this.#start, this.#end);
      at = this.#end;
      this.#take(isOurs ? payload : Buffer.from(payload), each);
    }
    if (at < bytes.length) {
      const rest = bytes.subarray(at);
      this.#keep(isOurs ? rest : Buffer.from(rest));
    }
  }

  /** @param {Buffer} part */
  #keep(part) {
    this.#kept.push(part);
    this.#keptSize += part.length;
  }

  /**
   * Whether a whole frame begins there; refuses a wrong one as soon as its head is there.
   *
   * @param {Buffer} bytes
   * @param {number} at
   */
  #look(bytes, at) {
    this.#needed = 2;
    if (bytes.length - at < 2) {
      return false;
    }
    const [first, second] = [bytes[at], bytes[at + 1]];
    this.#opcode = first & 0x0f;
    this.#isFinal = (first & FINAL) !== 0;
    let size = second & 0x7f;
    refuse((first & 0x70) !== 0, 'it set a reserved bit, though no extension was agreed');
    refuse((second & MASKED) !== 0, 'it masked a frame');
    this.#check(size);
    let start = at + 2;
    if (size >= 126) {
      const width = size === 126 ? 2 : 8;
      start += width;
      this.#needed = 2 + width;
      if (bytes.length < start) {
        return false;
      }
      size = width === 2 ? bytes.readUInt16BE(at + 2) : bytes.readUInt32BE(at + 2) * 2 ** 32 + bytes.readUInt32BE(at + 6);
      refuse(size < (width === 2 ? 126 : 65536), 'it did not use the shortest length');
    }
    const isTooLong = this.#opcode < CLOSE && size + this.#fragmentsSize > MAX_MESSAGE;
    refuse(isTooLong, 'its message is over 16 MiB');
    this.#start = start;
    this.#end = start + size;
    this.#needed = this.#end - at;
    return this.#end <= bytes.length;
  }

  /** @param {number} size as it stands in the second byte */
  #check(size) {
    const opcode = this.#opcode;
    if (opcode >= CLOSE) {
      refuse(opcode > PONG, 'it sent a reserved opcode');
      refuse(!this.#isFinal, 'it fragmented a control frame');
      refuse(size > 125, 'its control frame is too long');
      refuse(opcode === CLOSE && size === 1, 'it sent half a close code');
    } else if (opcode === CONTINUATION) {
      refuse(this.#fragments === null, 'it continued a message that it had not begun');
    } else {
      refuse(opcode === TEXT, 'its message is text');
      refuse(opcode !== BINARY, 'it sent a reserved opcode');
      refuse(this.#fragments !== null, 'it began a message inside another');
    }
  }

  /**
   * @param {Buffer} payload of the frame that was looked at last
   * @param {(opcode: number, payload: Buffer) => void} each
   */
  #take(payload, each) {
    if (this.#opcode >= CLOSE || (this.#opcode === BINARY && this.#isFinal)) {
      each(this.#opcode, payload);
      return;
    }
    this.#fragments ??= [];
    if (payload.length > 0) {
      this.#fragments.push(payload);
      this.#fragmentsSize += payload.length;
    }
    if (this.#isFinal) {
      const message = Buffer.concat(this.#fragments, this.#fragmentsSize);
      this.#fragments = null;
      this.#fragmentsSize = 0;
      each(BINARY, message);
    }
  }
}

/**
 * @param {boolean} isWrong
 * @param {string} why
 */
function refuse(isWrong, why) {
  if (isWrong) {
    throw new Error(why);
  }
}

module.exports = { BINARY, CLOSE, FrameReader, MAX_MESSAGE, PING, PONG, closeCode, encode };
