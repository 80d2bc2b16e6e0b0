'use strict';

const assert = require('node:assert/strict');
const { readFileSync } = require('node:fs');
const path = require('node:path');
const { describe, test } = require('node:test');
const { unpack } = require('../lib/codec');
const { AuthError, Conflict, Exists, Failed, InvalidRequest, Missing, Unavailable } = require('../lib/errors');
const protocol = require('../lib/protocol');
const { ROOT } = require('./support/daemon');

/** One message of these calls, each with its seq. */
function messageOf(...calls) {
  const message = new protocol.Message();
  message.begin();
  for (const [seq, call] of calls) {
    assert.ok(message.add(seq, call));
  }
  return message.end();
}

const golden = (name) => JSON.parse(readFileSync(path.join(ROOT, 'tests/protocol', name), 'utf8'));
const KEY = Buffer.alloc(32, 1);

/** The vectors' `{"hex": …}` as bytes. */
function revive(value) {
  if (Array.isArray(value)) {
    return value.map(revive);
  }
  if (typeof value !== 'object' || value === null) {
    return value;
  }
  const names = Object.keys(value);
  return names.length === 1 && names[0] === 'hex'
    ? Buffer.from(value.hex, 'hex')
    : Object.fromEntries(names.map((name) => [name, revive(value[name])]));
}

const VERBS = {
  create: ({ key, ...about }) => protocol.create(key, about),
  get: ({ key, renew }) => protocol.get(key, { renew }),
  set: ({ key, ...about }) => protocol.set(key, about),
  patch: ({ key, set, ...about }) => protocol.patch(key, { data: set, ...about }),
  touch: ({ key, ttl }) => protocol.touch(key, { ttl }),
  rotate: ({ key, new_key, ...how }) => protocol.rotate(key, new_key, how),
  destroy: ({ key }) => protocol.destroy(key),
  list: (page) => protocol.list(page),
  count: (of) => protocol.count(of),
  destroy_all: ({ user, except_key, everyone }) => protocol.destroyAll({ user, exceptKey: except_key, everyone }),
  watch: (from) => protocol.watch(from),
};

describe('calls.json', () => {
  for (const { name, meaning, hex, calls } of golden('calls.json').messages) {
    test(`${name}: ${meaning}`, () => {
      const asked = calls.map(revive).map(({ seq, verb, ...named }) => [seq, VERBS[verb](named)]);

      assert.equal(messageOf(...asked).toString('hex'), hex);
    });
  }
});

const ERRORS = { missing: Missing, exists: Exists, conflict: Conflict, refused: InvalidRequest, failed: Failed };
const NULL_MEANS = { get: 'missing', touch: 'missing', create: 'exists' };
const NAMES = { expires_at: 'expiresAt', created_at: 'createdAt', renewed_at: 'renewedAt' };
const camel = (fields) =>
  Object.fromEntries(Object.entries(fields).map(([name, value]) => [NAMES[name] ?? name, value]));
const ASKED = {
  create: () => protocol.create(KEY, { data: '{}' }),
  get: () => protocol.get(KEY),
  set: () => protocol.set(KEY, { data: '{}', when: 'any' }),
  touch: () => protocol.touch(KEY),
  destroy: () => protocol.destroy(KEY),
  list: () => protocol.list(),
  count: () => protocol.count(),
  watch: () => protocol.watch(),
};

describe('answers.json', () => {
  for (const { name, meaning, hex, answers } of golden('answers.json').messages) {
    test(`${name}: ${meaning}`, () => {
      const read = protocol.unpackAnswers(Buffer.from(hex, 'hex'));

      assert.deepEqual(
        read.map(([seq, status]) => ({ seq, status })),
        answers.map(({ seq, status }) => ({ seq, status })),
      );
      answers.map(revive).forEach(({ seq, verb, status, code, text, ...expected }, at) => {
        const result = () => ASKED[verb]().result(read[at], false);
        if (status === NULL_MEANS[verb]) {
          assert.equal(result(), null);
        } else if (status !== 'ok') {
          assert.throws(result, (error) => {
            const isForbidden = code === 'forbidden';
            assert.ok(error instanceof (isForbidden ? AuthError : ERRORS[status]));
            assert.deepEqual([error.code, error.answered], isForbidden ? [undefined, 403] : [code, undefined]);
            assert.equal(error.version, expected.version);
            return text === undefined || error.message === text;
          });
        } else if (verb === 'count') {
          assert.equal(result(), expected.number);
        } else if (verb === 'watch') {
          assert.equal(result(), expected.after);
        } else if (verb === 'list') {
          assert.deepEqual(result(), { entries: expected.entries.map(camel), cursor: expected.cursor });
        } else {
          assert.deepEqual({ ...result() }, camel(expected));
        }
      });
    });
  }

  for (const { name, meaning, hex, pushes: told } of golden('answers.json').pushes) {
    test(`push ${name}: ${meaning}`, () => {
      const pushes = protocol.unpackAnswers(Buffer.from(hex, 'hex')).filter(protocol.isPush);

      assert.deepEqual(pushes.map(protocol.tellsStopping), told.map(([event]) => event === 'stopping'));
      assert.deepEqual(
        pushes.map(protocol.eventOf),
        revive(told).map(([event, id, kind, key, user, at, newKey, reason]) =>
          event === 'ended' ? { id, kind, key, user, at, newKey, reason } : null,
        ),
      );
    });
  }
});

describe('messages', () => {
  for (const hex of ['', 'c1', '80', '9101', '919101', '919201c3', '9192a161a26f6b', '90ff', '92']) {
    test(`${hex || 'nothing'} is no message of a daemon`, () => {
      assert.throws(() => protocol.unpackAnswers(Buffer.from(hex, 'hex')), /its message/);
    });
  }

  for (const count of [0, 1, 15, 16, 10_000]) {
    test(`${count} calls are one array`, () => {
      const calls = Array.from({ length: count }, (_, n) => [n, protocol.count()]);

      const expected = calls.map(([seq]) => [seq, 'count']);

      assert.deepEqual(unpack(messageOf(...calls)), expected);
    });
  }

  test('a message takes 10,000 calls, or a megabyte, or one call that is larger', () => {
    const message = new protocol.Message();
    const counts = [protocol.count(), protocol.set(KEY, { data: 'x'.repeat(300_000), when: 'any' }), protocol.set(KEY, { data: 'x'.repeat(2_000_000), when: 'any' })].map((call) => {
      message.begin();
      while (message.add(message.count, call)) {}
      assert.equal(unpack(message.end()).length, message.count);
      return message.count;
    });

    assert.deepEqual(counts, [10_000, 3, 1]);
  });

  test('a call that fits no message is refused before it is sent, and the message is as it was', () => {
    const message = new protocol.Message();
    message.begin();
    message.add(1, protocol.count());

    const tooLarge = protocol.create(KEY, { data: Buffer.alloc(16 * 1024 * 1024) });
    assert.throws(() => message.add(2, tooLarge), { name: 'InvalidRequest', code: 'too_large' });

    message.add(3, protocol.count());
    assert.deepEqual(unpack(message.end()), [[1, 'count'], [3, 'count']]);
  });

  test('an integer beyond 32 bits stays one', () => {
    const year = 365 * 24 * 60 * 60 * 1000;

    const [[, , , ttl]] = unpack(messageOf([1, protocol.touch(KEY, { ttl: year })]));

    assert.equal(ttl, year);
  });
});

describe('calls', () => {
  test('every write gets an op of its own', () => {
    const ops = Array.from({ length: 2000 }, () => protocol.create(KEY, { data: '{}' }).parts.at(-1));

    assert.deepEqual([...new Set(ops.map((op) => op.length))], [8]);
    assert.equal(new Set(ops.map((op) => op.toString('hex'))).size, 2000);
  });

  test('half a surrogate pair in a user or a name is refused, not sent', () => {
    assert.throws(() => protocol.count({ user: '\ud800' }), InvalidRequest);
    assert.throws(() => protocol.patch(KEY, { remove: ['\udfff'] }), InvalidRequest);
    assert.throws(() => protocol.list({ user: '' }), InvalidRequest);
  });

  test('only a set without a version and destroy_all may not be repeated', () => {
    const all = [
      ...Object.values(ASKED).map((make) => make()),
      protocol.set(KEY, { data: '{}', when: 'alive' }),
      protocol.set(KEY, { data: '{}', when: 3 }),
      protocol.patch(KEY, { data: '{}' }),
      protocol.rotate(KEY, KEY),
      protocol.destroyAll({ user: 'ada' }),
    ];

    const not = all.filter((call) => !call.mayRepeat).map(({ parts: [verb, , , , , when] }) => [verb, when]);

    assert.deepEqual(not, [
      ['set', 'any'],
      ['set', 'alive'],
      ['destroy_all', undefined],
    ]);
  });

  test('a refusal of a repeat may be due to the first sending, so the outcome is unknown', () => {
    const refused = [
      [protocol.create(KEY, { data: '{}' }), [1, 'exists']],
      [protocol.rotate(KEY, KEY), [1, 'missing']],
      [protocol.rotate(KEY, KEY), [1, 'exists']],
    ];

    for (const [call, answer] of refused) {
      assert.throws(
        () => call.result(answer, true),
        (error) => error instanceof Unavailable && error.outcomeUnknown,
      );
    }
  });

  test('an answer of another shape is Unavailable, never a missing session', () => {
    assert.throws(() => protocol.get(KEY).result([1, 'ok'], false), Unavailable);
    assert.throws(() => protocol.get(KEY).result([1, 'polka'], false), Unavailable);
    assert.throws(() => protocol.count().result([1, 'ok', 'many'], false), Unavailable);
    assert.throws(() => protocol.list().result([1, 'ok', [[1]], null], false), Unavailable);
  });
});
