'use strict';

const assert = require('node:assert/strict');
const { once } = require('node:events');
const net = require('node:net');
const { afterEach, describe, test } = require('node:test');
const { Dismissed, Link } = require('../lib/link');
const { readOptions } = require('../lib/options');
const { answering, nobody, welcoming } = require('./support/peers');

const PATIENT = 20_000;
const closing = [];
afterEach(() => closing.splice(0).forEach((each) => each.close()));

/** A link to that address, and what it has told. */
function linkTo(url, options = {}) {
  const { addresses, ...others } = readOptions({ url, deadline: PATIENT, ...options });
  const told = { heard: [], lost: null };
  const ended = new Promise((resolve) => {
    told.ended = resolve;
  });
  const listener = {
    heard: (link, message) => told.heard.push(message.toString()),
    lost: (link, error) => told.ended([link.isOpen, error]),
  };
  const link = new Link(addresses[0], others, listener);
  closing.push(link);
  return { link, told, ended };
}

/** The same, open, to a peer that does `then` with its own end. */
async function opened(then = () => {}, options) {
  let accept;
  const accepted = new Promise((resolve) => {
    accept = resolve;
  });
  const peer = await welcoming((socket) => {
    then(socket);
    accept(socket);
  });
  closing.push(peer);
  const made = linkTo(peer.url, options);
  await made.link.open(PATIENT);
  return { ...made, socket: await accepted };
}

describe('a link', () => {
  test('sends what it is given, though that is overwritten at once', async () => {
    const { link, socket } = await opened();
    const heard = once(socket, 'message');
    const message = Buffer.alloc(100_000, 'a');

    link.send(message);
    message.fill('b');

    assert.deepEqual(await heard, [Buffer.alloc(100_000, 'a'), true]);
  });

  test('hears messages in order, large and small', async () => {
    const texts = ['first', 'x'.repeat(200_000), 'last'];
    const { link, told, ended } = await opened((socket) => {
      texts.forEach((text) => socket.send(Buffer.from(text)));
      socket.close(1011);
    });

    const [isOpen, error] = await ended;

    assert.deepEqual(told.heard, texts);
    assert.equal(isOpen, false);
    assert.match(error.message, /code 1011/);
    assert.ok(!(error instanceof Dismissed) && link.heardAt > 0);
  });

  test('answers a ping with its payload', async () => {
    const { socket } = await opened();
    const pong = once(socket, 'pong');

    socket.ping('hello');

    assert.deepEqual((await pong)[0], Buffer.from('hello'));
  });

  for (const code of [1001, 4401]) {
    test(`is dismissed by the code ${code}, and says goodbye`, async () => {
      const { socket, ended } = await opened();
      const closed = once(socket, 'close');

      socket.close(code);

      assert.ok((await ended)[1] instanceof Dismissed);
      assert.equal((await closed)[0], 1000);
    });
  }

  test('says goodbye after what was sent, and nothing behind it', async () => {
    const { link, socket, ended } = await opened();
    const heard = [];
    socket.on('message', (message) => heard.push(message.toString()));
    const closed = once(socket, 'close');

    link.send(Buffer.from('before'));
    link.close();
    link.send(Buffer.from('behind'));
    link.close();

    assert.equal((await closed)[0], 1000);
    assert.deepEqual(heard, ['before']);
    await ended;
  });

  test('does not wait for ever for the answer to its goodbye', async () => {
    const { link, ended } = await opened((socket) => socket.pause(), { deadline: 50 });

    link.close();

    assert.equal((await ended)[1].message, 'it was closed');
  });

  test('that is dropped tells why, and hears no more', async () => {
    const { link, told, ended, socket } = await opened();
    const why = new Error('why');

    link.abort(why);
    socket.send(Buffer.from('late'));

    assert.deepEqual(await ended, [false, why]);
    assert.deepEqual(told.heard, []);
  });

  test('whose listener throws is dropped with that error', async () => {
    const { link, ended, socket, told } = await opened();
    told.heard.push = () => {
      throw new Error('cannot be read');
    };

    socket.send(Buffer.from('x'));

    assert.equal((await ended)[1].message, 'cannot be read');
    assert.equal(link.isOpen, false);
  });

  test('that is halted hears nothing until it reads on', async () => {
    const { link, told, socket } = await opened();
    const pinged = once(socket, 'pong');
    link.halt(true);
    socket.send(Buffer.from('held'));
    socket.ping();
    await new Promise((resolve) => setTimeout(resolve, 50));
    assert.deepEqual(told.heard, []);

    link.halt(false);

    await pinged;
    assert.deepEqual(told.heard, ['held']);
  });
});

describe('a link that does not come about', () => {
  for (const [what, make, why] of [
    ['nobody is there', nobody, /ECONNREFUSED/],
    ['the other end is silent', async () => using(await answering('')), /did not answer in time/],
    ['the other end hangs up', hangingUp, /it hung up/],
    ['the answer is no handshake', async () => using(await answering('HTTP/1.1 200 OK\r\n\r\n')), /HTTP 200/],
  ]) {
    test(`says that ${what}, and tells its listener nothing`, async () => {
      const { link, ended } = linkTo(await make());

      await assert.rejects(link.open(200), why);

      assert.equal(await Promise.race([ended, new Promise((resolve) => setImmediate(resolve, 'nothing'))]), 'nothing');
    });
  }

  test('because it is closed before, ends', async () => {
    const { link } = linkTo(using(await answering('')));
    const opening = link.open(PATIENT);

    link.close();

    await assert.rejects(opening, /it was closed/);
  });

  test('because its options for TLS cannot be, says so', async () => {
    const { link } = linkTo('https://127.0.0.1:9', { tls: { cert: 'no certificate' } });

    await assert.rejects(link.open(PATIENT), /PEM|certificate|no start line/i);
  });
});

function using(peer) {
  closing.push(peer);
  return peer.url;
}

/** The address of a server that hangs up on everybody. */
async function hangingUp() {
  const server = net.createServer((socket) => socket.on('data', () => socket.end()));
  server.listen(0, '127.0.0.1');
  closing.push(server);
  await once(server, 'listening');
  return `http://127.0.0.1:${server.address().port}`;
}
