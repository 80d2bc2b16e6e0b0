'use strict';

/* Real HTTP: an app that listens, and a browser that keeps its cookies. */

const { once } = require('node:events');
const http = require('node:http');

/** Serves an Express app, or anything else that takes (req, res). */
async function serve(app) {
  const server = http.createServer(app);
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return {
    url: `http://127.0.0.1:${server.address().port}`,
    close() {
      server.close();
      server.closeAllConnections();
    },
  };
}

/**
 * A POST route that waits, between loading the session and going on, until it is let go: `reach(count)` resolves when so
 * many requests wait there, `open()` lets them and all others go on.
 */
function gate(app, path, then) {
  const gate = { waiting: 0 };
  const open = new Promise((resolve) => (gate.open = resolve));
  app.post(path, async (req, res, next) => {
    gate.waiting += 1;
    gate.reached?.();
    await open;
    return then(req, res, next);
  });
  gate.reach = (count) =>
    new Promise((resolve) => {
      gate.reached = () => gate.waiting >= count && resolve();
      gate.reached();
    });
  return gate;
}

class Browser {
  cookies = new Map();
  #url;

  constructor(url) {
    this.#url = url;
  }

  get(path, headers) {
    return this.ask('GET', path, { headers });
  }

  post(path, fields = {}, headers = {}) {
    return this.ask('POST', path, { body: new URLSearchParams(fields), headers });
  }

  /** A second browser with the same cookies, as if somebody had copied them. */
  copy() {
    const copy = new Browser(this.#url);
    copy.cookies = new Map(this.cookies);
    return copy;
  }

  /** The status and the text of the answer; redirects are not followed. */
  async ask(method, path, { body, headers = {} } = {}) {
    const cookie = [...this.cookies].map(([name, value]) => `${name}=${value}`).join('; ');
    const response = await fetch(this.#url + path, {
      method,
      body,
      headers: { ...headers, ...(cookie ? { cookie } : {}) },
      redirect: 'manual',
    });
    const set = response.headers.getSetCookie();
    for (const line of set) {
      const [, name, value] = /^([^=]+)=([^;]*)/.exec(line);
      this.cookies.set(name, value);
    }
    return { status: response.status, text: await response.text(), set, location: response.headers.get('location') };
  }
}

module.exports = { Browser, gate, serve };
