'use strict';

const assert = require('node:assert/strict');
const { test } = require('node:test');
const { LONGEST_TTL, isoOf, showExpiry, ttlOf } = require('../lib/expiry');

const NOW = 1_800_000_000_000;
const ttl = (cookie, fallback = null) => ttlOf({ cookie }, NOW, fallback);

test('the cookie says in ms how long the session lives, as a Date, an ISO string or a number', () => {
  assert.equal(ttl({ expires: new Date(NOW + 5) }), 5);
  assert.equal(ttl({ expires: new Date(NOW + 5).toISOString() }), 5);
  assert.equal(ttl({ expires: NOW + 5 }), 5);
  assert.equal(ttl({ _expires: new Date(NOW + 5) }), 5);
  assert.equal(ttl({ expires: null, originalMaxAge: 5 }), 5);
});

test('an instant that has passed leaves nothing to live', () => {
  assert.ok(ttl({ expires: new Date(NOW) }) <= 0);
  assert.ok(ttl({ expires: new Date(0).toISOString(), originalMaxAge: 1000 }) <= 0);
});

test('a cookie that ends with the browser leaves it to the option, and that to the daemon', () => {
  for (const cookie of [undefined, null, {}, { expires: null }, { expires: false }, { expires: new Date('never') }]) {
    assert.equal(ttl(cookie, 7), 7);
    assert.equal(ttl(cookie), null);
  }
  assert.equal(ttlOf(undefined, NOW, 7), 7);
});

test('a session lives at most as long as browsers keep cookies', () => {
  assert.equal(ttl({ expires: new Date(8.64e15) }), LONGEST_TTL);
});

test('the cookie shows the instant in the way in which it showed it before', () => {
  const shown = (cookie) => {
    showExpiry({ cookie }, NOW);
    return cookie?.expires;
  };

  assert.equal(shown({ expires: new Date(5).toISOString() }), new Date(NOW).toISOString());
  assert.equal(shown({ expires: 5 }), NOW);
  assert.equal(shown({ expires: null }), null);
  assert.equal(shown({ expires: false }), false);
  assert.equal(shown({ expires: 'never' }), 'never');
  assert.equal(shown({}), undefined);
  assert.equal(shown(undefined), undefined);
});

test('an instant is written as Date writes it, on whatever day', () => {
  const hour = 60 * 60 * 1000;
  const days = [0, 1, -1, 19_000, 20_512, 11_016, 2_932_896, 2_932_897].map((day) => day * 24 * hour);
  const times = [0, 1, 99, 100, 999, 1000, 59_999, 60_000, hour - 1, hour, 13 * hour + 7 * 60_000 + 9_012, 24 * hour - 1];

  for (const instant of days.flatMap((day) => times.map((time) => day + time))) {
    assert.equal(isoOf(instant), new Date(instant).toISOString());
  }
});
