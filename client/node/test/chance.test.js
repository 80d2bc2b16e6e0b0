'use strict';

const assert = require('node:assert/strict');
const { test } = require('node:test');
const { makeChance } = require('../lib/chance');

for (const size of [4, 8]) {
  test(`no ${size} bytes come twice, and those that came before stay as they are`, () => {
    const chance = makeChance(size);
    const other = makeChance(size);

    const pieces = Array.from({ length: 3000 }, chance);

    const seen = pieces.map((piece) => piece.toString('hex'));
    assert.deepEqual([...new Set(pieces.map((piece) => piece.length))], [size]);
    // Of 3000 times 4 bytes two may be equal by chance, once in a thousand runs; never three.
    assert.ok(new Set(seen).size >= 2999);
    assert.notDeepEqual(seen.slice(0, 50), Array.from({ length: 50 }, other).map((piece) => piece.toString('hex')));
    Array.from({ length: 3000 }, chance);
    assert.deepEqual(pieces.map((piece) => piece.toString('hex')), seen);
  });
}
