'use strict';

const assert = require('node:assert/strict');
const { randomBytes, randomInt } = require('node:crypto');
const { readFileSync } = require('node:fs');
const path = require('node:path');
const { describe, test } = require('node:test');
const { BINARY, CLOSE, FrameReader, MAX_MESSAGE, PING, PONG, closeCode, encode } = require('../lib/frames');
const { ROOT } = require('./support/daemon');

const golden = JSON.parse(readFileSync(path.join(ROOT, 'tests/protocol/frames.json'), 'utf8'));
const NAMES = { [BINARY]: 'message', [PING]: 'ping', [PONG]: 'pong', [CLOSE]: 'close' };

/** What a reader makes of these chunks, named as in the golden file; every chunk is overwritten once it is read. */
function events(chunks, reader = new FrameReader()) {
  const found = [];
  for (const chunk of chunks) {
    const received = Buffer.from(chunk);
    reader.feed(received, (opcode, payload) => found.push([opcode, payload]));
    received.fill(0xff);
  }
  return found.map(([opcode, payload]) => [NAMES[opcode], opcode === CLOSE ? closeCode(payload) : payload.toString('hex')]);
}

/** A frame as a server sends it. */
function serverFrame(payload, opcode = BINARY, isFinal = true) {
  const first = (isFinal ? 0x80 : 0) | opcode;
  const size = payload.length;
  if (size < 126) {
    return Buffer.concat([Buffer.from([first, size]), payload]);
  }
  const head = Buffer.alloc(size < 65536 ? 4 : 10);
  head[0] = first;
  head[1] = size < 65536 ? 126 : 127;
  if (size < 65536) {
    head.writeUInt16BE(size, 2);
  } else {
    head.writeBigUInt64BE(BigInt(size), 2);
  }
  return Buffer.concat([head, payload]);
}

describe('what a client sends', () => {
  for (const { name, opcode, mask, payload, payload_repeat: repeat, frame, starts, length } of golden.client) {
    test(`is, byte for byte, the golden ${name}`, () => {
      const bytes = repeat ? Buffer.alloc(repeat.times, Buffer.from(repeat.repeat, 'hex')) : Buffer.from(payload, 'hex');

      const sent = encode(opcode, bytes, Buffer.from(mask, 'hex'));

      assert.equal(frame === undefined ? sent.toString('hex', 0, starts.length / 2) : sent.toString('hex'), frame ?? starts);
      assert.equal(sent.length, length ?? frame.length / 2);
    });
  }

  test('is the payload XORed with the mask, repeated', () => {
    for (let size = 0; size < 300; size += 1) {
      const [payload, mask] = [randomBytes(size), randomBytes(4)];

      const sent = encode(BINARY, payload, mask);

      const masked = sent.subarray(sent.length - size);
      assert.deepEqual(masked.map((byte, at) => byte ^ mask[at % 4]), payload);
      assert.deepEqual(sent.subarray(sent.length - size - 4, sent.length - size), mask);
    }
  });
});

describe('what a daemon sends', () => {
  for (const { name, bytes, error, events: expected } of golden.server) {
    test(`${name}: the golden events, or an error, wherever it is cut`, () => {
      const data = Buffer.from(bytes, 'hex');
      const cuts = Array.from({ length: data.length + 1 }, (_, at) => [data.subarray(0, at), data.subarray(at)]);

      for (const chunks of [...cuts, [...data].map((byte) => [byte])]) {
        if (error === undefined) {
          assert.deepEqual(events(chunks), expected);
        } else {
          assert.throws(() => events(chunks), /^Error: it/);
        }
      }
    });
  }

  test('comes out as it went in, however the bytes are cut', () => {
    for (let run = 0; run < 300; run += 1) {
      const sent = Array.from({ length: randomInt(1, 8) }, () => {
        const opcode = [BINARY, PING, PONG][randomInt(3)];
        return [opcode, randomBytes(randomInt(opcode === BINARY ? 400 : 126))];
      });
      const bytes = Buffer.concat(sent.map(([opcode, payload]) => serverFrame(payload, opcode)));
      const cuts = Array.from({ length: randomInt(7) }, () => randomInt(bytes.length + 1)).sort((a, b) => a - b);

      const chunks = [0, ...cuts].map((from, n) => bytes.subarray(from, cuts[n] ?? bytes.length));

      assert.deepEqual(events(chunks), sent.map(([opcode, payload]) => [NAMES[opcode], payload.toString('hex')]));
    }
  });

  test('in fragments is one message, with what comes between them told first', () => {
    const parts = ['one', '', 'three'].map((text) => Buffer.from(text));
    const frames = parts.map((part, n) => serverFrame(part, n === 0 ? BINARY : 0, n === 2));
    frames.splice(1, 0, serverFrame(Buffer.from('p'), PING));

    const expected = [['ping', '70'], ['message', Buffer.from('onethree').toString('hex')]];

    assert.deepEqual(events(frames), expected);
    assert.deepEqual(events([Buffer.concat(frames)]), expected);
  });

  test('is handed out before the error of what follows it', () => {
    const found = [];

    assert.throws(() => new FrameReader().feed(Buffer.from('820190810168', 'hex'), (...event) => found.push(event)), /text/);

    assert.deepEqual(found, [[BINARY, Buffer.from([0x90])]]);
  });

  test('may be 16 MiB, in one frame or in two; more is refused at the head of the frame that exceeds', () => {
    const half = Buffer.alloc(MAX_MESSAGE / 2);
    const sizes = (...frames) => {
      const found = [];
      const reader = new FrameReader();
      for (const frame of frames) {
        for (let at = 0; at < frame.length; at += 65536) {
          reader.feed(frame.subarray(at, at + 65536), (_, payload) => found.push(payload.length));
        }
      }
      return found;
    };

    assert.deepEqual(sizes(serverFrame(Buffer.alloc(MAX_MESSAGE))), [MAX_MESSAGE]);
    assert.deepEqual(sizes(serverFrame(half, BINARY, false), serverFrame(half, 0)), [MAX_MESSAGE]);
    const tooLong = serverFrame(Buffer.alloc(half.length + 1), 0).subarray(0, 10);
    assert.throws(() => sizes(serverFrame(half, BINARY, false), tooLong), /16 MiB/);
  });

  test('may be anything: the reader throws nothing but its own errors', () => {
    for (let run = 0; run < 2000; run += 1) {
      try {
        events([randomBytes(randomInt(64))]);
      } catch (error) {
        assert.match(String(error), /^Error: it/);
      }
    }
  });
});
