'use strict';

const express = require('express');
const session = require('express-session');
const { SessiondStore } = require('connect-sessiond');

const secret = process.env.COUNTER_SECRET ?? 'only for trying out';
const app = express();
app.use(session({ store: new SessiondStore(), secret, resave: false, saveUninitialized: false }));
app.get('/', (req, res) => {
  req.session.num = (req.session.num ?? 0) + 1;
  res.send(`Views: ${req.session.num}\n`);
});
const server = app.listen(process.env.PORT ?? 8001, '127.0.0.1', () => console.log(`port ${server.address().port}`));
