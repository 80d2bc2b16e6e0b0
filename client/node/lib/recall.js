// @ts-check
'use strict';

/*
 * What a session looked like when this process last loaded or saved it, found again by the object that is to be saved.
 *
 * It belongs to the object and not to the sid: two requests may have loaded the same session at different times, and
 * each of them has changed what it has seen.
 */

const { makeMarks } = require('./marks');

/**
 * @typedef {object} Loaded
 * @property {Buffer} key
 * @property {string} text the data as JSON
 * @property {any} [cookie] what the data says of the cookie; the text holds it too
 * @property {number} version
 * @property {number} renewedAt by the daemon's clock
 * @property {string | null} user
 */

const MARK = Symbol('sessiond.loaded');

class Recall {
  /** @type {ReturnType<typeof makeMarks<Loaded | null>>} */
  #known = makeMarks();

  /**
   * Keeps in mind what was loaded or saved as this object.
   *
   * @param {object} session
   * @param {Loaded} loaded
   */
  remember(session, loaded) {
    this.#known.set(session, loaded);
  }

  /** @param {object} session one that was just made, even if it is filled with what another one held */
  isNew(session) {
    this.#known.set(session, null);
  }

  /**
   * `remember`, for data that a framework will copy into an object of its own. express-session tells the store when it
   * does. express-openid-connect keeps the objects inside of it. @fastify/session copies all but the cookie, and of that
   * what its `toJSON` returns, symbols included, which JSON leaves out.
   *
   * @param {import('./codec').Data} data
   * @param {Loaded} loaded
   */
  handOut(data, loaded) {
    this.remember(data, loaded);
    for (const value of Object.values(data)) {
      if (isObject(value)) {
        this.remember(value, loaded);
      }
    }
    const { cookie } = data;
    if (isObject(cookie) && !Object.hasOwn(cookie, 'toJSON')) {
      Object.defineProperty(cookie, 'toJSON', { value: () => ({ ...cookie, [MARK]: loaded }) });
    }
  }

  /**
   * `session` is express-session's copy of `data`.
   *
   * @param {object} session
   * @param {object} data
   */
  wasCopied(session, data) {
    const loaded = this.#known.get(data);
    if (loaded) {
      this.remember(session, loaded);
    }
  }

  /**
   * What was loaded under this key and became this session; null when that is not known, or nothing was.
   *
   * @param {any} session
   * @param {Buffer} key
   * @returns {Loaded | null}
   */
  find(session, key) {
    const own = this.#known.get(session);
    if (own === null) {
      return null;
    }
    /** @param {any} loaded */
    const fits = (loaded) => loaded?.key.equals(key);
    if (fits(own)) {
      return own ?? null;
    }
    for (const value of Object.values(session)) {
      const loaded = isObject(value) ? this.#known.get(value) : undefined;
      if (fits(loaded)) {
        return loaded ?? null;
      }
    }
    for (const symbol of Object.getOwnPropertySymbols(session)) {
      const loaded = session[symbol]?.[MARK];
      if (fits(loaded)) {
        return loaded;
      }
    }
    return null;
  }
}

/** @param {unknown} value */
function isObject(value) {
  return typeof value === 'object' && value !== null;
}

module.exports = { Recall };
