'use strict';

/* Middleware that many Express apps have: what it does to a session has to come out right. */

const assert = require('node:assert/strict');
const { once } = require('node:events');
const { after, afterEach, before, describe, test } = require('node:test');
const { csrfSync } = require('csrf-sync');
const flash = require('connect-flash');
const express = require('express');
const openid = require('express-openid-connect');
const session = require('express-session');
const { Passport } = require('passport');
const { Strategy } = require('passport-local');
const { SessiondStore } = require('..');
const { Daemon, cannotRun } = require('./support/daemon');
const { Browser, gate, serve } = require('./support/web');

const HOUR = 60 * 60 * 1000;

describe('middleware', { skip: cannotRun() }, () => {
  let daemon;
  let store;
  const closing = [];

  before(async () => {
    daemon = await Daemon.start();
    store = new SessiondStore({ url: daemon.url, deadline: 20_000 });
  });
  afterEach(() => closing.splice(0).forEach((each) => each.close()));
  after(async () => {
    store.close();
    await daemon.remove();
  });

  async function start(define) {
    await store.clear();
    const app = express();
    app.use(express.urlencoded({ extended: false }));
    define(app);
    const { url, close } = await serve(app);
    closing.push({ close });
    return { url, browser: new Browser(url) };
  }
  const withSession = (app) =>
    app.use(session({ secret: 'keyboard cat', resave: false, saveUninitialized: false, cookie: { maxAge: HOUR }, store }));

  describe('passport', () => {
    const ADA = { username: 'ada', password: 'lovelace' };
    const startPassport = async (options = {}, extra = () => {}) => {
      const passport = new Passport();
      passport.use(new Strategy((name, password, done) => done(null, password === 'lovelace' && { name })));
      passport.serializeUser((user, done) => done(null, user.name));
      passport.deserializeUser((name, done) => done(null, { name }));
      return start((app) => {
        withSession(app);
        app.use(passport.authenticate('session'));
        app.post('/cart', (req, res) => {
          req.session.cart = [...(req.session.cart ?? []), req.body.item];
          res.end();
        });
        app.post('/login', passport.authenticate('local', { failureRedirect: '/', successRedirect: '/', ...options }));
        app.post('/logout', (req, res, next) => req.logout(options, (error) => (error ? next(error) : res.redirect('/'))));
        app.get('/', (req, res) => res.json({ user: req.user?.name ?? null, cart: req.session.cart ?? null }));
        extra(app);
      });
    };
    const see = async (browser) => JSON.parse((await browser.get('/')).text);

    test('login ends the anonymous session and indexes the new one by its user', async () => {
      const { browser } = await startPassport();
      await browser.post('/cart', { item: 'book' });
      const anonymous = browser.copy();
      await browser.post('/login', ADA);

      assert.notDeepEqual(browser.cookies, anonymous.cookies);
      assert.deepEqual(await see(browser), { user: 'ada', cart: null });
      assert.deepEqual(await see(anonymous), { user: null, cart: null });
      assert.deepEqual((await store.list({ user: 'ada' })).map(({ version }) => version), [1]);
      assert.equal(await store.length(), 1);
    });

    test('login with keepSessionInfo keeps what was in the session', async () => {
      const { browser } = await startPassport({ keepSessionInfo: true });
      await browser.post('/cart', { item: 'book' });
      await browser.post('/login', ADA);

      assert.deepEqual(await see(browser), { user: 'ada', cart: ['book'] });
    });

    test('a login that fails changes nothing', async () => {
      const { browser } = await startPassport();
      await browser.post('/cart', { item: 'book' });
      await browser.post('/login', { username: 'ada', password: 'wrong' });

      assert.deepEqual(await see(browser), { user: null, cart: ['book'] });
    });

    test('logout ends the session for whoever has the cookie', async () => {
      const { browser } = await startPassport();
      await browser.post('/login', ADA);
      const thief = browser.copy();
      await browser.post('/logout');

      assert.deepEqual(await see(browser), { user: null, cart: null });
      assert.deepEqual(await see(thief), { user: null, cart: null });
      assert.deepEqual(await store.list({ user: 'ada' }), []);
    });

    test('logout ends it also while a slow request of that user is under way', async () => {
      let slow;
      const { browser } = await startPassport({}, (app) => {
        slow = gate(app, '/slow', (req, res) => {
          req.session.cart = ['late'];
          res.end();
        });
      });
      await browser.post('/login', ADA);
      const thief = browser.copy();
      const post = thief.copy().post('/slow');
      await slow.reach(1);
      await browser.post('/logout');
      const late = once(store, 'lateSave');
      slow.open();
      await Promise.all([post, late]);

      assert.deepEqual(await see(thief), { user: null, cart: null });
      assert.deepEqual(await store.list({ user: 'ada' }), []);
    });

    test('all of a user\'s browsers are logged out in one call', async () => {
      const { browser, url } = await startPassport();
      const other = new Browser(url);
      await Promise.all([browser.post('/login', ADA), other.post('/login', ADA)]);

      assert.equal(await store.destroyAll({ user: 'ada' }), 2);
      assert.deepEqual([(await see(browser)).user, (await see(other)).user], [null, null]);
    });
  });

  test('connect-flash shows a message once, on the page after the redirect', async () => {
    const { browser } = await start((app) => {
      withSession(app);
      app.use(flash());
      app.post('/', (req, res) => {
        req.flash('info', 'saved 😀');
        res.redirect('/');
      });
      app.get('/', (req, res) => res.json(req.flash('info')));
    });
    const { location } = await browser.post('/');

    assert.equal((await browser.get(location)).text, '["saved 😀"]');
    assert.equal((await browser.get(location)).text, '[]');
  });

  test('csrf-sync accepts the token of the session and no other', async () => {
    const { generateToken, csrfSynchronisedProtection } = csrfSync();
    const { browser, url } = await start((app) => {
      withSession(app);
      app.get('/token', (req, res) => res.send(generateToken(req)));
      app.post('/', csrfSynchronisedProtection, (req, res) => res.send('accepted'));
      app.use((error, req, res, next) => res.status(error.status ?? 500).send(error.code ?? next.name));
    });
    const { text: token } = await browser.get('/token');
    const { text: foreign } = await new Browser(url).get('/token');

    assert.equal((await browser.post('/', {}, { 'x-csrf-token': token })).text, 'accepted');
    assert.equal((await browser.post('/', {}, { 'x-csrf-token': foreign })).status, 403);
    assert.equal((await browser.get('/token')).text, token);
  });

  describe('express-openid-connect', () => {
    const define = (app) => {
      app.use(
        openid.auth({
          issuerBaseURL: 'http://127.0.0.1:9',
          baseURL: 'http://127.0.0.1:8',
          clientID: 'client',
          secret: 'a secret of more than 32 characters',
          authRequired: false,
          session: { store },
        }),
      );
      app.post('/set', (req, res) => {
        Object.assign(req.appSession, req.query);
        res.end();
      });
      app.get('/see', (req, res) => res.json(req.appSession));
      app.post('/logout', (req, res) => {
        req.appSession = null;
        res.end();
      });
    };

    test('keeps its sessions here, under its own ids and with its own expiry', async () => {
      const { browser } = await start(define);
      await browser.post('/set?name=ada');
      await browser.post('/set?n=2');

      assert.equal((await browser.get('/see')).text, '{"name":"ada","n":"2"}');
      const [{ expiresAt }] = await store.list();
      const [{ header, cookie }] = await store.all();
      assert.ok(header.exp > header.iat);
      assert.equal(cookie.expires, expiresAt);
    });

    test('logout ends the session, also while a slow request is under way', async () => {
      let slow;
      const { browser } = await start((app) => {
        define(app);
        slow = gate(app, '/slow', (req, res) => {
          req.appSession.late = true;
          res.end();
        });
      });
      await browser.post('/set?name=ada');
      const thief = browser.copy();
      const post = thief.copy().post('/slow');
      await slow.reach(1);
      await browser.post('/logout');
      const late = once(store, 'lateSave');
      slow.open();
      await Promise.all([post, late]);

      assert.equal((await thief.get('/see')).text, '{}');
      assert.equal(await store.length(), 0);
    });
  });
});
