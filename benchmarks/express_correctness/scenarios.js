'use strict';

/*
 * What is measured. Each scenario has an id for programs and a title for people, `measure`, which answers with plain
 * values, and `show`, which puts them into the few words of a cell. `null` means that there was nothing to measure.
 */

const { readdirSync, readFileSync } = require('node:fs');
const path = require('node:path');
const { setTimeout: sleep } = require('node:timers/promises');
const { Browser, PATIENCE, PROCESSES } = require('./rig');

const MANY = 100;
const AT_ONCE = 50;
const MAX_AGE = 500;

const numbers = (length) => Array.from({ length }, (_, number) => number);
const ofMany = (number) => `${number} of ${MANY}`;
const ms = (number) => `${number < 10 ? number.toFixed(1) : Math.round(number)} ms`;
const median = (values) => values.sort((a, b) => a - b)[values.length >> 1];

/** Browsers that are logged in, each as a user of its own, or all as the one named; every login was answered with 200. */
async function crowd(rig, size, user) {
  const browsers = numbers(size).map(() => new Browser(rig));
  for (let from = 0; from < size; from += AT_ONCE) {
    const some = browsers.slice(from, from + AT_ONCE);
    await Promise.all(some.map((browser, number) => browser.visit(`/login/${user ?? `user${from + number}`}`)));
  }
  return browsers;
}

/** How many of many acknowledged sessions are there after what `blow` does. */
async function survivors(rig, blow) {
  const browsers = await crowd(rig, MANY);
  await blow();
  const users = await Promise.all(browsers.map((browser) => browser.visit('/whoami')));
  return users.filter((user, number) => user === `user${number}`).length;
}

/** How many keys there are after as many requests at once set one each. */
async function keysSet(rig, processes) {
  const [browser] = await crowd(rig, 1);
  await Promise.all(numbers(MANY).map((n) => browser.visit(`/set/key${n}`, n % processes)));
  return (await browser.visit('/keys')).length;
}

/** Whether somebody is logged in again when a request that began before the logout ends after it, and how that ends. */
async function afterLogout(rig, page) {
  const [browser] = await crowd(rig, 1, 'ada');
  const gate = `${Date.now()}`;
  const slow = browser.attempt(`${page}?gate=${gate}`);
  await browser.visit(`/gates/${gate}/reached`);
  await browser.visit('/logout');
  await browser.visit(`/gates/${gate}/open`);
  const { status } = await slow;
  return { back: (await browser.visit('/whoami')) !== null, status };
}

const showBack = ({ back, status }) =>
  (back ? 'is back' : 'stays gone') + (status === 200 ? '' : `; the request: ${status}`);

const SCENARIOS = [
  {
    id: 'restart',
    title: `${MANY} sessions, the web processes restarted: still there`,
    measure: (rig) => survivors(rig, () => rig.restartApps('SIGTERM')),
    show: ofMany,
  },
  {
    id: 'stop',
    title: `${MANY} sessions, the store's server stopped and started: still there`,
    measure: (rig) => (rig.server.start ? survivors(rig, () => rig.interruptServer('stop')) : null),
    show: ofMany,
  },
  {
    id: 'kill',
    title: `${MANY} sessions, the store's server ended with kill -9 (the web processes, where there is none): still there`,
    measure: (rig) => survivors(rig, () => (rig.server.start ? rig.interruptServer('kill') : rig.restartApps('SIGKILL'))),
    show: ofMany,
  },
  {
    id: 'processes',
    title: `\`Views: n\` after 20 visits to ${PROCESSES} processes in turn`,
    async measure(rig) {
      const browser = new Browser(rig);
      let views;
      for (const visit of numbers(20)) {
        views = await browser.visit('/', visit % PROCESSES);
      }
      return views;
    },
    show: String,
  },
  {
    id: 'keys',
    title: `${MANY} requests at once, each sets a key of its own, one process: keys afterwards`,
    measure: (rig) => keysSet(rig, 1),
    show: ofMany,
  },
  {
    id: 'keys-processes',
    title: `the same over ${PROCESSES} processes`,
    measure: (rig) => keysSet(rig, PROCESSES),
    show: ofMany,
  },
  {
    id: 'same-key',
    title: `\`Views: n\` after ${MANY} visits at once: all change the same key`,
    async measure(rig) {
      const browser = new Browser(rig);
      await browser.visit('/');
      await Promise.all(numbers(MANY - 1).map(() => browser.visit('/')));
      return (await browser.visit('/')) - 1;
    },
    show: ofMany,
  },
  {
    id: 'keys-beside-reads',
    title: `${MANY} times a request that sets a key beside one that only reads: keys afterwards`,
    async measure(rig) {
      const [browser] = await crowd(rig, 1);
      for (const n of numbers(MANY)) {
        await Promise.all([browser.visit('/whoami'), browser.visit(`/set/key${n}`)]);
      }
      return (await browser.visit('/keys')).length;
    },
    show: ofMany,
  },
  {
    id: 'late-save',
    title: 'a slow request saves after the logout: the session',
    measure: (rig) => afterLogout(rig, '/set/late'),
    show: showBack,
  },
  {
    id: 'late-touch',
    title: 'a slow request that only reads ends after the logout (a touch): the session',
    measure: (rig) => afterLogout(rig, '/whoami'),
    show: showBack,
  },
  {
    id: 'max-age',
    title: `\`maxAge: ${MAX_AGE}\`: the session lives for`,
    async measure(rig) {
      // Begun in every tenth of a second, since some stores count in whole ones.
      const lived = await Promise.all(
        numbers(10).map(async (tenth) => {
          await sleep(tenth * 100);
          const browser = new Browser(rig);
          const sid = await browser.visit(`/set/key?maxAge=${MAX_AGE}`);
          return browser.visit(`/stored/${sid}/lived`);
        }),
      );
      return { shortest: Math.min(...lived), longest: Math.max(...lived) };
    },
    show: ({ shortest, longest }) => `${shortest} to ${longest} ms`,
  },
  {
    id: 'cookie-expires',
    title: '`cookie.expires` in the store after a request that only reads',
    async measure(rig) {
      const browser = new Browser(rig);
      const sid = await browser.visit('/set/key');
      const before = await browser.visit(`/stored/${sid}/expires`);
      await sleep(50);
      await browser.visit('/keys');
      return (await browser.visit(`/stored/${sid}/expires`)) > before;
    },
    show: (renewed) => (renewed ? 'the new instant' : 'the old instant'),
  },
  {
    id: 'gone',
    title: 'a request with the cookie of a session that is gone takes (median of 5)',
    async measure(rig) {
      const [browser] = await crowd(rig, 1);
      await browser.visit('/logout');
      const answers = [];
      for (const _ of numbers(5)) {
        answers.push(await browser.time('/whoami'));
      }
      return median(answers.map((answer) => answer.ms));
    },
    show: ms,
  },
  {
    id: 'list',
    title: "one user's 3 sessions among 1,000 others: found, in (median of 5)",
    async measure(rig) {
      await crowd(rig, 1000);
      const [browser] = await crowd(rig, 3, 'grace');
      const answers = [];
      for (const _ of numbers(5)) {
        answers.push(await browser.time('/users/grace/sessions'));
      }
      return { found: answers[0].body, ms: median(answers.map((answer) => answer.ms)) };
    },
    show: (value) => `${value.found}, in ${ms(value.ms)}`,
  },
  {
    id: 'ids-on-disk',
    title: "living session ids in the store's files, out of 10 (the server stopped)",
    async measure(rig) {
      if (!rig.server.folder) return null;
      const browsers = numbers(10).map(() => new Browser(rig));
      const sids = await Promise.all(browsers.map((browser) => browser.visit('/login/ada')));
      await rig.server.stop?.();
      const files = readdirSync(rig.server.folder, { recursive: true, withFileTypes: true }).filter((entry) => entry.isFile());
      const contents = files.map((entry) => readFileSync(path.join(entry.parentPath, entry.name)));
      const found = sids.filter(
        (sid) => files.some((entry) => entry.name.includes(sid)) || contents.some((content) => content.includes(sid)),
      );
      await rig.reviveServer();
      return found.length;
    },
    show: (found) => `${found} of 10`,
  },
  {
    id: 'away',
    title: 'a request while the server is away is answered',
    async measure(rig) {
      if (!rig.server.start) return null;
      const [browser] = await crowd(rig, 1);
      await rig.server.kill();
      const answer = await browser.attempt('/whoami');
      await rig.reviveServer();
      return answer;
    },
    show: (answer) => (typeof answer.status === 'number' ? `${answer.status}, in ${ms(answer.ms)}` : `not within ${PATIENCE / 1000} s`),
  },
  {
    id: 'outage',
    title: `web processes, of ${PROCESSES}, that live 3 s after the server went away (cleanups, where the store has them, every second)`,
    async measure(rig) {
      if (!rig.server.start) return null;
      await rig.restartApps('SIGTERM', 1);
      await rig.server.kill();
      await sleep(3000);
      const ended = rig.apps.filter(({ program }) => !program.isAlive);
      return { alive: PROCESSES - ended.length, exitCodes: ended.map(({ program }) => program.child.exitCode) };
    },
    show: ({ alive, exitCodes }) =>
      `${alive} of ${PROCESSES}` + (alive === PROCESSES ? '' : `, exit code ${[...new Set(exitCodes)].join(', ')}`),
  },
];

module.exports = { SCENARIOS };
