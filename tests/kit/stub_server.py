"""A real OpenAI-compatible HTTP server in a process of its own, with every way to misbehave.

    python tests/kit/stub_server.py --mode busy --times 1 --log requests.jsonl

prints its port and serves until it is killed. It answers an image with a text made of the hash of
its bytes, a request without one with that of its text, so a test can tell whether each answer
reached the right request. To a judge's question it answers as `yes_no` and `verdict` say. `--mode`
is what it does instead, to the image whose hash begins with `--target` (any, by default), for the
first `--times` requests of that image (always, by default).
"""

from __future__ import annotations

import argparse
import base64
import collections
import hashlib
import http.server
import json
import math
import sys
import threading
import time
from pathlib import Path
from typing import Any, ClassVar


def answer(image_sha256: str, wall: int = 0) -> str:
    """The right answer for an image; `wall` is the seed when sampling."""
    return f"A picture of number {int(image_sha256[:12], 16)} on wall {wall}."


def completion(texts: list[str], **fields: Any) -> dict[str, Any]:
    choices = [
        {
            "index": i,
            "message": {"role": "assistant", "content": text},
            "finish_reason": fields.get("finish_reason", "stop"),
        }
        for i, text in enumerate(texts)
    ]
    return {
        "choices": choices,
        "usage": {"completion_tokens": len(texts[0].split()) if texts else 0},
    }


def yes_no(image_sha256: str) -> list[tuple[str, float]]:
    """The first tokens and their probabilities: yes is as likely as the hash says, up to 0.8."""
    yes = 0.8 * int(image_sha256[:8], 16) / 0xFFFFFFFF
    return [("Yes", yes), ("No", 0.8 - yes), (" yes", 0.05), ("A", 0.1)]


def verdict(image_sha256: str) -> str:
    """What a judge says of any sentence about an image, by the hash of the image."""
    word = ("Supported", "Not supported", "Cannot tell")[int(image_sha256[:8], 16) % 3]
    return f"{word}: I see number {int(image_sha256[:12], 16)}."


def leading(tokens: list[tuple[str, float]]) -> dict[str, Any]:
    top = [{"token": token, "logprob": math.log(chance)} for token, chance in tokens]
    return {"content": [{**top[0], "top_logprobs": top}]}


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    options: argparse.Namespace
    seen: ClassVar[collections.Counter[str]] = collections.Counter()
    lock = threading.Lock()
    num_gated: ClassVar[int] = 0

    def do_GET(self) -> None:
        self._log({"path": self.path, "method": "GET"})
        self._send(404, {"error": {"message": "there is nothing to get here"}})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        *heads, user = body["messages"]
        *images, text = user["content"]
        url = images[0]["image_url"]["url"] if images else ""
        mime, _, data = url.removeprefix("data:").partition(";base64,")
        # A request of text alone is told from others by its text.
        told_by = base64.b64decode(data) if images else text["text"].encode()
        image_sha256 = hashlib.sha256(told_by).hexdigest()
        with self.lock:
            self.seen[image_sha256] += 1
            number = self.seen[image_sha256]
        self._log(
            {
                "path": self.path,
                "method": "POST",
                "keys": sorted(body),
                "mime": mime,
                "sha256": image_sha256,
                "authorization": self.headers.get("Authorization"),
                "seed": body["seed"],
                "prompt": text["text"],
                "system": [head["content"] for head in heads if head["role"] == "system"],
                "heads": [
                    [head["role"], head["content"][0].get("type") == "image_url"]
                    if isinstance(head["content"], list)
                    else [head["role"], False]
                    for head in heads
                ],
            }
        )
        hit = image_sha256.startswith(self.options.target) and number <= self.options.times
        if self.path != "/v1/chat/completions":
            self._send(404, {"error": {"message": "not found"}})
        elif hit and self.options.mode != "ok":
            getattr(self, f"_mode_{self.options.mode}")(answer(image_sha256))
        elif body.get("logprobs"):
            said = completion([yes_no(image_sha256)[0][0]])
            said["choices"][0]["logprobs"] = leading(yes_no(image_sha256))
            self._send(200, said)
        elif "judge this sentence" in text["text"]:
            self._send(200, completion([verdict(image_sha256)]))
        else:
            wall = body["seed"] if body["temperature"] > 0 else 0
            self._send(200, completion([answer(image_sha256, wall)]))

    def _mode_busy(self, text: str) -> None:
        self._send(429, {"error": {"message": "too many requests"}}, {"Retry-After": "0"})

    def _mode_error(self, text: str) -> None:
        self._send(500, {"error": {"message": "CUDA error\x1b[31m: device-side assert"}})

    def _mode_refuse(self, text: str) -> None:
        self._send(400, {"error": {"message": "image too\nodd " + "x" * 2000}})

    def _mode_unauthorized(self, text: str) -> None:
        key = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        self._send(401, {"error": {"message": f"Incorrect API key provided: {key}"}})

    def _mode_stall(self, text: str) -> None:
        time.sleep(3600)

    def _mode_drip(self, text: str) -> None:
        """A byte now and then: every single read is in time, the answer never is."""
        self.send_response(200)
        self.send_header("Content-Length", "100000")
        self.end_headers()
        for _ in range(1000):
            self.wfile.write(b" ")
            time.sleep(0.1)

    def _mode_gated(self, text: str) -> None:
        """Answer the first `--free` requests; hold the others until the file `--gate` is there."""
        with self.lock:
            Handler.num_gated += 1
            is_free = Handler.num_gated <= self.options.free
        while not is_free and not Path(self.options.gate).exists():
            time.sleep(0.02)
        self._send(200, completion([text]))

    def _mode_late(self, text: str) -> None:
        time.sleep(self.options.seconds)
        self._send(200, completion([text]))

    def _mode_drop(self, text: str) -> None:
        self.close_connection = True
        self.connection.close()

    def _mode_no_logprobs(self, text: str) -> None:
        self._send(200, completion(["Yes"]))

    def _mode_refuses_logprobs(self, text: str) -> None:
        self._send(400, {"error": {"message": "top_logprobs is not supported by this model"}})

    def _mode_chatty(self, text: str) -> None:
        """A judge that answers with anything but yes or no, or a verdict."""
        said = completion(["Well, that depends on what you mean."])
        said["choices"][0]["logprobs"] = leading([("Well", 0.9), ("The", 0.05)])
        self._send(200, said)

    def _mode_two(self, text: str) -> None:
        self._send(200, completion([text, "Another text."]))

    def _mode_none(self, text: str) -> None:
        self._send(200, completion([]))

    def _mode_garbled(self, text: str) -> None:
        self._send(200, None)

    def _mode_length(self, text: str) -> None:
        self._send(200, completion([text], finish_reason="length"))

    def _mode_filter(self, text: str) -> None:
        self._send(200, completion([""], finish_reason="content_filter"))

    def _mode_huge(self, text: str) -> None:
        self._send(200, completion(["x" * 5_000_000]))

    def _mode_redirect(self, text: str) -> None:
        self._send(307, {}, {"Location": f"http://localhost:{self.server.server_port}/elsewhere"})

    def _send(self, status: int, document: Any, headers: dict[str, str] | None = None) -> None:
        body = b"<html>" if document is None else json.dumps(document).encode()
        self.send_response(status)
        for name, value in {**(headers or {}), "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def _log(self, entry: dict[str, Any]) -> None:
        if self.options.log:
            with self.lock, Path(self.options.log).open("a", encoding="utf-8") as file:
                file.write(json.dumps(entry) + "\n")

    def log_message(self, format: str, *args: Any) -> None:
        """Keep stderr empty."""


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that give up are part of the tests."""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--mode", default="ok")
    parser.add_argument("--target", default="")
    parser.add_argument("--times", type=int, default=1_000_000)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--gate")
    parser.add_argument("--free", type=int, default=0)
    parser.add_argument("--log")
    Handler.options = parser.parse_args()
    server = Server(("127.0.0.1", 0), Handler)
    sys.stdout.write(f"{server.server_port}\n")
    sys.stdout.flush()
    server.serve_forever()


if __name__ == "__main__":
    main()
