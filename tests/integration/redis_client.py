# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the tests of redis share: a client of few words, and how they end."""
import os
import shutil
import socket
import sys
import time


def fail(text):
    print("FAIL:", text, file=sys.stderr)
    sys.exit(1)


def skip(text):
    print("SKIP:", text)
    sys.exit(77)


class Redis:
    """A client of few words: pipelined commands over a Unix socket."""

    def __init__(self, path, server):
        for _ in range(400):
            try:
                self.sock = socket.socket(socket.AF_UNIX)
                self.sock.connect(path)
                break
            except OSError:
                if server.poll() is not None:
                    fail(f"redis-server ended with {server.returncode}")
                time.sleep(0.05)
        else:
            fail("redis-server does not listen")
        self.sock.settimeout(60)
        self.reader = self.sock.makefile("rb")

    def send(self, commands):
        out = []
        for words in commands:
            out.append(b"*%d\r\n" % len(words))
            for word in words:
                word = word if isinstance(word, bytes) else str(word).encode()
                out.append(b"$%d\r\n%s\r\n" % (len(word), word))
        self.sock.sendall(b"".join(out))

    def answer(self):
        line = self.reader.readline()
        kind, rest = line[:1], line[1:-2]
        if kind == b"$":
            return None if rest == b"-1" else self.reader.read(int(rest) + 2)[:-2]
        if kind == b"*":
            return [self.answer() for _ in range(int(rest))]
        if kind == b"-":
            fail("redis says: " + rest.decode())
        if kind not in b"+:" or not line:
            fail("redis went away")
        return rest

    def many(self, commands):
        self.send(commands)
        return [self.answer() for _ in commands]

    def do(self, *words):
        return self.many([words])[0]

    def info(self, section, field):
        for line in self.do("INFO", section).decode().splitlines():
            if line.startswith(field + ":"):
                return line.partition(":")[2]
        return fail(f"redis tells no {field}")


def stop(redis, server):
    redis.send([("SHUTDOWN", "NOSAVE")])
    if server.wait(60) != 0:
        fail(f"redis-server ended with {server.returncode}")


def need_redis(plain):
    if not plain and (os.geteuid() != 0 or not os.path.exists("/dev/userfaultfd")):
        skip("needs root and /dev/userfaultfd (Linux 6.1): run the tests with sudo")
    if not shutil.which("redis-server"):
        skip("no redis-server: apt-get install redis-server")
