/*
 * coro.c - stackful contexts.
 *
 * A context is made with makecontext()/swapcontext() once per stack; afterwards every switch is sigsetjmp()/siglongjmp()
 * without saving the signal mask, so no system call.  The bottom frame of each stack (trampoline()) loops, so that a stack
 * from the pool is used again without makecontext().
 *
 * Sanitizers: both need to be told of every switch *before* it happens (the TSan interceptor looks a jump buffer up in the
 * fibre it believes is running) and ASan once more after it.
 *
 * Thread: the one that owns the pool.
 */
#undef _FORTIFY_SOURCE	/* the checked longjmp() takes a jump to another stack for an attack */
#include "utils/env/coro.h"

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <ucontext.h>

#include "utils/base/base.h"

#ifdef CTX_ASAN
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#include <sanitizer/lsan_interface.h>
#endif
#ifdef CTX_TSAN
#include <sanitizer/tsan_interface.h>
#endif

static char *ctx_stack(const struct ctx *c)
{
	return c->map + CTX_GUARD_BYTES;
}

/* ---- telling the sanitizers ------------------------------------------------------------------------------- */

/* We are the scheduler and about to jump into c. */
static inline void san_before_enter(struct ctx *c)
{
	(void)c;
#ifdef CTX_ASAN
	__sanitizer_start_switch_fiber(&c->pool->asan_fake, ctx_stack(c), CTX_STACK_BYTES);
#endif
#ifdef CTX_TSAN
	c->pool->tsan_fiber = __tsan_get_current_fiber();
	__tsan_switch_to_fiber(c->tsan_fiber, 0);
#endif
}

/* We have arrived in c. */
static inline void san_after_enter(struct ctx *c)
{
	(void)c;
#ifdef CTX_ASAN
	__sanitizer_finish_switch_fiber(c->asan_fake, &c->pool->asan_bottom, &c->pool->asan_size);
#endif
}

/* We are c and about to jump to the scheduler. */
static inline void san_before_leave(struct ctx *c)
{
	(void)c;
#ifdef CTX_ASAN
	__sanitizer_start_switch_fiber(&c->asan_fake, c->pool->asan_bottom, c->pool->asan_size);
#endif
#ifdef CTX_TSAN
	__tsan_switch_to_fiber(c->pool->tsan_fiber, 0);
#endif
}

/* We are back in the scheduler. */
static inline void san_after_leave(struct ctx_pool *p)
{
	(void)p;
#ifdef CTX_ASAN
	__sanitizer_finish_switch_fiber(p->asan_fake, NULL, NULL);
#endif
}

static void san_new(struct ctx *c)
{
	(void)c;
#ifdef CTX_ASAN
	__lsan_register_root_region(ctx_stack(c), CTX_STACK_BYTES);
#endif
#ifdef CTX_TSAN
	c->tsan_fiber = __tsan_create_fiber(0);
#endif
}

static void san_free(struct ctx *c)
{
	(void)c;
#ifdef CTX_ASAN
	__lsan_unregister_root_region(ctx_stack(c), CTX_STACK_BYTES);
	__asan_unpoison_memory_region(ctx_stack(c), CTX_STACK_BYTES);
#endif
#ifdef CTX_TSAN
	__tsan_destroy_fiber(c->tsan_fiber);
#endif
}

/* ---- contexts ---------------------------------------------------------------------------------------------- */

void ctx_leave(struct ctx *c)
{
	if (!sigsetjmp(c->env, 0)) {
		san_before_leave(c);
		siglongjmp(c->pool->env, 1);
	}
	san_after_enter(c);
}

bool ctx_enter(struct ctx *c)
{
	struct ctx_pool *p = c->pool;

	if (!sigsetjmp(p->env, 0)) {
		san_before_enter(c);
		siglongjmp(c->env, 1);
	}
	san_after_leave(p);
	return c->finished;
}

static void trampoline(unsigned int hi, unsigned int lo)
{
	struct ctx *c = (struct ctx *)(((uintptr_t)hi << 16 << 16) | lo);

	san_after_enter(c);
	ctx_leave(c);		/* created: wait for the first ctx_enter() */
	for (;;) {
		c->fn(c->arg);
		c->finished = true;
		ctx_leave(c);
	}
}

static void ctx_free(struct ctx *c)
{
	san_free(c);
	munmap(c->map, CTX_GUARD_BYTES + CTX_STACK_BYTES);
	free(c);
}

/* Lets the new stack run up to the ctx_leave() in trampoline(). */
static int ctx_first_enter(struct ctx *c)
{
	struct ctx_pool *p = c->pool;
	struct ctx_pool outer = *p;
	ucontext_t uc, back;

	/* Called from inside a coroutine too: where the scheduler itself stands must survive that. */
	if (getcontext(&uc) < 0)
		return -errno;
	uc.uc_link = NULL;
	uc.uc_stack.ss_sp = ctx_stack(c);
	uc.uc_stack.ss_size = CTX_STACK_BYTES;
	uc.uc_stack.ss_flags = 0;
	makecontext(&uc, (void (*)(void))trampoline, 2, (unsigned int)((uintptr_t)c >> 16 >> 16),
		    (unsigned int)(uintptr_t)c);
	if (!sigsetjmp(p->env, 0)) {
		san_before_enter(c);
		swapcontext(&back, &uc);	/* comes back through p->env */
	}
	san_after_leave(p);
	*p = outer;
	return 0;
}

static struct ctx *ctx_new(struct ctx_pool *p)
{
	size_t len = CTX_GUARD_BYTES + CTX_STACK_BYTES;
	struct ctx *c = calloc(1, sizeof(*c));

	if (!c)
		return NULL;
	c->pool = p;
	c->map = mmap(NULL, len, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK | MAP_NORESERVE,
		      -1, 0);
	if (c->map == MAP_FAILED) {
		free(c);
		return NULL;
	}
	san_new(c);
	if (mprotect(ctx_stack(c), CTX_STACK_BYTES, PROT_READ | PROT_WRITE) < 0 ||
	    ctx_first_enter(c) < 0) {
		ctx_free(c);
		return NULL;
	}
	return c;
}

struct ctx *ctx_get(struct ctx_pool *p, void (*fn)(void *arg), void *arg)
{
	struct ctx *c;

	if (p->n_free) {
		c = cds_list_first_entry(&p->free, struct ctx, node);
		cds_list_del(&c->node);
		p->n_free--;
	} else {
		c = ctx_new(p);
		if (!c)
			return NULL;
	}
	c->fn = fn;
	c->arg = arg;
	c->finished = false;
	return c;
}

void ctx_put(struct ctx *c)
{
	struct ctx_pool *p = c->pool;

	csv_assert(c->finished);
	if (p->n_free >= CTX_POOL_MAX) {
		ctx_free(c);
		return;
	}
	cds_list_add(&c->node, &p->free);	/* the warmest stack first */
	p->n_free++;
}

void ctx_abandon(struct ctx *c)
{
	ctx_free(c);
}

void ctx_pool_init(struct ctx_pool *p)
{
	*p = (struct ctx_pool){ .n_free = 0 };
	CDS_INIT_LIST_HEAD(&p->free);
}

void ctx_pool_done(struct ctx_pool *p)
{
	struct ctx *c, *tmp;

	cds_list_for_each_entry_safe(c, tmp, &p->free, node)
		ctx_free(c);
	CDS_INIT_LIST_HEAD(&p->free);
	p->n_free = 0;
}
