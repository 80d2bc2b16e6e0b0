"""One app in each framework, all with the same routes, which tests/client/test_adapters.py drives.

Each answers with JSON, unless said otherwise, and uses nothing but its framework's own ways with a session:

    GET  /untouched          "untouched", as text; does not look at the session
    GET  /read               {"data": {…}, "user": …}: what the app has put into the session, and who is logged in
    GET  /slow/{ms}          reads the session, waits, answers as /read
    POST /set/{key}/{value}  sets an entry; with ?hold=ms it reads the session, waits, and then sets it
    POST /nested/{value}     appends to session["cart"]["items"], which it makes first if need be; the entry itself is not set
    POST /login/{user}       logs the user in, by the framework's own means where it has some
    POST /rotate             a new id for the same session
    POST /logout             ends the session
    POST /clear              empties the session
    POST /fail/{key}         sets an entry and then answers 500
    GET  /devices            [{"agent": …, "this": bool}, …]: the user's sessions
    POST /everywhere         ends all of the user's sessions; {"ended": n}
    GET  /optional/read      as /read, on a path that goes on without a session while the daemon is away
    GET  /calls              how many calls this process has sent to the daemon, a number
    WS   /ws                 where there are WebSockets: sets session["ws"] to each text, and echoes it

The daemon is at SESSIOND_URL, sessions live for TTL seconds, and the cookie is what the adapter makes of its defaults.
"""

TTL = 600
