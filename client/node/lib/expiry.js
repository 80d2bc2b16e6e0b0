// @ts-check
'use strict';

/*
 * How long a session lives, by its cookie. The daemon counts by its own clock, so what travels is a time to live;
 * what comes back is the instant, and the cookie shows it.
 */

/** As long as any browser keeps a cookie, and the most that the daemon takes unless told otherwise. */
const LONGEST_TTL = 400 * 24 * 60 * 60 * 1000;
const DAY = 24 * 60 * 60 * 1000;
const TWO_DIGITS = Array.from({ length: 60 }, (_, number) => String(number).padStart(2, '0'));

/**
 * The ms that the session has to live; null leaves it to the daemon. 0 or less: it has expired.
 *
 * @param {any} session
 * @param {number} now
 * @param {number | null} fallback for a cookie that ends with the browser, and for a session without one
 */
function ttlOf(session, now, fallback) {
  const cookie = session?.cookie;
  const expires = instantOf(cookie?.expires) ?? instantOf(cookie?._expires);
  const ttl = expires === null ? (lengthOf(cookie?.originalMaxAge) ?? fallback) : expires - now;
  return ttl === null ? null : Math.min(Math.ceil(ttl), LONGEST_TTL);
}

/**
 * Makes the cookie of loaded data show when the session expires, in the way in which it showed it before. A cookie that
 * ends with the browser stays one.
 *
 * @param {import('./codec').Data} data
 * @param {number} expiresAt
 */
function showExpiry({ cookie }, expiresAt) {
  if (typeof cookie !== 'object' || cookie === null) {
    return;
  }
  if (typeof cookie.expires === 'number') {
    cookie.expires = expiresAt;
  } else if (instantOf(cookie.expires) !== null) {
    cookie.expires = isoOf(expiresAt);
  }
}

let day = NaN;
let dayText = '';

/**
 * The instant as `Date.prototype.toISOString` writes it. Every session that is loaded shows one, and they fall on few
 * days: measured, 0.1 µs where that takes 0.7, of 14 for a whole get.
 *
 * @param {number} instant
 */
function isoOf(instant) {
  const itsDay = Math.floor(instant / DAY);
  if (itsDay !== day) {
    day = itsDay;
    dayText = new Date(day * DAY).toISOString().slice(0, -'00:00:00.000Z'.length);
  }
  const rest = instant - day * DAY;
  const seconds = Math.floor(rest / 1000);
  const [hour, minute, second] = [Math.floor(seconds / 3600), Math.floor(seconds / 60) % 60, seconds % 60];
  const ms = String(rest % 1000).padStart(3, '0');
  return `${dayText}${TWO_DIGITS[hour]}:${TWO_DIGITS[minute]}:${TWO_DIGITS[second]}.${ms}Z`;
}

/**
 * An instant in ms; null for what is none, `false` and an invalid date among them.
 *
 * @param {unknown} value
 */
function instantOf(value) {
  const isInstant = value instanceof Date || typeof value === 'string' || typeof value === 'number';
  const instant = isInstant ? new Date(value).getTime() : NaN;
  return Number.isNaN(instant) ? null : instant;
}

/** @param {unknown} value */
function lengthOf(value) {
  return typeof value === 'number' && Number.isFinite(value) ? value : null;
}

module.exports = { LONGEST_TTL, isoOf, showExpiry, ttlOf };
