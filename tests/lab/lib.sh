# shellcheck shell=bash
# Lab basics: names and paths of one lab, messages, bounded waiting, cgroups.
#
# Invariants
# - Everything of lab L is found from its name alone: cgroup .../csvfs-lab/L, state /run/csvfs-lab/L,
#   image /var/tmp/csvfs-lab/L. So `down` works with a half-built or half-gone lab.
# - A node is its cgroup. Its namespaces are held by processes of that cgroup and by nothing else, so
#   they vanish, with every mount in them, when the cgroup is empty.
# - A process enters a node's cgroup before it enters the node's namespaces.

# For people: object, reason, what to do.
lab_err()
{
	echo "lab ${LAB:-?}: $*" >&2
}

lab_die()
{
	local code=$1
	shift
	lab_err "$@"
	exit "$code"
}

# lab_paths NAME: set the paths of a lab
lab_paths()
{
	LAB=$1
	[[ $LAB =~ ^[a-z0-9][a-z0-9_.-]{0,31}$ ]] || {
		echo "lab: name '$LAB': 1 to 32 of a-z 0-9 _ . -, starting with a letter or digit" >&2
		exit 2
	}
	LAB_ROOT=/run/csvfs-lab
	LAB_STATE=$LAB_ROOT/$LAB
	LAB_IMAGES=${CSV_LAB_IMAGES:-/var/tmp/csvfs-lab}
	LAB_IMAGE=$LAB_IMAGES/$LAB/disk.img
	LAB_CG_ROOT=$(cg_find_root)
	LAB_CG=$LAB_CG_ROOT/csvfs-lab/$LAB
	# An address per lab only so that a log line tells which lab it is from: the networks are
	# separate anyway.
	local sum
	sum=$(printf %s "$LAB" | cksum)
	LAB_NET=10.77.$((${sum%% *} % 250 + 1))
	LAB_MAC=$(printf '02:c5:00:00:%02x' $((${sum%% *} % 250 + 1)))
}

# lab_load: read what `up` wrote down; fails when the lab is not up
lab_load()
{
	[[ -r $LAB_STATE/conf ]] || lab_die 1 "is not up: run '$LAB_SELF up --name $LAB'"
	# shellcheck source=/dev/null
	. "$LAB_STATE/conf"
}

node_id()
{
	echo "${1#n}"
}

# node_check NODE: it is one of this lab's
node_check()
{
	[[ $1 =~ ^n[1-9][0-9]?$ ]] && ((${1#n} <= NODES)) ||
		lab_die 2 "no node '$1': this lab has n1 to n$NODES"
}

node_list()
{
	local i
	for ((i = 1; i <= NODES; i++)); do
		echo "n$i"
	done
}

# wait_until MS CMD…: true as soon as CMD is, false when the time is over
wait_until()
{
	local end=$((${EPOCHREALTIME/./} + $1 * 1000))
	shift
	while ! "$@"; do
		((${EPOCHREALTIME/./} < end)) || return 1
		sleep 0.02
	done
}

# with_lock FILE SECONDS CMD…: run CMD with FILE locked; the lock is not inherited by daemons
# because lab_spawn and lab_enter close it.
with_lock()
{
	local file=$1 secs=$2 rc=0
	shift 2
	exec 9>"$file" || return 1
	flock -w "$secs" 9 || {
		exec 9>&-
		lab_die 1 "$file is locked by another lab command for more than $secs s: see 'fuser $file'"
	}
	"$@" || rc=$?
	exec 9>&-
	return $rc
}

# ---- cgroups ----

LAB_CG_OWN=/run/csvfs-lab-cgroup2

# The cgroup2 tree: the system's, wherever it is mounted; else one of our own, which `up` mounts and
# which goes with the last lab.
cg_find_root()
{
	awk -v own="$LAB_CG_OWN" '$3 == "cgroup2" { print $2; found = 1; exit } END { if (!found) print own }' \
		/proc/self/mounts
}

# Under the lock of all labs
cg_root_make()
{
	[[ $LAB_CG_ROOT == "$LAB_CG_OWN" ]] || return 0
	mountpoint -q "$LAB_CG_OWN" || { mkdir -p "$LAB_CG_OWN" && mount -n -t cgroup2 cgroup2 "$LAB_CG_OWN"; } || {
		lab_err "no cgroup2 tree is mounted and none can be at $LAB_CG_OWN: run as root on a kernel with cgroup v2"
		return 1
	}
}

cg_pids()
{
	find "$1" -name cgroup.procs -exec cat {} + 2>/dev/null
}

cg_is_empty()
{
	[[ ! -d $1 ]] || grep -qx 'populated 0' "$1/cgroup.events" 2>/dev/null
}

# cg_kill DIR MS: kill everything in the cgroup; success only when it is proven empty
cg_kill()
{
	[[ -d $1 ]] || return 0
	{ echo 1 >"$1/cgroup.kill"; } 2>/dev/null || [[ ! -d $1 ]] || return 1
	wait_until "$2" cg_is_empty "$1"
}

# cg_remove DIR: remove an empty cgroup with all below it
cg_remove()
{
	[[ -d $1 ]] || return 0
	find "$1" -depth -type d -exec rmdir {} + 2>/dev/null
	[[ ! -d $1 ]]
}

# What is still alive in a cgroup, for messages
cg_survivors()
{
	local pid
	for pid in $(cg_pids "$1"); do
		printf '%s(%s,%s) ' "$pid" "$(cat "/proc/$pid/comm" 2>/dev/null)" \
			"$(awk '/^State/ { print $2 }' "/proc/$pid/status" 2>/dev/null)"
	done
}
