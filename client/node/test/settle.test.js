'use strict';

const assert = require('node:assert/strict');
const { AsyncLocalStorage } = require('node:async_hooks');
const { spawnSync } = require('node:child_process');
const { test } = require('node:test');
const { settle } = require('../lib/settle');

test('a callback gets the result or the error, and no promise is made', async () => {
  const heard = [];
  const failure = new Error('no');

  await new Promise((resolve) => {
    assert.equal(settle(Promise.resolve(7), (...said) => heard.push(said)), undefined);
    assert.equal(settle(Promise.reject(failure), (...said) => resolve(heard.push(said))), undefined);
  });

  assert.deepEqual(heard, [[null, 7], [failure]]);
});

test('without a callback the promise tells, and nobody has to listen', async () => {
  settle(Promise.reject(new Error('nobody listens')));

  assert.equal(await settle(Promise.resolve(7)), 7);
  await assert.rejects(settle(Promise.reject(new Error('somebody listens'))), /somebody/);
});

test('an exception in a callback is the process\'s to handle, once', () => {
  const code = `
    const { settle } = require(${JSON.stringify(require.resolve('../lib/settle'))});
    let calls = 0;
    process.on('uncaughtException', (error) => console.log('uncaught', error.message));
    process.on('unhandledRejection', () => console.log('unhandled'));
    settle(Promise.resolve(1), () => { calls += 1; throw new Error('thrown'); });
    settle(Promise.reject(new Error('x')), () => { calls += 1; throw new Error('thrown too'); });
    setImmediate(() => console.log(calls, 'calls'));
  `;

  const { stdout } = spawnSync(process.execPath, ['-e', code], { encoding: 'utf8' });

  assert.equal(stdout, 'uncaught thrown\nuncaught thrown too\n2 calls\n');
});

test('a callback runs in the async context of whoever asked', async () => {
  const context = new AsyncLocalStorage();

  const seen = await new Promise((resolve) => {
    context.run('request 7', () => settle(Promise.resolve(), () => resolve(context.getStore())));
  });

  assert.equal(seen, 'request 7');
});
