"""Plays migratord's part for any number of hvhostds on this machine: commits everything at once, in one order.

    c = Cluster(workdir, volume)
    n1, n2 = c.node(1), c.node(2)            # starts two hvhostds
    c.create("vm1", config)                  # definition by vm.define, record FREE
    c.start("vm1", 1)                        # RECOVERING(1); c.until(...) waits
    c.migrate("vm1", 2)

Moves are computed as migrator/lease.c does; a proposal from another version than the record's is refused.
Every wait has a bound and says what it waited for.
"""
import json
import os
import select
import signal
import socket
import subprocess
import time

HERE = os.path.dirname(os.path.abspath(__file__))
BUILD = os.environ.get("CSV_BUILD") or os.path.dirname(os.path.dirname(HERE))
NONE = "0" * 16


def hex16(n):
    return f"{n:016x}"


class HvError(Exception):
    pass


class Node:
    def __init__(self, cluster, nodeid, options=()):
        self.c, self.id = cluster, nodeid
        self.inc = 1000 + nodeid
        self.dir = os.path.join(cluster.dir, f"n{nodeid}")
        os.makedirs(self.dir, exist_ok=True)
        self.options = list(options)
        self.sock = None
        self.process = None
        self.buffer = b""
        self.replies, self.vms = {}, {}
        self.next_id = 0
        self.open = {}          # vm -> proposal number that nobody has answered (with hold_proposals)
        self.hold_proposals = False
        self.deaf = False       # letters are not delivered

    def begin(self):
        log = open(os.path.join(self.dir, "hvhostd.log"), "a")
        self.process = subprocess.Popen(
            [os.path.join(BUILD, "hvhostd"), "--volume", self.c.volume, "--run-dir", os.path.join(self.dir, "run"), "--log-dir",
             os.path.join(self.dir, "log"), "--cgroup", f"{self.c.cgroup}/n{self.id}", "--accel", self.c.accel, "-d", *self.options],
            stdout=subprocess.PIPE, stderr=log, text=True)
        log.close()
        if self.process.stdout.readline() != "ready\n":
            raise HvError(f"hvhostd of n{self.id} did not start: {self.log_tail()}")
        self.connect()
        return self

    def log_tail(self):
        with open(os.path.join(self.dir, "hvhostd.log")) as f:
            return f.read()[-1500:]

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.connect(os.path.join(self.dir, "run/hvhostd.sock"))
        self.buffer = b""
        hello = self.ask("hello", api=1, node=f"n{self.id}", nodeid=self.id, incarnation=hex16(self.inc), addresses=["127.0.0.1"])
        self.host = hello["host"]
        self.vms = {v["vm"]: v for v in hello["vms"]}
        self.tell_all()

    def tell_all(self):
        if not self.sock:
            return
        members = [{"nodeid": n.id, "incarnation": hex16(n.inc)} for n in self.c.nodes.values() if n.member]
        self.ask("view", quorate=self.member, members=members)
        if self.member:
            self.ask("leases", items=list(self.c.records.values()), open=list(self.open))

    member = True

    def disconnect(self):
        if self.sock:
            self.sock.close()
        self.sock = None

    def kill(self):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()
        self.disconnect()

    def send(self, cmd, args):
        self.next_id += 1
        self.sock.sendall(json.dumps({"cmd": cmd, "id": self.next_id, "ring": hex16(self.c.ring), "args": args}).encode() + b"\n")
        return self.next_id

    def ask_raw(self, cmd, timeout=30, **args):
        number = self.send(cmd, args)
        self.c.until(lambda: number in self.replies, f"n{self.id}: answer to {cmd}", timeout)
        return self.replies.pop(number)

    def ask(self, cmd, timeout=30, **args):
        r = self.ask_raw(cmd, timeout, **args)
        if r["code"] not in (0, 13):
            raise HvError(f"n{self.id}: {cmd}: {r['code']} {r['message']}")
        return r["data"]

    def tell(self, cmd, **args):
        if self.sock:
            self.send(cmd, args)

    def readable(self):
        try:
            data = self.sock.recv(1 << 20)
        except (ConnectionResetError, BrokenPipeError):
            data = b""
        if not data:
            self.disconnect()
            return
        self.buffer += data
        while b"\n" in self.buffer:
            line, self.buffer = self.buffer.split(b"\n", 1)
            self.text(json.loads(line))

    def text(self, m):
        if "reply" in m:
            self.replies[m["reply"]] = m
            return
        d = m["data"]
        if m["event"] == "vm":
            self.vms[d["vm"]] = d
        elif m["event"] == "propose":
            self.c.propose(self, d)
        elif m["event"] == "peer":
            to = self.c.nodes.get(d["to"])
            if to and to.sock and not to.deaf:
                to.tell("peer", **{"from": self.id, "vm": d["vm"], "txid": d["txid"], "body": d["body"]})
        else:
            self.c.news.append((m["event"], self.id, d))


class Cluster:
    """Records as JSON (hvhost/agent.h: RECORD)."""

    def __init__(self, workdir, volume, accel="tcg", cgroup=None):
        self.dir, self.volume, self.accel = workdir, volume, accel
        self.cgroup = cgroup or own_cgroup(f"hvlib-{os.getpid()}")
        self.ring = 1
        self.records, self.nodes, self.news, self.moves = {}, {}, [], []
        self.txid = 0
        self.gate = None        # fn(node, cas) -> "commit", "refuse", "hold"

    def node(self, nodeid, *options):
        n = Node(self, nodeid, options)
        self.nodes[nodeid] = n
        n.begin()
        self.view()
        return n

    def end(self):
        for n in self.nodes.values():
            if n.process and n.process.poll() is None:
                n.kill()
        remove_cgroup(self.cgroup)

    def poll(self, timeout):
        by_fd = {n.sock: n for n in self.nodes.values() if n.sock}
        for s in select.select(list(by_fd), [], [], timeout)[0]:
            by_fd[s].readable()

    def until(self, test, what, timeout=60):
        end = time.monotonic() + timeout
        while not test():
            left = end - time.monotonic()
            if left <= 0:
                tails = "\n".join(f"n{n.id}: {n.log_tail()}" for n in self.nodes.values())
                raise HvError(f"not within {timeout} s: {what}\nrecords {self.records}\n{tails}")
            self.poll(min(left, 0.5))

    # ---- records

    def changed(self, vm, **fields):
        r = self.records[vm] = {**self.records[vm], **fields, "version": self.records[vm]["version"] + 1}
        for n in self.nodes.values():
            if n.member:
                n.tell("lease", **r)

    def view(self):
        """A new view of those with member set."""
        self.ring += 1
        for n in self.nodes.values():
            n.open = {}
            n.tell_all()

    def create(self, name, config, want="stopped", **files):
        node = next(n for n in self.nodes.values() if n.sock)
        number = node.ask("vm.define", config=config, **files)["config"]
        self.records[name] = {"vm": name, "version": 1, "epoch": 0, "state": "FREE", "was": "NONE", "want": want, "reason": 0, "ha": True,
                              "moved": False, "returned": False, "guessed": False, "priority": 100, "failures": 0, "owner": 0, "owner_inc": NONE, "peer": 0,
                              "peer_inc": NONE, "config": number, "txid": NONE}
        return number

    def start(self, vm, nodeid, config=None):
        r = self.records[vm]
        self.changed(vm, state="RECOVERING", owner=nodeid, owner_inc=hex16(self.nodes[nodeid].inc), epoch=r["epoch"] + 1, want="run",
                     config=config or r["config"], peer=0, peer_inc=NONE, txid=NONE, moved=False, returned=False)

    def intent(self, vm, to):
        self.txid += 1
        self.changed(vm, txid=hex16(self.txid), peer=to, peer_inc=hex16(self.nodes[to].inc), moved=False, returned=False)
        return hex16(self.txid)

    def propose(self, node, d):
        cas, r = d["cas"], self.records.get(d["cas"]["vm"])
        verdict = self.gate(node, cas) if self.gate else "commit"
        if verdict == "hold":
            node.open[cas["vm"]] = d["proposal"]
            return
        why = None
        if d["ring"] != hex16(self.ring) or not r or r["version"] != cas["version"]:
            why = "another version"
        fields = None if why or verdict == "refuse" else self.apply(node, r, cas)
        self.moves.append((node.id, cas["move"], cas["vm"], fields is not None))
        if fields is not None:
            self.changed(cas["vm"], **fields)
        node.tell("outcome", proposal=d["proposal"], vm=cas["vm"], result="committed" if fields is not None else "refused", message=why or "")

    def apply(self, node, r, cas):
        me = r["owner"] == node.id and r["owner_inc"] == hex16(node.inc)
        peer = r["peer"] == node.id and r["peer_inc"] == hex16(node.inc)
        same_tx = cas["txid"] == r["txid"] != NONE
        gone = {"owner": 0, "owner_inc": NONE, "peer": 0, "peer_inc": NONE, "txid": NONE, "moved": False, "returned": False}
        done = {"peer": 0, "peer_inc": NONE, "txid": NONE, "moved": False, "returned": False}
        move = cas["move"]
        if move == "STARTED" and me and r["state"] == "RECOVERING":
            return {"state": "RUNNING"}
        if move == "FAILED" and me and r["state"] == "RECOVERING":
            return {"state": "FREE", "epoch": r["epoch"] + 1, "reason": cas["reason"], "failures": r["failures"] + 1, **gone}
        if move == "RELEASE" and me and r["state"] == "RUNNING":
            return {"state": "FREE", "epoch": r["epoch"] + 1, "reason": cas["reason"], "want": cas["want"], **gone}
        if move == "ABORT" and me and same_tx and r["state"] == "RUNNING" and not r["moved"]:
            return done
        if move in ("HANDOFF", "HANDOVER") and me and same_tx and r["state"] == "RUNNING" and not r["moved"]:
            return {"state": "HANDOFF", "epoch": r["epoch"] + 1, "owner": r["peer"], "owner_inc": r["peer_inc"], "peer": r["owner"],
                    "peer_inc": r["owner_inc"]}
        if move == "ACCEPT" and me and same_tx and r["state"] == "HANDOFF":
            return {"state": "RUNNING", "moved": True}
        if move == "REFUSE" and me and same_tx and r["state"] == "HANDOFF":
            return {"state": "RUNNING", "returned": True, "epoch": r["epoch"] + 1, "owner": r["peer"], "owner_inc": r["peer_inc"],
                    "peer": r["owner"], "peer_inc": r["owner_inc"]}
        if move == "CLOSE" and (me or peer) and same_tx and r["moved"]:
            return done
        return None

    # ---- waits

    def running(self, vm, nodeid):
        r, v = self.records[vm], self.nodes[nodeid].vms.get(vm, {})
        return r["state"] == "RUNNING" and r["owner"] == nodeid and v.get("qemu") == "running"

    def await_running(self, vm, nodeid, timeout=90):
        self.until(lambda: self.running(vm, nodeid), f"{vm} runs on n{nodeid}", timeout)

    def migrate(self, vm, to, timeout=120):
        """Returns the source's last word about it."""
        tx = self.intent(vm, to)
        self.until(lambda: self.migration(tx), f"the migration of {vm} to n{to} ends", timeout)
        self.until(lambda: self.records[vm]["txid"] != tx, f"{vm}: the migration is closed", timeout)
        return self.migration(tx)

    def migration(self, tx):
        return next((d for e, _, d in self.news if e == "migration" and d["txid"] == tx and d["status"] != "active"), None)

    def pid(self, vm, nodeid):
        """Of the QEMU: the cgroups are the truth."""
        pids = []
        base = f"{self.cgroup}/n{nodeid}"
        for name in os.listdir(base) if os.path.isdir(base) else []:
            if name.rsplit(".", 1)[0] == vm and os.path.isdir(os.path.join(base, name)):
                try:
                    with open(os.path.join(base, name, "cgroup.procs")) as f:
                        pids += [int(p) for p in f.read().split()]
                except OSError:
                    pass        # it went at this moment
        return pids


def own_cgroup(name):
    root = next(line.split()[1] for line in open("/proc/self/mounts") if line.split()[2] == "cgroup2")
    own = next(line[3:].strip() for line in open("/proc/self/cgroup") if line.startswith("0::"))
    path = f"{root}{own.rstrip('/')}/{name}"
    os.makedirs(path, exist_ok=True)
    return path


def remove_cgroup(path):
    if not os.path.isdir(path):
        return
    with open(os.path.join(path, "cgroup.kill"), "w") as f:
        f.write("1")
    end = time.monotonic() + 20
    while "populated 1" in open(os.path.join(path, "cgroup.events")).read() and time.monotonic() < end:
        select.select([], [], [], 0.02)
    for at, dirs, _ in os.walk(path, topdown=False):
        os.rmdir(at)


def die_on_signals():
    def die(*_):
        raise SystemExit(1)
    signal.signal(signal.SIGTERM, die)
    signal.signal(signal.SIGINT, die)
