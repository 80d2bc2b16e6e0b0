'use strict';

const assert = require('node:assert/strict');
const { test } = require('node:test');
const { AuthError, ConnectFailed } = require('../lib/errors');
const { Errand, FIRST_PAUSE, LONGEST_PAUSE, PATIENT_PAUSE, Route, connectFailed, reasonOf } = require('../lib/policy');
const protocol = require('../lib/protocol');

const [A, B] = ['a', 'b'].map((name) => ({ url: `http://${name}:1`, stream: '' }));
const KEY = Buffer.alloc(32);
const PATIENCE = 2000;
const route = (chance = 1) => new Route([A, B], PATIENCE, () => chance);
const away = () => new ConnectFailed('away');

test('the last good address leads', () => {
  const two = route();
  two.succeeded(B);

  assert.deepEqual(two.order(), [B, A]);
});

test('an address that stops or is silent goes to the end, and only if it led', () => {
  const two = route();

  two.avoid(B);
  assert.deepEqual(two.order(), [A, B]);
  two.avoid(A);
  assert.deepEqual(two.order(), [B, A]);
});

test('a silent address leaves time for the others', () => {
  assert.equal(route().timeout, PATIENCE / 2);
});

test('callers wait through the first seconds of an outage, and fail at once after that', () => {
  const two = route();
  assert.equal(two.pause(0), 0);

  two.failed(0, away());
  assert.equal(two.pause(10), FIRST_PAUSE - 10);
  two.failed(PATIENCE - 1, away());

  assert.throws(() => two.refuse(PATIENCE), { name: 'ConnectFailed', message: 'away' });
});

test('a refused token is told at once, until the next attempt is due', () => {
  const two = route();
  two.failed(0, new AuthError('no', 401));

  assert.throws(() => two.refuse(1), { name: 'AuthError', answered: 401 });
  assert.equal(two.pause(FIRST_PAUSE), 0);
});

test('one caller makes the attempt that is due; others do not all try too', () => {
  const two = route();
  two.failed(0, away());
  assert.equal(two.pause(PATIENCE + 1), 0);

  assert.throws(() => two.pause(PATIENCE + 2), ConnectFailed);
});

test('the pause between attempts grows: to a short one while callers wait, to a long one after that', () => {
  const pauseAfter = (failures, now) => {
    const two = route();
    two.failed(0, away());
    for (let more = 1; more < failures; more += 1) {
      two.failed(now, away());
    }
    let wait = 0;
    for (;;) {
      try {
        if (two.pause(now + wait) === 0) {
          return wait;
        }
      } catch {
        // Nobody waits any more; the attempt comes all the same.
      }
      wait += 1;
    }
  };

  assert.deepEqual([1, 2, 3, 4, 9].map((failures) => pauseAfter(failures, 0)), [50, 100, PATIENT_PAUSE, PATIENT_PAUSE, PATIENT_PAUSE]);
  assert.deepEqual([4, 5, 6, 9].map((failures) => pauseAfter(failures, PATIENCE)), [400, 800, LONGEST_PAUSE, LONGEST_PAUSE]);
});

test('the pause is jittered, so that many processes do not come at once', () => {
  const jittered = route(0);
  jittered.failed(0, away());

  assert.equal(jittered.pause(0), 0);
});

test('a success ends the outage', () => {
  const two = route();
  two.failed(0, away());
  two.succeeded(A);

  assert.equal(two.error, null);
  assert.equal(two.pause(1), 0);
});

test('a call goes out three times at most', () => {
  const errand = new Errand(protocol.get(KEY), 0);
  for (let sent = 0; sent < 3; sent += 1) {
    assert.ok(errand.mayGoAgain());
    errand.goesOut();
  }

  assert.ok(!errand.mayGoAgain());
});

test('a write that would not be recognised goes out again only when no work was begun on it', () => {
  const errand = new Errand(protocol.destroyAll({ everyone: true }), 0);

  errand.goesOut();
  assert.ok(!errand.mayGoAgain());
  errand.wasTurnedAway();
  assert.ok(errand.mayGoAgain());
});

test('errors say what is known of the outcome', () => {
  const read = new Errand(protocol.get(KEY), 0);
  const write = new Errand(protocol.destroy(KEY), 0);
  const facts = (error) => [error.name, error.outcomeUnknown];

  assert.deepEqual(facts(read.late(1)), ['DeadlineExceeded', false]);
  assert.deepEqual(facts(write.late(1)), ['DeadlineExceeded', false]);
  assert.deepEqual(facts(write.unreachable(away())), ['ConnectFailed', false]);
  write.goesOut();
  assert.deepEqual(facts(write.late(1)), ['DeadlineExceeded', true]);
  assert.deepEqual(facts(write.lost('it hung up')), ['Unavailable', true]);
  assert.deepEqual(facts(write.unreachable(away())), ['ConnectFailed', true]);
});

test('the error of an outage names every address and its reason, and how to start a daemon', () => {
  const { message } = connectFailed([
    [A, new Error('connect ECONNREFUSED')],
    [B, new AggregateError([new Error('both of its addresses are silent')])],
  ]);

  assert.match(message, /http:\/\/a:1: connect ECONNREFUSED; http:\/\/b:1: both of its addresses are silent/);
  assert.match(message, /sessiond serve/);
  assert.equal(reasonOf(Object.assign(new Error(''), { code: 'EPIPE' })), 'EPIPE');
});
