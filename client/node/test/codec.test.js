'use strict';

const assert = require('node:assert/strict');
const { test } = require('node:test');
const { read, write } = require('../lib/codec');
const { pack } = require('./support/peers');

test('a session is written as JSON.stringify writes it', () => {
  const session = { at: new Date(0), name: 'zoë 😀 \\ud83d "', gone: undefined };

  assert.equal(write(session), JSON.stringify(session));
});

test('half an emoji becomes the replacement character, and a text that looks like one stays', () => {
  const read = JSON.parse(write({ half: 'a\ud83d', other: '\udca9', whole: '💩', text: '\\ud83d', '\udfff': 1 }));

  assert.deepEqual(read, { half: 'a\ufffd', other: '\ufffd', whole: '💩', text: '\\ud83d', '\ufffd': 1 });
});

test('data is read in its own format', () => {
  const expected = { data: { a: '😀' }, text: '{"a":"😀"}' };

  assert.deepEqual(read('json', Buffer.from(expected.text)), expected);
  assert.deepEqual(read('msgpack', pack(expected.data)), expected);
});

test('the text of data leaves out what JSON cannot say', () => {
  const { data, text } = read('msgpack', pack({ a: undefined, at: new Date(0) }));

  assert.deepEqual([Object.keys(data), data.at], [['a', 'at'], new Date(0)]);
  assert.equal(text, '{"at":"1970-01-01T00:00:00.000Z"}');
});

test('data that cannot be read is a fault of the session, not a missing one', () => {
  for (const [format, bytes] of [
    ['json', Buffer.from('{')],
    ['json', Buffer.from('[]')],
    ['msgpack', Buffer.from([0xc1])],
    ['msgpack', pack(7)],
  ]) {
    assert.throws(() => read(format, bytes), { name: 'Failed', code: 'unreadable_data' });
  }
  assert.throws(() => read('bytes', Buffer.from('{}')), { name: 'InvalidRequest', code: 'opaque_data' });
});
