'use strict';

/* One store under test: its server, four processes of the app over it, and browsers that visit them. */

const path = require('node:path');
const { Program, until } = require('./servers');

const PROCESSES = 4;
const PATIENCE = 10_000; // ms that a browser waits

class Rig {
  constructor(name, server, folder) {
    this.server = server;
    this.#name = name;
    this.#folder = folder;
  }

  #name;
  #folder;
  apps = [];

  async start() {
    await this.server.start?.();
    await this.#startApps();
  }

  /** @param {number} [cleanup] seconds between the cleanups that a store does in the web process; else its default */
  async restartApps(signal, cleanup) {
    await this.#endApps(signal);
    await this.#startApps(cleanup);
  }

  /** Ends the server by `stop` or `kill`, and starts it again. */
  async interruptServer(how) {
    await this.server[how]();
    await this.reviveServer();
  }

  /** Starts the server that was ended, where there is one; returns when requests are served again. */
  async reviveServer() {
    await this.server.start?.();
    const isServed = async () => (await new Browser(this).attempt('/login/nobody')).status === 200;
    await until(isServed, this.apps[0].program);
  }

  async close() {
    await this.#endApps('SIGKILL');
    await this.server.kill?.();
  }

  async #startApps(cleanup) {
    const args = [path.join(__dirname, 'app.js'), this.#name, JSON.stringify(this.server.where), ...(cleanup ? [cleanup] : [])];
    this.apps = await Promise.all(
      Array.from({ length: PROCESSES }, async (_, number) => {
        const program = new Program(process.execPath, args, path.join(this.#folder, `app${number}-${Date.now()}.log`));
        const [, port] = await until(() => /^port (\d+)/m.exec(program.printed), program);
        return { program, url: `http://127.0.0.1:${port}` };
      }),
    );
  }

  async #endApps(signal) {
    await Promise.all(this.apps.map(({ program }) => program.end(signal)));
  }
}

/** A visitor with a cookie. `app` is the number of the process that a request goes to. */
class Browser {
  constructor(rig) {
    this.#rig = rig;
  }

  #rig;
  #cookie = '';

  /** The JSON that the page answered; throws unless that is a 200. */
  async visit(page, app = 0) {
    return (await this.time(page, app)).body;
  }

  /** The same, with the milliseconds it took. */
  async time(page, app = 0) {
    const answer = await this.attempt(page, app);
    if (answer.status !== 200) throw new Error(`${page} was answered: ${answer.status}`);
    return answer;
  }

  /** The status, or in words why there is none; the body; and how many milliseconds that took. */
  async attempt(page, app = 0) {
    const began = performance.now();
    try {
      const response = await fetch(this.#rig.apps[app].url + page, {
        headers: { Cookie: this.#cookie },
        signal: AbortSignal.timeout(PATIENCE),
      });
      const text = await response.text();
      this.#cookie = response.headers.get('set-cookie')?.split(';')[0] ?? this.#cookie;
      const body = response.ok ? JSON.parse(text) : undefined;
      return { status: response.status, body, ms: performance.now() - began };
    } catch (error) {
      const status = error.name === 'TimeoutError' ? 'no answer' : 'connection broken';
      return { status, ms: performance.now() - began };
    }
  }
}

module.exports = { Browser, PATIENCE, PROCESSES, Rig };
