'use strict';

/* The package as its users get it: packed, installed in an empty project, required, imported, its types checked. */

const assert = require('node:assert/strict');
const { spawnSync } = require('node:child_process');
const { mkdtempSync, readFileSync, rmSync, writeFileSync } = require('node:fs');
const { tmpdir } = require('node:os');
const path = require('node:path');
const { after, before, describe, test } = require('node:test');
const ts = require.resolve('typescript/bin/tsc');

const PACKAGE = path.resolve(__dirname, '..');

const SAMPLE = `
const store: SessiondStore = new SessiondStore({
  url: ['http://127.0.0.1:7377', 'unix:///run/sessiond.sock'],
  concurrency: 'reject',
  touchAfter: 60_000,
  user: (data) => data.account?.id,
});
session({ secret: 'keyboard cat', resave: false, saveUninitialized: false, store });
store.on('lateSave', (key: Buffer) => keyName(key));
store.get('sid', (error, data) => (error instanceof Unavailable ? error.outcomeUnknown : data?.cookie));
store.destroy('sid');
store.all((error, sessions) => sessions);
store.length((error, length) => length?.toFixed());
export async function logOutEverywhereElse(req: { sessionID: string }): Promise<number> {
  const [first] = await store.list({ user: 7 });
  if (first !== undefined) {
    await store.destroy(first.key);
  }
  await store.rotate(req, { grace: 10_000 });
  const ids: Buffer[] = await store.ids();
  const count: number = ids.length + (await store.length());
  return count + (await store.destroyAll({ user: 'ada', except: req.sessionID }));
}
// @ts-expect-error there is no such option
new SessiondStore({ prefix: 'sess:' });
// @ts-expect-error a user is needed
store.destroyAll({});
`;

describe('the package', () => {
  const project = mkdtempSync(path.join(tmpdir(), 'connect-sessiond-'));
  const run = (program, ...args) => spawnSync(program, args, { cwd: project, encoding: 'utf8' });
  let failure;
  after(() => rmSync(project, { recursive: true, force: true }));

  before(() => {
    writeFileSync(path.join(project, 'package.json'), '{"name":"empty","private":true}');
    const { stdout } = spawnSync('npm', ['pack', '--pack-destination', project], { cwd: PACKAGE, encoding: 'utf8' });
    const tarball = `./${stdout.trim().split('\n').at(-1)}`;
    const types = ['express-session@1', '@types/express-session@1', '@types/node@20'];
    const installed = run('npm', 'install', '--prefer-offline', '--no-package-lock', tarball, ...types);
    failure = installed.status === 0 ? undefined : installed.stderr;
    assert.ok(failure === undefined || process.env.SESSIOND_TEST_REQUIRE !== 'all', failure);
  });
  /** A test that has nothing to say where npm cannot install. */
  const installed = (name, body) =>
    test(name, (t) => (failure === undefined ? body(t) : t.skip(`npm cannot install: ${failure.split('\n')[0]}`)));

  installed('holds what it needs and nothing else', () => {
    const { stdout } = spawnSync('npm', ['pack', '--dry-run', '--json'], { cwd: PACKAGE, encoding: 'utf8' });
    const files = JSON.parse(stdout)[0].files.map((file) => file.path);

    assert.ok(['LICENSE', 'README.md', 'index.js', 'index.mjs', 'index.d.ts', 'lib/store.js'].every((file) => files.includes(file)));
    assert.deepEqual(files.filter((file) => /test|jsconfig|node_modules/.test(file)), []);
  });

  installed('is required', () => {
    const code = "const { SessiondStore, default: same } = require('connect-sessiond'); console.log(new SessiondStore() instanceof require('express-session').Store, same === SessiondStore)";

    assert.equal(run(process.execPath, '-e', code).stdout, 'true true\n');
  });

  installed('is imported, by name and by default', () => {
    const code = "import same, { SessiondStore, keyOf } from 'connect-sessiond'; console.log(same === SessiondStore, keyOf('a').length)";

    assert.equal(run(process.execPath, '--input-type=module', '-e', code).stdout, 'true 32\n');
  });

  installed('does without express-session', () => {
    rmSync(path.join(project, 'node_modules/express-session'), { recursive: true });
    const code = "const { SessiondStore } = require('connect-sessiond'); const store = new SessiondStore(); console.log(typeof store.on, typeof store.get)";

    assert.equal(run(process.execPath, '-e', code).stdout, 'function function\n');
  });

  for (const [kind, header] of [
    ['mts', "import session from 'express-session'; import Store, { SessiondStore, Unavailable, keyName } from 'connect-sessiond'; new Store();"],
    ['cts', "import session = require('express-session'); import { SessiondStore, Unavailable, keyName } from 'connect-sessiond';"],
  ]) {
    installed(`has types that tsc --strict accepts in a .${kind} file`, () => {
      writeFileSync(path.join(project, `sample.${kind}`), `${header}\n${SAMPLE}`);
      const options = ['--strict', '--noEmit', '--target', 'es2022', '--module', 'nodenext', '--types', 'node'];

      const { status, stdout } = run(process.execPath, ts, ...options, `sample.${kind}`);

      assert.equal(stdout, '');
      assert.equal(status, 0);
    });
  }

  test('has a type for everything that it exports', () => {
    const declared = readFileSync(path.join(PACKAGE, 'index.d.ts'), 'utf8');
    const names = [...declared.matchAll(/^export (?:class|function) (\w+)/gm)].map(([, name]) => name);

    assert.deepEqual(names.sort(), Object.keys(require('..')).filter((name) => name !== 'default').sort());
  });
});
