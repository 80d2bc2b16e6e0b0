#!/usr/bin/env node
'use strict';

/*
 * The same scenarios over the same Express app, one session store after the other: what does each lose?
 *
 *     npm install && node run.js [--markdown | --json] [--stores memory,sessiond]
 *
 * Starts and ends all servers itself. A store whose server is not installed says so in its column, or, where the
 * environment's SESSIOND_TEST_REQUIRE is `all` or names the program, ends this program with an error.
 */

const { existsSync, mkdtempSync, mkdirSync, readFileSync, rmSync } = require('node:fs');
const os = require('node:os');
const path = require('node:path');
const { parseArgs } = require('node:util');
const { SCENARIOS } = require('./scenarios');
const { Rig } = require('./rig');
const { SERVERS, which } = require('./servers');
const { STORES } = require('./stores');

const SCENARIO_TIMEOUT = 90_000;

async function main() {
  const { values: options } = parseArgs({
    options: { json: { type: 'boolean' }, markdown: { type: 'boolean' }, stores: { type: 'string' } },
  });
  const names = options.stores?.split(',') ?? Object.keys(STORES);
  const unknown = names.find((name) => !STORES[name]);
  if (unknown !== undefined) throw new Error(`There is no store ${unknown}, but ${Object.keys(STORES).join(', ')}.`);

  const folder = mkdtempSync(path.join(os.tmpdir(), 'express-correctness-'));
  process.on('exit', () => rmSync(folder, { recursive: true, force: true, maxRetries: 5 }));
  for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, () => process.exit(1));

  const columns = [];
  for (const name of names) {
    columns.push(await column(name, path.join(folder, name)));
  }
  const titles = Object.fromEntries(SCENARIOS.map(({ id, title }) => [id, title]));
  const report = { versions: versions(), titles, columns };
  console.log(options.json ? JSON.stringify(report, null, 2) : table(report, options.markdown));
  process.exit(columns.some(({ cells }) => Object.values(cells).some((cell) => cell.failed)) ? 1 : 0);
}

/** Everything measured over one store: `cells` by the scenario's id, each with its value and its words. */
async function column(name, folder) {
  const { title, packages } = STORES[name];
  const { needs, open, version } = SERVERS[name];
  const missing = needs.filter((program) => !which(program));
  if (missing.length > 0) {
    refuseIfRequired(missing);
    const absent = { value: null, text: 'not installed' };
    return { name, title, about: [], cells: Object.fromEntries(SCENARIOS.map(({ id }) => [id, absent])) };
  }
  process.stderr.write(`${title} …\n`); // it takes a while, and the table comes at the end
  mkdirSync(folder);
  const rig = new Rig(name, await open(folder), folder);
  const cells = {};
  try {
    await rig.start();
    for (const scenario of SCENARIOS) {
      cells[scenario.id] = await cell(scenario, rig);
    }
  } finally {
    await rig.close();
  }
  return { name, title, about: [...packages.map(packageVersion), version()], cells };
}

async function cell({ measure, show }, rig) {
  let timer;
  const timeout = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`no result within ${SCENARIO_TIMEOUT / 1000} s`)), SCENARIO_TIMEOUT);
  });
  try {
    const value = await Promise.race([measure(rig), timeout]);
    return { value, text: value === null ? '–' : show(value) };
  } catch (error) {
    return { value: null, text: `failed: ${error.message}`, failed: true };
  } finally {
    clearTimeout(timer);
  }
}

function refuseIfRequired(missing) {
  const required = (process.env.SESSIOND_TEST_REQUIRE ?? '').split(/[\s,]+/);
  if (required.includes('all') || missing.some((program) => required.includes(program))) {
    throw new Error(`Not installed: ${missing.join(', ')}`);
  }
}

function packageVersion(name) {
  const file = path.join(__dirname, 'node_modules', name, 'package.json');
  return `${name} ${JSON.parse(readFileSync(file, 'utf8')).version}`;
}

function versions() {
  return [`Node ${process.versions.node}`, packageVersion('express'), packageVersion('express-session')];
}

function table({ versions, titles, columns }, asMarkdown) {
  const rows = [
    ['', ...columns.map(({ title }) => title)],
    ['versions', ...columns.map(({ about }) => about.join(', '))],
    ...Object.entries(titles).map(([id, title]) => [title, ...columns.map(({ cells }) => cells[id].text)]),
  ];
  if (asMarkdown) {
    const lines = rows.map((row) => `| ${row.join(' | ')} |`);
    lines.splice(1, 0, `|${'---|'.repeat(columns.length + 1)}`);
    return `${versions.join(', ')}\n\n${lines.join('\n')}`;
  }
  // One block a scenario: eight columns do not fit on a screen.
  const width = Math.max(...columns.map(({ title }) => title.length));
  const blocks = rows.slice(1).map(([title, ...texts]) =>
    [title, ...texts.map((text, number) => `  ${columns[number].title.padEnd(width)}  ${text}`)].join('\n'),
  );
  return [versions.join(', '), ...blocks].join('\n\n');
}

if (!existsSync(path.join(__dirname, 'node_modules'))) {
  console.error('Run `npm install` here first.');
  process.exit(1);
}
main().catch((error) => {
  console.error(error.message);
  process.exit(1);
});
