'use strict';

/*
 * The app under test, one for all stores: `node app.js STORE WHERE`, where WHERE is JSON (stores.js).
 *
 * It prints its port. What stands before `session()` looks into the store from beside, or holds requests up at a gate:
 * such a request has loaded its session, and goes on when the gate is opened.
 */

const { setTimeout: sleep } = require('node:timers/promises');
const { promisify } = require('node:util');
const express = require('express');
const session = require('express-session');
const { STORES } = require('./stores');

const [name, where, cleanup] = process.argv.slice(2);

class Gate {
  reached = new Promise((resolve) => (this.reach = resolve));
  opened = new Promise((resolve) => (this.open = resolve));
}

const gates = new Map();
const gate = (key) => gates.get(key) ?? gates.set(key, new Gate()).get(key);

async function main() {
  const store = await STORES[name].open(session, JSON.parse(where), Number(cleanup));
  const stored = promisify(store.get.bind(store));
  const app = express();

  app.get('/gates/:gate/reached', async (req, res) => {
    await gate(req.params.gate).reached;
    res.json(null);
  });
  app.get('/gates/:gate/open', (req, res) => {
    gate(req.params.gate).open();
    res.json(null);
  });

  /** The instant at which the stored cookie says that it expires, ms. */
  app.get('/stored/:sid/expires', async (req, res) => {
    res.json(Date.parse((await stored(req.params.sid)).cookie.expires));
  });
  /** How long the session is there from its last renewal, in ms; asked for every 5 ms, which does not renew it. */
  app.get('/stored/:sid/lived', async (req, res) => {
    const { cookie } = await stored(req.params.sid);
    const renewed = Date.parse(cookie.expires) - cookie.originalMaxAge;
    while (await stored(req.params.sid)) {
      await sleep(5);
    }
    res.json(Date.now() - renewed);
  });
  app.get('/users/:user/sessions', async (req, res) => {
    res.json(await STORES[name].find(store, req.params.user));
  });

  app.use(
    session({
      store,
      secret: 'express correctness',
      resave: false,
      saveUninitialized: false,
      cookie: { maxAge: 600_000 },
    }),
  );

  app.use(async (req, res, next) => {
    if (req.query.gate) {
      gate(req.query.gate).reach();
      await gate(req.query.gate).opened;
    }
    next();
  });

  app.get('/', (req, res) => {
    req.session.num = (req.session.num ?? 0) + 1;
    res.json(req.session.num);
  });
  app.get('/login/:user', (req, res, next) => {
    req.session.regenerate((error) => {
      if (error) return next(error);
      req.session.passport = { user: req.params.user }; // where passport puts it
      res.json(req.sessionID);
    });
  });
  app.get('/logout', (req, res, next) => {
    req.session.destroy((error) => (error ? next(error) : res.json(null)));
  });
  app.get('/whoami', (req, res) => res.json(req.session.passport?.user ?? null));
  app.get('/set/:key', (req, res) => {
    req.session[req.params.key] = 1;
    if (req.query.maxAge) {
      req.session.cookie.maxAge = Number(req.query.maxAge);
    }
    res.json(req.sessionID);
  });
  app.get('/keys', (req, res) => res.json(Object.keys(req.session).filter((key) => key.startsWith('key'))));

  const server = app.listen(0, '127.0.0.1', () => console.log(`port ${server.address().port}`));
}

main();
