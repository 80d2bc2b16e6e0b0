'use strict';

const assert = require('node:assert/strict');
const { test } = require('node:test');
const { parseUrls } = require('../lib/urls');

const streams = (urls) => parseUrls(urls).map(({ stream }) => stream);

test('an address is host and port, over http, https or a unix socket', () => {
  assert.deepEqual(streams('http://10.0.0.7:80/'), ['ws://10.0.0.7:80/v1/stream']);
  assert.deepEqual(streams('https://sessions.example:443'), ['wss://sessions.example:443/v1/stream']);
  assert.deepEqual(streams('http://[::1]:7400'), ['ws://[::1]:7400/v1/stream']);
  assert.deepEqual(streams('unix:///run/s.sock'), ['ws+unix:///run/s.sock:/v1/stream']);
});

test('without a port it is 7377', () => {
  assert.deepEqual(streams('https://host'), ['wss://host:7377/v1/stream']);
});

test('several addresses stand in an array or between commas', () => {
  const two = ['ws://a:1/v1/stream', 'ws://b:2/v1/stream'];

  assert.deepEqual(streams('http://a:1, http://b:2'), two);
  assert.deepEqual(streams(['http://a:1', 'http://b:2']), two);
});

test('nothing means SESSIOND_URL, and without that this machine', (t) => {
  const before = process.env.SESSIOND_URL;
  t.after(() => (before === undefined ? delete process.env.SESSIOND_URL : (process.env.SESSIOND_URL = before)));

  process.env.SESSIOND_URL = 'http://a:1';
  assert.deepEqual(streams(undefined), ['ws://a:1/v1/stream']);
  delete process.env.SESSIOND_URL;
  assert.deepEqual(streams(undefined), ['ws://127.0.0.1:7377/v1/stream']);
});

for (const url of [
  'nonsense',
  'ftp://a',
  'redis://127.0.0.1:6379',
  'http://',
  'http://a:99999',
  'http://a:0',
  'http://a:7377/path',
  'http://a:7377?x',
  'http://a:7377#',
  'http://a b',
  'http://a\nb',
  'unix://relative',
  'unix:///dir/',
  [],
  [7],
  ['http://a:1', ''],
]) {
  test(`${JSON.stringify(url)} is refused with a sentence that shows how to write it`, () => {
    assert.throws(() => parseUrls(url), { name: 'InvalidRequest', code: 'bad_url', message: /write it like http:/ });
  });
}

test('a password in an address is refused and not repeated', () => {
  assert.throws(
    () => parseUrls('http://user:secret@a:1'),
    ({ message }) => message.includes('token') && !message.includes('secret'),
  );
});
