"""A lab whose nodes have hvhostd and migratord: VMs by csvctl, seen from outside.

    hosts = Hosts(vmlib.Lab("name")).up()
    hosts.ctl("n1", "vm", "create", "web1", ...)            # csvctl's JSON; CtlError with its exit code
    guest = hosts.create("n1", "web1", 1)                   # a VM with a disk, and the far end of its connection, outside every node
    hosts.down()

The guests have a network of their own: a bridge br0 in every node, joined outside the nodes, where HOST_IP listens. A cut or a power
cut of a node's cluster network is none of it.
"""
import json
import os
import struct
import subprocess
import sys
import time
import zlib

import vmlib
from vmlib import VmError

HERE = os.path.dirname(os.path.abspath(__file__))
NET = "10.99.0"
HOST_IP = f"{NET}.1"
HOST_MAC = "02:c5:00:00:00:01"
MIB = 1 << 20
# on the disk of a guest: records from here, the witness before them
RECORDS_OFF = 1 * MIB
WITNESS_OFF = 64 << 10


class Wrong(Exception):
    """Something is not as a test says it must be."""


class CtlError(VmError):
    def __init__(self, code, text):
        super().__init__(text)
        self.code = code


def now_ms():
    return time.monotonic_ns() / 1e6


def wait_for(what, timeout_s, check, every_s=0.05):
    """The first true value of check(); a VmError naming `what` when the time is over. A csvctl that refuses meanwhile (no quorum yet) is a no."""
    end = time.monotonic() + timeout_s
    while True:
        refused = ""
        try:
            value = check()
        except CtlError as e:
            value, refused = None, f"; last: {e}"
        if value:
            return value
        if time.monotonic() > end:
            raise VmError(f"{what}: not within {timeout_s} s{refused}")
        time.sleep(every_s)


class Hosts:
    def __init__(self, lab, nodes=("n1", "n2", "n3")):
        self.lab, self.nodes = lab, list(nodes)
        self.accel = "tcg"  # what hvhostd is told of its node; "auto": it looks

    # ---- nodes

    def up(self, *args):
        self.lab.up("--nodes", str(len(self.nodes)), *args)
        self.guests_network()
        for n in self.nodes:
            self.start(n)
        wait_for("all nodes have said what they run", 30, self.settled)
        return self

    def guests_network(self):
        """With an address of its own: else it is a port's, and changes whenever a node goes or comes, which guests learn late."""
        self._switch_ns("sh", "-ec", f"ip link add brg address {HOST_MAC} type bridge stp_state 0 forward_delay 0 mcast_snooping 0; "
                        f"ip addr add {HOST_IP}/24 dev brg; ip link set brg up")
        for n in self.nodes:
            self.node_net(n)

    def _switch_ns(self, *argv):
        pid = open(os.path.join(self.lab.state_dir, "switch"), encoding="ascii").read().strip()
        return vmlib.run("nsenter", "-t", pid, "-n", "--", *argv)

    def holder(self, node):
        return open(os.path.join(self.lab.state_dir, "nodes", node, "holder"), encoding="ascii").read().strip()

    def node_net(self, node):
        """The node's part of the guests' network; again after every start of the node."""
        port = f"g{node}"
        self._switch_ns("sh", "-c", f"ip link del {port} 2>/dev/null; ip link add {port} type veth peer name guests netns {self.holder(node)} && "
                        f"ip link set {port} master brg up")
        self.run(node, "sh", "-ec", "ip link add br0 type bridge stp_state 0 forward_delay 0 mcast_snooping 0; "
                 "ip link set guests master br0 up; ip link set br0 up")

    def start(self, node, *daemons):
        for d in daemons or ("hvhostd", "migratord"):
            log = os.path.join(self.lab.state_dir, "nodes", node, "log", f"{d}.log")
            more = ["--state", "/var/lib/corosync/csvfs"] if d == "migratord" else ["--volume", "/srv/csv", "--accel", self.accel]
            self.run(node, "sh", "-c", f'exec setsid --fork {d} {" ".join(more)} </dev/null >>{log} 2>&1')

    def pid_of(self, node, daemon):
        """Of a daemon of that node: the oldest of its name, for a child has it as well until it executes something else."""
        cgroup = f"/csvfs-lab/{self.lab.name}/{node}"
        found = []
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                with open(f"/proc/{pid}/comm", encoding="ascii") as f:
                    if f.read().strip() != daemon:
                        continue
                with open(f"/proc/{pid}/cgroup", encoding="ascii") as f:
                    if cgroup not in f.read():
                        continue
                with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as f:
                    stat = f.read().rpartition(")")[2].split()
                if stat[0] not in "ZX":         # killed, and nobody has asked for its end yet
                    found.append((int(stat[19]), int(pid)))
            except OSError:
                continue
        return min(found)[1] if found else None

    def kill9(self, node, daemon):
        pid = self.pid_of(node, daemon)
        if pid:
            os.kill(pid, 9)
        return pid

    def power_cut(self, node):
        self.lab("kill", node)

    def power_on(self, node):
        self.lab("start", node)
        self.node_net(node)
        self.start(node)

    def down(self):
        self.lab.down()

    # ---- csvctl

    def run(self, node, *argv, timeout=120):
        return vmlib.run(*self.lab.exec_argv(node, *argv), timeout=timeout)

    def ctl(self, node, *argv, timeout=90):
        p = subprocess.run(self.lab.exec_argv(node, "csvctl", *argv, "-o", "json", "--timeout", str(timeout - 10)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                           timeout=timeout)
        try:
            reply = json.loads(p.stdout)
        except ValueError:
            reply = {}
        if p.returncode:
            text = reply.get("error", {}).get("message") or p.stderr.strip() or p.stdout.strip()
            raise CtlError(p.returncode, f"{node}: csvctl {' '.join(argv)}: exit {p.returncode}: {text}")
        return reply

    def settled(self):
        try:
            reply = self.ctl(self.nodes[0], "ha", "status")
        except (CtlError, subprocess.TimeoutExpired):
            return False
        return reply.get("settled") and not reply.get("suspects")

    def agents_ready(self):
        try:
            return all(n.get("agent") for n in self.ctl(self.nodes[-1], "node", "list")["items"] if n["online"]) and self.settled()
        except CtlError:
            return False

    def last_words(self):
        """What somebody needs who asks why."""
        if not hasattr(self.lab, "state_dir"):
            return
        for node in self.nodes:
            for argv in (("csvctl", "vm", "list"), ("csvctl", "ha", "status"), ("csvctl", "event", "list", "--last", "25"), ("csvctl", "job", "list")):
                try:
                    print(f"--- {node}: {' '.join(argv)}\n{self.run(node, *argv, timeout=20)}", file=sys.stderr)
                except (VmError, subprocess.TimeoutExpired) as e:
                    print(f"--- {node}: {e}", file=sys.stderr)
            for daemon in ("hvhostd", "migratord", "csvfsd"):
                try:
                    with open(os.path.join(self.lab.state_dir, "nodes", node, "log", f"{daemon}.log"), encoding="utf-8", errors="replace") as f:
                        print(f"--- {node}: {daemon}: {f.read()[-2500:]}", file=sys.stderr)
                except OSError:
                    pass

    def vms(self, node):
        return {v["name"]: v for v in self.ctl(node, "vm", "list")["items"]}

    def events(self, node, last=1000):
        return self.ctl(node, "event", "list", "--last", str(last))["items"]

    # ---- guests

    def guest_files(self):
        """Kernel and initramfs on this machine, which all nodes see."""
        guest_sh = os.path.join(HERE, "guest.sh")
        initrd = os.path.join(self.lab.state_dir, "sock", "initrd")
        if not os.path.exists(initrd):
            vmlib.run(guest_sh, "initrd", initrd)
        return vmlib.run(guest_sh, "kernel"), initrd

    def create(self, node, name, number, size="64M", memory="128M", image=None, kind=("--format", "vhd", "--type", "fixed"), append="", more=()):
        """A VM with a disk of its own: guest `number` talks to HOST_IP:7000+number."""
        kernel, initrd = self.guest_files()
        image = image or f"/srv/csv/{name}.{'vhdx' if 'vhdx' in kind else 'vhd'}"
        self.ctl(node, "vhd", "create", image, "--size", size, *kind)
        guest = Guest(self, name, number, image)
        # Written once: a guest that writes where nothing was ever written stands while its node is without quorum.
        self.run(node, "dd", "if=/dev/zero", f"of={guest.raw}", "bs=1M", "count=32", "conv=notrunc", "oflag=direct", "status=none")
        line = (f"console=ttyS0 quiet panic=-1 csv.port=/dev/ttyS0 csv.rec_dev=/dev/sda csv.rec_off={RECORDS_OFF} csv.wit_off={WITNESS_OFF} "
                f"csv.ip={NET}.{10 + number} csv.tcp={HOST_IP}:{7000 + number} csv.tick_ms=20 csv.rec_ms=40 {append}").strip()
        self.ctl(node, "vm", "create", name, "--disk", image, "--memory", memory, "--kernel", kernel, "--initrd", initrd, "--append", line,
                 "--bridge", "br0", "--accel", "tcg", *more)
        return guest


class Guest:
    """What is seen of a VM from outside: the far end of its connection (tcpwatch.py), its records, its witness."""

    def __init__(self, hosts, name, number, image):
        self.hosts, self.name, self.image = hosts, name, image
        pid = open(os.path.join(hosts.lab.state_dir, "switch"), encoding="ascii").read().strip()
        self.process = subprocess.Popen(["nsenter", "-t", pid, "-n", "--", sys.executable, os.path.join(HERE, "tcpwatch.py"), HOST_IP,
                                         str(7000 + number)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.process.stdout.readline()

    def ask(self, word):
        self.process.stdin.write(word + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def report(self):
        return self.ask("report")

    @property
    def raw(self):
        head, tail = self.image[:len("/srv/csv/")], self.image[len("/srv/csv/"):]
        return f"{head}.raw/{tail}"

    def wait_lines(self, n, timeout_s=60):
        """n lines since the mark."""
        return wait_for(f"{self.name}: {n} lines on its connection", timeout_s, lambda: (r := self.report())["window"] >= n and r, 0.02)

    def wait_up(self, timeout_s=120):
        top = self.ask("mark")["record"]
        self.wait_lines(20, timeout_s)
        wait_for(f"{self.name}: records", timeout_s, lambda: self.report()["record"] != top)
        return self

    def silence(self, action, lines=30, timeout_s=60):
        """(what action returned, report of the window from just before it until `lines` lines after it)"""
        self.ask("mark")
        result = action()
        self.wait_lines(self.report()["window"] + lines, timeout_s)
        return result, self.report()

    def read(self, node, offset, length):
        """Of the disk, as that node reads it, past its caches."""
        first, last = offset // 4096, (offset + length + 4095) // 4096
        p = subprocess.run(self.hosts.lab.exec_argv(node, "dd", f"if={self.raw}", "bs=4096", f"skip={first}", f"count={last - first}",
                                                    "iflag=direct,fullblock", "status=none"), stdout=subprocess.PIPE,
                           stderr=subprocess.PIPE, timeout=60)
        if p.returncode:
            raise VmError(f"{self.raw} on {node} cannot be read: {p.stderr.decode().strip()}")
        return p.stdout[offset - first * 4096:][:length]

    def witness(self, node):
        """(boot id, counter); None: nothing yet."""
        block = self.read(node, WITNESS_OFF, 512)
        if block[:8] != b"CSVWIT01":
            return None
        if zlib.crc32(block[:508]) != struct.unpack("<I", block[508:])[0]:
            raise VmError(f"{self.name}: the witness block is torn")
        return struct.unpack_from("<QQ", block, 8)

    def check_records(self, node):
        """The disk against what was said to be durable last: {"said", "lost", "boots"}."""
        top = self.report()["record"]
        data = self.read(node, RECORDS_OFF, max(top, 1) * 4096)
        lost, boots = [], set()
        for number in range(1, top + 1):
            verdict, boot = vmlib.record_verdict(data[(number - 1) * 4096:number * 4096], number)
            if verdict != "ok":
                lost.append((number, verdict))
            else:
                boots.add(boot)
        return {"said": top, "lost": lost, "boots": len(boots)}

    def end(self):
        if self.process.poll() is None:
            self.process.stdin.close()
            self.process.wait(10)


def run_test(name, work, keep=False, nodes=("n1", "n2", "n3"), size="2G"):
    """What main() returns: work(hosts, guests) in a lab of its own, named by CSV_LAB_NAME or `name`; the guests that it puts there are ended."""
    if os.getuid():
        print("needs root for a lab")
        return 77
    vmlib.terminate_on_signals()
    hosts = Hosts(vmlib.Lab(os.environ.get("CSV_LAB_NAME") or f"{name}-{os.getpid()}"), nodes)
    guests = {}
    try:
        hosts.up("--size", size)
        work(hosts, guests)
        return 0
    except (Wrong, VmError, vmlib.qmplib.QmpError, OSError, subprocess.TimeoutExpired) as e:
        print(f"FAIL: {e}", file=sys.stderr)
        hosts.last_words()
        return 1
    finally:
        for guest in guests.values():
            guest.end()
        if not keep:
            hosts.down()
