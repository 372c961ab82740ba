"""An OpenAI-compatible server like vLLM as its clients see it: latency, room, and sudden deaths.

    python -m tests.kit.model_server --latency 1 --room 256 --log answered.txt

prints its port and serves until it is killed. It has room for `--room` requests, which it answers
after `--latency` seconds; the others wait. An image whose sha256 is in `--poison` (prefixes, with
commas) ends the process at once, and after every `--die-after` answers the next request does, up to
`--deaths` times. It is then started again. `--log` gets the sha256 of each image that was answered.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import hashlib
import json
import os
import signal
import socket
import sys
import time

from aiohttp import web

from tests.kit.stub_server import answer


class Model:
    def __init__(self, options: argparse.Namespace, deaths_left: int) -> None:
        self._options = options
        self._room = asyncio.Semaphore(options.room)
        self._poison = tuple(options.poison.split(",")) if options.poison else ()
        self._answers_left = options.die_after if deaths_left > 0 else None
        self._log = os.open(options.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    async def models(self, _request: web.Request) -> web.Response:
        return web.json_response({"data": []})

    async def complete(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        head, _, rest = body.partition(b";base64,")
        image = hashlib.sha256(base64.b64decode(rest[: rest.index(b'"')])).hexdigest()
        document = json.loads(head + rest[rest.index(b'"') :])
        if image.startswith(self._poison) and self._poison:
            os._exit(1)
        if self._answers_left is not None and self._answers_left <= 0:
            os._exit(2)
        async with self._room:
            await asyncio.sleep(self._options.latency)
        num = document.get("n", 1) if self._options.takes_n else 1
        is_drawn = document["temperature"] > 0
        choices = [
            {
                "index": i,
                "message": {
                    "role": "assistant",
                    "content": answer(image, document["seed"] + i if is_drawn else 0),
                },
                "finish_reason": "stop",
            }
            for i in range(num)
        ]
        usage = {"prompt_tokens": 1, "completion_tokens": 9 * num, "total_tokens": 1 + 9 * num}
        text = json.dumps({"choices": choices, "usage": usage})
        response = web.Response(text=text, content_type="application/json")
        await response.prepare(request)
        await response.write_eof()
        os.write(self._log, f"{image} {num} {time.monotonic()}\n".encode())
        if self._answers_left is not None:
            self._answers_left -= 1
        return response


def serve(options: argparse.Namespace, listening: socket.socket, deaths_left: int) -> None:
    async def start() -> web.Application:
        model = Model(options, deaths_left)
        application = web.Application(client_max_size=2**28)
        application.router.add_get("/v1/models", model.models)
        application.router.add_post("/v1/chat/completions", model.complete)
        return application

    web.run_app(start(), sock=listening, print=None, access_log=None, handle_signals=False)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--latency", type=float, default=0.01)
    parser.add_argument("--room", type=int, default=256)
    parser.add_argument("--poison", default="")
    parser.add_argument("--die-after", type=int)
    parser.add_argument("--deaths", type=int, default=0)
    parser.add_argument("--away", type=float, default=0.0, help="seconds that a restart takes")
    parser.add_argument("--takes-n", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--log", default=os.devnull)
    parser.add_argument("--port", type=int, default=0)
    options = parser.parse_args()
    port, deaths_left = options.port, options.deaths if options.die_after is not None else 0
    while True:
        listening = socket.socket()
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(("127.0.0.1", port))
        if not port:
            port = listening.getsockname()[1]
            sys.stdout.write(f"{port}\n")
            sys.stdout.flush()
        child = os.fork()
        if not child:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            listening.listen(1024)
            serve(options, listening, deaths_left)
            os._exit(0)
        listening.close()

        def end(number: int, _frame: object, child: int = child) -> None:
            os.kill(child, signal.SIGKILL)
            os._exit(128 + number)

        signal.signal(signal.SIGTERM, end)
        _, status = os.waitpid(child, 0)
        deaths_left -= os.waitstatus_to_exitcode(status) == 2
        if options.away:
            time.sleep(options.away)


if __name__ == "__main__":
    main()
