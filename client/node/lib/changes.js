// @ts-check
'use strict';

/*
 * What has changed in a session since it was loaded, entry by entry of its top level. Entries are compared as JSON, so
 * that changes inside of them count, and a Date equals the string it was loaded as.
 */

/**
 * @typedef {object} Changes
 * @property {string | undefined} text the entries to be set, as one JSON object; undefined when there are none
 * @property {string[]} remove the names of the entries to be removed
 */

/** express-session computes originalMaxAge from the clock again on every request, and may lose a ms each time. */
const MAX_AGE_SLACK = 10;

/**
 * The changes that lead from one JSON text to the other; null when there are none but the instant in the cookie, which
 * moves with every renewal.
 *
 * @param {string} before
 * @param {string} after
 * @returns {Changes | null}
 */
function changesBetween(before, after) {
  if (before === after) {
    return null;
  }
  /** @type {{ [name: string]: any }} */
  const old = JSON.parse(before);
  /** @type {{ [name: string]: any }} */
  const young = JSON.parse(after);
  const set = Object.keys(young).filter((name) => !Object.hasOwn(old, name) || !isSame(name, old[name], young[name]));
  const remove = Object.keys(old).filter((name) => !Object.hasOwn(young, name));
  if (set.length === 0 && remove.length === 0) {
    return null;
  }
  return { text: set.length > 0 ? writeEntries(young, set) : undefined, remove };
}

/**
 * Whether two cookies, as they stand in JSON, say the same but for the instant at which they expire.
 *
 * @param {any} old
 * @param {any} young
 */
function isSameCookie(old, young) {
  const [{ age: oldAge, rest: oldRest }, { age: youngAge, rest: youngRest }] = [parts(old), parts(young)];
  return JSON.stringify(oldRest) === JSON.stringify(youngRest) && Math.abs(oldAge - youngAge) < MAX_AGE_SLACK;
}

/**
 * @param {string} name
 * @param {any} old
 * @param {any} young
 */
function isSame(name, old, young) {
  if (name === 'cookie') {
    return isSameCookie(old, young);
  }
  const areObjects = typeof old === 'object' && typeof young === 'object';
  return areObjects ? JSON.stringify(old) === JSON.stringify(young) : old === young;
}

/**
 * A cookie without the times in it; whether it has them still shows.
 *
 * @param {any} cookie
 */
function parts(cookie) {
  if (typeof cookie !== 'object' || cookie === null) {
    return { age: 0, rest: cookie };
  }
  // originalExpires is @fastify/session's: the instant that the cookie had before this request.
  const { expires, originalMaxAge, originalExpires, ...rest } = cookie;
  const hasAge = typeof originalMaxAge === 'number';
  return { age: hasAge ? originalMaxAge : 0, rest: [Boolean(expires), hasAge, rest] };
}

/**
 * @param {{ [name: string]: any }} data
 * @param {string[]} names
 */
function writeEntries(data, names) {
  return `{${names.map((name) => `${JSON.stringify(name)}:${JSON.stringify(data[name])}`).join()}}`;
}

module.exports = { changesBetween, isSameCookie };
