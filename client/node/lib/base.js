// @ts-check
'use strict';

/*
 * The class that a store extends: the app's express-session has it. Apps on Fastify and others have no express-session,
 * and for them any EventEmitter will do.
 */

const { EventEmitter } = require('node:events');
const { createRequire } = require('node:module');
const path = require('node:path');

/** For apps without express-session. It never asks for `createSession`. */
class BareStore extends EventEmitter {
  createSession() {
    throw new Error('connect-sessiond cannot find the express-session of this app; install it beside connect-sessiond.');
  }
}

/** @returns {any} a class with what express-session wants of every store */
function findBase() {
  // When this package is linked into an app, the app's own modules are out of its sight, but not out of the program's.
  const places = [process.argv[1], path.join(process.cwd(), 'app.js')].filter(Boolean);
  const ways = [
    () => require('express-session'), // as bundlers understand it
    ...places.map((place) => () => createRequire(path.resolve(place))('express-session')),
  ];
  for (const way of ways) {
    try {
      return way().Store;
    } catch (error) {
      if (/** @type {NodeJS.ErrnoException} */ (error).code !== 'MODULE_NOT_FOUND') {
        throw error;
      }
    }
  }
  return BareStore;
}

module.exports = { Base: findBase() };
