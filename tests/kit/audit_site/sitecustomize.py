"""Put this folder first on PYTHONPATH and every Python process writes down what it does.

Python imports a module of this name at start, also in worker processes. Events that could write
files, run code, start processes or reach the network go to the file named by AUDIT_LOG, a line of
JSON each. See tests/hostile/test_security.py.
"""

import json
import os
import sys

_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_EVENTS = frozenset(
    (
        "os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.link", "os.symlink", "os.truncate",
        "os.chmod", "os.chown", "os.utime", "shutil.rmtree", "shutil.move", "shutil.copyfile",
        "subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork",
        "os.startfile", "pty.spawn", "pickle.find_class",
        "socket.connect", "socket.bind", "socket.getaddrinfo", "socket.gethostbyname",
        "socket.sendto", "urllib.Request", "ftplib.connect", "smtplib.connect", "webbrowser.open",
    )
)  # fmt: skip
_log = os.open(os.environ["AUDIT_LOG"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)


def _hook(event, arguments):
    if event == "open":
        path, mode, flags = arguments
        if not (flags or 0) & _WRITING:
            return
        arguments = (path, mode)
    elif event in ("exec", "compile"):
        # Modules are code of files; what matters is code that somebody made of data.
        caller = sys._getframe().f_back
        if caller is None or not caller.f_code.co_filename.startswith(os.environ["AUDIT_CODE"]):
            return
        arguments = (caller.f_code.co_filename,)
    elif event not in _EVENTS:
        return
    line = json.dumps([event, *map(_plain, arguments)]) + "\n"
    os.write(_log, line.encode())


def _plain(value):
    if isinstance(value, int | str | None):
        return value
    return os.fsdecode(value) if isinstance(value, bytes | os.PathLike) else repr(value)


sys.addaudithook(_hook)
