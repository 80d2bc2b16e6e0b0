// @ts-check
'use strict';

/*
 * Everything that the store answers with instead of a result.
 *
 * SessiondError
 *  ├── Unavailable           no answer was had: says nothing about the session. Not "logged out"
 *  │    ├── ConnectFailed    no connection to any of the addresses
 *  │    ├── DeadlineExceeded the answer did not come in time
 *  │    └── Failed           the daemon answered that it could not
 *  ├── AuthError             the daemon did not accept the token, or the token does not allow this
 *  ├── InvalidRequest        an argument, an option or the session itself is wrong
 *  ├── Missing               the call needed a living session and there is none
 *  ├── Exists                a new session was to be made where one lives
 *  └── Conflict              somebody else has changed the session
 *
 * No message holds a sid, a token or a value of a session. No `code` is ever `ENOENT`: express-session would take that
 * for "no such session", and a socket file that is not there would log everybody out.
 */

/** Base of everything that this package raises. */
class SessiondError extends Error {
  get name() {
    return this.constructor.name;
  }
}

/** No answer was had. Nothing is known about the session: do not log anybody out. */
class Unavailable extends SessiondError {
  /**
   * @param {string} message
   * @param {{ outcomeUnknown?: boolean, cause?: unknown }} [about]
   */
  constructor(message, { outcomeUnknown = false, cause } = {}) {
    super(message, cause === undefined ? undefined : { cause });
    /** True when this was a write that may or may not have been carried out. */
    this.outcomeUnknown = outcomeUnknown;
    /** What Express and Fastify answer the browser with, unless told otherwise. */
    this.status = 503;
  }
}

/** No connection could be made to any of the addresses. */
class ConnectFailed extends Unavailable {}

/** The answer did not come within the deadline. */
class DeadlineExceeded extends Unavailable {}

/** The daemon answered that it could not carry out the call; nothing was changed. */
class Failed extends Unavailable {
  /**
   * @param {string} message
   * @param {string} code
   */
  constructor(message, code) {
    super(message);
    /** Why, as in the protocol: `quota`, `storage_full`, `storage_failed`, `integrity`, `stopping`. */
    this.code = code;
  }
}

/** The daemon refused the connection, or this call, for its credentials; nothing was changed. */
class AuthError extends SessiondError {
  /**
   * @param {string} message
   * @param {number} answered
   */
  constructor(message, answered) {
    super(message);
    /**
     * 401 for a token that is missing, wrong, expired or revoked, 403 for one that may not do this. Not called `status`:
     * Express would hand it to the browser, whose fault it is not.
     */
    this.answered = answered;
  }
}

/** The call is wrong and would be refused again; nothing was changed. */
class InvalidRequest extends SessiondError {
  /**
   * @param {string} message
   * @param {string} [code]
   */
  constructor(message, code = 'bad_call') {
    super(message);
    /**
     * What is wrong, as in the protocol: `bad_key`, `bad_ttl`, `bad_data`, `too_large` and so on; or
     * `too_many_sessions`, of the user whose the session was to be.
     */
    this.code = code;
  }
}

/** There is no living session: it expired, was destroyed or never was. */
class Missing extends SessiondError {
  constructor() {
    super('The session is not alive, so nothing was written; start a new one.');
  }
}

/** A session already lives under the sid that was to be new. */
class Exists extends SessiondError {
  constructor() {
    super('A session lives under this sid; sids of new sessions have to be random.');
  }
}

/** The session was changed since it was loaded; nothing was written. */
class Conflict extends SessiondError {
  /** @param {number} version */
  constructor(version) {
    super(`The session was changed since it was loaded (it is at version ${version} by now); load it again.`);
    /** The version that the session is at now. */
    this.version = version;
    /** What Express and Fastify answer the browser with, unless told otherwise. */
    this.status = 409;
  }
}

module.exports = {
  AuthError,
  Conflict,
  ConnectFailed,
  DeadlineExceeded,
  Exists,
  Failed,
  InvalidRequest,
  Missing,
  SessiondError,
  Unavailable,
};
