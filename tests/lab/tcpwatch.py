#!/usr/bin/env python3
"""The far end of a test guest's connection (guest_init.c, talker): every line "<n> <chain> <record>" must follow from the one before.

usage: tcpwatch.py ADDRESS PORT      reads commands from stdin, answers JSON; ends with its stdin

mark	a window begins
report	see below

{"connections", "messages", "broken" (lines that did not follow), "closed" (connections that ended), "window" (lines since the mark),
 "longest_ms" (the longest silence since the mark, the one before the first line included), "age_ms" (of the last line),
 "record" (the last that was said to be durable), "record_back" (times it went back within a connection)}
"""
import json
import os
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
        self.record = 0


class Watch:
    def __init__(self):
        self.conns = {}
        self.count = {"connections": 0, "messages": 0, "broken": 0, "closed": 0, "record": 0, "record_back": 0}
        self.longest = 0.0
        self.window = 0
        self.last = time.monotonic()
        self.first_broken = ""

    def line(self, c, text):
        try:
            number, chain, record = text.split()
            number, chain, record = int(number), int(chain, 16), int(record)
        except ValueError:
            number = chain = record = -1
        c.number += 1
        c.chain = ((c.chain ^ c.number) * 1099511628211) & MASK
        if (number, chain) != (c.number, c.chain):
            self.count["broken"] += 1
            self.first_broken = self.first_broken or f"{text!r} instead of {c.number} {c.chain:016x}"
        self.count["messages"] += 1
        self.window += 1
        self.count["record_back"] += record < c.record
        c.record = self.count["record"] = record

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
        self.longest = max(self.longest, now - self.last)
        self.last = now
        c.buffer += data
        *lines, c.buffer = c.buffer.split(b"\n")
        for text in lines:
            self.line(c, text.decode("ascii", "replace"))
        return True

    def report(self):
        out = dict(self.count, longest_ms=round(self.longest * 1000, 1), age_ms=round((time.monotonic() - self.last) * 1000, 1),
                   window=self.window, first_broken=self.first_broken)
        print(json.dumps(out), flush=True)


def main():
    try:
        # who stamps late would report pauses of its own
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(20))
    except OSError:
        pass
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
                if line.strip() == "mark":
                    # the silence that is going on belongs to both windows
                    watch.longest, watch.window = 0.0, 0
                watch.report()
            elif not watch.read(watch.conns[r]):
                del watch.conns[r]


main()
