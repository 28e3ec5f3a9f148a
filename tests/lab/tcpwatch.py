#!/usr/bin/env python3
"""The far end of a test guest's connection (guest_init.c, talker): every line "<n> <chain>" must follow from the one before.

usage: tcpwatch.py ADDRESS PORT      reads "report" lines from stdin, answers JSON; ends with its stdin

{"connections", "messages", "broken" (lines that did not follow), "closed" (connections that ended), "longest_ms", "age_ms" (of the last line)}
longest_ms: the longest silence within a connection since the last report.
"""
import json
import select
import socket
import sys
import time

MASK = (1 << 64) - 1


class Conn:
    def __init__(self, sock):
        self.sock = sock
        self.buffer = b""
        self.number = 0
        self.chain = 14695981039346656037
        self.last = time.monotonic()


class Watch:
    def __init__(self):
        self.conns = {}
        self.count = {"connections": 0, "messages": 0, "broken": 0, "closed": 0}
        self.longest = 0.0
        self.first_broken = ""

    def line(self, c, text):
        try:
            number, chain = text.split()
            number, chain = int(number), int(chain, 16)
        except ValueError:
            number = chain = -1
        c.number += 1
        c.chain = ((c.chain ^ c.number) * 1099511628211) & MASK
        if (number, chain) != (c.number, c.chain):
            self.count["broken"] += 1
            self.first_broken = self.first_broken or f"{text!r} instead of {c.number} {c.chain:016x}"
        self.count["messages"] += 1

    def read(self, c):
        try:
            data = c.sock.recv(65536)
        except OSError:
            data = b""
        now = time.monotonic()
        if not data:
            self.count["closed"] += 1
            c.sock.close()
            return False
        self.longest = max(self.longest, now - c.last)
        c.last = now
        c.buffer += data
        *lines, c.buffer = c.buffer.split(b"\n")
        for text in lines:
            self.line(c, text.decode("ascii", "replace"))
        return True

    def report(self):
        last = max((c.last for c in self.conns.values()), default=0)
        out = dict(self.count, longest_ms=round(self.longest * 1000, 1), age_ms=round((time.monotonic() - last) * 1000, 1) if last else None,
                   first_broken=self.first_broken)
        self.longest = 0.0
        print(json.dumps(out), flush=True)


def main():
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((sys.argv[1], int(sys.argv[2])))
    listener.listen()
    print("listening", flush=True)
    watch = Watch()
    while True:
        ready, _, _ = select.select([listener, sys.stdin, *watch.conns], [], [])
        for r in ready:
            if r is listener:
                sock, _ = listener.accept()
                watch.conns[sock] = Conn(sock)
                watch.count["connections"] += 1
            elif r is sys.stdin:
                line = sys.stdin.readline()
                if not line:
                    return
                watch.report()
            elif not watch.read(watch.conns[r]):
                del watch.conns[r]


main()
