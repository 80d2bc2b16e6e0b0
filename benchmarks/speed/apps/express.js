'use strict';

/* Views, in Express: `node express.js STORE URL PORT`. URL is what the store's server, or its folder, is reached by. */

const express = require('express');
const session = require('express-session');

const stores = {
  MemoryStore: () => new session.MemoryStore(),

  async 'connect-redis'(url) {
    const { RedisStore } = require('connect-redis');
    const client = require('redis').createClient({ url });
    await client.connect();
    return new RedisStore({ client });
  },

  async 'express-mysql-session'(url) {
    const MySQLStore = require('express-mysql-session')(session);
    const { hostname: host, port, username: user, password, pathname } = new URL(url);
    const store = new MySQLStore({ host, port, user, password, database: pathname.slice(1) });
    await store.onReady();
    return store;
  },

  'session-file-store'(path) {
    const FileStore = require('session-file-store')(session);
    return new FileStore({ path, logFn: () => {} });
  },

  'connect-sessiond'(url) {
    const { SessiondStore } = require('connect-sessiond');
    return new SessiondStore({ url });
  },
};

async function main([name, url, port]) {
  const app = express();
  app.use(session({ store: await stores[name](url), secret: 'speed', resave: false, saveUninitialized: false }));
  app.get('/', (req, res) => {
    req.session.views = (req.session.views ?? 0) + 1;
    res.send(String(req.session.views));
  });
  app.listen(Number(port), '127.0.0.1');
}

main(process.argv.slice(2));
