'use strict';

const assert = require('node:assert/strict');
const { describe, test } = require('node:test');
const { unpack } = require('../lib/codec');
const { Packer, Utf8 } = require('../lib/packer');

const packed = (value) => {
  const packer = new Packer();
  packer.value(value);
  return packer.slice(0, packer.at);
};

describe('what is written is read again', () => {
  const around = [0, 31, 32, 127, 128, 255, 256, 65535, 65536, 2 ** 31, 2 ** 32 - 1, 2 ** 32, 2 ** 40 + 1];

  for (const number of [...around, Number.MAX_SAFE_INTEGER]) {
    test(`the numbers ${number} and ${-number}`, () => {
      assert.equal(unpack(packed(number)), number);
      assert.equal(unpack(packed(-number)), 0 - number);
    });
  }

  test('numbers that are no integers, or no exact ones', () => {
    for (const number of [0.5, -1.25, 2 ** 60, Infinity, NaN]) {
      assert.equal(unpack(packed(number)), number);
      assert.equal(packed(number)[0], 0xcb);
    }
  });

  for (const length of around.slice(0, 9)) {
    test(`texts, bytes and arrays of the length ${length}`, () => {
      for (const text of ['a'.repeat(length), 'é'.repeat(length), '😀'.repeat(length)]) {
        assert.equal(unpack(packed(text)), text);
        assert.deepEqual(Buffer.from(unpack(packed(new Utf8(text)))), Buffer.from(text));
      }
      const bytes = Buffer.alloc(length, 7);
      assert.deepEqual(Buffer.from(unpack(packed(bytes))), bytes);
      const array = Array(length).fill(null);
      assert.deepEqual(unpack(packed(array)), array);
      const object = Object.fromEntries(array.map((_, n) => [`n${n}`, n]));
      assert.deepEqual(unpack(packed(object)), object);
    });
  }

  test('nothing, booleans, and what holds others', () => {
    const value = { a: [true, false, null, { b: 'c' }], d: '' };

    assert.deepEqual(unpack(packed(value)), value);
    assert.equal(unpack(packed(undefined)), null);
  });
});

test('a value has its shortest head, unless it is a negative number', () => {
  const heads = [
    [0, '00'], [127, '7f'], [128, 'cc80'], [255, 'ccff'], [256, 'cd0100'], [65536, 'ce00010000'], [2 ** 32, 'cf0000000100000000'],
    [-1, 'ff'], [-32, 'e0'], [-33, 'd3ffffffffffffffdf'],
    ['a'.repeat(31), 'bf'], ['a'.repeat(32), 'd920'], ['é'.repeat(15), 'be'], ['é'.repeat(16), 'd920'], ['a'.repeat(256), 'da0100'], ['a'.repeat(65536), 'db00010000'],
    [Buffer.alloc(0), 'c400'], [Buffer.alloc(255), 'c4ff'], [Buffer.alloc(256), 'c50100'], [Buffer.alloc(65536), 'c600010000'],
    [new Utf8(''), 'c400'], [new Utf8('é'.repeat(128)), 'c50100'],
    [Array(15).fill(0), '9f'], [Array(16).fill(0), 'dc0010'], [{}, '80'],
  ];

  for (const [value, head] of heads) {
    assert.equal(packed(value).toString('hex').slice(0, head.length), head);
  }
});

test('half a surrogate pair is written as the replacement character, at its full size', () => {
  assert.equal(unpack(packed('a\ud800')), 'a\ufffd');
  assert.equal(Buffer.from(unpack(packed(new Utf8('\ud800b')))).toString(), '\ufffdb');
});

test('a buffer that has grown keeps what was written, and a large one is given back', () => {
  const packer = new Packer();
  packer.value('first');
  packer.value(new Utf8('x'.repeat(3_000_000)));

  assert.equal(unpack(packer.slice(0, 6)), 'first');
  assert.equal(unpack(packer.slice(6, packer.at)).length, 3_000_000);
  packer.clear();
  packer.value('next');
  assert.equal(unpack(packer.slice(0, packer.at)), 'next');
  assert.equal(packer.slice(0, 1).buffer.byteLength, 65536);
});

test('what is written can be taken back', () => {
  const packer = new Packer();
  packer.value(1);
  const { at } = packer;
  packer.value('mistaken');

  packer.at = at;
  packer.value(2);

  assert.equal(packer.slice(0, packer.at).toString('hex'), '0102');
});
