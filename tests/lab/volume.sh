# shellcheck shell=bash
# Lab volume: the shared device of a lab, and mounting it on a node.
#
# Invariants
# - Nobody else's loop device is ever detached and nobody else's image removed: what the lab makes is
#   written down in its conf (LOOP, OWN_IMAGE) before or as soon as it is there. An image that was kept
#   is somebody else's from then on.

LAB_MOUNT=/srv/csv

# Where a build tree has its programs
build_path()
{
	local b=$CSV_BUILD
	echo "$b:$PATH:/usr/sbin:/sbin"
}

# programs_need NAME…: fail with a clear line when one is not built
programs_need()
{
	local p
	for p; do
		PATH=$(build_path) command -v "$p" >/dev/null ||
			lab_die 1 "program $p is not in $CSV_BUILD: build it ('make'), or set CSV_BUILD"
	done
}

# device_attach: sets DEVICE (what the nodes open) and LOOP (to detach, or empty)
device_attach()
{
	local path=$DEVICE_ARG
	LOOP=
	if [[ -b $path ]]; then
		DEVICE=$path
		return 0
	fi
	if [[ -z $path ]]; then
		path=$LAB_IMAGE
		[[ ! -e $path ]] ||
			lab_die 1 "image $path was kept by an earlier down: use it with --device, or remove it"
		OWN_IMAGE=yes
		conf_write || return 1
		mkdir -p "$(dirname "$path")" && truncate -s "$SIZE" "$path" || return 1
	elif [[ ! -f $path ]]; then
		lab_die 1 "device $path: neither a block device nor a regular file: create it or leave --device out"
	fi
	# A Ctrl-C must not end losetup between attaching and saying what it attached.
	LOOP=$(setsid -w losetup --direct-io=on --find --show "$path") || {
		lab_err "image $path: no loop device: see 'losetup -a'"
		return 1
	}
	DEVICE=$LOOP
}

device_is_blank()
{
	cmp -s -n 1048576 "$1" /dev/zero
}

device_format()
{
	# A device that somebody hands over keeps what is on it; a blank one is formatted.
	if [[ -z $DEVICE_ARG ]] || device_is_blank "$DEVICE"; then
		(PATH=$(build_path) exec mkfs.csvfs -n 8 "$DEVICE") >"$LAB_STATE/mkfs.log" 2>&1 || {
			lab_err "mkfs.csvfs $DEVICE failed: $(tail -n 2 "$LAB_STATE/mkfs.log" | tr '\n' ' ')"
			return 1
		}
	fi
}

loop_is_gone()
{
	[[ ! -e /sys/block/${1#/dev/}/loop/backing_file ]]
}

# device_detach: also when `up` was interrupted before it wrote the conf
device_detach()
{
	local loop loops=
	[[ $OWN_IMAGE == no ]] ||
		loops=$(losetup -j "$LAB_IMAGE" --noheadings -O NAME --list 2>/dev/null)
	for loop in $loops ${LOOP:-}; do
		loop_is_gone "$loop" && continue
		losetup -d "$loop" 2>/dev/null
		wait_until 10000 loop_is_gone "$loop" || {
			lab_err "loop device $loop is still in use: see 'fuser -v $loop', then 'losetup -d $loop'"
			return 1
		}
	done
	[[ $OWN_IMAGE == no ]] || rm -f "$LAB_IMAGE"
}

node_is_mounted()
{
	(node_exec "$1" mountpoint -q "$LAB_MOUNT") 2>/dev/null
}

# node_mount NODE: mount the volume there and wait until it is
node_mount()
{
	local node=$1 log
	log=$(node_dir "$node")/log/mount.log
	(node_exec "$node" timeout 90 mount.csvfs "$DEVICE" "$LAB_MOUNT" -o "fence=/etc/csvfs/fence.conf${LAB_MOUNT_OPTIONS:+,$LAB_MOUNT_OPTIONS}") \
		</dev/null >>"$log" 2>&1 || {
		[[ $(node_state "$node") != down ]] ||
			lab_err "node $node: was switched off while it mounted: the others had not yet fenced its last life; start it again"
		lab_err "node $node: mount.csvfs $DEVICE $LAB_MOUNT failed: $(tail -n 3 "$log" | tr '\n' ' ')(whole log: $log)"
		return 1
	}
	wait_until 30000 node_is_mounted "$node" || {
		lab_err "node $node: $LAB_MOUNT is not mounted 30 s after mount.csvfs ended: see $log"
		return 1
	}
}
