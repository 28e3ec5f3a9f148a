# shellcheck shell=bash
# Lab nodes: build one, run something in one, its corosync, cut its power, freeze it.
#
# Invariants
# - node_off succeeds only when the kernel says `populated 0`: nothing of the node runs any more, and
#   no I/O of it is under way (the kernel waits for a process' aio before the process is gone).
# - The node's lock is held while its namespaces are made or destroyed, never while something waits
#   for a mount: a mount may itself have to fence a node.

node_dir()
{
	echo "$LAB_STATE/nodes/$1"
}

# The process that holds the node's namespaces; fails when the node is off
node_pid()
{
	local pid
	pid=$(cat "$(node_dir "$1")/holder" 2>/dev/null) &&
		grep -q "/csvfs-lab/$LAB/$1\$" "/proc/$pid/cgroup" 2>/dev/null && echo "$pid"
}

# node_state NODE: up, down or frozen
node_state()
{
	if cg_is_empty "$LAB_CG/$1"; then
		echo down
	elif grep -qx 'frozen 1' "$LAB_CG/$1/cgroup.events" 2>/dev/null; then
		echo frozen
	elif node_pid "$1" >/dev/null; then
		echo up
	else
		echo broken
	fi
}

# node_exec NODE CMD…: become CMD inside the node (does not return)
node_exec()
{
	local node=$1 pid
	shift
	case $(node_state "$node") in
	up) ;;
	frozen) lab_die 1 "node $node is frozen: run '$LAB_SELF thaw $node --name $LAB'" ;;
	*) lab_die 1 "node $node is off: run '$LAB_SELF start $node --name $LAB'" ;;
	esac
	pid=$(node_pid "$node")
	echo "$BASHPID" >"$LAB_CG/$node/cgroup.procs" ||
		lab_die 1 "node $node: its cgroup cannot be entered: is the node being killed?"
	exec 9>&-
	# Whoever started the lab in the background has left SIGINT ignored.
	exec env --default-signal=INT,QUIT CSV_LAB="$LAB" CSV_NODE="$node" CSV_NODE_ID="$(node_id "$node")" \
		CSV_DEVICE="$DEVICE" CSV_MOUNT="$LAB_MOUNT" CSV_BUILD="$CSV_BUILD" \
		CSV_LAB_STATE="$LAB_STATE" CSVFSD_LOG="$(node_dir "$node")/log/csvfsd.log" PATH="$(build_path)" \
		nsenter -t "$pid" -m -n -u --wdns="$PWD" -- "$@"
}

node_run()
{
	(node_exec "$@")
}

# node_daemon NODE LOG CMD…: start CMD in the node, detached from this terminal
node_daemon()
{
	local node=$1 log=$2
	shift 2
	(node_exec "$node" setsid --fork "$@" </dev/null >>"$log" 2>&1)
}

# Make the node's namespaces, card and address. Under the node's lock.
node_build()
{
	local node=$1 dir pid
	dir=$(node_dir "$node")
	[[ $(node_state "$node") == down ]] ||
		lab_die 1 "node $node is $(node_state "$node") already: run '$LAB_SELF kill $node --name $LAB' first"
	mkdir -p "$LAB_CG/$node"
	(
		cd / && echo "$BASHPID" >"$LAB_CG/$node/cgroup.procs" && exec 9>&- &&
			exec unshare -m -n -u --propagation private -- "$LAB_DIR/node_init" "$LAB_STATE" "$node"
	) || return 1
	wait_until 5000 one_process "$LAB_CG/$node" || return 1
	pid=$(cat "$LAB_CG/$node/cgroup.procs")
	echo "$pid" >"$dir/holder"
	net_node_up "$node" "$pid"
}

# The files that survive the node's death: its "disk"
node_files()
{
	local node=$1 dir p
	dir=$(node_dir "$node")
	mkdir -p "$dir"/{mnt,log,fs/etc/corosync/uidgid.d,fs/etc/csvfs,fs/var/lib/{corosync,csvfs},fs/sbin}
	for p in mount.csvfs umount.csvfs fsck.csvfs mkfs.csvfs; do
		ln -sf "$CSV_BUILD/$p" "$dir/fs/sbin/$p"
	done
	# the kernel's name of the type is fuse.csvfs
	ln -sf "$CSV_BUILD/umount.csvfs" "$dir/fs/sbin/umount.fuse.csvfs"
	ln -sf "$CSV_BUILD/mount.csvfs" "$dir/fs/sbin/mount.fuse.csvfs"
}

# cluster_configure: as an administrator does it: csvctl makes the configuration on n1, the others take it over. Until it has,
# corosync on a node does not start. Fewer than three nodes have no third vote: they must all be up.
cluster_configure()
{
	local i node bundle=$LAB_STATE/bundle agent=${LAB_DIR//,/\\,}/fence_lab args=(--name "$LAB" --token 1000)
	for ((i = 1; i <= NODES; i++)); do
		args+=(--node "n$i=$LAB_NET.$i" --fence "n$i=$agent,plug=n$i,lab=$LAB")
	done
	((NODES > 2)) || args+=(--force "a lab of $NODES")
	for node in $(node_list); do
		if [[ $node == n1 ]]; then
			node_run n1 csvctl cluster init "${args[@]}" && node_run n1 csvctl cluster bundle "$bundle"
		else
			node_run "$node" csvctl cluster join "$bundle"
		fi </dev/null >"$(node_dir "$node")/log/configure.log" 2>&1 || {
			lab_err "node $node: not configured: $(tail -n 1 "$(node_dir "$node")/log/configure.log")"
			return 1
		}
	done
}

corosync_start()
{
	node_daemon "$1" "$(node_dir "$1")/log/corosync.err" corosync -f
}

# Lines "quorate members", for example "Yes 3"
corosync_view()
{
	(node_exec "$1" timeout 5 corosync-quorumtool -s) 2>/dev/null </dev/null |
		awk '/^Nodes:/ { n = $2 } /^Quorate:/ { q = $2 } END { print q, n + 0; exit q == "" }'
}

corosync_answers()
{
	corosync_view "$1" >/dev/null
}

# corosync_is NODE WHAT: WHAT is quorate, inquorate or members=N
corosync_is()
{
	local view
	view=$(corosync_view "$1") || return 1
	case $2 in
	quorate) [[ $view == Yes\ * ]] ;;
	inquorate) [[ $view == No\ * ]] ;;
	members=*) [[ ${view#* } == "${2#members=}" ]] ;;
	esac
}

corosync_wait_up()
{
	wait_until 20000 corosync_answers "$1" || {
		lab_err "node $1: corosync does not answer after 20 s; its last lines:"
		tail -n 5 "$(node_dir "$1")"/log/corosync.{err,log} >&2
		return 1
	}
}

# daemons_start NODE: hvhostd and migratord, in a lab that has them
daemons_start()
{
	local d
	[[ $VMS == yes ]] || return 0
	for d in "hvhostd --accel tcg --log-dir $(node_dir "$1")/log" migratord; do
		# shellcheck disable=SC2086
		node_daemon "$1" "$(node_dir "$1")/log/${d%% *}.log" $d || {
			lab_err "node $1: ${d%% *} does not start: see $(node_dir "$1")/log/${d%% *}.log"
			return 1
		}
	done
}

vms_answer()
{
	(node_exec "$1" csvctl vm list --timeout 5) >/dev/null 2>&1 </dev/null
}

daemons_wait()
{
	[[ $VMS == no ]] || wait_until 30000 vms_answer "$1" || {
		lab_err "node $1: migratord does not answer after 30 s; last lines of the daemons:"
		tail -n 3 "$(node_dir "$1")"/log/{hvhostd,migratord}.log >&2
		return 1
	}
}

# node_off NODE: power cut. Under the node's lock. The port dies first: a power cut sends no FIN.
node_off()
{
	local node=$1
	net_unplug "$node"
	cg_kill "$LAB_CG/$node" 30000 || {
		lab_err "node $node: still alive after 30 s: $(cg_survivors "$LAB_CG/$node"): see /proc/PID/stack"
		return 1
	}
	cg_remove "$LAB_CG/$node" || true
	net_node_down "$node"
	rm -f "$(node_dir "$node")/holder"
}

node_freeze()
{
	echo "$2" >"$LAB_CG/$1/cgroup.freeze" &&
		wait_until 10000 grep -qx "frozen $2" "$LAB_CG/$1/cgroup.events"
}
