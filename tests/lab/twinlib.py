"""The twin of a VM: the same QEMU command line, guest, network and load, but its disk is a plain file, and it is moved by QEMU alone. Its
pauses are what those of the VM are compared with (pausestat.py).

    twin = Twin(hosts, "web1", 2, path)         # web1 runs; the twin talks to HOST_IP:7002, its disk is the file `path` of this machine
    twin.boot("n1")
    result, gap = twin.move("n2")               # gap["longest_ms"]: the pause from outside, by the far end of its connection
    twin.end()

Invariants
- Everything of the VM's command line stays but what would collide: name, sockets, log, disk file, tap and MAC, the guest's addresses.
- It is measured as the VM is: by tcpwatch.py (vmhost.Guest), and nothing disturbs it: its source ends afterwards.
- Its migration is bare QEMU's, without TLS; tls=True: over TLS-PSK as the VM's (what encryption costs in QEMU is not the coordinator's doing).
"""
import os
import re
import subprocess
import tempfile

import qmp as qmplib
import vmhost
import vmlib
from vmlib import VmError

PORT = 4600


def argv_of(hosts, node, name):
    """Of the QEMU that executes VM `name` on that node."""
    cgroup = f"/csvfs-lab/{hosts.lab.name}/{node}"
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/cgroup", encoding="ascii") as f:
                if cgroup not in f.read():
                    continue
            with open(f"/proc/{pid}/cmdline", encoding="utf-8") as f:
                argv = f.read().split("\0")[:-1]
        except OSError:
            continue
        if f"guest={name},debug-threads=on" in argv:
            return argv
    raise VmError(f"no QEMU of {name} on {node}")


class Twin(vmhost.Guest):
    def __init__(self, hosts, of, number, path, tls=False):
        super().__init__(hosts, f"{of}-twin", number, f"/srv/csv/{of}-twin")
        self.of, self.path, self.generation = of, path, 0
        self.number = number
        self.dir = tempfile.mkdtemp(prefix=f"{self.name}.", dir=os.path.join(hosts.lab.state_dir, "sock"))
        self.node = self.process_qemu = self.qmp = self.argv = None
        self.psk_dir = self.dir if tls else None
        with open(os.path.join(self.dir, "keys.psk"), "w", encoding="ascii") as f:
            f.write(f"qemu:{os.urandom(32).hex()}\n")

    def _changed(self, option, value):
        """The VM's `option value`, as the twin has it."""
        files = dict(zip(("-kernel", "-initrd"), self.hosts.guest_files()))
        if option in files:
            return files[option]
        if option == "-name":
            return f"guest={self.name}"
        if option == "-netdev":
            return "tap,id=net0,ifname=twin0,script=no,downscript=no"
        if option == "-chardev" and "id=qmp0" in value:
            return f"socket,id=qmp0,path={self.dir}/qmp{self.generation},server=on,wait=off"
        if option == "-chardev":
            return f"file,id=console0,path={self.dir}/console.log,append=on"
        if option == "-blockdev" and '"file0"' in value and '"driver":"file"' in value:
            return re.sub(r'"filename":"[^"]*"', f'"filename":"{self.path}"', value)
        if option == "-device" and "virtio-net" in value:
            return re.sub(r'"mac":"[^"]*"', f'"mac":"52:54:00:77:00:{self.number:02x}"', value)
        if option == "-append":
            value = re.sub(r"csv\.ip=\S+", f"csv.ip={vmhost.NET}.{10 + self.number}", value)
            return re.sub(r"csv\.tcp=\S+", f"csv.tcp={vmhost.HOST_IP}:{7000 + self.number}", value)
        return value

    def _argv(self, incoming):
        args = self.argv[1:]
        out = [self.argv[0]]
        for k, word in enumerate(args):
            if word == "-incoming" or (k and args[k - 1] == "-incoming"):
                continue
            out.append(self._changed(args[k - 1], word) if k and args[k - 1].startswith("-") else word)
        return out + (["-incoming", "defer"] if incoming else [])

    def _launch(self, node, incoming):
        self.generation += 1
        self.hosts.run(node, "sh", "-ec", "ip tuntap add twin0 mode tap; ip link set twin0 master br0 up")
        with open(os.path.join(self.dir, f"qemu{self.generation}.log"), "wb") as log:
            process = subprocess.Popen(self.hosts.lab.exec_argv(node, *self._argv(incoming)), stdin=subprocess.DEVNULL, stdout=log,
                                       stderr=subprocess.STDOUT, start_new_session=True)
        try:
            return process, qmplib.Qmp(f"{self.dir}/qmp{self.generation}", 20)
        except qmplib.QmpError as e:
            process.kill()
            process.wait()
            with open(os.path.join(self.dir, f"qemu{self.generation}.log"), encoding="utf-8", errors="replace") as f:
                raise VmError(f"{self.name} on {node}: {e}; QEMU said: {f.read().strip()}") from e

    def boot(self, node):
        self.argv = argv_of(self.hosts, node, self.of)
        self.process_qemu, self.qmp = self._launch(node, False)
        self.node = node
        self.qmp.execute("cont")
        return self.wait_up()

    def move(self, to):
        target, target_qmp = self._launch(to, True)
        source, source_qmp, source_node = self.process_qemu, self.qmp, self.node
        source_qmp.events.clear()
        source_qmp.last.clear()
        uri = f"tcp:{self.hosts.lab.ips[to]}:{PORT}"
        self.process_qemu, self.qmp, self.node = target, target_qmp, to

        try:
            return self.silence(lambda: qmplib.migrate(source_qmp, target_qmp, uri, psk_dir=self.psk_dir))
        finally:
            self._quit(source, source_qmp, source_node)

    def _quit(self, process, qmp, node):
        try:
            qmp.execute("quit", timeout=10)
            qmp.close()
            process.wait(20)
        except (qmplib.QmpError, OSError, subprocess.TimeoutExpired):
            process.kill()
            process.wait()
        self.hosts.run(node, "ip", "link", "del", "twin0")

    def end(self):
        if self.process_qemu:
            self._quit(self.process_qemu, self.qmp, self.node)
            self.process_qemu = None
        super().end()
