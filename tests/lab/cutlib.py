"""The outside of t-power-cut: reads what cutload says in the nodes, keeps it, and knows from it what must be on the volume.

Invariants
- The log of a load lives in this process, outside every node; a power cut ends a log but takes nothing from it.
- What is expected is made from the log alone.
- Every wait has a bound and ends in an error that says what was awaited.
"""
import json
import os
import re
import subprocess
import threading
import time

import vmlib

HERE = os.path.dirname(os.path.abspath(__file__))
NS = 1000000000


class CutError(Exception):
    pass


def now_ns():
    return time.clock_gettime_ns(time.CLOCK_MONOTONIC)


def wait_for(what, seconds, true):
    end = time.monotonic() + seconds
    while not true():
        if time.monotonic() > end:
            raise CutError(f"no {what} within {seconds} s")
        time.sleep(0.01)


class Stream:
    """One cutload, in a node or (node None) on the machine itself. lines: (ns, letter, arguments)"""

    def __init__(self, lab, node, verb, *args):
        argv = [vmlib.program("cutload"), verb, *[str(a) for a in args]]
        self.name = f"{node or 'machine'}: cutload {verb} {' '.join(str(a) for a in args)}"
        self.node, self.verb = node, verb
        self.lines = []
        self.process = subprocess.Popen(lab.exec_argv(node, *argv) if node else argv, stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self):
        for line in self.process.stdout:
            if not line.endswith("\n"):
                break  # cut off in its middle
            stamp, letter, *args = line.split(maxsplit=2)
            self.lines.append((int(stamp), letter, args[0].rstrip("\n") if args else ""))

    def said(self, letter):
        return [x for x in self.lines if x[1] == letter]

    def complaint(self):
        bad = self.said("!")
        if bad:
            return f"{self.name}: {bad[0][2]}"
        if self.process.poll() not in (None, 0) and not self.said("E"):
            return f"{self.name}: ended with {self.process.returncode}: {self.process.stderr.read().strip()}"
        return None

    def ask_to_end(self):
        if not self.process.stdin.closed:
            try:
                self.process.stdin.close()
            except BrokenPipeError:
                pass

    def wait_end(self, seconds):
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise CutError(f"{self.name}: still at it {seconds} s after it was asked to end: it hangs since its last line {self.lines[-1:]}") from None
        self.reader.join(10)

    def kill(self):
        self.ask_to_end()
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()

    def operations(self):
        """(begin, end) of what took longest each time; a load has its operations between two capital letters."""
        if self.verb != "load":
            return [tuple(int(x) for x in args.split()[:2]) for _, _, args in self.said("T")]
        ends = [stamp for stamp, letter, _ in self.lines if letter in "FRUMX"]
        return list(zip(ends, ends[1:]))

    def longest(self, begin, end, within=False):
        """Longest operation, ms, that was under way between these times; or that began and ended between them."""
        return max((b - a for a, b in self.operations() if (begin <= a and b <= end if within else b > begin and a < end)), default=0) / 1e6


class Model:
    """What the logs of some loads say about the tree. alive: the load came to its own end, so nothing may be half done."""

    def __init__(self):
        self.dirs, self.files, self.free = {}, [], []

    def add(self, stream):
        by_path = {}
        for _, letter, args in stream.lines:
            a = args.split()
            if letter == "c":
                by_path[a[0]] = {"paths": [a[0]], "must": False, "contents": None}
            elif letter == "a":
                by_path[a[0]]["contents"].append([int(a[1]), int(a[2], 16)])
            elif letter == "F":
                by_path[a[0]].update(must=True, contents=[[int(a[1]), int(a[2], 16)]])
            elif letter == "r":
                by_path[a[0]]["paths"] = [a[0], a[1]]
            elif letter == "R":
                f = by_path.pop(a[0])
                f["paths"] = [a[1]]
                by_path[a[1]] = f
            elif letter == "u":
                by_path[a[0]]["must"] = False
            elif letter == "U":
                del by_path[a[0]]
            elif letter in "mx":
                self.dirs[a[0]] = "may"
            elif letter == "M":
                self.dirs[a[0]] = "must"
            elif letter == "X":
                del self.dirs[a[0]]
        self.files += by_path.values()

    def fsynced(self):
        return sum(1 for f in self.files if f["must"])

    def verify(self, lab, node, root):
        """Lines that say what is wrong."""
        text = json.dumps({"dirs": self.dirs, "files": self.files, "free": self.free})
        p = subprocess.run(lab.exec_argv(node, os.path.join(HERE, "cutverify"), root), input=text, stdout=subprocess.PIPE,
                           stderr=subprocess.STDOUT, text=True, timeout=120)
        if p.returncode not in (0, 1):
            raise CutError(f"{node}: cutverify: exit {p.returncode}: {p.stdout}")
        return p.stdout.splitlines() if p.returncode else []


class DaemonLog:
    """What csvfsd of one node has logged since this was made."""

    def __init__(self, lab, node):
        self.path = os.path.join(lab.state_dir, "nodes", node, "log", "csvfsd.log")
        self.start = os.path.getsize(self.path) if os.path.exists(self.path) else 0

    def text(self):
        if not os.path.exists(self.path):
            return ""
        with open(self.path, encoding="utf-8", errors="replace") as f:
            f.seek(self.start)
            return f.read()

    def find(self, pattern):
        return re.search(pattern, self.text())

    def when(self, pattern):
        """CLOCK_MONOTONIC time, ns, of the first line with the pattern; 0: none."""
        m = re.search(rf"^(\d+)\.(\d{{3}}) .*{pattern}", self.text(), re.MULTILINE)
        if not m:
            return 0
        return int(m.group(1) + m.group(2)) * 1000000 - time.clock_gettime_ns(time.CLOCK_REALTIME) + now_ns()


def cmap_ms(lab, node, key):
    line = vmlib.run(*lab.exec_argv(node, "corosync-cmapctl", "-g", key))
    return int(line.split("=")[1])
