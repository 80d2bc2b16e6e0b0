'use strict';

const assert = require('node:assert/strict');
const { mkdtempSync, rmSync } = require('node:fs');
const { tmpdir } = require('node:os');
const path = require('node:path');
const { after, before, describe, test } = require('node:test');
const { AuthError, SessiondStore } = require('..');
const { Daemon, cannotRun, sessiond } = require('./support/daemon');

const PATIENT = 20_000;

describe('a daemon that asks for tokens', { skip: cannotRun() }, () => {
  const folder = mkdtempSync(path.join(tmpdir(), 'sessiond-tokens-'));
  const file = ['--tokens', path.join(folder, 'tokens')];
  const tokens = {};
  const stores = [];
  let daemon;
  const open = (options) => {
    const store = new SessiondStore({ url: daemon.url, deadline: PATIENT, ...options });
    stores.push(store);
    return store;
  };
  const refuses = (promise, answered) =>
    assert.rejects(promise, (error) => error instanceof AuthError && error.answered === answered);

  before(async () => {
    for (const [name, ...options] of [
      ['shop', '--namespace', 'shop'],
      ['leaver'],
      ['reader', '--scope', 'list'],
      ['writer', '--scope', 'write'],
      ['operator', '--admin'],
    ]) {
      tokens[name] = sessiond('token', 'add', name, ...options, ...file);
    }
    daemon = await Daemon.start(...file);
  });
  after(async () => {
    stores.forEach((store) => store.close());
    await daemon.remove();
    rmSync(folder, { recursive: true });
  });

  test('without a token, or with a wrong one, every call is an AuthError with 401', async () => {
    await refuses(open().get('a'), 401);
    await refuses(open({ token: 'wrong' }).get('a'), 401);
  });

  test('with its token a store works in its namespace, and what the token does not allow is an AuthError with 403', async () => {
    const store = open({ token: tokens.shop });
    await store.set('sid', { n: 1 });

    await refuses(store.clear(), 403);
    assert.deepEqual(await store.get('sid'), { n: 1 });
  });

  test('events need a token that may list, and end with it', async () => {
    const store = open({ token: tokens.reader });
    await refuses(open({ token: 'wrong' }).events().next(), 401);
    await refuses(open({ token: tokens.writer }).events().next(), 403);
    const waiting = store.events().next();

    sessiond('token', 'revoke', 'reader', ...file);

    await refuses(waiting, 401);
  });

  test('an admin names the namespace', async () => {
    await open({ token: tokens.shop, namespace: 'shop' }).set('of the shop', { n: 1 });

    assert.deepEqual(await open({ token: tokens.operator, namespace: 'shop' }).get('of the shop'), { n: 1 });
    assert.equal(await open({ token: tokens.operator }).get('of the shop'), null);
    await refuses(open({ token: tokens.operator, namespace: 'nowhere' }).get('of the shop'), 403);
    await refuses(open({ token: tokens.shop, namespace: 'default' }).get('of the shop'), 403);
  });

  test('a token that is revoked ends the connection that it opened', async () => {
    const store = open({ token: tokens.leaver });
    await store.set('sid', { n: 1 });
    sessiond('token', 'revoke', 'leaver', ...file);

    const until = Date.now() + PATIENT;
    let refusal = null;
    while (refusal === null && Date.now() < until) {
      refusal = await store.get('sid').then(
        (session) => assert.deepEqual(session, { n: 1 }) ?? null,
        (error) => error,
      );
    }

    assert.ok(refusal instanceof AuthError);
    assert.equal(refusal.answered, 401);
  });
});
