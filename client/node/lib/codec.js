// @ts-check
'use strict';

/* MessagePack and JSON, in and out: the one door to msgpackr. */

const { Packr, Unpackr } = require('msgpackr');
const { Failed, InvalidRequest } = require('./errors');

/** @typedef {Record<string, any>} Data a session as its app knows it */

const packr = new Packr({ useRecords: false, variableMapSize: true });
// Numbers beyond 2^53 lose their last digits, as they would in JSON: an app that reads a bigint cannot save it again.
const unpackr = new Unpackr({ useRecords: false, mapsAsObjects: true, int64AsType: 'number' });

/**
 * @param {unknown} value
 * @returns {Buffer}
 */
function pack(value) {
  return packr.pack(value);
}

/**
 * Throws whatever msgpackr throws when these bytes are not one value.
 *
 * @param {Uint8Array} packed
 * @returns {unknown}
 */
function unpack(packed) {
  return unpackr.unpack(packed);
}

/** An escaped backslash, or half a surrogate pair: JSON.stringify escapes no whole ones. */
const ESCAPES = /\\\\|\\ud[89a-f][0-9a-f]{2}/g;

/**
 * The session as JSON text, which is how it is kept. Half an emoji, as cutting a text leaves it, has no UTF-8 and becomes
 * the replacement character.
 *
 * @param {unknown} session
 * @returns {string}
 */
function write(session) {
  if (typeof session !== 'object' || session === null || Array.isArray(session)) {
    throw new InvalidRequest('A session is an object.', 'bad_data');
  }
  /** @type {string | undefined} */
  let text;
  try {
    text = JSON.stringify(session);
  } catch (error) {
    // The error of JSON.stringify names constructors and properties, never values.
    const why = error instanceof Error ? error.message : String(error);
    throw new InvalidRequest(`The session cannot be written as JSON: ${why}`, 'bad_data');
  }
  if (text?.[0] !== '{') {
    throw new InvalidRequest('The session writes itself as something that is no object.', 'bad_data');
  }
  return text.includes('\\ud') ? text.replace(ESCAPES, (escape) => (escape === '\\\\' ? escape : '\ufffd')) : text;
}

/**
 * The data in these bytes, which are of that format.
 *
 * @param {string} format
 * @param {Buffer} packed
 * @returns {Data}
 */
function read(format, packed) {
  if (format === 'bytes') {
    throw new InvalidRequest('The session holds opaque bytes, which are none of an Express app.', 'opaque_data');
  }
  /** @type {unknown} */
  let data;
  try {
    data = format === 'json' ? JSON.parse(packed.toString()) : unpack(packed);
  } catch {
    data = null;
  }
  // Neither an array nor one of msgpackr's own types.
  if (data === null || Object.getPrototypeOf(data) !== Object.prototype) {
    throw new Failed('The session is there, but its data cannot be read; set or destroy it.', 'unreadable_data');
  }
  return /** @type {Data} */ (data);
}

module.exports = { pack, read, unpack, write };
