// @ts-check
'use strict';

/*
 * What ends, as it ends: the async iterator behind `store.events()`, on a connection of its own.
 *
 * It comes back by itself after a broken connection, with the id of the last event, so that nothing is missed; where
 * something may be, the daemon says so with a `gap`.
 */

const { AuthError, InvalidRequest, SessiondError, Unavailable } = require('./errors');
const { Link } = require('./link');
const { Comeback, Route, connectFailed, reasonOf } = require('./policy');
const { Message, eventOf, isPush, tellsStopping, unpackAnswers, watch } = require('./protocol');

/** @typedef {import('./protocol').Event} Event */
/** @typedef {{ resolve: (result: IteratorResult<Event, undefined>) => void, reject: (error: Error) => void }} Waiter */

/** Events that wait here for their reader; beyond, nothing more is read, and what is not read is kept by the daemon. */
const MAX_WAITING = 1000;
/** ms. The daemon pings a connection after 30 s of silence: one that is silent for longer than this is dead. */
const SILENCE = 60_000;
const SEQ = 1;

/** @implements {AsyncIterableIterator<Event>} */
class Events {
  /**
   * @param {import('./options').Options} options
   * @param {string | undefined} after
   * @param {(events: Events) => void} closed is told once, at the end
   */
  constructor(options, after, closed) {
    this.#options = options;
    this.#route = new Route(options.addresses, options.deadline);
    this.#call = watch({ after });
    this.#closed = closed;
  }

  #options;
  #route;
  #call;
  #closed;
  /** @type {Comeback | null} null before it has begun */
  #comeback = null;
  #isOver = false;
  /** @type {Event[]} */
  #events = [];
  /** @type {Waiter[]} */
  #waiters = [];
  /** @type {Error | null} to be thrown by the next `next` */
  #error = null;
  /** @type {Link | null} */
  #link = null;
  /** @type {NodeJS.Timeout | undefined} */
  #timer;

  [Symbol.asyncIterator]() {
    return this;
  }

  /** @returns {Promise<IteratorResult<Event, undefined>>} */
  next() {
    const { fault } = this.#options;
    if (fault !== null) {
      this.#end(new InvalidRequest(fault.message, fault.code));
    } else if (this.#comeback === null && !this.#isOver) {
      this.#comeback = new Comeback(this.#options.deadline, performance.now());
      this.#connect();
    }
    return new Promise((resolve, reject) => {
      this.#waiters.push({ resolve, reject });
      this.#serve();
    });
  }

  /**
   * Ends it, also while somebody waits for the next event.
   *
   * @returns {Promise<IteratorResult<Event, undefined>>}
   */
  async return() {
    this.#end();
    return { done: true, value: undefined };
  }

  // -- what the link tells --

  /**
   * @param {Link} link
   * @param {Buffer} message
   */
  heard(link, message) {
    for (const answer of unpackAnswers(message)) {
      if (isPush(answer)) {
        if (tellsStopping(answer)) {
          this.#route.avoid(link.address);
        }
        const event = eventOf(answer);
        if (event !== null) {
          this.#call = watch({ after: event.id });
          this.#events.push(event);
        }
      } else if (answer[0] === SEQ) {
        this.#answered(link, answer);
      }
    }
    if (this.#events.length > MAX_WAITING) {
      link.halt(true);
    }
    this.#serve();
  }

  /**
   * @param {Link} link
   * @param {Error} error
   */
  lost(link, error) {
    if (this.#link === link) {
      this.#link = null;
      this.#comeBack(new Unavailable(`The daemon's events broke off (${reasonOf(error)}); ask for them again.`));
    }
  }

  /**
   * @param {Link} link
   * @param {import('./protocol').Answer} answer
   */
  #answered(link, answer) {
    clearTimeout(this.#timer);
    this.#timer = setInterval(() => {
      if (performance.now() - link.heardAt >= SILENCE) {
        link.abort(new Error('it has fallen silent'));
      }
    }, SILENCE / 2);
    try {
      this.#call = watch({ after: this.#call.result(answer, false) });
      this.#comeback?.succeeded();
    } catch (error) {
      this.#end(/** @type {Error} */ (error));
    }
  }

  // -- connecting --

  async #connect() {
    /** @type {[import('./urls').Address, Error][]} */
    const tried = [];
    for (const address of this.#route.order()) {
      const link = new Link(address, this.#options, this);
      try {
        await link.open(this.#route.timeout);
        this.#opened(link);
        return;
      } catch (error) {
        if (error instanceof AuthError || this.#isOver) {
          this.#end(/** @type {Error} */ (error));
          return;
        }
        tried.push([address, /** @type {Error} */ (error)]);
      }
    }
    this.#comeBack(connectFailed(tried));
  }

  /** @param {Link} link */
  #opened(link) {
    if (this.#isOver) {
      link.close();
      return;
    }
    this.#route.succeeded(link.address);
    this.#link = link;
    const message = new Message();
    message.begin();
    message.add(SEQ, this.#call);
    link.send(message.end());
    this.#timer = setTimeout(() => link.abort(new Error('it did not answer in time')), this.#options.deadline);
  }

  /** @param {SessiondError} error */
  #comeBack(error) {
    clearTimeout(this.#timer);
    if (this.#isOver || this.#comeback === null) {
      return;
    }
    try {
      this.#timer = setTimeout(() => this.#connect(), this.#comeback.pause(error, performance.now()));
    } catch {
      this.#end(error);
    }
  }

  // -- serving --

  #serve() {
    while (this.#waiters.length > 0 && this.#events.length > 0) {
      const value = /** @type {Event} */ (this.#events.shift());
      this.#waiters.shift()?.resolve({ done: false, value });
    }
    if (this.#events.length === 0) {
      this.#link?.halt(false);
    }
    if (this.#isOver && this.#waiters.length > 0) {
      const [first, ...others] = this.#waiters.splice(0);
      if (this.#error !== null) {
        first.reject(this.#error);
        this.#error = null;
      } else {
        first.resolve({ done: true, value: undefined });
      }
      others.forEach(({ resolve }) => resolve({ done: true, value: undefined }));
    }
  }

  /** @param {Error | null} [error] what the reader is told */
  #end(error = null) {
    if (this.#isOver) {
      return;
    }
    this.#isOver = true;
    this.#error = error;
    this.#events = [];
    clearTimeout(this.#timer);
    this.#link?.close();
    this.#link = null;
    this.#closed(this);
    this.#serve();
  }
}

module.exports = { Events };
