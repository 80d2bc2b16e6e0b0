"""A process that owns a file and writes: `python -m tests.engines.writer FILE NUMBER`.

Says `open`, then `ack NAME` for each session whose creation was acknowledged, two at a time, and `done`. `fatal TEXT` and
exit code 70 are what on_fatal makes of it. With NUMBER 0 it keeps the file open until it is killed.
"""

import asyncio
import os
import sys

from sessiond.engine import execute
from sessiond.engines import Options, open_engine
from tests.support import NOW, create


def fatal(text: str) -> None:
    print("fatal", text, flush=True)
    os._exit(70)


async def write(path: str, number: int) -> None:
    engine = await open_engine(path, Options(1024 * 1024, False, fatal))
    print("open", flush=True)
    if not number:
        await asyncio.Event().wait()

    async def writer(first: int) -> None:
        lane = engine.lane()
        for n in range(first, number, 2):
            (answer,) = await execute(lane, [create(str(n))], NOW)
            if answer.status == "ok":
                print("ack", n, flush=True)

    await asyncio.gather(writer(0), writer(1))
    await engine.close()
    print("done", flush=True)


if __name__ == "__main__":
    asyncio.run(write(sys.argv[1], int(sys.argv[2])))
