/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * fuzz_text.c - decoders of text: requests and replies of the control sockets, lines between coordinator and host agents, configurations of
 * VMs, QEMU's monitor, corosync.conf, fence.conf.
 */
#include <errno.h>
#include <stdlib.h>

#include "hvhost/agent.h"
#include "hvhost/jline.h"
#include "hvhost/qmp.h"
#include "hvhost/vmconf.h"
#include "tests/fuzz/fuzz.h"
#include "utils/rpc/rpc_msg.h"
#include "utils/env/fence_conf.h"
#include "utils/tools/csvctl_conf.h"

static void put(struct fuzz_input *in, const char *text)
{
	in->len = strlen(text);
	csv_assert(in->len <= FUZZ_ROOM);
	memcpy(in->b, text, in->len);
}

#define PICK(in, texts) put(in, (texts)[csv_prng_below((in)->prng, ARRAY_SIZE(texts))])

static void rpc_sample(struct fuzz_input *in)
{
	static const char *const texts[] = {
		"{\"verb\":\"lock.list\",\"args\":{\"volume\":\"/srv/csv\",\"from\":10}}", "{\"verb\":\"volume.show\"}",
		"{\"api\":\"csvctl/v1\",\"kind\":\"lock\",\"items\":[{\"a\":1}],\"warnings\":[\"w\"]}",
		"{\"api\":\"csvctl/v1\",\"kind\":\"vm\",\"items\":[],\"warnings\":[],\"code\":3,\"message\":\"none\"}",
	};

	PICK(in, texts);
}

static bool rpc_run(struct fuzz_input *in)
{
	struct csv_err err = CSV_ERR_INIT;
	void *p = fuzz_exact(in);
	struct rpc_request r;
	bool taken = false;
	json_t *reply;

	if (!rpc_request_decode(p, in->len, &r, &err)) {
		rpc_request_done(&r);
		taken = true;
	} else {
		csv_assert(err.text[0]);
	}
	if (!rpc_reply_decode(p, in->len, &reply, &err)) {
		json_decref(reply);
		taken = true;
	}
	free(p);
	return taken;
}

static void agent_sample(struct fuzz_input *in)
{
	json_t *o = NULL;
	size_t len;
	char *s;

	switch (csv_prng_below(in->prng, 3)) {
	case 0:
		o = agent_cmd_new("lease", 17, 0xfedcba9876543210ull, json_pack("{s:s, s:o}", "vm", "web1", "txid", agent_u64(~0ull)));
		break;
	case 1:
		o = agent_reply_new(18, RPC_UNSUPPORTED, "no return-path", NULL);
		break;
	default:
		o = agent_event_new("vm", 3, 81234, json_pack("{s:s}", "vm", "db"));
	}
	s = jline_encode(o, &len);
	csv_assert(s && len <= FUZZ_ROOM);
	memcpy(in->b, s, len);
	in->len = len;
	free(s);
	json_decref(o);
}

static bool agent_run(struct fuzz_input *in)
{
	struct csv_err err = CSV_ERR_INIT;
	bool taken = false;
	struct jline j;
	json_t *o;

	jline_init(&j);
	for (size_t at = 0, n; at < in->len; at += n) {		/* in pieces */
		n = csv_min(in->len - at, (size_t)1 + csv_prng_below(in->prng, 60));
		if (jline_feed(&j, in->b + at, n, &err))
			break;
		while (jline_next(&j, &o, &err) == 1) {
			struct agent_msg m;

			if (!agent_msg_decode(o, &m, &err))
				taken = true;
			json_decref(o);
		}
	}
	jline_done(&j);
	return taken;
}

static void vmconf_sample(struct fuzz_input *in)
{
	static const char *const texts[] = {
		"{\"name\":\"web1\",\"uuid\":\"6ba7b810-9dad-11d1-80b4-00c04fd430c8\",\"memory_bytes\":268435456,\"cpus\":2,\"machine\":\"pc-q35-7.2\","
		"\"cpu\":\"qemu64\",\"accel\":\"tcg\",\"disks\":[{\"path\":\"vms/web1/a.vhdx\",\"serial\":\"S1\"},{\"path\":\"iso/x, y.img\","
		"\"read_only\":true},{\"path\":\"vms/web1/b\",\"format\":\"vhd\"}],\"nics\":[{\"bridge\":\"br0\",\"mac\":\"52:54:00:12:34:5f\"}],"
		"\"kernel\":\"kernel.1\",\"initrd\":\"initrd.1\",\"append\":\"console=ttyS0\",\"port\":\"/run/x,y\",\"downtime_ms\":100}",
		"{\"name\":\"web1\",\"want\":\"paused\",\"priority\":7,\"ha\":true,\"newest\":4000000000}",
	};

	PICK(in, texts);
}

static bool vmconf_run(struct fuzz_input *in)
{
	json_t *o = json_loadb((const char *)in->b, in->len, JSON_REJECT_DUPLICATES, NULL);
	struct csv_err err = CSV_ERR_INIT;
	struct vm_conf *c, *again;
	struct vm_def d;
	bool taken = false;

	if (!o)
		return false;
	if (!vmconf_decode(o, &c, &err)) {
		json_t *back = vmconf_encode(c);

		csv_assertf(!vmconf_decode(back, &again, &err), "what was taken is not taken again: %s", err.text);
		csv_assert(!memcmp(c, again, sizeof(*c)));
		json_decref(back);
		free(again);
		free(c);
		taken = true;
	} else {
		csv_assert(err.text[0]);
	}
	taken |= !vmdef_decode(o, &d, &err);
	json_decref(o);
	return taken;
}

/* ---- QEMU's monitor ---------------------------------------------------------------------------------------------------------------- */

static unsigned ended;
static void on_done(struct qmp_cmd *c) { (void)c; ended++; }
static void on_ready(void *arg) { (void)arg; }
static void on_event(void *arg, const char *name, const json_t *data, uint64_t us) { (void)arg; (void)name; (void)data; (void)us; }
static void on_broken(void *arg, const struct csv_err *err) { (void)arg; csv_assert(err->text[0]); }

static void qmp_sample(struct fuzz_input *in)
{
	put(in, "{\"QMP\": {\"version\": {\"qemu\": {\"micro\": 22, \"minor\": 2, \"major\": 7}, \"package\": \"Debian\"}, \"capabilities\": [\"oob\"]}}\r\n"
		"{\"return\": {}, \"id\": 0}\r\n"
		"{\"timestamp\": {\"seconds\": 1, \"microseconds\": 2}, \"event\": \"STOP\", \"data\": {\"n\": 7}}\r\n"
		"{\"return\": {\"n\": 5}, \"id\": 1}\r\n"
		"{\"error\": {\"class\": \"GenericError\", \"desc\": \"no\"}, \"id\": 2}\r\n");
}

static bool qmp_run(struct fuzz_input *in)
{
	struct qmp_events ev = { on_ready, on_event, on_broken, NULL, NULL };
	struct qmp_cmd c[3] = { { .done = on_done }, { .done = on_done }, { .done = on_done } };
	struct qmp *q = qmp_new(&ev);
	unsigned given = 0;
	const char *out;
	bool taken;

	csv_assert(q);
	ended = 0;
	for (size_t i = 0; i < ARRAY_SIZE(c); i++)
		given += !qmp_execute(q, &c[i], "query-status", NULL);
	for (size_t at = 0, n; at < in->len; at += n) {
		n = csv_min(in->len - at, (size_t)1 + csv_prng_below(in->prng, 100));
		qmp_feed(q, in->b + at, n);
		qmp_out_sent(q, qmp_out(q, &out));
	}
	taken = qmp_state(q) == QMP_READY;
	qmp_break(q, "the end");
	csv_assertf(ended == given, "%u of %u commands ended", ended, given);
	qmp_free(q);
	return taken;
}

/* ---- corosync.conf ------------------------------------------------------------------------------------------------------------------ */

static void conf_sample(struct fuzz_input *in)
{
	static struct conf c;
	char *text;

	memset(&c, 0, sizeof(c));
	strcpy(c.cluster, "c-1");
	strcpy(c.cipher, "aes256");
	strcpy(c.hash, "sha256");
	c.token_ms = 1234;
	c.n = 1 + csv_prng_below(in->prng, 4);
	for (unsigned i = 0; i < c.n; i++) {
		c.node[i].nodeid = 7 + i;
		snprintf(c.node[i].name, sizeof(c.node[i].name), "node-%u", i);
		c.node[i].n_addrs = 2;
		snprintf(c.node[i].addr[0], sizeof(c.node[i].addr[0]), "198.18.0.%u", i + 1);
		snprintf(c.node[i].addr[1], sizeof(c.node[i].addr[1]), "fd00::%u", i + 1);
	}
	text = conf_render(&c, "a note");
	put(in, text);
	free(text);
}

static bool conf_run(struct fuzz_input *in)
{
	static struct conf c;
	struct csv_err err = CSV_ERR_INIT;
	char *text = malloc(in->len + 1);
	bool taken;

	csv_assert(text);
	memcpy(text, in->b, in->len);
	text[in->len] = '\0';
	taken = !conf_parse(text, "x", &c, &err);
	csv_assert(taken ? c.n <= ARRAY_SIZE(c.node) : err.text[0]);
	free(text);
	return taken;
}

/* ---- fence.conf ----------------------------------------------------------------------------------------------------------------------- */

static void fence_sample(struct fuzz_input *in)
{
	static const char *const texts[] = {
		"# power\n[node 1]\nagent=/usr/sbin/fence_ipmilan\ntimeout=60\nip=192.0.2.13\nusername=x\n\n[node 3]\nagent = /usr/sbin/fence_virsh\n"
		"plug = n3\nssh=1\n[node 4]\nagent=/a\n", "[node 3]\nagent=/a\ntimeout=3600\n", "; none\n[node 3]\n\tagent=/a b/c\npassword=a=b=c\n",
	};

	PICK(in, texts);
}

/* What is taken says one thing to an agent, which reads it line by line: never which action. */
static bool fence_run_one(struct fuzz_input *in)
{
	struct csv_err err = CSV_ERR_INIT;
	struct fence_conf c;
	void *p = fuzz_exact(in);
	FILE *f = in->len ? fmemopen(p, in->len, "r") : NULL;
	char *line, *rest = c.stdin_keys;
	int rc = f ? fence_conf_parse(f, "fence.conf", 3, &c, &err) : -EINVAL;

	if (f)
		fclose(f);
	free(p);
	if (rc) {
		csv_assert(!f || err.text[0]);
		return false;
	}
	csv_assert(c.agent[0] == '/' && c.timeout_s >= 1 && c.timeout_s <= 3600);
	while ((line = strsep(&rest, "\n")) && rest) {
		csv_assertf(strchr(line, '=') && *line != '=' && !(strcspn(line, " \t=") == 6 && !memcmp(line, "action", 6)) &&
			    line[strcspn(line, "\r\v\f\b\x1b")] == '\0', "to an agent: %s", line);
	}
	csv_assert(!line || !*line);
	return true;
}

const struct fuzz_decoder fuzz_text[] = {
	{ .name = "rpc", .text = true, .sample = rpc_sample, .run = rpc_run },			/* decoder rpc */
	{ .name = "agent", .text = true, .sample = agent_sample, .run = agent_run },		/* decoder agent */
	{ .name = "vmconf", .text = true, .sample = vmconf_sample, .run = vmconf_run },		/* decoder vmconf */
	{ .name = "qmp", .text = true, .sample = qmp_sample, .run = qmp_run },			/* decoder qmp */
	{ .name = "conf", .text = true, .sample = conf_sample, .run = conf_run },		/* decoder conf */
	{ .name = "fence", .text = true, .sample = fence_sample, .run = fence_run_one },	/* decoder fence */
	{ 0 },
};
