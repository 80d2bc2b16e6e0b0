'use strict';

const assert = require('node:assert/strict');
const { after, before, describe, test } = require('node:test');
const { ConnectFailed, InvalidRequest, SessiondStore, keyOf } = require('..');
const { Comeback } = require('../lib/policy');
const { Daemon, cannotRun } = require('./support/daemon');

const PATIENT = 20_000;

describe('events', { skip: cannotRun() }, () => {
  /** @type {Daemon} */
  let daemon;
  const stores = [];
  const open = (options) => {
    const store = new SessiondStore({ url: daemon.url, deadline: PATIENT, ...options });
    stores.push(store);
    return store;
  };
  const take = async (events, number) => {
    const found = [];
    while (found.length < number) {
      found.push((await events.next()).value);
    }
    return found;
  };
  /** An iterator that has begun: its first event is taken. */
  const begun = async (store) => {
    const events = store.events();
    const first = events.next();
    for (let n = 0, seen = false; !seen; n += 1) {
      await store.set(`begin ${n}`, { n });
      await store.destroy(`begin ${n}`);
      seen = await Promise.race([first.then(() => true), new Promise((resolve) => setTimeout(resolve, 20))]);
    }
    await store.set('mark', {});
    await store.destroy('mark');
    let last = (await first).value;
    while (!last.key.equals(keyOf('mark'))) {
      last = (await events.next()).value;
    }
    return { events, last };
  };

  before(async () => {
    daemon = await Daemon.start();
  });
  after(async () => {
    stores.forEach((store) => store.close());
    await daemon.remove();
  });

  test('tell what ends, with key and user', async () => {
    const store = open({ user: (session) => session.user });
    const { events } = await begun(store);
    await store.set('sid', { user: 'ada' });

    await store.destroy('sid');

    const [{ id, at, ...event }] = await take(events, 1);
    assert.deepEqual(event, { kind: 'destroyed', key: keyOf('sid'), user: 'ada', newKey: null, reason: null });
    assert.match(id, /^[0-9a-f]{16}-\d+-\d+$/);
    assert.equal(typeof at, 'number');
  });

  test('go on behind an id', async () => {
    const store = open();
    const { last } = await begun(store);
    for (const sid of ['a', 'b']) {
      await store.set(sid, {});
      await store.destroy(sid);
    }

    const missed = await take(open().events({ after: last.id }), 2);

    assert.deepEqual(missed.map(({ key }) => key), [keyOf('a'), keyOf('b')]);
  });

  test('come back by themselves, with a gap', async () => {
    const store = open();
    const { events } = await begun(store);

    await daemon.stop();
    await daemon.start();
    await store.set('later', {});
    await store.destroy('later');

    const [gap, later] = await take(events, 2);
    assert.deepEqual([gap.kind, gap.reason, gap.key], ['gap', 'restart', null]);
    assert.deepEqual(later.key, keyOf('later'));
  });

  test('more of them than wait anywhere are all told, in order', async () => {
    const store = open({ user: (session) => session.user });
    const { events } = await begun(store);
    await Promise.all(Array.from({ length: 5000 }, (_, n) => store.set(`many ${n}`, { user: 'bob' })));
    await store.destroyAll({ user: 'bob' });
    await new Promise((resolve) => setTimeout(resolve, 100));

    const told = await take(events, 5000);

    assert.equal(new Set(told.map(({ key }) => key.toString('hex'))).size, 5000);
    const positions = told.map(({ id }) => Number(id.split('-')[1]));
    assert.deepEqual(positions, positions.map((_, n) => positions[0] + n));
  });

  test('end when they are left, or the store is closed, also while somebody waits', async () => {
    const store = open();
    const [left, closed] = [store.events(), store.events()];
    const waiting = [left.next(), closed.next()];

    await left.return();
    store.close();

    assert.deepEqual(await Promise.all(waiting), [
      { done: true, value: undefined },
      { done: true, value: undefined },
    ]);
    assert.deepEqual(await closed.next(), { done: true, value: undefined });
  });

  test('a wrong id is an InvalidRequest, and the end', async () => {
    const events = open().events({ after: 'x' });

    await assert.rejects(events.next(), (error) => error instanceof InvalidRequest && error.code === 'bad_cursor');
    assert.equal((await events.next()).done, true);
  });

  test('nobody there is a ConnectFailed, after the deadline', async () => {
    const store = open({ url: 'http://127.0.0.1:9', deadline: 100 });

    await assert.rejects(store.events().next(), ConnectFailed);
  });

  test('options that cannot work are told, as by every call', async () => {
    await assert.rejects(open({ namespace: 'nowhere' }).events().next(), InvalidRequest);
  });
});

describe('when a reader comes back', () => {
  test('at first there is an end to it, and later none; the pauses double', () => {
    const comeback = new Comeback(2000, 0, () => 1);
    const error = new Error('x');

    assert.deepEqual([0, 1, 2, 3].map((now) => comeback.pause(error, now)), [50, 100, 200, 200]);
    assert.throws(() => comeback.pause(error, 2000), error);
    comeback.succeeded();
    assert.deepEqual(Array.from({ length: 9 }, () => comeback.pause(error, 1e9)), [50, 100, 200, 400, 800, 1600, 3200, 5000, 5000]);
  });
});
