#!/bin/bash
# Test guest: Debian's kernel, fetched once and cached, and an initramfs built on the spot from
# busybox and guest_init. To be sourced, or run as
#   guest.sh kernel                 print the path of the kernel, fetching it if necessary
#   guest.sh initrd OUT             build the initramfs
#   guest.sh disk OUT MIB [APPEND]  build a raw disk that boots by itself: partition 1 has the boot
#                                   loader, the kernel and the initramfs, partition 2 is for records
#   guest.sh records-offset         where partition 2 begins, in bytes
#
# Invariants
# - Only Debian's own package is used, through apt; nothing outside the cache directory is installed.
# - The cache is filled beside and renamed into place, so an interrupted run leaves nothing half done.

GUEST_DIR=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")
GUEST_BUILD=${CSV_BUILD:-$(readlink -f "$GUEST_DIR/../..")}
GUEST_CACHE=${XDG_CACHE_HOME:-/var/cache}/csvfs-tests
GUEST_MODULES="virtio_pci virtio_blk virtio_scsi sd_mod virtio_console virtio_net"

guest_err()
{
	echo "guest: $*" >&2
	return 1
}

# guest_kernel_package: the real package behind linux-image-amd64
guest_kernel_package()
{
	local name
	name=$(apt-cache depends --important linux-image-amd64 2>/dev/null |
		awk '$1 == "Depends:" && $2 ~ /^linux-image-6\.1\./ { print $2; exit }')
	[[ -n $name ]] || guest_err "package linux-image-amd64 is not in apt's lists: run 'apt-get update' (Debian 12)"
	echo "$name"
}

# guest_fetch: fill the cache; prints the directory that has vmlinuz and lib/modules
guest_fetch()
{
	local have rc=0
	mkdir -p "$GUEST_CACHE" || return 1
	exec {guest_lock}>"$GUEST_CACHE/.lock" && flock "$guest_lock" || return 1
	have=$(guest_cached)
	if [[ -z $have ]]; then
		guest_fetch_new || rc=1
	fi
	exec {guest_lock}>&-
	((rc == 0)) || return 1
	guest_cached
}

# guest_cached: the newest directory of the cache that has all modules, or nothing
guest_cached()
{
	local wanted
	find "$GUEST_CACHE" -maxdepth 2 -path '*/linux-image-6.1.*/wanted' 2>/dev/null | sort -V | while read -r wanted; do
		[[ $(cat "$wanted") != "$GUEST_MODULES" ]] || dirname "$wanted"
	done | tail -n 1
}

guest_fetch_new()
{
	local name tmp ver
	name=$(guest_kernel_package) || return 1
	tmp=$(mktemp -d "$GUEST_CACHE/tmp.XXXXXX") || return 1
	# apt's own user cannot write here; as root it falls back with a notice, which is not an error
	(cd "$tmp" && apt-get -qq -o APT::Sandbox::User=root download "$name" && dpkg -x ./*.deb x) >&2 || {
		rm -rf "$tmp"
		guest_err "package $name cannot be fetched or unpacked: check the network and 'apt-get update'"
		return 1
	}
	ver=$(ls "$tmp/x/lib/modules")
	depmod -b "$tmp/x" "$ver" && mv "$tmp/x/boot/vmlinuz-$ver" "$tmp/x/vmlinuz" &&
		guest_modules_keep "$tmp/x" "$ver" && rm -rf "$tmp/x/boot" "$tmp/x/usr" && echo "$GUEST_MODULES" >"$tmp/x/wanted" &&
		rm -rf "${GUEST_CACHE:?}/$name+" && mv "$tmp/x" "$GUEST_CACHE/$name+" || { rm -rf "$tmp"; return 1; }
	rm -rf "$tmp"
}

# guest_modules_keep DIR VERSION: the few modules of the guest and the order to load them in; the
# other 300 MB go
guest_modules_keep()
{
	local dir=$1 ver=$2 m path
	mkdir "$dir/keep" || return 1
	: >"$dir/modules"
	for m in $GUEST_MODULES; do
		modprobe -d "$dir" -S "$ver" --show-depends "$m" |
			awk '$1 == "insmod" { print $2 }'
	done | awk '!seen[$0]++' | while read -r path; do
		cp "$path" "$dir/keep/" && echo "/mod/$(basename "$path")" >>"$dir/modules"
	done
	[[ -s $dir/modules ]] && rm -rf "${dir:?}/lib" && mv "$dir/keep" "$dir/mod"
}

guest_kernel()
{
	local dir
	dir=$(guest_fetch) && echo "$dir/vmlinuz"
}

# guest_program NAME: a built test program
guest_program()
{
	local p=$GUEST_BUILD/tests/lab/$1
	[[ -x $p ]] || { guest_err "program $p is missing: run make, or set CSV_BUILD"; return 1; }
	echo "$p"
}

guest_initrd()
{
	local out=$1 dir init tmp rc=0
	dir=$(guest_fetch) && init=$(guest_program guest_init) || return 1
	tmp=$(mktemp -d) || return 1
	mkdir -p "$tmp"/{bin,dev,proc,sys,mod} &&
		cp "$dir"/mod/*.ko "$tmp/mod/" && cp "$dir/modules" "$tmp/modules" &&
		cp /bin/busybox "$tmp/bin/busybox" && ln -s busybox "$tmp/bin/sh" &&
		cp "$init" "$tmp/init" &&
		(cd "$tmp" && find . -print0 | cpio --null --quiet -o -H newc -R 0:0) | gzip -1 >"$out.new" &&
		mv "$out.new" "$out" || rc=1
	rm -rf "$tmp"
	((rc == 0)) || guest_err "initramfs $out cannot be built (busybox-static and cpio installed? space?)"
}

# Where partition 2 of a bootable disk begins: the records' place
GUEST_RECORDS_MIB=32

# guest_disk OUT MIB [APPEND]: a raw disk that the BIOS boots; OUT is replaced. To put it on a raw view
# of an image: dd if=OUT of=VIEW bs=1M conv=notrunc oflag=direct.
guest_disk()
{
	local out=$1 mib=$2 append=${3:-} tmp rc=0 kernel mbr=/usr/lib/syslinux/mbr/mbr.bin
	[[ $mib =~ ^[0-9]+$ ]] && ((mib > GUEST_RECORDS_MIB)) ||
		{ guest_err "disk $out: size '$mib' MiB: more than $GUEST_RECORDS_MIB"; return 1; }
	kernel=$(guest_kernel) && tmp=$(mktemp -d) || return 1
	printf '%s\n' 'DEFAULT linux' 'PROMPT 0' 'LABEL linux' ' KERNEL /vmlinuz' ' INITRD /initrd' \
		" APPEND console=ttyS1 quiet panic=-1 csv.rec_dev=/dev/vda2 $append" >"$tmp/syslinux.cfg"
	{
		guest_initrd "$tmp/initrd" && truncate -s "${mib}M" "$tmp/disk" &&
			sfdisk -q "$tmp/disk" <<-PARTS &&
				label: dos
				start=2048, size=$(((GUEST_RECORDS_MIB - 1) * 2048)), type=6, bootable
				start=$((GUEST_RECORDS_MIB * 2048)), type=da
			PARTS
			mformat -i "$tmp/disk@@1M" -T $(((GUEST_RECORDS_MIB - 1) * 2048)) -h 16 -s 63 -H 2048 -v CSVGUEST :: &&
			mcopy -i "$tmp/disk@@1M" "$kernel" ::/vmlinuz &&
			mcopy -i "$tmp/disk@@1M" "$tmp/initrd" ::/initrd &&
			mcopy -i "$tmp/disk@@1M" "$tmp/syslinux.cfg" ::/syslinux.cfg &&
			syslinux --install --offset $((1 << 20)) "$tmp/disk" &&
			dd if="$mbr" of="$tmp/disk" bs=440 count=1 conv=notrunc status=none &&
			cp --sparse=always "$tmp/disk" "$out"
	} >"$tmp/log" 2>&1 || { guest_err "disk $out cannot be built: $(tail -n 3 "$tmp/log" | tr '\n' ' ')"; rc=1; }
	rm -rf "$tmp"
	return $rc
}

if [[ ${BASH_SOURCE[0]} == "$0" ]]; then
	set -u -o pipefail
	case ${1:-} in
	kernel) guest_kernel ;;
	initrd) guest_initrd "${2:?OUT}" ;;
	records-offset) echo $((GUEST_RECORDS_MIB << 20)) ;;
	disk) guest_disk "${2:?OUT}" "${3:?MIB}" "${4:-}" ;;
	*) echo "usage: guest.sh kernel | initrd OUT | disk OUT MIB [APPEND]" >&2; exit 2 ;;
	esac
fi
