// @ts-check
'use strict';

/*
 * Verbs and messages: what a caller asks becomes a `Call`, what the daemon answers becomes a value or an error.
 *
 * Rule 1: the names of the wire (verbs, statuses, the order of arguments) stand here and nowhere else.
 * Rule 2: no I/O and no clock. Times are milliseconds.
 */

const { makeChance } = require('./chance');
const { unpack } = require('./codec');
const { AuthError, Conflict, Exists, Failed, InvalidRequest, Missing, Unavailable } = require('./errors');
const { MAX_MESSAGE } = require('./frames');
const { Packer, Utf8 } = require('./packer');

/** @typedef {any[]} Answer `[seq, status, …]` */

/**
 * What the daemon keeps of a session.
 *
 * @typedef {object} Record
 * @property {number} version
 * @property {number} expiresAt
 * @property {number} ttl
 * @property {string} format
 * @property {Buffer} data
 * @property {number} createdAt
 * @property {number | null} deadline
 * @property {string | null} user
 * @property {{ [name: string]: string } | null} meta
 */

/**
 * One line of a listing.
 *
 * @typedef {object} Entry
 * @property {Buffer} key
 * @property {string | null} user
 * @property {{ [name: string]: string } | null} meta
 * @property {number} createdAt
 * @property {number} renewedAt
 * @property {number} expiresAt
 * @property {number} version
 * @property {number} size
 */

/** @typedef {{ version: number, expiresAt: number, ttl: number }} Written */

/**
 * The end of a session, or with the kind `gap` that some may be missing.
 *
 * @typedef {object} Event
 * @property {string} id
 * @property {string} kind
 * @property {Buffer | null} key
 * @property {string | null} user
 * @property {number | null} at
 * @property {Buffer | null} newKey
 * @property {string | null} reason
 */

/** Calls that a message may hold. */
const MAX_CALLS = 10_000;
/** A message is closed when it has reached this size, so that one turn's calls do not wait for each other's bytes. */
const MESSAGE_SIZE = 1024 * 1024;
/** Of the array of that many calls. */
const LONGEST_HEAD = 3;
const READS = new Set(['get', 'list', 'count', 'watch']);
/**
 * By verb, the refusal that is an answer as good as any, and no error: null.
 * @type {{ [verb: string]: string }}
 */
const NULL_MEANS = { get: 'missing', touch: 'missing', create: 'exists' };
/** What a write is recognised by when it is repeated. */
const newOp = makeChance(8);

/**
 * One call: what goes on the wire but for its seq, how to read the answer, and what may be done when it is lost.
 *
 * @template T
 */
class Call {
  /**
   * @param {any[]} parts the verb and its arguments
   * @param {(answer: Answer) => T} read
   * @param {{ mayRepeat?: boolean }} [about]
   */
  constructor(parts, read, { mayRepeat = true } = {}) {
    while ((parts.at(-1) ?? null) === null) {
      parts.pop();
    }
    this.parts = parts;
    this.read = read;
    /** Whether it may be sent again although it may have been carried out ("Repeats" in the protocol). */
    this.mayRepeat = mayRepeat;
  }

  get writes() {
    return !READS.has(this.parts[0]);
  }

  /**
   * The value that the answer means; throws its error.
   *
   * `inDoubt` says that the call had been sent before and its answer was lost. The daemon recognises a repeat only
   * while the write is the session's last change, so a refusal may then be due to the call's own first arrival.
   *
   * @param {Answer} answer
   * @param {boolean} inDoubt
   * @returns {T}
   */
  result(answer, inDoubt) {
    const [verb] = this.parts;
    const [, status] = answer;
    if (status === 'ok') {
      return this.read(answer);
    }
    if (inDoubt && (status === 'conflict' || status === 'exists' || (status === 'missing' && verb === 'rotate'))) {
      throw new Unavailable(
        'The answer to this write was lost, and by the time it was repeated the session had changed: ' +
          'whether the write was carried out is not known. Load the session again.',
        { outcomeUnknown: true },
      );
    }
    if (status === NULL_MEANS[verb]) {
      return /** @type {any} */ (null);
    }
    throw errorOf(answer);
  }
}

// -- The verbs. Data, and what a patch sets, are bytes in `format`. --

/**
 * What a call may say; what it leaves out, the daemon keeps or decides.
 *
 * @typedef {object} Content
 * @property {string} [format] `json` unless said otherwise
 * @property {Uint8Array | string} data
 */

/**
 * @typedef {object} About
 * @property {number | null} [ttl]
 * @property {number | null} [lifetime]
 * @property {string | null} [user] the empty string takes the user away
 * @property {{ [name: string]: string } | null} [meta]
 * @property {Buffer} [op]
 */

/**
 * @param {Buffer} key
 * @param {Content & About} content
 * @returns {Call<Written | null>} null: a session lives there already
 */
function create(key, { format = 'json', data, ttl, lifetime, user, meta, op = newOp() }) {
  return new Call(['create', key, format, bytesOf(data), ttl, lifetime, known(user), meta, op], readWritten);
}

/**
 * @param {Buffer} key
 * @param {{ renew?: true | number }} [how]
 * @returns {Call<Record | null>}
 */
function get(key, { renew } = {}) {
  return new Call(['get', key, renew], readRecord);
}

/**
 * @param {Buffer} key
 * @param {Content & About & { when: 'any' | 'alive' | number }} content
 * @returns {Call<Written>}
 */
function set(key, { format = 'json', data, ttl, when, lifetime, user, meta, op = newOp() }) {
  const isByVersion = typeof when === 'number';
  const parts = ['set', key, format, bytesOf(data), ttl, when, lifetime, known(user), meta, op];
  // Between a lost answer and the repeat somebody else may have logged in or out; only a version would notice.
  return new Call(parts, readWritten, { mayRepeat: isByVersion });
}

/**
 * @param {Buffer} key
 * @param {Partial<Content> & About & { remove?: string[] }} changes
 * @returns {Call<Written>}
 */
function patch(key, { format = 'json', data, remove = [], ttl, user, meta, op = newOp() }) {
  const entries = data === undefined ? null : bytesOf(data);
  const names = remove.length > 0 ? remove.map(wellFormed) : null;
  return new Call(['patch', key, format, entries, names, ttl, known(user), meta, op], readWritten);
}

/**
 * @param {Buffer} key
 * @param {{ ttl?: number | null }} [about]
 * @returns {Call<Written | null>}
 */
function touch(key, { ttl } = {}) {
  return new Call(['touch', key, ttl], readWritten);
}

/**
 * @param {Buffer} key
 * @param {Buffer} newKey
 * @param {{ grace?: number, op?: Buffer }} [how]
 * @returns {Call<Written>}
 */
function rotate(key, newKey, { grace = 0, op = newOp() } = {}) {
  return new Call(['rotate', key, newKey, grace || null, op], readWritten);
}

/**
 * @param {Buffer} key
 * @returns {Call<void>}
 */
function destroy(key) {
  return new Call(['destroy', key], readNothing);
}

/**
 * @param {{ user?: string | null, cursor?: Buffer | null, limit?: number }} [page]
 * @returns {Call<{ entries: Entry[], cursor: Buffer | null }>}
 */
function list({ user, cursor, limit } = {}) {
  return new Call(['list', somebody(user), cursor, limit], readListing);
}

/**
 * @param {{ user?: string | null }} [of]
 * @returns {Call<number>}
 */
function count({ user } = {}) {
  return new Call(['count', somebody(user)], readNumber);
}

/**
 * @param {{ user?: string | null, exceptKey?: Buffer | null, everyone?: boolean }} of
 * @returns {Call<number>}
 */
function destroyAll({ user, exceptKey, everyone = false }) {
  const parts = ['destroy_all', somebody(user), exceptKey, everyone || null];
  return new Call(parts, readNumber, { mayRepeat: false });
}

/**
 * @param {{ after?: string | null }} [from] the id of an event
 * @returns {Call<string>}
 */
function watch({ after } = {}) {
  if (after !== undefined && after !== null && (typeof after !== 'string' || !after.isWellFormed())) {
    throw new InvalidRequest('after is the id of an event.', 'bad_cursor');
  }
  return new Call(['watch', after], readId);
}

// -- Messages --

/** A message, made call by call; and then the next one. */
class Message {
  /** How many calls are in it. */
  count = 0;
  #packer = new Packer();

  /** Begins the next message. */
  begin() {
    this.count = 0;
    this.#packer.clear();
    this.#packer.at = LONGEST_HEAD;
  }

  /**
   * Takes the call in; false when it belongs in the next message. Throws InvalidRequest for a call that fits in none.
   *
   * @param {number} seq
   * @param {Call<any>} call
   * @returns {boolean}
   */
  add(seq, { parts }) {
    if (this.count === MAX_CALLS) {
      return false;
    }
    const packer = this.#packer;
    const start = packer.at;
    packer.array(parts.length + 1);
    packer.value(seq);
    for (const part of parts) {
      packer.value(part);
    }
    const isTooLarge = packer.at - start > MAX_MESSAGE - LONGEST_HEAD;
    if (isTooLarge || (this.count > 0 && packer.at - LONGEST_HEAD > MESSAGE_SIZE)) {
      packer.at = start;
      if (isTooLarge) {
        throw new InvalidRequest('The session is too large for one message; keep less in it.', 'too_large');
      }
      return false;
    }
    this.count += 1;
    return true;
  }

  /** The bytes of the message, which hold until the next one begins. */
  end() {
    const packer = this.#packer;
    const end = packer.at;
    const start = LONGEST_HEAD - (this.count <= 15 ? 1 : 3);
    packer.at = start;
    packer.array(this.count);
    return packer.slice(start, end);
  }
}

/**
 * The answers and pushes of one message. Throws an Error that says what is wrong with it.
 *
 * @param {Buffer} message
 * @returns {Answer[]}
 */
function unpackAnswers(message) {
  /** @type {unknown} */
  let answers;
  try {
    answers = unpack(message);
  } catch {
    throw new Error('its message is not MessagePack');
  }
  if (!Array.isArray(answers) || !answers.every(isAnswer)) {
    throw new Error('its message is no array of answers');
  }
  return answers;
}

/** @param {any} answer */
function isAnswer(answer) {
  return Array.isArray(answer) && Number.isSafeInteger(answer[0]) && typeof answer[1] === 'string';
}

/**
 * Whether it is told without being asked.
 *
 * @param {Answer} answer
 */
function isPush(answer) {
  return answer[0] === 0;
}

/**
 * Whether the daemon is about to stop; every other push is of a later version, and ignored.
 *
 * @param {Answer} push
 */
function tellsStopping(push) {
  return push[1] === 'stopping';
}

/**
 * The event that a push tells; null for any other push.
 *
 * @param {Answer} push
 * @returns {Event | null}
 */
function eventOf(push) {
  if (push[1] !== 'ended') {
    return null;
  }
  const [, , id, kind, key, user, at, newKey, reason] = fields(push, EVENT, 2);
  // Copied, or one key that somebody keeps would hold the memory of a whole message.
  return { id, kind, key: key && Buffer.from(key), user, at, newKey: newKey && Buffer.from(newKey), reason };
}

/**
 * Whether the daemon began no work on the call because it stops: the call belongs on another connection.
 *
 * @param {Answer} answer
 */
function isStopping(answer) {
  return answer[1] === 'failed' && answer[2] === 'stopping';
}

// -- Arguments --

/** @param {Uint8Array | string} data */
function bytesOf(data) {
  return typeof data === 'string' ? new Utf8(data) : data;
}

/** @param {string | null | undefined} user the empty string takes the user away */
function known(user) {
  return user === null || user === undefined ? null : wellFormed(user);
}

/** @param {string | null | undefined} user */
function somebody(user) {
  if (user === '') {
    throw new InvalidRequest('The empty string names no user.', 'bad_user');
  }
  return known(user);
}

/**
 * Half a surrogate pair has no UTF-8: it would break the message, and with it the calls of others.
 *
 * @param {string} text
 */
function wellFormed(text) {
  if (!text.isWellFormed()) {
    throw new InvalidRequest('A name or a user holds half a surrogate pair, which has no UTF-8.', 'bad_data');
  }
  return text;
}

// -- Answers --

/** @param {any} value */
const isInt = (value) => Number.isInteger(value);
/** @param {any} value */
const isText = (value) => typeof value === 'string';
/** @param {any} value */
const isBytes = (value) => value instanceof Uint8Array;
/** @param {any} value */
const isMap = (value) => typeof value === 'object' && value !== null && !Array.isArray(value) && !isBytes(value);
/** @param {(value: any) => boolean} is */
const orNull = (is) => (/** @type {any} */ value) => value === null || is(value);

const RECORD = [isInt, isInt, isInt, isText, isBytes, isInt, orNull(isInt), orNull(isText), orNull(isMap)];
const ENTRY = [isBytes, orNull(isText), orNull(isMap), isInt, isInt, isInt, isInt, isInt];
const EVENT = [isText, isText, orNull(isBytes), orNull(isText), orNull(isInt), orNull(isBytes), orNull(isText)];
const LISTING = [Array.isArray, orNull(isBytes)];
const WRITTEN = [isInt, isInt, isInt];

/**
 * @param {any} values
 * @param {((value: any) => boolean)[]} shape
 * @param {number} [start] how many values come before those that the shape tells of
 * @returns {any[]} all the values
 */
function fields(values, shape, start = 0) {
  if (!Array.isArray(values) || !shape.every((is, at) => is(values[start + at]))) {
    throw new Unavailable("The daemon's answer cannot be read: update this package or the daemon, whichever is older.");
  }
  return values;
}

/**
 * @param {Answer} answer
 * @returns {Record}
 */
function readRecord(answer) {
  const [, , version, expiresAt, ttl, format, data, createdAt, deadline, user, meta] = fields(answer, RECORD, 2);
  return { version, expiresAt, ttl, format, data, createdAt, deadline, user, meta };
}

/**
 * @param {Answer} answer
 * @returns {Written}
 */
function readWritten(answer) {
  const [, , version, expiresAt, ttl] = fields(answer, WRITTEN, 2);
  return { version, expiresAt, ttl };
}

/** @param {Answer} answer */
function readListing(answer) {
  const [, , entries, cursor] = fields(answer, LISTING, 2);
  return { entries: entries.map(readEntry), cursor };
}

/**
 * @param {any} entry
 * @returns {Entry}
 */
function readEntry(entry) {
  const [key, user, meta, createdAt, renewedAt, expiresAt, version, size] = fields(entry, ENTRY);
  // Copied, or one key that somebody keeps would hold the memory of a whole page.
  return { key: Buffer.from(key), user, meta, createdAt, renewedAt, expiresAt, version, size };
}

/**
 * @param {Answer} answer
 * @returns {number}
 */
function readNumber(answer) {
  return fields(answer, [isInt], 2)[2];
}

/**
 * @param {Answer} answer
 * @returns {string}
 */
function readId(answer) {
  return fields(answer, [isText], 2)[2];
}

function readNothing() {}

/** @param {Answer} answer */
function errorOf([, status, ...rest]) {
  if (status === 'missing') {
    return new Missing();
  }
  if (status === 'exists') {
    return new Exists();
  }
  if (status === 'conflict') {
    return new Conflict(fields(rest, RECORD)[0]);
  }
  const [code = '', sentence = ''] = rest.map(String);
  if (status === 'refused' && code === 'forbidden') {
    return new AuthError(sentence || 'The token does not allow this.', 403);
  }
  if (status === 'refused') {
    return new InvalidRequest(sentence || 'The daemon refused the call.', code);
  }
  return new Failed(sentence || `The daemon answered ${JSON.stringify(status)}, unknown to this package.`, code || status);
}

module.exports = {
  Call,
  Message,
  count,
  create,
  destroy,
  destroyAll,
  eventOf,
  get,
  isPush,
  isStopping,
  list,
  patch,
  rotate,
  set,
  tellsStopping,
  touch,
  unpackAnswers,
  watch,
};
