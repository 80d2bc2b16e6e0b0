'use strict';

/*
 * A real daemon for tests: a process of its own, on a port of its own choice, with a clock that tests can push forward.
 *
 * The environment's `SESSIOND_COMMAND` says how to run it, if not as `python -m sessiond`. Where it cannot be run, tests
 * that need it are skipped, unless `SESSIOND_TEST_REQUIRE` is `all`: then they fail.
 */

const { spawn, spawnSync } = require('node:child_process');
const { once } = require('node:events');
const { existsSync, mkdtempSync, rmSync } = require('node:fs');
const { tmpdir } = require('node:os');
const path = require('node:path');
const { createInterface } = require('node:readline');

const ROOT = path.resolve(__dirname, '../../../..');
const VENV = path.join(ROOT, '.venv/bin/python');
const COMMAND = process.env.SESSIOND_COMMAND?.split(' ').filter(Boolean) ?? [
  existsSync(VENV) ? VENV : 'python3',
  '-m',
  'sessiond',
];
const START_TIMEOUT = 30_000;

/** A reason to skip what needs the daemon; false when there is none. */
function cannotRun() {
  if (process.env.SESSIOND_TEST_REQUIRE === 'all') {
    return false;
  }
  const [program, ...first] = COMMAND;
  const { status, error, stderr } = spawnSync(program, [...first, '--help'], { cwd: ROOT, encoding: 'utf8' });
  return status === 0 ? false : `the daemon cannot be run (${COMMAND.join(' ')}): ${error?.message ?? stderr.trim().split('\n').at(-1)}`;
}

/** Runs another command of sessiond to its end; what it printed. */
function sessiond(...args) {
  const [program, ...first] = COMMAND;
  const { status, stdout, stderr } = spawnSync(program, [...first, ...args], { cwd: ROOT, encoding: 'utf8' });
  if (status !== 0) {
    throw new Error(stderr);
  }
  return stdout.trim();
}

class Daemon {
  url = '';
  #folder = mkdtempSync(path.join(tmpdir(), 'sessiond-node-'));
  #listen = '127.0.0.1:0';
  #options;
  #process = null;

  constructor(...options) {
    this.#options = options;
  }

  /** Starts it, and returns it when it listens. */
  static async start(...options) {
    const daemon = new Daemon(...options);
    await daemon.start();
    return daemon;
  }

  async start() {
    const [program, ...first] = COMMAND;
    const data = path.join(this.#folder, 's.db');
    const last = ['serve', '--listen', this.#listen, '--data', data, '--adjustable-clock', ...this.#options];
    const child = spawn(program, [...first, ...last], { cwd: ROOT, stdio: ['ignore', 'pipe', 'pipe'] });
    this.#process = child;
    let said = '';
    child.stderr.on('data', (chunk) => {
      said = (said + chunk).slice(-4000);
    });
    const line = await Promise.race([
      once(createInterface(child.stdout), 'line').then(([text]) => text),
      once(child, 'exit').then(() => Promise.reject(new Error(`sessiond did not start. It said: ${said}`))),
      timeout(START_TIMEOUT, () => new Error(`sessiond did not start in time. It said: ${said}`)),
    ]);
    this.url = /https?:\/\/[^\s,]+/.exec(line)[0];
    this.#listen = this.url.slice(this.url.indexOf('//') + 2); // the same port for the next start
  }

  /** Ends it as an operator would. */
  async stop() {
    await this.#end('SIGTERM');
  }

  /** Ends it without warning. */
  async kill() {
    await this.#end('SIGKILL');
  }

  /** Lets it be silent: it keeps its connections, and answers nothing. */
  freeze() {
    this.#process.kill('SIGSTOP');
  }

  /** Ends it, and removes what it has kept. */
  async remove() {
    await this.kill();
    rmSync(this.#folder, { recursive: true, force: true });
  }

  /** Pushes its clock forward by so many ms. */
  async advance(ms) {
    const body = JSON.stringify({ advance_ms: ms });
    const headers = { 'content-type': 'application/json' };
    const response = await fetch(`${this.url}/v1/clock`, { method: 'POST', headers, body });
    return (await response.json()).now;
  }

  /** Its time. */
  now() {
    return this.advance(0);
  }

  async #end(signal) {
    const child = this.#process;
    if (child !== null && child.exitCode === null && child.signalCode === null) {
      const ended = once(child, 'exit');
      child.kill(signal);
      await ended;
    }
  }
}

function timeout(ms, makeError) {
  return new Promise((resolve, reject) => {
    setTimeout(() => reject(makeError()), ms).unref();
  });
}

/** Runs a Python program with the daemon's own Python; what it printed. */
function python(program, ...args) {
  const { status, stdout, stderr } = spawnSync(COMMAND[0], ['-c', program, ...args], { cwd: ROOT, encoding: 'utf8' });
  if (status !== 0) {
    throw new Error(stderr);
  }
  return stdout;
}

module.exports = { Daemon, ROOT, cannotRun, python, sessiond };
