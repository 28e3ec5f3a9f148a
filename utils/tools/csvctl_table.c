/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * csvctl_table.c - the one table of csvctl's commands.
 */
#include "utils/tools/csvctl.h"

#define VOLUME_OPT { "volume", "VOLUME", "of this volume only: its mount point, device, label or uuid", false }
#define FORCE_OPT { "force", "REASON", "also replace what is there, and do what is advised against; the reason is logged", false }
#define ROOT_OPT { "root", "DIR", "the files below DIR instead of / (to prepare an image)", false }

#define VM_COLS { { "name", "VM", CC_TEXT }, { "node", "NODE", CC_TEXT }, { "state", "STATE", CC_TEXT }, { "want", "WANT", CC_TEXT }, \
		  { "epoch", "EPOCH", CC_INT }, { "ha", "HA", CC_BOOL }, { "qemu", "QEMU", CC_TEXT }, { "memory_bytes", "MEMORY", CC_SIZE }, \
		  { "reason", "REASON", CC_TEXT } }
#define MIGRATION_COLS { { "id", "ID", CC_TEXT }, { "vm", "VM", CC_TEXT }, { "from", "FROM", CC_TEXT }, { "to", "TO", CC_TEXT }, \
			 { "state", "STATE", CC_TEXT }, { "step", "STEP", CC_INT }, { "percent", "%", CC_INT }, { "total_ms", "TOTAL", CC_MS }, \
			 { "pause_ms", "PAUSE", CC_MS }, { "steps", "STEPS", CC_LIST }, { "reason", "REASON", CC_TEXT } }
#define JOB_COLS { { "id", "JOB", CC_TEXT }, { "kind", "KIND", CC_TEXT }, { "object", "OBJECT", CC_TEXT }, { "state", "STATE", CC_TEXT }, \
		   { "percent", "%", CC_INT }, { "took_ms", "TOOK", CC_MS }, { "step", "STEP", CC_TEXT }, { "message", "MESSAGE", CC_TEXT } }
#define EVENT_COLS { { "seq", "SEQ", CC_INT }, { "time", "TIME", CC_TEXT }, { "node", "NODE", CC_TEXT }, { "level", "LEVEL", CC_TEXT }, \
		     { "object", "OBJECT", CC_TEXT }, { "text", "TEXT", CC_TEXT }, { "command", "COMMAND", CC_TEXT } }

const struct cc_cmd cc_cmds[] = {
	{
		.noun = "cluster", .verb = "status", .run = cc_cluster_status, .pairs = true,
		.help = "show whether this node is in a quorate cluster, and how its volumes are",
		.text = "Asks corosync and the volumes mounted here. Exit code 6 when there is no quorum. Warns when corosync's traffic is "
			"not encrypted, or two_node is set without a quorum device.",
		.cols = { { "name", "CLUSTER", CC_TEXT }, { "node", "NODE", CC_TEXT }, { "nodeid", "ID", CC_INT },
			  { "quorate", "QUORATE", CC_BOOL }, { "members", "MEMBERS", CC_INT }, { "nodes", "NODES", CC_INT },
			  { "crypto", "CRYPTO", CC_BOOL }, { "token_ms", "TOKEN", CC_MS }, { "volumes", "VOLUMES", CC_LIST } },
	},
	{
		.noun = "cluster", .verb = "wait", .run = cc_cluster_wait,
		.help = "wait until this node is in a quorate cluster",
		.text = "As long as --timeout says; exit code 7 when it is over. corosync may still be starting.",
		.cols = { { "name", "CLUSTER", CC_TEXT }, { "quorate", "QUORATE", CC_BOOL }, { "members", "MEMBERS", CC_INT }, { "waited_ms", "WAITED", CC_MS } },
	},
	{
		.noun = "cluster", .verb = "init", .run = cc_cluster_init, .change = true,
		.help = "make the configuration of a new cluster: corosync.conf, its key, fence.conf",
		.text = "On the first node; the others take it over with cluster join. Traffic is always encrypted. Nothing that is there is replaced "
			"without --force (Debian's example of a corosync.conf does not count), and then it is kept as PATH.old. Two nodes need "
			"--qdevice, or a third node, as a third vote: two_node is never written. Each --node has as many addresses as there are "
			"networks; each --fence says which agent switches it off, and what the agent wants to know (fence.conf(5)); a comma in a "
			"value is written \\,. Starts nothing. For instance: csvctl cluster init --name c1 --node a=192.0.2.1 --node b=192.0.2.2 --node "
			"c=192.0.2.3 --fence a=fence_ipmilan,ip=198.51.100.1,username=fence,password=secret,lanplus=1",
		.opts = { { "name", "CLUSTER", "of the cluster", true },
			  { "node", "NAME=ADDRESS[,ADDRESS]...", "a node with its addresses; once for each", true },
			  { "fence", "NODE=AGENT[,KEY=VALUE]...", "how a node is switched off; once for each", false },
			  { "fence-file", "FILE", "a fence.conf that is written already", false },
			  { "qdevice", "HOST", "the host of a quorum device (it runs corosync-qnetd)", false },
			  { "token", "MS", "a node that is silent for so long is lost (default 3000; more for many nodes)", false },
			  FORCE_OPT, ROOT_OPT },
		.cols = { { "path", "FILE", CC_TEXT }, { "action", "ACTION", CC_TEXT }, { "mode", "MODE", CC_TEXT }, { "size_bytes", "SIZE", CC_SIZE } },
	},
	{
		.noun = "cluster", .verb = "bundle", .run = cc_cluster_bundle, .args = "FILE", .args_min = 1, .args_max = 1, .change = true, .paths = true,
		.help = "write this node's cluster configuration and key into a file, for cluster join",
		.text = "FILE - is the standard output. It holds the key and the passwords of the fence agents: bring it to the other nodes by a safe "
			"way, and remove it.",
		.opts = { FORCE_OPT, ROOT_OPT },
		.cols = { { "path", "FILE", CC_TEXT }, { "cluster", "CLUSTER", CC_TEXT }, { "nodes", "NODES", CC_INT } },
	},
	{
		.noun = "cluster", .verb = "join", .run = cc_cluster_join, .args = "HOST|FILE", .args_min = 1, .args_max = 1, .change = true, .paths = true,
		.help = "take over a cluster's configuration and key on this node",
		.text = "From a HOST of the cluster, over ssh, or from a FILE (or -) of cluster bundle. Checked before anything is written: that it is "
			"whole, encrypted, and that this host has the address of one of its nodes. Starts nothing.",
		.opts = { { "node", "NAME", "which node this is to be (default: by its addresses)", false }, FORCE_OPT, ROOT_OPT },
		.cols = { { "path", "FILE", CC_TEXT }, { "action", "ACTION", CC_TEXT }, { "mode", "MODE", CC_TEXT }, { "size_bytes", "SIZE", CC_SIZE } },
	},
	{
		.noun = "cluster", .verb = "validate", .run = cc_cluster_validate, .pairs = true,
		.help = "check this node's part in the cluster: configuration, key, network, quorum, fencing, host, disk",
		.text = "One line for each check, with what to do when it is not ok. Changes nothing; asks the fence agent of every node for its "
			"status. With --with it also compares configuration, key and clock with those of other nodes. Exit code 1 when something "
			"is wrong; a warning alone is 0.",
		.opts = { { "with", "HOST|FILE...", "compare with this node, over ssh, or with a file of cluster bundle; once for each", false },
			  { "device", "DEVICE", "check this disk, too (default: those of the volumes mounted here)", false },
			  { "no-fence", NULL, "do not ask the fence agents", false },
			  { "all", NULL, "show what is in order, too", false } },
		.cols = { { "object", "OBJECT", CC_TEXT }, { "check", "CHECK", CC_TEXT }, { "result", "RESULT", CC_TEXT }, { "reason", "REASON", CC_TEXT },
			  { "action", "WHAT TO DO", CC_TEXT } },
	},
	{
		.noun = "node", .verb = "list", .run = cc_node_list,
		.help = "list the nodes of the cluster and on which of this node's volumes they are members",
		.text = "PROBLEM says what keeps virtual machines from a node: hvhostd does not run there, its volume is not mounted or nobody serves it, its "
			"QEMU has not answered yet or lacks something, it is drained or quarantined, or it could not be fenced.",
		.cols = { { "name", "NODE", CC_TEXT }, { "nodeid", "ID", CC_INT }, { "online", "ONLINE", CC_BOOL }, { "self", "SELF", CC_BOOL },
			  { "volumes", "VOLUMES", CC_LIST }, { "agent", "HVHOSTD", CC_BOOL }, { "drained", "DRAINED", CC_BOOL },
			  { "vms", "VMS", CC_INT }, { "accel", "ACCEL", CC_TEXT }, { "problem", "PROBLEM", CC_TEXT } },
	},
	{
		.noun = "node", .verb = "drain", .run = cc_node_drain, .args = "NODE", .args_min = 1, .args_max = 1, .change = true, .job = true,
		.pairs = true,
		.help = "move all virtual machines away from a node, and place none there any more",
		.text = "One after the other, live. Never stops one: what cannot move stays, the answer says why for each, and the exit code is 8. The node "
			"stays drained until node resume, also when it, or all nodes, were off meanwhile.",
		.cols = { { "node", "NODE", CC_TEXT }, { "state", "STATE", CC_TEXT }, { "moved", "MOVED", CC_LIST }, { "stayed", "STAYED", CC_LIST } },
	},
	{
		.noun = "node", .verb = "resume", .run = cc_node_resume, .args = "NODE", .args_min = 1, .args_max = 1, .change = true,
		.help = "let a drained or quarantined node have virtual machines again",
		.cols = { { "node", "NODE", CC_TEXT }, { "state", "STATE", CC_TEXT } },
	},
	{
		.noun = "node", .verb = "shutdown", .run = cc_node_shutdown, .args = "[NODE]", .args_max = 1, .change = true, .job = true,
		.pairs = true,
		.help = "drain a node and let its coordinator leave in order, so that nobody fences it or waits for it",
		.text = "Without NODE this one. Exit code 8 when virtual machines could not move; nothing has happened to them. With --force they are switched off, and "
			"started elsewhere as soon as there is a place. Afterwards unmount the volumes there and stop corosync, or shut the node "
			"down, which does both.",
		.opts = { { "force", "[=REASON]", "switch off what cannot move", false } },
		.cols = { { "node", "NODE", CC_TEXT }, { "state", "STATE", CC_TEXT }, { "moved", "MOVED", CC_LIST }, { "stayed", "STAYED", CC_LIST } },
	},
	{
		.noun = "node", .verb = "confirm-fenced", .run = cc_node_confirm_fenced, .args = "NODE", .args_min = 1, .args_max = 1,
		.change = true,
		.help = "say that a lost node which could not be fenced is off",
		.text = "For when no fence agent can do it: you have made sure with your own eyes that the node is off and stays off. What it "
			"had locked is recovered on your word, on all volumes mounted here that wait for it, and its virtual machines may be "
			"started elsewhere. If it is not off, two nodes write and the volume is lost; so --yes is needed. Refused (exit code 9) while the node is a member of the cluster or its "
			"heartbeat on the disk moves. NODE is a name or a node id of corosync's.",
		.opts = { { "yes", NULL, "I have made sure that it is off", false }, VOLUME_OPT,
			  { "force", "[=REASON]", "open its virtual machines' leases even though its heartbeat says otherwise; the reason is logged", false } },
		.cols = { { "node", "NODE", CC_TEXT }, { "volume", "VOLUME", CC_TEXT }, { "result", "RESULT", CC_TEXT } },
	},
	{
		.noun = "volume", .verb = "list", .run = cc_volume_list,
		.help = "list the volumes mounted on this node",
		.cols = { { "name", "VOLUME", CC_TEXT }, { "dir", "MOUNTED AT", CC_TEXT }, { "device", "DEVICE", CC_TEXT },
			  { "state", "STATE", CC_TEXT }, { "slot", "SLOT", CC_INT }, { "members", "MEMBERS", CC_INT },
			  { "size_bytes", "SIZE", CC_SIZE }, { "free_bytes", "FREE", CC_SIZE } },
	},
	{
		.noun = "volume", .verb = "show", .run = cc_volume_show, .args = "[VOLUME...]", .args_max = 16, .pairs = true,
		.help = "show everything about volumes mounted on this node",
		.text = "State with its reason, members, recoveries of lost nodes with their times and what they wait for, locks of lost "
			"nodes and who waits for them, nodes that were evicted and why, free space, counters of I/O, of the mesh and of the journal. VOLUME is a mount "
			"point, device, label or uuid; without one all are shown.",
		.cols = { { "name", "VOLUME", CC_TEXT }, { "dir", "MOUNTED AT", CC_TEXT }, { "state", "STATE", CC_TEXT },
			  { "reason", "REASON", CC_TEXT }, { "slot", "SLOT", CC_INT }, { "member_list", "MEMBERS", CC_LIST },
			  { "recoveries", "RECOVERIES", CC_LIST }, { "evictions", "EVICTIONS", CC_LIST }, { "phantoms", "PHANTOMS", CC_LIST }, { "size_bytes", "SIZE", CC_SIZE },
			  { "free_bytes", "FREE", CC_SIZE } },
	},
	{
		.noun = "lock", .verb = "list", .run = cc_lock_list,
		.help = "list cluster locks: those cached on this node and those it is the master of",
		.text = "A lock of a lost node is kept for it until it is fenced, and one that may have changed something until its journal is "
			"replayed; WAITS FOR says so, and what to type. BOUNCES counts how often a lock went to another node that asked for it. While "
			"locks are being recovered, a warning says how far that is and on whom it waits. JSON has at its top stats.messages_sent: lock messages this node has sent since the volume was mounted.",
		.opts = { { "path", "P", "of this file or directory only", false }, VOLUME_OPT },
		.cols = { { "name", "LOCK", CC_TEXT }, { "role", "ROLE", CC_TEXT }, { "mode", "MODE", CC_TEXT }, { "wanted", "WANTED", CC_TEXT },
			  { "holders", "HOLDERS", CC_INT }, { "waiters", "WAITERS", CC_INT }, { "held_ms", "HELD", CC_MS },
			  { "waited_ms", "WAITED", CC_MS }, { "bounces", "BOUNCES", CC_INT }, { "grants", "GRANTS", CC_LIST },
			  { "why", "WAITS FOR", CC_TEXT } },
	},
	{
		.noun = "lock", .verb = "show", .run = cc_lock_show, .args = "[NAME]", .args_max = 1, .pairs = true,
		.help = "show one cluster lock, for instance inode:4711, or those of a file",
		.text = "Every holder and who waits, with since when; of a lost node's what it is kept for, and what to type.",
		.opts = { { "path", "P", "all of this file or directory", false }, VOLUME_OPT },
		.cols = { { "name", "LOCK", CC_TEXT }, { "role", "ROLE", CC_TEXT }, { "mode", "MODE", CC_TEXT }, { "grants", "GRANTS", CC_LIST } },
	},
	{
		.noun = "vhd", .verb = "create", .run = cc_vhd_create, .args = "PATH", .args_min = 1, .args_max = 1, .change = true, .paths = true,
		.help = "create a virtual disk",
		.text = "A fixed disk has all its space at once, a dynamic one grows as it is written. The disk is durable when the command "
			"returns, and has exactly the size asked for for every reader. On a csvfs volume it is used as MOUNT/.raw/PATH. A PATH whose \"..\" leads "
			"out of the volume is refused. An "
			"interruption leaves nothing behind.",
		.opts = { { "size", "S", "of the disk: bytes, or with K, M, G, T (powers of 1024)", true },
			  { "format", "F", "vhd or vhdx (default: vhdx if PATH ends so, else vhd)", false },
			  { "type", "T", "fixed (default), dynamic or diff (not supported yet)", false },
			  { "block-size", "S", "by which a dynamic disk grows: a power of two (default 2M)", false },
			  { "sector-size", "N", "of a VHDX: 512 (default) or 4096", false },
			  { "parent", "P", "of a differencing disk (not supported yet)", false } },
		.cols = { { "path", "PATH", CC_TEXT }, { "format", "FORMAT", CC_TEXT }, { "type", "TYPE", CC_TEXT },
			  { "virtual_size_bytes", "SIZE", CC_SIZE }, { "file_size_bytes", "FILE", CC_SIZE }, { "uuid", "UUID", CC_TEXT } },
	},
	{
		.noun = "vhd", .verb = "info", .run = cc_vhd_info, .args = "PATH...", .args_min = 1, .args_max = 64, .pairs = true, .paths = true,
		.help = "show what a virtual disk is",
		.cols = { { "path", "PATH", CC_TEXT }, { "format", "FORMAT", CC_TEXT }, { "type", "TYPE", CC_TEXT },
			  { "virtual_size_bytes", "SIZE", CC_SIZE }, { "file_size_bytes", "FILE", CC_SIZE }, { "creator", "CREATOR", CC_TEXT },
			  { "created_s", "CREATED", CC_INT }, { "uuid", "UUID", CC_TEXT } },
	},
	{
		.noun = "vhd", .verb = "check", .run = cc_vhd_check, .args = "PATH...", .args_min = 1, .args_max = 64, .paths = true,
		.help = "check virtual disks for damage; nothing is written",
		.text = "Structure, every block's place and that none overlaps another; space that no block uses is said to be reclaimable, "
			"which is no damage. Exit code 1 when one is damaged: the message names the field, its value and what is allowed; 12 "
			"when one is of a kind that is not supported yet.",
		.cols = { { "path", "PATH", CC_TEXT }, { "result", "RESULT", CC_TEXT }, { "type", "TYPE", CC_TEXT }, { "finding", "FINDING", CC_TEXT } },
	},
	{
		.noun = "vhd", .verb = "users", .run = cc_vhd_users,
		.help = "list who on this node has files open for writing, and disks through .raw",
		.text = "A disk and the image that holds it are one: while one is open for writing anywhere, the other is busy. JSON has at its "
			"top the latest refusals with the node and process that was in the way.",
		.opts = { VOLUME_OPT },
		.cols = { { "inode", "INODE", CC_TEXT }, { "use", "USE", CC_TEXT }, { "writing", "WRITING", CC_BOOL }, { "pid", "PID", CC_INT },
			  { "process", "PROCESS", CC_TEXT }, { "open_ms", "OPEN", CC_MS }, { "node", "NODE", CC_TEXT },
			  { "volume", "VOLUME", CC_TEXT }, { "path", "PATH", CC_TEXT } },
	},
	{
		.noun = "vm", .verb = "create", .run = cc_vm_create, .args = "NAME", .args_min = 1, .args_max = 1, .change = true, .job = true, .pairs = true,
		.help = "define a virtual machine on disks of the volume",
		.text = "A disk is one virtual machine's: one that is another's already is refused. Its definition is a folder vms/NAME on the volume; kernel and initrd are copied there. It is not started. A disk is an image "
			"on the volume (VHD, VHDX or raw, by its name's end), shown to the guest as virtio-scsi. With high availability (the default) it "
			"is started elsewhere when its node is lost.",
		.opts = { { "disk", "PATH...", "an image on the volume; again for each further one", true },
			  { "memory", "S", "bytes, or with K, M, G (default 512M)", false }, { "cpus", "N", "virtual processors (default 1)", false },
			  { "kernel", "F", "boot this kernel instead of from the disk; a file of this node", false },
			  { "initrd", "F", "with this initramfs", false }, { "append", "S", "and this kernel command line", false },
			  { "bridge", "B", "a virtio network card on this bridge of the nodes", false },
			  { "node", "N", "where it is started first, if that node can have it", false },
			  { "accel", "A", "auto (default: KVM where it works), kvm or tcg", false },
			  { "priority", "N", "which are started first after a loss: 0 to 255, more is first (default 100)", false },
			  { "port", "SOCKET", "connect its second serial port to this socket of the host it runs on", false },
			  { "no-ha", NULL, "leave it alone when its node is lost", false } },
		.cols = VM_COLS,
	},
	{
		.noun = "vm", .verb = "start", .run = cc_vm_start, .args = "NAME", .args_min = 1, .args_max = 1, .change = true, .job = true, .pairs = true,
		.help = "start a virtual machine",
		.text = "When no node can have it or three starts failed this is reported, and it stays off until it is started again. One that was to "
			"run before (it waits for a node) goes on being so; vm stop ends that.",
		.opts = { { "node", "N", "there, and nowhere else just now", false } },
		.cols = VM_COLS,
	},
	{
		.noun = "vm", .verb = "stop", .run = cc_vm_stop, .args = "NAME", .args_min = 1, .args_max = 1, .change = true, .job = true, .pairs = true,
		.help = "shut a virtual machine down",
		.text = "The guest is asked (ACPI power button); when it has not shut down after the grace it is switched off. It stays stopped, whatever "
			"happens to nodes.",
		.opts = { { "grace", "SECONDS", "how long the guest has (default 60)", false },
			  { "force", "[=REASON]", "switch it off at once", false } },
		.cols = VM_COLS,
	},
	{
		.noun = "vm", .verb = "list", .run = cc_vm_list,
		.help = "list the cluster's virtual machines, where each may run, and what is wanted",
		.text = "STATE is that of its right to run: RUNNING, FREE (it does not run), RECOVERING (it is being started), HANDOFF (it is being handed "
			"over), BLOCKED (nobody may run it until it is proven that nobody does; REASON says what to do). After all nodes were off the "
			"definitions on the volume are read first: until then those that were known last are listed, BLOCKED, and a warning says why and what to "
			"type. JSON has at its top then unknown (volume, reason, command), and waits_for_nodes (node, reason, command): who has not said "
			"since what it runs.",
		.cols = VM_COLS,
	},
	{
		.noun = "vm", .verb = "show", .run = cc_vm_show, .args = "NAME", .args_min = 1, .args_max = 1, .pairs = true,
		.help = "show everything about a virtual machine: definition, lease, process, console",
		.cols = VM_COLS,
	},
	{
		.noun = "vm", .verb = "delete", .run = cc_vm_delete, .args = "NAME", .args_min = 1, .args_max = 1, .change = true, .job = true, .pairs = true,
		.help = "forget a virtual machine; its disks stay",
		.opts = { { "yes", NULL, "I mean it", false } },
		.cols = VM_COLS,
	},
	{
		.noun = "vm", .verb = "console", .run = cc_vm_console, .args = "NAME", .args_min = 1, .args_max = 1,
		.help = "talk to a virtual machine's serial console, on the node where it runs",
		.text = "Left with Ctrl-], or at the end of a script's input with --until-eof.",
		.opts = { { "until-eof", NULL, "end with the standard input", false } },
		.cols = { { "name", "VM", CC_TEXT }, { "path", "SOCKET", CC_TEXT } },
	},
	{
		.noun = "migration", .verb = "start", .run = cc_migration_start, .args = "VM", .args_min = 1, .args_max = 1, .change = true, .job = true,
		.pairs = true,
		.help = "move a running virtual machine to another node, live",
		.text = "One migration of a node at a time; others queue. When it fails, the virtual machine runs on where it was. --dry-run says what "
			"it would be like, as migration plan.",
		.opts = { { "to", "NODE", "where to (default: the best place)", false } },
		.cols = MIGRATION_COLS,
	},
	{
		.noun = "migration", .verb = "list", .run = cc_migration_list,
		.help = "list live migrations, also finished ones",
		.cols = MIGRATION_COLS,
	},
	{
		.noun = "migration", .verb = "show", .run = cc_migration_show, .args = "ID", .args_min = 1, .args_max = 1, .pairs = true,
		.help = "show one migration with its steps and their times",
		.cols = MIGRATION_COLS,
	},
	{
		.noun = "migration", .verb = "cancel", .run = cc_migration_cancel, .args = "ID", .args_min = 1, .args_max = 1, .change = true, .pairs = true,
		.help = "cancel a live migration; the virtual machine runs on where it is",
		.text = "ID: of the migration, or the name of a virtual machine that is being migrated. One that waits for others is taken from the "
			"queue. Refused (4) when it is past its switch-over.",
		.cols = MIGRATION_COLS,
	},
	{
		.noun = "migration", .verb = "plan", .run = cc_migration_plan, .args = "VM", .args_min = 1, .args_max = 1, .pairs = true,
		.help = "predict how long a migration would take, its pause, and whether it would get through",
		.text = "Measures for a second how fast the guest changes its memory, and reckons with the speed of the link.",
		.opts = { { "to", "NODE", "where to (default: the best place)", false } },
		.cols = { { "vm", "VM", CC_TEXT }, { "from", "FROM", CC_TEXT }, { "to", "TO", CC_TEXT }, { "memory_bytes", "MEMORY", CC_SIZE },
			  { "dirty_bytes_per_s", "CHANGED/S", CC_SIZE }, { "link_bytes_per_s", "LINK/S", CC_SIZE }, { "passes", "PASSES", CC_INT },
			  { "converges", "CONVERGES", CC_BOOL }, { "total_ms", "TOTAL", CC_MS }, { "pause_ms", "PAUSE", CC_MS } },
	},
	{
		.noun = "ha", .verb = "status", .run = cc_ha_status,
		.help = "show what is restarted by itself, and what stands in the way",
		.text = "Warns, as vm list does, while virtual machines cannot be known.",
		.cols = { { "name", "VM", CC_TEXT }, { "ha", "HA", CC_BOOL }, { "priority", "PRIORITY", CC_INT }, { "want", "WANT", CC_TEXT },
			  { "state", "STATE", CC_TEXT }, { "node", "NODE", CC_TEXT }, { "reason", "REASON", CC_TEXT } },
	},
	{
		.noun = "ha", .verb = "enable", .run = cc_ha_enable, .args = "VM", .args_min = 1, .args_max = 1, .change = true, .job = true,
		.help = "let a virtual machine be started elsewhere when its node is lost",
		.opts = { { "priority", "N", "which are started first: 0 to 255, more is first", false } },
		.cols = { { "name", "VM", CC_TEXT }, { "ha", "HA", CC_BOOL }, { "priority", "PRIORITY", CC_INT } },
	},
	{
		.noun = "ha", .verb = "disable", .run = cc_ha_disable, .args = "VM", .args_min = 1, .args_max = 1, .change = true, .job = true,
		.help = "leave a virtual machine alone when its node is lost",
		.cols = { { "name", "VM", CC_TEXT }, { "ha", "HA", CC_BOOL }, { "priority", "PRIORITY", CC_INT } },
	},
	{
		.noun = "job", .verb = "show", .run = cc_job_show, .args = "ID", .args_min = 1, .args_max = 1, .pairs = true,
		.help = "show how far a long piece of work is",
		.cols = JOB_COLS,
	},
	{
		.noun = "job", .verb = "list", .run = cc_job_list,
		.help = "list long pieces of work, also finished ones",
		.cols = JOB_COLS,
	},
	{
		.noun = "event", .verb = "list", .run = cc_event_list,
		.help = "list what happened in the cluster, as this node has it",
		.text = "In the order in which it happened. What happened while this node was away it gets from the others within seconds of coming back; in "
			"-o json such an event says \"late\": true. Each node keeps the newest 2000.",
		.opts = { { "last", "N", "the newest N (default 100)", false }, { "after", "SEQ", "only those after this number", false },
			  { "vm", "NAME", "only those of this virtual machine", false }, { "node", "NODE", "only those about this node", false } },
		.cols = EVENT_COLS,
	},
	{
		.noun = "event", .verb = "watch", .run = cc_event_watch,
		.help = "show events as they happen",
		.text = "Until a signal, --count events, or --timeout. With -o json or jsonl an event a line. Exit code 7 when there were fewer than "
			"--count.",
		.opts = { { "count", "N", "end after N events", false }, { "vm", "NAME", "only those of this virtual machine", false }, { "node", "NODE", "only those about this node", false } },
		.cols = EVENT_COLS,
	},
};
const size_t cc_cmds_n = ARRAY_SIZE(cc_cmds);

const struct cc_opt cc_globals[] = {
	{ "output", "FORMAT", "-o: table (default), json, jsonl (an item a line), name", false },
	{ "timeout", "SECONDS", "give up waiting for a daemon's answer after this time (default 30)", false },
	{ "help", NULL, "-h: show help", false },
	{ NULL, NULL, NULL, false },
};

const struct cc_code cc_codes[] = {
	{ RPC_OK, "ok" }, { RPC_FAILED, "failed" }, { RPC_USAGE, "wrong use" }, { RPC_NOT_FOUND, "not found" },
	{ RPC_CONFLICT, "conflict, or in the wrong state" }, { RPC_PERMISSION, "permission denied" },
	{ RPC_NO_QUORUM, "no quorum, or no leader" }, { RPC_TIMEOUT, "time-out" }, { RPC_PARTIAL, "done in part" },
	{ RPC_REFUSED, "refused by policy or for safety" }, { RPC_CANCELLED, "cancelled" },
	{ RPC_NEEDS_PROOF, "needs an operator's proof" }, { RPC_UNSUPPORTED, "not supported by guest, host or QEMU, or not by this version" },
	{ RPC_ACCEPTED, "accepted, still running" }, { RPC_BUG, "a bug of csvfs" }, { RPC_INTERRUPTED, "interrupted" },
};
const size_t cc_codes_n = ARRAY_SIZE(cc_codes);
