/*
 * real.h - the real implementations of the ports: the machine's clocks, random source and disks.
 * Control thread, but for the clocks and the random source (any thread).
 */
#ifndef CSVFS_UTILS_ENV_REAL_H
#define CSVFS_UTILS_ENV_REAL_H

#include "utils/base/err.h"
#include "utils/env/blk_open.h"
#include "utils/env/env.h"
#include "utils/env/loop.h"

void real_clock_init(struct clock *c);
void real_rnd_init(struct rnd_port *p);

/*
 * While it is on, the calling thread goes before what else the machine does: for the moments in which all nodes wait for each other, so that
 * a recovery takes as long as its work and not as long as the busiest node's queue.  Real-time (lowest priority): niceness counts within a
 * session only where the kernel groups by session.  Afterwards as before.  Best effort: needs CAP_SYS_NICE.
 */
struct real_hurry { bool on; int policy, priority; };		/* zeroed at first; while on: as it was before */
void real_hurry(struct real_hurry *h, bool on);

/*
 * A block device or regular file through libaio: O_DIRECT, O_CLOEXEC.  Requests of one turn of the loop are submitted together; FLUSH
 * is IO_CMD_FDSYNC; DISCARD runs on a thread of its own.  Owner: the caller; blk_close() frees (nothing in flight).  `flags` as
 * blk_file_open().  0 or -errno with err: object, reason, what to do.
 */
int real_blk_open(const char *path, unsigned flags, struct loop *l, struct blk **ret_blk, struct csv_err *err);
/* The descriptor, for the data plane's own aio contexts. */
int real_blk_fd(const struct blk *b);
/* Longest time one io_submit took, ns: it may block in the kernel (for people). */
uint64_t real_blk_submit_ns_max(const struct blk *b);

/* ---- corosync (real_cluster.c) -------------------------------------------------------------------------------------- */

/* What corosync is configured to do (cmap). */
struct cluster_facts {
	uint32_t self;			/* own node id */
	uint32_t token_ms, consensus_ms;
	uint32_t nodes;			/* configured; 0: no node list */
	bool two_node, has_qdevice, crypto;
	char cluster_name[64], node_name[64];
};
/*
 * How long who is missing after a time without quorum may be on its way (cluster_set_round()): two rounds of the membership protocol, token and
 * consensus each.  Nodes that all find each other at once get in each other's way, and who was left out of one round joins in the next.
 */
static inline uint64_t cluster_facts_round_ns(const struct cluster_facts *f)
{
	return 2 * ((uint64_t)f->token_ms + f->consensus_ms) * NS_PER_MS;
}
/* Blocking.  0 or -errno with err: corosync not running, no node list, ... and what to do. */
int cluster_facts_read(struct cluster_facts *ret, struct csv_err *err);
/*
 * A member of process group `group` (libcpg model V1, libquorum model V1); joins at ops->start.  Owner: the caller, real_cluster_free()
 * after ops->stop.  Borrowed: loop, log.  Listens to the witnesses of the other nodes too (group name + "-w").
 */
int real_cluster_new(struct loop *l, struct logger *log, const char *group, struct cluster_port **ret, struct csv_err *err);
void real_cluster_free(struct cluster_port *p);

/* ---- the witness (real_witness.c) ---------------------------------------------------------------------------------------- */

/*
 * The lock (flock) on `fd` is from now on held by a mapping alone and `fd` is closed: it falls when the process's memory does, which
 * is after the end of its libaio.  munmap(p, LOCK_MAP_BYTES) gives it up.  NULL: errno, fd still open.
 */
#define LOCK_MAP_BYTES 4096u
void *lock_into_memory(int fd);
struct real_witness;
/*
 * Forks the process that tells `group` of this life's end once the lock on lock_path is free; before any thread and before the
 * volume is opened.  lock_path is locked by lock_into_memory().
 */
int real_witness_start(const char *lock_path, const char *group, uint64_t incarnation, struct real_witness **ret, struct csv_err *err);
/* This process goes on with a new life: of that one it speaks from now on. */
void real_witness_next_life(struct real_witness *w, uint64_t incarnation);
/* clean: the others know from ourselves that we are gone; else it speaks when this process has ended.  NULL allowed. */
void real_witness_stop(struct real_witness *w, bool clean);

/* ---- TCP between members (real_link.c) --------------------------------------------------------------------------------- */

/*
 * Listens on every own ring address, on the first free of four ports (from 7400 to 8423) derived from the lockspace; peers are
 * found by the node list of corosync, all their ring addresses are tried; the lower node id connects.  Both sides prove that they
 * have corosync's authkey (real_link_auth.h); who has not is refused, counted, and logged at most once a minute.  All of it inside TLS 1.3 (real_link_tls.h);
 * `plain`: without, which is said in the log; then the ring addresses belong on a network of their own.  All nodes must agree on that.
 */
int real_link_new(struct loop *l, struct logger *log, uint64_t lockspace, uint32_t self, bool plain, struct link_port **ret,
		  struct csv_err *err);
void real_link_free(struct link_port *p);
struct real_link_stats {
	uint64_t connected, accepted;		/* authenticated links */
	uint64_t refused;			/* without the key, another volume, not a member, nonsense instead of a hello */
	uint64_t refused_version;		/* members that speak no version we speak */
	uint64_t bad_frames;			/* links broken for one */
	uint64_t bytes_sent, bytes_received;	/* payload of TCP */
	uint64_t writes;			/* system calls that sent */
};
const struct real_link_stats *real_link_stats(const struct link_port *p);
struct real_link_info {
	uint32_t nodeid;
	bool up;
	const char *where;			/* address of the connection; "" when down */
	uint16_t mesh_version;			/* settled for this connection; 0: down */
	struct proto_range mesh, messages;	/* what it said last that it speaks; zeros: nothing yet */
	const char *refusal;			/* why there is no link, for people; "" */
};
/* The link to `nodeid` as it is; false: it is not in the node list.  Borrowed until the next turn of the loop. */
bool real_link_info(const struct link_port *p, uint32_t nodeid, struct real_link_info *ret);

/* ---- fencing (real_fence.c) ---------------------------------------------------------------------------------------------- */

struct real_fence;
/* Forks the helper that will run the agents; before any thread and before the volume is opened (R15).  A missing file is no error
 * here: every fence request is then answered with what to do. */
int real_fence_start(const char *conf_path, struct real_fence **ret, struct csv_err *err);
/* Attached to the loop once that exists. */
struct fence_port *real_fence_port(struct real_fence *f, struct loop *l);
void real_fence_stop(struct real_fence *f);		/* NULL allowed */

#endif
