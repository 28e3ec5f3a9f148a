/*
 * sync_blk.c - a device through blocking calls.  Thread: the scheduler's.
 */
#include "utils/env/sync_blk.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "utils/base/base.h"

struct sync_blk {
	struct blk blk;
	struct blk_file file;
};

static int transfer(const struct blk_file *f, const struct blk_req *r)
{
	uint32_t done = 0;

	while (done < r->len) {
		char *at = (char *)r->buf + done;
		ssize_t n = r->op == BLK_READ ? pread(f->fd, at, r->len - done, r->off + done)
					      : pwrite(f->fd, at, r->len - done, r->off + done);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			return -EIO;
		done += n;
	}
	return 0;
}

static void sync_submit(struct blk *b, struct blk_req *r)
{
	const struct blk_file *f = &container_of(b, struct sync_blk, blk)->file;
	int rc = 0;

	if (f->readonly && (r->op == BLK_WRITE || r->op == BLK_DISCARD))
		rc = -EROFS;
	else if (r->op == BLK_READ || r->op == BLK_WRITE)
		rc = transfer(f, r);
	else if (r->op == BLK_DISCARD)
		rc = blk_file_discard(f, r->off, r->len);
	else if (!f->readonly && fdatasync(f->fd) < 0)
		rc = -errno;
	blk_complete_later(b, r, rc);
}

static void sync_close(struct blk *b)
{
	struct sync_blk *sb = container_of(b, struct sync_blk, blk);

	blk_file_close(&sb->file);
	free(sb);
}

static const struct blk_ops sync_ops = { .submit = sync_submit, .close = sync_close };

int sync_blk_open(const char *path, unsigned flags, struct sched *s, struct blk **ret, struct csv_err *err)
{
	struct sync_blk *sb = calloc(1, sizeof(*sb));
	int rc;

	if (!sb)
		return csv_err_set(err, -ENOMEM, "%s: out of memory", path);
	rc = blk_file_open(path, flags, &sb->file, err);
	if (rc < 0) {
		free(sb);
		return rc;
	}
	sb->blk.ops = &sync_ops;
	sb->blk.sched = s;
	sb->blk.size_bytes = sb->file.size_bytes;
	sb->blk.min_io = sb->file.min_io;
	sb->blk.io_align = sb->file.io_align;
	*ret = &sb->blk;
	return 0;
}
