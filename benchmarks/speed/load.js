'use strict';

/*
 * One Node process under load, as load.py is for Python: CALLERS callers ask a session store as fast as it answers.
 *
 *   node load.js STORE URL CALLERS SECONDS WRITES KEYS      STORE is sessiond or redis; prints JSON
 *   node load.js STORE URL fill KEYS
 *
 * Both stores are asked through express-session's contract, get and set with a callback, as the middleware asks them.
 */

const { createHash } = require('node:crypto');

const [name, url, ...rest] = process.argv.slice(2);

/** Some 350 bytes of JSON, as a logged-in visitor with a cart has them. */
function session(number) {
  return {
    cookie: { originalMaxAge: 3600000, expires: new Date(Date.now() + 3600000).toISOString(), httpOnly: true, path: '/' },
    user_id: number,
    name: `visitor ${number}`,
    csrf: createHash('sha256').update(`csrf${number}`).digest('hex'),
    cart: [{ sku: `item-${number % 97}`, count: 1, price: 19.9 }],
    last_page: '/products/list?page=3&sort=price',
  };
}

const sidOf = (number) => createHash('sha256').update(`sid${number}`).digest('base64url').slice(0, 32);

async function open() {
  if (name === 'sessiond') {
    const { SessiondStore } = require('connect-sessiond');
    const store = new SessiondStore({ url, deadline: 30_000 });
    return { store, close: () => store.close() };
  }
  const { createClient } = require('redis');
  const { RedisStore } = require('connect-redis');
  const client = createClient({ url });
  await client.connect();
  return { store: new RedisStore({ client }), close: () => client.close() };
}

const get = (store, sid) =>
  new Promise((resolve, reject) => store.get(sid, (error, found) => (error ? reject(error) : resolve(found))));
const set = (store, sid, data) =>
  new Promise((resolve, reject) => store.set(sid, data, (error) => (error ? reject(error) : resolve())));

async function fill(store, keys) {
  for (let start = 0; start < keys; start += 500) {
    const numbers = Array.from({ length: Math.min(500, keys - start) }, (_, each) => start + each);
    await Promise.all(numbers.map((number) => set(store, sidOf(number), session(number))));
  }
}

async function load(store, callers, seconds, writes, keys) {
  // Made before the clock runs: a load that makes them on the way would measure itself.
  const sids = Array.from({ length: keys }, (_, number) => sidOf(number));
  // What was read last of each session: a web app saves what it has loaded, and saves it because it has changed.
  const sessions = [];
  for (let start = 0; start < keys; start += 500) {
    sessions.push(...(await Promise.all(sids.slice(start, start + 500).map((sid) => get(store, sid)))));
  }
  const begin = performance.now() + seconds * 200;
  const end = begin + seconds * 1000;
  const taken = [];
  let pages = 0;
  async function call() {
    for (let now = 0; now < end; ) {
      const number = Math.floor(Math.random() * keys);
      const isWrite = Math.random() < writes;
      if (isWrite) sessions[number].last_page = `/products/list?page=${(pages += 1)}&sort=price`;
      const started = performance.now();
      if (isWrite) await set(store, sids[number], sessions[number]);
      else sessions[number] = await get(store, sids[number]);
      now = performance.now();
      if (!sessions[number]) throw new Error('a session that was written is not there');
      if (started >= begin && now <= end) taken.push(now - started);
    }
  }
  await Promise.all(Array.from({ length: callers }, call));
  if (!taken.length) throw new Error('no call was answered in time; give more seconds');
  taken.sort((a, b) => a - b);
  const at = (share) => taken[Math.min(taken.length - 1, Math.floor(taken.length * share))] * 1000;
  return { rate: taken.length / seconds, p50: at(0.5), p99: at(0.99), calls: taken.length };
}

async function main() {
  const { store, close } = await open();
  if (rest[0] === 'fill') await fill(store, Number(rest[1]));
  else console.log(JSON.stringify(await load(store, ...rest.map(Number))));
  await close();
}

main();
