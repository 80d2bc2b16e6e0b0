'use strict';

/* The same app as four processes behind one port; whichever dies is replaced. */

const cluster = require('node:cluster');

if (cluster.isPrimary) {
  for (let process = 0; process < 4; process++) cluster.fork();
  cluster.on('exit', () => cluster.fork());
} else {
  require('./app');
}
