'use strict';

const assert = require('node:assert/strict');
const { test } = require('node:test');
const { parseUrls } = require('../lib/urls');

/** Where each address leads, in one line. */
const places = (urls) =>
  parseUrls(urls).map(({ where: { host, port, path }, authority, isSecure }) =>
    [isSecure ? 'tls' : 'plain', path ?? `${host} ${port}`, authority].join(' '),
  );

test('an address is host and port, over http, https or a unix socket', () => {
  assert.deepEqual(places('http://10.0.0.7:80/'), ['plain 10.0.0.7 80 10.0.0.7:80']);
  assert.deepEqual(places('https://sessions.example:443'), ['tls sessions.example 443 sessions.example:443']);
  assert.deepEqual(places('http://[::1]:7400'), ['plain ::1 7400 [::1]:7400']);
  assert.deepEqual(places('unix:///run/a:b?#%/s.sock'), ['plain /run/a:b?#%/s.sock localhost']);
});

test('without a port it is 7377', () => {
  assert.deepEqual(places('https://host'), ['tls host 7377 host:7377']);
});

test('several addresses stand in an array or between commas', () => {
  const two = ['plain a 1 a:1', 'plain b 2 b:2'];

  assert.deepEqual(places('http://a:1, http://b:2'), two);
  assert.deepEqual(places(['http://a:1', 'http://b:2']), two);
});

test('nothing means SESSIOND_URL, and without that this machine', (t) => {
  const before = process.env.SESSIOND_URL;
  t.after(() => (before === undefined ? delete process.env.SESSIOND_URL : (process.env.SESSIOND_URL = before)));

  process.env.SESSIOND_URL = 'http://a:1';
  assert.deepEqual(places(undefined), ['plain a 1 a:1']);
  delete process.env.SESSIOND_URL;
  assert.deepEqual(places(undefined), ['plain 127.0.0.1 7377 127.0.0.1:7377']);
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
