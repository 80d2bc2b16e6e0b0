'use strict';

/* Logs people in and out. Who is logged in is in the session, which whoami.py reads too. */

const express = require('express');
const session = require('express-session');
const { SessiondStore } = require('connect-sessiond');

const SECRET = process.env.LOGIN_SECRET ?? 'only for trying out';
const PASSWORD = process.env.LOGIN_PASSWORD ?? 'sesame';

const app = express();
app.use(
  session({
    // The owner is kept beside the session, so that all sessions of a user can be ended at once.
    store: new SessiondStore({ user: ({ user }) => user }),
    secret: SECRET,
    resave: false,
    saveUninitialized: false,
    cookie: { sameSite: 'lax' }, // another site's form can neither log in nor out
  }),
);
app.use(express.urlencoded());

app.get('/', (req, res) => {
  res.send(
    req.session.user
      ? `<p>You are ${req.session.user}.</p><form method="post" action="/logout"><button>Log out</button></form>`
      : '<form method="post" action="/login"><input name="user"><input name="password" type="password"><button>Log in</button></form>',
  );
});

app.post('/login', (req, res, next) => {
  const { user, password } = req.body ?? {};
  if (password !== PASSWORD || !/^\w{1,32}$/.test(user)) {
    return res.status(403).send('No.');
  }
  // A new id at every login: one that somebody had planted before it is worth nothing after it.
  req.session.regenerate((error) => {
    if (error) return next(error);
    req.session.user = user;
    res.redirect(303, '/');
  });
});

app.post('/logout', (req, res, next) => {
  req.session.destroy((error) => {
    if (error) return next(error);
    res.clearCookie('connect.sid').redirect(303, '/');
  });
});

const server = app.listen(process.env.PORT ?? 8001, '127.0.0.1', () => console.log(`port ${server.address().port}`));
