// @ts-check
'use strict';

/* The store: what express-session and its like ask for, in terms of the daemon's verbs. */

const { Base } = require('./base');
const { changesBetween, isSameCookie } = require('./changes');
const { read, write } = require('./codec');
const { Connection } = require('./connection');
const { InvalidRequest, Missing } = require('./errors');
const { Events } = require('./events');
const { showExpiry, ttlOf } = require('./expiry');
const { keyName, keyOf } = require('./keys');
const { makeMarks } = require('./marks');
const { readOptions } = require('./options');
const { ownerOf } = require('./owner');
const protocol = require('./protocol');
const { Recall } = require('./recall');
const { settle } = require('./settle');

/** @typedef {import('./keys').Sid} Sid */
/** @typedef {import('./recall').Loaded} Loaded */
/** @typedef {import('./protocol').Written} Written */

const PAGE = 1000;
const LONGEST_GRACE = 60 * 60 * 1000;

/**
 * An express-session store in a sessiond daemon. Every method takes a callback or returns a promise.
 *
 * Emits `lateSave`, with the session's key, when a save came after the session's end and was therefore dropped; and
 * `disconnect` and `connect` if the option `disconnectEvents` asks for them.
 */
class SessiondStore extends Base {
  /** @param {import('..').SessiondStoreOptions} [options] */
  constructor(options) {
    super();
    this.#options = readOptions(options);
    this.#connection = new Connection(this.#options, {
      lost: (error) => this.#tellOutage('disconnect', error),
      found: () => this.#tellOutage('connect'),
    });
  }

  #options;
  #connection;
  #recall = new Recall();
  /** @type {Set<Events>} */
  #readers = new Set();
  /**
   * The last save of a session object, which the next one waits for.
   * @type {ReturnType<typeof makeMarks<Promise<void>>>}
   */
  #turns = makeMarks();

  // -- what express-session asks for --

  /**
   * The session, or null when it is not alive.
   *
   * @param {Sid} sid
   * @param {any} [callback]
   */
  get(sid, callback) {
    return settle(this.#get(sid), callback);
  }

  /**
   * Saves the session: creates it, or writes what has changed since it was loaded. One that has ended since then stays
   * ended.
   *
   * @param {Sid} sid
   * @param {any} session
   * @param {any} [callback]
   */
  set(sid, session, callback) {
    return settle(this.#set(sid, session), callback);
  }

  /**
   * Renews the session. Nothing happens when it is not alive.
   *
   * @param {Sid} sid
   * @param {any} session
   * @param {any} [callback]
   */
  touch(sid, session, callback) {
    return settle(this.#touch(sid, session), callback);
  }

  /**
   * Ends the session, for good.
   *
   * @param {Sid} sid
   * @param {any} [callback]
   */
  destroy(sid, callback) {
    return settle(this.#destroy(sid), callback);
  }

  /**
   * Ends the request's session and starts an empty one under a new id.
   *
   * @param {any} req
   * @param {any} [callback]
   */
  regenerate(req, callback) {
    return settle(this.#regenerate(req), callback);
  }

  /**
   * Every living session: an array, or with the option `all: 'object'` an object by written key.
   *
   * @param {any} [callback]
   */
  all(callback) {
    return settle(this.#all(), callback);
  }

  /**
   * How many sessions are alive.
   *
   * @param {any} [callback]
   */
  length(callback) {
    return settle(this.#length(), callback);
  }

  /**
   * Ends every session.
   *
   * @param {any} [callback]
   */
  clear(callback) {
    return settle(this.#clear(), callback);
  }

  /**
   * The keys of all living sessions. Their sids are known to nobody but their browsers; every method takes a key too.
   *
   * @param {any} [callback]
   */
  ids(callback) {
    const listing = this.#list().then((entries) => entries.map(({ key }) => key));
    return settle(listing, callback);
  }

  /**
   * Makes `req.session` of what was loaded: express-session calls it.
   *
   * @param {any} req
   * @param {any} data
   */
  createSession(req, data) {
    const session = super.createSession(req, data);
    this.#recall.wasCopied(session, data);
    return session;
  }

  // -- beyond that --

  /**
   * The living sessions of a user, or of everybody: when they began, when they were last used, never their data.
   *
   * @param {{ user?: string | number }} [of]
   * @param {any} [callback]
   */
  list(of, callback) {
    return settle(this.#listOf(of), callback);
  }

  /**
   * Ends all sessions of a user but the one excepted; how many.
   *
   * @param {{ user: string | number, except?: Sid }} of
   * @param {any} [callback]
   */
  destroyAll(of, callback) {
    return settle(this.#destroyAll(of), callback);
  }

  /**
   * Gives the request's session a new id and keeps what is in it. The old id is dead at once, or works on for `grace`
   * ms, for the requests that are under way with it.
   *
   * @param {any} req
   * @param {{ grace?: number }} [how]
   * @param {any} [callback]
   */
  rotate(req, how, callback) {
    return settle(this.#rotate(req, how), callback);
  }

  /**
   * What ends, as it ends: for `for await`, on a connection of its own. It begins when the first event is asked for, with
   * what ends from then on, or behind the event of the id `after`.
   *
   * @param {{ after?: string }} [from]
   */
  events({ after } = {}) {
    const events = new Events(this.#options, after, () => this.#readers.delete(events));
    this.#readers.add(events);
    return events;
  }

  /** Closes the connections. What is under way fails, and so does what is asked for later; events end. */
  close() {
    this.#connection.close();
    for (const events of this.#readers) {
      events.return();
    }
  }

  // -- how --

  /** @param {Sid} sid */
  async #get(sid) {
    const key = keyOf(sid);
    const record = await this.#ask(protocol.get(key));
    return record && this.#load(key, record);
  }

  /**
   * @param {Buffer} key
   * @param {import('./protocol').Record} record
   */
  #load(key, record) {
    const { data, text } = read(record.format, record.data);
    const { version, user } = record;
    const cookie = isObject(data.cookie) ? { ...data.cookie } : data.cookie;
    showExpiry(data, record.expiresAt);
    this.#recall.handOut(data, { key, text, cookie, version, user, renewedAt: record.expiresAt - record.ttl });
    return data;
  }

  /**
   * @param {Sid} sid
   * @param {any} session
   */
  async #set(sid, session) {
    const key = keyOf(sid);
    const text = write(session);
    const ttl = this.#ttlOf(session);
    if (isOver(ttl)) {
      await this.#ask(protocol.destroy(key));
      return;
    }
    const owner = ownerOf(this.#options.user, session);
    // A second save of the same object must know what the first one did: else it would take it for somebody else's.
    const before = this.#turns.get(session);
    const save = () => this.#save(key, session, text, ttl, owner);
    const turn = before ? before.then(save, save) : save();
    this.#turns.set(session, turn);
    await turn;
  }

  /**
   * @param {Buffer} key
   * @param {any} session
   * @param {string} text
   * @param {number | null} ttl
   * @param {string | null} owner
   * @returns {Promise<void>}
   */
  async #save(key, session, text, ttl, owner) {
    const loaded = this.#recall.find(session, key);
    /** @type {Written | null} */
    let written;
    try {
      written = loaded
        ? await this.#update(key, loaded, session, text, ttl, owner)
        : await this.#create(key, text, ttl, owner);
    } catch (error) {
      if (!(error instanceof Missing)) {
        throw error;
      }
      // It ended while the request was under way, by a logout perhaps. The request has done nothing wrong.
      process.nextTick(() => this.emit('lateSave', key));
      return;
    }
    if (written !== null) {
      this.#recall.remember(session, remembered(key, text, written, owner ?? loaded?.user ?? null));
    }
  }

  /**
   * Saves what is not known to have been loaded: a new session, or one from who knows where. Throws Missing when one
   * lived there that has ended meanwhile.
   *
   * @param {Buffer} key
   * @param {string} text
   * @param {number | null} ttl
   * @param {string | null} user
   */
  async #create(key, text, ttl, user) {
    const created = await this.#ask(protocol.create(key, { data: text, ttl, user }));
    return created ?? this.#ask(protocol.set(key, { data: text, when: 'alive', ttl, user }));
  }

  /**
   * Saves what was loaded. Throws Missing when there are changes and the session has ended.
   *
   * @param {Buffer} key
   * @param {Loaded} loaded
   * @param {any} session
   * @param {string} text
   * @param {number | null} ttl
   * @param {string | null} owner
   * @returns {Promise<Written | null>}
   */
  async #update(key, loaded, session, text, ttl, owner) {
    const changes = changesBetween(loaded.text, text);
    const user = this.#newUser(loaded, owner);
    const { concurrency } = this.#options;
    if (changes === null && user === null) {
      return this.#ask(protocol.touch(key, { ttl }));
    }
    if (concurrency === 'merge') {
      const remove = changes?.remove.filter((name) => !isShadowed(session, name));
      return this.#ask(protocol.patch(key, { data: changes?.text, remove, ttl, user }));
    }
    const when = concurrency === 'reject' ? loaded.version : 'alive';
    return this.#ask(protocol.set(key, { data: text, when, ttl, user }));
  }

  /**
   * The user to be told to the daemon: null keeps the one there is, the empty string takes it away. A user that some
   * other app gave the session is none of ours to take away.
   *
   * @param {Loaded} loaded
   * @param {string | null} owner
   */
  #newUser(loaded, owner) {
    if (owner !== null) {
      return owner === loaded.user ? null : owner;
    }
    const wasOurs = loaded.user !== null && ownerOf(this.#options.user, JSON.parse(loaded.text)) === loaded.user;
    return wasOurs ? '' : null;
  }

  /**
   * @param {Sid} sid
   * @param {any} session
   */
  async #touch(sid, session) {
    const key = keyOf(sid);
    const ttl = this.#ttlOf(session);
    if (isOver(ttl)) {
      await this.#ask(protocol.destroy(key));
      return;
    }
    const loaded = isObject(session) ? this.#recall.find(session, key) : null;
    const cookie = loaded && JSON.stringify(session.cookie);
    if (loaded && cookie && !isSameCookie(cookieOf(loaded), JSON.parse(cookie))) {
      // express-session sees no change in a new maxAge, and would forget it with this request.
      const data = `{"cookie":${cookie}}`;
      await this.#ask(protocol.patch(key, { data, ttl })).catch(allowMissing);
    } else if (!loaded || !this.#isFresh(loaded)) {
      await this.#ask(protocol.touch(key, { ttl }));
    }
  }

  /** @param {Loaded} loaded */
  #isFresh({ renewedAt }) {
    const age = Date.now() - renewedAt;
    return age >= 0 && age < this.#options.touchAfter;
  }

  /** @param {Sid} sid */
  async #destroy(sid) {
    await this.#ask(protocol.destroy(keyOf(sid)));
  }

  /** @param {any} req */
  async #regenerate(req) {
    try {
      await this.#destroy(req.sessionID);
    } finally {
      // As express-session has it: whoever goes on in spite of the error does so with an empty session.
      this.generate(req);
      this.#recall.isNew(req.session);
    }
  }

  async #length() {
    return this.#ask(protocol.count());
  }

  async #clear() {
    await this.#ask(protocol.destroyAll({ everyone: true }));
  }

  async #all() {
    const entries = await this.#list();
    const names = this.#options.all === 'object';
    /** @type {[string, any][]} */
    const sessions = [];
    for (let at = 0; at < entries.length; at += PAGE) {
      const page = entries.slice(at, at + PAGE);
      const loaded = await Promise.all(page.map(({ key }) => this.#get(key).catch(allowOpaque)));
      loaded.forEach((session, index) => session && sessions.push([keyName(page[index].key), session]));
    }
    return names ? Object.fromEntries(sessions) : sessions.map(([, session]) => session);
  }

  /** @param {{ user?: string | number }} [of] */
  async #listOf(of = {}) {
    if ('user' in of && userName(of.user) === null) {
      // Nobody is logged in, say: that must not turn out to be everybody.
      throw new InvalidRequest('list was given a user that is nobody; leave user out to list the sessions of all.', 'bad_user');
    }
    return this.#list(of);
  }

  /** @param {{ user?: string | number }} [of] */
  async #list({ user } = {}) {
    /** @type {import('./protocol').Entry[]} */
    const found = [];
    let page = await this.#ask(protocol.list({ user: userName(user), limit: PAGE }));
    found.push(...page.entries);
    while (page.cursor !== null) {
      const { cursor } = page;
      page = await this.#ask(protocol.list({ user: userName(user), cursor, limit: PAGE }));
      found.push(...page.entries);
    }
    return found;
  }

  /** @param {{ user: string | number, except?: Sid }} of */
  async #destroyAll({ user, except }) {
    const name = userName(user);
    if (name === null) {
      throw new InvalidRequest('destroyAll takes a user; clear() ends the sessions of everybody.', 'bad_user');
    }
    const exceptKey = except === undefined ? null : keyOf(except);
    return this.#ask(protocol.destroyAll({ user: name, exceptKey }));
  }

  /**
   * @param {any} req
   * @param {{ grace?: number }} [how]
   */
  async #rotate(req, { grace = 0 } = {}) {
    if (!(grace >= 0 && grace <= LONGEST_GRACE)) {
      throw new InvalidRequest('grace is a number of milliseconds, at most an hour.', 'bad_grace');
    }
    const { session, sessionID } = req;
    if (!isObject(session)) {
      throw new InvalidRequest('The request has no session to rotate.', 'bad_key');
    }
    const key = keyOf(sessionID);
    const loaded = this.#recall.find(session, key);
    const fresh = this.#generateBeside(req);
    const newKey = keyOf(fresh.sessionID);
    if (loaded) {
      await this.#ask(protocol.rotate(key, newKey, { grace: Math.round(grace) }));
      this.#recall.remember(fresh.session, { ...loaded, key: newKey });
    }
    // Now, and not before the answer: the request may have changed its session while it waited.
    Object.assign(fresh.session, session);
    req.sessionID = fresh.sessionID;
    req.session = fresh.session;
  }

  /**
   * What express-session's own `generate`, with the app's genid and cookie options, would make of the request.
   *
   * @param {any} req
   * @returns {{ sessionID: string, session: any }}
   */
  #generateBeside(req) {
    const { session, sessionID } = req;
    try {
      this.generate(req);
      return { sessionID: req.sessionID, session: req.session };
    } finally {
      Object.assign(req, { session, sessionID });
    }
  }

  /** @param {any} session */
  #ttlOf(session) {
    return ttlOf(session, Date.now(), this.#options.ttl);
  }

  /**
   * Asks the daemon. Throws at once when the call cannot be sent, as do `protocol` and `keyOf` for wrong arguments:
   * whoever asks is async, so that all of it is told in the same way.
   *
   * @template T
   * @param {import('./protocol').Call<T>} call
   * @returns {Promise<T>}
   */
  #ask(call) {
    if (this.#options.fault !== null) {
      throw new InvalidRequest(this.#options.fault.message, this.#options.fault.code);
    }
    return this.#connection.ask(call);
  }

  /**
   * @param {string} event
   * @param {Error} [error]
   */
  #tellOutage(event, error) {
    if (this.#options.disconnectEvents) {
      process.nextTick(() => this.emit(event, error));
    }
  }
}

/**
 * @param {Buffer} key
 * @param {string} text
 * @param {Written} written
 * @param {string | null} user
 * @returns {Loaded}
 */
function remembered(key, text, { version, expiresAt, ttl }, user) {
  return { key, text, version, user, renewedAt: expiresAt - ttl };
}

/**
 * What a session said of its cookie. After a save it is seldom asked for, and waits in the text until then.
 *
 * @param {Loaded} loaded
 */
function cookieOf(loaded) {
  return 'cookie' in loaded ? loaded.cookie : JSON.parse(loaded.text).cookie;
}

/**
 * Whether an entry is hidden by something of the same name in the class of the session object, so that the app can
 * neither see nor remove it.
 *
 * @param {any} session
 * @param {string} name
 */
function isShadowed(session, name) {
  return name in session && !Object.prototype.propertyIsEnumerable.call(session, name);
}

/** @param {number | null} ttl */
function isOver(ttl) {
  return ttl !== null && ttl <= 0;
}

/** @param {unknown} value */
function isObject(value) {
  return typeof value === 'object' && value !== null;
}

/** @param {string | number | undefined} user */
function userName(user) {
  return user === undefined || user === null ? null : String(user);
}

/** @param {unknown} error */
function allowMissing(error) {
  if (!(error instanceof Missing)) {
    throw error;
  }
}

/** @param {unknown} error a session of some other program, among those of the app */
function allowOpaque(error) {
  if (error instanceof InvalidRequest && error.code === 'opaque_data') {
    return null;
  }
  throw error;
}

module.exports = { SessiondStore };
