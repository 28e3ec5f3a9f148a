/*
 * fuse_io.c - receive buffers: page-aligned, pooled, each big enough for the largest request.
 */
#include "csvfs/fuse_internal.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <linux/fuse.h>

#define IOBUF_KEEP 64u		/* free ones that stay allocated */

struct iobuf *iobuf_get(struct fused *d)
{
	struct iobuf *b;

	pthread_mutex_lock(&d->buf_lock);
	b = d->buf_free;
	if (b) {
		d->buf_free = b->next;
		d->buf_count--;
	}
	pthread_mutex_unlock(&d->buf_lock);
	if (b)
		return b;
	b = calloc(1, sizeof(*b));
	if (!b)
		return NULL;
	b->base = mmap(NULL, BUF_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (b->base == MAP_FAILED) {
		free(b);
		return NULL;
	}
	return b;
}

void iobuf_put(struct fused *d, struct iobuf *b)
{
	if (!b)
		return;
	pthread_mutex_lock(&d->buf_lock);
	if (d->buf_count < IOBUF_KEEP) {
		b->next = d->buf_free;
		d->buf_free = b;
		d->buf_count++;
		b = NULL;
	}
	pthread_mutex_unlock(&d->buf_lock);
	if (b) {
		munmap(b->base, BUF_BYTES);
		free(b);
	}
}

void iobuf_free_all(struct fused *d)
{
	struct iobuf *b;

	while ((b = d->buf_free)) {
		d->buf_free = b->next;
		munmap(b->base, BUF_BYTES);
		free(b);
	}
	d->buf_count = 0;
}

bool iobuf_write_kills_priv(const struct iobuf *b)
{
	struct fuse_write_in in;

	memcpy(&in, b->base + BUF_HEAD + sizeof(struct fuse_in_header), sizeof(in));
	return in.write_flags & FUSE_WRITE_KILL_SUIDGID;
}
