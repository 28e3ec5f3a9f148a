# shellcheck shell=bash
# Lab network: one bridge in a "switch" namespace of its own, one port per node, cuts as nft sets.
#
# Invariants
# - The host's network is never touched: pairs are created inside the switch's namespace and their
#   other end directly in the node's.
# - Every frame between nodes passes the bridge's forward hook, so a (from, to) pair in the set `cut`
#   means that nothing whatever gets from one to the other. A port in the set `off` is unplugged.
# - Cuts are by port name and outlive a node's death and restart.

# Run a command in the switch's network namespace
sw()
{
	local pid
	pid=$(switch_pid) || lab_die 1 "its switch is gone: run '$LAB_SELF down --name $LAB' and up again"
	nsenter -t "$pid" -n -- "$@" 9>&-
}

switch_pid()
{
	local pid
	pid=$(cat "$LAB_STATE/switch" 2>/dev/null) &&
		grep -q "/csvfs-lab/$LAB/switch\$" "/proc/$pid/cgroup" 2>/dev/null && echo "$pid"
}

switch_up()
{
	mkdir -p "$LAB_CG/switch"
	# The pid that enters the cgroup ends; what stays is the one process it leaves behind.
	(
		echo "$BASHPID" >"$LAB_CG/switch/cgroup.procs" &&
			exec unshare --net -- setsid --fork sleep infinity </dev/null >/dev/null 2>&1 9>&-
	) || return 1
	wait_until 5000 one_process "$LAB_CG/switch" || return 1
	cat "$LAB_CG/switch/cgroup.procs" >"$LAB_STATE/switch"
	sw sh -e -c '
		echo 1 >/proc/sys/net/ipv6/conf/default/disable_ipv6 2>/dev/null || true
		ip link set lo up
		ip link add br0 type bridge stp_state 0 forward_delay 0 mcast_snooping 0
		ip link set br0 up' || return 1
	sw nft -f - <<-NFT
		table bridge lab {
			set cut { type ifname . ifname; }
			set off { type ifname; }
			chain forward {
				type filter hook forward priority 0; policy accept;
				iifname @off drop
				oifname @off drop
				iifname . oifname @cut drop
			}
		}
	NFT
}

one_process()
{
	[[ $(wc -l <"$1/cgroup.procs") == 1 ]]
}

# net_node_up NODE PID: give the namespace of PID its port. The cards' addresses are fixed and known to
# all: a restart leaves no stale entry, and a cut in one direction does not, for want of an answer to
# "who has", become one in both.
net_node_up()
{
	local node=$1 pid=$2 id i others=
	id=$(node_id "$node")
	for ((i = 1; i <= NODES; i++)); do
		((i == id)) || others+="neigh add $LAB_NET.$i lladdr $LAB_MAC:$(printf %02x $i) dev eth0 nud permanent"$'\n'
	done
	sw ip link del "$node" 2>/dev/null
	sw ip link add "$node" type veth peer name eth0 address "$LAB_MAC:$(printf %02x "$id")" netns "$pid" &&
		sw ip link set "$node" master br0 up &&
		nsenter -t "$pid" -n -- sh -e -c "
			echo 1 >/proc/sys/net/ipv6/conf/all/disable_ipv6 2>/dev/null || true
			ip link set lo up
			ip addr add $LAB_NET.$id/24 dev eth0
			ip link set eth0 up
			echo '$others' | ip -batch -" 9>&- &&
		net_plug "$node"
}

# A power cut sends no farewell: the port is dead before the processes are.
net_unplug()
{
	sw nft add element bridge lab off "{ $1 }" 2>/dev/null
}

net_plug()
{
	sw nft delete element bridge lab off "{ $1 }" 2>/dev/null || true
}

net_node_down()
{
	sw ip link del "$1" 2>/dev/null || true
}

# net_cut FROM TO: frames from FROM no longer reach TO
net_cut()
{
	sw nft add element bridge lab cut "{ $1 . $2 }"
}

# net_join FROM TO: the cut there is undone
net_join()
{
	sw nft delete element bridge lab cut "{ $1 . $2 }"
}

net_heal()
{
	sw nft flush set bridge lab cut
}

# Lines "from to" of the present cuts
net_cuts()
{
	sw nft -j list set bridge lab cut |
		jq -r '.nftables[] | .set // empty | .elem // [] | .[] | .concat | "\(.[0]) \(.[1])"'
}
