'use strict';

/* What may stand where a daemon should: a proxy that loses answers, and peers that are no daemon at all. */

const { once } = require('node:events');
const net = require('node:net');
const { WebSocketServer, WebSocket } = require('ws');
const { Packr, Unpackr } = require('msgpackr');

const packr = new Packr({ useRecords: false, variableMapSize: true });
const unpackr = new Unpackr({ useRecords: false, mapsAsObjects: true, int64AsType: 'number' });

/** A value as MessagePack, as another program would write it. */
const pack = (value) => packr.pack(value);

/** A TCP server that answers every connection's first bytes with these, and then says nothing. */
async function answering(reply) {
  const sockets = new Set();
  const server = net.createServer((socket) => {
    sockets.add(socket);
    socket.on('error', () => {});
    socket.once('data', () => socket.write(reply));
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return {
    url: `http://127.0.0.1:${server.address().port}`,
    close() {
      sockets.forEach((socket) => socket.destroy());
      server.close();
    },
  };
}

/** The address of a port on which nobody listens. */
async function nobody() {
  const peer = await answering('');
  peer.close();
  return peer.url;
}

/** A peer that shakes hands like a daemon and hands each connection to `then`, with its request. */
async function welcoming(then) {
  const server = new WebSocketServer({ port: 0, host: '127.0.0.1', handleProtocols: () => 'sessiond.1' });
  server.on('connection', (socket, request) => {
    socket.on('error', () => {});
    then(socket, request);
  });
  await once(server, 'listening');
  return {
    url: `http://127.0.0.1:${server.address().port}`,
    close() {
      server.clients.forEach((client) => client.terminate());
      server.close();
    },
  };
}

/** Stands before a daemon, keeps what passes, and loses the next `eat` answers, each with its connection. */
async function proxy(url) {
  const passed = { asked: [], eat: 0, connections: 0, bytes: Buffer.alloc(0) };
  const peer = await welcoming((socket) => {
    passed.connections += 1;
    const daemon = new WebSocket(`${url.replace('http', 'ws')}/v1/stream`, 'sessiond.1');
    const opened = once(daemon, 'open');
    daemon.on('error', () => {});
    socket.on('message', async (message) => {
      passed.asked.push(unpackr.unpack(message));
      passed.bytes = Buffer.concat([passed.bytes, message]);
      await opened;
      daemon.send(message);
    });
    daemon.on('message', (message) => {
      if (passed.eat > 0) {
        passed.eat -= 1;
        socket.terminate();
        daemon.terminate();
      } else {
        socket.send(message);
      }
    });
    socket.on('close', () => daemon.close());
    daemon.on('close', () => socket.terminate());
  });
  return Object.assign(passed, peer);
}

module.exports = { answering, nobody, pack, proxy, welcoming };
