'use strict';

const assert = require('node:assert/strict');
const { createHash } = require('node:crypto');
const { test } = require('node:test');
const { keyFromName, keyName, keyOf } = require('..');
const { makeSha256 } = require('../lib/keys');

const sha256 = (bytes) => createHash('sha256').update(bytes).digest();

test('a key is the SHA-256 of the sid as UTF-8', () => {
  for (const sid of ['a', 'sess:%2F/..\u0000 ', 'zoë 😀', 'x'.repeat(5000)]) {
    assert.deepEqual(keyOf(sid), sha256(Buffer.from(sid)));
  }
});

test('a Node without crypto.hash has the same keys', () => {
  for (const data of ['a', 'zoë 😀', Buffer.from('61eda080', 'hex')]) {
    assert.deepEqual(makeSha256(undefined)(data), sha256(data));
  }
});

test('half a surrogate pair is a character of its own, as the Python client has it', () => {
  assert.deepEqual(keyOf('a\ud800b\udfff'), sha256(Buffer.from('61eda08062edbfbf', 'hex')));
  assert.notDeepEqual(keyOf('\ud800'), keyOf('\ud801'));
  assert.notDeepEqual(keyOf('\ud800'), keyOf('\ufffd'));
});

test('a key stands for itself', () => {
  assert.deepEqual(keyOf(keyOf('a')), keyOf('a'));
});

test('what is neither a sid nor a key is refused', () => {
  for (const sid of ['', undefined, null, 7, {}, Buffer.alloc(31)]) {
    assert.throws(() => keyOf(sid), { name: 'InvalidRequest', code: 'bad_key' });
  }
});

test('the written form of a key is read back, and is no sid of that session', () => {
  const key = keyOf('a');
  const name = keyName(key);

  assert.match(name, /^~[\w-]{43}$/);
  assert.deepEqual(keyFromName(name), key);
  assert.notDeepEqual(keyOf(name), key);
  for (const other of ['', '~', name.slice(1), `${name}A`, undefined]) {
    assert.throws(() => keyFromName(other), { code: 'bad_key' });
  }
});
