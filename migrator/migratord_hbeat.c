/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * migratord_hbeat.c - heartbeats of a node on the disks of this node's volumes (/run/csvfs/LOCKSPACE.lock names them), read by a thread of
 * its own, past every cache and every daemon.
 *
 * Invariant
 *  HB1 A disk that cannot be read makes the whole reading fail: what is unknown is never "stands still".  A node that has no heartbeat
 *      on any of them reads as a constant.
 */
#include "migrator/migratord_internal.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <linux/fs.h>

#include "csvfs/format.h"
#include "utils/base/base.h"

struct reading {
	struct loop_msg msg;
	struct loop *loop;
	struct mig_hbeat_req *req;
	uint32_t nodeid;
	int result;
	uint64_t beats;
};

static int read_block(int fd, void *buf, uint64_t blkno)
{
	ssize_t n = pread(fd, buf, CSV_BLOCK_SIZE, (off_t)(blkno * CSV_BLOCK_SIZE));

	return n == CSV_BLOCK_SIZE ? 0 : n < 0 ? -errno : -EIO;
}

static uint64_t size_of(int fd)
{
	struct stat st;
	uint64_t size = 0;

	if (fstat(fd, &st))
		return 0;
	if (S_ISBLK(st.st_mode))
		return ioctl(fd, BLKGETSIZE64, &size) ? 0 : size;
	return (uint64_t)st.st_size;
}

static int read_disk(const char *device, uint32_t nodeid, uint64_t *sum)
{
	struct csv_err err = CSV_ERR_INIT;
	struct csv_hbeat_info hb;
	struct csv_geom g;
	void *buf = NULL;
	int fd = open(device, O_RDONLY | O_DIRECT | O_CLOEXEC), rc;

	if (fd < 0 && errno == EINVAL)
		fd = open(device, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	rc = posix_memalign(&buf, CSV_BLOCK_SIZE, CSV_BLOCK_SIZE) ? -ENOMEM : read_block(fd, buf, CSV_SB_BLOCK);
	if (!rc)
		rc = csv_super_decode(buf, CSV_SB_BLOCK, size_of(fd) / CSV_BLOCK_SIZE, 512, &g, &err);
	for (uint32_t s = 0; !rc && s < g.slots; s++) {
		rc = read_block(fd, buf, csv_hbeat_blk(&g, s));
		if (!rc && !csv_hbeat_decode(&g, s, buf, &hb, &err) && hb.nodeid == nodeid)
			*sum = *sum * 31 + hb.incarnation + hb.counter;
	}
	free(buf);
	close(fd);
	return rc;
}

static bool device_of(const char *lock, char ret[static PATH_MAX])
{
	char path[PATH_MAX], line[PATH_MAX + 16];
	bool found = false;
	FILE *f;

	snprintf(path, sizeof(path), RUN_DIR "/%s", lock);
	f = fopen(path, "re");
	while (f && fgets(line, sizeof(line), f)) {
		line[strcspn(line, "\n")] = 0;
		if (strncmp(line, "device ", 7))
			continue;
		snprintf(ret, PATH_MAX, "%.*s", PATH_MAX - 1, line + 7);
		found = true;
	}
	if (f)
		fclose(f);
	return found;
}

static void done(struct loop_msg *msg)
{
	struct reading *r = container_of(msg, struct reading, msg);
	struct mig_hbeat_req *req = r->req;

	req->result = r->result;
	req->beats = r->beats;
	free(r);
	req->done(req);
}

static void *reader(void *arg)
{
	struct reading *r = arg;
	struct dirent **list = NULL;
	int n = scandir(RUN_DIR, &list, NULL, alphasort);
	char device[PATH_MAX];

	for (int i = 0; i < n; i++) {
		size_t len = strlen(list[i]->d_name);

		if (!r->result && len == 21 && !strcmp(list[i]->d_name + 16, ".lock") && device_of(list[i]->d_name, device))
			r->result = read_disk(device, r->nodeid, &r->beats);
		free(list[i]);
	}
	free(list);
	loop_post(r->loop, &r->msg);
	return NULL;
}

void hbeat_read(struct loop *l, struct mig_hbeat_req *req)
{
	struct reading *r = calloc(1, sizeof(*r));
	pthread_attr_t attr;
	pthread_t t;
	int rc;

	csv_assertf(r, "out of memory for %zu bytes", sizeof(*r));	/* done() must come */
	*r = (struct reading){ .loop = l, .req = req, .nodeid = req->nodeid };
	r->msg.fn = done;
	pthread_attr_init(&attr);
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	rc = pthread_create(&t, &attr, reader, r);
	pthread_attr_destroy(&attr);
	if (rc) {
		r->result = -rc;
		loop_post(l, &r->msg);
	}
}
