'use strict';

const assert = require('node:assert/strict');
const { spawn } = require('node:child_process');
const { once } = require('node:events');
const path = require('node:path');
const { after, afterEach, before, describe, test } = require('node:test');
const { promisify } = require('node:util');
const { AuthError, ConnectFailed, DeadlineExceeded, SessiondStore, Unavailable, keyOf } = require('..');
const { Daemon, cannotRun } = require('./support/daemon');
const { answering, nobody, pack, proxy, welcoming } = require('./support/peers');

const INDEX = JSON.stringify(path.resolve(__dirname, '..'));
const PATIENT = 20_000;
const closing = [];
const open = (options) => {
  const store = new SessiondStore(options);
  closing.push(store);
  return store;
};
const using = async (peer) => {
  const it = await peer;
  closing.push(it);
  return it;
};
/** Asks with a callback, as express-session does. */
const ask = (store, method, ...args) => promisify(store[method]).call(store, ...args);

afterEach(() => closing.splice(0).forEach((each) => each.close()));

/** Runs a script that has `store`, and tells what it printed and how it ended. */
async function run(script, env = {}) {
  const code = `const { SessiondStore } = require(${INDEX}); const store = new SessiondStore(); ${script}`;
  const child = spawn(process.execPath, ['-e', code], { env: { ...process.env, ...env }, timeout: 60_000 });
  let said = '';
  child.stdout.on('data', (chunk) => (said += chunk));
  child.stderr.on('data', (chunk) => (said += chunk));
  const [status] = await once(child, 'close');
  return { status, said };
}

describe('with a daemon', { skip: cannotRun() }, () => {
  let daemon;
  before(async () => {
    daemon = await Daemon.start();
  });
  after(() => daemon.remove());

  test('what is asked for in one turn travels as one message', async () => {
    const between = await using(proxy(daemon.url));
    const store = open({ url: between.url, deadline: PATIENT });

    await Promise.all(Array.from({ length: 50 }, (_, n) => store.set(`turn ${n}`, { n })));
    await Promise.all(Array.from({ length: 50 }, (_, n) => store.get(`turn ${n}`)));

    assert.deepEqual(between.asked.map((calls) => calls.length), [50, 50]);
    assert.equal(between.connections, 1);
  });

  test('calls of more than a megabyte are shared out among messages', async () => {
    const between = await using(proxy(daemon.url));
    const store = open({ url: between.url, deadline: PATIENT });

    await Promise.all(Array.from({ length: 50 }, (_, n) => store.set(`large ${n}`, { text: 'x'.repeat(60_000) })));

    assert.equal(between.asked.length, 3);
  });

  test('a sid never leaves the process', async () => {
    const between = await using(proxy(daemon.url));
    const store = open({ url: between.url, deadline: PATIENT });
    await store.set('the-secret-sid', {});
    await store.get('the-secret-sid');
    await store.destroy('the-secret-sid');

    assert.ok(between.bytes.includes(keyOf('the-secret-sid')));
    assert.ok(!between.bytes.includes('the-secret-sid'));
  });

  for (const [verb, call, check] of [
    ['get', (store, sid) => store.get(sid), ({ a }) => assert.equal(a, 1)],
    ['touch', (store, sid) => store.touch(sid, {}), () => {}],
    ['destroy', (store, sid) => store.destroy(sid), () => {}],
    ['length', (store) => store.length(), (length) => assert.ok(length > 0)],
    ['list', (store) => store.list(), (list) => assert.ok(list.length > 0)],
    ['set of a new session', (store, sid) => store.set(`${sid} new`, { a: 2 }), () => {}],
  ]) {
    test(`${verb} is repeated when its answer was lost`, async () => {
      const sid = `lost ${verb}`;
      const between = await using(proxy(daemon.url));
      await open({ url: daemon.url, deadline: PATIENT }).set(sid, { a: 1 });
      const store = open({ url: between.url, deadline: PATIENT });
      between.eat = 1;

      check(await call(store, sid));

      assert.equal(between.asked.length, 2);
      assert.deepEqual(between.asked[0], between.asked[1]);
    });
  }

  test('a save whose answer was lost is repeated and done once', async () => {
    const between = await using(proxy(daemon.url));
    for (const concurrency of ['merge', 'reject']) {
      const sid = `lost save ${concurrency}`;
      const store = open({ url: between.url, deadline: PATIENT, concurrency });
      await store.set(sid, { a: 1 });
      const loaded = await store.get(sid);
      loaded.a = 2;
      between.eat = 1;

      await store.set(sid, loaded);

      const entry = (await store.list()).find(({ key }) => key.equals(keyOf(sid)));
      assert.equal(entry.version, 2);
      assert.equal((await store.get(sid)).a, 2);
    }
  });

  test('what must not be repeated is an error that says that its outcome is not known', async () => {
    const between = await using(proxy(daemon.url));
    const store = open({ url: between.url, deadline: PATIENT });
    await store.length();
    between.eat = 1;

    await assert.rejects(ask(store, 'clear'), (error) => error instanceof Unavailable && error.outcomeUnknown);

    assert.equal(await store.length(), 0);
  });

  test('a daemon that is restarted is found again, and its sessions with it', async () => {
    const store = open({ url: daemon.url, deadline: PATIENT });
    for (const end of ['kill', 'stop']) {
      await store.set(`restart ${end}`, { a: 1 });
      await daemon[end]();
      const waiting = store.get(`restart ${end}`);
      await daemon.start();

      assert.equal((await waiting).a, 1);
    }
  });

  test('the next address is used when the first one is away', async () => {
    const store = open({ urls: [await nobody(), daemon.url], deadline: PATIENT });

    await store.set('fail-over', { a: 1 });

    assert.equal((await store.get('fail-over')).a, 1);
  });

  test('a daemon that is about to stop is left for another one, and no call is lost', async (t) => {
    const other = await Daemon.start();
    t.after(() => other.remove());
    const store = open({ url: [other.url, daemon.url], deadline: PATIENT });
    await store.length();
    let isStopping = true;
    const stopping = other.stop().then(() => (isStopping = false));
    let n = 0;

    while (isStopping) {
      await store.set(`stopping ${(n += 1)}`, { n });
    }
    await stopping;
    await store.set('stopped', {});

    assert.deepEqual(await store.get('stopped'), {});
  });

  test('a daemon that has fallen silent is an error within the deadline, and left for another one', async (t) => {
    const silent = await Daemon.start();
    t.after(() => silent.remove());
    const store = open({ url: [silent.url, daemon.url], deadline: 500 });
    await store.length();
    silent.freeze();

    await assert.rejects(ask(store, 'set', 'silence', {}), (error) => error instanceof DeadlineExceeded && error.outcomeUnknown);

    // What was heard on the connection in the time of the first call was the answer before it: the second is sure.
    await ask(store, 'get', 'silence').catch(() => {});
    assert.equal(await ask(store, 'get', 'silence'), null);
  });

  test('disconnect and connect are told when asked for, and nobody has to call for it', async (t) => {
    const own = await Daemon.start();
    t.after(() => own.remove());
    const store = open({ url: own.url, deadline: 1000, disconnectEvents: true });
    const quiet = open({ url: own.url, deadline: 1000 });
    quiet.on('disconnect', () => assert.fail('nobody asked for it'));
    await Promise.all([store.length(), quiet.length()]);
    const told = once(store, 'disconnect');
    await own.kill();
    await Promise.allSettled([store.length(), quiet.length()]);

    assert.ok((await told)[0] instanceof ConnectFailed);
    const back = once(store, 'connect');
    await own.start();
    await back;
    assert.equal(await store.length(), 0);
  });

  test('a store that is closed refuses', async () => {
    const store = open({ url: daemon.url });
    const asked = store.get('a');
    store.close();

    await assert.rejects(asked, Unavailable);
    await assert.rejects(store.get('a'), { code: 'closed' });
  });

  test('a process ends by itself after its last call, and not before', async () => {
    const env = { SESSIOND_URL: daemon.url };
    const script = "store.set('exit', { a: 1 }).then(() => store.get('exit')).then(({ a }) => console.log('got', a))";

    assert.deepEqual(await run(script, env), { status: 0, said: 'got 1\n' });
  });

  test('a process with disconnectEvents ends by itself during an outage', async () => {
    const script = `
      const other = new SessiondStore({ disconnectEvents: true, deadline: 100 });
      other.get('a').catch((error) => console.log(error.name));`;

    assert.deepEqual(await run(script, { SESSIOND_URL: await nobody() }), { status: 0, said: 'ConnectFailed\n' });
  });
});

describe('without a daemon', () => {
  test('every callback gets an error that names the address and says how to start one', async () => {
    const url = await nobody();
    const store = open({ url, deadline: 200 });

    for (const [method, ...args] of [['get', 'the-sid'], ['set', 'the-sid', {}], ['touch', 'the-sid', {}], ['destroy', 'the-sid'], ['length'], ['all'], ['clear'], ['ids']]) {
      await assert.rejects(ask(store, method, ...args), (error) => {
        assert.ok(error instanceof ConnectFailed, String(error));
        assert.match(error.message, /sessiond serve/);
        assert.ok(error.message.includes(url) && !error.message.includes('the-sid'));
        assert.equal(error.code, undefined);
        return error.status === 503;
      });
    }
  });

  test('a socket file that is not there is an error, never a missing session', async () => {
    const store = open({ url: 'unix:///nowhere/sessiond.sock', deadline: 200 });

    await assert.rejects(ask(store, 'get', 'a'), (error) => error instanceof ConnectFailed && error.code !== 'ENOENT');
  });

  test('a process that asked in vain ends by itself, alive until then', async () => {
    const script = "store.get('a', (error) => console.log(error.name)); store.destroy('a');";

    assert.deepEqual(await run(script, { SESSIOND_URL: await nobody() }), { status: 0, said: 'ConnectFailed\n' });
  });

  for (const [what, reply, Kind] of [
    ['401', 'HTTP/1.1 401 Unauthorized\r\n\r\n', AuthError],
    ['403', 'HTTP/1.1 403 Forbidden\r\n\r\n', AuthError],
    ['a redirect', 'HTTP/1.1 302 Found\r\nLocation: http://example.org/\r\nContent-Length: 0\r\n\r\n', ConnectFailed],
    ['a web page', 'HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello', ConnectFailed],
    ['503', 'HTTP/1.1 503 Stopping\r\nContent-Length: 0\r\n\r\n', ConnectFailed],
    ['another protocol', '-ERR unknown command\r\n', ConnectFailed],
    ['100,000 zeros', Buffer.alloc(100_000), ConnectFailed],
    ['nothing', '', ConnectFailed],
  ]) {
    test(`a handshake that is answered with ${what} is ${Kind.name}`, async () => {
      const peer = await using(answering(reply));
      const store = open({ url: peer.url, deadline: 300, token: 'secret-token' });

      await assert.rejects(ask(store, 'get', 'a'), (error) => error instanceof Kind && !error.message.includes('secret-token'));
    });
  }

  for (const [what, say] of [
    ['no MessagePack', (socket) => socket.send(Buffer.from([0xc1]))],
    ['no array', (socket) => socket.send(Buffer.from([0x80]))],
    ['no answers', (socket) => socket.send(Buffer.from([0x91, 1]))],
    ['text', (socket) => socket.send('hello')],
    ['bytes that are no frames', (socket) => socket._socket.write(Buffer.from([0xff, 0xff, 0xff]))],
    ['an answer without its fields', (socket) => socket.send(pack([[1, 'ok']]))],
    ['a status from the future', (socket) => socket.send(pack([[1, 'polka']]))],
    ['a close', (socket) => socket.close(1007)],
    ['a hang-up', (socket) => socket.terminate()],
  ]) {
    test(`a peer that answers with ${what} is Unavailable, never a missing session`, async () => {
      const peer = await using(welcoming((socket) => socket.on('message', () => say(socket))));
      const store = open({ url: peer.url, deadline: 5000 });

      await assert.rejects(ask(store, 'get', 'a'), Unavailable);
    });
  }

  test('a peer that hangs up before the first call is Unavailable', async () => {
    const peer = await using(welcoming((socket) => socket.terminate()));
    const store = open({ url: peer.url, deadline: 300 });

    await assert.rejects(ask(store, 'get', 'a'), Unavailable);
  });

  test('a connection on which pings are heard is slow, not silent, and stays in use', async () => {
    let [connections, calls] = [0, 0];
    const peer = await using(
      welcoming((socket) => {
        connections += 1;
        socket.on('message', () => {
          calls += 1;
          const says = calls === 1 ? () => socket.ping() : () => socket.send(pack([[2, 'missing']]));
          setTimeout(says, 20);
        });
      }),
    );
    const store = open({ url: peer.url, deadline: 300 });

    await assert.rejects(ask(store, 'get', 'a'), DeadlineExceeded);
    assert.equal(await ask(store, 'get', 'a'), null);
    assert.equal(connections, 1);
  });

  test('pushes of later versions, and answers that nobody waits for, disturb nothing', async () => {
    const message = pack([[0, 'polka', { dots: 2 }], [999, 'ok'], [1, 'missing']]);
    const peer = await using(welcoming((socket) => socket.on('message', () => socket.send(message))));
    const store = open({ url: peer.url, deadline: PATIENT });

    assert.equal(await ask(store, 'get', 'a'), null);
  });

  test('a call that a stopping daemon has not begun goes to another one, also one that is never repeated', async () => {
    const stopping = pack([[1, 'failed', 'stopping', 'The daemon is stopping.']]);
    for (const stop of [(socket) => socket.close(1001), (socket) => socket.close(4401), (socket) => socket.send(stopping)]) {
      const first = await using(welcoming((socket) => socket.on('message', () => stop(socket))));
      const second = await using(welcoming((socket) => socket.on('message', () => socket.send(pack([[1, 'ok', 3]])))));

      assert.equal(await open({ url: [first.url, second.url], deadline: PATIENT }).destroyAll({ user: 'ada' }), 3);
      const alone = open({ url: first.url, deadline: PATIENT });
      await assert.rejects(ask(alone, 'destroyAll', { user: 'ada' }), (error) => error instanceof Unavailable && !error.outcomeUnknown);
    }
  });

  test('a connection whose daemon is about to stop is left when all is answered', async () => {
    let left;
    const peer = await using(
      welcoming((socket) => {
        left = once(socket, 'close');
        socket.on('message', () => {
          socket.send(pack([[0, 'stopping']]));
          socket.send(pack([[1, 'missing']]));
        });
      }),
    );
    const store = open({ url: peer.url, deadline: PATIENT });

    assert.equal(await ask(store, 'get', 'a'), null);
    assert.equal((await left)[0], 1000);
  });

  test('the token and the namespace travel in headers of the handshake', async () => {
    const seen = [];
    const peer = await using(
      welcoming((socket, request) => {
        seen.push(request.headers.authorization, request.headers['session-namespace'], request.url, request.headers.origin);
        socket.on('message', () => socket.send(pack([[1, 'missing']])));
      }),
    );
    await open({ url: peer.url, token: 't0ken', namespace: 'shop', deadline: PATIENT }).get('a');

    assert.deepEqual(seen, ['Bearer t0ken', 'shop', '/v1/stream', undefined]);
  });
});
