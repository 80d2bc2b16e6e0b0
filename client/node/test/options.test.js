'use strict';

const assert = require('node:assert/strict');
const { test } = require('node:test');
const { readOptions } = require('../lib/options');
const { ownerOf, passportUser } = require('../lib/owner');

for (const options of [
  { deadline: 0 },
  { deadline: '2s' },
  { deadline: Infinity },
  { ttl: -1 },
  { ttl: 401 * 24 * 60 * 60 * 1000 },
  { touchAfter: NaN },
  { all: 'map' },
  { concurrency: 'last' },
  { user: 'passport' },
  { prefix: 'sess:' },
]) {
  test(`a slip in the code, ${JSON.stringify(options)}, throws where it stands`, () => {
    assert.throws(() => readOptions(options), { name: 'InvalidRequest', code: 'bad_option' });
  });
}

for (const [options, code] of [
  [{ url: 'nonsense' }, 'bad_url'],
  [{ token: 'line\r\nbreak' }, 'bad_token'],
  [{ token: '' }, 'bad_token'],
  [{ namespace: 'shop' }, 'bad_namespace'],
  [{ namespace: 'Shop', token: 't' }, 'bad_namespace'],
  [{ namespace: 'a\r\nX: y', token: 't' }, 'bad_namespace'],
]) {
  test(`a wrong deployment, ${JSON.stringify(options)}, is kept for the callbacks`, () => {
    assert.equal(readOptions(options).fault.code, code);
  });
}

test('without options everything has its default', () => {
  const { deadline, ttl, touchAfter, all, concurrency, user, fault } = readOptions();

  assert.deepEqual(
    { deadline, ttl, touchAfter, all, concurrency, user, fault },
    { deadline: 2000, ttl: null, touchAfter: 0, all: 'array', concurrency: 'merge', user: passportUser, fault: null },
  );
});

test('a namespace goes with a token, and default without one', () => {
  assert.equal(readOptions({ namespace: 'shop', token: 't' }).fault, null);
  assert.equal(readOptions({ namespace: 'default' }).fault, null);
});

test('the token may come from the environment, unless one is given', (t) => {
  t.after(() => delete process.env.SESSIOND_TOKEN);
  process.env.SESSIOND_TOKEN = 'from-outside';
  assert.equal(readOptions().token, 'from-outside');
  assert.equal(readOptions({ token: 'given' }).token, 'given');
  assert.equal(readOptions({ namespace: 'shop' }).fault, null);

  process.env.SESSIOND_TOKEN = 'line\r\nbreak';
  assert.equal(readOptions().fault.code, 'bad_token');

  process.env.SESSIOND_TOKEN = '';
  assert.equal(readOptions().token, null);
});

test('the owner is what passport keeps, when it is an id', () => {
  const owner = (user) => ownerOf(passportUser, { passport: { user } });

  assert.equal(owner('ada'), 'ada');
  assert.equal(owner(7), '7');
  assert.equal(owner('x'.repeat(256)), null);
  assert.equal(owner('{\n}'), null);
  assert.equal(owner({ id: 7 }), null);
  assert.equal(owner(undefined), null);
  assert.equal(ownerOf(passportUser, {}), null);
});

test('what the option user returns is an id or nothing', () => {
  assert.equal(ownerOf((session) => session.id, { id: 7n }), '7');
  assert.equal(ownerOf(() => '', {}), null);
  assert.throws(() => ownerOf(() => ({}), {}), { name: 'InvalidRequest', code: 'bad_user' });
});
