'use strict';

const assert = require('node:assert/strict');
const { createHash } = require('node:crypto');
const { test } = require('node:test');
const { AuthError } = require('..');
const { Opening } = require('../lib/opening');

const anybody = { token: null, namespace: null };

/** The daemon's answer to a handshake, with headers changed, or left out for null. */
function welcome({ request }, changes = {}) {
  const [, key] = /^Sec-WebSocket-Key: (.*)$/m.exec(request.replaceAll('\r', ''));
  const headers = {
    Upgrade: 'websocket',
    Connection: 'upgrade',
    'Sec-WebSocket-Accept': createHash('sha1').update(`${key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`).digest('base64'),
    'Sec-WebSocket-Protocol': 'sessiond.1',
    ...changes,
  };
  const lines = Object.entries(headers).flatMap(([name, value]) => (value === null ? [] : [`${name}: ${value}`]));
  return Buffer.from(['HTTP/1.1 101 Switching Protocols', ...lines, '', ''].join('\r\n'));
}

test('the request asks for the stream and its sub-protocol, and carries the token in a header of its own', () => {
  const lines = new Opening('example:7377', { token: 'secret', namespace: 'shop' }).request.split('\r\n');

  assert.equal(lines[0], 'GET /v1/stream HTTP/1.1');
  for (const line of ['Host: example:7377', 'Authorization: Bearer secret', 'Session-Namespace: shop', 'Sec-WebSocket-Protocol: sessiond.1']) {
    assert.ok(lines.includes(line), line);
  }
  assert.deepEqual(lines.slice(-2), ['', '']);
  assert.doesNotMatch(new Opening('h:1', anybody).request, /Authorization|Session-Namespace|Origin/);
});

test('the welcome may come in pieces; what follows it are frames', () => {
  for (let at = 0; at < 200; at += 1) {
    const opening = new Opening('h:1', anybody);
    const answer = Buffer.concat([welcome(opening), Buffer.from([0x82, 1, 0x90])]);

    const first = opening.feed(answer.subarray(0, at));
    const frames = first === null ? opening.feed(answer.subarray(at)) : Buffer.concat([first, answer.subarray(at)]);

    assert.deepEqual(frames, Buffer.from([0x82, 1, 0x90]));
  }
});

test('headers may be written in any way that means the same', () => {
  const opening = new Opening('h:1', anybody);

  const answer = welcome(opening, { Upgrade: null, Connection: 'keep-alive', UPGRADE: ' WebSocket ', connection: 'Upgrade' });

  assert.deepEqual(opening.feed(answer), Buffer.alloc(0));
});

for (const changes of [
  { Upgrade: null },
  { Connection: 'close' },
  { Connection: 'not-upgrade' },
  { 'Sec-WebSocket-Accept': 'dGhlIHNhbXBsZSBub25jZQ==' },
  { 'Sec-WebSocket-Accept': null },
  { 'Sec-WebSocket-Protocol': null },
  { 'Sec-WebSocket-Protocol': 'sessiond.2' },
  { 'Sec-WebSocket-Extensions': 'permessage-deflate' },
  { X: 'y\r\nno colon here' },
]) {
  test(`a welcome with ${JSON.stringify(changes)} is refused`, () => {
    const opening = new Opening('h:1', anybody);

    assert.throws(() => opening.feed(welcome(opening, changes)), /its handshake is/);
  });
}

for (const status of [401, 403]) {
  test(`${status} is an AuthError, with the status and without the token`, () => {
    const answer = Buffer.from(`HTTP/1.1 ${status} No\r\nContent-Length: 0\r\n\r\n`);

    assert.throws(
      () => new Opening('h:1', { token: 'secret', namespace: null }).feed(answer),
      (error) => error instanceof AuthError && error.answered === status && !error.message.includes('secret'),
    );
  });
}

for (const [answer, why] of [
  ['HTTP/1.1 302 Found\r\nLocation: http://elsewhere/\r\n\r\n', /HTTP 302/],
  ['HTTP/1.1 500 Oops\r\n\r\n', /HTTP 500/],
  ['HTTP/1.0 404 Not Found\r\n\r\n', /HTTP 404/],
  ['HTTP/1.1 101\r\n\r\n', /not that of a sessiond/],
  ['HTTP/1.1 abc\r\n\r\n', /does not speak HTTP/],
  ['HTTP/1.1 1010 x\r\n\r\n', /does not speak HTTP/],
  ['SSH-2.0-OpenSSH_9.2\r\n\r\n', /does not speak HTTP/],
  ['\x00\xff\r\n\r\n', /does not speak HTTP/],
  ['x'.repeat(20_000), /too long/],
  [`HTTP/1.1 101 x\r\n${'A: b\r\n'.repeat(5000)}\r\n`, /too long/],
]) {
  test(`the answer ${JSON.stringify(answer.slice(0, 30))} is refused`, () => {
    assert.throws(() => new Opening('h:1', anybody).feed(Buffer.from(answer, 'latin1')), why);
  });
}
