/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * csvsim.h - the simulation of the whole file system: nodes (csvsim_node.c) with operations (csvsim_work.c) and data-plane threads
 * (csvsim_dp.c), what names and data may be (csvsim_name.c, csvsim_data.c), what must hold after every step and crash
 * (csvsim_oracle.c, csvsim_locks.c), one run (csvsim_run.c), write streams (csvsim_stream.c), options and processes (csvsim.c).
 *
 * The model knows of every name and every 512-byte sector which contents are possible, and it is told what was asked, what was
 * answered, who died and what was synced.  An answer that is not possible fails the run.
 */
#ifndef CSVFS_TESTS_SIM_CSVSIM_H
#define CSVFS_TESTS_SIM_CSVSIM_H

#include "csvfs/csvfs.h"
#include "csvfs/dataplane.h"
#include "csvfs/format.h"
#include "dlm/dlm.h"
#include "tests/sim/sim_disk.h"
#include "tests/sim/sim_net.h"

#define CS_DIRS 3u
#define CS_NAMES 8u			/* names of the model in each directory */
#define CS_FILES 6u			/* with a data model: plain files, images, one that is only appended to */
#define CS_SECTOR 512u
#define CS_RAW (1ull << 62)		/* the raw view of an inode, for the data plane */
#define CS_STATES_MAX 24u
#define CS_WORKERS 4u			/* of each node */
#define CS_DP_THREADS 2u
#define CS_LIVES_MAX 4096u
#define CS_VIEWS_MAX 1024u

struct cs_sim;

struct cs_options {
	unsigned nodes, ops;
	uint32_t mutate;		/* CSV_MUT_* */
	unsigned what_if;		/* 0: each in a process of its own; n: the n-th in this process, and no other (to be debugged) */
	bool verbose, no_faults, stream;
	bool disk;			/* one more file: the disk in a dynamic image (csvsim_disk.c) */
	bool watch, watch_name;		/* print what the model makes of one sector, or of one name: */
	unsigned watch_file, watch_sector;	/* or directory and number of the name */
};

/* ---- names ---------------------------------------------------------------------------------------------------------- */

enum cs_kind { CS_NONE, CS_FILE, CS_DIR };
struct cs_state { enum cs_kind kind; uint64_t ino; uint32_t gen; };	/* ino 0: not known (the answer never came) */
struct cs_states { unsigned n; struct cs_state s[CS_STATES_MAX]; };
struct cs_name {
	unsigned dir, idx;
	char text[8];
	bool busy;			/* an operation of the model on it is under way */
	uint64_t version;
	struct cs_states cur;		/* what it may be now */
	struct cs_states back;		/* what it may be again when `owner` crashes before it has made its changes durable */
	struct cluster_node owner;	/* 0: all is durable */
	struct cs_states before;	/* what it was when its owner `dead` died, as long as nobody has looked since */
	struct cluster_node dead;
};

/* ---- data ----------------------------------------------------------------------------------------------------------- */

/* One write (0: zeros) of one sector. */
struct cs_write {
	uint64_t value, start, end;	/* steps; end UINT64_MAX: may still happen */
	struct cluster_node by;
	bool durable, seen, maylost;	/* seen: by another node */
	bool returned;			/* the answer came */
};
struct cs_sector { unsigned n, cap; struct cs_write *w; };
struct cs_append { uint64_t value, start; struct cluster_node by; bool refused; };	/* refused: see cs_name_refused() */
enum cs_file_kind { CS_PLAIN, CS_IMAGE, CS_APPEND, CS_DISK };
struct cs_file {
	enum cs_file_kind kind;
	char name[8];
	uint64_t ino;
	uint32_t gen, sectors;
	struct cs_sector *sec;
};

/* ---- nodes ---------------------------------------------------------------------------------------------------------- */

/* What an operation under way may have done when its node dies: for each name, what it would become. */
struct cs_pending { unsigned n; struct { struct cs_name *name; struct cs_state to; bool change; } p[2]; };

struct cs_node;
struct cs_worker {
	struct cs_node *n;
	unsigned id;
	struct csv_prng prng;
	struct cs_pending pend;
	const char *doing;		/* NULL: between operations */
	uint64_t doing_since_ns;
	uint64_t opened;		/* inode held open */
	uint64_t reading;		/* the step in which a read of a file with a data model began that is under way; 0: none */
	bool done;
	struct coro *coro;
	bool cancelled;			/* an interrupt was sent to it */
};
struct cs_dp {
	struct cs_worker w;
	struct dp_io io;
	bool in_flight;
	uint8_t *buf;
};

enum cs_node_state { CS_DOWN, CS_MOUNTING, CS_UP, CS_ENDING, CS_ENDED };
struct cs_node {
	struct cs_sim *sim;
	unsigned node;
	enum cs_node_state state;
	struct env *env;
	struct csvfs *fs;		/* mounted */
	struct csvfs *seen;		/* the same, already while it is being mounted */
	struct dp_table *dp;
	struct job drain_job;
	struct cluster_node self;
	bool model_dead;		/* the model has taken note of its withdrawal */
	bool leave;			/* unmount when the workers are done */
	unsigned workers;
	struct cs_worker w[CS_WORKERS];
	struct cs_dp d[CS_DP_THREADS];
	struct csv_err err;
	bool disk_failed;		/* a request of this life failed: EIO is an answer */
	bool disk_open;			/* csvsim_disk.c */
	bool in_view;			/* csvsim_oracle.c, R3 */
	struct ring_id view_ring;
	/* csvsim_locks.c */
	bool ghosted, silent;		/* withdrawn: its locks are among the ghosts; nothing of it can take effect */
	bool dlm_ran;
	struct ring_id dlm_ring;
};

/* A lock of a dead life that still stands. */
struct cs_ghost { struct cluster_node who; uint32_t type; uint64_t id; unsigned mode; };
/* What the world knows of a life that has ended. */
struct cs_life {
	struct cluster_node who;
	bool fenced;			/* nothing of it takes effect any more */
	bool released;			/* its slot is FREE by its own word */
	bool replay_started, replayed;
};
/* What this step has changed, to be looked at when it is over. */
struct cs_touched { struct cs_node *n; struct csv_owner owner; };
struct cs_touched_res { struct cs_node *n; uint8_t len, name[DLM_NAME_MAX]; };
struct cs_locks { struct cs_touched *glock; unsigned n_glock, cap_glock; struct cs_touched_res *res; unsigned n_res, cap_res; };

#define CS_ROUND_NS (400 * NS_PER_MS)	/* of the membership protocol: until a ring without who is missing, and some more */

struct cs_sim {
	struct cs_options opt;
	uint64_t seed;
	struct sim_world *w;
	struct sim_net *net;
	struct sim_disk *disk;
	struct sim_disk_config cfg;
	struct cs_node node[SIM_NODES_MAX + 1];
	struct csv_geom geo;
	struct cluster_node slot[CSV_SLOTS_MAX];	/* ACTIVE for whom, on the disk */
	uint64_t slot_seq[CSV_SLOTS_MAX];
	uint64_t root, dir[CS_DIRS];
	struct cs_name name[CS_DIRS][CS_NAMES];
	struct cs_file file[CS_FILES + 1];
	unsigned n_files;		/* CS_FILES, and the disk */
	uint64_t next_value;
	unsigned n_append;		/* under way, or without an answer: their place is not known */
	struct cs_append append[4096];
	unsigned ops_left;
	bool full;			/* a volume with little room */
	bool big_dirs;			/* many and long names */
	bool plain;			/* the engine does not say how many votes there are, and nobody waits for who may be on its way */
	bool go, winding_down, quiet, check_due, in_branch;
	unsigned cut_busy;		/* node whose power goes as soon as it has writes under way */
	bool cut_planned;
	unsigned cut_from, cut_to;	/* the last one-way cut that was long enough to evict somebody; others evict nobody */
	uint64_t cut_end_ns;
	unsigned branches, branches_left, promises_left;
	uint64_t branch_ns;
	struct cs_ghost *ghost;
	unsigned n_ghost, cap_ghost;
	struct cs_life life[CS_LIVES_MAX];
	unsigned n_life;
	unsigned profile;
	uint64_t fault_ns;		/* time between faults, typically */
	uint64_t checks, locks_checked;
	struct cs_locks locks;
	struct cluster_view view[CS_VIEWS_MAX];	/* that somebody went by, the latest */
	unsigned n_view;
	uint64_t last_op_ns;
	bool failed;
	char why[1024];
};

void cs_fail(struct cs_sim *s, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static inline uint64_t cs_now(const struct cs_sim *s) { return sim_world_steps(s->w); }
static inline void cs_count(struct cs_sim *s, const char *name) { sim_world_count(s->w, name, 1); }
static inline bool cs_same(struct cluster_node a, struct cluster_node b)
{
	return a.nodeid == b.nodeid && a.incarnation == b.incarnation;
}

/* ---- csvsim_name.c: an operation takes its names (try), asks, and tells the model what was answered --------------------- */
void cs_names_init(struct cs_sim *s);
bool cs_name_take(struct cs_name *n);
void cs_name_give(struct cs_name *n);
/* by saw the name as `st` (durable is what another node sees). */
void cs_name_seen(struct cs_sim *s, struct cs_name *n, struct cluster_node by, struct cs_state st, const char *op);
/* The same, knowing only that there is something or nothing. */
void cs_name_exists(struct cs_sim *s, struct cs_name *n, struct cluster_node by, bool exists, const char *op);
bool cs_name_may_be(const struct cs_name *n, enum cs_kind kind);
void cs_name_changed(struct cs_sim *s, struct cs_name *n, struct cluster_node by, struct cs_state to);
void cs_name_maybe(struct cs_sim *s, struct cs_name *n, struct cs_state to);
/*
 * The answer was that the node is on its way out, but may join anew: then it has changed nothing (csvfs_may_rejoin), and who asked asks
 * again in the next life.  That is certain once the slot has been given back in order; until then it may have become `to` all the same.
 */
void cs_name_refused(struct cs_sim *s, struct cs_name *n, struct cluster_node by, struct cs_state to);
void cs_name_synced(struct cs_sim *s, struct cs_name *n, struct cluster_node by);
void cs_names_left(struct cs_sim *s, struct cluster_node who);	/* an orderly unmount */
void cs_names_dead(struct cs_sim *s, struct cluster_node who);
void cs_names_released(struct cs_sim *s, struct cluster_node who);	/* dead, but it had written everything home */
char *cs_name_describe(const struct cs_name *n, char *buf, size_t size);

/* ---- csvsim_data.c -------------------------------------------------------------------------------------------------------- */
void cs_data_init(struct cs_sim *s);
/* A write of sectors [first, first + count) begins; value 0: zeros. `token` names it to end and fail. */
void cs_data_begin(struct cs_sim *s, struct cs_file *f, uint32_t first, uint32_t count, struct cluster_node by, uint64_t value,
		   uint64_t *ret_token);
void cs_data_end(struct cs_sim *s, struct cs_file *f, uint32_t first, uint32_t count, uint64_t token);
void cs_data_uncertain(struct cs_sim *s, struct cs_file *f, uint32_t first, uint32_t count, uint64_t token);
void cs_data_fill(void *buf, uint32_t sectors, uint64_t value);
/* worker.reading is `started` from before the read until after this. */
void cs_data_read(struct cs_sim *s, struct cs_file *f, uint32_t first, uint32_t count, const void *buf, struct cluster_node by,
		  uint64_t started, const char *op);
void cs_data_append_begin(struct cs_sim *s, struct cluster_node by, uint64_t value);
void cs_data_append_refused(struct cs_sim *s, uint64_t value);
void cs_data_appended(struct cs_sim *s, struct cs_file *f, uint64_t off, struct cluster_node by, uint64_t value);
uint32_t cs_data_appended_sectors(const struct cs_file *f);	/* at least so many are there for certain */
/* What was written before (by `by`; 0: by anybody) is durable. */
void cs_data_synced(struct cs_sim *s, struct cs_file *f, struct cluster_node by, uint64_t before);
void cs_data_dead(struct cs_sim *s, struct cluster_node who);
void cs_data_released(struct cs_sim *s, struct cluster_node who);	/* dead, but it had written everything home */
void cs_data_settled(struct cs_sim *s, struct cluster_node who);	/* what it had under way happened or never will */
void cs_data_power_loss(struct cs_sim *s);

/* ---- csvsim_work.c, csvsim_dp.c -------------------------------------------------------------------------------------------- */
void cs_worker_main(void *arg);
void cs_worker_again(struct cs_worker *w);
void cs_dp_main(void *arg);
void cs_dp_yield(void *arg, const char *step);
/* The answer of an operation that must not fail: judged; true when it was 0 or more. */
bool cs_judge(struct cs_worker *w, long long ret, const char *op);
/* Did the node die or withdraw while the operation was under way? Then nothing of its answer counts. */
bool cs_worker_dead(const struct cs_worker *w);
void cs_verify(struct cs_sim *s, unsigned node);	/* from a coroutine: everything, compared with the model */
/* Bytes of files without a data model tell whose they are. */
void cs_tag_fill(uint64_t ino, uint32_t gen, uint64_t off, uint8_t *buf, size_t len);
bool cs_tag_check(uint64_t ino, uint32_t gen, uint64_t off, const uint8_t *buf, size_t len, size_t *ret_bad);

/* ---- csvsim_disk.c ------------------------------------------------------------------------------------------------------------- */
ssize_t cs_io_read(struct cs_node *n, const struct cs_file *f, uint64_t off, void *buf, size_t len);
ssize_t cs_io_write(struct cs_node *n, const struct cs_file *f, uint64_t off, const void *buf, size_t len);
int cs_io_fallocate(struct cs_node *n, const struct cs_file *f, int mode, uint64_t off, uint64_t len);
int cs_disk_make(struct cs_sim *s, struct csvfs *fs);
void cs_disk_open(struct cs_node *n);		/* nothing to do without --disk */
void cs_disk_close(struct cs_node *n);

/* ---- csvsim_node.c ---------------------------------------------------------------------------------------------------------- */
void cs_node_start(void *arg, unsigned node, struct env *env);
void cs_node_down(void *arg, unsigned node);
void cs_node_dead(struct cs_node *n);			/* crashed, or withdrawn: the model takes note, once a life */
bool cs_node_run(struct cs_sim *s, unsigned node, void (*fn)(void *arg), void *arg, uint64_t ms);

/* ---- csvsim_oracle.c ---------------------------------------------------------------------------------------------------------- */
void cs_oracle_step(void *arg);
struct cs_life *cs_life_of(struct cs_sim *s, struct cluster_node who);
void cs_oracle_fenced(struct cs_sim *s, struct cluster_node who);
void cs_oracle_write(void *arg, unsigned node, uint64_t life, uint64_t off, uint32_t len);
void cs_oracle_slots(struct cs_sim *s);
bool cs_check_store(struct cs_sim *s, struct sim_store *st, const char *when);
void cs_check_now(struct cs_sim *s, const char *when);	/* the disk as it is, and with a loss of power */

/* ---- csvsim_locks.c ------------------------------------------------------------------------------------------------------------ */
void cs_locks_step(struct cs_sim *s);
void cs_locks_life_over(struct cs_node *n);		/* it died or withdrew: its locks stand until proof and replay */
void cs_ghosts_drop(struct cs_sim *s, const struct cs_life *l);	/* those that what is known of `l` lets fall */
void cs_dump_used(const struct cs_node *n);		/* for people: what is still in use when it should not be */

/* ---- csvsim_run.c, csvsim_stream.c --------------------------------------------------------------------------------------------- */
void cs_run(struct cs_sim *s, const struct cs_options *opt, uint64_t seed);
void cs_replay_begun(struct cs_sim *s);		/* sometimes who replays is cut off with its news unsaid */
void cs_disk_busy(struct cs_sim *s);
void cs_synced(struct cs_sim *s);			/* sometimes power goes directly after */
void cs_stream_check(struct cs_sim *s);

#endif
