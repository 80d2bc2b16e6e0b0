// @ts-check
'use strict';

/* Whose session it is: what `list({ user })` and `destroyAll({ user })` find. */

const { InvalidRequest } = require('./errors');

const LONGEST_USER = 255;

/**
 * The user that passport keeps in the session, when it is an id that the daemon can index.
 *
 * @param {any} session
 */
function passportUser(session) {
  const user = session.passport?.user;
  if (typeof user === 'number') {
    return user;
  }
  // Some apps serialise the whole user. That worked before, and must not fail because no id can be made of it.
  return typeof user === 'string' && isId(user) ? user : undefined;
}

/**
 * What the option `user` says of a session, as the daemon wants it; null for nobody.
 *
 * @param {(session: any) => unknown} user
 * @param {any} session
 * @returns {string | null}
 */
function ownerOf(user, session) {
  const id = user(session);
  if (id === undefined || id === null || id === '') {
    return null;
  }
  if (typeof id !== 'string' && typeof id !== 'number' && typeof id !== 'bigint') {
    throw new InvalidRequest('The option user returns an id: a string, a number, or nothing.', 'bad_user');
  }
  return String(id);
}

/** @param {string} text */
function isId(text) {
  return text !== '' && text.isWellFormed() && Buffer.byteLength(text) <= LONGEST_USER && !/\p{Cc}/u.test(text);
}

module.exports = { ownerOf, passportUser };
