'use strict';

/*
 * The stores, each made as its own README makes it, and how each one finds the sessions of a user.
 *
 * `open(session, where)` runs in the web process. `where` is what the store's server, or its folder, is reached by:
 * `port`, `url` or `folder`. `cleanup` is only given where a scenario says so: the seconds between two cleanups.
 */

const { promisify } = require('node:util');

const quiet = () => {}; // session-file-store prints five lines for each session that it does not find

const memory = {
  title: 'MemoryStore',
  packages: ['express-session'],
  open: (session) => new session.MemoryStore(),
  find: (store, user) => among(store.all.bind(store), user),
};

const file = {
  title: 'session-file-store',
  packages: ['session-file-store'],
  open(session, { folder }, cleanup) {
    const FileStore = require('session-file-store')(session);
    return new FileStore({ path: folder, logFn: quiet, ...(cleanup && { reapInterval: cleanup }) });
  },
  async find(store, user) {
    const names = await promisify(store.list.bind(store))();
    const get = promisify(store.get.bind(store));
    const sessions = await Promise.all(names.map((name) => get(name.replace(/\.json$/, ''))));
    return sessions.filter((session) => session?.passport?.user === user).length;
  },
};

const mysql = {
  title: 'express-mysql-session',
  packages: ['express-mysql-session', 'mysql2'],
  async open(session, { port }, cleanup) {
    const MySQLStore = require('express-mysql-session')(session);
    const store = new MySQLStore({
      host: '127.0.0.1',
      port,
      user: 'web',
      password: 'web',
      database: 'sessions',
      ...(cleanup && { checkExpirationInterval: cleanup * 1000 }),
    });
    await store.onReady();
    return store;
  },
  find: (store, user) => among(store.all.bind(store), user),
};

const redis = {
  title: 'connect-redis',
  packages: ['connect-redis', 'redis'],
  async open(session, { port }) {
    const { createClient } = require('redis');
    const { RedisStore } = require('connect-redis');
    const client = createClient({ socket: { host: '127.0.0.1', port } });
    client.on('error', () => {}); // without a listener the process would end when Redis does
    await client.connect();
    return new RedisStore({ client });
  },
  find: (store, user) => among(store.all.bind(store), user),
};

const sessiond = {
  title: 'connect-sessiond',
  packages: ['connect-sessiond'],
  open(session, { url }) {
    const { SessiondStore } = require('connect-sessiond');
    return new SessiondStore({ url });
  },
  find: async (store, user) => (await store.list({ user })).length,
};

/** How many of all sessions are the user's: what `all` answers is an array in some stores and an object in others. */
async function among(all, user) {
  const sessions = Object.values((await promisify(all)()) ?? {});
  return sessions.filter((session) => session.passport?.user === user).length;
}

module.exports = { STORES: { memory, file, mysql, redis, 'redis-aof': { ...redis, title: 'connect-redis, AOF' }, sessiond } };
