/*
 * coro.h - stackful contexts: create, switch, pool.  Private to sched.c.
 *
 * Invariants
 *  X1  ctx_enter() runs a context until it calls ctx_leave() or its function returns; it is entered from one thread only,
 *      never from inside another context of the same pool.
 *  X2  The area below a stack is a guard (CTX_GUARD_BYTES, PROT_NONE): an overflow is a SIGSEGV, not corruption.
 *  X3  A context that was abandoned in the middle (ctx_abandon) never goes back to the pool: its frames are rubbish.
 */
#ifndef CSVFS_UTILS_ENV_CORO_H
#define CSVFS_UTILS_ENV_CORO_H

#include <setjmp.h>
#include <stdbool.h>
#include <stddef.h>
#include <urcu/list.h>

#if defined(__SANITIZE_ADDRESS__)
#define CTX_ASAN 1
#endif
#if defined(__SANITIZE_THREAD__)
#define CTX_TSAN 1
#endif
#if defined(__has_feature)
#if __has_feature(address_sanitizer) && !defined(CTX_ASAN)
#define CTX_ASAN 1
#endif
#if __has_feature(thread_sanitizer) && !defined(CTX_TSAN)
#define CTX_TSAN 1
#endif
#endif

#if defined(CTX_ASAN) || defined(CTX_TSAN)
#define CTX_STACK_BYTES (256u << 10)
#else
#define CTX_STACK_BYTES (64u << 10)
#endif
/* More than one page, so that a function with a large frame cannot step over it. */
#define CTX_GUARD_BYTES (64u << 10)
#define CTX_POOL_MAX 256

struct ctx_pool;

struct ctx {
	struct cds_list_head node;	/* in the pool */
	struct ctx_pool *pool;
	sigjmp_buf env;			/* where it stands while not running */
	void (*fn)(void *arg);
	void *arg;
	bool finished;
	char *map;			/* guard and stack */
	void *asan_fake;
	void *tsan_fiber;
};

struct ctx_pool {
	struct cds_list_head free;
	unsigned n_free;
	sigjmp_buf env;			/* the scheduler's own place while a context runs */
	const void *asan_bottom;	/* the scheduler's stack, learned at each entry */
	size_t asan_size;
	void *asan_fake;
	void *tsan_fiber;
};

void ctx_pool_init(struct ctx_pool *p);
void ctx_pool_done(struct ctx_pool *p);

/* NULL when out of memory.  ctx_put() takes back a context whose function has returned. */
struct ctx *ctx_get(struct ctx_pool *p, void (*fn)(void *arg), void *arg);
void ctx_put(struct ctx *c);
void ctx_abandon(struct ctx *c);

/* From the scheduler: run it until it leaves; true when its function has returned.  From inside: back to the scheduler. */
bool ctx_enter(struct ctx *c);
void ctx_leave(struct ctx *c);

#endif
