'use strict';

/*
 * The servers behind the stores, as processes of ours: each on a free port of the loopback, in a folder of its own.
 *
 * A server has `where` (stores.js), `version`, and `start`, `stop` and `kill`; after `start` it is reached at the same
 * `where` again. `open` is null where the program is not installed.
 */

const { execFileSync, spawn } = require('node:child_process');
const { accessSync, constants, mkdirSync, openSync, readFileSync, writeFileSync } = require('node:fs');
const { once } = require('node:events');
const net = require('node:net');
const path = require('node:path');
const { setTimeout: sleep } = require('node:timers/promises');

const START_TIMEOUT = 30_000;
const STOP_TIMEOUT = 20_000;
const REPOSITORY = path.join(__dirname, '..', '..');

/** Where programs are looked for: /usr/sbin is not on everybody's PATH, and holds mariadbd. */
const PLACES = [...process.env.PATH.split(path.delimiter), '/usr/sbin', path.join(REPOSITORY, '.venv', 'bin')];

const children = new Set();
process.on('exit', () => children.forEach((child) => child.kill('SIGKILL')));

/** A child process that ends with this one at the latest, and what it has printed. */
class Program {
  constructor(command, args, log) {
    this.log = log;
    const out = openSync(log, 'a');
    this.child = spawn(command, args, { stdio: ['ignore', out, out] });
    this.ended = once(this.child, 'exit');
    children.add(this.child);
    this.ended.then(() => children.delete(this.child));
  }

  get isAlive() {
    return this.child.exitCode === null && this.child.signalCode === null;
  }

  get printed() {
    return readFileSync(this.log, 'utf8');
  }

  /** Ends it, kindly or not; with -9 if it does not listen. */
  async end(signal) {
    this.child.kill(signal);
    const timer = setTimeout(() => this.child.kill('SIGKILL'), STOP_TIMEOUT);
    await this.ended;
    clearTimeout(timer);
  }
}

/** Repeats `attempt` until it answers something true. Throws with what the program printed if it never does. */
async function until(attempt, program) {
  for (const end = Date.now() + START_TIMEOUT; Date.now() < end && program.isAlive; await sleep(10)) {
    const value = await attempt();
    if (value) return value;
  }
  throw new Error(`${program.child.spawnfile} did not start: ${program.printed.slice(-2000)}`);
}

class Server {
  constructor(folder, port, command, args) {
    this.folder = path.join(folder, 'data');
    mkdirSync(this.folder);
    this.port = port;
    this.where = { port, url: `http://127.0.0.1:${port}` };
    this.command = command;
    this.args = args(this.folder, port);
    this.log = path.join(folder, 'server.log');
  }

  async start() {
    this.program = new Program(this.command, this.args, this.log);
    await until(() => isListening(this.port), this.program);
  }

  stop() {
    return this.program.end('SIGTERM');
  }

  kill() {
    return this.program.end('SIGKILL');
  }
}

/** A folder for a store that has no server: there is nothing to start, and nothing that could be killed. */
class Folder {
  constructor(folder) {
    this.folder = path.join(folder, 'data');
    mkdirSync(this.folder);
    this.where = { folder: this.folder };
  }
}

function redis(...options) {
  return {
    needs: ['redis-server'],
    version: () => `Redis ${/v=(\S+)/.exec(run('redis-server', '--version'))[1]}`,
    open: async (folder) =>
      new Server(folder, await freePort(), which('redis-server'), (data, port) => [
        ...['--bind', '127.0.0.1', '--port', port, '--dir', data, ...options],
      ]),
  };
}

const mariadb = {
  needs: ['mariadbd', 'mariadb-install-db'],
  version: () => `MariaDB ${/Ver (\d[\d.]*)/.exec(run('mariadbd', '--version'))[1]}`,
  async open(folder) {
    const user = process.getuid() === 0 ? ['--user=root'] : []; // mariadbd refuses root unless told so
    const server = new Server(folder, await freePort(), which('mariadbd'), (data, port) => [
      ...['--no-defaults', `--datadir=${data}`, `--socket=${folder}/socket`, `--pid-file=${folder}/pid`, ...user],
      ...['--bind-address=127.0.0.1', `--port=${port}`, '--skip-name-resolve', `--init-file=${folder}/init.sql`],
    ]);
    run('mariadb-install-db', '--no-defaults', `--datadir=${server.folder}`, '--skip-test-db', ...user);
    writeFileSync(
      `${folder}/init.sql`, // one statement a line
      "create database if not exists sessions;\ncreate user if not exists web@'%' identified by 'web';\n" +
        "grant all on sessions.* to web@'%';\n",
    );
    return server;
  },
};

const sessiond = {
  needs: ['sessiond'],
  version: () => run('sessiond', '--version').trim(),
  open: async (folder) =>
    new Server(folder, await freePort(), which('sessiond'), (data, port) => [
      ...['serve', '--listen', `127.0.0.1:${port}`, '--data', `${data}/sessions.db`],
    ]),
};

const SERVERS = {
  memory: { needs: [], version: () => 'no server', open: () => ({ where: {} }) },
  file: { needs: [], version: () => 'no server', open: (folder) => new Folder(folder) },
  mysql: mariadb,
  redis: redis(),
  'redis-aof': redis('--appendonly', 'yes'),
  sessiond,
};

function which(program) {
  return PLACES.map((place) => path.join(place, program)).find((candidate) => {
    try {
      accessSync(candidate, constants.X_OK);
      return true;
    } catch {
      return false;
    }
  });
}

function run(program, ...args) {
  return execFileSync(which(program), args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] });
}

async function freePort() {
  const server = net.createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address();
  server.close();
  await once(server, 'close');
  return port;
}

function isListening(port) {
  return new Promise((resolve) => {
    const socket = net.connect(port, '127.0.0.1');
    socket.once('connect', () => resolve(true)).once('error', () => resolve(false));
    socket.once('connect', () => socket.destroy());
  });
}

module.exports = { Program, SERVERS, until, which };
