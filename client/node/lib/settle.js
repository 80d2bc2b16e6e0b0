// @ts-check
'use strict';

/**
 * Tells a result to a callback or, when there is none, by the promise that is returned.
 *
 * The callback is called once, with nothing of ours on the stack: an exception in it is the app's own, and comes back
 * neither to us nor to it. It runs in the async context of whoever asked.
 *
 * @template T
 * @param {Promise<T>} promise
 * @param {((error: any, value?: T) => void) | undefined} callback
 * @returns {Promise<T> | undefined}
 */
function settle(promise, callback) {
  if (typeof callback !== 'function') {
    // Some callers want neither: `req.session.destroy()` drops what we return. Their process is not to end for it.
    promise.catch(() => {});
    return promise;
  }
  promise.then(
    (value) => process.nextTick(callback, null, value),
    (error) => process.nextTick(callback, error),
  );
  return undefined;
}

module.exports = { settle };
