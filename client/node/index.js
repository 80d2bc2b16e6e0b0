// @ts-check
'use strict';

const errors = require('./lib/errors');
const { keyFromName, keyName, keyOf } = require('./lib/keys');
const { SessiondStore } = require('./lib/store');

module.exports = { ...errors, SessiondStore, default: SessiondStore, keyFromName, keyName, keyOf };
