'use strict';

const assert = require('node:assert/strict');
const { once } = require('node:events');
const { after, afterEach, before, describe, test } = require('node:test');
const cookie = require('@fastify/cookie');
const fastifySession = require('@fastify/session');
const fastify = require('fastify');
const { SessiondStore } = require('..');
const { Daemon, cannotRun } = require('./support/daemon');
const { Browser } = require('./support/web');

const HOUR = 60 * 60 * 1000;

describe('@fastify/session', { skip: cannotRun() }, () => {
  let daemon;
  let store;
  const closing = [];

  before(async () => {
    daemon = await Daemon.start();
    store = new SessiondStore({ url: daemon.url, deadline: 20_000, user: ({ user }) => user });
  });
  afterEach(() => closing.splice(0).forEach((app) => app.close()));
  after(async () => {
    store.close();
    await daemon.remove();
  });

  async function start(options = {}) {
    await store.clear();
    const app = fastify({ forceCloseConnections: true });
    const gate = {};
    const isOpen = new Promise((resolve) => (gate.open = resolve));
    app.register(cookie);
    app.register(fastifySession, {
      secret: 'a secret of more than 32 characters',
      saveUninitialized: false,
      cookie: { secure: false, maxAge: HOUR },
      store,
      ...options,
    });
    app.addContentTypeParser('application/x-www-form-urlencoded', (request, body, done) => body.resume().on('end', done));
    app.post('/set', async (request) => {
      Object.assign(request.session, request.query);
      return '';
    });
    app.get('/see', async (request) => {
      const { cookie: _, ...rest } = { ...request.session };
      return rest;
    });
    app.post('/slow', async (request) => {
      gate.waiting = (gate.waiting ?? 0) + 1;
      gate.reached?.();
      await isOpen;
      Object.assign(request.session, request.query);
      return '';
    });
    app.post('/login', async (request) => {
      await request.session.regenerate(['cart']);
      request.session.user = 'ada';
      return '';
    });
    app.post('/logout', async (request) => {
      await request.session.destroy();
      return '';
    });
    gate.reach = (count) =>
      new Promise((resolve) => {
        gate.reached = () => gate.waiting >= count && resolve();
      });
    await app.listen({ port: 0, host: '127.0.0.1' });
    closing.push(app);
    return { gate, browser: new Browser(`http://127.0.0.1:${app.server.address().port}`) };
  }
  const see = async (browser) => JSON.parse((await browser.get('/see')).text);

  for (const rolling of [true, false]) {
    test(`a session is kept and renewed, with rolling ${rolling}`, async () => {
      const { browser } = await start({ rolling });
      await browser.post('/set?n=1');
      await daemon.advance(HOUR / 2);
      await browser.post('/set?m=2');

      assert.deepEqual(await see(browser), { n: '1', m: '2' });
      assert.equal((await store.list())[0].version, 2); // a request that changes nothing writes nothing
      await daemon.advance(HOUR);
      assert.deepEqual(await see(browser), {});
    });

    test(`concurrent requests that change different keys all keep their change, with rolling ${rolling}`, async () => {
      const { browser, gate } = await start({ rolling });
      await browser.post('/set?first=1');
      const reached = gate.reach(50);
      const posts = Array.from({ length: 50 }, (_, n) => browser.copy().post(`/slow?key${n}=${n}`));
      await reached;
      gate.open();
      await Promise.all(posts);

      assert.equal(Object.keys(await see(browser)).length, 51);
    });
  }

  test('login ends the old session, and logout the new one, whatever is under way', async () => {
    const { browser, gate } = await start();
    await browser.post('/set?cart=book');
    const anonymous = browser.copy();
    await browser.post('/login');
    assert.deepEqual(await see(browser), { cart: 'book', user: 'ada' });
    assert.deepEqual(await see(anonymous), {});
    assert.equal((await store.list({ user: 'ada' })).length, 1);

    const thief = browser.copy();
    const reached = gate.reach(1);
    const post = thief.copy().post('/slow?late=1');
    await reached;
    await browser.post('/logout');
    const late = once(store, 'lateSave');
    gate.open();
    await Promise.all([post, late]);

    assert.deepEqual(await see(thief), {});
    assert.equal((await store.list({ user: 'ada' })).length, 0);
  });

  test('a daemon that is away is a 503', async () => {
    const own = await Daemon.start();
    const away = new SessiondStore({ url: own.url, deadline: 300 });
    const { browser } = await start({ store: away });
    await browser.post('/set?n=1');
    await own.remove();

    assert.equal((await browser.get('/see')).status, 503);
    away.close();
  });
});
