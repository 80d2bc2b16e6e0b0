'use strict';

const assert = require('node:assert/strict');
const { once } = require('node:events');
const { after, before, describe, mock, test } = require('node:test');
const { promisify } = require('node:util');
const { Conflict, InvalidRequest, SessiondStore, keyName, keyOf } = require('..');
const { Daemon, cannotRun } = require('./support/daemon');
const { pack } = require('./support/peers');

const HOUR = 60 * 60 * 1000;
let count = 0;
const newSid = () => `sid ${(count += 1)}`;
const lasting = (ms) => ({ originalMaxAge: ms, expires: new Date(Date.now() + ms), httpOnly: true, path: '/' });
const session = (fields = {}, ms = HOUR) => ({ cookie: lasting(ms), ...fields });

const METHODS = ['get', 'set', 'destroy', 'touch', 'all', 'length', 'clear', 'ids', 'list', 'destroyAll'];
const STYLES = {
  promises: (store) => store,
  callbacks: (store) => Object.fromEntries(METHODS.map((name) => [name, promisify(store[name]).bind(store)])),
};

describe('the store', { skip: cannotRun() }, () => {
  let daemon;
  const stores = [];
  const open = (options = {}) => {
    const store = new SessiondStore({ url: daemon.url, deadline: 20_000, ...options });
    stores.push(store);
    return store;
  };
  /** Asks the daemon as some other program would. */
  const rest = (method, sid, { body, ...headers } = {}) =>
    fetch(`${daemon.url}/v1/sessions/${encodeURIComponent(sid)}`, { method, body, headers });
  const entry = async (store, sid) => (await store.list()).find(({ key }) => key.equals(keyOf(sid)));

  before(async () => {
    daemon = await Daemon.start();
  });
  after(async () => {
    stores.forEach((store) => store.close());
    await daemon.remove();
  });

  for (const [style, wrap] of Object.entries(STYLES)) {
    describe(`with ${style}`, () => {
      let store;
      before(async () => {
        store = wrap(open());
        await store.clear();
      });

      test('get gives null for what never was', async () => {
        assert.equal((await store.get(newSid())) ?? null, null);
      });

      test('set and get keep a session as it is', async () => {
        const sid = newSid();
        const kept = session({ n: 1, name: 'zoë 😀', list: [1, null, { deep: true }] });
        await store.set(sid, kept);

        const { cookie, ...rest } = await store.get(sid);

        assert.deepEqual({ cookie: { ...cookie, expires: kept.cookie.expires }, ...rest }, kept);
        assert.ok(Math.abs(new Date(cookie.expires) - (await daemon.now())) <= HOUR);
      });

      test('set creates, and replaces what lives', async () => {
        const sid = newSid();
        await store.set(sid, session({ a: 1 }));
        await store.set(sid, session({ b: 2 }));

        const { a, b } = await store.get(sid);

        assert.deepEqual([a, b], [undefined, 2]);
      });

      test('destroy ends a session and may be repeated', async () => {
        const sid = newSid();
        await store.set(sid, session());
        await store.destroy(sid);
        await store.destroy(sid);

        assert.equal((await store.get(sid)) ?? null, null);
      });

      test('touch renews, and get shows the new instant in the cookie', async () => {
        const sid = newSid();
        await store.set(sid, session({}, HOUR));
        const { cookie } = await store.get(sid);
        await daemon.advance(1000);
        await store.touch(sid, session({}, 2 * HOUR));

        const { expires } = (await store.get(sid)).cookie;

        assert.ok(new Date(expires) - new Date(cookie.expires) >= HOUR);
      });

      test('touch of a missing session is no error and creates nothing', async () => {
        const sid = newSid();
        await store.touch(sid, session());

        assert.equal((await store.get(sid)) ?? null, null);
      });

      test('all, ids, length and clear count the living', async () => {
        await store.clear();
        const sids = [newSid(), newSid()];
        await Promise.all(sids.map((sid) => store.set(sid, session({ sid }))));

        assert.equal(await store.length(), 2);
        assert.deepEqual((await store.all()).map(({ sid }) => sid).sort(), sids.sort());
        assert.deepEqual((await store.ids()).map(keyName).sort(), sids.map(keyOf).map(keyName).sort());
        await store.clear();
        assert.equal(await store.length(), 0);
        assert.deepEqual(await store.all(), []);
        assert.deepEqual(await store.ids(), []);
      });

      test('errors arrive the same way', async () => {
        await assert.rejects(store.get(''), InvalidRequest);
        await assert.rejects(store.set(newSid(), null), InvalidRequest);
        await assert.rejects(store.destroyAll({}), InvalidRequest);
      });
    });
  }

  test('every callback is optional', async () => {
    const store = open();
    const sid = newSid();

    store.set(sid, session());
    store.touch(sid, session());
    store.destroy(sid);
    store.destroy('');

    assert.equal(await store.get(sid), null);
  });

  describe('time', () => {
    test('a session of 5 ms lives for 5 ms', async () => {
      const store = open();
      const sid = newSid();
      await store.set(sid, session({}, 5));
      await daemon.advance(5);

      assert.equal(await store.get(sid), null);
    });

    for (const [how, expires] of [
      ['a Date', (instant) => new Date(instant)],
      ['an ISO string', (instant) => new Date(instant).toISOString()],
      ['a number', (instant) => instant],
    ]) {
      test(`a cookie that says when it expires with ${how} is obeyed, and shows it as ${how} in JSON`, async () => {
        const store = open();
        const sid = newSid();
        await store.set(sid, { cookie: { expires: expires(Date.now() + HOUR) } });
        await daemon.advance(HOUR / 2);

        const { cookie } = await store.get(sid);

        assert.equal(typeof cookie.expires, how === 'a number' ? 'number' : 'string');
        assert.equal(new Date(cookie.expires).getTime(), (await entry(store, sid)).expiresAt);
        await daemon.advance(HOUR / 2);
        assert.equal(await store.get(sid), null);
      });
    }

    test('a session without an end of its own gets that of the option ttl, else the daemon\'s', async () => {
      const [own, other] = [newSid(), newSid()];
      const store = open({ ttl: HOUR });
      await store.set(own, { cookie: { expires: null } });
      await open().set(other, { cookie: { expires: null } });
      await daemon.advance(HOUR);

      assert.equal(await store.get(own), null);
      assert.deepEqual(await store.get(other), { cookie: { expires: null } });
    });

    test('set and touch with a cookie that has expired end the session', async () => {
      const store = open();
      for (const method of ['set', 'touch']) {
        const sid = newSid();
        await store.set(sid, session());
        await store[method](sid, session({}, -1));

        assert.equal(await store.get(sid), null);
      }
    });

    test('a cookie for ten years lives as long as browsers keep it', async () => {
      const store = open();
      const sid = newSid();
      await store.set(sid, session({}, 10 * 365 * 24 * HOUR));
      await daemon.advance(399 * 24 * HOUR);

      assert.ok(await store.get(sid));
    });

    test('a new maxAge is kept by touch', async () => {
      const store = open();
      const sid = newSid();
      await store.set(sid, session());
      const loaded = await store.get(sid);
      loaded.cookie = lasting(5 * HOUR);
      await store.touch(sid, loaded);

      assert.equal((await store.get(sid)).cookie.originalMaxAge, 5 * HOUR);
    });

    test('an unchanged cookie that is touched leaves the version alone', async () => {
      const store = open();
      const sid = newSid();
      await store.set(sid, session());
      const loaded = await store.get(sid);
      loaded.cookie.expires = new Date(Date.now() + HOUR);
      await store.touch(sid, loaded);
      await store.set(sid, loaded);

      assert.equal((await entry(store, sid)).version, 1);
    });

    test('touchAfter spares a session that was renewed a moment ago', async (t) => {
      const other = await Daemon.start(); // its clock is ours
      t.after(() => other.remove());
      t.after(() => mock.timers.reset());
      const store = open({ url: other.url, touchAfter: 60_000 });
      const sid = newSid();
      await store.set(sid, session());
      const { expiresAt } = await entry(store, sid);
      const loaded = await store.get(sid);
      loaded.cookie.expires = new Date(Date.now() + 3 * HOUR);

      await store.touch(sid, loaded);
      assert.equal((await entry(store, sid)).expiresAt, expiresAt);

      mock.timers.enable({ apis: ['Date'], now: Date.now() + 61_000 });
      await store.touch(sid, loaded);
      assert.ok((await entry(store, sid)).expiresAt > expiresAt);
    });
  });

  describe('two requests at once', () => {
    const twice = async (store, sid) => [await store.get(sid), await store.get(sid)];

    test('that change different entries both keep their change', async () => {
      const store = open();
      const sid = newSid();
      await store.set(sid, session({ a: 1, b: 1, c: { d: 1 }, gone: 1 }));
      const [one, other] = await twice(store, sid);
      one.a = 2;
      one.c.d = 2;
      other.b = 2;
      delete other.gone;
      await store.set(sid, other);
      await store.set(sid, one);

      const { cookie, ...rest } = await store.get(sid);

      assert.deepEqual(rest, { a: 2, b: 2, c: { d: 2 } });
    });

    test('that change the same entry: the later one wins', async () => {
      const store = open();
      const sid = newSid();
      await store.set(sid, session({ a: 1 }));
      const [one, other] = await twice(store, sid);
      one.a = 2;
      other.a = 3;
      await store.set(sid, one);
      await store.set(sid, other);

      assert.equal((await store.get(sid)).a, 3);
    });

    test('with overwrite the later one takes it all', async () => {
      const store = open({ concurrency: 'overwrite' });
      const sid = newSid();
      await store.set(sid, session({ a: 1, b: 1 }));
      const [one, other] = await twice(store, sid);
      one.a = 2;
      other.b = 2;
      await store.set(sid, one);
      await store.set(sid, other);

      const { a, b } = await store.get(sid);

      assert.deepEqual([a, b], [1, 2]);
    });

    test('with reject the later one gets a Conflict, and may load and try again', async () => {
      const store = open({ concurrency: 'reject' });
      const sid = newSid();
      await store.set(sid, session({ a: 1 }));
      const [one, other] = await twice(store, sid);
      one.a = 2;
      other.b = 2;
      await store.set(sid, one);

      await assert.rejects(store.set(sid, other), (error) => error instanceof Conflict && error.version === 2);

      const again = await store.get(sid);
      again.b = 2;
      await store.set(sid, again);
      assert.deepEqual([(await store.get(sid)).a, (await store.get(sid)).b], [2, 2]);
    });

    test('one object may be saved again and again, without waiting in between', async () => {
      for (const concurrency of ['merge', 'overwrite', 'reject']) {
        const store = open({ concurrency });
        const sid = newSid();
        const own = session();
        const saves = [1, 2, 3].map((n) => {
          own.n = n;
          own[`n${n}`] = true;
          return store.set(sid, own);
        });
        await Promise.all(saves);

        const { n, n1, n3 } = await store.get(sid);

        assert.deepEqual([n, n1, n3], [3, true, true]);
      }
    });
  });

  for (const concurrency of ['merge', 'overwrite', 'reject']) {
    test(`with ${concurrency} a session that has ended is not revived by a late save, which is no error`, async () => {
      const store = open({ concurrency });
      const sid = newSid();
      await store.set(sid, session({ a: 1 }));
      const loaded = await store.get(sid);
      const same = await store.get(sid);
      await open().destroy(sid);
      loaded.a = 2;
      const late = once(store, 'lateSave');

      await promisify(store.set).call(store, sid, loaded);
      await store.set(sid, same);
      await store.touch(sid, same);
      same.cookie = lasting(2 * HOUR);
      await store.touch(sid, same);

      assert.deepEqual(await late, [keyOf(sid)]);
      assert.equal(await store.get(sid), null);
    });
  }

  test('a new session may live under the sid of one that has ended', async () => {
    const store = open();
    const sid = newSid();
    await store.set(sid, session({ a: 1 }));
    await store.destroy(sid);
    await store.set(sid, session({ a: 2 }));

    assert.equal((await store.get(sid)).a, 2);
  });

  describe('data', () => {
    for (const [what, sid] of [
      ['any byte', '\u0000/..%2F\n"\'; drop'],
      ['emoji', '😀'],
      ['half an emoji', '\ud83d'],
      ['10,000 characters', 'x'.repeat(10_000)],
      ['the written form of a key', keyName(keyOf('other'))],
    ]) {
      test(`a sid may hold ${what}`, async () => {
        const store = open();
        await store.set('other', session({ who: 'other' }));
        await store.set(sid, session({ who: what }));

        assert.equal((await store.get(sid)).who, what);
        assert.equal((await store.get('other')).who, 'other');
      });
    }

    test('a session without a cookie is kept verbatim', async () => {
      const store = open();
      const sid = newSid();
      await store.set(sid, { header: { iat: 1 }, data: {} });

      assert.deepEqual(await store.get(sid), { header: { iat: 1 }, data: {} });
      assert.equal(await (await rest('GET', sid)).text(), '{"header":{"iat":1},"data":{}}');
    });

    test('a large session comes back whole', async () => {
      const store = open();
      const sid = newSid();
      const text = '😀'.repeat(15_000);
      await store.set(sid, session({ text }));

      assert.equal((await store.get(sid)).text, text);
    });

    test('a session over the size limit is a clear error, and the old one stays', async () => {
      const store = open();
      const sid = newSid();
      await store.set(sid, session({ a: 1 }));
      for (const size of [70_000, 17 * 1024 * 1024]) {
        const loaded = await store.get(sid);
        loaded.text = 'x'.repeat(size);

        await assert.rejects(store.set(sid, loaded), { name: 'InvalidRequest', code: 'too_large' });
      }
      assert.equal((await store.get(sid)).a, 1);
    });

    test('what cannot be JSON is a clear error', async () => {
      const store = open();
      const circular = session();
      circular.self = circular;

      for (const odd of [circular, session({ n: 1n }), undefined, 'text', [], { toJSON: () => 'text' }]) {
        await assert.rejects(store.set(newSid(), odd), { name: 'InvalidRequest', code: 'bad_data' });
      }
    });

    test('a session that another program wrote in MessagePack is read, and its other entries keep their bytes', async () => {
      const store = open();
      const sid = newSid();
      const body = Buffer.concat([Buffer.from([0x83]), pack('n'), pack(1), pack('raw'), pack(Buffer.from([1, 2])), pack('big')]);
      const big = Buffer.from('cf00000000ffffffff', 'hex');
      await rest('PUT', sid, { body: Buffer.concat([body, big]), 'content-type': 'application/msgpack' });

      const loaded = await store.get(sid);
      assert.deepEqual([loaded.n, loaded.big, [...loaded.raw]], [1, 0xffffffff, [1, 2]]);
      loaded.n = 2;
      await store.set(sid, loaded);

      const kept = Buffer.from(await (await rest('GET', sid, { accept: 'application/msgpack' })).arrayBuffer());
      assert.ok(kept.includes(big) && kept.includes(Buffer.from([0xc4, 2, 1, 2])));
      assert.equal((await store.get(sid)).n, 2);
    });

    test('opaque data is a clear error for get, and left out of all', async () => {
      const store = open();
      const sid = newSid();
      await rest('PUT', sid, { body: Buffer.from([0xff, 0]), 'content-type': 'application/octet-stream' });

      await assert.rejects(store.get(sid), { name: 'InvalidRequest', code: 'opaque_data' });
      assert.ok(Array.isArray(await store.all()));
    });

    test('all gives an object by written key when asked to', async () => {
      const store = open({ all: 'object' });
      const sid = newSid();
      await store.set(sid, session({ a: 1 }));

      assert.equal((await store.all())[keyName(keyOf(sid))].a, 1);
    });

    test('a key from a listing does where a sid does', async () => {
      const store = open();
      const sid = newSid();
      await store.set(sid, session({ a: 1 }));

      assert.equal((await store.get(keyOf(sid))).a, 1);
      await store.destroy(keyOf(sid));
      assert.equal(await store.get(sid), null);
    });
  });

  describe('users', () => {
    const login = (user) => session({ passport: { user } });

    test('a user\'s sessions are listed and ended, but for the one excepted', async () => {
      const store = open();
      const sids = [newSid(), newSid(), newSid()];
      await Promise.all(sids.map((sid) => store.set(sid, login('ada'))));
      await store.set('of somebody else', login('bob'));

      const listed = await store.list({ user: 'ada' });
      assert.deepEqual(listed.map(({ key }) => keyName(key)).sort(), sids.map(keyOf).map(keyName).sort());
      assert.ok(listed.every(({ user, version, size }) => user === 'ada' && version === 1 && size > 0));
      assert.equal(await store.destroyAll({ user: 'ada', except: sids[0] }), 2);
      assert.deepEqual((await store.list({ user: 'ada' })).map(({ key }) => key), [keyOf(sids[0])]);
      assert.equal((await store.list({ user: 'bob' })).length, 1);
    });

    test('a user who is nobody is not everybody', async () => {
      const store = open();
      await store.set(newSid(), login('ada'));

      await assert.rejects(store.list({ user: undefined }), { code: 'bad_user' });
      await assert.rejects(store.destroyAll({ user: undefined }), { code: 'bad_user' });
      assert.ok((await store.list()).length >= 1);
    });

    test('more sessions than fit a page are listed', async () => {
      const store = open();
      const sids = Array.from({ length: 1001 }, newSid);
      await Promise.all(sids.map((sid) => store.set(sid, login(1001))));

      assert.equal((await store.list({ user: 1001 })).length, 1001);
      assert.equal(await store.destroyAll({ user: 1001 }), 1001);
    });

    test('logging in and out gives a session its owner and takes it away', async () => {
      const store = open();
      const sid = newSid();
      await store.set(sid, session());
      const loaded = await store.get(sid);
      loaded.passport = { user: 7 };
      await store.set(sid, loaded);
      assert.equal((await entry(store, sid)).user, '7');

      delete loaded.passport.user;
      await store.set(sid, loaded);

      assert.equal((await entry(store, sid)).user, null);
    });

    test('an owner that another program gave is not taken away', async () => {
      const store = open();
      const sid = newSid();
      await rest('PUT', sid, { body: '{"a":1}', 'content-type': 'application/json', 'session-user': 'ada' });
      const loaded = await store.get(sid);
      loaded.a = 2;
      await store.set(sid, loaded);

      assert.equal((await entry(store, sid)).user, 'ada');
    });

    test('the option user says whose session it is', async () => {
      const store = open({ user: ({ account }) => account?.id });
      const sid = newSid();
      await store.set(sid, session({ account: { id: 'kay' }, passport: { user: 'not this' } }));

      assert.equal((await store.list({ user: 'kay' })).length, 1);
    });

    test('an exception in the option user is told to the caller', async () => {
      const store = open({ user: ({ account }) => account.id });

      await assert.rejects(store.set(newSid(), session()), TypeError);
    });
  });

  describe('a wrong deployment', () => {
    for (const [options, code] of [
      [{ url: 'nonsense' }, 'bad_url'],
      [{ namespace: 'shop' }, 'bad_namespace'],
    ]) {
      test(`${JSON.stringify(options)} is an error in every callback`, async () => {
        const store = new SessiondStore(options);

        for (const call of [store.get('a'), store.set('a', {}), store.touch('a', {}), store.length(), store.clear()]) {
          await assert.rejects(call, { name: 'InvalidRequest', code });
        }
      });
    }
  });
});
