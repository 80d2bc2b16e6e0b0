// @ts-check
'use strict';

/* What is read of MessagePack, and JSON, in and out: the one door to msgpackr. */

const { Unpackr } = require('msgpackr');
const { Failed, InvalidRequest } = require('./errors');

/** @typedef {Record<string, any>} Data a session as its app knows it */

// Numbers beyond 2^53 lose their last digits, as they would in JSON: an app that reads a bigint cannot save it again.
const unpackr = new Unpackr({ useRecords: false, mapsAsObjects: true, int64AsType: 'number' });

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
 * The data in these bytes, which are of that format, and its JSON: what MessagePack can say and JSON cannot is left out
 * there, as it will be from the session that is saved.
 *
 * @param {string} format
 * @param {Buffer} packed
 * @returns {{ data: Data, text: string }}
 */
function read(format, packed) {
  if (format === 'bytes') {
    throw new InvalidRequest('The session holds opaque bytes, which are none of an Express app.', 'opaque_data');
  }
  /** @type {unknown} */
  let data;
  /** @type {string | undefined} */
  let text;
  try {
    if (format === 'json') {
      text = packed.toString();
      data = JSON.parse(text);
    } else {
      data = unpack(packed);
    }
  } catch {
    data = null;
  }
  // Neither an array nor one of msgpackr's own types.
  if (data === null || Object.getPrototypeOf(data) !== Object.prototype) {
    throw new Failed('The session is there, but its data cannot be read; set or destroy it.', 'unreadable_data');
  }
  return { data: /** @type {Data} */ (data), text: text ?? JSON.stringify(data) };
}

module.exports = { read, unpack, write };
