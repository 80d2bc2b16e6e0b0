// @ts-check
'use strict';

/* Where daemons are: `http://host:port`, `https://host:port` or `unix:///path`, one or several. */

const { InvalidRequest } = require('./errors');

const DEFAULT_URL = 'http://127.0.0.1:7377';
const DEFAULT_PORT = '7377';

/**
 * Where one daemon listens.
 *
 * @typedef {object} Address
 * @property {string} url as shown in errors; never holds a secret
 * @property {{ host: string, port: number } | { path: string }} where
 * @property {string} authority the host, and the port, as a request names them
 * @property {boolean} isSecure whether TLS is spoken
 */

/**
 * The addresses, in the order given. Several stand in an array or, separated by commas, in one string.
 * Nothing means the environment's `SESSIOND_URL`, and without that `http://127.0.0.1:7377`.
 *
 * @param {string | readonly string[] | undefined | null} urls
 * @returns {Address[]}
 */
function parseUrls(urls) {
  const given = urls ?? (process.env.SESSIOND_URL || DEFAULT_URL);
  const each = typeof given === 'string' ? given.split(',') : [...given];
  if (each.length === 0) {
    throw wrong('There has to be at least one address');
  }
  return each.map((url) => parse(typeof url === 'string' ? url.trim() : url));
}

/**
 * @param {unknown} url
 * @returns {Address}
 */
function parse(url) {
  if (typeof url !== 'string' || /[^!-~]/.test(url)) {
    throw wrong('An address is a string of printable ASCII without spaces');
  }
  if (url.startsWith('unix://')) {
    const path = url.slice('unix://'.length);
    if (!path.startsWith('/') || path.endsWith('/')) {
      throw wrong('A unix address names the socket by its absolute path');
    }
    return { url, where: { path }, authority: 'localhost', isSecure: false };
  }
  if (!/^https?:\/\//.test(url)) {
    throw wrong('An address begins with http://, https:// or unix://');
  }
  // The address is not repeated in these sentences: what stands before an @ is often a password.
  if (url.includes('@')) {
    throw wrong('An address holds no user, password or token; pass the option token instead');
  }
  const { protocol, hostname, port } = readable(url);
  const origin = /^https?:\/\/[^/?#]+/.exec(url)?.[0];
  if (url.length - (origin?.length ?? 0) > 1 || /[?#]$/.test(url)) {
    throw wrong('An address ends with the port: no path, no query');
  }
  // A port that is the default of http or https is dropped by URL; ours is another one.
  const number = port || /:(\d+)$/.exec(origin ?? '')?.[1] || DEFAULT_PORT;
  if (Number(number) === 0) {
    throw wrong('A port is a number from 1 to 65535');
  }
  const where = { host: hostname.replace(/^\[|\]$/g, ''), port: Number(number) };
  return { url: origin ?? url, where, authority: `${hostname}:${where.port}`, isSecure: protocol === 'https:' };
}

/** @param {string} url */
function readable(url) {
  try {
    return new URL(url);
  } catch {
    throw wrong('The host or the port of an address cannot be read');
  }
}

/** @param {string} why */
function wrong(why) {
  return new InvalidRequest(`${why}: write it like ${DEFAULT_URL}, https://host:7377 or unix:///path.`, 'bad_url');
}

module.exports = { parseUrls };
