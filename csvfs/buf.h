/*
 * buf.h - cache of metadata blocks of one node (internal to csvfs/).
 *
 * Invariants
 *  BC1 A cached block is covered by the glock of its owner held here in CR/PR/EX; it is dropped before that glock goes to NL.
 *  BC2 A block is changed only under its owner's EX, inside a transaction, after buf_dirty().
 *  BC3 What is returned by buf_read() passed csv_mhdr_check(): magic, own number, owner, crc.  A failure is an error that names
 *      block and field; it is not cached.
 *  BC4 A buffer that is busy for the journal is never evicted.
 */
#ifndef CSVFS_CSVFS_BUF_H
#define CSVFS_CSVFS_BUF_H

#include "csvfs/csvfs_format.h"
#include "journal/journal.h"

struct csvfs;
struct buf {
	struct jnl_buf jb;		/* blkno, data, owner */
	unsigned pins;
	bool uptodate;
	struct waitq io;
	/* the cache's own */
	struct csvfs *fs;
	struct glock *gl;		/* of the owner; NULL for blocks read without a lock */
	struct buf *hash_next;
	struct cds_list_head lru_node, owner_node;
	int error;			/* of the read; the block is out of the cache */
	bool hashed, reading;
};
#define buf_data(b) ((void *)(b)->jb.data)

/* Awaits.  Pinned on return; buf_put().  -CSV_E_CORRUPT, -EIO, -ENOMEM. */
int buf_read(struct csvfs *fs, uint64_t blkno, struct csv_owner owner, uint32_t magic, struct buf **ret_buf);
/* A block just allocated: zeroed, header filled, already buf_dirty() in `h`.  Nothing of the old content is read. */
int buf_new(struct csvfs *fs, struct jnl_handle *h, uint64_t blkno, struct csv_owner owner, uint32_t magic, uint64_t generation,
	    struct buf **ret_buf);
void buf_put(struct csvfs *fs, struct buf *b);			/* NULL allowed */
void buf_dirty(struct jnl_handle *h, struct buf *b);		/* before the change */
/* Freed in this transaction: revoked and dropped from the cache; takes the caller's pin. */
void buf_forget_take(struct csvfs *fs, struct jnl_handle *h, struct buf *b);
/* Drops every cached block of the owner; none may be pinned or busy. */
void buf_drop_owner(struct csvfs *fs, struct csv_owner owner);

#endif
