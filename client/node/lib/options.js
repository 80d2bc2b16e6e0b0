// @ts-check
'use strict';

/* What a store is told when it is made. */

const { InvalidRequest } = require('./errors');
const { LONGEST_TTL } = require('./expiry');
const { passportUser } = require('./owner');
const { parseUrls } = require('./urls');

/**
 * @typedef {object} Options
 * @property {readonly import('./urls').Address[]} addresses
 * @property {string | null} token
 * @property {string | null} namespace the one that an admin's token is to work in; null: the token's own
 * @property {object | null} tls
 * @property {number} deadline ms
 * @property {number | null} ttl ms
 * @property {number} touchAfter ms
 * @property {'array' | 'object'} all
 * @property {'merge' | 'overwrite' | 'reject'} concurrency
 * @property {(session: any) => unknown} user
 * @property {boolean} disconnectEvents
 * @property {InvalidRequest | null} fault what is wrong with where to connect; every call is answered with it
 */

const LONGEST_TIMER = 2 ** 31 - 1;
const NAMES = new Set([
  'url',
  'urls',
  'token',
  'namespace',
  'tls',
  'deadline',
  'ttl',
  'touchAfter',
  'all',
  'concurrency',
  'user',
  'disconnectEvents',
]);

/**
 * Throws InvalidRequest for what can only be a slip in the code. Where the daemon is and with which token comes from
 * the environment of a deployment: what is wrong with that is told to the callbacks, like a daemon that is away.
 *
 * @param {import('..').SessiondStoreOptions} given
 * @returns {Options}
 */
function readOptions(given = {}) {
  const strange = Object.keys(given).find((name) => !NAMES.has(name));
  if (strange !== undefined) {
    throw new InvalidRequest(`There is no option ${strange}.`, 'bad_option');
  }
  return {
    ...readPlace(given),
    tls: given.tls ?? null,
    deadline: duration('deadline', given.deadline, 1, LONGEST_TIMER) ?? 2000,
    ttl: duration('ttl', given.ttl, 1, LONGEST_TTL),
    touchAfter: duration('touchAfter', given.touchAfter, 0, LONGEST_TTL) ?? 0,
    all: choice('all', given.all, ['array', 'object']),
    concurrency: choice('concurrency', given.concurrency, ['merge', 'overwrite', 'reject']),
    user: callable('user', given.user) ?? passportUser,
    disconnectEvents: given.disconnectEvents === true,
  };
}

/** @param {import('..').SessiondStoreOptions} given */
function readPlace({ url, urls, token, namespace }) {
  try {
    const secret = readToken(token);
    return { addresses: parseUrls(urls ?? url), token: secret, namespace: readNamespace(namespace, secret), fault: null };
  } catch (error) {
    if (!(error instanceof InvalidRequest)) {
      throw error;
    }
    return { addresses: [], token: null, namespace: null, fault: error };
  }
}

/**
 * Without a token given, that of the environment's `SESSIOND_TOKEN`, if there is one.
 *
 * @param {unknown} given
 */
function readToken(given) {
  const token = given ?? (process.env.SESSIOND_TOKEN || null);
  if (token === null) {
    return null;
  }
  // A line break in a token would let it write headers of its own.
  if (typeof token !== 'string' || !/^[!-~]+$/.test(token)) {
    throw new InvalidRequest('A token is printable ASCII, without spaces and line breaks.', 'bad_token');
  }
  return token;
}

/**
 * @param {unknown} namespace
 * @param {string | null} token
 */
function readNamespace(namespace, token) {
  if (namespace === undefined || namespace === null) {
    return null;
  }
  if (typeof namespace !== 'string' || !/^[a-z][a-z0-9_-]{0,63}$/.test(namespace)) {
    throw new InvalidRequest(
      'A namespace is 1 to 64 of a-z, 0-9, _ and -, and begins with a letter.',
      'bad_namespace',
    );
  }
  if (token === null && namespace !== 'default') {
    throw new InvalidRequest(
      'A namespace belongs to a token: without the option token there is only the namespace "default".',
      'bad_namespace',
    );
  }
  return namespace;
}

/**
 * @param {string} name
 * @param {unknown} value
 * @param {number} least
 * @param {number} most
 */
function duration(name, value, least, most) {
  if (value === undefined || value === null) {
    return null;
  }
  if (typeof value !== 'number' || !(value >= least && value <= most)) {
    throw new InvalidRequest(`The option ${name} is a number of milliseconds from ${least} to ${most}.`, 'bad_option');
  }
  return Math.round(value);
}

/**
 * @template {string} T
 * @param {string} name
 * @param {T | undefined} value
 * @param {T[]} values the first is the default
 */
function choice(name, value, values) {
  if (value !== undefined && !values.includes(value)) {
    throw new InvalidRequest(`The option ${name} is one of ${values.join(', ')}.`, 'bad_option');
  }
  return value ?? values[0];
}

/**
 * @template {Function} F
 * @param {string} name
 * @param {F | undefined} value
 */
function callable(name, value) {
  if (value !== undefined && typeof value !== 'function') {
    throw new InvalidRequest(`The option ${name} is a function.`, 'bad_option');
  }
  return value;
}

module.exports = { readOptions };
