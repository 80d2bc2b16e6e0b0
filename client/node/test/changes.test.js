'use strict';

const assert = require('node:assert/strict');
const { test } = require('node:test');
const { changesBetween, isSameCookie } = require('../lib/changes');

const between = (before, after) => {
  const changes = changesBetween(JSON.stringify(before), JSON.stringify(after));
  return changes && { set: changes.text && JSON.parse(changes.text), remove: changes.remove };
};

test('equal data has no changes', () => {
  assert.equal(between({ a: 1, b: [1, { c: null }] }, { a: 1, b: [1, { c: null }] }), null);
  assert.equal(between({}, {}), null);
});

test('the order of the entries is no change', () => {
  assert.equal(between({ a: 1, b: 2 }, { b: 2, a: 1 }), null);
});

test('only entries that differ are set, whole', () => {
  assert.deepEqual(between({ a: 1, b: { c: 1, d: 2 } }, { a: 1, b: { c: 1, d: 3 }, e: '😀' }), {
    set: { b: { c: 1, d: 3 }, e: '😀' },
    remove: [],
  });
});

test('entries that are gone or undefined are removed', () => {
  assert.deepEqual(between({ a: 1, b: 2, c: 3 }, { a: 1, b: undefined }), { set: undefined, remove: ['b', 'c'] });
});

test('a date equals the string it was loaded as', () => {
  const now = new Date();

  assert.equal(between({ at: now.toISOString() }, { at: now }), null);
});

test('numbers as another language writes them are no change', () => {
  assert.equal(changesBetween('{"a": 1.0, "b": 1e2}', '{"a":1,"b":100}'), null);
});

test('names that objects have by birth are names like others', () => {
  const before = '{"__proto__":1,"constructor":2}';

  assert.deepEqual(changesBetween(before, '{"constructor":3}'), { text: '{"constructor":3}', remove: ['__proto__'] });
});

test('a cookie whose instant has moved is no change', () => {
  const cookie = { originalMaxAge: 1000, httpOnly: true, path: '/' };

  assert.equal(between({ cookie: { ...cookie, expires: 'a' } }, { cookie: { ...cookie, expires: 'b' } }), null);
});

test('a cookie that got or lost its end, or another maxAge or attribute, is one', () => {
  const cookie = { originalMaxAge: 60_000, expires: '2030-01-01T00:00:00.000Z', path: '/' };

  assert.ok(isSameCookie(cookie, { ...cookie, originalMaxAge: 59_999 }));
  assert.ok(isSameCookie(cookie, { ...cookie, originalExpires: '2029-01-01T00:00:00.000Z' }));
  assert.ok(isSameCookie(undefined, undefined));
  for (const other of [
    { ...cookie, originalMaxAge: 120_000 },
    { ...cookie, originalMaxAge: null, expires: null },
    { ...cookie, path: '/app' },
    { ...cookie, secure: true },
    undefined,
    'cookie',
  ]) {
    assert.ok(!isSameCookie(cookie, other), JSON.stringify(other));
    assert.ok(!isSameCookie(other, cookie), JSON.stringify(other));
  }
});
