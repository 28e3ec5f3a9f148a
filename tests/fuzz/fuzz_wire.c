/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * fuzz_wire.c - decoders of what nodes send each other, alone: lock manager, mesh frames, the exchange before a link is up, leases.
 */
#include <stdlib.h>

#include "dlm/dlm_internal.h"
#include "migrator/lease.h"
#include "tests/fuzz/fuzz.h"
#include "utils/base/crc32c.h"
#include "utils/env/mesh.h"
#include "utils/env/mesh_frame.h"
#include "utils/env/real_link_auth.h"

/* ---- lock manager ----------------------------------------------------------------------------------------------------------------- */

static void dlm_sample(struct fuzz_input *in)
{
	struct dlm_msg m = { .type = 1 + csv_prng_below(in->prng, DLM_M_SERVICE_END - 1), .reqid = csv_prng_u64(in->prng), .node = 2, .gen = 7 };
	struct csv_cursor c;

	if (csv_prng_chance(in->prng, 1, 4))
		m.type = DLM_M_REG + csv_prng_below(in->prng, DLM_M_LIST_END - DLM_M_REG);
	m.mode = m.type == DLM_M_DOWN ? DLM_CR : DLM_EX;
	m.name.len = 1 + csv_prng_below(in->prng, DLM_NAME_MAX);
	csv_prng_bytes(in->prng, m.name.b, m.name.len);
	if (m.type == DLM_M_GRANT || m.type == DLM_M_DOWN || m.type == DLM_M_REPORT)
		m.flags = csv_prng_chance(in->prng, 1, 2) ? DLM_F_LVB : 0;
	csv_cursor_init(&c, in->b, FUZZ_ROOM);
	dlm_header_encode(&c, m.type, 0, (struct ring_id){ 1, 77 });
	for (uint64_t n = m.type >= DLM_M_REG ? csv_prng_below(in->prng, 4) : 1; n; n--)
		dlm_body_encode(&c, &m);
	dlm_header_finish(&c);
	in->len = csv_cur_used(&c);
}

static bool dlm_run(struct fuzz_input *in)
{
	bool seal = csv_prng_chance(in->prng, 3, 4), taken = false;
	struct dlm_header h;
	struct csv_cursor c;
	struct dlm_msg m;
	void *p;

	if (seal && in->len >= DLM_HEADER_BYTES)
		*(struct le32 *)(in->b + 4) = le32_of((uint32_t)in->len);
	p = fuzz_exact(in);
	if (!dlm_header_decode(p, in->len, &c, &h)) {
		while (csv_cur_left(&c) && !dlm_body_decode(&c, h.type, &m)) {
			uint8_t again[DLM_ENTRY_BYTES_MAX];
			struct csv_cursor w;

			csv_assert(m.name.len && m.name.len <= DLM_NAME_MAX && m.mode <= DLM_EX);
			csv_cursor_init(&w, again, sizeof(again));
			dlm_body_encode(&w, &m);
			csv_assert(!memcmp(again, c.begin + csv_cur_used(&c) - csv_cur_used(&w), csv_cur_used(&w)));
			taken = true;
		}
	}
	free(p);
	return taken;
}

static void past_sample(struct fuzz_input *in)
{
	struct dlm_past *p = calloc(1, sizeof(*p));
	struct csv_cursor c;

	csv_assert(p);
	p->n_cand = csv_prng_below(in->prng, 3);
	for (uint32_t i = 0; i < p->n_cand; i++)
		p->cand[i] = (struct cluster_view){ .ring = { 2, (1ull << 30) + i }, .n = 2, .m = { { 1, 10 }, { 2, 20 } } };
	p->n_amnesia = csv_prng_below(in->prng, 3);
	for (uint32_t i = 0; i < p->n_amnesia; i++)
		p->amnesia[i] = (struct dlm_amnesia){ .ring = { 1, 7 }, .n = 2, .m = { { 1, 10 }, { 2, 20 } }, .gone = 3, .n_suspect = 1,
						      .suspect = { { 1, 10 } } };
	for (uint64_t n = csv_prng_below(in->prng, 5); n; n--)
		dlm_lost_set(&p->lost, (struct cluster_node){ (uint32_t)n, 100 + n }, DLM_FENCED);
	csv_cursor_init(&c, in->b, FUZZ_ROOM);
	dlm_past_encode(&c, p);
	csv_assert(!csv_cur_error(&c));
	in->len = csv_cur_used(&c);
	free(p);
}

static bool past_run(struct fuzz_input *in)
{
	struct dlm_past *p = calloc(1, sizeof(*p));
	void *buf = fuzz_exact(in);
	struct csv_cursor c;
	bool taken;

	csv_assert(p);
	csv_cursor_init_ro(&c, buf, in->len);
	taken = !dlm_past_decode(&c, p);
	if (taken)
		csv_assert(p->n_cand <= DLM_CAND_MAX && p->n_amnesia <= DLM_AMNESIA_MAX && p->lost.n <= DLM_LOST_MAX);
	free(buf);
	free(p);
	return taken;
}

/* ---- mesh ------------------------------------------------------------------------------------------------------------------------- */

static void frame_sample(struct fuzz_input *in)
{
	struct mesh_frame f = { .version = PROTO_MESH.max, .type = MESH_DATA, .chan = CHAN_DLM, .lockspace = 5, .ring = { 1, 9 }, .from = 2, .incarnation = 3, .seq = 4, .ack = 5,
				.len = csv_prng_below(in->prng, 300) };

	csv_prng_bytes(in->prng, in->b + MESH_HEADER_BYTES, f.len);
	if (csv_prng_chance(in->prng, 1, 4)) {
		f.type = MESH_ACK;
		f.seq = f.len = 0;
	}
	mesh_frame_encode(&f, csv_crc32c(0, in->b + MESH_HEADER_BYTES, f.len), in->b);
	in->len = MESH_HEADER_BYTES + f.len;
}

static bool frame_run(struct fuzz_input *in)
{
	struct mesh_frame f;
	bool taken;
	void *p;

	if (in->len >= MESH_HEADER_BYTES && csv_prng_chance(in->prng, 7, 8)) {	/* length and checksum made right */
		struct le32 v = le32_of((uint32_t)in->len);

		memcpy(in->b + 12, &v, sizeof(v));
		memset(in->b + 8, 0, 4);
		v = le32_of(csv_crc32c(csv_crc32c(0, in->b + MESH_HEADER_BYTES, in->len - MESH_HEADER_BYTES), in->b, MESH_HEADER_BYTES));
		memcpy(in->b + 8, &v, sizeof(v));
	}
	p = fuzz_exact(in);
	taken = !mesh_frame_decode(p, in->len, &f);
	if (taken)
		csv_assert(f.msg + f.len == (uint8_t *)p + in->len && f.chan < CHAN_MAX && f.incarnation);
	free(p);
	return taken;
}

/* ---- who is there ----------------------------------------------------------------------------------------------------------------- */

static struct auth auth_a = { .lockspace = 5, .self = 1, .mesh = { 1, 3 }, .messages = { 2, 2 } };
static struct auth auth_b = { .lockspace = 5, .self = 2, .mesh = { 3, 4 }, .messages = { 1, 9 } };
static struct auth_talk talk_a, talk_b;

static void auth_sample(struct fuzz_input *in)
{
	csv_assert(!auth_hello(&auth_a, &talk_a, 2) && !auth_got_hello(&auth_b, &talk_b, talk_a.hello));
	if (csv_prng_chance(in->prng, 1, 2)) {
		memcpy(in->b, talk_a.hello, AUTH_HELLO_BYTES);
		in->len = AUTH_HELLO_BYTES;
	} else {
		memcpy(in->b, talk_b.answer, AUTH_ANSWER_BYTES);
		in->len = AUTH_ANSWER_BYTES;
	}
}

static bool auth_run(struct fuzz_input *in)
{
	bool taken = false, whole = in->len == AUTH_ANSWER_BYTES && !memcmp(in->b, talk_b.answer, AUTH_ANSWER_BYTES);
	uint8_t proof[AUTH_PROOF_BYTES];
	void *p = fuzz_exact(in);

	if (in->len == AUTH_HELLO_BYTES) {
		taken = !auth_got_hello(&auth_b, &talk_b, p);
	} else if (in->len == AUTH_ANSWER_BYTES) {
		taken = !auth_got_answer(&auth_a, &talk_a, p, proof);
		csv_assertf(taken == whole, "a changed answer was believed, or a good one was not");
	}
	free(p);
	return taken;
}

/* ---- leases ----------------------------------------------------------------------------------------------------------------------- */

static void lease_sample(struct fuzz_input *in)
{
	struct lease l = { .vm = "web1", .version = 3, .epoch = 2, .state = LEASE_FREE };
	struct csv_cursor c;

	csv_cursor_init(&c, in->b, FUZZ_ROOM);
	lease_encode(&c, &l);
	in->len = csv_cur_used(&c);
}

static bool lease_run(struct fuzz_input *in)
{
	void *p = fuzz_exact(in);
	struct lease_cas k;
	struct csv_cursor c;
	struct lease l;
	bool taken;

	memset(&l, 0, sizeof(l));
	csv_cursor_init_ro(&c, p, in->len);
	lease_decode(&c, &l);
	taken = !csv_cur_error(&c);
	csv_cursor_init_ro(&c, p, in->len);
	lease_cas_decode(&c, &k);
	free(p);
	return taken;
}

const struct fuzz_decoder fuzz_wire[] = {
	{ .name = "dlm", .sample = dlm_sample, .run = dlm_run },		/* decoder dlm */
	{ .name = "dlm_past", .sample = past_sample, .run = past_run },		/* decoder dlm_past */
	{ .name = "mesh", .sample = frame_sample, .run = frame_run },		/* decoder mesh */
	{ .name = "auth", .sample = auth_sample, .run = auth_run },		/* decoder auth */
	{ .name = "lease", .sample = lease_sample, .run = lease_run },		/* decoder lease */
	{ 0 },
};
