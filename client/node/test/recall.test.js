'use strict';

const assert = require('node:assert/strict');
const { test } = require('node:test');
const { Recall } = require('../lib/recall');
const { keyOf } = require('../lib/keys');

const loaded = (sid) => ({ key: keyOf(sid), text: '{}', cookie: undefined, version: 1, renewedAt: 0, user: null });

test('what was handed out is found by the object itself', () => {
  const recall = new Recall();
  const [data, state] = [{ a: 1 }, loaded('a')];
  recall.handOut(data, state);

  assert.equal(recall.find(data, keyOf('a')), state);
  assert.equal(recall.find({ ...data }, keyOf('a')), null);
});

test('a copy is found when somebody says that it is one', () => {
  const recall = new Recall();
  const [data, state, copy] = [{ a: 1 }, loaded('a'), { a: 1 }];
  recall.handOut(data, state);
  recall.wasCopied(copy, data);

  assert.equal(recall.find(copy, keyOf('a')), state);
});

test('an object around what was handed out is found by what is in it', () => {
  const recall = new Recall();
  const [data, state] = [{ data: { name: 'ada' } }, loaded('a')];
  recall.handOut(data, state);

  assert.equal(recall.find({ header: {}, data: data.data }, keyOf('a')), state);
});

test('a copy of the cookie carries its mark through JSON-like copies, and JSON does not show it', () => {
  const recall = new Recall();
  const [data, state] = [{ cookie: { path: '/' } }, loaded('a')];
  recall.handOut(data, state);
  const copy = { [Symbol('options of some framework')]: { secure: true, ...data.cookie.toJSON() } };

  assert.equal(recall.find(copy, keyOf('a')), state);
  assert.equal(JSON.stringify(data), '{"cookie":{"path":"/"}}');
  assert.deepEqual(data, { cookie: { path: '/' } });
});

test('what was loaded under one sid says nothing about another', () => {
  const recall = new Recall();
  const data = { bag: {} };
  recall.handOut(data, loaded('a'));

  assert.equal(recall.find(data, keyOf('b')), null);
  assert.equal(recall.find({ bag: data.bag }, keyOf('b')), null);
});

test('a new session is new, whatever it is filled with', () => {
  const recall = new Recall();
  const data = { bag: {} };
  recall.handOut(data, loaded('a'));
  const fresh = { bag: data.bag };
  recall.isNew(fresh);

  assert.equal(recall.find(fresh, keyOf('a')), null);
});
