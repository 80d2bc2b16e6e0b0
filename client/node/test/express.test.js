'use strict';

const assert = require('node:assert/strict');
const { once } = require('node:events');
const { after, afterEach, before, describe, test } = require('node:test');
const { sign } = require('cookie-signature');
const express = require('express');
const session = require('express-session');
const { SessiondStore } = require('..');
const { Daemon, cannotRun } = require('./support/daemon');
const { Browser, gate, serve } = require('./support/web');

const HOUR = 60 * 60 * 1000;

describe('express-session', { skip: cannotRun() }, () => {
  let daemon;
  const closing = [];

  before(async () => {
    daemon = await Daemon.start();
  });
  afterEach(() => closing.splice(0).forEach((each) => each.close()));
  after(() => daemon.remove());

  const open = (options = {}) => {
    const store = new SessiondStore({ url: daemon.url, deadline: 20_000, ...options });
    closing.push(store);
    return store;
  };

  /** An app on its own port with the routes of `define`, and a browser that visits it. */
  async function start(define, { store = open(), ...options } = {}) {
    const app = express();
    app.use(session({ secret: 'keyboard cat', resave: false, saveUninitialized: false, cookie: { maxAge: HOUR }, store, ...options }));
    define(app);
    app.use((error, req, res, next) => {
      if (!res.headersSent) {
        res.status(error.status ?? 500).send(error.name);
      }
    });
    const { url, close } = await serve(app);
    closing.push({ close });
    return { store, url, browser: new Browser(url) };
  }

  const counter = (app) =>
    app.get('/', (req, res) => {
      req.session.num = (req.session.num ?? 0) + 1;
      res.send(`Views: ${req.session.num}`);
    });
  const keys = (app) => {
    app.post('/set', (req, res) => {
      Object.assign(req.session, req.query);
      res.end();
    });
    app.get('/see', (req, res) => {
      const { cookie, ...rest } = req.session;
      res.json(rest);
    });
  };
  const see = async (browser) => JSON.parse((await browser.get('/see')).text);

  test('an app of ten lines, run twice behind round-robin, keeps its count through restarts of all', async () => {
    const browser = new Browser('');
    for (let count = 1; count <= 6; count += 1) {
      const { url, browser: fresh } = await start(counter);
      fresh.cookies = browser.cookies;
      if (count === 3) {
        await daemon.kill();
        await daemon.start();
      }

      assert.equal((await fresh.get('/')).text, `Views: ${count}`, url);
    }
  });

  for (const resave of [false, true]) {
    for (const saveUninitialized of [false, true]) {
      for (const rolling of [false, true]) {
        test(`it holds with ${JSON.stringify({ resave, saveUninitialized, rolling })}`, async () => {
          const { browser, store } = await start(
            (app) => {
              counter(app);
              keys(app);
            },
            { resave, saveUninitialized, rolling },
          );
          await store.clear();

          await browser.get('/see');
          assert.equal(await store.length(), saveUninitialized ? 1 : 0);
          await browser.get('/');
          await browser.get('/see');
          await browser.get('/');
          assert.deepEqual(await see(browser), { num: 2 });
          const [{ version }] = await store.list();
          assert.equal(version, saveUninitialized ? 3 : 2); // whatever was not changed was not written
        });
      }
    }
  }

  for (const resave of [false, true]) {
    test(`100 concurrent requests that each set a key of their own leave 100 keys, with resave ${resave}`, async () => {
      let slow;
      const define = (app) => {
        slow = gate(app, '/slow', (req, res) => {
          req.session[`key${req.query.n}`] = Number(req.query.n);
          res.end();
        });
        keys(app);
      };
      const { browser } = await start(define, { resave });
      await browser.post('/set?first=1');

      const posts = Array.from({ length: 100 }, (_, n) => browser.post(`/slow?n=${n}`));
      await slow.reach(100);
      slow.open();
      await Promise.all(posts);

      const found = await see(browser);
      assert.equal(Object.keys(found).length, 101);
      assert.ok(Object.keys(found).every((name) => name === 'first' || found[name] === Number(name.slice(3))));
    });
  }

  test('a slow request that saves after logout leaves the session gone, and is answered like any other', async () => {
    let slow;
    const { browser, store } = await start((app) => {
      slow = gate(app, '/slow', (req, res) => {
        req.session.late = true;
        res.send('done');
      });
      app.post('/logout', (req, res, next) => req.session.destroy((error) => (error ? next(error) : res.end())));
      keys(app);
    });
    await store.clear();
    await browser.post('/set?user=ada');
    const thief = browser.copy();
    const post = browser.post('/slow');
    await slow.reach(1);
    await browser.post('/logout');
    const late = once(store, 'lateSave');
    slow.open();

    const { status, text } = await post;
    await late;

    assert.deepEqual([status, text], [200, 'done']);
    assert.deepEqual(await see(thief), {});
    assert.equal(await store.length(), 0);
  });

  test('destroy without a callback ends the session', async () => {
    const { browser } = await start((app) => {
      app.post('/logout', (req, res) => {
        req.session.destroy();
        res.end();
      });
      keys(app);
    });
    await browser.post('/set?user=ada');
    await browser.post('/logout');

    assert.deepEqual(await see(browser), {});
  });

  test('regenerate ends the old session and starts an empty one', async () => {
    const { browser, store } = await start((app) => {
      app.post('/login', (req, res, next) =>
        req.session.regenerate((error) => {
          if (error) {
            return next(error);
          }
          req.session.user = 'ada';
          return req.session.save((failure) => (failure ? next(failure) : res.redirect('/see')));
        }),
      );
      keys(app);
    });
    await store.clear();
    await browser.post('/set?cart=1');
    const old = browser.copy();
    await browser.post('/login');

    assert.deepEqual(await see(browser), { user: 'ada' });
    assert.deepEqual(await see(old), {});
    assert.deepEqual((await store.list()).map(({ version }) => version), [1]); // express-session saved it twice
  });

  test('regenerate gives a promise too', async () => {
    const { browser } = await start((app) => {
      app.post('/login', async (req, res) => {
        await req.sessionStore.regenerate(req);
        req.session.user = 'ada';
        res.end();
      });
      keys(app);
    });
    await browser.post('/set?cart=1');
    await browser.post('/login');

    assert.deepEqual(await see(browser), { user: 'ada' });
  });

  test('regenerate under an id that is always the same starts over', async () => {
    const { browser } = await start(
      (app) => {
        app.post('/login', (req, res) => {
          const before = req.session.bag;
          req.session.regenerate(() => {
            req.session.bag = before;
            res.end();
          });
        });
        app.post('/bag', (req, res) => {
          req.session.bag = { apple: 1 };
          res.end();
        });
        keys(app);
      },
      { genid: () => 'always the same' },
    );
    await browser.post('/bag');
    await browser.post('/set?a=1');
    await browser.post('/login');

    assert.deepEqual(await see(browser), { bag: { apple: 1 } });
  });

  test('save and reload in the middle of a request show what others have saved', async () => {
    let slow;
    const { browser } = await start((app) => {
      slow = gate(app, '/slow', (req, res) => {
        req.session.own = '1';
        req.session.save(() =>
          req.session.reload((error) => {
            const { other } = req.session;
            req.session.seen = other;
            res.end(error?.message);
          }),
        );
      });
      keys(app);
    });
    await browser.post('/set?first=1');
    const post = browser.post('/slow');
    await slow.reach(1);
    await browser.post('/set?other=2');
    slow.open();
    await post;

    assert.deepEqual(await see(browser), { first: '1', other: '2', own: '1', seen: '2' });
  });

  test('reload of a session that has ended is the error that express-session makes of it', async () => {
    const { browser, store } = await start((app) => {
      app.post('/end', async (req, res) => {
        await store.destroy(req.sessionID);
        req.session.reload((error) => res.send(error.message));
      });
      keys(app);
    });
    await browser.post('/set?a=1');

    assert.equal((await browser.post('/end')).text, 'failed to load session');
  });

  test('a session that is taken away with unset: destroy is gone', async () => {
    const { browser, store } = await start(
      (app) => {
        app.post('/unset', (req, res) => {
          req.session = null;
          res.end();
        });
        keys(app);
      },
      { unset: 'destroy' },
    );
    await store.clear();
    await browser.post('/set?a=1');
    await browser.post('/unset');

    assert.equal(await store.length(), 0);
  });

  test('every visit renews a session, also one that changes nothing', async () => {
    const { browser, store } = await start(keys);
    await store.clear();
    await browser.post('/set?a=1');
    for (let visit = 0; visit < 3; visit += 1) {
      await daemon.advance(HOUR * 0.9);
      assert.deepEqual(await see(browser), { a: '1' });
    }
    assert.equal((await store.list())[0].version, 1);
    await daemon.advance(HOUR);

    assert.deepEqual(await see(browser), {});
  });

  test('a new maxAge in a request that changes nothing else is kept', async () => {
    const { browser, store } = await start((app) => {
      app.post('/remember', (req, res) => {
        req.session.cookie.maxAge = 30 * 24 * HOUR;
        res.end();
      });
      keys(app);
    });
    await store.clear();
    await browser.post('/set?a=1');
    await browser.post('/remember');
    await browser.get('/see');
    await daemon.advance(20 * 24 * HOUR);

    assert.deepEqual(await see(browser), { a: '1' });
  });

  test('a maxAge of 5 ms ends the session in 5 ms, and the id is not used again', async () => {
    const { browser } = await start(keys, { cookie: { maxAge: 5 } });
    await browser.post('/set?a=1');
    const { cookies } = browser.copy();
    await daemon.advance(5);
    await browser.post('/set?b=1');

    assert.notDeepEqual(browser.cookies, cookies);
    await daemon.advance(5);
    assert.deepEqual(await see(browser), {});
  });

  test('entries whose names express-session hides are left alone', async () => {
    let sid;
    const { browser, store } = await start((app) => {
      app.post('/make', (req, res) => {
        sid = req.sessionID;
        req.session.a = 1;
        res.end();
      });
      keys(app);
    });
    await browser.post('/make');
    const loaded = await store.get(sid);
    await store.set(sid, { ...loaded, id: 'kept', save: 'kept' });
    await browser.post('/set?b=2');

    const { id, save, b } = await store.get(sid);
    assert.deepEqual([id, save, b], ['kept', 'kept', '2']);
  });

  test('a session that was made elsewhere is opened when it has a cookie, and is express-session\'s error when not', async () => {
    const { browser } = await start(keys);
    const visit = async (data) => {
      const headers = { 'content-type': 'application/json' };
      const created = await fetch(`${daemon.url}/v1/sessions`, { method: 'POST', headers, body: JSON.stringify(data) });
      const { sid } = await created.json();
      browser.cookies.set('connect.sid', encodeURIComponent(`s:${sign(sid, 'keyboard cat')}`));
      return browser.get('/see');
    };
    const cookie = { originalMaxAge: null, expires: null, httpOnly: true, path: '/' };

    assert.equal((await visit({ user: 'ada', cookie })).text, '{"user":"ada"}');
    assert.deepEqual([(await visit({ user: 'ada' })).status, (await visit({ user: 'ada' })).text], [500, 'TypeError']);
  });

  test('load gives a session to programs without a request', async () => {
    let sid;
    const { browser, store } = await start((app) => {
      app.post('/make', (req, res) => {
        sid = req.sessionID;
        req.session.a = 1;
        res.end();
      });
      keys(app);
    });
    await browser.post('/make');

    const loaded = await new Promise((resolve, reject) => {
      store.load(sid, (error, found) => (error ? reject(error) : resolve(found)));
    });
    loaded.b = 2;
    await new Promise((resolve) => loaded.save(resolve));

    assert.deepEqual(await see(browser), { a: 1, b: 2 });
  });

  test('with reject a stale save is a 409', async () => {
    let slow;
    const { browser } = await start(
      (app) => {
        slow = gate(app, '/slow', (req, res, next) => {
          req.session.a = 'stale';
          req.session.save((error) => (error ? req.session.reload(() => next(error)) : res.end()));
        });
        keys(app);
      },
      { store: open({ concurrency: 'reject' }) },
    );
    await browser.post('/set?a=1');
    const post = browser.post('/slow');
    await slow.reach(1);
    await browser.post('/set?a=2');
    slow.open();

    assert.deepEqual([(await post).status, (await post).text], [409, 'Conflict']);
    assert.deepEqual(await see(browser), { a: '2' });
  });

  describe('rotate', () => {
    const login = (grace) => (app) => {
      app.post('/login', async (req, res) => {
        req.session.user = 'ada';
        await req.sessionStore.rotate(req, { grace });
        req.session.since = '1';
        res.end();
      });
      keys(app);
    };

    test('gives a session a new id and keeps what is in it; the old id is dead', async () => {
      const { browser, store } = await start(login(0));
      await store.clear();
      await browser.post('/set?cart=1');
      const old = browser.copy();
      await browser.post('/login');

      assert.notDeepEqual(browser.cookies, old.cookies);
      assert.deepEqual(await see(browser), { cart: '1', user: 'ada', since: '1' });
      assert.deepEqual(await see(old), {});
      assert.equal(await store.length(), 1);
    });

    test('with grace does not break the requests that are under way', async () => {
      let slow;
      const { browser, store } = await start((app) => {
        slow = gate(app, '/slow', (req, res) => {
          req.session.slow = '1';
          res.end();
        });
        login(10_000)(app);
      });
      await store.clear();
      await browser.post('/set?cart=1');
      const old = browser.copy();
      const post = old.post('/slow');
      await slow.reach(1);
      await browser.post('/login');
      slow.open();
      await post;

      const both = { cart: '1', user: 'ada', since: '1', slow: '1' };
      assert.deepEqual(await see(browser), both);
      assert.deepEqual(await see(old), both);
      await daemon.advance(10_000);
      assert.deepEqual(await see(old), {});
      assert.deepEqual(await see(browser), both);
    });

    test('of a new session gives it a new id', async () => {
      const { browser } = await start(login(0));
      await browser.post('/login');

      assert.deepEqual(await see(browser), { user: 'ada', since: '1' });
    });

    test('of a session that has ended meanwhile is an error, and leaves the request as it was', async () => {
      const { browser, store } = await start((app) => {
        app.post('/login', async (req, res) => {
          const { sessionID, session: before } = req;
          await store.destroy(sessionID);
          await assert.rejects(store.rotate(req), { name: 'Missing' });
          await assert.rejects(store.rotate(req, { grace: -1 }), { code: 'bad_grace' });
          await assert.rejects(store.rotate({ sessionID }), { name: 'InvalidRequest' });
          res.json([req.sessionID === sessionID, req.session === before]);
        });
        keys(app);
      });
      await browser.post('/set?a=1');

      assert.equal((await browser.post('/login')).text, '[true,true]');
    });
  });

  test('log out everywhere else ends a user\'s other sessions', async () => {
    const { browser, store, url } = await start(
      (app) => {
        app.post('/others', async (req, res) => {
          res.json(await store.destroyAll({ user: req.session.user, except: req.sessionID }));
        });
        keys(app);
      },
      { store: open({ user: ({ user }) => user }) },
    );
    const others = [new Browser(url), new Browser(url)];
    await Promise.all([browser, ...others].map((each) => each.post('/set?user=ada')));

    assert.equal((await browser.post('/others')).text, '2');
    assert.deepEqual(await Promise.all([browser, ...others].map(see)), [{ user: 'ada' }, {}, {}]);
  });

  test('a daemon that is away is a 503 and nobody is logged out', async (t) => {
    const own = await Daemon.start();
    t.after(() => own.remove());
    const { browser } = await start(keys, { store: open({ url: own.url, deadline: 300 }) });
    await browser.post('/set?user=ada');
    const { cookies } = browser.copy();
    await own.kill();

    for (const visit of [1, 2, 3]) {
      const { status, text, set } = await browser.get('/see');
      assert.deepEqual([status, text, set], [503, 'ConnectFailed', []], `visit ${visit}`);
    }
    await own.start();
    while ((await browser.get('/see')).status === 503);

    assert.deepEqual(await see(browser), { user: 'ada' });
    assert.deepEqual(browser.cookies, cookies);
  });

  test('with disconnectEvents requests are served without a session while the daemon is away', async (t) => {
    const own = await Daemon.start();
    t.after(() => own.remove());
    const store = open({ url: own.url, deadline: 300, disconnectEvents: true });
    const { browser } = await start(
      (app) => {
        app.get('/open', (req, res) => res.json(req.session !== undefined));
        keys(app);
      },
      { store },
    );
    await browser.post('/set?user=ada');
    const gone = once(store, 'disconnect');
    await own.kill();
    await browser.get('/open');
    await gone;

    assert.deepEqual(await browser.get('/open').then(({ status, text }) => [status, text]), [200, 'false']);
    const back = once(store, 'connect');
    await own.start();
    await back;
    assert.deepEqual(await see(browser), { user: 'ada' });
  });

  test('a session that cannot be saved is an error of that request alone', async () => {
    const { browser } = await start((app) => {
      app.post('/large', (req, res, next) => {
        req.session.text = 'x'.repeat(100_000);
        req.session.save((error) => {
          delete req.session.text;
          next(error);
        });
      });
      keys(app);
    });
    await browser.post('/set?a=1');

    assert.equal((await browser.post('/large')).text, 'InvalidRequest');
    assert.deepEqual(await see(browser), { a: '1' });
  });
});
