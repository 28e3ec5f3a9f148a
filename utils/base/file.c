/* SPDX-License-Identifier: GPL-2.0-only */
/* file.c - see file.h. */
#include "utils/base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

int csv_write_all(int fd, const void *p, size_t size_bytes)
{
	const char *at = p;

	while (size_bytes) {
		ssize_t w = write(fd, at, size_bytes);

		if (w < 0 && errno == EINTR)
			continue;
		if (w <= 0)
			return w < 0 ? -errno : -EIO;
		at += w;
		size_bytes -= (size_t)w;
	}
	return 0;
}

int csv_dir_sync(const char *dir)
{
	int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC), rc;

	if (fd < 0)
		return -errno;
	rc = fsync(fd) ? -errno : 0;
	close(fd);
	return rc;
}
