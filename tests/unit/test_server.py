"""The whole process: how it starts, where it listens, and that it ends without losing or refusing anything."""

import errno
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
from contextlib import suppress
from hashlib import sha256
from http.client import HTTPException
from pathlib import Path
from typing import Any

import pytest

from sessiond import __version__
from sessiond.server import EXIT_STORAGE
from tests.http.support import JSON, Daemon, Reply, Stream, read_all, replies, wait_until
from tests.tools import require

EXIT_START = 1


@pytest.fixture
def start(request: pytest.FixtureRequest) -> Any:
    """Starts daemons, and sees to it that none is left."""

    def start(*arguments: str, **named: Any) -> Daemon:
        daemon = Daemon(*arguments, **named)
        request.addfinalizer(daemon.close)
        return daemon

    return start


def refusal(*arguments: str) -> tuple[int, str]:
    """Exit code and sentence of a daemon that cannot start."""
    run = subprocess.run(
        [sys.executable, "-m", "sessiond", "serve", *arguments], capture_output=True, text=True, timeout=60
    )
    assert run.stdout == ""
    assert "Traceback" not in run.stderr
    return run.returncode, run.stderr.splitlines()[-1]


def unix_ask(
    path: Path, request: bytes = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
) -> Reply:
    with socket.socket(socket.AF_UNIX) as line:
        line.connect(str(path))
        line.sendall(request)
        return replies(read_all(line))[0]


# Starting ------------------------------------------------------------------------------------------------


def test_the_start_is_told_in_one_line(start: Any, tmp_path: Path) -> None:
    """Where it listens, where the data is, and what an acknowledged write survives; nothing else on stdout."""
    daemon = start(data=str(tmp_path / "s.db"))

    assert daemon.line == (
        f"sessiond {__version__} listens on http://127.0.0.1:{daemon.port}, "
        f"keeps its data in {tmp_path / 's.db'} (sqlite), durability full: a write is on disk when it is acknowledged\n"
    )
    daemon.process.terminate()
    assert daemon.process.stdout.read() == b""
    assert daemon.wait() == 0


@pytest.mark.parametrize(
    ("arguments", "data", "told"),
    [
        ([], "memory:", "in memory, durability none: everything is lost when the daemon stops"),
        (["--durability", "relaxed"], "{folder}/s.db", "durability relaxed: creates, sets and patches may be lost"),
    ],
)
def test_the_start_is_honest_about_durability(
    start: Any, tmp_path: Path, arguments: list[str], data: str, told: str
) -> None:
    """memory: and relaxed say what they do not promise."""
    assert told in start(*arguments, data=data.format(folder=tmp_path)).line


def test_the_folder_of_the_data_is_made(start: Any, tmp_path: Path) -> None:
    """--data may name a file in folders that are not there yet."""
    start(data=str(tmp_path / "a" / "b" / "s.db")).create()

    assert (tmp_path / "a" / "b" / "s.db").exists()


def test_settings_reach_the_daemon(start: Any) -> None:
    """ttl, lifetime, max_ttl and max_data are what new sessions get and what is refused."""
    arguments = ["--ttl", "60", "--max-ttl", "2m", "--lifetime", "5m"]
    daemon = start(*arguments, environment={"SESSIOND_MAX_DATA": "10"})

    headers = daemon.ask("GET", f"/v1/sessions/{daemon.create()}").headers

    assert headers["Session-TTL"] == "60"
    assert int(headers["Session-Deadline"]) - int(headers["Session-Created-At"]) == 300_000
    assert daemon.ask("POST", "/v1/sessions?ttl=121", "{}").status == 400
    assert daemon.ask("POST", "/v1/sessions", '{"a": "12345"}').status == 413


def test_it_listens_on_several_addresses(start: Any, tmp_path: Path) -> None:
    """TCP, IPv6 and a unix socket at once, all of them in the line; the clock cannot be moved unless that was asked for."""
    path = tmp_path / "s.sock"
    daemon = start(listen=["127.0.0.1:0", "[::1]:0", f"unix:{path}"])

    six = int(daemon.line.split("http://[::1]:")[1].split(" ")[0])
    assert f"and unix://{path}," in daemon.line
    assert daemon.ask("GET", "/healthz").status == 200
    with socket.create_connection(("::1", six), timeout=10) as line:
        line.sendall(f"GET /healthz HTTP/1.1\r\nHost: [::1]:{six}\r\nConnection: close\r\n\r\n".encode())
        assert replies(read_all(line))[0].status == 200
    assert unix_ask(path).status == 200
    assert daemon.ask("POST", "/v1/clock", '{"advance_ms": 1}').status == 404


def test_a_unix_socket_is_for_its_owner_and_group_and_goes_with_the_daemon(start: Any, tmp_path: Path) -> None:
    """Mode 0660 while it serves; no file afterwards."""
    path = tmp_path / "s.sock"
    daemon = start(listen=[f"unix:{path}"])
    assert stat.S_IMODE(path.stat().st_mode) == 0o660

    assert daemon.stop() == 0

    assert not path.exists()


@pytest.mark.parametrize(("mode", "expected"), [("0600", 0o600), ("666", 0o666)])
def test_a_unix_socket_has_the_mode_that_is_set(start: Any, tmp_path: Path, mode: str, expected: int) -> None:
    """Whatever the umask; and files that the daemon makes later are not touched by it."""
    path = tmp_path / "s.sock"
    before = ["sh", "-c", 'umask 077; exec "$@"', "sh"]

    start("--socket-mode", mode, listen=[f"unix:{path}"], before=before)

    assert stat.S_IMODE(path.stat().st_mode) == expected
    assert unix_ask(path).status == 200


def test_a_stale_unix_socket_is_taken_over(start: Any, tmp_path: Path) -> None:
    """What a killed daemon left behind is in nobody's way."""
    path = tmp_path / "s.sock"
    start(listen=[f"unix:{path}"]).stop(signal.SIGKILL)
    assert path.is_socket()

    start(listen=[f"unix:{path}"])

    assert unix_ask(path).status == 200


def test_a_living_unix_socket_is_left_alone(start: Any, tmp_path: Path) -> None:
    """A second daemon on the same socket refuses to start, and the first goes on serving."""
    path = tmp_path / "s.sock"
    start(listen=[f"unix:{path}"])

    assert refusal("--data", "memory:", "--listen", f"unix:{path}") == (
        EXIT_START,
        f"sessiond: cannot listen on {path}: another process listens there. Stop it, or give another --listen.",
    )
    assert unix_ask(path).status == 200


def test_a_file_is_no_unix_socket(tmp_path: Path) -> None:
    """A file in the socket's place is left as it was."""
    path = tmp_path / "notes.txt"
    path.write_text("mine")

    code, sentence = refusal("--data", "memory:", "--listen", f"unix:{path}")

    assert (code, sentence) == (
        EXIT_START,
        f"sessiond: cannot listen on {path}: {os.strerror(errno.EEXIST)}. Give another --listen.",
    )
    assert path.read_text() == "mine"


def test_a_port_in_use_is_told(start: Any, tmp_path: Path) -> None:
    """The sentence says what is in the way; the data was not kept from anybody."""
    first = start()
    data = str(tmp_path / "s.db")

    assert refusal("--data", data, "--listen", f"127.0.0.1:{first.port}") == (
        EXIT_START,
        f"sessiond: cannot listen on 127.0.0.1:{first.port}: another process listens there. "
        "Stop it, or give another --listen.",
    )
    start(data=data)


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("192.0.2.1:7377", "Cannot assign requested address"),
        ("nobody.invalid:7377", ""),
        ("unix:/no/such/folder/s.sock", "No such file or directory"),
    ],
)
def test_an_address_that_cannot_be_had_is_told(address: str, reason: str) -> None:
    """An address of another machine, a name that nobody knows, a folder that is not there."""
    code, sentence = refusal("--data", "memory:", "--allow-anonymous", "--listen", address)

    assert code == EXIT_START
    assert sentence.startswith(f"sessiond: cannot listen on {address.removeprefix('unix:')}: {reason}")
    assert sentence.endswith(". Give another --listen.")


def test_one_daemon_owns_a_file(start: Any, tmp_path: Path) -> None:
    """A second daemon is told which process has the file; when that is gone, even by kill -9, the file is free."""
    data = str(tmp_path / "s.db")
    first = start(data=data)
    sid = first.create('{"a": 1}')

    code, sentence = refusal("--data", data, "--listen", "127.0.0.1:0")
    first.stop(signal.SIGKILL)

    assert (code, sentence) == (
        EXIT_START,
        f"sessiond: {data} is in use by sessiond, process {first.pid}. "
        "One daemon owns a file: stop that one, or give another --data.",
    )
    assert start(data=data).ask("GET", f"/v1/sessions/{sid}").json == {"a": 1}


def test_a_daemon_for_others_answers_for_any_name(start: Any) -> None:
    """Listening beyond loopback, it cannot know its names; listening on loopback, it answers for this machine's alone."""
    public = start("--allow-anonymous", listen=["0.0.0.0:0"])
    public.host = "127.0.0.1"
    local = start("--allowed-hosts", "sessiond.internal")

    assert public.ask("GET", "/healthz", headers={"Host": "any.example"}).status == 200
    assert local.ask("GET", "/healthz", headers={"Host": "any.example"}).status == 421
    assert local.ask("GET", "/healthz", headers={"Host": "SESSIOND.internal:7377"}).status == 200


# Stopping ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_with_0(start: Any, tmp_path: Path, number: int) -> None:
    """SIGTERM and Ctrl-C alike, and all is in the one file afterwards."""
    daemon = start(data=str(tmp_path / "s.db"))
    daemon.create()

    assert daemon.stop(number) == 0
    assert "Traceback" not in daemon.log
    assert {file.name for file in tmp_path.iterdir()} == {"s.db", "s.db.lock"}


def test_a_second_signal_changes_nothing(start: Any, tmp_path: Path) -> None:
    """An impatient operator gets the same orderly end."""
    daemon = start(data=str(tmp_path / "s.db"))
    with Stream(daemon.host, daemon.port):
        daemon.process.terminate()
        daemon.process.send_signal(signal.SIGINT)
        daemon.process.terminate()

        assert daemon.wait() == 0


def test_a_request_that_has_begun_is_answered(start: Any, tmp_path: Path) -> None:
    """A body that is still coming when SIGTERM does is waited for, carried out, and on disk."""
    daemon = start(data=str(tmp_path / "s.db"))
    with daemon.connect() as line:
        line.sendall(b"PUT /v1/sessions/late HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n")
        line.sendall(b"Expect: 100-continue\r\nContent-Length: 8\r\n\r\n")
        assert line.recv(100).startswith(b"HTTP/1.1 100")
        daemon.process.terminate()
        while "stopping" not in daemon.log:
            pass
        line.sendall(b'{"a": 1}')
        (reply,) = replies(read_all(line))

    assert (reply.status, reply.headers["Connection"]) == (201, "close")
    assert daemon.wait() == 0
    assert start(data=str(tmp_path / "s.db")).ask("GET", "/v1/sessions/late").json == {"a": 1}


def test_a_body_that_never_comes_holds_nothing_up(start: Any) -> None:
    """The drain bounds the whole of stopping, whatever clients do."""
    daemon = start("--drain", "0.5s")
    with daemon.connect() as line:
        line.sendall(b"PUT /v1/sessions/late HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n")
        line.sendall(b"Expect: 100-continue\r\nContent-Length: 8\r\n\r\n")
        assert line.recv(100).startswith(b"HTTP/1.1 100")

        assert daemon.stop(timeout=5) == 0


def test_stopping_under_load_loses_and_fails_nothing(start: Any, tmp_path: Path) -> None:
    """SIGTERM amid writes over REST and the stream: each that was acknowledged is there after a restart, and none failed.

    A request that finds the connection closed before a byte of an answer was not accepted; it may be sent elsewhere.
    """
    data = str(tmp_path / "s.db")
    daemon = start(data=data)
    acknowledged: list[str] = []
    failures: list[object] = []
    busy = threading.Semaphore(0)

    def over_rest(worker: int) -> None:
        own = Daemon.__new__(Daemon)
        own.host, own.port, own._kept = daemon.host, daemon.port, None
        try:
            for n in range(100_000):
                name = f"rest-{worker}-{n}"
                reply = own.ask("PUT", f"/v1/sessions/{name}", json.dumps({"name": name}))
                (acknowledged if reply.status == 201 else failures).append(name)
                busy.release()
                if reply.headers["Connection"] == "close":
                    return
        except (ConnectionError, HTTPException):
            pass  # closed while idle
        finally:
            if own._kept is not None:
                own._kept.close()

    def over_the_stream(worker: int) -> None:
        names = [f"stream-{worker}-{n}" for n in range(300)]
        with Stream(daemon.host, daemon.port) as stream:
            for name in names:
                stream.call(
                    ["set", sha256(name.encode()).digest(), "json", json.dumps({"name": name}).encode(), 60_000]
                )
            busy.release()
            for seq, *answer in stream.until_closed()[0]:
                if seq and answer[0] == "ok":
                    acknowledged.append(names[seq - 1])
                elif seq and answer[:2] != ["failed", "stopping"]:
                    failures.append(answer)

    workers = [threading.Thread(target=target, args=(n,)) for n in range(2) for target in (over_rest, over_the_stream)]
    for worker in workers:
        worker.start()
    for _ in range(40):
        busy.acquire()
    code = daemon.stop()
    for worker in workers:
        worker.join()

    again = start(data=data)
    assert code == 0
    assert failures == []
    assert len(acknowledged) >= 38
    for name in acknowledged:
        assert again.ask("GET", f"/v1/sessions/{name}").json == {"name": name}


# The disk ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("when", [1, 7])
def test_a_failed_fsync_ends_the_process(start: Any, tmp_path: Path, when: int) -> None:
    """When the disk refuses an fdatasync, nothing is acknowledged any more, the exit code is 70, and a restart serves what was."""
    require("strace")
    data = str(tmp_path / "s.db")
    before = start(data=data)
    before.create('{"old": 1}')
    before.stop()
    inject = ["strace", "-f", "-qq", "-e", "trace=fdatasync", "-e", f"inject=fdatasync:error=EIO:when={when}+"]
    daemon = start(data=data, before=[*inject, "-o", str(tmp_path / "trace")])

    kept: list[int] = []
    with suppress(ConnectionError, HTTPException):
        while len(kept) < 100:
            reply = daemon.ask("PUT", f"/v1/sessions/n{len(kept)}", json.dumps({"n": len(kept)}), JSON)
            assert reply.status == 201
            kept.append(len(kept))

    assert daemon.wait() == EXIT_STORAGE == 70
    assert "The process ends" in daemon.log
    again = start(data=data)
    assert [again.ask("GET", f"/v1/sessions/n{n}").json for n in kept] == [{"n": n} for n in kept]
    assert len(kept) < 100


# Hanging up ----------------------------------------------------------------------------------------------


def test_a_hang_up_is_not_the_end(start: Any, tmp_path: Path) -> None:
    """SIGHUP has the daemon read its settings and its key list again; with a list that cannot be used it serves on and says so."""
    keys = tmp_path / "keys"
    keys.write_text(f"one:{'A' * 43}=\n")
    clear = start(data=str(tmp_path / "clear.db"))
    encrypted = start("--encryption-keys", str(keys), data=str(tmp_path / "encrypted.db"))
    sid = encrypted.create('{"n":1}')

    clear.process.send_signal(signal.SIGHUP)
    wait_until(lambda: "the settings were read again" in clear.log)
    keys.write_text("canary\n")
    encrypted.process.send_signal(signal.SIGHUP)
    wait_until(lambda: "the key list stays as it was: line 1 of the key list" in encrypted.log)
    keys.write_text(f"two:{'B' * 42}A=\n")
    encrypted.process.send_signal(signal.SIGHUP)
    wait_until(lambda: "sealed under the key one, which is not in the key list" in encrypted.log)
    keys.write_text(f"two:{'B' * 42}A=\none:{'A' * 43}=\n")
    encrypted.process.send_signal(signal.SIGHUP)
    wait_until(lambda: "the key list no longer needs one" in encrypted.log)

    assert 200 == clear.ask("GET", "/healthz").status
    assert b'{"n":1}' == encrypted.ask("GET", f"/v1/sessions/{sid}").body
    assert "canary" not in encrypted.log
    assert (0, 0) == (clear.stop(), encrypted.stop())
