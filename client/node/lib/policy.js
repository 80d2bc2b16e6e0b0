// @ts-check
'use strict';

/*
 * What to do when things fail: where to connect and when, and which call may be sent again.
 *
 * Decisions only: the time comes in as an argument, in milliseconds of a clock that never goes back.
 *
 * While no daemon can be reached, callers wait through the first `patience` ms of the outage, since a restart takes
 * less. After that they fail at once, so that a web process does not fill up with waiting requests; somebody's call
 * makes the next attempt whenever one is due.
 */

const { AuthError, ConnectFailed, DeadlineExceeded, Unavailable } = require('./errors');

/** @typedef {import('./urls').Address} Address */
/** @typedef {ConnectFailed | AuthError} Outage why no connection could be had */

/* ms between attempts: they double from the first, up to the second while callers wait for them, then to the last. */
const FIRST_PAUSE = 50;
const PATIENT_PAUSE = 200;
const LONGEST_PAUSE = 1000;
/* Between two attempts of a reader of events, at most. */
const LONGEST_COMEBACK = 5000;

const MAX_REPEATS = 2;

/** The addresses, which of them comes first, and the outage there may be. */
class Route {
  /**
   * @param {readonly Address[]} addresses
   * @param {number} patience
   * @param {() => number} [chance]
   */
  constructor(addresses, patience, chance = Math.random) {
    this.addresses = addresses;
    /**
     * Why the last attempt failed; null when it did not.
     * @type {Outage | null}
     */
    this.error = null;
    this.#patience = patience;
    this.#chance = chance;
  }

  #patience;
  #chance;
  #first = 0;
  #failures = 0;
  #outageBegan = 0;
  #nextAttempt = 0;

  /** All addresses, in the order in which to try them: the last good one leads. */
  order() {
    return [...this.addresses.slice(this.#first), ...this.addresses.slice(0, this.#first)];
  }

  /** Time for one address, so that a silent one leaves some for the others. */
  get timeout() {
    return this.#patience / this.addresses.length;
  }

  /** @param {Address} address a connection is open: the outage, if there was one, is over */
  succeeded(address) {
    this.#first = this.addresses.indexOf(address);
    this.#failures = 0;
    this.error = null;
  }

  /** @param {Address} address this daemon stops, or has fallen silent: another one is tried first */
  avoid(address) {
    if (this.addresses[this.#first] === address) {
      this.#first = (this.#first + 1) % this.addresses.length;
    }
  }

  /**
   * None of the addresses could be reached.
   *
   * @param {number} now
   * @param {Outage} error
   */
  failed(now, error) {
    if (this.error === null) {
      this.#outageBegan = now;
    }
    this.error = error;
    const longest = this.#isPatient(now) ? PATIENT_PAUSE : LONGEST_PAUSE;
    const pause = Math.min(longest, FIRST_PAUSE * 2 ** Math.min(this.#failures, 10));
    this.#failures += 1;
    this.#nextAttempt = now + pause * this.#chance(); // full jitter: many processes must not come at once
  }

  /**
   * Throws the last error when a caller should not wait and no attempt is due.
   *
   * @param {number} now
   */
  refuse(now) {
    if (this.error !== null && now < this.#nextAttempt && !this.#isPatient(now)) {
      throw again(this.error);
    }
  }

  /**
   * 0 when the caller is to make the next attempt; else how long to wait and then to ask again.
   * Throws the last error as `refuse` does.
   *
   * @param {number} now
   */
  pause(now) {
    this.refuse(now);
    if (this.error === null) {
      return 0;
    }
    if (now < this.#nextAttempt) {
      return Math.min(this.#nextAttempt - now, FIRST_PAUSE);
    }
    // While this attempt lasts, others wait for it or fail: they do not all try a daemon that is silent.
    this.#nextAttempt = now + this.#patience;
    return 0;
  }

  /**
   * Whether callers should wait for the next attempt rather than fail. A token does not become right by waiting.
   *
   * @param {number} now
   */
  #isPatient(now) {
    return this.error instanceof ConnectFailed && now < this.#outageBegan + this.#patience;
  }
}

/**
 * When a reader of events comes back. The first connection has to come about within `patience` ms of `now`; once there
 * was one, there is no end to trying: it is a program that waits, and nobody's request.
 */
class Comeback {
  /**
   * @param {number} patience
   * @param {number} now
   * @param {() => number} [chance]
   */
  constructor(patience, now, chance = Math.random) {
    this.#due = now + patience;
    this.#chance = chance;
  }

  #due;
  #chance;
  #failures = 0;
  #wasThere = false;

  succeeded() {
    this.#wasThere = true;
    this.#failures = 0;
  }

  /**
   * Until the next attempt. Throws the error when there never was a connection.
   *
   * @param {Error} error
   * @param {number} now
   */
  pause(error, now) {
    if (!this.#wasThere && now >= this.#due) {
      throw error;
    }
    const longest = this.#wasThere ? LONGEST_COMEBACK : PATIENT_PAUSE;
    const pause = Math.min(longest, FIRST_PAUSE * 2 ** Math.min(this.#failures, 10));
    this.#failures += 1;
    return pause * this.#chance();
  }
}

/**
 * One call on its way: how often it went out, and for how many of those times the outcome is not known.
 *
 * @template T
 */
class Errand {
  /**
   * @param {import('./protocol').Call<T>} call
   * @param {number} deadline the instant by which its caller has been answered
   */
  constructor(call, deadline) {
    this.call = call;
    this.deadline = deadline;
    this.sent = 0;
    this.unanswered = 0;
  }

  /** The call is being sent. */
  goesOut() {
    this.sent += 1;
    this.unanswered += 1;
  }

  /** The daemon answered that it began no work on it. */
  wasTurnedAway() {
    this.unanswered -= 1;
  }

  /** Whether the call may be sent once more, now that its answer is not to be had. */
  mayGoAgain() {
    return this.sent <= MAX_REPEATS && (this.call.mayRepeat || this.unanswered === 0);
  }

  /**
   * The value that the answer to the last sending means; throws its error.
   *
   * @param {import('./protocol').Answer} answer
   */
  result(answer) {
    return this.call.result(answer, this.unanswered > 1);
  }

  /**
   * The error for a connection that broke before the answer came.
   *
   * @param {string} reason
   */
  lost(reason) {
    return this.#explain(Unavailable, `The connection to sessiond broke before the answer came (${reason})`);
  }

  /**
   * The error for an answer that did not come in time.
   *
   * @param {number} wait
   */
  late(wait) {
    return this.#explain(DeadlineExceeded, `No answer came from sessiond within ${wait} ms`);
  }

  /**
   * The error for a call that found no connection, the first time or for its repeat.
   *
   * @param {Outage} error
   */
  unreachable(error) {
    if (error instanceof ConnectFailed && this.call.writes && this.unanswered) {
      const message = `${error.message} Whether the write was carried out before is not known.`;
      return new ConnectFailed(message, { outcomeUnknown: true, cause: error.cause });
    }
    return again(error);
  }

  /**
   * @param {typeof Unavailable} Kind
   * @param {string} what
   */
  #explain(Kind, what) {
    if (!this.call.writes) {
      return new Kind(`${what}; it was only a read, try again.`);
    }
    if (!this.unanswered) {
      return new Kind(`${what}; nothing was written, try again.`);
    }
    return new Kind(`${what}; whether the write was carried out is not known.`, { outcomeUnknown: true });
  }
}

/**
 * The error for a round in which every address failed, each for its own reason.
 *
 * @param {[Address, Error][]} tried
 */
function connectFailed(tried) {
  const reasons = tried.map(([address, error]) => `${address.url}: ${reasonOf(error)}`).join('; ');
  return new ConnectFailed(`No sessiond can be reached (${reasons}). Start one with \`sessiond serve\`, or check the URL.`, {
    cause: tried.at(-1)?.[1],
  });
}

/**
 * Why a connection failed, in a few words.
 *
 * @param {Error & { code?: string, errors?: Error[] }} error
 * @returns {string}
 */
function reasonOf(error) {
  // A name with several addresses gives an AggregateError without a message.
  return error.message || (error.errors?.[0] ? reasonOf(error.errors[0]) : error.code || error.name);
}

/**
 * An equal error for another caller: each gets its own stack.
 *
 * @template {Outage} E
 * @param {E} error
 * @returns {E}
 */
function again(error) {
  const fresh =
    error instanceof AuthError
      ? new AuthError(error.message, error.answered)
      : new ConnectFailed(error.message, { outcomeUnknown: error.outcomeUnknown, cause: error.cause });
  return /** @type {E} */ (fresh);
}

module.exports = { Comeback, Errand, FIRST_PAUSE, LONGEST_PAUSE, PATIENT_PAUSE, Route, connectFailed, reasonOf };
