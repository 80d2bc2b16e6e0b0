// @ts-check
'use strict';

/* Random bytes, a few at a time. */

const { randomBytes } = require('node:crypto');

/** Bytes fetched at once: `randomBytes` takes 5 µs a call, whether for 8 of them or for so many. */
const POOL_SIZE = 4096;

/**
 * A function that returns as many bytes with every call, from the system's source, and none twice.
 *
 * @param {number} size of which 4096 is a multiple
 * @returns {() => Buffer}
 */
function makeChance(size) {
  let pool = Buffer.alloc(0);
  let next = 0;
  return () => {
    if (next === pool.length) {
      // A new one, and not the old one filled again: its last pieces may still be in use.
      pool = randomBytes(POOL_SIZE);
      next = 0;
    }
    next += size;
    return pool.subarray(next - size, next);
  };
}

module.exports = { makeChance };
