/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * hvhostd_net.c - see hvhostd_net.h.
 */
#include "hvhost/hvhostd_net.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <linux/if.h>
#include <linux/if_tun.h>
#include <linux/sockios.h>

static int join(const char *bridge, const char *tap, struct csv_err *err)
{
	int s = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), rc = 0;
	struct ifreq r;

	if (s < 0)
		return csv_err_set(err, -errno, "socket: %s", strerror(errno));
	memset(&r, 0, sizeof(r));
	snprintf(r.ifr_name, sizeof(r.ifr_name), "%s", tap);
	if (ioctl(s, SIOCGIFINDEX, &r)) {
		rc = csv_err_set(err, -errno, "%s: %s", tap, strerror(errno));
	} else {
		int index = r.ifr_ifindex;

		memset(&r, 0, sizeof(r));
		snprintf(r.ifr_name, sizeof(r.ifr_name), "%s", bridge);
		r.ifr_ifindex = index;
		if (ioctl(s, SIOCBRADDIF, &r))
			rc = csv_err_set(err, -errno, "bridge %s: %s; make it on every node that may run the VM", bridge, strerror(errno));
	}
	if (!rc) {
		memset(&r, 0, sizeof(r));
		snprintf(r.ifr_name, sizeof(r.ifr_name), "%s", tap);
		if (ioctl(s, SIOCGIFFLAGS, &r) == 0) {
			r.ifr_flags |= IFF_UP;
			if (ioctl(s, SIOCSIFFLAGS, &r))
				rc = csv_err_set(err, -errno, "%s: cannot be switched on: %s", tap, strerror(errno));
		}
	}
	close(s);
	return rc;
}

int tap_open(const char *bridge, int *ret_fd, struct csv_err *err)
{
	int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC), rc;
	struct ifreq r;

	if (fd < 0)
		return csv_err_set(err, -errno, "/dev/net/tun: %s", strerror(errno));
	memset(&r, 0, sizeof(r));
	r.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR;
	snprintf(r.ifr_name, sizeof(r.ifr_name), "csvtap%%d");
	rc = ioctl(fd, TUNSETIFF, &r) ? csv_err_set(err, -errno, "a tap cannot be made: %s", strerror(errno)) : join(bridge, r.ifr_name, err);
	if (rc) {
		close(fd);
		return rc;
	}
	*ret_fd = fd;
	return 0;
}
