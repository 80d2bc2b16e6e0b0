'use strict';

/* TLS: a real daemon with certificates that fit, and everything that does not fit and says why. */

const assert = require('node:assert/strict');
const { mkdtempSync, readFileSync, rmSync } = require('node:fs');
const { tmpdir } = require('node:os');
const path = require('node:path');
const tls = require('node:tls');
const { once } = require('node:events');
const { after, afterEach, before, describe, test } = require('node:test');
const { promisify } = require('node:util');
const { ConnectFailed, SessiondStore } = require('..');
const { Daemon, cannotRun, python } = require('./support/daemon');

/** Two authorities, `ca` and `other`, and certificates with their keys, made by the tests of the daemon. */
const MAKE = `
import os, sys
from pathlib import Path
from tests.certificates import Authority
folder = Path(sys.argv[1])
ca, other = Authority(folder), Authority(folder, "other")
for name, made in {
    "good": ca.certificate(), "expired": ca.certificate(days=-1), "misnamed": ca.certificate("sessions.example"),
    "client": ca.certificate("web-1"), "client-expired": ca.certificate("web-1", -1), "client-other": other.certificate("web-1"),
}.items():
    os.rename(made.file, folder / (name + ".pem"))
`;

/** A reason to skip what needs certificates too. */
function cannotCertify() {
  const reason = cannotRun();
  if (reason || process.env.SESSIOND_TEST_REQUIRE === 'all') {
    return reason;
  }
  try {
    python('import tests.certificates');
    return false;
  } catch {
    return 'the daemon\'s Python has no trustme, which makes certificates';
  }
}

describe('over https', { skip: cannotCertify() }, () => {
  const folder = mkdtempSync(path.join(tmpdir(), 'sessiond-tls-'));
  const file = (name) => path.join(folder, `${name}.pem`);
  const pem = (name) => readFileSync(file(name));
  const shown = (name) => ({ ca: pem('ca'), cert: pem(name), key: pem(name) });
  const closing = [];

  before(() => python(MAKE, folder));
  after(() => rmSync(folder, { recursive: true, force: true }));
  afterEach(async () => {
    for (const each of closing.splice(0).reverse()) {
      await each();
    }
  });

  async function start(...options) {
    const daemon = await Daemon.start(...options);
    closing.push(() => daemon.remove());
    return daemon.url;
  }

  function open(url, given) {
    const store = new SessiondStore({ url, tls: given, deadline: 3000 });
    closing.push(() => store.close());
    return promisify(store.get).bind(store);
  }

  /** Why there is no connection. */
  async function refusal(url, given) {
    const error = await open(url, given)('the-sid').then(() => assert.fail('it was let in'), (why) => why);
    assert.ok(error instanceof ConnectFailed, String(error));
    assert.ok(error.message.includes(url) && !error.message.includes('the-sid'));
    return error.message;
  }

  test('the authority given is trusted, and a certificate of its own is shown', async () => {
    const open1 = open(await start('--tls-cert', file('good')), { ca: pem('ca') });
    const open2 = open(await start('--tls-cert', file('good'), '--tls-client-ca', file('ca')), shown('client'));

    assert.equal(await open1('nobody'), null);
    assert.equal(await open2('nobody'), null);
  });

  test('a daemon that nobody vouches for is refused, without being asked to', async () => {
    const url = await start('--tls-cert', file('good'));

    assert.match(await refusal(url), /unable to verify|self.signed|unable to get/);
    assert.match(await refusal(url, { ca: pem('other') }), /unable to verify|self.signed|unable to get/);
    assert.match(await refusal(await start('--tls-cert', file('expired')), { ca: pem('ca') }), /certificate has expired/);
    assert.match(await refusal(await start('--tls-cert', file('misnamed')), { ca: pem('ca') }), /does not match/);
  });

  test('a token is not told to a daemon that nobody vouches for', async () => {
    const told = [];
    const server = tls.createServer({ cert: pem('good'), key: pem('good') }, (socket) => {
      socket.on('error', () => {});
      socket.on('data', (chunk) => told.push(chunk));
    });
    server.on('tlsClientError', () => {});
    server.listen(0, '127.0.0.1');
    closing.push(() => server.close());
    await once(server, 'listening');
    const url = `https://127.0.0.1:${server.address().port}`;
    const store = new SessiondStore({ url, token: 'secret', tls: { ca: pem('other') }, deadline: 300 });

    await assert.rejects(store.get('sid'), ConnectFailed);
    assert.deepEqual(told, []);

    await assert.rejects(new SessiondStore({ url, token: 'secret', tls: { ca: pem('ca') }, deadline: 300 }).get('sid'), ConnectFailed);
    assert.match(Buffer.concat(told).toString(), /Bearer secret/);
  });

  test('a client that nobody vouches for is told so', async () => {
    const url = await start('--tls-cert', file('good'), '--tls-client-ca', file('ca'));

    assert.match(await refusal(url, { ca: pem('ca') }), /certificate required/);
    assert.match(await refusal(url, shown('client-other')), /unknown ca/);
    assert.match(await refusal(url, shown('client-expired')), /certificate expired/);
  });

  test('nothing older than TLS 1.2 is spoken', async () => {
    const old = { cert: pem('good'), key: pem('good'), ciphers: 'ALL:@SECLEVEL=0', minVersion: 'TLSv1', maxVersion: 'TLSv1.1' };
    const server = tls.createServer(old).listen(0, '127.0.0.1');
    server.on('tlsClientError', () => {});
    closing.push(() => server.close());
    await once(server, 'listening');

    assert.match(await refusal(`https://127.0.0.1:${server.address().port}`, { ca: pem('ca') }), /protocol version|unsupported protocol|handshake/);
  });

  test('http to a port that speaks TLS is no connection, and there is no way back from https', async () => {
    await refusal((await start('--tls-cert', file('good'))).replace('https', 'http'));
    await refusal((await start()).replace('http', 'https'), { ca: pem('ca') });
  });
});
