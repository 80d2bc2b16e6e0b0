'use strict';

const assert = require('node:assert/strict');
const { test } = require('node:test');
const connect = require('..');

test('the tree of errors tells unavailable from missing', () => {
  const { AuthError, Conflict, ConnectFailed, DeadlineExceeded, Exists, Failed, InvalidRequest, Missing } = connect;
  const { SessiondError, Unavailable } = connect;

  for (const Kind of [ConnectFailed, DeadlineExceeded, Failed]) {
    assert.ok(new Kind('', '') instanceof Unavailable, Kind.name);
  }
  for (const Kind of [AuthError, Conflict, Exists, InvalidRequest, Missing, Unavailable]) {
    const error = new Kind('');
    assert.ok(error instanceof SessiondError && error instanceof Error, Kind.name);
    assert.equal(error.name, Kind.name);
  }
  assert.ok(!(new Missing() instanceof Unavailable));
});

test('a web framework answers 503 when the daemon is away, 409 for a conflict, and nobody is sent to log in', () => {
  assert.equal(new connect.Unavailable('').status, 503);
  assert.equal(new connect.Conflict(3).status, 409);
  assert.equal(new connect.AuthError('', 401).status, undefined);
});
