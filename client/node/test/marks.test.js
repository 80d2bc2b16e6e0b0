'use strict';

const assert = require('node:assert/strict');
const { describe, test } = require('node:test');
const { inspect } = require('node:util');
const { makeMarks } = require('../lib/marks');

describe('marks', () => {
  test('are found by the object itself, the last one set, and by no copy of it', () => {
    const marks = makeMarks();
    const object = { a: 1 };
    const value = {};

    marks.set(object, 'first');
    marks.set(object, value);

    assert.equal(marks.get(object), value);
    assert.equal(marks.get({ ...object }), undefined);
    assert.equal(marks.get(Object.create(object)), undefined);
  });

  test('can be null', () => {
    const marks = makeMarks();
    const object = {};

    marks.set(object, null);

    assert.equal(marks.get(object), null);
  });

  test('of one kind know nothing of another', () => {
    const [one, other] = [makeMarks(), makeMarks()];
    const object = {};

    one.set(object, 1);

    assert.equal(other.get(object), undefined);
    other.set(object, 2);
    assert.deepEqual([one.get(object), other.get(object)], [1, 2]);
  });

  test('cannot be seen on the object, whatever looks', () => {
    const object = { a: 1 };

    makeMarks().set(object, { secret: 7 });

    assert.deepEqual(Reflect.ownKeys(object), ['a']);
    assert.deepEqual(object, { a: 1 });
    assert.equal(JSON.stringify(object), '{"a":1}');
    assert.equal(inspect(object, { showHidden: true }), '{ a: 1 }');
    assert.equal(Object.getPrototypeOf(object), Object.prototype);
    assert.deepEqual(Reflect.ownKeys(structuredClone(object)), ['a']);
  });

  test('stay on frozen objects, and on a proxy without touching what it stands for', () => {
    const marks = makeMarks();
    const target = {};
    const proxy = new Proxy(target, {
      get: () => assert.fail('read'),
      defineProperty: () => assert.fail('written'),
    });
    const frozen = Object.freeze({});

    marks.set(frozen, 'frozen');
    marks.set(proxy, 'proxy');

    assert.deepEqual([marks.get(frozen), marks.get(proxy), marks.get(target)], ['frozen', 'proxy', undefined]);
  });
});
